package value

import (
	"errors"
	"math"
	"slices"
	"strconv"
)

// ErrNilKey is the error of a record whose key is nil.
var ErrNilKey = errors.New("the key is nil")

// AppendKey appends the canonical encoding of a key: JSON without spaces, names sorted, a float with an integral value
// that fits int64 as that integer. Values that are [Equal] have the same encoding, others have not. It fails with
// [ErrNilKey], [ErrNotFinite] or [ErrTime].
func AppendKey(dst []byte, v Value) ([]byte, error) {
	if v.k == Nil {
		return dst, ErrNilKey
	}
	return appendCanonical(dst, v)
}

func appendCanonical(dst []byte, v Value) ([]byte, error) {
	switch v.k {
	case Float:
		if i, ok := integral(v.Float()); ok {
			return strconv.AppendInt(dst, i, 10), nil
		}
	case List, rawList:
		v = v.decoded(nil)
		dst = append(dst, '[')
		for i, e := range v.list() {
			if i > 0 {
				dst = append(dst, ',')
			}
			var err error
			if dst, err = appendCanonical(dst, e); err != nil {
				return dst, err
			}
		}
		return append(dst, ']'), nil
	case Object, rawObject:
		return appendSorted(dst, v.decoded(nil).object())
	}
	return AppendJSON(dst, v)
}

func appendSorted(dst []byte, o *object) ([]byte, error) {
	order := make([]int, len(o.names))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int {
		if o.names[a] < o.names[b] {
			return -1
		}
		return 1
	})
	dst = append(dst, '{')
	for n, i := range order {
		if n > 0 {
			dst = append(dst, ',')
		}
		var err error
		if dst, err = appendCanonical(append(AppendString(dst, o.names[i]), ':'), o.vals[i]); err != nil {
			return dst, err
		}
	}
	return append(dst, '}'), nil
}

// integral returns f as an integer if it is one that fits.
func integral(f float64) (int64, bool) {
	if f != math.Trunc(f) || f >= 1<<63 || f < -(1<<63) {
		return 0, false
	}
	return int64(f), true
}

// DecodeKey returns the value of an encoded key. It aliases key. A key that is no JSON, as another writer may have made
// it, is the string of its bytes, or none if they are not UTF-8.
func DecodeKey(key []byte, a *Arena) Value {
	if len(key) == 0 {
		return Value{}
	}
	if key[0] == '"' { // by far the most
		if end, flags := scanString(key, 1); end == len(key) {
			return OfString(unescape(key[1:end-1], flags, a))
		}
	}
	v, err := Parse(key, a)
	if err != nil {
		return OfText(key)
	}
	return v
}

// KeyText returns the bytes that the outside gets for an encoded key: a string's own bytes, JSON for all others. It
// appends to dst.
func KeyText(dst, key []byte) []byte {
	if v := DecodeKey(key, nil); v.k == String {
		return append(dst, v.Text()...)
	}
	return append(dst, key...)
}

// KeyJSON appends an encoded key as JSON.
func KeyJSON(dst, key []byte) []byte {
	b, err := AppendJSON(dst, DecodeKey(key, nil))
	if err != nil {
		return append(dst, "null"...)
	}
	return b
}
