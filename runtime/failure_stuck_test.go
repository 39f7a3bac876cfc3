package runtime_test

import (
	"errors"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/jobs/connector/file"
	"github.com/sidestream-dev/sidestream/runtime"
)

// TestStuckJob: a job that does not return from its own code is named as such while the others go on. Stopping leaves it
// behind at the deadline, named and counted; what it comes back with later counts for nothing (R9).
func TestStuckJob(t *testing.T) {
	noLeaks(t)
	data, out := t.TempDir(), t.TempDir()
	const total = 5000
	release := make(chan struct{})
	var blocks atomic.Bool
	blocks.Store(true)
	build := func() []*jobs.Job {
		return []*jobs.Job{counting("a", newTap(total, total), out, nil), counting("stuck", newTap(total, total), out, func(_ int, n int64) error {
			if n == 2500 && blocks.Load() {
				<-release
			}
			return nil
		}), counting("b", newTap(total, total), out, nil)}
	}
	// Who is cut has StuckAfter to come back: those that are not stuck must, also on a busy machine.
	rt := start(t, runtime.Config{DataDir: data, StuckAfter: time.Second, StopTimeout: 200 * time.Millisecond}, build()...)
	until(t, rt, "the others have ended and the stuck one is named", func() bool {
		st := jobStatus(t, rt, "stuck")
		return jobStatus(t, rt, "a").State == runtime.StateEnded && jobStatus(t, rt, "b").State == runtime.StateEnded &&
			len(st.Stuck) == 1 && strings.Contains(st.Stuck[0], "tally") && strings.Contains(st.Stuck[0], "has not returned for")
	})
	err := rt.Stop()
	var stuck *runtime.StuckError
	if !errors.As(err, &stuck) || len(stuck.Tasks) != 1 || !strings.Contains(stuck.Tasks[0], "stuck: ") || !strings.Contains(stuck.Tasks[0], "tally") {
		t.Fatalf("Stop: %v", err)
	}
	for _, name := range []string{"a", "b"} {
		sameLines(t, name, fileLines(t, filepath.Join(out, name+".jsonl")), tallied(total, nil))
	}

	blocks.Store(false)
	rt = start(t, runtime.Config{DataDir: data}, build()...)
	close(release) // the old goroutine comes back while the new attempt is at work
	finish(t, rt)
	sameLines(t, "stuck", fileLines(t, filepath.Join(out, "stuck.jsonl")), tallied(total, nil))
}

// TestStuckAttemptIsRefused: one subtask of a job is stuck and another fails, so that the job goes on without the stuck one
// in a new attempt. What the old one does when it comes back is refused, by its state handles or by its attempt number.
func TestStuckAttemptIsRefused(t *testing.T) {
	for _, keyed := range []bool{true, false} {
		name := map[bool]string{true: "with state", false: "without state"}[keyed]
		t.Run(name, func(t *testing.T) {
			noLeaks(t)
			out := t.TempDir()
			const total = 20_000
			var begun [2]atomic.Bool
			blocked, release := make(chan struct{}), make(chan struct{})
			step := func(subtask int, n int64) error {
				switch {
				case begun[subtask].Swap(true):
				case subtask == 0:
					close(blocked)
					<-release
				default:
					<-blocked
					panic("the other one")
				}
				return nil
			}
			j := jobs.New("j")
			j.Delivery, j.Parallelism = jobs.ExactlyOnce, 2
			var outs *jobs.Stream[tally]
			if keyed {
				outs = tallies(numbers(j, newTap(total, total)), step)
			} else {
				// The step behind is the one with state, so that the stuck one meets no handle that would refuse.
				moved, _ := jobs.Attach(jobs.KeyBy(numbers(j, newTap(total, total), jobs.Parallel(1)), func(n int64) int64 { return n % tallyKeys }, jobs.Parallel(1)),
					jobs.Op[int64, int64, jobs.None]{Kind: "pass", Atomic: true, Keyed: true,
						New: func(env *jobs.Env, emit func(*jobs.Rec[int64]), _ func(*jobs.Rec[jobs.None])) (jobs.Instance[int64], error) {
							return jobs.Instance[int64]{Process: func(r *jobs.Rec[int64]) error {
								emit(r)
								return step(env.Subtask, r.Value)
							}}, nil
						}})
				outs = tallies(moved, nil)
			}
			jobs.To(outs, "main", file.Sink{Path: filepath.Join(out, "j.jsonl")}, jobs.JSON[tally]())
			rt := start(t, runtime.Config{DataDir: t.TempDir(), StuckAfter: 50 * time.Millisecond}, j)
			until(t, rt, "a new attempt runs", func() bool {
				st := jobStatus(t, rt, "j")
				return st.Restarts == 1 && st.Counters.Out > 0 && len(st.Stuck) == 1
			})
			close(release)
			wait(t, rt)
			until(t, rt, "the old one is gone and no longer named", func() bool { return len(jobStatus(t, rt, "j").Stuck) == 0 })
			stop(t, rt)
			sameLines(t, "j", fileLines(t, filepath.Join(out, "j.jsonl")), tallied(total, nil))
		})
	}
}
