package runtime_test

import (
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/runtime"
)

// TestEventsAndLogs: what happens to a job, and what is logged of it, can be read from any number on.
func TestEventsAndLogs(t *testing.T) {
	noLeaks(t)
	out := t.TempDir()
	in := newTap(100, 10)
	rt := start(t, runtime.Config{DataDir: t.TempDir(), AttemptsMax: 1, Logger: slog.New(slog.DiscardHandler)})
	defer stop(t, rt)
	evs, more := rt.Events(0)
	if len(evs) != 0 {
		t.Errorf("events before anything: %+v", evs)
	}
	apply(t, rt, wide(in, out, 1, "one", func(_ int, n int64) error {
		if n >= 10 {
			return errors.New("no more")
		}
		return nil
	}))
	<-more
	in.open(100)
	until(t, rt, "it has failed", func() bool { return jobStatus(t, rt, "j").State == runtime.StateFailed })
	remove(t, rt, "j", runtime.RemoveOptions{DropUnsent: true})
	evs, _ = rt.Events(0)
	var kinds []runtime.EventKind
	var states []runtime.JobState
	for i, e := range evs {
		if e.Seq != uint64(i+1) || e.Time.IsZero() || e.Job != "j" {
			t.Errorf("event %d: %+v", i, e)
		}
		if e.Kind == runtime.EventState {
			states = append(states, e.State)
		} else {
			kinds = append(kinds, e.Kind)
		}
	}
	if len(kinds) != 2 || kinds[0] != runtime.EventApplied || kinds[1] != runtime.EventRemoved {
		t.Errorf("kinds: %v", kinds)
	}
	if n := len(states); n < 3 || states[n-1] != runtime.StateRemoving || states[n-2] != runtime.StateFailed {
		t.Errorf("states: %v", states)
	}
	if later, _ := rt.Events(evs[2].Seq); len(later) != len(evs)-3 {
		t.Errorf("%d of %d events are behind the third", len(later), len(evs))
	}
	if _, _, err := rt.JobLog("j", 0); !errors.Is(err, runtime.ErrNoJob) {
		t.Errorf("log of a job that is gone: %v", err)
	}
	apply(t, rt, wide(newTap(1, 1), t.TempDir(), 1, "two", nil))
	until(t, rt, "it has ended", func() bool { return jobStatus(t, rt, "j").State == runtime.StateEnded })
	lines, _, err := rt.JobLog("j", 0)
	if err != nil || len(lines) == 0 || lines[len(lines)-1].Message != "ended" || lines[0].Seq != 1 {
		t.Errorf("the job's log: %+v, %v", lines, err)
	}
}

// TestStatusOfEpochs: a job's status says which epoch it has sealed last and when, also between two attempts, and behind a
// restart of the process which.
func TestStatusOfEpochs(t *testing.T) {
	noLeaks(t)
	data, out := t.TempDir(), t.TempDir()
	in := newTap(100, 50)
	def := func() *jobs.Job { return wide(in, out, 1, "one", nil) }
	rt := start(t, runtime.Config{DataDir: data}, def())
	until(t, rt, "it has sealed", func() bool {
		st := jobStatus(t, rt, "j")
		return st.Counters.In == 50 && st.Epoch > 0 && !st.LastCommit.IsZero()
	})
	if err := rt.PauseJob(t.Context(), "j"); err != nil {
		t.Fatal(err)
	}
	paused := jobStatus(t, rt, "j")
	if paused.Epoch == 0 || paused.LastCommit.IsZero() || paused.Counters.In != 50 {
		t.Errorf("paused: %+v", paused)
	}
	stop(t, rt)
	rt = start(t, runtime.Config{DataDir: data}, def())
	defer stop(t, rt)
	if st := jobStatus(t, rt, "j"); st.Epoch != paused.Epoch || !st.LastCommit.IsZero() {
		t.Errorf("in the next process: epoch %s, %v; want epoch %s", st.Epoch, st.LastCommit, paused.Epoch)
	}
}

// TestLargeErrors: an error may quote a record as large as records may be. What is kept of it is bounded, and the job has failed
// for the next process too.
func TestLargeErrors(t *testing.T) {
	noLeaks(t)
	data, out := t.TempDir(), t.TempDir()
	in := newTap(100, 100)
	large := errors.New(strings.Repeat("é", 2<<20))
	def := func() *jobs.Job {
		return wide(in, out, 1, "one", func(int, int64) error { return large })
	}
	cfg := runtime.Config{DataDir: data, AttemptsMax: 2, Logger: slog.New(slog.DiscardHandler)}
	rt := start(t, cfg, def())
	failed := func() bool { return jobStatus(t, rt, "j").State == runtime.StateFailed }
	until(t, rt, "it has failed", failed)
	for _, again := range []bool{false, true} {
		if again {
			stop(t, rt)
			rt = start(t, cfg, def())
		}
		i, err := rt.JobDefinition("j")
		if err != nil || i.Phase != runtime.PhaseFailed || len(i.Reason) > 5<<10 || !utf8.ValidString(i.Reason) || !strings.Contains(i.Reason, "ééé") {
			t.Errorf("next process: %v: %v, phase %s, a reason of %d bytes", again, err, i.Phase, len(i.Reason))
		}
		if e := jobStatus(t, rt, "j").Error; !failed() || e == "" || len(e) > 5<<10 {
			t.Errorf("next process: %v: the status tells %d bytes", again, len(e))
		}
		lines, _, err := rt.JobLog("j", 0)
		if err != nil || !again && len(lines) == 0 {
			t.Error(len(lines), err)
		}
		for _, l := range lines {
			if b, err := json.Marshal(l); err != nil || len(b) > 20<<10 {
				t.Errorf("a line of %d bytes, %v", len(b), err)
			}
		}
	}
	stop(t, rt)
}
