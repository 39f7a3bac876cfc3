package value

import (
	"bytes"
	"unicode/utf16"
	"unicode/utf8"
	"unsafe"
)

// The functions of this file read JSON that has been checked; a mistake in it is our own bug.

func bytesOf(s string) []byte { return unsafe.Slice(unsafe.StringData(s), len(s)) }

// ofText returns the value of a checked JSON text without space around it.
func ofText(s string, a *Arena) Value {
	if s[0] == '{' || s[0] == '[' {
		return ofRaw(s)
	}
	v, _ := readValue(bytesOf(s), 0, a)
	return v
}

// Parse returns the value of a JSON text, checked as [Decoder.Decode] does. It aliases b.
func Parse(b []byte, a *Arena) (Value, error) {
	text, err := check(b, a)
	if err != nil {
		return Value{}, err
	}
	return ofText(text, a), nil
}

// check checks b and returns it without space around it and without line breaks between its tokens.
func check(b []byte, a *Arena) (string, error) {
	if len(b) > MaxBytes {
		return "", &SyntaxError{Offset: MaxBytes, Msg: "the text is too long"}
	}
	start := skipSpace(b, 0)
	end := skipValue(b, start, 0)
	if end < 0 {
		return "", explain(b, ^end)
	}
	if rest := skipSpace(b, end); rest < len(b) {
		return "", explain(b, rest)
	}
	return oneLine(b[start:end], a), nil
}

// oneLine returns b as a string, compacted if it has line breaks; within strings they are escaped, so these are between.
func oneLine(b []byte, a *Arena) string {
	if hasBreak(b) {
		return compact(b, a)
	}
	return unsafe.String(unsafe.SliceData(b), len(b))
}

func hasBreak(b []byte) bool { return bytes.IndexByte(b, '\n') >= 0 || bytes.IndexByte(b, '\r') >= 0 }

func compact(b []byte, a *Arena) string {
	out := a.Room(len(b))
	for i := 0; i < len(b); {
		switch c := b[i]; c {
		case ' ', '\t', '\n', '\r':
			i++
		case '"':
			end, _ := scanString(b, i+1)
			out = append(out, b[i:end]...)
			i = end
		default:
			out = append(out, c)
			i++
		}
	}
	return a.Keep(out)
}

// readValue reads the value at i of a checked text; lists and objects stay undecoded.
func readValue(b []byte, i int, a *Arena) (v Value, end int) {
	switch c := b[i]; c {
	case '"':
		end, flags := scanString(b, i+1)
		return OfString(unescape(b[i+1:end-1], flags, a)), end
	case '{', '[':
		end = skipValue(b, i, 0)
		return ofRaw(unsafe.String(&b[i], end-i)), end
	case 't':
		return OfBool(true), i + 4
	case 'f':
		return OfBool(false), i + 5
	case 'n':
		return Value{}, i + 4
	}
	return scanNumber(b, i)
}

// unescape returns the content of a string literal; it aliases b if nothing in it is escaped.
func unescape(b []byte, flags textFlags, a *Arena) string {
	if flags&hasEscape == 0 {
		return unsafe.String(unsafe.SliceData(b), len(b))
	}
	out := a.Room(len(b) + utf8.UTFMax)
	for i := 0; i < len(b); {
		c := b[i]
		if c != '\\' {
			out = append(out, c)
			i++
			continue
		}
		c = b[i+1]
		i += 2
		switch c {
		case 'b':
			c = '\b'
		case 'f':
			c = '\f'
		case 'n':
			c = '\n'
		case 'r':
			c = '\r'
		case 't':
			c = '\t'
		case 'u':
			r, n := unescapeRune(b[i:])
			out = utf8.AppendRune(out, r)
			i += n
			continue
		}
		out = append(out, c)
	}
	return a.Keep(out)
}

// unescapeRune reads what stands behind \u: four digits, and a second escape if the two are a surrogate pair.
func unescapeRune(b []byte) (r rune, n int) {
	r, _ = hex4(b[:4])
	if !utf16.IsSurrogate(r) {
		return r, 4
	}
	if len(b) >= 10 && b[4] == '\\' && b[5] == 'u' {
		if low, ok := hex4(b[6:10]); ok {
			if pair := utf16.DecodeRune(r, low); pair != utf8.RuneError {
				return pair, 10
			}
		}
	}
	return utf8.RuneError, 4
}

// rawElems calls f with the elements of a list's text until it returns false.
func rawElems(s string, a *Arena, f func(Value) bool) {
	b := bytesOf(s)
	for i := skipSpace(b, 1); b[i] != ']'; i = skipSpace(b, i) {
		if b[i] == ',' {
			i = skipSpace(b, i+1)
		}
		var v Value
		if v, i = readValue(b, i, a); !f(v) {
			return
		}
	}
}

// rawEach calls f with the name and the text ("name":value) of every field of an object's text, duplicates too.
func rawEach(s string, f func(name, text string) bool) {
	b := bytesOf(s)
	for i := skipSpace(b, 1); b[i] != '}'; i = skipSpace(b, i) {
		if b[i] == ',' {
			i = skipSpace(b, i+1)
		}
		start := i
		end, flags := scanString(b, i+1)
		name := unescape(b[i+1:end-1], flags, nil)
		i = skipSpace(b, end) + 1
		i = skipValue(b, skipSpace(b, i), 0)
		if !f(name, s[start:i]) {
			return
		}
	}
}

// rawMember returns the last field of that name of an object's text.
func rawMember(s, want string, a *Arena) (v Value, ok bool) {
	b := bytesOf(s)
	for i := skipSpace(b, 1); b[i] != '}'; i = skipSpace(b, i) {
		if b[i] == ',' {
			i = skipSpace(b, i+1)
		}
		end, flags := scanString(b, i+1)
		name := unescape(b[i+1:end-1], flags, nil)
		i = skipSpace(b, skipSpace(b, end)+1)
		if name == want {
			v, i = readValue(b, i, a)
			ok = true
			continue
		}
		i = skipValue(b, i, 0)
	}
	return v, ok
}

// rawFields decodes the first level of an object's text; of fields of one name the last one stays.
func rawFields(s string, a *Arena) Value {
	var names []string
	var vals []Value
	b := bytesOf(s)
	var at map[string]int // made once the object has more fields than a search should go through
	for i := skipSpace(b, 1); b[i] != '}'; i = skipSpace(b, i) {
		if b[i] == ',' {
			i = skipSpace(b, i+1)
		}
		end, flags := scanString(b, i+1)
		name := unescape(b[i+1:end-1], flags, a)
		var v Value
		v, i = readValue(b, skipSpace(b, skipSpace(b, end)+1), a)
		if len(names) == 16 {
			at = map[string]int{}
			for j, n := range names {
				at[n] = j
			}
		}
		if j := placeOf(names, at, name); j >= 0 {
			vals[j] = v
			continue
		}
		if at != nil {
			at[name] = len(names)
		}
		names, vals = append(names, name), append(vals, v)
	}
	return OfObject(names, vals)
}

func placeOf(names []string, at map[string]int, name string) int {
	if at != nil {
		if i, ok := at[name]; ok {
			return i
		}
		return -1
	}
	for i, n := range names {
		if n == name {
			return i
		}
	}
	return -1
}
