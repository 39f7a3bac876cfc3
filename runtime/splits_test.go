package runtime_test

import (
	"context"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/jobs/connector/file"
	"github.com/sidestream-dev/sidestream/jobs/operator"
	"github.com/sidestream-dev/sidestream/runtime"
)

// taps is a source of several taps, a split each, that notes which positions it was told to be durable.
type taps struct {
	of []*tap

	mu        sync.Mutex
	committed map[string]string // by split
}

func newTaps(total int64, opened ...int64) *taps {
	s := &taps{committed: map[string]string{}}
	for _, n := range opened {
		s.of = append(s.of, newTap(total, n))
	}
	return s
}

func (s *taps) Kind() string  { return "taps" }
func (s *taps) Bounded() bool { return true }

func (s *taps) Splits(context.Context, jobs.SourceEnv) (starts []jobs.Start, err error) {
	for i := range s.of {
		starts = append(starts, jobs.Start{Split: jobs.Split{ID: strconv.Itoa(i), Topic: "numbers", Partition: int32(i)}})
	}
	return starts, nil
}

func (s *taps) Open(ctx context.Context, env jobs.SourceEnv, starts []jobs.Start) (jobs.Reader, error) {
	r := &tapsReader{taps: s, starts: starts, ready: make(chan struct{}, 1)}
	for i := range starts {
		t := s.of[starts[i].Split.Partition]
		one, err := t.Open(ctx, env, starts[i:i+1])
		if err != nil {
			return nil, err
		}
		r.readers = append(r.readers, one.(*tapReader))
		t.mu.Lock()
		t.wakes = append(t.wakes, r.ready)
		t.mu.Unlock()
	}
	return r, nil
}

func (s *taps) durable(split string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.committed[split]
}

type tapsReader struct {
	*taps
	starts  []jobs.Start
	readers []*tapReader
	ready   chan struct{}
}

func (r *tapsReader) Ready() <-chan struct{} { return r.ready }

func (r *tapsReader) Read(c *jobs.Chunk, want []int) error {
	for _, i := range want {
		c.Split = i
		if err := r.readers[i].Read(c, want); err != nil || len(c.Messages) > 0 || c.Ended {
			return err
		}
	}
	return nil
}

func (r *tapsReader) Committed(split int, position []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.committed[r.starts[split].Split.ID] = string(position)
}

func (r *tapsReader) Close() error {
	for _, one := range r.readers {
		if err := one.Close(); err != nil {
			return err
		}
	}
	return nil
}

// windowing builds a job that counts numbers in windows of 20 ms; a number is its own event time in milliseconds. step is
// called with each number before.
func windowing(src jobs.Source, out string, parallelism int, step func(n int64), opts ...jobs.Option) *jobs.Job {
	j := jobs.New("windowing")
	j.Parallelism = parallelism
	in := jobs.Map(numbers(j, src, append(opts, jobs.EventTime(func(n int64) time.Time { return time.UnixMilli(n) }, 0))...),
		func(n int64) int64 { step(n); return n })
	counts, _ := operator.Tumbling(jobs.KeyBy(in, func(int64) string { return "all" }), 20*time.Millisecond,
		operator.Aggregates(func(_ string, p *operator.Pane) int64 { return p.Int(0) }, operator.Count[int64]()))
	jobs.To(counts, "main", file.Sink{Path: filepath.Join(out, "counts.jsonl")}, jobs.JSON[int64]())
	return j
}

// TestRestoredWatermarkIsTold: a subtask that reads nothing after a restart does not hold back those behind it further than
// it did before.
func TestRestoredWatermarkIsTold(t *testing.T) {
	noLeaks(t)
	cfg, out := runtime.Config{DataDir: t.TempDir()}, t.TempDir()
	lines := func() int { return linesOf(t, filepath.Join(out, "counts.jsonl")) }
	rt := start(t, cfg, windowing(newTaps(1000, 100, 50), out, 2, func(int64) {}))
	until(t, rt, "the windows below 40 ms", func() bool { return lines() == 2 })
	stop(t, rt)
	s := newTaps(1000, 100, 50)
	rt = start(t, cfg, windowing(s, out, 2, func(int64) {}))
	s.of[1].open(90) // the other one stays where it was, at 100
	until(t, rt, "the windows below 80 ms", func() bool { return lines() == 4 })
	stop(t, rt)
}

// TestSlowJobIsNoIdleSplit: a split whose records the job itself is too slow to read is not idle, and they are not late.
func TestSlowJobIsNoIdleSplit(t *testing.T) {
	noLeaks(t)
	const after = 50 * time.Millisecond
	rt := start(t, runtime.Config{DataDir: t.TempDir()}, windowing(newTaps(1000, 100, 100), t.TempDir(), 1, func(n int64) {
		if n == 99 {
			time.Sleep(3 * after)
		}
	}, jobs.IdleAfter(after)))
	until(t, rt, "all records", func() bool { return jobStatus(t, rt, "windowing").Counters.In == 200 })
	if n := jobStatus(t, rt, "windowing").Counters.Late; n > 0 {
		t.Errorf("%d records were late, though both splits had records all the time", n)
	}
	stop(t, rt)
}

// TestIdleSplit: a split that is asked and has nothing is idle after a while, and holds no window back, also where the other
// one becomes idle at the same moment, or in another subtask before it.
func TestIdleSplit(t *testing.T) {
	for _, parallelism := range []int{1, 2} {
		t.Run(strconv.Itoa(parallelism), func(t *testing.T) {
			noLeaks(t)
			out := t.TempDir()
			rt := start(t, runtime.Config{DataDir: t.TempDir()}, windowing(newTaps(1000, 100, 0), out, parallelism, func(int64) {}, jobs.IdleAfter(50*time.Millisecond)))
			until(t, rt, "the windows below 80 ms", func() bool { return linesOf(t, filepath.Join(out, "counts.jsonl")) == 4 })
			stop(t, rt)
		})
	}
}

// TestDurablePositionsAreShown: a source learns that its positions are durable, also where nothing more comes.
func TestDurablePositionsAreShown(t *testing.T) {
	noLeaks(t)
	s := newTaps(1000, 10, 20)
	rt := start(t, runtime.Config{DataDir: t.TempDir()}, windowing(s, t.TempDir(), 1, func(int64) {}))
	until(t, rt, "both positions", func() bool { return s.durable("0") == "10" && s.durable("1") == "20" })
	s.of[0].open(30)
	until(t, rt, "what is open is read", func() bool { return jobStatus(t, rt, "windowing").Counters.In == 50 })
	stop(t, rt)
	if got := s.durable("0"); got != "30" {
		t.Errorf("after a stop position %q is shown, want 30", got)
	}
}
