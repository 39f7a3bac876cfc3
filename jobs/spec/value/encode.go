package value

import (
	"errors"
	"math"
	"slices"
	"strconv"
	"unicode/utf8"
	"unsafe"
)

// ErrNotFinite is a NaN or an infinity, which JSON cannot say.
var ErrNotFinite = errors.New("NaN and infinities are no JSON")

var errNoValue = errors.New("there is no value to encode")

// AppendJSON appends v as JSON on one line. It fails with [ErrNotFinite], or with [ErrTime] for a time out of range.
func AppendJSON(dst []byte, v Value) ([]byte, error) {
	switch v.k {
	case Nil:
		return append(dst, "null"...), nil
	case Bool:
		return strconv.AppendBool(dst, v.Bool()), nil
	case Int:
		return strconv.AppendInt(dst, v.Int(), 10), nil
	case Float:
		f := v.Float()
		if math.IsNaN(f) || math.IsInf(f, 0) {
			return dst, ErrNotFinite
		}
		return appendFloat(dst, f), nil
	case String:
		return AppendString(dst, v.Text()), nil
	case Time:
		b, err := AppendTime(append(dst, '"'), v.Int())
		return append(b, '"'), err
	case List:
		return appendList(dst, v.list())
	case Object:
		o := v.object()
		return appendFields(dst, o.names, o.vals)
	case rawList, rawObject:
		return append(dst, v.raw()...), nil
	}
	return dst, errNoValue
}

func appendList(dst []byte, vals []Value) ([]byte, error) {
	dst = append(dst, '[')
	for i, e := range vals {
		if i > 0 {
			dst = append(dst, ',')
		}
		var err error
		if dst, err = AppendJSON(dst, e); err != nil {
			return dst, err
		}
	}
	return append(dst, ']'), nil
}

func appendFields(dst []byte, names []string, vals []Value) ([]byte, error) {
	dst = append(dst, '{')
	for i, n := range names {
		if i > 0 {
			dst = append(dst, ',')
		}
		var err error
		if dst, err = AppendJSON(append(AppendString(dst, n), ':'), vals[i]); err != nil {
			return dst, err
		}
	}
	return append(dst, '}'), nil
}

// AppendString appends s as a JSON string. What is not UTF-8 in s becomes U+FFFD; HTML is not escaped.
func AppendString(dst []byte, s string) []byte {
	dst = append(dst, '"')
	b := unsafe.Slice(unsafe.StringData(s), len(s))
	i := 0
	for ; i+8 <= len(b); i += 8 {
		if special(load(b, i)) != 0 {
			break
		}
	}
	for ; i < len(b); i++ {
		if c := b[i]; c < 0x20 || c >= 0x80 || c == '"' || c == '\\' {
			return append(appendEscaped(append(dst, s[:i]...), s[i:]), '"')
		}
	}
	return append(append(dst, s...), '"')
}

func appendEscaped(dst []byte, s string) []byte {
	const digits = "0123456789abcdef"
	for i := 0; i < len(s); {
		c := s[i]
		if c >= 0x80 {
			r, n := utf8.DecodeRuneInString(s[i:])
			dst = utf8.AppendRune(dst, r)
			i += n
			continue
		}
		i++
		switch {
		case c == '"' || c == '\\':
			dst = append(dst, '\\', c)
		case c >= 0x20:
			dst = append(dst, c)
		case c == '\n':
			dst = append(dst, '\\', 'n')
		case c == '\r':
			dst = append(dst, '\\', 'r')
		case c == '\t':
			dst = append(dst, '\\', 't')
		default:
			dst = append(dst, '\\', 'u', '0', '0', digits[c>>4], digits[c&15])
		}
	}
	return dst
}

// AppendJSON appends the row's value as JSON on one line: the bytes it came in, if it came as JSON.
func (r *Row) AppendJSON(dst []byte) ([]byte, error) {
	if r.shape == nil {
		return append(dst, "null"...), nil
	}
	switch r.shape.kind {
	case shapeJSON:
		return append(dst, r.raw...), nil
	case shapeObject:
		return appendFields(dst, r.shape.names, r.all())
	case shapeOver:
		return r.appendOver(dst)
	}
	return AppendJSON(dst, r.Value(nil))
}

// appendOver splices the set fields into the object the row came in: in place where it has a field of that name,
// behind the last field where it has none.
func (r *Row) appendOver(dst []byte) ([]byte, error) {
	s := r.shape
	vals := r.all()[s.base.slots:]
	dst = append(dst, '{')
	first := len(dst)
	var written uint64 // bit i: names[i] stands already; more than 64 set fields are rare and found by the loop below
	var err error
	rawEach(r.raw, func(name string, text string) bool {
		i := slices.Index(s.names, name)
		if i >= 0 && i < 64 && written&(1<<i) != 0 {
			return true // a duplicate name: the set value stands once
		}
		if i >= 64 {
			return true
		}
		if len(dst) > first {
			dst = append(dst, ',')
		}
		if i < 0 {
			dst = append(dst, text...)
			return true
		}
		written |= 1 << i
		dst, err = AppendJSON(append(AppendString(dst, name), ':'), vals[i])
		return err == nil
	})
	for i, name := range s.names {
		if err != nil || i < 64 && written&(1<<i) != 0 {
			continue
		}
		if len(dst) > first {
			dst = append(dst, ',')
		}
		dst, err = AppendJSON(append(AppendString(dst, name), ':'), vals[i])
	}
	return append(dst, '}'), err
}
