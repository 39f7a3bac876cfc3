package bus

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"reflect"
	"testing"

	"github.com/sidestream-dev/sidestream/wal"
)

func someSegmentHeader() segmentHeader {
	return segmentHeader{log: wal.LogID{1, 2, 3, 15: 0xff}, topic: math.MaxUint32, partition: 127, start: 900, base: 1 << 40, before: 1 << 33}
}

func someEntries() []storeEntry {
	data, n := build(someRecords())
	return []storeEntry{
		{kind: entryTable, lsn: 900, base: 1 << 40, latest: NoTime, bytes: 1 << 33, table: someState().Table},
		{kind: entryRecords, lsn: 900, base: 1 << 40, count: n, latest: 1_700_000_000_123, data: data},
		{kind: entryMarks, lsn: 902, latest: NoTime, marks: []Mark{{Producer: 1, Watermark: 1_700_000_000_000},
			{Producer: 2, Watermark: NoWatermark, Idle: true}, {Producer: 3, Watermark: NoWatermark, Join: true}, {Producer: 3, Watermark: NoWatermark, Leave: true}}},
		{kind: entryTable, lsn: 904, base: 1<<40 + 9, latest: -1},
		{kind: entryIndex, lsn: 1000, latest: NoTime, index: segmentIndex{covered: 1000, next: 1<<40 + 9, bytes: 1<<33 + 500, latest: math.MaxInt64, at: 1_700_000_000_000,
			points: []storePoint{{pos: 60, lsn: 900, next: 1 << 40, latest: NoTime}, {pos: 400, lsn: 904, next: 1<<40 + 9, latest: -1}}}},
	}
}

func someSegment() []byte {
	b := appendSegmentHeader(nil, someSegmentHeader())
	index := int64(0)
	for _, e := range someEntries() {
		index = int64(len(b))
		b = appendEntry(b, &e)
	}
	return appendTrailer(b, index)
}

func TestGoldenSegment(t *testing.T) { golden(t, "segment-v1.hex", someSegment()) }

// TestSegmentRoundTrip: what is encoded is decoded.
func TestSegmentRoundTrip(t *testing.T) {
	h, err := decodeSegmentHeader(appendSegmentHeader(nil, someSegmentHeader()))
	if err != nil || h != someSegmentHeader() {
		t.Errorf("header: %+v, %v", h, err)
	}
	for _, want := range someEntries() {
		got, err := decodeEntry(appendEntry(nil, &want))
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("entry: %v\n got %+v\nwant %+v", err, got, want)
		}
	}
	at, err := decodeTrailer(appendTrailer(nil, 700), 800)
	if err != nil || at != 700 {
		t.Errorf("trailer: %d, %v", at, err)
	}
}

// TestSegmentDamage: each flipped bit of a segment, and each of its beginnings, is found, or is of what is read without it.
func TestSegmentDamage(t *testing.T) {
	whole := someSegment()
	check := func(b []byte) error {
		if _, err := decodeSegmentHeader(b); err != nil {
			return err
		}
		if len(b) < trailerLen {
			return errShort
		}
		index, err := decodeTrailer(b[len(b)-trailerLen:], int64(len(b)))
		if err != nil {
			return err
		}
		end := int64(len(b) - trailerLen)
		for pos := int64(segmentHeaderLen); pos < end; {
			n, err := entryLength(b[pos:], end-pos)
			if err != nil {
				return err
			}
			e, err := decodeEntry(b[pos : pos+entryHeaderLen+int64(n)])
			if err != nil {
				return err
			}
			if (e.kind == entryIndex) != (pos == index) {
				return errKind
			}
			pos += entryHeaderLen + int64(n)
		}
		return nil
	}
	if err := check(whole); err != nil {
		t.Fatal(err)
	}
	for bit := range len(whole) * 8 {
		b := bytes.Clone(whole)
		b[bit/8] ^= 1 << (bit % 8)
		if check(b) == nil {
			t.Errorf("bit %d of byte %d was flipped, and nobody noticed", bit%8, bit/8)
		}
	}
	for n := range whole {
		if check(whole[:n]) == nil {
			t.Errorf("%d bytes of %d pass for a whole segment", n, len(whole))
		}
	}
}

func FuzzDecodeSegmentHeader(f *testing.F) {
	f.Add(appendSegmentHeader(nil, someSegmentHeader()))
	f.Add(bytes.Repeat([]byte{0xff}, segmentHeaderLen))
	f.Fuzz(func(t *testing.T, in []byte) {
		h, err := decodeSegmentHeader(in)
		if err == nil && !bytes.Equal(appendSegmentHeader(nil, h), in[:segmentHeaderLen]) {
			t.Fatalf("accepted %x, which encodes differently", in)
		}
	})
}

func FuzzDecodeEntry(f *testing.F) {
	for _, e := range someEntries() {
		f.Add(appendEntry(nil, &e)[entryHeaderLen:])
	}
	f.Add([]byte{entryMarks, 1, 0xff, 0xff, 0xff, 0xff, 0x7f})
	f.Add([]byte{entryIndex, 1, 1, 1, 0, 1, 0xff, 0xff, 0xff, 0xff, 0x7f})
	f.Fuzz(func(t *testing.T, body []byte) {
		in := append(make([]byte, entryHeaderLen), body...) // with its checksum, which no fuzzer finds
		binary.LittleEndian.PutUint32(in, uint32(len(body)))
		binary.LittleEndian.PutUint32(in[4:], entryCRC(in))
		e, err := decodeEntry(in)
		if err == nil && !bytes.Equal(appendEntry(nil, &e), in) {
			t.Fatalf("accepted %x, which encodes differently, as %+v", in, e)
		}
	})
}

func FuzzDecodeTrailer(f *testing.F) {
	f.Add(appendTrailer(nil, 700), int64(800))
	f.Fuzz(func(t *testing.T, in []byte, size int64) {
		at, err := decodeTrailer(in, size)
		if err == nil && (at < segmentHeaderLen || at >= size || !bytes.Equal(appendTrailer(nil, at), in)) {
			t.Fatalf("accepted %x of a file of %d bytes, as %d", in, size, at)
		}
	})
}

// TestEntryLengths: a length on disk is not trusted.
func TestEntryLengths(t *testing.T) {
	for _, tt := range []struct {
		length uint32
		limit  int64
		want   error
	}{{10, 18, nil}, {11, 18, errShort}, {math.MaxUint32, math.MaxInt64, errRange}, {0, 7, errShort}} {
		head := binary.LittleEndian.AppendUint32(nil, tt.length)
		if _, err := entryLength(append(head, 0, 0, 0, 0), tt.limit); !errors.Is(err, tt.want) {
			t.Errorf("length %d of %d: %v, want %v", tt.length, tt.limit, err, tt.want)
		}
	}
}
