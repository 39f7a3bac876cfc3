package runtime_test

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/jobs/connector/file"
	"github.com/sidestream-dev/sidestream/runtime"
)

// hoarding tallies numbers by key and keeps something of each with it: far more than an entry holds for every tenth.
func hoarding(in *jobs.Stream[int64]) *jobs.Stream[tally] {
	out, _ := jobs.Process(jobs.KeyBy(in, func(n int64) int64 { return n % tallyKeys }), func(s *jobs.Step[int64, int64, tally, jobs.None]) {
		seen, sum := jobs.ValueOf[int64](s, "seen"), jobs.ValueOf[int64](s, "sum")
		hoard := jobs.ValueOf[string](s, "hoard")
		s.OnRecord = func(n int64) error {
			a, _ := seen.Get()
			b, _ := sum.Get()
			seen.Set(a + 1)
			sum.Set(b + n)
			s.Emit(tally{n, a + 1, b + n})
			size := 10
			if isBad(n) {
				size = 2 << 20
			}
			hoard.Set(strings.Repeat("x", size))
			return nil
		}
	}, jobs.ID("tally"))
	return out
}

// TestEntryTooLarge: a record that makes an entry of state larger than one may be is that record's error, with the effect of
// on_error, and no panic of its job.
func TestEntryTooLarge(t *testing.T) {
	const total = 500
	run := func(t *testing.T, out string, opts ...jobs.Option) (*runtime.Runtime, error) {
		j := jobs.New("j")
		j.Delivery = jobs.ExactlyOnce
		jobs.To(hoarding(numbers(j, newTap(total, total), opts...)), "main", file.Sink{Path: filepath.Join(out, "j.jsonl")}, jobs.JSON[tally]())
		rt := start(t, runtime.Config{DataDir: t.TempDir(), AttemptsMax: 2}, j)
		return rt, rt.Wait(t.Context(), true)
	}
	t.Run("skip", func(t *testing.T) {
		noLeaks(t)
		out := t.TempDir()
		rt, err := run(t, out, jobs.SkipErrors())
		if st := jobStatus(t, rt, "j"); err != nil || st.Restarts != 0 || st.Counters.Rejected != total/10 {
			t.Errorf("%v, %d restarts, %d rejected", err, st.Restarts, st.Counters.Rejected)
		}
		stop(t, rt)
		sameLines(t, "main", fileLines(t, filepath.Join(out, "j.jsonl")), tallied(total, func(n int64) bool { return !isBad(n) }))
	})
	t.Run("fail", func(t *testing.T) {
		noLeaks(t)
		rt, err := run(t, t.TempDir())
		var stalled *runtime.StalledError
		if !errors.As(err, &stalled) || !strings.Contains(err.Error(), "step tally") || !strings.Contains(err.Error(), "record numbers@3: checkpoint: an entry of ") ||
			strings.Contains(err.Error(), "panic") {
			t.Errorf("%v", err)
		}
		stop(t, rt)
	})
}

// TestRecordTooLarge: a record too large to be written is an error of that record; its dead letter is cut.
func TestRecordTooLarge(t *testing.T) {
	noLeaks(t)
	const total = 100
	out := t.TempDir()
	j := jobs.New("j")
	in := numbers(j, newTap(total, total), jobs.ErrorsTo("dead"))
	sized := jobs.Map(in, func(n int64) string { return strings.Repeat("x", int(n/(total-1))*2*jobs.RecordBytesMax) })
	jobs.To(sized, "main", file.Sink{Path: filepath.Join(out, "main.jsonl")}, jobs.JSON[string]())
	jobs.DeadLetters(j, "dead", file.Sink{Path: filepath.Join(out, "dead.jsonl")}, "")
	rt := start(t, runtime.Config{DataDir: t.TempDir(), AttemptsMax: 2}, j)
	wait(t, rt)
	if st := jobStatus(t, rt, "j"); st.Restarts != 0 || st.Counters.Rejected != 1 {
		t.Errorf("%d restarts, %d rejected", st.Restarts, st.Counters.Rejected)
	}
	stop(t, rt)
	if n := linesOf(t, filepath.Join(out, "main.jsonl")); n != total-1 {
		t.Errorf("%d records were written, want %d", n, total-1)
	}
	if n := linesOf(t, filepath.Join(out, "dead.jsonl")); n != 1 {
		t.Errorf("%d dead letters", n)
	}
}
