package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sidestream-dev/sidestream/bus"
	"github.com/sidestream-dev/sidestream/jobs/connector"
	"github.com/sidestream-dev/sidestream/jobs/spec"
	"github.com/sidestream-dev/sidestream/runtime"
	"github.com/sidestream-dev/sidestream/runtime/admin"
)

const places = "earliest, latest, offset:N, a time such as 2026-01-31T08:00:00Z or 2026-01-31 (of events, in UTC), -2h or -10d for so long ago, or newest-2h for two hours before the newest record"

// readerAndTopic wants a reader and a topic, and completes them.
func (a *app) readerAndTopic(c *cobra.Command) {
	c.Args = func(_ *cobra.Command, args []string) error {
		if len(args) == 2 && args[0] != "" && args[1] != "" {
			return nil
		}
		return errors.New("name a job, or one subscription of it (JOB/STEP), and a topic; 'sidestream bus list' names them")
	}
	c.ValidArgsFunction = func(cmd *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
		if len(args) == 0 {
			return a.completeWith(jobNames, 1)(cmd, args, begun)
		}
		return a.completeWith(topicNames, 2)(cmd, args, begun)
	}
	asks(c)
	prints(c)
}

func (a *app) busSeek() *cobra.Command {
	c := a.command(cobra.Command{
		Use:   "seek JOB|SUBSCRIPTION TOPIC --to PLACE",
		Short: "Set a job's place in a topic elsewhere",
		Long: `Seek lets a job read on in a topic from another place: further on, to skip what it need not read, or back. Its state stays, and so
does its watermark: windows that are over stay as they are, and records of theirs are late. 'replay --job' sets these back too.`,
		Example: `  sidestream bus seek counts ticks --to latest
  sidestream bus seek counts ticks --to -2h --dry-run`,
	}, func(cmd *cobra.Command, args []string) error {
		to := text(cmd, "to")
		if _, err := runtime.ParsePlace(to, time.Now(), false); err != nil {
			return withCode(exitUsage, fmt.Errorf("--to: %w", err))
		}
		return a.moves(cmd, func(ctx context.Context, c *admin.Client, dry bool) ([]runtime.Moved, error) {
			return c.Seek(ctx, args[1], admin.SeekRequest{Reader: args[0], To: to, DryRun: dry})
		})
	})
	c.Flags().String("to", "", places)
	must(c.MarkFlagRequired("to"))
	completes(c, "to", "earliest", "latest", "offset:", "-1h", "newest-1h")
	c.Flags().Bool("dry-run", false, "say what would be done, and do nothing")
	a.readerAndTopic(c)
	return c
}

func (a *app) busDetach() *cobra.Command {
	c := a.command(cobra.Command{
		Use:   "detach JOB|SUBSCRIPTION TOPIC",
		Short: "End a job's claim on a topic",
		Long: `Detach ends a job's subscription: nothing is kept for it any more, and it holds no writer back. The job is stopped, with its
state; when it is resumed, it begins in the topic anew, where its definition says.`,
		Example: `  sidestream bus detach gone ticks --dry-run
  sidestream bus detach gone ticks`,
	}, func(cmd *cobra.Command, args []string) error {
		return a.moves(cmd, func(ctx context.Context, c *admin.Client, dry bool) ([]runtime.Moved, error) {
			return c.Detach(ctx, args[1], admin.DetachRequest{Reader: args[0], DryRun: dry})
		})
	})
	c.Flags().Bool("dry-run", false, "say what would be done, and do nothing")
	a.readerAndTopic(c)
	return c
}

// moves does something to subscriptions and shows where they were and are.
func (a *app) moves(cmd *cobra.Command, do func(context.Context, *admin.Client, bool) ([]runtime.Moved, error)) error {
	client, err := a.client(cmd)
	if err != nil {
		return err
	}
	ctx, stop := untilInterrupt(cmd)
	defer stop()
	dry, _ := cmd.Flags().GetBool("dry-run")
	moved, err := do(ctx, client, dry)
	if err != nil {
		return a.asked(err)
	}
	if dry {
		a.say("nothing was done: this is a dry run")
	}
	for _, m := range moved {
		a.notes(m.Notes)
	}
	return show(a, cmd, view[runtime.Moved]{
		head: []string{"SUBSCRIPTION", "TOPIC", "WAS", "IS"},
		row: func(m runtime.Moved) []string {
			is := "gone"
			if m.To != nil {
				is = offsetsText(m.To)
			}
			return []string{m.Subscription, m.Topic, offsetsText(m.From), is}
		},
		name: func(m runtime.Moved) string { return m.Subscription },
	}, moved)
}

// asked gives an error of asking about a topic its exit code.
func (a *app) asked(err error) error {
	var p *admin.Problem
	if errors.As(err, &p) && p.Kind() == admin.KindBadRequest && p.Status == 422 {
		return withCode(exitUsage, err)
	}
	return reached(err)
}

func offsetsText(os []bus.Offset) string {
	var out []string
	for _, o := range os {
		out = append(out, o.String())
	}
	return strings.Join(out, ",")
}

func (a *app) busPurge() *cobra.Command {
	c := a.command(cobra.Command{
		Use:   "purge TOPIC --before PLACE",
		Short: "Let go of a topic's records before a place",
		Long: `Purge lets go of records at once, whatever the topic's retention says. What a subscription has yet to read stays, and is named:
seek or detach it first. What is gone is gone; --dry-run counts it first.`,
		Example: `  sidestream bus purge ticks --before -24h --dry-run
  sidestream bus purge ticks --before offset:1`,
		Args: one("a topic", "bus list"),
	}, func(cmd *cobra.Command, args []string) error {
		r := admin.PurgeRequest{Before: text(cmd, "before")}
		if _, err := runtime.ParsePlace(r.Before, time.Now(), false); err != nil {
			return withCode(exitUsage, fmt.Errorf("--before: %w", err))
		}
		r.DryRun, _ = cmd.Flags().GetBool("dry-run")
		client, err := a.client(cmd)
		if err != nil {
			return err
		}
		ctx, stop := untilInterrupt(cmd)
		defer stop()
		res, err := client.Purge(ctx, args[0], r)
		if err != nil {
			return a.asked(err)
		}
		if r.DryRun {
			a.say("nothing was done: this is a dry run")
		}
		return showOne(a, cmd, view[runtime.PurgeResult]{
			head: []string{"TOPIC", "RECORDS", "BEFORE"},
			row: func(r runtime.PurgeResult) []string {
				return []string{r.Topic, fmt.Sprint(r.Records), offsetsText(r.Before)}
			},
			name: func(r runtime.PurgeResult) string { return r.Topic },
		}, res)
	})
	c.ValidArgsFunction = a.completeWith(topicNames, 1)
	c.Flags().String("before", "", places)
	must(c.MarkFlagRequired("before"))
	completes(c, "before", "earliest", "latest", "offset:", "-24h")
	c.Flags().Bool("dry-run", false, "say what would be let go, and do nothing")
	asks(c)
	prints(c)
	return c
}

func (a *app) busRemove() *cobra.Command {
	c := a.command(cobra.Command{
		Use:   "remove TOPIC",
		Short: "Remove a topic with all its records",
		Long: `Remove takes a topic away that no job needs any more: a topic outlives those who write it until then. It is refused while the definition of
any job names the topic, also of one that is paused, stopped, failed or ended, and says of which. What is gone is gone; --dry-run counts it
first. A topic of that name that is made later is another, with offsets from 0: no savepoint of a job that read this one begins there.`,
		Example: `  sidestream bus remove old --dry-run
  sidestream bus remove old`,
		Args: one("a topic", "bus list"),
	}, func(cmd *cobra.Command, args []string) error {
		dry, _ := cmd.Flags().GetBool("dry-run")
		client, err := a.client(cmd)
		if err != nil {
			return err
		}
		res, err := client.RemoveTopic(cmd.Context(), args[0], dry)
		if err != nil {
			return a.asked(err)
		}
		if dry {
			a.say("nothing was done: this is a dry run")
		}
		return showOne(a, cmd, view[runtime.TopicRemoval]{
			head: []string{"TOPIC", "RECORDS", "BYTES"},
			row: func(r runtime.TopicRemoval) []string {
				return []string{r.Topic, fmt.Sprint(r.Records), fmt.Sprint(r.Bytes)}
			},
			name: func(r runtime.TopicRemoval) string { return r.Topic },
		}, res)
	})
	c.ValidArgsFunction = a.completeWith(topicNames, 1)
	c.Flags().Bool("dry-run", false, "say what would go, and do nothing")
	asks(c)
	prints(c)
	return c
}

func (a *app) busRetention() *cobra.Command {
	c := a.command(cobra.Command{
		Use:   "retention TOPIC [--max-bytes SIZE] [--max-age DURATION]",
		Short: "Say how long a topic keeps what every subscription has read",
		Long: `Retention shows what a topic keeps, or changes it. What is said replaces all that held before: a bound that is not named goes,
also the default of 1 GiB, and a note says so; WAS shows what held. Of two bounds the one that is reached first counts. From then on it
holds in place of what definitions say. 'default' is 1 GiB.`,
		Example: `  sidestream bus retention ticks
  sidestream bus retention ticks --max-bytes 2GiB --max-age 10d
  sidestream bus retention ticks --max-bytes default --dry-run`,
		Args: one("a topic", "bus list"),
	}, func(cmd *cobra.Command, args []string) error {
		r, err := retentionOf(cmd)
		if err != nil {
			return withCode(exitUsage, err)
		}
		client, err := a.client(cmd)
		if err != nil {
			return err
		}
		res, err := client.SetRetention(cmd.Context(), args[0], r)
		if err != nil {
			return a.asked(err)
		}
		if !cmd.Flags().Changed("max-bytes") && !cmd.Flags().Changed("max-age") {
			res.Keeps, res.DryRun = res.Was, false
		}
		if res.DryRun {
			a.say("nothing was done: this is a dry run")
		}
		a.boundsGone(res)
		return showOne(a, cmd, retentionView, res)
	})
	c.ValidArgsFunction = a.completeWith(topicNames, 1)
	c.Flags().String("max-bytes", "", "such as 2GiB; nothing keeps no record that every subscription has read, default is 1 GiB")
	c.Flags().String("max-age", "", "such as 72h or 10d, by when records were written; without --max-bytes it is the only bound")
	c.Flags().Bool("dry-run", false, "say what would be done, and do nothing")
	asks(c)
	prints(c)
	return c
}

// keepsByDefault is how many bytes a topic keeps where nothing is said.
const keepsByDefault = 1 << 30

// retentionOf reads the flags; none of them asks how it is.
func retentionOf(cmd *cobra.Command) (r admin.RetentionRequest, err error) {
	r.DryRun, _ = cmd.Flags().GetBool("dry-run")
	if !cmd.Flags().Changed("max-bytes") && !cmd.Flags().Changed("max-age") {
		r.DryRun = true
	}
	if cmd.Flags().Changed("max-age") {
		age, ok := spec.ParseDuration(text(cmd, "max-age"))
		if !ok || age == 0 {
			return r, fmt.Errorf("--max-age is %q; it is a duration such as 72h or 10d; left out, records are kept however old they are", text(cmd, "max-age"))
		}
		r.MaxAge = age.String()
	}
	switch s := text(cmd, "max-bytes"); s {
	case "":
	case "default":
		if r.MaxAge != "" { // beside an age, no bound is none
			r.MaxBytes = keepsByDefault
		}
	case "nothing":
		r.MaxBytes = bus.KeepNothing
	default:
		n, ok := connector.ParseBytes(s)
		if !ok || n == 0 {
			return r, fmt.Errorf("--max-bytes is %q; it is a size such as 2GiB, nothing, or default", s)
		}
		r.MaxBytes = n
	}
	return r, nil
}

var retentionView = view[admin.TopicRetention]{
	head: []string{"TOPIC", "MAX-BYTES", "MAX-AGE", "WAS"},
	row: func(t admin.TopicRetention) []string {
		size, age := retentionText(t.Keeps)
		was := "-"
		if t.Keeps != t.Was {
			size, age := retentionText(t.Was)
			was = "max-bytes " + size + ", max-age " + age
		}
		return []string{t.Topic, size, age, was}
	},
	name: func(t admin.TopicRetention) string { return t.Topic },
}

// noBound is what retentionText says where there is none.
const noBound = "-"

// retentionText is what bounds what a topic keeps.
func retentionText(k bus.Retention) (size, age string) {
	size, age = noBound, noBound
	switch {
	case k.MaxBytes == bus.KeepNothing:
		size = "nothing"
	case k.MaxBytes > 0:
		size = fmt.Sprint(k.MaxBytes)
	case k.MaxAge == 0:
		size = fmt.Sprint(keepsByDefault)
	}
	if k.MaxAge > 0 {
		age = k.MaxAge.String()
	}
	return size, age
}

// boundsGone says which bound a change of retention gave up, for it was not named: what is said replaces all that held.
func (a *app) boundsGone(t admin.TopicRetention) {
	if t.Was.MaxAge > 0 && t.Keeps.MaxAge == 0 {
		a.say("note: max-age %v, which held before, was not named and goes", t.Was.MaxAge)
	}
	was, _ := retentionText(t.Was)
	if is, _ := retentionText(t.Keeps); was != noBound && is == noBound {
		if t.Was.MaxBytes == 0 {
			was += ", the default"
		}
		a.say("note: max-bytes %s, which held before, was not named and goes: records are kept for max-age alone", was)
	}
}
