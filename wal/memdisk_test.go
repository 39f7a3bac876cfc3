package wal

import (
	"errors"
	"io"
	"maps"
	"path/filepath"
	"slices"

	"github.com/sidestream-dev/sidestream/internal/crashfs"
)

// memDisk is a crashfs as the log's disk, with what a broken twin leaves out.
type memDisk struct {
	*crashfs.Mem
	noSync    bool
	noSyncDir bool
}

func (d memDisk) List(dir string) ([]dirEntry, error) {
	files, err := d.Mem.List(dir)
	if err != nil {
		return nil, err
	}
	var list []dirEntry
	for _, name := range slices.Sorted(maps.Keys(files)) {
		e := dirEntry{name: name, dir: files[name] == nil}
		if !e.dir {
			e.size = files[name].Size()
		}
		list = append(list, e)
	}
	return list, nil
}

func (d memDisk) SyncDir(dir string) error {
	if d.noSyncDir {
		return nil
	}
	return d.Mem.SyncDir(dir)
}

func (d memDisk) sync(f *crashfs.File) error {
	if d.noSync {
		return nil
	}
	return f.Sync()
}

func (d memDisk) Open(path string) (file, error) {
	f, err := d.Mem.Open(path)
	if err != nil {
		return nil, err
	}
	return memFile{f}, nil
}

func (d memDisk) Truncate(path string, size int64) error {
	f, err := d.Mem.Open(path)
	if err != nil {
		return err
	}
	if err := f.Truncate(size); err != nil {
		return err
	}
	return d.sync(f)
}

func (d memDisk) Rewrite(path string, from, to int64) error {
	f, err := d.Mem.Open(path)
	if err != nil {
		return err
	}
	b := make([]byte, to-from)
	f.ReadAt(b, from)
	if err := f.WriteAt(b, from); err != nil {
		return err
	}
	return d.sync(f)
}

func (d memDisk) Copy(from, to string, size int64) error {
	f, err := d.Mem.Open(from)
	if err != nil {
		return err
	}
	b := make([]byte, size)
	f.ReadAt(b, 0)
	return d.WriteFile(to, b)
}

func (d memDisk) WriteFile(path string, b []byte) error {
	f, err := d.Mem.Create(path)
	if err != nil {
		return err
	}
	if err := f.Append(b); err != nil {
		return err
	}
	return d.sync(f)
}

func (d memDisk) Free(string) (int64, error)  { return 1 << 40, nil }
func (d memDisk) Reserve(string, int64) error { return nil }
func (d memDisk) Reserved(string) int64       { return 0 }

func (d memDisk) OpenEngine(dir string, segmentBytes int64) (appender, error) {
	return openMemEngine(d, dir, segmentBytes)
}

type memFile struct{ f *crashfs.File }

func (m memFile) Size() (int64, error) { return m.f.Size(), nil }
func (m memFile) Close() error         { return nil }

func (m memFile) ReadAt(b []byte, off int64) (int, error) {
	n := m.f.ReadAt(b, off)
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

// memEngine does to the files of a memDisk what the engine does to those of the operating system: the same writes, a
// segment made as soon as the one before is full, that one fsynced first, and no directory ever.
// TestMemEngineWritesWhatTheEngineWrites holds it to that.
type memEngine struct {
	d            memDisk
	dir          string
	segmentBytes int64
	tail         *crashfs.File
	last         uint64
	size         int64 // of the tail
}

func openMemEngine(d memDisk, dir string, segmentBytes int64) (*memEngine, error) {
	segs, err := listSegments(d, dir)
	if err != nil {
		return nil, err
	}
	e := &memEngine{d: d, dir: dir, segmentBytes: segmentBytes}
	if len(segs) == 0 {
		e.tail, err = d.Create(filepath.Join(dir, segmentName(1)))
		return e, err
	}
	tail := segs[len(segs)-1]
	if e.tail, err = d.Mem.Open(filepath.Join(dir, segmentName(tail.index))); err != nil {
		return nil, err
	}
	e.last, e.size = tail.index-1, tail.size
	c, err := newCursor(memFile{e.tail}, 4096)
	if err != nil {
		return nil, err
	}
	var fr found
	for off := int64(0); ; off = fr.next {
		err := c.entry(off, &fr)
		if errors.Is(err, io.EOF) {
			return e, nil
		}
		if err != nil {
			return nil, err
		}
		e.last++
	}
}

func (e *memEngine) Write(first uint64, entries [][]byte) error {
	if first != e.last+1 {
		return errors.New("out of order")
	}
	if e.size > e.segmentBytes {
		if err := e.cycle(); err != nil {
			return err
		}
	}
	var pending []byte
	for _, b := range entries {
		pending = appendUvarint(pending, len(b))
		pending = append(pending, b...)
		if e.size+int64(len(pending)) >= e.segmentBytes {
			if err := e.append(pending); err != nil {
				return err
			}
			pending = nil
			e.last++
			if err := e.cycle(); err != nil {
				return err
			}
			continue
		}
		e.last++
	}
	if len(pending) == 0 {
		return nil
	}
	return e.append(pending)
}

func appendUvarint(dst []byte, n int) []byte {
	for ; n >= 0x80; n >>= 7 {
		dst = append(dst, byte(n)|0x80)
	}
	return append(dst, byte(n))
}

func (e *memEngine) append(b []byte) error {
	e.size += int64(len(b))
	return e.tail.Append(b)
}

func (e *memEngine) cycle() (err error) {
	if err := e.d.sync(e.tail); err != nil {
		return err
	}
	e.size = 0
	e.tail, err = e.d.Create(filepath.Join(e.dir, segmentName(e.last+1)))
	return err
}

func (e *memEngine) Sync() error { return e.d.sync(e.tail) }

func (e *memEngine) Close() error {
	if e.tail == nil { // a cycle has failed
		return errors.New("closed")
	}
	return e.d.sync(e.tail)
}

func newMemDisk() memDisk { return memDisk{Mem: crashfs.New()} }
