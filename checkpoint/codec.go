package checkpoint

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// DecodeError says where bytes stopped being a header, a piece or a snapshot's description.
type DecodeError struct {
	What   string // "header", "piece", …
	Offset int    // bytes from its start
	Err    error  // what did not hold there
}

func (e *DecodeError) Unwrap() error { return e.Err }

func (e *DecodeError) Error() string {
	return fmt.Sprintf("checkpoint: %s is damaged at byte %d: %v", e.What, e.Offset, e.Err)
}

var (
	errShort   = errors.New("it ends too early")
	errVarint  = errors.New("a number is not in its shortest form")
	errVersion = errors.New("unknown version")
	errRest    = errors.New("bytes follow its end")
	errFlags   = errors.New("unknown flags")
	errOrder   = errors.New("names are not in ascending order")
	errRange   = errors.New("a number is out of range")
)

// decoder reads from b; the first error sticks and makes every later read return zero.
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

// result returns the decoder's error, that of unread bytes included, as a DecodeError.
func (d *decoder) result(what string) error {
	if d.err == nil && d.off < len(d.b) {
		d.err = errRest
	}
	if d.err == nil {
		return nil
	}
	return &DecodeError{What: what, Offset: d.off, Err: d.err}
}

func (d *decoder) more() bool { return d.err == nil && d.off < len(d.b) }

func (d *decoder) byte() byte {
	if d.err != nil || d.off >= len(d.b) {
		d.fail(errShort)
		return 0
	}
	d.off++
	return d.b[d.off-1]
}

func (d *decoder) uvarint() uint64 {
	if d.err != nil {
		return 0
	}
	if d.off < len(d.b) && d.b[d.off] < 0x80 {
		d.off++
		return uint64(d.b[d.off-1])
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

func (d *decoder) varint() int64 { return unzigzag(d.uvarint()) }

// count reads a number of items that take at least size bytes each, and so can be no more than the rest holds.
func (d *decoder) count(size int) int {
	n := d.uvarint()
	if d.err == nil && n > uint64((len(d.b)-d.off)/size) {
		d.fail(errShort)
		return 0
	}
	return int(n)
}

// bytes reads a string; it shares memory with the input.
func (d *decoder) bytes() []byte {
	n := d.count(1)
	if d.err != nil {
		return nil
	}
	d.off += n
	return d.b[d.off-n : d.off : d.off]
}

// optional reads an optional string as a copy; nil is absent.
func (d *decoder) optional() []byte {
	n := d.uvarint()
	if n == 0 || d.err != nil {
		return nil
	}
	if n-1 > uint64(len(d.b)-d.off) {
		d.fail(errShort)
		return nil
	}
	out := make([]byte, n-1)
	d.off += copy(out, d.b[d.off:])
	return out
}

func (d *decoder) uint32() uint32 {
	v := d.uvarint()
	if v > 1<<32-1 {
		d.fail(errRange)
		return 0
	}
	return uint32(v)
}

func zigzag(v int64) uint64   { return uint64(v)<<1 ^ uint64(v>>63) }
func unzigzag(v uint64) int64 { return int64(v>>1) ^ -int64(v&1) }

func appendString[S ~string | ~[]byte](b []byte, s S) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func appendOptional(b, s []byte) []byte {
	if s == nil {
		return append(b, 0)
	}
	return append(binary.AppendUvarint(b, uint64(len(s))+1), s...)
}
