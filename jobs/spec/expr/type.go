package expr

import (
	"math/bits"
	"strings"

	"github.com/sidestream-dev/sidestream/jobs/spec/value"
)

// Kinds is a set of kinds that a value may have.
type Kinds uint16

// The kinds, and common sets of them.
const (
	KNil Kinds = 1 << iota
	KBool
	KInt
	KFloat
	KString
	KTime
	KList
	KObject

	KNumber = KInt | KFloat
	kStored = KNil | KBool | KNumber | KString | KList | KObject
)

var kindsOf = [...]Kinds{value.Nil: KNil, value.Bool: KBool, value.Int: KInt, value.Float: KFloat, value.String: KString,
	value.Time: KTime, value.List: KList, value.Object: KObject, value.Invalid: 0}

func kindOf(v value.Value) Kinds { return kindsOf[v.Kind()] }

var kindNames = [...]string{"nil", "a bool", "an int", "a float", "a string", "a time", "a list", "an object"}

// String lists the kinds for a message: "an int or a float".
func (k Kinds) String() string {
	if k == kStored || k == kStored|KTime {
		return "any value"
	}
	if k&KNumber == KNumber {
		if rest := k &^ KNumber; rest != 0 {
			return "a number or " + rest.String()
		}
		return "a number"
	}
	var names []string
	for ; k != 0; k &= k - 1 {
		names = append(names, kindNames[bits.TrailingZeros16(uint16(k))])
	}
	switch n := len(names); n {
	case 0:
		return "nothing"
	case 1:
		return names[0]
	default:
		return strings.Join(names[:n-1], ", ") + " or " + names[n-1]
	}
}

// Type is what is known of a value before there is one.
type Type struct {
	Kinds  Kinds
	Fields map[string]Type // of an object: exactly these; nil if they are not known
	Field  *Type           // of an object with unknown fields: what each is, if that is known
	parts  int             // of it, each as often as it stands in it
}

// maxTypeParts is how many parts a type may have until no more is known of it than that it is an object: a step that puts a
// value twice into the next one doubles them.
const maxTypeParts = 4096

// Any is the type of a value of which nothing is known.
var Any = Type{Kinds: kStored}

// String is the type of strings.
var String = Type{Kinds: KString}

// Strings is the type of objects whose fields are strings: a CSV record.
var Strings = Type{Kinds: KObject, Field: &Type{Kinds: KNil | KString}}

func kinds(k Kinds) Type { return Type{Kinds: k} }

// ObjectOf returns the type of an object with exactly these fields.
func ObjectOf(fields map[string]Type) Type {
	n := 1
	for _, f := range fields {
		n += 1 + f.parts
	}
	if n > maxTypeParts {
		return Type{Kinds: KObject}
	}
	return Type{Kinds: KObject, Fields: fields, parts: n}
}

// With returns t with fields set over it.
func (t Type) With(fields map[string]Type) Type {
	if t.Fields == nil {
		return Type{Kinds: KObject}
	}
	all := make(map[string]Type, len(t.Fields)+len(fields))
	for n, f := range t.Fields {
		all[n] = f
	}
	for n, f := range fields {
		all[n] = f
	}
	return ObjectOf(all)
}

// stored is what t becomes in a row: times are strings there.
func (t Type) stored() Type {
	if t.Kinds&KTime != 0 {
		t.Kinds = t.Kinds&^KTime | KString
	}
	return t
}

// field returns the type of a field; known says that there is certainly none.
func (t Type) field(name string) (f Type, missing bool) {
	switch {
	case t.Kinds&KObject == 0:
		return kinds(KNil), true
	case t.Fields != nil:
		f, ok := t.Fields[name]
		if !ok {
			return kinds(KNil), t.Kinds == KObject
		}
		if t.Kinds != KObject {
			f.Kinds |= KNil
		}
		return f, false
	case t.Field != nil:
		return *t.Field, false
	}
	return Any, false
}

func union(a, b Type) Type {
	u := Type{Kinds: a.Kinds | b.Kinds}
	switch {
	case b.Kinds&KObject == 0:
		u.Fields, u.Field, u.parts = a.Fields, a.Field, a.parts
	case a.Kinds&KObject == 0:
		u.Fields, u.Field, u.parts = b.Fields, b.Field, b.parts
	}
	return u
}
