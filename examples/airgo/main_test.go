package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sidestream-dev/sidestream/internal/airdata"
	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/jobs/connector/file"
	"github.com/sidestream-dev/sidestream/jobs/connector/kafka"
	"github.com/sidestream-dev/sidestream/runtime"
)

// runWait bounds a run of the six jobs over all four years on a busy machine.
const runWait = 5 * time.Minute

// TestFiles: the six jobs over files give what the reference program gives, at every parallelism, and a second run on the
// same data directory finds nothing to do.
func TestFiles(t *testing.T) {
	d := airdata.Asked(t)
	want := airdata.Expect(t, d)
	for _, parallelism := range []int{1, 2, 4} {
		t.Run(fmt.Sprintf("data=%s,parallelism=%d", d.Name, parallelism), func(t *testing.T) {
			out := t.TempDir()
			twice(t, parallelism, jobs.ExactlyOnce, ends{
				in:  func(p string) jobs.Source { return file.Source{Path: d.Glob(p)} },
				out: func(name string) jobs.Sink { return file.Sink{Path: filepath.Join(out, name+".jsonl")} },
			}, want, func(name string) []string { return airdata.Lines(t, filepath.Join(out, name+".jsonl")) })
		})
	}
}

// TestKafka: the same over Kafka topics, which end where they ended at the first connection.
func TestKafka(t *testing.T) {
	d, addr, in := airdata.Asked(t), airdata.Broker(t), airdata.Prefix()
	want := airdata.Expect(t, d)
	d.Produce(t, addr, in, 4)
	for _, parallelism := range []int{1, 2, 4} {
		t.Run(fmt.Sprintf("data=%s,parallelism=%d", d.Name, parallelism), func(t *testing.T) {
			out, at := airdata.Prefix(), []string{addr}
			twice(t, parallelism, jobs.AtLeastOnce, ends{
				in:  func(p string) jobs.Source { return kafka.Source{Brokers: at, Topics: []string{in + p}, End: "latest"} },
				out: func(name string) jobs.Sink { return kafka.Sink{Brokers: at, Topic: out + name} },
			}, want, func(name string) []string { return airdata.Consume(t, addr, out+name) })
		})
	}
}

// TestProgram: this program, started as its comment says.
func TestProgram(t *testing.T) {
	d := airdata.Sample(t)
	want := airdata.Expect(t, d)
	dir, bin := t.TempDir(), filepath.Join(t.TempDir(), "airgo")
	if b, err := exec.CommandContext(t.Context(), "go", "build", "-o", bin, ".").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, b)
	}
	paths, err := filepath.Glob(filepath.Join(d.Dir, "*.jsonl"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("no files in %s: %v", d.Dir, err)
	}
	for _, p := range paths {
		if err := os.Symlink(p, filepath.Join(dir, filepath.Base(p))); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), runWait)
	defer cancel()
	cmd := exec.CommandContext(ctx, bin, "run", "--until-done", "--data-dir", t.TempDir())
	cmd.Env = append(os.Environ(), "AIR_FILES="+dir)
	var log strings.Builder
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v: %v\n%s", cmd.Args, err, log.String())
	}
	check(t, want, func(name string) []string { return airdata.Lines(t, filepath.Join(dir, "out", name+".jsonl")) })
}

// twice runs the six jobs until done, compares what they wrote with want, and runs them again, with nothing to do.
func twice(t *testing.T, parallelism int, delivery jobs.Delivery, e ends, want airdata.Expected, lines func(name string) []string) {
	t.Helper()
	defs, dir := build(e), t.TempDir()
	for _, j := range defs {
		j.Parallelism, j.Delivery = parallelism, delivery
	}
	began := time.Now()
	st := untilDone(t, dir, defs)
	t.Logf("done in %v", time.Since(began).Round(time.Millisecond))
	before := check(t, want, lines)
	gaps := 0
	for _, j := range st.Jobs {
		gaps += want.Dead[j.Name]
		if j.Counters.Rejected != int64(want.Dead[j.Name]) || j.Counters.Late != 0 {
			t.Errorf("%s: %d dead letters, want %d; %d came late, want none", j.Name, j.Counters.Rejected, want.Dead[j.Name], j.Counters.Late)
		}
	}
	if gaps == 0 {
		t.Error("the data has no gaps")
	}
	for _, j := range untilDone(t, dir, defs).Jobs {
		if j.Counters.In != 0 || j.Counters.Out != 0 || j.State != runtime.StateEnded {
			t.Errorf("%s, run again: %v, %d records in, %d out; want it ended, with nothing to do", j.Name, j.State, j.Counters.In, j.Counters.Out)
		}
	}
	for name, was := range before {
		is := lines(name)
		slices.Sort(was)
		slices.Sort(is)
		if !slices.Equal(was, is) {
			t.Errorf("%s, run again: %d lines became %d", name, len(was), len(is))
		}
	}
}

// check compares each output's lines with want, and returns them.
func check(t *testing.T, want airdata.Expected, lines func(name string) []string) map[string][]string {
	t.Helper()
	got := map[string][]string{"alerts": lines("alerts")}
	airdata.Compare(t, "alerts", got["alerts"], want.Alerts)
	for _, p := range airdata.Pollutants {
		got[p] = lines(p)
		airdata.Compare(t, p, got[p], want.Windows[p])
	}
	return got
}

// untilDone runs defs on a data directory until all is committed and sent.
func untilDone(t *testing.T, dir string, defs []*jobs.Job) runtime.Status {
	t.Helper()
	cfg := runtime.Config{DataDir: dir}
	if os.Getenv("AIR_LOG") != "" {
		cfg.Logger = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	rt, err := runtime.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := rt.Stop(); err != nil {
			t.Error(err)
		}
	}()
	if err := rt.Start(defs); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), runWait)
	defer cancel()
	err = rt.Wait(ctx, true)
	st := rt.Status()
	if err != nil || ctx.Err() != nil {
		b, _ := json.MarshalIndent(st, "", " ")
		t.Fatalf("not done (%v, %v):\n%s", err, ctx.Err(), b)
	}
	return st
}
