package runtime

import (
	"slices"
	"sync/atomic"

	"github.com/sidestream-dev/sidestream/bus"
	"github.com/sidestream-dev/sidestream/jobs"
)

// outBuffer collects what one node of one subtask writes to one output in the epoch under way. It implements jobs.Out.
type outBuffer struct {
	topic    bus.TopicID
	builders []bus.Builder
	take     func(partition int) any
	roll     int // a section is closed at this size, so that it fits in a frame
	closed   []bus.Publication
	turn     int
	records  int64 // in the epoch under way
	bytes    int
	full     bool // a section has grown large

	replay *atomic.Pointer[replayMark] // that the job is at
	marked bool                        // what is collected says that it came of a replay
}

func newOutBuffer(topic bus.TopicID, partitions, roll int) *outBuffer {
	return &outBuffer{topic: topic, builders: make([]bus.Builder, partitions), roll: roll}
}

// Partitions implements jobs.Out.
func (o *outBuffer) Partitions() int { return len(o.builders) }

// Payload implements jobs.Out.
func (o *outBuffer) Payload(take func(partition int) any) { o.take = take }

// Write implements jobs.Out.
func (o *outBuffer) Write(m *jobs.Message, key jobs.Key) int {
	if o.full {
		o.closeFull()
	}
	p := 0
	if n := len(o.builders); n > 1 {
		if key.IsZero() {
			if o.turn++; o.turn >= n {
				o.turn = 0
			}
			p = o.turn
		} else {
			p = jobs.Owner(key.Group, n)
		}
	}
	headers := busHeaders(m.Headers)
	if r := o.replay.Load(); r != nil {
		o.marked = true
		headers = append(slices.DeleteFunc(headers, func(h bus.Header) bool { return h.Name == ReplayHeader }),
			bus.Header{Name: ReplayHeader, Value: []byte(r.ID)})
	}
	o.builders[p].Append(bus.Record{Key: m.Key, Value: m.Value, Time: int64(m.Time), Headers: headers})
	o.records++
	o.bytes += len(m.Key) + len(m.Value)
	o.full = o.full || len(o.builders[p].Bytes()) >= o.roll
	return p
}

// closeFull closes the sections that have grown large. The values that go with a record are there once Write has returned
// to the node, so it is called between records.
func (o *outBuffer) closeFull() {
	o.full = false
	for p := range o.builders {
		if len(o.builders[p].Bytes()) >= o.roll {
			o.close(p)
		}
	}
}

func (o *outBuffer) close(p int) {
	b := &o.builders[p]
	pub := bus.Publication{Topic: o.topic, Partition: p, Count: b.Count(), Data: b.Bytes(), Latest: b.Latest()}
	if o.take != nil {
		pub.Payload = o.take(p)
	}
	if o.marked {
		pub.Payload = nil // the values do not have the header
	}
	o.closed = append(o.closed, pub)
	b.Reset()
}

// cut hands over what has been collected.
func (o *outBuffer) cut(pubs []bus.Publication) []bus.Publication {
	for p := range o.builders {
		if o.builders[p].Count() > 0 {
			o.close(p)
		}
	}
	pubs = append(pubs, o.closed...)
	o.closed = nil
	o.bytes, o.records, o.marked = 0, 0, false
	return pubs
}

func busHeaders(hs []jobs.Header) []bus.Header {
	if len(hs) == 0 {
		return nil
	}
	out := make([]bus.Header, len(hs))
	for i, h := range hs {
		out[i] = bus.Header{Name: h.Name, Value: h.Value}
	}
	return out
}

func jobsHeaders(hs []bus.Header) []jobs.Header {
	if len(hs) == 0 {
		return nil
	}
	out := make([]jobs.Header, len(hs))
	for i, h := range hs {
		out[i] = jobs.Header{Name: h.Name, Value: h.Value}
	}
	return out
}
