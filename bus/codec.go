package bus

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// DecodeError says where bytes stopped being what they should be.
type DecodeError struct {
	What   string // "index", "records", "position", "catalog"
	Offset int    // bytes from its start
	Err    error  // what did not hold there
}

func (e *DecodeError) Unwrap() error { return e.Err }

func (e *DecodeError) Error() string {
	return fmt.Sprintf("bus: %s is damaged at byte %d: %v", e.What, e.Offset, e.Err)
}

var (
	errShort   = errors.New("it ends too early")
	errRest    = errors.New("bytes follow its end")
	errVarint  = errors.New("a number is not in its shortest form")
	errVersion = errors.New("unknown version")
	errFlags   = errors.New("unknown flags, or flags that do not go together")
	errRange   = errors.New("a number is out of range")
	errOrder   = errors.New("ids are not in ascending order")
)

// decoder reads b from off on; the first error sticks, and later reads return zero. What it accepts is the one encoding
// of what it returns.
type decoder struct {
	b   []byte
	off int
	err error
}

func (d *decoder) fail(err error) {
	if d.err == nil {
		d.err = err
	}
}

// result returns the decoder's error, that of unread bytes included, as a *DecodeError.
func (d *decoder) result(what string) error {
	if d.err == nil && d.off < len(d.b) {
		d.err = errRest
	}
	if d.err == nil {
		return nil
	}
	return &DecodeError{What: what, Offset: d.off, Err: d.err}
}

func (d *decoder) byte() byte {
	if d.err != nil || d.off >= len(d.b) {
		d.fail(errShort)
		return 0
	}
	d.off++
	return d.b[d.off-1]
}

func (d *decoder) version(want byte) {
	if v := d.byte(); d.err == nil && v != want {
		d.fail(errVersion)
	}
}

func (d *decoder) uvarint() uint64 {
	if d.err == nil && d.off < len(d.b) && d.b[d.off] < 0x80 {
		d.off++
		return uint64(d.b[d.off-1])
	}
	return d.uvarintSlow()
}

func (d *decoder) uvarintSlow() uint64 {
	if d.err != nil {
		return 0
	}
	v, n := binary.Uvarint(d.b[d.off:])
	switch {
	case n == 0:
		d.fail(errShort)
		return 0
	case n < 0 || n > 1 && d.b[d.off+n-1] == 0:
		d.fail(errVarint)
		return 0
	}
	d.off += n
	return v
}

func (d *decoder) varint() int64 {
	u := d.uvarint()
	return int64(u>>1) ^ -int64(u&1)
}

// limited reads a number of at most limit.
func (d *decoder) limited(limit uint64) uint64 {
	v := d.uvarint()
	if v > limit {
		d.fail(errRange)
		return 0
	}
	return v
}

func (d *decoder) uint32() uint32 { return uint32(d.limited(1<<32 - 1)) }
func (d *decoder) int31() int     { return int(d.limited(1<<31 - 1)) }
func (d *decoder) int63() int64   { return int64(d.limited(1<<63 - 1)) }

// count reads how many things follow, each of at least size bytes, so that no more memory is taken than bytes vouch for.
func (d *decoder) count(size int) int {
	n := d.uvarint()
	if d.err == nil && n > uint64((len(d.b)-d.off)/size) {
		d.fail(errShort)
	}
	if d.err != nil {
		return 0
	}
	return int(n)
}

// bytes reads a length and returns so many bytes of b.
func (d *decoder) bytes() []byte {
	n := d.uvarint()
	if d.err != nil || n > uint64(len(d.b)-d.off) {
		d.fail(errShort)
		return nil
	}
	v := d.b[d.off : d.off+int(n) : d.off+int(n)]
	d.off += int(n)
	return v
}

func appendBytes[T string | []byte](b []byte, v T) []byte {
	b = binary.AppendUvarint(b, uint64(len(v)))
	return append(b, v...)
}

func bit(on bool, b byte) byte {
	if on {
		return b
	}
	return 0
}
