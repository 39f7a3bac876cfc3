package runtime_test

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/jobs/connector/file"
	"github.com/sidestream-dev/sidestream/jobs/operator"
	"github.com/sidestream-dev/sidestream/runtime"
)

// teller builds a job that tells a topic of the numbers below below; a number is its own event time in milliseconds.
func teller(name string, in *tap, topic jobs.BusTopic[int64], below int64) *jobs.Job {
	j := jobs.New(name)
	ns := numbers(j, in, jobs.EventTime(func(n int64) time.Time { return time.UnixMilli(n) }, 0))
	jobs.ToTopic(jobs.Filter(ns, func(n int64) bool { return n < below }), topic)
	return j
}

// windower builds a job that counts a topic's numbers in windows of 20 ms.
func windower(topic jobs.BusTopic[int64], out string, opts ...jobs.Option) *jobs.Job {
	j := jobs.New("windower")
	counts, _ := operator.Tumbling(jobs.KeyBy(jobs.FromTopic(j, topic, opts...), func(int64) string { return "all" }), 20*time.Millisecond,
		operator.Aggregates(func(_ string, p *operator.Pane) int64 { return p.Int(0) }, operator.Count[int64]()))
	jobs.To(counts, "main", file.Sink{Path: filepath.Join(out, "counts.jsonl")}, jobs.JSON[int64]())
	return j
}

// TestWatermarkAloneCommits: a window that fires by a watermark that crossed the bus is committed and sent, though its job
// is given no record any more.
func TestWatermarkAloneCommits(t *testing.T) {
	noLeaks(t)
	out := t.TempDir()
	topic := jobs.BusTopic[int64]{Name: "numbers"}
	in := newTap(100, 12)
	rt := start(t, runtime.Config{DataDir: t.TempDir()}, teller("teller", in, topic, 10), windower(topic, out))
	until(t, rt, "the ten numbers", func() bool { return jobStatus(t, rt, "windower").Counters.In == 10 })
	if got := fileLines(t, filepath.Join(out, "counts.jsonl")); len(got) > 0 {
		t.Fatalf("got %q before the window's end", got)
	}
	in.open(50)
	until(t, rt, "the window's line", func() bool { return linesOf(t, filepath.Join(out, "counts.jsonl")) == 1 })
	in.open(100)
	finish(t, rt)
	sameLines(t, "counts", fileLines(t, filepath.Join(out, "counts.jsonl")), []string{"10"})
}

// TestIdleAfterOnTheBus: a producer that says nothing holds the watermark of a topic's reader, unless the reader has
// idle_after.
func TestIdleAfterOnTheBus(t *testing.T) {
	noLeaks(t)
	out := t.TempDir()
	topic := jobs.BusTopic[int64]{Name: "numbers"}
	in, silent := newTap(100, 50), newTap(100, 0)
	rt := start(t, runtime.Config{DataDir: t.TempDir()}, teller("teller", in, topic, 100), teller("silent", silent, topic, 100),
		windower(topic, out, jobs.IdleAfter(50*time.Millisecond)))
	until(t, rt, "two windows beside a silent producer", func() bool { return linesOf(t, filepath.Join(out, "counts.jsonl")) == 2 })
	in.open(100)
	silent.open(100) // its first 40 numbers, or more, are late
	finish(t, rt)
	got := fileLines(t, filepath.Join(out, "counts.jsonl"))
	if len(got) != 5 || got[0] != "20" || got[1] != "20" {
		t.Errorf("got %q: want five windows, of which the first two are the teller's alone", got)
	}
	if late := jobStatus(t, rt, "windower").Counters.Late; late < 40 {
		t.Errorf("%d records were late, want 40 or more", late)
	}
}

// TestSilentProducerHolds is the twin without idle_after: nothing fires before the silent producer has spoken.
func TestSilentProducerHolds(t *testing.T) {
	noLeaks(t)
	out := t.TempDir()
	topic := jobs.BusTopic[int64]{Name: "numbers"}
	in, silent := newTap(100, 50), newTap(100, 0)
	rt := start(t, runtime.Config{DataDir: t.TempDir()}, teller("teller", in, topic, 100), teller("silent", silent, topic, 100), windower(topic, out))
	until(t, rt, "the teller's numbers", func() bool { return jobStatus(t, rt, "windower").Counters.In == 50 })
	time.Sleep(150 * time.Millisecond)
	if got := fileLines(t, filepath.Join(out, "counts.jsonl")); len(got) > 0 {
		t.Fatalf("got %q, though a producer has given no watermark", got)
	}
	in.open(100)
	silent.open(100)
	finish(t, rt)
	sameLines(t, "counts", fileLines(t, filepath.Join(out, "counts.jsonl")), []string{"40", "40", "40", "40", "40"})
}
