package admin_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sidestream-dev/sidestream/runtime"
	"github.com/sidestream-dev/sidestream/runtime/admin"
)

// said is a log that is looked into while it is written.
type said struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *said) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *said) count(what string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Count(s.b.String(), what)
}

// TestSocketRemoved: a socket's file that is removed, with its folder or without, is made again, and said; what another process has put
// in its place is left alone, also at the end.
func TestSocketRemoved(t *testing.T) {
	rt, _, _ := start(t)
	var log said
	s, err := admin.New(admin.Config{Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	s.Attach(rt)
	dir, err := os.MkdirTemp("", "admin-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "run", "s")
	if err := s.ListenUnix(path); err != nil {
		t.Fatal(err)
	}
	c := admin.NewClient(path)
	answers := func() bool { _, err := c.Topics(t.Context()); return err == nil }
	eventually(t, "it answers", answers)
	for i, gone := range []string{path, filepath.Dir(path), path} {
		if err := os.Rename(gone, filepath.Join(dir, fmt.Sprint("gone", i))); err != nil { // at once: it is looked at meanwhile
			t.Fatal(err)
		}
		eventually(t, "it is there again", func() bool { return log.count("it is there again") == i+1 })
		c = admin.NewClient(path) // not over the connection that it has
		if !answers() {
			t.Errorf("behind the removal of %s nobody answers", gone)
		}
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%v, %v", info, err)
		}
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	other := filepath.Join(dir, "run", "other") // put there in one step, so that it is not made again before
	l, err := net.Listen("unix", other)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	eventually(t, "it is there once more", func() bool { return log.count("it is there again") == 4 })
	if err := os.Rename(other, path); err != nil {
		t.Fatal(err)
	}
	eventually(t, "that another has its place is said", func() bool { return log.count("another process answers there") == 1 })
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("the socket of the other: %v", err)
	}
}

// TestSocketWithoutPlace: where even the folder above is gone nothing is made in its place, and that is said once.
func TestSocketWithoutPlace(t *testing.T) {
	var log said
	s, err := admin.New(admin.Config{Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	top, err := os.MkdirTemp("", "admin-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(top)
	dir := filepath.Join(top, "data")
	if err := s.ListenUnix(filepath.Join(dir, "run", "s")); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(dir, filepath.Join(top, "gone")); err != nil { // at once: it is looked at meanwhile
		t.Fatal(err)
	}
	eventually(t, "it is said", func() bool { return log.count("cannot be made again") == 1 })
	time.Sleep(3 * time.Second) // it is looked at each second
	if n := log.count("cannot be made again"); n != 1 {
		t.Errorf("it is said %d times", n)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the folder that was removed: %v", err)
	}
}

// TestSocketLook: a socket whose file was touched is its own still; one whose place another is about to take is tried again at the next look,
// and nobody is kept waiting meanwhile.
func TestSocketLook(t *testing.T) {
	dir, err := os.MkdirTemp("", "admin-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "run", "s")
	var log said
	s, err := admin.OpenSocket(path, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(path, time.Unix(1, 0), time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	if s.Look(); log.count("") > 1 {
		t.Errorf("of a file that was touched it says %s", &log.b)
	}

	lock, err := os.Open(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := errors.Join(syscall.Flock(int(lock.Fd()), syscall.LOCK_EX), os.Remove(path)); err != nil {
		t.Fatal(err)
	}
	looked := make(chan struct{})
	go func() { s.Look(); close(looked) }()
	select {
	case <-looked:
	case <-time.After(patience):
		t.Fatal("it waits for the one that is about to take its place")
	}
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) || log.count("") > 1 {
		t.Errorf("its place is another's, and it made its file (%v), or says %s", err, &log.b)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_UN); err != nil {
		t.Fatal(err)
	}
	if s.Look(); log.count("it is there again") != 1 {
		t.Errorf("it has not taken its place again: %s", &log.b)
	}

	if err := os.Chtimes(path, time.Unix(1, 0), time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("its file that was touched, behind its end: %v", err)
	}
	if s.Look(); log.count("removed") != 1 {
		t.Errorf("it looks behind its end: %s", &log.b)
	}
}

// TestTooManyConnections: who comes when every place is taken is told so at once, over TLS too, and is let in when one is free.
func TestTooManyConnections(t *testing.T) {
	rt, _, _ := start(t)
	// Those that ask nothing keep their places however long this machine is at something else.
	s := server(t, admin.Limits{Connections: 2, HeaderTimeout: patience, ReadTimeout: patience, WriteTimeout: patience})
	s.Attach(rt)
	cert, key := certificate(t)
	at := serve(t, s, admin.TCP{Addr: "127.0.0.1:0", CertFile: cert, KeyFile: key, ClientCAFile: cert})
	client := func() *admin.Client {
		c, err := admin.NewRemote(admin.Remote{URL: "https://" + at, CAFile: cert, CertFile: cert, KeyFile: key})
		if err != nil {
			t.Fatal(err)
		}
		c.Wait(patience)
		return c
	}
	var held []net.Conn
	for range 2 {
		c, err := net.Dial("tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		held = append(held, c)
	}
	for range 5 {
		_, err := client().Topics(t.Context())
		var p *admin.Problem
		if !errors.As(err, &p) || p.Kind() != admin.KindBusy || p.Status != http.StatusServiceUnavailable || !strings.Contains(p.Detail, "2 connections are open already") {
			t.Fatalf("%v; want to be told that there is no place", err)
		}
	}
	held[0].Close()
	eventually(t, "there is a place", func() bool { _, err := client().Topics(t.Context()); return err == nil })
}

// TestTooManyConnectionsSilent: who comes when every place is taken and asks nothing is cut.
func TestTooManyConnectionsSilent(t *testing.T) {
	s := server(t, admin.Limits{Connections: 1, HeaderTimeout: 300 * time.Millisecond})
	at := serve(t, s, admin.TCP{Addr: "127.0.0.1:0"})
	for i := range 3 {
		c, err := net.Dial("tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if i == 0 {
			continue
		}
		_ = c.SetReadDeadline(time.Now().Add(patience))
		if b, err := io.ReadAll(c); errors.Is(err, os.ErrDeadlineExceeded) || len(b) > 0 {
			t.Errorf("it got %q, %v; want to be cut", b, err)
		}
	}
}

// TestSocketOfAnother: a directory of somebody else is refused, and so is a socket whose process does not answer but is there.
func TestSocketOfAnother(t *testing.T) {
	s := server(t, admin.Limits{})
	dir, err := os.MkdirTemp("", "admin-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	busy := fullSocket(t)
	var refused *admin.PathError
	if err := s.ListenUnix(busy); !errors.As(err, &refused) {
		t.Errorf("a socket whose process is busy: %v, want a PathError", err)
	}
	if _, err := os.Stat(busy); err != nil {
		t.Errorf("its file: %v", err)
	}
	if os.Geteuid() == 0 {
		theirs := filepath.Join(dir, "theirs")
		if err := errors.Join(os.Mkdir(theirs, 0o700), os.Chown(theirs, 12345, 12345)); err != nil {
			t.Fatal(err)
		}
		if err := s.ListenUnix(filepath.Join(theirs, "s")); !errors.As(err, &refused) || !strings.Contains(err.Error(), "another user (uid 12345)") {
			t.Errorf("a directory of another user: %v", err)
		}
	}
}

// fullSocket is a socket whose process takes no connections, and before which so many wait that the kernel refuses more.
func fullSocket(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "admin-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "s")
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Close(fd) })
	if err := errors.Join(syscall.Bind(fd, &syscall.SockaddrUnix{Name: path}), syscall.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	for range 8 {
		c, err := net.DialTimeout("unix", path, patience)
		if errors.Is(err, syscall.EAGAIN) {
			return path
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
	}
	t.Fatal("its queue has no end")
	return ""
}

// TestAwaitOfSilence: who waits for an operation of a process that takes no connections asks again and again, with pauses, and says it once.
func TestAwaitOfSilence(t *testing.T) {
	c := admin.NewClient(fullSocket(t))
	said, asked, began := 0, 0, time.Now()
	c.OnSilence = func(err *admin.SilentError) {
		if said++; !strings.Contains(err.Error(), "takes no more connections") {
			t.Error(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	_, err := c.Await(ctx, admin.Operation{ID: "x", State: admin.OperationRunning}, func(admin.Operation) {
		if asked++; asked == 5 {
			cancel()
		}
	})
	if !errors.Is(err, context.Canceled) || said != 1 {
		t.Errorf("%v, said %d times, want once, until it is cancelled", err, said)
	}
	if d := time.Since(began); d < 300*time.Millisecond { // at least: no machine makes a pause shorter
		t.Errorf("it asked %d times within %v: it does not pause", asked, d)
	}
}

// TestSilentServer: one that takes connections and does not answer is told from one that is not there, within the client's patience; what may
// take long asks first whether anybody is there, and is not cut then.
func TestSilentServer(t *testing.T) {
	dir, err := os.MkdirTemp("", "admin-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "s")
	l, err := net.Listen("unix", path) // as of a process that has been stopped: the kernel takes the connections
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c := admin.NewClient(path)
	c.Wait(200 * time.Millisecond)
	var silent *admin.SilentError
	for what, ask := range map[string]func() error{
		"a short call": func() error { _, err := c.Jobs(t.Context()); return err },
		"apply":        func() error { _, err := apply(t, c, admin.ApplyRequest{}, jobNamed("more")); return err },
		"pause":        func() error { _, err := c.PauseJob(t.Context(), "more"); return err },
		"logs":         func() error { return c.Logs(t.Context(), "more", 1, true, nil) },
		"tail": func() error {
			return c.Tail(t.Context(), runtime.Tail{Topic: "more", Partition: -1, Follow: true}, nil)
		},
		"events": func() error { return c.Events(t.Context(), "", nil) },
	} {
		if err := ask(); !errors.As(err, &silent) || !strings.Contains(err.Error(), "has not answered within 200ms") {
			t.Errorf("%s: %v, want a SilentError", what, err)
		}
	}
}

// TestLongCallsAreNotCut: following outlives the client's patience.
func TestLongCallsAreNotCut(t *testing.T) {
	_, _, socket := start(t)
	c := admin.NewClient(socket)
	c.Wait(time.Second)
	enough, err := errors.New("enough"), error(nil)
	for begun, silent := (time.Time{}), (*admin.SilentError)(nil); ; {
		err = c.Tail(t.Context(), runtime.Tail{Topic: "ticks", Partition: -1, Follow: true}, func(runtime.TopicRecord) error {
			if begun.IsZero() {
				begun = time.Now()
			}
			if time.Since(begun) > 2*time.Second {
				return enough
			}
			return nil
		})
		if !begun.IsZero() || !errors.As(err, &silent) { // else the machine is so busy that nobody has answered yet
			break
		}
	}
	if !errors.Is(err, enough) {
		t.Errorf("it ended with %v", err)
	}
}
