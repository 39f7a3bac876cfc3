package file

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"github.com/sidestream-dev/sidestream/jobs"
)

const (
	defaultPoll = 250 * time.Millisecond
	pollMin     = 10 * time.Millisecond // that a definition may ask for
)

// followed is what a split has beside where the file grows and is followed by its path.
type followed struct {
	pattern string // that the path matches
	logger  *slog.Logger
	ticks   *atomic.Int64 // looks at the files that were due so far
	looked  int64         // the last one that found nothing
	away    bool          // at that one the path named another file already
	moved   bool          // to another file, of which no position has been given
	id      fileID        // of the open file
}

// rotatedError is a file that was read under one name and has another one that the pattern matches too.
func rotatedError(pattern, name, was string) error {
	return fmt.Errorf("file: %s is what %s was: the pattern %s matches files that were rotated away too, which would be read twice: "+
		"let it match only the names that are written to", name, was, pattern)
}

// find opens the file that the position was taken in, wherever it is now, or else the one at the path. Where there is none the
// split stays without.
func (s *split) find() error {
	if !s.started {
		return s.openNew()
	}
	f, err := os.Open(s.path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("file: %w", err)
	}
	if err == nil {
		id, err := identity(f)
		if err != nil {
			_ = f.Close() // it was only read
			return err
		}
		if s.from.id == (fileID{}) || s.from.id == id {
			return s.goOn(f, id)
		}
		_ = f.Close() // it was only read
	}
	if f, err = s.elsewhere(); err != nil {
		return err
	}
	if f != nil {
		return s.goOn(f, s.from.id)
	}
	s.follow.logger.Warn("file: what was read before is gone; what it held behind that is not read", "path", s.path, "bytes_read", s.from.offset)
	s.reset()
	return s.openNew()
}

// elsewhere looks for the file of the position under another name of its folder.
func (s *split) elsewhere() (*os.File, error) {
	entries, err := os.ReadDir(filepath.Dir(s.path))
	if err != nil {
		return nil, fmt.Errorf("file: %w", err)
	}
	for _, e := range entries {
		if !e.Type().IsRegular() {
			continue
		}
		f, err := os.Open(filepath.Join(filepath.Dir(s.path), e.Name()))
		if err != nil {
			continue // another's, or gone again
		}
		if id, err := identity(f); err == nil && id == s.from.id && id != (fileID{}) {
			return f, nil
		}
		_ = f.Close() // it was only read
	}
	return nil, nil
}

// goOn reads f from the position on, or from its beginning where it is another file by now or was cut short.
func (s *split) goOn(f *os.File, id fileID) error {
	s.f, s.eof, s.block, s.at, s.follow.id = f, false, nil, 0, id
	s.base, s.line, s.head, s.headN = s.from.offset, s.from.line, s.from.head, s.from.headN
	err := s.check()
	if _, changed := errors.AsType[*ChangedError](err); changed {
		s.follow.logger.Warn("file: it was cut short or replaced while nobody looked; it is read from its beginning", "path", s.path, "bytes_read", s.from.offset)
		s.reset()
		s.f, s.follow.id = f, id
		return nil
	}
	return err
}

// openNew begins the file at the path, if there is one.
func (s *split) openNew() error {
	f, err := os.Open(s.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("file: %w", err)
	}
	s.f, s.eof, s.block, s.base, s.at = f, false, nil, 0, 0
	s.follow.id, err = identity(f)
	return err
}

// reset forgets the file that was read.
func (s *split) reset() {
	s.from, s.started, s.f, s.csv = position{}, false, nil, nil
	s.base, s.block, s.at, s.eof, s.line, s.head, s.headN = 0, nil, 0, false, 0, 0, 0
	s.follow.away, s.follow.moved, s.follow.id = false, true, fileID{}
}

// readGrowing fills c with the next whole records of a file that grows. Without any it notes that it has looked.
func (s *split) readGrowing(c *jobs.Chunk, rows *rowEncoder) error {
	now := s.follow.ticks.Load()
	for {
		if s.f == nil {
			if err := s.openNew(); err != nil {
				return err
			}
			if s.f == nil {
				break
			}
		}
		if s.format != CSV {
			s.lines(c)
		} else if _, err := s.rows(c, rows); err != nil {
			return err
		}
		if n := len(c.Messages); n > 0 {
			if s.format != CSV && len(c.Messages[n-1].Value) > s.lineBytes {
				s.line = c.Messages[n-1].Offset - 1
				return s.tooLong()
			}
			return nil
		}
		if s.eof && s.at == len(s.block) { // it was cut short, or another one is at its path
			f := s.f
			s.reset()
			_ = f.Close() // it was only read
			continue
		}
		if len(s.block)-s.at > s.lineBytes {
			return s.tooLong()
		}
		more, err := s.more()
		if err != nil {
			return err
		}
		if !more {
			break
		}
	}
	s.follow.looked = now
	return nil
}

// moved reports, once, that the split has come to another file though it has given no record of it: a position in the old one
// would not find it when it is rotated away too.
func (s *split) moved() bool {
	if !s.follow.moved || s.f == nil {
		return false
	}
	s.follow.moved = false
	return true
}

// more reads what was written behind the block; it returns false where nothing was. Where nothing will be any more, it says so
// with eof, so that a last line without its end is a record too.
func (s *split) more() (bool, error) {
	info, err := s.f.Stat()
	if err != nil {
		return false, fmt.Errorf("file: %w", err)
	}
	end := s.base + int64(len(s.block))
	same := info.Size() >= end
	if info.Size() > end {
		if same, err = s.sameBefore(end); err != nil {
			return false, err
		}
	}
	if !same {
		s.follow.logger.Info("file: it was cut short and is read from its beginning", "path", s.path, "bytes_read", end)
		s.eof = true
		return true, nil
	}
	if info.Size() == end {
		return s.replaced(info)
	}
	s.follow.away = false
	before := len(s.block) - s.at
	err = s.refill()
	s.eof = false
	if _, changed := errors.AsType[*ChangedError](err); changed {
		return false, nil // cut short while it was read: the next look sees it
	}
	if s.format != CSV && s.base == 0 && s.at == 0 && bytes.HasPrefix(s.block, []byte("\ufeff")) {
		s.at = 3
	}
	return len(s.block)-s.at > before, err
}

// sameBefore reports whether the bytes before end are those that were read: a file that was cut short may have grown again.
func (s *split) sameBefore(end int64) (bool, error) {
	was := s.block[max(0, len(s.block)-checkBytes):]
	is := make([]byte, len(was))
	if _, err := s.f.ReadAt(is, end-int64(len(is))); err != nil && !errors.Is(err, io.EOF) {
		return false, failed("read", s.path, err)
	}
	return bytes.Equal(is, was), nil
}

// replaced looks whether another file is at the path, at two looks in a row and with nothing more written to this one: then
// there is more, in the other.
func (s *split) replaced(info fs.FileInfo) (bool, error) {
	there, err := os.Stat(s.path)
	switch {
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return false, fmt.Errorf("file: %w", err)
	case err != nil || os.SameFile(there, info):
		s.follow.away = false
		return false, nil
	case !s.follow.away:
		s.follow.away = true
		return false, nil
	}
	names, err := filepath.Glob(s.follow.pattern)
	if err != nil {
		return false, fmt.Errorf("file: %w", err)
	}
	for _, name := range names {
		if other, err := os.Stat(name); err == nil && os.SameFile(other, info) {
			return false, rotatedError(s.follow.pattern, name, s.path)
		}
	}
	s.eof = true
	return true, nil
}

// splitsOfGrowing lists the files to follow. It waits until there is one.
func (s Source) splitsOfGrowing(ctx context.Context, env jobs.SourceEnv) ([]jobs.Start, error) {
	known := map[string]position{}
	for _, k := range env.Known {
		known[k.Split.ID] = position{}
		if k.Position != nil {
			pos, err := decodePosition(k.Position)
			if err != nil {
				return nil, fmt.Errorf("file: %s: %w", k.Split.ID, err)
			}
			known[k.Split.ID] = pos
		}
	}
	waiting := env.Waiting
	if waiting == nil {
		waiting = func(string) {}
	}
	first := len(known) == 0
	for {
		paths, err := s.match()
		if err != nil {
			return nil, err
		}
		var starts []jobs.Start
		for _, p := range paths {
			st := jobs.Start{Split: jobs.Split{ID: p, Topic: p}}
			if _, ok := known[p]; !ok {
				if err := notRead(s.Path, p, known); err != nil {
					return nil, err
				}
				where := beginning
				if first && s.Start == "latest" {
					where = s.latest
				}
				if st.Position, err = where(p); errors.Is(err, fs.ErrNotExist) {
					continue // it has just gone
				} else if err != nil {
					return nil, err
				}
			}
			starts = append(starts, st)
		}
		if len(starts) > 0 || len(known) > 0 {
			waiting("")
			return starts, nil
		}
		waiting("file: no file matches " + s.Path + " yet")
		first = false // what comes now is new
		select {
		case <-time.After(s.Poll):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// notRead refuses a new path at which there is a file that was read at another.
func notRead(pattern, path string, known map[string]position) error {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("file: %w", err)
	}
	defer f.Close()
	id, err := identity(f)
	if err != nil || id == (fileID{}) {
		return err
	}
	for was, pos := range known {
		sp := split{path: path, from: pos, f: f}
		if pos.id == id && pos.offset > 0 && sp.check() == nil { // a number may come again for another file
			return rotatedError(pattern, path, was)
		}
	}
	return nil
}

// beginning returns the position before the first line of the file that is at a path now: it may be rotated away unread.
func beginning(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("file: %w", err)
	}
	defer f.Close()
	id, err := identity(f)
	if err != nil || id == (fileID{}) {
		return nil, err
	}
	return position{id: id}.encode(), nil
}

// latest returns the position behind the last whole line of a file.
func (s Source) latest(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("file: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("file: %w", err)
	}
	w := writer{path: path, f: f}
	p := position{}
	if p.offset, err = w.lastLine(0, info.Size()); err != nil {
		return nil, err
	}
	if p.id, err = identity(f); err != nil {
		return nil, err
	}
	if p.offset == 0 {
		return beginning(path)
	}
	head := make([]byte, min(p.offset, checkBytes))
	if s.Format == CSV {
		head = make([]byte, min(p.offset, int64(s.LineBytes)+2))
	}
	if _, err := f.ReadAt(head, 0); err != nil {
		return nil, failed("read", path, err)
	}
	if s.Format == CSV {
		_, next, _, more := rowEnd(head, false)
		if more {
			return beginning(path) // it has no whole header
		}
		head = head[:next]
	}
	tail := make([]byte, min(p.offset, checkBytes))
	if _, err := f.ReadAt(tail, p.offset-int64(len(tail))); err != nil {
		return nil, failed("read", path, err)
	}
	p.headN, p.head = uint32(len(head)), checksum(head)
	p.tailN, p.tail = uint8(len(tail)), checksum(tail)
	return p.encode(), nil
}

// Discover waits for files that match and that env.Known does not have.
func (s Source) Discover(ctx context.Context, env jobs.SourceEnv) ([]jobs.Start, error) {
	s, err := s.withDefaults()
	if err != nil {
		return nil, err
	}
	w := watch{pattern: s.Path, held: map[string]*os.File{}}
	defer w.close()
	for _, k := range env.Known {
		w.known = append(w.known, k.Split.ID)
	}
	for {
		w.hold()
		paths, err := s.match()
		if err != nil {
			return nil, err
		}
		var starts []jobs.Start
		for _, p := range paths {
			if slices.Contains(w.known, p) {
				continue
			}
			if err := w.isNew(p); err != nil {
				return nil, err
			}
			st := jobs.Start{Split: jobs.Split{ID: p, Topic: p}}
			if st.Position, err = beginning(p); errors.Is(err, fs.ErrNotExist) {
				continue // it has just gone
			} else if err != nil {
				return nil, err
			}
			starts = append(starts, st)
		}
		if len(starts) > 0 {
			return starts, nil
		}
		select {
		case <-time.After(s.Poll):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// watch holds the files at the known paths open, so that none of their numbers is given to another file, and those that were
// rotated away a little longer.
type watch struct {
	pattern string
	known   []string
	held    map[string]*os.File
	rotated [2]map[string]*os.File // at the last look, and at the one before
}

func (w *watch) hold() {
	closeFiles(w.rotated[1])
	w.rotated[0], w.rotated[1] = map[string]*os.File{}, w.rotated[0]
	for _, p := range w.known {
		f, err := os.Open(p)
		if err != nil {
			continue // it is away; what is held stays held
		}
		if old := w.held[p]; old != nil {
			a, errA := old.Stat()
			if b, errB := f.Stat(); errA == nil && errB == nil && os.SameFile(a, b) {
				_ = f.Close() // it was only read
				continue
			}
			w.rotated[0][p] = old
		}
		w.held[p] = f
	}
}

// isNew refuses a path at which there is a file that is, or was, at a known one.
func (w *watch) isNew(path string) error {
	there, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("file: %w", err)
	}
	for _, files := range []map[string]*os.File{w.held, w.rotated[0], w.rotated[1]} {
		for was, f := range files {
			if info, err := f.Stat(); err == nil && os.SameFile(info, there) {
				return rotatedError(w.pattern, path, was)
			}
		}
	}
	return nil
}

func (w *watch) close() {
	closeFiles(w.held)
	closeFiles(w.rotated[0])
	closeFiles(w.rotated[1])
}

func closeFiles(fs map[string]*os.File) {
	for _, f := range fs {
		_ = f.Close() // it was only read
	}
}
