package kafka

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// troubleAge is how long a trouble that has not come up again is still told once requests go through.
const troubleAge = 5 * time.Second

// status tells Waiting what a client meets: as a hook of the client, the brokers it cannot reach; from its users,
// the rest. Each change is told once. It is safe for concurrent use.
type status struct {
	waiting func(string)
	login   login

	mu       sync.Mutex
	troubles map[string]trouble
	told     string
}

type trouble struct {
	why string
	at  time.Time
}

func newStatus(waiting func(string)) *status {
	if waiting == nil {
		waiting = func(string) {}
	}
	return &status{waiting: waiting, troubles: map[string]trouble{}}
}

// wait notes a trouble under a name of its own.
func (s *status) wait(name, why string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.troubles[name] = trouble{why, time.Now()}
	if s.told == "" {
		s.told = why
		s.waiting(why)
	}
}

// over notes that a trouble has gone.
func (s *status) over(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.troubles, name)
	s.tell()
}

// fine notes that all goes on.
func (s *status) fine() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.troubles)
	s.tell()
}

// expire drops what has not come up again for a while.
func (s *status) expire() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, t := range s.troubles {
		if time.Since(t.at) > troubleAge {
			delete(s.troubles, name)
		}
	}
	s.tell()
}

func (s *status) tell() {
	why := ""
	for _, t := range s.troubles {
		if t.why == s.told {
			return
		}
		why = t.why
	}
	if why != s.told {
		s.told = why
		s.waiting(why)
	}
}

// seedName stands for the brokers that are only known from the settings: any that answers will do.
const seedName = "seed"

func brokerName(m kgo.BrokerMetadata) string {
	if m.NodeID < 0 {
		return seedName
	}
	return "broker " + strconv.Itoa(int(m.NodeID))
}

// OnBrokerConnect is called by the client for each try to connect.
func (s *status) OnBrokerConnect(m kgo.BrokerMetadata, _ time.Duration, _ net.Conn, err error) {
	switch {
	case err == nil:
		s.over(brokerName(m))
	case errors.Is(err, context.Canceled), errors.Is(err, net.ErrClosed):
	default:
		s.wait(brokerName(m), fmt.Sprintf("broker %s: %v", net.JoinHostPort(m.Host, strconv.Itoa(int(m.Port))), rootDial(err)))
	}
}

// OnBrokerE2E is called by the client for each request that was answered or given up.
func (s *status) OnBrokerE2E(m kgo.BrokerMetadata, _ int16, e kgo.BrokerE2E) {
	err := e.Err()
	if err == nil {
		s.mu.Lock()
		quiet := len(s.troubles) == 0
		s.mu.Unlock()
		if !quiet {
			s.over(seedName)
			s.over(brokerName(m))
			s.expire()
		}
		return
	}
	var timeout net.Error
	if errors.Is(err, os.ErrDeadlineExceeded) || errors.As(err, &timeout) && timeout.Timeout() {
		s.wait(brokerName(m), fmt.Sprintf("broker %s: no answer", net.JoinHostPort(m.Host, strconv.Itoa(int(m.Port)))))
	}
}

// hungUp reports whether err is that the other side closed the connection.
func hungUp(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET)
}

// rootDial leaves away what the text says already.
func rootDial(err error) error {
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Err != nil {
		if se, ok := errors.AsType[*os.SyscallError](op.Err); ok {
			return se.Err
		}
		return op.Err
	}
	return err
}
