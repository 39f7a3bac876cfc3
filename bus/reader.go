package bus

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/sidestream-dev/sidestream/wal"
)

// Reader reads some partitions of a topic for one subscription. One goroutine owns it; CaughtUp, Ended and Blame may be
// called by any.
type Reader struct {
	bus      *Bus
	topic    *topic
	cursors  []*cursor
	wake     func()
	turn     int
	caughtUp atomic.Bool
	ended    atomic.Bool

	mu    sync.Mutex
	blame []ProducerID
}

// cursor is a reader's place in one partition.
type cursor struct {
	part *partition
	SubState
	seen int64 // highest event time taken, to read the partition furthest behind first; of a reader of several

	cold  LogReader // nil while live
	frame wal.LSN   // being taken, cold
	queue []item    // of that frame, yet to be taken
	mark  mark      // where the batch that is taken in pieces goes on
}

// NewReader returns a reader of the partitions in states, which goes on where they say. wake is called, from any goroutine,
// when there may be something new.
func (b *Bus) NewReader(sub SubID, topic TopicID, states []SubState, wake func()) *Reader {
	r := &Reader{bus: b, topic: b.topic(topic), wake: wake}
	if r.topic == nil {
		r.ended.Store(true)
		return r
	}
	for _, st := range states {
		st.Table = slices.Clone(st.Table)
		c := &cursor{part: r.topic.parts[st.Partition], SubState: st, seen: NoTime}
		r.cursors = append(r.cursors, c)
		c.part.mu.Lock()
		c.part.wakes[r] = wake
		c.part.mu.Unlock()
	}
	return r
}

// Close ends the reader; it forgets no position, which stands with the subscription.
func (r *Reader) Close() error {
	var errs []error
	for _, c := range r.cursors {
		c.part.mu.Lock()
		delete(c.part.wakes, r)
		c.part.mu.Unlock()
		errs = append(errs, c.closeCold())
	}
	return errors.Join(errs...)
}

func (c *cursor) closeCold() error {
	if c.cold == nil {
		return nil
	}
	err := c.cold.Close()
	c.cold, c.queue = nil, nil
	return err
}

// Next takes at most max records, all from the partition that is furthest behind in event time among those that have some;
// ok is false where none has. A batch of no records says that only marks were taken.
func (r *Reader) Next(max int) (b Batch, ok bool, err error) {
	if len(r.cursors) > 1 {
		slices.SortStableFunc(r.cursors, func(a, b *cursor) int {
			switch {
			case a.seen < b.seen:
				return -1
			case a.seen > b.seen:
				return 1
			}
			return 0
		})
	}
	for _, c := range r.cursors {
		b, ok, err = c.next(r.bus, r.topic, max)
		if ok || err != nil {
			if ok && len(r.cursors) > 1 {
				c.seen = b.latest(c.seen)
			}
			r.caughtUp.Store(false)
			return b, ok, err
		}
	}
	r.dry()
	return Batch{}, false, nil
}

// dry notes that all there is has been taken.
func (r *Reader) dry() {
	ended := r.topic != nil && r.topic.wasWritten(r.bus)
	var blame []ProducerID
	low := int64(0)
	for _, c := range r.cursors {
		ended = ended && len(c.Table) == 0
		for _, p := range c.Table {
			if p.Idle {
				continue
			}
			if len(blame) == 0 || p.Watermark < low {
				blame, low = blame[:0], p.Watermark
			}
			if p.Watermark == low && !slices.Contains(blame, p.Producer) {
				blame = append(blame, p.Producer)
			}
		}
	}
	r.mu.Lock()
	r.blame = append(r.blame[:0], blame...)
	r.mu.Unlock()
	r.ended.Store(ended || r.topic == nil)
	r.caughtUp.Store(true)
}

func (t *topic) wasWritten(b *Bus) bool {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return t.written
}

// next takes the cursor's next records or marks.
func (c *cursor) next(b *Bus, t *topic, max int) (Batch, bool, error) {
	for {
		if c.cold == nil {
			it, found, live := c.live(b)
			if live {
				if !found {
					return Batch{}, false, nil
				}
				return c.take(it, max), true, nil
			}
			if err := c.openCold(b); err != nil {
				return Batch{}, false, err
			}
		}
		if len(c.queue) > 0 {
			it := c.queue[0]
			out := c.take(it, max)
			if it.marks != nil || c.Next >= it.base+Offset(it.count) {
				c.queue = c.queue[1:]
			}
			c.finishFrame()
			return out, true, nil
		}
		more, err := c.readFrame(b, t)
		if err != nil {
			return Batch{}, false, err
		}
		if !more {
			// All that was durable has been taken; what is not lies in memory.
			if err := c.closeCold(); err != nil {
				return Batch{}, false, err
			}
			if _, _, live := c.live(b); !live {
				continue
			}
		}
	}
}

// live returns the next item in memory; live is false where the log has to be read.
func (c *cursor) live(b *Bus) (it item, found, live bool) {
	p := c.part
	visible := wal.LSN(b.visible.Load()) // before the lock: whatever is published up to here is in items
	p.mu.Lock()
	defer p.mu.Unlock()
	i, ok := p.find(c.Position)
	if !ok {
		return item{}, false, false
	}
	if i == len(p.items) {
		c.Marks = max(c.Marks, visible)
		return item{}, false, true
	}
	it = p.items[i]
	// Everything before this item is taken; what lies between says nothing to this partition.
	c.Marks = max(c.Marks, it.lsn-1)
	return it, true, true
}

// take returns records of an item from where the cursor stands, or applies its marks.
func (c *cursor) take(it item, max int) Batch {
	if it.marks != nil {
		for _, m := range it.marks {
			c.Table = applyMark(c.Table, m)
		}
		c.Marks = it.lsn
		c.settle()
		return Batch{Partition: c.part.number, LSN: it.lsn}
	}
	from := int(c.Next - it.base)
	out := Batch{Partition: c.part.number, Base: c.Next, LSN: it.lsn, Payload: it.payload, From: from, To: min(it.count, from+max),
		data: it.data, mark: &c.mark}
	c.Next += Offset(out.Len())
	return out
}

// Watermark returns the lowest watermark of the partitions that are not idle, and whether all are.
func (r *Reader) Watermark() (watermark int64, idle bool) {
	watermark, idle = NoWatermark, len(r.cursors) > 0
	first := true
	for _, c := range r.cursors {
		if c.Idle {
			continue
		}
		idle = false
		if first || c.Watermark < watermark {
			watermark = c.Watermark
		}
		first = false
	}
	return watermark, idle
}

// States returns where the reader stands: exactly behind what Next has returned.
func (r *Reader) States() []SubState {
	out := make([]SubState, 0, len(r.cursors))
	for _, c := range r.cursors {
		st := c.SubState
		st.Table = slices.Clone(st.Table)
		out = append(out, st)
	}
	slices.SortFunc(out, func(a, b SubState) int { return a.Partition - b.Partition })
	return out
}

// CaughtUp reports whether the last Next found nothing.
func (r *Reader) CaughtUp() bool { return r.caughtUp.Load() }

// Ended reports whether everything has been taken and the topic had producers and has none left.
func (r *Reader) Ended() bool { return r.ended.Load() && (r.topic == nil || r.CaughtUp()) }

// Blame returns the producers whose watermark is the lowest, as of when everything had been taken.
func (r *Reader) Blame() []ProducerID {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.blame)
}

// openCold goes to the log, behind the last frame taken.
func (c *cursor) openCold(b *Bus) error {
	from := c.Marks + 1
	b.mu.RLock()
	if len(b.gens) > 0 {
		from = max(from, b.gens[0].first) // what was dropped before it, this subscription had passed
	}
	b.mu.RUnlock()
	r, err := b.log.Reader(from)
	if err != nil {
		return fmt.Errorf("bus: reading from frame %s: %w", from, err)
	}
	c.cold, c.queue, c.frame = r, nil, 0
	return nil
}

// finishFrame notes that a frame has been taken wholly.
func (c *cursor) finishFrame() {
	if len(c.queue) == 0 && c.frame > 0 {
		c.Marks = max(c.Marks, c.frame)
	}
}

// readFrame reads the next frame of the log and queues what it holds for this partition; more is false at the end of
// what is durable.
func (c *cursor) readFrame(b *Bus, t *topic) (more bool, err error) {
	f, err := c.cold.Next()
	if errors.Is(err, io.EOF) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("bus: topic %s, partition %d, offset %s: %w", t.spec.Name, c.part.number, c.Next, err)
	}
	c.frame = f.LSN()
	if err := c.queueFrame(b, t, f); err != nil {
		return false, fmt.Errorf("bus: topic %s, partition %d, frame %s: %w", t.spec.Name, c.part.number, c.frame, err)
	}
	c.finishFrame()
	return true, nil
}

func (c *cursor) queueFrame(b *Bus, t *topic, f Frame) error {
	var marks []Mark
	var parts []Publication
	for i := range f.Len() {
		if f.Section(i).Kind != SectionIndex {
			continue
		}
		body, err := f.Body(i)
		if err != nil {
			return err
		}
		pubs, ms, err := DecodeIndex(body)
		if err != nil {
			return err
		}
		for _, m := range ms {
			if m.Topic == t.id {
				marks = append(marks, m)
			}
		}
		for _, p := range pubs {
			if p.Topic == t.id && p.Partition == c.part.number && p.Base+Offset(p.Count) > c.Next {
				parts = append(parts, p)
			}
		}
	}
	lsn := f.LSN()
	for _, p := range parts {
		data, err := c.section(b, f, p)
		if err != nil {
			return err
		}
		c.queue = append(c.queue, item{lsn: lsn, base: p.Base, count: p.Count, data: data})
	}
	if len(marks) > 0 {
		c.queue = append(c.queue, item{lsn: lsn, base: c.part.next, marks: marks})
	}
	return nil
}

// section reads a publication's records, from the frame at hand or from the part it names.
func (c *cursor) section(b *Bus, f Frame, p Publication) ([]byte, error) {
	if p.Part != 0 {
		r, err := b.log.Reader(p.Part)
		if err != nil {
			return nil, err
		}
		defer r.Close()
		if f, err = r.Next(); err != nil {
			return nil, err
		}
	}
	if p.Section < 0 || p.Section >= f.Len() || f.Section(p.Section).Kind != SectionRecords {
		return nil, fmt.Errorf("the index names section %d of frame %s, which holds no records", p.Section, f.LSN())
	}
	data, err := f.Body(p.Section)
	if err != nil {
		return nil, err
	}
	return data, checkRecords(data, p.Count)
}
