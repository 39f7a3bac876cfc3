package runtime_test

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sidestream-dev/sidestream/bus"
	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/jobs/connector/file"
	"github.com/sidestream-dev/sidestream/runtime"
)

func offset(n bus.Offset) runtime.Place { return runtime.Place{Offset: &n} }

// copier copies the numbers of a topic to a file.
func copier(name string, topic jobs.BusTopic[int64], out string) *jobs.Job {
	j := jobs.New(name)
	j.Delivery = jobs.ExactlyOnce
	jobs.To(jobs.FromTopic(j, topic, jobs.ID("in")), "main", file.Sink{Path: filepath.Join(out, name+".jsonl")}, jobs.JSON[int64]())
	return j
}

// TestSeek: a subscription is set elsewhere while its topic is written; the job reads on from there, exactly, and so does the
// next process. What is behind it then counts against no limit.
func TestSeek(t *testing.T) {
	noLeaks(t)
	data, out := t.TempDir(), t.TempDir()
	topic := jobs.BusTopic[int64]{Name: "numbers"}
	in := newTap(3000, 1000)
	defs := func() []*jobs.Job {
		return []*jobs.Job{writerJob("writer", in, topic), copier("reader", topic, out)}
	}
	rt := start(t, runtime.Config{DataDir: data}, defs()...)
	read := filepath.Join(out, "reader.jsonl")
	until(t, rt, "a thousand are read", func() bool { return linesOf(t, read) == 1000 })

	dry, err := rt.Seek(t.Context(), "reader", "numbers", offset(400), true)
	if err != nil || len(dry) != 1 || dry[0].From[0] != 1000 || dry[0].To[0] != 400 {
		t.Fatalf("dry run: %+v, %v", dry, err)
	}
	moved, err := rt.Seek(t.Context(), "reader/in", "numbers", offset(400), false)
	if err != nil || len(moved) != 1 || moved[0].Subscription != "reader/in" || moved[0].To[0] != 400 {
		t.Fatalf("seek: %+v, %v", moved, err)
	}
	until(t, rt, "600 are read again", func() bool { return linesOf(t, read) == 1600 })
	if _, err := rt.Seek(t.Context(), "reader", "numbers", runtime.Place{Latest: true}, false); err != nil {
		t.Fatal(err)
	}
	in.open(2000)
	until(t, rt, "a thousand more are read", func() bool { return linesOf(t, read) == 2600 })
	if err := rt.PauseJob(t.Context(), "reader"); err != nil {
		t.Fatal(err)
	}
	if _, err := rt.Seek(t.Context(), "reader", "numbers", runtime.Place{}, false); err != nil {
		t.Fatal(err)
	}
	stop(t, rt)
	rt = start(t, runtime.Config{DataDir: data}, defs()...)
	if st := jobStatus(t, rt, "reader"); st.State != runtime.StatePaused {
		t.Errorf("a paused job was %s once it had been set back", st.State)
	}
	if err := rt.ResumeJob(t.Context(), "reader"); err != nil {
		t.Fatal(err)
	}
	in.open(3000)
	finish(t, rt)
	var want []string
	add := func(from, to int) {
		for i := from; i < to; i++ {
			want = append(want, jsonOf(i))
		}
	}
	add(0, 1000)
	add(400, 1000)
	add(1000, 2000)
	add(0, 3000)
	sameLines(t, "reader", fileLines(t, read), want)
}

func jsonOf(i int) string {
	b, err := jobs.JSON[int]().Encode(nil, i)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// TestSeekRefuses: what cannot be is refused, and leaves the job as it is.
func TestSeekRefuses(t *testing.T) {
	noLeaks(t)
	out := t.TempDir()
	topic := jobs.BusTopic[int64]{Name: "numbers"}
	rt := start(t, runtime.Config{DataDir: t.TempDir()}, writerJob("writer", newTap(200, 100), topic), copier("reader", topic, out))
	defer stop(t, rt)
	until(t, rt, "all are read", func() bool { return linesOf(t, filepath.Join(out, "reader.jsonl")) == 100 })
	for _, tt := range []struct {
		who, topic string
		to         runtime.Place
		is         error
		says       string
	}{
		{"nobody", "numbers", runtime.Place{}, runtime.ErrNoJob, ""},
		{"reader", "letters", runtime.Place{}, runtime.ErrNoTopic, ""},
		{"writer", "numbers", runtime.Place{}, runtime.ErrNoSubscription, ""},
		{"reader/out", "numbers", runtime.Place{}, runtime.ErrNoSubscription, ""},
		{"reader", "numbers", offset(101), nil, "offset 101 is not there"},
		{"reader", "numbers", runtime.Place{Savepoint: "x"}, nil, "replay from it"},
	} {
		_, err := rt.Seek(t.Context(), tt.who, tt.topic, tt.to, false)
		if err == nil || tt.is != nil && !errors.Is(err, tt.is) || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s on %s: %v", tt.who, tt.topic, err)
		}
	}
	if st := jobStatus(t, rt, "reader"); st.State != runtime.StateRunning || st.Restarts > 0 {
		t.Errorf("the job is %s after %d restarts", st.State, st.Restarts)
	}
}

// TestDetach: a reader that stands still fills its topic; detached, it frees the writer, and resumed it begins anew.
func TestDetach(t *testing.T) {
	noLeaks(t)
	out := t.TempDir()
	topic := jobs.BusTopic[int64]{Name: "numbers", Topic: jobs.Topic{Name: "numbers", LimitBytes: 2000}}
	in := newTap(5000, 100)
	rt := start(t, runtime.Config{DataDir: t.TempDir()}, writerJob("writer", in, topic), copier("reader", topic, out))
	read := filepath.Join(out, "reader.jsonl")
	until(t, rt, "a hundred are read", func() bool { return linesOf(t, read) == 100 })
	if err := rt.PauseJob(t.Context(), "reader"); err != nil {
		t.Fatal(err)
	}
	opened := bus.Offset(100)
	until(t, rt, "the topic is full", func() bool { // bit by bit: it is full once an epoch is sealed
		if nextOf(rt, "numbers") == opened {
			opened += 100
			in.open(int64(opened))
		}
		return len(jobStatus(t, rt, "writer").Waiting) > 0
	})
	in.open(5000)
	if gone, err := rt.Detach(t.Context(), "reader", "numbers", true); err != nil || len(gone) != 1 || gone[0].From[0] != 100 {
		t.Fatalf("dry run: %+v, %v", gone, err)
	}
	if _, err := rt.Detach(t.Context(), "reader", "numbers", false); err != nil {
		t.Fatal(err)
	}
	until(t, rt, "the writer has ended", func() bool { return jobStatus(t, rt, "writer").State == runtime.StateEnded })
	if _, err := rt.Detach(t.Context(), "reader", "numbers", false); !errors.Is(err, runtime.ErrNoSubscription) {
		t.Errorf("detached twice: %v", err)
	}
	if err := rt.ResumeJob(t.Context(), "reader"); err != nil {
		t.Fatal(err)
	}
	finish(t, rt)
	if n := linesOf(t, read); n != 5100 {
		t.Errorf("%d lines; want the hundred, and all 5000 once more", n)
	}
}

// TestPurgeAndRetention: records go by hand, but for those that somebody has yet to read; the next process knows.
func TestPurgeAndRetention(t *testing.T) {
	noLeaks(t)
	data, out := t.TempDir(), t.TempDir()
	topic := jobs.BusTopic[int64]{Name: "numbers"}
	in := newTap(2000, 1000)
	defs := func() []*jobs.Job {
		return []*jobs.Job{writerJob("writer", in, topic), copier("reader", topic, out)}
	}
	rt := start(t, runtime.Config{DataDir: data}, defs()...)
	read := filepath.Join(out, "reader.jsonl")
	until(t, rt, "a thousand are read", func() bool { return linesOf(t, read) == 1000 })
	if err := rt.PauseJob(t.Context(), "reader"); err != nil {
		t.Fatal(err)
	}
	in.open(1500)
	until(t, rt, "500 more are written", func() bool { return nextOf(rt, "numbers") == 1500 })
	var unread *bus.PurgeError
	if _, err := rt.PurgeTopic(t.Context(), "numbers", offset(1001), false); !errors.As(err, &unread) || unread.Subscription != "reader/in" {
		t.Fatalf("purge of what is unread: %v", err)
	}
	if res, err := rt.PurgeTopic(t.Context(), "numbers", offset(600), true); err != nil || res.Records != 600 || firstOf(rt, "numbers") != 0 {
		t.Fatalf("dry run: %+v, %v", res, err)
	}
	if res, err := rt.PurgeTopic(t.Context(), "numbers", offset(600), false); err != nil || res.Records != 600 || firstOf(rt, "numbers") != 600 {
		t.Fatalf("purge: %+v, %v, first %d", res, err, firstOf(rt, "numbers"))
	}
	keep := bus.Retention{MaxAge: time.Hour}
	if was, err := rt.SetRetention(t.Context(), "numbers", keep, false); err != nil || was != (bus.Retention{}) {
		t.Fatalf("retention: %+v, %v", was, err)
	}
	stop(t, rt)
	rt = start(t, runtime.Config{DataDir: data}, defs()...)
	if first := firstOf(rt, "numbers"); first != 600 {
		t.Errorf("the next process begins the topic at %d", first)
	}
	if was, err := rt.SetRetention(t.Context(), "numbers", keep, true); err != nil || was != keep {
		t.Errorf("the next process keeps %+v, %v", was, err)
	}
	if _, err := rt.Seek(t.Context(), "reader", "numbers", offset(599), false); err == nil {
		t.Error("a purged offset was found")
	}
	if _, err := rt.Seek(t.Context(), "reader", "numbers", runtime.Place{}, false); err != nil {
		t.Fatal(err)
	}
	if err := rt.ResumeJob(t.Context(), "reader"); err != nil {
		t.Fatal(err)
	}
	in.open(2000)
	finish(t, rt)
	if n := linesOf(t, read); n != 1000+1400 {
		t.Errorf("%d lines; want 1000, and the 1400 from 600 on", n)
	}
}

// TestRetentionOfAnOperator: what an operator has set counts in place of what definitions say, also where two say it differently,
// which the second may then; the next process starts with them too.
func TestRetentionOfAnOperator(t *testing.T) {
	noLeaks(t)
	data := t.TempDir()
	topic := jobs.BusTopic[int64]{Name: "numbers"}
	saying := func(j *jobs.Job, age time.Duration) *jobs.Job {
		j.Topics = append(j.Topics, jobs.Topic{Name: "numbers", RetentionAge: age})
		return j
	}
	writer := func() *jobs.Job { return saying(writerJob("writer", newTap(20, 10), topic), time.Hour) }
	reader := saying(copier("reader", topic, t.TempDir()), 2*time.Hour)
	rt := start(t, runtime.Config{DataDir: data}, writer())
	if _, err := rt.Apply(t.Context(), []runtime.Definition{{Job: reader, Origin: runtime.OriginFile}}, runtime.ApplyOptions{}); err == nil || !strings.Contains(err.Error(), "topic numbers has retention.max_age 1h0m0s, and job reader says 2h0m0s") {
		t.Fatalf("it says something else than what the topic has: %v", err)
	}
	keep := bus.Retention{MaxAge: 3 * time.Hour}
	if _, err := rt.SetRetention(t.Context(), "numbers", keep, false); err != nil {
		t.Fatal(err)
	}
	if _, err := rt.Apply(t.Context(), []runtime.Definition{{Job: reader, Origin: runtime.OriginFile}}, runtime.ApplyOptions{}); err != nil {
		t.Fatal(err)
	}
	stop(t, rt)
	rt = start(t, runtime.Config{DataDir: data}, writer(), reader)
	defer stop(t, rt)
	if was, err := rt.SetRetention(t.Context(), "numbers", keep, true); err != nil || was != keep {
		t.Errorf("the next process keeps %+v, %v", was, err)
	}
}

func nextOf(rt *runtime.Runtime, topic string) bus.Offset {
	st, _ := rt.Topic(topic)
	return st.Partitions[0].Next
}

func firstOf(rt *runtime.Runtime, topic string) bus.Offset {
	st, _ := rt.Topic(topic)
	return st.Partitions[0].First
}

// TestOutputsArePrivate: what an output has yet to send is kept for its sender, and nobody sets how; a topic of the bus is one
// that people see, however little it keeps.
func TestOutputsArePrivate(t *testing.T) {
	noLeaks(t)
	topic := jobs.BusTopic[int64]{Name: "numbers"}
	rt := start(t, runtime.Config{DataDir: t.TempDir()}, writerJob("writer", newTap(20, 10), topic), copier("reader", topic, t.TempDir()))
	defer stop(t, rt)
	if _, err := rt.SetRetention(t.Context(), "reader/main", bus.Retention{MaxBytes: 5}, false); err == nil {
		t.Error("the retention of an output is set")
	}
	if _, err := rt.PurgeTopic(t.Context(), "reader/main", runtime.Place{}, true); err == nil {
		t.Error("an output is purged")
	}
	if _, err := rt.SetRetention(t.Context(), "numbers", bus.Retention{MaxBytes: bus.KeepNothing}, false); err != nil {
		t.Fatal(err)
	}
	for name, hidden := range map[string]bool{"numbers": false, "reader/main": true} {
		if st, ok := rt.Topic(name); !ok || st.Hidden != hidden {
			t.Errorf("topic %s, there: %v, hidden: %v; want %v", name, ok, st.Hidden, hidden)
		}
	}
}

// TestSeekFreesWhereItStands: a seek to where a reader stands frees a topic that is full, as any does: what was written before
// counts against no limit any more.
func TestSeekFreesWhereItStands(t *testing.T) {
	noLeaks(t)
	topic := jobs.BusTopic[int64]{Name: "numbers", Topic: jobs.Topic{Name: "numbers", LimitBytes: 2000}}
	in := newTap(100000, 100)
	rt := start(t, runtime.Config{DataDir: t.TempDir()}, writerJob("writer", in, topic), copier("reader", topic, t.TempDir()))
	defer func() { _ = rt.Stop() }()
	until(t, rt, "the first are read", func() bool { return jobStatus(t, rt, "reader").Counters.In == 100 })
	if err := rt.PauseJob(t.Context(), "reader"); err != nil {
		t.Fatal(err)
	}
	opened := bus.Offset(100)
	more := func() {
		opened += 100
		in.open(int64(opened))
	}
	for range 3 { // an epoch that was under way when the topic was full may come once, without a seek
		until(t, rt, "the topic is full", func() bool {
			if nextOf(rt, "numbers") == opened {
				more()
			}
			return len(jobStatus(t, rt, "writer").Waiting) > 0
		})
		more()
		before := nextOf(rt, "numbers")
		moved, err := rt.Seek(t.Context(), "reader", "numbers", offset(100), false)
		if err != nil || len(moved) != 1 || moved[0].From[0] != 100 || moved[0].To[0] != 100 {
			t.Fatalf("seek: %+v, %v", moved, err)
		}
		until(t, rt, "more is written", func() bool { return nextOf(rt, "numbers") > before })
	}
}
