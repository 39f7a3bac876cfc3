// Package crashfs is a model of a strict file system in memory, for crash tests: what was not fsynced may be lost, sector
// by sector and name by name, and every operation can be made to fail.
//
// It is stricter than most disks: a file's fsync does not keep its name, only the fsync of its directory does; the names
// of one directory are lost or kept each by itself, a rename as a whole; a sector that is lost shows zeros, 0xFF, noise
// or what the disk held there before.
//
// A Mem is safe for concurrent use.
package crashfs

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
	"sync"
)

// SectorBytes is what a disk writes whole or not at all.
const SectorBytes = 512

// ErrInjected is what an operation returns that was made to fail.
var ErrInjected = errors.New("crashfs: injected failure")

// Mem is a file system. Paths are slash-separated; "/" exists.
type Mem struct {
	mu       sync.Mutex
	dirs     map[string]*dir
	ops      int
	failFrom int // operation that fails, with all after it; 0 for none
}

// dir holds names. A name is bound to a node: a file, or nil for a directory.
type dir struct {
	now     map[string]*File
	durable map[string]*File
	renames [][2]string // from and to, since the last SyncDir
}

// File is a file's contents.
type File struct {
	mem     *Mem
	data    []byte
	durable []byte
	sizes   []int // that it had since the last Sync
}

// New returns an empty file system.
func New() *Mem { return &Mem{dirs: map[string]*dir{"/": newDir()}} }

func newDir() *dir { return &dir{now: map[string]*File{}, durable: map[string]*File{}} }

// FailFrom makes the k-th operation that changes something, counted from 1 over the life of m, and all after it fail.
func (m *Mem) FailFrom(k int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.failFrom = k
}

// Ops returns how many operations were tried that change something.
func (m *Mem) Ops() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.ops
}

// op counts an operation; mu is held.
func (m *Mem) op(name, path string) error {
	m.ops++
	if m.failFrom > 0 && m.ops >= m.failFrom {
		return &fs.PathError{Op: name, Path: path, Err: ErrInjected}
	}
	return nil
}

func (m *Mem) parent(name string) (*dir, string, error) {
	d := m.dirs[path.Dir(name)]
	if d == nil {
		return nil, "", &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return d, path.Base(name), nil
}

// Mkdir makes a directory.
func (m *Mem) Mkdir(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	d, base, err := m.parent(name)
	if err != nil {
		return err
	}
	if _, ok := d.now[base]; ok {
		return &fs.PathError{Op: "mkdir", Path: name, Err: fs.ErrExist}
	}
	if err := m.op("mkdir", name); err != nil {
		return err
	}
	d.now[base] = nil
	m.dirs[name] = newDir()
	return nil
}

// Create makes a file or, if there is one, empties it.
func (m *Mem) Create(name string) (*File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	d, base, err := m.parent(name)
	if err != nil {
		return nil, err
	}
	if err := m.op("create", name); err != nil {
		return nil, err
	}
	f := d.now[base]
	if f == nil {
		f = &File{mem: m}
		d.now[base] = f
	}
	f.resize(0)
	return f, nil
}

// Open opens a file.
func (m *Mem) Open(name string) (*File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	d, base, err := m.parent(name)
	if err != nil {
		return nil, err
	}
	if f := d.now[base]; f != nil {
		return f, nil
	}
	return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
}

// Remove removes a file or an empty directory.
func (m *Mem) Remove(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	d, base, err := m.parent(name)
	if err != nil {
		return err
	}
	f, ok := d.now[base]
	if !ok {
		return &fs.PathError{Op: "remove", Path: name, Err: fs.ErrNotExist}
	}
	if f == nil && len(m.dirs[name].now) > 0 {
		return &fs.PathError{Op: "remove", Path: name, Err: errors.New("directory not empty")}
	}
	if err := m.op("remove", name); err != nil {
		return err
	}
	delete(d.now, base)
	return nil // the directory's own contents stay, for the crash that brings its name back
}

// Rename gives a file or directory another name in the same directory.
func (m *Mem) Rename(from, to string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	d, base, err := m.parent(from)
	if err != nil {
		return err
	}
	f, ok := d.now[base]
	if !ok || path.Dir(from) != path.Dir(to) {
		return &fs.PathError{Op: "rename", Path: from, Err: fs.ErrNotExist}
	}
	if err := m.op("rename", from); err != nil {
		return err
	}
	delete(d.now, base)
	d.now[path.Base(to)] = f
	d.renames = append(d.renames, [2]string{base, path.Base(to)})
	if f == nil {
		m.dirs[to] = m.dirs[from]
		for name, d := range maps.Clone(m.dirs) { // what is in it too; under the old names it stays, for the crash that loses the rename
			if below, ok := strings.CutPrefix(name, from+"/"); ok {
				m.dirs[to+"/"+below] = d
			}
		}
	}
	return nil
}

// Link gives a file a second name.
func (m *Mem) Link(from, to string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	d, base, err := m.parent(from)
	if err != nil {
		return err
	}
	f := d.now[base]
	if f == nil {
		return &fs.PathError{Op: "link", Path: from, Err: fs.ErrNotExist}
	}
	td, tbase, err := m.parent(to)
	if err != nil {
		return err
	}
	if _, ok := td.now[tbase]; ok {
		return &fs.PathError{Op: "link", Path: to, Err: fs.ErrExist}
	}
	if err := m.op("link", to); err != nil {
		return err
	}
	td.now[tbase] = f
	return nil
}

// List returns the names in a directory with their files, nil for a directory.
func (m *Mem) List(name string) (map[string]*File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	d := m.dirs[name]
	if name != "/" {
		p, base, err := m.parent(name)
		if err != nil {
			return nil, err
		}
		if f, ok := p.now[base]; !ok || f != nil {
			d = nil
		}
	}
	if d == nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return maps.Clone(d.now), nil
}

// SyncDir makes the names in a directory durable.
func (m *Mem) SyncDir(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	d := m.dirs[name]
	if d == nil {
		return &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	if err := m.op("fsync", name); err != nil {
		return err
	}
	d.durable, d.renames = maps.Clone(d.now), nil
	return nil
}

// Size returns the file's size.
func (f *File) Size() int64 {
	f.mem.mu.Lock()
	defer f.mem.mu.Unlock()
	return int64(len(f.data))
}

// ReadAt reads like an io.ReaderAt, without its error at the end.
func (f *File) ReadAt(b []byte, off int64) int {
	f.mem.mu.Lock()
	defer f.mem.mu.Unlock()
	if off >= int64(len(f.data)) {
		return 0
	}
	return copy(b, f.data[off:])
}

// WriteAt writes at off, lengthening the file. One that fails has written a part.
func (f *File) WriteAt(b []byte, off int64) error {
	f.mem.mu.Lock()
	defer f.mem.mu.Unlock()
	err := f.mem.op("write", "file")
	if err != nil {
		b = b[:len(b)/2]
	}
	if end := int(off) + len(b); end > len(f.data) {
		f.resize(end)
	}
	f.data = slices.Clone(f.data) // durable may share it
	copy(f.data[off:], b)
	return err
}

// Append writes at the end.
func (f *File) Append(b []byte) error { return f.WriteAt(b, f.Size()) }

// Truncate sets the size.
func (f *File) Truncate(size int64) error {
	f.mem.mu.Lock()
	defer f.mem.mu.Unlock()
	if err := f.mem.op("truncate", "file"); err != nil {
		return err
	}
	f.resize(int(size))
	return nil
}

func (f *File) resize(size int) {
	f.sizes = append(f.sizes, len(f.data))
	if size <= len(f.data) {
		f.data = slices.Clip(f.data[:size])
		return
	}
	f.data = append(slices.Clip(f.data), make([]byte, size-len(f.data))...)
}

// Sync makes the contents durable, not the name.
func (f *File) Sync() error {
	f.mem.mu.Lock()
	defer f.mem.mu.Unlock()
	if err := f.mem.op("fsync", "file"); err != nil {
		return err
	}
	f.durable, f.sizes = f.data, nil
	return nil
}

// Crash returns the file system as it may be found after a power cut now; rng chooses what of the unsynced survives.
// Some choices keep all, as when only the process dies, and some nothing.
func (m *Mem) Crash(rng *rand.Rand) *Mem {
	m.mu.Lock()
	defer m.mu.Unlock()
	keep := []float64{0, 0.2, 0.5, 0.8, 0.95, 1}[rng.IntN(6)]
	lost := rng.IntN(4)
	out := New()
	files := map[*File]*File{}
	var walk func(from, to string)
	walk = func(from, to string) {
		d := m.dirs[from]
		names := d.survive(rng, keep)
		nd := newDir()
		out.dirs[to] = nd
		for _, name := range slices.Sorted(maps.Keys(names)) {
			f := names[name]
			if f == nil {
				nd.now[name] = nil
				walk(d.contents(m, from, name), path.Join(to, name))
				continue
			}
			if files[f] == nil {
				files[f] = f.survive(out, rng, keep, lost)
			}
			nd.now[name] = files[f]
		}
		nd.durable = maps.Clone(nd.now)
	}
	walk("/", "/")
	return out
}

// contents is where the contents of a directory are kept whose rename may have been lost.
func (d *dir) contents(m *Mem, parent, name string) string {
	if m.dirs[path.Join(parent, name)] != nil {
		return path.Join(parent, name)
	}
	panic(fmt.Sprintf("crashfs: no contents for %s/%s", parent, name))
}

// survive chooses the names that a crash leaves.
func (d *dir) survive(rng *rand.Rand, keep float64) map[string]*File {
	names := maps.Clone(d.durable)
	done := map[string]bool{}
	for _, r := range d.renames { // all of a rename or nothing
		done[r[0]], done[r[1]] = true, true
		_, was := names[r[0]]
		f, is := d.now[r[1]]
		if was && is && rng.Float64() < keep {
			delete(names, r[0])
			names[r[1]] = f
		}
	}
	all := maps.Clone(d.durable)
	maps.Copy(all, d.now)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if done[name] || rng.Float64() >= keep {
			continue
		}
		if f, ok := d.now[name]; ok {
			names[name] = f
		} else {
			delete(names, name)
		}
	}
	return names
}

// survive chooses the contents that a crash leaves.
func (f *File) survive(m *Mem, rng *rand.Rand, keep float64, lost int) *File {
	sizes := append(slices.Clone(f.sizes), len(f.durable), len(f.data))
	size := sizes[rng.IntN(len(sizes))]
	if keep == 0 {
		size = len(f.durable)
	} else if keep == 1 {
		size = len(f.data)
	}
	b := make([]byte, size)
	for i := range b {
		switch lost {
		case 1:
			b[i] = 0xff
		case 2:
			b[i] = byte(rng.Uint32())
		case 3: // what the disk held: some other part of the same log
			if len(f.durable) > 0 {
				b[i] = f.durable[(i+len(f.durable)/3)%len(f.durable)]
			}
		}
	}
	copy(b, f.durable)
	for off := 0; off < size; off += SectorBytes {
		end := min(off+SectorBytes, size, len(f.data))
		if off < end && rng.Float64() < keep {
			copy(b[off:end], f.data[off:end])
		}
	}
	return &File{mem: m, data: b, durable: b}
}
