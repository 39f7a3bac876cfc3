package runtime

import (
	"errors"
	"io"
	"io/fs"
	"path"

	"github.com/sidestream-dev/sidestream/bus"
	"github.com/sidestream-dev/sidestream/internal/crashfs"
)

// simDisk is the topic store's disk in the simulator: what was not synced may be lost.
type simDisk struct {
	mem    *crashfs.Mem
	noSync bool      // of a twin
	late   *[]func() // of a twin: syncs that are yet to be done
}

func (d simDisk) MakeDir(dir string) error {
	if dir == "." || dir == "/" {
		return nil
	}
	if err := d.MakeDir(path.Dir(dir)); err != nil {
		return err
	}
	switch err := d.mem.Mkdir(path.Join("/", dir)); {
	case errors.Is(err, fs.ErrExist):
		return nil
	case err != nil:
		return err
	}
	return d.SyncDir(path.Dir(dir))
}

func (d simDisk) Open(name string, create bool) (bus.DiskFile, error) {
	name = path.Join("/", name)
	f, err := d.mem.Open(name)
	if errors.Is(err, fs.ErrNotExist) && create {
		f, err = d.mem.Create(name)
	}
	if err != nil {
		return nil, err
	}
	return simFile{f, d.noSync, d.late}, nil
}

func (d simDisk) Remove(name string) error { return d.mem.Remove(path.Join("/", name)) }

func (d simDisk) List(dir string) (map[string]int64, error) {
	files, err := d.mem.List(path.Join("/", dir))
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

func (d simDisk) SyncDir(dir string) error {
	if d.noSync {
		return nil
	}
	if d.late != nil {
		*d.late = append(*d.late, func() { _ = d.mem.SyncDir(path.Join("/", dir)) }) // it may be gone
		return nil
	}
	return d.mem.SyncDir(path.Join("/", dir))
}

type simFile struct {
	*crashfs.File
	noSync bool
	late   *[]func()
}

func (f simFile) ReadAt(b []byte, off int64) (int, error) {
	n := f.File.ReadAt(b, off)
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

func (f simFile) WriteAt(b []byte, off int64) (int, error) {
	if err := f.File.WriteAt(b, off); err != nil {
		return 0, err
	}
	return len(b), nil
}

func (f simFile) Size() (int64, error) { return f.File.Size(), nil }
func (f simFile) Close() error         { return nil }

func (f simFile) Sync() error {
	if f.noSync {
		return nil
	}
	if f.late != nil {
		*f.late = append(*f.late, func() { _ = f.File.Sync() }) // it may be gone
		return nil
	}
	return f.File.Sync()
}
