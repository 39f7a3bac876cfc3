package checkpoint

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sidestream-dev/sidestream/internal/crashfs"
)

// crashDisk is a disk in memory that loses what was not synced. What is left out on purpose is named by fault.
type crashDisk struct {
	mem   *crashfs.Mem
	fault string
	n     *int
}

const (
	noFileSync = "no fsync of the file"
	noDirSync  = "no fsync of the folder"
)

func (d crashDisk) makeDir(dir string) error {
	if _, err := d.mem.List(dir); err == nil {
		return nil
	}
	if err := d.makeDir(path.Dir(dir)); err != nil {
		return err
	}
	if err := d.mem.Mkdir(dir); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return d.syncDir(path.Dir(dir))
}

func (d crashDisk) create(dir, pattern string) (diskFile, error) {
	*d.n++
	name := path.Join(dir, strings.Replace(pattern, "*", fmt.Sprint(*d.n), 1))
	f, err := d.mem.Create(name)
	if err != nil {
		return nil, err
	}
	return &crashFile{f, name, d.fault}, nil
}

func (d crashDisk) rename(from, to string) error { return d.mem.Rename(from, to) }
func (d crashDisk) remove(name string) error     { return d.mem.Remove(name) }

func (d crashDisk) syncDir(dir string) error {
	if d.fault == noDirSync {
		return nil
	}
	return d.mem.SyncDir(dir)
}

type crashFile struct {
	*crashfs.File
	name  string
	fault string
}

func (f *crashFile) Name() string                { return f.name }
func (f *crashFile) Write(b []byte) (int, error) { return len(b), f.Append(b) }
func (f *crashFile) Close() error                { return nil }

func (f *crashFile) Sync() error {
	if f.fault == noFileSync {
		return nil
	}
	return f.File.Sync()
}

// snapshotsOf copies what a disk holds of a folder into a real one.
func snapshotsOf(mem *crashfs.Mem, dir, to string) error {
	if err := os.RemoveAll(to); err != nil {
		return err
	}
	if err := os.MkdirAll(to, 0o755); err != nil {
		return err
	}
	files, err := mem.List(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for name, f := range files {
		b := make([]byte, f.Size())
		f.ReadAt(b, 0)
		if err := os.WriteFile(filepath.Join(to, name), b, 0o644); err != nil {
			return err
		}
	}
	return err
}

// takeSnapshots commits three snapshots of job 1 to disk and returns the epochs whose Commit returned nil.
func takeSnapshots(d disk, chunksOf func(Epoch) [][]byte) (acked []Epoch) {
	for e := Epoch(1); e <= 3; e++ {
		w, err := createSnapshot(d, "/data/snapshots", SnapshotMeta{Job: 1})
		if err != nil {
			return acked
		}
		for _, c := range chunksOf(e) {
			if w.Write(c) != nil {
				break
			}
		}
		w.At(SnapshotMeta{Job: 1, Epoch: e})
		if _, _, err := w.Commit(); err != nil {
			_ = w.Abort() // the disk is gone
			return acked
		}
		acked = append(acked, e)
	}
	return acked
}

// tryCrash cuts the power at disk operation k, and returns what is wrong with what then survives.
func tryCrash(fault string, k int, seeds uint64, scratch string) (over bool, survivals int, err error) {
	chunksOf := func(e Epoch) [][]byte {
		return [][]byte{bytes.Repeat([]byte{byte(e)}, 700), bytes.Repeat([]byte{0xf0 | byte(e)}, 3*crashfs.SectorBytes), {byte(e)}}
	}
	mem := crashfs.New()
	mem.FailFrom(k)
	acked := takeSnapshots(crashDisk{mem, fault, new(int)}, chunksOf)
	for seed := range seeds {
		survivals++
		if err := snapshotsOf(mem.Crash(rand.New(rand.NewPCG(seed, uint64(k)))), "/data/snapshots", scratch); err != nil {
			return true, survivals, err
		}
		if _, err := RemoveUnfinished(scratch); err != nil {
			return true, survivals, err
		}
		files, err := ListSnapshots(scratch)
		if err != nil {
			return true, survivals, err
		}
		var found []Epoch
		for _, f := range files {
			meta, chunks, err := readSnapshot(f.Path)
			if err != nil || meta.Epoch != f.Epoch || !slices.EqualFunc(chunks, chunksOf(f.Epoch), bytes.Equal) {
				return true, survivals, fmt.Errorf("operation %d, seed %d: the snapshot of epoch %s has its name and is not whole: %v", k, seed, f.Epoch, err)
			}
			found = append(found, f.Epoch)
		}
		for _, e := range acked {
			if !slices.Contains(found, e) {
				return true, survivals, fmt.Errorf("operation %d, seed %d: the snapshot of epoch %s was committed and is gone", k, seed, e)
			}
		}
		if left, err := os.ReadDir(scratch); err != nil || len(left) != len(files) {
			return true, survivals, fmt.Errorf("operation %d, seed %d: %d files beside %d snapshots, %v", k, seed, len(left), len(files), err)
		}
	}
	return mem.Ops() < k, survivals, nil
}

// TestSnapshotPowerCut: whatever survives a power cut at any disk operation, a snapshot that was committed is there, one
// that has its name is whole, and what is unfinished is removed.
func TestSnapshotPowerCut(t *testing.T) {
	scratch := filepath.Join(t.TempDir(), "snapshots")
	total := 0
	for k := 1; ; k++ {
		over, n, err := tryCrash("", k, 20, scratch)
		if err != nil {
			t.Fatal(err)
		}
		total += n
		if over {
			t.Logf("%d disk operations, %d survivals", k-1, total)
			return
		}
	}
}

// TestSnapshotPowerCutFindsFaults: a writer that leaves out one of its fsyncs is found out.
func TestSnapshotPowerCutFindsFaults(t *testing.T) {
	for _, fault := range []string{noFileSync, noDirSync} {
		t.Run(fault, func(t *testing.T) {
			scratch := filepath.Join(t.TempDir(), "snapshots")
			for k := 1; ; k++ {
				over, _, err := tryCrash(fault, k, 20, scratch)
				if err != nil {
					t.Log(err)
					return
				}
				if over {
					t.Fatal("not found")
				}
			}
		})
	}
}
