package killtest

import (
	"errors"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// Disk follows what a program makes durable, so that its power can be cut: what it has not fsynced may be gone. The kernel
// asks us before each fsync of the program (launch.go), which is the real one, unchanged. The model is that of a file
// that only grows or is fsynced when it was cut: bytes behind the size at its last fsync, and names that their folder had not
// at its last fsync, are lost or spoiled at random; removals last, and a rename lasts or is undone.
type Disk struct {
	Dirs []string // what is cut: the data directory, the outputs
	// Broken makes fsyncs do nothing: the program believes that they have, and everything it has written since it was
	// started may be lost.
	Broken bool
	// Fail, if not nil, is asked at each fsync, and what it returns is what the program gets; 0 lets it be.
	Fail func(path string) unix.Errno

	mu    sync.Mutex
	asked int               // fsyncs
	lost  int64             // bytes that cuts took or spoiled, names not counted
	files map[fileID]int64  // size at the last fsync
	names map[string]bool   // durable in their folders
	known map[fileID]string // the durable name of each

	parent   *os.File // our end of the socket to the program being launched
	listener sync.WaitGroup
	stop     chan struct{}
}

// fileID tells files apart, also where an inode is used again.
type fileID struct {
	ino  uint64
	sec  int64
	nsec uint32
}

func idOf(path string) (id fileID, size int64, dir bool, err error) {
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, path, 0, unix.STATX_BASIC_STATS|unix.STATX_BTIME, &st); err != nil {
		return id, 0, false, err
	}
	return fileID{st.Ino, st.Btime.Sec, st.Btime.Nsec}, int64(st.Size), st.Mode&unix.S_IFMT == unix.S_IFDIR, nil
}

// settle takes all there is now for durable: before a start, the disk holds what the last cut has left.
func (d *Disk) settle(tb testing.TB) {
	tb.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.files, d.names, d.known = map[fileID]int64{}, map[string]bool{}, map[fileID]string{}
	for _, dir := range d.Dirs {
		err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			d.names[path] = true
			id, size, isDir, err := idOf(path)
			if d.known[id] = path; err == nil && !isDir {
				d.files[id] = size
			}
			return err
		})
		if err != nil {
			tb.Fatal(err)
		}
	}
}

// synced is asked by the kernel, before the call returns to the program: path is open as the file to be fsynced.
func (d *Disk) synced(path, name string) unix.Errno {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.asked++
	if d.Fail != nil {
		if e := d.Fail(name); e != 0 {
			return e
		}
	}
	if d.Broken {
		return 0
	}
	id, size, isDir, err := idOf(path)
	if err != nil {
		return unix.EIO
	}
	if !isDir {
		d.files[id] = size
		return 0
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return unix.EIO
	}
	for _, e := range entries {
		path := filepath.Join(name, e.Name())
		d.names[path] = true
		id, _, _, err := idOf(path)
		if err != nil {
			continue // it was removed again
		}
		if old := d.known[id]; old != path {
			d.known[id] = path
			d.moved(old, path)
		}
	}
	return 0
}

// moved gives what was durable in a folder the folder's new name.
func (d *Disk) moved(old, path string) {
	if old == "" {
		return
	}
	old += string(filepath.Separator)
	path += string(filepath.Separator)
	for _, name := range slices.Collect(maps.Keys(d.names)) {
		if rest, ok := strings.CutPrefix(name, old); ok {
			d.names[path+rest] = true
		}
	}
	for id, name := range d.known {
		if rest, ok := strings.CutPrefix(name, old); ok {
			d.known[id] = path + rest
		}
	}
}

// Lost returns how many bytes the cuts took or spoiled, names not counted, and how many fsyncs were seen.
func (d *Disk) Lost() (bytes int64, fsyncs int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.lost, d.asked
}

// cut takes away what the program had not made durable when it was killed.
func (d *Disk) cut(tb testing.TB, rng *rand.Rand) {
	tb.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	was, err := d.undoRenames(rng)
	if err != nil {
		tb.Fatal(err)
	}
	for _, dir := range d.Dirs {
		err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			if !d.names[was(path)] && rng.IntN(2) == 0 {
				if err := os.RemoveAll(path); err != nil {
					return err
				}
				if e.IsDir() {
					return fs.SkipDir
				}
				return nil
			}
			if !e.Type().IsRegular() {
				return nil
			}
			return d.cutFile(path, rng)
		})
		if err != nil {
			tb.Fatal(err)
		}
	}
}

// undoRenames takes back some of the renames that no fsync of their folder has made durable. Of those that last, was tells the
// name before, also of what is in a folder.
func (d *Disk) undoRenames(rng *rand.Rand) (was func(string) string, err error) {
	type renamed struct{ from, to string }
	var undone, last []renamed
	for _, dir := range d.Dirs {
		err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
			if err != nil || d.names[path] {
				return err
			}
			id, _, _, err := idOf(path)
			from := d.known[id]
			_, gone := os.Lstat(from)
			_, folder := os.Lstat(filepath.Dir(from))
			if err != nil || from == "" || gone == nil || folder != nil { // it is new, or a second name
				return err
			}
			if rng.IntN(2) == 0 {
				undone = append(undone, renamed{from, path})
			} else {
				last = append(last, renamed{from, path})
			}
			if e.IsDir() {
				return fs.SkipDir
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	for _, r := range undone {
		if err := os.Rename(r.to, r.from); err != nil {
			return nil, err
		}
	}
	return func(path string) string {
		for _, r := range last {
			if rest, ok := strings.CutPrefix(path, r.to); ok && (rest == "" || rest[0] == filepath.Separator) {
				return r.from + rest
			}
		}
		return path
	}, nil
}

func (d *Disk) cutFile(path string, rng *rand.Rand) error {
	id, size, _, err := idOf(path)
	if err != nil {
		return err
	}
	kept := d.files[id]
	if size <= kept {
		return nil
	}
	if rng.IntN(3) > 0 {
		n := kept + rng.Int64N(size-kept+1)
		d.lost += size - n
		return os.Truncate(path, n)
	}
	// The file has its size, but some of its new sectors were never written.
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	const sector = 512
	zeros := make([]byte, sector)
	for at := kept; at < size && err == nil; {
		end := min((at/sector+1)*sector, size)
		if rng.IntN(2) == 0 {
			_, err = f.WriteAt(zeros[:end-at], at)
			d.lost += end - at
		}
		at = end
	}
	return errors.Join(err, f.Close())
}

// over wraps a command so that the kernel asks d at each of its fsyncs.
func (d *Disk) over(command func(w *Work) *exec.Cmd) func(w *Work) *exec.Cmd {
	return func(w *Work) *exec.Cmd { return d.wrap(command(w)) }
}
