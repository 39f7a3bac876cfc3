package runtime

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/sidestream-dev/sidestream/checkpoint"
	"github.com/sidestream-dev/sidestream/wal"
)

// RemoveOptions say how a job is removed.
type RemoveOptions struct {
	KeepState  bool          // as a savepoint
	Savepoint  string        // its name; "" makes one
	Unasked    bool          // nobody asked for that: of those of one job the newest UnaskedMax are kept
	IfMatch    string        // only where it is at this JobInfo.Version, or AnyVersion; "" asks for none
	DropUnsent bool          // do not wait until the outside has its outputs
	Timeout    time.Duration // for the last barrier and the senders; 0 means Config.StopTimeout
}

// UnaskedMax is how many savepoints there are of a job, by name, that nobody asked for. Older ones go, lest a file that comes
// and goes fills the disk.
const UnaskedMax = 3

// RemoveResult is what went with a job.
type RemoveResult struct {
	Dropped   map[string]int64 `json:"dropped,omitempty"`   // records never sent, by output
	Savepoint string           `json:"savepoint,omitempty"` // that has its state
}

// ErrNotKept is the error of a job whose state was to be kept as a savepoint, and could not be: it is still there.
var ErrNotKept = errors.New("its state could not be kept")

// RemoveJob takes a job away with its state, its snapshots, its subscriptions and what its outputs hold: a last barrier, then
// its senders take out what is left, then one frame says that it is gone. It returns once that is durable. A job of the same
// name that comes later is another. Where the error is a *UnsentError, or says that the job did not stop, it goes on.
func (rt *Runtime) RemoveJob(ctx context.Context, name string, o RemoveOptions) (RemoveResult, error) {
	res, err := rt.removeJob(ctx, name, o)
	if err == nil && o.Unasked {
		rt.thinOut(ctx, name) // behind it, since each savepoint is taken for itself meanwhile
	}
	return res, err
}

func (rt *Runtime) removeJob(ctx context.Context, name string, o RemoveOptions) (RemoveResult, error) {
	ctx, leave, err := rt.changes.enter(ctx, "remove", append(savepointNamed(o.Savepoint), name)...)
	if err != nil {
		return RemoveResult{}, err
	}
	entry, err := rt.entry(name)
	if err == nil {
		err = rt.do(func(c *core) error { return c.match(name, o.IfMatch) }) // before it is halted
	}
	if err != nil {
		leave()
		return RemoveResult{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, rt.timeout(o.Timeout))
	defer cancel()
	j := rt.findJob(name)
	if j != nil {
		if err := rt.halt(ctx, []*job{j}, StateRemoving, leave); err != nil {
			return RemoveResult{}, err // leave is called once it has stopped, and goes on
		}
	}
	defer leave()
	res, err := rt.removeHalted(ctx, entry, j, o)
	if err != nil && j != nil {
		rt.goOn(j)
	}
	return res, err
}

// removeHalted removes a job that has no attempt under way.
func (rt *Runtime) removeHalted(ctx context.Context, entry *jobEntry, j *job, o RemoveOptions) (res RemoveResult, err error) {
	senders := rt.sendersFor(entry.ID)
	if !o.DropUnsent {
		if err := rt.drain(ctx, entry, senders); err != nil {
			return res, err
		}
	}
	var sp *savepointEntry
	if o.KeepState {
		if sp, err = rt.saveAtRest(entry, j, o.Savepoint); err != nil {
			return res, fmt.Errorf("job %s is not removed: %w: %w", entry.Name, ErrNotKept, err)
		}
		res.Savepoint, sp.Unasked = sp.Name, o.Unasked
	}
	rt.stopSenders(ctx, senders)
	var lsn wal.LSN
	err = rt.do(func(c *core) error {
		rt.committer.flushSent()
		r, err := rt.newRegistration(c)
		if err != nil {
			return err
		}
		have := c.ledger.Jobs[entry.ID]
		if err := c.match(entry.Name, o.IfMatch); err != nil {
			return err
		}
		res.Dropped = unsentOf(c, have)
		if len(res.Dropped) > 0 && !o.DropUnsent {
			return &UnsentError{Job: entry.Name, Unsent: res.Dropped}
		}
		r.remove(have)
		r.change.Savepoint = sp
		if lsn, err = r.write(); err != nil {
			return err
		}
		rt.dropJob(entry)
		return nil
	})
	if err != nil {
		if sp != nil {
			err = errors.Join(err, rt.snapshots.dropSavepoint(sp.Name))
		}
		rt.sendAgain(senders)
		return RemoveResult{}, fmt.Errorf("job %s is not removed: %w", entry.Name, err)
	}
	if err := rt.log.WaitDurable(rt.ctx, lsn); err != nil {
		return res, err
	}
	if err := rt.snapshots.keep(entry.ID, checkpoint.Epoch(math.MaxInt64)); err != nil {
		rt.logger.Warn("snapshots of a removed job are left; the next start removes them", "job", entry.Name, "err", err)
	}
	rt.logger.Info("removed", "job", entry.Name)
	rt.sayDropped(map[string]map[string]int64{entry.Name: res.Dropped})
	rt.tell(Event{Kind: EventRemoved, Job: entry.Name})
	return res, nil
}

// thinOut deletes the oldest of a job's savepoints that nobody asked for, beyond UnaskedMax.
func (rt *Runtime) thinOut(ctx context.Context, job string) {
	all, _ := rt.Savepoints() // the log has failed, and its last word is said elsewhere
	all = slices.DeleteFunc(all, func(sp SavepointInfo) bool { return !sp.Unasked || sp.Job != job })
	slices.SortFunc(all, func(a, b SavepointInfo) int { return cmp.Compare(b.LSN, a.LSN) }) // clocks are set back
	for _, sp := range all[min(UnaskedMax, len(all)):] {
		if err := rt.DeleteSavepoint(ctx, sp.Name); err != nil {
			rt.logger.Warn("an old savepoint of a removed job is left", "savepoint", sp.Name, "err", err)
			continue
		}
		rt.logger.Info("an old savepoint goes: newer ones of the removed job are kept", "savepoint", sp.Name, "kept", UnaskedMax)
	}
}

// saveAtRest makes a savepoint's file of a job that is halted.
func (rt *Runtime) saveAtRest(e *jobEntry, j *job, name string) (*savepointEntry, error) {
	e, err := rt.entry(e.Name) // it has sealed its last epoch since
	if err != nil {
		return nil, err
	}
	sp, err := rt.newSavepoint(e, name)
	if err != nil {
		return nil, err
	}
	if _, ok := e.saved(e.Epoch); !ok {
		if err := rt.snapshotAtRest(j, e); err != nil {
			return nil, err
		}
		if e, err = rt.entry(e.Name); err != nil {
			return nil, err
		}
	}
	return sp, rt.keepAs(sp, e, e.Snapshots[len(e.Snapshots)-1])
}

// drain waits until everything that a job gave out is outside. Where nobody sends, it is left to what the log says.
func (rt *Runtime) drain(ctx context.Context, e *jobEntry, senders []*sender) error {
	for {
		left := &UnsentError{Job: e.Name, Unsent: map[string]int64{}, Waiting: map[string]string{}, Earlier: map[string]int64{}}
		stopped := false
		for _, s := range senders {
			st := s.status()
			if st.Unsent == 0 {
				continue
			}
			left.Unsent[st.Name] += st.Unsent
			left.Waiting[st.Name] = st.Waiting
			if !st.GivenUp.IsZero() {
				left.Earlier[st.Name], left.At = st.Unsent, st.GivenUp
			}
			if st.Error != "" {
				left.Waiting[st.Name] = st.Error
			}
			stopped = stopped || st.Stopped
		}
		switch {
		case len(left.Unsent) == 0:
			return nil
		case stopped:
			return left
		}
		if rt.sleep(ctx, drainLook) != nil {
			return left
		}
	}
}

const drainLook = 5 * time.Millisecond

func (rt *Runtime) timeout(asked time.Duration) time.Duration {
	if asked > 0 {
		return asked
	}
	return rt.cfg.StopTimeout
}
