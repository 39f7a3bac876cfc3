package jobs

import (
	"encoding/binary"
	"fmt"
	"iter"
)

// Handles are typed views of a step's state under the key of the record, or timer, in hand. What they return are
// copies; nothing changes in state before a Set, Append or Put. The unit of change, and so of the log, is the entry: one
// value, one element of a list, one pair of a map. Handles are made in a step's setup (see Process) and used in its
// functions.

// StateOwner is a step that keeps state: a *Step.
type StateOwner interface{ cursor() *cursor }

// cursor is the key that a step's handles stand at.
type cursor struct {
	env   *Env
	group uint8
	key   []byte
	err   error // the first mistake made in the setup
	names map[string]bool
}

// open returns the table of a state. Its name holds the layout, so that state of another type is never misread.
func (c *cursor) open(name, layout string, err error) Table {
	switch {
	case err != nil:
	case c.names[name]:
		err = fmt.Errorf("there are two of that name")
	default:
		err = CheckName(name)
	}
	if err != nil {
		if c.err == nil {
			c.err = fmt.Errorf("state %q: %w", name, err)
		}
		return nil
	}
	c.names[name] = true
	return c.env.Table(tableName(name, layout))
}

// entryError ends the attempt: state that cannot be read or written is no record's fault.
func (c *cursor) entryError(what string, err error) {
	panic(fmt.Errorf("jobs: state %s of step %s, key %q: %w", what, c.env.Step, c.key, err))
}

// ValueState is one value a key.
type ValueState[T any] struct {
	c       *cursor
	t       Table
	name    string
	codec   StateCodec[T]
	scratch []byte
	x       T // where values are encoded from and decoded to; a local one would be allocated each time
}

// ValueOf opens the value called name of a step. Names are unique within a step.
func ValueOf[T any](o StateOwner, name string) *ValueState[T] {
	codec, err := NewStateCodec[T]()
	v := &ValueState[T]{c: o.cursor(), name: name, codec: codec}
	v.t = v.c.open(name, "value "+codec.plan.textOr(), err)
	return v
}

// Get returns the value, and whether there is one.
func (v *ValueState[T]) Get() (x T, ok bool) {
	b, ok := v.t.Get(v.c.group, v.c.key, 0, nil)
	if !ok {
		return x, false
	}
	v.x = x
	if err := v.codec.Decode(b, &v.x); err != nil {
		v.c.entryError(v.name, err)
	}
	return v.x, true
}

// Set replaces the value.
func (v *ValueState[T]) Set(x T) {
	v.x = x
	b, err := v.codec.Append(v.scratch[:0], &v.x)
	if err != nil {
		v.c.entryError(v.name, err)
	}
	v.scratch = b
	v.t.Put(v.c.group, v.c.key, 0, nil, b)
}

// Update sets the value to what f makes of it; f begins with the zero T where there is none.
func (v *ValueState[T]) Update(f func(x *T)) {
	x, _ := v.Get()
	f(&x)
	v.Set(x)
}

// Clear removes the value.
func (v *ValueState[T]) Clear() { v.t.Delete(v.c.group, v.c.key, 0, nil) }

// ListState is a list a key, that grows at its end and shrinks from its front. Beside its elements, it has an entry
// (first u64 | next u64) that every Append and DropFront writes; an element's sub-key is its number, u64 big-endian.
type ListState[T any] struct {
	c       *cursor
	t       Table
	name    string
	codec   StateCodec[T]
	scratch []byte
	sub     [8]byte
}

// ListOf opens the list called name of a step. Names are unique within a step.
func ListOf[T any](o StateOwner, name string) *ListState[T] {
	codec, err := NewStateCodec[T]()
	l := &ListState[T]{c: o.cursor(), name: name, codec: codec}
	l.t = l.c.open(name, "list "+codec.plan.textOr(), err)
	return l
}

// bounds returns the numbers of the first element and of the one to come.
func (l *ListState[T]) bounds() (first, next uint64) {
	if b, ok := l.t.Get(l.c.group, l.c.key, 0, nil); ok && len(b) == 16 {
		return binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[8:])
	}
	return 0, 0
}

func (l *ListState[T]) setBounds(first, next uint64) {
	if first == next {
		l.t.Delete(l.c.group, l.c.key, 0, nil)
		return
	}
	b, _ := l.t.Edit(l.c.group, l.c.key, 0, nil, 16)
	binary.LittleEndian.PutUint64(b, first)
	binary.LittleEndian.PutUint64(b[8:], next)
}

func (l *ListState[T]) subKey(n uint64) []byte {
	binary.BigEndian.PutUint64(l.sub[:], n)
	return l.sub[:]
}

func (l *ListState[T]) put(n uint64, x *T) {
	b, err := l.codec.Append(l.scratch[:0], x)
	if err != nil {
		l.c.entryError(l.name, err)
	}
	l.scratch = b
	l.t.Put(l.c.group, l.c.key, 0, l.subKey(n), b)
}

// Len returns the number of elements.
func (l *ListState[T]) Len() int {
	first, next := l.bounds()
	return int(next - first)
}

// At returns element i, which must be in 0 ≤ i < Len.
func (l *ListState[T]) At(i int) T {
	first, next := l.bounds()
	return l.get(l.checked(i, first, next))
}

// Set replaces element i, which must be in 0 ≤ i < Len.
func (l *ListState[T]) Set(i int, x T) {
	first, next := l.bounds()
	l.put(l.checked(i, first, next), &x)
}

func (l *ListState[T]) checked(i int, first, next uint64) uint64 {
	if i < 0 || uint64(i) >= next-first {
		panic(fmt.Sprintf("jobs: state %s: element %d of %d", l.name, i, next-first))
	}
	return first + uint64(i)
}

func (l *ListState[T]) get(n uint64) T {
	var x T
	b, ok := l.t.Get(l.c.group, l.c.key, 0, l.subKey(n))
	err := errState
	if ok {
		err = l.codec.Decode(b, &x)
	}
	if err != nil {
		l.c.entryError(l.name, err)
	}
	return x
}

// Append adds an element at the end.
func (l *ListState[T]) Append(x T) {
	first, next := l.bounds()
	l.put(next, &x)
	l.setBounds(first, next+1)
}

// DropFront removes the first n elements, or all if there are fewer.
func (l *ListState[T]) DropFront(n int) {
	first, next := l.bounds()
	end := first + min(uint64(max(n, 0)), next-first)
	for ; first < end; first++ {
		l.t.Delete(l.c.group, l.c.key, 0, l.subKey(first))
	}
	if n > 0 {
		l.setBounds(end, next)
	}
}

// Clear removes all elements.
func (l *ListState[T]) Clear() { l.DropFront(l.Len()) }

// All yields the elements in order. The list may be changed meanwhile: elements added are not seen.
func (l *ListState[T]) All() iter.Seq2[int, T] {
	return func(yield func(int, T) bool) {
		first, next := l.bounds()
		for n := first; n < next; n++ {
			if now, _ := l.bounds(); n < now {
				continue // dropped meanwhile
			}
			if !yield(int(n-first), l.get(n)) {
				return
			}
		}
	}
}

// MapState is a map a key; each pair is an entry, its sub-key 'k' and the pair's key in the layout of state.
type MapState[K comparable, V any] struct {
	c       *cursor
	t       Table
	name    string
	keys    StateCodec[K]
	vals    StateCodec[V]
	sub     []byte
	scratch []byte
}

// MapOf opens the map called name of a step. Names are unique within a step.
func MapOf[K comparable, V any](o StateOwner, name string) *MapState[K, V] {
	keys, err := NewStateCodec[K]()
	vals, errVals := NewStateCodec[V]()
	if err == nil {
		err = errVals
	}
	m := &MapState[K, V]{c: o.cursor(), name: name, keys: keys, vals: vals}
	m.t = m.c.open(name, "map "+keys.plan.textOr()+" "+vals.plan.textOr(), err)
	return m
}

func (m *MapState[K, V]) subKey(k *K) []byte {
	b, err := m.keys.Append(append(m.sub[:0], 'k'), k)
	if err != nil {
		m.c.entryError(m.name, err)
	}
	m.sub = b
	return b
}

// Get returns the value of k, and whether there is one.
func (m *MapState[K, V]) Get(k K) (V, bool) {
	var x V
	b, ok := m.t.Get(m.c.group, m.c.key, 0, m.subKey(&k))
	if ok {
		if err := m.vals.Decode(b, &x); err != nil {
			m.c.entryError(m.name, err)
		}
	}
	return x, ok
}

// Put sets the value of k.
func (m *MapState[K, V]) Put(k K, x V) {
	b, err := m.vals.Append(m.scratch[:0], &x)
	if err != nil {
		m.c.entryError(m.name, err)
	}
	m.scratch = b
	m.t.Put(m.c.group, m.c.key, 0, m.subKey(&k), b)
}

// Delete removes the pair of k.
func (m *MapState[K, V]) Delete(k K) { m.t.Delete(m.c.group, m.c.key, 0, m.subKey(&k)) }

// All yields the pairs in the order in which they were added. It works on a copy: the map may be changed meanwhile.
func (m *MapState[K, V]) All() iter.Seq2[K, V] {
	return func(yield func(K, V) bool) {
		type pair struct {
			k K
			v V
		}
		var pairs []pair
		m.t.Elements(m.c.group, m.c.key, 0, func(sub, val []byte) bool {
			var p pair
			err := m.keys.Decode(sub[1:], &p.k)
			if err == nil {
				err = m.vals.Decode(val, &p.v)
			}
			if err != nil {
				m.c.entryError(m.name, err)
			}
			pairs = append(pairs, p)
			return true
		})
		for _, p := range pairs {
			if !yield(p.k, p.v) {
				return
			}
		}
	}
}

// Len counts the pairs; it takes time in proportion to them.
func (m *MapState[K, V]) Len() int {
	n := 0
	m.t.Elements(m.c.group, m.c.key, 0, func(_, _ []byte) bool { n++; return true })
	return n
}

// Clear removes all pairs.
func (m *MapState[K, V]) Clear() {
	var subs [][]byte
	m.t.Elements(m.c.group, m.c.key, 0, func(sub, _ []byte) bool {
		subs = append(subs, append([]byte(nil), sub...))
		return true
	})
	for _, s := range subs {
		m.t.Delete(m.c.group, m.c.key, 0, s)
	}
}
