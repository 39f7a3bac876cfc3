// Package bus is durable topics in one process: records that jobs hand to one another through memory, over one log.
//
// A [Bus] has topics of partitions, each a row of records with dense offsets. One goroutine, the committer's, calls what
// changes it: [Bus.Assign] gives an epoch's records their offsets, [Bus.Publish] makes them visible once their frame has its
// place in the log, [Bus.Durable] says what may leave memory. Any number of [Reader]s, each owned by one goroutine, take
// batches from memory where they are there, else from the log, by positioned reads; the caller does not know which.
// Batches are immutable and shared by all readers. No reader waits for the disk work of the writer, nor for another reader.
//
// # Items
//
// A partition is a row of items in the order of the log: an epoch's records, then the marks that its frame gives the
// topic, which stand in every partition. A mark is a producer's watermark, or that it is idle, joins or leaves. A reader
// keeps the table (producer, last mark) as of its own place; its watermark is the lowest of those that are not idle and never
// goes back.
//
// A [Position] is the next offset and the LSN up to which every frame has been taken wholly, so that reading goes on at
// the frame behind it. What a place in a partition means is thereby known without an index: a reader that starts at an
// offset begins at the generation that holds it, whose catalog has the offsets and tables as of there.
//
// # Bytes
//
// A section of records (kind 0x10, owner the topic) holds those of one partition, one behind the other:
//
//	+-------+------------+-----------------+-------+-------+---------+-----+---------------------------------------+
//	| flags | time delta | key length, key | value length  | value   | n   | n × name length, name, length, value  |
//	| u8    | varint     | uvarint, bytes  | uvarint       | bytes   | u   | (headers)                             |
//	+-------+------------+-----------------+-------+-------+---------+-----+---------------------------------------+
//
//	flags   1: it has a time, the delta to the one before in the section (0 for the first); 2: a key; 4: headers.
//	        What a flag does not announce is not there.
//
// A section of kind 0x11 is the index of an epoch's last frame: version u8 = 1, the number of publications and for each
// topic, partition, count, base offset, bytes, part LSN (0: this frame) and section; then the number of marks and for each
// topic, producer, flags (1 idle, 2 join, 4 leave, 8 it has a watermark) and the watermark. All uvarint, the watermark
// varint.
package bus
