package runtime_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	goruntime "runtime"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/runtime"
)

// churns is how many changes TestChurn makes.
func churns(t testing.TB) int {
	n := 60
	if s := os.Getenv("CHURN_CHANGES"); s != "" {
		var err error
		if n, err = strconv.Atoi(s); err != nil {
			t.Fatalf("CHURN_CHANGES=%q: %v", s, err)
		}
	}
	return n
}

// level is what a process holds.
type level struct {
	goroutines, files int
	heap              uint64
}

func levelNow(t testing.TB) level {
	t.Helper()
	goruntime.GC()
	goruntime.GC()
	var m goruntime.MemStats
	goruntime.ReadMemStats(&m)
	l := level{goroutines: goruntime.NumGoroutine(), heap: m.HeapAlloc}
	if fds, err := os.ReadDir("/proc/self/fd"); err == nil {
		l.files = len(fds)
	}
	return l
}

// TestChurn: while two jobs run, two clients add, change, pause, restart, save and remove others at random, often the same ones. Those two
// lose and repeat nothing, no change is half done, and what the process holds comes back to its level.
func TestChurn(t *testing.T) {
	noLeaks(t)
	rng := seeded(t, "CHURN_SEED")
	data, out := t.TempDir(), t.TempDir()
	topic := jobs.BusTopic[int64]{Name: "numbers"}
	const total = 1_000_000
	in := newTap(total, 1000)
	steady := readTopic("steady", topic, out, nil)
	rt := start(t, runtime.Config{DataDir: data, Probation: 20 * time.Millisecond, TopicMemory: 64 << 10}, writerJob("writer", in, topic), steady)
	n := churns(t)
	var mu sync.Mutex
	opened, kept := int64(1000), 0
	pick := func(n int) int {
		mu.Lock()
		defer mu.Unlock()
		opened += 20
		in.open(min(opened, total))
		return rng.IntN(n)
	}
	build := func(name string) *jobs.Job {
		mu.Lock()
		kept++
		n := kept
		mu.Unlock()
		j := jobs.New(name)
		j.Parallelism = 1 + n%3
		jobs.To(tallies(jobs.FromTopic(j, topic), nil), "main", &gatedSink{open: closed}, jobs.JSON[tally]())
		return version(j, fmt.Sprint("version ", n))
	}
	allowed := func(err error) bool {
		var phase *runtime.PhaseError
		return err == nil || errors.Is(err, runtime.ErrNoJob) || errors.As(err, &phase)
	}
	churn := func(n int) {
		ctx := t.Context()
		for range n {
			name := fmt.Sprint("churned", pick(3))
			var err error
			switch pick(8) {
			case 0, 1, 2, 3:
				_, err = rt.Apply(ctx, byAPI(build(name)), runtime.ApplyOptions{})
			case 4:
				err = rt.PauseJob(ctx, name)
			case 5:
				err = rt.RestartJob(ctx, name)
			case 6:
				err = rt.StopJob(ctx, name, runtime.StopOptions{Force: pick(2) == 0})
			default:
				_, err = rt.RemoveJob(ctx, name, runtime.RemoveOptions{DropUnsent: pick(2) == 0})
			}
			if !allowed(err) {
				t.Error(err)
			}
		}
	}
	both := func(n int) {
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(func() { churn(n / 2) })
		}
		wg.Wait()
		for i := range 3 {
			if _, err := rt.RemoveJob(t.Context(), fmt.Sprint("churned", i), runtime.RemoveOptions{DropUnsent: true}); !allowed(err) {
				t.Fatal(err)
			}
		}
	}
	both(max(10, n/4)) // until then pools and buffers grow
	before := levelNow(t)
	both(n)
	var after level
	until(t, rt, "goroutines and files are back", func() bool {
		after = levelNow(t)
		return after.goroutines <= before.goroutines && after.files <= before.files
	})
	t.Logf("before %+v, after %d changes %+v", before, n, after)
	if after.heap > before.heap+(8<<20) { // the log's tail segment and the events are bounded, and not yet full
		t.Errorf("the heap is %d bytes, and was %d", after.heap, before.heap)
	}
	infos, err := rt.JobDefinitions()
	if err != nil || len(infos) != 2 {
		t.Errorf("jobs left: %+v, %v", infos, err)
	}
	if claimed(rt) != " numbers <steady/bus-1 steady/main <sender:steady/main" {
		t.Errorf("topics left:%s", claimed(rt))
	}
	until(t, rt, "the steady reader has all", func() bool { return linesOf(t, filepath.Join(out, "steady.jsonl")) == int(opened) })
	stop(t, rt)
	sameLines(t, "steady", fileLines(t, filepath.Join(out, "steady.jsonl")), tallied(opened, nil))
}

var closed = func() chan struct{} { c := make(chan struct{}); close(c); return c }()
