package wal

import (
	"errors"
	"path/filepath"
	"testing"
)

// TestOnlyGenerationDamaged: where older generations were dropped the oldest one's catalog was durable; a damaged one is no
// tear, however little stands behind it, and no new log.
func TestOnlyGenerationDamaged(t *testing.T) {
	dir := t.TempDir()
	build(t, dir, Config{}, 5, -1)
	l := mustOpen(t, dir, Config{})
	first := l.Last()
	if err := l.Drop(first); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, generationName(first), segmentName(1))
	b := mustRead(t, path)
	b[len(b)-1] ^= 1
	mustWrite(t, path, b)
	l, err := Open(dir, Config{})
	if err == nil {
		l.Close()
		t.Fatalf("opened: %v", l.Recovered())
	}
	var d *DamagedError
	if !errors.As(err, &d) || d.Corrupt.First != first {
		t.Errorf("Open: %v, want a DamagedError at LSN %d", err, first)
	}
	if rep, err := Verify(dir); err != nil || rep.OK() {
		t.Errorf("Verify: %+v, %v", rep, err)
	}
	if got := mustRead(t, path); len(got) != len(b) {
		t.Errorf("%d bytes are left of %d", len(got), len(b))
	}
}
