// Package file reads the records of files, and writes them, whole lines at a time.
//
//	file.Source{Path: "readings/*.jsonl"}
//	file.Sink{Path: "out/alerts.jsonl"}
//
// # Source
//
// Every file that Path matches when an attempt begins is a split, in the order of their names; its ID and topic are the
// path as matched, its partition is 0. Offsets are line numbers, from 1 (of a followed file: from where reading began). A file is
// read to its end and is then done: what is appended later is not seen, unless it is followed.
//
//   - jsonl: one JSON value a line; lines with nothing but spaces are passed over.
//   - lines: every line is a record, also an empty one.
//   - csv: RFC 4180 with a header record. A record becomes a JSON object of strings named by the header. One that does
//     not fit its header keeps its raw bytes, which are no JSON, and has the reason in the header csv-error: so decoding it
//     fails and on_error decides.
//
// A line ends with LF or CRLF; the last needs neither. A byte order mark at the beginning is passed over.
//
// A file whose name ends in .gz or .zst is unpacked: several members or frames, one behind the other, are one text. Places are
// counted in bytes of text. So to go on in the middle (after a restart, or where more than OpenFiles are read side by side) all
// of the text before has to be unpacked again. Data that ends in the middle, or is damaged, is an error, never the end.
//
// With Follow a file is read on as it grows, looked at every Poll. A line without its end waits for it. A split is then a path, not
// a file: when another file stands there (at two looks in a row, with nothing more written to the old one) the old one's last line
// is taken, and reading goes on in the new one; the position moves with it. A file that was cut short (it is smaller, or has other
// bytes before the place) is read from its beginning. Between two attempts the file of the position is found by device and inode,
// also under another name of its folder. What is lost: files that were rotated away whole between two looks, what was cut off
// before it was seen, and a file that is gone when the job comes back, which is logged. A pattern that also matches the names of
// rotated files would read them twice and is an error when that is seen.
//
// A position is the place behind the last record, with checksums of bytes before it, so that a file that was cut short or
// replaced is told from the one that was read:
//
//	+------------+------------+----------+-----------+----------+----------+----------+---------+---------+
//	| version u8 | offset u64 | line u64 | headN u32 | head u32 | tailN u8 | tail u32 | dev u64 | ino u64 |   little-endian
//	+------------+------------+----------+-----------+----------+----------+----------+---------+---------+
//
// with device and inode in version 2 alone, of a followed file.
//
// head is the CRC-32C of the first headN bytes of the file (for csv the whole header record), tail that of the tailN bytes
// before offset.
//
// # Sink
//
// A sink writes each record's value as a line, fsyncs the file (and when it is new its directories) and only then returns.
// Its state is the length it has committed, with a checksum of the bytes before it:
//
//	+------------+------------+----------+----------+
//	| version u8 | length u64 | tailN u8 | tail u32 |   little-endian
//	+------------+------------+----------+----------+
//
// A sink whose path ends in .gz compresses each write to a member of its own, whole before it counts; it is cut back to the
// committed length at either delivery. Small writes compress badly.
//
// Opened again, exactly_once cuts the file back to that length; at_least_once cuts a torn last line and nothing else. A
// file that is shorter, has other bytes there, or is not empty where there is no state, stops the output; so does one that
// exactly_once would cut back where a repair of the log removed records.
//
// Readers and writers are each used by one goroutine; a reader of followed files has one more, which ends with Close.
package file
