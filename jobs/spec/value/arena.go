package value

import "unsafe"

const (
	arenaValues = 512     // values in a chunk: 12 KiB
	arenaBytes  = 4 << 10 // bytes in a chunk
)

// Arena hands out the memory of one batch's rows, chunk by chunk. What it gave out stays valid as long as anyone refers
// to it; the garbage collector frees a chunk when no row of it is left. A nil Arena allocates every piece by itself. An
// Arena is for one goroutine.
type Arena struct {
	vals  []Value
	used  int // values of the chunk that were handed out before a Release; those behind are zero
	bytes []byte
}

// Mark is a place in an Arena to go back to.
type Mark struct {
	vals *Value
	free int
}

// Mark returns the present place.
func (a *Arena) Mark() Mark { return Mark{unsafe.SliceData(a.vals), cap(a.vals) - len(a.vals)} }

// Release takes back the values handed out since m was taken, if they are all in the chunk in use. The caller vouches
// that nobody refers to them: a row that a filter dropped is the case it is for.
func (a *Arena) Release(m Mark) {
	if unsafe.SliceData(a.vals) == m.vals {
		a.used = max(a.used, len(a.vals))
		a.vals = a.vals[:cap(a.vals)-m.free]
	}
}

// Values returns n nil values for the caller to fill.
func (a *Arena) Values(n int) []Value {
	if a == nil || n > arenaValues/4 {
		return make([]Value, n)
	}
	if cap(a.vals)-len(a.vals) < n {
		a.vals, a.used = make([]Value, 0, arenaValues), 0
	}
	at := len(a.vals)
	a.vals = a.vals[:at+n]
	if at < a.used {
		clear(a.vals[at:])
	}
	return a.vals[at : at+n : at+n]
}

// Room returns an empty slice with room for n bytes. Append to it, then [Arena.Keep] it, before Room is called again.
func (a *Arena) Room(n int) []byte {
	if a == nil || n > arenaBytes/4 {
		return make([]byte, 0, n)
	}
	if cap(a.bytes)-len(a.bytes) < n {
		a.bytes = make([]byte, 0, arenaBytes)
	}
	return a.bytes[len(a.bytes):]
}

// Keep returns b, filled since [Arena.Room] returned it, as a string that stays.
func (a *Arena) Keep(b []byte) string {
	if len(b) == 0 {
		return ""
	}
	if a != nil && len(b) <= cap(a.bytes)-len(a.bytes) {
		if rest := a.bytes[len(a.bytes):cap(a.bytes)]; unsafe.SliceData(rest) == unsafe.SliceData(b) {
			a.bytes = a.bytes[:len(a.bytes)+len(b)]
		}
	}
	return unsafe.String(unsafe.SliceData(b), len(b))
}
