package bus

import (
	"errors"
	"math"
	"slices"
	"sort"
	"sync/atomic"

	"github.com/sidestream-dev/sidestream/wal"
)

// dropPart is the part of its limit that a topic drops beyond what it must, so that it does not do so again at each epoch.
const dropPart = 8

// lostKept is how many ranges that it lost a subscription remembers of a partition.
const lostKept = 8

// errLetGo says that what comes next was let go for the subscription, while its reader looked for it.
var errLetGo = errors.New("bus: let go meanwhile")

// Drop says that a subscription, which is behind by its topic's limit, does not get the records of a partition up to To any
// more: its floor. From is where it stood in a sealed epoch, or its floor before: its reader may have come further, and does
// not lose what it has read, once that is sealed. What it does lose stands in its place (SubState).
type Drop struct {
	Topic     TopicID `json:"topic"`
	Sub       SubID   `json:"sub"`
	Partition int     `json:"partition"`
	From      Offset  `json:"from"`
	To        Offset  `json:"to"`
	Records   int64   `json:"records"`
}

// DropsDue returns what subscriptions of the topics among pubs, which were just published, have to lose so that they are no
// longer behind by the limit: an eighth of it more than they must, of each partition its share, and never of the newest epoch.
// It counts once ApplyDrops is told of it; a frame of the log says so first.
func (b *Bus) DropsDue(pubs []Publication) (drops []Drop) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	for i := range pubs {
		t := b.topics[pubs[i].Topic]
		if t == nil || !t.over || slices.ContainsFunc(pubs[:i], func(p Publication) bool { return p.Topic == t.id }) {
			continue
		}
		for _, s := range t.subs {
			drops = append(drops, b.dropsOf(t, s)...)
		}
	}
	return drops
}

// dropsOf returns what a subscription has to lose. The caller holds b.mu.
func (b *Bus) dropsOf(t *topic, s *subscription) (drops []Drop) {
	limit := t.spec.limit()
	unread := b.unread(t, s)
	if unread < limit {
		return nil
	}
	keep := float64(limit-limit/dropPart) / float64(unread)
	for i, p := range t.parts {
		at := s.parts[i].place()
		p.mu.Lock()
		counted := p.total - max(p.bytesAt(at), s.parts[i].base)
		to := at
		if counted > 0 {
			to = p.over(min(p.offsetAt(p.total-int64(keep*float64(counted))), p.newest))
		}
		if to > at {
			drops = append(drops, Drop{Topic: t.id, Sub: s.id, Partition: i, From: at, To: to, Records: p.records(at, to)})
		}
		p.mu.Unlock()
	}
	return drops
}

// ApplyDrops makes drops so, whose frame has its place in the log. Readers go over what they have not read.
func (b *Bus) ApplyDrops(drops []Drop) {
	b.mu.Lock()
	var topics []*topic
	for _, d := range drops {
		s, t := b.subs[d.Sub], b.topics[d.Topic]
		if s == nil || t == nil || s.topic != d.Topic || d.Partition < 0 || d.Partition >= len(s.parts) {
			continue // gone meanwhile
		}
		if f := s.parts[d.Partition].floor; d.To > Offset(f.Load()) {
			f.Store(uint64(d.To))
		}
		if !slices.Contains(topics, t) {
			topics = append(topics, t)
		}
	}
	var told []news
	for _, t := range topics {
		told = append(told, b.look(t))
	}
	b.mu.Unlock()
	for _, n := range told {
		b.tell(n)
	}
}

// floorOf returns the floor of a subscription, which its reader looks at without a lock.
func (b *Bus) floorOf(id SubID, partition int) *atomic.Uint64 {
	b.mu.RLock()
	defer b.mu.RUnlock()
	if s := b.subs[id]; s != nil && partition < len(s.parts) {
		return s.parts[partition].floor
	}
	return nil
}

// SubName returns what a subscription is called, and what its topic is; "" where there is none.
func (b *Bus) SubName(id SubID) (name, topic string) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	s := b.subs[id]
	if s == nil {
		return "", ""
	}
	if t := b.topics[s.topic]; t != nil {
		topic = t.name
	}
	return s.name, topic
}

// Beyond returns a place of a subscription as a reader that goes on from there has it: behind what was let go for it, which is
// counted.
func (b *Bus) Beyond(id SubID, st SubState) SubState {
	b.mu.RLock()
	defer b.mu.RUnlock()
	s := b.subs[id]
	if s == nil || st.Partition < 0 || st.Partition >= len(s.parts) {
		return st
	}
	if t := b.topics[s.topic]; t != nil {
		st.beyond(t.parts[st.Partition], Offset(s.parts[st.Partition].floor.Load()))
	}
	return st
}

// Lost is a range of offsets, From up to, without, To, that a reader went over since its topic drops the oldest.
type Lost struct {
	From Offset `json:"from"`
	To   Offset `json:"to"`
}

// beyond goes over the records before floor, and counts them.
func (s *SubState) beyond(p *partition, floor Offset) {
	if floor <= s.Next {
		return
	}
	p.mu.Lock()
	n := p.records(s.Next, floor)
	p.mu.Unlock()
	if n > 0 {
		s.Dropped += uint64(n)
		s.Lost = remember(s.Lost, Lost{s.Next, floor})
	}
	s.Next = floor
}

// remember returns ranges with one more, as one with the last where it follows on that, and without the oldest beyond lostKept.
func remember(ranges []Lost, l Lost) []Lost {
	n := len(ranges)
	if n > 0 && ranges[n-1].To == l.From {
		l.From = ranges[n-1].From
		n--
	}
	return append(slices.Clone(ranges[max(0, n+1-lostKept):n]), l)
}

// KeepLost gives a place of a subscription that goes on elsewhere what it has lost so far.
func (s *SubState) KeepLost(was SubState) { s.Dropped, s.Lost = was.Dropped, was.Lost }

// Behind returns a place told before somebody came to it, with what was lost on the way there: until at, and then by s itself.
func (s SubState) Behind(at SubState) SubState {
	more := s.Lost
	s.Dropped, s.Lost = at.Dropped+s.Dropped, at.Lost
	for _, l := range more {
		s.Lost = remember(s.Lost, l)
	}
	return s
}

// letGo reports whether what comes next was let go for the subscription.
func (c *cursor) letGo() bool { return c.floor != nil && Offset(c.floor.Load()) > c.Next }

// jump goes over what was let go for the subscription, though not over where the cursor stops: what lies behind is not its to
// lose, as it may go on elsewhere. Of the marks before it the newest catalog that is not behind it says what they came to.
func (c *cursor) jump(b *Bus, t *topic) error {
	if !c.letGo() {
		return nil
	}
	floor := Offset(c.floor.Load())
	if c.stops && floor > c.stop {
		if floor = c.stop; floor <= c.Next {
			c.stopped = true // of what comes next nothing need be there any more
			return nil
		}
	}
	c.beyond(c.part, floor)
	if err := errors.Join(c.closeCold(), c.closeStore()); err != nil {
		return err
	}
	b.mu.RLock()
	defer b.mu.RUnlock()
	for _, g := range slices.Backward(b.gens) {
		if gt := g.topics[t.id]; gt.exists && g.first > c.Marks && gt.Next[c.part.number] <= c.Next {
			c.Table, c.Marks = slices.Clone(gt.Table), g.first
			c.settle()
			return nil
		}
	}
	return nil
}

// offsetAt is bytesAt turned round: about the first offset before which so many bytes were written. The caller holds mu.
func (p *partition) offsetAt(bytes int64) Offset {
	if bytes >= p.total {
		return p.next
	}
	i := sort.Search(len(p.points), func(i int) bool { return p.points[i].bytes > bytes })
	if i == 0 {
		return p.first
	}
	from, to := p.points[i-1], point{p.next, p.total}
	if i < len(p.points) {
		to = p.points[i]
	}
	if to.bytes == from.bytes {
		return to.offset
	}
	part := float64(bytes-from.bytes) / float64(to.bytes-from.bytes)
	return from.offset + Offset(math.Ceil(part*float64(to.offset-from.offset)))
}

// noteNewest remembers where the newest epoch begins. The caller holds mu.
func (p *partition) noteNewest(lsn wal.LSN, base Offset) {
	if lsn != p.newestLSN {
		p.newest, p.newestLSN = base, lsn
	}
}
