package jobstest

import (
	"bytes"
	"fmt"
	"maps"
	"slices"

	"github.com/sidestream-dev/sidestream/jobs"
)

// Store is the keyed state of one step in memory: its tables by name, with an undo log while a record is open. What
// Get, Edit, Scan and Elements give out is a copy that is overwritten by the next call, so that a step that keeps it
// fails its test. It panics at a change made inside Scan or Elements.
type Store struct {
	EntryBytes int // the largest entry, key, sub-key and value; 0 is any

	tables map[string]*table
	undo   []func()
	open   bool
	fast   bool // no copies: for benchmarks
}

// NewStore returns an empty store.
func NewStore() *Store { return &Store{tables: map[string]*table{}} }

// NewFastStore returns an empty store that gives out its own memory and checks nothing: for benchmarks.
func NewFastStore() *Store { return &Store{tables: map[string]*table{}, fast: true} }

// Table returns the table called name.
func (s *Store) Table(name string) jobs.Table {
	t := s.tables[name]
	if t == nil {
		t = &table{store: s, spaces: map[int64]*space{}}
		s.tables[name] = t
	}
	return t
}

// BeginRecord starts to note what is changed.
func (s *Store) BeginRecord() {
	if s.open {
		panic("jobstest: BeginRecord while a record is open")
	}
	s.settle()
	s.open = true
}

// RollbackRecord undoes what was changed since BeginRecord.
func (s *Store) RollbackRecord() {
	s.settle()
	for _, f := range slices.Backward(s.undo) {
		f()
	}
	s.undo = s.undo[:0]
}

// EndRecord keeps what is left of the changes.
func (s *Store) EndRecord() {
	s.settle()
	s.open, s.undo = false, s.undo[:0]
}

// Clone returns a copy with memory of its own: what a snapshot would hold.
func (s *Store) Clone() *Store {
	s.settle()
	c := &Store{EntryBytes: s.EntryBytes, tables: map[string]*table{}, fast: s.fast}
	for name, t := range s.tables {
		ct := c.Table(name).(*table)
		for ns, sp := range t.spaces {
			csp := newSpace()
			for _, k := range sp.live() {
				ck := csp.key(k.group, []byte(k.key))
				if k.has {
					ck.val, ck.has = bytes.Clone(k.val), true
				}
				for _, e := range k.elements {
					if !e.gone {
						ck.element(e.sub, bytes.Clone(e.val))
					}
				}
			}
			ct.spaces[ns] = csp
		}
	}
	return c
}

// Entries counts the entries of all tables.
func (s *Store) Entries() int {
	n := 0
	for _, t := range s.tables {
		for _, sp := range t.spaces {
			for _, k := range sp.live() {
				if k.has {
					n++
				}
				n += k.live
			}
		}
	}
	return n
}

func (s *Store) settle() {
	for _, t := range s.tables {
		t.settle()
	}
}

func (s *Store) note(f func()) {
	if s.open {
		s.undo = append(s.undo, f)
	}
}

// table is one named state.
type table struct {
	store    *Store
	spaces   map[int64]*space
	lent     []byte // the copy given out last
	editing  *keyed // what an Edit copy goes back to, nil if it is an element's
	element  *element
	scanning int
}

// space is one namespace.
type space struct {
	byKey map[string]*keyed
	order []*keyed
}

// keyed is what a key has in a namespace.
type keyed struct {
	group    uint8
	key      string
	val      []byte
	has      bool // the value is there
	bySub    map[string]*element
	elements []*element
	live     int // elements that are there
}

type element struct {
	sub, val []byte
	gone     bool
}

func newSpace() *space { return &space{byKey: map[string]*keyed{}} }

func (sp *space) key(group uint8, key []byte) *keyed {
	k := sp.byKey[string(key)]
	if k == nil {
		k = &keyed{group: group, key: string(key)}
		sp.byKey[k.key] = k
		sp.order = append(sp.order, k)
	}
	return k
}

// live lists the keys that have entries, in the order in which they were added.
func (sp *space) live() []*keyed {
	var out []*keyed
	for _, k := range sp.order {
		if k.has || k.live > 0 {
			out = append(out, k)
		}
	}
	return out
}

func (k *keyed) element(sub, val []byte) *element {
	e := &element{sub: bytes.Clone(sub), val: val}
	if k.bySub == nil {
		k.bySub = map[string]*element{}
	}
	k.bySub[string(sub)] = e
	k.elements = append(k.elements, e)
	k.live++
	return e
}

// settle takes back what was given out: an edited copy goes to its entry, and the copy is made useless.
func (t *table) settle() {
	switch {
	case t.editing != nil:
		copy(t.editing.val, t.lent)
	case t.element != nil:
		copy(t.element.val, t.lent)
	}
	t.editing, t.element = nil, nil
	for i := range t.lent {
		t.lent[i] = 0xEE
	}
	t.lent = nil
}

func (t *table) lend(val []byte) []byte {
	if t.store.fast {
		return val
	}
	t.lent = append(make([]byte, 0, len(val)), val...)
	return t.lent
}

func (t *table) mutating() {
	if t.scanning > 0 {
		panic("jobstest: the table is changed inside Scan or Elements")
	}
	if !t.store.fast {
		t.settle()
	}
}

func (t *table) reading() {
	if !t.store.fast {
		t.settle()
	}
}

func (t *table) Get(group uint8, key []byte, ns int64, sub []byte) ([]byte, bool) {
	t.reading()
	sp := t.spaces[ns]
	if sp == nil {
		return nil, false
	}
	k := sp.byKey[string(key)]
	if k == nil {
		return nil, false
	}
	if sub == nil {
		if !k.has {
			return nil, false
		}
		return t.lend(k.val), true
	}
	e := k.bySub[string(sub)]
	if e == nil {
		return nil, false
	}
	return t.lend(e.val), true
}

func (t *table) at(group uint8, key []byte, ns int64) *keyed {
	if !t.store.fast && group != jobs.GroupOf(key) {
		panic(fmt.Sprintf("jobstest: group %d given for key %q, which is of %d", group, key, jobs.GroupOf(key)))
	}
	sp := t.spaces[ns]
	if sp == nil {
		sp = newSpace()
		t.spaces[ns] = sp
	}
	return sp.key(group, key)
}

// tooLarge is what a step's change of state panics with, as with runtime's store.
type tooLarge struct{ bytes, max int }

func (e *tooLarge) RecordFault() {}

func (e *tooLarge) Error() string {
	return fmt.Sprintf("jobstest: an entry of %d bytes; at most %d fit", e.bytes, e.max)
}

func (t *table) limit(key, sub []byte, size int) {
	if n := len(key) + len(sub) + size; t.store.EntryBytes > 0 && n > t.store.EntryBytes {
		panic(&tooLarge{n, t.store.EntryBytes})
	}
}

func (t *table) Put(group uint8, key []byte, ns int64, sub, val []byte) {
	t.limit(key, sub, len(val))
	if !t.store.fast {
		val = bytes.Clone(val) // it may be what Get gave
	}
	t.mutating()
	t.put(t.at(group, key, ns), sub, append([]byte(nil), val...))
}

func (t *table) put(k *keyed, sub, val []byte) {
	if sub == nil {
		if t.store.open {
			old, had := bytes.Clone(k.val), k.has
			t.store.note(func() { k.val, k.has = old, had })
		}
		k.val, k.has = val, true
		return
	}
	if e := k.bySub[string(sub)]; e != nil {
		if t.store.open {
			old := bytes.Clone(e.val)
			t.store.note(func() { e.val = old })
		}
		e.val = val
		return
	}
	e := k.element(sub, val)
	t.store.note(func() { k.remove(e) })
}

func (k *keyed) remove(e *element) {
	e.gone = true
	delete(k.bySub, string(e.sub))
	k.live--
	if len(k.elements) > 2*k.live+16 {
		k.elements = slices.DeleteFunc(k.elements, func(e *element) bool { return e.gone })
	}
}

func (t *table) Edit(group uint8, key []byte, ns int64, sub []byte, size int) ([]byte, bool) {
	t.limit(key, sub, size)
	t.mutating()
	k := t.at(group, key, ns)
	if sub == nil {
		fresh := !k.has || len(k.val) != size
		if fresh {
			t.put(k, nil, make([]byte, size))
		} else if t.store.open {
			t.put(k, nil, bytes.Clone(k.val))
		}
		if !t.store.fast {
			t.editing = k
		}
		return t.lend(k.val), fresh
	}
	e := k.bySub[string(sub)]
	fresh := e == nil || len(e.val) != size
	if fresh {
		t.put(k, sub, make([]byte, size))
	} else {
		t.put(k, sub, bytes.Clone(e.val))
	}
	e = k.bySub[string(sub)]
	if !t.store.fast {
		t.element = e
	}
	return t.lend(e.val), fresh
}

func (t *table) Delete(group uint8, key []byte, ns int64, sub []byte) {
	t.mutating()
	sp := t.spaces[ns]
	if sp == nil || sp.byKey[string(key)] == nil {
		return
	}
	k := sp.byKey[string(key)]
	if sub == nil {
		old, had := k.val, k.has
		t.store.note(func() { k.val, k.has = old, had })
		k.val, k.has = nil, false
		return
	}
	if e := k.bySub[string(sub)]; e != nil {
		before := slices.Clone(k.elements)
		t.store.note(func() {
			e.gone = false
			k.bySub[string(e.sub)] = e
			k.elements = before
			k.live++
		})
		k.remove(e)
	}
}

func (t *table) Elements(group uint8, key []byte, ns int64, f func(sub, val []byte) bool) {
	t.reading()
	sp := t.spaces[ns]
	if sp == nil || sp.byKey[string(key)] == nil {
		return
	}
	t.scanning++
	defer func() { t.scanning-- }()
	for _, e := range sp.byKey[string(key)].elements {
		if e.gone {
			continue
		}
		sub, val := bytes.Clone(e.sub), bytes.Clone(e.val)
		more := f(sub, val)
		spoil(sub, val)
		if !more {
			return
		}
	}
}

func (t *table) Scan(ns int64, f func(group uint8, key, val []byte) bool) {
	t.reading()
	sp := t.spaces[ns]
	if sp == nil {
		return
	}
	t.scanning++
	defer func() { t.scanning-- }()
	for _, k := range sp.order {
		if !k.has {
			continue
		}
		key, val := []byte(k.key), bytes.Clone(k.val)
		more := f(k.group, key, val)
		spoil(key, val)
		if !more {
			return
		}
	}
}

func spoil(bs ...[]byte) {
	for _, b := range bs {
		for i := range b {
			b[i] = 0xEE
		}
	}
}

func (t *table) Namespaces() []int64 {
	t.reading()
	var out []int64
	for _, ns := range slices.Sorted(maps.Keys(t.spaces)) {
		if len(t.spaces[ns].live()) > 0 {
			out = append(out, ns)
		}
	}
	return out
}

func (t *table) DropNamespace(ns int64) {
	t.mutating()
	sp := t.spaces[ns]
	if sp == nil {
		return
	}
	delete(t.spaces, ns)
	t.store.note(func() { t.spaces[ns] = sp })
}
