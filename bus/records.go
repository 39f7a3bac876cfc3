package bus

import (
	"encoding/binary"
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
	Value   []byte // nil is none, which is not the same as empty
	Time    int64  // event time in ms since 1970, or NoTime
	Headers []Header
}

// The flags of a record say what is there of it.
const (
	hasTime    = 1
	hasKey     = 2
	hasHeaders = 4
	noValue    = 8
	flagsOfAll = hasTime | hasKey | hasHeaders | noValue
)

// Builder collects records of one partition as the bytes of a section. The zero Builder is empty.
type Builder struct {
	b     []byte
	count int
	last  int64
	late  int64 // the highest time
	times bool  // some record has one
	hint  int   // about what the section will come to, by the one before
}

// Append encodes a copy of r behind what b holds:
//
//	+-------+------------+-----------------+----------------+---------+-----------------------------------------+
//	| flags | time delta | key length, key | value length   | headers | for each: name length, name,            |
//	| u8    | varint     | uvarint, bytes  | uvarint, bytes | uvarint |           value length, value           |
//	+-------+------------+-----------------+----------------+---------+-----------------------------------------+
//
//	flags   1: it has a time, the difference to the one before in the section, to 0 for the first; 2: a key;
//	        4: headers; 8: no value. What is not there takes no bytes.
func (b *Builder) Append(r Record) {
	if b.b == nil {
		b.b = make([]byte, 0, max(512, b.hint))
	}
	flags := bit(r.Time != NoTime, hasTime) | bit(r.Key != nil, hasKey) | bit(len(r.Headers) > 0, hasHeaders) | bit(r.Value == nil, noValue)
	out := append(b.b, flags)
	if flags&hasTime != 0 {
		out = binary.AppendVarint(out, r.Time-b.last)
		b.last = r.Time
		if !b.times || r.Time > b.late {
			b.late, b.times = r.Time, true
		}
	}
	if flags&hasKey != 0 {
		out = appendBytes(out, r.Key)
	}
	if flags&noValue == 0 {
		out = appendBytes(out, r.Value)
	}
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

// Count returns the number of records.
func (b *Builder) Count() int { return b.count }

// Latest returns the highest event time, NoTime if no record has one.
func (b *Builder) Latest() int64 {
	if !b.times {
		return NoTime
	}
	return b.late
}

// Bytes returns the encoding, which the Builder shares until Reset.
func (b *Builder) Bytes() []byte { return b.b }

// Reset makes b empty; what Bytes returned stays as it is.
func (b *Builder) Reset() { *b = Builder{hint: len(b.b) + len(b.b)/16} }

// walker decodes records one after another.
type walker struct {
	decoder
	last int64 // time of the last record that had one
}

// next decodes one record. The strings of its headers are copies, the rest lies in the walker's bytes.
func (w *walker) next() (r Record) {
	flags := w.byte()
	if flags&^flagsOfAll != 0 {
		w.fail(errFlags)
		return r
	}
	r.Time = NoTime
	if flags&hasTime != 0 {
		w.last += w.varint()
		r.Time = w.last
		if r.Time == NoTime {
			w.fail(errFlags)
		}
	}
	if flags&hasKey != 0 {
		r.Key = w.bytes()
	}
	if flags&noValue == 0 {
		r.Value = w.bytes()
	}
	if flags&hasHeaders != 0 {
		n := w.count(2)
		if n == 0 {
			w.fail(errFlags)
			return r
		}
		r.Headers = make([]Header, n)
		for i := range r.Headers {
			r.Headers[i] = Header{Name: string(w.bytes()), Value: w.bytes()}
		}
	}
	return r
}

// skip passes over one record whose encoding has been checked, or checks it.
func (w *walker) skip() {
	flags := w.byte()
	if flags&hasHeaders != 0 || flags&^flagsOfAll != 0 {
		w.off--
		w.next()
		return
	}
	if flags&hasTime != 0 {
		if w.last += w.varint(); w.last == NoTime {
			w.fail(errFlags)
		}
	}
	if flags&hasKey != 0 {
		w.bytes()
	}
	if flags&noValue == 0 {
		w.bytes()
	}
}

// checkRecords returns an error unless data holds exactly count records.
func checkRecords(data []byte, count int) error {
	w := walker{decoder: decoder{b: data}}
	for range count {
		w.skip()
		if w.err != nil {
			break
		}
	}
	return w.result("records")
}

// mark remembers where in a batch's bytes a record begins, so that a batch taken in pieces is walked over once.
type mark struct {
	at   *byte // first byte of the batch that it is of
	n    int   // records before it
	off  int
	last int64
}

// Batch is some consecutive records of one partition. What it refers to is immutable and shared by all who read it; Records
// may be called on the goroutine of the batch's reader alone.
type Batch struct {
	Partition int
	Base      Offset // of the first
	LSN       wal.LSN
	Payload   any // if not nil, its elements From up to, without, To are the records' values
	From, To  int // within what was published together
	data      []byte
	mark      *mark
}

// Len returns the number of records.
func (b *Batch) Len() int { return b.To - b.From }

// Records yields the records in order. They may be kept.
func (b *Batch) Records() iter.Seq[Record] {
	return func(yield func(Record) bool) {
		if b.From == b.To {
			return
		}
		w, n := b.walk()
		for ; n < b.From; n++ {
			w.skip()
		}
		for ; n < b.To; n++ {
			r := w.next()
			if w.err != nil {
				// What comes from the log was checked when it was read, so a writer in this process gave a wrong count.
				panic(fmt.Sprintf("bus: record %d of a batch of partition %d: %v", n, b.Partition, w.err))
			}
			if !yield(r) {
				return
			}
		}
		if b.mark != nil {
			*b.mark = mark{at: &b.data[0], n: n, off: w.off, last: w.last}
		}
	}
}

// walk returns a walker before record n of the batch's bytes, as near before From as is known.
func (b *Batch) walk() (w walker, n int) {
	w.b = b.data
	if m := b.mark; m != nil && len(b.data) > 0 && m.at == &b.data[0] && m.n <= b.From {
		w.off, w.last, n = m.off, m.last, m.n
	}
	return w, n
}

// latest returns the highest event time of the records, or seen if none is higher.
func (b *Batch) latest(seen int64) int64 {
	w, n := b.walk()
	for ; n < b.To; n++ {
		if n < b.From {
			w.skip()
		} else if t := w.next().Time; t != NoTime {
			seen = max(seen, t)
		}
	}
	return seen
}
