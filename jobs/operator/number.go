package operator

import (
	"encoding/binary"
	"math"
)

// Number is an int64 or a float64, or none; the zero Number is none. Integers stay integers as long as they can.
type Number struct {
	bits uint64
	tag  byte
}

const (
	tagNone  = 0
	tagInt   = 1
	tagFloat = 2

	cellLen = 9
)

// Int returns the Number i.
func Int(i int64) Number { return Number{uint64(i), tagInt} }

// Float returns the Number f.
func Float(f float64) Number { return Number{math.Float64bits(f), tagFloat} }

// IsNone reports whether n is no number.
func (n Number) IsNone() bool { return n.tag == tagNone }

// IsInt reports whether n is an integer.
func (n Number) IsInt() bool { return n.tag == tagInt }

// Int returns n as an integer, cut towards zero; 0 for none.
func (n Number) Int() int64 {
	if n.tag == tagFloat {
		return int64(n.Float())
	}
	return int64(n.bits)
}

// Float returns n as a float64; 0 for none.
func (n Number) Float() float64 {
	if n.tag == tagFloat {
		return math.Float64frombits(n.bits)
	}
	return float64(int64(n.bits))
}

// Finite reports whether n is neither NaN nor infinite.
func (n Number) Finite() bool {
	return n.tag != tagFloat || n.bits&(0x7ff<<52) != 0x7ff<<52
}

// add returns n + m. Integers whose sum does not fit become a float.
func (n Number) add(m Number) Number {
	switch {
	case n.tag == tagNone:
		return m
	case n.tag == tagInt && m.tag == tagInt:
		a, b := int64(n.bits), int64(m.bits)
		if s := a + b; (s > a) == (b > 0) {
			return Int(s)
		}
	}
	return Float(n.Float() + m.Float())
}

// less reports n < m exactly: an integer is not rounded to be compared with a float.
func (n Number) less(m Number) bool {
	switch {
	case n.tag == tagInt && m.tag == tagInt:
		return int64(n.bits) < int64(m.bits)
	case n.tag == tagInt:
		return intLess(int64(n.bits), m.Float(), true)
	case m.tag == tagInt:
		return intLess(int64(m.bits), n.Float(), false)
	}
	return n.Float() < m.Float()
}

// intLess reports i < f, or with left false f < i.
func intLess(i int64, f float64, left bool) bool {
	switch {
	case f >= 1<<63:
		return left
	case f < -(1 << 63):
		return !left
	}
	whole := math.Trunc(f)
	if w := int64(whole); w != i {
		return (i < w) == left
	}
	if left {
		return f > whole
	}
	return f < whole
}

func putCell(b []byte, n Number) {
	_ = b[cellLen-1]
	b[0] = n.tag
	binary.LittleEndian.PutUint64(b[1:], n.bits)
}

func cell(b []byte) Number {
	_ = b[cellLen-1]
	return Number{binary.LittleEndian.Uint64(b[1:]), b[0]}
}
