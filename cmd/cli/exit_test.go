package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"
	"testing"

	"github.com/sidestream-dev/sidestream/runtime"
	"github.com/sidestream-dev/sidestream/wal"
)

func TestExitCode(t *testing.T) {
	tests := []struct {
		name string
		err  error
		want int
	}{
		{"none", nil, 0},
		{"any other", errors.New("x"), 1},
		{"what a command said", withCode(exitConfig, errors.New("x")), 78},
		{"what a command said, of a disk's error", withCode(exitUnreachable, &fs.PathError{}), 69},
		{"cannot move", &runtime.StalledError{}, 1},
		{"stuck in a job's code", &runtime.StuckError{}, 1},
		{"locked", &wal.LockedError{}, 75},
		{"a failed fsync", &wal.FailedError{}, 74},
		{"a failed fsync behind others", errors.Join(errors.New("x"), fmt.Errorf("y: %w", &wal.FailedError{})), 74},
		{"damaged", &wal.DamagedError{Corrupt: &wal.CorruptError{}}, 65},
		{"corrupt", fmt.Errorf("x: %w", &wal.CorruptError{}), 65},
		{"failed by what is corrupt", &wal.FailedError{Err: &wal.CorruptError{}}, 74},
		{"a file", &fs.PathError{}, 74},
		{"a file that may not be written", fmt.Errorf("x: %w", &fs.PathError{Op: "open", Err: syscall.EACCES}), 78},
		{"a disk that may not be written", &fs.PathError{Op: "open", Err: syscall.EROFS}, 78},
		{"a disk that may not be written any more", &wal.FailedError{Err: &fs.PathError{Op: "write", Err: syscall.EROFS}}, 74},
		{"no room to start", unstarted(fmt.Errorf("x: %w", wal.ErrNoRoom)), 74},
		{"a definition against the log", unstarted(errors.New("x")), 78},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := exitCode(tt.err); got != tt.want {
				t.Errorf("exitCode(%v) = %d, want %d", tt.err, got, tt.want)
			}
		})
	}
}

type panics struct{}

func (panics) Write([]byte) (int, error) { panic("no paper") }

func TestOurOwnBug(t *testing.T) {
	var stderr bytes.Buffer
	a := &app{name: "sidestream", stdout: panics{}, stderr: &stderr}
	if got := a.main([]string{"version", "-o", "json"}); got != 70 {
		t.Errorf("exit code %d, want 70", got)
	}
	if s := stderr.String(); !strings.Contains(s, "this is a bug of ours: no paper") || !strings.Contains(s, "goroutine") {
		t.Errorf("stderr:\n%s\nwants the panic and its stack", s)
	}
}
