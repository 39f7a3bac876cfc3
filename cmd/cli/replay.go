package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/jobs/spec"
	"github.com/sidestream-dev/sidestream/runtime"
	"github.com/sidestream-dev/sidestream/runtime/admin"
)

func (a *app) replayCommand() *cobra.Command {
	c := a.command(cobra.Command{
		Use:   "replay TOPIC --from PLACE [--to PLACE] (--job JOB | --into TOPIC | --to-stdout | --shadow FILE [--job JOB])",
		Short: "Look back: read a topic again, into a job, another topic, out as JSON lines, or into a new definition to compare",
		Long: `Replay into a job sets its places in topics, its state and its watermarks back in one durable change: to what the job's newest
savepoint at or before --from holds, and there, or to the one that --from savepoint:NAME names; where there is none, or the job
keeps no state, or with --from-nothing, to nothing and to --from. It reads up to where it was, or to --to, and goes on from where it was. What it
gives out meanwhile are new records, beside those it gave before; the header sidestream-replay tells them by the replay's id.
A job that has failed or ended goes on. --dry-run says how much it is and which outputs repeat.

Replay --into copies records to another topic, which is made with the same partitions where there is none. A job of its own does
it, each record once over any crash, up to what is there now or --to, and is removed when it is done. The copies keep key, time
and headers, and have the header sidestream-replay with the job's name.

Replay --to-stdout writes records as a line of JSON each and claims nothing; where no process runs, the directory is read.

Replay --shadow runs a definition over what the job has read, with its outputs muted, and compares what it gives with what the
job gave of exactly these records, as far as that is in topics. Nothing is disturbed by it. It exits with 0 where both are the
same, with 1 where something is missing or extra, with 2 where the job, the topic or the place is not there, and with 65 where the
definition has mistakes, does not fit or fails.`,
		Example: `  sidestream replay ticks --from earliest --job counts --dry-run
  sidestream replay ticks --from -1h --job counts
  sidestream replay ticks --from newest-1h --into again --filter 'value.reading > 50'
  sidestream replay ticks --from earliest --shadow more.yaml
  sidestream replay ticks --from earliest --to offset:3 --to-stdout --filter 'value.reading >= 0'`,
		Args: one("a topic", "bus list"),
	}, a.doReplay)
	c.ValidArgsFunction = a.completeWith(topicNames, 1)
	c.Flags().String("from", "", places+"; into a job also savepoint:NAME")
	c.Flags().String("into", "", "another topic that the records are copied to")
	c.Flags().String("shadow", "", "a definition, of which the outputs are compared with those of the job of its name, or of --job")
	c.Flags().String("warm-up", "", "with --shadow: begin reading at this place, and comparing at --from")
	c.Flags().Int("show", 10, "with --shadow: so many differences, at most 1000")
	c.Flags().String("to", "", "stop before this place, told as --from is; to where it ends now if not given")
	c.Flags().String("job", "", "the job that reads it again")
	c.Flags().Bool("from-nothing", false, "with --job: begin with no state, also where there is a savepoint of the job at or before --from")
	c.Flags().Bool("to-stdout", false, "write the records to stdout")
	c.Flags().String("filter", "", "with --into and --to-stdout: only records of which this expression is true")
	c.Flags().String("rate", "", "with --into and --to-stdout: at most so many records a second, such as 100/s")
	c.Flags().Bool("dry-run", false, "say how much it is, and do nothing")
	must(c.MarkFlagRequired("from"))
	completes(c, "from", "earliest", "offset:", "-1h", "newest-1h", "savepoint:")
	completeFlag(c, "job", a, jobNames)
	completeFlag(c, "into", a, topicNames)
	asks(c)
	prints(c, "table", "json", "yaml", "jsonl", "name")
	return c
}

func (a *app) doReplay(cmd *cobra.Command, args []string) error {
	job, shadow := text(cmd, "job"), text(cmd, "shadow")
	out, _ := cmd.Flags().GetBool("to-stdout")
	into := text(cmd, "into")
	if n := count(out, shadow != "", into != ""); n > 1 || (n == 1) == (job != "") && shadow == "" {
		return withCode(exitUsage, errors.New("say where to: --job JOB, --into TOPIC, --to-stdout or --shadow FILE, one of them"))
	}
	for _, f := range []string{"warm-up", "show", "from-nothing"} {
		to, ok := "--shadow", shadow != ""
		if f == "from-nothing" {
			to, ok = "--job", job != "" && shadow == ""
		}
		if cmd.Flags().Changed(f) && !ok {
			return withCode(exitUsage, fmt.Errorf("--%s goes with %s", f, to))
		}
	}
	now := time.Now()
	from, err := runtime.ParsePlace(text(cmd, "from"), now, !out && into == "")
	if err != nil {
		return withCode(exitUsage, fmt.Errorf("--from: %w", err))
	}
	var to *runtime.Place
	if s := text(cmd, "to"); s != "" {
		p, err := runtime.ParsePlace(s, now, false)
		if err != nil {
			return withCode(exitUsage, fmt.Errorf("--to: %w", err))
		}
		to = &p
	}
	if out {
		return a.replayOut(cmd, runtime.Tail{Topic: args[0], Partition: -1, Begin: &from, End: to})
	}
	if into != "" {
		return a.replayTopic(cmd, args[0], admin.CopyRequest{Into: into, From: from.String(), To: placeString(to), Filter: text(cmd, "filter")})
	}
	for _, f := range []string{"filter", "rate"} {
		if text(cmd, f) != "" {
			return withCode(exitUsage, fmt.Errorf("--%s goes with --into and --to-stdout: a job reads all there is, as fast as it can", f))
		}
	}
	if shadow != "" {
		return a.shadow(cmd, shadow, admin.ShadowRequest{Topic: args[0], From: from.String(), To: placeString(to), Against: job})
	}
	r := admin.ReplayRequest{Topic: args[0], From: from.String(), To: placeString(to)}
	r.DryRun, _ = cmd.Flags().GetBool("dry-run")
	r.Nothing, _ = cmd.Flags().GetBool("from-nothing")
	return a.replayInto(cmd, job, r)
}

func placeString(p *runtime.Place) string {
	if p == nil {
		return ""
	}
	return p.String()
}

func count(all ...bool) (n int) {
	for _, b := range all {
		if b {
			n++
		}
	}
	return n
}

// replayTopic copies a range into another topic, and waits until that is done.
func (a *app) replayTopic(cmd *cobra.Command, topic string, r admin.CopyRequest) error {
	if r.Filter != "" {
		if _, err := filterOf(r.Filter); err != nil {
			return withCode(exitUsage, err)
		}
	}
	var err error
	if r.Rate, err = rateOf(text(cmd, "rate")); err != nil {
		return withCode(exitUsage, err)
	}
	r.DryRun, _ = cmd.Flags().GetBool("dry-run")
	client, err := a.client(cmd)
	if err != nil {
		return err
	}
	ctx, stop := untilInterrupt(cmd)
	defer stop()
	op, err := client.ReplayInto(ctx, topic, r)
	if err != nil {
		return a.said(cmd, err)
	}
	op, err = client.Await(ctx, op, a.underWay())
	switch {
	case ctx.Err() != nil:
		return withCode(exitAgain, errors.New("no longer watched; the replay goes on as a job: 'sidestream job list' shows it, 'sidestream job remove' ends it"))
	case err != nil:
		a.goesOn(err, r.DryRun, "sidestream job list")
		return a.said(cmd, err)
	case op.Replay == nil:
		return withCode(exitFailed, errors.New("the process does not say what it replayed"))
	}
	if r.DryRun {
		op.Replay.Job = "-"
		a.say("nothing was done: this is a dry run")
	}
	a.notes(op.Replay.Notes)
	return showOne(a, cmd, copyView(r.Into), *op.Replay)
}

// copyView shows a copy: it begins with no state, and repeats nothing.
func copyView(into string) view[runtime.ReplayResult] {
	return view[runtime.ReplayResult]{
		head: []string{"REPLAY", "RECORDS", "BYTES", "FROM", "TO", "INTO"},
		row: func(r runtime.ReplayResult) []string {
			from, to := rangeText(r)
			return []string{cmp.Or(r.ID, "-"), fmt.Sprint(r.Records), fmt.Sprint(r.Bytes), from, to, into}
		},
		name: func(r runtime.ReplayResult) string { return r.Job },
	}
}

// rangeText is where a replay begins and ends in its topics.
func rangeText(r runtime.ReplayResult) (string, string) {
	var from, to []string
	for _, s := range r.Inputs {
		from, to = append(from, placeText(s.First, offsetsText(s.From))), append(to, placeText(s.Last, offsetsText(s.To)))
	}
	return strings.Join(from, " "), strings.Join(to, " ")
}

// replayInto lets a job read a topic again, and shows what that is.
func (a *app) replayInto(cmd *cobra.Command, job string, r admin.ReplayRequest) error {
	client, err := a.client(cmd)
	if err != nil {
		return err
	}
	ctx, stop := untilInterrupt(cmd)
	defer stop()
	op, err := client.Replay(ctx, job, r)
	if err != nil {
		return a.said(cmd, err)
	}
	op, err = client.Await(ctx, op, a.underWay())
	switch {
	case ctx.Err() != nil:
		return withCode(exitAgain, fmt.Errorf("no longer watched; the replay goes on: 'sidestream job get %s' says how the job stands", job))
	case err != nil:
		a.goesOn(err, r.DryRun, "sidestream job get "+job)
		return a.said(cmd, err)
	case op.Replay == nil:
		return withCode(exitFailed, errors.New("the process does not say what it replayed"))
	}
	if r.DryRun {
		a.say("nothing was done: this is a dry run")
	}
	a.notes(op.Replay.Notes)
	return showOne(a, cmd, replayView, *op.Replay)
}

// goesOn says what becomes of a replay whose process is lost while one waits for its end.
func (a *app) goesOn(err error, dryRun bool, look string) {
	var p *admin.Problem
	if !dryRun && !errors.As(err, &p) {
		a.say("the replay, if it had begun, goes on when the process runs again: '%s' says how it stands", look)
	}
}

func (a *app) notes(notes []string) {
	for _, n := range notes {
		a.say("note: %s", n)
	}
}

// underWay returns what says how an operation gets on, to a terminal alone.
func (a *app) underWay() func(admin.Operation) {
	_, tty := sizeOf(a.stderr)
	last := ""
	return func(o admin.Operation) {
		if tty > 0 && o.Progress != "" && o.Progress != last {
			last = o.Progress
			a.say("%s", last)
		}
	}
}

var replayView = view[runtime.ReplayResult]{
	head: []string{"JOB", "REPLAY", "RECORDS", "BYTES", "FROM", "TO", "STATE", "REPEATS"},
	row: func(r runtime.ReplayResult) []string {
		from, to := rangeText(r)
		state := "from nothing"
		if r.Savepoint != "" {
			state = "of savepoint " + r.Savepoint
		}
		return []string{r.Job, r.ID, fmt.Sprint(r.Records), fmt.Sprint(r.Bytes), from, to, state, strings.Join(r.Outputs, ", ")}
	},
	name: func(r runtime.ReplayResult) string { return r.Job },
}

func placeText(at *time.Time, offsets string) string {
	if at == nil {
		return offsets
	}
	return at.UTC().Format("2006-01-02T15:04:05.000Z")
}

// ReplayCount is what a dry run of a replay to stdout counts.
type ReplayCount struct {
	Topic   string     `json:"topic"`
	Records int64      `json:"records"`
	Bytes   int64      `json:"bytes"` // of keys and values, as they would be written
	First   *time.Time `json:"first,omitempty"`
	Last    *time.Time `json:"last,omitempty"`
}

func (c *ReplayCount) add(r runtime.TopicRecord) error {
	c.Records++
	c.Bytes += int64(len(r.Key) + len(r.Value))
	if r.Time != nil && (c.First == nil || r.Time.Before(*c.First)) {
		c.First = r.Time
	}
	if r.Time != nil && (c.Last == nil || r.Time.After(*c.Last)) {
		c.Last = r.Time
	}
	return nil
}

// replayOut writes records of a topic, or counts them.
func (a *app) replayOut(cmd *cobra.Command, q runtime.Tail) error {
	keep, err := filterOf(text(cmd, "filter"))
	if err != nil {
		return withCode(exitUsage, err)
	}
	pace, err := paceOf(text(cmd, "rate"))
	if err != nil {
		return withCode(exitUsage, err)
	}
	ctx, stop := untilInterrupt(cmd)
	defer stop()
	src, err := a.topicsOf(ctx, cmd)
	if err != nil {
		return reached(err)
	}
	lines := json.NewEncoder(a.stdout)
	lines.SetEscapeHTML(false)
	count := ReplayCount{Topic: q.Topic}
	add := count.add
	dry, _ := cmd.Flags().GetBool("dry-run")
	if !dry {
		add = func(r runtime.TopicRecord) error { return lines.Encode(r) }
	}
	read := false
	err = src.Tail(ctx, q, func(r runtime.TopicRecord) error {
		read = true
		if ok, err := keep(r); err != nil || !ok {
			return err
		}
		if !dry {
			pace(ctx)
		}
		return add(r)
	})
	if err == nil && !read && ctx.Err() == nil { // and not a silence that looks like success
		return withCode(exitFailed, fmt.Errorf("topic %s has no record in that range%s", q.Topic, newestIn(ctx, src, q.Topic)))
	}
	if err != nil || !dry {
		return reached(err)
	}
	return showOne(a, cmd, view[ReplayCount]{
		head: []string{"TOPIC", "RECORDS", "BYTES", "FROM", "TO"},
		row: func(c ReplayCount) []string {
			return []string{c.Topic, fmt.Sprint(c.Records), fmt.Sprint(c.Bytes), placeText(c.First, "-"), placeText(c.Last, "-")}
		},
		name: func(c ReplayCount) string { return c.Topic },
	}, count)
}

// newestIn ends the error of an empty range with when the topic's newest record is of, by event time; "" where that is not known.
func newestIn(ctx context.Context, src topics, topic string) string {
	var newest *time.Time
	err := src.Tail(ctx, runtime.Tail{Topic: topic, Partition: -1, Last: 1}, func(r runtime.TopicRecord) error {
		if r.Time != nil && (newest == nil || r.Time.After(*newest)) {
			newest = r.Time
		}
		return nil
	})
	if err != nil || newest == nil {
		return ""
	}
	return "; its newest is of " + newest.UTC().Format(time.RFC3339) + ", by event time"
}

// filterOf makes a condition of an expression; "" keeps all.
func filterOf(src string) (func(runtime.TopicRecord) (bool, error), error) {
	if src == "" {
		return func(runtime.TopicRecord) (bool, error) { return true, nil }, nil
	}
	f, err := spec.NewFilter(src)
	if err != nil {
		return nil, fmt.Errorf("--filter: %w", err)
	}
	return func(r runtime.TopicRecord) (bool, error) {
		m := jobs.Message{Key: r.Key, Value: r.Value, Time: jobs.NoTime}
		if r.Time != nil {
			m.Time = jobs.TimeOf(*r.Time)
		}
		for name, v := range r.Headers {
			m.Headers = append(m.Headers, jobs.Header{Name: name, Value: []byte(v)})
		}
		ok, err := f(&m)
		if err != nil {
			return false, withCode(exitData, fmt.Errorf("--filter: record %s: %w", where(r), err))
		}
		return ok, nil
	}, nil
}

// paceOf makes what waits so that no more records come than so many a second; "" waits for nothing.
func paceOf(s string) (func(context.Context), error) {
	n, err := rateOf(s)
	if err != nil {
		return nil, err
	}
	if n == 0 {
		return func(context.Context) {}, nil
	}
	next := time.Now()
	return func(ctx context.Context) {
		if d := time.Until(next); d > 0 {
			select {
			case <-time.After(d):
			case <-ctx.Done():
			}
		}
		next = next.Add(time.Duration(float64(time.Second) / n))
	}, nil
}

// rateOf reads a number of records a second; "" is 0, which is any.
func rateOf(s string) (float64, error) {
	if s == "" {
		return 0, nil
	}
	n, err := strconv.ParseFloat(strings.TrimSuffix(s, "/s"), 64)
	if err != nil || !(n > 0 && n <= 1e9) {
		return 0, fmt.Errorf("--rate is %q; it is a number of records a second, such as 100/s", s)
	}
	return n, nil
}
