package killtest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	goruntime "runtime"
	"strconv"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The kernel's part of a Disk: a seccomp filter under which fsync and fdatasync ask a supervisor (seccomp_unotify(2)). The
// filter is put on by a process that then becomes the program, so that the program itself is as it always is.

const launchEnv = "SIDESTREAM_KILLTEST_LAUNCH"

// notification is struct seccomp_notif.
type notification struct {
	id    uint64
	pid   uint32
	flags uint32
	nr    int32
	arch  uint32
	ip    uint64
	args  [6]uint64
}

// response is struct seccomp_notif_resp.
type response struct {
	id    uint64
	val   int64
	err   int32
	flags uint32
}

const (
	setModeFilter = 1
	flagListener  = 1 << 3
	retNotify     = 0x7fc00000
	retAllow      = 0x7fff0000
	ioctlReceive  = 0xc0502100 // _IOWR('!', 0, struct seccomp_notif)
	ioctlSend     = 0xc0182101 // _IOWR('!', 1, struct seccomp_notif_resp)
)

// MaybeLaunch becomes the program that this process was started for, if it was started for one; TestMain calls it first.
func MaybeLaunch() {
	if os.Getenv(launchEnv) == "" {
		return
	}
	err := launch(os.Args[1:])
	fmt.Fprintln(os.Stderr, "killtest: launch:", err)
	os.Exit(125)
}

func launch(args []string) error {
	goruntime.LockOSThread() // the filter is the thread's, and exec keeps the thread
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	listener, err := filterSyncs()
	if err != nil {
		return err
	}
	// Our socket to the one who started us.
	if err := unix.Sendmsg(3, []byte{0}, unix.UnixRights(listener), nil, 0); err != nil {
		return err
	}
	unix.CloseOnExec(3)
	if err := os.Unsetenv(launchEnv); err != nil {
		return err
	}
	return syscall.Exec(args[0], args, os.Environ())
}

// filterSyncs puts the filter on this thread and returns where its questions come out.
func filterSyncs() (listener int, err error) {
	arch := map[string]uint32{"amd64": unix.AUDIT_ARCH_X86_64, "arm64": unix.AUDIT_ARCH_AARCH64}[goruntime.GOARCH]
	if arch == 0 {
		return 0, errors.ErrUnsupported
	}
	code := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 4}, // the architecture
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: arch, Jf: 4},
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}, // the call
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SYS_FSYNC, Jt: 1},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SYS_FDATASYNC, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: retNotify},
		{Code: unix.BPF_RET | unix.BPF_K, K: retAllow},
	}
	prog := unix.SockFprog{Len: uint16(len(code)), Filter: &code[0]}
	fd, _, errno := unix.Syscall(unix.SYS_SECCOMP, setModeFilter, flagListener, uintptr(unsafe.Pointer(&prog)))
	if errno != 0 {
		return 0, fmt.Errorf("seccomp: %w", errno)
	}
	return int(fd), nil
}

// wrap makes cmd start by way of this process's own program.
func (d *Disk) wrap(cmd *exec.Cmd) *exec.Cmd {
	self, err := os.Executable()
	if err != nil {
		cmd.Err = err
		return cmd
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		cmd.Err = err
		return cmd
	}
	d.parent = os.NewFile(uintptr(pair[0]), "killtest")
	c := exec.Command(self, append([]string{cmd.Path}, cmd.Args[1:]...)...)
	c.Env = append(cmd.Environ(), launchEnv+"=1")
	c.ExtraFiles = []*os.File{os.NewFile(uintptr(pair[1]), "launch")}
	return c
}

// attach begins to answer a program that has been started, until detach.
func (d *Disk) attach(cmd *exec.Cmd) error {
	if err := cmd.ExtraFiles[0].Close(); err != nil {
		return err
	}
	oob := make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := unix.Recvmsg(int(d.parent.Fd()), make([]byte, 1), oob, 0)
	if err = errors.Join(err, d.parent.Close()); err != nil {
		return err
	}
	msgs, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil || len(msgs) != 1 {
		return fmt.Errorf("the program could not be launched under a filter (%v)", err)
	}
	fds, err := unix.ParseUnixRights(&msgs[0])
	if err != nil {
		return err
	}
	d.stop = make(chan struct{})
	d.listener.Go(func() { d.answer(fds[0]) })
	return nil
}

// NeedKernel ends a test where the kernel does not let us follow a program's fsyncs. Where CI says that everything is there,
// that is a failure.
func NeedKernel(tb testing.TB) {
	tb.Helper()
	if err := supported(); err != nil {
		if os.Getenv("CI") == "true" {
			tb.Fatalf("CI must be able to run this: a seccomp filter with a listener: %v", err)
		}
		tb.Skipf("the kernel does not let us follow fsyncs by a seccomp filter with a listener: %v", err)
	}
}

// supported returns why this machine cannot do without the kernel's help what a Disk does, or nil.
func supported() error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	var d Disk
	cmd := d.wrap(exec.Command(self, "-test.run=^$"))
	if err := cmd.Start(); err != nil {
		return err
	}
	if err := d.attach(cmd); err != nil {
		return errors.Join(err, cmd.Process.Kill(), cmd.Wait())
	}
	defer d.detach()
	return cmd.Wait()
}

// detach returns when no question is being answered any more.
func (d *Disk) detach() {
	close(d.stop)
	d.listener.Wait()
}

// answer answers the questions of a program until it is gone.
func (d *Disk) answer(fd int) {
	defer unix.Close(fd)
	for {
		select {
		case <-d.stop:
			return
		default:
		}
		poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		if n, err := unix.Poll(poll, 20); n <= 0 || err != nil {
			continue
		}
		if poll[0].Revents&unix.POLLIN == 0 {
			return // nobody is left who could ask
		}
		var q notification
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), ioctlReceive, uintptr(unsafe.Pointer(&q))); errno != 0 {
			continue // who asked was killed meanwhile
		}
		path := filepath.Join("/proc", strconv.Itoa(int(q.pid)), "fd", strconv.Itoa(int(q.args[0])))
		a := response{id: q.id}
		if name, err := os.Readlink(path); err != nil {
			a.err = -int32(unix.EBADF)
		} else {
			a.err = -int32(d.synced(path, name))
		}
		_, _, _ = unix.Syscall(unix.SYS_IOCTL, uintptr(fd), ioctlSend, uintptr(unsafe.Pointer(&a))) // it may be gone
	}
}
