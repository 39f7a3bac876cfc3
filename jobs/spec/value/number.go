package value

import (
	"math"
	"strconv"
	"unsafe"
)

// pow10 are the powers of ten that a float64 holds exactly.
var pow10 = [...]float64{
	1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11,
	1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22,
}

// scanNumber reads the number at i: an Int when it is written as one and fits, else a Float.
func scanNumber(b []byte, i int) (Value, int) {
	start, neg := i, false
	if i < len(b) && b[i] == '-' {
		neg = true
		i++
	}
	first := i
	var m uint64
	for ; i < len(b) && b[i]-'0' <= 9; i++ {
		m = m*10 + uint64(b[i]-'0')
	}
	digits := i - first
	if digits == 0 || digits > 1 && b[first] == '0' {
		return Value{}, bad(start)
	}
	if i >= len(b) || b[i] != '.' && b[i]|0x20 != 'e' {
		// 18 digits always fit; more are rare.
		if digits > 18 {
			return bigInteger(b, start, i)
		}
		if neg {
			return OfInt(-int64(m)), i
		}
		return OfInt(int64(m)), i
	}
	places := 0
	if b[i] == '.' {
		point := i + 1
		for i++; i < len(b) && b[i]-'0' <= 9; i++ {
			m = m*10 + uint64(b[i]-'0')
		}
		if places = i - point; places == 0 {
			return Value{}, bad(start)
		}
	}
	if digits+places > 18 || m > 1<<53 || places > 22 || i < len(b) && b[i]|0x20 == 'e' {
		return slowFloat(b, start, i)
	}
	// Both are exact, so the quotient is rounded once: the nearest float (Clinger, PLDI 1990).
	f := float64(m) / pow10[places]
	if neg {
		f = -f
	}
	return OfFloat(f), i
}

func bigInteger(b []byte, start, end int) (Value, int) {
	n, err := strconv.ParseInt(unsafe.String(&b[start], end-start), 10, 64)
	if err == nil {
		return OfInt(n), end
	}
	return slowFloat(b, start, end)
}

// slowFloat reads the number that starts at start and whose exponent, if any, is at i.
func slowFloat(b []byte, start, i int) (Value, int) {
	end := skipExponent(b, i)
	if end < 0 {
		return Value{}, bad(start)
	}
	f, err := strconv.ParseFloat(unsafe.String(&b[start], end-start), 64)
	if err != nil {
		return Value{}, bad(start)
	}
	return OfFloat(f), end
}

func skipExponent(b []byte, i int) int {
	if i >= len(b) || b[i]|0x20 != 'e' {
		return i
	}
	if i++; i < len(b) && (b[i] == '+' || b[i] == '-') {
		i++
	}
	from := i
	for i < len(b) && b[i]-'0' <= 9 {
		i++
	}
	if i == from {
		return bad(i)
	}
	return i
}

// skipNumber checks the number at i as [scanNumber] does, without its value where its range is plain.
func skipNumber(b []byte, i int) int {
	start := i
	if b[i] == '-' {
		i++
	}
	first := i
	i = skipDigits(b, i)
	digits := i - first
	if digits == 0 || digits > 1 && b[first] == '0' {
		return bad(start)
	}
	if i < len(b) && b[i] == '.' {
		point := i + 1
		if i = skipDigits(b, point); i == point {
			return bad(start)
		}
	}
	if digits > 300 || i < len(b) && b[i]|0x20 == 'e' {
		_, end := slowFloat(b, start, i)
		return end
	}
	return i
}

// appendFloat appends the shortest text that reads back as f, always with a fraction or an exponent.
func appendFloat(dst []byte, f float64) []byte {
	abs, format := math.Abs(f), byte('f')
	if abs != 0 && (abs < 1e-6 || abs >= 1e21) {
		format = 'e'
	}
	at := len(dst)
	dst = strconv.AppendFloat(dst, f, format, -1, 64)
	for _, c := range dst[at:] {
		if c == '.' || c == 'e' {
			return dst
		}
	}
	return append(dst, '.', '0')
}
