package value

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/bits"
	"unicode/utf8"
	"unsafe"
)

// SyntaxError says where a text stops being JSON.
type SyntaxError struct {
	Offset int    // bytes from the start of the text
	Msg    string // what does not hold there
}

func (e *SyntaxError) Error() string { return fmt.Sprintf("not JSON at byte %d: %s", e.Offset, e.Msg) }

// The scanner's functions take the text and a place in it and return the place behind what they read, or bad(place) for
// a text that is wrong there. A failed scan is told apart by its sign, so that the good path carries no error value.
func bad(i int) int { return ^i }

const (
	ones  = 0x0101010101010101
	highs = 0x8080808080808080
)

// skipSpace returns the place of the next byte that is no space; it is called with a space at i, or at the end.
func skipSpace(b []byte, i int) int {
	for i < len(b) && (b[i] == ' ' || b[i] == '\n' || b[i] == '\t' || b[i] == '\r') {
		i++
	}
	return i
}

// What a string holds beside plain ASCII.
type textFlags uint8

const (
	hasEscape textFlags = 1 << iota
	hasWide             // bytes of 0x80 and more
)

// scanString reads a string whose opening quote stands before i, eight bytes at a time.
func scanString(b []byte, i int) (end int, flags textFlags) {
	start := i
	for i+8 <= len(b) {
		m := special(load(b, i))
		if m == 0 {
			i += 8
			continue
		}
		i += bits.TrailingZeros64(m) >> 3
		if b[i] == '"' {
			return i + 1, 0
		}
		break
	}
	return scanStringSlow(b, start, i)
}

// load returns the eight bytes at i, the first lowest. The caller has checked that i+8 is not past the end.
func load(b []byte, i int) uint64 {
	return binary.LittleEndian.Uint64((*[8]byte)(unsafe.Add(unsafe.Pointer(unsafe.SliceData(b)), i))[:])
}

// special marks, in the high bit of its byte, the lowest of w's bytes that is a quote, a backslash, a control character
// or wide; marks above it may be wrong.
func special(w uint64) uint64 {
	q, e := w^(ones*'"'), w^(ones*'\\')
	return ((q - ones) | (e - ones) | (w - ones*0x20) | w) & highs
}

// noDigit marks likewise the lowest of w's bytes that is no digit.
func noDigit(w uint64) uint64 {
	x := w ^ (ones * '0')
	return ((x + ones*0x76) | x) & highs
}

// skipDigits returns the place behind the digits at i.
func skipDigits(b []byte, i int) int {
	for i+8 <= len(b) {
		if m := noDigit(load(b, i)); m != 0 {
			return i + bits.TrailingZeros64(m)>>3
		}
		i += 8
	}
	for i < len(b) && b[i]-'0' <= 9 {
		i++
	}
	return i
}

func scanStringSlow(b []byte, start, i int) (end int, flags textFlags) {
	for i < len(b) {
		switch c := b[i]; {
		case c == '"':
			if flags&hasWide != 0 && !utf8.Valid(b[start:i]) {
				return bad(start), flags
			}
			return i + 1, flags
		case c == '\\':
			n := scanEscape(b, i)
			if n < 0 {
				return n, flags
			}
			i, flags = n, flags|hasEscape
		case c < 0x20:
			return bad(i), flags
		case c >= 0x80:
			i, flags = i+1, flags|hasWide
		default:
			i++
		}
	}
	return bad(i), flags
}

// scanEscape reads an escape whose backslash is at i.
func scanEscape(b []byte, i int) int {
	if i+1 >= len(b) {
		return bad(i)
	}
	switch b[i+1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return i + 2
	case 'u':
		if i+6 > len(b) {
			return bad(i)
		}
		if _, ok := hex4(b[i+2 : i+6]); ok {
			return i + 6
		}
	}
	return bad(i)
}

func hex4(b []byte) (r rune, ok bool) {
	for _, c := range b {
		switch {
		case '0' <= c && c <= '9':
			c -= '0'
		case 'a' <= c && c <= 'f':
			c -= 'a' - 10
		case 'A' <= c && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	return r, true
}

// skipValue reads the value at i, whatever it is; depth is how many lists and objects are open around it.
func skipValue(b []byte, i, depth int) int {
	if i >= len(b) {
		return bad(i)
	}
	switch c := b[i]; {
	case c == '"':
		i, _ = scanString(b, i+1)
		return i
	case c-'0' <= 9 || c == '-':
		return skipNumber(b, i)
	case c == '{':
		return skipObject(b, i+1, depth+1)
	case c == '[':
		return skipList(b, i+1, depth+1)
	}
	return skipWord(b, i)
}

func skipWord(b []byte, i int) int {
	switch rest := b[i:]; {
	case len(rest) >= 4 && string(rest[:4]) == "true", len(rest) >= 4 && string(rest[:4]) == "null":
		return i + 4
	case len(rest) >= 5 && string(rest[:5]) == "false":
		return i + 5
	}
	return bad(i)
}

func skipList(b []byte, i, depth int) int {
	if depth > MaxDepth {
		return bad(i - 1)
	}
	if i = skipSpace(b, i); i < len(b) && b[i] == ']' {
		return i + 1
	}
	for {
		if i = skipValue(b, skipSpace(b, i), depth); i < 0 {
			return i
		}
		i = skipSpace(b, i)
		switch {
		case i >= len(b):
			return bad(i)
		case b[i] == ']':
			return i + 1
		case b[i] != ',':
			return bad(i)
		}
		i++
	}
}

func skipObject(b []byte, i, depth int) int {
	if depth > MaxDepth {
		return bad(i - 1)
	}
	if i = skipSpace(b, i); i < len(b) && b[i] == '}' {
		return i + 1
	}
	for {
		if i = skipName(b, skipSpace(b, i)); i < 0 {
			return i
		}
		if i = skipValue(b, skipSpace(b, i), depth); i < 0 {
			return i
		}
		i = skipSpace(b, i)
		switch {
		case i >= len(b):
			return bad(i)
		case b[i] == '}':
			return i + 1
		case b[i] != ',':
			return bad(i)
		}
		i++
	}
}

// skipName reads a field's name and its colon.
func skipName(b []byte, i int) int {
	if i >= len(b) || b[i] != '"' {
		return bad(i)
	}
	i, _ = scanString(b, i+1)
	if i < 0 {
		return i
	}
	if i = skipSpace(b, i); i >= len(b) || b[i] != ':' {
		return bad(i)
	}
	return i + 1
}

// explain says in words what is wrong at i.
func explain(b []byte, i int) *SyntaxError {
	e := &SyntaxError{Offset: i}
	switch {
	case i >= len(b):
		e.Msg = "the text ends too early"
	case b[i] < 0x20:
		e.Msg = fmt.Sprintf("unexpected control character 0x%02x", b[i])
	case b[i] == '\\':
		e.Msg = "unknown escape"
	case (b[i] == '{' || b[i] == '[') && skipDepth(b[:i+1]) > MaxDepth:
		e.Msg = fmt.Sprintf("nested deeper than %d", MaxDepth)
	default:
		e.Msg = explainByte(b, i)
	}
	return e
}

func explainByte(b []byte, i int) string {
	if c := b[i]; (c-'0' <= 9 || c == '-') && valueStarts(b[:i]) {
		return "not a number, or one out of range"
	}
	if i > 0 && b[i-1] == '"' {
		if end := nextQuote(b, i); !utf8.Valid(b[i:end]) {
			return "a string that is not UTF-8"
		}
	}
	r, _ := utf8.DecodeRune(b[i:])
	return fmt.Sprintf("unexpected %q", r)
}

// valueStarts reports whether a value may follow b, a prefix of JSON.
func valueStarts(b []byte) bool {
	b = bytes.TrimRight(b, " \t\r\n")
	return len(b) == 0 || bytes.IndexByte([]byte(":,["), b[len(b)-1]) >= 0
}

func nextQuote(b []byte, i int) int {
	for i < len(b) && b[i] != '"' {
		i++
	}
	return i
}

// skipDepth counts what is open at the end of b, a prefix of JSON.
func skipDepth(b []byte) int {
	n := 0
	for i := 0; i < len(b); i++ {
		switch b[i] {
		case '{', '[':
			n++
		case '}', ']':
			n--
		case '"':
			end, _ := scanString(b, i+1)
			if end < 0 {
				return n
			}
			i = end - 1
		}
	}
	return n
}
