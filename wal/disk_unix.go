//go:build unix

package wal

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

const lockName = "LOCK"

// lock takes the exclusive lock on dir. The kernel gives it up when the process dies, however it dies.
func lock(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, lockName), os.O_RDWR|os.O_CREATE, 0o640)
	if err != nil {
		return nil, err
	}
	for {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if errors.Is(err, unix.EWOULDBLOCK) {
		pid, _ := io.ReadAll(io.LimitReader(f, 32)) // only to say who
		n, _ := strconv.Atoi(strings.TrimSpace(string(pid)))
		f.Close()
		return nil, &LockedError{Dir: dir, PID: n}
	}
	if err == nil {
		err = f.Truncate(0)
	}
	if err == nil {
		_, err = f.WriteAt(fmt.Appendf(nil, "%d\n", os.Getpid()), 0)
	}
	if errors.Is(err, unix.ENOSPC) {
		err = nil // the lock holds without the pid in it
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func (osDisk) Free(dir string) (int64, error) {
	var st unix.Statfs_t
	for {
		err := unix.Statfs(dir, &st)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return 0, &os.PathError{Op: "statfs", Path: dir, Err: err}
		}
		return int64(st.Bavail) * int64(st.Bsize), nil
	}
}

func (osDisk) Reserved(path string) int64 {
	var st unix.Stat_t
	if unix.Stat(path, &st) != nil {
		return 0
	}
	return min(st.Size, st.Blocks*512)
}

func (osDisk) Reserve(path string, size int64) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o640)
	if err != nil {
		return err
	}
	err = allocate(f, size)
	if err != nil {
		os.Truncate(path, 0) // half a reserve is none
	}
	return errors.Join(err, f.Sync(), f.Close())
}

// fill makes f take size bytes by writing them.
func fill(f *os.File, size int64) error {
	zero := make([]byte, 1<<20)
	for off := int64(0); off < size; off += int64(len(zero)) {
		if _, err := f.WriteAt(zero[:min(size-off, int64(len(zero)))], off); err != nil {
			return err
		}
	}
	return nil
}

// Lock takes the lock of a log's directory without opening the log. Another holder is a [*LockedError].
func Lock(dir string) (io.Closer, error) {
	f, err := lock(dir)
	if err != nil {
		return nil, err
	}
	return f, nil
}

// Holder returns the process that has the lock of a log's directory, or 0 where none has, or it cannot be found out. It takes no
// lock, also not for a moment: a process that starts just then would be refused.
func Holder(dir string) int {
	name := filepath.Join(dir, lockName)
	var st unix.Stat_t
	content, err := os.ReadFile(name)
	if err != nil || unix.Stat(name, &st) != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(content)))
	if err != nil || pid <= 0 {
		return 0
	}
	locks, err := os.ReadFile("/proc/locks")
	if err != nil { // no Linux: whether there is a process of that number is the best there is
		if err := unix.Kill(pid, 0); err != nil && !errors.Is(err, unix.EPERM) {
			return 0
		}
		return pid
	}
	for line := range strings.Lines(string(locks)) { // 1: FLOCK  ADVISORY  WRITE 4711 fd:01:5242 0 EOF
		f := strings.Fields(line)
		if len(f) > 5 && f[1] == "FLOCK" && f[4] == strconv.Itoa(pid) && strings.HasSuffix(f[5], fmt.Sprintf(":%d", st.Ino)) {
			return pid
		}
	}
	return 0
}
