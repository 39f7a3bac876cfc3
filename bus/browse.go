package bus

import (
	"fmt"

	"github.com/sidestream-dev/sidestream/wal"
)

// Browse returns where a reader of one partition begins that has no subscription: nothing is kept for it. It is for people
// who look into a topic; NewReader takes the state with the SubID 0.
func (b *Bus) Browse(topic TopicID, partition int, start Start) (SubState, error) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	t := b.topics[topic]
	if t == nil || partition < 0 || partition >= len(t.parts) {
		return SubState{}, fmt.Errorf("bus: there is no partition %d of topic %d", partition, topic)
	}
	return b.begin(t, t.parts[partition], start)
}

// First returns the offset of the oldest record of a partition that is still there.
func (b *Bus) First(topic TopicID, partition int) Offset {
	t := b.topic(topic)
	if t == nil || partition < 0 || partition >= len(t.parts) {
		return 0
	}
	p := t.parts[partition]
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.first
}

// Before returns an offset of a partition at or before the first record that was written behind a frame of the log: as near
// as is known without reading, and not before the oldest record that is there.
func (b *Bus) Before(topic TopicID, partition int, lsn wal.LSN) Offset {
	b.mu.RLock()
	defer b.mu.RUnlock()
	t := b.topics[topic]
	if t == nil || partition < 0 || partition >= len(t.parts) {
		return 0
	}
	p := t.parts[partition]
	p.mu.Lock()
	defer p.mu.Unlock()
	at := p.first
	for _, s := range p.segs {
		if s.start <= lsn {
			at = max(at, s.base)
		}
	}
	for _, g := range b.gens {
		if gt := g.topics[topic]; g.first <= lsn && gt.exists {
			at = max(at, gt.Next[partition])
		}
	}
	return at
}
