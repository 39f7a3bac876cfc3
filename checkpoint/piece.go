package checkpoint

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"maps"
	"slices"
)

const (
	pieceVersion  = 1
	opTable       = 0x01
	opNamespace   = 0x02
	opDrop        = 0x03
	opEntry       = 0x80
	entryPut      = 0
	entryFresh    = 1
	entryDelete   = 2
	entryKind     = 0x03
	entryElement  = 0x04
	entrySameKey  = 0x08
	entryOverhead = 16 // of an entry beside key, sub-key and value, at most: operation, group, three lengths below 1<<28
	spaceOverhead = 48 // of a namespace beside the names, at most: two operations, two lengths, number, hint
)

var (
	errOp     = errors.New("unknown operation")
	errPlace  = errors.New("an operation before its table or namespace")
	errGroups = errors.New("a key group that is not the subtask's")
)

// pieceWriter encodes one piece.
type pieceWriter struct {
	b       []byte
	table   *tableData
	ns      int64
	nsSet   bool
	key     string
	keySet  bool
	entries int
}

func newPieceWriter(b []byte, lo, hi int) pieceWriter {
	return pieceWriter{b: append(b, pieceVersion, byte(lo), byte(hi-1))}
}

// at goes to a namespace, of which about hint entries follow in this piece or in later ones.
func (w *pieceWriter) at(sp *space, hint int) {
	if w.table != sp.table {
		w.table, w.nsSet = sp.table, false
		w.b = appendString(appendString(append(w.b, opTable), sp.table.step), sp.table.name)
	}
	if !w.nsSet || w.ns != sp.ns {
		w.b = binary.AppendUvarint(append(w.b, opNamespace), zigzag(sp.ns-w.ns))
		w.b = binary.AppendUvarint(w.b, uint64(hint))
		w.ns, w.nsSet, w.keySet = sp.ns, true, false
	}
}

func (w *pieceWriter) drop() {
	w.b = append(w.b, opDrop)
	w.entries++
}

func (w *pieceWriter) entry(c *cell, kind byte, val []byte) {
	op, key := opEntry|kind, c.name
	if !c.chain.values {
		op, key = op|entryElement, c.chain.key
	}
	if w.keySet && w.key == key {
		w.b = append(w.b, op|entrySameKey)
	} else {
		w.b = appendString(append(w.b, op, c.group), key)
		w.key, w.keySet = key, true
	}
	if op&entryElement != 0 {
		w.b = appendString(w.b, c.name)
	}
	if kind != entryDelete {
		w.b = appendString(w.b, val)
	}
	w.entries++
}

// cutScratch is memory that cuts use again.
type cutScratch struct {
	groups []cutGroup
	order  []*change
	sorted []int
	out    []byte
}

type cutGroup struct {
	space *space
	n, at int
}

const scratchMax = 4 << 20 // bytes of scratch.out kept for the next cut

// Cut ends the growing epoch at a barrier: it returns the entries changed since the last cut as the body of a section, nil
// if there are none, and how many. The piece is the caller's; it is never changed.
func (s *Store) Cut() (piece []byte, entries int) {
	s.enter()
	defer s.leave()
	piece, entries = s.encode(s.log.n)
	s.epoch++
	s.begin()
	return piece, entries
}

// CutPart returns changes of the growing epoch in a piece of at most maxBytes (more only if one entry alone is larger), nil
// if there are none; what is left waits for the next cut. The epoch goes on, and can still be reverted whole.
func (s *Store) CutPart(maxBytes int) (piece []byte, entries int) {
	s.enter()
	defer s.leave()
	s.cuts++
	end, size := s.cut, 3
	for ; end < s.log.n; end++ {
		r := s.log.at(end)
		sp := r.space
		n := entryOverhead
		if r.cell != nil {
			sp = r.cell.chain.space
			n += r.cell.size()
		}
		if sp.cut != s.cuts {
			sp.cut = s.cuts
			n += spaceOverhead + len(sp.table.step) + len(sp.table.name)
		}
		if size += n; size > maxBytes && end > s.cut {
			break
		}
	}
	if end == s.cut {
		return nil, 0
	}
	for i := s.cut; i < end; i++ {
		s.dirtyBytes -= entryOverhead
		if r := s.log.at(i); r.cell != nil {
			s.dirtyBytes -= r.cell.size()
		}
	}
	piece, entries = s.encode(end)
	s.cut = end
	if s.dirtyBytes < 0 || s.cut == s.log.n {
		s.dirtyBytes = 0
	}
	s.gen++
	s.cutGen = s.gen
	return piece, entries
}

// encode writes the changes [s.cut, end) of the growing epoch, grouped by table and namespace, in order within each.
func (s *Store) encode(end int) ([]byte, int) {
	if s.recording {
		panic("checkpoint: a cut inside a record")
	}
	if s.cut == end {
		return nil, 0
	}
	sc := &s.scratch
	s.group(end)
	w := newPieceWriter(sc.out[:0], s.cfg.Lo, s.cfg.Hi)
	for _, g := range sc.sorted {
		from := sc.groups[g].at - sc.groups[g].n
		for _, r := range sc.order[from:sc.groups[g].at] {
			w.change(r, sc.groups[g].space, sc.groups[g].n)
		}
	}
	clear(sc.order)
	clear(sc.groups)
	sc.order, sc.groups, sc.sorted = sc.order[:0], sc.groups[:0], sc.sorted[:0]
	if sc.out = w.b; cap(w.b) > scratchMax {
		sc.out = nil
	}
	if w.entries == 0 {
		return nil, 0
	}
	return bytes.Clone(w.b), w.entries
}

func (w *pieceWriter) change(r *change, sp *space, hint int) {
	switch {
	case r.silent:
	case r.kind == dropped:
		w.at(sp, 0)
		w.drop()
	case sp.dropped: // the drop says it all
	case r.kind == died:
		w.at(sp, hint)
		w.entry(r.cell, entryDelete, nil)
	case r.cell.dead: // its death follows
	case r.kind == born:
		w.at(sp, hint)
		w.entry(r.cell, entryFresh, r.cell.val)
	default:
		w.at(sp, hint)
		w.entry(r.cell, entryPut, r.cell.val)
	}
}

// group sorts the changes by namespace, keeping their order within each: scratch.order[at-n:at] for each of scratch.groups,
// and scratch.sorted the groups with those of one table side by side. A namespace that was dropped and made again is
// two groups, in the order of their first changes, which is the right one.
func (s *Store) group(end int) {
	sc := &s.scratch
	s.cuts++
	for i := s.cut; i < end; i++ {
		r := s.log.at(i)
		sp := r.space
		if sp == nil {
			sp = r.cell.chain.space
		}
		if sp.cut != s.cuts {
			sp.cut, sp.group = s.cuts, len(sc.groups)
			sc.groups = append(sc.groups, cutGroup{space: sp})
			sc.sorted = append(sc.sorted, sp.group)
		}
		sc.groups[sp.group].n++
	}
	slices.SortStableFunc(sc.sorted, func(a, b int) int {
		return cmp.Compare(sc.groups[a].space.table.seq, sc.groups[b].space.table.seq)
	})
	at := 0
	for i := range sc.groups {
		sc.groups[i].at = at
		at += sc.groups[i].n
	}
	sc.order = slices.Grow(sc.order[:0], at)[:at]
	for i := s.cut; i < end; i++ {
		r := s.log.at(i)
		sp := r.space
		if sp == nil {
			sp = r.cell.chain.space
		}
		g := &sc.groups[sp.group]
		sc.order[g.at] = r
		g.at++
	}
}

// pieceOp is one operation of a piece, or an entry.
type pieceOp struct {
	op         byte
	step, name []byte // opTable
	ns         int64  // opNamespace
	said       uint64 // opNamespace: the hint
	hint       int    // opNamespace: as much of it as is believed
	group      uint8
	key        []byte
	sub        []byte
	val        []byte
}

// pieceReader decodes one piece; its bytes share memory with it.
type pieceReader struct {
	d                 decoder
	lo, hi            int
	table, place, key bool
	op                pieceOp
}

func newPieceReader(piece []byte) *pieceReader {
	r := &pieceReader{d: decoder{b: piece}}
	if r.d.byte() != pieceVersion {
		r.d.fail(errVersion)
	}
	r.lo, r.hi = int(r.d.byte()), int(r.d.byte())+1
	if r.lo >= r.hi || r.hi > KeyGroups {
		r.d.fail(errGroups)
	}
	return r
}

// next reads an operation into r.op; false means the end or an error, which r.d.result tells.
func (r *pieceReader) next() bool {
	d, o := &r.d, &r.op
	if !d.more() {
		return false
	}
	o.op = d.byte()
	switch {
	case o.op == opTable:
		o.step, o.name = d.bytes(), d.bytes()
		r.table, r.place, r.key = true, false, false
	case o.op == opNamespace && r.table:
		o.ns += d.varint()
		o.said = d.uvarint()
		o.hint = int(min(o.said, uint64(len(d.b)-d.off))) // as many entries as bytes follow: the input bounds what is made
		r.place, r.key = true, false
	case o.op == opDrop && r.place:
	case o.op&opEntry != 0 && r.place:
		r.entry()
	case o.op == opNamespace, o.op == opDrop, o.op&opEntry != 0:
		d.fail(errPlace)
	default:
		d.fail(errOp)
	}
	return d.err == nil
}

func (r *pieceReader) entry() {
	d, o := &r.d, &r.op
	if o.op&^(opEntry|entryKind|entryElement|entrySameKey) != 0 || o.op&entryKind == entryKind {
		d.fail(errOp)
		return
	}
	if o.op&entrySameKey == 0 {
		o.group, o.key = d.byte(), d.bytes()
		r.key = true
		if d.err == nil && (int(o.group) < r.lo || int(o.group) >= r.hi) {
			d.fail(errGroups)
		}
	} else if !r.key {
		d.fail(errPlace)
	}
	o.sub, o.val = nil, nil
	if o.op&entryElement != 0 {
		o.sub = d.bytes()
	}
	if o.op&entryKind != entryDelete {
		o.val = d.bytes()
	}
}

// Apply makes the changes of a piece, or adds the entries of a Scan's chunk, as sealed, for the key groups in [lo, hi)
// that are this Store's; it is for recovery, where nothing is unsealed. It keeps nothing of piece. After an error, always a
// *DecodeError, the Store holds a part of the piece and is of no use.
func (s *Store) Apply(piece []byte, lo, hi int) error {
	s.enter()
	defer s.leave()
	if len(s.logs) > 1 || s.log.n > 0 {
		panic("checkpoint: Apply over unsealed changes")
	}
	lo, hi = max(lo, s.cfg.Lo), min(hi, s.cfg.Hi)
	r := newPieceReader(piece)
	var t *tableData
	var sp *space
	for r.next() {
		o := &r.op
		switch {
		case o.op == opTable:
			t, sp = s.table(string(o.step), string(o.name)), nil
		case o.op == opNamespace:
			sp = t.space(o.ns)
		case o.op == opDrop:
			if sp != nil {
				s.applyDrop(sp, max(lo, r.lo), min(hi, r.hi))
				sp = t.space(o.ns)
			}
		case int(o.group) < lo || int(o.group) >= hi:
		case o.op&entryKind == entryDelete:
			if sp != nil {
				s.applyDelete(sp, o)
				sp = t.space(o.ns)
			}
		default:
			if sp == nil {
				sp = s.spaceOf(t, o.ns)
				sp.born = 0
				if n := o.hint * (min(hi, r.hi) - max(lo, r.lo)) / (r.hi - r.lo); n > cellsIndexed && o.op&entryElement == 0 {
					sp.vals.index = make(map[string]*cell, n)
				}
			}
			s.applyPut(sp, o)
		}
	}
	return r.d.result("piece")
}

func (s *Store) applyPut(sp *space, o *pieceOp) {
	ch, name := &sp.vals, o.key
	if o.op&entryElement != 0 {
		ch, name = sp.list(o.group, o.key), o.sub
	}
	c := ch.find(name)
	if c != nil && o.op&entryKind == entryFresh && ch.tail != c {
		s.applyRemove(c) // not the chain's last cell, so chain and namespace stay
		c = nil
	}
	if c == nil {
		c = s.add(ch, o.group, name, len(o.val))
	} else if len(c.val) != len(o.val) {
		s.count(sp, 0, len(o.val)-len(c.val))
		sp.freeValue(c.val)
		c.val = sp.newValue(len(o.val))
	}
	copy(c.val, o.val)
}

func (s *Store) applyDelete(sp *space, o *pieceOp) {
	ch, name := &sp.vals, o.key
	if o.op&entryElement != 0 {
		if ch = sp.lists[string(o.key)]; ch == nil {
			return
		}
		name = o.sub
	}
	if c := ch.find(name); c != nil {
		s.applyRemove(c)
	}
}

func (s *Store) applyRemove(c *cell) {
	s.count(c.chain.space, -1, -c.size())
	c.chain.kill(c)
	s.remove(c)
}

// applyDrop removes the entries of sp whose group is in [lo, hi).
func (s *Store) applyDrop(sp *space, lo, hi int) {
	if lo <= s.cfg.Lo && hi >= s.cfg.Hi {
		s.drop(sp)
		sp.gone = true
		sp.table.dropped = sp.table.dropped[:len(sp.table.dropped)-1]
		return
	}
	inside := func(c *cell) bool { return int(c.group) >= lo && int(c.group) < hi }
	for c := sp.vals.head; c != nil; {
		next := c.next
		if inside(c) {
			s.applyRemove(c)
		}
		c = next
	}
	for ch := sp.first; ch != nil; {
		next := ch.next
		for c := ch.head; c != nil; {
			after := c.next
			if inside(c) {
				s.applyRemove(c)
			}
			c = after
		}
		ch = next
	}
}

// DropTable removes a table of a step with all that is in it, sealed as it is; nothing may be unsealed. It is for a step that
// no longer has the table, and stands in no epoch: whoever restores the store does it again, at the same place in the log.
func (s *Store) DropTable(step, name string) {
	s.enter()
	defer s.leave()
	if len(s.logs) > 1 || s.log.n > 0 {
		panic("checkpoint: DropTable over unsealed changes")
	}
	t := s.byName[tableName{step, name}]
	if t == nil {
		return
	}
	for _, ns := range slices.Sorted(maps.Keys(t.spaces)) {
		if sp := t.spaces[ns]; sp != nil {
			s.applyDrop(sp, s.cfg.Lo, s.cfg.Hi)
		}
	}
}
