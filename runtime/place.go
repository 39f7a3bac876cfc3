package runtime

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/sidestream-dev/sidestream/bus"
	"github.com/sidestream-dev/sidestream/jobs"
)

// Place is a place in a topic, in every partition; the zero Place is the oldest record that is there.
type Place struct {
	Latest    bool        // behind the newest record
	Offset    *bus.Offset // if not nil
	Time      time.Time   // if not zero: the first record of that event time or later
	Savepoint string      // if not "": where a savepoint stands

	BeforeNewest *time.Duration // if not nil: as Time, so much before the newest record's event time
}

// ParsePlace reads a place as people write it: earliest or beginning, latest or end, offset:N, a time as RFC 3339 has it or a
// date, or a time before now such as -2h or -10d, or before the newest record's event time such as newest-2h; where savepoints are
// allowed, savepoint:NAME.
func ParsePlace(s string, now time.Time, savepoints bool) (Place, error) {
	kind, rest, _ := strings.Cut(s, ":")
	switch {
	case s == "earliest" || s == "beginning":
		return Place{}, nil
	case s == "latest" || s == "end":
		return Place{Latest: true}, nil
	case kind == "offset":
		if n, err := strconv.ParseUint(rest, 10, 63); err == nil {
			o := bus.Offset(n)
			return Place{Offset: &o}, nil
		}
	case kind == "savepoint" && rest != "" && savepoints:
		return Place{Savepoint: rest}, nil
	case strings.HasPrefix(s, "newest-"):
		if d, ok := jobs.ParseAgo(s[len("newest-"):]); ok {
			return Place{BeforeNewest: &d}, nil
		}
	case strings.HasPrefix(s, "-"):
		if d, ok := jobs.ParseAgo(s[1:]); ok {
			return Place{Time: now.Add(-d)}, nil
		}
	default:
		for _, layout := range []string{time.RFC3339Nano, time.DateOnly} { // a date is its beginning, in UTC
			if t, err := time.Parse(layout, s); err == nil {
				return Place{Time: t}, nil
			}
		}
	}
	more := ""
	if savepoints {
		more = ", savepoint:NAME"
	}
	return Place{}, fmt.Errorf("%q is no place in a topic; say earliest, latest, offset:N%s, a time such as 2026-01-31T08:00:00Z or 2026-01-31, -2h or -10d for so long ago, or newest-2h for two hours before the newest record", s, more)
}

// String writes p so that ParsePlace reads it.
func (p Place) String() string {
	switch {
	case p.Latest:
		return "latest"
	case p.Offset != nil:
		return "offset:" + p.Offset.String()
	case p.Savepoint != "":
		return "savepoint:" + p.Savepoint
	case p.BeforeNewest != nil:
		return "newest-" + p.BeforeNewest.String()
	case !p.Time.IsZero():
		return p.Time.UTC().Format(time.RFC3339Nano)
	}
	return "earliest"
}

// timed makes a place that is told by a topic's newest record one by time, so that it is the same in other topics.
func (p Place) timed(b *bus.Bus, id bus.TopicID) (Place, error) {
	if p.BeforeNewest == nil {
		return p, nil
	}
	newest, err := newestOf(b, id)
	return Place{Time: newest.Add(-*p.BeforeNewest)}, err
}

// newestOf returns the highest event time of the records written last, one in each partition.
func newestOf(b *bus.Bus, id bus.TopicID) (time.Time, error) {
	newest := int64(bus.NoTime)
	for p := range b.Partitions(id) {
		next := b.Next(id, p)
		if next == b.First(id, p) {
			continue
		}
		st, err := b.Browse(id, p, bus.Start{At: next - 1})
		if err != nil {
			return time.Time{}, err
		}
		r := b.NewReader(0, id, []bus.SubState{st}, func() {})
		for {
			batch, ok, err := r.Next(1)
			if err != nil {
				return time.Time{}, errors.Join(err, r.Close())
			}
			for rec := range batch.Records() {
				newest = max(newest, rec.Time)
			}
			if !ok || batch.Len() > 0 {
				break
			}
		}
		if err := r.Close(); err != nil {
			return time.Time{}, err
		}
	}
	if newest == bus.NoTime {
		return time.Time{}, fmt.Errorf("topic %s has no newest record with an event time to count back from: say an offset, earliest or latest", b.Spec(id).Name)
	}
	return time.UnixMilli(newest), nil
}

// offsets finds a place in each partition of a topic, as of now. It may have to read records.
func (p Place) offsets(b *bus.Bus, id bus.TopicID) ([]bus.Offset, error) {
	if p.BeforeNewest != nil {
		var err error
		if p, err = p.timed(b, id); err != nil {
			return nil, err
		}
	}
	if !p.Time.IsZero() {
		at, err := b.Resolve(id, bus.Start{ByTime: true, Time: p.Time.UnixMilli()})
		return at.Offsets, err
	}
	out := make([]bus.Offset, b.Partitions(id))
	for i := range out {
		switch {
		case p.Latest:
			out[i] = b.Next(id, i)
		case p.Offset != nil:
			out[i] = *p.Offset
		default:
			out[i] = b.First(id, i)
		}
	}
	return out, nil
}

// states are where a subscription begins at a place. It runs on the committer's goroutine, with offsets that were found before:
// of places that move those of now are taken, and what has gone meanwhile is left out.
func (p Place) states(b *bus.Bus, id bus.TopicID, offsets []bus.Offset) ([]bus.SubState, error) {
	if p.Latest {
		return b.Begin(id, bus.Start{Latest: true})
	}
	var out []bus.SubState
	for i, o := range offsets {
		if p.Offset == nil {
			o = max(o, b.First(id, i))
		}
		st, err := b.Browse(id, i, bus.Start{At: o})
		if err != nil {
			return nil, err
		}
		out = append(out, st)
	}
	return out, nil
}
