package jobs

import (
	"bytes"
	"encoding"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"reflect"
	"slices"
	"time"
	"unsafe"
)

// Values in state are laid out by their Go type, compiled once; there are no names and no tags in an entry, so that what
// each record changes costs few bytes of log:
//
//	bool                     1 byte, 0 or 1
//	int8 … uint64, floats    their size, little-endian; int and uint 8
//	string                   length uvarint | bytes
//	[]T                      length + 1 uvarint, 0 for nil | elements
//	[n]T, struct             elements, fields in order, unexported ones too
//	*T                       0, or 1 | T
//	map[K]V                  length + 1 uvarint, 0 for nil | pairs, ascending by the bytes of their keys
//	time.Time                seconds since year 1 i64 | nanoseconds u32; comes back in UTC
//	encoding.BinaryMarshaler and BinaryUnmarshaler     length uvarint | what they say
//
// The layout's text is part of a table's name (see ValueOf): state of another layout is not misread but not found.

var errState = errors.New("state entry does not fit its type")

// StateCodec encodes and decodes values of one type for state.
type StateCodec[T any] struct{ plan *plan }

// plan is the compiled layout of one type.
type plan struct {
	t      reflect.Type
	size   int // bytes of every value, -1 if it varies
	text   string
	append func(dst []byte, p unsafe.Pointer) ([]byte, error)
	decode func(b []byte, p unsafe.Pointer) (rest []byte, err error) // *p is zero before
}

// NewStateCodec compiles the layout of T. Interfaces, functions and channels have none.
func NewStateCodec[T any]() (StateCodec[T], error) {
	p, err := compileState(reflect.TypeFor[T](), map[reflect.Type]*plan{})
	return StateCodec[T]{p}, err
}

// Size is the number of bytes of every value, -1 if it varies.
func (c StateCodec[T]) Size() int { return c.plan.size }

// Layout tells layouts apart.
func (c StateCodec[T]) Layout() string { return c.plan.text }

// textOr returns the layout's text, "" for a type that has none.
func (p *plan) textOr() string {
	if p == nil {
		return ""
	}
	return p.text
}

// tableName joins a state's name with a short form of its layout.
func tableName(name, layout string) string {
	return fmt.Sprintf("%s-%08x", name, crc32.ChecksumIEEE([]byte(layout)))
}

// Append appends the encoding of *v to dst.
func (c StateCodec[T]) Append(dst []byte, v *T) ([]byte, error) {
	return c.plan.append(dst, unsafe.Pointer(v))
}

// Decode sets *v, which must be zero, to what b encodes. It copies what it keeps.
func (c StateCodec[T]) Decode(b []byte, v *T) error {
	rest, err := c.plan.decode(b, unsafe.Pointer(v))
	if err == nil && len(rest) > 0 {
		err = errState
	}
	return err
}

var (
	binaryMarshaler   = reflect.TypeFor[encoding.BinaryMarshaler]()
	binaryUnmarshaler = reflect.TypeFor[encoding.BinaryUnmarshaler]()
	timeType          = reflect.TypeFor[time.Time]()
)

// compileState returns t's plan; known breaks the circle of a type that points to itself.
func compileState(t reflect.Type, known map[reflect.Type]*plan) (*plan, error) {
	if p := known[t]; p != nil {
		return p, nil
	}
	p := &plan{t: t, size: -1, text: t.String()}
	known[t] = p
	var err error
	switch {
	case t == timeType:
		planTime(p)
	case t.Implements(binaryMarshaler) && reflect.PointerTo(t).Implements(binaryUnmarshaler):
		planMarshaler(p)
	default:
		err = planKind(p, known)
	}
	if err != nil {
		return nil, err
	}
	return p, nil
}

func planKind(p *plan, known map[reflect.Type]*plan) error {
	switch k := p.t.Kind(); k {
	case reflect.Bool:
		planBool(p)
	case reflect.Int8, reflect.Uint8, reflect.Int16, reflect.Uint16, reflect.Int32, reflect.Uint32, reflect.Float32,
		reflect.Int64, reflect.Uint64, reflect.Float64, reflect.Int, reflect.Uint:
		planNumber(p, k)
	case reflect.String:
		p.text = "string"
		p.append = func(dst []byte, at unsafe.Pointer) ([]byte, error) {
			s := *(*string)(at)
			return append(binary.AppendUvarint(dst, uint64(len(s))), s...), nil
		}
		p.decode = func(b []byte, at unsafe.Pointer) ([]byte, error) {
			s, rest, err := takeBytes(b)
			*(*string)(at) = string(s)
			return rest, err
		}
	case reflect.Struct:
		return planStruct(p, known)
	case reflect.Array:
		return planArray(p, known)
	case reflect.Slice:
		return planSlice(p, known)
	case reflect.Pointer:
		return planPointer(p, known)
	case reflect.Map:
		return planMap(p, known)
	default:
		return fmt.Errorf("state of type %v: a %v cannot be kept", p.t, k)
	}
	return nil
}

func planBool(p *plan) {
	p.size, p.text = 1, "bool"
	p.append = func(dst []byte, at unsafe.Pointer) ([]byte, error) {
		if *(*bool)(at) {
			return append(dst, 1), nil
		}
		return append(dst, 0), nil
	}
	p.decode = func(b []byte, at unsafe.Pointer) ([]byte, error) {
		if len(b) < 1 || b[0] > 1 {
			return b, errState
		}
		*(*bool)(at) = b[0] == 1
		return b[1:], nil
	}
}

func planNumber(p *plan, k reflect.Kind) {
	p.size, p.text = int(p.t.Size()), k.String()
	if k == reflect.Int || k == reflect.Uint {
		p.text += "64"
		planInt(p)
		return
	}
	le := binary.LittleEndian
	switch p.size {
	case 1:
		p.append = func(dst []byte, at unsafe.Pointer) ([]byte, error) { return append(dst, *(*byte)(at)), nil }
		p.decode = func(b []byte, at unsafe.Pointer) ([]byte, error) {
			if len(b) < 1 {
				return b, errState
			}
			*(*byte)(at) = b[0]
			return b[1:], nil
		}
	case 2:
		p.append = func(dst []byte, at unsafe.Pointer) ([]byte, error) { return le.AppendUint16(dst, *(*uint16)(at)), nil }
		p.decode = func(b []byte, at unsafe.Pointer) ([]byte, error) {
			if len(b) < 2 {
				return b, errState
			}
			*(*uint16)(at) = le.Uint16(b)
			return b[2:], nil
		}
	case 4:
		p.append = func(dst []byte, at unsafe.Pointer) ([]byte, error) { return le.AppendUint32(dst, *(*uint32)(at)), nil }
		p.decode = func(b []byte, at unsafe.Pointer) ([]byte, error) {
			if len(b) < 4 {
				return b, errState
			}
			*(*uint32)(at) = le.Uint32(b)
			return b[4:], nil
		}
	default:
		p.append = func(dst []byte, at unsafe.Pointer) ([]byte, error) { return le.AppendUint64(dst, *(*uint64)(at)), nil }
		p.decode = func(b []byte, at unsafe.Pointer) ([]byte, error) {
			if len(b) < 8 {
				return b, errState
			}
			*(*uint64)(at) = le.Uint64(b)
			return b[8:], nil
		}
	}
}

// planInt is for int and uint, which are 8 bytes on every machine.
func planInt(p *plan) {
	p.size = 8
	p.append = func(dst []byte, at unsafe.Pointer) ([]byte, error) {
		return binary.LittleEndian.AppendUint64(dst, uint64(*(*int)(at))), nil
	}
	p.decode = func(b []byte, at unsafe.Pointer) ([]byte, error) {
		if len(b) < 8 || uint64(int(binary.LittleEndian.Uint64(b))) != binary.LittleEndian.Uint64(b) {
			return b, errState
		}
		*(*int)(at) = int(binary.LittleEndian.Uint64(b))
		return b[8:], nil
	}
}

func planTime(p *plan) {
	const yearOne = -62135596800 // of the Unix epoch, seconds
	p.size, p.text = 12, "time"
	p.append = func(dst []byte, at unsafe.Pointer) ([]byte, error) {
		t := *(*time.Time)(at)
		dst = binary.LittleEndian.AppendUint64(dst, uint64(t.Unix()-yearOne))
		return binary.LittleEndian.AppendUint32(dst, uint32(t.Nanosecond())), nil
	}
	p.decode = func(b []byte, at unsafe.Pointer) ([]byte, error) {
		if len(b) < 12 || binary.LittleEndian.Uint32(b[8:]) >= 1e9 {
			return b, errState
		}
		seconds, nanos := int64(binary.LittleEndian.Uint64(b)), int64(binary.LittleEndian.Uint32(b[8:]))
		*(*time.Time)(at) = time.Unix(seconds+yearOne, nanos).UTC()
		return b[12:], nil
	}
}

func planMarshaler(p *plan) {
	p.append = func(dst []byte, at unsafe.Pointer) ([]byte, error) {
		b, err := reflect.NewAt(p.t, at).Interface().(encoding.BinaryMarshaler).MarshalBinary()
		return append(binary.AppendUvarint(dst, uint64(len(b))), b...), err
	}
	p.decode = func(b []byte, at unsafe.Pointer) ([]byte, error) {
		v, rest, err := takeBytes(b)
		if err != nil {
			return b, err
		}
		return rest, reflect.NewAt(p.t, at).Interface().(encoding.BinaryUnmarshaler).UnmarshalBinary(bytes.Clone(v))
	}
}

func planStruct(p *plan, known map[reflect.Type]*plan) error {
	type field struct {
		plan   *plan
		offset uintptr
	}
	var fields []field
	size, text := 0, "{"
	for i := range p.t.NumField() {
		f := p.t.Field(i)
		fp, err := compileState(f.Type, known)
		if err != nil {
			return fmt.Errorf("field %s: %w", f.Name, err)
		}
		if fields = append(fields, field{fp, f.Offset}); size >= 0 && fp.size >= 0 {
			size += fp.size
		} else {
			size = -1
		}
		text += f.Name + " " + fp.text + ";"
	}
	p.size, p.text = size, text+"}"
	p.append = func(dst []byte, at unsafe.Pointer) ([]byte, error) {
		var err error
		for i := range fields {
			if dst, err = fields[i].plan.append(dst, unsafe.Add(at, fields[i].offset)); err != nil {
				return dst, err
			}
		}
		return dst, nil
	}
	p.decode = func(b []byte, at unsafe.Pointer) ([]byte, error) {
		var err error
		for i := range fields {
			if b, err = fields[i].plan.decode(b, unsafe.Add(at, fields[i].offset)); err != nil {
				return b, err
			}
		}
		return b, nil
	}
	return nil
}

func planArray(p *plan, known map[reflect.Type]*plan) error {
	e, err := compileState(p.t.Elem(), known)
	if err != nil {
		return err
	}
	n, step := p.t.Len(), p.t.Elem().Size()
	p.text = fmt.Sprintf("[%d]%s", n, e.text)
	if e.size >= 0 {
		p.size = n * e.size
	}
	p.append = func(dst []byte, at unsafe.Pointer) ([]byte, error) { return appendElems(dst, e, at, n, step) }
	p.decode = func(b []byte, at unsafe.Pointer) ([]byte, error) { return decodeElems(b, e, at, n, step) }
	return nil
}

func planSlice(p *plan, known map[reflect.Type]*plan) error {
	e, err := compileState(p.t.Elem(), known)
	if err != nil {
		return err
	}
	step := p.t.Elem().Size()
	p.text = "[]" + e.text
	p.append = func(dst []byte, at unsafe.Pointer) ([]byte, error) {
		v := reflect.NewAt(p.t, at).Elem()
		if v.IsNil() {
			return append(dst, 0), nil
		}
		n := v.Len()
		return appendElems(binary.AppendUvarint(dst, uint64(n)+1), e, v.UnsafePointer(), n, step)
	}
	p.decode = func(b []byte, at unsafe.Pointer) ([]byte, error) {
		n, isNil, b, err := takeLen(b, e.size)
		if err != nil || isNil {
			return b, err
		}
		v := reflect.MakeSlice(p.t, n, n)
		reflect.NewAt(p.t, at).Elem().Set(v)
		return decodeElems(b, e, v.UnsafePointer(), n, step)
	}
	return nil
}

func appendElems(dst []byte, e *plan, at unsafe.Pointer, n int, step uintptr) ([]byte, error) {
	var err error
	if e.size == 0 {
		return dst, nil
	}
	for i := range n {
		if dst, err = e.append(dst, unsafe.Add(at, uintptr(i)*step)); err != nil {
			return dst, err
		}
	}
	return dst, nil
}

func decodeElems(b []byte, e *plan, at unsafe.Pointer, n int, step uintptr) ([]byte, error) {
	var err error
	if e.size == 0 {
		return b, nil // as many as there are, they have no bytes
	}
	for i := range n {
		if b, err = e.decode(b, unsafe.Add(at, uintptr(i)*step)); err != nil {
			return b, err
		}
	}
	return b, nil
}

func planPointer(p *plan, known map[reflect.Type]*plan) error {
	e, err := compileState(p.t.Elem(), known)
	if err != nil {
		return err
	}
	p.text = "*" + e.text
	p.append = func(dst []byte, at unsafe.Pointer) ([]byte, error) {
		to := *(*unsafe.Pointer)(at)
		if to == nil {
			return append(dst, 0), nil
		}
		return e.append(append(dst, 1), to)
	}
	p.decode = func(b []byte, at unsafe.Pointer) ([]byte, error) {
		if len(b) < 1 || b[0] > 1 {
			return b, errState
		}
		if b[0] == 0 {
			return b[1:], nil
		}
		v := reflect.New(p.t.Elem())
		*(*unsafe.Pointer)(at) = v.UnsafePointer()
		return e.decode(b[1:], v.UnsafePointer())
	}
	return nil
}

func planMap(p *plan, known map[reflect.Type]*plan) error {
	k, err := compileState(p.t.Key(), known)
	if err != nil {
		return err
	}
	e, err := compileState(p.t.Elem(), known)
	if err != nil {
		return err
	}
	p.text = "map[" + k.text + "]" + e.text
	p.append = func(dst []byte, at unsafe.Pointer) ([]byte, error) {
		m := reflect.NewAt(p.t, at).Elem()
		if m.IsNil() {
			return append(dst, 0), nil
		}
		return appendPairs(binary.AppendUvarint(dst, uint64(m.Len())+1), k, e, m)
	}
	p.decode = func(b []byte, at unsafe.Pointer) ([]byte, error) {
		n, isNil, b, err := takeLen(b, k.size)
		if err != nil || isNil {
			return b, err
		}
		m := reflect.MakeMap(p.t)
		reflect.NewAt(p.t, at).Elem().Set(m)
		var before []byte
		for i := range n {
			key, val, start := reflect.New(p.t.Key()), reflect.New(p.t.Elem()), b
			if b, err = k.decode(b, key.UnsafePointer()); err != nil {
				return b, err
			}
			this := start[:len(start)-len(b)]
			if i > 0 && bytes.Compare(before, this) >= 0 {
				return b, errState
			}
			before = this
			if b, err = e.decode(b, val.UnsafePointer()); err != nil {
				return b, err
			}
			m.SetMapIndex(key.Elem(), val.Elem())
		}
		return b, nil
	}
	return nil
}

// appendPairs appends the pairs of m, ascending by their keys' bytes: equal maps have equal encodings.
func appendPairs(dst []byte, k, e *plan, m reflect.Value) ([]byte, error) {
	type pair struct{ key, val []byte }
	pairs := make([]pair, 0, m.Len())
	for it := m.MapRange(); it.Next(); {
		key, val := reflect.New(k.t), reflect.New(e.t)
		key.Elem().Set(it.Key())
		val.Elem().Set(it.Value())
		kb, err := k.append(nil, key.UnsafePointer())
		if err != nil {
			return dst, err
		}
		vb, err := e.append(nil, val.UnsafePointer())
		if err != nil {
			return dst, err
		}
		pairs = append(pairs, pair{kb, vb})
	}
	slices.SortFunc(pairs, func(a, b pair) int { return bytes.Compare(a.key, b.key) })
	for _, p := range pairs {
		dst = append(append(dst, p.key...), p.val...)
	}
	return dst, nil
}

// takeUvarint reads a length in its shortest form.
func takeUvarint(b []byte) (uint64, []byte, error) {
	n, w := binary.Uvarint(b)
	if w <= 0 || w > 1 && b[w-1] == 0 {
		return 0, b, errState
	}
	return n, b[w:], nil
}

func takeBytes(b []byte) (v, rest []byte, err error) {
	n, b, err := takeUvarint(b)
	if err != nil || n > uint64(len(b)) {
		return nil, b, errState
	}
	return b[:n], b[n:], nil
}

// takeLen reads the length of a slice or map. No more elements are believed in than there are bytes for.
func takeLen(b []byte, elemSize int) (n int, isNil bool, rest []byte, err error) {
	u, b, err := takeUvarint(b)
	switch {
	case err != nil || u == 0:
		return 0, true, b, err
	case elemSize == 0 && u-1 > math.MaxInt32, elemSize != 0 && u-1 > uint64(len(b)/max(1, elemSize)):
		return 0, false, b, errState
	}
	return int(u - 1), false, b, nil
}
