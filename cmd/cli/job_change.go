package cli

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sidestream-dev/sidestream/runtime"
	"github.com/sidestream-dev/sidestream/runtime/admin"
)

// moveCommand is a command that moves a job from one place in its life to another at once.
func (a *app) moveCommand(c cobra.Command, do func(*admin.Client, context.Context, string) (admin.Job, error)) *cobra.Command {
	cmd := a.command(c, func(cmd *cobra.Command, args []string) error {
		client, err := a.client(cmd)
		if err != nil {
			return err
		}
		ctx, stop := untilInterrupt(cmd)
		defer stop()
		j, err := do(client, ctx, args[0])
		if err != nil {
			return a.said(cmd, err)
		}
		return showOne(a, cmd, jobView, j)
	})
	a.namesJob(cmd)
	prints(cmd)
	return cmd
}

// takesTime gives a command that waits for last barriers or outputs a bound on it.
func takesTime(c *cobra.Command) {
	c.Flags().Duration("timeout", 0, "how long the last barrier, and what is to be sent, may take; 0 is the process's --drain-timeout")
}

func timeoutOf(cmd *cobra.Command) time.Duration {
	d, _ := cmd.Flags().GetDuration("timeout")
	return d
}

func (a *app) jobPause() *cobra.Command {
	return a.moveCommand(cobra.Command{
		Use:   "pause JOB",
		Short: "Keep a job from running until it is resumed",
		Long: `Pause sends the job a last barrier. It stays paused across restarts of the process, with its state; what is written for it
meanwhile is kept, and what it gave out before is still sent.`,
		Example: `  sidestream job pause more`,
	}, (*admin.Client).PauseJob)
}

func (a *app) jobResume() *cobra.Command {
	return a.moveCommand(cobra.Command{
		Use:     "resume JOB",
		Short:   "Let a job that is paused or stopped go on",
		Long:    "Resume lets a job go on where it stood: nothing is lost, nothing is repeated.",
		Example: `  sidestream job resume more`,
	}, (*admin.Client).ResumeJob)
}

func (a *app) jobRestart() *cobra.Command {
	return a.moveCommand(cobra.Command{
		Use:   "restart JOB",
		Short: "Begin a new attempt of a job, also of one that has failed",
		Long: `Restart begins a new attempt where the job stands, behind a last barrier if it runs. A job that has ended begins anew: its inputs
where its definition says, without state; what it gives out is added to its outputs.`,
		Example: `  sidestream job restart more`,
	}, (*admin.Client).RestartJob)
}

func (a *app) jobStop() *cobra.Command {
	c := a.command(cobra.Command{
		Use:   "stop JOB",
		Short: "Stop a job, until it is resumed or restarted",
		Long: `Stop sends the job a last barrier and keeps its state. Where the barrier does not get through in time, the job goes on, and the
exit code is 75; --force cuts it where it stands, and what is not committed is done again when it goes on. Ctrl-C calls it off.`,
		Example: `  sidestream job stop more
  sidestream job stop more --force`,
	}, func(cmd *cobra.Command, args []string) error {
		var o runtime.StopOptions
		o.Force, _ = cmd.Flags().GetBool("force")
		o.Timeout = timeoutOf(cmd)
		return a.operate(cmd, func(ctx context.Context, c *admin.Client) (admin.Operation, error) { return c.StopJob(ctx, args[0], o) })
	})
	c.Flags().Bool("force", false, "do not wait for the last barrier")
	takesTime(c)
	a.namesJob(c)
	prints(c)
	return c
}

func (a *app) jobRemove() *cobra.Command {
	c := a.command(cobra.Command{
		Use:   "remove JOB",
		Short: "Remove a job, with its state",
		Long: `Remove sends the job a last barrier, waits until the outside has what it gave out, and takes it away with its state and its
subscriptions; a job of the same name that comes later is another. Ctrl-C calls it off: the job goes on.`,
		Example: `  sidestream job remove gone
  sidestream job remove gone --keep-state    # leaves a savepoint, to begin another job with
  sidestream job remove gone --drop-unsent`,
	}, func(cmd *cobra.Command, args []string) error {
		var o runtime.RemoveOptions
		o.KeepState, _ = cmd.Flags().GetBool("keep-state")
		o.DropUnsent, _ = cmd.Flags().GetBool("drop-unsent")
		o.IfMatch = text(cmd, "if-match")
		if cmd.Flags().Changed("if-match") && strings.TrimSpace(o.IfMatch) == "" { // not the same as none: a script's variable may be unset
			return withCode(exitUsage, fmt.Errorf("--if-match is empty, and nothing was done: it takes the version that '%s job get %s -o json' gives, or * for any", a.name, args[0]))
		}
		a.removes(cmd, args[0])
		o.Timeout = timeoutOf(cmd)
		return a.operate(cmd, func(ctx context.Context, c *admin.Client) (admin.Operation, error) {
			return c.RemoveJob(ctx, args[0], o)
		})
	})
	c.Flags().String("if-match", "", "only where it is still at this version, as 'job get -o json' gives it, or * for any")
	c.Flags().Bool("keep-state", false, "leave its state as a savepoint")
	c.Flags().Bool("drop-unsent", false, "do not wait until the outside has its outputs; what is dropped is counted")
	takesTime(c)
	a.namesJob(c)
	prints(c)
	return c
}

func (a *app) jobSavepoint() *cobra.Command {
	c := a.command(cobra.Command{
		Use:   "savepoint JOB [NAME]",
		Short: "Keep a job's state and positions under a name",
		Long: `Savepoint keeps what the job has committed, while it runs. A savepoint outlives its job, and keeps no records from going:
'job apply --from NAME' begins a new job with it, as far as what it read is still there.`,
		Example: `  sidestream job savepoint more
  sidestream job savepoint more before-upgrade`,
	}, func(cmd *cobra.Command, args []string) error {
		name := ""
		if len(args) > 1 {
			name = args[1]
		}
		return a.operate(cmd, func(ctx context.Context, c *admin.Client) (admin.Operation, error) {
			return c.Savepoint(ctx, args[0], name)
		})
	})
	a.namesJob(c)
	c.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) == 2 {
			if args[1] == "" {
				return errors.New("the savepoint's name is empty; one is made where it is left out")
			}
			args = args[:1]
		}
		return one("a job", "job list")(cmd, args)
	}
	prints(c)
	return c
}

func (a *app) jobSavepoints() *cobra.Command {
	c := group("savepoints", "List and delete savepoints", "Savepoints are made by 'job savepoint' and 'job remove --keep-state', and by 'run --watch' of a job whose file is gone: of these the newest three of each job are kept.")
	list := a.command(cobra.Command{
		Use:     "list",
		Short:   "List the savepoints",
		Long:    "List shows every savepoint of the data directory, with its job and how large it is.",
		Example: `  sidestream job savepoints list`,
		Args:    noArgs,
	}, func(cmd *cobra.Command, _ []string) error {
		client, err := a.client(cmd)
		if err != nil {
			return err
		}
		sps, err := client.Savepoints(cmd.Context())
		if err != nil {
			return a.said(cmd, err)
		}
		return show(a, cmd, savepointView, sps)
	})
	asks(list)
	prints(list)
	del := a.command(cobra.Command{
		Use:     "delete NAME",
		Short:   "Delete a savepoint",
		Long:    "Delete removes a savepoint. Jobs that began with it have what they need of it.",
		Example: `  sidestream job savepoints delete before-upgrade`,
		Args:    one("a savepoint", "job savepoints list"),
	}, func(cmd *cobra.Command, args []string) error {
		client, err := a.client(cmd)
		if err != nil {
			return err
		}
		if err := client.DeleteSavepoint(cmd.Context(), args[0]); err != nil {
			return a.said(cmd, err)
		}
		return showOne(a, cmd, view[deleted]{head: []string{"DELETED"}, row: func(d deleted) []string { return []string{d.Savepoint} },
			name: func(d deleted) string { return d.Savepoint }}, deleted{args[0]})
	})
	asks(del)
	prints(del)
	del.ValidArgsFunction = a.completeWith(savepointNames, 1)
	c.AddCommand(list, del)
	return c
}

// deleted is what is gone.
type deleted struct {
	Savepoint string `json:"savepoint"`
}

// savepointNames are the savepoints of the process.
func savepointNames(ctx context.Context, a *app, cmd *cobra.Command) ([]string, error) {
	client, err := a.client(cmd)
	if err != nil {
		return nil, err
	}
	sps, err := client.Savepoints(ctx)
	var names []string
	for _, sp := range sps {
		names = append(names, sp.Name+"\t"+sp.Job)
	}
	return names, err
}

var savepointView = view[admin.Savepoint]{
	head: []string{"SAVEPOINT", "JOB", "TIME", "BYTES", "EPOCH"},
	row: func(s admin.Savepoint) []string {
		size := fmt.Sprint(s.Bytes)
		if s.Missing {
			size = "its file is gone"
		}
		return []string{s.Name, s.Job, s.Time.UTC().Format("2006-01-02T15:04:05Z"), size, fmt.Sprint(s.Epoch)}
	},
	name: func(s admin.Savepoint) string { return s.Name },
}

// operate begins an operation, waits for its end and shows what came of it. Ctrl-C cancels it.
func (a *app) operate(cmd *cobra.Command, begin func(context.Context, *admin.Client) (admin.Operation, error)) error {
	client, err := a.client(cmd)
	if err != nil {
		return err
	}
	ctx, stop := untilInterrupt(cmd)
	defer stop()
	op, err := begin(ctx, client)
	if err != nil {
		return a.said(cmd, err)
	}
	last := ""
	done, err := client.Await(ctx, op, func(o admin.Operation) {
		if o.Progress != "" && o.Progress != last {
			last = o.Progress
			a.say("%s", last)
		}
	})
	if ctx.Err() != nil {
		gone, cancel := context.WithTimeout(context.WithoutCancel(cmd.Context()), 5*time.Second)
		defer cancel()
		if err := client.CancelOperation(gone, op.ID); err != nil {
			return a.said(cmd, err)
		}
		return withCode(exitAgain, fmt.Errorf("called off; 'sidestream job get %s' says how it stands", op.Job))
	}
	if err != nil {
		return a.said(cmd, err)
	}
	return showOne(a, cmd, operationView, done)
}

var operationView = view[admin.Operation]{
	head: []string{"JOB", "OPERATION", "STATE", "DROPPED", "SAVEPOINT"},
	row: func(o admin.Operation) []string {
		dropped := ""
		for _, name := range slices.Sorted(maps.Keys(o.Dropped)) {
			dropped += fmt.Sprintf("%s: %d ", name, o.Dropped[name])
		}
		return []string{o.Job, o.Kind, string(o.State), strings.TrimSpace(dropped), o.Savepoint}
	},
	name: func(o admin.Operation) string { return o.Job },
}
