package runtime_test

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/sidestream-dev/sidestream/bus"
	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/jobs/connector/file"
	"github.com/sidestream-dev/sidestream/runtime"
	"github.com/sidestream-dev/sidestream/wal"
)

// timed writes a tap's numbers to a topic, each a second of event time behind the one before.
func timed(in *tap, begin time.Time, topic jobs.BusTopic[int64]) *jobs.Job {
	j := jobs.New("writer")
	at := jobs.EventTime(func(n int64) time.Time { return begin.Add(time.Duration(n) * time.Second) }, 0)
	jobs.ToTopic(numbers(j, in, at), topic)
	return j
}

// from copies a topic to a file, from where it is told to begin.
func from(name string, topic jobs.BusTopic[int64], out string, where ...jobs.Option) *jobs.Job {
	j := jobs.New(name)
	j.Delivery = jobs.ExactlyOnce
	jobs.To(jobs.FromTopic(j, topic, where...), "main", file.Sink{Path: filepath.Join(out, name+".jsonl")}, jobs.JSON[int64]())
	return j
}

// TestStartByTime: a subscription begins at the first record of a time, in the topic store and in the log, at the oldest there
// is where the time lies before it, also where that is what a purge left, and behind the newest where none is so late. That is
// found once: a restart, or an update, of the job goes on where it stands.
func TestStartByTime(t *testing.T) {
	noLeaks(t)
	const n, more, purged = 20_000, 100, 2_000
	begin := time.Date(2026, 1, 31, 0, 0, 0, 0, time.UTC)
	second := func(i int) time.Time { return begin.Add(time.Duration(i) * time.Second) }
	topic := jobs.BusTopic[int64]{Name: "numbers"}
	in, out := newTap(n+more, n), t.TempDir()
	cfg := runtime.Config{DataDir: t.TempDir(), TopicMemory: 4 << 10, EpochBytes: 8 << 10, LogBytes: 64 << 10, StoreSegmentBytes: 32 << 10,
		Log: wal.Config{SegmentBytes: 16 << 10, GenerationBytes: 32 << 10}}
	writer := func() *jobs.Job { return timed(in, begin, topic) }
	rt := start(t, cfg, writer())
	until(t, rt, "most is in the topic store", func() bool {
		st := rt.Status()
		return st.Jobs[0].Counters.Out == n && st.Log.Bytes <= cfg.LogBytes
	})
	if _, err := rt.PurgeTopic(t.Context(), "numbers", offset(purged), false); err != nil {
		t.Fatal(err)
	}
	ago := time.Since(second(15_000)) // and what the test takes
	cases := []struct {
		name  string
		first int // of the records; n behind all of them
		where jobs.Option
	}{
		{"stored", 5_000, jobs.StartTime(second(5_000))},
		{"between", 5_001, jobs.StartTime(second(5_000).Add(time.Millisecond))},
		{"late", n - 10, jobs.StartTime(second(n - 10))},
		{"gone", purged, jobs.StartTime(second(10))},
		{"before", purged, jobs.StartTime(begin.Add(-time.Hour))},
		{"future", n, jobs.StartTime(second(2 * n))},
		{"back", 15_000, jobs.StartAgo(ago)},
	}
	var defs []*jobs.Job
	for _, c := range cases {
		defs = append(defs, from(c.name, topic, out, c.where))
	}
	apply(t, rt, defs...)
	lines := func(name string) int { return linesOf(t, filepath.Join(out, name+".jsonl")) }
	for _, c := range cases {
		if c.name != "back" {
			until(t, rt, c.name+" has read what is there", func() bool { return lines(c.name) >= n-c.first })
		}
	}
	until(t, rt, "all have caught up", func() bool {
		for _, c := range cases {
			if jobStatus(t, rt, c.name).Lag > 0 {
				return false
			}
		}
		return true
	})
	stop(t, rt)

	cfg.Load = func(definition []byte, _ runtime.Origin) (*jobs.Job, error) {
		for i, d := range defs {
			if string(d.Describe()) == string(definition) {
				return from(cases[i].name, topic, out, cases[i].where), nil
			}
		}
		t.Errorf("nobody wrote %s", definition)
		return nil, bus.TopicSpec{}.Check()
	}
	rt = start(t, cfg, writer())
	changed := from("stored", topic, out, jobs.StartTime(second(7)), jobs.ID("bus-1"))
	changed.Parallelism = 2
	apply(t, rt, changed)
	in.open(n + more)
	finish(t, rt)
	for _, c := range cases {
		got := fileLines(t, filepath.Join(out, c.name+".jsonl"))
		first := c.first
		if c.name == "back" { // by the clock: some seconds of event time later, by how long the test took to get there
			if first = n + more - len(got); first < c.first || first > c.first+int(patience/time.Second) {
				t.Errorf("it began at %d, where %d was so long ago", first, c.first)
			}
		}
		var want []string
		for i := first; i < n+more; i++ {
			want = append(want, jsonOf(i))
		}
		sameLines(t, c.name, got, want)
	}
}

// TestStartByTimeOfNothing: a topic that the change itself makes has no time yet, and one that begins there hears all of it.
func TestStartByTimeOfNothing(t *testing.T) {
	noLeaks(t)
	topic, out := jobs.BusTopic[int64]{Name: "numbers"}, t.TempDir()
	in := newTap(100, 0)
	rt := start(t, runtime.Config{DataDir: t.TempDir()}, from("reader", topic, out, jobs.StartTime(time.Now())), writerJob("writer", in, topic))
	in.open(100)
	finish(t, rt)
	if n := linesOf(t, filepath.Join(out, "reader.jsonl")); n != 100 {
		t.Errorf("%d of 100 were read", n)
	}
}
