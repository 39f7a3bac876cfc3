package file

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/sidestream-dev/sidestream/jobs"
)

// Format says how a file is cut into records.
type Format string

const (
	JSONLines Format = "jsonl"
	CSV       Format = "csv"
	Lines     Format = "lines"
)

const (
	defaultLineBytes = 1 << 20
	defaultOpenFiles = 256
	blockBytes       = 256 << 10
)

// Source reads the files that Path matches.
type Source struct {
	Path      string // a pattern of [filepath.Match]; relative to the working directory of the process
	Format    Format // "" means JSONLines
	LineBytes int    // the longest line, or csv record; 0 means 1 MiB
	// Follow reads on as the files grow, are rotated and come new, and never ends.
	Follow    bool
	Start     string        // of files that are there when the job first begins, if followed: "earliest" (also "") or "latest"
	Poll      time.Duration // between two looks at followed files; 0 means 250 ms
	OpenFiles int           // files held open at a time by one subtask, with a block of 256 KiB each; 0 means 256
}

var (
	_ jobs.Source     = Source{}
	_ jobs.Discoverer = Source{}
	_ jobs.Beholder   = Source{}
)

// Reads reports whether the source reads a place of a [Sink].
func (s Source) Reads(place string) bool {
	file, ok := strings.CutPrefix(place, placePrefix)
	pattern, err := filepath.Abs(s.Path)
	if !ok || err != nil {
		return false
	}
	match, err := filepath.Match(pattern, file)
	return err == nil && match || pattern == file
}

func (s Source) withDefaults() (Source, error) {
	if s.Path == "" {
		return s, errors.New("file: no path")
	}
	if _, err := filepath.Match(s.Path, ""); err != nil {
		return s, fmt.Errorf("file: path %q: %w", s.Path, err)
	}
	switch s.Format {
	case "":
		s.Format = JSONLines
	case JSONLines, CSV, Lines:
	default:
		return s, fmt.Errorf("file: format %q is not one of jsonl, csv, lines", s.Format)
	}
	if s.LineBytes == 0 {
		s.LineBytes = defaultLineBytes
	}
	if s.OpenFiles == 0 {
		s.OpenFiles = defaultOpenFiles
	}
	if s.LineBytes < 1 || s.LineBytes > 1<<30 {
		return s, fmt.Errorf("file: line_bytes %d is not between 1 and 1 GiB", s.LineBytes)
	}
	if s.Poll == 0 {
		s.Poll = defaultPoll
	}
	if s.Poll < 0 {
		return s, fmt.Errorf("file: poll %v is negative", s.Poll)
	}
	if s.Start != "" && s.Start != "earliest" && s.Start != "latest" {
		return s, fmt.Errorf("file: start %q is not earliest or latest", s.Start)
	}
	if s.Start == "latest" && !s.Follow {
		return s, errors.New("file: start latest is for files that are followed")
	}
	if s.OpenFiles < 1 {
		return s, fmt.Errorf("file: open files %d is less than 1", s.OpenFiles)
	}
	return s, nil
}

// Kind returns "file".
func (s Source) Kind() string { return "file" }

// Bounded reports whether files are read to their end.
func (s Source) Bounded() bool { return !s.Follow }

// Splits returns the files there are, by name. That there are none is an error, or is waited for where files are followed.
func (s Source) Splits(ctx context.Context, env jobs.SourceEnv) ([]jobs.Start, error) {
	s, err := s.withDefaults()
	if err != nil {
		return nil, err
	}
	if s.Follow {
		return s.splitsOfGrowing(ctx, env)
	}
	paths, err := s.match()
	if err != nil {
		return nil, err
	}
	var starts []jobs.Start
	for _, p := range paths {
		starts = append(starts, jobs.Start{Split: jobs.Split{ID: p, Topic: p}})
	}
	if len(starts) == 0 {
		return nil, fmt.Errorf("file: no file matches %s: %w", s.Path, fs.ErrNotExist)
	}
	return starts, nil
}

// match returns the files that the pattern matches, by name.
func (s Source) match() (out []string, err error) {
	paths, err := filepath.Glob(s.Path)
	if err != nil {
		return nil, fmt.Errorf("file: path %q: %w", s.Path, err)
	}
	slices.Sort(paths)
	for _, p := range paths {
		info, err := os.Stat(p)
		if err != nil && s.Follow && errors.Is(err, fs.ErrNotExist) {
			continue // it has just gone
		}
		if err != nil {
			return nil, fmt.Errorf("file: %w", err)
		}
		if info.IsDir() {
			continue
		}
		if !info.Mode().IsRegular() {
			return nil, fmt.Errorf("file: %s is not a regular file: it cannot be read again from a position", p)
		}
		if how := packing(p); how != "" && s.Follow {
			return nil, fmt.Errorf("file: %s is compressed (%s) and cannot be followed: let the pattern match only files that are written to", p, how)
		}
		out = append(out, p)
	}
	return out, nil
}

// Open returns a reader of the files in starts; they are opened when first read.
func (s Source) Open(_ context.Context, env jobs.SourceEnv, starts []jobs.Start) (jobs.Reader, error) {
	s, err := s.withDefaults()
	if err != nil {
		return nil, err
	}
	r := &reader{src: s, logger: env.Logger, ready: make(chan struct{}, 1)}
	if r.logger == nil {
		r.logger = slog.New(slog.DiscardHandler)
	}
	if err := r.Add(starts); err != nil {
		return nil, err
	}
	r.ready <- struct{}{}
	if s.Follow {
		r.stop, r.done = make(chan struct{}), make(chan struct{})
		r.ticks.Store(1)
		go r.tick()
	}
	return r, nil
}

// tick wakes whoever reads, until Close.
func (r *reader) tick() {
	defer close(r.done)
	t := time.NewTicker(r.src.Poll)
	defer t.Stop()
	for {
		select {
		case <-t.C:
		case <-r.stop:
			return
		}
		r.ticks.Add(1)
		select {
		case r.ready <- struct{}{}:
		default:
		}
	}
}

// Add takes more files to read.
func (r *reader) Add(starts []jobs.Start) (err error) {
	for _, st := range starts {
		sp := &split{path: st.Split.ID, lineBytes: r.src.LineBytes, format: r.src.Format, ended: st.Ended}
		if st.Position != nil && !st.Ended {
			if sp.from, err = decodePosition(st.Position); err != nil {
				return fmt.Errorf("file: %s: %w", sp.path, err)
			}
			sp.started = true
		}
		if r.src.Follow {
			sp.follow = &followed{pattern: r.src.Path, logger: r.logger, ticks: &r.ticks}
		}
		r.splits = append(r.splits, sp)
	}
	return nil
}

// reader reads from page cache or disk in the caller's goroutine: a file always has its next record at hand.
type reader struct {
	src    Source
	splits []*split
	open   []*split // those that hold a file, the one read longest ago first
	ready  chan struct{}
	rows   rowEncoder
	logger *slog.Logger

	ticks      atomic.Int64 // of followed files
	stop, done chan struct{}
}

// Ready gives one token at the beginning; a Read that finds nothing has found the end. Where files are followed it gives one
// at each look that is due.
func (r *reader) Ready() <-chan struct{} { return r.ready }

func (r *reader) Read(c *jobs.Chunk, want []int) error {
	for _, i := range want {
		s := r.splits[i]
		if s.ended || s.follow != nil && s.follow.looked == r.ticks.Load() {
			continue
		}
		if err := r.use(s); err != nil {
			return err
		}
		c.Split = i
		if s.follow != nil {
			if err := s.readGrowing(c, &r.rows); err != nil {
				return err
			}
			if c.Moved = s.moved(); len(c.Messages) == 0 && !c.Moved {
				continue
			}
			c.Position = s.position()
			return nil
		}
		if err := s.read(c, &r.rows); err != nil {
			return err
		}
		c.Position = s.position()
		if c.Ended {
			s.ended = true
			r.release(s)
		}
		return nil
	}
	return nil
}

// use opens s if it is not open, and closes the one read longest ago where that would be too many.
func (r *reader) use(s *split) error {
	if n := len(r.open); n > 0 && r.open[n-1] == s {
		return nil
	}
	if i := slices.Index(r.open, s); i >= 0 {
		r.open = append(slices.Delete(r.open, i, i+1), s)
		return nil
	}
	if len(r.open) >= r.src.OpenFiles {
		r.release(r.open[0])
	}
	if err := s.open(); err != nil {
		return err
	}
	r.open = append(r.open, s)
	return nil
}

func (r *reader) release(s *split) {
	if i := slices.Index(r.open, s); i >= 0 {
		r.open = slices.Delete(r.open, i, i+1)
		s.close()
	}
}

func (r *reader) Close() error {
	if r.stop != nil {
		close(r.stop)
		<-r.done
		r.stop = nil
	}
	for _, s := range r.open {
		s.close()
	}
	r.open = nil
	return nil
}
