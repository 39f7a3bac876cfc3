package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/sidestream-dev/sidestream/bench"
)

// measurement is one of bench's, with the flags that make it smaller or larger.
type measurement struct {
	name  string
	short string
	// example is what follows the name in an example that is soon over.
	example string
	flags   func(c *cobra.Command)
	run     func(ctx context.Context, cmd *cobra.Command, dir string) (*bench.Report, error)
}

var measurements = []measurement{
	{
		name: "bus", short: "Five jobs to a sixth over the durable bus, against a plain append and fdatasync, and a channel",
		example: " --bytes 16000000",
		flags: func(c *cobra.Command) {
			c.Flags().Int64("bytes", 512<<20, "records handed over, for each size of record")
		},
		run: func(ctx context.Context, cmd *cobra.Command, dir string) (*bench.Report, error) {
			return bench.Bus(ctx, dir, number(cmd, "bytes"))
		},
	},
	{
		name: "latency", short: "From one job to another: sealed, and durable, at fixed rates",
		example: " --each 500ms",
		flags:   func(c *cobra.Command) { c.Flags().Duration("each", 5*time.Second, "how long each rate is kept up") },
		run: func(ctx context.Context, cmd *cobra.Command, dir string) (*bench.Report, error) {
			return bench.Latency(ctx, dir, span(cmd, "each"))
		},
	},
	{
		name: "five-plus-one", short: "Five jobs on five Kafka topics and a sixth, in Go and YAML, against a hand-written loop",
		example: " --records 20000",
		flags: func(c *cobra.Command) {
			c.Flags().Int64("records", 1_000_000, "in each of the five topics")
			c.Flags().StringSlice("brokers", nil, "that hold the topics in-temperature … already; none starts a broker and loads it")
		},
		run: func(ctx context.Context, cmd *cobra.Command, dir string) (*bench.Report, error) {
			var brokers []string
			if f := cmd.Flags().Lookup("brokers"); f != nil {
				brokers, _ = cmd.Flags().GetStringSlice("brokers")
			}
			return bench.FivePlusOne(ctx, bench.FivePlusOneConfig{Records: number(cmd, "records"), Brokers: brokers, Dir: dir})
		},
	},
	{
		name: "overhead", short: "Log bytes for each input event, beside bus records and outputs",
		example: " --for 200ms",
		flags:   func(c *cobra.Command) { c.Flags().Duration("for", 10*time.Second, "how long") },
		run: func(ctx context.Context, cmd *cobra.Command, dir string) (*bench.Report, error) {
			return bench.Overhead(ctx, dir, span(cmd, "for"))
		},
	},
	{
		name: "restart", short: "From the start of the process to processing, with a long log and much state",
		example: " --log-bytes 20000000 --keys 10000",
		flags: func(c *cobra.Command) {
			c.Flags().Int64("log-bytes", 1<<30, "length of the log")
			c.Flags().Int64("keys", 1_000_000, "keys with state")
		},
		run: func(ctx context.Context, cmd *cobra.Command, dir string) (*bench.Report, error) {
			return bench.Restart(ctx, dir, number(cmd, "log-bytes"), uint64(number(cmd, "keys")))
		},
	},
	{
		name: "isolation", short: "The rate of healthy jobs beside one that panics, is stuck, reads slowly, or has lost its broker",
		example: " --each 500ms",
		flags:   func(c *cobra.Command) { c.Flags().Duration("each", 5*time.Second, "how long each case runs") },
		run: func(ctx context.Context, cmd *cobra.Command, dir string) (*bench.Report, error) {
			return bench.Isolation(ctx, dir, span(cmd, "each"))
		},
	},
	{
		name: "hot-add", short: "The rate of jobs while others are added, updated and removed, against undisturbed stretches between",
		example: " --each 300ms",
		flags: func(c *cobra.Command) {
			c.Flags().Duration("each", time.Second, "how long a stretch is; there are five pairs, paced and not")
		},
		run: func(ctx context.Context, cmd *cobra.Command, dir string) (*bench.Report, error) {
			return bench.HotAdd(ctx, dir, span(cmd, "each"))
		},
	},
	{
		name: "catch-up", short: "A job that is added at the oldest of many retained records, and the live jobs' hand-off meanwhile",
		example: " --records 100000",
		flags: func(c *cobra.Command) {
			c.Flags().Int64("records", 2_000_000, "retained, 100 B each, most of them in the topic store; 10000000 takes half a minute")
		},
		run: func(ctx context.Context, cmd *cobra.Command, dir string) (*bench.Report, error) {
			return bench.CatchUp(ctx, dir, number(cmd, "records"))
		},
	},
}

// number and span read a flag; where all measurements run, none has its own flags and 0 leaves the default to be found.
func number(cmd *cobra.Command, name string) int64 {
	v, _ := strconv.ParseInt(text(cmd, name), 10, 64)
	return v
}

func span(cmd *cobra.Command, name string) time.Duration {
	d, _ := cmd.Flags().GetDuration(name)
	return d
}

func (a *app) bench(ms []measurement) *cobra.Command {
	c := group("bench", "Measure this machine: ratios against references of the same run",
		`Bench measures Sidestream beside the least that could do the same work, in the same run, because machines are noisy and
ratios are not. Run it on an idle machine, in a directory of the disk that is meant (--dir): fsync costs nothing on a RAM disk.`)
	for _, m := range ms {
		sub := a.command(cobra.Command{Use: m.name, Short: m.short, Long: m.short + ".\nWhat is wanted of each ratio, and whether it was reached, stands beside it.",
			Example: "  sidestream bench " + m.name + m.example, Args: noArgs}, func(cmd *cobra.Command, _ []string) error {
			reps, err := a.measure(cmd, []measurement{m})
			if err != nil {
				return err
			}
			if f := text(cmd, "output"); f == "json" || f == "yaml" {
				return showOne(a, cmd, view[*bench.Report]{}, reps[0])
			}
			return a.showReports(cmd, reps)
		})
		m.flags(sub)
		sub.Flags().String("dir", ".", "where to measure: a directory of the disk that is meant")
		prints(sub)
		c.AddCommand(sub)
	}
	every := a.command(cobra.Command{
		Use:     "all",
		Short:   "All of them, one behind the other",
		Long:    "All runs every measurement, each with its defaults, which takes some minutes.",
		Example: `  sidestream bench all --dir .`,
		Args:    noArgs,
	}, func(cmd *cobra.Command, _ []string) error {
		reps, err := a.measure(cmd, ms)
		return errors.Join(err, a.showReports(cmd, reps))
	})
	every.Flags().String("dir", ".", "where to measure: a directory of the disk that is meant")
	prints(every)
	c.AddCommand(every)
	return c
}

// measure runs measurements in a directory of its own below --dir, which goes.
func (a *app) measure(cmd *cobra.Command, ms []measurement) (reps []*bench.Report, err error) {
	ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	all := a.progress("measuring")
	defer all.end()
	for i, m := range ms {
		dir, err := os.MkdirTemp(text(cmd, "dir"), "sidestream-bench-")
		if err != nil {
			return reps, err
		}
		all.end()
		a.say("measuring %s", m.name)
		if len(ms) > 1 {
			all.at(int64(i), int64(len(ms)), m.name)
		}
		of := cmd
		if len(ms) > 1 { // each with its defaults
			of = &cobra.Command{}
			m.flags(of)
		}
		rep, err := m.run(ctx, of, dir)
		err = errors.Join(err, os.RemoveAll(dir))
		if ctx.Err() != nil {
			return reps, withCode(exitFailed, errors.New("stopped before it was done"))
		}
		if err != nil {
			return reps, fmt.Errorf("%s: %w", m.name, err)
		}
		reps = append(reps, rep)
	}
	return reps, nil
}

// showReports prints what was measured; as a table, a line for each figure.
func (a *app) showReports(cmd *cobra.Command, reps []*bench.Report) error {
	if text(cmd, "output") != "table" {
		return show(a, cmd, view[*bench.Report]{name: func(r *bench.Report) string { return r.Name }}, reps)
	}
	for _, r := range reps {
		fmt.Fprintf(a.stdout, "%s: %s\n%s, %s\n", r.Name, r.About, r.Machine, r.Disk)
		var lines [][]string
		for _, f := range r.Figures {
			lines = append(lines, []string{f.Name, figure(f.Value), f.Unit, ""})
		}
		for _, q := range r.Ratios {
			verdict := "missed"
			if q.OK {
				verdict = "reached"
			}
			lines = append(lines, []string{q.Name, figure(q.Value), "", q.Wanted + ": " + verdict})
		}
		columns, _ := sizeOf(a.stdout)
		if err := (gridded{columns, colored(cmd, a.stdout)}).write(a.stdout, []string{"WHAT", "VALUE", "UNIT", "WANTED"}, lines); err != nil {
			return err
		}
		fmt.Fprintln(a.stdout)
	}
	return nil
}

func figure(v float64) string {
	if v >= 1000 || v == float64(int64(v)) {
		return strconv.FormatFloat(v, 'f', 0, 64)
	}
	return strconv.FormatFloat(v, 'g', 4, 64)
}
