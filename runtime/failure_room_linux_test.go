package runtime_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/runtime"
	"github.com/sidestream-dev/sidestream/wal"
)

const ownDisk = "SIDESTREAM_TEST_OWN_DISK" // the folder that is a disk of its own, in the process that runs the test

// withOwnDisk runs the rest of the test in a process of its own, in which a folder is a small disk; it returns "" in the
// process that only looks on.
func withOwnDisk(t *testing.T, bytes int64) (dir string) {
	t.Helper()
	if dir := os.Getenv(ownDisk); dir != "" {
		// Ours alone: the mount is seen by no other process, and goes with this one.
		if err := unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, ""); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d", bytes)); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=5m")
	cmd.Env = append(os.Environ(), ownDisk+"="+t.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	if os.Getuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	out, err := cmd.CombinedOutput()
	if cmd.Process == nil {
		cannot(t, "a disk of its own needs root or user namespaces: %v", err)
	}
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Fatalf("in the process with a disk of its own: %v\n%s", err, out)
	}
	return ""
}

// fill leaves free bytes of a disk; the returned func gives the rest back.
func fill(t testing.TB, dir string, free int64) (empty func()) {
	t.Helper()
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "ballast")
	if err := os.WriteFile(path, make([]byte, int64(st.Bavail)*st.Bsize-free), 0o600); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
}

// TestDiskFull: while there is no room on the disk jobs wait, and say so; they can be stopped, and started again, and go on
// when there is room. Nothing is lost.
func TestDiskFull(t *testing.T) {
	disk := withOwnDisk(t, 64<<20)
	if disk == "" {
		return
	}
	noLeaks(t)
	out := t.TempDir() // on another disk
	const total = 30_000
	log := &messages{}
	cfg := runtime.Config{DataDir: filepath.Join(disk, "data"), Logger: log.logger(), StopTimeout: 300 * time.Millisecond, Log: wal.Config{SegmentBytes: 1 << 20}}
	in := newTap(total, 1000)
	build := func(in *tap) []*jobs.Job {
		defs := []*jobs.Job{counting("a", in, out, nil), counting("b", in, out, nil)}
		for _, j := range defs {
			j.Definition = []byte("the same") // a change would need room itself
		}
		return defs
	}
	lines := func(name string) int { return linesOf(t, filepath.Join(out, name+".jsonl")) }
	rt := start(t, cfg, build(in)...)
	until(t, rt, "the first numbers are through", func() bool { return lines("a") == 1000 && lines("b") == 1000 })

	empty := fill(t, disk, 1<<20)
	waits := func(rt *runtime.Runtime) func() bool {
		return func() bool {
			return !slices.ContainsFunc(rt.Status().Jobs, func(j runtime.JobStatus) bool {
				return j.State != runtime.StateWaiting || !slices.ContainsFunc(j.Waiting, func(w runtime.Wait) bool { return w.For == runtime.WaitDisk })
			})
		}
	}
	until(t, rt, "both jobs wait for room", func() bool {
		in.open(in.opened.Load() + 10) // an answer of the disk is believed for a moment
		return waits(rt)()
	})
	if log.line("the disk is full") == "" {
		t.Error("it was not said that the disk is full")
	}
	stop(t, rt)
	a, b := lines("a"), lines("b")
	rt = start(t, cfg, build(newTap(total, total))...)
	until(t, rt, "both jobs wait for room again", waits(rt))
	if a >= total || lines("a") != a || lines("b") != b {
		t.Errorf("%d and %d lines, %d and %d before: something was sent that has no place in the log", lines("a"), lines("b"), a, b)
	}
	empty()
	finish(t, rt)
	for _, name := range []string{"a", "b"} {
		sameLines(t, name, fileLines(t, filepath.Join(out, name+".jsonl")), tallied(total, nil))
	}
}

// TestFullDiskBoundsMemory: while epochs wait for room a source is read no further than epoch.bytes allow (R10).
func TestFullDiskBoundsMemory(t *testing.T) {
	disk := withOwnDisk(t, 64<<20)
	if disk == "" {
		return
	}
	noLeaks(t)
	cfg := runtime.Config{DataDir: filepath.Join(disk, "data"), EpochBytes: 256 << 10, StopTimeout: 300 * time.Millisecond, Log: wal.Config{SegmentBytes: 1 << 20}}
	const total = 1 << 40
	in := newTap(total, 1)
	j := jobs.New("j")
	jobs.ToTopic(numbers(j, in), jobs.BusTopic[int64]{Name: "numbers"})
	rt := start(t, cfg, j)
	until(t, rt, "the first number is through", func() bool { return rt.Status().Topics[0].Partitions[0].Next == 1 })
	fill(t, disk, 1<<20)
	in.open(total)
	taken, still := int64(0), 0
	until(t, rt, "the source is read no further", func() bool {
		n := jobStatus(t, rt, "j").Counters.In
		if still++; n != taken || n == 1 {
			taken, still = n, 0
		}
		return still == 40 // polls, 5 ms apart
	})
	// Each number is seven bytes or less, an epoch's bound is looked at between batches; two wait, the third is full.
	if taken > 2_000_000 {
		t.Errorf("%d numbers were read while there was no room", taken)
	}
	stop(t, rt)
}
