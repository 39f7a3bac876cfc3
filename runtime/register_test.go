package runtime_test

import (
	"path/filepath"
	"slices"
	"testing"

	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/jobs/connector/file"
	"github.com/sidestream-dev/sidestream/runtime"
)

// TestDefinitionsChange: what the log says of jobs that were changed, left out and given again, run by run, is read back as
// it was. A job that is left out keeps its place and state.
func TestDefinitionsChange(t *testing.T) {
	noLeaks(t)
	data, out := t.TempDir(), t.TempDir()
	const total = 6000
	topic := jobs.BusTopic[int64]{Name: "numbers"}
	writer := func(opened int64, changed bool) *jobs.Job {
		j := jobs.New("writer")
		s := numbers(j, newTap(total, opened))
		jobs.ToTopic(s, topic)
		if changed { // one more output outside, which comes and goes, and never had anything to send
			jobs.To(jobs.Filter(s, func(n int64) bool { return n < 0 }), "extra", file.Sink{Path: filepath.Join(out, "extra.jsonl")}, jobs.JSON[int64]())
		}
		return j
	}
	reader := func(more bool) *jobs.Job {
		j := readTopic("reader", topic, out, nil)
		if more { // a second subscription, which comes and goes
			jobs.To(jobs.Filter(jobs.FromTopic(j, topic, jobs.ID("again")), func(n int64) bool { return n < 0 }), "none",
				file.Sink{Path: filepath.Join(out, "none.jsonl")}, jobs.JSON[int64]())
		}
		return j
	}
	runs := []struct {
		opened int64
		defs   func(opened int64) []*jobs.Job
		read   int64 // how far the reader comes
	}{
		{1000, func(n int64) []*jobs.Job { return []*jobs.Job{writer(n, false), reader(false)} }, 1000},
		{2000, func(n int64) []*jobs.Job { return []*jobs.Job{writer(n, true), reader(true)} }, 2000},
		{3000, func(n int64) []*jobs.Job { return []*jobs.Job{writer(n, false)} }, 2000},
		{3000, func(n int64) []*jobs.Job { return []*jobs.Job{writer(n, false)} }, 2000},
		{4000, func(n int64) []*jobs.Job { return []*jobs.Job{writer(n, true), reader(false)} }, 4000},
		{5000, func(n int64) []*jobs.Job { return []*jobs.Job{writer(n, false), reader(true)} }, 5000},
	}
	for i, r := range runs {
		rt := start(t, runtime.Config{DataDir: data}, r.defs(r.opened)...)
		if missing := rt.Status().Missing; slices.Contains(missing, "reader") != (len(rt.Status().Jobs) == 1) {
			t.Errorf("run %d: missing jobs: %q", i, missing)
		}
		until(t, rt, "the jobs have read what there is", func() bool {
			return linesOf(t, filepath.Join(out, "reader.jsonl")) == int(r.read) && int64(rt.Status().Topics[0].Partitions[0].Next) == r.opened
		})
		stop(t, rt)
	}
	for range 2 {
		finish(t, start(t, runtime.Config{DataDir: data}, writer(total, false), reader(false)))
		sameLines(t, "reader", fileLines(t, filepath.Join(out, "reader.jsonl")), tallied(total, nil))
	}
}
