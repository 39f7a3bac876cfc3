package runtime

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sidestream-dev/sidestream/bus"
	"github.com/sidestream-dev/sidestream/jobs"
)

// A replay that begins with no state, in the middle of a topic, gives windows of which only the rest is counted: those that have
// records before the place where it begins. It says which, and from where on they would be whole.

// ReplayCut is a step of which a replay gives windows that are not whole.
type ReplayCut struct {
	Step   string     `json:"step"`
	Window string     `json:"window,omitempty" doc:"its windows' length; missing where it keeps state without windows: that begins empty"`
	First  *time.Time `json:"first,omitempty" doc:"the first window whose beginning is cut off begins then"`
	Until  *time.Time `json:"until,omitempty" doc:"windows that begin then or later are whole"`
}

// cutOff finds what a replay cuts off, and says so.
func (r *replay) cutOff() error {
	if r.saved != nil || len(r.def.steps) == 0 {
		return nil
	}
	before, first, some, gone := int64(bus.NoTime), int64(bus.NoTime), false, false
	for _, span := range r.result.Inputs {
		id, ok := r.rt.bus.TopicByName(span.Topic)
		if !ok {
			continue
		}
		for p, from := range span.From {
			if from == 0 {
				continue
			}
			some = true
			start := max(r.rt.bus.First(id, p), from-min(from, shadowChunk))
			gone = gone || start == from
			for _, part := range []struct {
				from, to bus.Offset
				take     func(t int64)
			}{
				{start, from, func(t int64) { before = max(before, t) }},
				{from, min(span.To[p], from+shadowChunk), func(t int64) {
					if t != bus.NoTime && (first == bus.NoTime || t < first) {
						first = t
					}
				}},
			} {
				if err := r.rt.eachTime(id, p, part.from, part.to, part.take); err != nil {
					return err
				}
			}
		}
	}
	if !some {
		return nil
	}
	r.cutSteps(before, first, gone)
	return nil
}

// cutSteps names the steps that are cut where the latest record before the place is of the event time before, and the earliest
// behind it of first; gone says that what lies before is not there any more.
func (r *replay) cutSteps(before, first int64, gone bool) {
	var names []string
	whole, windows := first, false
	for _, n := range slices.Backward(r.def.Nodes) { // a window of windows is whole if all of these are
		i := slices.IndexFunc(r.def.steps, func(s stepEntry) bool { return s.ID == n.ID })
		size := n.Span.Milliseconds()
		switch {
		case i < 0:
			continue
		case size == 0:
			r.result.Cut = append(r.result.Cut, ReplayCut{Step: n.ID})
			names = append(names, fmt.Sprintf("the state of step %s, which has no windows, begins empty", n.ID))
			continue
		case first == bus.NoTime:
			continue
		}
		begins, last := windowOf(first, size), before
		whole = windowOf(whole, size)
		if gone && begins < first { // what lay before is not known
			last = max(before, first)
		}
		if last < begins { // no record before is of a window that has some behind
			continue
		}
		windows = true
		from, until := time.UnixMilli(begins).UTC(), time.UnixMilli(windowOf(last, size)+size).UTC()
		r.result.Cut = append(r.result.Cut, ReplayCut{Step: n.ID, Window: n.Span.String(), First: &from, Until: &until})
		names = append(names, fmt.Sprintf("of windows of step %s (%v) that begin before %s only the rest is counted, the first of them that of %s",
			n.ID, n.Span, jobs.Time(until.UnixMilli()), jobs.Time(begins)))
	}
	if len(r.result.Cut) == 0 {
		return
	}
	slices.Reverse(r.result.Cut)
	slices.Reverse(names)
	text := strings.Join(names, "; ") + ". "
	at := time.UnixMilli(whole).UTC()
	switch {
	case !windows:
		text += "From earliest, or from a savepoint before this place, nothing is missing"
	case gone || !r.holds(at):
		text += "The topic no longer holds what lies before; a later place, where a window begins, has whole ones"
	default:
		r.result.Whole = &at
		text += fmt.Sprintf("From %s, or from a savepoint before this place, they are whole", at.Format(time.RFC3339))
	}
	r.result.Notes = append(r.result.Notes, text)
}

// holds reports whether the topics that are read have all that they were given of a time and later.
func (r *replay) holds(at time.Time) bool {
	for _, span := range r.result.Inputs {
		id, ok := r.rt.bus.TopicByName(span.Topic)
		if !ok {
			continue
		}
		places, err := Place{Time: at}.offsets(r.rt.bus, id)
		if err != nil {
			return false
		}
		for p, o := range places {
			if first := r.rt.bus.First(id, p); first > 0 && o <= first {
				return false
			}
		}
	}
	return true
}

// windowOf is where the window begins that holds a time, as tumbling windows lie.
func windowOf(t, size int64) int64 {
	if t < 0 {
		return -((-t + size - 1) / size) * size
	}
	return t - t%size
}

// eachTime calls f with the event time of each record of a range of a partition.
func (rt *Runtime) eachTime(topic bus.TopicID, p int, from, to bus.Offset, f func(t int64)) (err error) {
	if from >= to {
		return nil
	}
	at, err := rt.bus.Browse(topic, p, bus.Start{At: from})
	if err != nil {
		return err
	}
	r := rt.bus.NewReader(0, topic, []bus.SubState{at}, func() {})
	defer func() { err = errors.Join(err, r.Close()) }()
	for at := from; at < to; {
		b, ok, err := r.Next(int(to - at))
		if err != nil || !ok {
			return err
		}
		for rec := range b.Records() {
			f(rec.Time)
		}
		if b.Len() > 0 {
			at = b.Base + bus.Offset(b.Len())
		}
	}
	return nil
}
