package runtime_test

import (
	"errors"
	"slices"
	"strconv"
	"testing"

	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/runtime"
)

// copyJob copies a topic of numbers.
func copyJob(topic, into jobs.BusTopic[int64]) *jobs.Job {
	j := jobs.New("copy")
	jobs.ToTopic(jobs.FromTopic(j, topic, jobs.ID("in")), into)
	return j
}

// gone waits until a copy has removed itself.
func gone(t *testing.T, rt *runtime.Runtime) {
	t.Helper()
	until(t, rt, "the copy is gone", func() bool { _, err := rt.JobDefinition("copy"); return errors.Is(err, runtime.ErrNoJob) })
}

// TestReplayIntoTopic: a range of a topic is in another one, each record once with the replay's id, also where the process ends
// in the middle; the job that did it is gone then, and what is written meanwhile is not copied.
func TestReplayIntoTopic(t *testing.T) {
	noLeaks(t)
	data := t.TempDir()
	topic, into := jobs.BusTopic[int64]{Name: "numbers"}, jobs.BusTopic[int64]{Name: "copied"}
	in := newTap(6000, 4000)
	cfg := runtime.Config{DataDir: data, Load: func([]byte, runtime.Origin) (*jobs.Job, error) { return copyJob(topic, into), nil }}
	rt := start(t, cfg, writerJob("writer", in, topic))
	until(t, rt, "all are written", func() bool { return recordsOf(rt, "numbers") == 4000 })
	o := runtime.CopyOptions{From: offset(1000), DryRun: true}
	if dry, err := rt.ReplayInto(t.Context(), copyJob(topic, into), "numbers", o); err != nil || dry.Records != 3000 || dry.ID != "" {
		t.Fatalf("dry run: %+v, %v", dry, err)
	}
	o.DryRun, o.Rate = false, 3000
	res, err := rt.ReplayInto(t.Context(), copyJob(topic, into), "numbers", o)
	if err != nil || res.Records != 3000 || res.ID != "copy" {
		t.Fatalf("%+v, %v", res, err)
	}
	if _, err := rt.ReplayInto(t.Context(), copyJob(topic, into), "numbers", o); err == nil {
		t.Error("a second of one name was let in")
	}
	if _, err := rt.ReplayInto(t.Context(), copyJob(topic, topic), "numbers", o); err == nil {
		t.Error("a topic was replayed into itself")
	}
	in.open(5000)
	until(t, rt, "some are copied", func() bool { return recordsOf(rt, "copied") > 100 })
	if n := recordsOf(rt, "copied"); n == 3000 {
		t.Error("the rate was not kept: all are there at once")
	}
	stop(t, rt)
	rt = start(t, cfg, writerJob("writer", in, topic))
	defer stop(t, rt)
	gone(t, rt)
	var want, got []string
	for n := 1000; n < 4000; n++ {
		want = append(want, strconv.Itoa(n))
	}
	for _, r := range tailed(t, rt, runtime.Tail{Topic: "copied", Partition: -1, Last: 1 << 20})[0] {
		got = append(got, string(r.Value))
		if r.Headers[runtime.ReplayHeader] != "copy" {
			t.Fatalf("headers %v", r.Headers)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("%d records, from %s to %s", len(got), got[0], got[len(got)-1])
	}
}

// TestCopyLosesNothing: what a copy was told to read is there for it, also in a topic that drops the oldest and is written
// faster than it reads; a range without a record is refused.
func TestCopyLosesNothing(t *testing.T) {
	noLeaks(t)
	topic := jobs.BusTopic[int64]{Name: "numbers", Topic: jobs.Topic{LimitBytes: 16 << 10, OnFull: "drop_oldest"}}
	into := jobs.BusTopic[int64]{Name: "copied"}
	in := newTap(40_000, 4000)
	rt := start(t, runtime.Config{DataDir: t.TempDir()}, writerJob("writer", in, topic))
	defer stop(t, rt)
	until(t, rt, "there is something to copy", func() bool { return recordsOf(rt, "numbers") == 4000 })
	if _, err := rt.ReplayInto(t.Context(), copyJob(topic, into), "numbers", runtime.CopyOptions{From: offset(4000)}); err == nil {
		t.Error("nothing was copied, and that is no error")
	}
	res, err := rt.ReplayInto(t.Context(), copyJob(topic, into), "numbers", runtime.CopyOptions{From: offset(0), Rate: 8000})
	if err != nil || res.Records != 4000 {
		t.Fatalf("%+v, %v", res, err)
	}
	for n := int64(5000); n <= 40_000; n += 500 {
		in.open(n)
		until(t, rt, "it is written on", func() bool { return recordsOf(rt, "numbers") >= n })
	}
	gone(t, rt)
	if n := recordsOf(rt, "copied"); n != 4000 || len(droppedRanges(t, rt, "none")) > 0 {
		t.Errorf("%d of 4000 records were copied", n)
	}
}
