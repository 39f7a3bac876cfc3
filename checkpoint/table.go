package checkpoint

import "fmt"

// Table is one named keyed state of one step in one subtask; jobs.Table says what its methods mean. They panic with
// ErrFenced when the attempt is over, and with a *TooLargeError for an entry beyond the limit. A key is always given with
// the same group.
type Table struct {
	s *Store
	d *tableData
}

// loop is a call of Elements or Scan under way: the entry that user code looks at, and the copy of its name.
type loop struct {
	cell *cell
	name []byte
}

// Table returns the handle of a table, making it where there is none. It is the same for the same names.
func (s *Store) Table(step, name string) *Table {
	s.enter()
	defer s.leave()
	d := s.table(step, name)
	t := s.handles[d]
	if t == nil {
		if s.handles == nil {
			s.handles = map[*tableData]*Table{}
		}
		t = &Table{s: s, d: d}
		s.handles[d] = t
	}
	return t
}

func (s *Store) table(step, name string) *tableData {
	d := s.byName[tableName{step, name}]
	if d == nil {
		d = &tableData{step: step, name: name, seq: len(s.tables), spaces: map[int64]*space{}}
		s.byName[tableName{step, name}] = d
		s.tables = append(s.tables, d)
	}
	return d
}

// find returns an entry's cell, or nil.
func (t *Table) find(key []byte, ns int64, sub []byte) *cell {
	sp := t.d.space(ns)
	if sp == nil {
		return nil
	}
	if sub == nil {
		return sp.vals.find(key)
	}
	if ch := sp.lists[string(key)]; ch != nil {
		return ch.find(sub)
	}
	return nil
}

// Get returns an entry's value; it is valid until the next call and must not be changed.
func (t *Table) Get(group uint8, key []byte, ns int64, sub []byte) (val []byte, ok bool) {
	s := t.s
	s.enter()
	if c := t.find(key, ns, sub); c != nil {
		s.handed = c
		val, ok = c.val[:len(c.val):len(c.val)], true
	}
	s.leave()
	return val, ok
}

// Put stores a copy of val.
func (t *Table) Put(group uint8, key []byte, ns int64, sub, val []byte) {
	s := t.s
	s.enter()
	c := t.find(key, ns, sub)
	if c == nil || len(c.val) != len(val) {
		c, _ = t.resize(c, group, key, ns, sub, len(val))
	} else {
		t.check(c, group)
		if c.gen != s.gen {
			s.touch(c)
		}
	}
	copy(c.val, val)
	s.leave()
}

// Edit returns the entry's bytes to be changed in place until the next call. An entry that is absent, or has another
// length, is made size zero bytes first, and fresh is true.
func (t *Table) Edit(group uint8, key []byte, ns int64, sub []byte, size int) (val []byte, fresh bool) {
	s := t.s
	s.enter()
	c := t.find(key, ns, sub)
	if c == nil || len(c.val) != size {
		c, fresh = t.resize(c, group, key, ns, sub, size)
		clear(c.val)
	} else {
		t.check(c, group)
		if c.gen != s.gen {
			s.touch(c)
		}
	}
	s.handed = c
	val = c.val[:size:size]
	s.leave()
	return val, fresh
}

// resize makes the entry, which has the cell c if there is one, size arbitrary bytes long.
func (t *Table) resize(c *cell, group uint8, key []byte, ns int64, sub []byte, size int) (*cell, bool) {
	s := t.s
	if n := len(key) + len(sub) + size; n > s.cfg.EntryBytes {
		s.leave()
		panic(&TooLargeError{Step: t.d.step, Table: t.d.name, Bytes: n, Max: s.cfg.EntryBytes})
	}
	if c == nil {
		if int(group) < s.cfg.Lo || int(group) >= s.cfg.Hi {
			s.leave()
			panic(fmt.Sprintf("checkpoint: key group %d is not of [%d, %d)", group, s.cfg.Lo, s.cfg.Hi))
		}
		sp := s.spaceOf(t.d, ns)
		ch, name := &sp.vals, key
		if sub != nil {
			ch, name = sp.list(group, key), sub
		}
		c = s.add(ch, group, name, size)
		s.note(c, born)
		return c, true
	}
	t.check(c, group)
	if c.gen != s.gen {
		s.touch(c)
	}
	sp := c.chain.space
	s.count(sp, 0, size-len(c.val))
	s.dirtyBytes += size - len(c.val)
	if fits(size, cap(c.val)) {
		c.val = c.val[:size]
	} else {
		old := c.val
		c.val = sp.newValue(size)
		sp.freeValue(old)
	}
	return c, true
}

func (t *Table) check(c *cell, group uint8) {
	if c.group != group {
		t.s.leave()
		panic(fmt.Sprintf("checkpoint: a key of group %d was given with group %d", c.group, group))
	}
}

// Delete removes an entry; with sub == nil the value alone, not its elements.
func (t *Table) Delete(group uint8, key []byte, ns int64, sub []byte) {
	s := t.s
	s.enter()
	if c := t.find(key, ns, sub); c != nil {
		t.check(c, group)
		s.note(c, died)
		s.count(c.chain.space, -1, -c.size())
		c.chain.kill(c)
	}
	s.leave()
}

// Elements calls f for each sub-key of a key, in the order in which they were added, until f returns false.
// f must not change the table; what it is given is valid during the call.
func (t *Table) Elements(group uint8, key []byte, ns int64, f func(sub, val []byte) bool) {
	s := t.s
	s.enter()
	var ch *chain
	if sp := t.d.space(ns); sp != nil {
		ch = sp.lists[string(key)]
	}
	s.each(ch, func(_ uint8, name, val []byte) bool { return f(name, val) })
}

// Scan calls f for each value entry (sub == nil) of a namespace, in the order in which they were added, until f
// returns false. f must not change the table; what it is given is valid during the call.
func (t *Table) Scan(ns int64, f func(group uint8, key, val []byte) bool) {
	s := t.s
	s.enter()
	var ch *chain
	if sp := t.d.space(ns); sp != nil {
		ch = &sp.vals
	}
	s.each(ch, f)
}

// each calls f for the live cells of ch, out of the Store, so that a Fence need not wait for f; it leaves the Store.
func (s *Store) each(ch *chain, f func(group uint8, name, val []byte) bool) {
	if ch == nil {
		s.leave()
		return
	}
	depth := s.depth
	s.depth++
	if len(s.loops) < s.depth {
		s.loops = append(s.loops, loop{})
	}
	defer s.eachDone(depth)
	for c := ch.from; c != nil; c = c.next {
		if c.dead {
			continue
		}
		l := &s.loops[depth]
		l.cell = c
		l.name = append(l.name[:0], c.name...)
		group, name, val := c.group, l.name, c.val[:len(c.val):len(c.val)] // before leaving: a Successor may change the cell
		s.leave()
		more := f(group, name, val)
		s.enter()
		if !more {
			break
		}
	}
}

// eachDone runs also when f or enter has panicked: in the first case the Store is not entered, in the second never again.
func (s *Store) eachDone(depth int) {
	if s.word.Load()&inCall != 0 {
		s.depth = depth
		s.leave()
		return
	}
	if s.word.CompareAndSwap(0, inCall) {
		s.depth = depth
		s.leave()
	}
}

// Namespaces returns the namespaces that hold entries, ascending. The slice stays as it is and must not be changed.
func (t *Table) Namespaces() []int64 {
	t.s.enter()
	t.d.lent = true
	order := t.d.order[:len(t.d.order):len(t.d.order)]
	t.s.leave()
	return order
}

// DropNamespace removes a namespace with all its entries, at once; it counts as one entry in the log.
func (t *Table) DropNamespace(ns int64) {
	s := t.s
	s.enter()
	if sp := t.d.space(ns); sp != nil && sp.live > 0 {
		s.drop(sp)
		s.noteDrop(sp)
	}
	s.leave()
}
