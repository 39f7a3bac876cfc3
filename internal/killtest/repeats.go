package killtest

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"testing"

	"github.com/sidestream-dev/sidestream/runtime"
)

// Repeats follows, kill by kill, which lines an at_least_once output sends again: those in its file behind the sender's last
// position in the log that survived. They are counted from the log and the file alone: a run that began with L lines
// in the file and the position n, and left L+k lines, had sent the records up to n+k; the position that it left says how
// many of the last of them are sent again.
type Repeats struct {
	Lines map[string]map[string]int // by output: line → how many times more it is there
	Count int                       // in all
	Most  int                       // of one output at one kill

	work *Work
	file map[string]int // by output: lines in the file when the run began
	next map[string]int // and the sender's position
}

// NewRepeats begins with a Work that has not run yet.
func NewRepeats(w *Work) *Repeats {
	return &Repeats{work: w, Lines: map[string]map[string]int{}, file: map[string]int{}, next: map[string]int{}}
}

// Killed looks at what a kill has left.
func (r *Repeats) Killed(tb testing.TB) {
	tb.Helper()
	o, err := runtime.OpenOffline(r.work.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return // it was killed before there was a log
	}
	if err != nil {
		tb.Fatalf("the data directory after a kill: %v", err)
	}
	for _, job := range r.work.Outputs() {
		lines := wholeLines(tb, r.work.OutputPath(job))
		next := int(o.Sent(job, "main"))
		again := r.next[job] + len(lines) - r.file[job] - next
		if again < 0 || again > len(lines) {
			tb.Fatalf("output %s: by the log %d records were sent; the file had %d lines at position %d and has %d now",
				job, next, r.file[job], r.next[job], len(lines))
		}
		if r.Lines[job] == nil {
			r.Lines[job] = map[string]int{}
		}
		for _, l := range lines[len(lines)-again:] {
			r.Lines[job][string(l)]++
		}
		r.Count, r.Most = r.Count+again, max(r.Most, again)
		r.file[job], r.next[job] = len(lines), next
	}
}

// wholeLines returns the lines of a file, a torn last one left away.
func wholeLines(tb testing.TB, path string) [][]byte {
	tb.Helper()
	b, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		tb.Fatal(err)
	}
	lines := bytes.Split(b, []byte("\n"))
	return lines[:len(lines)-1]
}
