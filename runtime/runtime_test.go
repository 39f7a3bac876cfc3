package runtime_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/jobs/connector/file"
	"github.com/sidestream-dev/sidestream/jobs/operator"
	"github.com/sidestream-dev/sidestream/runtime"
)

type reading struct {
	Device  string  `json:"device"`
	Kind    string  `json:"kind"`
	TS      int64   `json:"ts"`
	Reading float64 `json:"reading"`
}

type signal struct {
	Device string `json:"device"`
	Kind   string `json:"kind"`
	TS     int64  `json:"ts"`
}

type minute struct {
	Device string  `json:"device"`
	Start  int64   `json:"start"`
	N      int64   `json:"n"`
	Sum    float64 `json:"sum"`
	Max    float64 `json:"max"`
}

type alert struct {
	Device string `json:"device"`
	Start  int64  `json:"start"`
	Kinds  int64  `json:"kinds"`
}

var kinds = []string{"temperature", "humidity", "pressure"}

// writeReadings writes n readings of each kind, in two files each, and returns them.
func writeReadings(t *testing.T, dir string, n int, seed uint64) map[string][]reading {
	t.Helper()
	rng := rand.New(rand.NewPCG(seed, 1))
	all := map[string][]reading{}
	for _, kind := range kinds {
		var files [2]*bufio.Writer
		for i := range files {
			f, err := os.Create(filepath.Join(dir, fmt.Sprintf("%s-%d.jsonl", kind, i)))
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			files[i] = bufio.NewWriter(f)
			defer files[i].Flush()
		}
		for i := range n {
			r := reading{fmt.Sprintf("d-%02d", rng.IntN(40)), kind, 1_700_000_000_000 + int64(i)*100, math.Round(rng.Float64()*1000) / 10}
			all[kind] = append(all[kind], r)
			if err := json.NewEncoder(files[rng.IntN(2)]).Encode(r); err != nil {
				t.Fatal(err)
			}
		}
	}
	return all
}

var signals = jobs.BusTopic[signal]{Name: "signals"}

const size = 10 * time.Second

// sixJobs builds a job for each kind and one that joins what they signal.
func sixJobs(in, out string, parallelism int, delivery jobs.Delivery, topic jobs.BusTopic[signal]) []*jobs.Job {
	var all []*jobs.Job
	for _, kind := range kinds {
		j := jobs.New(kind)
		j.Parallelism, j.Delivery = parallelism, delivery
		rs := jobs.From(j, file.Source{Path: filepath.Join(in, kind+"-*.jsonl")}, jobs.JSON[reading](),
			jobs.EventTime(func(r reading) time.Time { return time.UnixMilli(r.TS) }, 0))
		good := jobs.Filter(rs, func(r reading) bool { return r.Reading >= 5 })
		hot := jobs.Filter(good, func(r reading) bool { return r.Reading > 80 })
		jobs.ToTopic(jobs.KeyBy(jobs.Map(hot, func(r reading) signal { return signal{r.Device, r.Kind, r.TS} }),
			func(s signal) string { return s.Device }), topic)
		byDevice := jobs.KeyBy(good, func(r reading) string { return r.Device })
		w, _ := operator.Tumbling(byDevice, size, operator.Aggregates(func(device string, p *operator.Pane) minute {
			return minute{device, int64(p.Start), p.Int(0), p.Float(1), p.Float(2)}
		}, operator.Count[reading](), operator.Sum(func(r reading) float64 { return r.Reading }), operator.Max(func(r reading) float64 { return r.Reading })))
		jobs.To(w, "main", file.Sink{Path: filepath.Join(out, kind+".jsonl")}, jobs.JSON[minute]())
		all = append(all, j)
	}
	j := jobs.New("alerts")
	j.Parallelism, j.Delivery = parallelism, delivery
	w, _ := operator.Tumbling(jobs.FromTopic(j, topic), size, operator.Aggregates(func(device string, p *operator.Pane) alert {
		return alert{device, int64(p.Start), p.Int(0)}
	}, operator.Distinct(func(s signal) string { return s.Kind })))
	jobs.To(jobs.Filter(w, func(a alert) bool { return a.Kinds >= 2 }), "main", file.Sink{Path: filepath.Join(out, "alerts.jsonl")}, jobs.JSON[alert]())
	return append(all, j)
}

// expect computes the same with loops and maps.
func expect(all map[string][]reading) map[string][]string {
	out := map[string][]string{}
	type cell struct {
		device string
		start  int64
	}
	signaled := map[cell]map[string]bool{}
	for kind, rs := range all {
		ms := map[cell]*minute{}
		for _, r := range rs {
			if r.Reading < 5 {
				continue
			}
			c := cell{r.Device, r.TS - r.TS%size.Milliseconds()}
			if ms[c] == nil {
				ms[c] = &minute{Device: c.device, Start: c.start, Max: math.Inf(-1)}
			}
			ms[c].N++
			ms[c].Sum += r.Reading
			ms[c].Max = max(ms[c].Max, r.Reading)
			if r.Reading > 80 {
				if signaled[c] == nil {
					signaled[c] = map[string]bool{}
				}
				signaled[c][kind] = true
			}
		}
		for _, m := range ms {
			out[kind] = append(out[kind], fmt.Sprintf("%s %d %d %.6f %.6f", m.Device, m.Start, m.N, m.Sum, m.Max))
		}
	}
	for c, ks := range signaled {
		if len(ks) >= 2 {
			out["alerts"] = append(out["alerts"], fmt.Sprintf("%s %d %d", c.device, c.start, len(ks)))
		}
	}
	for _, lines := range out {
		slices.Sort(lines)
	}
	return out
}

// got reads the sinks' files.
func got(t *testing.T, dir string) map[string][]string {
	t.Helper()
	out := map[string][]string{}
	for _, name := range append(slices.Clone(kinds), "alerts") {
		f, err := os.Open(filepath.Join(dir, name+".jsonl"))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		for sc := bufio.NewScanner(f); sc.Scan(); {
			if name == "alerts" {
				var a alert
				err = json.Unmarshal(sc.Bytes(), &a)
				out[name] = append(out[name], fmt.Sprintf("%s %d %d", a.Device, a.Start, a.Kinds))
			} else {
				var m minute
				err = json.Unmarshal(sc.Bytes(), &m)
				out[name] = append(out[name], fmt.Sprintf("%s %d %d %.6f %.6f", m.Device, m.Start, m.N, m.Sum, m.Max))
			}
			if err != nil {
				t.Fatalf("%s: %v: %q", name, err, sc.Text())
			}
		}
		slices.Sort(out[name])
	}
	return out
}

func open(t *testing.T, cfg runtime.Config) *runtime.Runtime {
	t.Helper()
	if testing.Verbose() {
		cfg.Logger = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	rt, err := runtime.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return rt
}

// untilDone runs defs on a data directory to their end.
func untilDone(t *testing.T, cfg runtime.Config, defs []*jobs.Job) {
	t.Helper()
	rt := open(t, cfg)
	if err := rt.Start(defs); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := rt.Wait(ctx, true); err != nil {
		t.Fatal(err)
	}
	if ctx.Err() != nil {
		b, _ := json.MarshalIndent(rt.Status(), "", " ")
		t.Fatalf("not done in time:\n%s", b)
	}
	if err := rt.Stop(); err != nil {
		t.Fatal(err)
	}
}

func compare(t *testing.T, got, want map[string][]string) {
	t.Helper()
	for name := range want {
		if !slices.Equal(got[name], want[name]) {
			t.Errorf("%s: %d lines, want %d", name, len(got[name]), len(want[name]))
			shown := 0
			for _, l := range want[name] {
				if !slices.Contains(got[name], l) && shown < 5 {
					t.Errorf("%s: missing %s", name, l)
					shown++
				}
			}
			for _, l := range got[name] {
				if !slices.Contains(want[name], l) && shown < 10 {
					t.Errorf("%s: extra %s", name, l)
					shown++
				}
			}
		}
	}
}

func TestJobsOverTheBus(t *testing.T) {
	for _, parallelism := range []int{1, 2, 4} {
		for _, partitions := range []int{1, 4} {
			t.Run(fmt.Sprintf("parallelism=%d,partitions=%d", parallelism, partitions), func(t *testing.T) {
				in, out, data := t.TempDir(), t.TempDir(), t.TempDir()
				want := expect(writeReadings(t, in, 5000, 1))
				topic := signals
				topic.Topic.Partitions = partitions
				untilDone(t, runtime.Config{DataDir: data}, sixJobs(in, out, parallelism, jobs.ExactlyOnce, topic))
				compare(t, got(t, out), want)
				// A second run finds nothing to do.
				untilDone(t, runtime.Config{DataDir: data}, sixJobs(in, out, parallelism, jobs.ExactlyOnce, topic))
				compare(t, got(t, out), want)
			})
		}
	}
}
