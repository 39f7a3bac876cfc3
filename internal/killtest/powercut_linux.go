package killtest

import (
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// Disk follows what a program makes durable, so that its power can be cut: what it has not fsynced may be gone. The kernel
// asks us before each fsync of the program (launch.go), which is the real one, unchanged. The model is that of a file
// that only grows or is fsynced when it was cut: bytes behind the size at its last fsync, and names that their folder had not
// at its last fsync, are lost or spoiled at random; removals and renames last.
type Disk struct {
	Dirs []string // what is cut: the data directory, the outputs
	// Broken makes fsyncs do nothing: the program believes that they have, and everything it has written since it was
	// started may be lost.
	Broken bool
	// Fail, if not nil, is asked at each fsync, and what it returns is what the program gets; 0 lets it be.
	Fail func(path string) unix.Errno

	mu    sync.Mutex
	asked int              // fsyncs
	lost  int64            // bytes that cuts took or spoiled, names not counted
	files map[fileID]int64 // size at the last fsync
	names map[string]bool  // durable in their folders

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
	d.files, d.names = map[fileID]int64{}, map[string]bool{}
	for _, dir := range d.Dirs {
		err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			d.names[path] = true
			id, size, isDir, err := idOf(path)
			if err == nil && !isDir {
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
		d.names[filepath.Join(name, e.Name())] = true
	}
	return 0
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
	for _, dir := range d.Dirs {
		err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			if !d.names[path] && rng.IntN(2) == 0 {
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
