package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/sidestream-dev/sidestream/internal/airdata"
	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/jobs/connector/file"
	"github.com/sidestream-dev/sidestream/runtime"
)

// TestFiles: the six jobs over files give what the reference program gives, at every parallelism, and a second run on the
// same data directory finds nothing to do. The sample always; all four years where they are.
func TestFiles(t *testing.T) {
	data := []airdata.Data{airdata.Sample(t)}
	if whole, ok := airdata.Whole(t); ok && !testing.Short() {
		data = append(data, whole)
	}
	for _, d := range data {
		want := airdata.Expect(t, d)
		for _, parallelism := range []int{1, 2, 4} {
			t.Run(fmt.Sprintf("data=%s,parallelism=%d", d.Name, parallelism), func(t *testing.T) {
				out, dir := t.TempDir(), t.TempDir()
				defs := build(ends{
					in:  func(p string) jobs.Source { return file.Source{Path: d.Glob(p)} },
					out: func(name string) jobs.Sink { return file.Sink{Path: filepath.Join(out, name+".jsonl")} },
				})
				for _, j := range defs {
					j.Parallelism, j.Delivery = parallelism, jobs.ExactlyOnce
				}
				began := time.Now()
				st := untilDone(t, dir, defs)
				t.Logf("done in %v", time.Since(began).Round(time.Millisecond))
				check(t, out, want)
				for _, j := range st.Jobs {
					if j.Counters.Rejected != int64(want.Dead[j.Name]) || j.Counters.Late != 0 {
						t.Errorf("%s: %d dead letters, want %d; %d came late, want none", j.Name, j.Counters.Rejected, want.Dead[j.Name], j.Counters.Late)
					}
				}
				if d.Name == "sample" {
					untilDone(t, dir, defs)
					check(t, out, want)
				}
			})
		}
	}
}

// check compares the files in out with want.
func check(t *testing.T, out string, want airdata.Expected) {
	t.Helper()
	for _, p := range airdata.Pollutants {
		airdata.Compare(t, p, airdata.Lines(t, filepath.Join(out, p+".jsonl")), want.Windows[p])
	}
	airdata.Compare(t, "alerts", airdata.Lines(t, filepath.Join(out, "alerts.jsonl")), want.Alerts)
}

// untilDone runs defs on a data directory until all is committed and sent.
func untilDone(t *testing.T, dir string, defs []*jobs.Job) runtime.Status {
	t.Helper()
	t.Helper()
	cfg := runtime.Config{DataDir: dir}
	if os.Getenv("AIR_LOG") != "" {
		cfg.Logger = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	rt, err := runtime.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := rt.Start(defs); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	if err := rt.Wait(ctx, true); err != nil {
		t.Fatal(err)
	}
	if ctx.Err() != nil {
		b, _ := json.MarshalIndent(rt.Status(), "", " ")
		t.Fatalf("not done in time:\n%s", b)
	}
	st := rt.Status()
	for _, j := range st.Jobs {
		t.Logf("%s: in %d, out %d, late %d, dead letters %d", j.Name, j.Counters.In, j.Counters.Out, j.Counters.Late, j.Counters.Rejected)
	}
	if err := rt.Stop(); err != nil {
		t.Fatal(err)
	}
	return st
}
