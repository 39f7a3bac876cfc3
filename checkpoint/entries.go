package checkpoint

// Entry is one entry of a job's state. Its slices share memory with what it was read from.
type Entry struct {
	Step  string
	Table string
	Space int64 // the namespace: a window's start, or 0
	Group uint8
	Key   []byte
	Sub   []byte // of an element; nil of a value
	Value []byte
}

// Entries calls fn with each entry that a piece, or a scan's chunk, puts. Of a Store's whole state the chunks of a Scan tell:
// an entry stands there once. The error of bytes that are none is a *DecodeError.
func Entries(piece []byte, fn func(Entry) error) error {
	r := newPieceReader(piece)
	var e Entry
	for r.next() {
		switch o := &r.op; {
		case o.op == opTable:
			e.Step, e.Table = string(o.step), string(o.name)
		case o.op == opNamespace, o.op == opDrop, o.op&entryKind == entryDelete:
		default:
			e.Space, e.Group, e.Key, e.Sub, e.Value = o.ns, o.group, o.key, o.sub, o.val
			if err := fn(e); err != nil {
				return err
			}
		}
	}
	return r.d.result("piece")
}
