package runtime

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/sidestream-dev/sidestream/bus"
	"github.com/sidestream-dev/sidestream/wal"
)

// ErrNoTopic is the error of asking for a topic that is not there.
var ErrNoTopic = errors.New("there is no such topic")

// Tail says which records of a topic to show.
type Tail struct {
	Topic     string
	Partition int         // -1 for all
	Last      int         // begin so many records before the end of each partition; behind From or Begin at most so many, 0 for all
	From      *bus.Offset // begin here
	Follow    bool        // go on with what is written later, until the context ends

	Begin *Place // begin here, in place of From; of Last the same holds
	End   *Place // and stop before here
}

// TopicRecord is a record of a topic as it is shown to people.
type TopicRecord struct {
	Topic     string            `json:"topic"`
	Partition int               `json:"partition"`
	Offset    bus.Offset        `json:"offset"`
	Time      *time.Time        `json:"time,omitempty"` // event time
	Key       json.RawMessage   `json:"key,omitempty"`
	Value     json.RawMessage   `json:"value"`            // as it is where it is JSON, else as a string
	Base64    bool              `json:"base64,omitempty"` // the value is no text; it is encoded so
	Headers   map[string]string `json:"headers,omitempty"`
}

// Tail calls f with records of a topic, those of one partition in order, once they are durable. It claims nothing: a
// record that is dropped before it is read is an error.
func (rt *Runtime) Tail(ctx context.Context, q Tail, f func(TopicRecord) error) error {
	return tail(ctx, rt.bus, q, func(lsn wal.LSN) error { return rt.log.WaitDurable(ctx, lsn) }, f)
}

// tail reads the partitions one behind the other or, if it is to follow, in turn.
func tail(ctx context.Context, b *bus.Bus, q Tail, durable func(wal.LSN) error, f func(TopicRecord) error) error {
	id, ok := b.TopicByName(q.Topic)
	if !ok {
		return missing("topic", q.Topic, ErrNoTopic)
	}
	n := b.Partitions(id)
	if q.Partition >= n {
		return &noPartitionError{q.Topic, n, q.Partition}
	}
	wakes := make(chan struct{}, 1)
	wake := func() {
		select {
		case wakes <- struct{}{}:
		default:
		}
	}
	begins, bounds, err := q.span(b, id)
	if err != nil {
		return err
	}
	var readers []*bus.Reader
	defer func() {
		for _, r := range readers {
			_ = r.Close() // it reads only
		}
	}()
	ends := make([]bus.Offset, n)
	for p := range n {
		ends[p] = b.Next(id, p)
		if q.Partition >= 0 && p != q.Partition {
			continue
		}
		start := q.start(b, id, p)
		if begins != nil {
			start = bus.Start{At: begins[p]}
		}
		st, err := b.Browse(id, p, start)
		if err != nil {
			return err
		}
		if bounds != nil {
			ends[p] = min(ends[p], bounds[p])
		}
		if (q.From != nil || q.Begin != nil) && q.Last > 0 {
			ends[p] = min(ends[p], st.Next+bus.Offset(q.Last))
		}
		readers = append(readers, b.NewReader(0, id, []bus.SubState{st}, wake))
	}
	show := func(r *bus.Reader) (more bool, err error) {
		if more, err = showNext(ctx, r, q, ends, durable, f); err == nil && !more && b.Partitions(id) == 0 {
			err = missing("topic", q.Topic, ErrNoTopic) // removed, which its readers take for its end
		}
		return more, err
	}
	if q.Follow {
		return followAll(ctx, readers, wakes, show)
	}
	for _, r := range readers {
		for more := true; more; {
			if more, err = show(r); err != nil {
				return err
			}
		}
	}
	return nil
}

// followAll shows what comes in any partition, a batch of each in turn: where one of them never runs dry, the others are shown
// none the less.
func followAll(ctx context.Context, readers []*bus.Reader, wakes <-chan struct{}, show func(*bus.Reader) (bool, error)) error {
	for {
		some := false
		for _, r := range readers {
			more, err := show(r)
			if err != nil {
				return err
			}
			some = some || more
		}
		if some && ctx.Err() == nil {
			continue
		}
		select {
		case <-wakes:
		case <-ctx.Done():
			return nil
		}
	}
}

// span finds where places are, as far as there are any.
func (q Tail) span(b *bus.Bus, id bus.TopicID) (begins, ends []bus.Offset, err error) {
	if q.Begin != nil {
		if begins, err = q.Begin.offsets(b, id); err != nil {
			return nil, nil, err
		}
	}
	if q.End != nil {
		ends, err = q.End.offsets(b, id)
	}
	return begins, ends, err
}

// noPartitionError is an ErrNoTopic of a topic that is there.
type noPartitionError struct {
	topic        string
	n, partition int
}

func (e *noPartitionError) Is(target error) bool { return target == ErrNoTopic }

func (e *noPartitionError) Error() string {
	if e.n == 1 {
		return fmt.Sprintf("topic %q has partition 0 only; there is no partition %d", e.topic, e.partition)
	}
	return fmt.Sprintf("topic %q has partitions 0 to %d; there is no partition %d", e.topic, e.n-1, e.partition)
}

// start is where to begin in a partition.
func (q Tail) start(b *bus.Bus, id bus.TopicID, p int) bus.Start {
	if q.From != nil {
		return bus.Start{At: *q.From}
	}
	return bus.Start{At: b.Back(id, p, bus.Offset(max(0, q.Last)))}
}

// showNext shows the next batch of a reader, and reports whether there may be more; one that does not follow stops where the topic
// ended when it began.
func showNext(ctx context.Context, r *bus.Reader, q Tail, ends []bus.Offset, durable func(wal.LSN) error, f func(TopicRecord) error) (more bool, err error) {
	if ctx.Err() != nil {
		return false, nil
	}
	b, ok, err := r.Next(256)
	if err != nil || !ok {
		return false, err
	}
	if b.Len() > 0 {
		if err := durable(b.LSN); err != nil {
			return false, err
		}
	}
	offset := b.Base
	for rec := range b.Records() {
		if !q.Follow && offset >= ends[b.Partition] {
			return false, nil
		}
		if err := f(shown(q.Topic, b.Partition, offset, rec)); err != nil {
			return false, err
		}
		offset++
	}
	return true, nil
}

func shown(topic string, partition int, offset bus.Offset, r bus.Record) TopicRecord {
	t := TopicRecord{Topic: topic, Partition: partition, Offset: offset}
	if r.Time != bus.NoTime {
		at := time.UnixMilli(r.Time).UTC()
		t.Time = &at
	}
	if r.Key != nil {
		t.Key, _ = asJSON(r.Key)
	}
	t.Value, t.Base64 = asJSON(r.Value)
	for _, h := range r.Headers {
		if t.Headers == nil {
			t.Headers = map[string]string{}
		}
		t.Headers[h.Name] = string(h.Value)
	}
	return t
}

// asJSON returns b as JSON: as it is, as a string, or, if it is no text, as a string of its base64.
func asJSON(b []byte) (out json.RawMessage, base64 bool) {
	switch {
	case b == nil:
		return json.RawMessage("null"), false
	case json.Valid(b):
		return slices.Clone(b), false
	case utf8.Valid(b):
		out, _ = json.Marshal(string(b)) // a string always can be
		return out, false
	}
	out, _ = json.Marshal(b) // so can bytes
	return out, true
}

// Topic returns how a topic stands.
func (rt *Runtime) Topic(name string) (bus.TopicStat, bool) { return find(rt.bus.Stats(), name) }

func find(ts []bus.TopicStat, name string) (bus.TopicStat, bool) {
	for _, t := range ts {
		if t.Name == name {
			return t, true
		}
	}
	return bus.TopicStat{}, false
}
