package runtime

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sidestream-dev/sidestream/wal"
)

const (
	roomRetry  = 100 * time.Millisecond // how often a full disk is looked at again
	sentEvery  = 50 * time.Millisecond  // how often senders' positions are written
	sentAtOnce = 100                    // senders' positions in one small frame
)

// committer owns a core with one goroutine. Seals wait in one queue a job and are taken in turn; calls (fences,
// changes) pass them.
type committer struct {
	core        *core
	log         processLog
	logger      *slog.Logger
	sealedBytes int64         // no epoch is sealed while more than this is not durable
	onDurable   func(wal.LSN) // runs on the committer's goroutine; must not block
	onFatal     func(error)   // the log's last word

	wakeup chan struct{}
	mu     sync.Mutex
	calls  []call
	queues map[uint32][]*sealCall
	turn   []uint32 // jobs with something queued, next first
	sent   map[uint32]sentEntry
	closed bool

	noRoom   atomic.Bool // the disk is full
	done     chan struct{}
	durableN wal.LSN
}

type call struct {
	f    func(*core) error
	done chan error
}

type sealCall struct {
	req  *sealRequest
	done func(wal.LSN, error) // runs on the committer's goroutine; must not block
}

func newCommitter(c *core, log processLog, logger *slog.Logger, sealedBytes int64) *committer {
	return &committer{core: c, log: log, logger: logger, sealedBytes: sealedBytes, wakeup: make(chan struct{}, 1),
		queues: map[uint32][]*sealCall{}, sent: map[uint32]sentEntry{}, done: make(chan struct{})}
}

func (c *committer) wake() {
	select {
	case c.wakeup <- struct{}{}:
	default:
	}
}

// seal queues an epoch; done is called with its LSN, or with why it was not taken.
func (c *committer) seal(req *sealRequest, done func(wal.LSN, error)) {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		done(0, wal.ErrClosed)
		return
	}
	q := c.queues[req.job]
	if len(q) == 0 {
		c.turn = append(c.turn, req.job)
	}
	c.queues[req.job] = append(q, &sealCall{req, done})
	c.mu.Unlock()
	c.wake()
}

// do runs f between two seals and returns its error.
func (c *committer) do(f func(*core) error) error {
	done := make(chan error, 1)
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return wal.ErrClosed
	}
	c.calls = append(c.calls, call{f, done})
	c.mu.Unlock()
	c.wake()
	return <-done
}

// sentTo notes how far a sender has come; it is written within sentEvery.
func (c *committer) sentTo(s sentEntry) {
	c.mu.Lock()
	first := len(c.sent) == 0
	c.sent[uint32(s.Sub)] = s
	c.mu.Unlock()
	if first {
		c.wake()
	}
}

// run works until ctx ends and nothing is queued; then it makes everything durable. Seals that wait for room on the disk
// when ctx has ended are refused: nobody waits for them any more.
func (c *committer) run(ctx context.Context) {
	defer close(c.done)
	ending := ctx.Done()
	var flush <-chan time.Time
	var retry <-chan time.Time
	for {
		more, full := c.work()
		if more {
			continue
		}
		if ending == nil && full {
			c.refuseSeals(wal.ErrNoRoom)
		}
		if ending == nil && c.drained() {
			c.flushSent()
			c.finish()
			return
		}
		if full && retry == nil {
			retry = time.After(roomRetry)
		}
		if flush == nil && c.hasSent() {
			flush = time.After(sentEvery)
		}
		select {
		case <-c.wakeup:
		case <-flush:
			flush = nil
			c.flushSent()
		case <-retry:
			retry = nil
		case <-c.log.Failed():
			c.fatal(c.log.Err())
			c.refuseAll(c.log.Err())
			return
		case <-ending:
			ending = nil
		}
	}
}

// work does what is to be done at once, and seals one epoch; more is false where nothing is left, full where one waits for
// room on the disk.
func (c *committer) work() (more, full bool) {
	c.passDurable()
	for c.runCall() {
	}
	return c.sealNext()
}

func (c *committer) fatal(err error) {
	if c.onFatal != nil && err != nil {
		c.onFatal(err)
		c.onFatal = nil
	}
}

// passDurable hands on what has become durable.
func (c *committer) passDurable() {
	if lsn := c.log.Durable(); lsn > c.durableN {
		c.durableN = lsn
		c.core.durable(lsn)
		c.onDurable(lsn)
	}
}

func (c *committer) runCall() bool {
	c.mu.Lock()
	if len(c.calls) == 0 {
		c.mu.Unlock()
		return false
	}
	k := c.calls[0]
	c.calls = c.calls[1:]
	c.mu.Unlock()
	err := k.f(c.core)
	c.checkFatal(err)
	k.done <- err
	return true
}

// sealNext seals one epoch of the job whose turn it is; full says that there is one, but no room.
func (c *committer) sealNext() (sealed, full bool) {
	c.mu.Lock()
	if len(c.turn) == 0 {
		c.mu.Unlock()
		return false, false
	}
	job := c.turn[0]
	s := c.queues[job][0]
	c.mu.Unlock()
	if p := c.log.Pending(); p > 0 && p+s.req.bytes > c.sealedBytes {
		return false, false // what becomes durable wakes us
	}
	lsn, err := c.core.seal(s.req)
	if errors.Is(err, wal.ErrNoRoom) {
		if !c.noRoom.Swap(true) {
			c.logger.Warn("the disk is full: jobs wait until there is room", "err", err)
		}
		return false, true
	}
	if err == nil && c.noRoom.Swap(false) {
		c.logger.Info("there is room on the disk again: jobs go on")
	}
	c.mu.Lock()
	q := c.queues[job][1:]
	c.queues[job] = q
	c.turn = c.turn[1:]
	if len(q) > 0 {
		c.turn = append(c.turn, job)
	} else {
		delete(c.queues, job)
	}
	c.mu.Unlock()
	c.checkFatal(err)
	s.done(lsn, err)
	return true, false
}

// checkFatal tells an error that is the log's or ours from one that refuses a single request.
func (c *committer) checkFatal(err error) {
	var failed *wal.FailedError
	if errors.As(err, &failed) {
		c.fatal(failed)
	} else if errors.Is(err, errEpochOrder) {
		c.fatal(err)
	}
}

func (c *committer) hasSent() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.sent) > 0
}

func (c *committer) flushSent() {
	c.mu.Lock()
	sent := slices.Collect(maps.Values(c.sent))
	clear(c.sent)
	c.mu.Unlock()
	for some := range slices.Chunk(sent, sentAtOnce) {
		_, err := c.core.change(&control{Sent: some}, nil)
		c.checkFatal(err)
		if err != nil {
			c.keepSent(some)
		}
	}
}

// keepSent keeps positions that could not be written for the next flush.
func (c *committer) keepSent(sent []sentEntry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range sent {
		if _, newer := c.sent[uint32(s.Sub)]; !newer {
			c.sent[uint32(s.Sub)] = s
		}
	}
}

func (c *committer) drained() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.calls) > 0 || len(c.turn) > 0 {
		return false
	}
	c.closed = true
	return true
}

// finish waits for the last frame to be durable and hands that on.
func (c *committer) finish() {
	if err := c.log.WaitDurable(context.Background(), c.log.Last()); err != nil {
		c.fatal(err)
		return
	}
	c.passDurable()
}

func (c *committer) refuseAll(err error) {
	c.mu.Lock()
	c.closed = true
	calls := c.calls
	c.calls = nil
	c.mu.Unlock()
	for _, k := range calls {
		k.done <- err
	}
	c.refuseSeals(err)
}

func (c *committer) refuseSeals(err error) {
	c.mu.Lock()
	queues := c.queues
	c.queues, c.turn = map[uint32][]*sealCall{}, nil
	c.mu.Unlock()
	for _, q := range queues {
		for _, s := range q {
			s.done(0, err)
		}
	}
}
