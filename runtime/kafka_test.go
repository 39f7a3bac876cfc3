package runtime_test

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/jobs/connector/all"
	"github.com/sidestream-dev/sidestream/jobs/spec"
	"github.com/sidestream-dev/sidestream/runtime"
)

// TestKafkaRecords: what a Kafka output writes: the value as JSON, a string key as its bytes and others as JSON, the event
// time as timestamp, and headers passed on.
func TestKafkaRecords(t *testing.T) {
	c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "in"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cl, err := kgo.NewClient(kgo.SeedBrokers(c.ListenAddrs()...))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	in := &kgo.Record{Topic: "in", Key: []byte("theirs"), Value: []byte(`{"s":"a b","n":7,"ts":1700000000123}`),
		Headers: []kgo.RecordHeader{{Key: "trace", Value: []byte("x1")}}}
	if err := cl.ProduceSync(ctx, in).FirstErr(); err != nil {
		t.Fatal(err)
	}
	tests := []struct{ name, steps, key, value string }{
		{"string", "  - key_by: value.s\n", "a b", `{"s":"a b","n":7,"ts":1700000000123}`},
		{"number", "  - key_by: value.n\n", "7", `{"s":"a b","n":7,"ts":1700000000123}`},
		{"object", "  - key_by: {n: value.n, a: value.s}\n", `{"a":"a b","n":7}`, `{"s":"a b","n":7,"ts":1700000000123}`},
		{"mapped", "  - key_by: value.s\n  - map: {twice: value.n * 2, from: source.topic, mark: headers.trace}\n", "a b",
			`{"twice":14,"from":"in","mark":"x1"}`},
	}
	var defs []*jobs.Job
	for _, tt := range tests {
		d, problems := spec.LoadBytes(spec.Config{Connectors: all.Registry()}, tt.name, fmt.Appendf(nil, `
version: 1
job: %s
source:
  kafka: {brokers: [%q], topics: [in], end: latest}
  decode: json
  event_time: {from: value.ts, unit: ms, max_out_of_orderness: 1s}
steps:
%soutputs:
  main: {kafka: {topic: out-%s}}
`, tt.name, c.ListenAddrs()[0], tt.steps, tt.name))
		for _, p := range problems {
			t.Fatal(p)
		}
		defs = append(defs, d...)
	}
	rt, err := runtime.Open(runtime.Config{DataDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer rt.Stop()
	if err := rt.Start(defs); err != nil {
		t.Fatal(err)
	}
	if err := rt.Wait(ctx, true); err != nil || ctx.Err() != nil {
		t.Fatal(err, ctx.Err())
	}
	for _, tt := range tests {
		cl.AddConsumeTopics("out-" + tt.name)
	}
	got := map[string]*kgo.Record{}
	for len(got) < len(tests) {
		fs := cl.PollFetches(ctx)
		if ctx.Err() != nil {
			t.Fatalf("%d of %d topics have a record", len(got), len(tests))
		}
		fs.EachRecord(func(r *kgo.Record) { got[r.Topic] = r })
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := got["out-"+tt.name]
			if string(r.Key) != tt.key || string(r.Value) != tt.value || r.Timestamp.UnixMilli() != 1700000000123 {
				t.Errorf("key %s, value %s, timestamp %d; want %s, %s", r.Key, r.Value, r.Timestamp.UnixMilli(), tt.key, tt.value)
			}
			if len(r.Headers) != 1 || r.Headers[0].Key != "trace" || string(r.Headers[0].Value) != "x1" {
				t.Errorf("headers %v", r.Headers)
			}
		})
	}
}

// TestKafkaPartitionsAdded: partitions that are added while a job runs, and while it does not, are read from their beginning,
// once, at another parallelism too.
func TestKafkaPartitionsAdded(t *testing.T) {
	noLeaks(t)
	c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "in"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	cl, err := kgo.NewClient(kgo.SeedBrokers(c.ListenAddrs()...), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	out, data := filepath.Join(t.TempDir(), "out.jsonl"), t.TempDir()
	var want []string
	produce := func(partition int) {
		own, err := kgo.NewClient(kgo.SeedBrokers(c.ListenAddrs()...), kgo.RecordPartitioner(kgo.ManualPartitioner()))
		if err != nil {
			t.Fatal(err)
		}
		defer own.Close()
		for i := range 20 {
			v := fmt.Sprintf(`{"p":%d,"n":%d}`, partition, len(want)+i)
			if err := own.ProduceSync(t.Context(), &kgo.Record{Topic: "in", Partition: int32(partition), Value: []byte(v)}).FirstErr(); err != nil {
				t.Fatal(err)
			}
			defer func() { want = append(want, v) }()
		}
	}
	grow := func(to int) {
		if r, err := kadm.NewClient(cl).UpdatePartitions(t.Context(), to, "in"); err != nil || r.Error() != nil {
			t.Fatal(err, r.Error())
		}
	}
	started := func(parallelism int) *runtime.Runtime {
		defs, problems := spec.LoadBytes(spec.Config{Connectors: all.Registry()}, "grown", fmt.Appendf(nil, `
version: 1
job: grown
delivery: exactly_once
parallelism: %d
source:
  kafka: {brokers: [%q], topics: [in], start: latest, discovery_interval: 100ms}
  decode: json
outputs:
  main: {file: {path: %q}}
`, parallelism, c.ListenAddrs()[0], out))
		for _, p := range problems {
			t.Fatal(p)
		}
		return start(t, runtime.Config{DataDir: data}, defs...)
	}
	all := func(rt *runtime.Runtime) {
		t.Helper()
		until(t, rt, "all records", func() bool { return linesOf(t, out) >= len(want) })
	}
	rt := started(2)
	until(t, rt, "the first epoch", func() bool { return jobStatus(t, rt, "grown").Counters.Epochs > 0 })
	produce(0)
	all(rt)
	for p := 1; p <= 3; p++ {
		grow(p + 1)
		produce(p)
		all(rt)
	}
	stop(t, rt)
	grow(6)
	produce(4)
	produce(5)
	produce(1)
	rt = started(3)
	all(rt)
	grow(7)
	produce(6)
	produce(4)
	all(rt)
	stop(t, rt)
	slices.Sort(want)
	sameLines(t, "out", fileLines(t, out), want)
}
