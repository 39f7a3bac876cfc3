package admin_test

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/sidestream-dev/sidestream/bus"
	"github.com/sidestream-dev/sidestream/jobs/connector/all"
	"github.com/sidestream-dev/sidestream/jobs/spec"
	"github.com/sidestream-dev/sidestream/runtime"
	"github.com/sidestream-dev/sidestream/runtime/admin"
)

const twoJobs = `
version: 1
job: ticks
source: {generator: {rate: 200}}
steps:
  - side: {if: value.reading > 50, to: high}
outputs:
  main: {bus: ticks}
  high: {bus: {topic: high, partitions: 2, key: value.device}}
---
version: 1
job: reads
source: {bus: ticks}
outputs:
  main: {file: {path: OUT, format: jsonl}}
`

// patience is how long what must happen may take on a machine that is busy with other things.
const patience = time.Minute

// start runs two jobs and a Server on a unix socket, whose path it returns.
func start(t *testing.T) (*runtime.Runtime, *admin.Server, string) {
	return startOf(t, twoJobs)
}

func startOf(t *testing.T, text string) (*runtime.Runtime, *admin.Server, string) {
	t.Helper()
	return startWith(t, runtime.Config{}, text)
}

func startWith(t *testing.T, cfg runtime.Config, text string) (*runtime.Runtime, *admin.Server, string) {
	t.Helper()
	dir := t.TempDir()
	text = strings.ReplaceAll(text, "OUT", filepath.Join(dir, "out.jsonl"))
	defs, problems := spec.LoadBytes(spec.Config{Connectors: all.Registry()}, "jobs.yaml", []byte(text))
	for _, p := range problems {
		t.Fatal(p)
	}
	cfg.DataDir = filepath.Join(dir, "data")
	rt, err := runtime.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := rt.Stop(); err != nil {
			t.Error(err)
		}
	})
	if err := rt.Start(defs); err != nil {
		t.Fatal(err)
	}
	s := server(t, admin.Limits{})
	s.Attach(rt)
	s.Started()
	short, err := os.MkdirTemp("", "admin-") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(short) })
	socket := filepath.Join(short, "s")
	if err := s.ListenUnix(socket); err != nil {
		t.Fatal(err)
	}
	return rt, s, socket
}

// server returns one that is closed when the test ends.
func server(t *testing.T, limits admin.Limits) *admin.Server {
	t.Helper()
	s, err := admin.New(admin.Config{Version: "test", Limits: limits, Spec: spec.Config{Connectors: all.Registry()}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// eventually waits until ok.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

func TestStatusAndTopics(t *testing.T) {
	_, _, socket := start(t)
	c := admin.NewClient(socket)
	ctx := t.Context()
	eventually(t, "both jobs run, and one has read what the other wrote", func() bool {
		st, err := c.Status(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return len(st.Jobs) == 2 && st.Jobs[0].State == runtime.StateRunning && st.Jobs[1].Counters.In > 0
	})
	ts, err := c.Topics(ctx)
	if err != nil {
		t.Fatal(err)
	}
	partitions := map[string]int{}
	for _, topic := range ts {
		partitions[topic.Name] = len(topic.Partitions)
	}
	if partitions["ticks"] != 1 || partitions["high"] != 2 || partitions["reads/main"] != 1 {
		t.Errorf("topics with partitions: %v", partitions)
	}
}

// TestTail: what is shown has the offsets it has on the bus, in order, without a hole, and only once it is durable.
func TestTail(t *testing.T) {
	rt, _, socket := start(t)
	c := admin.NewClient(socket)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	next := bus.Offset(0)
	done := errors.New("enough")
	err := c.Tail(ctx, runtime.Tail{Topic: "ticks", Partition: -1, From: new(bus.Offset), Follow: true}, func(r runtime.TopicRecord) error {
		if r.Offset != next || r.Partition != 0 || r.Topic != "ticks" || r.Time == nil || !json.Valid(r.Value) {
			t.Fatalf("record %+v, want offset %s", r, next)
		}
		if next++; next == 500 {
			return done
		}
		return nil
	})
	if !errors.Is(err, done) {
		t.Fatal(err)
	}
	seen := map[int]int{}
	last := map[int]bus.Offset{}
	err = c.Tail(ctx, runtime.Tail{Topic: "high", Partition: -1, Last: 3}, func(r runtime.TopicRecord) error {
		if seen[r.Partition]++; seen[r.Partition] > 1 && r.Offset != last[r.Partition]+1 {
			t.Errorf("partition %d: offset %s behind %s", r.Partition, r.Offset, last[r.Partition])
		}
		last[r.Partition] = r.Offset
		return nil
	})
	if err != nil || seen[0] != 3 || seen[1] != 3 {
		t.Errorf("the last three of each partition: %v, %v", seen, err)
	}
	for _, topic := range rt.Status().Topics {
		if topic.Name == "high" && len(topic.Subscriptions) != 0 {
			t.Errorf("looking made a subscription: %+v", topic.Subscriptions)
		}
	}
}

func TestTailOfWhatIsNotThere(t *testing.T) {
	_, _, socket := start(t)
	c := admin.NewClient(socket)
	far := bus.Offset(1 << 40)
	for name, q := range map[string]runtime.Tail{
		"a topic":            {Topic: "nope", Partition: -1},
		"a topic, following": {Topic: "nope", Partition: -1, Follow: true},
		"a partition":        {Topic: "ticks", Partition: 9},
		"an offset":          {Topic: "ticks", Partition: -1, From: &far},
	} {
		var answer *admin.Problem
		err := c.Tail(t.Context(), q, func(runtime.TopicRecord) error { return nil })
		if !errors.As(err, &answer) || answer.Status != http.StatusNotFound || answer.Kind() != admin.KindNotFound {
			t.Errorf("%s: %v, want an answer with status 404", name, err)
		}
	}
}

// TestClose: a client that follows does not keep the server from ending, and the socket's file goes.
func TestClose(t *testing.T) {
	_, s, socket := start(t)
	c := admin.NewClient(socket)
	began, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		first := true
		ended <- c.Tail(context.Background(), runtime.Tail{Topic: "ticks", Partition: -1, Follow: true}, func(runtime.TopicRecord) error {
			if first {
				close(began)
				first = false
			}
			return nil
		})
	}()
	<-began
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err == nil || !strings.Contains(err.Error(), "stopping") {
		t.Errorf("the client's tail ended with %v; want that the process is stopping", err)
	}
	if _, err := os.Stat(socket); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket's file: %v, want none", err)
	}
	var away *admin.UnreachableError
	if _, err := c.Status(t.Context()); !errors.As(err, &away) {
		t.Errorf("asking a server that is gone: %v, want an UnreachableError", err)
	}
}

// TestSocketIsPrivate: 0600, in a directory of its owner alone; what others may enter is refused, and so is what is no
// socket or is answered; a dead one is replaced.
func TestSocketIsPrivate(t *testing.T) {
	_, _, socket := start(t)
	for path, want := range map[string]os.FileMode{socket: 0o600, filepath.Dir(socket): 0o700} {
		info, err := os.Stat(path)
		if err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: mode %v, %v; want %v", path, info.Mode().Perm(), err, want)
		}
	}
	s := server(t, admin.Limits{})
	dir := filepath.Dir(socket)
	open := filepath.Join(dir, "open")
	if err := errors.Join(os.Mkdir(open, 0o755), os.Chmod(open, 0o755), os.WriteFile(filepath.Join(dir, "file"), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{socket, filepath.Join(open, "s"), filepath.Join(dir, "file"), filepath.Join(dir, strings.Repeat("x", 120))} {
		var refused *admin.PathError
		if err := s.ListenUnix(path); !errors.As(err, &refused) {
			t.Errorf("listening on %s: %v, want a PathError", path, err)
		}
	}
	// A process that was killed leaves its socket behind.
	dead := filepath.Join(dir, "dead")
	l, err := listenDead(dead)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.ListenUnix(dead); err != nil {
		t.Errorf("in place of a dead socket: %v", err)
	}
}

// TestMetrics: names, units and labels are as Prometheus wants them, "job" is no label, and what is there is what the
// status says.
func TestMetrics(t *testing.T) {
	rt, _, _ := start(t)
	eventually(t, "a job has read what the other wrote", func() bool {
		st := rt.Status()
		return st.Jobs[0].Counters.In > 100 && st.Jobs[1].Counters.In > 100
	})
	st := rt.Status()
	if c := st.Jobs[0].Counters; c.InBytes < c.In*100 || c.OutBytes < c.Out*100 {
		t.Errorf("readings of some 240 bytes: %+v", c)
	}
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(admin.NewCollector(func() runtime.Status { return st }))
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	problems, err := promlint.NewWithMetricFamilies(families).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	values := map[string]float64{}
	for _, f := range families {
		if !strings.HasPrefix(f.GetName(), "sidestream_") {
			t.Errorf("%s: the prefix is sidestream_", f.GetName())
		}
		for _, m := range f.GetMetric() {
			name := f.GetName()
			for _, l := range m.GetLabel() {
				if l.GetName() == "job" {
					t.Errorf("%s has a label job, which is Prometheus' own", name)
				}
				name += " " + l.GetValue()
			}
			values[name] = m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	for name, want := range map[string]float64{
		"sidestream_job_records_in_total ticks":              float64(st.Jobs[0].Counters.In),
		"sidestream_job_records_out_total reads":             float64(st.Jobs[1].Counters.Out),
		"sidestream_job_bytes_in_total ticks":                float64(st.Jobs[0].Counters.InBytes),
		"sidestream_job_bytes_out_total reads":               float64(st.Jobs[1].Counters.OutBytes),
		"sidestream_log_generations":                         1,
		"sidestream_job_state ticks running":                 1,
		"sidestream_job_bus_lag_records reads":               float64(st.Jobs[1].Lag),
		"sidestream_job_restarts_total ticks":                0,
		"sidestream_job_stuck_subtasks ticks":                0,
		"sidestream_output_records_unsent reads main":        float64(st.Jobs[1].Outputs[0].Unsent),
		"sidestream_log_fsyncs_total":                        float64(st.Log.Stats.Syncs),
		"sidestream_log_bytes":                               float64(st.Log.Bytes),
		"sidestream_job_last_commit_timestamp_seconds ticks": float64(st.Jobs[0].LastCommit.UnixMicro()) / 1e6,
	} {
		if got, ok := values[name]; !ok || got != want {
			t.Errorf("%s = %v (%v), want %v", name, got, ok, want)
		}
	}
	for _, name := range []string{"sidestream_topic_fill_ratio ticks", "sidestream_subscription_lag_records reads ticks", "sidestream_topic_records_total 1 high"} {
		if _, ok := values[name]; !ok {
			t.Errorf("%s is missing", name)
		}
	}
	if _, ok := values["sidestream_topic_fill_ratio reads/main"]; ok {
		t.Error("an output on its way outside is told as a topic")
	}
}

// listenDead makes a socket whose file stays when it is closed, as after a kill -9.
func listenDead(path string) (net.Listener, error) {
	l, err := net.Listen("unix", path)
	if err == nil {
		l.(*net.UnixListener).SetUnlinkOnClose(false)
	}
	return l, err
}
