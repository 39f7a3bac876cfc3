package bus

import (
	"slices"
	"sort"
)

// gap is a stretch of offsets that no record has: a repair of the log removed what may have had them, and they are not
// given again.
type gap struct {
	From  Offset `json:"from"`
	To    Offset `json:"to"`    // the first behind it
	Bytes int64  `json:"bytes"` // written before it
}

// Raise leaves out the next by offsets of every partition. It is for a repair of the log, before the catalog is made with
// which the log goes on.
func (b *Bus) Raise(by uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, t := range b.topics {
		for _, p := range t.parts {
			p.mu.Lock()
			g := gap{From: p.next, To: p.next + Offset(by), Bytes: p.total}
			if n := len(p.gaps); n > 0 && p.gaps[n-1].To == g.From {
				g = gap{From: p.gaps[n-1].From, To: g.To, Bytes: g.Bytes}
				p.gaps = p.gaps[:n-1]
			}
			p.gaps = append(p.gaps, g)
			p.next = g.To
			p.mu.Unlock()
		}
	}
}

// Gap returns the newest stretch of offsets that a repair left out of a partition, from up to, without, to; ok is false
// where there is none.
func (b *Bus) Gap(topic TopicID, partition int) (from, to Offset, ok bool) {
	t := b.topic(topic)
	if t == nil || partition < 0 || partition >= len(t.parts) {
		return 0, 0, false
	}
	p := t.parts[partition]
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := len(p.gaps); n > 0 {
		return p.gaps[n-1].From, p.gaps[n-1].To, true
	}
	return 0, 0, false
}

// over returns the first offset from o on that a record has or may get. The caller holds mu.
func (p *partition) over(o Offset) Offset {
	for _, g := range p.gaps {
		if g.From <= o && o < g.To {
			o = g.To
		}
	}
	return o
}

// records is how many records there are, or were, from an offset up to, without, another. The caller holds mu.
func (p *partition) records(from, to Offset) int64 {
	if from >= to {
		return 0
	}
	n := int64(to - from)
	for _, g := range p.gaps {
		if a, b := max(from, g.From), min(to, g.To); a < b {
			n -= int64(b - a)
		}
	}
	return n
}

// loadGaps takes gaps back, and reports whether they can be so. The points are there.
func (p *partition) loadGaps(gaps []gap) bool {
	end := Offset(0)
	for _, g := range gaps {
		if g.From < end || g.To <= g.From || g.To > p.next || g.Bytes < 0 || g.Bytes > p.total {
			return false
		}
		end = g.To
		for _, at := range [...]point{{g.From, g.Bytes}, {g.To, g.Bytes}} {
			i := sort.Search(len(p.points), func(i int) bool { return p.points[i].offset >= at.offset })
			if i == len(p.points) || p.points[i].offset > at.offset {
				p.points = slices.Insert(p.points, i, at)
			}
		}
	}
	p.gaps = gaps
	return slices.IsSortedFunc(p.points, func(a, b point) int { return int(a.bytes - b.bytes) })
}

// Records returns how many records a partition has, or had, from an offset up to, without, the one that its next record gets.
func (b *Bus) Records(topic TopicID, partition int, from Offset) int64 {
	t := b.topic(topic)
	if t == nil || partition < 0 || partition >= len(t.parts) {
		return 0
	}
	p := t.parts[partition]
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.records(from, p.next)
}

// Back returns the offset of the record that is the n-th before the next one, of the oldest still there if there are fewer.
func (b *Bus) Back(topic TopicID, partition int, n Offset) Offset {
	t := b.topic(topic)
	if t == nil || partition < 0 || partition >= len(t.parts) {
		return 0
	}
	p := t.parts[partition]
	p.mu.Lock()
	defer p.mu.Unlock()
	at := p.next
	for _, g := range slices.Backward(p.gaps) {
		if at-n >= g.To && at >= n {
			break
		}
		if at >= g.To {
			n -= min(n, at-g.To)
			at = g.From
		}
	}
	return max(p.first, at-min(at, n))
}
