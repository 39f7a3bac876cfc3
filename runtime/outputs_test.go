package runtime_test

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/runtime"
)

// slot is a sink whose place only one output may have, and which may be away.
type slot struct {
	Name string
	at   *slotOutside
}

type slotOutside struct {
	mu   sync.Mutex
	away bool
	got  []string
}

func (s slot) Kind() string       { return "slot" }
func (s slot) ExactlyOnce() error { return nil }
func (s slot) Place() string      { return "slot " + s.Name }

func (s slot) Open(context.Context, jobs.SinkEnv) (jobs.Writer, error) { return s.at, nil }

func (o *slotOutside) Write(_ context.Context, ms []jobs.Message) ([]byte, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.away {
		return nil, errors.New("the slot is away")
	}
	for _, m := range ms {
		o.got = append(o.got, string(m.Value))
	}
	return []byte(strconv.Itoa(len(o.got))), nil
}

func (o *slotOutside) Close() error { return nil }

func (o *slotOutside) back() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.away = false
}

func (o *slotOutside) has() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.got)
}

// slotted is a job that takes numbers from a tap to an output; it fails at the number bad, if that is not 0.
func slotted(text string, in *tap, to jobs.Sink, bad int64) *jobs.Job {
	j := jobs.New("j")
	checked := jobs.TryMap(numbers(j, in), func(n int64) (int64, error) {
		if bad > 0 && n >= bad {
			return 0, errors.New("too large for me")
		}
		return n, nil
	})
	jobs.To(checked, "main", to, jobs.JSON[int64]())
	return version(j, text)
}

// unsent is how many records of the output main of job j are yet to be sent.
func unsent(t *testing.T, rt *runtime.Runtime) int64 {
	for _, o := range jobStatus(t, rt, "j").Outputs {
		if o.Name == "main" {
			return o.Unsent
		}
	}
	return -1
}

func numbersFrom(from, to int) (out []string) {
	for n := from; n < to; n++ {
		out = append(out, strconv.Itoa(n))
	}
	return out
}

func told(rt *runtime.Runtime, kind runtime.EventKind) (texts []string) {
	evs, _ := rt.Events(0)
	for _, e := range evs {
		if e.Kind == kind {
			texts = append(texts, e.Text)
		}
	}
	return texts
}

// TestDropUnsent: an output whose outside is away can be given up where its records may be dropped; how many those are is told
// before, in the answer and as an event. What comes behind them goes where the new definition says.
func TestDropUnsent(t *testing.T) {
	noLeaks(t)
	data, in := t.TempDir(), newTap(20, 10)
	a, b := &slotOutside{away: true}, &slotOutside{}
	cfg := runtime.Config{DataDir: data, Probation: -1, StopTimeout: 2 * time.Second}
	cfg.Load = func([]byte, runtime.Origin) (*jobs.Job, error) { return slotted("b", in, slot{"b", b}, 0), nil }
	rt := start(t, cfg)
	apply(t, rt, slotted("a", in, slot{"a", a}, 0))
	until(t, rt, "ten are to be sent", func() bool { return unsent(t, rt) == 10 })
	want := map[string]int64{"main": 10}

	next := byAPI(slotted("b", in, slot{"b", b}, 0))
	res, err := rt.Apply(t.Context(), next, runtime.ApplyOptions{DryRun: true})
	if err != nil || !maps.Equal(res.Jobs[0].Unsent, want) || len(res.Jobs[0].Dropped) > 0 || !slices.Contains(res.Jobs[0].Needs, "drop_unsent") {
		t.Errorf("dry run: %+v, %v", res, err)
	}
	var refused *runtime.UnsentError
	if _, err := rt.Apply(t.Context(), next, runtime.ApplyOptions{}); !errors.As(err, &refused) || !maps.Equal(refused.Unsent, want) {
		t.Errorf("Apply: %v", err)
	}
	if n := unsent(t, rt); n != 10 {
		t.Errorf("the refused change has left %d to be sent", n)
	}
	res, err = rt.Apply(t.Context(), next, runtime.ApplyOptions{DryRun: true, DropUnsent: true})
	if err != nil || !maps.Equal(res.Jobs[0].Dropped, want) || len(res.Jobs[0].Needs) > 0 {
		t.Errorf("dry run, dropping: %+v, %v", res, err)
	}
	if res, err = rt.Apply(t.Context(), next, runtime.ApplyOptions{DropUnsent: true}); err != nil || !maps.Equal(res.Jobs[0].Dropped, want) {
		t.Errorf("Apply, dropping: %+v, %v", res, err)
	}
	if texts := told(rt, runtime.EventUnsent); len(texts) != 1 || !strings.HasPrefix(texts[0], "10 records of output main were never sent") {
		t.Errorf("events: %q", texts)
	}
	if names := claimed(rt); strings.Count(names, "<sender:") != 1 {
		t.Errorf("left of the output that is given up: %s", names)
	}
	a.back()
	in.open(15)
	until(t, rt, "five more are out", func() bool { return len(b.has()) == 5 })
	stop(t, rt)
	rt = start(t, cfg)
	in.open(20)
	finish(t, rt)
	if got := b.has(); len(a.has()) > 0 || !slices.Equal(got, numbersFrom(10, 20)) {
		t.Errorf("a has %q, b %q", a.has(), got)
	}
}

// TestDropUnsentAndBack: a definition that was to drop what is unsent, and fails on probation, is taken back; what was dropped is
// gone, and all that comes behind it is sent once. Also where the process ends in between.
func TestDropUnsentAndBack(t *testing.T) {
	for _, restart := range []bool{false, true} {
		t.Run(map[bool]string{false: "in one process", true: "over a restart"}[restart], func(t *testing.T) {
			noLeaks(t)
			data, in := t.TempDir(), newTap(20, 10)
			a, b := &slotOutside{away: true}, &slotOutside{}
			old := func() *jobs.Job { return slotted("a", in, slot{"a", a}, 0) }
			bad := func() *jobs.Job { return slotted("b", in, slot{"b", b}, 15) }
			cfg := runtime.Config{DataDir: data, Probation: time.Hour, StopTimeout: 2 * time.Second}
			cfg.Load = func(text []byte, _ runtime.Origin) (*jobs.Job, error) {
				if string(text) == "b\n" {
					return bad(), nil
				}
				return old(), nil
			}
			rt := start(t, cfg)
			apply(t, rt, old())
			until(t, rt, "ten are to be sent", func() bool { return unsent(t, rt) == 10 })
			res, err := rt.Apply(t.Context(), byAPI(bad()), runtime.ApplyOptions{DropUnsent: true})
			if err != nil || res.Jobs[0].Dropped["main"] != 10 || res.Jobs[0].Until.IsZero() {
				t.Fatalf("Apply: %+v, %v", res, err)
			}
			a.back()
			if restart {
				stop(t, rt)
				rt = start(t, cfg)
			}
			in.open(20)
			until(t, rt, "the old one is back", func() bool { return len(told(rt, runtime.EventRolledBack)) == 1 })
			finish(t, rt)
			if got := slices.Concat(b.has(), a.has()); !slices.Equal(got, numbersFrom(10, 20)) {
				t.Errorf("b has %q, a %q", b.has(), a.has())
			}
		})
	}
}

// TestGivenUpTwice: what an earlier change gave up, and is yet to be sent, keeps the next change waiting, unless that drops it or
// takes it up again: then it goes on where it stood.
func TestGivenUpTwice(t *testing.T) {
	for _, drop := range []bool{false, true} {
		t.Run(map[bool]string{false: "taken up again", true: "dropped"}[drop], func(t *testing.T) {
			noLeaks(t)
			in := newTap(20, 10)
			a, b, c := &slotOutside{away: true}, &slotOutside{}, &slotOutside{}
			rt := start(t, runtime.Config{DataDir: t.TempDir(), Probation: time.Hour, StopTimeout: 2 * time.Second})
			apply(t, rt, slotted("a", in, slot{"a", a}, 0))
			until(t, rt, "ten are to be sent", func() bool { return unsent(t, rt) == 10 })
			apply(t, rt, slotted("b", in, slot{"b", b}, 0))
			var refused *runtime.UnsentError
			to := byAPI(slotted("c", in, slot{"c", c}, 0))
			if _, err := rt.Apply(t.Context(), to, runtime.ApplyOptions{}); !errors.As(err, &refused) || refused.Unsent["main"] != 10 {
				t.Fatalf("Apply: %v", err)
			}
			if !drop {
				apply(t, rt, slotted("a again", in, slot{"a", a}, 0))
				a.back()
				in.open(20)
				finish(t, rt)
				if got := a.has(); !slices.Equal(got, numbersFrom(0, 20)) {
					t.Errorf("a has %q", got)
				}
				return
			}
			res, err := rt.Apply(t.Context(), to, runtime.ApplyOptions{DropUnsent: true})
			if err != nil || res.Jobs[0].Dropped["main"] != 10 {
				t.Fatalf("Apply, dropping: %+v, %v", res, err)
			}
			a.back()
			in.open(20)
			finish(t, rt)
			if got := c.has(); len(a.has()) > 0 || !slices.Equal(got, numbersFrom(10, 20)) {
				t.Errorf("a has %q, c %q", a.has(), got)
			}
		})
	}
}

// TestGivenUpPlace: the place of an output that a job has given up, and may get back, belongs to nobody else: not to a job that
// is added meanwhile, not to another output of the job, and not to one of a file in the next process; once the probation is
// over it is free.
func TestGivenUpPlace(t *testing.T) {
	noLeaks(t)
	data, in := t.TempDir(), newTap(30, 10)
	a, b := &slotOutside{}, &slotOutside{}
	cfg := runtime.Config{DataDir: data, Probation: time.Hour, StopTimeout: 2 * time.Second}
	one := func() *jobs.Job { return slotted("a", in, slot{"a", a}, 0) }
	two := func() *jobs.Job { return slotted("b", in, slot{"b", b}, 15) }
	cfg.Load = func(text []byte, _ runtime.Origin) (*jobs.Job, error) {
		if string(text) == "b\n" {
			return two(), nil
		}
		return one(), nil
	}
	rt := start(t, cfg)
	apply(t, rt, one())
	until(t, rt, "ten are out", func() bool { return len(a.has()) == 10 })
	const says = "is to write slot a, which is still that of output main of job j"
	refused := func(j *jobs.Job) {
		t.Helper()
		if _, err := rt.Apply(t.Context(), byAPI(j), runtime.ApplyOptions{}); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("Apply: %v; want %q", err, says)
		}
	}
	other := func() *jobs.Job {
		k := jobs.New("k")
		jobs.To(numbers(k, newTap(1, 1)), "out", slot{"a", a}, jobs.JSON[int64]())
		return version(k, "k")
	}
	swapped := slotted("swapped", in, slot{"b", b}, 0)
	jobs.To(numbers(swapped, newTap(1, 1)), "second", slot{"a", a}, jobs.JSON[int64]())
	refused(swapped)
	apply(t, rt, two())
	refused(other())
	stop(t, rt)
	rt, err := runtime.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := rt.Start([]*jobs.Job{other()}); err == nil || !strings.Contains(err.Error(), says) {
		t.Errorf("Start: %v; want %q", err, says)
	}
	stop(t, rt)

	rt = start(t, cfg)
	refused(other())
	in.open(20)
	until(t, rt, "the old one is back", func() bool { return len(told(rt, runtime.EventRolledBack)) == 1 })
	until(t, rt, "twenty are out", func() bool { return len(a.has())+len(b.has()) == 20 })
	if _, err := rt.Apply(t.Context(), byAPI(slotted("c", in, slot{"b", b}, 0)), runtime.ApplyOptions{Probation: time.Millisecond}); err != nil {
		t.Fatal(err)
	}
	cfg.Load = func([]byte, runtime.Origin) (*jobs.Job, error) { return slotted("c", in, slot{"b", b}, 0), nil }
	stop(t, rt) // perhaps before it is settled: then the next process does that
	time.Sleep(2 * time.Millisecond)
	rt = start(t, cfg, other())
	in.open(30)
	finish(t, rt)
	got, want := slices.Concat(a.has(), b.has()), append(numbersFrom(0, 30), "0") // and the other's
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("a has %q, b %q", a.has(), b.has())
	}
}

// TestEndedElsewhere: a job of the same text has another place where a path is said from where a process stands. What it has yet to
// send is not forgotten there: an output that cannot go on says so, and nothing is called done.
func TestEndedElsewhere(t *testing.T) {
	noLeaks(t)
	in, data := newTap(10, 10), t.TempDir()
	there, elsewhere := &slotOutside{away: true}, &slotOutside{away: true}
	cfg := runtime.Config{DataDir: data, StopTimeout: 200 * time.Millisecond}
	rt := start(t, cfg, slotted("same", in, slot{"there", there}, 0))
	until(t, rt, "it has ended", func() bool { return jobStatus(t, rt, "j").State == runtime.StateEnded })
	stop(t, rt)
	rt = start(t, cfg, slotted("same", in, slot{"elsewhere", elsewhere}, 0))
	outputs := jobStatus(t, rt, "j").Outputs
	if len(outputs) != 1 || outputs[0].Unsent != 10 {
		t.Errorf("its outputs are %+v", outputs)
	}
	stop(t, rt)
}

// TestMoveEndedOutput: what a job that has ended has yet to send does not go to another place by a definition that it is given
// then: that is refused, or drops it.
func TestMoveEndedOutput(t *testing.T) {
	for _, drop := range []bool{false, true} {
		t.Run(map[bool]string{false: "refused", true: "dropped"}[drop], func(t *testing.T) {
			noLeaks(t)
			in := newTap(10, 10)
			a, b := &slotOutside{away: true}, &slotOutside{}
			cfg := runtime.Config{DataDir: t.TempDir(), Probation: time.Hour, StopTimeout: 2 * time.Second}
			cfg.Load = func(text []byte, _ runtime.Origin) (*jobs.Job, error) {
				if string(text) == "a\n" {
					return slotted("a", in, slot{"a", a}, 0), nil
				}
				return slotted("b", in, slot{"b", b}, 0), nil
			}
			rt := start(t, cfg)
			apply(t, rt, slotted("a", in, slot{"a", a}, 0))
			until(t, rt, "it has ended", func() bool { return jobStatus(t, rt, "j").State == runtime.StateEnded })
			want := map[string]int64{"main": 10}
			next := byAPI(slotted("b", in, slot{"b", b}, 0))
			res, err := rt.Apply(t.Context(), next, runtime.ApplyOptions{DryRun: true})
			if err != nil || !maps.Equal(res.Jobs[0].Unsent, want) || !slices.Contains(res.Jobs[0].Needs, "drop_unsent") {
				t.Errorf("dry run: %+v, %v", res, err)
			}
			res, err = rt.Apply(t.Context(), next, runtime.ApplyOptions{DropUnsent: drop})
			var refused *runtime.UnsentError
			switch {
			case drop && (err != nil || !maps.Equal(res.Jobs[0].Dropped, want)):
				t.Errorf("Apply, dropping: %+v, %v", res, err)
			case !drop && (!errors.As(err, &refused) || !maps.Equal(refused.Unsent, want)):
				t.Errorf("Apply: %v", err)
			}
			stop(t, rt)
			a.back()
			rt = start(t, cfg)
			finish(t, rt)
			sent := numbersFrom(0, 10)
			if drop {
				sent = nil
			}
			if got := a.has(); !slices.Equal(got, sent) || len(b.has()) > 0 {
				t.Errorf("a has %q, b %q", got, b.has())
			}
		})
	}
}
