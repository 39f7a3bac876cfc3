package runtime

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sidestream-dev/sidestream/checkpoint"
	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/wal"
)

// job supervises the attempts of one job, from when it begins until it is stopped, has ended or has failed. To go on it is
// made anew (again); what others see of it, it keeps.
type job struct {
	rt     *Runtime
	def    *jobs.Job
	id     uint32
	plan   *jobPlan
	stores *jobStores // nil where they are yet to be restored from the log; its supervisor's, or whoever has halted it
	logger *slog.Logger
	lines  *ring[LogLine]            // of its log, the newest
	exec   atomic.Pointer[execution] // the attempt under way
	trial  atomic.Pointer[trial]     // while its definition is on probation

	ctx      context.Context // of the attempts; cancelled, they end where they stand
	cut      context.CancelFunc
	stopOnce sync.Once
	stopped  chan struct{} // closed to stop
	done     chan struct{} // closed while no attempt is under way and none will be

	mu       sync.Mutex
	state    JobState
	asked    bool // to stop: the state says what for
	since    time.Time
	lastErr  error
	took     *RolledBack     // the newest definition failed on probation; nil from the next one on
	waiting  map[string]Wait // by step
	restarts int
	past     JobCounters   // of attempts before the last one
	last     lastAttempt   // that is over
	sealed   sealedAt      // when they ended
	left     []*leftBehind // stuck in the job's own code
}

// sealedAt is the last epoch that was sealed, and when, if this process has.
type sealedAt struct {
	epoch checkpoint.Epoch
	at    time.Time
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

// newJob makes a job that does not run, in the state that its phase in the log gives it.
func newJob(rt *Runtime, def *jobs.Job, e *jobEntry, plan *jobPlan, stores *jobStores) *job {
	lines := new(ring[LogLine])
	j := &job{rt: rt, def: def, id: e.ID, plan: plan, stores: stores, lines: lines, logger: jobLogger(rt.logger, def.Name, lines),
		stopped: make(chan struct{}), done: make(chan struct{}), state: StateStarting, since: time.Now(), waiting: map[string]Wait{},
		sealed: sealedAt{epoch: e.Epoch}}
	if s, rests := restingState[e.Phase]; rests {
		j.state = s
	}
	if e.Phase == PhaseFailed {
		j.lastErr = errors.New(e.Reason)
	}
	j.ctx, j.cut = context.WithCancel(rt.ctx)
	close(j.done)
	return j
}

// again returns a job that can be begun, for one that is over.
func (j *job) again() *job {
	j.mu.Lock()
	defer j.mu.Unlock()
	n := &job{rt: j.rt, def: j.def, id: j.id, plan: j.plan, stores: j.stores, logger: j.logger, lines: j.lines,
		stopped: make(chan struct{}), done: make(chan struct{}), state: j.state, since: j.since, waiting: map[string]Wait{},
		lastErr: j.lastErr, took: j.took, restarts: j.restarts, past: j.past, last: j.last, sealed: j.sealed, left: j.left}
	n.trial.Store(j.trial.Load())
	j.cut()
	n.ctx, n.cut = context.WithCancel(j.rt.ctx)
	close(n.done)
	return n
}

// over reports whether no attempt is under way, and none will be unless it is begun again.
func (j *job) over() bool {
	select {
	case <-j.done:
		return true
	default:
		return false
	}
}

// move changes the state by the table of allowed moves. Once the job is asked to stop, its state says what for, until it is over.
func (j *job) move(to JobState) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.asked && (to == StateStarting || to == StateRunning || to == StateRestarting) {
		return
	}
	j.moveLocked(to)
}

func (j *job) moveLocked(to JobState) {
	if j.state == to {
		return
	}
	if !mayMove(j.state, to) {
		panic(fmt.Sprintf("runtime: job %s: from %s to %s", j.def.Name, j.state, to))
	}
	j.state, j.since = to, time.Now()
	j.rt.tell(Event{Kind: EventState, Job: j.def.Name, State: to})
}

// ask asks for a last barrier; as says in which state the job is from then on.
func (j *job) ask(as JobState) {
	j.mu.Lock()
	if as == StateStopping && !j.state.working() {
		j.mu.Unlock()
		return
	}
	if !j.asked {
		j.moveLocked(as)
		j.asked = true
	}
	j.mu.Unlock()
	j.stopOnce.Do(func() { close(j.stopped) })
}

// rest says of a job that was asked to stop, and has, that it is stopped.
func (j *job) rest() {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.state.working() || j.asked && mayMove(j.state, StateStopped) {
		j.state, j.since = StateStopped, time.Now()
	}
}

// working reports whether attempts are made in a state, and nobody has asked for their end.
func (s JobState) working() bool {
	return s == StateStarting || s == StateRunning || s == StateRestarting
}

// setWaiting notes what a step waits for; what has no text ends it.
func (j *job) setWaiting(step string, what Wait) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if what.Text == "" {
		if _, was := j.waiting[step]; was {
			delete(j.waiting, step)
			j.logger.Info("going on", "step", step)
		}
		return
	}
	if _, is := j.waiting[step]; !is {
		j.logger.Warn("waiting", "step", step, "for", what.Text)
	}
	j.waiting[step] = what
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
	barren := 0 // attempts in a row that sealed nothing
	for !j.isStopped() && ctx.Err() == nil {
		j.move(StateStarting)
		ended, sealed, err := j.attempt(ctx)
		switch {
		case err == nil && ended:
			j.move(StateEnded)
			j.logger.Info("ended")
			return
		case err == nil || ctx.Err() != nil || errors.Is(err, errStopped):
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
		if j.trial.Load().on(j.rt.now()) {
			j.failTrial(barren, err)
			return
		}
		if barren >= j.rt.cfg.AttemptsMax {
			j.fail(barren, err)
			return
		}
		j.move(StateRestarting)
		if !j.backoff(ctx, barren) {
			return
		}
	}
}

// fail gives the job up: the log says so, and it stays failed until it is restarted by hand or changed, or its program is another.
func (j *job) fail(attempts int, err error) {
	logged := j.rt.setPhase(j.id, PhaseFailed, errorText(err))
	if logged != nil && j.rt.log.Err() == nil {
		j.logger.Error("that the job has failed could not be written; the next start tries it again", "err", logged)
	}
	j.logger.Error("failed: no attempt gets further", "attempts", attempts, "err", err) // who sees that it has failed finds why
	j.move(StateFailed)
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

// begin makes the next attempt. The fence comes first: whatever an older one hands over later is refused. It makes none where
// the last epoch of a failed one, which the committer had yet to seal, says that the job has ended.
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
	if err == nil {
		j.settle()
	}
	if err != nil || entry.Phase == PhaseEnded {
		return nil, err
	}
	if j.stores == nil {
		if j.stores, err = j.rt.restoreStores(j.plan, entry); err != nil {
			return nil, err
		}
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
	if x == nil {
		return true, true, nil
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
	j.logger.Info("an attempt begins")
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
