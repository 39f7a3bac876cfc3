package runtime_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

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

const (
	copyChild = "SIDESTREAM_TEST_COPY_CHILD" // makes this process one that copies in this data directory
	copyTwin  = "SIDESTREAM_TEST_COPY_TWIN"  // breaks it: the next process begins the copy anew
)

func init() {
	if data := os.Getenv(copyChild); data != "" {
		if err := runCopyChild(data); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
}

// runCopyChild writes numbers, and then, if no process before has begun to, copies them; it ends when all is done.
func runCopyChild(data string) error {
	topic, into := jobs.BusTopic[int64]{Name: "numbers"}, jobs.BusTopic[int64]{Name: "copied"}
	rt, err := runtime.Open(runtime.Config{DataDir: data, EpochBytes: 4 << 10, SealedBytes: 4 << 10,
		Load: func([]byte, runtime.Origin) (*jobs.Job, error) { return copyJob(topic, into), nil }})
	if err != nil {
		return err
	}
	if err := rt.Start([]*jobs.Job{writerJob("writer", newTap(replayTotal, replayTotal), topic)}); err != nil {
		return err
	}
	for st, _ := rt.Topic("numbers"); len(st.Partitions) == 0 || st.Partitions[0].Next < replayTotal; st, _ = rt.Topic("numbers") {
		time.Sleep(time.Millisecond)
	}
	_, err = os.Stat(begunFile(data))
	again := err == nil && os.Getenv(copyTwin) != ""
	if again {
		_, _ = rt.RemoveJob(context.Background(), "copy", runtime.RemoveOptions{}) // it may be gone, or not have begun
	}
	if errors.Is(err, fs.ErrNotExist) || again {
		if err := os.WriteFile(begunFile(data), nil, 0o600); err != nil {
			return err
		}
		if _, err := rt.ReplayInto(context.Background(), copyJob(topic, into), "numbers", runtime.CopyOptions{}); err != nil {
			return err
		}
	}
	for {
		if _, err := rt.JobDefinition("copy"); errors.Is(err, runtime.ErrNoJob) {
			return rt.Stop()
		}
		time.Sleep(time.Millisecond)
	}
}

// killedCopy kills a process some time after it has begun to copy, runs another to the end, and returns what is in the copy.
func killedCopy(t *testing.T, after time.Duration) (got []string) {
	t.Helper()
	data := killedChild(t, copyChild, after)
	off, err := runtime.OpenOffline(data)
	if err != nil {
		t.Fatal(err)
	}
	err = off.Tail(t.Context(), runtime.Tail{Topic: "copied", Partition: -1, Last: 1 << 20}, func(r runtime.TopicRecord) error {
		got = append(got, string(r.Value))
		return nil
	})
	if err != nil && !errors.Is(err, runtime.ErrNoTopic) {
		t.Fatal(err)
	}
	return got
}

// TestCopyKilled: a process is killed with -9 somewhere in a copy; behind the next one the copy is absent, or has each record
// once, in order. REPLAY_KILLS says how often, REPLAY_SEED when.
func TestCopyKilled(t *testing.T) {
	kills, seed := 3, uint64(time.Now().UnixNano())
	for name, f := range map[string]func(string) error{
		"REPLAY_KILLS": func(s string) (err error) { kills, err = strconv.Atoi(s); return err },
		"REPLAY_SEED":  func(s string) (err error) { seed, err = strconv.ParseUint(s, 10, 64); return err },
	} {
		if s := os.Getenv(name); s != "" {
			if err := f(s); err != nil {
				t.Fatal(name, err)
			}
		}
	}
	t.Logf("REPLAY_SEED=%d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	whole := 0
	for range kills {
		got := killedCopy(t, time.Duration(r.IntN(60))*time.Millisecond)
		if len(got) == 0 {
			continue
		}
		whole++
		if !slices.Equal(got, numbersTo(replayTotal)) {
			t.Errorf("%d records, want %d", len(got), replayTotal)
		}
	}
	t.Logf("%d copies of %d were whole, the others absent", whole, kills)
	if kills >= 20 && whole == 0 {
		t.Error("no kill left a copy to look at")
	}
}

// TestCopyKilledTwin: a process that begins a copy anew behind a crash is caught.
func TestCopyKilledTwin(t *testing.T) {
	t.Setenv(copyTwin, "1")
	for range 20 {
		if got := killedCopy(t, 30*time.Millisecond); len(got) > 0 && !slices.Equal(got, numbersTo(replayTotal)) {
			return
		}
	}
	t.Error("the twin was not caught by 20 kills")
}

func numbersTo(n int) (out []string) {
	for i := range n {
		out = append(out, strconv.Itoa(i))
	}
	return out
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
