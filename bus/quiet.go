package bus

import (
	"math"
	"time"
)

// quiet is what a reader knows of producers that say nothing: one whose mark has not changed for after holds no watermark
// back until it speaks again. That is judged only where all has been taken, since its marks may lie in what has not.
type quiet struct {
	after time.Duration
	now   func() time.Time
	heard []map[ProducerID]heardMark // of each cursor
}

type heardMark struct {
	mark  ProducerMark
	at    time.Time // when it was taken
	quiet bool
}

// IdleAfter sets how long a producer may say nothing before this reader takes it for idle; without it a producer that fails
// or is paused holds the watermark. It is called before the first Next.
func (r *Reader) IdleAfter(after time.Duration, now func() time.Time) {
	r.quiet = &quiet{after: after, now: now, heard: make([]map[ProducerID]heardMark, len(r.topicParts()))}
}

func (r *Reader) topicParts() []*partition {
	if r.topic == nil {
		return nil
	}
	return r.topic.parts
}

// leaveOut settles the cursors without the producers that are quiet, and notes when the next one may become so.
func (q *quiet) leaveOut(cursors []*cursor, caughtUp bool) {
	now := q.now()
	for _, c := range cursors {
		heard := q.heard[c.part.number]
		if heard == nil {
			heard = map[ProducerID]heardMark{}
			q.heard[c.part.number] = heard
		}
		low, some, highest := int64(math.MaxInt64), false, NoWatermark
		for _, p := range c.Table {
			h, known := heard[p.Producer]
			if !known || h.mark != p {
				h = heardMark{mark: p, at: now}
			}
			h.quiet = h.quiet || caughtUp && now.Sub(h.at) >= q.after
			heard[p.Producer] = h
			switch {
			case p.Idle:
			case !h.quiet:
				low, some = min(low, p.Watermark), true
			default:
				highest = max(highest, p.Watermark)
			}
		}
		if !some {
			low = highest // the last of them to be left out held it where it is
		}
		c.Watermark = max(c.Watermark, low)
		c.Idle = !some && len(c.Table) > 0
	}
}

// QuietIn returns when, from now, the next producer may have said nothing for too long; 0 if none can.
func (r *Reader) QuietIn() time.Duration {
	if r.quiet == nil {
		return 0
	}
	least, now := time.Duration(0), r.quiet.now()
	for _, c := range r.cursors {
		for _, p := range c.Table {
			h, known := r.quiet.heard[c.part.number][p.Producer]
			if !known || p.Idle || h.quiet {
				continue
			}
			if d := max(r.quiet.after-now.Sub(h.at), time.Millisecond); least == 0 || d < least {
				least = d
			}
		}
	}
	return least
}
