package checkpoint

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// disk is what a snapshot's writer needs of a file system; tests put one below it that loses what was not synced.
type disk interface {
	makeDir(dir string) error // with its parents, synced
	create(dir, pattern string) (diskFile, error)
	rename(from, to string) error
	remove(path string) error
	syncDir(dir string) error
}

type diskFile interface {
	Name() string
	Write(b []byte) (int, error)
	Sync() error
	Close() error
}

type osDisk struct{}

func (d osDisk) makeDir(dir string) error {
	switch _, err := os.Stat(dir); {
	case err == nil:
		return nil
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	parent := filepath.Dir(dir)
	if err := d.makeDir(parent); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return d.syncDir(parent)
}

func (osDisk) create(dir, pattern string) (diskFile, error) {
	f, err := os.CreateTemp(dir, pattern)
	if err != nil {
		return nil, err // not a diskFile that holds a nil *os.File
	}
	return f, nil
}

func (osDisk) rename(from, to string) error { return os.Rename(from, to) }

func (osDisk) remove(path string) error { return os.Remove(path) }

func (osDisk) syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = f.Sync()
	return errors.Join(err, f.Close())
}
