package bus

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/sidestream-dev/sidestream/wal"
)

// Reader reads some partitions of a topic for one subscription. One goroutine owns it; CaughtUp, Ended and Blame may be
// called by any.
type Reader struct {
	bus      *Bus
	topic    *topic // nil if it was not there
	cursors  []*cursor
	err      error  // of what it was made from
	quiet    *quiet // nil: every producer counts
	bounded  bool   // some cursor stops
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
	mark mark  // where the batch that is taken in pieces goes on

	floor *atomic.Uint64 // of the subscription; nil for a reader without one

	stop    Offset // where it stops, if it stops
	stops   bool
	stopped bool

	store *storeCursor // nil unless it reads the topic store

	// Of a cursor that reads the log; cold is nil while it does not.
	cold    LogReader
	from    wal.LSN // Marks when cold was opened
	frame   Frame   // being taken
	reading wal.LSN // of frame
	queue   []coldItem
	parts   partReader
}

// NewReader returns a reader of the partitions in states, which goes on where they say. wake is called, from any goroutine,
// when there may be something new, and perhaps once behind Close; it must not block. A reader of no partitions has ended.
func (b *Bus) NewReader(sub SubID, topic TopicID, states []SubState, wake func()) *Reader {
	r := &Reader{bus: b, topic: b.topic(topic)}
	if r.topic == nil || len(states) == 0 {
		r.dry(true)
		return r
	}
	for _, st := range states {
		if st.Partition < 0 || st.Partition >= len(r.topic.parts) {
			r.err = fmt.Errorf("bus: topic %s has no partition %d, only %d", r.topic.name, st.Partition, len(r.topic.parts))
			continue
		}
		st.Table = slices.Clone(st.Table)
		c := &cursor{part: r.topic.parts[st.Partition], SubState: st, seen: NoTime, floor: b.floorOf(sub, st.Partition)}
		r.cursors = append(r.cursors, c)
		c.part.listen(r, wake)
	}
	return r
}

// Close ends the reader; it forgets no position, which stands with the subscription.
func (r *Reader) Close() error {
	var errs []error
	for _, c := range r.cursors {
		c.part.silence(r)
		errs = append(errs, c.closeCold(), c.closeStore())
	}
	return errors.Join(errs...)
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
	if r.err != nil {
		return Batch{}, false, r.err
	}
	if r.removed() {
		r.dry(true)
		return Batch{}, false, nil
	}
	written := r.topic.written.Load() // before looking: who then finds nothing has taken the marks of all who wrote
	for i, c := range r.cursors {
		b, ok, err = c.goOn(r.bus, r.topic, max)
		if ok || err != nil {
			if ok && len(r.cursors) > 1 {
				c.seen = b.latest(c.seen)
				r.cursors = append(slices.Delete(r.cursors, i, i+1), c) // of those as far behind the others come first
			}
			r.caughtUp.Store(false)
			return b, ok, err
		}
	}
	r.dry(written && !r.bounded) // one that is stopped has more before it
	return Batch{}, false, nil
}

// removed reports whether there is no topic, or not any more.
func (r *Reader) removed() bool {
	return r.topic == nil || r.topic.removed.Load()
}

// dry notes that all there is has been taken. written says that the topic has or had producers.
func (r *Reader) dry(written bool) {
	var blame []ProducerID
	low := int64(0)
	some := false // producers are left
	for _, c := range r.cursors {
		some = some || len(c.Table) > 0
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
	r.ended.Store(len(r.cursors) == 0 || r.removed() || !some && written)
	r.caughtUp.Store(true)
}

// goOn takes what comes next of what was not let go.
func (c *cursor) goOn(b *Bus, t *topic, max int) (out Batch, ok bool, err error) {
	for {
		if c.stopped {
			return Batch{}, false, nil
		}
		if err = c.jump(b, t); err != nil || c.stopped {
			return out, ok, err
		}
		if c.stops {
			out, ok, err = c.nextUntil(b, t, max)
		} else {
			out, ok, err = c.next(b, t, max)
		}
		if !errors.Is(err, errLetGo) {
			return out, ok, err
		}
	}
}

// next takes the cursor's next records or marks.
func (c *cursor) next(b *Bus, t *topic, max int) (Batch, bool, error) {
	barren, at := false, wal.LSN(0)
	for {
		if c.store != nil {
			if out, ok, more, err := c.takeStore(t, max); more || err != nil {
				return out, ok, err
			}
		}
		if c.cold == nil {
			it, found, live := c.live(b)
			if live {
				if !found {
					return Batch{}, false, nil
				}
				return c.take(t, it, max)
			}
			if err := c.openCold(b, t); err != nil {
				return Batch{}, false, err
			}
			if c.store != nil {
				continue
			}
		}
		if len(c.queue) > 0 {
			if out, ok, err := c.takeCold(b, t, max); ok || err != nil {
				return out, ok, err
			}
			continue
		}
		if c.reading > 0 && c.part.reached(c.Position) {
			if err := c.closeCold(); err != nil {
				return Batch{}, false, err
			}
			continue
		}
		more, err := c.readFrame(b, t)
		if err != nil {
			return Batch{}, false, err
		}
		if more {
			continue
		}
		// All that was durable has been taken; what is not lies in memory, unless it became durable and left memory meanwhile.
		if barren && c.Marks == c.from && at == c.from {
			return Batch{}, false, c.wrap(t, errLogShort)
		}
		barren, at = c.Marks == c.from, c.from
		if err := c.closeCold(); err != nil {
			return Batch{}, false, err
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
		c.Next = p.over(c.Next)
		return item{}, false, true
	}
	it = p.items[i]
	// Everything before this item is taken; what lies between says nothing to this partition.
	c.Marks = max(c.Marks, it.lsn-1)
	return it, true, true
}

// take returns records of an item from where the cursor stands, or applies its marks.
func (c *cursor) take(t *topic, it item, max int) (Batch, bool, error) {
	if it.marks != nil {
		for _, m := range it.marks {
			c.Table = applyMark(c.Table, m)
		}
		c.Marks = it.lsn
		c.settle()
		return Batch{Partition: c.part.number, LSN: it.lsn}, true, nil
	}
	if it.base > c.Next {
		c.part.mu.Lock()
		c.Next = c.part.over(c.Next)
		c.part.mu.Unlock()
	}
	if it.base > c.Next {
		return Batch{}, false, c.part.missing(t.name, c.Next)
	}
	from := int(c.Next - it.base)
	out := Batch{Partition: c.part.number, Base: c.Next, LSN: it.lsn, Payload: it.payload, From: from, To: min(it.count, from+max),
		data: it.data, mark: &c.mark}
	c.Next += Offset(out.Len())
	return out, true, nil
}

// Watermark returns the lowest watermark of the partitions that are not idle, or of all if all are.
func (r *Reader) Watermark() (watermark int64, idle bool) {
	if r.quiet != nil {
		r.quiet.leaveOut(r.cursors, r.CaughtUp())
	}
	watermark, idle = NoWatermark, len(r.cursors) > 0
	for _, c := range r.cursors {
		idle = idle && c.Idle
	}
	first := true
	for _, c := range r.cursors {
		if c.Idle && !idle {
			continue
		}
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
