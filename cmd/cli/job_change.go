package cli

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/sidestream-dev/sidestream/runtime"
	"github.com/sidestream-dev/sidestream/runtime/admin"
)

func (a *app) jobRemove() *cobra.Command {
	c := a.command(cobra.Command{
		Use:   "remove JOB",
		Short: "Remove a job, with its state",
		Long: `Remove sends the job a last barrier, waits until the outside has what it gave out, and takes it away with its state and its
subscriptions; a job of the same name that comes later is another. Ctrl-C calls it off: the job goes on.`,
		Example: `  sidestream job remove gone
  sidestream job remove gone --drop-unsent`,
	}, func(cmd *cobra.Command, args []string) error {
		o := runtime.RemoveOptions{}
		o.DropUnsent, _ = cmd.Flags().GetBool("drop-unsent")
		o.Timeout, _ = cmd.Flags().GetDuration("timeout")
		return a.operate(cmd, func(ctx context.Context, c *admin.Client) (admin.Operation, error) {
			return c.RemoveJob(ctx, args[0], o)
		})
	})
	c.Flags().Bool("drop-unsent", false, "do not wait until the outside has its outputs; what is dropped is counted")
	c.Flags().Duration("timeout", 0, "how long it may take; 0 is the process's --drain-timeout")
	a.namesJob(c)
	prints(c)
	return c
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
		return withCode(exitFailed, fmt.Errorf("called off; 'sidestream job get %s' says how it stands", op.Job))
	}
	if err != nil {
		return a.said(cmd, err)
	}
	return showOne(a, cmd, operationView, done)
}

var operationView = view[admin.Operation]{
	head: []string{"JOB", "OPERATION", "STATE", "DROPPED"},
	row: func(o admin.Operation) []string {
		dropped := ""
		for _, name := range slices.Sorted(maps.Keys(o.Dropped)) {
			dropped += fmt.Sprintf("%s: %d ", name, o.Dropped[name])
		}
		return []string{o.Job, o.Kind, string(o.State), dropped}
	},
	name: func(o admin.Operation) string { return o.Job },
}
