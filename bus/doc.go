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
// offset begins at the generation that holds it, whose catalog has the offsets and tables as of there. So does one whose
// frame due was dropped: it had passed the records, and the table says what the marks came to. A part lies in the
// generation of the epoch's last frame.
//
// # Memory
//
// The newest items are in memory: all that is not durable, and Config.MemoryBytes of what is, a topic. A reader takes items
// from there as long as none that it lacks has gone; then it reads the log until it has come to the newer half of what is in
// memory, or to the end of what is durable. It may read a frame before Publish has told of it.
//
// # Topic store
//
// What topics need of the log's oldest generations is copied, before they go, into a folder of each partition's, DIR/topic/
// partition: [Bus.PlanCopy], [CopyPlan.Run] on a goroutine of its own, then a frame that says what the store holds, then
// [Bus.ApplyStore] and [Bus.Dropped]. Whole publications and all marks are copied, in order; marks that only move watermarks on
// are joined where no record lies between. What a frame has said is on disk; what files hold beyond it counts for nothing, and
// goes when the store is opened ([Bus.OpenStore]) or copied to again. Damage is a [SegmentError].
//
// A reader whose place lies before the log's oldest frame reads the store up to where that is covered, then the log, then
// memory. [Bus.Trim] and [Bus.Purge] let whole segments go; a reader that has one open reads it to its end.
//
// A start by time ([Bus.Resolve]) means event time, which is what users see in records.
//
//	00000000000000000052.seg    named by the first frame of which it holds something
//	+--------+-------+-- … --+-------+---------+
//	| header | table | …     | index | trailer |   index and trailer once it is complete; every 64 KiB another table
//	+--------+-------+-- … --+-------+---------+
//
// The layouts of header, entries and trailer stand over their encoders (segment.go).
//
// # Bytes
//
// u is an unsigned varint, z a zigzag varint, both in their shortest form; the rest is u8. Each layout stands over its encoder.
//
// A section of kind [SectionRecords], owner the topic, holds a publication's records, one behind the other ([Builder.Append]):
//
//	+-------+---------+-------------------+---------------------+------------------------------------------------+
//	| flags | delta z | key: u, its bytes | value: u, its bytes | headers u, each: name u, bytes, value u, bytes |
//	+-------+---------+-------------------+---------------------+------------------------------------------------+
//
//	flags   1 it has a time, 2 a key, 4 headers, 8 no value; what is not there takes no bytes
//	delta   of the time to the one before in the section, of the first to 0
//
// A section of kind [SectionIndex], in an epoch's last frame or that of a change of jobs, says what it publishes ([AppendIndex]):
//
//	+-------------+---------+------------------------------------------------------------------+
//	| version = 2 | pubs u  | each: topic, partition, count, base, bytes, part, section u,     |
//	|             |         |       latest: its highest event time, zigzag + 1 as u, 0 is none |
//	+-------------+---------+------------------------------------------------------------------+
//	              | marks u | each: topic u, producer u, flags [watermark z]                   |
//	              +---------+------------------------------------------------------------------+
//
//	part    LSN of the frame that holds the section; 0 is the frame of the index
//	flags   1 idle, 2 join, 4 leave, 8 a watermark follows
//
// A subscription's place in a partition, opaque in an epoch's header ([AppendSubState]):
//
//	+-------------+-------------+--------+---------+-----------+---------------------+------------------------------------+
//	| version = 2 | partition u | next u | marks u | dropped u | flags [watermark z] | [ranges u, each: from u, length u] |
//	+-------------+-------------+--------+---------+-----------+---------------------+------------------------------------+
//	| n u | each: producer u, flags [watermark z] |
//	+-----+---------------------------------------+
//
//	dropped  records that its readers went over since it began, as the topic drops the oldest; ranges are the newest of these
//	flags    1 idle, 8 a watermark follows, of the place itself also 16 ranges follow; producers in ascending order
//
// The bus's part of a catalog is JSON, with a version ([Bus.AppendCatalog]).
package bus
