package runtime_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sidestream-dev/sidestream/bus"
	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/jobs/operator"
	"github.com/sidestream-dev/sidestream/runtime"
)

// tallyJob counts the numbers of a topic by key into another topic.
func tallyJob(topic jobs.BusTopic[int64], parallelism int) *jobs.Job {
	j := jobs.New("tally")
	j.Parallelism = parallelism
	jobs.ToTopic(tallies(jobs.FromTopic(j, topic, jobs.ID("in")), nil), jobs.BusTopic[tally]{Name: "tallies"})
	return j
}

// written returns the values of a topic: those of a replay, and the others.
func written(t *testing.T, rt *runtime.Runtime, topic, id string) (replayed, live []string) {
	t.Helper()
	for _, recs := range tailed(t, rt, runtime.Tail{Topic: topic, Partition: -1, Last: 1 << 20}) {
		for _, r := range recs {
			switch r.Headers[runtime.ReplayHeader] {
			case id:
				replayed = append(replayed, string(r.Value))
			case "":
				live = append(live, string(r.Value))
			default:
				t.Errorf("a record of replay %q", r.Headers[runtime.ReplayHeader])
			}
		}
	}
	return replayed, live
}

// TestReplayIntoJob: a job that counts is set back to the beginning while its topic is written. What it gives out until it is
// where it was says so, all of that and nothing else, and is what it gave before; what comes then goes on from there. It does
// not matter how many subtasks there are, nor that the process ends and another goes on in the middle.
func TestReplayIntoJob(t *testing.T) {
	for _, tt := range []struct {
		name        string
		parallelism int
		partitions  int
		restart     bool
	}{{"one subtask", 1, 1, false}, {"three subtasks", 3, 1, false}, {"another process", 2, 1, true}, {"three partitions", 3, 3, true}} {
		t.Run(tt.name, func(t *testing.T) {
			noLeaks(t)
			data := t.TempDir()
			topic := jobs.BusTopic[int64]{Name: "numbers", Topic: jobs.Topic{Name: "numbers", Partitions: tt.partitions}}
			in := newTap(6000, 4000)
			defs := func() []*jobs.Job {
				return []*jobs.Job{writerJob("writer", in, topic), tallyJob(topic, tt.parallelism)}
			}
			rt := start(t, runtime.Config{DataDir: data}, defs()...)
			until(t, rt, "all are counted", func() bool { return recordsOf(rt, "tallies") == 4000 })
			dry, err := rt.Replay(t.Context(), "tally", "numbers", runtime.ReplayOptions{DryRun: true})
			if err != nil || dry.Records != 4000 || dry.ID != "" || !slices.Equal(dry.Outputs, []string{"tallies (bus:tallies)"}) {
				t.Fatalf("dry run: %+v, %v", dry, err)
			}
			res, err := rt.Replay(t.Context(), "tally", "numbers", runtime.ReplayOptions{})
			if err != nil || res.Records != 4000 || res.ID == "" {
				t.Fatalf("%+v, %v", res, err)
			}
			if tt.restart {
				stop(t, rt)
				rt = start(t, runtime.Config{DataDir: data}, defs()...)
			}
			in.open(6000)
			wait(t, rt)
			replayed, live := written(t, rt, "tallies", res.ID)
			before, all := tallied(4000, nil), tallied(6000, nil)
			if tt.partitions > 1 { // their order is not the numbers'
				for _, lines := range [][]string{replayed, live, before, all} {
					for i := range lines {
						lines[i], _, _ = strings.Cut(lines[i], ",")
					}
				}
			}
			sameLines(t, "of the replay", replayed, before)
			sameLines(t, "of the others", live, all)
			if id, left, err := rt.Replaying("tally"); id != "" || left != 0 || err != nil {
				t.Errorf("it is still at %q, %d left, %v", id, left, err)
			}
			stop(t, rt)
		})
	}
}

func recordsOf(rt *runtime.Runtime, topic string) (n int64) {
	st, _ := rt.Topic(topic)
	for _, p := range st.Partitions {
		n += int64(p.Next)
	}
	return n
}

// TestReplayRange: a replay with an end goes on live behind it, where the job was, with the state of what was replayed.
func TestReplayRange(t *testing.T) {
	noLeaks(t)
	topic := jobs.BusTopic[int64]{Name: "numbers"}
	in := newTap(3000, 2000)
	rt := start(t, runtime.Config{DataDir: t.TempDir()}, writerJob("writer", in, topic), tallyJob(topic, 1))
	defer stop(t, rt)
	until(t, rt, "all are counted", func() bool { return recordsOf(rt, "tallies") == 2000 })
	to := offset(900)
	res, err := rt.Replay(t.Context(), "tally", "numbers", runtime.ReplayOptions{From: offset(300), To: &to})
	if err != nil || res.Records != 600 {
		t.Fatalf("%+v, %v", res, err)
	}
	if len(res.Cut) != 1 || res.Cut[0].Window != "" || res.Whole != nil || len(res.Notes) != 2 || !strings.Contains(res.Notes[0], "1100 records further on, with the state that the replay leaves: the state of tally lacks") ||
		!strings.Contains(res.Notes[1], "begins empty. From earliest") {
		t.Errorf("of state without windows it is said: %+v", res)
	}
	in.open(3000)
	wait(t, rt)
	replayed, live := written(t, rt, "tallies", res.ID)
	range_ := tallied(3000, func(n int64) bool { return n >= 300 && n < 900 || n >= 2000 })
	want := tallied(900, func(n int64) bool { return n >= 300 })
	sameLines(t, "of the replay", replayed, want)
	sameLines(t, "of the others", live, append(tallied(2000, nil), without(range_, want)...))
}

// TestReplayOfNothing: a replay without a record, which would only drop the job's state, is refused, and so is its dry run.
func TestReplayOfNothing(t *testing.T) {
	noLeaks(t)
	topic := jobs.BusTopic[int64]{Name: "numbers"}
	in := newTap(1200, 1000)
	rt := start(t, runtime.Config{DataDir: t.TempDir()}, writerJob("writer", in, topic), tallyJob(topic, 1))
	defer stop(t, rt)
	until(t, rt, "all are counted", func() bool { return recordsOf(rt, "tallies") == 1000 })
	ten, hour := offset(10), time.Now().Add(time.Hour)
	for name, o := range map[string]runtime.ReplayOptions{
		"from the end":       {From: runtime.Place{Latest: true}},
		"before it begins":   {From: offset(20), To: &ten},
		"from to the same":   {From: offset(10), To: &ten},
		"a time to come":     {From: runtime.Place{Time: hour}},
		"begun with nothing": {From: runtime.Place{Latest: true}, Nothing: true},
	} {
		for _, o.DryRun = range []bool{true, false} {
			if res, err := rt.Replay(t.Context(), "tally", "numbers", o); err == nil || !strings.Contains(err.Error(), "topic numbers has no record in that range, so nothing was done") {
				t.Errorf("%s: %+v, %v", name, res, err)
			}
		}
	}
	in.open(1200)
	wait(t, rt)
	if st := jobStatus(t, rt, "tally"); st.Restarts > 0 {
		t.Errorf("restarted %d times", st.Restarts)
	}
	_, live := written(t, rt, "tallies", "none")
	sameLines(t, "of the job", live, tallied(1200, nil))
}

func without(all, some []string) []string {
	return slices.DeleteFunc(slices.Clone(all), func(s string) bool { return slices.Contains(some, s) })
}

// TestReplayFromSavepoint: position and state are the savepoint's, also for the next process, and an ended job goes on.
func TestReplayFromSavepoint(t *testing.T) {
	noLeaks(t)
	data := t.TempDir()
	topic := jobs.BusTopic[int64]{Name: "numbers"}
	in := newTap(3000, 1000)
	defs := func() []*jobs.Job { return []*jobs.Job{writerJob("writer", in, topic), tallyJob(topic, 1)} }
	rt := start(t, runtime.Config{DataDir: data}, defs()...)
	until(t, rt, "a thousand are counted", func() bool { return recordsOf(rt, "tallies") == 1000 })
	if _, err := rt.Savepoint(t.Context(), "tally", "before"); err != nil {
		t.Fatal(err)
	}
	in.open(3000)
	wait(t, rt)
	from := runtime.Place{Savepoint: "before"}
	var ids []string
	for range 2 {
		res, err := rt.Replay(t.Context(), "tally", "numbers", runtime.ReplayOptions{From: from})
		if err != nil || res.Records != 2000 || res.Savepoint != "before" {
			t.Fatalf("%+v, %v", res, err)
		}
		ids = append(ids, res.ID)
		wait(t, rt)
		time.Sleep(2 * time.Millisecond) // another id
	}
	stop(t, rt)
	rt = start(t, runtime.Config{DataDir: data}, defs()...)
	defer stop(t, rt)
	want := without(tallied(3000, nil), tallied(1000, nil))
	var live []string
	of := map[string][]string{}
	for _, r := range tailed(t, rt, runtime.Tail{Topic: "tallies", Partition: -1, Last: 1 << 20})[0] {
		if id := r.Headers[runtime.ReplayHeader]; id != "" {
			of[id] = append(of[id], string(r.Value))
		} else {
			live = append(live, string(r.Value))
		}
	}
	for _, id := range ids {
		sameLines(t, "of "+id, of[id], want)
	}
	sameLines(t, "of the others", live, tallied(3000, nil))
	if _, err := rt.Replay(t.Context(), "writer", "numbers", runtime.ReplayOptions{}); err == nil || !strings.Contains(err.Error(), "reads from outside too") {
		t.Errorf("a replay into a job that reads from outside: %v", err)
	}
}

// TestResumedIsSaid: the next process says of each job at which epoch it goes on, and how far behind it is.
func TestResumedIsSaid(t *testing.T) {
	noLeaks(t)
	data := t.TempDir()
	topic := jobs.BusTopic[int64]{Name: "numbers"}
	in := newTap(3000, 1000)
	defs := func() []*jobs.Job { return []*jobs.Job{writerJob("writer", in, topic), tallyJob(topic, 1)} }
	rt := start(t, runtime.Config{DataDir: data}, defs()...)
	until(t, rt, "a thousand are counted", func() bool { return recordsOf(rt, "tallies") == 1000 })
	to := offset(400)
	if _, err := rt.Seek(t.Context(), "tally", "numbers", to, false); err != nil {
		t.Fatal(err)
	}
	until(t, rt, "600 are counted again", func() bool { return recordsOf(rt, "tallies") == 1600 })
	stop(t, rt)
	rt = start(t, runtime.Config{DataDir: data}, defs()...)
	defer stop(t, rt)
	said := map[string]string{}
	evs, _ := rt.Events(0)
	for _, e := range evs {
		if e.Kind == runtime.EventResumed {
			said[e.Job] = e.Text
		}
	}
	if len(said) != 2 || !strings.Contains(said["tally"], ", 0 records to catch up") || !strings.HasPrefix(said["tally"], "at epoch ") {
		t.Errorf("said: %q", said)
	}
}

// TestReplayChoosesSavepoint: a replay from a place begins with the newest savepoint at or before it, and says so; from before
// any, or where that is asked for, with nothing.
func TestReplayChoosesSavepoint(t *testing.T) {
	noLeaks(t)
	topic := jobs.BusTopic[int64]{Name: "numbers"}
	in := newTap(3000, 0)
	rt := start(t, runtime.Config{DataDir: t.TempDir()}, writerJob("writer", in, topic), tallyJob(topic, 1))
	defer stop(t, rt)
	for _, n := range []int64{1000, 2000} {
		in.open(n)
		until(t, rt, "all are counted", func() bool { return recordsOf(rt, "tallies") == n })
		if _, err := rt.Savepoint(t.Context(), "tally", fmt.Sprint("at-", n)); err != nil {
			t.Fatal(err)
		}
	}
	in.open(3000)
	wait(t, rt)
	for _, tt := range []struct {
		from      bus.Offset
		nothing   bool
		savepoint string
		records   int64
	}{{999, false, "", 2001}, {1000, false, "at-1000", 2000}, {1999, false, "at-1000", 2000}, {2500, false, "at-2000", 1000}, {2500, true, "", 500}} {
		o := runtime.ReplayOptions{From: offset(tt.from), Nothing: tt.nothing, DryRun: true}
		if res, err := rt.Replay(t.Context(), "tally", "numbers", o); err != nil || res.Savepoint != tt.savepoint || res.Records != tt.records {
			t.Errorf("from %d, dry: %+v, %v", tt.from, res, err)
		}
	}
	res, err := rt.Replay(t.Context(), "tally", "numbers", runtime.ReplayOptions{From: offset(1500)})
	if err != nil || res.Savepoint != "at-1000" {
		t.Fatalf("%+v, %v", res, err)
	}
	wait(t, rt)
	replayed, _ := written(t, rt, "tallies", res.ID)
	sameLines(t, "of the replay", replayed, without(tallied(3000, nil), tallied(1000, nil)))
}

// TestReplayCutOfTwoTopics: from where on a replay would cut no window is said only where all the topics that it reads hold that.
func TestReplayCutOfTwoTopics(t *testing.T) {
	noLeaks(t)
	a, b := jobs.BusTopic[int64]{Name: "a"}, jobs.BusTopic[int64]{Name: "b"}
	both := jobs.New("both")
	for _, topic := range []jobs.BusTopic[int64]{a, b} {
		counts, _ := operator.Tumbling(jobs.KeyBy(jobs.FromTopic(both, topic), func(int64) string { return "all" }), 20*time.Millisecond,
			operator.Aggregates(func(_ string, p *operator.Pane) int64 { return p.Int(0) }, operator.Count[int64]()))
		jobs.ToTopic(counts, jobs.BusTopic[int64]{Name: topic.Name + "-counts"})
	}
	rt := start(t, runtime.Config{DataDir: t.TempDir()}, teller("tells-a", newTap(200, 100), a, 200), teller("tells-b", newTap(200, 100), b, 200), both)
	defer stop(t, rt)
	until(t, rt, "all is read", func() bool { return jobStatus(t, rt, "both").Counters.In == 200 && jobStatus(t, rt, "both").Lag == 0 })
	whole := func() *time.Time {
		t.Helper()
		res, err := rt.Replay(t.Context(), "both", "a", runtime.ReplayOptions{From: runtime.Place{Time: time.UnixMilli(30)}, DryRun: true})
		if err != nil || len(res.Cut) != 2 {
			t.Fatalf("%+v, %v", res, err)
		}
		return res.Whole
	}
	if at := whole(); at == nil || at.UnixMilli() != 20 {
		t.Errorf("whole from %v, want 20 ms", at)
	}
	if _, err := rt.PurgeTopic(t.Context(), "b", offset(25), false); err != nil {
		t.Fatal(err)
	}
	if at := whole(); at != nil {
		t.Errorf("whole from %v, of which topic b has only the rest", at)
	}
}

// TestReplayInReplay: a job that is at a replay is not replayed into once more, for where it was before that would be forgotten, and
// what it gives up to there would come again without the header. It may be set elsewhere, and then replayed into.
func TestReplayInReplay(t *testing.T) {
	noLeaks(t)
	data, topic := t.TempDir(), jobs.BusTopic[int64]{Name: "numbers"}
	in := newTap(3000, 2000)
	defs := func() []*jobs.Job { return []*jobs.Job{writerJob("writer", in, topic), tallyJob(topic, 1)} }
	rt := start(t, runtime.Config{DataDir: data}, defs()...)
	until(t, rt, "all are counted", func() bool { return recordsOf(rt, "tallies") == 2000 })
	if err := rt.PauseJob(t.Context(), "tally"); err != nil {
		t.Fatal(err)
	}
	first, err := rt.Replay(t.Context(), "tally", "numbers", runtime.ReplayOptions{})
	if err != nil || first.Records != 2000 {
		t.Fatalf("%+v, %v", first, err)
	}
	refused := func() {
		t.Helper()
		for _, dry := range []bool{true, false} {
			if _, err := rt.Replay(t.Context(), "tally", "numbers", runtime.ReplayOptions{From: offset(500), DryRun: dry}); err == nil || !strings.Contains(err.Error(), "still at replay "+first.ID) {
				t.Errorf("a replay in a replay, dry run %v: %v", dry, err)
			}
		}
	}
	refused()
	stop(t, rt)
	rt = start(t, runtime.Config{DataDir: data}, defs()...)
	refused()
	if err := rt.ResumeJob(t.Context(), "tally"); err != nil {
		t.Fatal(err)
	}
	ended := func() bool { id, _, err := rt.Replaying("tally"); return id == "" && err == nil }
	until(t, rt, "the replay is over", ended)
	if replayed, _ := written(t, rt, "tallies", first.ID); len(replayed) != 2000 {
		t.Errorf("the replay gave %d records", len(replayed))
	}
	if err := rt.PauseJob(t.Context(), "tally"); err != nil {
		t.Fatal(err)
	}
	if _, err := rt.Replay(t.Context(), "tally", "numbers", runtime.ReplayOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := rt.Seek(t.Context(), "tally", "numbers", runtime.Place{Latest: true}, false); err != nil || !ended() {
		t.Fatalf("set elsewhere: %v, at a replay %v", err, !ended())
	}
	if again, err := rt.Replay(t.Context(), "tally", "numbers", runtime.ReplayOptions{DryRun: true}); err != nil || again.Records != 2000 {
		t.Errorf("behind it: %+v, %v", again, err)
	}
	stop(t, rt)
}
