package admin_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	goruntime "runtime"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/sidestream-dev/sidestream/jobs/spec"
	"github.com/sidestream-dev/sidestream/runtime"
	"github.com/sidestream-dev/sidestream/runtime/admin"
)

// fromEnv is a number that a variable gives, for a run that is larger, or the same again.
func fromEnv(t *testing.T, name string, def int64) int64 {
	t.Helper()
	s := os.Getenv(name)
	if s == "" {
		return def
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 1 {
		t.Fatalf("%s=%q: want a number", name, s)
	}
	return n
}

// level is what a process holds.
type level struct {
	goroutines, files int
	heap              uint64
}

func levelNow(t *testing.T) level {
	t.Helper()
	goruntime.GC()
	goruntime.GC()
	var m goruntime.MemStats
	goruntime.ReadMemStats(&m)
	l := level{goroutines: goruntime.NumGoroutine(), heap: m.HeapAlloc}
	if fds, err := os.ReadDir("/proc/self/fd"); err == nil { // elsewhere there is no such folder
		l.files = len(fds)
	}
	return l
}

// churner is a client that adds, changes and removes jobs, its own and one that others change too.
type churner struct {
	client  *admin.Client
	rng     *rand.Rand
	names   []string
	version int
	done    map[string]int
}

// definition is of a job that keeps state and writes the bus and a file, which is another one each time.
func (c *churner) definition(dir, name string) string {
	c.version++
	return fmt.Sprintf(`version: 1
job: %s
parallelism: %d
source: {bus: ticks}
steps:
  - key_by: value.device
  - {id: sums, window: {tumbling: 100ms, aggregate: {n: count(), v: max(%d)}}}
  - side: {if: value.n > 0, to: out%d}
outputs:
  main: {bus: churned}
  out%d: {file: {path: %q, format: jsonl}}
`, name, 1+c.rng.IntN(3), c.version, c.version, c.version, fmt.Sprintf("%s/%s-%s-%d.jsonl", dir, c.names[0], name, c.version))
}

// change makes one change. That a job is not there, or does not move where it stands, is an answer too.
func (c *churner) change(ctx context.Context, dir string) (err error) {
	name := c.names[c.rng.IntN(len(c.names))]
	what := "apply"
	switch n := c.rng.IntN(10); {
	case n < 5:
		_, err = c.client.Apply(ctx, []spec.File{{Name: name, Content: []byte(c.definition(dir, name))}}, admin.ApplyRequest{})
	case n < 6:
		what = "pause"
		_, err = c.client.PauseJob(ctx, name)
	case n < 7:
		what = "resume"
		_, err = c.client.ResumeJob(ctx, name)
	default:
		what = "remove"
		err = c.remove(ctx, name)
	}
	var p *admin.Problem
	if errors.As(err, &p) && (p.Kind() == admin.KindNotFound || p.Kind() == admin.KindRefused && what != "apply" && what != "remove") {
		c.done["nothing, rightly"]++
		return nil
	}
	if err != nil {
		return fmt.Errorf("%s %s: %w", what, name, err)
	}
	c.done[what]++
	return nil
}

func (c *churner) remove(ctx context.Context, name string) error {
	op, err := c.client.RemoveJob(ctx, name, runtime.RemoveOptions{DropUnsent: true})
	if err != nil {
		return err
	}
	_, err = c.client.Await(ctx, op, func(admin.Operation) {})
	return err
}

// TestChurn: two clients add, change, pause, resume and remove jobs at random, one of them both of them, while two others run:
// no change fails, those two go on, and what the process holds is back at its level when all that was added is removed.
// CHURN_CHANGES makes it larger, CHURN_SEED repeats it.
func TestChurn(t *testing.T) {
	seed, changes := fromEnv(t, "CHURN_SEED", time.Now().UnixNano()), int(fromEnv(t, "CHURN_CHANGES", 60))
	t.Logf("CHURN_SEED=%d CHURN_CHANGES=%d repeats this run", seed, changes)
	rt, _, socket := startWith(t, runtime.Config{Probation: 20 * time.Millisecond, TopicMemory: 64 << 10}, twoJobs)
	ctx, out := t.Context(), t.TempDir()
	done := map[string]int{}
	clients := []*churner{{names: []string{"a0", "a1", "shared"}}, {names: []string{"b0", "b1", "shared"}}}
	for i, c := range clients {
		c.client, c.rng = admin.NewClient(socket), rand.New(rand.NewPCG(uint64(seed), uint64(i)))
	}
	round := func(n int) {
		t.Helper()
		var wg sync.WaitGroup
		errs := make([]error, len(clients))
		for i, c := range clients {
			c.done = map[string]int{}
			wg.Go(func() {
				for k := 0; k < n/2 && errs[i] == nil; k++ {
					errs[i] = c.change(ctx, out)
				}
			})
		}
		wg.Wait()
		for _, c := range clients {
			for _, name := range c.names {
				var p *admin.Problem
				if err := c.remove(ctx, name); err != nil && !(errors.As(err, &p) && p.Kind() == admin.KindNotFound) {
					errs = append(errs, err)
				}
			}
			for what, n := range c.done {
				done[what] += n
			}
		}
		if err := errors.Join(errs...); err != nil {
			t.Fatal(err)
		}
	}
	round(max(40, changes/4)) // until then pools and what the server remembers grow
	before := levelNow(t)
	clear(done)
	round(changes)
	var after level
	eventually(t, fmt.Sprintf("goroutines and files are back at %+v", before), func() bool {
		after = levelNow(t)
		return after.goroutines <= before.goroutines && after.files <= before.files
	})
	t.Logf("before %+v, after %d changes (%v) %+v", before, changes, done, after)
	if after.heap > before.heap+(8<<20) { // the log's tail segment and the events are bounded, and not yet full
		t.Errorf("the heap is %d bytes, and was %d", after.heap, before.heap)
	}
	js, err := clients[0].client.Jobs(ctx)
	if err != nil || len(js) != 2 {
		t.Errorf("jobs left: %+v, %v", js, err)
	}
	for _, topic := range rt.Status().Topics {
		for _, s := range topic.Subscriptions {
			if s.Name != "reads/bus-1" && s.Name != "sender:reads/main" {
				t.Errorf("topic %s has the subscription %s left", topic.Name, s.Name)
			}
		}
		if topic.Hidden && topic.Name != "reads/main" {
			t.Errorf("output %s is left", topic.Name)
		}
	}
	was := rt.Status().Jobs[1].Counters.In
	eventually(t, "the two that nobody changes go on", func() bool { return rt.Status().Jobs[1].Counters.In > was })
}
