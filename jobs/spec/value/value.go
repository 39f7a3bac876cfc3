package value

import (
	"errors"
	"math"
	"strings"
	"time"
	"unicode/utf8"
	"unsafe"
)

// Limits of a value; each is an error of the record that passes it.
const (
	MaxDepth = 64       // nesting of lists and objects
	MaxBytes = 64 << 20 // length of one JSON text
)

// Kind says what a Value is.
type Kind uint8

// The kinds. Invalid is no JSON value: functions over values use it to say that there is none.
const (
	Nil Kind = iota
	Bool
	Int
	Float
	String
	Time
	List
	Object
	Invalid
	rawList   // undecoded JSON text, checked already
	rawObject // undecoded JSON text, checked already
)

// String returns the word that messages use for the kind.
func (k Kind) String() string {
	switch k {
	case Nil:
		return "nil"
	case Bool:
		return "a bool"
	case Int:
		return "an int"
	case Float:
		return "a float"
	case String:
		return "a string"
	case Time:
		return "a time"
	case List, rawList:
		return "a list"
	case Object, rawObject:
		return "an object"
	}
	return "no value"
}

// Value is one dynamic value; the zero Value is nil. It is immutable. It is not comparable with ==: see [Equal]. With a fifth
// field the compiler would no longer keep it in registers.
type Value struct {
	_ [0]func()
	p unsafe.Pointer // String and raw: the first byte; List: the first element; Object: *object
	n uint64         // Bool, Int, Float, Time: the bits; String and raw: bytes; List and Object: weight<<32 | number of members
	k Kind
}

// object is a decoded object: names in the order they were given, unique.
type object struct {
	names []string
	vals  []Value
}

// Kind returns what v is; an undecoded list or object is a List or an Object.
func (v Value) Kind() Kind {
	switch v.k {
	case rawList:
		return List
	case rawObject:
		return Object
	}
	return v.k
}

// IsNil reports whether v is nil.
func (v Value) IsNil() bool { return v.k == Nil }

// IsNumber reports whether v is an Int or a Float.
func (v Value) IsNumber() bool { return v.k == Int || v.k == Float }

// OfBool returns a Bool.
func OfBool(b bool) Value {
	if b {
		return Value{k: Bool, n: 1}
	}
	return Value{k: Bool}
}

// OfInt returns an Int.
func OfInt(i int64) Value { return Value{k: Int, n: uint64(i)} }

// OfFloat returns a Float; NaN and infinities are no JSON and fail when encoded.
func OfFloat(f float64) Value { return Value{k: Float, n: math.Float64bits(f)} }

// OfTime returns a Time, in milliseconds since the Unix epoch.
func OfTime(ms int64) Value { return Value{k: Time, n: uint64(ms)} }

// OfString returns a String that aliases s.
func OfString(s string) Value {
	return Value{k: String, p: unsafe.Pointer(unsafe.StringData(s)), n: uint64(len(s))}
}

// OfBytes returns a String that aliases b, which must not change any more.
func OfBytes(b []byte) Value {
	return Value{k: String, p: unsafe.Pointer(unsafe.SliceData(b)), n: uint64(len(b))}
}

// OfList returns a List that owns vals.
func OfList(vals []Value) Value {
	return Value{k: List, p: unsafe.Pointer(unsafe.SliceData(vals)), n: weigh(nil, vals)<<32 | uint64(len(vals))}
}

// OfObject returns an Object that owns names and vals, of equal length; names must be unique.
func OfObject(names []string, vals []Value) Value {
	return Value{k: Object, p: unsafe.Pointer(&object{names, vals}), n: weigh(names, vals)<<32 | uint64(len(names))}
}

// Weight is about how many bytes v has as JSON before characters are escaped. It is known without going through v: one
// that holds another value many times over takes no memory, but may be too large ever to be gone through.
func (v Value) Weight() int {
	switch v.k {
	case String, rawList, rawObject:
		return int(v.n) + 2
	case List, Object:
		return int(v.n >> 32)
	}
	return 8
}

// weigh returns the weight of a list or an object, in 32 bits.
func weigh(names []string, vals []Value) uint64 {
	n := 2
	for _, name := range names {
		n += len(name) + 4
	}
	for i := range vals {
		n += vals[i].Weight()
	}
	return uint64(min(n, math.MaxUint32))
}

// None is the Value of kind Invalid.
func None() Value { return Value{k: Invalid} }

// ofRaw wraps a checked JSON text of a list or an object, without space around it.
func ofRaw(s string) Value {
	k := rawList
	if s[0] == '{' {
		k = rawObject
	}
	return Value{k: k, p: unsafe.Pointer(unsafe.StringData(s)), n: uint64(len(s))}
}

// Bool returns the bool of a Bool.
func (v Value) Bool() bool { return v.n != 0 }

// Int returns the integer of an Int, or the milliseconds of a Time.
func (v Value) Int() int64 { return int64(v.n) }

// Float returns the number of an Int or a Float as a float64.
func (v Value) Float() float64 {
	if v.k == Int {
		return float64(int64(v.n))
	}
	return math.Float64frombits(v.n)
}

// Text returns the string of a String.
func (v Value) Text() string { return unsafe.String((*byte)(v.p), int(v.n)) }

func (v Value) raw() string     { return v.Text() }
func (v Value) members() int    { return int(uint32(v.n)) } // of a List or an Object
func (v Value) list() []Value   { return unsafe.Slice((*Value)(v.p), v.members()) }
func (v Value) object() *object { return (*object)(v.p) }

// IsText reports whether v is the String s.
func (v Value) IsText(s string) bool {
	return v.k == String && v.n == uint64(len(s)) && unsafe.String((*byte)(v.p), int(v.n)) == s
}

// Len returns the number of members of a List or an Object, 0 for all others.
func (v Value) Len() int {
	switch v.k {
	case List, Object:
		return v.members()
	case rawList:
		n := 0
		v.Elems(nil, func(Value) bool { n++; return true })
		return n
	case rawObject:
		return v.decoded(nil).Len()
	}
	return 0
}

// Index returns the element i of a List, from the end if i is negative, and nil where there is none.
func (v Value) Index(i int64, a *Arena) Value {
	switch v.k {
	case List:
		if i < 0 {
			i += int64(v.members())
		}
		if i < 0 || i >= int64(v.members()) {
			return Value{}
		}
		return v.list()[i]
	case rawList:
		if i < 0 {
			if i += int64(v.Len()); i < 0 {
				return Value{}
			}
		}
		var got Value
		v.Elems(a, func(e Value) bool {
			if i == 0 {
				got = e
			}
			i--
			return i >= 0
		})
		return got
	}
	return Value{}
}

// Member returns the field of that name of an Object, and nil where there is none or v is no Object.
func (v Value) Member(name string, a *Arena) Value {
	got, _ := v.member(name, a)
	return got
}

// Has reports whether v is an Object with a field of that name.
func (v Value) Has(name string) bool {
	_, ok := v.member(name, nil)
	return ok
}

func (v Value) member(name string, a *Arena) (Value, bool) {
	switch v.k {
	case Object:
		o := v.object()
		for i, n := range o.names {
			if n == name {
				return o.vals[i], true
			}
		}
	case rawObject:
		return rawMember(v.raw(), name, a)
	}
	return Value{}, false
}

// Elems calls f with the elements of a List in order until it returns false.
func (v Value) Elems(a *Arena, f func(Value) bool) {
	switch v.k {
	case List:
		for _, e := range v.list() {
			if !f(e) {
				return
			}
		}
	case rawList:
		rawElems(v.raw(), a, f)
	}
}

// Fields calls f with the fields of an Object, in the order they were given, until it returns false.
func (v Value) Fields(a *Arena, f func(name string, v Value) bool) {
	switch v.k {
	case Object:
		o := v.object()
		for i, n := range o.names {
			if !f(n, o.vals[i]) {
				return
			}
		}
	case rawObject:
		v.decoded(a).Fields(a, f)
	}
}

// decoded returns v with its first level decoded.
func (v Value) decoded(a *Arena) Value {
	switch v.k {
	case rawList:
		var vals []Value
		rawElems(v.raw(), a, func(e Value) bool { vals = append(vals, e); return true })
		return OfList(vals)
	case rawObject:
		return rawFields(v.raw(), a)
	}
	return v
}

// moved returns v with memory in a; what lies in from, a row's bytes, lies at the same place in to, a copy of them.
func (v Value) moved(from, to string, a *Arena) Value {
	switch v.k {
	case String, rawList, rawObject:
		at := uintptr(v.p) - uintptr(unsafe.Pointer(unsafe.StringData(from)))
		if at < uintptr(len(from)) {
			v.p = unsafe.Add(unsafe.Pointer(unsafe.StringData(to)), at)
			return v
		}
		s := a.Keep(append(a.Room(int(v.n)), v.raw()...))
		v.p = unsafe.Pointer(unsafe.StringData(s))
	case List, Object:
		return v.Clone()
	}
	return v
}

// OfText returns b as a String; bytes that are not UTF-8 become U+FFFD, so that the value can be written as JSON.
func OfText(b []byte) Value {
	if utf8.Valid(b) {
		return OfBytes(b)
	}
	return OfString(string([]rune(string(b))))
}

// Clone returns v with memory of its own.
func (v Value) Clone() Value {
	switch v.k {
	case String, rawList, rawObject:
		s := strings.Clone(v.raw())
		v.p = unsafe.Pointer(unsafe.StringData(s))
	case List:
		vals := make([]Value, v.members())
		for i, e := range v.list() {
			vals[i] = e.Clone()
		}
		return OfList(vals)
	case Object:
		o := v.object()
		names, vals := make([]string, v.members()), make([]Value, v.members())
		for i := range o.names {
			names[i], vals[i] = strings.Clone(o.names[i]), o.vals[i].Clone()
		}
		return OfObject(names, vals)
	}
	return v
}

// Equal reports whether a and b are the same value: numbers by value (1 equals 1.0), strings by their bytes, lists
// element by element, objects by their fields in any order.
func Equal(a, b Value) bool {
	if a.k == String && b.k == String {
		return a.Text() == b.Text()
	}
	ka, kb := a.Kind(), b.Kind()
	if ka != kb {
		return a.IsNumber() && b.IsNumber() && compareNumbers(a, b) == 0
	}
	switch ka {
	case Bool, Int, Time:
		return a.n == b.n
	case Float:
		return a.Float() == b.Float()
	case List:
		return equalLists(a.decoded(nil), b.decoded(nil))
	case Object:
		return equalObjects(a.decoded(nil), b.decoded(nil))
	}
	return true
}

func equalLists(a, b Value) bool {
	if a.members() != b.members() {
		return false
	}
	x, y := a.list(), b.list()
	for i := range x {
		if !Equal(x[i], y[i]) {
			return false
		}
	}
	return true
}

func equalObjects(a, b Value) bool {
	if a.members() != b.members() {
		return false
	}
	o, other := a.object(), b.object()
	var at map[string]int // made where a search for each would take too long
	if len(other.names) > 16 {
		at = make(map[string]int, len(other.names))
		for i, name := range other.names {
			at[name] = i
		}
	}
	for i, name := range o.names {
		j := placeOf(other.names, at, name)
		if j < 0 || !Equal(o.vals[i], other.vals[j]) {
			return false
		}
	}
	return true
}

// Compare orders two numbers, two strings or two times; ok is false for anything else.
func Compare(a, b Value) (c int, ok bool) {
	switch {
	case a.IsNumber() && b.IsNumber():
		return compareNumbers(a, b), true
	case a.k == String && b.k == String:
		return strings.Compare(a.Text(), b.Text()), true
	case a.k == Time && b.k == Time:
		return compareInts(a.Int(), b.Int()), true
	}
	return 0, false
}

func compareInts(a, b int64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

func compareFloats(a, b float64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// compareNumbers is exact: an int is never rounded to a float to compare it with one.
func compareNumbers(a, b Value) int {
	switch {
	case a.k == Int && b.k == Int:
		return compareInts(a.Int(), b.Int())
	case a.k == Float && b.k == Float:
		return compareFloats(a.Float(), b.Float())
	case a.k == Int:
		return compareIntFloat(a.Int(), b.Float())
	}
	return -compareIntFloat(b.Int(), a.Float())
}

func compareIntFloat(i int64, f float64) int {
	const exact = 1 << 53
	switch {
	case -exact <= i && i <= exact:
		return compareFloats(float64(i), f)
	case f >= 1<<63:
		return -1
	case f < -(1 << 63):
		return 1
	}
	t := math.Trunc(f)
	if c := compareInts(i, int64(t)); c != 0 {
		return c
	}
	return compareFloats(0, f-t)
}

// timeLayout is how a time is written: RFC 3339 in UTC with milliseconds.
const timeLayout = "2006-01-02T15:04:05.000Z"

// Times that can be written with four digits of year.
const (
	minTimeMs = -62135596800000 // 0001-01-01T00:00:00.000Z
	maxTimeMs = 253402300799999 // 9999-12-31T23:59:59.999Z
)

// TimeInRange reports whether ms can be written: whether it lies in years 1 to 9999.
func TimeInRange(ms int64) bool { return ms >= minTimeMs && ms <= maxTimeMs }

// ErrTime is a time before year 1 or after year 9999.
var ErrTime = errors.New("the time lies outside years 1 to 9999")

// AppendTime appends ms, milliseconds since the Unix epoch, as RFC 3339 in UTC with milliseconds.
func AppendTime(dst []byte, ms int64) ([]byte, error) {
	if !TimeInRange(ms) {
		return dst, ErrTime
	}
	return time.UnixMilli(ms).UTC().AppendFormat(dst, timeLayout), nil
}

// ParseTime reads an RFC 3339 time and cuts it to milliseconds since the Unix epoch.
func ParseTime(s string) (ms int64, err error) {
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		return 0, errors.New("not an RFC 3339 time")
	}
	if ms = t.UnixMilli(); !TimeInRange(ms) {
		return 0, ErrTime
	}
	return ms, nil
}
