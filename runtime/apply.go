package runtime

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/sidestream-dev/sidestream/checkpoint"
	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/wal"
)

// Apply adds jobs, or gives jobs that are there other definitions; all of them or none. First it checks and builds everything
// new and asks its outsides. Then the jobs to be changed get a last barrier, one frame says what there is from then on, and
// the new attempts begin, from where the old ones stopped. Apply returns when the frame is durable and they begin.
//
// An update keeps the state of steps whose ids, tables and key types still match; what else there is would be lost, and is
// refused unless AllowStateLoss. Where the first attempt of a new definition to fail does so within the probation, the old
// one comes back in its place (see probation.go).
//
// The error of what is refused, or could not be done, is an *ApplyError, and then nothing has changed: the old goes on. Any
// other is the log's.
func (rt *Runtime) Apply(ctx context.Context, defs []Definition, o ApplyOptions) (ApplyResult, error) {
	defs = slices.Clone(defs)
	var names []string
	for i, d := range defs {
		if d.Origin == "" {
			defs[i].Origin = OriginAPI
		}
		if slices.Contains(names, d.Job.Name) {
			return ApplyResult{}, refuse(d.Job.Name, fmt.Errorf("two jobs are called %q", d.Job.Name))
		}
		names = append(names, d.Job.Name)
	}
	return rt.apply(ctx, &application{rt: rt, options: o}, defs, names)
}

// apply does what a says.
func (rt *Runtime) apply(ctx context.Context, a *application, defs []Definition, names []string) (ApplyResult, error) {
	o := a.options
	ctx, leave, err := rt.changes.enter(ctx, "apply", append(savepointNamed(o.From), names...)...)
	if err != nil {
		return ApplyResult{}, refuse("", err)
	}
	if err := a.saved(defs); err != nil {
		leave()
		return ApplyResult{}, refuse("", err)
	}
	if err := a.look(defs); err != nil || o.DryRun && len(o.Leaving) == 0 {
		leave()
		return a.result, err
	}
	if err := a.connect(ctx); err != nil {
		leave()
		return ApplyResult{}, err
	}
	if o.DryRun {
		leave()
		return a.result, nil
	}
	if a.from != nil { // the committer must not wait for a copy
		if a.staged, err = rt.snapshots.stage(a.from.Name); err != nil {
			leave()
			return ApplyResult{}, refuse("", errors.Join(err, rt.snapshots.remove(a.staged)))
		}
		defer rt.snapshots.remove(a.staged) // what is left of it goes at the next start
	}
	halt, cancel := context.WithTimeout(ctx, rt.timeout(o.Timeout))
	defer cancel()
	if err := rt.halt(halt, a.running(), StateUpdating, leave); err != nil {
		return ApplyResult{}, refuse("", err) // leave is called once they have stopped, and go on
	}
	defer leave()
	a.sendBefore(ctx)
	if err := a.swap(); err != nil {
		rt.sendAgain(a.stopped)
		return ApplyResult{}, err
	}
	return a.result, nil
}

// whose names the job that an error is about, if it is about one.
func whose(err error) string {
	var unsent *UnsentError
	var match *MatchError
	switch {
	case errors.As(err, &unsent):
		return unsent.Job
	case errors.As(err, &match):
		return match.Job
	}
	return ""
}

// application is one Apply.
type application struct {
	rt      *Runtime
	options ApplyOptions
	result  ApplyResult
	looked  []*newDefinition // as result.Jobs
	changed []*newDefinition
	drops   []*newDefinition                      // that change nothing, but what the job gave up before is dropped
	settled map[uint32]bool                       // jobs whose probation the frame ends
	dropped map[string]map[string]int64           // records by job and output, that the frame drops
	stopped []*sender                             // of outputs whose records it drops
	begins  func(*registration, *jobChange) error // where a new job begins; nil: where its definition says

	from   *savepointEntry // nil: none
	header checkpoint.Header
	staged string // a copy of the savepoint for the job
	file   string // made of that, until the frame has it
}

// saved finds the savepoint that a job is to begin with.
func (a *application) saved(defs []Definition) (err error) {
	if a.options.From == "" {
		return nil
	}
	if len(defs) != 1 {
		return fmt.Errorf("%d jobs cannot begin with one savepoint", len(defs))
	}
	a.from, a.header, err = a.rt.savepoint(a.options.From)
	return err
}

// newDefinition is one that changes something.
type newDefinition struct {
	*definition
	diff Diff
	have *jobEntry // as it was looked at; nil where there is none
	old  *job      // nil where there is none, or nobody gave a definition of it
	lost []dropEntry
}

// look checks and builds everything, and says what is to be done.
func (a *application) look(defs []Definition) error {
	reasons := map[string]error{}
	for _, d := range defs {
		if err := a.lookAt(d); err != nil {
			reasons[d.Job.Name] = err
		}
	}
	if len(reasons) == 0 {
		err := a.rt.do(func(c *core) error {
			a.lookUnsent(c)
			return a.check(c)
		})
		if err != nil {
			reasons[whose(err)] = err
		}
	}
	if len(reasons) > 0 {
		return &ApplyError{Reasons: reasons}
	}
	return nil
}

func (a *application) lookAt(d Definition) error {
	have, err := a.rt.entry(d.Job.Name)
	if err != nil && !errors.Is(err, ErrNoJob) {
		return err
	}
	def, err := a.rt.inspect(d.Job, d.Origin)
	if err != nil {
		return err
	}
	n := &newDefinition{definition: def, have: have, old: a.rt.findJob(d.Job.Name)}
	var old *jobs.Job
	if n.old != nil {
		old = n.old.def
	}
	n.diff = diffOf(have, old, def)
	if a.from != nil && have == nil {
		n.diff.StateLoss, _, _ = lossOf(a.from.Steps, def.steps)
	}
	if have != nil && have.Origin != d.Origin && !a.options.Adopt {
		if !a.options.DryRun {
			return &OriginError{d.Job.Name, have.Origin}
		}
		n.diff.Needs = append(n.diff.Needs, "adopt")
	}
	if len(n.diff.StateLoss) > 0 && !a.options.AllowStateLoss {
		if !a.options.DryRun {
			return &StateLossError{d.Job.Name, n.diff.StateLoss}
		}
		n.diff.Needs = append(n.diff.Needs, "allow_state_loss")
	}
	if have != nil {
		_, n.lost, _ = lossOf(have.Steps, def.steps)
	}
	if a.from != nil && have != nil {
		return fmt.Errorf("job %s is there already, and goes on where it stands: remove it first, to begin with a savepoint", d.Job.Name)
	}
	a.result.Jobs, a.looked = append(a.result.Jobs, n.diff), append(a.looked, n)
	if n.diff.Action != ActionUnchanged {
		a.changed = append(a.changed, n)
	}
	return nil
}

// check checks the jobs there are, those that change as they will be, as a set. It runs on the committer's goroutine.
func (a *application) check(c *core) error {
	var all []*jobs.Job
	var names []string
	for _, d := range a.changed {
		all, names = append(all, d.Job), append(names, d.Name)
	}
	for _, j := range a.rt.jobList() {
		if !slices.Contains(names, j.def.Name) && !(a.options.DryRun && slices.Contains(a.options.Leaving, j.def.Name)) {
			all = append(all, j.def)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(a.options.IfMatch)) {
		if err := c.match(name, a.options.IfMatch[name]); err != nil {
			return err
		}
	}
	if err := checkSet(all); err != nil {
		return err
	}
	return c.ledger.checkPlaces(a.definitions(), a.probation(), nil)
}

func (a *application) definitions() (defs []*definition) {
	for _, d := range a.changed {
		defs = append(defs, d.definition)
	}
	return defs
}

// running returns the jobs whose attempts must be over before the swap.
func (a *application) running() (out []*job) {
	for _, d := range a.changed {
		if d.old != nil && d.diff.Action == ActionUpdate {
			out = append(out, d.old)
		}
	}
	return out
}

// swap writes the frame and begins the jobs; where it cannot be written the old ones go on.
func (a *application) swap() error {
	if len(a.changed) == 0 && len(a.drops) == 0 {
		return nil
	}
	var lsn wal.LSN
	entries := map[*newDefinition]*jobEntry{}
	err := a.rt.do(func(c *core) (err error) {
		a.rt.committer.flushSent()
		if lsn, err = a.write(c); err != nil {
			return err
		}
		for _, d := range a.changed {
			if d.diff.Action == ActionAdopt {
				continue // it runs on as it is
			}
			entries[d] = c.ledger.job(d.Name).clone()
			// At once, so that who checks a set of jobs next, on this goroutine, sees this one too.
			a.rt.putJob(a.rt.successor(d, entries[d]))
		}
		return nil
	})
	if err != nil {
		if a.file != "" {
			err = errors.Join(err, a.rt.snapshots.remove(a.file))
		}
		for _, j := range a.running() {
			a.rt.goOn(j)
		}
		return refuse(whose(err), err)
	}
	if err := a.rt.log.WaitDurable(a.rt.ctx, lsn); err != nil {
		return err
	}
	for i, d := range a.result.Jobs {
		a.result.Jobs[i].Dropped = a.dropped[d.Job]
		if d.Action != ActionUnchanged {
			a.result.Jobs[i].Unsent = nil
		}
		for n, e := range entries {
			if n.Name == d.Job && e.Prev != nil {
				a.result.Jobs[i].Until = time.UnixMilli(e.Prev.Until)
			}
		}
	}
	a.rt.sayDropped(a.dropped)
	a.rt.dropSenders(a.stopped)
	for _, d := range a.changed {
		a.rt.tell(Event{Kind: EventApplied, Job: d.Name, Text: string(d.diff.Action)})
		if entries[d] != nil {
			a.begin(d, entries[d])
		}
	}
	a.sayDropsSettled()
	return nil
}

// write writes the frame. It runs on the committer's goroutine.
func (a *application) write(c *core) (wal.LSN, error) {
	r, err := a.rt.newRegistration(c)
	if err != nil {
		return 0, err
	}
	r.dropUnsent = a.options.DropUnsent
	if err := a.check(c); err != nil { // others may have changed other jobs meanwhile
		return 0, err
	}
	if err := r.defineTopics(a.definitions()); err != nil {
		return 0, err
	}
	for _, d := range a.changed {
		have := c.ledger.job(d.Name)
		switch {
		case have == nil && a.from != nil:
			a.file, err = r.from(d.definition, a.from, a.header, a.staged, a.rt.snapshots)
		case have == nil:
			err = r.job(d.definition, nil, PhaseActive, 0)
			if err == nil && a.begins != nil {
				err = a.begins(r, &r.change.Jobs[len(r.change.Jobs)-1])
			}
		case d.diff.Action == ActionAdopt:
			r.name(d.definition, have)
		case have.Phase == PhaseEnded:
			err = r.nameEnded(d.definition, have)
		default:
			err = r.job(d.definition, have, phaseOfChanged(have.Phase, have.Reason), d.probation(have, a.probation()))
		}
		if err != nil {
			return 0, err
		}
	}
	r.dropEarlierOf(a.resting(c))
	a.dropped, a.settled = r.dropped, r.settled
	return r.write()
}

// probation is for how long what the job is now is kept, where asked is what was asked for.
func (d *definition) probation(have *jobEntry, asked time.Duration) time.Duration {
	if bytes.Equal(have.Definition, d.text) {
		return 0 // there is nothing to go back to
	}
	return asked
}

// phaseOfChanged is the phase of a job whose definition is changed: one that has failed, or had none, is tried again.
func phaseOfChanged(was JobPhase, reason string) JobPhase {
	if was == PhaseFailed || was == PhaseStopped && reason == missingReason {
		return PhaseActive
	}
	return was
}

func (a *application) probation() time.Duration {
	if a.options.Probation != 0 {
		return a.options.Probation
	}
	return a.rt.cfg.Probation
}

// successor makes the job that takes another's place, or is new. Its state is taken over when it begins.
func (rt *Runtime) successor(d *newDefinition, e *jobEntry) *job {
	plan, err := rt.planOf(d.Job)
	if err != nil {
		panic(err) // it was planned before, and the topics are there
	}
	if d.old == nil {
		return rt.makeJob(d.definition, e, plan)
	}
	n := d.old.again()
	n.def, n.plan, n.stores = d.Job, plan, nil
	n.lastErr, n.took = nil, nil // of another definition
	n.trial.Store(nil)
	return n
}

// begin takes over what the old job had and starts the new one.
func (a *application) begin(d *newDefinition, e *jobEntry) {
	rt := a.rt
	j := rt.findJob(d.Name)
	if d.old != nil && d.old.stores != nil && e.Phase != PhaseEnded {
		stores := newJobStores(j.plan, e.Epoch)
		if err := stores.takeOver(d.old.stores, e.Epoch, d.lost); err != nil {
			j.logger.Error("its state is read from the log, since it could not be taken over", "err", err)
		} else {
			j.stores = stores
		}
	}
	if e.Prev != nil {
		t := &trial{until: time.UnixMilli(e.Prev.Until), noWayBack: d.diff.NoWayBack}
		if d.old != nil {
			t.prev = d.old.def
		}
		j.trial.Store(t)
	}
	rt.replaceSenders(j, e)
	rt.settleIn(j, e.Phase)
}
