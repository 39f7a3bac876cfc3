package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sidestream-dev/sidestream/runtime"
	"github.com/sidestream-dev/sidestream/runtime/admin"
)

func (a *app) jobLogs() *cobra.Command {
	c := a.command(cobra.Command{
		Use:   "logs JOB",
		Short: "Show what the process has said of a job",
		Long:  `Logs shows the newest messages about a job, of level info and above; the process keeps a thousand of each.`,
		Example: `  sidestream job logs more
  sidestream job logs more --follow`,
	}, a.doJobLogs)
	c.Flags().IntP("last", "n", 100, "how many of the newest messages")
	c.Flags().BoolP("follow", "f", false, "go on with what is said from now on, until Ctrl-C")
	a.namesJob(c)
	prints(c, "table", "json", "yaml", "jsonl")
	return c
}

func (a *app) doJobLogs(cmd *cobra.Command, args []string) error {
	job := args[0]
	last, _ := cmd.Flags().GetInt("last")
	follow, _ := cmd.Flags().GetBool("follow")
	format := text(cmd, "output")
	switch {
	case last < 0:
		return withCode(exitUsage, fmt.Errorf("-n is %d; it is a number of messages", last))
	case follow && (format == "json" || format == "yaml"):
		return withCode(exitUsage, fmt.Errorf("--follow writes a line at a time: -o table or jsonl, not %s", format))
	}
	client, err := a.client(cmd)
	if err != nil {
		return err
	}
	ctx, stop := untilInterrupt(cmd)
	defer stop()
	out := newPrinter(a, cmd, view[runtime.LogLine]{name: func(l runtime.LogLine) string { return l.Message }})
	add := out.add
	if format == "table" { // as they come, without columns
		add = func(l runtime.LogLine) error {
			_, err := fmt.Fprintln(a.stdout, lineOf(l))
			return err
		}
	}
	if err = client.Logs(ctx, job, last, follow, add); format != "table" {
		err = errors.Join(err, out.end())
	}
	return a.said(cmd, err)
}

// lineOf is a message as people read it.
func lineOf(l runtime.LogLine) string {
	s := fmt.Sprintf("%s %-5v %s", l.Time.UTC().Format("2006-01-02T15:04:05.000Z"), l.Level, l.Message)
	for _, k := range slices.Sorted(maps.Keys(l.Attrs)) {
		v := fmt.Sprint(l.Attrs[k])
		if n, ok := l.Attrs[k].(float64); ok { // of JSON, where a count is one too
			v = strconv.FormatFloat(n, 'f', -1, 64)
		}
		s += fmt.Sprintf(" %s=%q", k, v)
	}
	return s
}

// waitStates is what wait waits for.
var waitStates = map[string]func(admin.Job) bool{
	"running": func(j admin.Job) bool { return j.State == runtime.StateRunning || j.State == runtime.StateWaiting },
	"paused":  func(j admin.Job) bool { return j.State == runtime.StatePaused },
	"stopped": func(j admin.Job) bool { return j.State == runtime.StateStopped },
	"failed":  func(j admin.Job) bool { return j.State == runtime.StateFailed },
	"ended":   func(j admin.Job) bool { return j.State == runtime.StateEnded },
	"removed": func(admin.Job) bool { return false },
	"caught-up": func(j admin.Job) bool {
		if j.Status == nil {
			return false
		}
		away := func(w runtime.Wait) bool { return w.For == runtime.WaitOutside } // what it reads there is unknown
		atWork := j.State == runtime.StateRunning || j.State == runtime.StateWaiting && !slices.ContainsFunc(j.Status.Waiting, away)
		return atWork && j.Status.Lag == 0 || j.State == runtime.StateEnded
	},
}

// waitLook is how often wait looks.
const waitLook = 50 * time.Millisecond

func (a *app) jobWait() *cobra.Command {
	states := slices.Sorted(maps.Keys(waitStates))
	c := a.command(cobra.Command{
		Use:   "wait JOB --for STATE",
		Short: "Wait until a job does what is asked",
		Long: `Wait ends with 0 when the job is in the state: ` + strings.Join(states, ", ") + `. Caught up is who runs and has read all there is
on the bus. It ends with 75 when --timeout is over or Ctrl-C ends it, and with 1 when the job cannot come there by itself: it is
gone, has failed or has ended.`,
		Example: `  sidestream job wait ticks --for running
  sidestream job wait counts --for caught-up --timeout 1m`,
	}, a.doJobWait)
	c.Flags().String("for", "running", strings.Join(states, ", "))
	c.Flags().Duration("timeout", 0, "how long to wait; 0 has no end")
	a.namesJob(c)
	completes(c, "for", states...)
	prints(c)
	return c
}

func (a *app) doJobWait(cmd *cobra.Command, args []string) error {
	want := text(cmd, "for")
	there, ok := waitStates[want]
	if !ok {
		return withCode(exitUsage, fmt.Errorf("--for is %q; it is one of %s", want, strings.Join(slices.Sorted(maps.Keys(waitStates)), ", ")))
	}
	client, err := a.client(cmd)
	if err != nil {
		return err
	}
	ctx, stop := untilInterrupt(cmd)
	defer stop()
	if timeout, _ := cmd.Flags().GetDuration("timeout"); timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	var last admin.Job
	for silent := false; ; {
		j, err := client.Job(ctx, args[0])
		if client.Outwait(ctx, err, &silent) {
			continue
		}
		var p *admin.Problem
		switch {
		case errors.Is(err, context.DeadlineExceeded):
			return withCode(exitAgain, fmt.Errorf("job %s is %s, not yet %s", args[0], cmp.Or(string(last.State), "not known yet"), want))
		case errors.Is(err, context.Canceled):
			return withCode(exitAgain, fmt.Errorf("no longer waited for: job %s is %s, not yet %s", args[0], cmp.Or(string(last.State), "not known yet"), want))
		case errors.As(err, &p) && p.Kind() == admin.KindNotFound && want == "removed":
			return nil
		case errors.As(err, &p) && (p.Kind() == admin.KindBusy || p.Kind() == admin.KindStarting): // it starts, or has much to do
		case err != nil:
			return a.said(cmd, err)
		case there(j):
			return showOne(a, cmd, jobView, j)
		case want != "removed" && (j.State == runtime.StateFailed || j.State == runtime.StateEnded):
			return withCode(exitFailed, fmt.Errorf("job %s is %s, and cannot be %s; 'sidestream job restart %s' tries it again", j.Name, j.State, want, j.Name))
		}
		if err == nil {
			last = j
		}
		select {
		case <-ctx.Done():
		case <-time.After(waitLook):
		}
	}
}
