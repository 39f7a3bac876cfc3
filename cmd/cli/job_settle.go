package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sidestream-dev/sidestream/runtime"
	"github.com/sidestream-dev/sidestream/runtime/admin"
)

// onProbation says of jobs that were changed that it may yet be undone.
func (a *app) onProbation(ctx context.Context, client *admin.Client, jobs []runtime.Diff) {
	for _, d := range jobs {
		if d.Action == runtime.ActionUnchanged || d.Until.IsZero() {
			continue
		}
		if j, err := client.Job(ctx, d.Job); err == nil && resting(j.State) { // it does not begin by itself, and cannot fail
			a.say("job %s is %s, as it was: '%s job resume %s' begins its new definition; the definition before comes back only if that fails by %s", d.Job, j.State, a.name, d.Job,
				d.Until.Local().Format(time.TimeOnly))
		} else {
			a.say("job %s is on probation until %s: if it fails by then, the definition before comes back ('%s job list' says so, --wait waits for it)", d.Job,
				d.Until.Local().Format(time.TimeOnly), a.name)
		}
	}
}

// settleLeast is how long one runs that has committed nothing yet, before it is taken to be at work.
const settleLeast = time.Second

// settled waits until the jobs that were added or changed are at work, and their probation is over. Ctrl-C ends the waiting alone.
// Of a changed job that has read nothing since before, it says that nothing is known of its new definition. It returns those that
// are well.
func (a *app) settled(ctx context.Context, client *admin.Client, jobs []runtime.Diff, before []admin.Job) (well []runtime.Diff, err error) {
	var errs []error
	for _, d := range jobs {
		if d.Action == runtime.ActionUnchanged {
			if j, err := client.Job(ctx, d.Job); err == nil && resting(j.State) {
				a.say("job %s is %s: '%s job resume %s' lets it go on", d.Job, j.State, a.name, d.Job)
			}
			well = append(well, d)
			continue
		}
		j, err := a.settledOne(ctx, client, d.Job)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		well = append(well, d)
		if resting(j.State) {
			a.say("job %s is %s, as it was: '%s job resume %s' begins its new definition", d.Job, j.State, a.name, d.Job)
			continue
		}
		i := slices.IndexFunc(before, func(b admin.Job) bool { return b.Name == d.Job })
		if ctx.Err() == nil && !d.Until.IsZero() && i >= 0 && before[i].Status != nil && j.Status != nil && j.Status.Counters.In == before[i].Status.Counters.In {
			a.say("job %s: no record came in its probation, so that nothing is known yet of its new definition", d.Job)
		}
	}
	if ctx.Err() != nil {
		return nil, withCode(exitAgain, errors.New("no longer watched; what was changed stays so"))
	}
	if len(errs) > 0 {
		return well, withCode(exitFailed, errors.Join(errs...))
	}
	return well, nil
}

// resting reports whether a job was asked not to run.
func resting(s runtime.JobState) bool { return s == runtime.StatePaused || s == runtime.StateStopped }

func (a *app) settledOne(ctx context.Context, client *admin.Client, name string) (j admin.Job, err error) {
	began := time.Now()
	for said := false; ctx.Err() == nil; {
		if j, err = client.Job(ctx, name); client.Outwait(ctx, err, &said) {
			continue
		}
		if err != nil {
			break
		}
		st := j.Status
		switch {
		case st != nil && resting(j.State) && st.RolledBack == nil: // it does not begin by itself
			return j, nil
		case st == nil:
			return j, fmt.Errorf("job %s is %s: %s", name, j.State, j.Reason)
		case st.RolledBack != nil:
			return j, fmt.Errorf("job %s: the changed definition failed, and the one before is back: %s", name, ofJob(name, st.RolledBack.Error))
		case j.State == runtime.StateFailed:
			return j, fmt.Errorf("job %s has failed; apply a mended definition, or 'sidestream job remove %s': %s", name, name, ofJob(name, st.Error))
		case j.State == runtime.StateRestarting && st.Probation.IsZero():
			return j, fmt.Errorf("job %s is there, and fails again and again; apply a mended definition, or 'sidestream job remove %s': %s", name, name, ofJob(name, st.Error))
		case !st.Probation.IsZero() || j.State == runtime.StateStarting || j.State == runtime.StateRestarting: // not yet
		case j.State != runtime.StateRunning || !st.LastCommit.IsZero() || time.Since(began) > settleLeast:
			if len(st.Waiting) > 0 {
				a.say("job %s is there, and waits for %s", name, waitsFor(st.Waiting))
			}
			return j, nil
		}
		select {
		case <-ctx.Done():
		case <-time.After(waitLook):
		}
	}
	return j, err
}

// removes says what else it means that a job goes: that its file brings it back, and that who reads its topics ends.
func (a *app) removes(cmd *cobra.Command, name string) {
	client, err := a.client(cmd)
	if err != nil {
		return // the removal says so
	}
	j, err := client.Job(cmd.Context(), name)
	if err != nil {
		return
	}
	at, err := a.site(cmd)
	switch {
	case err != nil || j.Origin != runtime.OriginFile:
	case isOfDev(name) && ofDemo(at.DataDir) != "":
		a.say("job %s is one of the demo's: the next 'sidestream dev' on this directory begins it anew", name)
	default:
		a.say("job %s is defined by a file that the process was given: while it is there, the next run or reload begins the job anew", name)
	}
	st, err := client.Status(cmd.Context())
	if err != nil || j.Status == nil {
		return
	}
	for _, t := range st.Topics {
		if len(t.Producers) != 1 || uint32(t.Producers[0].Producer) != j.Status.ID {
			continue
		}
		for _, s := range t.Subscriptions {
			if reader, _, _ := strings.Cut(s.Name, "/"); reader != name && !t.Hidden {
				a.say("no other job writes topic %s: job %s, which reads it, ends when it has read all of it", t.Name, reader)
			}
		}
	}
}
