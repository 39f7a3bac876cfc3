package runtime_test

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/jobs/connector/file"
	"github.com/sidestream-dev/sidestream/runtime"
)

func isBad(n int64) bool { return n%10 == 3 }

// spoiled fails for every tenth number, after the step has changed state and emitted something for it, and panics a few
// times, so that records are handled again that had failed before.
func spoiled(panics *atomic.Int64) func(int, int64) error {
	return func(_ int, n int64) error {
		if n%2000 == 1999 && panics.Load() < (n+1)/2000 {
			panics.Add(1)
			panic("once more")
		}
		if isBad(n) {
			return fmt.Errorf("%d is bad", n)
		}
		return nil
	}
}

// TestRecordErrors: a record that makes a step fail has exactly one effect, that of its source's on_error, in whatever
// attempt: what the step had done for it is undone.
func TestRecordErrors(t *testing.T) {
	const total = 10_000
	topic := jobs.BusTopic[int64]{Name: "dead-letters"}
	good := tallied(total, func(n int64) bool { return !isBad(n) })

	t.Run("skip", func(t *testing.T) {
		noLeaks(t)
		out := t.TempDir()
		var panics atomic.Int64
		j := jobs.New("j")
		j.Delivery, j.Parallelism = jobs.ExactlyOnce, 2
		jobs.To(tallies(numbers(j, newTap(total, total), jobs.SkipErrors()), spoiled(&panics)), "main",
			file.Sink{Path: filepath.Join(out, "j.jsonl")}, jobs.JSON[tally]())
		rt := start(t, runtime.Config{DataDir: t.TempDir()}, j)
		wait(t, rt)
		n := jobStatus(t, rt, "j").Counters
		if jobStatus(t, rt, "j").Restarts == 0 || n.Undone.In == 0 {
			t.Errorf("no attempt failed with something to undo: %+v", n)
		}
		if n.In != total || n.Rejected != total-int64(len(good)) || n.Out != int64(len(good)) { // what failed attempts had done counts once
			t.Errorf("%d in, %d out and %d rejected of %d, %d of them good; undone %+v", n.In, n.Out, n.Rejected, total, len(good), n.Undone)
		}
		stop(t, rt)
		sameLines(t, "main", fileLines(t, filepath.Join(out, "j.jsonl")), good)
	})

	t.Run("to", func(t *testing.T) {
		noLeaks(t)
		out := t.TempDir()
		var panics atomic.Int64
		j := jobs.New("j")
		j.Delivery, j.Parallelism = jobs.ExactlyOnce, 2
		jobs.To(tallies(numbers(j, newTap(total, total), jobs.ErrorsTo("dead")), spoiled(&panics)), "main",
			file.Sink{Path: filepath.Join(out, "j.jsonl")}, jobs.JSON[tally]())
		jobs.DeadLetters(j, "dead", nil, topic.Name)
		finish(t, start(t, runtime.Config{DataDir: t.TempDir()}, j, buryDead(topic, filepath.Join(out, "dead.txt"))))
		sameLines(t, "main", fileLines(t, filepath.Join(out, "j.jsonl")), good)
		var dead []string
		for n := range int64(total) {
			if isBad(n) {
				dead = append(dead, fmt.Sprintf("%d error=%d is bad step=tally origin=numbers@%d", n, n, n))
			}
		}
		sameLines(t, "dead letters", fileLines(t, filepath.Join(out, "dead.txt")), dead)
	})

	t.Run("fail", func(t *testing.T) {
		noLeaks(t)
		data, out := t.TempDir(), t.TempDir()
		mended := false
		build := func() *jobs.Job {
			return counting("j", newTap(total, total), out, func(_ int, n int64) error {
				if n == 5003 && !mended {
					return errors.New("5003 is bad")
				}
				return nil
			})
		}
		rt := start(t, runtime.Config{DataDir: data, AttemptsMax: 3}, build())
		var stalled *runtime.StalledError
		if err := rt.Wait(t.Context(), true); !errors.As(err, &stalled) || !strings.Contains(err.Error(), "record numbers@5003: 5003 is bad") {
			t.Fatalf("Wait: %v", err)
		}
		stop(t, rt)
		mended = true
		finish(t, start(t, runtime.Config{DataDir: data, RestartFailed: true}, build()))
		sameLines(t, "main", fileLines(t, filepath.Join(out, "j.jsonl")), tallied(total, nil))
	})
}

// buryDead builds a job that writes a line for each dead letter, with its headers.
func buryDead(topic jobs.BusTopic[int64], path string) *jobs.Job {
	j := jobs.New("bury")
	j.Delivery = jobs.ExactlyOnce
	lines, _ := jobs.Attach(jobs.FromTopic(j, topic), jobs.Op[int64, string, jobs.None]{Kind: "headers", Atomic: true,
		New: func(_ *jobs.Env, emit func(*jobs.Rec[string]), _ func(*jobs.Rec[jobs.None])) (jobs.Instance[int64], error) {
			return jobs.Instance[int64]{Process: func(r *jobs.Rec[int64]) error {
				line := fmt.Sprint(r.Value)
				for _, h := range r.Headers {
					line += fmt.Sprintf(" %s=%s", h.Name, h.Value)
				}
				out := jobs.With(r, line)
				emit(&out)
				return nil
			}}, nil
		}})
	jobs.To(lines, "main", file.Sink{Path: path, Format: file.Lines}, jobs.Text())
	return j
}
