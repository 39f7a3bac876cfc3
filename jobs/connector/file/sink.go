package file

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/sidestream-dev/sidestream/jobs"
)

const writeBytes = 1 << 20 // lines are collected to writes of this size

// Sink writes the value of each record as one line of a file, which belongs to one output alone.
//
// Line ends inside a value would tear its line: in jsonl, where they can only stand between tokens, they become spaces;
// in lines they become the two characters \n or \r. A path that ends in .gz is compressed, a member of its own for each Write.
type Sink struct {
	Path   string // relative to the working directory of the process
	Format Format // JSONLines or Lines; "" means JSONLines
}

var (
	_ jobs.Sink      = Sink{}
	_ jobs.Exclusive = Sink{}
	_ jobs.Prober    = Sink{}
)

// Kind returns "file".
func (s Sink) Kind() string { return "file" }

// ExactlyOnce returns nil: the file is cut back to what stands with the position.
func (s Sink) ExactlyOnce() error { return nil }

// Place names the file by its absolute path.
func (s Sink) Place() string {
	p, err := filepath.Abs(s.Path)
	if err != nil {
		p = s.Path
	}
	return placePrefix + p
}

const placePrefix = "file "

func (s Sink) check() error {
	switch {
	case s.Path == "":
		return errors.New("file: no path")
	case s.Format != "" && s.Format != JSONLines && s.Format != Lines:
		return fmt.Errorf("file: format %q is not one of jsonl, lines", s.Format)
	case packing(s.Path) == "zstd":
		return fmt.Errorf("file: %s: zstd is not written: name it .gz, or leave it as it is", s.Path)
	}
	return nil
}

// Probe looks whether the file is one that Open would take, or could be made.
func (s Sink) Probe(_ context.Context, env jobs.SinkEnv) error {
	if err := s.check(); err != nil {
		return err
	}
	info, err := os.Stat(s.Path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if err := (&writer{path: s.Path}).missing(env); err != nil {
			return err
		}
		return mayMake(filepath.Dir(s.Path))
	case err != nil:
		return fmt.Errorf("file: %w", err)
	case !info.Mode().IsRegular():
		return fmt.Errorf("file: %s is not a regular file: give the output another path", s.Path)
	case env.State == nil && info.Size() > 0:
		return notOurs(s.Path, info.Size())
	case !mayWrite(s.Path, false):
		return fmt.Errorf("file: %s may not be written: give the process the right to, or the output another path", s.Path)
	}
	return nil
}

// mayMake reports why nothing can be made in a folder, which may itself be yet to be made.
func mayMake(dir string) error {
	info, err := os.Stat(dir)
	switch up := filepath.Dir(dir); {
	case errors.Is(err, fs.ErrNotExist) && up != dir:
		return mayMake(up)
	case err != nil:
		return fmt.Errorf("file: %w", err)
	case !info.IsDir():
		return fmt.Errorf("file: %s is not a folder: give the output another path", dir)
	case !mayWrite(dir, true):
		return fmt.Errorf("file: nothing may be made in folder %s: give the process the right to, or the output another path", dir)
	}
	return nil
}

func notOurs(path string, size int64) error {
	return &jobs.StoppedError{
		Why:    fmt.Sprintf("file %s has %d bytes, but nothing of this output was ever written", path, size),
		Choice: "move the file away, or give the output another path",
	}
}

// Open makes the file agree with env.State, and creates nothing yet where there is none. See the package comment for
// what it cuts and when it stops the output.
func (s Sink) Open(_ context.Context, env jobs.SinkEnv) (jobs.Writer, error) {
	if err := s.check(); err != nil {
		return nil, err
	}
	w := &writer{path: s.Path, escape: s.Format == Lines}
	if packing(s.Path) == "gzip" {
		w.gz = gzip.NewWriter(nil)
	}
	f, err := os.OpenFile(s.Path, os.O_RDWR, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return w, w.missing(env)
	case err != nil:
		return nil, fmt.Errorf("file: %w", err)
	}
	w.f = f
	if err := w.agree(env); err != nil {
		_ = f.Close() // nothing was written
		return nil, err
	}
	return w, nil
}

type writer struct {
	path   string
	escape bool         // line ends in values
	gz     *gzip.Writer // nil writes them as they are
	f      *os.File
	length int64
	torn   bool // behind length there may be part of a write that failed
	last   []byte
	buf    []byte
}

func (w *writer) missing(env jobs.SinkEnv) error {
	if env.State == nil {
		return nil
	}
	st, err := decodeState(env.State)
	if err != nil {
		return fmt.Errorf("file: %s: state %x: %w", w.path, env.State, err)
	}
	if st.length > 0 {
		return stopped("file %s is gone, of which %d bytes were committed", w.path, st.length)
	}
	return nil
}

func stopped(format string, args ...any) error {
	return &jobs.StoppedError{
		Why:    fmt.Sprintf(format, args...),
		Choice: "put the file back as it was, or give the output another path",
	}
}

// agree compares the file with the state and cuts off what may not stay.
func (w *writer) agree(env jobs.SinkEnv) error {
	info, err := w.f.Stat()
	if err != nil {
		return fmt.Errorf("file: %w", err)
	}
	size := info.Size()
	if !info.Mode().IsRegular() {
		return fmt.Errorf("file: %s is not a regular file", w.path)
	}
	if env.State == nil {
		if size > 0 {
			return notOurs(w.path, size)
		}
		return nil
	}
	st, err := decodeState(env.State)
	if err != nil {
		return fmt.Errorf("file: %s: state %x: %w", w.path, env.State, err)
	}
	if size < st.length {
		return stopped("file %s has %d bytes, of %d that were committed", w.path, size, st.length)
	}
	tail := make([]byte, st.tailN)
	if _, err := w.f.ReadAt(tail, st.length-int64(len(tail))); err != nil && len(tail) > 0 {
		return failed("read", w.path, err)
	}
	if checksum(tail) != st.tail {
		return stopped("file %s is not what was written: the bytes before %d are others", w.path, st.length)
	}
	keep := st.length
	lines := env.Delivery == jobs.AtLeastOnce && w.gz == nil // a member's lines cannot be told before its end
	if !lines && size > keep && env.Cut != (jobs.Cut{}) {
		choice := fmt.Sprintf("keep a copy and cut it back (truncate -s %d), so that they are written anew", keep)
		if w.gz == nil {
			choice += "; or run the job once with delivery: at_least_once, which keeps them and repeats"
		}
		return &jobs.StoppedError{
			Why: fmt.Sprintf("file %s has %d bytes behind the first %d, of records that a repair may have removed from the log: what is computed "+
				"again in their place need not be the same", w.path, size-keep, keep),
			Choice: choice,
		}
	}
	if lines {
		if keep, err = w.lastLine(st.length, size); err != nil {
			return err
		}
	}
	w.length = keep
	if keep == size {
		return w.loadTail()
	}
	env.Logger.Info("file: cut back what was not committed", "path", w.path, "from_bytes", size, "to_bytes", keep)
	if err := w.cut(); err != nil {
		return err
	}
	return w.loadTail()
}

// lastLine returns where the last whole line ends that lies between committed and size.
func (w *writer) lastLine(committed, size int64) (int64, error) {
	buf := make([]byte, blockBytes)
	for end := size; end > committed; {
		n := min(int64(len(buf)), end-committed)
		if _, err := w.f.ReadAt(buf[:n], end-n); err != nil && !errors.Is(err, io.EOF) {
			return 0, failed("read", w.path, err)
		}
		if i := bytes.LastIndexByte(buf[:n], '\n'); i >= 0 {
			return end - n + int64(i) + 1, nil
		}
		end -= n
	}
	return committed, nil
}

func (w *writer) loadTail() error {
	w.last = make([]byte, min(checkBytes, w.length))
	if _, err := w.f.ReadAt(w.last, w.length-int64(len(w.last))); err != nil && len(w.last) > 0 {
		return failed("read", w.path, err)
	}
	return nil
}

// cut makes the file as long as what was committed.
func (w *writer) cut() error {
	if err := w.f.Truncate(w.length); err != nil {
		return failed("cut", w.path, err)
	}
	if err := w.f.Sync(); err != nil {
		return failed("sync", w.path, err)
	}
	w.torn = false
	return nil
}

// create makes the file, and the folders above it, and fsyncs every folder that got an entry.
func (w *writer) create() error {
	dir := filepath.Dir(w.path)
	made := []string{dir}
	for d := dir; ; d = filepath.Dir(d) {
		if _, err := os.Stat(d); err == nil || d == filepath.Dir(d) {
			break
		}
		made = append(made, filepath.Dir(d))
	}
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return fmt.Errorf("file: %w", err)
	}
	f, err := os.OpenFile(w.path, os.O_RDWR|os.O_CREATE, 0o666)
	if err != nil {
		return fmt.Errorf("file: %w", err)
	}
	for _, d := range made {
		if err := syncDir(d); err != nil {
			_ = f.Close() // the sync's error says more
			return err
		}
	}
	w.f = f
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("file: %w", err)
	}
	err = d.Sync()
	if cerr := d.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("file: sync folder %s: %w", dir, err)
	}
	return nil
}

// Write writes a line for each of ms and fsyncs once. After an error the next Write begins by cutting off what this one
// may have left.
func (w *writer) Write(ctx context.Context, ms []jobs.Message) ([]byte, error) {
	if w.f == nil {
		if err := w.create(); err != nil {
			return nil, err
		}
	}
	if w.torn {
		if err := w.cut(); err != nil {
			return nil, err
		}
	}
	if len(ms) == 0 {
		return w.state(), nil
	}
	w.torn = true
	length := w.length
	last := w.last
	out := writerFunc(func(b []byte) (int, error) {
		if _, err := w.f.WriteAt(b, length); err != nil {
			return 0, failed("write", w.path, err)
		}
		length += int64(len(b))
		last = append(last, b[max(0, len(b)-checkBytes):]...)
		last = bytes.Clone(last[max(0, len(last)-checkBytes):])
		return len(b), ctx.Err()
	})
	if err := w.lines(out, ms); err != nil {
		return nil, err
	}
	if err := w.f.Sync(); err != nil {
		return nil, failed("sync", w.path, err)
	}
	w.torn, w.length, w.last = false, length, last
	return w.state(), nil
}

type writerFunc func(b []byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

// lines writes a line for each of ms to out, compressed where the file is.
func (w *writer) lines(out io.Writer, ms []jobs.Message) error {
	to := out
	if w.gz != nil {
		packed := bufio.NewWriterSize(out, writeBytes)
		w.gz.Reset(packed)
		to = w.gz
		defer w.gz.Reset(nil)
		out = packed
	}
	w.buf = w.buf[:0]
	for i := range ms {
		w.buf = appendLine(w.buf, ms[i].Value, w.escape)
		if len(w.buf) >= writeBytes || i == len(ms)-1 {
			if _, err := to.Write(w.buf); err != nil {
				return err
			}
			w.buf = w.buf[:0]
		}
	}
	if w.gz == nil {
		return nil
	}
	if err := w.gz.Close(); err != nil {
		return err
	}
	return out.(*bufio.Writer).Flush()
}

func (w *writer) state() []byte {
	return state{length: w.length, tailN: uint8(len(w.last)), tail: checksum(w.last)}.encode()
}

func appendLine(dst, v []byte, escape bool) []byte {
	if bytes.IndexByte(v, '\n') < 0 && bytes.IndexByte(v, '\r') < 0 {
		return append(append(dst, v...), '\n')
	}
	for _, c := range v {
		switch {
		case c != '\n' && c != '\r':
			dst = append(dst, c)
		case !escape:
			dst = append(dst, ' ')
		case c == '\n':
			dst = append(dst, '\\', 'n')
		default:
			dst = append(dst, '\\', 'r')
		}
	}
	return append(dst, '\n')
}

// Close closes the file. What Write has not confirmed may be in it.
func (w *writer) Close() error {
	if w.f == nil {
		return nil
	}
	f := w.f
	w.f = nil
	if err := f.Close(); err != nil {
		return fmt.Errorf("file: %w", err)
	}
	return nil
}

// failed says what could not be done with a file, once: what comes from the system has named both.
func failed(verb, path string, err error) error {
	if errors.As(err, new(*fs.PathError)) {
		return fmt.Errorf("file: %w", err)
	}
	return fmt.Errorf("file: %s %s: %w", verb, path, err)
}
