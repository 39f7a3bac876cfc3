package wal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	engine "github.com/tidwall/wal"

	"github.com/sidestream-dev/sidestream/internal/crashfs"
)

func TestNewLog(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "not", "yet")
	l := mustOpen(t, dir, Config{})
	if l.Last() != 0 || l.Durable() != 0 || l.Catalog() != 0 || l.ID() == (LogID{}) || !l.Recovered().New {
		t.Errorf("new log: Last %d, Durable %d, id %v, %v", l.Last(), l.Durable(), l.ID(), l.Recovered())
	}
	if _, err := l.Append(2, nil); !errors.Is(err, ErrNoFrames) {
		t.Errorf("Append before the first Rotate: %v, want ErrNoFrames", err)
	}
	if _, err := l.Append(KindCatalog, nil); !errors.Is(err, ErrKind) {
		t.Errorf("Append of a catalog: %v, want ErrKind", err)
	}
	if got := mustDo(t)(l.Rotate(nil)); got != 1 {
		t.Errorf("first LSN %d", got)
	}
	waitAll(t, l)
	id := l.ID()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Append(2, nil); !errors.Is(err, ErrClosed) {
		t.Errorf("Append after Close: %v", err)
	}
	l = mustOpen(t, dir, Config{})
	if l.ID() != id || l.Last() != 1 || l.Durable() != 1 || l.Catalog() != 1 {
		t.Errorf("opened again: id %v, Last %d, Durable %d, Catalog %d", l.ID(), l.Last(), l.Durable(), l.Catalog())
	}
}

func TestConfigLimits(t *testing.T) {
	for _, cfg := range []Config{
		{SegmentBytes: -1}, {SegmentBytes: 1 << 40}, {SegmentBytes: 8 << 20, GenerationBytes: 4 << 20},
		{FrameBytes: 10}, {FrameBytes: 1 << 30}, {MaxSections: -1}, {PendingBytes: 1 << 20}, {GroupBytes: -1}, {SmallBytes: -5},
	} {
		dir := filepath.Join(t.TempDir(), "wal")
		if l, err := Open(dir, cfg); err == nil {
			l.Close()
			t.Errorf("%+v was taken", cfg)
		}
		if _, err := os.Stat(dir); err == nil {
			t.Errorf("%+v was refused after the directory was made", cfg)
		}
	}
}

func TestAppendLimits(t *testing.T) {
	l := mustOpen(t, t.TempDir(), Config{FrameBytes: 2000, SmallBytes: 200, MaxSections: 3, PendingBytes: 1 << 20})
	mustDo(t)(l.Rotate(nil))
	fits := 2000 - headerLen - tableLineLen
	tests := []struct {
		name     string
		append   func(FrameKind, []Section) (LSN, error)
		sections []Section
		want     error
	}{
		{"largest frame", l.Append, []Section{{Body: make([]byte, fits)}}, nil},
		{"one byte more", l.Append, []Section{{Body: make([]byte, fits+1)}}, ErrTooLarge},
		{"most sections", l.Append, make([]Section, 3), nil},
		{"one section more", l.Append, make([]Section, 4), ErrTooLarge},
		{"largest small frame", l.AppendSmall, []Section{{Body: make([]byte, 200-headerLen-tableLineLen)}}, nil},
		{"one byte more, small", l.AppendSmall, []Section{{Body: make([]byte, 201-headerLen-tableLineLen)}}, ErrTooLarge},
	}
	for _, tt := range tests {
		last := l.Last()
		if tt.want == nil {
			last++
		}
		if _, err := tt.append(2, tt.sections); !errors.Is(err, tt.want) || l.Last() != last {
			t.Errorf("%s: %v, Last %d; want %v, %d", tt.name, err, l.Last(), tt.want, last)
		}
	}
}

// gate is a disk whose fsyncs wait until they are let through, one at a time, or fail.
type gate struct {
	memDisk
	free    func() int64
	reserve *int64
	sync    chan error
	entered chan struct{}
	written *[]error // what the next writes give
}

func newGate() *gate {
	return &gate{memDisk: newMemDisk(), sync: make(chan error), entered: make(chan struct{}, 100),
		free: func() int64 { return 1 << 40 }, reserve: new(int64), written: new([]error)}
}

func (g *gate) Free(string) (int64, error) { return g.free() - *g.reserve, nil }
func (g *gate) Reserved(string) int64      { return *g.reserve }

func (g *gate) Reserve(_ string, size int64) error {
	*g.reserve = size
	return nil
}

func (g *gate) Truncate(path string, size int64) error {
	if filepath.Base(path) == reserveName {
		*g.reserve = size
		return nil
	}
	return g.memDisk.Truncate(path, size)
}

func (g *gate) OpenEngine(dir string, segmentBytes int64) (appender, error) {
	e, err := openMemEngine(g.memDisk, dir, segmentBytes)
	return &gateEngine{e, g}, err
}

type gateEngine struct {
	*memEngine
	g *gate
}

func (e *gateEngine) Write(first uint64, entries [][]byte) error {
	if w := *e.g.written; len(w) > 0 {
		*e.g.written = w[1:]
		if w[0] != nil {
			e.tail.Append(entries[0][:len(entries[0])/2])
			return w[0]
		}
	}
	return e.memEngine.Write(first, entries)
}

func (e *gateEngine) Sync() error {
	e.g.entered <- struct{}{}
	if err := <-e.g.sync; err != nil {
		return err
	}
	return e.memEngine.Sync()
}

// TestGroupCommit: what arrives while an fsync runs rides the next, all of it in one; no Append waits. (The engine: one
// fsync for each Write, and Write waits for a running Sync.)
func TestGroupCommit(t *testing.T) {
	g := newGate()
	var durable []LSN
	l := mustOpen(t, "/wal", Config{disk: g, OnDurable: func(lsn LSN) { durable = append(durable, lsn) }})
	mustDo(t)(l.Rotate(nil))
	<-g.entered // the fsync of the catalog runs
	for range 50 {
		mustDo(t)(l.Append(2, []Section{{Body: make([]byte, 100)}})) // does not wait for it
	}
	if l.Last() != 51 || l.Durable() != 0 || l.Written() != 1 || l.Pending() == 0 {
		t.Errorf("during the fsync: Last %d, Written %d, Durable %d, Pending %d; want 51, 1, 0, more than 0",
			l.Last(), l.Written(), l.Durable(), l.Pending())
	}
	g.sync <- nil
	<-g.entered
	if l.Durable() != 1 || l.Written() != 51 {
		t.Errorf("during the second: Durable %d, Written %d; want 1, 51", l.Durable(), l.Written())
	}
	g.sync <- nil
	waitAll(t, l)
	if s := l.Stats(); s.Syncs != 2 || s.Groups[0] != 1 || s.Groups[5] != 1 || l.Pending() != 0 {
		t.Errorf("%+v, Pending %d; want 2 fsyncs, the second of 50 frames, nothing pending", s, l.Pending())
	}
	l.Close()
	if fmt.Sprint(durable) != "[1 51]" {
		t.Errorf("OnDurable was called with %v, want [1 51]", durable)
	}
}

func TestEngineSyncsEachWriter(t *testing.T) {
	// What the engine does with NoSync off, seen from the time it takes: a Write returns behind an fsync of its own.
	l, err := engine.Open(t.TempDir(), &engine.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	const writers = 8
	var wg sync.WaitGroup
	var mu sync.Mutex
	next := uint64(1)
	for range writers {
		wg.Go(func() {
			mu.Lock() // the engine wants its indexes in order, so no two writers can share an fsync
			defer mu.Unlock()
			if err := l.Write(next, nil); err != nil {
				t.Error(err)
			}
			next++
		})
	}
	wg.Wait()
}

// TestFailureIsFinal: a failed write or fsync is the last word, for all calls, until the log is opened again (R7).
func TestFailureIsFinal(t *testing.T) {
	tests := []struct {
		name   string
		break_ func(g *gate, err error)
	}{
		{"write", func(g *gate, err error) {
			*g.written = []error{err, nil, nil}
		}},
		{"fsync", func(g *gate, err error) {}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			g, errDisk := newGate(), errors.New("no space left on device")
			l := mustOpen(t, "/wal", Config{disk: g})
			mustDo(t)(l.Rotate(nil))
			<-g.entered
			tt.break_(g, errDisk)
			mustDo(t)(l.Append(2, []Section{{Body: make([]byte, 100)}}))
			g.sync <- nil // the catalog's
			if tt.name == "fsync" {
				<-g.entered
				g.sync <- errDisk
			}
			err := l.WaitDurable(context.Background(), 2)
			var failed *FailedError
			if !errors.As(err, &failed) || !errors.Is(err, errDisk) || l.Durable() != 1 {
				t.Fatalf("WaitDurable: %v, Durable %d; want a FailedError, 1", err, l.Durable())
			}
			<-l.Failed()
			_, appendErr := l.Append(2, nil)
			_, smallErr := l.AppendSmall(2, nil)
			_, rotateErr := l.Rotate(nil)
			for i, got := range []error{appendErr, smallErr, rotateErr, l.Err(), l.Drop(1), l.Close()} {
				if got != err {
					t.Errorf("call %d afterwards: %v, want the same error", i, got)
				}
			}
		})
	}
}

// TestRoom: a frame needs two segments left beside it; small frames get the reserve; it is taken back first.
func TestRoom(t *testing.T) {
	g := newGate()
	go func() {
		for range g.entered {
			g.sync <- nil
		}
	}()
	var mu sync.Mutex
	free := int64(10 << 20)
	setFree := func(n int64) { mu.Lock(); free = n; mu.Unlock() }
	g.free = func() int64 { mu.Lock(); defer mu.Unlock(); return free }
	l := mustOpen(t, "/wal", Config{SegmentBytes: 1 << 20, disk: g})
	mustDo(t)(l.Rotate(nil))
	body := []Section{{Body: make([]byte, 1000)}}
	mustDo(t)(l.Append(2, body))
	if !l.Stats().ReserveHeld || *g.reserve != 2<<20 {
		t.Fatalf("no reserve was made: %d", *g.reserve)
	}
	waitAll(t, l)

	setFree(4<<20 + 500) // two segments of it are the reserve
	time.Sleep(roomAgeMax + time.Millisecond)
	if _, err := l.Append(2, body); !errors.Is(err, ErrNoRoom) || l.Last() != 2 {
		t.Errorf("two segments less 500 bytes left: %v; want ErrNoRoom", err)
	}
	mustDo(t)(l.AppendSmall(2, body))
	if l.Stats().ReserveHeld {
		t.Error("the reserve was not given up")
	}
	waitAll(t, l)
	if _, err := l.Append(2, body); !errors.Is(err, ErrNoRoom) || !strings.Contains(err.Error(), " KiB are needed") {
		t.Errorf("with the reserve given up: %v; want ErrNoRoom, and how much is needed", err)
	}
	setFree(4<<20 + 10_000)
	mustDo(t)(l.Append(2, body))
	if !l.Stats().ReserveHeld {
		t.Error("the reserve was not taken back first")
	}
	waitAll(t, l)

	setFree(2<<20 + 1000) // nothing but the reserve
	time.Sleep(roomAgeMax + time.Millisecond)
	mustDo(t)(l.AppendSmall(2, body))
	waitAll(t, l)
	setFree(1000)
	time.Sleep(roomAgeMax + time.Millisecond)
	if _, err := l.AppendSmall(2, body); !errors.Is(err, ErrNoRoom) {
		t.Errorf("nothing left at all: %v; want ErrNoRoom, not a failed write", err)
	}
	if l.Err() != nil || l.Stats().Stalls != 3 {
		t.Errorf("%v, %d stalls; want none failed, 3", l.Err(), l.Stats().Stalls)
	}
}

func TestReserveFile(t *testing.T) {
	dir := t.TempDir()
	l := mustOpen(t, dir, Config{SegmentBytes: 64 << 10})
	if got := (osDisk{}).Reserved(filepath.Join(dir, reserveName)); got < 128<<10 {
		t.Errorf("the reserve takes %d bytes of the disk, want two segments", got)
	}
	l.Close()
}

func TestBacklog(t *testing.T) {
	g := newGate()
	l := mustOpen(t, "/wal", Config{FrameBytes: 4000, PendingBytes: 4000, disk: g})
	mustDo(t)(l.Rotate(nil))
	<-g.entered
	body := []Section{{Body: make([]byte, 1800)}}
	mustDo(t)(l.Append(2, body))
	mustDo(t)(l.Append(2, body))
	if _, err := l.Append(2, body); !errors.Is(err, ErrBacklog) || l.Last() != 3 {
		t.Errorf("beyond PendingBytes: %v, want ErrBacklog", err)
	}
	mustDo(t)(l.AppendSmall(2, body))
	go func() {
		for {
			g.sync <- nil
			<-g.entered
		}
	}()
	waitAll(t, l)
	mustDo(t)(l.Append(2, body))
}

func TestWaitDurable(t *testing.T) {
	g := newGate()
	l := mustOpen(t, "/wal", Config{disk: g})
	mustDo(t)(l.Rotate(nil))
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := l.WaitDurable(ctx, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	got := make(chan error)
	go func() { got <- l.WaitDurable(context.Background(), 2) }() // not given out yet
	g.sync <- nil
	mustDo(t)(l.Append(2, nil))
	g.sync <- nil
	if err := <-got; err != nil {
		t.Error(err)
	}
	go l.Close()
	if err := l.WaitDurable(context.Background(), 3); !errors.Is(err, ErrClosed) {
		t.Errorf("beyond the end of a closed log: %v, want ErrClosed", err)
	}
}

// TestMemEngineWritesWhatTheEngineWrites holds the model of the crash tests to the engine: the same files, byte for byte,
// over random frames, batches and reopenings.
func TestMemEngineWritesWhatTheEngineWrites(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	dir, mem := t.TempDir(), memDisk{Mem: crashfs.New()}
	mem.Mkdir("/e")
	next := uint64(1)
	for range 20 {
		real, err := osDisk{}.OpenEngine(dir, 2000)
		if err != nil {
			t.Fatal(err)
		}
		model, err := mem.OpenEngine("/e", 2000)
		if err != nil {
			t.Fatal(err)
		}
		for range rng.IntN(8) {
			var entries [][]byte
			for range 1 + rng.IntN(5) {
				b, _ := appendFrame(nil, head{kind: 2, lsn: LSN(next)}, nil, []Section{{Body: make([]byte, rng.IntN(900))}})
				entries = append(entries, b)
			}
			if err := errors.Join(real.Write(next, entries), model.Write(next, entries)); err != nil {
				t.Fatal(err)
			}
			next += uint64(len(entries))
		}
		if err := errors.Join(real.Close(), model.Close()); err != nil {
			t.Fatal(err)
		}
		sameFiles(t, dir, mem, "/e")
	}
}

func sameFiles(t *testing.T, dir string, mem memDisk, memDir string) {
	t.Helper()
	want, err := osDisk{}.List(dir)
	if err != nil {
		t.Fatal(err)
	}
	got, _ := mem.List(memDir)
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Fatalf("the model has %v, the engine %v", got, want)
	}
	for _, e := range want {
		f, _ := mem.Open(memDir + "/" + e.name)
		b := make([]byte, e.size)
		f.ReadAt(b, 0)
		if !bytes.Equal(b, mustRead(t, filepath.Join(dir, e.name))) {
			t.Fatalf("%s differs", e.name)
		}
	}
}

// TestWriterKnowsNewSegments: the writer counts along with the engine, so that it fsyncs the directory when, and only
// when, there is a new name in it.
func TestWriterKnowsNewSegments(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	d := &countDirSyncs{memDisk: newMemDisk()}
	for range 10 {
		l := mustOpen(t, "/wal", Config{SegmentBytes: 2000, disk: d})
		if l.Last() == 0 {
			mustDo(t)(l.Rotate(nil))
			waitAll(t, l)
		}
		for range 20 {
			before, _ := d.List("/wal/" + generationName(1))
			d.mu.Lock()
			d.syncs = 0
			d.mu.Unlock()
			mustDo(t)(l.Append(2, []Section{{Body: make([]byte, rng.IntN(1500))}}))
			waitAll(t, l)
			after, _ := d.List("/wal/" + generationName(1))
			d.mu.Lock()
			if grown := len(after) > len(before); grown != (d.syncs > 0) {
				t.Fatalf("%d segments, then %d, and %d fsyncs of the directory", len(before), len(after), d.syncs)
			}
			d.mu.Unlock()
		}
		l.Close()
	}
}

type countDirSyncs struct {
	memDisk
	mu    sync.Mutex
	syncs int
}

func (d *countDirSyncs) SyncDir(dir string) error {
	d.mu.Lock()
	d.syncs++
	d.mu.Unlock()
	return d.memDisk.SyncDir(dir)
}

func TestVerifyDumpInfo(t *testing.T) {
	dir := t.TempDir()
	cfg := Config{SegmentBytes: 4 << 10}
	build(t, dir, cfg, 5, -1, 5, -1, 3)
	l := mustOpen(t, dir, cfg) // none of them minds the lock
	rep, err := Verify(dir)
	if err != nil || !rep.OK() || rep.Frames != 16 || rep.Sections != 29 || rep.Last != 16 || rep.ID != l.ID() ||
		len(rep.Generations) != 3 {
		t.Errorf("Verify: %+v, %v", rep, err)
	}
	desc, err := Info(dir)
	if err != nil || desc.Last != 16 || desc.Catalog != 13 || fmt.Sprint(desc.Generations) != fmt.Sprint(l.Generations()) {
		t.Errorf("Info: %+v, %v; want %v", desc, err, l.Generations())
	}
	var got []LSN
	err = Dump(dir, 6, 9, func(f *Frame) error { got = append(got, f.LSN); return nil })
	if err != nil || fmt.Sprint(got) != "[6 7 8 9]" {
		t.Errorf("Dump: %v, %v", got, err)
	}
	stop := errors.New("stop")
	if err := Dump(dir, 0, 0, func(f *Frame) error { return stop }); err != stop {
		t.Errorf("Dump gives %v, want fn's error", err)
	}
	l.Close()
	for _, segment := range []string{generationName(1), generationName(7)} {
		path := filepath.Join(dir, segment, segmentName(1))
		b := mustRead(t, path)
		b[len(b)/2] ^= 4
		mustWrite(t, path, b)
	}
	rep, err = Verify(dir)
	if err != nil || len(rep.Damage) != 2 || rep.Torn != nil || !strings.Contains(rep.Damage[1].Error(), generationName(7)) {
		t.Errorf("Verify of two damaged generations: %v, %v", rep.Damage, err)
	}
}

func TestReaderSeek(t *testing.T) {
	dir := t.TempDir()
	cfg := Config{SegmentBytes: 4 << 10}
	build(t, dir, cfg, 20, -1, 20)
	l := mustOpen(t, dir, cfg)
	r, err := l.Reader(0)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var old Frame
	for range 200 {
		lsn := LSN(1 + rand.IntN(42))
		if err := r.Seek(lsn); err != nil {
			t.Fatal(err)
		}
		for want := lsn; want <= min(lsn+3, 42); want++ {
			f, err := r.Next()
			if err != nil || f.LSN != want {
				t.Fatalf("Seek(%d): frame %d, %v; want %d", lsn, f.LSN, err, want)
			}
			if b, err := f.Body(0); err != nil || !bytes.HasPrefix(crashBody(want), b) {
				t.Fatalf("frame %d: %v", want, err)
			}
			old = f
		}
	}
	r.Seek(42)
	if _, err := old.Body(0); !errors.Is(err, ErrStale) {
		t.Errorf("Body of a frame the reader has left: %v, want ErrStale", err)
	}
	r.Next()
	if _, err := r.Next(); !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %v, want io.EOF", err)
	}
	r.Seek(44) // not there yet
	if _, err := r.Next(); !errors.Is(err, io.EOF) {
		t.Errorf("behind the end: %v, want io.EOF", err)
	}
	for range 3 {
		mustDo(t)(l.Append(2, []Section{{Kind: 9}}))
	}
	waitAll(t, l)
	if f, err := r.Next(); err != nil || f.LSN != 44 || f.Kind != 2 || f.Section(0).Kind != 9 || f.ID != l.ID() {
		t.Errorf("when it is there: %+v, %v", f, err)
	}
}

// TestReadersSeeOnlyDurable: what is written and not yet durable is not there for a reader (R2).
func TestReadersSeeOnlyDurable(t *testing.T) {
	g := newGate()
	l := mustOpen(t, "/wal", Config{disk: g})
	mustDo(t)(l.Rotate(nil))
	<-g.entered
	r, _ := l.Reader(0)
	if l.Written() != 1 {
		t.Fatal("not written")
	}
	if _, err := r.Next(); !errors.Is(err, io.EOF) {
		t.Errorf("before the fsync: %v, want io.EOF", err)
	}
	g.sync <- nil
	waitAll(t, l)
	if f, err := r.Next(); err != nil || f.LSN != 1 {
		t.Errorf("after it: %v", err)
	}
	go func() {
		for range g.entered {
			g.sync <- nil
		}
	}()
}

// TestNewID: the format carries a change of id, made when durable frames were removed: id and LSN jump at a catalog that
// names the id before and the last LSN kept, and only there.
func TestNewID(t *testing.T) {
	dir := t.TempDir()
	build(t, dir, Config{}, 4) // 1 to 5
	old, err := Info(dir)
	if err != nil {
		t.Fatal(err)
	}
	g, err := scanGeneration(osDisk{}, dir, 1, due{lsn: 1, anyID: true}, nil)
	if err != nil {
		t.Fatal(err)
	}
	catalog := func(lsn, first, kept LSN) []byte {
		ext := &extension{first: first, ancestors: []Ancestor{{old.ID, kept}}}
		ext.segments, ext.listCRC, ext.bytes = summary(g.segments)
		h := head{kind: KindCatalog, id: LogID{42}, lsn: lsn, durable: lsn - 1, prev: g.due.prev}
		b, _ := appendFrame(nil, h, ext, nil)
		return append(appendUvarint(nil, len(b)), b...)
	}
	bad := copyLog(t, dir)
	writeSegment(t, bad, generationName(100), catalog(100, 99, 5)) // not the first under its id
	if _, err := Open(bad, Config{}); !errors.As(err, new(*DamagedError)) {
		t.Errorf("a jump elsewhere: %v, want a DamagedError", err)
	}
	writeSegment(t, dir, generationName(100), catalog(100, 100, 5))
	l := mustOpen(t, dir, Config{})
	if l.ID() != (LogID{42}) || l.Last() != 100 || fmt.Sprint(l.Ancestors()) != fmt.Sprint([]Ancestor{{old.ID, 5}}) {
		t.Errorf("id %v, Last %d, ancestors %v", l.ID(), l.Last(), l.Ancestors())
	}
	mustDo(t)(l.Append(2, nil))
	mustDo(t)(l.Rotate(nil)) // names them again
	waitAll(t, l)
	r, _ := l.Reader(0)
	var got []LSN
	for f, err := r.Next(); err == nil; f, err = r.Next() {
		got = append(got, f.LSN)
	}
	if fmt.Sprint(got) != "[1 2 3 4 5 100 101 102]" {
		t.Errorf("reader: %v", got)
	}
	r.Close()
	l.Close()
	if l = mustOpen(t, dir, Config{}); l.ID() != (LogID{42}) || len(l.Ancestors()) != 1 || l.Last() != 102 {
		t.Errorf("opened again: id %v, ancestors %v, Last %d", l.ID(), l.Ancestors(), l.Last())
	}
}

// TestRotateDueBehindItsCatalog: a catalog that is longer than a generation should be does not make each frame begin a generation.
func TestRotateDueBehindItsCatalog(t *testing.T) {
	l := mustOpen(t, t.TempDir(), Config{SegmentBytes: 8 << 10, GenerationBytes: 8 << 10})
	mustDo(t)(l.Rotate([]Section{{Body: make([]byte, 16<<10)}}))
	written := 0
	for ; !l.RotateDue(); written += 4 << 10 {
		mustDo(t)(l.Append(2, []Section{{Kind: 2, Body: make([]byte, 4<<10)}}))
		if written > 1<<20 {
			t.Fatal("the generation grows for ever")
		}
	}
	if written < 100<<10 {
		t.Errorf("the next generation is due behind %d bytes, and its catalog has 16384", written)
	}
}
