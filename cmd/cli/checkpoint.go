package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/sidestream-dev/sidestream/checkpoint"
	"github.com/sidestream-dev/sidestream/runtime"
	"github.com/sidestream-dev/sidestream/wal"
)

func (a *app) checkpointCommands() *cobra.Command {
	c := group("checkpoint", "Look into the snapshots of jobs, and take their state out",
		"A snapshot is a file with the whole state of a job at an epoch, and a savepoint is one with a name; the data directory is read, also while a process has it.")
	c.AddCommand(a.checkpointList(), a.checkpointInspect(), a.checkpointExport(), a.checkpointDelete())
	return c
}

func (a *app) checkpointList() *cobra.Command {
	c := a.command(cobra.Command{
		Use:     "list",
		Short:   "List the snapshots and savepoints of a data directory",
		Long:    "List names every snapshot there is, the newest of each job first, and then the savepoints. One that is not announced is of no use to recovery: the next run removes it.",
		Example: `  sidestream checkpoint list`,
		Args:    noArgs,
	}, func(cmd *cobra.Command, _ []string) error {
		list, broken, err := runtime.Checkpoints(text(cmd, "data-dir"))
		if err != nil {
			return err
		}
		if errors.Is(broken, fs.ErrNotExist) {
			return a.ofLog(text(cmd, "data-dir"), broken)
		}
		if broken != nil {
			a.say("the log cannot be read, so jobs have numbers for names: %v", a.mend(broken, text(cmd, "data-dir")))
		}
		return show(a, cmd, checkpointView, list)
	})
	take(c, "data-dir")
	prints(c)
	return c
}

var checkpointView = view[runtime.Checkpoint]{
	head: []string{"NAME", "KIND", "LSN", "BYTES", "AGE", "ANNOUNCED"},
	row: func(c runtime.Checkpoint) []string {
		return []string{c.Name, c.Kind, c.LSN.String(), fmt.Sprint(c.Bytes), time.Since(c.Written).Round(time.Second).String(), fmt.Sprint(c.Announced)}
	},
	name: func(c runtime.Checkpoint) string { return c.Name },
}

func (a *app) checkpointInspect() *cobra.Command {
	c := a.command(cobra.Command{
		Use:   "inspect JOB[/EPOCH]|SAVEPOINT|FILE",
		Short: "Say what a snapshot holds: positions, watermarks, entries and bytes of each step",
		Long: `Inspect reads and checks the whole of a snapshot, of a job its newest, and says how far the job's sources and subscriptions
were, its watermarks, and how many entries and bytes each table of each step has. Exit code 65 where the file is damaged.`,
		Example: `  sidestream checkpoint inspect all`,
		Args:    one("a job, JOB/EPOCH, a savepoint or a file", "checkpoint list"),
	}, func(cmd *cobra.Command, args []string) error {
		c, err := a.findCheckpoint(cmd, args[0])
		if err != nil {
			return err
		}
		d, err := runtime.Inspect(c)
		if err != nil {
			return ofSnapshot(err)
		}
		if text(cmd, "output") == "table" {
			return writeDetail(a.stdout, d)
		}
		return showOne(a, cmd, view[runtime.CheckpointDetail]{}, *d)
	})
	take(c, "data-dir")
	c.ValidArgsFunction = a.completeWith(checkpointNames, 1)
	prints(c, "table", "json", "yaml")
	return c
}

// writeDetail is what people read.
func writeDetail(to io.Writer, d *runtime.CheckpointDetail) error {
	w := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	at := func(t *time.Time) string {
		if t == nil {
			return "-"
		}
		return t.Format("2006-01-02T15:04:05.000Z")
	}
	fmt.Fprintf(w, "%s\tepoch %s, frame %s, %d bytes, log %s\n", d.Name, d.Epoch, d.LSN, d.Bytes, d.LogID)
	for _, s := range d.Splits {
		fmt.Fprintf(w, "split\t%s %s\twatermark %s\tposition %x\n", s.Step, s.Split, at(s.Watermark), s.Position)
	}
	for _, s := range d.Inputs {
		fmt.Fprintf(w, "subscription\t%d, partition %d\twatermark %s\tnext offset %s\n", s.Subscription, s.Partition, at(s.Watermark), s.Next)
	}
	for _, s := range d.Watermarks {
		fmt.Fprintf(w, "step\t%s\twatermark %s\n", s.Step, at(s.Watermark))
	}
	for _, t := range d.Tables {
		fmt.Fprintf(w, "state\t%s %s\t%d entries\t%d bytes\n", t.Step, t.Table, t.Entries, t.Bytes)
	}
	return w.Flush()
}

func (a *app) checkpointExport() *cobra.Command {
	c := a.command(cobra.Command{
		Use:   "export JOB[/EPOCH]|SAVEPOINT|FILE",
		Short: "Write the keyed state of a snapshot, an entry a line",
		Long: `Export reads and checks a snapshot and writes every entry of its state: step, table, key, value. Keys are what key_by gave. A value
that is no JSON is text in base64.`,
		Example: `  sidestream checkpoint export all
  sidestream checkpoint export all --step window-1 -n 5`,
		Args: one("a job, JOB/EPOCH, a savepoint or a file", "checkpoint list"),
	}, func(cmd *cobra.Command, args []string) (err error) {
		c, err := a.findCheckpoint(cmd, args[0])
		if err != nil {
			return err
		}
		step, _ := cmd.Flags().GetString("step")
		most, _ := cmd.Flags().GetInt("first")
		p := newPrinter(a, cmd, view[runtime.StateEntry]{
			head: []string{"STEP", "TABLE", "SPACE", "KEY", "SUB", "VALUE"},
			row: func(e runtime.StateEntry) []string {
				return []string{e.Step, e.Table, fmt.Sprint(e.Space), string(e.Key), string(e.Sub), string(e.Value)}
			},
			name: func(e runtime.StateEntry) string { return strings.TrimSpace(string(e.Key)) },
		})
		defer func() { err = errors.Join(err, p.end()) }()
		n := 0
		err = runtime.Export(c, step, func(e runtime.StateEntry) error {
			if n++; most > 0 && n > most {
				return errEnough
			}
			return p.add(e)
		})
		if errors.Is(err, errEnough) {
			return nil
		}
		return ofSnapshot(err)
	})
	c.Flags().String("step", "", "of this step only")
	c.Flags().IntP("first", "n", 0, "only the first so many entries; 0 is all")
	take(c, "data-dir")
	c.ValidArgsFunction = a.completeWith(checkpointNames, 1)
	prints(c, "jsonl", "json", "yaml", "table", "name")
	return c
}

var errEnough = errors.New("enough")

func (a *app) checkpointDelete() *cobra.Command {
	c := a.command(cobra.Command{
		Use:   "delete JOB/EPOCH",
		Short: "Remove a snapshot that recovery does not need",
		Long: `Delete removes a file that the log does not know. It refuses one that recovery may need: two of each job are kept, and older ones go by
themselves. It takes the lock of the data directory.`,
		Example: `  sidestream checkpoint delete all/300`,
		Args:    one("JOB/EPOCH", "checkpoint list"),
	}, func(cmd *cobra.Command, args []string) error {
		c, err := runtime.DeleteCheckpoint(text(cmd, "data-dir"), args[0])
		var locked *wal.LockedError
		switch {
		case errors.As(err, &locked):
			return inUse(locked, text(cmd, "data-dir"), "stop that process first")
		case errors.Is(err, fs.ErrNotExist):
			return a.ofLog(text(cmd, "data-dir"), err)
		case errors.Is(err, runtime.ErrNoCheckpoint), errors.Is(err, runtime.ErrNeeded):
			return withCode(exitFailed, err)
		case err != nil:
			return err
		}
		a.say("%s is removed (%d bytes)", c.Name, c.Bytes)
		return showOne(a, cmd, checkpointView, c)
	})
	take(c, "data-dir")
	prints(c)
	c.ValidArgsFunction = a.completeWith(checkpointNames, 1)
	return c
}

// checkpointNames are the snapshots and savepoints of the directory.
func checkpointNames(_ context.Context, _ *app, cmd *cobra.Command) ([]string, error) {
	list, _, err := runtime.Checkpoints(text(cmd, "data-dir"))
	var names []string
	for _, c := range list {
		names = append(names, c.Name+"\t"+c.Kind)
	}
	return names, err
}

func (a *app) findCheckpoint(cmd *cobra.Command, name string) (runtime.Checkpoint, error) {
	c, err := runtime.FindCheckpoint(text(cmd, "data-dir"), name)
	if errors.Is(err, runtime.ErrNoCheckpoint) {
		if errors.Is(err, fs.ErrNotExist) {
			return c, a.ofLog(text(cmd, "data-dir"), fs.ErrNotExist)
		}
		var names []string
		list, _, _ := runtime.Checkpoints(text(cmd, "data-dir")) // it was read a moment ago
		for _, c := range list {
			job, _, _ := strings.Cut(c.Name, "/")
			names = append(names, c.Name, job)
		}
		if err = meant(err, name, names); !errors.As(err, new(*nearError)) {
			err = fmt.Errorf("%w; 'sidestream checkpoint list' names those there are", err)
		}
		return c, withCode(exitFailed, err)
	}
	return c, err
}

// ofSnapshot gives a damaged file its exit code.
func ofSnapshot(err error) error {
	if errors.As(err, new(*checkpoint.SnapshotError)) || errors.As(err, new(*checkpoint.DecodeError)) {
		return withCode(exitData, err)
	}
	return err
}
