package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/sidestream-dev/sidestream/bus"
	"github.com/sidestream-dev/sidestream/jobs/spec"
	"github.com/sidestream-dev/sidestream/runtime"
	"github.com/sidestream-dev/sidestream/runtime/admin"
	"github.com/sidestream-dev/sidestream/wal"
)

// socketIn is where a data directory's process listens if it is told nothing else.
func socketIn(dataDir string) string { return filepath.Join(dataDir, "run", "admin.sock") }

func (a *app) busCommands() *cobra.Command {
	c := group("bus", "Look into the topics on the bus, and set their readers elsewhere", "Topics are asked of the process; where none runs on the data directory, the directory is read.")
	c.AddCommand(a.busList(), a.busGet(), a.busTail(), a.busSeek(), a.busDetach(), a.busPurge(), a.busRetention(), a.busRemove())
	return c
}

// topics is where topics are looked up: a process, or a directory.
type topics interface {
	Topics(ctx context.Context) ([]bus.TopicStat, error)
	Tail(ctx context.Context, q runtime.Tail, f func(runtime.TopicRecord) error) error
}

// offline is a directory's topics.
type offline struct{ *runtime.Offline }

func (o offline) Topics(context.Context) ([]bus.TopicStat, error) { return o.Offline.Topics(), nil }

// Tail says of a topic that is not there which is called nearly so, as a process does.
func (o offline) Tail(ctx context.Context, q runtime.Tail, f func(runtime.TopicRecord) error) error {
	err := o.Offline.Tail(ctx, q, f)
	var gone *runtime.MissingError
	if !errors.As(err, &gone) {
		return err
	}
	var names []string
	for _, t := range o.Offline.Topics() {
		if !t.Hidden {
			names = append(names, t.Name)
		}
	}
	return meant(err, gone.Name, names)
}

// meant adds to an error of a name that is not there the one that is called nearly so.
func meant(err error, name string, names []string) error {
	near := spec.Nearest(name, names)
	if near == "" {
		return err
	}
	return &nearError{fmt.Errorf("%w; did you mean %s?", err, near), near}
}

// nearError is one that says what was meant.
type nearError struct {
	error
	near string
}

func (e *nearError) Unwrap() error { return e.error }

// topicsOf asks the process at the site the command is told of; where that is a data directory and no process answers, it
// reads the directory.
func (a *app) topicsOf(ctx context.Context, cmd *cobra.Command) (topics, error) {
	at, err := a.site(cmd)
	if err != nil {
		return nil, err
	}
	client, err := at.client()
	if err == nil {
		client.StartWait = starting(cmd)
	}
	if err != nil || at.DataDir == "" || at.Socket != "" {
		return client, err
	}
	_, err = client.Topics(ctx)
	var away *admin.UnreachableError
	if !errors.As(err, &away) {
		return client, err
	}
	o, err := runtime.OpenOffline(at.DataDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, withCode(exitUnreachable, fmt.Errorf("there is no data directory at %s, and no process on its socket; name one with --data-dir, --socket or --context", at.DataDir))
	}
	if err != nil {
		return nil, a.ofLog(at.DataDir, err)
	}
	return offline{o}, nil
}

// reached gives an error of asking a process its exit code.
func reached(err error) error {
	var away *admin.UnreachableError
	var said *admin.Problem
	var silent *admin.SilentError
	switch {
	case errors.As(err, &silent):
		return withCode(exitAgain, fmt.Errorf("%w; try again, or look at what it does: 'kill -QUIT PID' prints that, and ends it", err))
	case errors.Is(err, context.DeadlineExceeded): // that top and a command that is called off have
		return withCode(exitAgain, errors.New("the process has not answered in time; try again"))
	case errors.Is(err, context.Canceled): // Ctrl-C, before there was an answer
		return withCode(exitAgain, errors.New("interrupted; what was asked for may be done all the same"))
	case errors.As(err, &away):
		if dir, pid := holderBy(away.Where); pid > 0 {
			return withCode(exitUnreachable, fmt.Errorf("%w; process %d has the data directory %s: it may be starting, or listen at another place (--socket); a socket whose file was removed it makes again within seconds", err, pid, dir))
		}
		return withCode(exitUnreachable, fmt.Errorf("%w; start one with 'sidestream run'%s, or name another with --socket, --data-dir or --context", err, ofDemo(filepath.Dir(filepath.Dir(away.Where)))))
	case errors.As(err, &said) && (said.Kind() == admin.KindUnauthorized || said.Kind() == admin.KindForbidden):
		return withCode(exitConfig, fmt.Errorf("%w; the context's token_file (or cert_file) must be what the process was started with: 'sidestream context show' says which is asked", err))
	case errors.As(err, &said) && said.Kind() == admin.KindNotFound:
		return notThere(err, said.Missing, said.Near)
	case errors.Is(err, runtime.ErrNoTopic):
		var near *nearError
		if errors.As(err, &near) {
			return notThere(err, "topic", near.near)
		}
		return notThere(err, "topic", "")
	}
	return err
}

// holderBy returns the data directory whose default place a socket is at, and the process that has it; 0 where none has.
func holderBy(socket string) (dir string, pid int) {
	dir = filepath.Dir(filepath.Dir(socket))
	if socket != socketIn(dir) {
		return dir, 0
	}
	return dir, wal.Holder(filepath.Join(dir, "wal"))
}

// listers are the commands that name what there is.
var listers = map[string]string{"job": "job list", "topic": "bus list", "savepoint": "job savepoints list", "subscription": "bus list"}

// notThere says of what is not there which command names what is, unless the error says what was meant.
func notThere(err error, what, near string) error {
	if lister := listers[what]; lister != "" && near == "" {
		err = fmt.Errorf("%w; 'sidestream %s' names those there are", err, lister)
	}
	return withCode(exitFailed, err)
}

// topics asks for all topics, of the process or of the files.
func (a *app) topics(cmd *cobra.Command) ([]bus.TopicStat, error) {
	src, err := a.topicsOf(cmd.Context(), cmd)
	if err != nil {
		return nil, reached(err)
	}
	ts, err := src.Topics(cmd.Context())
	if err != nil {
		return nil, reached(err)
	}
	return ts, nil
}

func (a *app) busList() *cobra.Command {
	c := a.command(cobra.Command{
		Use:   "list",
		Short: "List the topics with what is in them and who reads them",
		Long: `List asks the process that runs on the data directory, or on --socket; where none does, it reads the directory.

DROPPED are the records that readers lost over their whole life, since the topic drops the oldest: each counted once, when an epoch that is
durable has gone over it. DROPPING were let go for a reader that has yet to come to them; some it may have read already. -o json has both
by reader, and names the newest ranges that were lost.`,
		Example: `  sidestream bus list
  sidestream bus list --all -o name   # outputs on their way outside too`,
		Args: noArgs,
	}, func(cmd *cobra.Command, _ []string) error {
		ts, err := a.topics(cmd)
		if err != nil {
			return err
		}
		everything, _ := cmd.Flags().GetBool("all")
		var list []bus.TopicStat
		for _, t := range ts {
			if everything || !t.Hidden {
				list = append(list, t)
			}
		}
		return show(a, cmd, view[bus.TopicStat]{
			head: []string{"TOPIC", "PARTITIONS", "RECORDS", "OLDEST", "BYTES", "READERS", "LAG", "DROPPED", "DROPPING"},
			row:  topicRow,
			name: func(t bus.TopicStat) string { return t.Name },
		}, list)
	})
	c.Flags().BoolP("all", "a", false, "outputs on their way outside too: JOB/OUTPUT")
	take(c, "data-dir", "socket", "context")
	prints(c)
	return c
}

// topicRow says how a topic stands; the offsets are each partition's, LAG is the slowest reader's, DROPPED what all of its
// readers lost, and DROPPING what was let go for them and they are yet to go over.
func topicRow(t bus.TopicStat) []string {
	records, size, lag, dropped, dropping := int64(0), int64(0), int64(0), uint64(0), int64(0)
	var oldest, readers []string
	for _, p := range t.Partitions {
		records += p.Records
		size += p.KeptBytes
		oldest = append(oldest, p.First.String())
	}
	for _, s := range t.Subscriptions {
		lag = max(lag, s.Lag)
		dropped += s.Dropped
		dropping += s.Dropping
		readers = append(readers, s.Name)
	}
	return []string{t.Name, fmt.Sprint(len(t.Partitions)), fmt.Sprint(records), strings.Join(oldest, ","), fmt.Sprint(size), strings.Join(readers, ","), fmt.Sprint(lag), fmt.Sprint(dropped), fmt.Sprint(dropping)}
}

func (a *app) busTail() *cobra.Command {
	c := a.command(cobra.Command{
		Use:   "tail TOPIC",
		Short: "Show the newest records of a topic",
		Long: `Tail shows the last records of each partition, as a line of JSON each: key, value, event time, headers, and where they stand.
It claims nothing: no subscription is made, and nothing is kept for it.`,
		Example: `  sidestream bus tail ticks -n 3
  sidestream bus tail ticks --from 1 -n 2 -o table
  sidestream bus tail ticks --follow -o value`,
		Args: one("a topic", "bus list"),
	}, a.doBusTail)
	c.ValidArgsFunction = a.completeWith(topicNames, 1)
	c.Flags().IntP("last", "n", 10, "how many records of each partition")
	c.Flags().Int("partition", -1, "only this one")
	c.Flags().String("from", "", "begin here instead of near the end, and show all from there on, or -n: an offset, earliest, latest, an event `time`, -2h, or newest-2h")
	c.Flags().BoolP("follow", "f", false, "go on with what is written from now on, until Ctrl-C; a process must run")
	take(c, "data-dir", "socket", "context")
	prints(c, "jsonl", "json", "yaml", "table", "name", "value")
	completes(c, "from", "earliest", "-1h")
	return c
}

func (a *app) doBusTail(cmd *cobra.Command, args []string) error {
	q := runtime.Tail{Topic: args[0]}
	q.Last, _ = cmd.Flags().GetInt("last")
	q.Partition, _ = cmd.Flags().GetInt("partition")
	q.Follow, _ = cmd.Flags().GetBool("follow")
	if from := text(cmd, "from"); from != "" {
		if err := beginAt(&q, from); err != nil {
			return withCode(exitUsage, fmt.Errorf("--from: %w", err))
		}
	}
	placed := q.From != nil || q.Begin != nil
	switch last := cmd.Flags().Changed("last"); {
	case q.Last < 0 || placed && last && q.Last == 0:
		return withCode(exitUsage, fmt.Errorf("-n is %d; it is a number of records", q.Last))
	case placed && last && q.Follow:
		return withCode(exitUsage, errors.New("--from with --follow shows all there is from there on; leave -n out"))
	case placed && !last:
		q.Last = 0 // all
	}
	format := text(cmd, "output")
	if q.Follow && (format == "json" || format == "yaml" || format == "table") {
		return withCode(exitUsage, fmt.Errorf("--follow writes a line at a time: -o jsonl, name or value, not %s", format))
	}
	ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	src, err := a.topicsOf(ctx, cmd)
	if err != nil {
		return reached(err)
	}
	if _, dead := src.(offline); dead && q.Follow {
		return withCode(exitUnreachable, errors.New("--follow: no process runs on this data directory"))
	}
	each := view[runtime.TopicRecord]{
		head: []string{"OFFSET", "TIME", "KEY", "VALUE"},
		row: func(r runtime.TopicRecord) []string {
			at := ""
			if r.Time != nil {
				at = r.Time.Format("2006-01-02T15:04:05.000Z")
			}
			return []string{where(r), at, string(r.Key), string(r.Value)}
		},
		name: where,
	}
	out := newPrinter(a, cmd, each)
	add := out.add
	if format == "value" {
		add = func(r runtime.TopicRecord) error { return writeValue(a.stdout, r) }
	}
	if err := src.Tail(ctx, q, add); err != nil {
		if out.n > 0 {
			err = errors.Join(err, out.end())
		}
		return reached(err)
	}
	return out.end()
}

// beginAt takes a place as people write it; a plain number is an offset, which must be there.
func beginAt(q *runtime.Tail, from string) error {
	if n, err := strconv.ParseUint(from, 10, 63); err == nil {
		o := bus.Offset(n)
		q.From = &o
		return nil
	}
	p, err := runtime.ParsePlace(from, time.Now(), false)
	q.Begin = &p
	return err
}

func where(r runtime.TopicRecord) string {
	return fmt.Sprintf("%s/%d/%s", r.Topic, r.Partition, r.Offset)
}

// writeValue writes a value as it is, a string without its quotes.
func writeValue(w io.Writer, r runtime.TopicRecord) error {
	var s string
	if r.Base64 {
		var b []byte
		if err := json.Unmarshal(r.Value, &b); err != nil {
			return err
		}
		_, err := w.Write(append(b, '\n'))
		return err
	}
	if json.Unmarshal(r.Value, &s) == nil && !bytes.Equal(r.Value, []byte("null")) {
		_, err := fmt.Fprintln(w, s)
		return err
	}
	_, err := fmt.Fprintf(w, "%s\n", r.Value)
	return err
}
