package wal

import (
	"os"
	"path/filepath"
	"testing"
)

// TestHolder: who has the lock is told, and only while it is had: a number that a process has left behind is nobody.
func TestHolder(t *testing.T) {
	dir := t.TempDir()
	if pid := Holder(dir); pid != 0 {
		t.Errorf("of a directory without a log: %d", pid)
	}
	for _, left := range []string{"", "1\n", "-7\n", "x\n"} {
		if err := os.WriteFile(filepath.Join(dir, lockName), []byte(left), 0o600); err != nil {
			t.Fatal(err)
		}
		if pid := Holder(dir); pid != 0 {
			t.Errorf("of a lock that %q has left behind: %d", left, pid)
		}
	}
	held, err := Lock(dir)
	if err != nil {
		t.Fatal(err)
	}
	if pid := Holder(dir); pid != os.Getpid() {
		t.Errorf("%d, want %d", pid, os.Getpid())
	}
	if err := held.Close(); err != nil {
		t.Fatal(err)
	}
	if pid := Holder(dir); pid != 0 {
		t.Errorf("behind its end: %d", pid)
	}
}
