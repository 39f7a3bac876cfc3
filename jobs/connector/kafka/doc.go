// Package kafka reads and writes topics of Apache Kafka, or of anything that speaks its protocol, and can run a small
// broker of its own inside the process.
//
//	kafka.Source{Brokers: []string{"localhost:9092"}, Topics: []string{"readings"}}
//	kafka.Sink{Brokers: []string{"embedded"}, Topic: "alerts"}
//
// # Source
//
// Every partition is a split, called TOPIC/PARTITION. Partitions are read by direct assignment: what counts is the job's
// own position; a group's offsets are only shown to others, once they are durable, and are never read.
//
// Start is resolved to offsets by Splits, at the first connection, and so stands in the job's first epoch. With End
// "latest" so is the end, and the source is bounded by it. An offset that the topic no longer has is never replaced by
// another one: reading fails with a [RangeError]. Nor is a topic that was deleted and made again taken for the old one: that is
// a [ReplacedError], at the latest after Discovery.
//
// Partitions that are added to a topic later are found every Discovery, and at the next start. They are read from their
// beginning whatever Start says, since they were empty when the job had begun. A source with an end has the partitions of its
// first connection alone.
//
// A broker that is away, at the start or midway, is waited for, and told with SourceEnv.Waiting. One that refuses the login
// is not: that is an answer, which fails the read (or the write).
//
// A position:
//
//	+------------+----------+------------+-----------+--------------+---------+
//	| version u8 | flags u8 | offset u64 | epoch i32 | topic id 16B | end u64 |   little-endian; end only where flags&1
//	+------------+----------+------------+-----------+--------------+---------+
//
// offset is the next to read, epoch the leader epoch of the record before it (-1 if unknown), topic id zero where the
// broker gives none.
//
// One goroutine of a reader fetches ahead, up to a bound; Read only turns what is there into messages. Values alias the
// fetched bytes.
//
// # Sink
//
// A sink produces with acks from all replicas and the idempotent producer, waits for every acknowledgement, and keeps the
// order of each partition. A key's partition is the one Java's default partitioner gives it (murmur2); records without
// a key are spread.
//
// With exactly once each Write is one transaction, which holds the records and, as the offset of a group that is the output's
// own (sidestream.LOGID.WORD.JOB.OUTPUT, also its transactional id), the index behind them. Opening the sink shuts out whoever
// sent under that name before and reads the offset: what a committed transaction holds is not sent again. An offset beyond
// what the log knows, or none where there was one, stops the output with the choice. Who reads the topic must read committed
// records only. The embedded broker cannot be trusted with it, and it is refused there.
//
// # Embedded
//
// [Embedded] is a broker for trying things out and for tests: one process, one replica, its topics below one folder, every
// write synced. It does not sync folders, so a topic made just before a power cut may be gone.
package kafka
