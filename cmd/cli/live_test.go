package cli

import (
	"bytes"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sidestream-dev/sidestream/runtime"
)

// screen is what a terminal of 80 columns shows of b: lines, of which "up and clear" takes some away.
func screen(b string) []string {
	lines := []string{""}
	up := regexp.MustCompile(`^\x1b\[(\d+)A\x1b\[J`)
	for b != "" {
		if m := up.FindStringSubmatch(b); m != nil {
			n, _ := strconv.Atoi(m[1])
			lines = append(lines[:len(lines)-1-n], "")
			b = b[len(m[0]):]
			continue
		}
		r := []rune(b)[0]
		if r == '\n' || len([]rune(lines[len(lines)-1])) == 80 {
			lines = append(lines, "")
		}
		if r != '\n' {
			lines[len(lines)-1] += string(r)
		}
		b = b[len(string(r)):]
	}
	return lines
}

// TestLive: on a terminal each picture takes the place of the one before, lines that are said stay above it, and no line is
// broken by the terminal, or the count of what is to be taken away would be wrong.
func TestLive(t *testing.T) {
	var out bytes.Buffer
	l := &live{w: &out, terminal: true}
	st := runtime.Status{Jobs: []runtime.JobStatus{
		{Name: "pm25", State: runtime.StateRunning, Counters: runtime.JobCounters{Work: runtime.Work{In: 12, Out: 3}}, LastCommit: time.Now()},
		{Name: "alerts", State: runtime.StateWaiting, Lag: 7, Waiting: []runtime.Wait{{Text: "the watermark of topic exceedances, which pm25 holds back, and something that makes this line longer than a terminal is wide"}}},
	}}
	l.say("first")
	for range 3 {
		l.draw(st, []string{"fed 12"})
	}
	l.say("second")
	st.Jobs[0].Counters.In = 4711
	l.draw(st, []string{"fed 4711"})
	got := screen(out.String())
	if len(got) != 8 || got[0] != "first" || got[1] != "second" || got[6] != "fed 4711" {
		t.Fatalf("the screen shows\n%s", strings.Join(got, "\n"))
	}
	if !strings.Contains(got[2], "BUS LAG") || !strings.Contains(got[3], "4711") || !strings.Contains(got[4], "none yet") || !strings.HasPrefix(got[5], "alerts waits for the watermark") {
		t.Errorf("the screen shows\n%s", strings.Join(got, "\n"))
	}
	for _, line := range got {
		if n := len([]rune(line)); n > 80 {
			t.Errorf("%d columns: %s", n, line)
		}
	}
}

// TestPlain: no terminal, a line a job that a program can read.
func TestPlain(t *testing.T) {
	var out bytes.Buffer
	newLive(&out).draw(runtime.Status{Jobs: []runtime.JobStatus{{Name: "pm25", State: runtime.StateRunning, Counters: runtime.JobCounters{Work: runtime.Work{In: 12, Out: 3, Rejected: 1}, Held: 1500 * time.Microsecond}, Lag: 9}}}, nil)
	if got, want := out.String(), "job=pm25 state=running in=12 out=3 dead_letters=1 bus_lag=9 held_back=2ms last_commit=none_yet\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
