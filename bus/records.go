package bus

import (
	"encoding/binary"
	"errors"
	"fmt"
	"iter"

	"github.com/sidestream-dev/sidestream/wal"
)

// Header is one name and value of a record.
type Header struct {
	Name  string
	Value []byte
}

// Record is a record as bytes. Its slices lie in the batch and are immutable.
type Record struct {
	Key     []byte // encoded; nil is none
	Value   []byte
	Time    int64 // event time in ms since 1970, or NoTime
	Headers []Header
}

const (
	hasTime    = 1
	hasKey     = 2
	hasHeaders = 4
)

var errRecord = errors.New("a record is cut short")

// Builder collects records of one partition as the bytes of a section. The zero Builder is empty.
type Builder struct {
	b     []byte
	count int
	last  int64
}

// Append encodes a copy of r.
func (b *Builder) Append(r Record) {
	if b.b == nil {
		b.b = make([]byte, 0, 512)
	}
	flags := byte(0)
	if r.Time != NoTime {
		flags |= hasTime
	}
	if r.Key != nil {
		flags |= hasKey
	}
	if len(r.Headers) > 0 {
		flags |= hasHeaders
	}
	out := append(b.b, flags)
	if flags&hasTime != 0 {
		out = binary.AppendVarint(out, r.Time-b.last)
		b.last = r.Time
	}
	if flags&hasKey != 0 {
		out = appendBytes(out, r.Key)
	}
	out = appendBytes(out, r.Value)
	if flags&hasHeaders != 0 {
		out = binary.AppendUvarint(out, uint64(len(r.Headers)))
		for _, h := range r.Headers {
			out = appendBytes(out, h.Name)
			out = appendBytes(out, h.Value)
		}
	}
	b.b = out
	b.count++
}

func appendBytes[T string | []byte](b []byte, v T) []byte {
	b = binary.AppendUvarint(b, uint64(len(v)))
	return append(b, v...)
}

// Count returns the number of records.
func (b *Builder) Count() int { return b.count }

// Bytes returns the encoding, which the Builder shares until Reset.
func (b *Builder) Bytes() []byte { return b.b }

// Reset makes b empty; what Bytes returned stays as it is.
func (b *Builder) Reset() { *b = Builder{} }

// decoder reads records one after another.
type decoder struct {
	b    []byte
	last int64
	err  error
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.err = errRecord
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) varint() int64 {
	v, n := binary.Varint(d.b)
	if n <= 0 {
		d.err = errRecord
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) bytes() []byte {
	n := d.uvarint()
	if d.err != nil || n > uint64(len(d.b)) {
		d.err = errRecord
		return nil
	}
	v := d.b[:n:n]
	d.b = d.b[n:]
	return v
}

// next decodes one record.
func (d *decoder) next() (r Record) {
	if len(d.b) == 0 {
		d.err = errRecord
		return r
	}
	flags := d.b[0]
	d.b = d.b[1:]
	if flags&^(hasTime|hasKey|hasHeaders) != 0 {
		d.err = fmt.Errorf("a record has unknown flags %#x", flags)
		return r
	}
	r.Time = NoTime
	if flags&hasTime != 0 {
		d.last += d.varint()
		r.Time = d.last
	}
	if flags&hasKey != 0 {
		r.Key = d.bytes()
	}
	r.Value = d.bytes()
	if flags&hasHeaders != 0 && d.err == nil {
		n := d.uvarint()
		if n == 0 || n > uint64(len(d.b)) {
			d.err = errRecord
			return r
		}
		for range n {
			if d.err != nil {
				return r
			}
			r.Headers = append(r.Headers, Header{Name: string(d.bytes()), Value: d.bytes()})
		}
	}
	return r
}

// checkRecords returns an error unless data holds exactly count records.
func checkRecords(data []byte, count int) error {
	d := decoder{b: data}
	for range count {
		d.next()
		if d.err != nil {
			return d.err
		}
	}
	if len(d.b) > 0 {
		return fmt.Errorf("%d bytes behind the last record", len(d.b))
	}
	return nil
}

// Batch is some consecutive records of one partition, shared by all who read them.
type Batch struct {
	Partition int
	Base      Offset // of the first
	LSN       wal.LSN
	Payload   any // if not nil, its elements From to To are the records' values
	From, To  int
	data      []byte
	count     int
	start     decoder // before the first record
}

// Len returns the number of records.
func (b *Batch) Len() int { return b.count }

// Records yields the records in order. Their bytes have passed their checksum, and their encoding has been checked.
func (b *Batch) Records() iter.Seq[Record] {
	return func(yield func(Record) bool) {
		d := b.start
		for range b.count {
			if !yield(d.next()) {
				return
			}
		}
	}
}
