package jobs

// Table is one named keyed state of one step in one subtask. An entry is addressed by a key, a namespace (a window's
// start, or 0) and a sub-key (an element of a list or map; nil for the value itself). The entry is the unit of the log: what
// changed in an epoch is written whole, so a key with a million elements costs only the ones that changed.
//
// A Table is owned by its subtask's goroutine. Methods panic with the attempt's end when the attempt is over; runtime
// catches that. Put and Edit panic with a [RecordFault] for an entry beyond the limit, before anything has changed.
type Table interface {
	// Get returns an entry's value; it is valid until the next call and must not be changed.
	Get(group uint8, key []byte, ns int64, sub []byte) (val []byte, ok bool)
	// Put stores a copy of val.
	Put(group uint8, key []byte, ns int64, sub, val []byte)
	// Edit returns the entry's bytes to be changed in place until the next call. An entry that is absent, or has another
	// length, is made size zero bytes first, and fresh is true.
	Edit(group uint8, key []byte, ns int64, sub []byte, size int) (val []byte, fresh bool)
	// Delete removes an entry; with sub == nil the value alone, not its elements.
	Delete(group uint8, key []byte, ns int64, sub []byte)
	// Elements calls f for each sub-key of a key, in the order in which they were added, until f returns false.
	// f must not change the table.
	Elements(group uint8, key []byte, ns int64, f func(sub, val []byte) bool)
	// Scan calls f for each value entry (sub == nil) of a namespace, in the order in which they were added, until f
	// returns false. f must not change the table.
	Scan(ns int64, f func(group uint8, key, val []byte) bool)
	// Namespaces returns the namespaces that hold entries, ascending.
	Namespaces() []int64
	// DropNamespace removes a namespace with all its entries; it counts as one entry in the log.
	DropNamespace(ns int64)
}
