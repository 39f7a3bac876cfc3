package cli

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sidestream-dev/sidestream/runtime"
	"github.com/sidestream-dev/sidestream/runtime/admin"
)

// TestWaitsOn: a command that waits for jobs of a process that takes no connections (it was stopped, and many ask) says so once, and waits on
// until its time is over.
func TestWaitsOn(t *testing.T) {
	dir, err := os.MkdirTemp("", "cli-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "s")
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fd)
	if err := errors.Join(syscall.Bind(fd, &syscall.SockaddrUnix{Name: path}), syscall.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	for full := false; !full; { // until the kernel refuses more
		c, err := net.DialTimeout("unix", path, time.Minute)
		if full = errors.Is(err, syscall.EAGAIN); full {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	var said bytes.Buffer
	a := &app{name: "sidestream", stdout: &said, stderr: &said}
	line := "sidestream: the process at " + path + " takes no more connections: it has been stopped (SIGSTOP), or is too busy; waiting on (Ctrl-C ends that)\n"

	for d := time.Second; strings.Count(said.String(), line) == 0 && d < 5*time.Minute; d *= 4 { // a busy machine may not ask within a second
		said.Reset()
		if code := a.main([]string{"job", "wait", "x", "--for", "running", "--timeout", d.String(), "--socket", path}); code != exitAgain || !strings.Contains(said.String(), "job x is not known yet, not yet running") {
			t.Fatalf("job wait ends with %d: %.600s", code, said.String())
		}
	}
	if n := strings.Count(said.String(), line); n != 1 {
		t.Errorf("job wait says it %d times: %.600s", n, said.String())
	}

	said.Reset()
	client := admin.NewClient(path)
	told := make(chan struct{}, 1)
	client.OnSilence = func(err *admin.SilentError) { a.waitsOn(err); told <- struct{}{} }
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-told; cancel() }()
	if _, err := a.settled(ctx, client, []runtime.Diff{{Job: "x", Action: runtime.ActionUpdate}}, nil); exitCode(err) != exitAgain || !strings.Contains(err.Error(), "no longer watched") {
		t.Errorf("job apply --wait ends with %v", err)
	}
	if said.String() != line {
		t.Errorf("job apply --wait says %.600q, want %q", said.String(), line)
	}
}
