package runtime_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sidestream-dev/sidestream/bus"
	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/runtime"
	"github.com/sidestream-dev/sidestream/wal"
)

// TestTopicOutlivesTheLog: a topic's records move to the topic store where the log is longer than it should be, and are all
// there for who looks, in the process, beside it and in later ones; what is purged is not, and a retention that was set stays.
func TestTopicOutlivesTheLog(t *testing.T) {
	noLeaks(t)
	const n = 20_000
	data, in := t.TempDir(), newTap(n, n)
	job := func() *jobs.Job {
		j := jobs.New("numbers")
		jobs.ToTopic(numbers(j, in), jobs.BusTopic[int64]{Name: "numbers"})
		return j
	}
	cfg := runtime.Config{DataDir: data, TopicMemory: 4 << 10, EpochBytes: 8 << 10, LogBytes: 64 << 10, StoreSegmentBytes: 32 << 10,
		Log: wal.Config{SegmentBytes: 16 << 10, GenerationBytes: 32 << 10}}
	rt := start(t, cfg, job())
	wait(t, rt)
	files := func() int {
		names, err := filepath.Glob(filepath.Join(data, "topics", "*", "*", "*.seg"))
		if err != nil {
			t.Fatal(err)
		}
		return len(names)
	}
	until(t, rt, "the log is short and the store has files", func() bool { return rt.Status().Log.Bytes <= cfg.LogBytes && files() > 1 })
	whole := func(src tailer, from int) {
		t.Helper()
		first := bus.Offset(from)
		got := tailed(t, src, runtime.Tail{Topic: "numbers", Partition: -1, From: &first})[0]
		if len(got) != n-from || got[0].Offset != first {
			t.Fatalf("%d records from %s on, want %d from %d on", len(got), got[0].Offset, n-from, from)
		}
	}
	whole(rt, 0)
	beside, err := runtime.OpenOffline(data)
	if err != nil {
		t.Fatal(err)
	}
	whole(beside, 0)
	if _, err := rt.PurgeTopic(t.Context(), "numbers", offset(777), false); err != nil {
		t.Fatal(err)
	}
	whole(rt, 777)
	stop(t, rt)

	rt = start(t, cfg, job())
	whole(rt, 777)
	zero := bus.Offset(0)
	if err := rt.Tail(t.Context(), runtime.Tail{Topic: "numbers", From: &zero}, func(runtime.TopicRecord) error { return nil }); !errors.As(err, new(*bus.OffsetError)) {
		t.Errorf("what was purged, in the next process: %v", err)
	}
	if _, err := rt.SetRetention(t.Context(), "numbers", bus.Retention{MaxAge: time.Millisecond}, false); err != nil {
		t.Fatal(err)
	}
	until(t, rt, "the store lets all go", func() bool { return files() == 0 })
	if _, err := rt.SetRetention(t.Context(), "nothing", bus.Retention{}, false); !errors.Is(err, runtime.ErrNoTopic) {
		t.Errorf("retention of an unknown topic: %v", err)
	}
	stop(t, rt)

	rt = start(t, cfg, job())
	if st, _ := rt.Topic("numbers"); st.MaxAge != time.Millisecond {
		t.Errorf("the retention that was set is %v in the next process", st.MaxAge)
	}
	stop(t, rt)
}

// TestStoreFails: a topic store that its disk does not take is the end of the process, by one line that says what failed (R7);
// once the disk does, the next one goes on, and nothing is lost.
func TestStoreFails(t *testing.T) {
	noLeaks(t)
	const n = 20_000
	data, in := t.TempDir(), newTap(n, 1)
	job := func() *jobs.Job {
		j := jobs.New("numbers")
		jobs.ToTopic(numbers(j, in), jobs.BusTopic[int64]{Name: "numbers"})
		return j
	}
	cfg := runtime.Config{DataDir: data, TopicMemory: 4 << 10, EpochBytes: 8 << 10, LogBytes: 64 << 10, StoreSegmentBytes: 32 << 10,
		Log: wal.Config{SegmentBytes: 16 << 10, GenerationBytes: 32 << 10}}
	rt := start(t, cfg, job())
	topic, _ := rt.Topic("numbers")
	inTheWay := filepath.Join(data, "topics", fmt.Sprint(topic.ID))
	if err := os.MkdirAll(filepath.Dir(inTheWay), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(inTheWay, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	in.open(n - 1)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var failed *wal.FailedError
	if err := rt.Wait(ctx, true); !errors.As(err, &failed) || !strings.Contains(err.Error(), "topic store") || !strings.Contains(err.Error(), fmt.Sprintf("%d/0/", topic.ID)) {
		t.Fatalf("the runtime ends with %v", err)
	}
	if err := rt.Stop(); !errors.As(err, &failed) {
		t.Errorf("stopped: %v", err)
	}
	if err := os.Remove(inTheWay); err != nil {
		t.Fatal(err)
	}
	in.open(n)
	rt = start(t, cfg, job())
	wait(t, rt)
	until(t, rt, "the log is short", func() bool { return rt.Status().Log.Bytes <= cfg.LogBytes })
	zero := bus.Offset(0)
	if got := tailed(t, rt, runtime.Tail{Topic: "numbers", Partition: -1, From: &zero})[0]; len(got) != n {
		t.Errorf("%d of %d records are there", len(got), n)
	}
	stop(t, rt)
}
