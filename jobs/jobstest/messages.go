package jobstest

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"github.com/sidestream-dev/sidestream/jobs"
)

// Messages is a source of messages in memory, one split an element of Parts: "split-0", "split-1", …; without Parts it
// has one empty split. It is bounded, unless Endless is set: then Add gives it more.
type Messages struct {
	Parts   [][]jobs.Message
	Endless bool

	mu      sync.Mutex
	readers map[*messagesReader]bool
}

// At makes a message with an event time in milliseconds.
func At(ms int64, value string) jobs.Message {
	return jobs.Message{Value: []byte(value), Time: jobs.Time(ms)}
}

// Add adds messages to a split. Any goroutine may call it.
func (m *Messages) Add(split int, ms ...jobs.Message) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for len(m.Parts) <= split {
		m.Parts = append(m.Parts, nil)
	}
	m.Parts[split] = append(m.Parts[split], ms...)
	for r := range m.readers {
		select {
		case r.ready <- struct{}{}:
		default:
		}
	}
}

// Kind names the source.
func (m *Messages) Kind() string { return "messages" }

// String names the source too: what it holds may become more while it is read, and is no setting.
func (m *Messages) String() string { return "messages" }

// Bounded reports whether the source ends.
func (m *Messages) Bounded() bool { return !m.Endless }

// Splits lists the splits.
func (m *Messages) Splits(context.Context, jobs.SourceEnv) ([]jobs.Start, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	starts := make([]jobs.Start, max(1, len(m.Parts)))
	for i := range starts {
		starts[i].Split = jobs.Split{ID: fmt.Sprint("split-", i), Partition: int32(i)}
	}
	return starts, nil
}

// Open returns a reader.
func (m *Messages) Open(_ context.Context, _ jobs.SourceEnv, starts []jobs.Start) (jobs.Reader, error) {
	r := &messagesReader{m: m, ready: make(chan struct{}, 1)}
	for _, s := range starts {
		next := uint64(0)
		if s.Position != nil {
			if len(s.Position) != 8 {
				return nil, errors.New("messages: position of another source")
			}
			next = binary.LittleEndian.Uint64(s.Position)
		}
		r.part, r.next = append(r.part, int(s.Split.Partition)), append(r.next, next)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.readers == nil {
		m.readers = map[*messagesReader]bool{}
	}
	m.readers[r] = true
	return r, nil
}

type messagesReader struct {
	m     *Messages
	part  []int
	next  []uint64
	ready chan struct{}
}

func (r *messagesReader) Read(c *jobs.Chunk, want []int) error {
	r.m.mu.Lock()
	defer r.m.mu.Unlock()
	for _, i := range want {
		var part []jobs.Message
		if r.part[i] < len(r.m.Parts) {
			part = r.m.Parts[r.part[i]]
		}
		next := r.next[i]
		end := min(next+uint64(c.Max), uint64(len(part)))
		if next >= end && r.m.Endless {
			continue
		}
		for ; next < end; next++ {
			msg := part[next]
			msg.Offset = int64(next)
			c.Messages = append(c.Messages, msg)
		}
		r.next[i] = next
		c.Split, c.Position = i, binary.LittleEndian.AppendUint64(nil, next)
		c.Ended = !r.m.Endless && next == uint64(len(part))
		return nil
	}
	return nil
}

func (r *messagesReader) Ready() <-chan struct{} { return r.ready }

func (r *messagesReader) Close() error {
	r.m.mu.Lock()
	defer r.m.mu.Unlock()
	delete(r.m.readers, r)
	return nil
}
