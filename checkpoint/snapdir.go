package checkpoint

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

const (
	snapshotSuffix = ".snapshot"
	tempSuffix     = ".tmp"
)

// SnapshotFile is a snapshot as its name tells; it was not opened.
type SnapshotFile struct {
	Path  string
	Job   uint32
	Epoch Epoch
	Bytes int64
}

func snapshotName(job uint32, e Epoch) string {
	return fmt.Sprintf("%010d-%020d%s", job, uint64(e), snapshotSuffix)
}

// SnapshotName is what the file of a job's snapshot is called.
func SnapshotName(job uint32, e Epoch) string { return snapshotName(job, e) }

// CopySnapshot makes the file of a snapshot last under another name too, in another folder perhaps: as a link where the file
// system has such, else by its bytes. What is under that name already is replaced.
func CopySnapshot(from, to string) error {
	temp := to + tempSuffix
	if err := StageSnapshot(from, temp); err != nil {
		return err
	}
	return NameSnapshot(temp, to)
}

// StageSnapshot is the first half of CopySnapshot, which may take as long as the file is large: temp, whose name is to end
// with .tmp, counts for nothing yet, and goes at the next start if it is not named.
func StageSnapshot(from, temp string) error {
	if err := os.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("checkpoint: copy a snapshot: %w", err)
	}
	if os.Link(from, temp) != nil {
		if err := copyFile(from, temp); err != nil {
			return fmt.Errorf("checkpoint: copy a snapshot: %w", errors.Join(err, os.Remove(temp)))
		}
	}
	return nil
}

// NameSnapshot makes what StageSnapshot has made a snapshot, durably and at once.
func NameSnapshot(temp, to string) error {
	if err := os.Rename(temp, to); err != nil {
		return fmt.Errorf("checkpoint: name a snapshot: %w", err)
	}
	if err := (osDisk{}).syncDir(filepath.Dir(to)); err != nil {
		return fmt.Errorf("checkpoint: sync the folder of snapshots: %w", err)
	}
	return nil
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Sync(), out.Close())
}

func tempPrefix(job uint32) string { return fmt.Sprintf("%010d-", job) }

func parseSnapshotName(name string) (job uint32, e Epoch, ok bool) {
	base, ok := strings.CutSuffix(name, snapshotSuffix)
	if !ok {
		return 0, 0, false
	}
	a, b, ok := strings.Cut(base, "-")
	if !ok {
		return 0, 0, false
	}
	j, err1 := strconv.ParseUint(a, 10, 32)
	n, err2 := strconv.ParseUint(b, 10, 64)
	ok = err1 == nil && err2 == nil && name == snapshotName(uint32(j), Epoch(n))
	return uint32(j), Epoch(n), ok
}

// ListSnapshots returns the committed snapshots in dir, by job, the newest of each first. A folder that does not exist
// has none.
func ListSnapshots(dir string) ([]SnapshotFile, error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("checkpoint: list snapshots: %w", err)
	}
	var files []SnapshotFile
	for _, e := range entries {
		job, epoch, ok := parseSnapshotName(e.Name())
		if !ok || !e.Type().IsRegular() {
			continue
		}
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue // another job has just replaced it
		}
		if err != nil {
			return nil, fmt.Errorf("checkpoint: list snapshots: %w", err)
		}
		files = append(files, SnapshotFile{Path: filepath.Join(dir, e.Name()), Job: job, Epoch: epoch, Bytes: info.Size()})
	}
	slices.SortStableFunc(files, func(a, b SnapshotFile) int {
		switch {
		case a.Job != b.Job && a.Job < b.Job, a.Job == b.Job && a.Epoch > b.Epoch:
			return -1
		case a.Job == b.Job && a.Epoch == b.Epoch:
			return 0
		}
		return 1
	})
	return files, nil
}

// KeepSnapshots removes a job's snapshots of epochs before oldest and returns what it removed. Call it once the
// announcements of oldest and of those that are kept behind it are durable: one that was never announced counts for none.
func KeepSnapshots(dir string, job uint32, oldest Epoch) (removed []SnapshotFile, err error) {
	files, err := ListSnapshots(dir)
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		if f.Job != job || f.Epoch >= oldest {
			continue
		}
		if err := os.Remove(f.Path); err != nil {
			return removed, fmt.Errorf("checkpoint: remove an old snapshot: %w", err)
		}
		removed = append(removed, f)
	}
	return removed, nil
}

// RemoveUnfinished removes from dir what snapshots that were never committed have left. Call it while none is being written.
func RemoveUnfinished(dir string) (removed []string, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("checkpoint: list snapshots: %w", err)
	}
	for _, e := range entries {
		if !e.Type().IsRegular() || !strings.HasSuffix(e.Name(), tempSuffix) {
			continue
		}
		path := filepath.Join(dir, e.Name())
		if err := os.Remove(path); err != nil {
			return removed, fmt.Errorf("checkpoint: remove an unfinished snapshot: %w", err)
		}
		removed = append(removed, path)
	}
	return removed, nil
}
