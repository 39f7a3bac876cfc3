package runtime_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/jobs/connector/file"
	"github.com/sidestream-dev/sidestream/jobs/connector/kafka"
	"github.com/sidestream-dev/sidestream/runtime"
)

// shy is a sink that answers a probe once so many others are asked too; it takes whatever it is given.
type shy struct {
	Name  string
	asked *atomic.Int32
	until int32
}

func (s shy) Kind() string       { return "shy" }
func (s shy) ExactlyOnce() error { return nil }

func (s shy) Open(context.Context, jobs.SinkEnv) (jobs.Writer, error) { return shyWriter{}, nil }

func (s shy) Probe(ctx context.Context, env jobs.SinkEnv) error {
	s.asked.Add(1)
	env.Waiting("the others")
	for s.asked.Load() < s.until {
		select {
		case <-time.After(time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	env.Waiting("")
	if s.Name == "broken" {
		panic("shy")
	}
	return nil
}

type shyWriter struct{}

func (shyWriter) Write(context.Context, []jobs.Message) ([]byte, error) { return []byte{1}, nil }
func (shyWriter) Close() error                                          { return nil }

// TestApplyAsksOutputs: what an output would stop or wait for is the answer of Apply, output by output, and the old definition
// goes on; all are asked side by side. What stays as it was is not asked again, and a process begins without asking.
func TestApplyAsksOutputs(t *testing.T) {
	noLeaks(t)
	data, out := t.TempDir(), t.TempDir()
	topic := jobs.BusTopic[int64]{Name: "numbers"}
	cfg := runtime.Config{DataDir: data, ConnectTimeout: 3 * time.Second, StopTimeout: time.Second, Probation: -1}
	rt := start(t, cfg, writerJob("writer", newTap(20, 10), topic))
	reading := func(text string, sinks map[string]jobs.Sink) *jobs.Job {
		j := jobs.New("j")
		in := jobs.FromTopic(j, topic)
		for name, s := range sinks {
			jobs.To(in, name, s, jobs.JSON[int64]())
		}
		return version(j, text)
	}
	dead := kafka.Sink{Brokers: []string{"127.0.0.1:1"}, Topic: "gone"}
	mine := file.Sink{Path: filepath.Join(out, "mine.jsonl")}
	full := filepath.Join(out, "full")
	if err := os.WriteFile(full, []byte("somebody's\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	refused := func(j *jobs.Job, says ...string) {
		t.Helper()
		_, err := rt.Apply(t.Context(), byAPI(j), runtime.ApplyOptions{})
		var why *runtime.ApplyError
		for _, s := range says {
			if !errors.As(err, &why) || !strings.Contains(err.Error(), s) {
				t.Errorf("Apply: %v; want %q", err, s)
			}
		}
	}
	refused(reading("new", map[string]jobs.Sink{"a": dead, "b": file.Sink{Path: full}, "c": file.Sink{Path: filepath.Join(full, "x")}, "d": mine}),
		"output a: it waits for broker 127.0.0.1:1: connection refused; see to that", "output b: file "+full+" has 11 bytes", "output c: file: ")
	if _, err := rt.JobDefinition("j"); !errors.Is(err, runtime.ErrNoJob) {
		t.Errorf("the refused job is there: %v", err)
	}
	if _, err := os.Stat(mine.Path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("asking has left a file: %v", err)
	}

	apply(t, rt, reading("one", map[string]jobs.Sink{"d": mine}))
	until(t, rt, "all is out", func() bool { return linesOf(t, mine.Path) == 10 })
	refused(reading("two", map[string]jobs.Sink{"d": mine, "a": dead}), "output a: it waits for")
	if st := jobStatus(t, rt, "j"); st.State != runtime.StateRunning || st.Restarts > 0 {
		t.Errorf("the refused change left the job %s, restarted %d times", st.State, st.Restarts)
	}
	apply(t, rt, reading("rebuilt", map[string]jobs.Sink{"d": mine}))
	asked := new(atomic.Int32)
	refused(reading("shy", map[string]jobs.Sink{"d": mine, "x": shy{"x", asked, 99}}), "output x: it waits for the others")
	refused(reading("shy", map[string]jobs.Sink{"d": mine, "x": shy{"broken", asked, 0}}), "panic: shy")
	asked.Store(0)
	sinks := map[string]jobs.Sink{"d": mine}
	for i := range 8 {
		name := fmt.Sprintf("s%d", i)
		sinks[name] = shy{name, asked, 8}
	}
	apply(t, rt, reading("shy", sinks)) // one after the other none would ever answer
	sinks["e"] = file.Sink{Path: filepath.Join(out, "e.jsonl")}
	apply(t, rt, reading("shy and more", sinks))
	if n := asked.Load(); n != 8 {
		t.Errorf("%d times outputs were asked, of which there are 8", n)
	}
	stop(t, rt)

	rt = start(t, cfg, version(func() *jobs.Job {
		j := jobs.New("dead")
		jobs.To(jobs.FromTopic(j, topic), "a", dead, jobs.JSON[int64]())
		return j
	}(), "dead"))
	until(t, rt, "the output says what it waits for", func() bool {
		return strings.Contains(jobStatus(t, rt, "dead").Outputs[0].Waiting, "connection refused")
	})
	stop(t, rt)
}
