package checkpoint

import (
	"cmp"
	"slices"
)

// Scan reads what is sealed while the job goes on changing it. Its chunks, applied in order and followed by the pieces of
// the epochs sealed since BeginSnapshot, in order, rebuild the state at the last of these epochs. A chunk is encoded as a
// piece is, by table and namespace; each entry carries its group, so that another parallelism can take its share.
type Scan struct {
	s      *Store
	spaces []*space
	// The place: a chain of spaces[0], nil before its first, and the next cell in it, nil behind its last. left and lists
	// bound what is read of a chain and of a namespace that grows all the while; what is added later is in the pieces.
	chain *chain
	cell  *cell
	left  int
	lists int
}

// BeginSnapshot starts a scan of the sealed layer; an earlier one that is under way must not be used any more. Epochs
// sealed before this call are in its chunks; the pieces of those sealed after it belong behind them.
func (s *Store) BeginSnapshot() *Scan {
	s.enter()
	defer s.leave()
	sc := &Scan{s: s}
	for _, t := range s.tables {
		sc.spaces = append(sc.spaces, t.dropped...) // dropped by an epoch that is not sealed: still there
		for _, ns := range t.order {
			sc.spaces = append(sc.spaces, t.spaces[ns])
		}
		n := len(sc.spaces)
		for _, sp := range t.spaces {
			if sp.live == 0 { // emptied by such an epoch
				sc.spaces = append(sc.spaces, sp)
			}
		}
		slices.SortFunc(sc.spaces[n:], func(a, b *space) int { return cmp.Compare(a.ns, b.ns) }) // one order, for a seed to repeat
	}
	s.scan = sc
	return sc
}

// Next returns the next chunk of at most maxBytes (more only if one entry alone is larger) and whether it was the last;
// that one may be nil. The caller owns it. Call it between two batches; it takes about 50 ns an entry.
func (sc *Scan) Next(maxBytes int) (chunk []byte, done bool) {
	s := sc.s
	s.enter()
	defer s.leave()
	if s.scan != sc {
		panic("checkpoint: Next of a scan that is over")
	}
	w := newPieceWriter(make([]byte, 0, min(maxBytes, s.bytes+s.entries*entryOverhead)+64), s.cfg.Lo, s.cfg.Hi)
	for sc.forward() {
		c := sc.cell
		val, ok := s.sealedValue(c)
		if ok {
			sp := c.chain.space
			n := entryOverhead + len(c.chain.key) + len(c.name) + len(val)
			if w.table != sp.table || w.ns != sp.ns {
				n += spaceOverhead + len(sp.table.step) + len(sp.table.name)
			}
			if w.entries > 0 && len(w.b)+n > maxBytes {
				return w.b, false
			}
			w.at(sp, sp.live)
			w.entry(c, entryPut, val)
		}
		sc.cell = c.next
		sc.left--
	}
	s.scan = nil
	if w.entries == 0 {
		return nil, true
	}
	return w.b, true
}

// forward goes to the next cell to look at, which may be where the scan is.
func (sc *Scan) forward() bool {
	for len(sc.spaces) > 0 {
		sp := sc.spaces[0]
		switch {
		case sp.gone || sp.linked == 0:
			sc.chain = nil
		case sc.chain == nil:
			sc.enter(&sp.vals)
			sc.lists = len(sp.lists)
		case sc.cell == nil || sc.left <= 0:
			next := sc.chain.next
			if sc.chain.values {
				next = sp.first
			}
			if next != nil && sc.lists > 0 {
				sc.lists--
				sc.enter(next)
				continue
			}
			sc.chain = nil
		default:
			return true
		}
		if sc.chain == nil {
			sc.spaces[0] = nil
			sc.spaces = sc.spaces[1:]
			sc.cell = nil
		}
	}
	return false
}

func (sc *Scan) enter(ch *chain) { sc.chain, sc.cell, sc.left = ch, ch.head, ch.linked }

// leaving and leavingChain keep the place when what it stands on is taken away.
func (sc *Scan) leaving(c *cell) {
	if sc != nil && sc.cell == c {
		sc.cell = c.next
	}
}

func (sc *Scan) leavingChain(ch *chain) {
	if sc == nil || sc.chain != ch {
		return
	}
	sc.chain, sc.cell = ch.prev, nil
	if ch.prev == nil {
		sc.chain = &ch.space.vals
	}
}

// sealedValue returns the entry as the last sealed epoch has it: the oldest unsealed change of it knows.
func (s *Store) sealedValue(c *cell) (val []byte, ok bool) {
	var oldest *change
	gen, at := c.gen, c.undo
	for i := len(s.logs) - 1; i >= 0; {
		l := s.logs[i]
		if gen < l.gen {
			i--
			continue
		}
		oldest = l.at(int(at))
		gen, at = oldest.prevGen, oldest.prev
	}
	switch {
	case oldest == nil, oldest.kind == died:
		return c.val, true
	case oldest.kind == born:
		return nil, false
	}
	return oldest.old, true
}
