package spec

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// TestNamedPipe: a named pipe is one, by whatever name but a shell's.
func TestNamedPipe(t *testing.T) {
	dir := t.TempDir()
	at, link, file := filepath.Join(dir, "pipe"), filepath.Join(dir, "link"), filepath.Join(dir, "file")
	r, w, err := os.Pipe()
	if err := errors.Join(err, syscall.Mkfifo(at, 0o600), os.Symlink(at, link), os.WriteFile(file, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	for name, want := range map[string]bool{at: true, link: true, file: false, dir: false, filepath.Join(dir, "none"): false, "": false,
		fmt.Sprintf("/dev/fd/%d", r.Fd()): false, fmt.Sprintf("/proc/self/fd/%d", r.Fd()): false} {
		if NamedPipe(name) != want {
			t.Errorf("%s: %v, want %v", name, !want, want)
		}
	}
}
