package runtime_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/sidestream-dev/sidestream/bus"
	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/runtime"
	"github.com/sidestream-dev/sidestream/runtime/casetest"
)

// muted is the engine that a process uses.
func muted(c runtime.ShadowSetup) (runtime.ShadowEngine, error) {
	return casetest.NewMuted(casetest.MutedConfig{Job: c.Job, Partitions: c.Partitions, Restored: c.Restored, State: c.State, Out: c.Out})
}

// evens is a job without state: what passes of a topic's numbers goes to another.
func evens(name string, topic jobs.BusTopic[int64], pass func(int64) bool) *jobs.Job {
	j := jobs.New(name)
	jobs.ToTopic(jobs.Filter(jobs.FromTopic(j, topic, jobs.ID("in")), pass), jobs.BusTopic[int64]{Name: "passed"})
	return j
}

// standing is all that a shadow run must not change: topics, places, the log.
func standing(t *testing.T, rt *runtime.Runtime) string {
	t.Helper()
	st := rt.Status()
	out := fmt.Sprintf("last %v\n", st.Log.Last)
	for _, topic := range st.Topics {
		out += fmt.Sprintf("%s %+v %+v\n", topic.Name, topic.Partitions, topic.Subscriptions)
	}
	return out
}

func shadowOf(t *testing.T, rt *runtime.Runtime, o runtime.ShadowOptions) runtime.ShadowResult {
	t.Helper()
	o.Engine, o.Show = muted, 10
	res, err := rt.Shadow(t.Context(), "numbers", o)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

// TestShadowSame: the definition that runs gives what it gave, with state and without, in one partition and in several, for all
// of the topic and for a range of it, and nothing has moved.
func TestShadowSame(t *testing.T) {
	for _, partitions := range []int{1, 3} {
		t.Run(fmt.Sprintf("partitions=%d", partitions), func(t *testing.T) {
			noLeaks(t)
			topic := jobs.BusTopic[int64]{Name: "numbers", Topic: jobs.Topic{Name: "numbers", Partitions: partitions}}
			in := newTap(6000, 0)
			isEven := func(n int64) bool { return n%2 == 0 }
			rt := start(t, runtime.Config{DataDir: t.TempDir()}, writerJob("writer", in, topic), tallyJob(topic, 2), evens("evens", topic, isEven))
			defer stop(t, rt)
			for n := int64(500); n <= 5000; n += 500 {
				in.open(n)
				until(t, rt, "all are counted", func() bool { return recordsOf(rt, "tallies") == n && recordsOf(rt, "passed") == n/2 })
			}
			var before string
			until(t, rt, "nothing moves", func() bool { was := before; before = standing(t, rt); return was == before })
			res := shadowOf(t, rt, runtime.ShadowOptions{Definition: evens("evens", topic, isEven)})
			if !res.Same || !res.Exact || res.Equal != 2500 || res.Records != 5000 || len(res.Differences) != 0 {
				t.Errorf("of all: %+v", res)
			}
			from, to := offset(bus.Offset(1200/partitions)), offset(bus.Offset(3100/partitions))
			res = shadowOf(t, rt, runtime.ShadowOptions{Definition: evens("evens", topic, isEven), From: from, To: &to})
			if !res.Same || !res.Exact || res.Equal < 900 || res.Equal > 1600 {
				t.Errorf("of a range: %+v", res)
			}
			if partitions == 1 { // the order of several is not that of the job
				res = shadowOf(t, rt, runtime.ShadowOptions{Definition: tallyJob(topic, 3)})
				if !res.Same || !res.Exact || res.Equal != 5000 {
					t.Errorf("with state: %+v", res)
				}
				if _, err := rt.Savepoint(t.Context(), "tally", "here"); err != nil {
					t.Fatal(err)
				}
				in.open(6000)
				wait(t, rt)
				before = standing(t, rt)
				res = shadowOf(t, rt, runtime.ShadowOptions{Definition: tallyJob(topic, 1), From: runtime.Place{Savepoint: "here"}})
				if !res.Same || res.Equal != 1000 || res.State != "of savepoint here" {
					t.Errorf("from a savepoint: %+v", res)
				}
				from := offset(5500)
				res = shadowOf(t, rt, runtime.ShadowOptions{Definition: tallyJob(topic, 1), From: from})
				if !res.Same || res.Equal < 500 || res.State == "from nothing" {
					t.Errorf("with the state there is: %+v", res)
				}
				warm := runtime.Place{}
				res = shadowOf(t, rt, runtime.ShadowOptions{Definition: tallyJob(topic, 1), From: from, WarmUp: &warm})
				if !res.Same || res.Equal < 500 || res.WarmUp < 5000 {
					t.Errorf("warmed up: %+v", res)
				}
			}
			if now := standing(t, rt); now != before {
				t.Errorf("it was\n%s\nand is\n%s", before, now)
			}
		})
	}
}

// TestShadowDiffers: what another definition leaves out is missing, what it adds is extra, exactly; what it changes is shown with
// both values.
func TestShadowDiffers(t *testing.T) {
	noLeaks(t)
	topic := jobs.BusTopic[int64]{Name: "numbers"}
	in := newTap(1000, 1000)
	rt := start(t, runtime.Config{DataDir: t.TempDir()}, writerJob("writer", in, topic), evens("evens", topic, func(n int64) bool { return n%2 == 0 }))
	defer stop(t, rt)
	wait(t, rt)
	res := shadowOf(t, rt, runtime.ShadowOptions{Definition: evens("evens", topic, func(n int64) bool { return n%3 == 0 })})
	if res.Same || res.Equal != 167 || res.Missing != 333 || res.Extra != 167 || len(res.Differences) != 10 {
		t.Fatalf("%+v", res)
	}
	for i, d := range res.Differences {
		n, err := strconv.Atoi(string(d.Given) + string(d.Gave))
		if err != nil || d.Output != "bus:passed" || d.Kind == "missing" != (n%2 == 0) || d.Kind == "extra" != (n%3 == 0) || n%6 == 0 {
			t.Errorf("difference %d: %+v", i, d)
		}
	}
	other := evens("another", topic, func(int64) bool { return true })
	if _, err := rt.Shadow(t.Context(), "numbers", runtime.ShadowOptions{Definition: other, Engine: muted}); !errors.Is(err, runtime.ErrNoJob) {
		t.Errorf("of a job that is not there: %v", err)
	}
	if res := shadowOf(t, rt, runtime.ShadowOptions{Definition: other, Against: "evens"}); res.Missing != 0 || res.Extra != 500 {
		t.Errorf("against another job: %+v", res)
	}
	panics := evens("evens", topic, func(n int64) bool { return []bool{true}[n] })
	var jobErr *runtime.JobError
	if _, err := rt.Shadow(t.Context(), "numbers", runtime.ShadowOptions{Definition: panics, Engine: muted}); !errors.As(err, &jobErr) {
		t.Errorf("one that panics: %v", err)
	}
	if _, err := rt.Shadow(t.Context(), "numbers", runtime.ShadowOptions{Definition: writerJob("writer", in, topic), Engine: muted}); err == nil ||
		!strings.Contains(err.Error(), "must read topic numbers and nothing else") {
		t.Errorf("one that reads from outside: %v", err)
	}
}

// TestShadowTwiceAtOnce: more than two at a time are refused, and one that is cancelled ends and leaves its place.
func TestShadowTwiceAtOnce(t *testing.T) {
	noLeaks(t)
	topic := jobs.BusTopic[int64]{Name: "numbers"}
	in := newTap(3000, 3000)
	rt := start(t, runtime.Config{DataDir: t.TempDir()}, writerJob("writer", in, topic), evens("evens", topic, func(int64) bool { return true }))
	defer stop(t, rt)
	wait(t, rt)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	hold, begun, ended := make(chan struct{}), make(chan struct{}, 2), make(chan error, 2)
	for range 2 {
		first := true
		def := evens("evens", topic, func(int64) bool {
			if first {
				first = false
				begun <- struct{}{}
				<-hold
			}
			return true
		})
		go func() {
			_, err := rt.Shadow(ctx, "numbers", runtime.ShadowOptions{Definition: def, Engine: muted})
			ended <- err
		}()
	}
	<-begun
	<-begun
	def := evens("evens", topic, func(int64) bool { return true })
	if _, err := rt.Shadow(t.Context(), "numbers", runtime.ShadowOptions{Definition: def, Engine: muted}); !errors.Is(err, runtime.ErrShadowsBusy) {
		t.Errorf("a third: %v", err)
	}
	cancel()
	close(hold)
	for range 2 {
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("a cancelled one: %v", err)
		}
	}
	if res := shadowOf(t, rt, runtime.ShadowOptions{Definition: def}); !res.Same || res.Equal != 3000 {
		t.Errorf("behind them: %+v", res)
	}
}
