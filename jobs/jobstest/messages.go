package jobstest

import (
	"context"
	"encoding/binary"
	"errors"

	"github.com/sidestream-dev/sidestream/jobs"
)

// Messages is a bounded source of messages in memory, one split an element of Parts: "split-0", "split-1", …
// Where it is empty it has one empty split.
type Messages struct {
	Parts [][]jobs.Message
}

// At makes a message with an event time in milliseconds.
func At(ms int64, value string) jobs.Message {
	return jobs.Message{Value: []byte(value), Time: jobs.Time(ms)}
}

func (m *Messages) Kind() string  { return "messages" }
func (m *Messages) Bounded() bool { return true }

func (m *Messages) Splits(context.Context, jobs.SourceEnv) ([]jobs.Start, error) {
	starts := make([]jobs.Start, max(1, len(m.Parts)))
	for i := range starts {
		starts[i].Split = jobs.Split{ID: "split-" + string(rune('0'+i)), Partition: int32(i)}
	}
	return starts, nil
}

func (m *Messages) Open(_ context.Context, _ jobs.SourceEnv, starts []jobs.Start) (jobs.Reader, error) {
	r := &messagesReader{ready: make(chan struct{}, 1)}
	for _, s := range starts {
		var part []jobs.Message
		if int(s.Split.Partition) < len(m.Parts) {
			part = m.Parts[s.Split.Partition]
		}
		next := uint64(0)
		if s.Position != nil {
			if len(s.Position) != 8 {
				return nil, errors.New("messages: position of another source")
			}
			next = binary.LittleEndian.Uint64(s.Position)
		}
		r.parts, r.next = append(r.parts, part), append(r.next, next)
	}
	return r, nil
}

type messagesReader struct {
	parts [][]jobs.Message
	next  []uint64
	ready chan struct{}
}

func (r *messagesReader) Read(c *jobs.Chunk, want []int) error {
	if len(want) == 0 {
		return nil
	}
	c.Split = want[0]
	part, next := r.parts[c.Split], &r.next[c.Split]
	for len(c.Messages) < c.Max && *next < uint64(len(part)) {
		m := part[*next]
		m.Offset = int64(*next)
		c.Messages = append(c.Messages, m)
		*next++
	}
	c.Position = binary.LittleEndian.AppendUint64(nil, *next)
	c.Ended = *next == uint64(len(part))
	return nil
}

func (r *messagesReader) Ready() <-chan struct{} { return r.ready }
func (r *messagesReader) Close() error           { return nil }
