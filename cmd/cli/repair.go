package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sidestream-dev/sidestream/runtime"
	"github.com/sidestream-dev/sidestream/wal"
)

// repairResult is what wal repair says.
type repairResult struct {
	*runtime.RepairPlan
	Written  bool    `json:"written"`
	Folder   string  `json:"folder,omitempty"` // of what was cut off
	OldID    string  `json:"old_id,omitempty"`
	ID       string  `json:"id,omitempty"`
	FirstLSN wal.LSN `json:"first_lsn,omitempty"` // under the new id
}

func (a *app) walRepair() *cobra.Command {
	c := a.command(cobra.Command{
		Use:   "repair",
		Short: "Say what of a damaged log can be kept, and with --write go on from it",
		Long: `Repair takes the lock of the data directory, reads the whole log and says what is damaged, what can be kept, and what it costs: which jobs
go back to which epoch, which records go, what was sent outside already. Without --write nothing is changed.

With --write what is cut off is kept in a folder of its own within the log's, the log gets a new id, and every counter goes on
behind whatever may have been removed, so that no offset, epoch or position ever names two things. After a crash in the middle
'wal repair --write' finishes what was begun.

--new-id is for a copy of a data directory that was put back: what the lost original wrote since is not known to the copy.`,
		Example: `  sidestream wal repair
  sidestream wal repair --write
  sidestream wal repair --new-id --write`,
		Args: noArgs,
	}, a.repair)
	take(c, "data-dir")
	prints(c, "table", "json", "yaml")
	f := c.Flags()
	f.Bool("write", false, "do it; without it nothing is changed")
	f.Bool("new-id", false, "give a log that is whole a new id: this directory is a copy that was put back")
	f.Uint64("from", 0, "the first frame to keep, where there is a choice; 0 takes the best")
	f.Bool("allow-state-loss", false, "jobs whose state cannot be had any more begin anew")
	return c
}

func (a *app) repair(cmd *cobra.Command, _ []string) (err error) {
	write, _ := cmd.Flags().GetBool("write")
	from, _ := cmd.Flags().GetUint64("from")
	o := runtime.RepairOptions{From: wal.LSN(from)}
	o.NewID, _ = cmd.Flags().GetBool("new-id")
	o.AllowStateLoss, _ = cmd.Flags().GetBool("allow-state-loss")
	r, err := runtime.OpenRepair(text(cmd, "data-dir"))
	var locked *wal.LockedError
	switch {
	case errors.As(err, &locked):
		return inUse(locked, text(cmd, "data-dir"), "stop that process first")
	case errors.Is(err, fs.ErrNotExist):
		return a.ofLog(text(cmd, "data-dir"), err)
	case err != nil:
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	res := repairResult{RepairPlan: &runtime.RepairPlan{Damage: []string{}}}
	var done wal.Done
	if r.Begun() {
		if !write {
			return withCode(exitData, a.mend(wal.ErrUnfinishedRepair, text(cmd, "data-dir")))
		}
		a.say("a repair was begun and not finished; it is finished now")
		done, err = r.Finish()
	} else {
		if res.RepairPlan, err = r.Plan(o); err != nil {
			return withCode(exitData, err)
		}
		if write && !res.Nothing {
			done, err = r.Write(res.RepairPlan, time.Now())
			if errors.Is(err, runtime.ErrStateLoss) {
				err = withCode(exitData, err)
			}
		}
	}
	if err != nil {
		return err
	}
	if done.First > 0 {
		res.Written, res.Folder, res.OldID, res.ID, res.FirstLSN = true, done.Folder, done.Old.String(), done.New.String(), done.First
	}
	if text(cmd, "output") == "table" {
		_, err = fmt.Fprint(a.stdout, res.text())
		return err
	}
	return showOne(a, cmd, view[repairResult]{}, res)
}

// text is what people read.
func (r *repairResult) text() string {
	var b strings.Builder
	say := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	for _, d := range r.Damage {
		say("damaged  %s", strings.TrimPrefix(d, "wal: "))
	}
	if r.Keep != nil {
		r.explain(say)
	}
	switch {
	case r.Written:
		say("done     the log goes on under the id %s with frame %s; what was cut off is in %s", r.ID, r.FirstLSN, r.Folder)
	case r.Nothing:
		say("There is nothing to repair.")
	default:
		say("Nothing was changed; --write does it, and keeps what is cut off in a folder within the log's.")
	}
	return b.String()
}

func (r *repairResult) explain(say func(string, ...any)) {
	k := r.Keep
	if k.First == 0 {
		say("keep     nothing: no frame before the damage is left; the log begins anew")
	} else {
		say("keep     frames %s to %s", k.First, k.Last)
	}
	if len(k.Removed) == 0 {
		say("cut off  nothing")
	}
	for _, c := range k.Removed {
		say("cut off  frames %s to %s: %d whole, %d damaged or missing, %d bytes", c.First, c.Last, c.Frames, c.Lost, c.Bytes)
	}
	for _, j := range k.Jobs {
		switch {
		case j.Gone:
			say("job      %s is gone: it was added by what is cut off", j.Name)
		case j.StateLost:
			say("job      %s begins anew: its state cannot be had any more", j.Name)
		default:
			say("job      %s goes back from epoch %s to epoch %s, its positions and state with it", j.Name, j.Was, j.Epoch)
		}
	}
	for _, t := range k.Topics {
		if t.Gone {
			say("topic    %s is gone: it was made by what is cut off", t.Name)
			continue
		}
		say("topic    %s, partition %d: records %s up to %s are gone; what is read again is written again, with new offsets", t.Name, t.Partition, t.From, t.To-1)
	}
	for _, s := range k.Store {
		say("topic    %s, partition %d: records %s up to %s had moved out of the log, and are not to be found from it any more", s.Topic, s.Partition, s.From, s.To-1)
	}
	if n := len(k.Aside); n > 0 {
		say("aside    %d %s of topics and savepoints that the log does not know then, such as %s: kept in the data directory's cut-TIME", n, plural(n, "file", "files"), k.Aside[0])
	}
	for _, u := range k.Unread {
		say("lost     job %s had yet to read %d records of topic %s, partition %d", u.Job, u.Records, u.Topic, u.Partition)
	}
	for _, o := range k.Outputs {
		switch {
		case o.Unsent > 0:
			say("lost     output %s/%s had yet to send %d records", o.Job, o.Output, o.Unsent)
		case o.Sent > o.From:
			say("output   %s/%s: records %s up to %s are gone, of which those before %s were sent; what is computed again repeats them. With exactly_once it stops and shows the choice",
				o.Job, o.Output, o.From, o.To-1, o.Sent)
		default:
			say("output   %s/%s: records %s up to %s are gone; those that were sent may be repeated", o.Job, o.Output, o.From, o.To-1)
		}
	}
	if r.NewID {
		say("new id   every counter goes up by 2^44, past whatever the original may have written since this copy was made")
	}
	for _, o := range r.Others {
		say("choice   --from %s keeps frames %s to %s instead", o.First, o.First, o.Last)
	}
	if k.Refused != "" {
		say("refused  %s", k.Refused)
	}
}
