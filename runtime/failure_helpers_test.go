package runtime_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	goruntime "runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/jobs/connector/file"
	"github.com/sidestream-dev/sidestream/runtime"
)

// patience is how long a test waits for what must come; a test that passes never needs it.
const patience = 60 * time.Second

// tap is a bounded source of the numbers 0 … total-1, in one split. It gives out no more than was opened, so that a test
// says how far a job has come.
type tap struct {
	total  int64
	opened atomic.Int64
	mu     sync.Mutex
	wakes  []chan struct{}
}

func newTap(total, opened int64) *tap {
	s := &tap{total: total}
	s.opened.Store(opened)
	return s
}

// open lets the numbers below n out.
func (s *tap) open(n int64) {
	s.opened.Store(n)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, w := range s.wakes {
		select {
		case w <- struct{}{}:
		default:
		}
	}
}

func (s *tap) Kind() string  { return "tap" }
func (s *tap) Bounded() bool { return true }

func (s *tap) Splits(context.Context, jobs.SourceEnv) ([]jobs.Start, error) {
	return []jobs.Start{{Split: jobs.Split{ID: "numbers", Topic: "numbers"}}}, nil
}

func (s *tap) Open(_ context.Context, _ jobs.SourceEnv, starts []jobs.Start) (jobs.Reader, error) {
	r := &tapReader{tap: s, ready: make(chan struct{}, 1)}
	if len(starts) > 0 && len(starts[0].Position) > 0 {
		n, err := strconv.ParseInt(string(starts[0].Position), 10, 64)
		if err != nil {
			return nil, err
		}
		r.next = n
	}
	s.mu.Lock()
	s.wakes = append(s.wakes, r.ready)
	s.mu.Unlock()
	return r, nil
}

type tapReader struct {
	*tap
	ready chan struct{}
	next  int64
}

func (r *tapReader) Ready() <-chan struct{} { return r.ready }

func (r *tapReader) Read(c *jobs.Chunk, want []int) error {
	if len(want) == 0 {
		return nil
	}
	for len(c.Messages) < c.Max && r.next < min(r.opened.Load(), r.total) {
		c.Messages = append(c.Messages, jobs.Message{Value: strconv.AppendInt(nil, r.next, 10), Offset: r.next})
		r.next++
	}
	c.Ended = r.next == r.total
	c.Position = strconv.AppendInt(nil, r.next, 10)
	return nil
}

func (r *tapReader) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.wakes = slices.DeleteFunc(r.wakes, func(w chan struct{}) bool { return w == r.ready })
	return nil
}

// tally is what a counting job makes of a number: how many numbers its key has had, and their sum. One effect too many or
// too few shows in every later line of the key.
type tally struct {
	N    int64 `json:"n"`
	Seen int64 `json:"seen"`
	Sum  int64 `json:"sum"`
}

const tallyKeys = 7

// counting builds a job that tallies the tap's numbers into a file. step, if not nil, is called with each number before.
func counting(name string, in *tap, out string, step func(subtask int, n int64) error) *jobs.Job {
	j := jobs.New(name)
	j.Delivery = jobs.ExactlyOnce
	jobs.To(tallies(numbers(j, in), step), "main", file.Sink{Path: filepath.Join(out, name+".jsonl")}, jobs.JSON[tally]())
	return j
}

func numbers(j *jobs.Job, in jobs.Source, opts ...jobs.Option) *jobs.Stream[int64] {
	return jobs.From(j, in, jobs.JSON[int64](), opts...)
}

// tallies counts by key. The effects of a number are made before step is asked, so that they must be undone if it fails.
func tallies(in *jobs.Stream[int64], step func(subtask int, n int64) error) *jobs.Stream[tally] {
	return talliesBy(in, tallyKeys, step)
}

func talliesBy(in *jobs.Stream[int64], keys int64, step func(subtask int, n int64) error) *jobs.Stream[tally] {
	keyed := jobs.KeyBy(in, func(n int64) int64 { return n % keys })
	out, _ := jobs.Process(keyed, func(s *jobs.Step[int64, int64, tally, jobs.None]) {
		seen, sum := jobs.ValueOf[int64](s, "seen"), jobs.ValueOf[int64](s, "sum")
		s.OnRecord = func(n int64) error {
			a, _ := seen.Get()
			b, _ := sum.Get()
			seen.Set(a + 1)
			sum.Set(b + n)
			s.Emit(tally{n, a + 1, b + n})
			if step != nil {
				return step(s.Env().Subtask, n)
			}
			return nil
		}
	}, jobs.ID("tally"))
	return out
}

// tallied is what a counting job must write of the numbers below total that keep lets through.
func tallied(total int64, keep func(n int64) bool) []string { return talliedBy(total, tallyKeys, keep) }

func talliedBy(total, keys int64, keep func(n int64) bool) []string {
	seen, sum := make([]int64, keys), make([]int64, keys)
	var out []string
	for n := range total {
		if keep != nil && !keep(n) {
			continue
		}
		k := n % keys
		seen[k]++
		sum[k] += n
		b, _ := json.Marshal(tally{n, seen[k], sum[k]})
		out = append(out, string(b))
	}
	slices.Sort(out)
	return out
}

// linesOf returns how many whole lines a file has by now; whoever writes it may be at it.
func linesOf(t testing.TB, path string) int {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return bytes.Count(b, []byte("\n"))
}

// fileLines returns a file's lines, sorted; none if it is not there.
func fileLines(t testing.TB, path string) []string {
	t.Helper()
	b, err := os.ReadFile(path)
	if os.IsNotExist(err) || len(b) == 0 && err == nil {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	if b[len(b)-1] != '\n' {
		t.Errorf("%s: the last line is torn", path)
	}
	lines := strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")
	slices.Sort(lines)
	return lines
}

// sameLines compares multisets.
func sameLines(t testing.TB, name string, got, want []string) {
	t.Helper()
	slices.Sort(got)
	slices.Sort(want)
	if slices.Equal(got, want) {
		return
	}
	var missing, extra []string
	for i, k := 0, 0; i < len(got) || k < len(want); {
		switch {
		case k == len(want) || i < len(got) && got[i] < want[k]:
			extra = append(extra, got[i])
			i++
		case i == len(got) || got[i] > want[k]:
			missing = append(missing, want[k])
			k++
		default:
			i, k = i+1, k+1
		}
	}
	t.Errorf("%s: %d lines, want %d; %d missing, such as %q; %d too many, such as %q", name, len(got), len(want),
		len(missing), missing[:min(3, len(missing))], len(extra), extra[:min(3, len(extra))])
}

// until polls cond; what says what is waited for. rt, if not nil, is shown when it does not come.
func until(t testing.TB, rt *runtime.Runtime, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !cond(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			status := ""
			if rt != nil {
				b, _ := json.MarshalIndent(rt.Status(), "", " ")
				status = "\n" + string(b)
			}
			t.Fatalf("not within %v: %s%s", patience, what, status)
		}
	}
}

// start opens a runtime and starts the jobs.
func start(t testing.TB, cfg runtime.Config, defs ...*jobs.Job) *runtime.Runtime {
	t.Helper()
	if cfg.BackoffMin == 0 {
		cfg.BackoffMin, cfg.BackoffMax = time.Millisecond, 20*time.Millisecond
	}
	if cfg.CatchUpPercent == 0 {
		cfg.CatchUpPercent = 100 // on a loaded machine a paced reader pays for the time that others take; pace_test.go says its own
	}
	if cfg.Logger == nil && testing.Verbose() {
		cfg.Logger = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	rt, err := runtime.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := rt.Start(defs); err != nil {
		t.Fatal(err)
	}
	return rt
}

// finish waits until all is done, and stops.
func finish(t testing.TB, rt *runtime.Runtime) {
	t.Helper()
	wait(t, rt)
	stop(t, rt)
}

func wait(t testing.TB, rt *runtime.Runtime) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := rt.Wait(ctx, true); err != nil {
		t.Fatal(err)
	}
	if ctx.Err() != nil {
		b, _ := json.MarshalIndent(rt.Status(), "", " ")
		t.Fatalf("not done within %v:\n%s", patience, b)
	}
}

func stop(t testing.TB, rt *runtime.Runtime) {
	t.Helper()
	if err := rt.Stop(); err != nil {
		t.Fatal(err)
	}
}

// jobStatus returns the status of one job.
func jobStatus(t testing.TB, rt *runtime.Runtime, name string) runtime.JobStatus {
	t.Helper()
	for _, j := range rt.Status().Jobs {
		if j.Name == name {
			return j
		}
	}
	t.Fatalf("there is no job %s", name)
	return runtime.JobStatus{}
}

// noLeaks fails the test if, at its end, goroutines are left that were not there when it was called.
func noLeaks(t testing.TB) {
	t.Helper()
	before := goruntime.NumGoroutine()
	t.Cleanup(func() {
		for end := time.Now().Add(patience); goruntime.NumGoroutine() > before; time.Sleep(5 * time.Millisecond) {
			if time.Now().After(end) {
				stacks := make([]byte, 1<<20)
				t.Errorf("%d goroutines, %d before:\n%s", goruntime.NumGoroutine(), before, stacks[:goruntime.Stack(stacks, true)])
				return
			}
		}
	})
}

// messages is a log handler's output that a test may read while it is written.
type messages struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (m *messages) Write(p []byte) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.b.Write(p)
}

func (m *messages) logger() *slog.Logger { return slog.New(slog.NewTextHandler(m, nil)) }

// line returns the first line that has all parts, or "".
func (m *messages) line(parts ...string) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	for l := range strings.Lines(m.b.String()) {
		if !slices.ContainsFunc(parts, func(p string) bool { return !strings.Contains(l, p) }) {
			return l
		}
	}
	return ""
}

// seeded returns a source of random numbers whose seed is printed and taken from an env variable.
func seeded(t testing.TB, env string) *rand.Rand {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv(env); s != "" {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatalf("%s=%q: %v", env, s, err)
		}
		seed = n
	}
	t.Logf("%s=%d repeats this run", env, seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// cannot ends a test that this machine cannot run. Where CI says that everything is there, it is a failure.
func cannot(t testing.TB, format string, args ...any) {
	t.Helper()
	why := fmt.Sprintf(format, args...)
	if os.Getenv("CI") == "true" {
		t.Fatal("CI must be able to run this: " + why)
	}
	t.Skip(why)
}
