package wal

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	goruntime "runtime"
	"slices"
	"strings"
	"sync"
	"testing"
)

// TestTornLastFrame cuts the last frame at every byte and puts in place of the rest nothing, zeros, 0xFF, noise, or what
// the disk may have held: other bytes of the same log.
func TestTornLastFrame(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	src := t.TempDir()
	cfg := Config{ReserveBytes: -1}
	build(t, src, cfg, 3, 2, 1)
	whole := mustRead(t, tailPath(t, src))
	start := lastEntry(t, src)
	rest := len(whole) - int(start)
	fills := []struct {
		name string
		fill func(b []byte)
	}{
		{"nothing", nil},
		{"zeros", func(b []byte) { clear(b) }},
		{"0xFF", func(b []byte) { copy(b, bytes.Repeat([]byte{0xff}, len(b))) }},
		{"random", func(b []byte) {
			for i := range b {
				b[i] = byte(rng.Uint32())
			}
		}},
		{"old data", func(b []byte) { copy(b, whole[rng.IntN(int(start)-len(b)):]) }},
		{"the frame before", func(b []byte) { copy(b, whole[int(start)-len(b):start]) }},
	}
	dir := t.TempDir()
	path := filepath.Join(dir, generationName(1), segmentName(1))
	if err := os.Mkdir(filepath.Dir(path), 0o750); err != nil {
		t.Fatal(err)
	}
	for _, tt := range fills {
		for keep := range rest {
			b := bytes.Clone(whole[:int(start)+keep])
			if tt.fill != nil {
				b = append(b, make([]byte, rest-keep)...)
				tt.fill(b[int(start)+keep:])
				if bytes.Equal(b, whole) {
					continue
				}
			}
			mustWrite(t, path, b)
			wantTear(t, dir, tt.name, 6, int64(len(b))-start)
		}
	}
	t.Logf("%d bytes × %d fills", rest, len(fills))
}

// lastEntry is where the last entry of the tail segment begins.
func lastEntry(t *testing.T, dir string) int64 {
	t.Helper()
	rep, err := verify(osDisk{}, dir)
	if err != nil || rep.Torn != nil || len(rep.Damage) > 0 {
		t.Fatal(rep, err)
	}
	var at int64
	if err := Dump(dir, 0, 0, func(f *Frame) error { at = f.Offset; return nil }); err != nil {
		t.Fatal(err)
	}
	return at
}

// wantTear checks that the scanner finds the tail behind LSN last, with cut bytes to cut. Every so often it opens the log
// too, which writes to the disk.
func wantTear(t *testing.T, dir, name string, last LSN, cut int64) {
	t.Helper()
	s, err := scanLog(osDisk{}, dir, []LSN{1})
	if err != nil {
		t.Fatalf("%s, %d bytes: %v", name, cut, err)
	}
	if s.newest.last() != last || s.cut.bytes != cut && cut > 0 {
		t.Fatalf("%s, %d bytes: found LSN %d, cut %d", name, cut, s.newest.last(), s.cut.bytes)
	}
	if cut%97 != 0 {
		return
	}
	l, err := Open(dir, Config{ReserveBytes: -1})
	if err != nil {
		t.Fatalf("%s, %d bytes: %v", name, cut, err)
	}
	defer l.Close()
	if r := l.Recovered(); l.Last() != last || r.CutBytes != cut {
		t.Fatalf("%s, %d bytes: Last %d, %v", name, cut, l.Last(), r)
	}
}

// TestEveryBitFlipped flips every bit of a log of about 64 KiB, one at a time, and asks the tail scanner, Verify and a
// reader. Each must say so or give every frame as written; the scanner may cut only what no frame calls durable.
func TestEveryBitFlipped(t *testing.T) {
	src := crashDisk(t)
	frames, err := contents(src)
	if err != nil {
		t.Fatal(err)
	}
	rep, err := verify(src, "/wal")
	if err != nil {
		t.Fatal(err)
	}
	step := 1
	if raceEnabled || testing.Short() {
		step = 61 // a prime, so that every bit of a byte has its turn
	}
	var wg sync.WaitGroup
	parts := make([]flips, goruntime.GOMAXPROCS(0))
	for i := range parts {
		c := &parts[i]
		c.disk, c.want, c.marked = copyBytes(t, src), frames, rep.Marked
		wg.Go(func() { c.run(t, i*step, len(parts)*step) })
	}
	wg.Wait()
	var c flips
	for i := range parts {
		c.add(&parts[i])
	}
	t.Logf("%d bits, every %d. of them flipped: %d tried, %d refused by Open, %d cut by Open as a tear, %d left to the "+
		"readers and found by them; %d found by Verify; %d silent",
		c.bits, step, c.tried, c.refused, c.cut, c.byReader, c.verified, c.silent)
	if c.bits < 60<<13 || c.refused == 0 || c.cut == 0 || c.byReader == 0 || c.tried != c.verified {
		t.Errorf("the test does not reach everything")
	}
	if c.silent > 0 {
		t.Errorf("%d silent", c.silent)
	}
}

// flips counts what was said of each flipped bit.
type flips struct {
	disk   bytesDisk
	want   map[LSN][]byte
	marked LSN

	bits, tried int
	refused     int // the scanner: acknowledged data is damaged
	cut         int // the scanner: a tear
	byReader    int // a reader, the scanner having had no reason to look there
	verified    int // Verify: damage or a tear
	silent      int
}

func (c *flips) add(o *flips) {
	c.bits = o.bits
	c.tried += o.tried
	c.refused += o.refused
	c.cut += o.cut
	c.byReader += o.byReader
	c.verified += o.verified
	c.silent += o.silent
}

func (c *flips) run(t *testing.T, from, step int) {
	for _, path := range slices.Sorted(maps.Keys(c.disk.files)) {
		b := c.disk.files[path]
		c.bits += len(b) * 8
		for bit := from; bit < len(b)*8 && !t.Failed(); bit += step {
			b[bit/8] ^= 1 << (bit % 8)
			if err := c.flipped(); err != nil {
				t.Errorf("%s bit %d: %v", path, bit, err)
			}
			b[bit/8] ^= 1 << (bit % 8)
		}
	}
}

// flipped judges the log as it is now.
func (c *flips) flipped() error {
	c.tried++
	rep, err := verify(c.disk, "/wal")
	if err != nil {
		return err
	}
	found := !rep.OK() || rep.Torn != nil
	if found {
		c.verified++
	}
	gens, _, err := listGenerations(c.disk, "/wal")
	if err != nil {
		return err
	}
	scan, err := scanLog(c.disk, "/wal", gens)
	switch {
	case errors.As(err, new(*DamagedError)):
		c.refused++
		return nil
	case err != nil:
		return err
	case scan.torn != nil:
		c.cut++
		if scan.newest.last() < c.marked {
			return fmt.Errorf("cut at %d, and %d was durable", scan.newest.last()+1, c.marked)
		}
		return nil // what stays was read through
	}
	got, err := contents(c.disk)
	if errors.As(err, new(*CorruptError)) {
		c.byReader++
		return nil
	}
	if err != nil {
		return err
	}
	for lsn, body := range c.want {
		if !bytes.Equal(got[lsn], body) {
			return fmt.Errorf("frame %d read as if whole", lsn)
		}
	}
	if !found {
		c.silent++
	}
	return nil
}

// bytesDisk is files to be read in memory, by path.
type bytesDisk struct {
	disk
	files map[string][]byte
}

func (d bytesDisk) List(dir string) (list []dirEntry, err error) {
	seen := map[string]bool{}
	for _, path := range slices.Sorted(maps.Keys(d.files)) {
		rest, ok := strings.CutPrefix(path, dir+"/")
		name, _, isDir := strings.Cut(rest, "/")
		if ok && !seen[name] {
			seen[name] = true
			list = append(list, dirEntry{name: name, dir: isDir, size: int64(len(d.files[path]))})
		}
	}
	return list, nil
}

func (d bytesDisk) Open(path string) (file, error) {
	b, ok := d.files[path]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return bytesFile{bytes.NewReader(b)}, nil
}

type bytesFile struct{ *bytes.Reader }

func (f bytesFile) Close() error         { return nil }
func (f bytesFile) Size() (int64, error) { return f.Reader.Size(), nil }

// contents reads a whole log as a reader does behind the tail that the scanner finds.
func contents(d disk) (map[LSN][]byte, error) {
	frames := map[LSN][]byte{}
	err := dump(d, "/wal", 0, 0, func(f *Frame) error {
		var body []byte
		for i := range f.Len() {
			b, err := f.View(i)
			if err != nil {
				return err
			}
			body = append(body, b...)
		}
		frames[f.LSN] = body
		return nil
	})
	return frames, err
}

// TestDurableMark is the rule of the tail: damage to LSN x is a tear unless a whole frame behind it says durable ≥ x.
func TestDurableMark(t *testing.T) {
	cfg := Config{SegmentBytes: 4 << 10, ReserveBytes: -1}
	src := t.TempDir()
	build(t, src, cfg, 5, 5, 1, 1)
	var frames []Frame
	if err := Dump(src, 0, 0, func(f *Frame) error { frames = append(frames, *f); return nil }); err != nil {
		t.Fatal(err)
	}
	marked := frames[len(frames)-1].Durable
	for i, f := range frames {
		dir := copyLog(t, src)
		path := filepath.Join(dir, f.Segment)
		b := mustRead(t, path)
		b[int(f.Offset)+f.Bytes/2] ^= 0x10
		mustWrite(t, path, b)
		if LSN(i+1) <= marked {
			wantDamaged(t, dir, cfg, f.LSN)
			continue
		}
		l := mustOpen(t, dir, cfg)
		if l.Last() != f.LSN-1 || l.Recovered().CutAt != f.LSN {
			t.Errorf("damage to %d with %d marked: Last %d, %v", f.LSN, marked, l.Last(), l.Recovered())
		}
	}
}

// TestTearInsideAGroup: one fsync takes several frames, and a power cut may keep a later one and lose an earlier.
func TestTearInsideAGroup(t *testing.T) {
	dir := t.TempDir()
	cfg := Config{SegmentBytes: 4 << 10, ReserveBytes: -1}
	l := mustOpen(t, dir, cfg)
	mustDo(t)(l.Rotate(nil))
	waitAll(t, l)
	l.mu.Lock() // the writer gets all of them at once
	for lsn := LSN(2); lsn <= 9; lsn++ {
		s := []Section{{Body: crashBody(lsn)}}
		n := frameLen(nil, s)
		l.last++
		l.appended += n + int64(prefixLen(n))
		l.queue = append(l.queue, request{lsn: lsn, kind: 2, sections: s, bytes: n + int64(prefixLen(n))})
	}
	l.ready.Signal()
	l.mu.Unlock()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	var third Frame
	Dump(dir, 3, 3, func(f *Frame) error { third = *f; return nil })
	path := filepath.Join(dir, third.Segment)
	b := mustRead(t, path)
	clear(b[third.Offset : int(third.Offset)+third.Bytes])
	mustWrite(t, path, b)
	l = mustOpen(t, dir, cfg)
	r := l.Recovered()
	if l.Last() != 2 || r.CutAt != 3 || r.CutFrames != 6 || r.CutSegments == 0 {
		t.Errorf("Last %d, %v; want 2, and six whole frames cut with their segments", l.Last(), r)
	}
	mustDo(t)(l.Append(2, []Section{{Body: crashBody(3)}}))
	waitAll(t, l)
	if rep, err := Verify(dir); err != nil || !rep.OK() || rep.Torn != nil || rep.Last != 3 {
		t.Errorf("%+v, %v", rep, err)
	}
}

// TestGenerationCrashPoints has a crash leave each state that beginning or dropping a generation goes through.
func TestGenerationCrashPoints(t *testing.T) {
	cfg := Config{SegmentBytes: 4 << 10, ReserveBytes: -1}
	src := t.TempDir()
	build(t, src, cfg, 4, -1, 0) // 1 to 5, catalog 6 at the head of the second
	second := generationName(6)
	catalog := mustRead(t, filepath.Join(src, second, segmentName(1)))
	tests := []struct {
		name string
		do   func(dir string) // dir has the first generation whole and no second
		last LSN              // 0: Open must refuse
		gone LSN              // a generation that Open removes
	}{
		{"before the directory", func(string) {}, 5, 0},
		{"the directory only", func(dir string) { os.Mkdir(filepath.Join(dir, second), 0o750) }, 5, 6},
		{"an empty segment", func(dir string) { writeSegment(t, dir, second, nil) }, 5, 6},
		{"a torn catalog", func(dir string) { writeSegment(t, dir, second, catalog[:len(catalog)-1]) }, 5, 6},
		{"zeros", func(dir string) { writeSegment(t, dir, second, make([]byte, 4096)) }, 5, 6},
		{"a whole catalog", func(dir string) { writeSegment(t, dir, second, catalog) }, 6, 0},
		{"the old one short", func(dir string) { // cannot be a tear: it was fsynced before
			os.Mkdir(filepath.Join(dir, second), 0o750)
			path := filepath.Join(dir, generationName(1), segmentName(1))
			os.Truncate(path, int64(len(mustRead(t, path))-1))
		}, 0, 0},
		{"half dropped", func(dir string) {
			writeSegment(t, dir, second, catalog)
			name := filepath.Join(dir, generationName(1))
			os.Rename(name, name+dropSuffix)
			os.Remove(filepath.Join(name+dropSuffix, segmentName(1)))
		}, 6, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := copyLog(t, src)
			os.RemoveAll(filepath.Join(dir, second))
			tt.do(dir)
			l, err := Open(dir, cfg)
			if tt.last == 0 {
				if !errors.As(err, new(*DamagedError)) {
					t.Fatalf("Open: %v; want a DamagedError", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			if l.Last() != tt.last || l.Recovered().Generation != tt.gone {
				t.Errorf("Last %d, %v; want %d, generation %d removed", l.Last(), l.Recovered(), tt.last, tt.gone)
			}
			lsn := mustDo(t)(l.Rotate(nil))
			waitAll(t, l)
			if rep, err := Verify(dir); err != nil || !rep.OK() || rep.Torn != nil || rep.Last != lsn {
				t.Errorf("afterwards: %+v, %v", rep, err)
			}
			if left, _ := filepath.Glob(filepath.Join(dir, "*"+dropSuffix)); len(left) > 0 {
				t.Errorf("left over: %v", left)
			}
		})
	}
}

func writeSegment(t *testing.T, dir, generation string, b []byte) {
	t.Helper()
	os.MkdirAll(filepath.Join(dir, generation), 0o750)
	mustWrite(t, filepath.Join(dir, generation, segmentName(1)), b)
}

// TestReadErrorIsNoTear: what cannot be read is never cut off (R7).
func TestReadErrorIsNoTear(t *testing.T) {
	d := crashDisk(t)
	gens, _, _ := listGenerations(d, "/wal")
	errIO := errors.New("input/output error")
	for n := 1; ; n++ {
		f := &failingReads{memDisk: d, left: n, err: errIO}
		s, err := scanLog(f, "/wal", gens)
		if f.left > 0 {
			if err != nil || s.torn != nil {
				t.Fatalf("without a failing read: %v", err)
			}
			t.Logf("%d reads", n-1)
			return
		}
		if !errors.Is(err, errIO) || errors.As(err, new(*DamagedError)) {
			t.Fatalf("read %d fails: scanLog gives %v", n, err)
		}
	}
}

// failingReads fails the left-th read and all after it.
type failingReads struct {
	memDisk
	left int
	err  error
}

func (d *failingReads) Open(path string) (file, error) {
	f, err := d.memDisk.Open(path)
	return failingFile{f, d}, err
}

type failingFile struct {
	file
	d *failingReads
}

func (f failingFile) ReadAt(b []byte, off int64) (int, error) {
	if f.d.left--; f.d.left <= 0 {
		f.d.left = 0
		return 0, f.d.err
	}
	return f.file.ReadAt(b, off)
}

// TestForeignFile: the engine deletes segments when it finds a name it knows from its truncations.
func TestForeignFile(t *testing.T) {
	for _, name := range []string{segmentName(3) + ".START", segmentName(1) + ".END"} {
		dir := t.TempDir()
		build(t, dir, Config{}, 3)
		mustWrite(t, filepath.Join(dir, generationName(1), name), nil)
		before := snapshot(t, dir)
		if _, err := Open(dir, Config{}); !errors.As(err, new(*CorruptError)) {
			t.Errorf("%s: Open: %v; want a CorruptError", name, err)
		}
		if snapshot(t, dir) != before {
			t.Errorf("%s: something was changed", name)
		}
	}
}

// crashDisk is a log in memory of two generations and about 64 KiB, in segments of 16 KiB.
func crashDisk(t *testing.T) memDisk {
	t.Helper()
	d := newMemDisk()
	l, err := Open("/wal", Config{SegmentBytes: 16 << 10, GenerationBytes: 1 << 20, disk: d})
	if err != nil {
		t.Fatal(err)
	}
	for lsn := LSN(1); lsn <= 48; lsn++ {
		s := []Section{{Kind: 2, Owner: uint32(lsn), Body: crashBody(lsn)}}
		if lsn == 1 || lsn == 12 {
			mustDo(t)(l.Rotate(s))
		} else {
			mustDo(t)(l.Append(2, s))
		}
		if lsn%5 == 0 {
			waitAll(t, l)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return d
}

func copyBytes(t *testing.T, d memDisk) bytesDisk {
	t.Helper()
	out := bytesDisk{files: map[string][]byte{}}
	gens, _, err := listGenerations(d, "/wal")
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range gens {
		gdir := "/wal/" + generationName(g)
		segs, _ := listSegments(d, gdir)
		for _, s := range segs {
			f, _ := d.Open(gdir + "/" + segmentName(s.index))
			b := make([]byte, s.size)
			f.ReadAt(b, 0)
			out.files[gdir+"/"+segmentName(s.index)] = b
		}
	}
	return out
}
