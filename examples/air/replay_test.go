package air_test

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sidestream-dev/sidestream/bus"
	"github.com/sidestream-dev/sidestream/internal/airdata"
	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/jobs/connector/all"
	"github.com/sidestream-dev/sidestream/jobs/spec"
	"github.com/sidestream-dev/sidestream/runtime"
	"github.com/sidestream-dev/sidestream/runtime/casetest"
)

const rawJob = `
version: 1
job: raw
source:
  file: {path: "${env:SIDESTREAM_JOB_DATA}/pm25-*.jsonl", format: jsonl}
  event_time: {from: value.ts, unit: ms, max_out_of_orderness: 1h}
steps:
  - key_by: value.station
outputs:
  main: {bus: raw}
`

const daysJob = `
version: 1
job: days
source: {bus: raw, on_error: skip} # a gap's value is "NA", which has no mean
steps:
  - window:
      tumbling: 24h
      aggregate: {n: count(), mean: mean(value.value), max: max(value.value)}
outputs:
  main: {bus: days}
`

// TestReplayDays: the job that makes the days of PM2.5 was wrong. Repaired, it reads the topic of raw readings again, all of it
// or from a day on, and gives exactly what it would have given had it been right from the start.
func TestReplayDays(t *testing.T) {
	d := airdata.Asked(t)
	right := replayRuntime(t, d.Dir, daysJob)
	want := days(t, right, 0, time.Time{})
	if len(want) < 10 {
		t.Fatalf("%d windows", len(want))
	}
	wrong := replayRuntime(t, d.Dir, strings.Replace(daysJob, "mean(value.value)", "mean(value.value * 10)", 1))
	if slices.Equal(days(t, wrong, 0, time.Time{}), want) {
		t.Fatal("the wrong job is right")
	}
	first, last := windowStart(t, want[0]), windowStart(t, want[len(want)-1])
	middle := first.Add(last.Sub(first) / 2).Truncate(24 * time.Hour)
	repaired := repair(t, wrong)
	for _, from := range []time.Time{{}, middle} {
		st, _ := repaired.Topic("days")
		res, err := repaired.Replay(t.Context(), "days", "raw", runtime.ReplayOptions{From: runtime.Place{Time: from}})
		if err != nil || res.Records == 0 {
			t.Fatalf("%+v, %v", res, err)
		}
		ended(t, repaired)
		got := days(t, repaired, st.Partitions[0].Next, from)
		wanted := slices.DeleteFunc(slices.Clone(want), func(s string) bool { return windowStart(t, s).Before(from) })
		if !slices.Equal(got, wanted) {
			t.Errorf("from %v: %d windows, want %d", from, len(got), len(wanted))
		}
		t.Logf("from %v: %d records again, %d windows", from, res.Records, len(got))
	}
}

// TestShadowDays: a new definition of the job that makes days is run over the raw readings. The one that runs gives the same; one
// with another mean differs in every window; over the later half of the readings, with nothing to begin with, what the days at
// the range's beginning lack is told apart.
func TestShadowDays(t *testing.T) {
	d := airdata.Asked(t)
	rt := replayRuntime(t, d.Dir, daysJob)
	all := days(t, rt, 0, time.Time{})
	last := windowStart(t, all[len(all)-1])
	middle := windowStart(t, all[0]).Add(last.Sub(windowStart(t, all[0])) / 2)
	shadow := func(text string, from time.Time) runtime.ShadowResult {
		res, err := rt.Shadow(t.Context(), "raw", runtime.ShadowOptions{Definition: loadText(t, "", text)[0], From: runtime.Place{Time: from}, Show: 3,
			Engine: func(c runtime.ShadowSetup) (runtime.ShadowEngine, error) {
				return casetest.NewMuted(casetest.MutedConfig{Job: c.Job, Partitions: c.Partitions, Restored: c.Restored, State: c.State, Out: c.Out})
			}})
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%d records, %d equal, %d missing, %d extra, %d apart; state %s; %v", res.Records, res.Equal, res.Missing, res.Extra, res.Apart, res.State, res.Notes)
		return res
	}
	if res := shadow(daysJob, time.Time{}); !res.Same || !res.Exact || res.Equal != int64(len(all)) {
		t.Errorf("the same: %+v", res)
	}
	if res := shadow(daysJob, middle); !res.Same || res.Equal == 0 {
		t.Errorf("the same from the middle on: %+v", res)
	}
	wrong := strings.Replace(daysJob, "mean(value.value)", "mean(value.value + 1)", 1)
	res := shadow(wrong, time.Time{})
	if res.Same || res.Missing != int64(len(all)) || res.Extra != res.Missing || len(res.Differences) != 3 || res.Differences[0].Kind != "differs" {
		t.Errorf("another: %+v", res)
	}
}

// windowStart is when a window began.
func windowStart(t *testing.T, value string) time.Time {
	t.Helper()
	var v struct {
		Window struct{ Start time.Time }
	}
	if err := json.Unmarshal([]byte(value), &v); err != nil {
		t.Fatal(err)
	}
	return v.Window.Start
}

func loadText(t *testing.T, dir string, texts ...string) (defs []*jobs.Job) {
	t.Helper()
	for _, text := range texts {
		js, problems := spec.LoadBytes(spec.Config{Connectors: all.Registry(), Env: func(string) (string, bool) { return dir, true }}, "job.yaml", []byte(text))
		for _, p := range problems {
			t.Fatal(p)
		}
		defs = append(defs, js...)
	}
	return defs
}

// replayRuntime runs the raw job and one that makes days of its topic, until both have ended.
func replayRuntime(t *testing.T, dir, job string) *runtime.Runtime {
	t.Helper()
	rt, err := runtime.Open(runtime.Config{DataDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := rt.Stop(); err != nil {
			t.Error(err)
		}
	})
	if err := rt.Start(loadText(t, dir, rawJob, job)); err != nil {
		t.Fatal(err)
	}
	ended(t, rt)
	return rt
}

func repair(t *testing.T, rt *runtime.Runtime) *runtime.Runtime {
	t.Helper()
	defs := []runtime.Definition{{Job: loadText(t, "", daysJob)[0], Origin: runtime.OriginFile}}
	if _, err := rt.Apply(t.Context(), defs, runtime.ApplyOptions{AllowStateLoss: true}); err != nil {
		t.Fatal(err)
	}
	return rt
}

func ended(t *testing.T, rt *runtime.Runtime) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), runWait)
	defer cancel()
	if err := rt.Wait(ctx, true); err != nil || ctx.Err() != nil {
		t.Fatal(err, ctx.Err())
	}
}

// days returns the windows of the topic days behind an offset, by their beginning. Those that began before a time are left out:
// a replay from there has a part of them only. Not all have the replay's header: what fires at the topic's end has none.
func days(t *testing.T, rt *runtime.Runtime, at bus.Offset, from time.Time) (out []string) {
	t.Helper()
	err := rt.Tail(t.Context(), runtime.Tail{Topic: "days", Partition: -1, Begin: &runtime.Place{Offset: &at}}, func(r runtime.TopicRecord) error {
		if !windowStart(t, string(r.Value)).Before(from) {
			out = append(out, string(r.Value))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(out, func(a, b string) int {
		if c := windowStart(t, a).Compare(windowStart(t, b)); c != 0 {
			return c
		}
		return strings.Compare(a, b)
	})
	return out
}
