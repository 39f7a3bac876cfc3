package bus

import (
	"errors"
	"io"
	"io/fs"
	"path"

	"github.com/sidestream-dev/sidestream/internal/crashfs"
)

// crashDisk is the topic store's disk in memory: what was not synced may be lost. Its fields leave out a sync.
type crashDisk struct {
	mem       *crashfs.Mem
	noSync    bool
	noSyncDir bool
}

func (d crashDisk) MakeDir(dir string) error {
	if dir == "/" {
		return nil
	}
	if err := d.MakeDir(path.Dir(dir)); err != nil {
		return err
	}
	switch err := d.mem.Mkdir(dir); {
	case errors.Is(err, fs.ErrExist):
		return nil
	case err != nil:
		return err
	}
	return d.SyncDir(path.Dir(dir))
}

func (d crashDisk) Open(name string, create bool) (DiskFile, error) {
	f, err := d.mem.Open(name)
	if errors.Is(err, fs.ErrNotExist) && create {
		f, err = d.mem.Create(name)
	}
	if err != nil {
		return nil, err
	}
	return crashFile{f, d.noSync}, nil
}

func (d crashDisk) Remove(name string) error { return d.mem.Remove(name) }

func (d crashDisk) List(dir string) (map[string]int64, error) {
	files, err := d.mem.List(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	out := map[string]int64{}
	for name, f := range files {
		if out[name] = -1; f != nil {
			out[name] = f.Size()
		}
	}
	return out, err
}

func (d crashDisk) SyncDir(dir string) error {
	if d.noSyncDir {
		return nil
	}
	return d.mem.SyncDir(dir)
}

type crashFile struct {
	*crashfs.File
	noSync bool
}

func (f crashFile) ReadAt(b []byte, off int64) (int, error) {
	n := f.File.ReadAt(b, off)
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

func (f crashFile) WriteAt(b []byte, off int64) (int, error) {
	if err := f.File.WriteAt(b, off); err != nil {
		return 0, err
	}
	return len(b), nil
}

func (f crashFile) Size() (int64, error) { return f.File.Size(), nil }
func (f crashFile) Close() error         { return nil }

func (f crashFile) Sync() error {
	if f.noSync {
		return nil
	}
	return f.File.Sync()
}
