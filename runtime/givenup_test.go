package runtime_test

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/runtime"
)

// givenUp runs a job whose first output is away, and gives that up with ten records by a change that needs not drop them.
func givenUp(t *testing.T, probation time.Duration) (*runtime.Runtime, runtime.Config, *tap, *slotOutside, *slotOutside) {
	in := newTap(30, 10)
	a, b := &slotOutside{away: true}, &slotOutside{}
	cfg := runtime.Config{DataDir: t.TempDir(), Probation: probation, StopTimeout: 2 * time.Second}
	cfg.Load = func(text []byte, _ runtime.Origin) (*jobs.Job, error) {
		if string(text) == "a\n" {
			return slotted("a", in, slot{"a", a}, 0), nil
		}
		return slotted("b", in, slot{"b", b}, 0), nil
	}
	rt := start(t, cfg)
	apply(t, rt, slotted("a", in, slot{"a", a}, 0))
	until(t, rt, "ten are to be sent", func() bool { return unsent(t, rt) == 10 })
	began := time.Now().Add(-time.Second)
	apply(t, rt, slotted("b", in, slot{"b", b}, 0))
	until(t, rt, "it is told that the output is given up", func() bool {
		return slices.ContainsFunc(jobStatus(t, rt, "j").Outputs, func(o runtime.OutputStatus) bool {
			return o.Unsent == 10 && o.GivenUp.After(began) && o.GivenUp.Before(time.Now())
		})
	})
	return rt, cfg, in, a, b
}

// TestDropGivenUpEarlier: what an output that an earlier change gave up has yet to send is told of by that, and can be dropped
// by the definition that the job has. Then nothing keeps a further change from being made.
func TestDropGivenUpEarlier(t *testing.T) {
	noLeaks(t)
	rt, cfg, in, a, b := givenUp(t, time.Millisecond)
	want := map[string]int64{"main": 10}
	same, next := byAPI(slotted("b", in, slot{"b", b}, 0)), byAPI(slotted("c", in, slot{"b", b}, 0))
	time.Sleep(2 * time.Millisecond) // the probation is over
	if _, err := rt.Apply(t.Context(), next, runtime.ApplyOptions{}); err == nil || !strings.Contains(err.Error(), "10 records of output main, an output that the job gave up at 2") {
		t.Errorf("a further change: %v", err)
	}
	for _, o := range []runtime.ApplyOptions{{}, {DryRun: true}} {
		res, err := rt.Apply(t.Context(), same, o)
		if d := res.Jobs[0]; err != nil || d.Action != runtime.ActionUnchanged || !maps.Equal(d.Unsent, want) || d.GaveUpAt.IsZero() || len(d.Needs) > 0 || len(d.Dropped) > 0 {
			t.Errorf("the same, %+v: %+v, %v", o, res, err)
		}
	}
	for _, dry := range []bool{true, false} {
		res, err := rt.Apply(t.Context(), same, runtime.ApplyOptions{DryRun: dry, DropUnsent: true})
		if d := res.Jobs[0]; err != nil || d.Action != runtime.ActionUnchanged || !maps.Equal(d.Dropped, want) || d.GaveUpAt.IsZero() || len(d.Unsent) > 0 {
			t.Errorf("the same, dropping, dry %v: %+v, %v", dry, res, err)
		}
		if texts := told(rt, runtime.EventUnsent); len(texts) > 0 == dry {
			t.Errorf("events, dry %v: %q", dry, texts)
		}
	}
	if len(told(rt, runtime.EventSettled)) != 1 || !jobStatus(t, rt, "j").Probation.IsZero() {
		t.Errorf("it is not settled: %+v", jobStatus(t, rt, "j"))
	}
	if names := claimed(rt); strings.Count(names, "<sender:") != 1 {
		t.Errorf("left of the output that is given up: %s", names)
	}
	if res, err := rt.Apply(t.Context(), same, runtime.ApplyOptions{DropUnsent: true}); err != nil || len(res.Jobs[0].Dropped) > 0 {
		t.Errorf("dropped twice: %+v, %v", res, err)
	}
	if _, err := rt.Apply(t.Context(), next, runtime.ApplyOptions{}); err != nil {
		t.Errorf("a further change, when they are dropped: %v", err)
	}
	cfg.Load = func([]byte, runtime.Origin) (*jobs.Job, error) { return slotted("c", in, slot{"b", b}, 0), nil }
	a.back()
	stop(t, rt)
	rt = start(t, cfg)
	in.open(30)
	finish(t, rt)
	if got := b.has(); len(a.has()) > 0 || !slices.Equal(got, numbersFrom(10, 30)) {
		t.Errorf("a has %q, b %q", a.has(), got)
	}
}

// TestDropGivenUpOnProbation: what was given up is dropped before the probation is over, also over a crash; the definition
// that comes back goes on behind it.
func TestDropGivenUpOnProbation(t *testing.T) {
	noLeaks(t)
	rt, cfg, in, a, b := givenUp(t, time.Hour)
	same := byAPI(slotted("b", in, slot{"b", b}, 0))
	res, err := rt.Apply(t.Context(), same, runtime.ApplyOptions{DropUnsent: true})
	if err != nil || res.Jobs[0].Dropped["main"] != 10 {
		t.Fatalf("dropped %+v, %v", res, err)
	}
	if jobStatus(t, rt, "j").Probation.IsZero() {
		t.Error("the probation is settled before its time")
	}
	if n := len(jobStatus(t, rt, "j").Outputs); n != 1 {
		t.Errorf("%d outputs are told of, though one is given up and dropped", n)
	}
	a.back()
	stop(t, rt)
	cfg.Load = func(text []byte, _ runtime.Origin) (*jobs.Job, error) {
		if string(text) == "a\n" {
			return slotted("a", in, slot{"a", a}, 0), nil
		}
		return slotted("b", in, slot{"b", b}, 20), nil // fails at twenty
	}
	rt = start(t, cfg)
	in.open(30)
	until(t, rt, "the old one is back", func() bool { return len(told(rt, runtime.EventRolledBack)) == 1 })
	finish(t, rt)
	got := slices.Concat(b.has(), a.has())
	if slices.Sort(got); !slices.Equal(got, numbersFrom(10, 30)) {
		t.Errorf("a has %q, b %q", a.has(), b.has())
	}
}

// TestStartDropsGivenUp: the next start drops it too, where that is asked for, by the definition that the job has.
func TestStartDropsGivenUp(t *testing.T) {
	noLeaks(t)
	rt, cfg, in, a, b := givenUp(t, time.Millisecond)
	stop(t, rt)
	cfg.DropUnsent = true
	file := slotted("b", in, slot{"b", b}, 0)
	cfg.Adopt = true
	rt = start(t, cfg, file)
	if texts := told(rt, runtime.EventUnsent); len(texts) != 1 || !strings.HasPrefix(texts[0], "10 records of output main were never sent") {
		t.Errorf("events: %q", texts)
	}
	if names := claimed(rt); strings.Count(names, "<sender:") != 1 {
		t.Errorf("left of the output that is given up: %s", names)
	}
	a.back()
	in.open(30)
	finish(t, rt)
	if got := b.has(); len(a.has()) > 0 || !slices.Equal(got, numbersFrom(10, 30)) {
		t.Errorf("a has %q, b %q", a.has(), got)
	}
}
