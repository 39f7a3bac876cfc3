package bus

import "slices"

// StopAt lets the reader take nothing of a partition from an offset on until Go; what is said of producers up to the next
// record is taken still. Once it has stopped there it does not move until Go, not even over what is let go meanwhile: whoever
// was told where it stopped may have said where it goes on. StopAt is called before the first Next.
func (r *Reader) StopAt(partition int, at Offset) {
	for _, c := range r.cursors {
		if c.part.number == partition {
			c.stop, c.stops, r.bounded = at, true, true
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
	at := c.Marks
	out, ok, err := c.next(b, t, 0)
	if err == nil && (!ok || c.Marks == at) {
		c.stopped = true // there is nothing, or a record
		return Batch{}, false, nil
	}
	return out, ok, err
}
