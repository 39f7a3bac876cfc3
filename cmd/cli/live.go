package cli

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/sidestream-dev/sidestream/runtime"
)

// live prints how the jobs stand again and again: on a terminal in place, else line by line.
type live struct {
	w        io.Writer
	terminal bool
	drawn    int // lines on the screen that the next picture replaces
}

// width returns the columns of the terminal.
func (l *live) width() int {
	if columns, _ := sizeOf(l.w); columns > 0 {
		return columns
	}
	return 80
}

func newLive(w io.Writer) *live {
	l := &live{w: w}
	_, l.terminal = terminalOf(w)
	return l
}

// say prints a line that stays.
func (l *live) say(format string, args ...any) {
	l.erase()
	fmt.Fprintf(l.w, format+"\n", args...)
}

func (l *live) erase() {
	if l.drawn > 0 {
		fmt.Fprintf(l.w, "\x1b[%dA\x1b[J", l.drawn)
		l.drawn = 0
	}
}

// draw shows the jobs and, below them, notes.
func (l *live) draw(st runtime.Status, notes []string) {
	now := time.Now()
	if !l.terminal {
		l.plain(st, notes, now)
		return
	}
	var b strings.Builder
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "JOB\tSTATE\tIN\tOUT\tDEAD LETTERS\tBUS LAG\tHELD BACK\tLAST COMMIT\t")
	for _, j := range st.Jobs {
		fmt.Fprintf(t, "%s\t%s\t%d\t%d\t%d\t%d\t%s\t%s\t\n", j.Name, j.State, j.Counters.In, j.Counters.Out, j.Counters.Rejected, j.Lag,
			j.Counters.Held.Round(time.Millisecond), ago(now, j.LastCommit))
	}
	t.Flush()
	for _, n := range append(troubles(st), notes...) {
		b.WriteString(n + "\n")
	}
	// A line that the terminal would break counts as one here, so it is cut.
	width := l.width()
	var picture strings.Builder
	for line := range strings.Lines(b.String()) {
		picture.WriteString(cut(strings.TrimRight(line, "\n"), width) + "\n")
	}
	l.erase()
	fmt.Fprint(l.w, picture.String())
	l.drawn = strings.Count(picture.String(), "\n")
}

// troubles says what keeps jobs from being at work, or behind it.
func troubles(st runtime.Status) []string {
	var out []string
	for _, j := range st.Jobs {
		for _, why := range j.Waiting {
			out = append(out, j.Name+" waits for "+why.Text)
		}
		if c := j.CatchUp; c != nil {
			out = append(out, fmt.Sprintf("%s catches up with %d records, %.0f a second", j.Name, j.Lag, c.Rate))
		}
		for _, what := range j.Stuck {
			out = append(out, j.Name+": "+what)
		}
		if j.Error != "" && j.State != runtime.StateRunning {
			out = append(out, j.Name+": "+j.Error)
		}
		for _, o := range j.Outputs {
			if o.Waiting != "" {
				out = append(out, j.Name+"/"+outputSaid(o)+" waits for "+o.Waiting)
			}
		}
	}
	return out
}

// plain writes one line a job.
func (l *live) plain(st runtime.Status, notes []string, now time.Time) {
	for _, j := range st.Jobs {
		fmt.Fprintf(l.w, "job=%s state=%s in=%d out=%d dead_letters=%d bus_lag=%d held_back=%s last_commit=%s\n", j.Name, j.State,
			j.Counters.In, j.Counters.Out, j.Counters.Rejected, j.Lag, j.Counters.Held.Round(time.Millisecond), strings.ReplaceAll(ago(now, j.LastCommit), " ", "_"))
	}
	for _, n := range append(troubles(st), notes...) {
		fmt.Fprintln(l.w, n)
	}
}

func ago(now, then time.Time) string {
	if then.IsZero() {
		return "none yet"
	}
	if d := now.Sub(then); d >= time.Second {
		return d.Round(time.Second).String() + " ago"
	}
	return max(0, now.Sub(then)).Round(time.Millisecond).String() + " ago"
}
