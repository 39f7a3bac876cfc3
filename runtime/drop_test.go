package runtime_test

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/sidestream-dev/sidestream/bus"
	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/jobs/connector/file"
	"github.com/sidestream-dev/sidestream/runtime"
	"github.com/sidestream-dev/sidestream/wal"
)

// numbersSeen are the numbers that a job's step was given.
type numbersSeen struct {
	mu sync.Mutex
	n  map[int64]bool
}

func (s *numbersSeen) add(n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.n == nil {
		s.n = map[int64]bool{}
	}
	s.n[n] = true
}

func (s *numbersSeen) has(n int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.n[n]
}

func subOf(t testing.TB, rt *runtime.Runtime, topic, job string) bus.SubStat {
	t.Helper()
	st, _ := rt.Topic(topic)
	i := slices.IndexFunc(st.Subscriptions, func(s bus.SubStat) bool { return strings.HasPrefix(s.Name, job+"/") })
	if i < 0 {
		t.Fatalf("%s does not read %s: %+v", job, topic, st)
	}
	return st.Subscriptions[i]
}

// droppedRanges returns the offsets that events say a job lost, of a topic of one partition.
func droppedRanges(t testing.TB, rt *runtime.Runtime, job string) (out [][2]int64) {
	t.Helper()
	events, _ := rt.Events(0)
	for _, e := range events {
		if e.Kind != runtime.EventDropped {
			continue
		}
		if e.Job != job {
			t.Errorf("%s lost something: %s", e.Job, e.Text)
		}
		var from, to int64
		_, rest, _ := strings.Cut(e.Text, "offsets ")
		if _, err := fmt.Sscanf(rest, "%d to %d", &from, &to); err != nil {
			t.Fatalf("%q names no range: %v", e.Text, err)
		}
		out = append(out, [2]int64{from, to})
	}
	return out
}

// TestSlowReaderLoses: a topic that drops the oldest holds back no writer. The reader that is behind loses what is oldest, and
// nothing else; its state is what it has read; every record lost lies in a range that was named, and is counted, also where
// the job is paused meanwhile, or does not run, and over a restart. Its sibling gets everything (R3, R6).
func TestSlowReaderLoses(t *testing.T) {
	noLeaks(t)
	data, out := t.TempDir(), t.TempDir()
	const total, limit, step = 60_000, 64 << 10, 2500
	topic := jobs.BusTopic[int64]{Name: "numbers", Topic: jobs.Topic{LimitBytes: limit, OnFull: "drop_oldest", RetentionBytes: 1}}
	in := newTap(total, 0)
	slow := newGate(10)
	var seen numbersSeen
	log := &messages{}
	build := func() []*jobs.Job {
		writer := jobs.New("writer")
		jobs.ToTopic(numbers(writer, in), topic)
		return []*jobs.Job{writer, readTopic("fast", topic, out, nil), readTopic("slow", topic, out, func(_ int, n int64) error {
			slow.pass()
			seen.add(n)
			return nil
		})}
	}
	cfg := runtime.Config{DataDir: data, StuckAfter: patience, Logger: log.logger(), EpochBytes: 8 << 10, LogBytes: 128 << 10, TopicMemory: 8 << 10,
		Log: wal.Config{SegmentBytes: 16 << 10, GenerationBytes: 32 << 10}}
	rt := start(t, cfg, build()...)
	push := func(upTo int64) { // no faster than the fast reader, or that would lose something too
		t.Helper()
		for n := in.opened.Load(); n < upTo; {
			n = min(n+step, upTo)
			in.open(n)
			until(t, rt, fmt.Sprintf("the fast reader has %d", n), func() bool { return linesOf(t, filepath.Join(out, "fast.jsonl")) == int(n) })
		}
	}
	push(total / 3)
	if st := jobStatus(t, rt, "writer"); st.Counters.Out != total/3 || st.State != runtime.StateRunning {
		t.Errorf("the writer is %s after %d numbers: %v", st.State, st.Counters.Out, st.Waiting)
	}
	until(t, rt, "it is said who loses what", func() bool {
		return log.line("loses what is oldest", "topic=numbers", "subscription=slow/", "partition=0") != ""
	})
	slow.open(1000) // what is in its chunks and edges, and a bit
	if err := pauseWhile(t, rt, "slow", slow); err != nil {
		t.Fatal(err)
	}
	push(2 * total / 3)
	until(t, rt, "the paused one is to lose more", func() bool { return subOf(t, rt, "numbers", "slow").Dropping > 0 })
	ranges := droppedRanges(t, rt, "slow")
	stop(t, rt)

	rt = start(t, cfg, build()...)
	push(total - 1)
	slow.open(10 * total)
	if err := rt.ResumeJob(t.Context(), "slow"); err != nil {
		t.Fatal(err)
	}
	until(t, rt, "the slow one is through", func() bool { s := subOf(t, rt, "numbers", "slow"); return s.Lag == 0 && s.Dropping == 0 })
	account := subOf(t, rt, "numbers", "slow")
	lost := account.Dropped
	if s := subOf(t, rt, "numbers", "fast"); s.Dropped > 0 {
		t.Errorf("the fast reader lost %d", s.Dropped)
	}
	ranges = append(ranges, droppedRanges(t, rt, "slow")...)
	in.open(total)
	finish(t, rt)
	sameLines(t, "fast", fileLines(t, filepath.Join(out, "fast.jsonl")), tallied(total, nil))
	sameLines(t, "slow", fileLines(t, filepath.Join(out, "slow.jsonl")), tallied(total, seen.has))
	missing := uint64(0)
	for n := range int64(total) {
		if seen.has(n) {
			continue
		}
		missing++
		if !slices.ContainsFunc(ranges, func(r [2]int64) bool { return r[0] <= n && n <= r[1] }) {
			t.Fatalf("number %d is lost, and in none of the ranges that were named: %v", n, ranges)
		}
	}
	for _, l := range account.Lost {
		for n := l.From; n < l.To; n++ {
			if seen.has(int64(n)) {
				t.Fatalf("number %d was read, and is in a range that is said to be lost: %v", n, account.Lost)
			}
		}
	}
	if len(account.Lost) == 0 {
		t.Error("no range that was lost is named")
	}
	if lost != missing || lost < total/2 {
		t.Errorf("%d records are said to be lost; %d of %d are", lost, missing, total)
	}
	if !seen.has(total-1) || !seen.has(total-200) {
		t.Error("the newest were lost")
	}
}

// TestLostIsKept: what a subscription has lost is not forgotten where it is set elsewhere, replayed, or begins again in the next
// process.
func TestLostIsKept(t *testing.T) {
	noLeaks(t)
	const total, part = 40_000, 20_000
	topic := jobs.BusTopic[int64]{Name: "numbers", Topic: jobs.Topic{LimitBytes: 64 << 10, OnFull: "drop_oldest"}}
	in, out := newTap(total, 0), t.TempDir()
	build := func() []*jobs.Job {
		writer := jobs.New("writer")
		jobs.ToTopic(numbers(writer, in), topic)
		return []*jobs.Job{writer, readTopic("slow", topic, out, nil)}
	}
	cfg := runtime.Config{DataDir: t.TempDir(), EpochBytes: 8 << 10}
	rt := start(t, cfg, build()...)
	if err := rt.PauseJob(t.Context(), "slow"); err != nil {
		t.Fatal(err)
	}
	in.open(part)
	until(t, rt, "all is written", func() bool { return jobStatus(t, rt, "writer").Counters.Out == part })
	if err := rt.ResumeJob(t.Context(), "slow"); err != nil {
		t.Fatal(err)
	}
	until(t, rt, "the reader is through", func() bool { s := subOf(t, rt, "numbers", "slow"); return s.Lag == 0 && s.Dropping == 0 })
	was := subOf(t, rt, "numbers", "slow")
	if was.Dropped == 0 || len(was.Lost) == 0 {
		t.Fatalf("it lost nothing: %+v", was)
	}
	same := func(where string) {
		t.Helper()
		if s := subOf(t, rt, "numbers", "slow"); s.Dropped != was.Dropped || !slices.Equal(s.Lost, was.Lost) {
			t.Errorf("%s: it lost %d, %v; it was %d, %v", where, s.Dropped, s.Lost, was.Dropped, was.Lost)
		}
	}
	at := bus.Offset(part / 2)
	if _, err := rt.Seek(t.Context(), "slow", "numbers", runtime.Place{Offset: &at}, false); err != nil {
		t.Fatal(err)
	}
	same("set elsewhere")
	until(t, rt, "the reader is through", func() bool { return subOf(t, rt, "numbers", "slow").Lag == 0 })
	end := bus.Offset(part / 4)
	if _, err := rt.Replay(t.Context(), "slow", "numbers", runtime.ReplayOptions{To: &runtime.Place{Offset: &end}}); err != nil {
		t.Fatal(err)
	}
	same("replayed")
	until(t, rt, "the replay is over", func() bool { id, _, err := rt.Replaying("slow"); return err == nil && id == "" })
	same("behind the replay")
	stop(t, rt)
	rt = start(t, cfg, build()...)
	same("in the next process")
	stop(t, rt)
}

// pauseWhile pauses a job whose step waits at a gate, which is opened bit by bit until it has come to its last barrier.
func pauseWhile(t *testing.T, rt *runtime.Runtime, job string, g *gate) error {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	paused := make(chan error, 1)
	go func() { paused <- rt.PauseJob(ctx, job) }()
	for {
		select {
		case err := <-paused:
			return err
		default:
			g.open(50)
		}
	}
}

// TestRing: jobs may feed themselves over the bus where a topic of the ring drops the oldest: it never stands still.
func TestRing(t *testing.T) {
	noLeaks(t)
	out := t.TempDir()
	const last = 300
	ring := jobs.BusTopic[int64]{Name: "ring", Topic: jobs.Topic{LimitBytes: 1 << 10, OnFull: "drop_oldest"}}
	back := jobs.BusTopic[int64]{Name: "back"}
	first := jobs.New("first")
	jobs.ToTopic(numbers(first, newTap(1, 1)), ring)
	next := jobs.New("next")
	jobs.ToTopic(jobs.Map(jobs.Filter(jobs.FromTopic(next, ring), func(n int64) bool { return n < last }), func(n int64) int64 { return n + 1 }), back)
	round := jobs.New("round")
	in := jobs.FromTopic(round, back)
	jobs.ToTopic(in, ring)
	jobs.To(in, "main", file.Sink{Path: filepath.Join(out, "ring.jsonl")}, jobs.JSON[int64]())
	rt := start(t, runtime.Config{DataDir: t.TempDir()}, first, next, round)
	until(t, rt, "it has gone round", func() bool { return linesOf(t, filepath.Join(out, "ring.jsonl")) == last })
	stop(t, rt)
}
