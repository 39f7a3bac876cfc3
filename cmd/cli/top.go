package cli

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/sidestream-dev/sidestream/runtime"
)

// intervalMin is how often a process is asked at most.
const intervalMin = 50 * time.Millisecond

func (a *app) top() *cobra.Command {
	c := a.command(cobra.Command{
		Use:   "top",
		Short: "Show live what each job does: its rates, its time busy, held back and idle, what it has yet to read",
		Long: `Top asks the process every --interval and shows what it did in between: each job's records in and out a second, how its subtasks
spent their time (# busy, = held back by those behind it, . idle), its lag on the bus, its state's size; then topics and the log.

On a terminal it is drawn in place until q or Ctrl-C. Keys: n name, s state, i in, o out, l lag, b busy, h held sort by that, and
once more the other way round; space holds the picture still. Elsewhere, and with --once or -n, it prints and ends.`,
		Example: `  sidestream top --once --interval 200ms
  sidestream top -n 2 --interval 200ms -o jsonl   # two lines for a program`,
		Args: noArgs,
	}, a.doTop)
	c.Flags().Duration("interval", time.Second, "between two looks")
	c.Flags().Bool("once", false, "print what one interval shows, and end")
	c.Flags().IntP("count", "n", 0, "print so many intervals, and end; 0 goes on on a terminal, and is 1 elsewhere")
	c.Flags().String("sort", "name", "name, state, in, out, lag, busy, held")
	completes(c, "sort", "name", "state", "in", "out", "lag", "busy", "held")
	take(c, "data-dir", "socket", "context")
	prints(c)
	return c
}

// topView is top at work.
type topView struct {
	*app
	cmd      *cobra.Command
	server   string
	ask      func(ctx context.Context) (runtime.Status, error)
	interval time.Duration
	sort     byte // a key of orders
	reverse  bool
}

func (a *app) doTop(cmd *cobra.Command, _ []string) error {
	t := &topView{app: a, cmd: cmd}
	t.interval, _ = cmd.Flags().GetDuration("interval")
	if t.interval < intervalMin {
		return withCode(exitUsage, fmt.Errorf("--interval is %v; it is %v or more", t.interval, intervalMin))
	}
	count, _ := cmd.Flags().GetInt("count")
	if count < 0 {
		return withCode(exitUsage, fmt.Errorf("-n is %d; it is a number of intervals", count))
	}
	for key, o := range orders {
		if o.name == text(cmd, "sort") {
			t.sort = key
		}
	}
	if t.sort == 0 {
		return withCode(exitUsage, fmt.Errorf("--sort is %q; it is name, state, in, out, lag, busy or held", text(cmd, "sort")))
	}
	at, err := a.site(cmd)
	if err != nil {
		return err
	}
	client, err := at.client()
	if err != nil {
		return err
	}
	t.server, t.ask = at.String(), client.Status
	_, terminal := terminalOf(a.stdout)
	if once, _ := cmd.Flags().GetBool("once"); once || count == 0 && (!terminal || text(cmd, "output") != "table") {
		count = 1
	}
	ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	if count == 0 {
		return t.live(ctx)
	}
	return t.plain(ctx, count)
}

// look asks once; an answer that takes too long is an error.
func (t *topView) look(ctx context.Context) (look, error) {
	ctx, cancel := context.WithTimeout(ctx, askMax)
	defer cancel()
	st, err := t.ask(ctx)
	return look{time.Now(), st}, err
}

// plain prints count intervals, one behind the other.
func (t *topView) plain(ctx context.Context, count int) error {
	var out *printer[load]
	if text(t.cmd, "output") != "table" {
		named := view[load]{name: func(l load) string { return l.At.UTC().Format(time.RFC3339Nano) }}
		out = newPrinter(t.app, t.cmd, named)
	}
	was, err := t.look(ctx)
	for n := 0; err == nil && n < count; n++ {
		select {
		case <-ctx.Done():
			count = n
			continue
		case <-time.After(t.interval):
		}
		var is look
		if is, err = t.look(ctx); err != nil {
			break
		}
		l := loadOf(t.server, was, is)
		sortLoad(l, t.sort, t.reverse)
		if was = is; out != nil {
			err = out.add(l)
			continue
		}
		columns, _ := sizeOf(t.stdout)
		lines := t.picture(l, is.st, gridded{columns, colored(t.cmd, t.stdout)})
		if n > 0 {
			lines = append([]string{""}, lines...)
		}
		_, err = fmt.Fprintln(t.stdout, strings.Join(lines, "\n"))
	}
	if out != nil && (err == nil || out.n > 0) {
		if e := out.end(); err == nil {
			err = e
		}
	}
	return reached(err)
}

// picture returns the lines of what top shows.
func (t *topView) picture(l load, st runtime.Status, grid gridded) []string {
	states := map[string]int{}
	for _, j := range l.Jobs {
		states[j.State]++
	}
	var counts []string
	for _, s := range sortedStates(states) {
		counts = append(counts, fmt.Sprintf("%d %s", states[s], s))
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s, up %s; %d %s: %s\n", l.Server, brief(l.At.Sub(st.Started)), len(l.Jobs), plural(len(l.Jobs), "job", "jobs"), strings.Join(counts, ", "))
	fmt.Fprintf(&b, "log: %s/s, %.0f fsyncs/s of %v; %s in %d %s\n\n", sized(int64(l.Log.Bytes)), l.Log.Syncs, time.Duration(l.Log.SyncNanos).Round(10*time.Microsecond),
		sized(l.Log.Size), l.Log.Generations, plural(l.Log.Generations, "generation", "generations"))
	var rows [][]string
	for _, j := range l.Jobs {
		rows = append(rows, []string{j.Name, j.State, rate(j.In), rate(j.Out), fmt.Sprint(j.Lag), spent(j, spentColumns), percent(j.Busy), percent(j.Held), sized(j.StateBytes), ago(l.At, j.LastCommit)})
	}
	_ = grid.write(&b, []string{"JOB", "STATE", "IN/s", "OUT/s", "BUS LAG", "TIME", "BUSY", "HELD", "KEPT", "LAST COMMIT"}, rows) // a builder takes all
	if rows = nil; len(l.Topics) > 0 {
		for _, p := range l.Topics {
			rows = append(rows, []string{p.Name, rate(p.In), sized(int64(p.Bytes)) + "/s", fmt.Sprint(p.Lag), percent(p.Full), p.Reader})
		}
		b.WriteByte('\n')
		_ = grid.write(&b, []string{"TOPIC", "IN/s", "BYTES", "LAG", "LIMIT", "SLOWEST READER"}, rows)
	}
	if fs := t.diagnose(st); len(fs) > 0 {
		b.WriteByte('\n')
		writeFindings(&b, fs, grid.colored)
	}
	return strings.Split(strings.TrimRight(b.String(), "\n"), "\n")
}

// spentColumns is the length of the bar that says how a job's time was spent.
const spentColumns = 16

// spent draws a job's time: # busy, = held back, . idle.
func spent(j jobLoad, n int) string {
	if j.Busy+j.Held+j.Idle == 0 {
		return strings.Repeat(" ", n)
	}
	busy := min(n, int(j.Busy*float64(n)+0.5))
	held := min(n-busy, int(j.Held*float64(n)+0.5))
	return strings.Repeat("#", busy) + strings.Repeat("=", held) + strings.Repeat(".", n-busy-held)
}

func percent(share float64) string { return fmt.Sprintf("%.0f%%", 100*share) }

// rate writes a number a second for people.
func rate(f float64) string {
	switch {
	case f >= 1e6:
		return fmt.Sprintf("%.2fM", f/1e6)
	case f >= 1e4:
		return fmt.Sprintf("%.1fk", f/1e3)
	case f >= 10 || f == 0:
		return fmt.Sprintf("%.0f", f)
	}
	return fmt.Sprintf("%.1f", f)
}
