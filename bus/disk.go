package bus

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// Disk is what the topic store needs of a file system: [OSDisk], or one of a test below it that loses what was not synced.
type Disk interface {
	MakeDir(dir string) error // with its parents, their names synced
	Open(path string, create bool) (DiskFile, error)
	Remove(path string) error                  // of a file, or of an empty directory
	List(dir string) (map[string]int64, error) // names with sizes, -1 for a directory; empty where there is no dir
	SyncDir(dir string) error
}

// DiskFile is an open file. ReadAt returns io.EOF where the file ends before b does.
type DiskFile interface {
	ReadAt(b []byte, off int64) (int, error)
	WriteAt(b []byte, off int64) (int, error)
	Size() (int64, error)
	Truncate(size int64) error
	Sync() error
	Close() error
}

// OSDisk is the file system of the process.
type OSDisk struct{}

// MakeDir implements Disk.
func (d OSDisk) MakeDir(dir string) error {
	switch _, err := os.Stat(dir); {
	case err == nil:
		return nil
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	parent := filepath.Dir(dir)
	if err := d.MakeDir(parent); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return d.SyncDir(parent)
}

// Open implements Disk.
func (OSDisk) Open(path string, create bool) (DiskFile, error) {
	flags := os.O_RDONLY
	if create {
		flags = os.O_RDWR | os.O_CREATE
	}
	f, err := os.OpenFile(path, flags, 0o600)
	if err != nil {
		return nil, err // not a DiskFile that holds a nil *os.File
	}
	return osFile{f}, nil
}

// Remove implements Disk.
func (OSDisk) Remove(path string) error { return os.Remove(path) }

// List implements Disk.
func (OSDisk) List(dir string) (map[string]int64, error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	out := make(map[string]int64, len(entries))
	for _, e := range entries {
		if e.IsDir() {
			out[e.Name()] = -1
			continue
		}
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed meanwhile
		}
		if err != nil {
			return nil, err
		}
		out[e.Name()] = info.Size()
	}
	return out, nil
}

// SyncDir implements Disk.
func (OSDisk) SyncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = f.Sync()
	return errors.Join(err, f.Close())
}

type osFile struct{ *os.File }

func (f osFile) Size() (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}
