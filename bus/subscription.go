package bus

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/sidestream-dev/sidestream/wal"
)

// subscription is a claim on a topic: records stay until it has passed them.
type subscription struct {
	id    SubID
	name  string
	topic TopicID
	parts []subPart
}

// subPart is a subscription's place in a partition, guarded by the Bus's mu.
type subPart struct {
	sealed  Offset  // by the newest sealed epoch
	durable Offset  // by the newest durable one
	marks   wal.LSN // beside durable
	base    int64   // bytes written before it registered, which never count against the limit
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
	s := &subscription{id: id, name: name, topic: topic, parts: make([]subPart, len(t.parts))}
	states := make([]SubState, len(t.parts))
	for i, p := range t.parts {
		st, err := b.begin(t, p, start)
		if err != nil {
			return nil, err
		}
		states[i] = st
		p.mu.Lock()
		s.parts[i] = subPart{sealed: st.Next, durable: st.Next, marks: st.Marks, base: p.total}
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
		return st, nil
	case !start.Earliest:
		at = start.At
		if at < p.first || at > p.next {
			return st, &OffsetError{Topic: t.spec.Name, Partition: p.number, Offset: at, First: p.first, Next: p.next}
		}
	}
	st.Next = at
	for _, g := range b.gens {
		gt := g.topics[t.id]
		if gt.exists && gt.Next[p.number] > at {
			break
		}
		st.Marks = g.first
		st.Table = slices.Clone(gt.Table)
	}
	return st, nil
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
	t := b.topics[s.topic]
	if t != nil {
		t.subs = slices.DeleteFunc(t.subs, func(o *subscription) bool { return o == s })
	}
	b.mu.Unlock()
	b.lookRoom(t)
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
		if durable {
			p.durable, p.marks = max(p.durable, st.Next), max(p.marks, st.Marks)
		}
	}
	t := b.topics[s.topic]
	b.mu.Unlock()
	b.lookRoom(t)
}

// unread returns the bytes that a subscription has yet to pass, counted against the limit. The caller holds b.mu.
func (b *Bus) unread(t *topic, s *subscription) int64 {
	n := int64(0)
	for i, p := range t.parts {
		p.mu.Lock()
		n += p.total - max(p.bytesAt(s.parts[i].sealed), s.parts[i].base)
		p.mu.Unlock()
	}
	return n
}

// furthest returns the subscription that is furthest behind. The caller holds b.mu.
func (b *Bus) furthest(t *topic) (who *subscription, bytes int64) {
	for _, s := range t.subs {
		if n := b.unread(t, s); who == nil || n > bytes {
			who, bytes = s, n
		}
	}
	return who, bytes
}

// lookFull notes that a topic has become full, or nearly. The caller holds b.mu.
func (b *Bus) lookFull(t *topic) {
	who, bytes := b.furthest(t)
	if who == nil {
		return
	}
	limit := t.spec.limit()
	t.full.Store(bytes >= limit)
	if fill := float64(bytes) / float64(limit); fill >= nearlyFull && !t.said {
		t.said = true
		if b.cfg.OnNearlyFull != nil {
			b.cfg.OnNearlyFull(t.id, t.spec.Name, who.name, fill)
		}
	}
}

// lookRoom notes that a topic is no longer full and tells whoever waits for it.
func (b *Bus) lookRoom(t *topic) {
	if t == nil {
		return
	}
	b.mu.Lock()
	was := t.full.Load()
	if !was && !t.said {
		b.mu.Unlock()
		return
	}
	_, bytes := b.furthest(t)
	limit := t.spec.limit()
	t.full.Store(bytes >= limit)
	if float64(bytes) < nearlyFull/2*float64(limit) {
		t.said = false
	}
	room := was && bytes < limit
	b.mu.Unlock()
	if room && b.cfg.OnRoom != nil {
		b.cfg.OnRoom(t.id)
	}
}

// Full reports whether a topic is full, how full it is (1 is its limit), and which subscription is furthest behind.
func (b *Bus) Full(id TopicID) (who string, full bool, fill float64) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	t := b.topics[id]
	if t == nil || !t.full.Load() {
		return "", false, 0
	}
	s, bytes := b.furthest(t)
	if s == nil {
		return "", false, 0
	}
	return s.name, bytes >= t.spec.limit(), float64(bytes) / float64(t.spec.limit())
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
		n += int64(p.next - min(p.next, s.parts[i].sealed))
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
	for _, s := range b.subs {
		t := b.topics[s.topic]
		if t == nil {
			continue
		}
		for i, p := range t.parts {
			p.mu.Lock()
			behind := s.parts[i].durable < p.next
			p.mu.Unlock()
			if behind {
				pins = append(pins, Pin{Who: "subscription " + s.name, LSN: b.from(s.parts[i].marks+1, t, i, s.parts[i].durable)})
			}
		}
	}
	for _, t := range b.topics {
		if lsn, ok := b.keptFrom(t); ok {
			pins = append(pins, Pin{Who: "retention of topic " + t.spec.Name, LSN: lsn})
		}
	}
	slices.SortStableFunc(pins, func(a, b Pin) int { return cmp.Compare(a.LSN, b.LSN) })
	return pins
}

// from returns the later of lsn and the first frame of the generation that holds an offset, both of which are early enough.
func (b *Bus) from(lsn wal.LSN, t *topic, partition int, o Offset) wal.LSN {
	for _, g := range b.gens {
		if gt := g.topics[t.id]; !gt.exists || gt.Next[partition] <= o {
			lsn = max(lsn, g.first)
		}
	}
	return lsn
}

// keptFrom returns the first frame of the oldest generation whose records of a topic retention still keeps.
func (b *Bus) keptFrom(t *topic) (wal.LSN, bool) {
	for k, g := range b.gens {
		newer, inside := int64(0), false // bytes written behind this generation; whether it holds records
		for i, p := range t.parts {
			p.mu.Lock()
			end, bytes := p.next, p.total
			p.mu.Unlock()
			if k+1 < len(b.gens) {
				if gt := b.gens[k+1].topics[t.id]; gt.exists {
					newer += bytes - gt.Bytes[i]
					end = gt.Next[i]
				} else {
					end = 0
					newer += bytes
				}
			}
			begin := Offset(0)
			if gt := g.topics[t.id]; gt.exists {
				begin = gt.Next[i]
			}
			inside = inside || end > begin
		}
		if inside && newer < t.spec.keep() {
			return g.first, true
		}
	}
	return 0, false
}
