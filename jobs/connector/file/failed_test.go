package file

import (
	"io"
	"io/fs"
	"syscall"
	"testing"
)

func TestWhatFailedIsSaidOnce(t *testing.T) {
	for want, err := range map[string]error{
		"file: write d/o: no space left on device": &fs.PathError{Op: "write", Path: "d/o", Err: syscall.ENOSPC},
		"file: write d/o: short write":             io.ErrShortWrite,
	} {
		if got := failed("write", "d/o", err).Error(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
