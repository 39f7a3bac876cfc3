// Package checkpoint says what a job has committed: its epochs, the keyed state behind them, and its snapshots.
//
// A [Store] keeps the keyed state of one subtask in memory. At a barrier [Store.Cut] hands over what the epoch changed as
// one section body, a piece; [Store.Sealed] says that the epoch has its place in the log, [Store.Revert] that it never
// will. A [Coordinator] decides when barriers are sent and which epochs are complete; it is a pure function of events and
// times. A [Header] is what an epoch says beside state and records. A snapshot file holds a job's whole state at an epoch.
//
// # Guarantee
//
// What a Store held at an epoch is rebuilt, order of entries included, by applying the pieces of all epochs up to it in
// order, or the chunks of a [Scan] followed by the pieces of the epochs sealed since the scan began.
//
// # Concurrency
//
// A Store, its Tables and its Scan belong to one goroutine, save Fence, which any goroutine may call, and Successor, which
// the caller of Fence may. A Coordinator, a SnapshotWriter and a SnapshotReader have no lock either. No goroutine is
// started here.
//
// # Plan
//
//	epoch.go        Epoch, section kinds
//	header.go       Header and its encoding
//	store.go        Store: epochs, fence, successor
//	table.go        Table: the handles of the operators
//	cells.go        cells, chains and namespaces: the live layer
//	undo.go         what each unsealed epoch changed, and the marks within a record
//	piece.go        the encoding of changed entries; cutting and applying
//	scan.go         reading the sealed layer while the job runs
//	coordinator.go  when a barrier is sent, what is sealed
//	snapshot.go     snapshot files; snapdir.go: which are kept
//
// The live layer holds the newest value of each entry. The first change of an entry in an epoch saves its old bytes in that
// epoch's log; sealing forgets the log, failure walks it backwards, and a scan takes the oldest unsealed bytes of an entry.
//
// A store on disk (Pebble) will take the same pieces by Sealed-then-durable epochs and offer the same Table. What the two
// share is this package's Store methods; the interface is declared where both are used, once there are two.
//
// # Formats
//
// Integers are minimal varints (u), zigzag varints (z) or fixed bytes (b); a string is u length and bytes, an optional one
// u length + 1 and bytes, 0 being absent. A piece is the body of one section of kind [SectionState]:
//
//	+---------+------+--------+------+ ... +
//	| version | lo b | hi-1 b | op   |     |   the subtask's key groups [lo, hi), then operations in order
//	+---------+------+--------+------+ ... +
//	0x01 table      step string, name string
//	0x02 namespace  z difference to the last one in the piece; u entries it holds, a hint
//	0x03 drop       all entries of the namespace whose group is in [lo, hi)
//	0x80 entry      + kind (0 put, 1 put and move to the end, 2 delete) + 4 it has a sub-key + 8 it has the last key
//	                [group b, key string] unless 8, [sub string] if 4, [value string] unless delete
//
// A header is the body of one section of kind [SectionHeader]; its layout stands over [AppendHeader]. A snapshot file's
// layout stands over [CreateSnapshot].
package checkpoint
