package admin

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// socketLook is how often a Server looks whether its socket's file is still there.
const socketLook = time.Second

// socket is a listener at a path whose file may be taken away: it takes the path again, and goes on. Connections that there are stay.
type socket struct {
	path string
	log  *slog.Logger

	mu     sync.Mutex
	now    *net.UnixListener
	file   os.FileInfo // of now, as it was made
	closed bool

	said string // by look alone: why it could not be had again, said once
}

func openSocket(path string, log *slog.Logger) (*socket, error) {
	l, err := listenUnix(path, 0)
	if err != nil {
		return nil, err
	}
	s := &socket{path: path, log: log}
	if err := s.take(l); err != nil {
		return nil, errors.Join(&PathError{Path: path, Why: err.Error(), Err: err}, l.Close())
	}
	return s, nil
}

// take makes l the one that is listened to.
func (s *socket) take(l *net.UnixListener) error {
	file, err := os.Lstat(s.path)
	if err == nil {
		l.SetUnlinkOnClose(false) // Close does, where the file is still ours
		s.now, s.file = l, file
	}
	return err
}

// Accept makes a socket a net.Listener.
func (s *socket) Accept() (net.Conn, error) {
	for {
		s.mu.Lock()
		l := s.now
		s.mu.Unlock()
		c, err := l.Accept()
		if err == nil {
			return c, nil
		}
		s.mu.Lock()
		other := l != s.now
		s.mu.Unlock()
		if !other {
			return nil, err
		}
	}
}

// Addr makes a socket a net.Listener.
func (s *socket) Addr() net.Addr { return &net.UnixAddr{Name: s.path, Net: "unix"} }

// Close gives the path up, and removes the file if it is still this listener's.
func (s *socket) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return net.ErrClosed
	}
	s.closed = true
	var err error
	if s.there() {
		err = os.Remove(s.path)
	}
	return errors.Join(err, s.now.Close())
}

// there reports whether the path still leads here.
func (s *socket) there() bool {
	info, err := os.Lstat(s.path)
	return err == nil && os.SameFile(info, s.file) // while it is listened on, no other file is given its number
}

// watch looks until ctx ends.
func (s *socket) watch(ctx context.Context) {
	for tick := time.NewTicker(socketLook); ; {
		select {
		case <-ctx.Done():
			tick.Stop()
			return
		case <-tick.C:
			s.look()
		}
	}
}

// look takes the path again where its file is gone. What is in its place is not taken away, nor is a folder made that had the
// socket's: who removed these wants no process there.
func (s *socket) look() {
	s.mu.Lock()
	fine := s.closed || s.there()
	s.mu.Unlock()
	if fine {
		return
	}
	_, err := os.Stat(filepath.Dir(filepath.Dir(s.path)))
	if err == nil {
		err = s.again()
	}
	if err == nil || errors.Is(err, errLocked) {
		return
	}
	var at *fs.PathError
	if errors.As(err, &at) {
		err = at.Err
	}
	if s.said != err.Error() {
		s.said = err.Error()
		s.log.Warn("the admin socket's file was removed, and cannot be made again; it is tried again and again", "socket", s.path, "err", err)
	}
}

// again takes the path again. Nobody is kept waiting for that: it may take long.
func (s *socket) again() error {
	l, err := listenUnix(s.path, syscall.LOCK_NB)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return l.Close() // and the file goes
	}
	before := s.now
	if err := s.take(l); err != nil {
		_ = l.Close()
		return err
	}
	_ = before.Close() // nobody can reach it any more
	s.said = ""
	s.log.Warn("the admin socket's file was removed; it is there again", "socket", s.path)
	return nil
}
