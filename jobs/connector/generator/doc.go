// Package generator makes records up: the same ones for the same settings, at any pace.
//
//	generator.Source{Rate: 1000}                  // a thousand sensor readings a second, for ever
//	generator.Source{Count: 1e6, Partitions: 4}       // a million as fast as they are taken
//	generator.Source{Template: `{"n":${n},"at":${ts}}`}
//
// Record n of a split depends on the seed, the split and n alone, so that a position, the next n, is exact:
//
//	+------------+-------+-----------+
//	| version u8 | n u64 | start i64 |   little-endian; start is the event time of record 0 in milliseconds
//	+------------+-------+-----------+
//
// Event time of record n is start + n ÷ EventRate. Records are JSON; their key is the device; the built-in shape is a sensor's reading of about 240 bytes:
//
//	{"device":"device-00042","kind":"temperature","ts":1767225600000,"reading":57.31,"seq":7,"site":"plant-07",
//	 "line":"L3","fw":"2.14.9","battery":0.83,"lat":52.51234,"lon":13.40123,"tags":["a","b"],"status":"ok","note":"…"}
//
// A Template is text with ${n}, ${split}, ${ts} (milliseconds), ${time} (RFC 3339), ${device}, ${kind}, ${reading} and
// ${random} (a whole number) in it.
//
// A reader is used by one goroutine; a timer of its own wakes it when records are due.
package generator
