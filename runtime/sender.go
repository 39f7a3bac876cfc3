package runtime

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sidestream-dev/sidestream/bus"
	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/wal"
)

const (
	sendRecords = 4096    // records in one Write of a sink, at most
	sendBytes   = 1 << 20 // and their bytes, before the last one
	sendRetry   = 30 * time.Second
)

// sender takes one output of a job outside: what is durable, in order, one Write at a time. An output is a hidden topic of
// one partition whose only subscription is the sender's; its place is (log id, LSN, index), in frames of ours.
type sender struct {
	rt       *Runtime
	job      string
	jobID    uint32
	delivery jobs.Delivery
	entry    outputEntry // Sent is where it began
	sink     jobs.Sink
	logger   *slog.Logger

	next    atomic.Uint64 // index of the next record to send
	sent    atomic.Int64
	stopped atomic.Bool  // by a *jobs.StoppedError
	gone    atomic.Bool  // its goroutine has returned
	gaveUp  atomic.Int64 // when the job gave the output up, in Unix ms; 0 where it has it

	quitOnce sync.Once
	quit     chan struct{} // closed to stop between two writes
	ctx      context.Context
	cut      context.CancelFunc
	done     chan struct{} // closed when its goroutine has returned

	mu      sync.Mutex
	waiting string
	lastErr error
}

// run sends until ctx ends or the sink stops it.
func (s *sender) run(ctx context.Context) {
	defer close(s.done)
	defer s.gone.Store(true)
	at := s.entry.Sent
	at.Sub = s.entry.Sub
	s.next.Store(uint64(at.Next))
	for attempt := 0; ; attempt++ {
		from := at.Next
		err := s.runWriter(ctx, &at)
		if at.Next > from {
			attempt = 0
		}
		var stop *jobs.StoppedError
		switch {
		case ctx.Err() != nil || s.quitting() || s.rt.log.Err() != nil: // the log says its last word itself (R7)
			return
		case errors.As(err, &stop):
			s.stopped.Store(true)
			s.setErr(err)
			s.logger.Error("the output is stopped; its records are kept", "err", err)
			return
		}
		s.setErr(err)
		s.logger.Warn("sending failed; the same records are sent again", "err", err)
		d := min(100*time.Millisecond<<min(attempt, 10), sendRetry)
		select {
		case <-time.After(d):
		case <-s.quit:
			return
		case <-ctx.Done():
			return
		}
	}
}

func (s *sender) quitting() bool {
	select {
	case <-s.quit:
		return true
	default:
		return false
	}
}

func (s *sender) setErr(err error) {
	s.mu.Lock()
	s.lastErr = err
	s.mu.Unlock()
}

func (s *sender) setWaiting(why string) {
	s.mu.Lock()
	was := s.waiting
	s.waiting = why
	s.mu.Unlock()
	switch {
	case why != "" && was == "":
		s.logger.Warn("the output waits", "for", why)
	case why == "" && was != "":
		s.logger.Info("the output goes on")
	}
}

// runWriter opens the sink where at stands and sends until something fails.
func (s *sender) runWriter(ctx context.Context, at *sentEntry) (err error) {
	defer recovered(&err, s.job, "out-"+s.entry.Name, 0) // a sink may be the job's own code
	wakeup := make(chan struct{}, 1)
	w, g, err := s.open(ctx, at, func() {
		select {
		case wakeup <- struct{}{}:
		default:
		}
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, g.reader.Close(), w.Close()) }()
	for {
		if s.quitting() {
			return nil
		}
		changed := s.rt.durableChanged()
		n, err := s.sendNext(ctx, w, g, at)
		if err != nil {
			return err
		}
		if n > 0 {
			continue
		}
		select {
		case <-wakeup:
		case <-changed:
		case <-s.quit:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// open makes the sink ready and begins to read the output where at stands.
func (s *sender) open(ctx context.Context, at *sentEntry, wake func()) (jobs.Writer, *gatherer, error) {
	w, err := s.sink.Open(ctx, jobs.SinkEnv{Job: s.job, Output: s.entry.Name, LogID: s.rt.log.ID().String(), Delivery: s.delivery,
		Known: int64(s.rt.bus.Next(s.entry.Topic, 0)), Cut: s.removed(at.Next), State: at.State, Logger: s.logger, Waiting: s.setWaiting, DataDir: s.rt.cfg.DataDir, Services: s.rt.cfg.Services})
	if err != nil {
		return nil, nil, fmt.Errorf("opening the sink: %w", err)
	}
	if at.State == nil && at.Next == 0 {
		if err := s.prepare(ctx, w, at); err != nil {
			return nil, nil, errors.Join(err, w.Close())
		}
	}
	r := s.rt.bus.NewReader(s.entry.Sub, s.entry.Topic, sentStates(*at), wake)
	return w, &gatherer{reader: r, durable: s.rt.log.Durable}, nil
}

// removed says which records behind next a repair of the log has removed.
func (s *sender) removed(next bus.Offset) jobs.Cut {
	from, to, ok := s.rt.bus.Gap(s.entry.Topic, 0)
	if !ok || next > from {
		return jobs.Cut{}
	}
	return jobs.Cut{From: int64(from), To: int64(to)}
}

// sendNext takes the next records outside, if some are durable, and returns how many.
func (s *sender) sendNext(ctx context.Context, w jobs.Writer, g *gatherer, at *sentEntry) (n int, err error) {
	ms, lsn, err := g.gather()
	if err != nil || len(ms) == 0 {
		return 0, err
	}
	state, err := w.Write(ctx, ms)
	if err != nil {
		return 0, err
	}
	*at = sentEntry{Sub: s.entry.Sub, LSN: lsn, Next: bus.Offset(ms[len(ms)-1].Offset) + 1, State: state}
	s.rt.committer.sentTo(*at)
	s.next.Store(uint64(at.Next))
	s.sent.Add(int64(len(ms)))
	s.setErr(nil)
	return len(ms), nil
}

// prepare lets the sink make ready what has to be there, and makes what it returns durable before anything is sent.
func (s *sender) prepare(ctx context.Context, w jobs.Writer, at *sentEntry) error {
	state, err := w.Write(ctx, nil)
	if err != nil || state == nil {
		return err
	}
	at.State = state
	var lsn wal.LSN
	err = s.rt.do(func(c *core) (err error) {
		lsn, err = c.change(&control{Sent: []sentEntry{*at}}, nil)
		return err
	})
	if err != nil {
		return err
	}
	return s.rt.log.WaitDurable(ctx, lsn)
}

// gatherer joins small batches into one Write and holds back what is not durable yet (R2).
type gatherer struct {
	reader  *bus.Reader
	durable func() wal.LSN
	held    *bus.Batch
	ms      []jobs.Message
}

func (g *gatherer) gather() ([]jobs.Message, wal.LSN, error) {
	clear(g.ms)
	g.ms = g.ms[:0]
	var last wal.LSN
	bytes := 0
	for len(g.ms) < sendRecords && bytes < sendBytes {
		if g.held == nil {
			b, ok, err := g.reader.Next(sendRecords - len(g.ms))
			if err != nil {
				return nil, 0, err
			}
			if !ok {
				break
			}
			if b.Len() == 0 {
				continue
			}
			g.held = &b
		}
		if g.held.LSN > g.durable() {
			break
		}
		next := int64(g.held.Base)
		for r := range g.held.Records() {
			g.ms = append(g.ms, jobs.Message{Key: r.Key, Value: r.Value, Time: jobs.Time(r.Time), Headers: jobsHeaders(r.Headers), Offset: next})
			next++
			bytes += len(r.Key) + len(r.Value)
		}
		last, g.held = g.held.LSN, nil
	}
	return g.ms, last, nil
}
