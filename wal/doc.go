// Package wal is a durable log of whole frames, in order, on disk: the hardening around the engine
// github.com/tidwall/wal.
//
// [Open] a [Log], [Log.Rotate] it once to write its first catalog, then [Log.Append] frames. Append gives a frame its
// LSN and returns at once; the frame is *sealed*. One goroutine owns the engine: it writes what is queued, fsyncs it in
// one group, and only then is it *durable* ([Log.Durable], [Log.WaitDurable], Config.OnDurable). What arrives while an
// fsync runs rides the next. Read back with a [Reader], as many as wanted, none of them behind the writer.
//
// # What it promises
//
// After any crash the log holds every frame that was durable, and perhaps some later ones, never with a hole before
// them (R1, R5). A write or fsync that fails is the log's last word, a [FailedError], until it is opened again (R7).
// Bytes that were durable and have changed since are a [CorruptError], never a frame, and never a shorter log. A read
// error is an error, never an end.
//
// Append, AppendSmall and Rotate may be called from any goroutine, and so may everything else of a Log; a Reader
// belongs to one goroutine at a time.
//
// # On disk
//
// A log owns its directory. Its frames lie in generations, each an engine directory named by the LSN of its first
// frame, which is a catalog; the index of the engine is LSN - first + 1.
//
//	LOCK                          flock; holds the pid of the process that has the log open
//	RESERVE                       space kept for small frames when the disk is full (room.go)
//	00000000000000000001/         a generation: its first LSN
//	    00000000000000000001      a segment of the engine: the index of its first entry
//	    00000000000000000873
//	00000000000000052110/
//	00000000000000000001.drop/    a generation being deleted
//
// A segment is a row of entries: the engine's length (an unsigned varint), then one frame. All numbers of a frame are
// little-endian.
//
//	0       4      5      6       8       24      32        40      44         48       52    56
//	+-------+------+------+-------+--------+------+---------+-------+----------+--------+-----+
//	| magic | ver  | kind | ext   | log id | LSN  | durable | prev  | sections | length | crc |
//	| u32   | u8   | u8   | u16   | 16     | u64  | u64     | u32   | u32      | u32    | u32 |
//	+-------+------+------+-------+--------+------+---------+-------+----------+--------+-----+
//	| extension, ext bytes (catalogs only)                                                    |
//	+-----------------------------------------------------------------------------------------+
//	| table, 16 bytes a section:  kind u8 | 0 0 0 | owner u32 | length u32 | crc-32c u32      |
//	+-----------------------------------------------------------------------------------------+
//	| bodies, one behind the other, in the order of the table                                 |
//	+-----------------------------------------------------------------------------------------+
//
//	magic     "sswl"
//	durable   the last LSN that was durable when this frame was written
//	prev      crc of the frame before; 0 in the first frame of a log
//	length    of the whole frame
//	crc       CRC-32C of the first 52 bytes, the extension and the table; since the table holds the CRC-32C of every
//	          body, it vouches for the whole frame, and a reader of one section checks only that one
//
// The extension of a catalog says what the log was before it, so that [Open] need not read old generations and so that
// an id can change without an old frame being taken for a new one:
//
//	0          4          8       16      24
//	+----------+----------+-------+-------+------------------------------+
//	| segments | list crc | bytes | first | ancestors, 24 bytes each:    |
//	| u32      | u32      | u64   | u64   | log id 16, last LSN kept u64 |
//	+----------+----------+-------+-------+------------------------------+
//
//	segments, list crc, bytes   number, CRC-32C of (index u64, size u64) each, and sum of sizes of the segments of the
//	                            generation before, which never change again
//	first                       the first LSN under this log id; only there may id and LSN jump
//	ancestors                   the ids the log had before, oldest first
//
// A catalog that is too long for one frame goes on in the frames behind its first, of kind 255, without an extension of their
// own. Its extension then ends with their number, a u64. They are written in one group, so that no LSN among them is ever
// durable without the last; a generation whose catalog breaks off is one that was never begun, and is removed like one whose
// only frame is torn.
package wal
