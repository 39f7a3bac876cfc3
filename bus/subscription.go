package bus

import (
	"cmp"
	"fmt"
	"slices"
	"sort"
	"sync/atomic"

	"github.com/sidestream-dev/sidestream/wal"
)

// subscription is a claim on a topic: records stay until it has passed them.
type subscription struct {
	id    SubID
	name  string
	topic TopicID
	parts []subPart
	said  bool // that it has nearly filled the topic
}

// subPart is a subscription's place in a partition, guarded by the Bus's mu.
type subPart struct {
	sealed  Offset         // by the newest sealed epoch
	durable Offset         // by the newest durable one
	floor   *atomic.Uint64 // records before this offset are let go for this subscription: the topic drops the oldest
	marks   wal.LSN        // beside durable
	base    int64          // bytes written before it registered, which never count against the limit

	lost    account // by the newest sealed epoch
	counted account // by the newest durable one
}

// account is what the readers of a subscription went over in a partition.
type account struct {
	records uint64
	ranges  []Lost // the newest
}

// take brings an account up to a place. It never goes back.
func (a *account) take(st SubState) {
	if st.Dropped > a.records {
		*a = account{st.Dropped, st.Lost}
	}
}

// place is the first record that the subscription has yet to pass.
func (p *subPart) place() Offset { return max(p.sealed, Offset(p.floor.Load())) }

// Begin returns where a subscription to a topic would begin, in each partition; it registers none. The error of an offset
// that is not there is an *OffsetError.
func (b *Bus) Begin(topic TopicID, start Start) ([]SubState, error) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	t := b.topics[topic]
	if t == nil {
		return nil, fmt.Errorf("bus: there is no topic %d to subscribe to", topic)
	}
	return b.beginAll(t, start)
}

// BeginNew is Begin for a topic that is yet to be defined.
func (b *Bus) BeginNew(spec TopicSpec, start Start) ([]SubState, error) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.beginAll(newTopic(0, spec), start)
}

// beginAll is Begin of a topic that need not be registered. The caller holds b.mu.
func (b *Bus) beginAll(t *topic, start Start) ([]SubState, error) {
	states := make([]SubState, len(t.parts))
	for i, p := range t.parts {
		st, err := b.begin(t, p, start)
		if err != nil {
			return nil, err
		}
		states[i] = st
	}
	return states, nil
}

// Subscribe registers a subscription and returns where it begins, in each partition. The error of an offset that is not
// there is an *OffsetError.
func (b *Bus) Subscribe(id SubID, name string, topic TopicID, start Start) ([]SubState, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	t := b.topics[topic]
	if t == nil {
		return nil, fmt.Errorf("bus: there is no topic %d to subscribe to", topic)
	}
	if b.subs[id] != nil {
		return nil, fmt.Errorf("bus: subscription %d is there already", id)
	}
	states, err := b.beginAll(t, start)
	if err != nil {
		return nil, err
	}
	s := &subscription{id: id, name: name, topic: topic, parts: make([]subPart, len(t.parts))}
	for i, p := range t.parts {
		st := states[i]
		p.mu.Lock()
		s.parts[i] = subPart{sealed: st.Next, durable: st.Next, floor: new(atomic.Uint64), marks: st.Marks, base: p.total}
		p.mu.Unlock()
	}
	b.subs[id] = s
	t.subs = append(t.subs, s)
	return states, nil
}

// begin returns where a start lies in a partition. Reading begins at the generation that holds it.
func (b *Bus) begin(t *topic, p *partition, start Start) (SubState, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	st := SubState{Partition: p.number, Watermark: NoWatermark}
	at := p.first
	switch {
	case start.Latest:
		st.Position = Position{Next: p.next, Marks: wal.LSN(b.visible.Load())}
		st.Table = slices.Clone(t.producers)
		st.settle()
		return st, nil
	case start.ByTime:
		return st, fmt.Errorf("bus: topic %s: a start by time has to be resolved first", t.name)
	case !start.Earliest:
		at = start.At
		if len(start.Offsets) > p.number {
			at = start.Offsets[p.number]
		}
		at = p.over(at)
		if at < p.first || at > p.next {
			return st, &OffsetError{Topic: t.name, Partition: p.number, Offset: at, First: p.first, Next: p.next}
		}
	}
	st.Next = at
	if n := len(p.segs); n > 0 && at < p.stored.Next {
		i := sort.Search(n, func(i int) bool { return p.segs[i].base > at })
		seg := p.segs[max(0, i-1)]
		st.Marks, st.Table = seg.start-1, slices.Clone(seg.table)
		st.settle()
		return st, nil
	}
	for _, g := range b.gens {
		gt := g.topics[t.id]
		if gt.exists && gt.Next[p.number] > at {
			break
		}
		st.Marks = g.first
		st.Table = slices.Clone(gt.Table)
	}
	st.settle()
	return st, nil
}

// Subscribed reports whether a subscription is registered.
func (b *Bus) Subscribed(id SubID) bool {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.subs[id] != nil
}

// Unsubscribe ends a claim.
func (b *Bus) Unsubscribe(id SubID) {
	b.mu.Lock()
	s := b.subs[id]
	if s == nil {
		b.mu.Unlock()
		return
	}
	delete(b.subs, id)
	var n news
	if t := b.topics[s.topic]; t != nil {
		t.subs = slices.DeleteFunc(t.subs, func(o *subscription) bool { return o == s })
		n = b.look(t)
	}
	b.mu.Unlock()
	b.tell(n)
}

// Passed says how far a subscription has come, by an epoch that is sealed or, later, durable. It never goes back.
func (b *Bus) Passed(id SubID, states []SubState, durable bool) {
	b.mu.Lock()
	s := b.subs[id]
	if s == nil {
		b.mu.Unlock()
		return
	}
	for _, st := range states {
		if st.Partition >= len(s.parts) {
			continue
		}
		p := &s.parts[st.Partition]
		p.sealed = max(p.sealed, st.Next)
		p.lost.take(st)
		if durable {
			p.durable, p.marks = max(p.durable, st.Next), max(p.marks, st.Marks)
			p.counted.take(st)
		}
	}
	var n news
	if t := b.topics[s.topic]; t != nil && (t.full || t.over || t.said) {
		n = b.look(t)
	}
	b.mu.Unlock()
	b.tell(n)
}

// unread returns the bytes that a subscription has yet to pass, counted against the limit. The caller holds b.mu.
func (b *Bus) unread(t *topic, s *subscription) int64 {
	n := int64(0)
	for i, p := range t.parts {
		p.mu.Lock()
		n += p.total - max(p.bytesAt(s.parts[i].place()), s.parts[i].base)
		p.mu.Unlock()
	}
	return n
}

// news is what a look at a topic found, to be told once b.mu is free. The zero news is none.
type news struct {
	topic TopicID
	room  bool   // it was full and is not any more, or by somebody else
	who   string // not "": it has become nearly full by this subscription
	name  string
	fill  float64
}

// look notes how full a topic is and by whom. The caller holds b.mu, and tells what is returned when it no longer does.
func (b *Bus) look(t *topic) news {
	n := news{topic: t.id, name: t.name}
	limit := float64(t.spec.limit())
	was := t.behind
	t.behind, t.said = nil, false
	for _, s := range t.subs {
		fill := float64(b.unread(t, s)) / limit
		if fill < nearlyFull/2 {
			s.said = false
		}
		if t.said = t.said || s.said; t.behind == nil || fill > n.fill {
			t.behind, n.fill = s, fill
		}
	}
	if n.fill >= nearlyFull && !t.behind.said {
		t.said, t.behind.said, n.who = true, true, t.behind.name
	}
	t.over = n.fill >= 1 && t.spec.OnFull == DropOldest
	full := n.fill >= 1 && !t.over
	n.room = t.full && (!full || t.behind != was)
	t.full = full
	return n
}

// unsay forgets what was found in recovery, where nobody was told.
func (t *topic) unsay() {
	t.said = false
	for _, s := range t.subs {
		s.said = false
	}
}

func (b *Bus) tell(n news) {
	if n.who != "" && b.cfg.OnNearlyFull != nil {
		b.cfg.OnNearlyFull(n.topic, n.name, n.who, n.fill)
	}
	if n.room && b.cfg.OnRoom != nil {
		b.cfg.OnRoom(n.topic)
	}
}

// Full reports whether a topic is full, how full it is (1 is its limit), and which subscription is furthest behind.
func (b *Bus) Full(id TopicID) (who string, full bool, fill float64) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	t := b.topics[id]
	if t == nil || !t.full {
		return "", false, 0
	}
	return t.behind.name, true, float64(b.unread(t, t.behind)) / float64(t.spec.limit())
}

// Lag returns how many records a subscription has yet to pass in a sealed epoch.
func (b *Bus) Lag(id SubID) int64 {
	b.mu.RLock()
	defer b.mu.RUnlock()
	s := b.subs[id]
	if s == nil || b.topics[s.topic] == nil {
		return 0
	}
	return b.lag(b.topics[s.topic], s)
}

func (b *Bus) lag(t *topic, s *subscription) int64 {
	n := int64(0)
	for i, p := range t.parts {
		p.mu.Lock()
		n += p.records(s.parts[i].place(), p.next)
		p.mu.Unlock()
	}
	return n
}

// Pins names who still needs frames of the log, oldest first: subscriptions that have something to read, counted by
// durable epochs, and topics that keep records for those who may come.
func (b *Bus) Pins() []Pin {
	b.mu.RLock()
	defer b.mu.RUnlock()
	var pins []Pin
	if len(b.gens) == 0 {
		return nil
	}
	for _, s := range b.subs {
		t := b.topics[s.topic]
		if t == nil {
			continue
		}
		for i, p := range t.parts {
			p.mu.Lock()
			behind := p.over(s.parts[i].needs()) < p.next
			p.mu.Unlock()
			if behind {
				lsn := max(s.parts[i].marks+1, b.gens[b.holds(t, i, s.parts[i].needs())].first)
				pins = append(pins, Pin{Who: "subscription " + s.name, LSN: lsn, Topic: t.id, Subscription: s.id})
			}
		}
	}
	now := b.cfg.Now().UnixMilli()
	for _, t := range b.topics {
		oldest := -1
		for i, o := range b.kept(t, now) {
			if o >= t.parts[i].end() {
				continue
			}
			if k := b.holds(t, i, o); oldest < 0 || k < oldest {
				oldest = k
			}
		}
		if oldest >= 0 {
			pins = append(pins, Pin{Who: "retention of topic " + t.name, LSN: b.gens[oldest].first, Topic: t.id})
		}
	}
	slices.SortStableFunc(pins, func(a, b Pin) int {
		return cmp.Or(cmp.Compare(a.LSN, b.LSN), cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Subscription, b.Subscription))
	})
	return pins
}
