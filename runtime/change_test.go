package runtime_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	goruntime "runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/jobs/connector/file"
	"github.com/sidestream-dev/sidestream/runtime"
)

// byAPI makes definitions of the API.
func byAPI(js ...*jobs.Job) (defs []runtime.Definition) {
	for _, j := range js {
		defs = append(defs, runtime.Definition{Job: j, Origin: runtime.OriginAPI})
	}
	return defs
}

func apply(t testing.TB, rt *runtime.Runtime, js ...*jobs.Job) runtime.ApplyResult {
	t.Helper()
	res, err := rt.Apply(t.Context(), byAPI(js...), runtime.ApplyOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return res
}

func remove(t testing.TB, rt *runtime.Runtime, name string, o runtime.RemoveOptions) runtime.RemoveResult {
	t.Helper()
	res, err := rt.RemoveJob(t.Context(), name, o)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

// writerJob writes a tap's numbers to a topic.
func writerJob(name string, in *tap, topic jobs.BusTopic[int64]) *jobs.Job {
	j := jobs.New(name)
	jobs.ToTopic(numbers(j, in), topic)
	return j
}

// TestHotAddAndRemove: jobs that come while another writes read all of its topic, each number once; those that go leave
// nothing behind, and one of the same name that comes later begins anew.
func TestHotAddAndRemove(t *testing.T) {
	noLeaks(t)
	data, out := t.TempDir(), t.TempDir()
	const total = 20_000
	topic := jobs.BusTopic[int64]{Name: "numbers"}
	in := newTap(total, 1000)
	rt := start(t, runtime.Config{DataDir: data}, writerJob("writer", in, topic))
	for i := range 4 {
		in.open(int64(1000 + i*2000))
		apply(t, rt, readTopic("reader", topic, out, nil))
		read := filepath.Join(out, "reader.jsonl")
		until(t, rt, "the reader has caught up", func() bool { return linesOf(t, read) >= 1000+i*2000 })
		if res := remove(t, rt, "reader", runtime.RemoveOptions{}); len(res.Dropped) > 0 {
			t.Errorf("round %d: dropped %v", i, res.Dropped)
		}
		sameLines(t, fmt.Sprintf("reader %d", i), fileLines(t, read), tallied(int64(linesOf(t, read)), nil))
		if _, err := rt.JobDefinition("reader"); !errors.Is(err, runtime.ErrNoJob) {
			t.Errorf("round %d: the removed job is still known: %v", i, err)
		}
		for _, topic := range rt.Status().Topics {
			if topic.Name != "numbers" || len(topic.Subscriptions) > 0 {
				t.Errorf("round %d: left of the removed job: %+v", i, topic)
			}
		}
		if err := os.Remove(read); err != nil {
			t.Fatal(err)
		}
	}
	apply(t, rt, readTopic("reader", topic, out, nil))
	in.open(total)
	finish(t, rt)
	sameLines(t, "the last reader", fileLines(t, filepath.Join(out, "reader.jsonl")), tallied(total, nil))
	if files, _ := filepath.Glob(filepath.Join(data, "snapshots", "*")); len(files) > 0 {
		t.Errorf("snapshots are left: %q", files)
	}
}

// TestApplyIsAllOrNothing: where one of a set cannot be added, none is, and nothing is left of the others.
func TestApplyIsAllOrNothing(t *testing.T) {
	noLeaks(t)
	out := t.TempDir()
	topic := jobs.BusTopic[int64]{Name: "numbers"}
	rt := start(t, runtime.Config{DataDir: t.TempDir(), ConnectTimeout: 50 * time.Millisecond}, writerJob("writer", newTap(100, 100), topic))
	defer stop(t, rt)
	until(t, rt, "the writer has ended", func() bool { return jobStatus(t, rt, "writer").State == runtime.StateEnded })
	good := func() *jobs.Job { return readTopic("good", topic, out, nil) }
	circle := func() *jobs.Job {
		j := jobs.New("circle")
		jobs.ToTopic(jobs.FromTopic(j, topic), jobs.BusTopic[int64]{Name: "round"})
		return j
	}
	back := func() *jobs.Job {
		j := jobs.New("back")
		jobs.ToTopic(jobs.FromTopic(j, jobs.BusTopic[int64]{Name: "round"}), topic)
		return j
	}
	panics := jobs.New("panics")
	keyed := jobs.KeyBy(numbers(panics, newTap(1, 1)), func(n int64) int64 { return n })
	jobs.Process(keyed, func(*jobs.Step[int64, int64, int64, jobs.None]) { panic("setup") })
	same := jobs.New("same-file")
	jobs.To(jobs.FromTopic(same, topic), "main", file.Sink{Path: filepath.Join(out, "good.jsonl")}, jobs.JSON[int64]())
	partitions := jobs.New("partitions")
	jobs.ToTopic(numbers(partitions, newTap(1, 1)), jobs.BusTopic[int64]{Name: "numbers", Topic: jobs.Topic{Name: "numbers", Partitions: 3}})
	away := jobs.New("away")
	jobs.ToTopic(numbers(away, &awayTap{newTap(1, 1)}), jobs.BusTopic[int64]{Name: "other"})
	at := jobs.New("at")
	jobs.ToTopic(jobs.FromTopic(at, topic, jobs.StartAt(5000)), jobs.BusTopic[int64]{Name: "other"})
	tests := []struct {
		name string
		set  []*jobs.Job
		says string
	}{
		{"a circle", []*jobs.Job{good(), circle(), back()}, "in a circle"},
		{"setup panics", []*jobs.Job{good(), panics}, "panic: setup"},
		{"one file for two", []*jobs.Job{good(), same}, "which can belong to one only"},
		{"two of a name", []*jobs.Job{good(), good()}, "two jobs are called"},
		{"other partitions", []*jobs.Job{good(), partitions}, "partitions"},
		{"its outside is away", []*jobs.Job{good(), away}, "it waits for the tap"},
		{"an offset that is not there", []*jobs.Job{good(), at}, "offset 5000 is not there"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			before, goroutines := claimed(rt), goruntime.NumGoroutine()
			_, err := rt.Apply(t.Context(), byAPI(tt.set...), runtime.ApplyOptions{})
			var refused *runtime.ApplyError
			if !errors.As(err, &refused) || !strings.Contains(err.Error(), tt.says) {
				t.Fatalf("Apply: %v; want %q", err, tt.says)
			}
			if infos, err := rt.JobDefinitions(); err != nil || len(infos) != 1 {
				t.Errorf("%d jobs are there, %v", len(infos), err)
			}
			until(t, rt, "nothing is left", func() bool {
				return claimed(rt) == before && goruntime.NumGoroutine() <= goroutines
			})
		})
	}
	res, err := rt.Apply(t.Context(), byAPI(good()), runtime.ApplyOptions{DryRun: true})
	if err != nil || len(res.Jobs) != 1 || res.Jobs[0].Action != runtime.ActionAdd {
		t.Errorf("dry run: %+v, %v", res, err)
	}
	if _, err := rt.JobDefinition("good"); !errors.Is(err, runtime.ErrNoJob) {
		t.Errorf("a dry run has added the job: %v", err)
	}
	apply(t, rt, good())
	if res := apply(t, rt, good()); res.Jobs[0].Action != runtime.ActionUnchanged {
		t.Errorf("applied again: %+v", res)
	}
}

// claimed names the topics there are with their subscriptions.
func claimed(rt *runtime.Runtime) string {
	text := ""
	for _, t := range rt.Status().Topics {
		text += " " + t.Name
		for _, s := range t.Subscriptions {
			text += " <" + s.Name
		}
	}
	return text
}

// awayTap never answers.
type awayTap struct{ *tap }

func (a *awayTap) Splits(ctx context.Context, env jobs.SourceEnv) ([]jobs.Start, error) {
	env.Waiting("the tap")
	<-ctx.Done()
	return nil, ctx.Err()
}

// TestRemoveWaitsForSenders: what a job has given out is outside before it goes, or it stays; dropping says how much.
func TestRemoveWaitsForSenders(t *testing.T) {
	noLeaks(t)
	const total = 500
	gate := &gatedSink{open: make(chan struct{})}
	build := func() *jobs.Job {
		j := jobs.New("j")
		jobs.To(numbers(j, newTap(total, total)), "main", gate, jobs.JSON[int64]())
		return j
	}
	rt := start(t, runtime.Config{DataDir: t.TempDir()})
	defer stop(t, rt)
	apply(t, rt, build())
	until(t, rt, "all is given out", func() bool { return jobStatus(t, rt, "j").Counters.Out == total })
	keptBack(t, rt, "j", map[string]int64{"main": total})
	close(gate.open)
	until(t, rt, "the job is still there and sends", func() bool { return gate.taken.Load() == total })
	remove(t, rt, "j", runtime.RemoveOptions{})

	gate.open = make(chan struct{})
	apply(t, rt, build())
	until(t, rt, "all is given out again", func() bool { return jobStatus(t, rt, "j").Counters.Out == total })
	if res := remove(t, rt, "j", runtime.RemoveOptions{DropUnsent: true, Timeout: patience}); res.Dropped["main"] != total {
		t.Errorf("dropped %v, want all %d", res.Dropped, total)
	}
}

// keptBack wants a job not to be removed because of what it has not sent. Within a short time a job on a busy machine may also not
// come to its last barrier, which is another error: then it goes on, and is asked again.
func keptBack(t *testing.T, rt *runtime.Runtime, name string, want map[string]int64) {
	t.Helper()
	var unsent *runtime.UnsentError
	var err error
	for end := time.Now().Add(patience); !errors.As(err, &unsent) && time.Now().Before(end); {
		if _, err = rt.RemoveJob(t.Context(), name, runtime.RemoveOptions{Timeout: 50 * time.Millisecond}); err == nil {
			break
		}
	}
	if unsent == nil || !maps.Equal(unsent.Unsent, want) {
		t.Fatalf("RemoveJob: %v; want it kept by %v", err, want)
	}
}

// gatedSink takes records once its gate is open.
type gatedSink struct {
	open  chan struct{}
	taken atomic.Int64
}

func (k *gatedSink) Kind() string       { return "gated" }
func (k *gatedSink) ExactlyOnce() error { return nil }
func (k *gatedSink) Open(context.Context, jobs.SinkEnv) (jobs.Writer, error) {
	return gatedWriter{k, k.open}, nil
}

type gatedWriter struct {
	k    *gatedSink
	open chan struct{}
}

func (w gatedWriter) Write(ctx context.Context, ms []jobs.Message) ([]byte, error) {
	if len(ms) == 0 {
		return nil, nil
	}
	select {
	case <-w.open:
		w.k.taken.Add(int64(len(ms)))
		return []byte("s"), nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (w gatedWriter) Close() error { return nil }
