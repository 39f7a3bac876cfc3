package wal

import (
	"bytes"
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write golden files")

// goldenFrames are a catalog with all that an extension can hold, and a frame.
func goldenFrames() []byte {
	id := LogID{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}
	ext := &extension{segments: 3, listCRC: 0xaabbccdd, bytes: 1 << 33, first: 1000, ancestors: []Ancestor{
		{ID: LogID{0xf0, 0xf1}, Last: 400}, {ID: LogID{0xe0, 0xe1}, Last: 900},
	}}
	b, crc := appendFrame(nil, head{kind: KindCatalog, id: id, lsn: 1000, durable: 900, prev: 0x01020304}, ext,
		[]Section{{Kind: 1, Owner: 0, Body: []byte("catalog")}})
	b, _ = appendFrame(b, head{kind: 2, id: id, lsn: 1001, durable: 1000, prev: crc}, nil,
		[]Section{{Kind: 2, Owner: 7, Body: []byte("bus records")}, {Kind: 255, Owner: 1<<32 - 1}})
	return b
}

// goldenParts are a catalog that goes on in one more frame.
func goldenParts() []byte {
	id := LogID{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}
	ext := &extension{segments: 3, listCRC: 0xaabbccdd, bytes: 1 << 33, first: 1, parts: 1, ancestors: []Ancestor{{ID: LogID{0xf0}, Last: 400}}}
	b, crc := appendFrame(nil, head{kind: KindCatalog, id: id, lsn: 1000, durable: 999, prev: 0x01020304}, ext,
		[]Section{{Kind: 1, Owner: 0, Body: []byte("half a cat")}})
	b, _ = appendFrame(b, head{kind: KindCatalogPart, id: id, lsn: 1001, durable: 999, prev: crc}, nil,
		[]Section{{Kind: 1, Owner: 0, Body: []byte("alog")}})
	return b
}

func TestGoldenFrame(t *testing.T) {
	checkGolden(t, "frame.golden", goldenFrames())
	checkGolden(t, "catalog-parts.golden", goldenParts())
}

func checkGolden(t *testing.T, name string, b []byte) {
	t.Helper()
	var sb strings.Builder
	for ; len(b) > 0; b = b[min(16, len(b)):] {
		fmt.Fprintln(&sb, hex.EncodeToString(b[:min(16, len(b))]))
	}
	path := filepath.Join("testdata", name)
	if *update {
		os.MkdirAll("testdata", 0o755)
		mustWrite(t, path, []byte(sb.String()))
	}
	if want := string(mustRead(t, path)); sb.String() != want {
		t.Errorf("the layout has changed: logs on disk cannot be read any more. Got\n%swant\n%s", sb.String(), want)
	}
}

// memBytes is a cursor over b.
func memBytes(b []byte) *cursor {
	c, _ := newCursor(bytesFile{bytes.NewReader(b)}, 1<<10)
	return c
}

// FuzzDecodeFrame: what is accepted encodes back to itself; nothing panics, and no memory is taken for a length that is
// not there.
func FuzzDecodeFrame(f *testing.F) {
	golden := goldenFrames()
	f.Add(golden)
	f.Add(goldenParts())
	f.Add(golden[:headerLen])
	f.Add(bytes.Repeat([]byte{0xff}, headerLen))
	huge := bytes.Clone(golden)
	huge[47], huge[51] = 0x00, 0x03 // 48 MiB long
	f.Add(huge)
	f.Fuzz(func(t *testing.T, in []byte) {
		c := memBytes(in)
		var fr found
		if c.frame(0, &fr) != nil {
			return
		}
		if c.bodies(&fr) != nil {
			return
		}
		var ext *extension
		if fr.kind == KindCatalog {
			ext = &fr.ext
		}
		var sections []Section
		for _, e := range fr.table {
			sections = append(sections, Section{e.Kind, e.Owner, in[e.off : e.off+e.Len]})
		}
		out, crc := appendFrame(nil, fr.head, ext, sections)
		if crc != fr.crc || !bytes.Equal(out, in[:fr.length]) {
			t.Fatalf("accepted %x, which encodes as %x", in[:fr.length], out)
		}
	})
}

// FuzzScanTail: whatever the bytes of a segment, the scanner ends, and what it accepts is a prefix of them.
func FuzzScanTail(f *testing.F) {
	d := bytesDisk{files: map[string][]byte{}}
	f.Add(appendEntries(goldenFrames()))
	f.Add(appendEntries(goldenParts()))
	f.Add(appendEntries(goldenParts())[:250])
	f.Add([]byte{0})
	f.Add(bytes.Repeat([]byte{0x80}, 20))
	f.Fuzz(func(t *testing.T, in []byte) {
		d.files["/wal/"+generationName(1000)+"/"+segmentName(1)] = in
		s, err := scanLog(d, "/wal", []LSN{1000})
		if err == nil && s.newest != nil && s.newest.end.off > int64(len(in)) {
			t.Fatalf("found %d bytes of %d", s.newest.end.off, len(in))
		}
		if _, err := verify(d, "/wal"); err != nil {
			t.Fatal(err)
		}
	})
}

// appendEntries puts the engine's length before each frame of b.
func appendEntries(b []byte) (out []byte) {
	for len(b) > 0 {
		h, err := decodeHeader(b)
		if err != nil {
			panic(err)
		}
		out = append(appendUvarint(out, h.length), b[:h.length]...)
		b = b[h.length:]
	}
	return out
}

// TestHeaderLimits: a header that asks for more than a limit is refused before its memory is taken.
func TestHeaderLimits(t *testing.T) {
	frame, _ := appendFrame(nil, head{kind: 2, lsn: 5, durable: 4}, nil, []Section{{Body: []byte("x")}})
	tests := []struct {
		name string
		at   int
		put  []byte
		want error
	}{
		{"magic", 0, []byte("S"), errMagic},
		{"version", 4, []byte{2}, errVersion},
		{"no kind", 5, []byte{0}, errHead},
		{"extension of no catalog", 6, []byte{24}, errHead},
		{"durable beyond its own LSN", 32, []byte{5}, errHead},
		{"too many sections", 44, []byte{1, 0, 0x10}, errLimit},
		{"more table than frame", 44, []byte{9}, errHead},
		{"too long", 48, []byte{1, 0, 0, 4}, errLimit},
		{"longer than the file", 48, []byte{0, 0, 1}, errShort},
		{"shorter than its header", 48, []byte{55, 0}, errHead},
		{"catalog with half an extension", 5, []byte{1, 23}, errHead},
		{"checksum", 52, []byte{frame[52] ^ 1}, errHeadCRC},
		{"table", 57, []byte{1}, errHeadCRC},
		{"body", len(frame) - 1, []byte("y"), errBodyCRC},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := bytes.Clone(frame)
			copy(b[tt.at:], tt.put)
			c := memBytes(b)
			var fr found
			err := c.frame(0, &fr)
			if err == nil {
				err = c.bodies(&fr)
			}
			if err != tt.want {
				t.Errorf("got %v, want %v", err, tt.want)
			}
			if cap(c.buf) > 4<<10 {
				t.Errorf("took %d bytes", cap(c.buf))
			}
		})
	}
}
