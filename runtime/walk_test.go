package runtime_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/runtime"
)

// TestEveryOperationInEveryState walks the table of operations: each, on a job in each of the phases it can rest or run in,
// does what the table says or is refused, and then the job can still be removed.
func TestEveryOperationInEveryState(t *testing.T) {
	noLeaks(t)
	ctx := t.Context()
	type world struct {
		rt     *runtime.Runtime
		in     *tap
		out    string
		broken atomic.Bool
	}
	build := func(w *world, text string) *jobs.Job {
		return wide(w.in, w.out, 1, text, func(int, int64) error {
			if w.broken.Load() {
				return errors.New("broken")
			}
			return nil
		})
	}
	into := map[runtime.JobState]func(t *testing.T, w *world){
		runtime.StateRunning: func(*testing.T, *world) {},
		runtime.StatePaused: func(t *testing.T, w *world) {
			if err := w.rt.PauseJob(ctx, "j"); err != nil {
				t.Fatal(err)
			}
		},
		runtime.StateStopped: func(t *testing.T, w *world) {
			if err := w.rt.StopJob(ctx, "j", runtime.StopOptions{}); err != nil {
				t.Fatal(err)
			}
		},
		runtime.StateFailed: func(_ *testing.T, w *world) {
			w.broken.Store(true)
			w.in.open(20)
		},
		runtime.StateEnded: func(_ *testing.T, w *world) { w.in.open(w.in.total) },
	}
	operations := map[string]func(w *world) error{
		"pause":   func(w *world) error { return w.rt.PauseJob(ctx, "j") },
		"resume":  func(w *world) error { return w.rt.ResumeJob(ctx, "j") },
		"restart": func(w *world) error { return w.rt.RestartJob(ctx, "j") },
		"stop":    func(w *world) error { return w.rt.StopJob(ctx, "j", runtime.StopOptions{}) },
		"force":   func(w *world) error { return w.rt.StopJob(ctx, "j", runtime.StopOptions{Force: true}) },
		"update": func(w *world) error {
			_, err := w.rt.Apply(ctx, byAPI(build(w, "other")), runtime.ApplyOptions{})
			return err
		},
		"unchanged": func(w *world) error {
			_, err := w.rt.Apply(ctx, byAPI(build(w, "one")), runtime.ApplyOptions{})
			return err
		},
		"adopt": func(w *world) error {
			_, err := w.rt.Apply(ctx, []runtime.Definition{{Job: build(w, "one"), Origin: runtime.OriginFile}}, runtime.ApplyOptions{Adopt: true})
			return err
		},
		"savepoint": func(w *world) error {
			_, err := w.rt.Savepoint(ctx, "j", "")
			return err
		},
		"remove": func(w *world) error {
			_, err := w.rt.RemoveJob(ctx, "j", runtime.RemoveOptions{})
			return err
		},
	}
	const refused, gone = runtime.JobState("refused"), runtime.JobState("gone")
	running, paused, stopped, failed, ended := runtime.StateRunning, runtime.StatePaused, runtime.StateStopped, runtime.StateFailed, runtime.StateEnded
	table := map[string]map[runtime.JobState]runtime.JobState{
		"pause":     {running: paused, paused: paused, stopped: refused, failed: refused, ended: refused},
		"resume":    {running: running, paused: running, stopped: running, failed: refused, ended: refused},
		"restart":   {running: running, paused: running, stopped: running, failed: running, ended: ended}, // it is read to its end once more
		"stop":      {running: stopped, paused: stopped, stopped: stopped, failed: stopped, ended: refused},
		"force":     {running: stopped, paused: stopped, stopped: stopped, failed: stopped, ended: refused},
		"update":    {running: running, paused: paused, stopped: stopped, failed: running, ended: ended},
		"unchanged": {running: running, paused: paused, stopped: stopped, failed: failed, ended: ended},
		"adopt":     {running: running, paused: paused, stopped: stopped, failed: failed, ended: ended},
		"savepoint": {running: running, paused: paused, stopped: stopped, failed: failed, ended: refused},
		"remove":    {running: gone, paused: gone, stopped: gone, failed: gone, ended: gone},
	}
	for name, does := range operations {
		for from, bring := range into {
			t.Run(fmt.Sprintf("%s/%s", name, from), func(t *testing.T) {
				w := &world{in: newTap(100, 10), out: t.TempDir()}
				w.rt = start(t, runtime.Config{DataDir: t.TempDir(), AttemptsMax: 2})
				defer stop(t, w.rt)
				apply(t, w.rt, build(w, "one"))
				until(t, w.rt, "it runs", func() bool { return jobStatus(t, w.rt, "j").Counters.In == 10 })
				bring(t, w)
				until(t, w.rt, string(from), func() bool { return jobStatus(t, w.rt, "j").State == from })
				w.broken.Store(false)
				err, want := does(w), table[name][from]
				var refusal *runtime.PhaseError
				switch {
				case want == refused && !errors.As(err, &refusal):
					t.Fatalf("not refused: %v", err)
				case want == refused:
					want = from
				case err != nil:
					t.Fatal(err)
				}
				if want == gone {
					if _, err := w.rt.JobDefinition("j"); !errors.Is(err, runtime.ErrNoJob) {
						t.Errorf("it is still there: %v", err)
					}
					return
				}
				until(t, w.rt, string(want), func() bool { return jobStatus(t, w.rt, "j").State == want })
				remove(t, w.rt, "j", runtime.RemoveOptions{DropUnsent: true})
			})
		}
	}
	rt := start(t, runtime.Config{DataDir: t.TempDir()})
	for _, err := range []error{rt.PauseJob(ctx, "x"), rt.ResumeJob(ctx, "x"), rt.RestartJob(ctx, "x"), rt.StopJob(ctx, "x", runtime.StopOptions{})} {
		if !errors.Is(err, runtime.ErrNoJob) {
			t.Errorf("of a job that is not there: %v", err)
		}
	}
	stop(t, rt)
	if err := rt.PauseJob(context.Background(), "x"); !errors.Is(err, runtime.ErrNotRunning) {
		t.Errorf("once it has stopped: %v", err)
	}
}
