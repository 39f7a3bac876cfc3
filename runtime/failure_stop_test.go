package runtime_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/jobs/connector/file"
	"github.com/sidestream-dev/sidestream/jobs/operator"
	"github.com/sidestream-dev/sidestream/runtime"
)

// TestLastBarrier: stopping is a barrier, not the end of input: no window fires early, what is open stays in state, and the
// next run goes on with it.
func TestLastBarrier(t *testing.T) {
	noLeaks(t)
	data, out := t.TempDir(), t.TempDir()
	const total = 1000
	type pane struct{ Key, Start, N, Sum int64 }
	build := func(in *tap) *jobs.Job {
		j := jobs.New("windows")
		j.Delivery, j.Parallelism = jobs.ExactlyOnce, 2
		s := jobs.KeyBy(numbers(j, in, jobs.EventTime(func(n int64) time.Time { return time.UnixMilli(n * 10) }, 0)), func(n int64) int64 { return n % 3 })
		w, _ := operator.Tumbling(s, time.Second, operator.Aggregates(func(key int64, p *operator.Pane) pane {
			return pane{key, int64(p.Start), p.Int(0), int64(p.Float(1))}
		}, operator.Count[int64](), operator.Sum(func(n int64) float64 { return float64(n) })))
		jobs.To(w, "main", file.Sink{Path: filepath.Join(out, "windows.jsonl")}, jobs.JSON[pane]())
		return j
	}
	want := func(ended int64) (lines []string) {
		for start := int64(0); start < ended; start += 1000 {
			panes := [3]pane{{0, start, 0, 0}, {1, start, 0, 0}, {2, start, 0, 0}}
			for n := start / 10; n < start/10+100; n++ {
				panes[n%3].N++
				panes[n%3].Sum += n
			}
			for _, p := range panes {
				b, _ := json.Marshal(p)
				lines = append(lines, string(b))
			}
		}
		return lines
	}
	for _, opened := range []int64{150, 150, 199, 450, 999} {
		rt := start(t, runtime.Config{DataDir: data}, build(newTap(total, opened)))
		until(t, rt, "all windows that are over are out", func() bool {
			return jobStatus(t, rt, "windows").State == runtime.StateRunning && linesOf(t, filepath.Join(out, "windows.jsonl")) >= len(want(opened/100*1000))
		})
		stop(t, rt)
		sameLines(t, fmt.Sprintf("stopped at %d", opened), fileLines(t, filepath.Join(out, "windows.jsonl")), want(opened/100*1000))
	}
	finish(t, start(t, runtime.Config{DataDir: data}, build(newTap(total, total))))
	sameLines(t, "at the end", fileLines(t, filepath.Join(out, "windows.jsonl")), want(total*10))
}

// TestStopAnywhere: six jobs over the bus, stopped at random moments and started again until they are done, give exactly
// what an undisturbed run gives.
func TestStopAnywhere(t *testing.T) {
	noLeaks(t)
	rng := seeded(t, "STOP_SEED")
	for _, parallelism := range []int{1, 3} {
		t.Run(fmt.Sprintf("parallelism=%d", parallelism), func(t *testing.T) {
			in, out, data := t.TempDir(), t.TempDir(), t.TempDir()
			want := expect(writeReadings(t, in, 10_000, rng.Uint64()))
			topic := signals
			topic.Topic.Partitions = parallelism
			stops := 0
			for done := false; !done && stops < 200; {
				rt := start(t, runtime.Config{DataDir: data}, sixJobs(in, out, parallelism, jobs.ExactlyOnce, topic)...)
				time.Sleep(time.Duration(rng.Int64N(int64(15 * time.Millisecond))))
				done = true
				for _, j := range rt.Status().Jobs {
					done = done && j.State == runtime.StateEnded
				}
				stop(t, rt)
				stops++
			}
			t.Logf("stopped %d times", stops)
			if stops < 2 {
				t.Errorf("the jobs were done before they could be stopped")
			}
			finish(t, start(t, runtime.Config{DataDir: data}, sixJobs(in, out, parallelism, jobs.ExactlyOnce, topic)...))
			compare(t, got(t, out), want)
		})
	}
}

// closedSink is never ready.
type closedSink struct{}

func (closedSink) Kind() string       { return "closed" }
func (closedSink) ExactlyOnce() error { return nil }

func (closedSink) Open(context.Context, jobs.SinkEnv) (jobs.Writer, error) {
	return nil, errors.New("closed")
}

// TestStopDeadline: one deadline bounds a stop, also where a job is stuck and an output cannot be sent (R9).
func TestStopDeadline(t *testing.T) {
	free := make(chan struct{})
	defer close(free)
	stuck := counting("stuck", newTap(100, 10), t.TempDir(), func(int, int64) error { <-free; return nil })
	unsent := jobs.New("unsent")
	jobs.To(numbers(unsent, newTap(100, 10)), "main", closedSink{}, jobs.JSON[int64]())
	rt := start(t, runtime.Config{DataDir: t.TempDir(), StopTimeout: 200 * time.Millisecond, StuckAfter: 200 * time.Millisecond}, stuck, unsent)
	until(t, rt, "records to send", func() bool { return jobStatus(t, rt, "unsent").Outputs[0].Unsent == 10 })
	stopped := make(chan error, 1)
	go func() { stopped <- rt.Stop() }()
	select {
	case err := <-stopped:
		if stuck := new(runtime.StuckError); !errors.As(err, &stuck) {
			t.Errorf("Stop returned %v, want a StuckError", err)
		}
	case <-time.After(patience):
		t.Fatal("Stop does not return")
	}
}

// stuckSink takes nothing and does not come back.
type stuckSink struct {
	closedSink
	free chan struct{}
}

func (s stuckSink) Open(context.Context, jobs.SinkEnv) (jobs.Writer, error) {
	<-s.free
	return nil, errors.New("closed")
}

// TestStopWithStuckSink: a sender stuck in a job's own sink is left behind and named (R9); the next run goes on with what it
// did not send.
func TestStopWithStuckSink(t *testing.T) {
	free := make(chan struct{})
	defer close(free)
	job := func() *jobs.Job {
		j := jobs.New("j")
		jobs.To(numbers(j, newTap(10, 10)), "main", stuckSink{free: free}, jobs.JSON[int64]())
		return j
	}
	cfg := runtime.Config{DataDir: t.TempDir(), StopTimeout: 200 * time.Millisecond, StuckAfter: 200 * time.Millisecond}
	for range 2 {
		rt := start(t, cfg, job())
		until(t, rt, "records to send", func() bool { return jobStatus(t, rt, "j").Outputs[0].Unsent == 10 })
		err := rt.Stop()
		if stuck := new(runtime.StuckError); !errors.As(err, &stuck) || len(stuck.Tasks) != 1 || stuck.Tasks[0] != "j: the sender of main" {
			t.Errorf("Stop returned %v, want a StuckError that names the sender", err)
		}
	}
}
