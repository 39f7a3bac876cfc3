package file

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/sidestream-dev/sidestream/jobs"
)

// split is one file being read. Values that were given out alias its blocks, so that a block is never written again.
type split struct {
	path      string
	format    Format
	lineBytes int
	from      position // where to open it
	started   bool     // from was taken in this file: it is checked when it is opened
	ended     bool
	follow    *followed // nil for a file that is read to its end

	f     *os.File
	text  *unpacker // of a compressed file; else nil
	base  int64     // offset in the file of block[0]
	block []byte    // what has been read
	at    int       // the next byte of block to look at
	eof   bool      // block reaches to the end of the file
	line  int64     // lines before at
	head  uint32    // checksum of the first headN bytes
	headN uint32
	csv   *header
}

func (s *split) open() error {
	if s.follow != nil {
		return s.find()
	}
	f, err := os.Open(s.path)
	if err != nil {
		return fmt.Errorf("file: %w", err)
	}
	s.f, s.text, s.eof, s.block, s.at = f, nil, false, nil, 0
	if how := packing(s.path); how != "" {
		if s.text, err = newUnpacker(f, how); err != nil {
			_ = f.Close() // it was only read
			s.f = nil
			return err
		}
	}
	s.base, s.line, s.head, s.headN = s.from.offset, s.from.line, s.from.head, s.from.headN
	if err := s.begin(); err != nil {
		s.close()
		return err
	}
	return nil
}

// begin checks that the file is the one its position was taken in, or passes over what stands before its first record.
func (s *split) begin() error {
	if s.started {
		return s.check()
	}
	if err := s.refill(); err != nil {
		return err
	}
	if bytes.HasPrefix(s.block, []byte("\ufeff")) {
		s.at = 3
	}
	if s.format != CSV {
		return nil
	}
	row, ok, err := s.nextRow()
	if err != nil || !ok {
		return err
	}
	if s.csv, err = parseHeader(row); err != nil {
		return fmt.Errorf("file: %s:1: %w", s.path, err)
	}
	s.headN = uint32(s.at)
	s.head = checksum(s.block[:s.at])
	return nil
}

func (s *split) check() error {
	changed := func(format string, args ...any) error {
		return &ChangedError{Path: s.path, Offset: s.from.offset, Why: fmt.Sprintf(format, args...)}
	}
	head, tail := make([]byte, s.from.headN), make([]byte, s.from.tailN)
	size, err := s.readChecked(head, tail)
	if err != nil {
		return err
	}
	if size < s.from.offset {
		return changed("the file has shrunk to %d bytes", size)
	}
	if checksum(head) != s.from.head || checksum(tail) != s.from.tail {
		return changed("another file has taken its place, or it was changed")
	}
	if s.format == CSV && s.from.headN > 0 {
		row := bytes.TrimRight(bytes.TrimPrefix(head, []byte("\ufeff")), "\r\n")
		if s.csv, err = parseHeader(row); err != nil {
			return fmt.Errorf("file: %s:1: %w", s.path, err)
		}
	}
	return nil
}

// readChecked reads the first and the last bytes before the position, and returns the file's size. Of a compressed file that is
// what was read of its text, which goes on at the position.
func (s *split) readChecked(head, tail []byte) (size int64, err error) {
	if s.text != nil {
		err := s.text.skip(s.from.offset, head, tail)
		return s.text.at, err
	}
	info, err := s.f.Stat()
	if err != nil {
		return 0, fmt.Errorf("file: %w", err)
	}
	if info.Size() < s.from.offset {
		return info.Size(), nil
	}
	if err := s.readFull(head, 0); err != nil {
		return 0, err
	}
	return info.Size(), s.readFull(tail, s.from.offset-int64(len(tail)))
}

func (s *split) readFull(b []byte, at int64) error {
	if _, err := s.f.ReadAt(b, at); err != nil && (len(b) > 0 || !errors.Is(err, io.EOF)) {
		return failed("read", s.path, err)
	}
	return nil
}

// close gives the file and the block back; open goes on where reading stopped.
func (s *split) close() {
	if s.f == nil {
		return
	}
	if s.started || s.at > 0 {
		s.from, s.started = s.place(), true
	}
	if s.text != nil {
		_ = s.text.r.Close() // as the file's
	}
	_ = s.f.Close() // it was only read
	s.f, s.text, s.block = nil, nil, nil
}

// place returns the position behind what has been read. It is exact whenever read has just returned.
func (s *split) place() position {
	p := position{offset: s.base + int64(s.at), line: s.line, head: s.head, headN: s.headN}
	if s.format != CSV && s.base == 0 && s.headN < checkBytes {
		p.headN = uint32(min(checkBytes, s.at))
		p.head = checksum(s.block[:p.headN])
		s.head, s.headN = p.head, p.headN
	}
	if s.follow != nil {
		p.id = s.follow.id
	}
	p.tailN = uint8(min(checkBytes, s.at))
	p.tail = checksum(s.block[s.at-int(p.tailN) : s.at])
	return p
}

func (s *split) position() []byte { return s.place().encode() }

// refill reads a new block, which begins with what is left of the old one.
func (s *split) refill() error {
	rest := s.block[s.at:]
	size := max(blockBytes, 2*len(rest))
	block := make([]byte, len(rest), size)
	copy(block, rest)
	s.base, s.at = s.base+int64(s.at), 0
	if s.text != nil {
		n, err := s.text.read(block[len(rest):size])
		s.block, s.eof = block[:len(rest)+n], errors.Is(err, io.EOF)
		if s.eof {
			return nil
		}
		return err
	}
	n, err := s.f.ReadAt(block[len(rest):size], s.base+int64(len(rest)))
	s.block = block[:len(rest)+n]
	if err == nil {
		return nil
	}
	if !errors.Is(err, io.EOF) {
		return failed("read", s.path, err)
	}
	s.eof = true
	info, err := s.f.Stat()
	if err != nil {
		return fmt.Errorf("file: %w", err)
	}
	if got := s.base + int64(len(s.block)); info.Size() < got {
		return &ChangedError{Path: s.path, Offset: got, Why: fmt.Sprintf("the file has shrunk to %d bytes", info.Size())}
	}
	return nil
}

// read fills c with records up to the end of the block, at least one unless the file has ended.
func (s *split) read(c *jobs.Chunk, rows *rowEncoder) error {
	for len(c.Messages) < c.Max {
		if s.at == len(s.block) && s.eof {
			break
		}
		if s.format != CSV {
			if s.lines(c) {
				break
			}
		} else if stop, err := s.rows(c, rows); err != nil {
			return err
		} else if stop {
			break
		}
		if len(c.Messages) > 0 {
			break // so that the bytes before the position are still at hand
		}
		if len(s.block)-s.at > s.lineBytes {
			return s.tooLong()
		}
		if err := s.refill(); err != nil {
			return err
		}
	}
	if n := len(c.Messages); n > 0 && s.format != CSV && len(c.Messages[n-1].Value) > s.lineBytes {
		s.line = c.Messages[n-1].Offset - 1
		return s.tooLong()
	}
	c.Ended = s.eof && s.at == len(s.block)
	return nil
}

func (s *split) tooLong() error {
	return fmt.Errorf("file: %s:%d: a line of more than %d bytes (line_bytes)", s.path, s.line+1, s.lineBytes)
}

// lines takes lines out of the block until c is full (then it returns true) or a line goes on behind the block.
func (s *split) lines(c *jobs.Chunk) bool {
	block, at, line := s.block, s.at, s.line
	keepBlank := s.format == Lines
	out := c.Messages
	full := false
	for at < len(block) {
		if len(out) >= c.Max {
			full = true
			break
		}
		n := bytes.IndexByte(block[at:], '\n')
		next := at + n + 1
		if n < 0 {
			if !s.eof {
				break
			}
			n, next = len(block)-at, len(block)
		}
		v := block[at : at+n : at+n]
		if n > 0 && v[n-1] == '\r' {
			v = v[: n-1 : n-1]
		}
		at = next
		line++
		if len(v) > s.lineBytes {
			out = append(out, jobs.Message{Value: v, Offset: line}) // read turns it into an error
			full = true
			break
		}
		if !keepBlank && blank(v) {
			continue
		}
		out = append(out, jobs.Message{Value: v, Time: jobs.NoTime, Offset: line})
	}
	c.Messages, s.at, s.line = out, at, line
	return full || len(out) >= c.Max
}

func blank(v []byte) bool {
	for _, b := range v {
		if b != ' ' && b != '\t' && b != '\r' {
			return false
		}
	}
	return true
}
