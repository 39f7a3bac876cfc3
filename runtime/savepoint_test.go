package runtime_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sidestream-dev/sidestream/checkpoint"
	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/jobs/connector/file"
	"github.com/sidestream-dev/sidestream/runtime"
)

// TestSavepoint: a job that begins with a savepoint, of one that runs or of one that was removed, goes on from its positions
// with its state, under another name and parallelism; what is made and not announced is gone at the next start.
func TestSavepoint(t *testing.T) {
	t.Run("linked", func(t *testing.T) { testSavepoint(t, t.TempDir()) })
	t.Run("copied", func(t *testing.T) {
		data := t.TempDir()
		savepointsElsewhere(t, data)
		testSavepoint(t, data)
	})
}

func testSavepoint(t *testing.T, data string) {
	noLeaks(t)
	out := t.TempDir()
	const total = 6000
	topic := jobs.BusTopic[int64]{Name: "numbers"}
	in := newTap(total, 2000)
	ctx := t.Context()
	reader := func(name string, parallelism int) *jobs.Job {
		j := readTopic(name, topic, out, nil)
		j.Parallelism = parallelism
		return version(j, name)
	}
	rt := start(t, runtime.Config{DataDir: data}, writerJob("writer", in, topic))
	apply(t, rt, reader("a", 2))
	read := func(name string, n int) {
		t.Helper()
		until(t, rt, name+" has read on", func() bool { return linesOf(t, filepath.Join(out, name+".jsonl")) == n })
	}
	read("a", 2000)
	sp, err := rt.Savepoint(ctx, "a", "first")
	if err != nil || sp.Job != "a" || sp.Epoch == 0 || sp.Bytes == 0 {
		t.Fatalf("Savepoint: %+v, %v", sp, err)
	}
	if _, err := rt.Savepoint(ctx, "a", "first"); !errors.Is(err, runtime.ErrSavepointExists) {
		t.Errorf("a second of that name: %v", err)
	}
	if _, err := rt.Savepoint(ctx, "a", "../x"); err == nil {
		t.Error("a name that is a path is taken")
	}
	in.open(4000)
	read("a", 4000)
	if res := remove(t, rt, "a", runtime.RemoveOptions{KeepState: true, Savepoint: "second"}); res.Savepoint != "second" {
		t.Errorf("removed: %+v", res)
	}
	first := fileLines(t, filepath.Join(out, "a.jsonl"))
	if err := os.Remove(filepath.Join(out, "a.jsonl")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(data, "savepoints", "unannounced.savepoint"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	stop(t, rt)
	rt = start(t, runtime.Config{DataDir: data}, writerJob("writer", in, topic))
	if files, _ := filepath.Glob(filepath.Join(data, "savepoints", "*")); len(files) != 2 {
		t.Errorf("in the folder of savepoints: %q", files)
	}
	from := func(j *jobs.Job, name string, allow bool) error {
		_, err := rt.Apply(ctx, byAPI(j), runtime.ApplyOptions{From: name, AllowStateLoss: allow})
		return err
	}
	for _, err := range []error{from(reader("b", 1), "none", false), from(reader("writer", 1), "first", false)} {
		var refused *runtime.ApplyError
		if !errors.As(err, &refused) {
			t.Errorf("Apply from a savepoint: %v", err)
		}
	}
	stateless := jobs.New("c")
	jobs.To(jobs.FromTopic(stateless, topic), "main", file.Sink{Path: filepath.Join(out, "c.jsonl")}, jobs.JSON[int64]())
	var loss *runtime.StateLossError
	if err := from(stateless, "first", false); !errors.As(err, &loss) {
		t.Errorf("state would be lost: %v", err)
	}
	if err := errors.Join(from(reader("b", 3), "first", false), from(reader("a", 1), "second", false), from(stateless, "first", true)); err != nil {
		t.Fatal(err)
	}
	read("b", 2000)
	if err := rt.DeleteSavepoint(ctx, "first"); err != nil {
		t.Fatal(err)
	}
	if err := rt.DeleteSavepoint(ctx, "first"); !errors.Is(err, runtime.ErrNoSavepoint) {
		t.Errorf("deleted twice: %v", err)
	}
	if all, err := rt.Savepoints(); err != nil || len(all) != 1 || all[0].Name != "second" {
		t.Errorf("savepoints: %+v, %v", all, err)
	}
	load := func(text []byte, _ runtime.Origin) (*jobs.Job, error) {
		switch name := strings.TrimSpace(string(text)); name {
		case "b":
			return reader("b", 3), nil
		case "a":
			return reader("a", 1), nil
		}
		return stateless, nil
	}
	stop(t, rt)
	rt = start(t, runtime.Config{DataDir: data, Load: load}, writerJob("writer", in, topic))
	in.open(total)
	finish(t, rt)
	sameLines(t, "a", append(first, fileLines(t, filepath.Join(out, "a.jsonl"))...), tallied(total, nil))
	// What b tallies goes on behind the first two thousand.
	before := map[string]bool{}
	for _, l := range tallied(2000, nil) {
		before[l] = true
	}
	var behind []string
	for _, l := range tallied(total, nil) {
		if !before[l] {
			behind = append(behind, l)
		}
	}
	sameLines(t, "b", fileLines(t, filepath.Join(out, "b.jsonl")), behind)
}

// askedTap says when it is asked for its splits, and does not answer.
type askedTap struct {
	*tap
	asked chan struct{}
}

func (a *askedTap) Splits(ctx context.Context, _ jobs.SourceEnv) ([]jobs.Start, error) {
	close(a.asked)
	<-ctx.Done()
	return nil, ctx.Err()
}

// TestSavepointInUse: while a job is about to begin with a savepoint nobody deletes it: another of that name could be made, and
// the job would begin with the positions of one and the state of the other.
func TestSavepointInUse(t *testing.T) {
	noLeaks(t)
	topic := jobs.BusTopic[int64]{Name: "numbers"}
	rt := start(t, runtime.Config{DataDir: t.TempDir(), ConnectTimeout: patience}, writerJob("writer", newTap(20, 10), topic), readTopic("a", topic, t.TempDir(), nil))
	defer stop(t, rt)
	if err := rt.PauseJob(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	if _, err := rt.Savepoint(t.Context(), "a", "first"); err != nil {
		t.Fatal(err)
	}
	in := &askedTap{newTap(1, 1), make(chan struct{})}
	ctx, cancel := context.WithCancel(t.Context())
	applied := make(chan error, 1)
	go func() {
		b := jobs.New("b")
		jobs.ToTopic(jobs.From(b, in, jobs.JSON[int64]()), jobs.BusTopic[int64]{Name: "other"})
		_, err := rt.Apply(ctx, byAPI(b), runtime.ApplyOptions{From: "first", AllowStateLoss: true})
		applied <- err
	}()
	<-in.asked
	short, end := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer end()
	if err := rt.DeleteSavepoint(short, "first"); err == nil || !strings.HasPrefix(err.Error(), "savepoint first is being changed by somebody else (apply)") {
		t.Errorf("deleted meanwhile: %v", err)
	}
	cancel()
	if err := <-applied; err == nil {
		t.Error("applied without an answer")
	}
	if err := rt.DeleteSavepoint(t.Context(), "first"); err != nil {
		t.Error(err)
	}
}

// TestSavepointBehindALoss: a job at rest whose state was cut down by a change, with no epoch since, is saved as it is now: a
// snapshot of that epoch from before the change is not it.
func TestSavepointBehindALoss(t *testing.T) {
	noLeaks(t)
	data, out := t.TempDir(), t.TempDir()
	topic := jobs.BusTopic[int64]{Name: "numbers"}
	full := version(readTopic("j", topic, out, nil), "full")
	bare := jobs.New("j")
	bare.Delivery = jobs.ExactlyOnce
	jobs.To(jobs.FromTopic(bare, topic), "main", file.Sink{Path: filepath.Join(out, "j.jsonl")}, jobs.JSON[int64]())
	version(bare, "bare")
	rt := start(t, runtime.Config{DataDir: data}, writerJob("writer", newTap(200, 100), topic))
	defer stop(t, rt)
	apply(t, rt, full)
	until(t, rt, "all is read", func() bool { return linesOf(t, filepath.Join(out, "j.jsonl")) == 100 })
	if err := rt.PauseJob(t.Context(), "j"); err != nil {
		t.Fatal(err)
	}
	if _, err := rt.Savepoint(t.Context(), "j", "before"); err != nil {
		t.Fatal(err)
	}
	if _, err := rt.Apply(t.Context(), byAPI(bare), runtime.ApplyOptions{AllowStateLoss: true, Probation: -1}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, err := rt.Savepoint(ctx, "j", "behind"); err != nil {
		t.Fatal(err)
	}
	for name, entries := range map[string]bool{"before": true, "behind": false} {
		c, err := runtime.FindCheckpoint(data, filepath.Join(data, "savepoints", name+".savepoint"))
		if err != nil {
			t.Fatal(err)
		}
		d, err := runtime.Inspect(c)
		if err != nil || (d.Entries > 0) != entries {
			t.Errorf("savepoint %s has %d entries, %v", name, d.Entries, err)
		}
	}
}

// TestSavepointOfDamage: a savepoint is read back before it is announced: of a snapshot that the disk has damaged there is none.
func TestSavepointOfDamage(t *testing.T) {
	noLeaks(t)
	data, out := t.TempDir(), t.TempDir()
	topic := jobs.BusTopic[int64]{Name: "numbers"}
	rt := start(t, runtime.Config{DataDir: data}, writerJob("writer", newTap(200, 100), topic), readTopic("j", topic, out, nil))
	defer stop(t, rt)
	until(t, rt, "all is read", func() bool { return linesOf(t, filepath.Join(out, "j.jsonl")) == 100 })
	if err := rt.PauseJob(t.Context(), "j"); err != nil {
		t.Fatal(err)
	}
	if _, err := rt.Savepoint(t.Context(), "j", "sound"); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(data, "savepoints", "sound.savepoint") // and the snapshot that it is of, where links are had
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	snapshots, err := filepath.Glob(filepath.Join(data, "snapshots", "*"))
	if err != nil || len(snapshots) == 0 {
		t.Fatal(snapshots, err)
	}
	b[len(b)/2] ^= 1
	for _, name := range snapshots {
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var damaged *checkpoint.SnapshotError
	if _, err := rt.Savepoint(t.Context(), "j", "damaged"); !errors.As(err, &damaged) {
		t.Errorf("a savepoint of a damaged snapshot: %v", err)
	}
	all, err := rt.Savepoints()
	if err != nil || len(all) != 1 {
		t.Errorf("savepoints: %+v, %v", all, err)
	}
	if _, err := os.Stat(filepath.Join(data, "savepoints", "damaged.savepoint")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("its file is left: %v", err)
	}
}

// TestDamagedSavepointIsRefused: what begins with a savepoint reads it first: of one that the disk has damaged since, or that is
// gone, no job is made and no job's state is given up.
func TestDamagedSavepointIsRefused(t *testing.T) {
	noLeaks(t)
	data, out := t.TempDir(), t.TempDir()
	topic := jobs.BusTopic[int64]{Name: "numbers"}
	rt := start(t, runtime.Config{DataDir: data}, writerJob("writer", newTap(200, 100), topic), version(readTopic("j", topic, out, nil), "1"))
	defer stop(t, rt)
	until(t, rt, "all is read", func() bool { return linesOf(t, filepath.Join(out, "j.jsonl")) == 100 })
	if _, err := rt.Savepoint(t.Context(), "j", "damaged"); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(data, "savepoints", "damaged.savepoint")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)-len(b)/4] ^= 1 // behind the header, which is read in any case
	for i, name := range []string{"damaged", "gone"} {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			if err := os.WriteFile(path, b, 0o600); err != nil { // and not the snapshot whose file it shares
				t.Fatal(err)
			}
		}
		was, err := rt.JobDefinition("j")
		if err != nil {
			t.Fatal(err)
		}
		var bad *runtime.BadSavepointError
		if _, err := rt.Apply(t.Context(), byAPI(version(readTopic("k", topic, out, nil), "1")), runtime.ApplyOptions{From: "damaged"}); !errors.As(err, &bad) {
			t.Errorf("%s: Apply from it: %v", name, err)
		}
		for _, dry := range []bool{true, false} {
			_, err := rt.Replay(t.Context(), "j", "numbers", runtime.ReplayOptions{From: runtime.Place{Savepoint: "damaged"}, DryRun: dry})
			if !errors.As(err, &bad) {
				t.Errorf("%s: a replay from it: %v", name, err)
			}
		}
		if now, err := rt.JobDefinition("j"); err != nil || now.Version != was.Version || now.Changed != was.Changed || now.Phase != runtime.PhaseActive {
			t.Errorf("%s: the job is %+v, %v; it was %+v", name, now, err, was)
		}
		if _, err := rt.JobDefinition("k"); !errors.Is(err, runtime.ErrNoJob) {
			t.Errorf("%s: a job was made: %v", name, err)
		}
	}
}

// TestSavepointsUnasked: of a job that comes and goes without being asked for the newest savepoints are kept; those that
// somebody asked for, and those of others, stay.
func TestSavepointsUnasked(t *testing.T) {
	noLeaks(t)
	out := t.TempDir()
	topic := jobs.BusTopic[int64]{Name: "numbers"}
	rt := start(t, runtime.Config{DataDir: t.TempDir()}, writerJob("writer", newTap(200, 100), topic))
	defer stop(t, rt)
	var made []string
	for i := range runtime.UnaskedMax + 3 {
		for _, job := range []string{"j", "other"} {
			if i > 0 && job == "other" {
				continue
			}
			apply(t, rt, version(readTopic(job, topic, out, nil), job))
			until(t, rt, "it is at work", func() bool { return jobStatus(t, rt, job).Epoch > 0 })
			o := runtime.RemoveOptions{KeepState: true, Unasked: i != 1}
			res, err := rt.RemoveJob(t.Context(), job, o)
			if err != nil || res.Savepoint == "" {
				t.Fatalf("%+v, %v", res, err)
			}
			made = append(made, res.Savepoint)
			if err := os.Remove(filepath.Join(out, job+".jsonl")); err != nil { // the next one's is new
				t.Fatal(err)
			}
		}
	}
	all, err := rt.Savepoints()
	if err != nil {
		t.Fatal(err)
	}
	var left []string
	for _, sp := range all {
		left = append(left, sp.Name)
	}
	want := append([]string{made[1], made[2]}, made[len(made)-runtime.UnaskedMax:]...) // the other's, the one that was asked for, the newest
	slices.Sort(left)
	slices.Sort(want)
	if !slices.Equal(left, want) {
		t.Errorf("left are\n%q, want\n%q of\n%q", left, want, made)
	}
}
