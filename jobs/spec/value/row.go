package value

import (
	"errors"
	"slices"
	"strings"
	"unicode/utf8"
	"unsafe"
)

// Row is one record of a YAML job, in four words. It is immutable; see the package comment for who owns its bytes.
type Row struct {
	shape *Shape
	raw   string         // the bytes it came in, if any
	slots unsafe.Pointer // *Value, shape.slots of them
}

type shapeKind uint8

const (
	shapeDynamic shapeKind = iota // slot 0 is the value
	shapeJSON                     // raw is JSON; slots are the fields at paths
	shapeObject                   // an object: slots are the fields called names
	shapeOver                     // base's row, and names set over it, in slots behind base's
	shapeLine                     // raw is a string
)

// Shape says what the slots of a Row are. Rows of one make share one Shape, so that a reader can remember for it where
// a field lies. A Shape never changes.
type Shape struct {
	kind  shapeKind
	slots int
	paths [][]string
	names []string
	base  *Shape
}

var (
	dynamicShape = &Shape{kind: shapeDynamic, slots: 1}
	lineShape    = &Shape{kind: shapeLine}
)

// NewObjectShape returns the shape of an object with exactly these fields, in this order, one slot each.
func NewObjectShape(names []string) *Shape {
	return &Shape{kind: shapeObject, slots: len(names), names: slices.Clone(names)}
}

// Over returns the shape of rows of s with fields called names set over them.
func (s *Shape) Over(names []string) *Shape {
	switch s.kind {
	case shapeObject:
		all := slices.Clone(s.names)
		for _, n := range names {
			if !slices.Contains(all, n) {
				all = append(all, n)
			}
		}
		return NewObjectShape(all)
	case shapeJSON:
		return &Shape{kind: shapeOver, slots: s.slots + len(names), names: slices.Clone(names), base: s}
	case shapeOver:
		all := slices.Clone(s.names)
		for _, n := range names {
			if !slices.Contains(all, n) {
				all = append(all, n)
			}
		}
		return &Shape{kind: shapeOver, slots: s.base.slots + len(all), names: all, base: s.base}
	}
	return dynamicShape
}

// OfValue returns the row whose value is v.
func OfValue(v Value, a *Arena) Row {
	s := a.Values(1)
	s[0] = v
	return Row{shape: dynamicShape, slots: unsafe.Pointer(&s[0])}
}

// OfFields returns a row of an object shape; slots, one for each name, are the row's from now on.
func OfFields(shape *Shape, slots []Value) Row {
	return Row{shape: shape, slots: unsafe.Pointer(unsafe.SliceData(slots))}
}

// OfLine returns the row whose value is the string line.
func OfLine(line string) Row { return Row{shape: lineShape, raw: line} }

// Shape returns the row's shape; nil for the zero Row, whose value is nil.
func (r *Row) Shape() *Shape { return r.shape }

// Slot returns the slot i of the row. The caller got i from this row's shape ([Shape.Find]); nothing is checked.
func (r *Row) Slot(i int) *Value {
	return (*Value)(unsafe.Add(r.slots, uintptr(i)*unsafe.Sizeof(Value{})))
}

func (r *Row) all() []Value { return unsafe.Slice((*Value)(r.slots), r.shape.slots) }

// Find tells where the field at path lies in rows of s: in a slot, from which rest leads on. slot is -1 where the field
// is certainly missing, and -2 where it must be looked up in the whole value.
func (s *Shape) Find(path []string) (slot int, rest []string) {
	switch s.kind {
	case shapeDynamic:
		return 0, path
	case shapeObject:
		return fieldSlot(s.names, 0, path)
	case shapeOver:
		if i, rest := fieldSlot(s.names, s.base.slots, path); i >= 0 {
			return i, rest
		}
		return s.base.Find(path)
	case shapeJSON:
		for n := len(path); n > 0; n-- {
			for i, p := range s.paths {
				if slices.Equal(p, path[:n]) {
					return i, path[n:]
				}
			}
		}
		return -2, path
	}
	return -1, nil
}

func fieldSlot(names []string, base int, path []string) (int, []string) {
	for i, n := range names {
		if n == path[0] {
			return base + i, path[1:]
		}
	}
	return -1, nil
}

// Lookup returns the field at path, nil where it is missing. It searches; [Shape.Find] is for those who ask again.
func (r *Row) Lookup(path []string, a *Arena) Value {
	if len(path) == 0 || r.shape == nil {
		return r.Value(a)
	}
	slot, rest := r.shape.Find(path)
	var v Value
	switch slot {
	case -1:
		return Value{}
	case -2:
		v = r.Value(a)
	default:
		v = *r.Slot(slot)
	}
	for _, name := range rest {
		v = v.Member(name, a)
	}
	return v
}

// Value returns the whole value of the row.
func (r *Row) Value(a *Arena) Value {
	if r.shape == nil {
		return Value{}
	}
	switch r.shape.kind {
	case shapeDynamic:
		return *r.Slot(0)
	case shapeJSON:
		return ofText(r.raw, a)
	case shapeObject:
		return OfObject(r.shape.names, r.all())
	case shapeOver:
		b, err := r.AppendJSON(a.Room(len(r.raw) + 32*len(r.shape.names)))
		if err != nil {
			return None()
		}
		return ofText(a.Keep(b), a)
	}
	return OfString(r.raw)
}

// Weight is [Value.Weight] of the whole value of the row.
func (r *Row) Weight() int {
	if r.shape == nil {
		return 8
	}
	switch r.shape.kind {
	case shapeDynamic:
		return r.Slot(0).Weight()
	case shapeObject:
		return int(weigh(r.shape.names, r.all()))
	case shapeOver:
		return len(r.raw) + int(weigh(r.shape.names, r.all()[r.shape.base.slots:]))
	}
	return len(r.raw)
}

// ErrNotObject is the error of setting fields of a value that is no object.
var ErrNotObject = errors.New("the value is not an object, so that nothing can be set in it")

// Set returns r with fields set over it: vals[i] for names[i]. over is r's shape.Over(names), kept by the caller.
func (r *Row) Set(over *Shape, names []string, vals []Value, a *Arena) (Row, error) {
	switch over.kind {
	case shapeObject:
		slots := a.Values(over.slots)
		copy(slots, r.all())
		for i, name := range names {
			slots[slices.Index(over.names, name)] = vals[i]
		}
		return OfFields(over, slots), nil
	case shapeOver:
		if r.raw[0] != '{' {
			return Row{}, ErrNotObject
		}
		slots := a.Values(over.slots)
		copy(slots, r.all())
		for i, name := range names {
			slots[over.base.slots+slices.Index(over.names, name)] = vals[i]
		}
		return Row{shape: over, raw: r.raw, slots: unsafe.Pointer(&slots[0])}, nil
	}
	return r.setDynamic(names, vals, a)
}

func (r *Row) setDynamic(names []string, vals []Value, a *Arena) (Row, error) {
	whole := r.Value(a)
	if whole.Kind() != Object {
		return Row{}, ErrNotObject
	}
	var allNames []string
	var all []Value
	whole.Fields(a, func(n string, v Value) bool {
		allNames, all = append(allNames, n), append(all, v)
		return true
	})
	for i, n := range names {
		if at := slices.Index(allNames, n); at >= 0 {
			all[at] = vals[i]
			continue
		}
		allNames, all = append(allNames, n), append(all, vals[i])
	}
	return OfValue(OfObject(allNames, all), a), nil
}

// DecodeLine returns the row whose value is the string line. It aliases line.
func DecodeLine(line []byte) (Row, error) {
	if !utf8.Valid(line) {
		return Row{}, ErrNotUTF8
	}
	return OfLine(unsafe.String(unsafe.SliceData(line), len(line))), nil
}

// ErrNotUTF8 is a line that is not UTF-8.
var ErrNotUTF8 = errors.New("the text is not UTF-8")

// Detach returns r with its strings in a, so that it no longer holds on to the bytes it came from. Lists and objects of
// an expression's making are in a already; those that came as bytes are copied.
func (r *Row) Detach(a *Arena) Row {
	if r.shape == nil {
		return *r
	}
	c := Row{shape: r.shape, raw: a.Keep(append(a.Room(len(r.raw)), r.raw...))}
	if r.shape.slots > 0 {
		slots := a.Values(r.shape.slots)
		for i, v := range r.all() {
			slots[i] = v.moved(r.raw, c.raw, a)
		}
		c.slots = unsafe.Pointer(&slots[0])
	}
	return c
}

// Clone returns r with memory of its own.
func (r *Row) Clone() Row {
	if r.shape == nil {
		return Row{}
	}
	c := Row{shape: r.shape, raw: strings.Clone(r.raw)}
	if r.shape.slots > 0 {
		slots := make([]Value, r.shape.slots)
		for i, v := range r.all() {
			slots[i] = v.Clone()
		}
		c.slots = unsafe.Pointer(&slots[0])
	}
	return c
}
