package runtime_test

import (
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/jobs/connector/file"
	"github.com/sidestream-dev/sidestream/runtime"
)

// gate holds back whoever passes it while it is shut.
type gate struct {
	mu   sync.Mutex
	cond *sync.Cond
	left int // how many may pass
}

func newGate(left int) *gate {
	g := &gate{left: left}
	g.cond = sync.NewCond(&g.mu)
	return g
}

func (g *gate) pass() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for g.left == 0 {
		g.cond.Wait()
	}
	g.left--
}

func (g *gate) open(n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.left += n
	g.cond.Broadcast()
}

// readTopic builds a job that tallies a topic of numbers into a file.
func readTopic(name string, topic jobs.BusTopic[int64], out string, step func(int, int64) error) *jobs.Job {
	j := jobs.New(name)
	j.Delivery = jobs.ExactlyOnce
	jobs.To(tallies(jobs.FromTopic(j, topic), step), "main", file.Sink{Path: filepath.Join(out, name+".jsonl")}, jobs.JSON[tally]())
	return j
}

// TestSlowReader: a topic whose limit is small holds back the job that writes it, between two epochs, once a reader has
// fallen behind so far; that is announced before, and names the reader. The other reader gets all that is written, and
// nothing is lost (R8, block).
func TestSlowReader(t *testing.T) {
	noLeaks(t)
	out := t.TempDir()
	const total, limit = 50_000, 64 << 10
	topic := jobs.BusTopic[int64]{Name: "numbers", Topic: jobs.Topic{LimitBytes: limit}}
	writer := jobs.New("writer")
	jobs.ToTopic(numbers(writer, newTap(total, total)), topic)
	slow := newGate(10)
	log := &messages{}
	rt := start(t, runtime.Config{DataDir: t.TempDir(), StuckAfter: patience, Logger: log.logger(), EpochBytes: 8 << 10}, writer, // one epoch may pass the limit
		readTopic("fast", topic, out, nil), readTopic("slow", topic, out, func(int, int64) error {
			slow.pass()
			return nil
		}))
	full := func() bool {
		return slices.ContainsFunc(jobStatus(t, rt, "writer").Waiting, func(w runtime.Wait) bool {
			return w.For == runtime.WaitRoom && w.Topic == "numbers" && slices.Equal(w.Jobs, []string{"slow"}) && strings.Contains(w.Text, "slow/")
		})
	}
	until(t, rt, "the writer waits and says for whom", full)
	until(t, rt, "it is announced that the topic is nearly full, and because of whom", func() bool {
		return log.line("nearly full", "topic=numbers", "behind=slow/") != ""
	})
	// The epochs under way may still pass; then nothing more is written, for as long as the gate is shut.
	written, still := int64(0), 0
	until(t, rt, "the fast reader has all that was written, and the writer waits for the slow one", func() bool {
		w := jobStatus(t, rt, "writer")
		if still++; w.Counters.Out != written || w.State != runtime.StateWaiting || !full() || linesOf(t, filepath.Join(out, "fast.jsonl")) != int(w.Counters.Out) {
			written, still = w.Counters.Out, 0
		}
		return still == 40 // polls, 5 ms apart
	})
	if written >= total {
		t.Errorf("the writer was not held back: %d of %d numbers", written, total)
	}
	if st := jobStatus(t, rt, "fast"); st.Lag != 0 || st.Restarts != 0 {
		t.Errorf("the fast reader lags by %d, restarted %d times", st.Lag, st.Restarts)
	}
	slow.open(total)
	finish(t, rt)
	for _, name := range []string{"fast", "slow"} {
		sameLines(t, name, fileLines(t, filepath.Join(out, name+".jsonl")), tallied(total, nil))
	}
}

// TestStopWhileFull: a job that a full topic holds back stops at a last barrier like any other, and goes on exactly.
func TestStopWhileFull(t *testing.T) {
	noLeaks(t)
	data, out := t.TempDir(), t.TempDir()
	const total = 50_000
	topic := jobs.BusTopic[int64]{Name: "numbers", Topic: jobs.Topic{LimitBytes: 16 << 10}}
	slow := newGate(100)
	build := func() []*jobs.Job {
		writer := jobs.New("writer")
		jobs.ToTopic(numbers(writer, newTap(total, total)), topic)
		return []*jobs.Job{writer, readTopic("slow", topic, out, func(int, int64) error {
			slow.pass()
			return nil
		})}
	}
	for round := range 3 {
		rt := start(t, runtime.Config{DataDir: data, StuckAfter: patience, EpochBytes: 8 << 10}, build()...)
		until(t, rt, "the writer waits", func() bool { return jobStatus(t, rt, "writer").State == runtime.StateWaiting })
		stopped := make(chan error, 1)
		go func() { stopped <- rt.Stop() }()
		// The reader is on its way while the writer stops.
		for done := false; !done; {
			select {
			case err := <-stopped:
				if err != nil {
					t.Fatalf("round %d: %v", round, err)
				}
				done = true
			case <-time.After(time.Millisecond):
				slow.open(100)
			}
		}
	}
	slow.open(10 * total)
	finish(t, start(t, runtime.Config{DataDir: data}, build()...))
	sameLines(t, "slow", fileLines(t, filepath.Join(out, "slow.jsonl")), tallied(total, nil))
}
