package runtime_test

import (
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/jobs/connector/file"
	"github.com/sidestream-dev/sidestream/runtime"
)

// version makes a definition text for a Go job, so that a test says when it is another.
func version(j *jobs.Job, text string) *jobs.Job {
	j.Definition = []byte(text + "\n")
	return j
}

// wide is a counting job with a parallelism and a version.
func wide(in *tap, out string, parallelism int, text string, step func(int, int64) error) *jobs.Job {
	j := counting("j", in, out, step)
	j.Parallelism = parallelism
	return version(j, text)
}

func fileOf(out string) string { return filepath.Join(out, "j.jsonl") }

// TestUpdateKeepsState: a job is given other definitions while it runs, with other parallelisms and steps; each goes on where
// the one before stopped, with the state of the steps that are still there. What a process that begins then restores from the
// log is the same.
func TestUpdateKeepsState(t *testing.T) {
	noLeaks(t)
	data, out := t.TempDir(), t.TempDir()
	const total = 30_000
	in := newTap(total, 0)
	rt := start(t, runtime.Config{DataDir: data, Probation: time.Millisecond})
	apply(t, rt, wide(in, out, 1, "0", nil))
	for i, parallelism := range []int{3, 2, 5, 1, 4} {
		in.open(int64(i+1) * 5000)
		until(t, rt, "some is counted", func() bool { return linesOf(t, fileOf(out)) >= i*5000+1000 })
		res := apply(t, rt, wide(in, out, parallelism, strings.Repeat("+", i+1), nil))
		if d := res.Jobs[0]; d.Action != runtime.ActionUpdate || !d.Restarts || !strings.Contains(d.Text, "+"+strings.Repeat("+", i+1)) {
			t.Errorf("update %d: %+v", i, d)
		}
		if i == 2 { // the rest by another process
			until(t, rt, "probation is over", func() bool {
				evs, _ := rt.Events(0)
				return slices.ContainsFunc(evs, func(e runtime.Event) bool { return e.Kind == runtime.EventSettled })
			})
			stop(t, rt)
			load := func([]byte, runtime.Origin) (*jobs.Job, error) { return wide(in, out, 5, "+++", nil), nil }
			rt = start(t, runtime.Config{DataDir: data, Load: load})
		}
	}
	in.open(total)
	finish(t, rt)
	sameLines(t, "j", fileLines(t, fileOf(out)), tallied(total, nil))
}

// TestStateLossIsRefused: a definition that drops state is refused, by Apply and by the next start, unless that is allowed; a
// step that comes back later does not find what was dropped.
func TestStateLossIsRefused(t *testing.T) {
	noLeaks(t)
	data, out := t.TempDir(), t.TempDir()
	in := newTap(3000, 1000)
	stateless := func() *jobs.Job {
		j := jobs.New("j")
		j.Delivery = jobs.ExactlyOnce
		jobs.To(jobs.Map(numbers(j, in), func(n int64) tally { return tally{n, 0, 0} }), "main", file.Sink{Path: fileOf(out)}, jobs.JSON[tally]())
		return version(j, "stateless")
	}
	rt := start(t, runtime.Config{DataDir: data, Probation: -1}, wide(in, out, 1, "one", nil))
	until(t, rt, "a thousand are counted", func() bool { return linesOf(t, fileOf(out)) == 1000 })
	files := []runtime.Definition{{Job: stateless(), Origin: runtime.OriginFile}}
	var loss *runtime.StateLossError
	if _, err := rt.Apply(t.Context(), files, runtime.ApplyOptions{}); !errors.As(err, &loss) || len(loss.Loss) != 1 || loss.Loss[0].Step != "tally" {
		t.Fatalf("Apply: %v", err)
	}
	if d, err := rt.Apply(t.Context(), files, runtime.ApplyOptions{DryRun: true}); err != nil || len(d.Jobs[0].StateLoss) != 1 {
		t.Fatalf("dry run: %+v, %v", d, err)
	}
	if st := jobStatus(t, rt, "j"); st.State != runtime.StateRunning || st.Restarts > 0 {
		t.Errorf("the refused change left the job %s", st.State)
	}
	if _, err := rt.Apply(t.Context(), byAPI(stateless()), runtime.ApplyOptions{AllowStateLoss: true}); err == nil || !strings.Contains(err.Error(), "is defined by a file") {
		t.Errorf("the API changed a job of a file: %v", err)
	}
	if _, err := rt.Apply(t.Context(), files, runtime.ApplyOptions{AllowStateLoss: true}); err != nil {
		t.Fatal(err)
	}
	in.open(2000)
	until(t, rt, "another thousand are out", func() bool { return linesOf(t, fileOf(out)) == 2000 })
	stop(t, rt)

	rt, err := runtime.Open(runtime.Config{DataDir: data})
	if err != nil {
		t.Fatal(err)
	}
	if err := rt.Start([]*jobs.Job{wide(in, out, 2, "two", nil)}); err != nil {
		t.Fatalf("a step that keeps state was added: %v", err)
	}
	in.open(3000)
	finish(t, rt)
	want := append(tallied(1000, nil), tallied(3000, func(n int64) bool { return n >= 2000 })...)
	var got []string
	for _, l := range fileLines(t, fileOf(out)) {
		if !strings.Contains(l, `"seen":0`) {
			got = append(got, l)
		}
	}
	sameLines(t, "j", got, want)
}

// TestProbation: a definition whose attempt fails soon after the change is taken back; the old one goes on where the new one had
// come, with the state that the new one had dropped.
func TestProbation(t *testing.T) {
	for _, restart := range []bool{false, true} {
		t.Run(map[bool]string{false: "in one process", true: "over a restart"}[restart], func(t *testing.T) {
			noLeaks(t)
			data, out := t.TempDir(), t.TempDir()
			const total = 6000
			in := newTap(total, 2000)
			old := func() *jobs.Job { return wide(in, out, 2, "old", nil) }
			bad := func() *jobs.Job {
				j := jobs.New("j")
				j.Delivery = jobs.ExactlyOnce
				checked := jobs.TryMap(numbers(j, in), func(n int64) (tally, error) {
					if n >= 3000 {
						return tally{}, errors.New("too large for me")
					}
					return tally{n, -1, -1}, nil
				})
				jobs.To(checked, "main", file.Sink{Path: fileOf(out)}, jobs.JSON[tally]())
				return version(j, "bad")
			}
			load := func(text []byte, _ runtime.Origin) (*jobs.Job, error) {
				if string(text) == "bad\n" {
					return bad(), nil
				}
				return old(), nil
			}
			cfg := runtime.Config{DataDir: data, Load: load, Probation: time.Hour, SnapshotBytes: 1}
			rt := start(t, cfg)
			apply(t, rt, old())
			until(t, rt, "two thousand are counted", func() bool { return linesOf(t, fileOf(out)) == 2000 })
			if _, err := rt.Apply(t.Context(), byAPI(bad()), runtime.ApplyOptions{AllowStateLoss: true}); err != nil {
				t.Fatal(err)
			}
			in.open(3000)
			until(t, rt, "another thousand are out", func() bool { return linesOf(t, fileOf(out)) == 3000 })
			if restart {
				stop(t, rt)
				rt = start(t, cfg)
			}
			if st := jobStatus(t, rt, "j"); st.Probation.IsZero() || st.RolledBack != nil {
				t.Errorf("on probation: %+v", st)
			}
			in.open(total)
			until(t, rt, "the old definition is back", func() bool { return jobStatus(t, rt, "j").RolledBack != nil })
			if st := jobStatus(t, rt, "j"); !st.Probation.IsZero() || st.Error != "" || !strings.Contains(st.RolledBack.Error, "too large for me") {
				t.Errorf("taken back: %+v", st)
			}
			finish(t, rt)
			evs, _ := rt.Events(0)
			if !slices.ContainsFunc(evs, func(e runtime.Event) bool {
				return e.Kind == runtime.EventRolledBack && strings.Contains(e.Text, "too large for me")
			}) {
				t.Errorf("no event says that the definition was taken back: %+v", evs)
			}
			want := tallied(total, func(n int64) bool { return n < 2000 || n >= 3000 })
			var got []string
			for _, l := range fileLines(t, fileOf(out)) {
				if !strings.Contains(l, "-1") {
					got = append(got, l)
				}
			}
			sameLines(t, "j", got, want)
		})
	}
}

// TestPausedAndStoppedStaySo: across a restart of the process; and each goes on where it stood.
func TestPausedAndStoppedStaySo(t *testing.T) {
	noLeaks(t)
	data, out := t.TempDir(), t.TempDir()
	const total = 4000
	in := newTap(total, 1000)
	def := func() *jobs.Job { return wide(in, out, 2, "one", nil) }
	cfg := runtime.Config{DataDir: data}
	ctx := t.Context()
	rt := start(t, cfg, def())
	opened := int64(1000)
	for i, tt := range []struct {
		rest func(*runtime.Runtime) error
		back func(*runtime.Runtime) error
		want runtime.JobState
	}{
		{func(rt *runtime.Runtime) error { return rt.PauseJob(ctx, "j") }, func(rt *runtime.Runtime) error { return rt.ResumeJob(ctx, "j") }, runtime.StatePaused},
		{func(rt *runtime.Runtime) error { return rt.StopJob(ctx, "j", runtime.StopOptions{}) },
			func(rt *runtime.Runtime) error { return rt.RestartJob(ctx, "j") }, runtime.StateStopped},
		{func(rt *runtime.Runtime) error { return rt.StopJob(ctx, "j", runtime.StopOptions{Force: true}) },
			func(rt *runtime.Runtime) error { return rt.ResumeJob(ctx, "j") }, runtime.StateStopped},
	} {
		until(t, rt, "what there is is counted", func() bool { return linesOf(t, fileOf(out)) == int(opened) })
		if err := tt.rest(rt); err != nil {
			t.Fatal(err)
		}
		for _, again := range []bool{false, true} {
			if again {
				stop(t, rt)
				rt = start(t, cfg, def())
			}
			if st := jobStatus(t, rt, "j").State; st != tt.want {
				t.Errorf("%d: the job is %s, want %s", i, st, tt.want)
			}
		}
		opened += 1000
		in.open(opened)
		if linesOf(t, fileOf(out)) != int(opened)-1000 {
			t.Errorf("%d: a job that is %s has read on", i, tt.want)
		}
		if err := tt.back(rt); err != nil {
			t.Fatal(err)
		}
	}
	finish(t, rt)
	sameLines(t, "j", fileLines(t, fileOf(out)), tallied(total, nil))
}
