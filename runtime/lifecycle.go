package runtime

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/sidestream-dev/sidestream/checkpoint"
	"github.com/sidestream-dev/sidestream/wal"
)

// StopOptions say how a job is stopped.
type StopOptions struct {
	Force   bool          // cut it where it stands; what is not sealed is done again when it goes on
	Missing bool          // its definition is gone: it goes on as soon as it is given one again
	Timeout time.Duration // for the last barrier; 0 means Config.StopTimeout
}

// PauseJob sends a job a last barrier and keeps it from running until ResumeJob, also across restarts of the process. Its state
// stays, and so do its subscriptions and the records that they claim; its senders go on.
func (rt *Runtime) PauseJob(ctx context.Context, name string) error {
	return rt.operate(ctx, opPause, name, StopOptions{})
}

// ResumeJob lets a job that is paused or stopped go on where it stood.
func (rt *Runtime) ResumeJob(ctx context.Context, name string) error {
	return rt.operate(ctx, opResume, name, StopOptions{})
}

// StopJob is PauseJob for longer: the job runs again only when it is resumed or restarted by hand.
func (rt *Runtime) StopJob(ctx context.Context, name string, o StopOptions) error {
	return rt.operate(ctx, opStop, name, o)
}

// RestartJob begins a new attempt: of a job that runs behind a last barrier, of one that is paused, stopped or has failed where
// it stood. One that has ended begins anew: its inputs where its definition says, without state; what it gives out is added to
// its outputs.
func (rt *Runtime) RestartJob(ctx context.Context, name string) error {
	return rt.operate(ctx, opRestart, name, StopOptions{})
}

// operate does what the table phaseAfter says. Where it returns an error other than the log's nothing has changed.
func (rt *Runtime) operate(ctx context.Context, op operation, name string, o StopOptions) error {
	ctx, leave, err := rt.changes.enter(ctx, string(op), name)
	if err != nil {
		return err
	}
	e, err := rt.entry(name)
	if err != nil {
		leave()
		return err
	}
	to, ok := phaseAfter[op][e.Phase]
	j := rt.findJob(name)
	switch {
	case !ok:
		err = &PhaseError{Job: name, Operation: string(op), Phase: e.Phase}
	case o.Missing && e.Phase != PhaseActive:
		leave() // it rests, as somebody wanted
		return nil
	case j == nil && to == PhaseActive:
		err = fmt.Errorf("job %s cannot %s: %s; apply it again", name, op, missingReason)
	}
	if err == nil && j != nil && to == PhaseActive && e.Phase != PhaseActive && j.detached(e) {
		defer leave()
		if err := rt.reattach(j, to); err != nil {
			return err
		}
		rt.goOn(j)
		return nil
	}
	if err != nil || to == e.Phase && (op != opRestart || j == nil) {
		leave()
		return err
	}
	if j == nil { // it rests, and its phase is all there is to change
		defer leave()
		return rt.setPhase(e.ID, to, "")
	}
	ctx, cancel := context.WithTimeout(ctx, rt.timeout(o.Timeout))
	defer cancel()
	if e.Phase == PhaseActive {
		if o.Force {
			j.cut()
		}
		if err := rt.halt(ctx, []*job{j}, StateStopping, leave); err != nil {
			return err
		}
	}
	defer leave()
	reason := ""
	if o.Missing {
		reason = missingReason
	}
	return rt.afterHalt(j, op, reason)
}

// afterHalt writes the phase of a job that is halted and lets it do what that says.
func (rt *Runtime) afterHalt(j *job, op operation, reason string) error {
	e, err := rt.entry(j.def.Name)
	if err != nil {
		return err
	}
	was := e.Phase // it may have ended or failed on the way to its last barrier
	to, ok := phaseAfter[op][was]
	switch {
	case !ok:
		rt.goOn(j)
		return &PhaseError{Job: j.def.Name, Operation: string(op), Phase: was}
	case was == PhaseEnded:
		return rt.beginAnew(j, e)
	case to != was:
		err = rt.setPhase(j.id, to, reason)
	}
	rt.goOn(j)
	return err
}

// beginAnew restarts a job that has ended.
func (rt *Runtime) beginAnew(j *job, e *jobEntry) error {
	d, err := rt.inspect(j.def, e.Origin)
	if err != nil {
		return err
	}
	var lsn wal.LSN
	var now *jobEntry
	n := j.again()
	err = rt.do(func(c *core) error {
		rt.committer.flushSent()
		r, err := rt.newRegistration(c)
		if err != nil {
			return err
		}
		if err := r.defineTopics([]*definition{d}); err != nil {
			return err
		}
		if err := r.restart(d, c.ledger.Jobs[j.id]); err != nil {
			return err
		}
		if lsn, err = r.write(); err != nil {
			return err
		}
		now = c.ledger.Jobs[j.id].clone()
		n.stores = newJobStores(n.plan, now.Epoch)
		rt.putJob(n)
		return nil
	})
	if err != nil {
		return err
	}
	if err := rt.log.WaitDurable(rt.ctx, lsn); err != nil {
		return err
	}
	if err := rt.snapshots.keep(j.id, checkpoint.Epoch(math.MaxInt64)); err != nil {
		n.logger.Warn("snapshots of the job as it was are left; the next start removes them", "err", err)
	}
	rt.replaceSenders(n, now)
	rt.settleIn(n, now.Phase)
	return nil
}
