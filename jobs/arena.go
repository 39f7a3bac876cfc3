package jobs

const arenaBytes = 4 << 10

// Arena hands out memory for keys, chunk by chunk. What it gave out stays valid and is never changed by it; the garbage
// collector frees a chunk when nothing refers to it any more. The zero Arena is ready; it is for one goroutine.
type Arena struct{ free []byte }

// Room returns an empty slice to append to, with capacity for n bytes at least; then call Keep with the result.
func (a *Arena) Room(n int) []byte {
	if cap(a.free) < n {
		a.free = make([]byte, 0, max(n, arenaBytes))
	}
	return a.free
}

// Keep takes b, appended to what Room returned, out of the Arena and returns it without spare capacity.
func (a *Arena) Keep(b []byte) []byte {
	if n := len(b); n > 0 && cap(b) == cap(a.free) && &b[0] == &a.free[:1][0] {
		a.free = b[n:n:cap(b)]
	}
	return b[:len(b):len(b)]
}

// Copy returns a copy of b.
func (a *Arena) Copy(b []byte) []byte { return a.Keep(append(a.Room(len(b)), b...)) }
