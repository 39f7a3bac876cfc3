package checkpoint

import "bytes"

type changeKind uint8

const (
	changed changeKind = iota // old is the value before
	born                      // the cell was added
	died                      // the cell was deleted; its value is still in it
	dropped                   // the namespace was dropped
)

// change is one step back. One in an epoch's log also marks its entry as one to write at the next cut.
type change struct {
	cell    *cell
	space   *space // of a drop
	old     []byte
	prevGen uint64 // the cell's gen and undo before
	prev    uint32
	kind    changeKind
	silent  bool // nothing of what it takes away was cut yet, so the log need not hear of it
}

const (
	changesAtOnce = 256
	oldSlabBytes  = 64 << 10
	oldOwnBytes   = 4 << 10 // larger old values have memory of their own
	poolChunksMax = 256     // 4 MiB of changes
	poolSlabsMax  = 64      // 4 MiB of old values
)

type changeChunk [changesAtOnce]change

// epochLog is what one unsealed epoch changed, in order.
type epochLog struct {
	epoch  Epoch
	gen    uint64 // Store.gen when it began
	chunks []*changeChunk
	n      int
	slabs  [][]byte // the last one is being filled
	gone   int      // deaths and drops
}

func (l *epochLog) at(i int) *change { return &l.chunks[i/changesAtOnce][i%changesAtOnce] }

// pool keeps the memory of logs that were thrown away.
type pool struct {
	chunks []*changeChunk
	slabs  [][]byte
}

func (p *pool) next(l *epochLog) *change {
	if l.n == len(l.chunks)*changesAtOnce {
		if n := len(p.chunks); n > 0 {
			l.chunks = append(l.chunks, p.chunks[n-1])
			p.chunks = p.chunks[:n-1]
		} else {
			l.chunks = append(l.chunks, new(changeChunk))
		}
	}
	l.n++
	return l.at(l.n - 1)
}

// save copies v into the log's memory.
func (p *pool) save(l *epochLog, v []byte) []byte {
	if len(v) > oldOwnBytes {
		return bytes.Clone(v)
	}
	last := len(l.slabs) - 1
	if last < 0 || cap(l.slabs[last])-len(l.slabs[last]) < len(v) {
		if n := len(p.slabs); n > 0 {
			l.slabs = append(l.slabs, p.slabs[n-1])
			p.slabs = p.slabs[:n-1]
		} else {
			l.slabs = append(l.slabs, make([]byte, 0, oldSlabBytes))
		}
		last++
	}
	slab := l.slabs[last]
	n := len(slab)
	slab = append(slab, v...)
	l.slabs[last] = slab
	return slab[n:len(slab):len(slab)]
}

// recycle empties l and keeps its memory for the next logs.
func (p *pool) recycle(l *epochLog) {
	for i, c := range l.chunks {
		if len(p.chunks) == poolChunksMax {
			break
		}
		clear(c[:min(l.n-i*changesAtOnce, changesAtOnce)])
		p.chunks = append(p.chunks, c)
	}
	for _, s := range l.slabs {
		if len(p.slabs) == poolSlabsMax {
			break
		}
		p.slabs = append(p.slabs, s[:0])
	}
	*l = epochLog{chunks: l.chunks[:0], slabs: l.slabs[:0]}
}

// dirty reports whether c has a change in the growing epoch's log that was not cut yet.
func (s *Store) dirty(c *cell) bool { return c.gen >= s.log.gen && int(c.undo) >= s.cut }

// touch is called before a cell's value changes, unless c.gen == s.gen.
func (s *Store) touch(c *cell) {
	dirty := s.dirty(c)
	if dirty && !s.recording {
		c.gen = s.gen
		return
	}
	step := change{cell: c, prevGen: c.gen, prev: c.undo, kind: changed}
	if !dirty {
		step.old = s.pool.save(s.log, c.val)
		c.undo = uint32(s.log.n)
		*s.pool.next(s.log) = step
		s.dirtyBytes += c.size() + entryOverhead
	} else {
		step.old = s.saveForRecord(c.val)
	}
	if s.recording {
		s.record = append(s.record, step)
	}
	c.gen = s.gen
}

// note logs that a cell was added or deleted.
func (s *Store) note(c *cell, kind changeKind) {
	step := change{cell: c, prevGen: c.gen, prev: c.undo, kind: kind}
	if kind == died {
		s.log.gone++
		step.silent = s.dirty(c) && s.log.at(int(c.undo)).kind == born
	}
	c.undo = uint32(s.log.n)
	c.gen = s.gen
	s.noteStep(step, c.size())
}

func (s *Store) noteDrop(sp *space) {
	s.log.gone++
	s.noteStep(change{space: sp, kind: dropped, silent: sp.born >= s.cutGen}, 0)
}

func (s *Store) noteStep(step change, size int) {
	*s.pool.next(s.log) = step
	s.dirtyBytes += size + entryOverhead
	if s.recording {
		s.record = append(s.record, step)
	}
}

// undo takes one change back. With away, value memory in use is left alone: someone outside may be writing to it.
func (s *Store) undo(r *change, away bool) {
	if r.kind == dropped {
		s.undrop(r.space)
		return
	}
	c := r.cell
	switch r.kind {
	case changed:
		s.count(c.chain.space, 0, len(r.old)-len(c.val))
		if away || !fits(len(r.old), cap(c.val)) {
			if !away {
				c.chain.space.freeValue(c.val)
			}
			c.val = c.chain.space.newValue(len(r.old))
		}
		c.val = c.val[:len(r.old)]
		copy(c.val, r.old)
	case born:
		s.count(c.chain.space, -1, -c.size())
		c.chain.kill(c)
		if away {
			c.val = nil
		}
		s.remove(c)
		return
	case died:
		c.chain.revive(c)
		s.count(c.chain.space, 1, c.size())
	}
	c.gen, c.undo = r.prevGen, r.prev
}

// Mark is a place inside a record to go back to.
type Mark struct {
	steps, n, gone, slabs, slab, dirtyBytes int
}

// BeginRecord starts keeping what is needed for Rollback, until EndRecord. Between them every first change of an entry
// behind a mark costs one more copy of its old value; outside them nothing is paid.
func (s *Store) BeginRecord() {
	s.enter()
	s.recording = true
	s.gen++
	s.leave()
}

// EndRecord forgets the marks.
func (s *Store) EndRecord() {
	s.enter()
	s.endRecord()
	s.leave()
}

func (s *Store) endRecord() {
	s.recording = false
	clear(s.record)
	s.record = s.record[:0]
	if cap(s.recordOld) <= poolSlabsMax*oldSlabBytes {
		s.recordOld = s.recordOld[:0]
	} else {
		s.recordOld = nil
	}
}

// Mark returns the present place; it holds until EndRecord, or until a Rollback to an earlier one.
func (s *Store) Mark() Mark {
	s.enter()
	defer s.leave()
	if !s.recording {
		panic("checkpoint: Mark outside BeginRecord and EndRecord")
	}
	s.gen++
	m := Mark{steps: len(s.record), n: s.log.n, gone: s.log.gone, slabs: len(s.log.slabs), dirtyBytes: s.dirtyBytes}
	if m.slabs > 0 {
		m.slab = len(s.log.slabs[m.slabs-1])
	}
	return m
}

// Rollback undoes what changed since m, which stays good.
func (s *Store) Rollback(m Mark) {
	s.enter()
	defer s.leave()
	if !s.recording || m.steps > len(s.record) {
		panic("checkpoint: Rollback to a mark that is over")
	}
	for i := len(s.record) - 1; i >= m.steps; i-- {
		s.undo(&s.record[i], false)
	}
	clear(s.record[m.steps:])
	s.record = s.record[:m.steps]
	l := s.log
	for i := m.n; i < l.n; i++ {
		*l.at(i) = change{}
	}
	l.n, l.gone = m.n, m.gone
	for i := m.slabs; i < len(l.slabs); i++ {
		l.slabs[i] = l.slabs[i][:0]
	}
	if m.slabs > 0 {
		l.slabs[m.slabs-1] = l.slabs[m.slabs-1][:m.slab]
	}
	s.dirtyBytes = m.dirtyBytes
}

func (s *Store) saveForRecord(v []byte) []byte {
	n := len(s.recordOld)
	s.recordOld = append(s.recordOld, v...)
	return s.recordOld[n:len(s.recordOld):len(s.recordOld)]
}
