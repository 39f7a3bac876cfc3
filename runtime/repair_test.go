package runtime_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/jobs/connector/file"
	"github.com/sidestream-dev/sidestream/runtime"
	"github.com/sidestream-dev/sidestream/wal"
)

// named is what a log has called by a name: a model that only remembers.
type named struct {
	records map[string]string // topic, partition and offset
	frames  map[wal.LSN]string
}

// see takes all that a data directory says and returns what contradicts what it said before.
func (m *named) see(ctx context.Context, data string) (values map[string][]string, err error) {
	o, err := runtime.OpenOffline(data)
	if err != nil {
		return nil, err
	}
	values = map[string][]string{}
	for _, topic := range o.Topics() {
		for p, part := range topic.Partitions {
			if part.First == part.Next {
				continue
			}
			err := o.Tail(ctx, runtime.Tail{Topic: topic.Name, Partition: p, From: &part.First}, func(r runtime.TopicRecord) error {
				name := fmt.Sprintf("%s/%d/%s", r.Topic, r.Partition, r.Offset)
				if was, ok := m.records[name]; ok && was != string(r.Value) {
					return fmt.Errorf("%s was %s and is %s", name, was, r.Value)
				}
				m.records[name] = string(r.Value)
				values[r.Topic] = append(values[r.Topic], string(r.Value))
				return nil
			})
			if err != nil {
				return nil, fmt.Errorf("topic %s: %w", topic.Name, err)
			}
		}
	}
	err = wal.Dump(filepath.Join(data, "wal"), 0, 0, func(f *wal.Frame) error {
		what := fmt.Sprintf("%s %d %d", f.ID, f.Kind, f.Bytes)
		for i := range f.Len() {
			b, err := f.View(i)
			if err != nil {
				return err
			}
			what += fmt.Sprintf(" %x", b[:min(len(b), 64)])
		}
		if was, ok := m.frames[f.LSN]; ok && was != what {
			return fmt.Errorf("frame %s was %.120s and is %.120s", f.LSN, was, what)
		}
		m.frames[f.LSN] = what
		return nil
	})
	return values, err
}

// TestRepairNeverTwice runs two jobs over the bus, damages the log somewhere, repairs it and goes on, several times over: no
// offset and no LSN ever names two things, and where nothing older was given up every record is on each topic once.
func TestRepairNeverTwice(t *testing.T) {
	rng := seeded(t, "REPAIR_SEED")
	rounds, repaired, back, stored := 0, 0, 0, 0
	for ; rounds < 12 || (repaired < 6 || back == 0 || stored == 0) && rounds < 100; rounds++ {
		r, b, s := repairHistory(t, rng, rounds)
		repaired, back, stored = repaired+r, back+b, stored+s
	}
	t.Logf("%d histories, %d repairs, %d in which jobs went back, %d beside a topic store", rounds, repaired, back, stored)
	if repaired < 6 || back == 0 || stored == 0 {
		t.Error("the test does not reach everything")
	}
}

func repairHistory(t *testing.T, rng *rand.Rand, round int) (repaired, back, stored int) {
	const n = 600
	dir := t.TempDir()
	in, data := filepath.Join(dir, "in.txt"), filepath.Join(dir, "data")
	var lines strings.Builder
	for i := range n {
		fmt.Fprintf(&lines, "%d\n", i)
	}
	if err := os.WriteFile(in, []byte(lines.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	topic := func(name string) jobs.BusTopic[string] {
		return jobs.BusTopic[string]{Name: name, Topic: jobs.Topic{Partitions: 2}}
	}
	run := 0 // stands in every record, so that what is computed again is not the same
	defs := func() []*jobs.Job {
		run++
		tag := func(v string) string { v, _, _ = strings.Cut(v, "@"); return fmt.Sprintf("%s@%d", v, run) }
		a := jobs.New("first")
		tagged := jobs.Map(jobs.From(a, file.Source{Path: in, Format: file.Lines}, jobs.JSON[int64]()), func(v int64) string { return tag(fmt.Sprint(v)) })
		jobs.ToTopic(jobs.KeyBy(tagged, func(v string) int { return len(v) }), topic("a"))
		b := jobs.New("second")
		jobs.ToTopic(jobs.Map(jobs.FromTopic(b, topic("a")), tag), topic("b"))
		return []*jobs.Job{a, b}
	}
	cfg := runtime.Config{DataDir: data, EpochBytes: 1 << 10, SnapshotBytes: 4 << 10,
		Log: wal.Config{GenerationBytes: 8 << 10, SegmentBytes: 2 << 10, ReserveBytes: -1}}
	store := round%4 == 1
	if store { // topics move out of it
		cfg.LogBytes, cfg.StoreSegmentBytes, cfg.TopicMemory = 10<<10, 2<<10, 1<<10
	}
	model := &named{records: map[string]string{}, frames: map[wal.LSN]string{}}
	whole := true
	for range 3 {
		if store {
			rt := start(t, cfg, defs()...)
			wait(t, rt)
			for end := time.Now().Add(1500 * time.Millisecond); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
				if files, _ := filepath.Glob(filepath.Join(data, "topics", "*", "*", "*.seg")); len(files) > 0 && rt.Status().Log.Bytes <= cfg.LogBytes {
					stored++
					break
				}
			}
			stop(t, rt)
		} else {
			untilDone(t, cfg, defs())
		}
		values, err := model.see(t.Context(), data)
		if err != nil {
			t.Fatalf("history %d: %v", round, err)
		}
		if whole {
			once(t, values["a"], n)
			once(t, values["b"], n)
		}
		undo := damageSomewhere(t, rng, filepath.Join(data, "wal"))
		plan, err := repairData(data)
		if err != nil && store && strings.Contains(err.Error(), "nothing can be kept") {
			return repaired, back, stored // a short log may have no other catalog
		}
		if err != nil {
			t.Fatalf("history %d: repair: %v", round, err)
		}
		if plan == nil { // in the last group fsynced it cannot be told from a tear, and is cut
			undo()
			continue
		}
		repaired++
		whole = whole && (plan.Keep.First <= 1)
		if len(plan.Keep.Jobs) > 0 {
			back++
		}
		if _, err := model.see(t.Context(), data); err != nil {
			t.Fatalf("history %d: after a repair that keeps %d to %d of %v: %v", round, plan.Keep.First, plan.Keep.Last, plan.Damage, err)
		}
	}
	return repaired, back, stored
}

func once(t *testing.T, values []string, n int) {
	t.Helper()
	seen := map[string]int{}
	for _, v := range values {
		v, _, _ = strings.Cut(strings.Trim(v, `"`), "@")
		seen[v]++
	}
	for i := range n {
		if v := fmt.Sprint(i); seen[v] != 1 {
			t.Fatalf("%s is there %d times of %d records", v, seen[v], len(values))
		}
	}
	if len(values) != n {
		t.Fatalf("%d records, want %d", len(values), n)
	}
}

// damageSomewhere flips a bit of the log, or removes a segment.
func damageSomewhere(t *testing.T, rng *rand.Rand, dir string) (undo func()) {
	t.Helper()
	segments, err := filepath.Glob(filepath.Join(dir, "0*", "0*"))
	if err != nil || len(segments) == 0 {
		t.Fatal(segments, err)
	}
	path := segments[rng.IntN(len(segments))]
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	undo = func() {
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if rng.IntN(6) == 0 || len(b) == 0 {
		err = os.Remove(path)
	} else {
		ruined := slices.Clone(b)
		ruined[rng.IntN(len(b))] ^= 1 << rng.IntN(8)
		err = os.WriteFile(path, ruined, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	return undo
}

// repairData repairs a directory as `wal repair --write` does; the plan is nil where there was nothing to repair.
func repairData(data string) (*runtime.RepairPlan, error) {
	r, err := runtime.OpenRepair(data)
	if err != nil {
		return nil, err
	}
	plan, err := r.Plan(runtime.RepairOptions{AllowStateLoss: true})
	if err == nil && plan.Nothing {
		return nil, r.Close()
	}
	if err == nil {
		_, err = r.Write(plan, time.Now())
	}
	return plan, errors.Join(err, r.Close())
}
