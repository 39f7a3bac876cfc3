package runtime_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/jobs/connector/file"
	"github.com/sidestream-dev/sidestream/runtime"
)

// TestPanicIsContained: a job that panics is started again, from its last sealed epoch, and its siblings do not notice.
func TestPanicIsContained(t *testing.T) {
	noLeaks(t)
	out := t.TempDir()
	const total = 20_000
	var panics atomic.Int64
	bad := counting("bad", newTap(total, total), out, func(_ int, n int64) error {
		if n%3000 == 2999 && panics.Load() < (n+1)/3000 {
			panics.Add(1)
			panic(fmt.Sprintf("number %d", n))
		}
		return nil
	})
	rt := start(t, runtime.Config{DataDir: t.TempDir()}, counting("a", newTap(total, total), out, nil), bad, counting("b", newTap(total, total), out, nil))
	wait(t, rt)
	st := jobStatus(t, rt, "bad")
	if st.Restarts != 6 || !strings.Contains(st.Error, "panic: number 17999") || !strings.Contains(st.Error, "step") {
		t.Errorf("%d restarts, error %q", st.Restarts, st.Error)
	}
	for _, name := range []string{"a", "b"} {
		if st := jobStatus(t, rt, name); st.Restarts != 0 || st.Error != "" {
			t.Errorf("job %s noticed: %d restarts, error %q", name, st.Restarts, st.Error)
		}
	}
	stop(t, rt)
	for _, name := range []string{"a", "bad", "b"} {
		sameLines(t, name, fileLines(t, filepath.Join(out, name+".jsonl")), tallied(total, nil))
	}
}

// panicky is a source and a sink, each of which panics in a method when it is first called.
type panicky struct {
	*tap
	in   string
	once atomic.Bool
}

func (p *panicky) at(method string) {
	if p.in == method && !p.once.Swap(true) {
		panic(method)
	}
}

func (p *panicky) Splits(ctx context.Context, env jobs.SourceEnv) ([]jobs.Start, error) {
	p.at("Splits")
	return p.tap.Splits(ctx, env)
}

func (p *panicky) Open(ctx context.Context, env jobs.SourceEnv, starts []jobs.Start) (jobs.Reader, error) {
	p.at("source's Open")
	r, err := p.tap.Open(ctx, env, starts)
	return panickyReader{r, p}, err
}

type panickyReader struct {
	jobs.Reader
	p *panicky
}

func (r panickyReader) Close() error {
	r.p.at("source's Close")
	return r.Reader.Close()
}

type panickySink struct {
	file.Sink
	p *panicky
}

func (s panickySink) Open(ctx context.Context, env jobs.SinkEnv) (jobs.Writer, error) {
	s.p.at("sink's Open")
	w, err := s.Sink.Open(ctx, env)
	return panickyWriter{w, s.p}, err
}

type panickyWriter struct {
	jobs.Writer
	p *panicky
}

func (w panickyWriter) Write(ctx context.Context, ms []jobs.Message) ([]byte, error) {
	w.p.at("sink's Write")
	return w.Writer.Write(ctx, ms)
}

// TestPanicAnywhere: wherever a job's own code panics, also beside the records, it is that job's failure.
func TestPanicAnywhere(t *testing.T) {
	for _, method := range []string{"setup", "Splits", "source's Open", "source's Close", "sink's Open", "sink's Write"} {
		t.Run(method, func(t *testing.T) {
			noLeaks(t)
			const total = 100
			p := &panicky{tap: newTap(total, total), in: method}
			out := filepath.Join(t.TempDir(), "out.jsonl")
			j := jobs.New("j")
			keyed := jobs.KeyBy(numbers(j, p), func(n int64) int64 { return n })
			same, _ := jobs.Process(keyed, func(s *jobs.Step[int64, int64, int64, jobs.None]) {
				p.at("setup")
				s.OnRecord = func(n int64) error { s.Emit(n); return nil }
			})
			jobs.To(same, "main", panickySink{file.Sink{Path: out}, p}, jobs.JSON[int64]())
			rt := start(t, runtime.Config{DataDir: t.TempDir()}, j)
			finish(t, rt)
			if !p.once.Load() || linesOf(t, out) != total {
				t.Errorf("panicked: %v; %d lines", p.once.Load(), linesOf(t, out))
			}
		})
	}
}

// TestTenBarrenAttemptsFail: a job whose ten attempts in a row seal nothing is failed. It stays a producer: who reads what
// it writes waits for it by name. Mended, it goes on where it stood.
func TestTenBarrenAttemptsFail(t *testing.T) {
	noLeaks(t)
	data, out := t.TempDir(), t.TempDir()
	const total, good = 4000, 1000
	topic := jobs.BusTopic[int64]{Name: "numbers"}
	var attempts atomic.Int64
	broken := true
	build := func(in *tap) []*jobs.Job {
		w := jobs.New("writer")
		checked := jobs.TryMap(numbers(w, in), func(n int64) (int64, error) {
			if n == good && broken {
				attempts.Add(1)
				return 0, errors.New("no good")
			}
			return n, nil
		})
		jobs.ToTopic(checked, topic)
		r := jobs.New("reader")
		r.Delivery = jobs.ExactlyOnce
		jobs.To(tallies(jobs.FromTopic(r, topic), nil), "main", file.Sink{Path: filepath.Join(out, "reader.jsonl")}, jobs.JSON[tally]())
		return []*jobs.Job{w, r, counting("other", newTap(total, total), out, nil)}
	}

	in := newTap(total, good)
	rt := start(t, runtime.Config{DataDir: data}, build(in)...)
	until(t, rt, "the good numbers are read", func() bool { return linesOf(t, filepath.Join(out, "reader.jsonl")) == good })
	in.open(total)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	err := rt.Wait(ctx, true)
	var stalled *runtime.StalledError
	if !errors.As(err, &stalled) || len(stalled.Jobs) != 2 || !strings.Contains(err.Error(), "job writer has failed") ||
		!strings.Contains(err.Error(), "job reader waits for job writer") {
		t.Fatalf("Wait: %v", err)
	}
	// The attempt that sealed the good numbers failed too; ten more sealed nothing.
	if st := jobStatus(t, rt, "writer"); st.State != runtime.StateFailed || attempts.Load() != 11 {
		t.Errorf("the writer is %s after %d attempts, want failed after 11", st.State, attempts.Load())
	}
	if st := jobStatus(t, rt, "reader"); len(st.Waiting) != 1 || st.Waiting[0].For != runtime.WaitWatermark || !slices.Equal(st.Waiting[0].Jobs, []string{"writer"}) || st.Restarts != 0 {
		t.Errorf("the reader waits for %q, %d restarts", st.Waiting, st.Restarts)
	}
	stop(t, rt)
	sameLines(t, "other", fileLines(t, filepath.Join(out, "other.jsonl")), tallied(total, nil))
	sameLines(t, "reader", fileLines(t, filepath.Join(out, "reader.jsonl")), tallied(good, nil))

	broken = false
	finish(t, start(t, runtime.Config{DataDir: data, RestartFailed: true}, build(newTap(total, total))...))
	sameLines(t, "reader, mended", fileLines(t, filepath.Join(out, "reader.jsonl")), tallied(total, nil))
}

// TestProgressForgivesFailures: attempts that seal something are not counted against a job, however many fail.
func TestProgressForgivesFailures(t *testing.T) {
	noLeaks(t)
	out := t.TempDir()
	const total, failures = 1000, 25
	in := newTap(total, 0)
	var due atomic.Int64 // the number that fails next
	j := counting("j", in, out, func(_ int, n int64) error {
		if due.CompareAndSwap(n, -1) {
			return errors.New("once")
		}
		return nil
	})
	due.Store(-1)
	rt := start(t, runtime.Config{DataDir: t.TempDir(), AttemptsMax: 2}, j)
	for i := range int64(failures) {
		at := i * 10
		epochs := jobStatus(t, rt, "j").Counters.Epochs
		in.open(at + 5)
		until(t, rt, "an epoch is sealed", func() bool { return jobStatus(t, rt, "j").Counters.Epochs > epochs })
		due.Store(at + 7)
		in.open(at + 10)
		until(t, rt, "the attempt fails", func() bool { return jobStatus(t, rt, "j").Restarts > int(i) })
	}
	in.open(total)
	finish(t, rt)
	sameLines(t, "j", fileLines(t, filepath.Join(out, "j.jsonl")), tallied(total, nil))
}
