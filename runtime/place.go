package runtime

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/sidestream-dev/sidestream/bus"
)

// Place is a place in a topic, in every partition; the zero Place is the oldest record that is there.
type Place struct {
	Latest    bool        // behind the newest record
	Offset    *bus.Offset // if not nil
	Time      time.Time   // if not zero: the first record of that event time or later
	Savepoint string      // if not "": where a savepoint stands
}

// ParsePlace reads a place as people write it: earliest or beginning, latest or end, offset:N, a time as RFC 3339 has it, or a
// time before now such as -2h; where savepoints are allowed, savepoint:NAME.
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
	case strings.HasPrefix(s, "-"):
		if d, err := time.ParseDuration(s[1:]); err == nil && d >= 0 {
			return Place{Time: now.Add(-d)}, nil
		}
	default:
		if t, err := time.Parse(time.RFC3339Nano, s); err == nil {
			return Place{Time: t}, nil
		}
	}
	more := ""
	if savepoints {
		more = ", savepoint:NAME"
	}
	return Place{}, fmt.Errorf("%q is no place in a topic; say earliest, latest, offset:N%s, a time such as 2026-01-31T08:00:00Z, or -2h for two hours ago", s, more)
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
	case !p.Time.IsZero():
		return p.Time.UTC().Format(time.RFC3339Nano)
	}
	return "earliest"
}

// offsets finds a place in each partition of a topic, as of now. It may have to read records.
func (p Place) offsets(b *bus.Bus, id bus.TopicID) ([]bus.Offset, error) {
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
