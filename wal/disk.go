package wal

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	engine "github.com/tidwall/wal"
)

// disk is all that the log does to files and directories. The real one is osDisk; the crash tests put a model of a strict
// file system in its place, engine included, since the engine calls the operating system itself.
type disk interface {
	List(dir string) ([]dirEntry, error) // in the order of names
	Mkdir(dir string) error
	Rename(from, to string) error
	Remove(path string) error // a file or an empty directory
	SyncDir(dir string) error
	Open(path string) (file, error)            // for reading
	Truncate(path string, size int64) error    // and fsync
	Rewrite(path string, from, to int64) error // writes the same bytes again, and fsyncs the file
	Link(from, to string) error                // a second name for a file; a copy where there are no such
	Copy(from, to string, size int64) error    // the first size bytes, and fsync
	WriteFile(path string, b []byte) error     // and fsync
	Free(dir string) (int64, error)            // bytes that we may still write on the disk of dir
	Reserve(path string, size int64) error     // makes a file that really takes so much space
	Reserved(path string) (size int64)         // the space that it takes; 0 for none
	OpenEngine(dir string, segmentBytes int64) (appender, error)
}

// file is read by positions only, so that any number of readers share nothing.
type file interface {
	io.ReaderAt
	io.Closer
	Size() (int64, error)
}

// appender is what the log uses of the engine.
type appender interface {
	// Write appends entries, the first of them with index first, each whole in one segment.
	Write(first uint64, entries [][]byte) error
	Sync() error
	Close() error // fsyncs first
}

type dirEntry struct {
	name string
	dir  bool
	size int64 // of a file
}

type osDisk struct{}

func (osDisk) List(dir string) ([]dirEntry, error) {
	des, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	list := make([]dirEntry, 0, len(des))
	for _, de := range des {
		info, err := de.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed meanwhile
		}
		if err != nil {
			return nil, err
		}
		list = append(list, dirEntry{name: de.Name(), dir: de.IsDir(), size: info.Size()})
	}
	return list, nil
}

func (osDisk) Mkdir(dir string) error       { return os.Mkdir(dir, 0o750) }
func (osDisk) Rename(from, to string) error { return os.Rename(from, to) }
func (osDisk) Remove(path string) error     { return os.Remove(path) }

func (osDisk) SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func (osDisk) Open(path string) (file, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

func (osDisk) Truncate(path string, size int64) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Truncate(size), f.Sync(), f.Close())
}

func (osDisk) Rewrite(path string, from, to int64) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	buf := make([]byte, min(to-from, 1<<20))
	for from < to && err == nil {
		b := buf[:min(to-from, int64(len(buf)))]
		if _, err = f.ReadAt(b, from); err == nil {
			_, err = f.WriteAt(b, from)
		}
		from += int64(len(b))
	}
	return errors.Join(err, f.Sync(), f.Close())
}

func (d osDisk) Link(from, to string) error {
	if err := os.Link(from, to); err == nil || errors.Is(err, fs.ErrExist) || errors.Is(err, fs.ErrNotExist) {
		return err
	}
	info, err := os.Stat(from)
	if err != nil {
		return err
	}
	return d.Copy(from, to, info.Size())
}

func (osDisk) Copy(from, to string, size int64) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o640)
	if err != nil {
		return err
	}
	_, err = io.CopyN(dst, src, size)
	return errors.Join(err, dst.Sync(), dst.Close())
}

func (osDisk) WriteFile(path string, b []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o640)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	return errors.Join(err, f.Sync(), f.Close())
}

func (osDisk) OpenEngine(dir string, segmentBytes int64) (appender, error) {
	log, err := engine.Open(dir, &engine.Options{
		NoSync: true, NoCopy: true, SegmentSize: int(segmentBytes), SegmentCacheSize: 1,
	})
	if err != nil {
		return nil, err
	}
	return &engineLog{log: log}, nil
}

type osFile struct{ *os.File }

func (f osFile) Size() (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// engineLog is the engine as an appender. It uses WriteBatch, which is safe here although it splits a batch over two
// segments: it never splits an entry, and one frame is one entry.
type engineLog struct {
	log   *engine.Log
	batch engine.Batch
}

func (e *engineLog) Write(first uint64, entries [][]byte) error {
	if len(entries) == 1 {
		return e.log.Write(first, entries[0])
	}
	e.batch.Clear()
	for i, b := range entries {
		e.batch.Write(first+uint64(i), b)
	}
	return e.log.WriteBatch(&e.batch)
}

func (e *engineLog) Sync() error  { return e.log.Sync() }
func (e *engineLog) Close() error { return e.log.Close() }

// makeDir makes dir and what is missing above it, durably.
func makeDir(d disk, dir string) error {
	if _, err := d.List(dir); err == nil || !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	parent := filepath.Dir(dir)
	if parent != dir {
		if err := makeDir(d, parent); err != nil {
			return err
		}
	}
	if err := d.Mkdir(dir); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return d.SyncDir(parent)
}

// removeAll removes a directory of files, durably. It is not atomic: what is half removed must be known by its name.
func removeAll(d disk, dir string) error {
	list, err := d.List(dir)
	if err != nil {
		return err
	}
	for i := len(list) - 1; i >= 0; i-- {
		if err := d.Remove(filepath.Join(dir, list[i].name)); err != nil {
			return err
		}
	}
	if err := d.Remove(dir); err != nil {
		return err
	}
	return d.SyncDir(filepath.Dir(dir))
}
