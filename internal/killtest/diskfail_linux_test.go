package killtest

import (
	"bytes"
	"errors"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sidestream-dev/sidestream/internal/airdata"
)

// TestDiskFails: a write or an fsync of the log that fails ends the real program with 74 after one clear line. It is not
// tried again; the next run goes on from what is there, and leaves what an undisturbed run leaves (R7).
func TestDiskFails(t *testing.T) {
	NeedKernel(t)
	data := Times(t, airdata.Sample(t), 2)
	want := airdata.Expect(t, data)
	s := Suite{Command: Sidestream(t), Variant: ExactlyOnce}
	left, _, _ := s.undisturbed(t, data, want)
	inLog := func(w *Work, path string) bool { return strings.HasPrefix(path, w.Dir+"/wal/0") }

	tests := []struct {
		name string
		says string // pattern
		disk func(w *Work) *Disk
		then func(cmd *exec.Cmd, w *Work) // once the log has grown a little
	}{
		{name: "the first fsync", says: "fsync: sync ", disk: func(w *Work) *Disk {
			return &Disk{Fail: func(path string) unix.Errno {
				if inLog(w, path) {
					return unix.EIO
				}
				return 0
			}}
		}},
		{name: "a later fsync", says: "(fsync|close): sync ", disk: func(w *Work) *Disk {
			n := 0
			return &Disk{Fail: func(path string) unix.Errno {
				if inLog(w, path) {
					if n++; n == 10 { // on a busy machine, which writes few groups, it may be the one of closing; and none after it: it must not be asked again
						return unix.EIO
					}
				}
				return 0
			}}
		}},
		{name: "a write", says: "write: ", disk: func(*Work) *Disk { return &Disk{} }, then: func(cmd *exec.Cmd, w *Work) {
			// No file of the process may grow beyond this size any more.
			limit := unix.Rlimit{Cur: uint64(logBytes(w.Dir)) + 100_000, Max: unix.RLIM_INFINITY}
			if err := unix.Prlimit(cmd.Process.Pid, unix.RLIMIT_FSIZE, &limit, nil); err != nil {
				t.Error(err)
			}
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := NewWork(t, data, ExactlyOnce)
			disk := tt.disk(w)
			disk.settle(t)
			cmd := disk.over(Sidestream(t))(w)
			var out bytes.Buffer
			cmd.Stdout, cmd.Stderr = &out, &out
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			if err := disk.attach(cmd); err != nil {
				t.Fatal(err)
			}
			defer disk.detach()
			ended := make(chan error, 1)
			go func() { ended <- cmd.Wait() }()
			hangs := time.After(runMax)
			var err error
			for done := false; !done; {
				select {
				case err = <-ended:
					done = true
				case <-hangs:
					_ = cmd.Process.Kill()
					t.Fatalf("it goes on although its disk failed: %s", out.Bytes())
				case <-time.After(time.Millisecond):
					if tt.then != nil && logBytes(w.Dir) > 100_000 {
						tt.then(cmd, w)
						tt.then = nil
					}
				}
			}
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.ExitCode() != 74 {
				t.Fatalf("it ended with %v, want exit code 74:\n%s", err, out.Bytes())
			}
			if line := out.String(); strings.Count(line, "\n") != 1 || !regexp.MustCompile(`^sidestream: .*wal: failed for good: `+tt.says).MatchString(line) {
				t.Errorf("it should say one line with %q:\n%s", tt.says, line)
			}
			if _, err := runOnce(Sidestream(t)(w), nil, w, nil); err != nil {
				t.Fatalf("the next run: %v", err)
			}
			w.Check(t, left, want, nil)
		})
	}
}
