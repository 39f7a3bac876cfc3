package bus

import (
	"maps"
	"slices"
	"time"
)

// TopicStat is how a topic stands.
type TopicStat struct {
	ID            TopicID         `json:"id"`
	Name          string          `json:"name"`
	Hidden        bool            `json:"hidden,omitempty"` // an output on its way outside
	Partitions    []PartitionStat `json:"partitions"`
	Producers     []ProducerMark  `json:"producers,omitempty"`
	Subscriptions []SubStat       `json:"subscriptions,omitempty"`
	Full          bool            `json:"full,omitempty"` // it holds its writers back
	OnFull        OnFull          `json:"on_full"`
	Limit         int64           `json:"limit"`
	Retention     int64           `json:"retention_bytes"`
	MaxAge        time.Duration   `json:"retention_age_ns,omitempty"`
}

// PartitionStat is how a partition stands.
type PartitionStat struct {
	First  Offset `json:"first"` // oldest record still there
	Next   Offset `json:"next"`
	Unused int64  `json:"unused,omitempty"` // offsets before Next that no record has, since a repair

	Records   int64 `json:"records"`    // still there
	KeptBytes int64 `json:"kept_bytes"` // of those, about
	Bytes     int64 `json:"bytes"`      // ever written
	Memory    int64 `json:"memory"`     // bytes that live readers find in memory
}

// SubStat is how a subscription stands.
type SubStat struct {
	ID     SubID  `json:"id"`
	Name   string `json:"name"`
	Lag    int64  `json:"lag"`    // records not passed in a sealed epoch
	Unread int64  `json:"unread"` // bytes counted against the limit

	// Dropped are records that it lost, over its whole life, to OnFull DropOldest: gone over by its reader in durable epochs, each
	// once. No crash takes any of them back. Lost names the newest ranges of them. Dropping were let go for it, and are yet to be
	// gone over; some may have been read already, in an epoch that is not durable yet.
	Dropped  uint64   `json:"dropped"`
	Lost     []LostIn `json:"lost,omitempty"`
	Dropping int64    `json:"dropping,omitempty"`
}

// LostIn is a range that was lost, of a partition.
type LostIn struct {
	Partition int `json:"partition"`
	Lost
	Records int64 `json:"records"`
}

// Stats returns how every topic stands, by name.
func (b *Bus) Stats() []TopicStat {
	b.mu.RLock()
	defer b.mu.RUnlock()
	out := make([]TopicStat, 0, len(b.topics))
	for _, name := range slices.Sorted(maps.Keys(b.byName)) {
		t := b.topics[b.byName[name]]
		st := TopicStat{ID: t.id, Name: name, Hidden: t.spec.Private(), Producers: slices.Clone(t.producers),
			Full: t.full, OnFull: t.spec.onFull(), Limit: t.spec.limit(), Retention: t.spec.keep(), MaxAge: t.spec.Retention.MaxAge}
		for _, p := range t.parts {
			p.mu.Lock()
			st.Partitions = append(st.Partitions, PartitionStat{First: p.first, Next: p.next, Unused: int64(p.next) - p.records(0, p.next),
				Records: p.records(p.first, p.next), KeptBytes: p.total - p.bytesAt(p.first), Bytes: p.total, Memory: p.memory})
			p.mu.Unlock()
		}
		for _, s := range t.subs {
			sub := SubStat{ID: s.id, Name: s.name, Lag: b.lag(t, s), Unread: b.unread(t, s)}
			for i, p := range t.parts {
				at := &s.parts[i]
				sub.Dropped += at.counted.records
				p.mu.Lock()
				sub.Dropping += p.records(at.durable, max(at.durable, Offset(at.floor.Load())))
				for _, l := range at.counted.ranges {
					sub.Lost = append(sub.Lost, LostIn{i, l, p.records(l.From, l.To)})
				}
				p.mu.Unlock()
			}
			st.Subscriptions = append(st.Subscriptions, sub)
		}
		out = append(out, st)
	}
	return out
}

// Past returns how much of what a topic held when a subscription was registered that has yet to pass, in bytes, and how full
// the topic is by it.
func (b *Bus) Past(id SubID) (left int64, fill float64) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	s := b.subs[id]
	if s == nil || b.topics[s.topic] == nil {
		return 0, 0
	}
	t := b.topics[s.topic]
	for i, p := range t.parts {
		p.mu.Lock()
		left += max(0, s.parts[i].base-p.bytesAt(s.parts[i].sealed))
		p.mu.Unlock()
	}
	return left, float64(b.unread(t, s)) / float64(t.spec.limit())
}
