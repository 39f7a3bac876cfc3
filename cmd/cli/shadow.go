package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sidestream-dev/sidestream/runtime"
	"github.com/sidestream-dev/sidestream/runtime/admin"
)

// shadow runs a definition over what a job has read, and shows what is not as the job gave it.
func (a *app) shadow(cmd *cobra.Command, file string, r admin.ShadowRequest) error {
	if dry, _ := cmd.Flags().GetBool("dry-run"); dry {
		return withCode(exitUsage, errors.New("--shadow changes nothing anyway: leave out --dry-run"))
	}
	r.Show, _ = cmd.Flags().GetInt("show")
	if r.Show < 0 || r.Show > runtime.ShadowShowMax {
		return withCode(exitUsage, fmt.Errorf("--show is %d; it is 0 to %d", r.Show, runtime.ShadowShowMax))
	}
	if s := text(cmd, "warm-up"); s != "" {
		p, err := runtime.ParsePlace(s, time.Now(), false)
		if err != nil {
			return withCode(exitUsage, fmt.Errorf("--warm-up: %w", err))
		}
		r.WarmUp = p.String()
	}
	files, err := a.definitions([]string{file})
	if err != nil {
		return a.problems(cmd, withCode(exitData, err))
	}
	client, err := a.client(cmd)
	if err != nil {
		return err
	}
	ctx, stop := untilInterrupt(cmd)
	defer stop()
	op, err := client.Shadow(ctx, files, r)
	if err != nil {
		return notDiffers(a.said(cmd, err))
	}
	done, err := client.Await(ctx, op, a.underWay())
	switch {
	case ctx.Err() != nil:
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		if err := client.CancelOperation(last, op.ID); err != nil {
			return fmt.Errorf("no longer watched, and not cancelled: %w", a.said(cmd, err))
		}
		return withCode(exitAgain, errors.New("cancelled; nothing was changed"))
	case err != nil:
		return notDiffers(a.said(cmd, err))
	case done.Shadow == nil:
		return withCode(exitBug, errors.New("the process does not say what it found"))
	}
	if err := a.showShadow(cmd, *done.Shadow); err != nil || done.Shadow.Same {
		return err
	}
	return withCode(exitFailed, nil)
}

// notDiffers gives what kept a shadow run from comparing another exit code than a difference has: that of bad usage where something
// is not there, else that of bad data, for the definition does not fit or fails.
func notDiffers(err error) error {
	var p *admin.Problem
	switch {
	case exitCode(err) != exitFailed:
		return err
	case errors.As(err, &p) && p.Kind() == admin.KindNotFound:
		return withCode(exitUsage, err)
	}
	return withCode(exitData, err)
}

// showShadow shows what a shadow run found: as a table what is equal, then the differences.
func (a *app) showShadow(cmd *cobra.Command, res runtime.ShadowResult) error {
	if text(cmd, "output") != "table" {
		return showOne(a, cmd, shadowView, res)
	}
	in := res.Input
	a.say("compared %d records of %s, %s to %s; state: %s", res.Records, in.Topic, placeText(in.First, offsetsText(in.From)), placeText(in.Last, offsetsText(in.To)), res.State)
	a.notes(res.Notes)
	if err := show(a, cmd, shadowOutputs, res.Outputs); err != nil || len(res.Differences) == 0 {
		return err
	}
	return show(a, cmd, shadowDifferences, res.Differences)
}

var shadowView = view[runtime.ShadowResult]{
	head: []string{"JOB", "EQUAL", "MISSING", "EXTRA", "APART"},
	row: func(r runtime.ShadowResult) []string {
		return []string{r.Job, fmt.Sprint(r.Equal), fmt.Sprint(r.Missing), fmt.Sprint(r.Extra), fmt.Sprint(r.Apart)}
	},
	name: func(r runtime.ShadowResult) string { return r.Job },
}

var shadowOutputs = view[runtime.ShadowOutput]{
	head: []string{"OUTPUT", "RUNNING", "SHADOW", "EQUAL", "MISSING", "EXTRA", "APART", "NOTE"},
	row: func(o runtime.ShadowOutput) []string {
		if o.Not != "" {
			return []string{o.Output, "-", fmt.Sprint(o.Gave), "-", "-", "-", "-", "cannot be compared: " + o.Not}
		}
		return []string{o.Output, fmt.Sprint(o.Given), fmt.Sprint(o.Gave), fmt.Sprint(o.Equal), fmt.Sprint(o.Missing), fmt.Sprint(o.Extra), fmt.Sprint(o.Apart), ""}
	},
	name: func(o runtime.ShadowOutput) string { return o.Output },
}

var shadowDifferences = view[runtime.ShadowDifference]{
	head: []string{"DIFFERENCE", "OUTPUT", "KEY", "TIME", "RUNNING", "SHADOW"},
	row: func(d runtime.ShadowDifference) []string {
		kind := d.Kind
		if d.Apart {
			kind += ", apart"
		}
		or := func(b []byte) string { return shorten(string(b)) }
		return []string{kind, d.Output, or(d.Key), placeText(d.Time, "-"), or(d.Given), or(d.Gave)}
	},
	name: func(d runtime.ShadowDifference) string { return d.Output },
}

// shorten cuts a value for a table; - is none.
func shorten(s string) string {
	if s == "" {
		return "-"
	}
	if r := []rune(strings.ReplaceAll(s, "\n", " ")); len(r) > 120 {
		return string(r[:119]) + "…"
	}
	return s
}
