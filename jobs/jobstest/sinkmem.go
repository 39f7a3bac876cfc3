package jobstest

import (
	"context"
	"encoding/binary"
	"sync"

	"github.com/sidestream-dev/sidestream/jobs"
)

// Sink keeps what it is given in memory: an outside for tests. The zero Sink is empty. It can promise exactly_once: its
// state is how many records there were, and it cuts back to that.
type Sink struct {
	mu   sync.Mutex
	have []jobs.Message
}

// Have returns what has arrived, in order.
func (s *Sink) Have() []jobs.Message {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]jobs.Message(nil), s.have...)
}

// Kind names the sink.
func (s *Sink) Kind() string { return "memory" }

// ExactlyOnce returns nil.
func (s *Sink) ExactlyOnce() error { return nil }

// Open returns the writer.
func (s *Sink) Open(_ context.Context, env jobs.SinkEnv) (jobs.Writer, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := uint64(0)
	if env.State != nil {
		n = binary.LittleEndian.Uint64(env.State)
	}
	if env.Delivery == jobs.ExactlyOnce {
		s.have = s.have[:n]
	}
	return (*sinkWriter)(s), nil
}

type sinkWriter Sink

func (w *sinkWriter) Write(_ context.Context, ms []jobs.Message) ([]byte, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.have = append(w.have, ms...)
	return binary.LittleEndian.AppendUint64(nil, uint64(len(w.have))), nil
}

func (w *sinkWriter) Close() error { return nil }
