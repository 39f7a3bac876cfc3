package runtime_test

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/jobs/connector/file"
	"github.com/sidestream-dev/sidestream/runtime"
)

// TestGivenUpOutputIsKept: what a changed definition gave up and was not sent yet is not lost by another change meanwhile, nor
// by a removal that does not say so.
func TestGivenUpOutputIsKept(t *testing.T) {
	noLeaks(t)
	const total = 500
	gate := &gatedSink{open: make(chan struct{})}
	in, out := newTap(total+1, total), t.TempDir()
	build := func(text string, sink jobs.Sink) *jobs.Job {
		j := jobs.New("j")
		jobs.To(numbers(j, in), "main", sink, jobs.JSON[int64]())
		return version(j, text)
	}
	rt := start(t, runtime.Config{DataDir: t.TempDir(), Probation: time.Hour})
	defer stop(t, rt)
	apply(t, rt, build("one", gate))
	until(t, rt, "all is given out", func() bool { return jobStatus(t, rt, "j").Counters.Out == total })
	elsewhere := file.Sink{Path: filepath.Join(out, "j.jsonl")}
	apply(t, rt, build("two", elsewhere))
	_, err := rt.Apply(t.Context(), byAPI(build("three", elsewhere)), runtime.ApplyOptions{})
	if err == nil || !strings.Contains(err.Error(), "500 records") {
		t.Errorf("another change, by which what was given up would be lost: %v", err)
	}
	keptBack(t, rt, "j", map[string]int64{"main": total})
	if res := remove(t, rt, "j", runtime.RemoveOptions{DropUnsent: true, Timeout: patience}); res.Dropped["main"] != total {
		t.Errorf("dropped %v, want all %d", res.Dropped, total)
	}
	close(gate.open)
}

// TestRestartOnProbation: a job that is restarted as its changed definition fails is not run by two definitions at a time.
func TestRestartOnProbation(t *testing.T) {
	noLeaks(t)
	const total, wrong = 2000, 1000
	in, out := newTap(total, wrong), t.TempDir()
	var inside, both atomic.Bool
	var tries atomic.Int32
	first, second := make(chan struct{}), make(chan struct{})
	old := wide(in, out, 1, "old", func(_ int, n int64) error {
		if n >= wrong && inside.Load() {
			both.Store(true)
		}
		return nil
	})
	bad := wide(in, out, 1, "bad", func(_ int, n int64) error {
		if n < wrong {
			return nil
		}
		if tries.Add(1) == 1 {
			<-first
		} else {
			inside.Store(true)
			<-second
			inside.Store(false)
		}
		return errors.New("too large for me")
	})
	rt := start(t, runtime.Config{DataDir: t.TempDir(), Probation: time.Hour})
	apply(t, rt, old)
	until(t, rt, "a thousand are out", func() bool { return linesOf(t, fileOf(out)) == wrong })
	apply(t, rt, bad)
	in.open(total)
	until(t, rt, "the first try", func() bool { return tries.Load() == 1 })
	restarted := make(chan error, 1)
	go func() { restarted <- rt.RestartJob(t.Context(), "j") }()
	until(t, rt, "the restart is under way", func() bool { return jobStatus(t, rt, "j").State == runtime.StateStopping })
	close(first)
	if err := <-restarted; err != nil {
		t.Fatal(err)
	}
	until(t, rt, "the second try", func() bool { return inside.Load() || both.Load() })
	for range 40 { // what is wrong would come now
		if time.Sleep(5 * time.Millisecond); both.Load() {
			break
		}
	}
	close(second)
	finish(t, rt)
	if both.Load() {
		t.Error("the old definition ran while an attempt of the new one did")
	}
	evs, _ := rt.Events(0)
	if !slices.ContainsFunc(evs, func(e runtime.Event) bool { return e.Kind == runtime.EventRolledBack }) {
		t.Error("the old definition is not back")
	}
	sameLines(t, "j", fileLines(t, fileOf(out)), tallied(total, nil))
}

// TestRollBackToRest: where a job that had failed is changed, and fails on probation too, the definition before is back, and has failed.
func TestRollBackToRest(t *testing.T) {
	noLeaks(t)
	const total = 100
	in, out := newTap(total, total), t.TempDir()
	fails := func(text string) *jobs.Job {
		return wide(in, out, 1, text, func(int, int64) error { return errors.New(text) })
	}
	rt := start(t, runtime.Config{DataDir: t.TempDir(), Probation: time.Hour, AttemptsMax: 1})
	defer stop(t, rt)
	apply(t, rt, fails("first"))
	// A new job has no probation; it fails for good.
	until(t, rt, "it has failed", func() bool { return jobStatus(t, rt, "j").State == runtime.StateFailed })
	apply(t, rt, fails("second"))
	until(t, rt, "the first is back", func() bool {
		evs, _ := rt.Events(0)
		return slices.ContainsFunc(evs, func(e runtime.Event) bool { return e.Kind == runtime.EventRolledBack })
	})
	until(t, rt, "it has failed again", func() bool { return jobStatus(t, rt, "j").State == runtime.StateFailed })
	info, err := rt.JobDefinition("j")
	if err != nil || info.Phase != runtime.PhaseFailed || !strings.Contains(string(info.Definition), "first") {
		t.Errorf("the job is %+v, %v", info, err)
	}
}

// TestRollBackOfResumed: a job is changed while it is paused, resumed, and fails on probation: the definition before goes on, for
// that is what was asked for last.
func TestRollBackOfResumed(t *testing.T) {
	noLeaks(t)
	const total = 100
	in, out := newTap(total, total/2), t.TempDir()
	rt := start(t, runtime.Config{DataDir: t.TempDir(), Probation: time.Hour})
	defer stop(t, rt)
	apply(t, rt, wide(in, out, 1, "first", nil))
	until(t, rt, "half is read", func() bool { return linesOf(t, fileOf(out)) == total/2 })
	if err := rt.PauseJob(t.Context(), "j"); err != nil {
		t.Fatal(err)
	}
	apply(t, rt, wide(in, out, 1, "second", func(int, int64) error { return errors.New("it fails") }))
	if s := jobStatus(t, rt, "j").State; s != runtime.StatePaused {
		t.Errorf("a paused job that was changed is %s", s)
	}
	in.open(total)
	if err := rt.ResumeJob(t.Context(), "j"); err != nil {
		t.Fatal(err)
	}
	until(t, rt, "the definition before goes on", func() bool { return linesOf(t, fileOf(out)) == total })
	if info, err := rt.JobDefinition("j"); err != nil || info.Phase == runtime.PhasePaused || !strings.Contains(string(info.Definition), "first") {
		t.Errorf("the job is %+v, %v", info, err)
	}
}

// below builds job j, which gives the numbers to a sink, and fails at the first that is not below wrong.
func below(text string, in *tap, wrong int64, sink jobs.Sink) *jobs.Job {
	j := jobs.New("j")
	checked := jobs.TryMap(numbers(j, in), func(n int64) (int64, error) {
		if n >= wrong {
			return 0, errors.New("too large for me")
		}
		return n, nil
	})
	jobs.To(checked, "main", sink, jobs.JSON[int64]())
	return version(j, text)
}

// TestRollBackSendsFirst: what a changed definition gave out to an output that the old one does not have is outside before
// the old one is back.
func TestRollBackSendsFirst(t *testing.T) {
	noLeaks(t)
	const total, wrong = 2000, 1000
	in, out := newTap(total, 0), t.TempDir()
	gate := &gatedSink{open: make(chan struct{})}
	rt := start(t, runtime.Config{DataDir: t.TempDir(), Probation: time.Hour})
	apply(t, rt, below("old", in, math.MaxInt64, file.Sink{Path: fileOf(out)}))
	apply(t, rt, below("bad", in, wrong, gate))
	in.open(wrong)
	until(t, rt, "a thousand are given out", func() bool { return jobStatus(t, rt, "j").Counters.Out == wrong })
	in.open(total)
	until(t, rt, "it fails", func() bool { return jobStatus(t, rt, "j").Restarts == 1 })
	for range 20 { // what is wrong would come now
		time.Sleep(5 * time.Millisecond)
	}
	close(gate.open)
	finish(t, rt)
	if n := gate.taken.Load(); n != wrong || linesOf(t, fileOf(out)) != total-wrong {
		t.Errorf("%d records are at the new place, %d at the old", n, linesOf(t, fileOf(out)))
	}
}

// openAt opens a gate when a message with some text is logged.
type openAt struct {
	text string
	once sync.Once
	gate chan struct{}
}

func (o *openAt) Write(line []byte) (int, error) {
	if strings.Contains(string(line), o.text) {
		o.once.Do(func() { close(o.gate) })
	}
	return len(line), nil
}

// TestRollBackCountsDropped: what an output that goes is said to have lost, and what was written there, is all of what it was
// given: also where a slow write ends after the time for it is over.
func TestRollBackCountsDropped(t *testing.T) {
	noLeaks(t)
	const wrong = 1000
	in := newTap(2*wrong, 0)
	gate := &gatedSink{open: make(chan struct{})}
	slow := &openAt{text: "could not be sent in time", gate: gate.open}
	rt := start(t, runtime.Config{DataDir: t.TempDir(), Probation: time.Hour, StopTimeout: 100 * time.Millisecond, StuckAfter: time.Minute,
		Logger: slog.New(slog.NewTextHandler(slow, nil))})
	for _, def := range []*jobs.Job{below("old", in, math.MaxInt64, file.Sink{Path: fileOf(t.TempDir())}), below("bad", in, wrong, gate)} {
		if _, err := rt.Apply(t.Context(), byAPI(def), runtime.ApplyOptions{Timeout: patience}); err != nil {
			t.Error(err)
		}
	}
	for n := int64(1); n <= wrong; n += 111 { // in several writes, of which the first is under way
		in.open(n)
		until(t, rt, "some are given out", func() bool { return jobStatus(t, rt, "j").Counters.Out == n })
	}
	in.open(2 * wrong)
	dropped := int64(0)
	until(t, rt, "the definition before is back", func() bool {
		evs, _ := rt.Events(0)
		back := false
		for _, e := range evs {
			back = back || e.Kind == runtime.EventRolledBack
			if e.Kind == runtime.EventUnsent {
				if _, err := fmt.Sscanf(e.Text, "%d records of output main", &dropped); err != nil {
					t.Fatalf("%q: %v", e.Text, err)
				}
			}
		}
		return back
	})
	if taken := gate.taken.Load(); dropped+taken != wrong {
		t.Errorf("%d are written and %d said to be dropped, of %d", taken, dropped, wrong)
	}
	_ = rt.Stop() // its time is as short, and may be too short for the last commit
}

// TestUnsentKeepsNoLog: a job whose changed definition gave up an output that cannot be sent gives snapshots again once its
// probation is over: else its state would keep the log for as long.
func TestUnsentKeepsNoLog(t *testing.T) {
	noLeaks(t)
	const total = 3000
	data, in, out := t.TempDir(), newTap(total, 1000), t.TempDir()
	gate := &gatedSink{open: make(chan struct{})}
	build := func(text string, sink jobs.Sink) *jobs.Job {
		j := jobs.New("j")
		jobs.To(tallies(numbers(j, in), nil), "main", sink, jobs.JSON[tally]())
		return version(j, text)
	}
	rt := start(t, runtime.Config{DataDir: data, Probation: time.Millisecond, SnapshotBytes: 1})
	apply(t, rt, build("one", gate))
	until(t, rt, "a thousand are given out", func() bool { return jobStatus(t, rt, "j").Counters.Out == 1000 })
	apply(t, rt, build("two", file.Sink{Path: fileOf(out)}))
	e, err := rt.JobDefinition("j")
	if err != nil || string(e.Definition) != "two\n" {
		t.Fatal(e, err)
	}
	changed := jobStatus(t, rt, "j").Epoch
	in.open(2000)
	until(t, rt, "a snapshot of what the changed definition has made", func() bool {
		in.open(min(total-1, in.opened.Load()+1))
		list, broken, err := runtime.Checkpoints(data)
		if broken != nil || err != nil {
			t.Fatal(broken, err)
		}
		return slices.ContainsFunc(list, func(c runtime.Checkpoint) bool { return c.Announced && c.Epoch > changed })
	})
	close(gate.open)
	until(t, rt, "what was given up is sent", func() bool { return gate.taken.Load() == 1000 })
	in.open(total)
	finish(t, rt)
}
