package bus

// Span counts the records of a partition from one offset to another, without it, and about how many bytes they are.
func (b *Bus) Span(id TopicID, partition int, from, to Offset) (records, bytes int64) {
	t := b.topic(id)
	if t == nil || partition < 0 || partition >= len(t.parts) {
		return 0, 0
	}
	p := t.parts[partition]
	p.mu.Lock()
	defer p.mu.Unlock()
	from, to = max(from, p.first), min(to, p.next)
	if from >= to {
		return 0, 0
	}
	return p.records(from, to), p.bytesAt(to) - p.bytesAt(from)
}
