package runtime_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/sidestream-dev/sidestream/bus"
	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/runtime"
)

// parts is what a shadow run was compared with: each part's range, and whether a replay gave it.
func parts(res runtime.ShadowResult, id string) string {
	var out []string
	for _, p := range res.Parts {
		line := strings.TrimPrefix(p.Input.String(), "numbers ")
		if p.Replay == id && id != "" {
			line += " replay"
		}
		out = append(out, line)
	}
	return strings.Join(out, ", ")
}

// passing is the job evens, in which another step, by its id, is another definition.
func passing(step string, topic jobs.BusTopic[int64], pass func(int64) bool) *jobs.Job {
	j := jobs.New("evens")
	jobs.ToTopic(jobs.Filter(jobs.FromTopic(j, topic, jobs.ID("in")), pass, jobs.ID(step)), jobs.BusTopic[int64]{Name: "passed"})
	return j
}

func change(t *testing.T, rt *runtime.Runtime, step string, topic jobs.BusTopic[int64], pass func(int64) bool) {
	t.Helper()
	def := []runtime.Definition{{Job: passing(step, topic, pass), Origin: runtime.OriginFile}}
	if res, err := rt.Apply(t.Context(), def, runtime.ApplyOptions{}); err != nil || res.Jobs[0].Action == runtime.ActionUnchanged {
		t.Fatalf("%+v, %v", res, err)
	}
}

// TestShadowPastReplay: after a replay from the middle of a topic, what lies before is compared with what the job gave before it,
// what lies behind with what the replay gave, and a range across it part by part. It is so while the process runs, in the next
// one, and when the definition has been changed since.
func TestShadowPastReplay(t *testing.T) {
	noLeaks(t)
	data, topic, in := t.TempDir(), jobs.BusTopic[int64]{Name: "numbers"}, newTap(3200, 0)
	writer, counts := writerJob("writer", in, topic), tallyJob(topic, 1)
	rt := start(t, runtime.Config{DataDir: data}, writer, passing("odd", topic, odd), counts)
	for n := int64(400); n <= 2000; n += 400 { // epochs end there, at least
		in.open(n)
		until(t, rt, "all are read", func() bool { return recordsOf(rt, "passed") == n/2 && recordsOf(rt, "tallies") == n })
	}
	change(t, rt, "even", topic, even)
	res, err := rt.Replay(t.Context(), "evens", "numbers", runtime.ReplayOptions{From: offset(800)})
	if err != nil {
		t.Fatal(err)
	}
	tally, err := rt.Replay(t.Context(), "tally", "numbers", runtime.ReplayOptions{From: offset(800)})
	if err != nil {
		t.Fatal(err)
	}
	until(t, rt, "both are over it", func() bool { return recordsOf(rt, "passed") == 1600 && recordsOf(rt, "tallies") == 3200 })
	in.open(2800)
	until(t, rt, "more is read", func() bool { return recordsOf(rt, "passed") == 2000 && recordsOf(rt, "tallies") == 4000 })
	check := func(when string, n int64) {
		t.Helper()
		to := offset(400)
		before := shadowOf(t, rt, runtime.ShadowOptions{Definition: passing("odd", topic, odd), To: &to})
		if !before.Same || !before.Exact || before.Equal != 200 || parts(before, res.ID) != "0-400" || len(before.Notes) != 1 || !strings.Contains(before.Notes[0], "before the replay "+res.ID+", as it has not read that again") {
			t.Errorf("%s, wholly before: %+v", when, before)
		}
		to = offset(1600)
		behind := shadowOf(t, rt, runtime.ShadowOptions{Definition: passing("even", topic, even), From: offset(800), To: &to})
		if !behind.Same || !behind.Exact || behind.Equal < 400 || behind.Parts[0].Replay != res.ID || !strings.Contains(strings.Join(behind.Notes, "\n"), "was replayed from offset 800 ("+res.ID+")") {
			t.Errorf("%s, wholly behind: %+v", when, behind)
		}
		across := shadowOf(t, rt, runtime.ShadowOptions{Definition: passing("even", topic, even)})
		if want := fmt.Sprintf("0-800, 800-%d replay", n); !across.Exact || parts(across, res.ID) != want || across.Equal != n/2-400 || across.Missing != 400 || across.Extra != 400 {
			t.Errorf("%s, across: %s, %+v", when, parts(across, res.ID), across)
		}
		counted := shadowOf(t, rt, runtime.ShadowOptions{Definition: tallyJob(topic, 1)})
		if want := fmt.Sprintf("0-800, 800-%d replay", n); !counted.Same || !counted.Exact || counted.Equal != n || parts(counted, tally.ID) != want || counted.State != "from nothing, as the job did" {
			t.Errorf("%s, with state: %s, %+v", when, parts(counted, tally.ID), counted)
		}
		for _, r := range []runtime.ShadowResult{before, behind, across, counted} {
			if text := strings.Join(r.Notes, "\n"); strings.Contains(text, "gave nothing") {
				t.Errorf("%s, it is said untruly: %s", when, text)
			}
		}
	}
	check("in the same process", 2800)
	stop(t, rt)
	rt = start(t, runtime.Config{DataDir: data}, writer, passing("even", topic, even), counts)
	defer func() { stop(t, rt) }()
	check("in the next process", 2800)
	change(t, rt, "even-again", topic, even)
	in.open(3200)
	wait(t, rt)
	check("behind another definition", 3200)
}

// TestShadowPastReplayRange: a replay with an end, and a seek, are stretches of their own, behind which the job goes on where it
// was; what nobody has read is said and not compared.
func TestShadowPastReplayRange(t *testing.T) {
	noLeaks(t)
	topic, in := jobs.BusTopic[int64]{Name: "numbers"}, newTap(3200, 0)
	rt := start(t, runtime.Config{DataDir: t.TempDir()}, writerJob("writer", in, topic), passing("odd", topic, odd))
	defer stop(t, rt)
	for n := int64(400); n <= 2000; n += 400 {
		in.open(n)
		until(t, rt, "all are read", func() bool { return recordsOf(rt, "passed") == n/2 })
	}
	change(t, rt, "even", topic, even)
	to := offset(1200)
	res, err := rt.Replay(t.Context(), "evens", "numbers", runtime.ReplayOptions{From: offset(800), To: &to})
	if err != nil {
		t.Fatal(err)
	}
	until(t, rt, "it is over", func() bool {
		id, _, err := rt.Replaying("evens")
		return err == nil && id == "" && recordsOf(rt, "passed") == 1200
	})
	in.open(2400)
	until(t, rt, "more is read", func() bool { return recordsOf(rt, "passed") == 1400 })
	all := shadowOf(t, rt, runtime.ShadowOptions{Definition: passing("even", topic, even)})
	if parts(all, res.ID) != "0-800, 1200-2000, 800-1200 replay, 2000-2400" || all.Equal != 400 || all.Missing != 800 || all.Extra != 800 || !all.Exact {
		t.Errorf("%s: %+v", parts(all, res.ID), all)
	}
	in.open(2800)
	until(t, rt, "more is read", func() bool { return recordsOf(rt, "passed") == 1600 })
	if _, err := rt.Seek(t.Context(), "evens", "numbers", offset(2400), false); err != nil {
		t.Fatal(err)
	}
	until(t, rt, "it is read again", func() bool { return recordsOf(rt, "passed") == 1800 })
	if err := rt.PauseJob(t.Context(), "evens"); err != nil {
		t.Fatal(err)
	}
	in.open(3200)
	until(t, rt, "more is written", func() bool { return recordsOf(rt, "numbers") == 3200 })
	if _, err := rt.Seek(t.Context(), "evens", "numbers", offset(3000), false); err != nil {
		t.Fatal(err)
	}
	if err := rt.ResumeJob(t.Context(), "evens"); err != nil {
		t.Fatal(err)
	}
	until(t, rt, "the end is read", func() bool { return recordsOf(rt, "passed") == 1900 })
	all = shadowOf(t, rt, runtime.ShadowOptions{Definition: passing("even", topic, even), From: offset(2000)})
	if parts(all, res.ID) != "2000-2400, 2400-2800, 3000-3200" || !all.Same || all.Equal != 500 || !all.Exact {
		t.Errorf("behind the seeks: %s: %+v", parts(all, res.ID), all)
	}
	if text := strings.Join(all.Notes, "\n"); !strings.Contains(text, "never read offset 2800 to 3000") {
		t.Errorf("what was passed over is not said: %s", text)
	}
}

// TestShadowPastCut: when the log has been cut behind a replay, what it gave is compared still, in all of the stretch whose edges
// the ledger knows.
func TestShadowPastCut(t *testing.T) {
	noLeaks(t)
	const n = 20_000
	topic, in := jobs.BusTopic[int64]{Name: "numbers"}, newTap(n, 0)
	cfg := shortLog(t)
	rt := start(t, cfg, writerJob("writer", in, topic), passing("even", topic, even))
	defer func() { stop(t, rt) }()
	in.open(8000)
	until(t, rt, "some are read", func() bool { return recordsOf(rt, "passed") == 4000 })
	to := offset(6000)
	res, err := rt.Replay(t.Context(), "evens", "numbers", runtime.ReplayOptions{From: offset(2000), To: &to})
	if err != nil {
		t.Fatal(err)
	}
	until(t, rt, "it is over", func() bool { id, _, err := rt.Replaying("evens"); return err == nil && id == "" })
	in.open(n)
	until(t, rt, "all are read", func() bool { return recordsOf(rt, "passed") == n/2+2000 })
	until(t, rt, "the log is short", func() bool { return rt.Status().Log.Bytes <= cfg.LogBytes })
	for _, again := range []bool{false, true} {
		if again {
			stop(t, rt)
			rt = start(t, cfg, writerJob("writer", in, topic), passing("even", topic, even))
		}
		to := offset(bus.Offset(5000))
		got := shadowOf(t, rt, runtime.ShadowOptions{Definition: passing("even", topic, even), From: offset(3000), To: &to})
		if !got.Same || !got.Exact || parts(got, res.ID) != "2000-6000 replay" || got.Equal != 2000 {
			t.Errorf("within it: %s: %+v", parts(got, res.ID), got)
		}
		all := shadowOf(t, rt, runtime.ShadowOptions{Definition: passing("even", topic, even)})
		if !all.Same || len(all.Parts) != 4 || all.Parts[0].Exact || !all.Parts[2].Exact || all.Equal < 2000+(n-8000)/2 {
			t.Errorf("of all: %s: %+v, %+v", parts(all, res.ID), all.Outputs, all.Parts)
		}
	}
}
