package runtime

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/wal"
)

// A changed definition is on probation for a while: the log keeps what the job was before (jobEntry.Prev) with what it gave up,
// places in topics and sources, outputs that are yet to be sent, the state of steps that are gone. The first attempt that fails
// meanwhile, whatever the reason, brings the old definition back, from the last epoch that the new one sealed: nothing sealed
// is taken back. What both have goes on from there; what the new one had given up goes on from where it stood; what the new
// one alone had goes. Where the new one has changed state that the old cannot read there is no way back, which the Diff said
// beforehand: the job is failed.
//
// When the time is over, and what was given up is sent, one frame settles it. Both are whole or absent after a crash; a process
// that begins in the middle goes on with the probation, if Config.Load can make the old definition a job again.

// trial is the probation of a job that runs.
type trial struct {
	until     time.Time
	prev      *jobs.Job // nil where nobody can make it
	noWayBack string
}

// on reports whether a failure now takes the definition back.
func (t *trial) on(now time.Time) bool {
	return t != nil && (t.prev != nil || t.noWayBack != "") && t.open(now)
}

// open reports whether the time is not over.
func (t *trial) open(now time.Time) bool { return t != nil && now.Before(t.until) }

var errSettled = errors.New("it is not on probation any more")

// failTrial has the old definition brought back, or fails the job where that cannot be. It runs on the job's supervisor, which
// then ends.
func (j *job) failTrial(barren int, cause error) {
	if why := j.trial.Load().noWayBack; why != "" {
		j.fail(barren, fmt.Errorf("%w (there is no way back to the definition before: %s)", cause, why))
		return
	}
	j.move(StateRestarting)
	j.rt.spawn(func() {
		if j.rt.await(j.rt.changes.ctx, j.done) != nil {
			return
		}
		if err := j.rt.takeBack(j, cause); err != nil && j.rt.changes.ctx.Err() == nil {
			j.logger.Error("the old definition could not be brought back; the new one is tried again", "err", err)
			j.rt.retry(j)
		}
	})
}

// retry lets a job go on whose definition should have been taken back.
func (rt *Runtime) retry(j *job) {
	_, leave, err := rt.changes.enter(context.Background(), "retry", j.def.Name)
	if err != nil {
		return
	}
	defer leave()
	if rt.findJob(j.def.Name) == j {
		if t := j.trial.Load(); t.open(rt.now()) {
			j.trial.Store(&trial{until: t.until}) // it is not taken back any more; when its time is over it is settled as any
		}
		rt.goOn(j)
	}
}

// takeBack brings back what a job was before its definition was changed.
func (rt *Runtime) takeBack(j *job, cause error) error {
	name := j.def.Name
	_, leave, err := rt.changes.enter(context.Background(), "roll back", name)
	if err != nil {
		return err
	}
	defer leave()
	if rt.findJob(name) != j && !rt.restsOnTrial(j) {
		return nil // somebody has changed it meanwhile, or begun it again: then that attempt tells
	}
	t := j.trial.Load()
	if t == nil {
		return errSettled // by who came before, and did not change it
	}
	plan, err := rt.planOf(t.prev) // what can fail comes first
	if err != nil {
		return err
	}
	alone := rt.drainAlone(j)
	if err := rt.changes.ctx.Err(); err != nil { // the next process takes it back, and has time to send
		return err
	}
	rt.stopSenders(rt.changes.ctx, alone) // how far they have come stays so: what is said to be dropped was not sent
	var e *jobEntry
	var lsn wal.LSN
	dropped := map[string]int64{}
	n := j.again()
	n.def, n.plan, n.stores, n.lastErr = t.prev, plan, nil, nil
	err = rt.do(func(c *core) error {
		rt.committer.flushSent()
		r, err := rt.newRegistration(c)
		if err != nil {
			return err
		}
		have := c.ledger.Jobs[j.id]
		if have == nil || !have.onTrial(rt.now()) { // the state of a snapshot made since may lack what the old one had
			return errSettled
		}
		for _, o := range have.alone() {
			if unsent := unsentIn(c.bus, o); unsent > 0 {
				dropped[o.Name] += unsent
			}
		}
		phase, reason := have.Phase, have.Reason
		if phase == PhaseActive && phaseOfChanged(have.Prev.Phase, have.Prev.Reason) != have.Prev.Phase {
			phase, reason = have.Prev.Phase, have.Prev.Reason // the change began it; else somebody has resumed or stopped it since
		}
		r.rollBack(have, phase, reason)
		if lsn, err = r.write(); err != nil {
			return err
		}
		e = c.ledger.Jobs[j.id].clone()
		rt.putJob(n)
		return nil
	})
	if err != nil {
		rt.sendAgain(alone)
		return err
	}
	if err := rt.log.WaitDurable(rt.ctx, lsn); err != nil {
		return err
	}
	n.mu.Lock()
	n.took = &RolledBack{At: rt.now(), Error: errorText(cause)}
	n.mu.Unlock()
	n.trial.Store(nil)
	rt.sayDropped(map[string]map[string]int64{name: dropped})
	n.logger.Warn("the changed definition failed on probation; the one before is back", "err", cause)
	rt.tell(Event{Kind: EventRolledBack, Job: name, Text: errorText(cause)})
	rt.replaceSenders(n, e)
	rt.settleIn(n, e.Phase)
	return nil
}

// restsOnTrial reports whether the job that is there now is j made anew, without an attempt under way.
func (rt *Runtime) restsOnTrial(j *job) bool {
	n := rt.findJob(j.def.Name)
	t := j.trial.Load()
	return t != nil && n != nil && n.id == j.id && n.trial.Load() == t && n.over()
}

// drainAlone waits until what a definition gave out to outputs that it alone has is outside, since they go with it, and returns
// who sends it.
func (rt *Runtime) drainAlone(j *job) []*sender {
	e, err := rt.entry(j.def.Name)
	if err != nil || e.Prev == nil {
		return nil
	}
	alone := slices.DeleteFunc(rt.sendersFor(j.id), func(s *sender) bool {
		return !slices.ContainsFunc(e.alone(), func(o outputEntry) bool { return o.Sub == s.entry.Sub })
	})
	ctx, cancel := context.WithTimeout(rt.changes.ctx, rt.timeout(0))
	defer cancel()
	var unsent *UnsentError
	if err := rt.drain(ctx, e, alone); errors.As(err, &unsent) && rt.changes.ctx.Err() == nil {
		j.logger.Error("outputs that go with the changed definition could not be sent in time", "err", unsent)
	}
	return alone
}

// resumeTrial goes on with a probation that an earlier process began.
func (rt *Runtime) resumeTrial(j *job, e *jobEntry) {
	if e.Prev == nil {
		return
	}
	t := &trial{until: time.UnixMilli(e.Prev.Until)}
	_, _, t.noWayBack = lossOf(e.Prev.Steps, e.Steps)
	defer j.trial.Store(t)
	if rt.cfg.Load == nil {
		return
	}
	prev, err := rt.cfg.Load(e.Prev.Definition, e.Prev.Origin)
	if err != nil {
		rt.logger.Warn("the definition that a job had before cannot be loaded, and would not come back", "job", e.Name, "err", err)
		return
	}
	t.prev = prev
	for _, o := range e.Prev.Outputs { // what it gave up is sent on
		n := prev.Node("out-" + o.Name)
		if n != nil && n.Output.Sink != nil && e.gaveUp(o.Sub) && unsentIn(rt.bus, o) > 0 {
			s := rt.newSender(j, prev, o, n.Output.Sink)
			s.gaveUp.Store(e.gaveUpAt().UnixMilli())
			rt.startSender(s)
		}
	}
}

const trialLook = 100 * time.Millisecond

// endTrials settles the probations whose time is over.
func (rt *Runtime) endTrials() {
	tick := time.NewTicker(trialLook)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-rt.changes.ctx.Done():
			return
		}
		for _, j := range rt.jobList() {
			if t := j.trial.Load(); t != nil && !rt.now().Before(t.until) {
				rt.settleTrial(j.def.Name)
			}
		}
	}
}

// settleTrial ends the probation of a job whose time is over, once what it gave up is sent.
func (rt *Runtime) settleTrial(name string) {
	_, leave, err := rt.changes.enter(context.Background(), "settle", name)
	if err != nil {
		return
	}
	defer leave()
	j := rt.findJob(name)
	if j == nil || j.trial.Load() == nil || rt.now().Before(j.trial.Load().until) {
		return
	}
	var given []*sender
	err = rt.do(func(c *core) error {
		e := c.ledger.Jobs[j.id]
		for _, s := range rt.sendersFor(j.id) {
			if e.gaveUp(s.entry.Sub) {
				given = append(given, s)
			}
		}
		rt.committer.flushSent()
		return c.settle(e)
	})
	switch {
	case err == nil:
		rt.stopSenders(rt.ctx, given)
		rt.dropSenders(given)
		j.trial.Store(nil)
		rt.tell(Event{Kind: EventSettled, Job: name})
	case rt.log.Err() != nil:
	default:
		j.logger.Debug("the end of its probation waits", "err", err)
	}
}

// settle ends a job's probation.
func (c *core) settle(e *jobEntry) error {
	if e == nil || e.Prev == nil {
		return nil
	}
	if err := c.settled(e); err != nil {
		return err
	}
	_, err := c.change(&control{Jobs: []jobChange{{ID: e.ID, Settle: true}}}, nil)
	return err
}
