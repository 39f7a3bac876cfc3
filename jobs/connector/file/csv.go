package file

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"unicode/utf8"

	"github.com/sidestream-dev/sidestream/jobs"
)

// csvErrorHeader names, on a record that is not what its header says, the reason.
const csvErrorHeader = "csv-error"

// header is a csv file's first record, ready to be put before fields.
type header struct {
	keys  [][]byte // `{"a":"`, then `","b":"`
	bytes int      // of all keys
}

func parseHeader(row []byte) (*header, error) {
	fields, err := splitRow(row)
	if err != nil {
		return nil, fmt.Errorf("csv header: %w", err)
	}
	h := &header{}
	var names [][]byte
	for i, name := range fields {
		if slices.ContainsFunc(names, func(n []byte) bool { return bytes.Equal(n, name) }) {
			return nil, fmt.Errorf("csv header: two columns are called %q", name)
		}
		names = append(names, name)
		key := []byte(`","`)
		if i == 0 {
			key = []byte(`{"`)
		}
		key = append(appendText(key, name), `":"`...)
		h.keys = append(h.keys, key)
		h.bytes += len(key)
	}
	return h, nil
}

// rowEncoder makes JSON objects of csv records, many to one piece of memory.
type rowEncoder struct{ buf []byte }

// encode returns the object of a record. It does not keep row.
func (e *rowEncoder) encode(h *header, row []byte) ([]byte, error) {
	need := h.bytes + 6*len(row) + 2 // a byte becomes \u00XX at most
	if cap(e.buf)-len(e.buf) < need {
		e.buf = make([]byte, 0, max(blockBytes, need))
	}
	start := len(e.buf)
	out, n := e.buf, 0
	for rest, more := row, true; more; n++ {
		if n == len(h.keys) {
			return nil, fmt.Errorf("the record has %d fields or more, the header %d", n+1, len(h.keys))
		}
		out = append(out, h.keys[n]...)
		if len(rest) > 0 && rest[0] == '"' {
			field, after, err := quoted(rest)
			if err != nil {
				return nil, err
			}
			out = appendText(out, field)
			rest, more = after, len(after) > 0
			if more {
				rest = rest[1:]
			}
			continue
		}
		i := bytes.IndexByte(rest, ',')
		if i < 0 {
			out, more = appendText(out, rest), false
			continue
		}
		out, rest = appendText(out, rest[:i]), rest[i+1:]
	}
	if n < len(h.keys) {
		return nil, fmt.Errorf("the record has %d fields, the header %d", n, len(h.keys))
	}
	e.buf = append(out, '"', '}')
	return e.buf[start:len(e.buf):len(e.buf)], nil
}

func splitRow(row []byte) ([][]byte, error) {
	var out [][]byte
	for {
		if len(row) > 0 && row[0] == '"' {
			field, after, err := quoted(row)
			if err != nil {
				return nil, err
			}
			out = append(out, field)
			if len(after) == 0 {
				return out, nil
			}
			row = after[1:]
			continue
		}
		i := bytes.IndexByte(row, ',')
		if i < 0 {
			return append(out, row), nil
		}
		out, row = append(out, row[:i]), row[i+1:]
	}
}

var errQuote = errors.New("a quoted field is not closed, or goes on behind its closing quote")

// quoted returns the field that begins with a quote and what stands behind its closing one: nothing, or a comma first.
func quoted(b []byte) (field, after []byte, err error) {
	var copied []byte
	from := 1
	for {
		i := bytes.IndexByte(b[from:], '"')
		if i < 0 {
			return nil, nil, errQuote
		}
		end := from + i
		if end+1 < len(b) && b[end+1] == '"' {
			copied = append(copied, b[from:end+1]...)
			from = end + 2
			continue
		}
		if end+1 < len(b) && b[end+1] != ',' {
			return nil, nil, errQuote
		}
		field = b[from:end]
		if copied != nil {
			field = append(copied, field...)
		}
		return field, b[end+1:], nil
	}
}

// rowEnd returns the length of the record at the beginning of b without its line end and with it, and its lines. more is
// true where b ends inside the record.
func rowEnd(b []byte, eof bool) (n, next int, lines int64, more bool) {
	nl := bytes.IndexByte(b, '\n')
	if nl >= 0 && bytes.IndexByte(b[:nl], '"') < 0 {
		return nl, nl + 1, 1, false
	}
	for i := 0; i < len(b); {
		if b[i] == '"' { // a field begins here
			i++
			for {
				q := bytes.IndexByte(b[i:], '"')
				if q < 0 {
					return len(b), len(b), lines, true
				}
				lines += int64(bytes.Count(b[i:i+q], []byte{'\n'}))
				i += q + 1
				if i < len(b) && b[i] == '"' {
					i++
					continue
				}
				break
			}
		}
		for i < len(b) && b[i] != ',' && b[i] != '\n' {
			i++
		}
		if i < len(b) && b[i] == '\n' {
			return i, i + 1, lines + 1, false
		}
		i++ // the comma
	}
	return len(b), len(b), lines + 1, !eof
}

// nextRow takes the next record out of the block, reading on as needed. ok is false at the end of the file.
func (s *split) nextRow() (row []byte, ok bool, err error) {
	for {
		b := s.block[s.at:]
		if len(b) == 0 && s.eof {
			return nil, false, nil
		}
		n, next, lines, more := rowEnd(b, s.eof)
		if len(b) > 0 && !more {
			if n > s.lineBytes {
				return nil, false, s.tooLong()
			}
			row = b[:n:n]
			if n > 0 && row[n-1] == '\r' {
				row = row[: n-1 : n-1]
			}
			s.at += next
			s.line += lines
			return row, true, nil
		}
		if len(b) > s.lineBytes {
			return nil, false, s.tooLong()
		}
		if s.eof {
			return nil, false, fmt.Errorf("file: %s:%d: a quoted field that begins in this record is not closed", s.path, s.line+1)
		}
		if err := s.refill(); err != nil {
			return nil, false, err
		}
	}
}

// rows takes csv records out of the block until c is full (then it returns true) or a record goes on behind the block.
func (s *split) rows(c *jobs.Chunk, enc *rowEncoder) (full bool, err error) {
	for len(c.Messages) < c.Max {
		b := s.block[s.at:]
		if len(b) == 0 {
			return false, nil
		}
		n, next, lines, more := rowEnd(b, s.eof)
		if more {
			if s.eof {
				_, _, err = s.nextRow() // for its error
			}
			return false, err
		}
		if n > s.lineBytes {
			return false, s.tooLong()
		}
		row := b[:n:n]
		if n > 0 && row[n-1] == '\r' {
			row = row[: n-1 : n-1]
		}
		m := jobs.Message{Time: jobs.NoTime, Offset: s.line + 1}
		s.at += next
		s.line += lines
		if s.csv == nil && s.follow != nil && s.base == 0 && s.headN == 0 {
			if s.csv, err = parseHeader(bytes.TrimPrefix(row, []byte("\ufeff"))); err != nil {
				return false, fmt.Errorf("file: %s:1: %w", s.path, err)
			}
			s.headN, s.head = uint32(s.at), checksum(s.block[:s.at])
			continue
		}
		if len(row) == 0 {
			continue
		}
		if s.csv == nil { // the file was only a header's beginning when its position was taken
			return false, fmt.Errorf("file: %s:%d: a record without a header", s.path, m.Offset)
		}
		if m.Value, err = enc.encode(s.csv, row); err != nil {
			m.Value = notJSON(row)
			m.Headers = []jobs.Header{{Name: csvErrorHeader, Value: []byte(err.Error())}}
			err = nil
		}
		c.Messages = append(c.Messages, m)
	}
	return true, nil
}

// notJSON returns row, with a comma behind it if it would else be a JSON value.
func notJSON(row []byte) []byte {
	if json.Valid(row) {
		return append(bytes.Clone(row), ',')
	}
	return row
}

// appendText appends s as the inside of a JSON string; bytes that are not UTF-8 become U+FFFD.
func appendText(dst, s []byte) []byte {
	from := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= ' ' && c != '"' && c != '\\' && c < utf8.RuneSelf {
			i++
			continue
		}
		if c >= utf8.RuneSelf {
			r, n := utf8.DecodeRune(s[i:])
			if r != utf8.RuneError || n > 1 {
				i += n
				continue
			}
		}
		dst = append(dst, s[from:i]...)
		switch {
		case c >= utf8.RuneSelf:
			dst = append(dst, "\ufffd"...)
		case c == '"' || c == '\\':
			dst = append(dst, '\\', c)
		case c == '\n':
			dst = append(dst, '\\', 'n')
		case c == '\r':
			dst = append(dst, '\\', 'r')
		case c == '\t':
			dst = append(dst, '\\', 't')
		default:
			const hex = "0123456789abcdef"
			dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		}
		i++
		from = i
	}
	return append(dst, s[from:]...)
}
