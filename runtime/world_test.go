package runtime

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/sidestream-dev/sidestream/checkpoint"
)

// TestSnapshotDir: a snapshot that cannot be published leaves nothing behind, and one that was never announced does not take
// the place of one that was.
func TestSnapshotDir(t *testing.T) {
	dir := t.TempDir()
	d := snapshotDir(dir)
	write := func(e checkpoint.Epoch) error {
		_, _, err := d.write(checkpoint.SnapshotMeta{Job: 1, Epoch: e}, nil)
		return err
	}
	files := func() int {
		list, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		return len(list)
	}
	for _, e := range []checkpoint.Epoch{1, 2, 3, 4} { // the third is not announced
		if err := write(e); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.keep(1, 2); err != nil || files() != 3 {
		t.Errorf("keep: %v, %d files are left", err, files())
	}

	taken, _ := filepath.Glob(filepath.Join(dir, "*3.snapshot"))
	if len(taken) != 1 || os.Remove(taken[0]) != nil || os.MkdirAll(filepath.Join(taken[0], "in the way"), 0o700) != nil {
		t.Fatal(taken)
	}
	if err := write(3); err == nil || files() != 3 {
		t.Errorf("published over a folder: %v, %d files", err, files())
	}
}
