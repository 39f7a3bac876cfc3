package runtime_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	goruntime "runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/sidestream-dev/sidestream/bus"
	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/jobs/connector/file"
	"github.com/sidestream-dev/sidestream/runtime"
	"github.com/sidestream-dev/sidestream/wal"
)

// sentTo is a job without state that sends what passes to a file.
func sentTo(name, path string, topic jobs.BusTopic[int64], pass func(int64) bool) *jobs.Job {
	j := jobs.New(name)
	jobs.To(jobs.Filter(jobs.FromTopic(j, topic, jobs.ID("in")), pass), "main", file.Sink{Path: path}, jobs.JSON[int64]())
	return j
}

func any64(int64) bool  { return true }
func even(n int64) bool { return n%2 == 0 }
func odd(n int64) bool  { return n%2 == 1 }

func shadowOutput(t *testing.T, res runtime.ShadowResult, name string) runtime.ShadowOutput {
	t.Helper()
	for _, o := range res.Outputs {
		if o.Output == name {
			return o
		}
	}
	t.Fatalf("no output %s: %+v", name, res)
	return runtime.ShadowOutput{}
}

// shortLog is a Config whose log is soon cut.
func shortLog(t *testing.T) runtime.Config {
	return runtime.Config{DataDir: t.TempDir(), TopicMemory: 4 << 10, EpochBytes: 8 << 10, LogBytes: 64 << 10, StoreSegmentBytes: 32 << 10, SnapshotBytes: 16 << 10,
		Log: wal.Config{SegmentBytes: 16 << 10, GenerationBytes: 32 << 10}}
}

// TestShadowOutside: what a job sent to a file is compared too, all of it and a range of it, with a definition that sends it
// elsewhere.
func TestShadowOutside(t *testing.T) {
	noLeaks(t)
	out, topic, in := t.TempDir(), jobs.BusTopic[int64]{Name: "numbers"}, newTap(2000, 2000)
	rt := start(t, runtime.Config{DataDir: t.TempDir()}, writerJob("writer", in, topic), sentTo("evens", filepath.Join(out, "a"), topic, even))
	defer stop(t, rt)
	wait(t, rt)
	res := shadowOf(t, rt, runtime.ShadowOptions{Definition: sentTo("evens", filepath.Join(out, "b"), topic, even)})
	if !res.Same || !res.Exact || res.Equal != 1000 {
		t.Errorf("the same: %+v", res)
	}
	from, to := offset(300), offset(900)
	res = shadowOf(t, rt, runtime.ShadowOptions{Definition: sentTo("evens", filepath.Join(out, "b"), topic, func(n int64) bool { return n%4 == 0 }), From: from, To: &to})
	if o := shadowOutput(t, res, "main (outside)"); res.Same || o.Missing < 150 || o.Extra != 0 || o.Equal+o.Missing != o.Given || len(res.Differences) != 10 {
		t.Errorf("half of them: %+v", res)
	}
	if _, err := os.Stat(filepath.Join(out, "b")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the definition's file: %v", err)
	}
}

// TestShadowSharedTopic: of a topic that another job writes too, or has written and is gone, the job's own records are compared.
func TestShadowSharedTopic(t *testing.T) {
	noLeaks(t)
	topic, in := jobs.BusTopic[int64]{Name: "numbers"}, newTap(2000, 2000)
	rt := start(t, runtime.Config{DataDir: t.TempDir()}, writerJob("writer", in, topic), evens("evens", topic, even), evens("odds", topic, odd))
	defer stop(t, rt)
	wait(t, rt)
	check := func(when string) {
		t.Helper()
		if res := shadowOf(t, rt, runtime.ShadowOptions{Definition: evens("evens", topic, even)}); !res.Same || res.Equal != 1000 {
			t.Errorf("%s: %+v", when, res)
		}
		if res := shadowOf(t, rt, runtime.ShadowOptions{Definition: evens("evens", topic, odd)}); res.Missing != 1000 || res.Extra != 1000 {
			t.Errorf("%s, the other's definition: %+v", when, res)
		}
	}
	check("beside the other")
	if _, err := rt.RemoveJob(t.Context(), "odds", runtime.RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	check("behind the other")
}

// TestShadowWhereTheLogIsGone: a range of which the log holds nothing more is compared by when records were written, which is
// said; what was sent outside, and what another job writes too, is not compared, and it is said why; where nothing is left the run
// is refused.
func TestShadowWhereTheLogIsGone(t *testing.T) {
	noLeaks(t)
	const n = 20_000
	topic, in := jobs.BusTopic[int64]{Name: "numbers"}, newTap(n, n)
	withFile := func(name string) *jobs.Job {
		j := jobs.New(name)
		s := jobs.Filter(jobs.FromTopic(j, topic, jobs.ID("in")), even)
		jobs.ToTopic(s, jobs.BusTopic[int64]{Name: "own"})
		jobs.ToTopic(s, jobs.BusTopic[int64]{Name: "passed"})
		jobs.To(s, "out", file.Sink{Path: filepath.Join(t.TempDir(), "out")}, jobs.JSON[int64]())
		return j
	}
	cfg := shortLog(t)
	rt := start(t, cfg, writerJob("writer", in, topic), withFile("evens"), evens("odds", topic, odd))
	defer stop(t, rt)
	wait(t, rt)
	until(t, rt, "the log is short", func() bool { return rt.Status().Log.Bytes <= cfg.LogBytes })
	from, to := offset(5000), offset(10_000)
	res := shadowOf(t, rt, runtime.ShadowOptions{Definition: withFile("evens"), From: from, To: &to})
	if res.Exact || len(res.Notes) == 0 || !res.Same || shadowOutput(t, res, "bus:own").Equal < 2000 {
		t.Errorf("where the log is gone: %+v", res)
	}
	for name, why := range map[string]string{"bus:passed": "job odds writes this topic too, and the log no longer goes back", "out (outside)": "is no longer kept"} {
		if o := shadowOutput(t, res, name); !strings.Contains(o.Not, why) || o.Equal+o.Missing+o.Extra != 0 {
			t.Errorf("%s: %+v", name, o)
		}
	}
	_, err := rt.Shadow(t.Context(), "numbers", runtime.ShadowOptions{Definition: evens("odds", topic, odd), From: from, To: &to, Engine: muted})
	if err == nil || !strings.Contains(err.Error(), "has no output that can be compared") {
		t.Errorf("nothing to compare: %v", err)
	}
}

// TestShadowFails: a definition that fails on a record fails the run, with the record's step; nothing else changes.
func TestShadowFails(t *testing.T) {
	noLeaks(t)
	topic, in := jobs.BusTopic[int64]{Name: "numbers"}, newTap(1000, 1000)
	rt := start(t, runtime.Config{DataDir: t.TempDir()}, writerJob("writer", in, topic), evens("evens", topic, even))
	defer stop(t, rt)
	wait(t, rt)
	before := standing(t, rt)
	bad := jobs.New("evens")
	jobs.ToTopic(jobs.TryMap(jobs.FromTopic(bad, topic, jobs.ID("in")), func(n int64) (int64, error) {
		if n == 700 {
			return 0, errors.New("seven hundred")
		}
		return n, nil
	}, jobs.ID("seven")), jobs.BusTopic[int64]{Name: "passed"})
	_, err := rt.Shadow(t.Context(), "numbers", runtime.ShadowOptions{Definition: bad, Engine: muted})
	if err == nil || !strings.Contains(err.Error(), "fails on a record of topic numbers") || !strings.Contains(err.Error(), "seven hundred") {
		t.Errorf("%v", err)
	}
	if now := standing(t, rt); now != before {
		t.Errorf("it was\n%s\nand is\n%s", before, now)
	}
}

// TestShadowBounds: differences beyond --show are counted and not kept; what is open, and what state there is, has an end that is
// said; and what a run holds in memory does not grow with the range.
func TestShadowBounds(t *testing.T) {
	noLeaks(t)
	n := int64(20_000)
	if s := os.Getenv("SHADOW_RECORDS"); s != "" {
		var err error
		if n, err = strconv.ParseInt(s, 10, 64); err != nil || n < 20_000 {
			t.Fatalf("SHADOW_RECORDS is %q: want a number, 20000 or more", s)
		}
	}
	topic, in := jobs.BusTopic[int64]{Name: "numbers"}, newTap(n, n)
	long := func(pass func(int64) bool) *jobs.Job { // what it gives is 48 MiB, however many records that are
		j := jobs.New("long")
		values := jobs.Map(jobs.Filter(jobs.FromTopic(j, topic, jobs.ID("in")), pass), func(v int64) string { return fmt.Sprintf("%0*d", 48<<20/n, v) })
		jobs.ToTopic(values, jobs.BusTopic[string]{Name: "longs"})
		return j
	}
	rt := start(t, runtime.Config{DataDir: t.TempDir()}, writerJob("writer", in, topic), long(any64), evens("evens", topic, any64))
	defer stop(t, rt)
	wait(t, rt)
	heap := func() uint64 {
		var m goruntime.MemStats
		goruntime.GC()
		goruntime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before, most, next := heap(), uint64(0), n/10
	res := shadowOf(t, rt, runtime.ShadowOptions{Definition: long(func(n int64) bool { return n%100 > 0 }), Progress: func(done, all int64) {
		if done >= next {
			most, next = max(most, heap()), next+n/10
		}
	}})
	if res.Equal != n*99/100 || res.Missing != n/100 || len(res.Differences) != 10 {
		t.Errorf("%+v", res)
	}
	t.Logf("of %d records: the heap is %d before and %d at most", n, before, most)
	if open := uint64(n/100) * uint64(400+48<<20/n); most > before+open+(16<<20) { // what is missing is remembered, and nothing else
		t.Errorf("the heap grew from %d to %d", before, most)
	}
	for _, show := range []int{-1, 0, 1 << 30} {
		res, err := rt.Shadow(t.Context(), "numbers", runtime.ShadowOptions{Definition: evens("evens", topic, odd), Show: show, Engine: muted})
		if want := min(max(show, 0), runtime.ShadowShowMax); err != nil || len(res.Differences) != want {
			t.Errorf("show %d: %d differences, %v", show, len(res.Differences), err)
		}
	}
	_, err := rt.Shadow(t.Context(), "numbers", runtime.ShadowOptions{Definition: evens("evens", topic, odd), OpenMax: 100, Engine: muted})
	if err == nil || !strings.Contains(err.Error(), "more than 100 records") {
		t.Errorf("too much open: %v", err)
	}
	_, err = rt.Shadow(t.Context(), "numbers", runtime.ShadowOptions{Definition: hoarder(topic), Against: "evens", StateBytes: 1 << 20, Engine: muted})
	if err == nil || !strings.Contains(err.Error(), "state has grown to") {
		t.Errorf("too much state: %v", err)
	}
}

// hoarder keeps a kibibyte of each number, and gives what it was given.
func hoarder(topic jobs.BusTopic[int64]) *jobs.Job {
	j := jobs.New("hoarder")
	keyed := jobs.KeyBy(jobs.FromTopic(j, topic, jobs.ID("in")), func(n int64) int64 { return n })
	out, _ := jobs.Process(keyed, func(s *jobs.Step[int64, int64, int64, jobs.None]) {
		kept := jobs.ValueOf[string](s, "kept")
		s.OnRecord = func(n int64) error {
			kept.Set(strings.Repeat("x", 1024))
			s.Emit(n)
			return nil
		}
	}, jobs.ID("hoard"))
	jobs.ToTopic(out, jobs.BusTopic[int64]{Name: "passed"})
	return j
}

// TestShadowLargeRecords: records near the largest a frame takes are compared, and shown as far as there is room for them.
func TestShadowLargeRecords(t *testing.T) {
	noLeaks(t)
	large := func(n int64) string { return strings.Repeat("x", 700<<10) + fmt.Sprint(n) }
	topic, in := jobs.BusTopic[int64]{Name: "numbers"}, newTap(24, 24)
	def := func(to func(int64) string) *jobs.Job {
		j := jobs.New("large")
		jobs.ToTopic(jobs.Map(jobs.FromTopic(j, topic, jobs.ID("in")), to), jobs.BusTopic[string]{Name: "larges"})
		return j
	}
	rt := start(t, runtime.Config{DataDir: t.TempDir()}, writerJob("writer", in, topic), def(large))
	defer stop(t, rt)
	wait(t, rt)
	if res := shadowOf(t, rt, runtime.ShadowOptions{Definition: def(large)}); !res.Same || res.Equal != 24 {
		t.Errorf("the same: %d equal, %v", res.Equal, res.Notes)
	}
	res, err := rt.Shadow(t.Context(), "numbers", runtime.ShadowOptions{Definition: def(func(n int64) string { return large(n)[1:] + "y" }), Engine: muted, Show: 1000, From: runtime.Place{Offset: new(bus.Offset)}})
	kept := 0
	for _, d := range res.Differences {
		kept += len(bytes.TrimSpace(d.Given)) + len(bytes.TrimSpace(d.Gave))
	}
	if err != nil || res.Missing != 24 || res.Extra != 24 || kept < 8<<20 || kept > 17<<20 || len(res.Notes) == 0 {
		t.Errorf("%d bytes are shown, of %d differences, %v; %v", kept, len(res.Differences), res.Notes, err)
	}
}
