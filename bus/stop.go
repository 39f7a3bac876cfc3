package bus

import (
	"errors"
	"slices"

	"github.com/sidestream-dev/sidestream/wal"
)

// StopAt lets the reader take nothing of a partition from an offset on until Go; what is said of producers up to the next
// record is taken still, or, if marks is not 0, what was said up to that frame: who read up to there once, and has read no
// further, comes to the watermark that it had. Once it has stopped there it does not move until Go, not even over what is let go meanwhile: whoever
// was told where it stopped may have said where it goes on. StopAt is called before the first Next.
func (r *Reader) StopAt(partition int, at Offset, marks wal.LSN) {
	for _, c := range r.cursors {
		if c.part.number == partition {
			c.stop, c.stopMarks, c.stops, r.bounded = at, marks, true, true
		}
	}
}

// Stopped reports whether every partition that was to stop has.
func (r *Reader) Stopped() bool {
	return r.bounded && !slices.ContainsFunc(r.cursors, func(c *cursor) bool { return c.stops && !c.stopped })
}

// Go lets a stopped reader read on: where it stands, or, in the partitions of states, there (see SubState.Behind).
func (r *Reader) Go(states []SubState) error {
	r.bounded = false
	for _, c := range r.cursors {
		c.stops, c.stopped = false, false
		i := slices.IndexFunc(states, func(s SubState) bool { return s.Partition == c.part.number })
		if i < 0 {
			continue
		}
		if err := c.closeCold(); err != nil {
			return err
		}
		if err := c.closeStore(); err != nil {
			return err
		}
		c.SubState = states[i].Behind(c.SubState)
		c.Table = slices.Clone(c.Table)
	}
	return nil
}

// nextUntil is next of a cursor that stops.
func (c *cursor) nextUntil(b *Bus, t *topic, max int) (Batch, bool, error) {
	if c.Next < c.stop {
		return c.next(b, t, min(max, int(min(c.stop-c.Next, 1<<30))))
	}
	was := c.SubState
	was.Table = slices.Clone(was.Table)
	out, ok, err := c.next(b, t, 0)
	if err == nil && c.stopMarks > 0 && c.Marks > c.stopMarks && !slices.Equal(c.Table, was.Table) {
		c.SubState, c.stopped = was, true // that was too much, and is taken again behind Go
		return Batch{}, false, errors.Join(c.closeCold(), c.closeStore())
	}
	if err == nil && (!ok || c.Marks == was.Marks) {
		c.stopped = true // there is nothing, or a record
		return Batch{}, false, nil
	}
	return out, ok, err
}
