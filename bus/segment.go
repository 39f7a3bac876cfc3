package bus

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"

	"github.com/sidestream-dev/sidestream/wal"
)

// The topic store keeps what is to live longer than the log: each partition is a row of segment files. Numbers of fixed
// width are little-endian; u and z are as in the package comment.
const (
	segmentVersion = 1
	segmentMagic   = 0x74737373 // "ssst"
	trailerMagic   = 0x65737373 // "ssse"

	segmentHeaderLen = 60
	entryHeaderLen   = 8
	trailerLen       = 16
	entryMax         = 64<<20 + 1024 // what a frame of the log can hold, and what stands before it

	entryRecords = 1
	entryMarks   = 2
	entryTable   = 3
	entryIndex   = 4
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var (
	errMagic   = errors.New("no segment begins here")
	errCRC     = errors.New("a checksum differs")
	errKind    = errors.New("unknown kind of entry")
	errForeign = errors.New("it belongs to another topic, partition or place")
	errChain   = errors.New("it does not follow the segment before it")
	errMissing = errors.New("a segment is missing")
	errUnread  = errors.New("records are missing between two entries")
)

// SegmentError says where a file of the topic store stopped making sense. Nobody takes it for an end.
type SegmentError struct {
	File        string // within the store's folder
	Offset      int64  // bytes from the file's start
	Topic       TopicID
	Partition   int
	First, Next Offset // the records concerned: First up to, without, Next
	Err         error  // what did not hold there
}

func (e *SegmentError) Unwrap() error { return e.Err }

func (e *SegmentError) Error() string {
	return fmt.Sprintf("bus: topic store: %s is damaged at byte %d (records %s up to %s of partition %d): %v",
		e.File, e.Offset, e.First, e.Next, e.Partition, e.Err)
}

// segmentHeader stands at the start of a segment.
type segmentHeader struct {
	log       wal.LogID // that the records were written to
	topic     TopicID
	partition int
	start     wal.LSN // of all before it nothing is here
	base      Offset  // of the first record
	before    int64   // bytes of records ever written before it
}

// appendSegmentHeader appends:
//
//	0       4       5     8        24      28          32      40     48       56    60
//	+-------+-------+-------+--------+-------+-----------+-------+------+--------+-----+
//	| magic | ver 1 | 0 0 0 | log id | topic | partition | start | base | before | crc |
//	| u32   | u8    |       | 16     | u32   | u32       | u64   | u64  | u64    | u32 |
//	+-------+-------+-------+--------+-------+-----------+-------+------+--------+-----+
//
//	crc     CRC-32C of all before it
func appendSegmentHeader(dst []byte, h segmentHeader) []byte {
	at := len(dst)
	dst = binary.LittleEndian.AppendUint32(dst, segmentMagic)
	dst = append(dst, segmentVersion, 0, 0, 0)
	dst = append(dst, h.log[:]...)
	dst = binary.LittleEndian.AppendUint32(dst, uint32(h.topic))
	dst = binary.LittleEndian.AppendUint32(dst, uint32(h.partition))
	dst = binary.LittleEndian.AppendUint64(dst, uint64(h.start))
	dst = binary.LittleEndian.AppendUint64(dst, uint64(h.base))
	dst = binary.LittleEndian.AppendUint64(dst, uint64(h.before))
	return binary.LittleEndian.AppendUint32(dst, crc32.Checksum(dst[at:], castagnoli))
}

func decodeSegmentHeader(b []byte) (h segmentHeader, err error) {
	if len(b) < segmentHeaderLen {
		return h, errShort
	}
	b = b[:segmentHeaderLen]
	u32, u64 := binary.LittleEndian.Uint32, binary.LittleEndian.Uint64
	switch {
	case u32(b) != segmentMagic:
		return h, errMagic
	case u32(b[56:]) != crc32.Checksum(b[:56], castagnoli):
		return h, errCRC
	case b[4] != segmentVersion || b[5]|b[6]|b[7] != 0:
		return h, errVersion
	}
	copy(h.log[:], b[8:])
	h.topic, h.partition = TopicID(u32(b[24:])), int(u32(b[28:]))
	h.start, h.base, h.before = wal.LSN(u64(b[32:])), Offset(u64(b[40:])), int64(u64(b[48:]))
	if h.partition >= partitionsMax || h.before < 0 {
		return h, errRange
	}
	return h, nil
}

// storeEntry is one entry of a segment: a publication's records, the marks of a frame (or of several with no records
// between them that only move watermarks on), or the table of producers as of its place.
type storeEntry struct {
	kind   uint8
	lsn    wal.LSN
	base   Offset // of records the first, of a table the offset that comes next
	count  int    // of records
	latest int64  // event time: of records the highest, of a table the highest before it in the segment; NoTime without any
	bytes  int64  // of a table: of records ever written before it
	data   []byte // of records
	marks  []Mark // their Topic is not said
	table  []ProducerMark
	index  segmentIndex
}

// segmentIndex is the last entry of a segment that is complete.
type segmentIndex struct {
	covered wal.LSN // of the frames before it, all that concern the partition are in this segment or before it
	next    Offset
	bytes   int64 // of records ever written up to here
	latest  int64 // event time
	at      int64 // by when the last was written, Unix ms
	points  []storePoint
}

// storePoint says where a table stands in a segment.
type storePoint struct {
	pos    int64
	lsn    wal.LSN
	next   Offset
	latest int64 // as the table says
}

// appendEntry appends an entry:
//
//	+--------+-----+------+-------+------------------------------------------------------------------------------+
//	| length | crc | kind | lsn u | 1 records:  base u, count u, latest t, records as in the log                 |
//	| u32    | u32 | u8   |       | 2 marks:    n u, each: producer u, flags u8 [watermark z]                    |
//	|        |     |      |       | 3 table:    next u, latest t, bytes u, n u, each: producer u, flags [wm. z]  |
//	|        |     |      |       | 4 index:    next u, bytes u, latest t, at u, n u, each: pos u, lsn u, next u |
//	|        |     |      |       |             (each less the one before), latest t; lsn is what is covered     |
//	+--------+-----+------+-------+------------------------------------------------------------------------------+
//
//	length  of what follows crc; crc is CRC-32C of length and of what follows crc
//	t       a time in ms: zigzag + 1 as u; 0 is none
func appendEntry(dst []byte, e *storeEntry) []byte {
	at := len(dst)
	dst = append(dst, 0, 0, 0, 0, 0, 0, 0, 0, e.kind)
	dst = binary.AppendUvarint(dst, uint64(e.lsn))
	switch e.kind {
	case entryRecords:
		dst = binary.AppendUvarint(dst, uint64(e.base))
		dst = binary.AppendUvarint(dst, uint64(e.count))
		dst = appendTime(dst, e.latest)
		dst = append(dst, e.data...)
	case entryMarks:
		dst = binary.AppendUvarint(dst, uint64(len(e.marks)))
		for _, m := range e.marks {
			dst = appendMark(dst, m)
		}
	case entryTable:
		dst = binary.AppendUvarint(dst, uint64(e.base))
		dst = appendTime(dst, e.latest)
		dst = binary.AppendUvarint(dst, uint64(e.bytes))
		dst = appendTable(dst, e.table)
	case entryIndex:
		dst = appendSegmentIndex(dst, &e.index)
	}
	binary.LittleEndian.PutUint32(dst[at:], uint32(len(dst)-at-entryHeaderLen))
	binary.LittleEndian.PutUint32(dst[at+4:], entryCRC(dst[at:]))
	return dst
}

// entryCRC is the checksum of an entry, length and all.
func entryCRC(e []byte) uint32 {
	return crc32.Update(crc32.Checksum(e[:4], castagnoli), castagnoli, e[entryHeaderLen:])
}

func appendSegmentIndex(dst []byte, x *segmentIndex) []byte {
	dst = binary.AppendUvarint(dst, uint64(x.next))
	dst = binary.AppendUvarint(dst, uint64(x.bytes))
	dst = appendTime(dst, x.latest)
	dst = binary.AppendUvarint(dst, uint64(x.at))
	dst = binary.AppendUvarint(dst, uint64(len(x.points)))
	last := storePoint{}
	for _, p := range x.points {
		dst = binary.AppendUvarint(dst, uint64(p.pos-last.pos))
		dst = binary.AppendUvarint(dst, uint64(p.lsn-last.lsn))
		dst = binary.AppendUvarint(dst, uint64(p.next-last.next))
		dst = appendTime(dst, p.latest)
		last = p
	}
	return dst
}

func appendTime(dst []byte, t int64) []byte {
	return binary.AppendUvarint(dst, (uint64(t)<<1^uint64(t>>63))+1)
}

func (d *decoder) time() int64 {
	u := d.uvarint() - 1
	return int64(u>>1) ^ -int64(u&1)
}

// entryLength reads the head of an entry of which limit bytes are there, head included.
func entryLength(head []byte, limit int64) (length int, err error) {
	if len(head) < entryHeaderLen || limit < entryHeaderLen {
		return 0, errShort
	}
	n := int64(binary.LittleEndian.Uint32(head))
	switch {
	case n > entryMax:
		return 0, errRange
	case n > limit-entryHeaderLen:
		return 0, errShort
	}
	return int(n), nil
}

// decodeEntry decodes one whole entry, head included. What it returns lies in b.
func decodeEntry(b []byte) (e storeEntry, err error) {
	n, err := entryLength(b, int64(len(b)))
	if err != nil {
		return e, err
	}
	if entryHeaderLen+n != len(b) {
		return e, errRest
	}
	if binary.LittleEndian.Uint32(b[4:]) != entryCRC(b) {
		return e, errCRC
	}
	d := decoder{b: b[entryHeaderLen:]}
	e.kind, e.lsn, e.latest = d.byte(), wal.LSN(d.uvarint()), NoTime
	switch e.kind {
	case entryRecords:
		e.base, e.count, e.latest = Offset(d.uvarint()), d.int31(), d.time()
		if d.err == nil {
			e.data = d.b[d.off:]
			d.off = len(d.b)
		}
		if e.count == 0 || uint64(e.base)+uint64(e.count) < uint64(e.base) {
			d.fail(errRange)
		}
	case entryMarks:
		n := d.count(2)
		if n == 0 {
			d.fail(errRange)
		}
		for range n {
			e.marks = append(e.marks, d.mark())
		}
	case entryTable:
		e.base, e.latest, e.bytes = Offset(d.uvarint()), d.time(), d.int63()
		e.table = d.table()
	case entryIndex:
		e.index = d.segmentIndex()
		e.index.covered = e.lsn
	default:
		d.fail(errKind)
	}
	return e, d.end()
}

// end returns the decoder's error, that of unread bytes included.
func (d *decoder) end() error {
	if d.err == nil && d.off < len(d.b) {
		d.err = errRest
	}
	return d.err
}

func (d *decoder) segmentIndex() (x segmentIndex) {
	x.next, x.bytes, x.latest, x.at = Offset(d.uvarint()), d.int63(), d.time(), d.int63()
	n := d.count(4)
	if n == 0 {
		return x
	}
	x.points = make([]storePoint, n)
	last := storePoint{}
	for i := range x.points {
		pos, lsn, next := d.uvarint(), d.uvarint(), d.uvarint()
		p := storePoint{last.pos + int64(pos), last.lsn + wal.LSN(lsn), last.next + Offset(next), d.time()}
		if pos > math.MaxInt64 || p.pos < last.pos || p.lsn < last.lsn || p.next < last.next || i > 0 && pos == 0 {
			d.fail(errOrder)
		}
		x.points[i], last = p, p
	}
	return x
}

// appendTrailer ends a complete segment: it says where its index begins.
//
//	+-------+-------+-----+
//	| index | magic | crc |   u64, u32, u32: CRC-32C of what stands before it here
//	+-------+-------+-----+
func appendTrailer(dst []byte, index int64) []byte {
	at := len(dst)
	dst = binary.LittleEndian.AppendUint64(dst, uint64(index))
	dst = binary.LittleEndian.AppendUint32(dst, trailerMagic)
	return binary.LittleEndian.AppendUint32(dst, crc32.Checksum(dst[at:], castagnoli))
}

// decodeTrailer returns where the index begins in a file of size bytes that ends with b.
func decodeTrailer(b []byte, size int64) (index int64, err error) {
	if len(b) != trailerLen {
		return 0, errShort
	}
	if binary.LittleEndian.Uint32(b[8:]) != trailerMagic || binary.LittleEndian.Uint32(b[12:]) != crc32.Checksum(b[:12], castagnoli) {
		return 0, errCRC
	}
	index = int64(binary.LittleEndian.Uint64(b))
	if index < segmentHeaderLen || index > size-trailerLen-entryHeaderLen {
		return 0, errRange
	}
	return index, nil
}

// sameTable reports whether two tables say the same.
func sameTable(a, b []ProducerMark) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

// moves reports whether marks only move watermarks on, or say what the table says already, so that they may be joined with
// what follows them: a reader that takes the sum comes to the same table and the same watermark.
func moves(table []ProducerMark, marks []Mark) bool {
	for _, m := range marks {
		known := false
		for _, p := range table {
			if p.Producer == m.Producer {
				known = p.Idle == m.Idle
			}
		}
		if m.Leave || m.Join || !known {
			return false
		}
	}
	return true
}

// joinMarks adds marks to those of before, of which a later one of the same producer takes the place of an earlier.
func joinMarks(before, marks []Mark) []Mark {
	for _, m := range marks {
		m.Topic = 0
		i := 0
		for i < len(before) && before[i].Producer != m.Producer {
			i++
		}
		switch {
		case i == len(before):
			before = append(before, m)
		default:
			m.Watermark = max(m.Watermark, before[i].Watermark)
			before[i] = m
		}
	}
	return before
}

// isSegmentName reports whether a file's name is that of a segment, and of which.
func isSegmentName(name string) (start wal.LSN, ok bool) {
	var n uint64
	if _, err := fmt.Sscanf(name, "%020d.seg", &n); err != nil || segmentName(wal.LSN(n)) != name {
		return 0, false
	}
	return wal.LSN(n), true
}

func segmentName(start wal.LSN) string { return fmt.Sprintf("%020d.seg", uint64(start)) }
