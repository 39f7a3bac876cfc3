package bus

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/sidestream-dev/sidestream/wal"
)

// block is a stretch of a topic that goes as a whole: a segment of one partition, or a generation of the log.
type block struct {
	seg *storeSegment // nil: a generation
	gen int
}

// kept returns, for each partition of t, the oldest record that retention keeps. Blocks go, oldest first, while MaxBytes
// remain behind them or their newest record is MaxAge old. The caller holds b.mu.
func (b *Bus) kept(t *topic, now int64) (offsets []Offset) {
	var blocks []block
	left := int64(0)
	ends := make([]int64, len(t.parts)) // bytes ever written up to where what is gone ends
	offsets = make([]Offset, len(t.parts))
	for i, p := range t.parts {
		p.mu.Lock()
		offsets[i], ends[i] = p.first, p.bytesAt(p.first)
		for _, s := range p.segs {
			blocks = append(blocks, block{seg: s})
		}
		left += p.total - ends[i]
		p.mu.Unlock()
	}
	slices.SortStableFunc(blocks, func(a, b block) int { return cmp.Compare(a.seg.index.covered, b.seg.index.covered) })
	for k := range b.gens {
		blocks = append(blocks, block{gen: k})
	}
	age := t.spec.Retention.MaxAge.Milliseconds()
	for _, bl := range blocks {
		at := int64(math.MaxInt64) // by when its newest record was written
		if bl.seg != nil {
			at = bl.seg.index.at
		} else if bl.gen+1 < len(b.gens) {
			at = b.gens[bl.gen+1].at
		}
		inside, after := false, left
		for i, p := range t.parts {
			next, bytes := b.blockEnd(t, p, bl)
			if bl.seg != nil && bl.seg.partition != i {
				continue
			}
			inside = inside || next > offsets[i]
			after -= max(0, bytes-ends[i])
		}
		old := age > 0 && at < math.MaxInt64 && now-at >= age
		if inside && !old && after < t.spec.keep() {
			return offsets
		}
		for i, p := range t.parts {
			if bl.seg != nil && bl.seg.partition != i {
				continue
			}
			next, bytes := b.blockEnd(t, p, bl)
			offsets[i], ends[i] = max(offsets[i], next), max(ends[i], bytes)
		}
		left = after
	}
	return offsets
}

// blockEnd returns where a block ends in a partition: the next offset, and the bytes ever written up to there.
func (b *Bus) blockEnd(t *topic, p *partition, bl block) (Offset, int64) {
	if bl.seg != nil {
		return bl.seg.index.next, bl.seg.index.bytes
	}
	if bl.gen+1 == len(b.gens) {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.next, p.total
	}
	gt := b.gens[bl.gen+1].topics[t.id]
	if !gt.exists {
		return 0, 0
	}
	return gt.Next[p.number], gt.Bytes[p.number]
}

// needed returns, for each partition of t, the oldest record that retention or a subscription still needs, counted by
// durable epochs. The caller holds b.mu.
func (b *Bus) needed(t *topic, now int64) []Offset {
	offsets := b.kept(t, now)
	for _, s := range t.subs {
		for i := range offsets {
			offsets[i] = min(offsets[i], s.parts[i].needs())
		}
	}
	for i, p := range t.parts {
		p.mu.Lock()
		offsets[i] = p.over(offsets[i])
		p.mu.Unlock()
	}
	return offsets
}

// needs is the oldest record that the subscription still needs in a partition.
func (p *subPart) needs() Offset { return max(p.durable, Offset(p.floor.Load())) }

// Free returns the first generation of which somebody needs a record that is not in the store: those before it may go as
// they are.
func (b *Bus) Free() wal.LSN {
	b.mu.RLock()
	defer b.mu.RUnlock()
	if len(b.gens) == 0 {
		return 0
	}
	k := len(b.gens) - 1
	now := b.cfg.Now().UnixMilli()
	for _, t := range b.topics {
		need := b.needed(t, now)
		for i := range t.parts {
			k = min(k, b.holds(t, i, need[i]))
		}
	}
	return b.gens[k].first
}

// holds returns the first generation that holds records of a partition from an offset on, the newest if none does. The
// caller holds b.mu.
func (b *Bus) holds(t *topic, partition int, from Offset) int {
	if gt := b.gens[0].topics[t.id]; gt.exists {
		from = max(from, gt.Next[partition]) // what lies before is in the store
	}
	p := t.parts[partition]
	p.mu.Lock()
	from = p.over(from)
	p.mu.Unlock()
	for k := 1; k < len(b.gens); k++ {
		if gt := b.gens[k].topics[t.id]; gt.exists && gt.Next[partition] > from {
			return k - 1
		}
	}
	return len(b.gens) - 1
}

// Trim returns what the topic store may let go: whole segments that nobody needs. It counts once ApplyStore is told of it.
func (b *Bus) Trim() StoreChange {
	b.mu.RLock()
	defer b.mu.RUnlock()
	var ch StoreChange
	now := b.cfg.Now().UnixMilli()
	for _, id := range sortedKeys(b.topics) {
		t := b.topics[id]
		var need []Offset
		for i, p := range t.parts {
			if !p.hasStore() {
				continue
			}
			if need == nil {
				need = b.needed(t, now)
			}
			if part, some := p.trimmed(need[i], false); some {
				ch.Parts = append(ch.Parts, part)
			}
		}
	}
	return ch
}

func (p *partition) hasStore() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.segs) > 0
}

// trimmed returns what the store holds of a partition without the segments that lie before an offset; exact says that the
// records before it go too, of which some may share a segment with others.
func (p *partition) trimmed(before Offset, exact bool) (part StorePart, some bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for n < len(p.segs) && p.segs[n].index.next <= before {
		n++
	}
	part = p.stored
	part.segs, part.From = p.segs[n:], p.first
	if n == len(p.segs) {
		part = StorePart{Topic: part.Topic, Partition: p.number, From: max(p.first, part.Next)}
	} else {
		part.First = p.segs[n].start
		part.From = max(p.first, p.segs[n].base)
	}
	if exact {
		part.From = max(part.From, before)
	}
	return part, n > 0 || part.From > p.first
}

// PurgeError says that a subscription still needs records that were to go.
type PurgeError struct {
	Topic, Subscription string
	Partition           int
	Before, Needs       Offset // what was to go before, and what the subscription needs first
}

func (e *PurgeError) Error() string {
	return fmt.Sprintf("bus: topic %s, partition %d: %s has yet to read from offset %s on, so that what lies before %s cannot go: "+
		"let it read on, move it, or detach it", e.Topic, e.Partition, e.Subscription, e.Needs, e.Before)
}

// Purge returns the change by which the records before a place go, in store and log, whatever retention says. What a
// registered subscription has yet to pass stays, and is a *PurgeError (R6).
func (b *Bus) Purge(topic TopicID, before Start) (StoreChange, error) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	t := b.topics[topic]
	if t == nil {
		return StoreChange{}, fmt.Errorf("bus: there is no topic %d to purge", topic)
	}
	var ch StoreChange
	for i, p := range t.parts {
		st, err := b.begin(t, p, before)
		if err != nil {
			return StoreChange{}, err
		}
		for _, s := range t.subs {
			if needs := s.parts[i].needs(); needs < st.Next {
				return StoreChange{}, &PurgeError{Topic: t.name, Subscription: s.name, Partition: i, Before: st.Next, Needs: needs}
			}
		}
		part, some := p.trimmed(st.Next, true)
		if part.Topic, part.Partition = t.id, i; some {
			ch.Parts = append(ch.Parts, part)
		}
	}
	return ch, nil
}

// ApplyStore makes a change so, whose frame has its place in the log. What it lets go is removed by SweepStore, once the
// frame is durable.
func (b *Bus) ApplyStore(ch StoreChange) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, part := range ch.Parts {
		t := b.topics[part.Topic]
		if t == nil || part.Partition >= len(t.parts) {
			continue // removed meanwhile
		}
		p := t.parts[part.Partition]
		p.mu.Lock()
		for _, s := range p.segs {
			if part.First == 0 || s.start < part.First {
				b.garbage.files = append(b.garbage.files, b.store.path(s))
			}
		}
		p.stored, p.segs = part, part.segs
		p.stored.segs = nil
		p.mu.Unlock()
		p.drop(part.From)
	}
}

// Garbage is files that the store has let go.
type Garbage struct {
	files  []string
	topics []TopicID
}

// Empty reports whether there is nothing to remove.
func (g Garbage) Empty() bool { return len(g.files)+len(g.topics) == 0 }

// TakeGarbage returns what SweepStore may remove once every frame that has its place in the log now is durable.
func (b *Bus) TakeGarbage() Garbage {
	b.mu.Lock()
	defer b.mu.Unlock()
	g := b.garbage
	b.garbage = Garbage{}
	return g
}

// SweepStore removes files. What it leaves behind after an error goes when the store is opened.
func (b *Bus) SweepStore(g Garbage) error {
	if b.store == nil {
		return nil
	}
	d := b.store
	var errs []error
	for _, f := range g.files {
		if err := d.Disk.Remove(f); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	for _, t := range g.topics {
		errs = append(errs, d.removeTopic(t))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("bus: topic store: removing what was let go: %w", err)
	}
	return nil
}

// removeTopic removes a topic's folder.
func (d *storeDir) removeTopic(t TopicID) error {
	parts, err := d.Disk.List(d.topicDir(t))
	if err != nil || len(parts) == 0 {
		return err
	}
	for name := range parts {
		dir := filepath.Join(d.topicDir(t), name)
		files, err := d.Disk.List(dir)
		if err != nil {
			return err
		}
		for f := range files {
			if err := d.Disk.Remove(filepath.Join(dir, f)); err != nil {
				return err
			}
		}
		if err := d.Disk.Remove(dir); err != nil {
			return err
		}
	}
	return d.Disk.Remove(d.topicDir(t))
}

// OpenStore finds what the log says that the store holds: behind LoadCatalog and the last Replay, before anything else.
// write, of the process that has the directory locked, removes what the log does not say.
func (b *Bus) OpenStore(write bool) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.store == nil {
		return nil
	}
	for _, id := range sortedKeys(b.topics) {
		t := b.topics[id]
		for i, p := range t.parts {
			p.stored.Topic, p.stored.Partition = id, i
			if p.stored.First == 0 && !write {
				continue
			}
			segs, err := b.store.openPart(p.stored, p.over, write)
			if err != nil {
				return err
			}
			p.mu.Lock()
			p.segs = segs
			p.addPoints()
			p.mu.Unlock()
		}
		b.look(t)
		t.unsay()
	}
	if !write {
		return nil
	}
	names, err := b.store.Disk.List(b.store.Dir)
	if err != nil {
		return fmt.Errorf("bus: topic store: %w", err)
	}
	b.garbage = Garbage{}
	for name := range names {
		if id, err := strconv.ParseUint(name, 10, 32); err == nil && b.topics[TopicID(id)] == nil {
			b.garbage.topics = append(b.garbage.topics, TopicID(id))
		}
	}
	return nil
}

// addPoints makes bytesAt know of what is in the store. The caller holds mu.
func (p *partition) addPoints() {
	if len(p.segs) == 0 {
		return
	}
	var points []point
	for _, s := range p.segs {
		points = append(points, point{s.base, s.before})
	}
	points = append(points, point{p.stored.Next, p.stored.Bytes})
	for _, at := range p.points {
		if at.offset > p.stored.Next {
			points = append(points, at)
		}
	}
	p.points = points
}
