package runtime_test

import (
	"context"
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

// TestPanicIsContained: a job that panics is started again, from its last sealed epoch, and its siblings do not notice.
func TestPanicIsContained(t *testing.T) {
	noLeaks(t)
	out := t.TempDir()
	const total = 20_000
	var panics atomic.Int64
	bad := counting("bad", newTap(total, total), out, func(_ int, n int64) error {
		if n%3000 == 2999 && panics.Load() < (n+1)/3000 {
			panics.Add(1)
			panic(fmt.Sprintf("number %d", n))
		}
		return nil
	})
	rt := start(t, runtime.Config{DataDir: t.TempDir()}, counting("a", newTap(total, total), out, nil), bad, counting("b", newTap(total, total), out, nil))
	wait(t, rt)
	st := jobStatus(t, rt, "bad")
	if st.Restarts != 6 || !strings.Contains(st.Error, "panic: number 17999") || !strings.Contains(st.Error, "step") {
		t.Errorf("%d restarts, error %q", st.Restarts, st.Error)
	}
	for _, name := range []string{"a", "b"} {
		if st := jobStatus(t, rt, name); st.Restarts != 0 || st.Error != "" {
			t.Errorf("job %s noticed: %d restarts, error %q", name, st.Restarts, st.Error)
		}
	}
	stop(t, rt)
	for _, name := range []string{"a", "bad", "b"} {
		sameLines(t, name, fileLines(t, filepath.Join(out, name+".jsonl")), tallied(total, nil))
	}
}

// TestTenBarrenAttemptsFail: a job whose ten attempts in a row seal nothing is failed. It stays a producer: who reads what
// it writes waits for it by name. Mended, it goes on where it stood.
func TestTenBarrenAttemptsFail(t *testing.T) {
	noLeaks(t)
	data, out := t.TempDir(), t.TempDir()
	const total, good = 4000, 1000
	topic := jobs.BusTopic[int64]{Name: "numbers"}
	var attempts atomic.Int64
	broken := true
	build := func(in *tap) []*jobs.Job {
		w := jobs.New("writer")
		checked := jobs.TryMap(numbers(w, in), func(n int64) (int64, error) {
			if n == good && broken {
				attempts.Add(1)
				return 0, errors.New("no good")
			}
			return n, nil
		})
		jobs.ToTopic(checked, topic)
		r := jobs.New("reader")
		r.Delivery = jobs.ExactlyOnce
		jobs.To(tallies(jobs.FromTopic(r, topic), nil), "main", file.Sink{Path: filepath.Join(out, "reader.jsonl")}, jobs.JSON[tally]())
		return []*jobs.Job{w, r, counting("other", newTap(total, total), out, nil)}
	}

	in := newTap(total, good)
	rt := start(t, runtime.Config{DataDir: data}, build(in)...)
	until(t, rt, "the good numbers are read", func() bool { return linesOf(t, filepath.Join(out, "reader.jsonl")) == good })
	in.open(total)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	err := rt.Wait(ctx, true)
	var stalled *runtime.StalledError
	if !errors.As(err, &stalled) || len(stalled.Jobs) != 2 || !strings.Contains(err.Error(), "job writer has failed") ||
		!strings.Contains(err.Error(), "job reader waits for job writer") {
		t.Fatalf("Wait: %v", err)
	}
	// The attempt that sealed the good numbers failed too; ten more sealed nothing.
	if st := jobStatus(t, rt, "writer"); st.State != runtime.StateFailed || attempts.Load() != 11 {
		t.Errorf("the writer is %s after %d attempts, want failed after 11", st.State, attempts.Load())
	}
	if st := jobStatus(t, rt, "reader"); len(st.Waiting) != 1 || !strings.Contains(st.Waiting[0], "writer") || st.Restarts != 0 {
		t.Errorf("the reader waits for %q, %d restarts", st.Waiting, st.Restarts)
	}
	stop(t, rt)
	sameLines(t, "other", fileLines(t, filepath.Join(out, "other.jsonl")), tallied(total, nil))
	sameLines(t, "reader", fileLines(t, filepath.Join(out, "reader.jsonl")), tallied(good, nil))

	broken = false
	finish(t, start(t, runtime.Config{DataDir: data}, build(newTap(total, total))...))
	sameLines(t, "reader, mended", fileLines(t, filepath.Join(out, "reader.jsonl")), tallied(total, nil))
}

// TestProgressForgivesFailures: attempts that seal something are not counted against a job, however many fail.
func TestProgressForgivesFailures(t *testing.T) {
	noLeaks(t)
	out := t.TempDir()
	const total, failures = 1000, 25
	in := newTap(total, 0)
	var due atomic.Int64 // the number that fails next
	j := counting("j", in, out, func(_ int, n int64) error {
		if due.CompareAndSwap(n, -1) {
			return errors.New("once")
		}
		return nil
	})
	due.Store(-1)
	rt := start(t, runtime.Config{DataDir: t.TempDir(), AttemptsMax: 2}, j)
	for i := range int64(failures) {
		at := i * 10
		epochs := jobStatus(t, rt, "j").Counters.Epochs
		in.open(at + 5)
		until(t, rt, "an epoch is sealed", func() bool { return jobStatus(t, rt, "j").Counters.Epochs > epochs })
		due.Store(at + 7)
		in.open(at + 10)
		until(t, rt, "the attempt fails", func() bool { return jobStatus(t, rt, "j").Restarts > int(i) })
	}
	in.open(total)
	finish(t, rt)
	sameLines(t, "j", fileLines(t, filepath.Join(out, "j.jsonl")), tallied(total, nil))
}
