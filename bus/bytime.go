package bus

import (
	"errors"
	"fmt"
	"slices"
	"sort"
)

// Resolve turns a start by time into one by offsets: in each partition the first record, in the order of offsets, whose event
// time is at or behind Time, or, where none is so late yet, behind the newest. Records behind it may be of an earlier time.
// It reads what it must of store and log, on the caller's goroutine: [Bus.Subscribe] does not. Other starts stay as they are.
func (b *Bus) Resolve(topic TopicID, start Start) (Start, error) {
	if !start.ByTime {
		return start, nil
	}
	t := b.topic(topic)
	if t == nil {
		return start, fmt.Errorf("bus: there is no topic %d to start in", topic)
	}
	out := Start{Offsets: make([]Offset, len(t.parts))}
	for i := range t.parts {
		o, err := b.offsetAt(t, i, start.Time)
		for gone := new(OffsetError); errors.As(err, &gone) && b.First(topic, i) > gone.Offset; { // let go while it was read
			o, err = b.offsetAt(t, i, start.Time)
		}
		if err != nil {
			return start, err
		}
		out.Offsets[i] = o
	}
	return out, nil
}

// offsetAt returns the first record of a partition that is not before a time.
func (b *Bus) offsetAt(t *topic, partition int, at int64) (Offset, error) {
	p := t.parts[partition]
	st, err := b.Browse(t.id, partition, Start{At: p.before(at)})
	if err != nil {
		return 0, err
	}
	c := &cursor{part: p, SubState: st, seen: NoTime}
	defer func() {
		_, _ = c.closeCold(), c.closeStore() // it reads only
	}()
	for end := p.end(); c.Next < end; {
		batch, ok, err := c.next(b, t, 1024)
		if err != nil {
			return 0, err
		}
		if !ok {
			break
		}
		o := batch.Base
		for r := range batch.Records() {
			if r.Time != NoTime && r.Time >= at {
				return o, nil
			}
			o++
		}
	}
	return c.Next, nil
}

// before returns a place before which all records that are still there are of an earlier time: as near to the first that is
// not as is known without reading.
func (p *partition) before(at int64) Offset {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.segs {
		if s.index.latest >= at {
			return max(s.base, p.first)
		}
	}
	from := max(p.first, p.stored.Next)
	if len(p.times) > 0 && p.times[0].offset <= from { // else this process does not know of all that the log holds
		i := sort.Search(len(p.times), func(i int) bool { return p.times[i].latest >= at })
		from = max(from, p.times[max(0, i-1)].offset)
	}
	return p.over(from)
}

// timed says that the records before an offset, from the first of timed on, are not behind a time.
type timed struct {
	offset Offset
	latest int64
}

// noteTime remembers the highest time up to a publication's end, about every byteStep bytes. The caller holds mu.
func (p *partition) noteTime(pub *Publication) {
	end := pub.Base + Offset(pub.Count)
	n := len(p.times)
	if n == 0 {
		p.times = append(p.times, timed{pub.Base, NoTime}, timed{end, pub.Latest})
		p.timeBytes = p.total
		return
	}
	latest := max(p.times[n-1].latest, pub.Latest)
	if p.total-p.timeBytes >= byteStep {
		p.times = append(p.times, timed{end, latest})
		p.timeBytes = p.total
		return
	}
	p.times[n-1] = timed{end, latest}
}

// dropTimes forgets what lies before first. The caller holds mu.
func (p *partition) dropTimes() {
	n := 0
	for n+1 < len(p.times) && p.times[n+1].offset <= p.first {
		n++
	}
	p.times = slices.Delete(p.times, 0, n)
}
