package bus

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sort"
)

// storeCursor is a cursor's place in a segment of the topic store.
type storeCursor struct {
	dir   *storeDir
	seg   *storeSegment
	w     entryWindow
	entry storeEntry
	have  bool // entry has not been taken wholly
}

// openStore goes to the topic store if that, and not the log, holds what comes next. Segments are immutable: one that is
// let go while it is open is read to its end.
func (c *cursor) openStore(b *Bus, t *topic) (opened bool, err error) {
	for missing := (*storeSegment)(nil); ; {
		segs, err := c.stored(b, t)
		if err != nil || segs == nil {
			return false, err
		}
		// All before Next is passed: of what lies between Marks and there only the marks count, which a table sums up.
		i := sort.Search(len(segs), func(i int) bool { return segs[i].start > c.Marks+1 && segs[i].base > c.Next })
		seg := segs[max(0, i-1)]
		err = c.openSegment(b.store, seg)
		if errors.Is(err, fs.ErrNotExist) && missing != seg {
			missing = seg // it may have been let go since
			continue
		}
		return err == nil, err
	}
}

// stored returns the segments of the cursor's partition if it has to go on in them; nil stands for the log.
func (c *cursor) stored(b *Bus, t *topic) ([]*storeSegment, error) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	if len(b.gens) == 0 || b.gens[0].first <= c.Marks+1 {
		return nil, nil
	}
	p := c.part
	p.mu.Lock()
	segs, covered, first := p.segs, p.stored.Covered, p.first
	c.Next = p.over(c.Next)
	p.mu.Unlock()
	if len(segs) == 0 || c.Marks+1 >= covered {
		return nil, nil
	}
	if c.Next < first {
		if c.letGo() {
			return nil, errLetGo
		}
		return nil, p.missing(t.name, c.Next)
	}
	return segs, nil
}

// openSegment begins to read a segment at the newest table that is not behind the cursor's place.
func (c *cursor) openSegment(d *storeDir, seg *storeSegment) error {
	f, err := d.Disk.Open(d.path(seg), false)
	if err != nil {
		return d.damage(seg, 0, err)
	}
	s := &storeCursor{dir: d, seg: seg, w: entryWindow{dir: d, seg: seg, f: f, pos: segmentHeaderLen}}
	if _, err = d.openHeader(f, seg.segmentHeader); err != nil {
		return errors.Join(d.damage(seg, 0, err), f.Close())
	}
	points, err := d.points(seg, f)
	if err != nil {
		return errors.Join(err, f.Close())
	}
	i := sort.Search(len(points), func(i int) bool { return points[i].lsn > c.Marks+1 && points[i].next > c.Next })
	if i > 0 {
		s.w.pos = points[i-1].pos
	}
	c.store = s
	return nil
}

func (c *cursor) closeStore() error {
	if c.store == nil {
		return nil
	}
	err := c.store.w.f.Close()
	c.store = nil
	return err
}

// takeStore takes what comes next in the store; more is false once the cursor has left it.
func (c *cursor) takeStore(t *topic, max int) (b Batch, ok, more bool, err error) {
	for c.store != nil {
		s := c.store
		if !s.have {
			if c.part.reached(c.Position) {
				return Batch{}, false, false, c.closeStore()
			}
			if s.w.pos >= s.seg.size {
				if err := c.nextSegment(); err != nil {
					return Batch{}, false, false, err
				}
				continue
			}
			if s.entry, err = s.w.next(); err != nil {
				return Batch{}, false, false, err
			}
			s.have = true
		}
		if b, ok, err = c.takeEntry(t, max); ok || err != nil {
			return b, ok, true, err
		}
	}
	return Batch{}, false, false, nil
}

// takeEntry takes of the entry at hand; ok is false where it says nothing new.
func (c *cursor) takeEntry(t *topic, max int) (Batch, bool, error) {
	s := c.store
	e := &s.entry
	passed := e.lsn <= c.Marks
	if e.kind != entryMarks && e.base > c.Next {
		c.part.mu.Lock()
		c.Next = c.part.over(c.Next)
		c.part.mu.Unlock()
	}
	switch e.kind {
	case entryTable:
		s.have = false
		if e.lsn <= c.Marks+1 && sameTable(e.table, c.Table) || passed {
			return Batch{}, false, nil
		}
		if e.base > c.Next {
			return Batch{}, false, s.dir.damage(s.seg, s.w.pos, errUnread)
		}
		same := sameTable(e.table, c.Table)
		c.Table, c.Marks = slices.Clone(e.table), e.lsn-1
		c.settle()
		return Batch{Partition: c.part.number, LSN: c.Marks}, !same, nil
	case entryRecords:
		end := e.base + Offset(e.count)
		if end <= c.Next {
			s.have = false
			return Batch{}, false, nil
		}
		if e.base > c.Next {
			return Batch{}, false, s.dir.damage(s.seg, s.w.pos, errUnread)
		}
		if !passed {
			c.Marks = e.lsn - 1
		}
		out, ok, err := c.take(t, item{lsn: e.lsn, base: e.base, count: e.count, data: e.data}, max)
		s.have = c.Next < end
		return out, ok, err
	}
	s.have = false
	if passed {
		return Batch{}, false, nil
	}
	return c.take(t, item{lsn: e.lsn, marks: e.marks}, max)
}

// nextSegment goes on behind the last entry of a segment: in the same one if it has grown, in the next, or, where there is
// none, out of the store.
func (c *cursor) nextSegment() error {
	s := c.store
	p := c.part
	p.mu.Lock()
	segs, covered := p.segs, p.stored.Covered
	p.mu.Unlock()
	i := sort.Search(len(segs), func(i int) bool { return segs[i].start >= s.seg.start })
	if i < len(segs) && segs[i].start == s.seg.start {
		if segs[i].size > s.w.pos {
			s.seg, s.w.seg = segs[i], segs[i]
			s.w.buf = nil
			return nil
		}
		i++
	}
	if err := c.closeStore(); err != nil {
		return fmt.Errorf("bus: topic store: %w", err)
	}
	if i == len(segs) {
		c.Marks = max(c.Marks, covered-min(covered, 1))
		return nil
	}
	next := segs[i]
	err := c.openSegment(s.dir, next)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // let go meanwhile: look for the place anew
	}
	return err
}
