package runtime_test

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/runtime"
)

// TestIfMatch: what is asked for at a version happens only there: of many who change a job that they have all looked at one wins,
// and the others are told what it is now. The version changes with each change, also with one back and with a roll-back, and with
// nothing else.
func TestIfMatch(t *testing.T) {
	noLeaks(t)
	data, in := t.TempDir(), newTap(20, 10)
	out := &slotOutside{}
	cfg := runtime.Config{DataDir: data, Probation: -1}
	cfg.Load = func(text []byte, _ runtime.Origin) (*jobs.Job, error) {
		return slotted("a", in, slot{"a", out}, 0), nil
	}
	rt := start(t, cfg)
	version := func() string {
		i, err := rt.JobDefinition("j")
		if err != nil {
			t.Fatal(err)
		}
		return i.Version
	}
	change := func(text string, bad int64, at string, o runtime.ApplyOptions) error {
		o.IfMatch = map[string]string{"j": at}
		_, err := rt.Apply(t.Context(), byAPI(slotted(text, in, slot{"a", out}, bad)), o)
		return err
	}
	differs := func(err error, now bool) {
		t.Helper()
		var match *runtime.MatchError
		if !errors.As(err, &match) || (match.Now != nil) != now || now && match.Now.Version != version() {
			t.Errorf("%v; want a MatchError", err)
		}
	}
	differs(change("a", 0, runtime.AnyVersion, runtime.ApplyOptions{}), false)
	apply(t, rt, slotted("a", in, slot{"a", out}, 0))
	first := version()
	until(t, rt, "ten are out", func() bool { return len(out.has()) == 10 })
	if err := errors.Join(rt.PauseJob(t.Context(), "j"), rt.ResumeJob(t.Context(), "j"), rt.RestartJob(t.Context(), "j")); err != nil || version() != first {
		t.Errorf("at %s, and was at %s: %v", version(), first, err)
	}
	var won atomic.Int32
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			err := change(string(rune('p'+i)), 0, first, runtime.ApplyOptions{})
			var match *runtime.MatchError
			switch {
			case err == nil:
				won.Add(1)
			case !errors.As(err, &match):
				t.Error(err)
			}
		})
	}
	all.Wait()
	if won.Load() != 1 {
		t.Errorf("%d have changed the job as they all saw it", won.Load())
	}
	apply(t, rt, slotted("a", in, slot{"a", out}, 0)) // as it was: and still another
	differs(change("b", 0, first, runtime.ApplyOptions{}), true)
	differs(change("b", 0, first, runtime.ApplyOptions{DryRun: true}), true)
	_, err := rt.RemoveJob(t.Context(), "j", runtime.RemoveOptions{IfMatch: first})
	differs(err, true)
	until(t, rt, "what was refused has left the job at work", func() bool { return jobStatus(t, rt, "j").State == runtime.StateRunning })
	at := version()
	if err := change("bad", 15, at, runtime.ApplyOptions{Probation: time.Hour}); err != nil {
		t.Fatal(err)
	}
	in.open(20)
	until(t, rt, "the old one is back", func() bool { return len(told(rt, runtime.EventRolledBack)) == 1 })
	differs(change("b", 0, at, runtime.ApplyOptions{}), true)
	at = version()
	stop(t, rt)
	rt = start(t, cfg)
	if version() != at {
		t.Errorf("the next process has it at %s, and it was at %s", version(), at)
	}
	if _, err := rt.RemoveJob(t.Context(), "j", runtime.RemoveOptions{IfMatch: at}); err != nil {
		t.Error(err)
	}
	stop(t, rt)
}
