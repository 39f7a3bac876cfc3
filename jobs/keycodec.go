package jobs

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
	"unsafe"
)

// Keys are encoded as canonical JSON: no spaces, names sorted, strings with the escapes \" \\ \n \r \t \u00xx and no
// others, a float with an integral value that fits int64 as that integer. So equal keys have equal bytes, a number and
// a string are never the same key, and jobs written in Go and in YAML mean the same by one.

// ErrKey is a key that has no encoding: nil, NaN, infinite, an unsigned number beyond int64.
var ErrKey = errors.New("not a key")

// KeyCodec encodes and decodes keys of one Go type: strings, numbers, bools, structs of them by their JSON names, and
// whatever else encoding/json writes as other than null. A struct's every field counts.
type KeyCodec[K any] struct{ append keyAppender }

// keyAppender appends the encoding of the key at p.
type keyAppender func(dst []byte, p unsafe.Pointer) ([]byte, error)

// NewKeyCodec returns the codec of K.
func NewKeyCodec[K any]() KeyCodec[K] {
	t := reflect.TypeFor[K]()
	return KeyCodec[K]{append: compileKey(t)}
}

// Append appends the encoding of k to dst. An error wraps [ErrKey] or is encoding/json's.
func (c KeyCodec[K]) Append(dst []byte, k K) ([]byte, error) {
	switch k := any(k).(type) {
	case string:
		return appendKeyString(dst, k), nil
	case int64:
		return strconv.AppendInt(dst, k, 10), nil
	}
	return c.appendAny(dst, k)
}

// appendAny is by itself because its k is allocated.
//
//go:noinline
func (c KeyCodec[K]) appendAny(dst []byte, k K) ([]byte, error) {
	return c.append(dst, unsafe.Pointer(&k))
}

// Decode returns the key with an encoding; it has memory of its own.
func (c KeyCodec[K]) Decode(encoded []byte) (k K, err error) {
	switch p := any(&k).(type) {
	case *string:
		if n := len(encoded); n >= 2 && encoded[0] == '"' && encoded[n-1] == '"' && bytes.IndexByte(encoded, '\\') < 0 {
			*p = string(encoded[1 : n-1])
			return k, nil
		}
	case *int64:
		if *p, err = strconv.ParseInt(unsafe.String(unsafe.SliceData(encoded), len(encoded)), 10, 64); err == nil {
			return k, nil
		}
	case *int:
		if *p, err = strconv.Atoi(unsafe.String(unsafe.SliceData(encoded), len(encoded))); err == nil {
			return k, nil
		}
	}
	if err := json.Unmarshal(encoded, &k); err != nil {
		return k, fmt.Errorf("key %s is no %T: %w", encoded, k, err)
	}
	return k, nil
}

var jsonMarshaler, textMarshaler = reflect.TypeFor[json.Marshaler](), reflect.TypeFor[interface{ MarshalText() ([]byte, error) }]()

func compileKey(t reflect.Type) keyAppender {
	if t.Implements(jsonMarshaler) || t.Implements(textMarshaler) {
		return slowKey(t)
	}
	switch t.Kind() {
	case reflect.String:
		return func(dst []byte, p unsafe.Pointer) ([]byte, error) { return appendKeyString(dst, *(*string)(p)), nil }
	case reflect.Bool:
		return func(dst []byte, p unsafe.Pointer) ([]byte, error) { return strconv.AppendBool(dst, *(*bool)(p)), nil }
	case reflect.Int, reflect.Int64:
		return func(dst []byte, p unsafe.Pointer) ([]byte, error) {
			return strconv.AppendInt(dst, *(*int64)(p), 10), nil
		}
	case reflect.Int32:
		return func(dst []byte, p unsafe.Pointer) ([]byte, error) {
			return strconv.AppendInt(dst, int64(*(*int32)(p)), 10), nil
		}
	case reflect.Int8, reflect.Int16, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint, reflect.Uint64:
		return func(dst []byte, p unsafe.Pointer) ([]byte, error) {
			v := reflect.NewAt(t, p).Elem()
			if v.CanInt() {
				return strconv.AppendInt(dst, v.Int(), 10), nil
			}
			if v.Uint() > math.MaxInt64 {
				return dst, fmt.Errorf("%w: %d is more than an int64 holds", ErrKey, v.Uint())
			}
			return strconv.AppendUint(dst, v.Uint(), 10), nil
		}
	case reflect.Float64:
		return func(dst []byte, p unsafe.Pointer) ([]byte, error) { return appendKeyFloat(dst, *(*float64)(p)) }
	case reflect.Struct:
		if f, ok := compileKeyStruct(t); ok {
			return f
		}
	}
	return slowKey(t)
}

type keyField struct {
	name   string // with quotes and colon
	offset uintptr
	append keyAppender
}

// compileKeyStruct is for structs whose fields are all plain; others take the slow way.
func compileKeyStruct(t reflect.Type) (keyAppender, bool) {
	var fields []keyField
	for i := range t.NumField() {
		f := t.Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if !f.IsExported() || f.Anonymous || options != "" || name == "-" {
			return nil, false
		}
		switch f.Type.Kind() {
		case reflect.String, reflect.Bool, reflect.Int, reflect.Int32, reflect.Int64, reflect.Float64, reflect.Struct:
		default:
			return nil, false
		}
		if name == "" {
			name = f.Name
		}
		fields = append(fields, keyField{name, f.Offset, compileKey(f.Type)})
	}
	slices.SortFunc(fields, func(a, b keyField) int { return strings.Compare(a.name, b.name) })
	for i := range fields {
		if i > 0 && fields[i-1].name == fields[i].name {
			return nil, false
		}
	}
	for i := range fields {
		fields[i].name = string(append(appendKeyString(nil, fields[i].name), ':'))
	}
	return func(dst []byte, p unsafe.Pointer) ([]byte, error) {
		dst = append(dst, '{')
		for i := range fields {
			if i > 0 {
				dst = append(dst, ',')
			}
			var err error
			if dst, err = fields[i].append(append(dst, fields[i].name...), unsafe.Add(p, fields[i].offset)); err != nil {
				return dst, err
			}
		}
		return append(dst, '}'), nil
	}, true
}

// slowKey lets encoding/json write the key and makes that canonical.
func slowKey(t reflect.Type) keyAppender {
	return func(dst []byte, p unsafe.Pointer) ([]byte, error) {
		b, err := json.Marshal(reflect.NewAt(t, p).Interface())
		if err != nil {
			return dst, err
		}
		d := json.NewDecoder(bytes.NewReader(b))
		d.UseNumber()
		var v any
		if err := d.Decode(&v); err != nil {
			return dst, err
		}
		if v == nil {
			return dst, fmt.Errorf("%w: it is nil", ErrKey)
		}
		return appendCanonical(dst, v)
	}
}

// appendCanonical appends what encoding/json decoded with UseNumber.
func appendCanonical(dst []byte, v any) ([]byte, error) {
	var err error
	switch v := v.(type) {
	case nil:
		return append(dst, "null"...), nil
	case bool:
		return strconv.AppendBool(dst, v), nil
	case string:
		return appendKeyString(dst, v), nil
	case json.Number:
		if i, err := v.Int64(); err == nil {
			return strconv.AppendInt(dst, i, 10), nil
		}
		f, err := v.Float64()
		if err != nil {
			return dst, fmt.Errorf("%w: %s: %w", ErrKey, v, err)
		}
		if !strings.ContainsAny(v.String(), ".eE") {
			return dst, fmt.Errorf("%w: %s is more than an int64 holds", ErrKey, v)
		}
		return appendKeyFloat(dst, f)
	case []any:
		dst = append(dst, '[')
		for i, e := range v {
			if i > 0 {
				dst = append(dst, ',')
			}
			if dst, err = appendCanonical(dst, e); err != nil {
				return dst, err
			}
		}
		return append(dst, ']'), nil
	case map[string]any:
		names := make([]string, 0, len(v))
		for n := range v {
			names = append(names, n)
		}
		slices.Sort(names)
		dst = append(dst, '{')
		for i, n := range names {
			if i > 0 {
				dst = append(dst, ',')
			}
			if dst, err = appendCanonical(append(appendKeyString(dst, n), ':'), v[n]); err != nil {
				return dst, err
			}
		}
		return append(dst, '}'), nil
	}
	panic(fmt.Sprintf("jobs: encoding/json decoded a %T", v))
}

// appendKeyFloat appends the shortest text that reads back as f; an integral value that fits int64 as an integer.
func appendKeyFloat(dst []byte, f float64) ([]byte, error) {
	switch {
	case math.IsNaN(f) || math.IsInf(f, 0):
		return dst, fmt.Errorf("%w: %v", ErrKey, f)
	case f == math.Trunc(f) && f < 1<<63 && f >= -(1<<63):
		return strconv.AppendInt(dst, int64(f), 10), nil
	}
	format := byte('f')
	if abs := math.Abs(f); abs < 1e-6 || abs >= 1e21 {
		format = 'e'
	}
	at := len(dst)
	dst = strconv.AppendFloat(dst, f, format, -1, 64)
	if bytes.IndexByte(dst[at:], '.') < 0 && bytes.IndexByte(dst[at:], 'e') < 0 {
		dst = append(dst, '.', '0')
	}
	return dst, nil
}

// appendKeyString appends s as a JSON string. What is not UTF-8 in s becomes U+FFFD.
func appendKeyString(dst []byte, s string) []byte {
	const digits = "0123456789abcdef"
	dst = append(dst, '"')
	plain := true
	for i := 0; i < len(s) && plain; i++ {
		c := s[i]
		plain = c >= 0x20 && c < 0x80 && c != '"' && c != '\\'
	}
	if plain {
		return append(append(dst, s...), '"')
	}
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
	return append(dst, '"')
}
