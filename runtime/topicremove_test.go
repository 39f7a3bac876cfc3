package runtime_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/runtime"
	"github.com/sidestream-dev/sidestream/wal"
)

// inUse wants a topic not to be removed, and the reason to say so.
func inUse(t testing.TB, rt *runtime.Runtime, topic string, says ...string) {
	t.Helper()
	var used *runtime.TopicInUseError
	_, err := rt.RemoveTopic(t.Context(), topic, false)
	if !errors.As(err, &used) {
		t.Fatalf("topic %s: %v", topic, err)
	}
	for _, s := range says {
		if !strings.Contains(err.Error(), s) {
			t.Errorf("it says %q; want %q in it", err, s)
		}
	}
	if _, there := rt.Topic(topic); !there {
		t.Fatalf("topic %s is gone", topic)
	}
}

// TestRemoveTopic: a topic goes with its records and files once no job has to do with it, whether they run or not; who follows
// it learns so, and one of its name that is made later has nothing of it, also where a savepoint stood in the first.
func TestRemoveTopic(t *testing.T) {
	noLeaks(t)
	const n = 20_000
	data, out := t.TempDir(), t.TempDir()
	topic := jobs.BusTopic[int64]{Name: "numbers"}
	cfg := runtime.Config{DataDir: data, TopicMemory: 4 << 10, EpochBytes: 8 << 10, LogBytes: 64 << 10, StoreSegmentBytes: 32 << 10,
		Log: wal.Config{SegmentBytes: 16 << 10, GenerationBytes: 32 << 10}}
	rt := start(t, cfg)
	apply := func(o runtime.ApplyOptions, defs ...*jobs.Job) error {
		o.Probation = -1
		var all []runtime.Definition
		for _, d := range defs {
			all = append(all, runtime.Definition{Job: d})
		}
		_, err := rt.Apply(t.Context(), all, o)
		return err
	}
	ok := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	remove := func(o runtime.RemoveOptions, names ...string) {
		t.Helper()
		for _, name := range names {
			_, err := rt.RemoveJob(t.Context(), name, o)
			ok(err)
		}
	}
	ok(apply(runtime.ApplyOptions{}, writerJob("writer", newTap(n, n), topic), copier("reader", topic, out)))
	until(t, rt, "all is read", func() bool { return linesOf(t, filepath.Join(out, "reader.jsonl")) == n })
	st, _ := rt.Topic("numbers")
	dir := filepath.Join(data, "topics", fmt.Sprint(st.ID))
	until(t, rt, "the store has some of it", func() bool {
		_, err := os.Stat(dir)
		return err == nil
	})
	inUse(t, rt, "numbers", "job writer writes it", "job reader reads it", "remove what uses it")
	if _, err := rt.RemoveTopic(t.Context(), "reader/main", false); err == nil {
		t.Error("an output is removed")
	}
	if _, err := rt.RemoveTopic(t.Context(), "nothing", false); !errors.Is(err, runtime.ErrNoTopic) {
		t.Errorf("an unknown topic: %v", err)
	}
	_, err := rt.Detach(t.Context(), "reader", "numbers", false)
	until(t, rt, "the writer has ended", func() bool { return jobStatus(t, rt, "writer").State == runtime.StateEnded })
	if errors.Is(err, runtime.ErrNoSubscription) { // the reader has ended too
		inUse(t, rt, "numbers", "job writer writes it (ended)", "job reader reads it (ended)")
	} else {
		inUse(t, rt, "numbers", "job writer writes it (ended)", "job reader reads it once it goes on (stopped)")
	}
	remove(runtime.RemoveOptions{}, "writer", "reader")

	dry, err := rt.RemoveTopic(t.Context(), "numbers", true)
	if err != nil || dry.Records != n || !dry.DryRun {
		t.Fatalf("dry run: %+v, %v", dry, err)
	}
	followed := make(chan error, 1)
	at := make(chan struct{}, n)
	go func() {
		followed <- rt.Tail(context.Background(), runtime.Tail{Topic: "numbers", Partition: -1, Last: 1, Follow: true}, func(runtime.TopicRecord) error {
			at <- struct{}{}
			return nil
		})
	}()
	<-at
	res, err := rt.RemoveTopic(t.Context(), "numbers", false)
	if err != nil || res.Records != n {
		t.Fatalf("removed: %+v, %v", res, err)
	}
	if err := <-followed; !errors.Is(err, runtime.ErrNoTopic) {
		t.Errorf("who followed it: %v", err)
	}
	events, _ := rt.Events(0)
	if e := events[len(events)-1]; e.Kind != runtime.EventTopicRemoved || !strings.Contains(e.Text, "numbers") {
		t.Errorf("the last event is %+v", e)
	}
	until(t, rt, "its files are gone", func() bool {
		_, err := os.Stat(dir)
		return errors.Is(err, os.ErrNotExist)
	})

	// One that is made anew, and a savepoint of a job that read the first.
	in := newTap(100, 50)
	ok(apply(runtime.ApplyOptions{}, writerJob("writer", in, topic), copier("again", topic, out)))
	until(t, rt, "some are read again", func() bool { return linesOf(t, filepath.Join(out, "again.jsonl")) == 50 })
	if again, _ := rt.Topic("numbers"); again.ID == st.ID || again.Partitions[0].Next != 50 {
		t.Errorf("the topic made anew is %+v; the first was %+v", again, st)
	}
	remove(runtime.RemoveOptions{KeepState: true, Savepoint: "saved"}, "again")
	remove(runtime.RemoveOptions{}, "writer")
	_, err = rt.RemoveTopic(t.Context(), "numbers", false)
	ok(err)
	in = newTap(100, 100)
	ok(apply(runtime.ApplyOptions{}, writerJob("writer", in, topic)))
	until(t, rt, "it is written once more", func() bool { return nextOf(rt, "numbers") == 100 })
	if err := apply(runtime.ApplyOptions{From: "saved"}, copier("again", topic, t.TempDir())); err == nil || !strings.Contains(err.Error(), "begin without the savepoint") {
		t.Errorf("begun where a topic of the same name stood: %v", err)
	}
	stop(t, rt)
	rt = start(t, cfg)
	if n := nextOf(rt, "numbers"); n != 100 {
		t.Errorf("in the next process it has %d", n)
	}
	if st := rt.Status(); len(st.Topics) != 1 || st.Topics[0].Partitions[0].First != 0 {
		t.Errorf("in the next process there are %+v", st.Topics)
	}
	stop(t, rt)
}

// TestRemovedTopicsFiles: a process that ends once a removal is durable, and before its files went, leaves them to the next.
func TestRemovedTopicsFiles(t *testing.T) {
	noLeaks(t)
	data := t.TempDir()
	rt := start(t, runtime.Config{DataDir: data})
	if _, err := rt.Apply(t.Context(), []runtime.Definition{{Job: writerJob("writer", newTap(10, 10), jobs.BusTopic[int64]{Name: "numbers"})}}, runtime.ApplyOptions{}); err != nil {
		t.Fatal(err)
	}
	st, _ := rt.Topic("numbers")
	if _, err := rt.RemoveJob(t.Context(), "writer", runtime.RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := rt.RemoveTopic(t.Context(), "numbers", false); err != nil {
		t.Fatal(err)
	}
	stop(t, rt)
	left := filepath.Join(data, "topics", fmt.Sprint(st.ID), "0")
	if err := os.MkdirAll(left, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(left, fmt.Sprintf("%020d.seg", 1)), []byte("left"), 0o600); err != nil {
		t.Fatal(err)
	}
	rt = start(t, runtime.Config{DataDir: data})
	until(t, rt, "the next process removes them", func() bool {
		_, err := os.Stat(filepath.Dir(left))
		return errors.Is(err, os.ErrNotExist)
	})
	if topics := rt.Status().Topics; len(topics) != 0 {
		t.Errorf("there are %+v", topics)
	}
	stop(t, rt)
}

// TestRemoveTopicUnread: while a job rests whose definition cannot be read, nobody knows what it names, and no topic goes.
func TestRemoveTopicUnread(t *testing.T) {
	noLeaks(t)
	cfg := runtime.Config{DataDir: t.TempDir()}
	rt := start(t, cfg)
	for name, topic := range map[string]string{"one": "a", "two": "b"} {
		if _, err := rt.Apply(t.Context(), []runtime.Definition{{Job: writerJob(name, newTap(10, 10), jobs.BusTopic[int64]{Name: topic})}}, runtime.ApplyOptions{Probation: -1}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := rt.RemoveJob(t.Context(), "one", runtime.RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	stop(t, rt)
	cfg.Load = func([]byte, runtime.Origin) (*jobs.Job, error) { return nil, errors.New("it is of another time") }
	rt = start(t, cfg)
	inUse(t, rt, "a", "job two may use it, for its definition cannot be read (it is of another time)")
	if _, err := rt.RemoveJob(t.Context(), "two", runtime.RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := rt.RemoveTopic(t.Context(), "a", false); err != nil {
		t.Error(err)
	}
	stop(t, rt)
}
