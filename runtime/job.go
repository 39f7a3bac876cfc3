package runtime

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/wal"
)

// job supervises the attempts of one job.
type job struct {
	rt           *Runtime
	def          *jobs.Job
	id           uint32
	plan         *jobPlan
	stores       *jobStores
	logger       *slog.Logger
	exec         atomic.Pointer[execution] // the attempt under way
	ended        bool                      // before this run
	snapshotBusy atomic.Bool               // an attempt's snapshot is being written

	stopOnce sync.Once
	stopped  chan struct{} // closed to stop

	mu       sync.Mutex
	state    JobState
	since    time.Time
	lastErr  error
	waiting  map[string]string // by step
	restarts int
	past     JobCounters   // of earlier attempts
	left     []*leftBehind // stuck in the job's own code
}

// leftBehind is a subtask of an attempt that is over, whose goroutine has not come back from the job's own code.
type leftBehind struct {
	task string
	gone <-chan struct{} // closed when it has come back after all
}

// stuckTasks names those that are still there.
func (j *job) stuckTasks() []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	var names []string
	for _, l := range j.left {
		select {
		case <-l.gone:
		default:
			names = append(names, l.task)
		}
	}
	return names
}

func newJob(rt *Runtime, def *jobs.Job, id uint32, plan *jobPlan, stores *jobStores) *job {
	return &job{rt: rt, def: def, id: id, plan: plan, stores: stores, logger: rt.logger.With("job", def.Name),
		stopped: make(chan struct{}), state: StateStopped, since: time.Now(), waiting: map[string]string{}}
}

// move changes the state by the table of allowed moves.
func (j *job) move(to JobState) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.state == to {
		return
	}
	if !slices.Contains(moves[j.state], to) {
		panic(fmt.Sprintf("runtime: job %s: from %s to %s", j.def.Name, j.state, to))
	}
	j.state, j.since = to, time.Now()
}

// setWaiting notes what a step waits for; "" ends it.
func (j *job) setWaiting(step, why string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if why == "" {
		if _, was := j.waiting[step]; was {
			delete(j.waiting, step)
			j.logger.Info("going on", "step", step)
		}
		return
	}
	if j.waiting[step] == "" {
		j.logger.Warn("waiting", "step", step, "for", why)
	}
	j.waiting[step] = why
}

func (j *job) stop() {
	j.stopOnce.Do(func() { close(j.stopped) })
}

func (j *job) isStopped() bool {
	select {
	case <-j.stopped:
		return true
	default:
		return false
	}
}

// run makes attempts until the job has ended, is stopped, or has failed for good.
func (j *job) run(ctx context.Context) {
	if j.ended {
		j.move(StateStarting)
		j.move(StateRunning)
		j.move(StateEnded)
		return
	}
	barren := 0 // attempts in a row that sealed nothing
	for {
		j.move(StateStarting)
		ended, sealed, err := j.attempt(ctx)
		switch {
		case err == nil && ended:
			j.move(StateEnded)
			j.logger.Info("ended")
			return
		case err == nil || ctx.Err() != nil || errors.Is(err, errStopped):
			j.move(StateStopping)
			j.move(StateStopped)
			return
		}
		if barren++; sealed {
			barren = 0
		}
		j.mu.Lock()
		j.lastErr = err
		j.restarts++
		j.mu.Unlock()
		if j.rt.log.Err() != nil || errors.Is(err, wal.ErrClosed) {
			j.move(StateFailed) // with the log, which says so itself
			return
		}
		j.logFailure(err)
		if barren >= j.rt.cfg.AttemptsMax {
			j.move(StateFailed)
			j.logger.Error("failed: no attempt gets further", "attempts", barren, "err", err)
			return
		}
		j.move(StateRestarting)
		if !j.backoff(ctx, barren) {
			j.move(StateStopped)
			return
		}
	}
}

func (j *job) logFailure(err error) {
	var p *PanicError
	if errors.As(err, &p) {
		j.logger.Error("the attempt failed", "err", err, "stack", string(p.Stack))
		return
	}
	j.logger.Error("the attempt failed", "err", err)
}

// backoff waits before the next attempt: exponentially longer, with jitter. It returns false if the job is stopped.
func (j *job) backoff(ctx context.Context, barren int) bool {
	d := j.rt.cfg.BackoffMin << min(max(0, barren-1), 20)
	if d > j.rt.cfg.BackoffMax || d <= 0 {
		d = j.rt.cfg.BackoffMax
	}
	d = d/2 + rand.N(d/2+1)
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
	case <-j.stopped:
	}
	return false
}

// begin makes the next attempt. The fence comes first: whatever an older one hands over later is refused.
func (j *job) begin(ctx context.Context) (x *execution, err error) {
	defer recovered(&err, j.def.Name, "", 0) // building steps and asking sources runs the job's own code
	var entry *jobEntry
	var attempt uint32
	err = j.rt.do(func(c *core) error {
		n, _, err := c.fence(j.id)
		if err != nil {
			return err
		}
		attempt, entry = n, c.ledger.Jobs[j.id].clone()
		return nil
	})
	if err != nil {
		return nil, err
	}
	j.stores.handOver(entry.Epoch)
	if x, err = j.rt.newExecution(ctx, j, entry, attempt); err != nil {
		return nil, err
	}
	j.exec.Store(x)
	return x, nil
}

// attempt runs the job once.
func (j *job) attempt(ctx context.Context) (ended, sealed bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	j.mu.Lock()
	clear(j.waiting) // what an attempt waited for is over with it
	j.mu.Unlock()
	go func() { // a stop also ends the wait for an outside that is away
		select {
		case <-j.stopped:
			if j.exec.Load() == nil {
				cancel()
			}
		case <-ctx.Done():
		}
	}()
	x, err := j.begin(ctx)
	if err != nil {
		if j.isStopped() {
			return false, false, errStopped
		}
		return false, false, err
	}
	defer j.exec.Store(nil)
	over := make(chan struct{})
	defer close(over)
	go func() {
		select {
		case <-j.stopped:
			j.logger.Debug("stopping")
			x.stop()
		case <-over:
		}
	}()
	j.move(StateRunning)
	ended, err = x.runUntil(ctx)
	if last := j.rt.log.Last(); err == nil && j.rt.log.WaitDurable(ctx, last) == nil {
		x.durableUpTo(last)
	}
	if stuck := x.abandon(j.rt.cfg.StuckAfter); len(stuck) > 0 {
		j.mu.Lock()
		j.left = append(j.left, stuck...)
		j.mu.Unlock()
		j.logger.Error("left behind in the job's own code", "tasks", j.stuckTasks())
	}
	j.addPast(x)
	return ended, x.epochs.Load() > 0, err
}
