package runtime_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/jobs/connector/file"
	"github.com/sidestream-dev/sidestream/runtime"
)

// snapshotKeys is enough for a scan that takes several rounds, between which the job goes on.
const snapshotKeys = 8000

func snapshotting(in *tap, out string, parallelism int) *jobs.Job {
	j := jobs.New("snapshots")
	j.Delivery, j.Parallelism = jobs.ExactlyOnce, parallelism
	jobs.To(talliesBy(numbers(j, in), snapshotKeys, nil), "main", file.Sink{Path: filepath.Join(out, "main.jsonl")}, jobs.JSON[tally]())
	return j
}

func snapshotFiles(t testing.TB, data string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(data, "snapshots", "*.snapshot"))
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(files) // the newest last
	return files
}

// TestSnapshotsWhileRunning: snapshots are taken while records go through, each exact by itself: whichever the job is
// restored from, with what the log has behind it, it goes on exactly. Two are kept.
func TestSnapshotsWhileRunning(t *testing.T) {
	for _, parallelism := range []int{1, 2} {
		noLeaks(t)
		rng := seeded(t, "SNAPSHOT_SEED")
		data, out := t.TempDir(), t.TempDir()
		const total = 50_000
		seen := map[string]bool{}
		runs, opened := 0, int64(0)
		for ; opened < total; runs++ {
			in := newTap(total, opened)
			rt := start(t, runtime.Config{DataDir: data, SnapshotBytes: 1, CommitInterval: time.Millisecond}, snapshotting(in, out, parallelism))
			opened = min(total, opened+rng.Int64N(6000))
			in.open(opened)
			if runs%3 == 2 { // now and then as much as one more snapshot takes
				until(t, rt, "a snapshot", func() bool {
					if files := snapshotFiles(t, data); len(files) > 0 && !seen[files[len(files)-1]] {
						return true
					}
					opened = min(total, opened+10) // a little: a machine may be slow to write it
					in.open(opened)
					return jobStatus(t, rt, "snapshots").State == runtime.StateEnded
				})
			} else {
				time.Sleep(time.Duration(rng.Int64N(int64(10 * time.Millisecond))))
			}
			stop(t, rt)
			for _, f := range snapshotFiles(t, data) {
				seen[f] = true
			}
		}
		finish(t, start(t, runtime.Config{DataDir: data}, snapshotting(newTap(total, total), out, parallelism)))
		if n := len(snapshotFiles(t, data)); n > 2 || len(seen) < 2 || runs < 3 {
			t.Errorf("%d snapshots are there; %d were seen over %d runs", n, len(seen), runs)
		}
		t.Logf("parallelism %d: %d runs, %d snapshots", parallelism, runs, len(seen))
		sameLines(t, "main", fileLines(t, filepath.Join(out, "main.jsonl")), talliedBy(total, snapshotKeys, nil))
	}
}

// TestDamagedSnapshots: where the newest snapshot is damaged the one before is used, and nothing is missing; where both are
// the job's state cannot be had, which is said instead of guessed.
func TestDamagedSnapshots(t *testing.T) {
	noLeaks(t)
	data, out := t.TempDir(), t.TempDir()
	const total = 90_000
	cfg := runtime.Config{DataDir: data, SnapshotBytes: 1}
	in := newTap(total, 0)
	rt := start(t, cfg, snapshotting(in, out, 2))
	// Two are kept of three or more: both were announced then, and not only written.
	seen := map[string]bool{}
	for opened := int64(10_000); len(seen) < 3 || len(snapshotFiles(t, data)) != 2; opened += 10 { // a little: it must not come to the end before
		for _, f := range snapshotFiles(t, data) {
			seen[f] = true
		}
		in.open(min(opened, total/2))
		until(t, rt, "what is open is read", func() bool { return jobStatus(t, rt, "snapshots").Counters.In >= min(opened, total/2) })
	}
	stop(t, rt)

	spoil := func(path string, at func(n int) int) (mend func()) {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		good := slices.Clone(b)
		b[at(len(b))] ^= 0x10
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return func() {
			if err := os.WriteFile(path, good, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	files := snapshotFiles(t, data)
	if len(files) != 2 {
		t.Fatalf("%d snapshots", len(files))
	}
	older := spoil(files[0], func(n int) int { return n - 10 })
	newer := spoil(files[1], func(n int) int { return n / 2 })
	log := &messages{}
	cfg.Logger = log.logger()
	rt, err := runtime.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	err = rt.Start([]*jobs.Job{snapshotting(newTap(total, total), out, 2)})
	if err == nil || !strings.Contains(err.Error(), files[0]) || !strings.Contains(err.Error(), files[1]) || !strings.Contains(err.Error(), "damaged at byte") {
		t.Errorf("Start with two damaged snapshots: %v", err)
	}
	if err := rt.Stop(); err != nil {
		t.Error(err)
	}

	older()
	_ = newer // stays damaged
	rt = start(t, cfg, snapshotting(newTap(total, total), out, 2))
	if l := log.line("a snapshot cannot be used; the one before it is tried", filepath.Base(files[1])); l == "" {
		t.Error("it was not said that the newest snapshot is damaged")
	}
	finish(t, rt)
	sameLines(t, "main", fileLines(t, filepath.Join(out, "main.jsonl")), talliedBy(total, snapshotKeys, nil))
}
