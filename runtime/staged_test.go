package runtime_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/runtime"
)

// savepointsElsewhere lays the savepoints of a data directory on another file system, so that their files cannot be linked.
func savepointsElsewhere(t *testing.T, data string) {
	t.Helper()
	there, err := os.MkdirTemp("/dev/shm", "savepoints")
	if err != nil {
		cannot(t, "a second file system is needed: %v", err)
	}
	t.Cleanup(func() { os.RemoveAll(there) })
	if err := os.WriteFile(filepath.Join(there, "a"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if os.Link(filepath.Join(there, "a"), filepath.Join(data, "a")) == nil {
		cannot(t, "the temporary directory is on the file system of /dev/shm: set TMPDIR to another")
	}
	if err := os.Remove(filepath.Join(there, "a")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(there, filepath.Join(data, "savepoints")); err != nil {
		t.Fatal(err)
	}
}

// TestSlowCopyOfASavepoint: where a savepoint cannot be linked and its copy takes long, only who begins with it waits: the
// committer works on, also for other changes. What was staged is gone afterwards.
func TestSlowCopyOfASavepoint(t *testing.T) {
	noLeaks(t)
	data, out := t.TempDir(), t.TempDir()
	savepointsElsewhere(t, data)
	topic := jobs.BusTopic[int64]{Name: "numbers"}
	rt, err := runtime.Open(runtime.Config{DataDir: data, CatchUpPercent: 100, BackoffMin: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	asked, may := rt.SlowCopies()
	in := newTap(3000, 1000)
	if err := rt.Start([]*jobs.Job{writerJob("writer", in, topic)}); err != nil {
		t.Fatal(err)
	}
	defer stop(t, rt)
	apply(t, rt, readTopic("a", topic, out, nil))
	lines := func(name string) int { return linesOf(t, filepath.Join(out, name+".jsonl")) }
	until(t, rt, "a has read", func() bool { return lines("a") == 1000 })
	if _, err := rt.Savepoint(t.Context(), "a", "first"); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		_, err := rt.Apply(t.Context(), byAPI(readTopic("b", topic, out, nil)), runtime.ApplyOptions{From: "first"})
		done <- err
	}()
	<-asked
	in.open(2000)
	until(t, rt, "a has read on during the copy", func() bool { return lines("a") == 2000 })
	apply(t, rt, readTopic("c", topic, out, nil))
	until(t, rt, "c has read during the copy", func() bool { return lines("c") == 2000 })
	select {
	case err := <-done:
		t.Fatalf("b began without its copy: %v", err)
	default:
	}
	close(may)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	in.open(3000)
	for name, n := range map[string]int{"a": 3000, "b": 2000, "c": 3000} {
		until(t, rt, name+" has read on", func() bool { return lines(name) == n })
	}
	if left, _ := filepath.Glob(filepath.Join(data, "snapshots", "*.tmp")); len(left) > 0 {
		t.Errorf("staged files are left: %q", left)
	}
}
