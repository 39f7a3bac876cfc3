package bus

// Written reports whether a topic has, or ever had, a producer. Where it had and has none left, its readers end once they
// have taken all of it.
func (b *Bus) Written(id TopicID) bool {
	b.mu.RLock()
	defer b.mu.RUnlock()
	t := b.topics[id]
	return t != nil && t.written.Load()
}
