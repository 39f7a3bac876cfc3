package runtime

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/wal"
)

// Apply adds jobs, all of them or none: it checks and builds them and asks their outsides first, then writes one frame, and
// returns when that is durable and the jobs have begun. The error of what is refused, or could not be done, is an
// *ApplyError, and then nothing has changed; any other is the log's.
func (rt *Runtime) Apply(ctx context.Context, defs []Definition, o ApplyOptions) (ApplyResult, error) {
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
	ctx, leave, err := rt.changes.enter(ctx, "apply", names...)
	if err != nil {
		return ApplyResult{}, refuse("", err)
	}
	defer leave()
	a := &application{rt: rt, options: o}
	if err := a.look(defs); err != nil || o.DryRun {
		return a.result, err
	}
	if err := a.connect(ctx); err != nil {
		return ApplyResult{}, err
	}
	if err := a.swap(); err != nil {
		return ApplyResult{}, err
	}
	return a.result, nil
}

// application is one Apply.
type application struct {
	rt      *Runtime
	options ApplyOptions
	result  ApplyResult
	changed []*definition // those of the definitions that change something
}

// look checks and builds everything, and says what is to be done.
func (a *application) look(defs []Definition) error {
	reasons := map[string]error{}
	for _, d := range defs {
		def, err := a.lookAt(d)
		if err != nil {
			reasons[d.Job.Name] = err
			continue
		}
		if def != nil {
			a.changed = append(a.changed, def)
		}
	}
	if len(reasons) == 0 {
		if err := a.rt.checkWith(a.changed, nil); err != nil {
			reasons[""] = err
		}
	}
	if len(reasons) > 0 {
		return &ApplyError{reasons}
	}
	return nil
}

// lookAt returns nil where a definition changes nothing.
func (a *application) lookAt(d Definition) (*definition, error) {
	have, err := a.rt.entry(d.Job.Name)
	if err != nil && !errors.Is(err, ErrNoJob) {
		return nil, err
	}
	def, err := a.rt.inspect(d.Job, d.Origin)
	if err != nil {
		return nil, err
	}
	diff := Diff{Job: d.Job.Name, Action: ActionAdd}
	if have != nil {
		if diff.Action = ActionUnchanged; !bytes.Equal(def.text, have.Definition) || def.origin != have.Origin {
			return nil, fmt.Errorf("job %s is there with another definition, and cannot be changed while the runtime runs", d.Job.Name)
		}
		def = nil
	}
	a.result.Jobs = append(a.result.Jobs, diff)
	return def, nil
}

// checkWith checks the jobs there are, less some, and with some that are added or take the place of others, as a set.
func (rt *Runtime) checkWith(defs []*definition, without []string) error {
	var all []*jobs.Job
	for _, d := range defs {
		all = append(all, d.Job)
		without = append(without, d.Name)
	}
	for _, j := range rt.jobList() {
		if !slices.Contains(without, j.def.Name) {
			all = append(all, j.def)
		}
	}
	return checkSet(all)
}

// connect asks the outsides of every job for an answer.
func (a *application) connect(ctx context.Context) error {
	reasons := map[string]error{}
	for _, d := range a.changed {
		if _, err := a.rt.connect(ctx, d.Job); err != nil {
			reasons[d.Name] = err
		}
	}
	if err := ctx.Err(); err != nil {
		reasons[""] = err
	}
	if len(reasons) > 0 {
		return &ApplyError{reasons}
	}
	return nil
}

// swap writes the frame and begins the jobs.
func (a *application) swap() error {
	if len(a.changed) == 0 {
		return nil
	}
	rt := a.rt
	var begun []*job
	var lsn wal.LSN
	err := rt.do(func(c *core) error {
		r, err := rt.newRegistration(c)
		if err != nil {
			return err
		}
		// Once more, now that nothing moves: others may have changed other jobs meanwhile.
		if err := rt.checkWith(a.changed, nil); err != nil {
			return err
		}
		if err := r.defineTopics(a.changed); err != nil {
			return err
		}
		for _, d := range a.changed {
			if err := r.job(d, c.ledger.job(d.Name), PhaseActive); err != nil {
				return err
			}
		}
		if lsn, err = r.write(); err != nil {
			return err
		}
		for _, d := range a.changed {
			j, err := rt.makeJob(d, c.ledger.job(d.Name).clone())
			if err != nil {
				return err
			}
			begun = append(begun, j)
			rt.putJob(j)
		}
		return nil
	})
	if err != nil {
		return refuse("", err)
	}
	if err := rt.log.WaitDurable(rt.ctx, lsn); err != nil {
		return err
	}
	for _, j := range begun {
		e, err := rt.entry(j.def.Name)
		if err != nil {
			return err
		}
		rt.startSenders(j, e)
		rt.launch(j)
	}
	return nil
}
