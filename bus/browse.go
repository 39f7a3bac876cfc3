package bus

import "fmt"

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
