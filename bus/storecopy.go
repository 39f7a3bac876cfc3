package bus

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"

	"github.com/sidestream-dev/sidestream/wal"
)

const (
	pointBytes   = 64 << 10  // a table stands in a segment about every so many bytes
	copyBuffer   = 256 << 10 // of a partition that is being copied
	copyFiles    = 256       // open at once
	segmentSplit = 8         // a segment holds at most this part of what its topic keeps
	segmentMin   = 1 << 20
)

// CopyPlan is a copy of what the topics need out of the oldest frames of the log into the store.
type CopyPlan struct {
	bus   *Bus
	upTo  wal.LSN
	from  wal.LSN
	at    int64 // by when the newest of the frames was written, Unix ms
	parts map[TopicID][]*partCopy
	files int
}

// partCopy is one partition being copied.
type partCopy struct {
	of    *partition
	dir   *storeDir
	part  StorePart // as announced
	segs  []*storeSegment
	from  wal.LSN // frames before it are in the store, or nothing of theirs is needed
	need  Offset  // records before it are not copied
	limit int64   // bytes of a segment
	hole  bool    // what lies between the store's end and from is summed up by table

	table   []ProducerMark // as of what was written
	pending storeEntry     // marks joined, not yet written
	first   wal.LSN        // of the frames in pending
	next    Offset
	bytes   int64

	cur     *storeSegment // that is written to
	point   int64         // where its newest table stands
	known   bool          // cur.index.points are all
	f       DiskFile
	buf     []byte
	written int64 // of cur in the file
	touched bool
	made    bool    // a file
	last    wal.LSN // frame of the last entry
}

// PlanCopy plans to copy what is needed of the frames before the generation upTo; nil if that is nothing.
func (b *Bus) PlanCopy(upTo wal.LSN) (*CopyPlan, error) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	if b.store == nil || len(b.gens) == 0 {
		return nil, nil
	}
	if failed := b.storeFailed.Load(); failed != nil {
		return nil, failed
	}
	k := slices.IndexFunc(b.gens, func(g *generation) bool { return g.first == upTo })
	if k < 1 {
		return nil, fmt.Errorf("bus: topic store: %s is no generation of the log that has another before it", upTo)
	}
	end := b.gens[k]
	p := &CopyPlan{bus: b, upTo: upTo, from: upTo, at: end.at, parts: map[TopicID][]*partCopy{}}
	now := b.cfg.Now().UnixMilli()
	for id, t := range b.topics {
		gt := end.topics[id]
		if !gt.exists {
			continue
		}
		need := b.needed(t, now)
		for i, part := range t.parts {
			if c := b.planPart(t, part, need[i], gt.Next[i], upTo); c != nil {
				if p.parts[id] == nil {
					p.parts[id] = make([]*partCopy, len(t.parts))
				}
				p.parts[id][i] = c
				p.from = min(p.from, c.from)
			}
		}
	}
	if len(p.parts) == 0 {
		return nil, nil
	}
	return p, nil
}

// planPart returns what is to be copied of a partition, nil if nothing is.
func (b *Bus) planPart(t *topic, p *partition, need, end Offset, upTo wal.LSN) *partCopy {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := &partCopy{of: p, dir: b.store, part: p.stored, segs: p.segs, need: need, limit: b.segmentLimit(t)}
	c.part.Topic, c.part.Partition, c.part.From = t.id, p.number, p.first
	c.from = b.gens[0].first
	if len(p.segs) > 0 {
		c.need = 0 // the store goes on where it ends
		c.hole = p.stored.Covered < c.from
		c.from = max(c.from, p.stored.Covered)
	}
	if c.from >= upTo || len(p.segs) == 0 && need >= end {
		return nil
	}
	for _, g := range b.gens {
		if gt := g.topics[t.id]; g.first == c.from && gt.exists {
			c.table, c.next, c.bytes = slices.Clone(gt.Table), gt.Next[p.number], gt.Bytes[p.number]
		}
	}
	return c
}

// segmentLimit returns from which size on a segment of a topic is complete: what retention lets go in one piece.
func (b *Bus) segmentLimit(t *topic) int64 {
	n := b.store.SegmentBytes
	if keep := t.spec.keep(); keep/segmentSplit < n {
		n = min(n, max(keep/segmentSplit, segmentMin))
	}
	return n
}

// Run copies, on the caller's goroutine, and returns what the store then holds, synced, to be announced. pace is called
// with the bytes of each write. What it has written counts for nothing after an error. A *wal.FailedError is the store's last
// word (R7); where the disk is full, what was written is given back, and another plan may do better.
func (p *CopyPlan) Run(ctx context.Context, pace func(bytes int)) (ch StoreChange, err error) {
	r, err := p.bus.log.Reader(p.from)
	if err != nil {
		return ch, fmt.Errorf("bus: topic store: %w", err)
	}
	parts := partReader{}
	defer func() {
		err = errors.Join(err, r.Close(), parts.close(), p.closeFiles())
		if err != nil {
			ch = StoreChange{}
		}
		if isFull(err) && p.bus.storeFailed.Load() == nil {
			err = errors.Join(err, p.giveBack())
		}
	}()
	for ctx.Err() == nil {
		f, err := r.Next()
		if err == nil && f.LSN() >= p.upTo {
			break
		}
		err = noEOF(err) // upTo is durable
		if err == nil {
			err = p.frame(f, &parts, pace)
		}
		if err != nil {
			return ch, fmt.Errorf("bus: topic store: copying from the log: %w", err)
		}
	}
	if ctx.Err() != nil {
		return ch, ctx.Err()
	}
	for _, id := range slices.Sorted(maps.Keys(p.parts)) {
		for _, c := range p.parts[id] {
			if c == nil {
				continue
			}
			some, err := p.finish(c, pace)
			if err != nil {
				return ch, err
			}
			if some {
				ch.Parts = append(ch.Parts, c.announcement(p.upTo))
			}
		}
	}
	return ch, nil
}

// frame copies what a frame holds.
func (p *CopyPlan) frame(f Frame, parts *partReader, pace func(int)) error {
	lsn := f.LSN()
	for i := range f.Len() {
		if f.Section(i).Kind != SectionIndex {
			continue
		}
		body, err := f.Body(i)
		if err != nil {
			return err
		}
		pubs, marks, err := DecodeIndex(body)
		if err != nil {
			return err
		}
		for _, pub := range pubs {
			c := p.of(pub.Topic, pub.Partition, lsn)
			if c == nil {
				continue
			}
			data := []byte(nil)
			if pub.Base+Offset(pub.Count) > c.need {
				if data, err = loadRecords(p.bus.log, f, parts, pub); err != nil {
					return err
				}
			}
			if err := p.records(c, lsn, pub, data, pace); err != nil {
				return err
			}
		}
		if err := p.marks(lsn, marks, pace); err != nil {
			return err
		}
	}
	return nil
}

func (p *CopyPlan) of(t TopicID, partition int, lsn wal.LSN) *partCopy {
	if cs := p.parts[t]; partition < len(cs) && cs[partition] != nil && lsn >= cs[partition].from {
		return cs[partition]
	}
	return nil
}

func (p *CopyPlan) records(c *partCopy, lsn wal.LSN, pub Publication, data []byte, pace func(int)) error {
	if pub.Base != c.next {
		c.of.mu.Lock()
		c.next = c.of.over(c.next)
		c.of.mu.Unlock()
	}
	if pub.Base != c.next {
		return fmt.Errorf("topic %d, partition %d: records from %s follow those up to %s", pub.Topic, pub.Partition, pub.Base, c.next)
	}
	if data == nil { // nobody needs them
		c.next += Offset(pub.Count)
		c.bytes += pub.Bytes
		return nil
	}
	if err := p.flushMarks(c, pace); err != nil {
		return err
	}
	e := storeEntry{kind: entryRecords, lsn: lsn, base: pub.Base, count: pub.Count, latest: pub.Latest, data: data}
	if err := p.put(c, lsn, &e, pace); err != nil {
		return err
	}
	c.next += Offset(pub.Count)
	c.bytes += pub.Bytes
	c.cur.index.latest = max(c.cur.index.latest, pub.Latest)
	return nil
}

// marks copies a frame's marks into every partition of their topics. Those that only move watermarks on wait for what
// comes next and are written as one.
func (p *CopyPlan) marks(lsn wal.LSN, marks []Mark, pace func(int)) error {
	for i, m := range marks {
		if slices.ContainsFunc(marks[:i], func(o Mark) bool { return o.Topic == m.Topic }) {
			continue
		}
		var own []Mark
		for _, o := range marks[i:] {
			if o.Topic == m.Topic {
				own = append(own, o)
			}
		}
		for partition := range p.parts[m.Topic] {
			c := p.of(m.Topic, partition, lsn)
			if c == nil {
				continue
			}
			if c.cur == nil && len(c.segs) == 0 { // nothing is kept before them
				c.apply(own)
				continue
			}
			joined := moves(c.table, own)
			if !joined {
				if err := p.flushMarks(c, pace); err != nil {
					return err
				}
			}
			if len(c.pending.marks) == 0 {
				c.pending, c.first = storeEntry{kind: entryMarks}, lsn
			}
			c.pending.lsn = lsn
			if joined {
				c.pending.marks = joinMarks(c.pending.marks, own)
				continue
			}
			c.pending.marks = own
			if err := p.flushMarks(c, pace); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *partCopy) apply(marks []Mark) {
	for _, m := range marks {
		c.table = applyMark(c.table, m)
	}
}

func (p *CopyPlan) flushMarks(c *partCopy, pace func(int)) error {
	if len(c.pending.marks) == 0 {
		return nil
	}
	e := c.pending
	c.pending = storeEntry{}
	err := p.put(c, c.first, &e, pace)
	c.apply(e.marks)
	return err
}

// put writes an entry, whose frames begin at first, behind the partition's last; before it a table where one is due.
func (p *CopyPlan) put(c *partCopy, first wal.LSN, e *storeEntry, pace func(int)) error {
	if c.cur == nil && len(c.segs) > 0 {
		if err := p.reopen(c); err != nil {
			return err
		}
	}
	between := first > c.last // nothing of the same frame stands before it, so that a reader may begin here
	if c.cur != nil && between && c.cur.size >= c.limit && c.cur.index.next > c.cur.base {
		if err := p.complete(c, pace); err != nil {
			return err
		}
	}
	if c.cur == nil {
		if err := p.begin(c, first); err != nil {
			return err
		}
	}
	if c.hole || between && c.cur.size-c.point >= pointBytes || c.cur.size == segmentHeaderLen {
		c.hole = false
		c.point = c.cur.size
		if c.known {
			c.cur.index.points = append(slices.Clip(c.cur.index.points), storePoint{c.point, first, c.next, c.cur.index.latest})
		}
		c.add(&storeEntry{kind: entryTable, lsn: first, base: c.next, latest: c.cur.index.latest, bytes: c.bytes, table: c.table})
	}
	c.add(e)
	c.last = e.lsn
	c.cur.index.next = c.next + Offset(e.count)
	if len(c.buf) < copyBuffer {
		return nil
	}
	return p.write(c, pace)
}

func (c *partCopy) add(e *storeEntry) {
	n := len(c.buf)
	c.buf = appendEntry(c.buf, e)
	c.cur.size += int64(len(c.buf) - n)
}

// begin makes a new segment.
func (p *CopyPlan) begin(c *partCopy, first wal.LSN) error {
	c.cur = &storeSegment{segmentHeader: segmentHeader{log: c.dir.LogID, topic: c.part.Topic, partition: c.part.Partition, start: first,
		base: c.next, before: c.bytes}, size: segmentHeaderLen, loaded: true, table: slices.Clone(c.table)}
	c.cur.index.latest, c.cur.index.next = NoTime, c.next
	c.known, c.point, c.written, c.made = true, 0, 0, true
	c.buf = appendSegmentHeader(c.buf, c.cur.segmentHeader)
	if err := c.dir.Disk.MakeDir(c.dir.partDir(c.part.Topic, c.part.Partition)); err != nil {
		return p.failed(c, "making the folder of", err)
	}
	if err := p.clean(c); err != nil {
		return err
	}
	f, err := c.dir.Disk.Open(c.dir.path(c.cur), true)
	if err == nil {
		c.f = f
		if err := f.Truncate(0); err != nil { // of a copy that came to nothing
			return p.failed(c, "beginning", err)
		}
	}
	return p.opened(c, err)
}

// reopen goes on in the newest segment.
func (p *CopyPlan) reopen(c *partCopy) error {
	last := c.segs[len(c.segs)-1]
	last.mu.Lock()
	c.known = last.loaded
	c.cur = &storeSegment{segmentHeader: last.segmentHeader, size: last.size, table: last.table, index: last.index, loaded: c.known}
	last.mu.Unlock()
	c.written, c.point, c.last = last.size, last.size, last.index.covered-1
	if n := len(c.cur.index.points); n > 0 {
		c.point = c.cur.index.points[n-1].pos
	}
	if err := p.clean(c); err != nil {
		return err
	}
	f, err := c.dir.Disk.Open(c.dir.path(last), true)
	if err == nil {
		c.f = f
		if err := f.Truncate(last.size); err != nil {
			return p.failed(c, "cutting", err)
		}
	}
	c.segs = c.segs[: len(c.segs)-1 : len(c.segs)-1]
	return p.opened(c, err)
}

// clean removes, before the first write, segments of a copy that came to nothing.
func (p *CopyPlan) clean(c *partCopy) error {
	if c.touched {
		return nil
	}
	dir := c.dir.partDir(c.part.Topic, c.part.Partition)
	names, err := c.dir.Disk.List(dir)
	if err != nil {
		return fmt.Errorf("bus: topic store: %w", err)
	}
	for name := range names {
		start, ok := isSegmentName(name)
		if !ok || slices.ContainsFunc(c.segs, func(s *storeSegment) bool { return s.start == start }) {
			continue
		}
		if err := c.dir.Disk.Remove(filepath.Join(dir, name)); err != nil {
			return fmt.Errorf("bus: topic store: %w", err)
		}
		c.made = true // its name must not come back either
	}
	return nil
}

// opened notes that a file is open; too many are not.
func (p *CopyPlan) opened(c *partCopy, err error) error {
	if err != nil {
		return c.dir.damage(c.cur, c.written, err)
	}
	c.touched = true
	if p.files++; p.files < copyFiles {
		return nil
	}
	for _, cs := range p.parts {
		for _, o := range cs {
			if o != nil && o != c && o.f != nil {
				if err := p.syncFile(o, nil); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// write gives the file what is buffered.
func (p *CopyPlan) write(c *partCopy, pace func(int)) error {
	if len(c.buf) == 0 {
		return nil
	}
	if c.f == nil { // it was closed to keep few open
		f, err := c.dir.Disk.Open(c.dir.path(c.cur), true)
		if err == nil {
			c.f = f
		}
		if err := p.opened(c, err); err != nil {
			return err
		}
	}
	if _, err := c.f.WriteAt(c.buf, c.written); err != nil {
		return p.failed(c, "writing", err)
	}
	c.written += int64(len(c.buf))
	if pace != nil {
		pace(len(c.buf))
	}
	c.buf = c.buf[:0]
	return nil
}

// syncFile writes what is buffered, and syncs and closes the file.
func (p *CopyPlan) syncFile(c *partCopy, pace func(int)) error {
	if err := p.write(c, pace); err != nil {
		return err
	}
	if c.f == nil {
		return nil
	}
	f := c.f
	c.f = nil
	p.files--
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return p.bus.storeFails("fsync of", c.dir.path(c.cur), err)
	}
	return nil
}

// complete ends a segment with its index.
func (p *CopyPlan) complete(c *partCopy, pace func(int)) error {
	if !c.known {
		if err := p.findPoints(c, pace); err != nil {
			return err
		}
	}
	x := &c.cur.index
	x.covered, x.bytes, x.at, x.next = c.last+1, c.bytes, max(x.at, p.at), c.next
	c.buf = appendEntry(c.buf, &storeEntry{kind: entryIndex, lsn: x.covered, index: *x})
	c.buf = appendTrailer(c.buf, c.cur.size)
	c.cur.complete, c.cur.loaded = true, true
	if err := p.syncFile(c, pace); err != nil {
		return err
	}
	c.segs = append(c.segs, c.cur)
	c.cur = nil
	return nil
}

// findPoints goes over a segment that was begun by an earlier process.
func (p *CopyPlan) findPoints(c *partCopy, pace func(int)) error {
	if err := p.write(c, pace); err != nil {
		return err
	}
	c.cur.index.points, c.cur.loaded = nil, false
	if c.f == nil {
		f, err := c.dir.Disk.Open(c.dir.path(c.cur), true)
		if err == nil {
			c.f = f
		}
		if err := p.opened(c, err); err != nil {
			return err
		}
	}
	_, err := c.dir.points(c.cur, c.f)
	c.known = true
	return err
}

// finish makes a partition's files durable; some is false where nothing was written.
func (p *CopyPlan) finish(c *partCopy, pace func(int)) (some bool, err error) {
	if err := p.flushMarks(c, pace); err != nil {
		return false, err
	}
	if c.cur == nil || !c.touched {
		return false, nil
	}
	if err := p.syncFile(c, pace); err != nil {
		return false, err
	}
	if c.made {
		dir := c.dir.partDir(c.part.Topic, c.part.Partition)
		if err := c.dir.Disk.SyncDir(dir); err != nil {
			return false, p.bus.storeFails("fsync of", dir, err)
		}
	}
	x := &c.cur.index
	x.covered, x.bytes, x.at, x.next = p.upTo, c.bytes, max(x.at, p.at), c.next
	if !c.known {
		x.points = nil // of the whole segment, found when they are needed
	}
	c.segs = append(c.segs, c.cur)
	return true, nil
}

func (c *partCopy) announcement(upTo wal.LSN) StorePart {
	last := c.segs[len(c.segs)-1]
	part := c.part
	part.First, part.Last, part.Size = c.segs[0].start, last.start, last.size
	part.From = max(part.From, c.segs[0].base)
	part.Next, part.Covered, part.Bytes, part.Latest, part.At = c.next, upTo, c.bytes, last.index.latest, last.index.at
	part.segs = c.segs
	return part
}

func (p *CopyPlan) closeFiles() error {
	var errs []error
	for _, cs := range p.parts {
		for _, c := range cs {
			if c != nil && c.f != nil {
				errs = append(errs, c.f.Close())
				c.f = nil
			}
		}
	}
	return errors.Join(errs...)
}

// Stale reports whether somebody has come, since the plan was made, who needs what was not copied.
func (p *CopyPlan) Stale() bool {
	b := p.bus
	b.mu.RLock()
	defer b.mu.RUnlock()
	k := slices.IndexFunc(b.gens, func(g *generation) bool { return g.first == p.upTo })
	if k < 0 {
		return true
	}
	now := b.cfg.Now().UnixMilli()
	for id, t := range b.topics {
		gt := b.gens[k].topics[id]
		if !gt.exists {
			continue
		}
		need := b.needed(t, now)
		for i := range t.parts {
			var c *partCopy
			if cs := p.parts[id]; cs != nil {
				c = cs[i]
			}
			if c == nil && need[i] < gt.Next[i] && t.parts[i].storedTo() < p.upTo || c != nil && need[i] < c.need {
				return true
			}
		}
	}
	return false
}

// storedTo returns up to which frame the store holds a partition.
func (p *partition) storedTo() wal.LSN {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.segs) == 0 {
		return 0
	}
	return p.stored.Covered
}

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }
