package runtime_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sidestream-dev/sidestream/internal/killtest"
	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/jobs/connector/file"
	"github.com/sidestream-dev/sidestream/jobs/operator"
	"github.com/sidestream-dev/sidestream/runtime"
)

// working is a step that gives each record to work before it sends it on.
func working(in *jobs.Stream[int64], work func(subtask int, n int64)) *jobs.Stream[int64] {
	out, _ := jobs.Attach(in, jobs.Op[int64, int64, jobs.None]{Kind: "work", ID: "work", Atomic: true,
		New: func(env *jobs.Env, emit func(*jobs.Rec[int64]), _ func(*jobs.Rec[jobs.None])) (jobs.Instance[int64], error) {
			return jobs.Instance[int64]{Process: func(r *jobs.Rec[int64]) error {
				work(env.Subtask, r.Value)
				emit(r)
				return nil
			}}, nil
		}})
	return out
}

// stuckAtFirst returns what a subtask does with a record: the one with the index 0 waits, with its first, until free is closed.
func stuckAtFirst(taken *[3]atomic.Int64, free chan struct{}) func(subtask int, n int64) {
	return func(subtask int, _ int64) {
		if taken[subtask].Add(1) == 1 && subtask == 0 {
			<-free
		}
	}
}

// TestRebalanceUneven: of one partition's numbers each of three subtasks takes what it can. While one of them is stuck with a
// record, the others take all that is not in its queue, and what comes out is everything, once.
func TestRebalanceUneven(t *testing.T) {
	noLeaks(t)
	const total = 60_000
	out := filepath.Join(t.TempDir(), "all.jsonl")
	free, taken := make(chan struct{}), [3]atomic.Int64{}
	j := jobs.New("uneven")
	j.Parallelism, j.Delivery = 3, jobs.ExactlyOnce
	work := working(jobs.Rebalance(numbers(j, newTap(total, total))), stuckAtFirst(&taken, free))
	jobs.To(work, "all", file.Sink{Path: out}, jobs.JSON[int64]())
	rt := start(t, runtime.Config{DataDir: t.TempDir()}, j)
	until(t, rt, "the others to take most of the numbers", func() bool { return taken[1].Load()+taken[2].Load() >= total*3/4 })
	if n := taken[0].Load(); n > 1 {
		t.Errorf("the stuck subtask has taken %d records", n)
	}
	close(free)
	finish(t, rt)
	want := make([]string, total)
	for n := range want {
		want[n] = fmt.Sprint(n)
	}
	slices.Sort(want)
	sameLines(t, "all", fileLines(t, out), want)
}

// TestRebalanceWatermark: while a subtask is stuck with records, no watermark that the others have passed on makes them late
// in the windows behind.
func TestRebalanceWatermark(t *testing.T) {
	noLeaks(t)
	const total = 2000 // the edges hold them
	out := filepath.Join(t.TempDir(), "counts.jsonl")
	free, taken := make(chan struct{}), [3]atomic.Int64{}
	j := jobs.New("marks")
	j.Parallelism = 3
	ns := numbers(j, newTap(total, total), jobs.EventTime(func(n int64) time.Time { return time.UnixMilli(n) }, 0))
	work := working(jobs.Rebalance(ns), stuckAtFirst(&taken, free))
	counts, _ := operator.Tumbling(jobs.KeyBy(work, func(n int64) int64 { return n % 5 }), 50*time.Millisecond,
		operator.Aggregates(func(_ int64, p *operator.Pane) int64 { return p.Int(0) }, operator.Count[int64]()))
	jobs.To(counts, "counts", file.Sink{Path: out}, jobs.JSON[int64]())
	rt := start(t, runtime.Config{DataDir: t.TempDir()}, j)
	until(t, rt, "the others to take numbers", func() bool { return taken[1].Load()+taken[2].Load() >= total/2 })
	close(free)
	finish(t, rt)
	sameLines(t, "counts", fileLines(t, out), slices.Repeat([]string{"10"}, total/50*5))
	if late := jobStatus(t, rt, "marks").Counters.Late; late != 0 {
		t.Errorf("%d records were late", late)
	}
}

// TestRebalanceCounters: the picture of who is at work and who is held back is right: the steps behind the rebalance are busy,
// the source is held, and nobody's time counts twice.
func TestRebalanceCounters(t *testing.T) {
	noLeaks(t)
	const total = 10_000
	in := newTap(total, total)
	j := jobs.New("picture")
	j.Parallelism = 2
	work := working(jobs.Rebalance(numbers(j, in)), func(int, int64) { time.Sleep(200 * time.Microsecond) })
	jobs.To(work, "main", file.Sink{Path: filepath.Join(t.TempDir(), "out.jsonl")}, jobs.JSON[int64]())
	began := time.Now()
	rt := start(t, runtime.Config{DataDir: t.TempDir()}, j)
	var st runtime.JobStatus
	until(t, rt, "half of the numbers", func() bool {
		st = jobStatus(t, rt, "picture")
		return len(st.Subtasks) == 4 && st.Subtasks[2].In+st.Subtasks[3].In > total/2
	})
	took := time.Since(began)
	for _, s := range st.Subtasks {
		if sum := s.Busy + s.Idle + s.Held; sum > took {
			t.Errorf("%s (subtask %d) was busy %v, idle %v and held %v within %v", s.Task, s.Index, s.Busy, s.Idle, s.Held, took)
		}
	}
	src, workers := st.Subtasks[0], st.Subtasks[2:]
	if strings.Contains(src.Task, "work") || !strings.HasPrefix(workers[0].Task, "work") {
		t.Fatalf("tasks %q and %q", src.Task, workers[0].Task)
	}
	if src.Held < src.Busy {
		t.Errorf("the source was busy %v and held %v: want it held back by slow steps", src.Busy, src.Held)
	}
	for _, w := range workers {
		if w.Busy < 2*(w.Idle+w.Held) || w.In == 0 {
			t.Errorf("subtask %d of the slow step took %d records, was busy %v, idle %v and held %v: want it busy", w.Index, w.In, w.Busy, w.Idle, w.Held)
		}
	}
	finish(t, rt)
}

// TestKillWithRebalance kills a process that spreads one file over three subtasks: nothing is lost or repeated, in windows of
// whole numbers or in the records themselves, and the number of subtasks may be another each time.
func TestKillWithRebalance(t *testing.T) {
	rng := killtest.Seeded(t)
	dir, data := t.TempDir(), filepath.Join(t.TempDir(), "data")
	const total = 100_000
	var in bytes.Buffer
	var all []string
	for n := range total {
		line := fmt.Sprintf(`{"n":%d,"ts":%d}`, n, n)
		all = append(all, line)
		in.WriteString(line + "\n")
	}
	slices.Sort(all)
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("in.txt", in.String())
	define := func(parallelism int) {
		write("spread.yaml", fmt.Sprintf(`version: 1
job: spread
delivery: exactly_once
parallelism: %d
source:
  file: {path: %q, format: jsonl}
  event_time: {from: value.ts}
steps:
  - rebalance: {}
  - filter: {if: 'value.n >= 0 && lower("X") == "x"'}
  - side: {to: all}
  - key_by: value.n %% 4
  - {id: sums, window: {tumbling: 1s, aggregate: {n: count(), sum: sum(value.n)}}}
  - map: {key: key, n: value.n, sum: value.sum}
outputs:
  all: {file: {path: %q}}
  main: {file: {path: %q}}
`, parallelism, filepath.Join(dir, "in.txt"), filepath.Join(dir, "all.jsonl"), filepath.Join(dir, "sums.jsonl")))
	}
	run := func(patience time.Duration) (done bool, took time.Duration) {
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		var stderr bytes.Buffer
		c := exec.Command(self)
		c.Env = append(os.Environ(), crashChild+"=plain", crashJobs+"="+dir, crashData+"="+data)
		c.Stderr = &stderr
		began := time.Now()
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		var killed atomic.Bool
		timer := time.AfterFunc(patience, func() {
			killed.Store(true)
			_ = c.Process.Kill() // it may have ended by itself
		})
		err = c.Wait()
		timer.Stop()
		if err != nil && !killed.Load() {
			t.Fatalf("%v: %s", err, stderr.Bytes())
		}
		return err == nil, time.Since(began)
	}
	define(3)
	kills, wanted := 0, killtest.Kills(t, 4, 10)
	done := false
	for i := 0; kills < wanted; i++ {
		if done, _ = run(20*time.Millisecond + time.Duration(rng.IntN(300))*time.Millisecond); done {
			break
		}
		kills++
		define(1 + rng.IntN(4))
	}
	for !done {
		done, _ = run(10 * time.Minute)
	}
	t.Logf("%d kills", kills)
	sameLines(t, "all", fileLines(t, filepath.Join(dir, "all.jsonl")), all)
	var sums []string
	for second := range total / 1000 {
		for key := range 4 {
			sum := 0
			for n := second*1000 + key; n < (second+1)*1000; n += 4 {
				sum += n
			}
			sums = append(sums, fmt.Sprintf(`{"key":%d,"n":250,"sum":%d}`, key, sum))
		}
	}
	slices.Sort(sums)
	sameLines(t, "sums", fileLines(t, filepath.Join(dir, "sums.jsonl")), sums)
}

// BenchmarkRebalance: one partition and a step that takes about 10 µs a record.
func BenchmarkRebalance(b *testing.B) {
	for _, p := range []int{1, 2, 4} {
		b.Run(fmt.Sprintf("subtasks=%d", p), func(b *testing.B) {
			total := int64(b.N)
			j := jobs.New("bench")
			j.Parallelism = p
			var sink atomic.Int64
			work := working(jobs.Rebalance(numbers(j, newTap(total, total))), func(_ int, n int64) {
				x := uint64(n)
				for range 8000 {
					x ^= x << 13
					x ^= x >> 7
					x ^= x << 17
				}
				if x == 1 {
					sink.Add(1)
				}
			})
			jobs.ToTopic(jobs.Filter(work, func(n int64) bool { return n%1000 == 0 }), jobs.BusTopic[int64]{Name: "some"})
			b.ResetTimer()
			rt := start(b, runtime.Config{DataDir: b.TempDir()}, j)
			wait(b, rt)
			b.ReportMetric(float64(total)/b.Elapsed().Seconds(), "records/s")
		})
	}
}
