package value

import (
	"errors"
	"slices"
	"unicode/utf8"
	"unsafe"
)

// OfText returns b as a String; bytes that are not UTF-8 become U+FFFD, so that the value can be written as JSON.
func OfText(b []byte) Value {
	if utf8.Valid(b) {
		return OfBytes(b)
	}
	return OfString(string([]rune(string(b))))
}

// ErrNotUTF8 is a line or a CSV record that is not UTF-8.
var ErrNotUTF8 = errors.New("the text is not UTF-8")

// DecodeLine returns the row whose value is the string line. It aliases line.
func DecodeLine(line []byte) (Row, error) {
	if !utf8.Valid(line) {
		return Row{}, ErrNotUTF8
	}
	return OfLine(unsafe.String(unsafe.SliceData(line), len(line))), nil
}

// CSV decodes records of RFC 4180 to objects of strings, named by a header. It is safe for concurrent use.
type CSV struct {
	names []string
	want  []int // column → slot, -1 for one that nobody reads
	shape *Shape
}

// NewCSV returns a decoder for records with this header, whose rows have a slot for every wanted column.
func NewCSV(header []string, wanted [][]string) (*CSV, error) {
	c := &CSV{names: slices.Clone(header), want: make([]int, len(header))}
	var paths [][]string
	for i, n := range header {
		if slices.Contains(header[:i], n) {
			return nil, errors.New("the header has two columns of one name: " + n)
		}
		c.want[i] = -1
		if slices.ContainsFunc(wanted, func(p []string) bool { return len(p) > 0 && p[0] == n }) {
			c.want[i] = len(paths)
			paths = append(paths, []string{n})
		}
	}
	c.shape = &Shape{kind: shapeCSV, slots: len(paths), paths: paths, csv: c}
	return c, nil
}

// Errors of a CSV record.
var (
	errCSVShort = errors.New("the record has fewer fields than the header")
	errCSVLong  = errors.New("the record has more fields than the header")
	errCSVQuote = errors.New("a quote stands inside a field, or is not closed")
)

// ParseHeader returns the fields of a CSV header line.
func ParseHeader(line []byte) ([]string, error) {
	if !utf8.Valid(line) {
		return nil, ErrNotUTF8
	}
	var names []string
	err := csvFields(line, nil, func(s string) error { names = append(names, s); return nil })
	return names, err
}

// Decode returns the row of one record, without its line end. It aliases line.
func (c *CSV) Decode(line []byte, a *Arena) (Row, error) {
	if !utf8.Valid(line) {
		return Row{}, ErrNotUTF8
	}
	r := Row{shape: c.shape, raw: unsafe.String(unsafe.SliceData(line), len(line))}
	if c.shape.slots > 0 {
		slots := a.Values(c.shape.slots)
		r.slots = unsafe.Pointer(&slots[0])
	}
	col := 0
	err := csvFields(line, a, func(s string) error {
		if col >= len(c.names) {
			return errCSVLong
		}
		if i := c.want[col]; i >= 0 {
			*r.Slot(i) = OfString(s)
		}
		col++
		return nil
	})
	if err == nil && col < len(c.names) {
		err = errCSVShort
	}
	return r, err
}

// object returns a checked record as an object.
func (c *CSV) object(line string, a *Arena) Value {
	vals := make([]Value, 0, len(c.names))
	// The record was checked when it was decoded.
	_ = csvFields(bytesOf(line), a, func(s string) error { vals = append(vals, OfString(s)); return nil })
	return OfObject(c.names, vals)
}

// csvFields calls f with every field of a record.
func csvFields(b []byte, a *Arena, f func(string) error) error {
	for i := 0; ; i++ {
		var s string
		if i < len(b) && b[i] == '"' {
			end, quotes := i+1, 0
			for end < len(b) && (b[end] != '"' || end+1 < len(b) && b[end+1] == '"') {
				if b[end] == '"' {
					end, quotes = end+1, quotes+1
				}
				end++
			}
			if end >= len(b) || end+1 < len(b) && b[end+1] != ',' {
				return errCSVQuote
			}
			s = csvUnquote(b[i+1:end], quotes, a)
			i = end + 1
		} else {
			start := i
			for i < len(b) && b[i] != ',' {
				if b[i] == '"' {
					return errCSVQuote
				}
				i++
			}
			s = unsafe.String(unsafe.SliceData(b[start:i]), i-start)
		}
		if err := f(s); err != nil {
			return err
		}
		if i >= len(b) {
			return nil
		}
	}
}

func csvUnquote(b []byte, quotes int, a *Arena) string {
	if quotes == 0 {
		return unsafe.String(unsafe.SliceData(b), len(b))
	}
	out := a.Room(len(b))
	for i := 0; i < len(b); i++ {
		if out = append(out, b[i]); b[i] == '"' {
			i++
		}
	}
	return a.Keep(out)
}
