package wal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	goruntime "runtime"
	"strings"
	"sync"
	"testing"
	"time"

	engine "github.com/tidwall/wal"
	"golang.org/x/sys/unix"
)

// The tests of this file show, row by row, what was found in the engine, and that it is not so with this package.

func openEngine(tb testing.TB, dir string, segment int) *engine.Log {
	tb.Helper()
	l, err := engine.Open(dir, &engine.Options{SegmentSize: segment})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { l.Close() })
	return l
}

// engineDir is a closed engine's log of n entries of 100 bytes.
func engineDir(tb testing.TB, n, segment int) string {
	tb.Helper()
	dir := tb.TempDir()
	l := openEngine(tb, dir, segment)
	for i := range n {
		if err := l.Write(uint64(i+1), bytes.Repeat([]byte{byte(i + 1)}, 100)); err != nil {
			tb.Fatal(err)
		}
	}
	if err := l.Close(); err != nil {
		tb.Fatal(err)
	}
	return dir
}

func TestEngineTornLastEntry(t *testing.T) {
	t.Run("engine", func(t *testing.T) {
		dir := engineDir(t, 3, 1<<20)
		path := filepath.Join(dir, segmentName(1))
		whole := mustRead(t, path)
		for cut := 1; cut < 101; cut++ {
			mustWrite(t, path, whole[:len(whole)-cut])
			if l, err := engine.Open(dir, nil); err == nil {
				l.Close()
				t.Fatalf("opened with %d bytes of the last entry cut: the row is out of date", cut)
			}
		}
	})
	t.Run("log", func(t *testing.T) {
		dir := t.TempDir()
		build(t, dir, Config{}, 3)
		path := tailPath(t, dir)
		mustWrite(t, path, mustRead(t, path)[:len(mustRead(t, path))-1])
		l := mustOpen(t, dir, Config{})
		if r := l.Recovered(); l.Last() != 3 || r.CutAt != 4 || r.CutBytes == 0 {
			t.Errorf("Last %d, %v; want 3, cut at 4", l.Last(), r)
		}
	})
}

func TestEngineZerosAtTheTail(t *testing.T) {
	zeros := make([]byte, 4096)
	t.Run("engine", func(t *testing.T) {
		dir := engineDir(t, 3, 1<<20)
		path := filepath.Join(dir, segmentName(1))
		mustWrite(t, path, append(mustRead(t, path), zeros...))
		l := openEngine(t, dir, 1<<20)
		if last, _ := l.LastIndex(); last != 3+4096 {
			t.Fatalf("last index %d: the row is out of date", last)
		}
	})
	t.Run("log", func(t *testing.T) {
		dir := t.TempDir()
		build(t, dir, Config{}, 3)
		path := tailPath(t, dir)
		mustWrite(t, path, append(mustRead(t, path), zeros...))
		l := mustOpen(t, dir, Config{})
		if r := l.Recovered(); l.Last() != 4 || r.CutBytes != 4096 {
			t.Errorf("Last %d, %v; want 4, 4096 bytes cut", l.Last(), r)
		}
	})
}

func TestEngineBatchOverASegment(t *testing.T) {
	t.Run("engine", func(t *testing.T) {
		dir := t.TempDir()
		l := openEngine(t, dir, 150)
		var batch engine.Batch
		for i := range 3 {
			batch.Write(uint64(i+1), make([]byte, 100))
		}
		if err := l.WriteBatch(&batch); err != nil {
			t.Fatal(err)
		}
		l.Close()
		if err := os.Truncate(filepath.Join(dir, segmentName(3)), 0); err != nil { // the second write never reached the disk
			t.Fatal(err)
		}
		if last, _ := openEngine(t, dir, 150).LastIndex(); last != 2 {
			t.Fatalf("last index %d, want half of the batch: the row is out of date", last)
		}
	})
	t.Run("log", func(t *testing.T) {
		dir := t.TempDir()
		l := mustOpen(t, dir, Config{SegmentBytes: 150, GenerationBytes: 1 << 20})
		mustDo(t)(l.Rotate(nil))
		for range 5 { // a frame of many sections, larger than a segment, is one entry of one segment
			mustDo(t)(l.Append(2, []Section{{Body: make([]byte, 100)}, {Body: make([]byte, 100)}, {Body: make([]byte, 100)}}))
		}
		waitAll(t, l)
		segs, err := listSegments(osDisk{}, filepath.Join(dir, generationName(1)))
		if err != nil {
			t.Fatal(err)
		}
		for i, s := range segs[1:6] {
			if want := int64(headerLen + 3*tableLineLen + 300 + 2); i > 0 && s.size != want && s.size != 0 {
				t.Errorf("segment %d has %d bytes, want a whole frame of %d", s.index, s.size, want)
			}
		}
	})
}

func TestEngineFlippedBit(t *testing.T) {
	t.Run("engine", func(t *testing.T) {
		dir := engineDir(t, 3, 1<<20)
		path := filepath.Join(dir, segmentName(1))
		b := mustRead(t, path)
		b[50] ^= 1
		mustWrite(t, path, b)
		if got, err := openEngine(t, dir, 1<<20).Read(1); err != nil || bytes.Equal(got, bytes.Repeat([]byte{1}, 100)) {
			t.Fatalf("%v: the row is out of date", err)
		}
	})
	t.Run("log", func(t *testing.T) {
		dir := t.TempDir()
		build(t, dir, Config{}, 3, -1, 3)
		path := filepath.Join(dir, generationName(1), segmentName(1))
		b := mustRead(t, path)
		b[len(b)-50] ^= 1
		mustWrite(t, path, b)
		l := mustOpen(t, dir, Config{})
		_, err := readFrames(l, 0)
		var c *CorruptError
		if !errors.As(err, &c) || c.First != 4 || c.Segment != generationName(1)+"/"+segmentName(1) || c.Offset == 0 {
			t.Errorf("read: %v; want a CorruptError at LSN 4 with its segment and offset", err)
		}
	})
}

func TestEngineMissingMiddleSegment(t *testing.T) {
	t.Run("engine", func(t *testing.T) {
		dir := engineDir(t, 9, 300) // three in a segment
		if err := os.Remove(filepath.Join(dir, segmentName(4))); err != nil {
			t.Fatal(err)
		}
		l := openEngine(t, dir, 300)
		defer func() {
			if recover() == nil {
				t.Error("Read did not panic: the row is out of date")
			}
		}()
		l.Read(5)
	})
	t.Run("log/newest generation", func(t *testing.T) {
		dir := t.TempDir()
		cfg := Config{SegmentBytes: 4096}
		build(t, dir, cfg, 4, 4, 4, 4)
		segs, _ := listSegments(osDisk{}, filepath.Join(dir, generationName(1)))
		if len(segs) < 4 {
			t.Fatalf("only %d segments", len(segs))
		}
		os.Remove(filepath.Join(dir, generationName(1), segmentName(segs[1].index)))
		wantDamaged(t, dir, cfg, LSN(segs[1].index))
	})
	t.Run("log/older generation", func(t *testing.T) {
		dir := t.TempDir()
		cfg := Config{SegmentBytes: 4096}
		build(t, dir, cfg, 4, 4, 4, -1, 4)
		segs, _ := listSegments(osDisk{}, filepath.Join(dir, generationName(1)))
		os.Remove(filepath.Join(dir, generationName(1), segmentName(segs[1].index)))
		wantDamaged(t, dir, cfg, 1)
	})
}

// wantDamaged checks that Open refuses, names the way out, and has changed nothing.
func wantDamaged(t *testing.T, dir string, cfg Config, first LSN) {
	t.Helper()
	before := snapshot(t, dir)
	l, err := Open(dir, cfg)
	if err == nil {
		l.Close()
	}
	var d *DamagedError
	var c *CorruptError
	if !errors.As(err, &d) || !errors.As(err, &c) || c.First != first || !strings.Contains(err.Error(), "wal repair") {
		t.Fatalf("Open: %v; want a DamagedError from LSN %d on that names `wal repair`", err, first)
	}
	if after := snapshot(t, dir); after != before {
		t.Errorf("Open has refused and yet changed the directory:\n%s\nwas\n%s", after, before)
	}
	rep, err := Verify(dir)
	if err != nil || rep.OK() {
		t.Errorf("Verify finds nothing: %+v, %v", rep, err)
	}
}

// snapshot names all files below dir with sizes and a sum.
func snapshot(t *testing.T, dir string) string {
	t.Helper()
	var sb strings.Builder
	err := filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if err == nil && !info.IsDir() && info.Name() != lockName && info.Name() != reserveName {
			fmt.Fprintf(&sb, "%s %d %x\n", path, info.Size(), headCRC(append(make([]byte, headerLen), mustRead(t, path)...)))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return sb.String()
}

func TestEngineTwoOpeners(t *testing.T) {
	t.Run("engine", func(t *testing.T) {
		dir := t.TempDir()
		a, b := openEngine(t, dir, 1<<20), openEngine(t, dir, 1<<20)
		if err := a.Write(1, []byte("from a")); err != nil {
			t.Fatal(err)
		}
		if err := b.Write(1, []byte("b")); err != nil {
			t.Fatal(err)
		}
		a.Close()
		b.Close()
		l, err := engine.Open(dir, nil)
		if err == nil {
			defer l.Close()
			if got, _ := l.Read(1); string(got) == "from a" {
				t.Fatal("what a wrote is there: the row is out of date")
			}
		}
	})
	t.Run("log", func(t *testing.T) {
		dir := t.TempDir()
		l := mustOpen(t, dir, Config{})
		_, err := Open(dir, Config{})
		var locked *LockedError
		if !errors.As(err, &locked) || locked.PID != os.Getpid() || locked.Dir != dir {
			t.Fatalf("second Open: %v; want a LockedError with dir and pid", err)
		}
		if out, code := child(t, "open", dir); code != 75 || !strings.Contains(out, fmt.Sprint(os.Getpid())) {
			t.Errorf("Open in another process: exit %d, %s; want 75 and our pid", code, out)
		}
		l.Close()
		if out, code := child(t, "open", dir); code != 0 {
			t.Errorf("Open after Close: exit %d, %s", code, out)
		}
	})
}

// child runs this test binary as another process that does only what.
func child(t *testing.T, what, dir string) (out string, code int) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestChild$")
	cmd.Env = append(os.Environ(), "WAL_CHILD="+what, "WAL_DIR="+dir)
	b, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return string(b), cmd.ProcessState.ExitCode()
}

// TestChild is the other process of the tests that need one.
func TestChild(t *testing.T) {
	dir := os.Getenv("WAL_DIR")
	switch os.Getenv("WAL_CHILD") {
	case "open":
		l, err := Open(dir, Config{})
		if err != nil {
			fmt.Println(err)
			os.Exit(75)
		}
		l.Close()
	case "engine full disk":
		childEngineFullDisk(dir)
	case "log full disk":
		childLogFullDisk(dir)
	case "engine readers":
		childEngineReaders(dir)
	default:
		// Not a child: other tests run this one.
	}
}

// limitFiles lets no file grow past bytes, as a disk that is full would; 0 lifts it.
func limitFiles(bytes uint64) {
	signal.Ignore(unix.SIGXFSZ)
	var lim unix.Rlimit
	must(unix.Getrlimit(unix.RLIMIT_FSIZE, &lim))
	if lim.Cur = bytes; bytes == 0 {
		lim.Cur = lim.Max
	}
	must(unix.Setrlimit(unix.RLIMIT_FSIZE, &lim))
}

func must(err error) {
	if err != nil {
		fmt.Println(err)
		os.Exit(3)
	}
}

func TestEngineWriteAfterShortWrite(t *testing.T) {
	t.Run("engine", func(t *testing.T) {
		if out, code := child(t, "engine full disk", t.TempDir()); code != 0 {
			t.Fatalf("exit %d, %s: the row is out of date", code, out)
		}
	})
	t.Run("log", func(t *testing.T) {
		dir := t.TempDir()
		if out, code := child(t, "log full disk", dir); code != 0 {
			t.Fatalf("exit %d, %s", code, out)
		}
		l := mustOpen(t, dir, Config{})
		if l.Last() != 1 || l.Recovered().CutAt != 2 {
			t.Errorf("Last %d, %v; want 1 with the short write cut", l.Last(), l.Recovered())
		}
	})
}

// childEngineFullDisk exits 0 if a retry after a short write says that it was written and it was not.
func childEngineFullDisk(dir string) {
	l, err := engine.Open(dir, nil)
	must(err)
	must(l.Write(1, make([]byte, 100)))
	limitFiles(150)
	entry := bytes.Repeat([]byte{7}, 100)
	if l.Write(2, entry) == nil {
		os.Exit(4)
	}
	limitFiles(0)
	must(l.Write(2, entry))
	must(l.Close())
	l, err = engine.Open(dir, nil)
	if err != nil {
		os.Exit(0) // worse: it does not open at all
	}
	if got, err := l.Read(2); err == nil && bytes.Equal(got, entry) {
		os.Exit(5)
	}
	os.Exit(0)
}

func childLogFullDisk(dir string) {
	l, err := Open(dir, Config{ReserveBytes: -1})
	must(err)
	_, err = l.Rotate(nil)
	must(err)
	must(l.WaitDurable(context.Background(), 1))
	limitFiles(300)
	_, err = l.Append(2, []Section{{Body: make([]byte, 1000)}})
	must(err)
	first := l.WaitDurable(context.Background(), 2)
	limitFiles(0)
	var failed *FailedError
	_, again := l.Append(2, nil)
	if !errors.As(first, &failed) || again != first || l.Close() != first || l.Err() != first || l.Durable() != 1 {
		fmt.Println(first, again, l.Err(), l.Durable())
		os.Exit(4)
	}
	os.Exit(0)
}

// TestEngineConcurrentReaders: the engine's readers mutate a cache under a read lock. The child panics, or the race
// detector ends it.
func TestEngineConcurrentReaders(t *testing.T) {
	t.Run("engine", func(t *testing.T) {
		out, code := child(t, "engine readers", engineDir(t, 400, 1000))
		if code == 0 {
			t.Fatalf("nothing happened to the engine's readers: the row is out of date\n%s", out)
		}
		if !strings.Contains(out, "panic") && !strings.Contains(out, "DATA RACE") && !strings.Contains(out, "fatal error") {
			t.Errorf("exit %d: %s", code, out)
		}
	})
	t.Run("log", func(t *testing.T) { // also: none waits for the writer's lock
		readersBesideTheWriter(t, 8, 400)
	})
}

func childEngineReaders(dir string) {
	l, err := engine.Open(dir, &engine.Options{SegmentSize: 1000, SegmentCacheSize: 1, NoCopy: true})
	must(err)
	var wg sync.WaitGroup
	end := time.Now().Add(15 * time.Second)
	for g := range 8 {
		wg.Go(func() {
			for i := uint64(g * 31); time.Now().Before(end); i += 7 {
				want := i%400 + 1
				if b, err := l.Read(want); err != nil || b[0] != byte(want) {
					panic("wrong entry")
				}
			}
		})
	}
	wg.Wait()
	os.Exit(0)
}

// readersBesideTheWriter has readers follow a log from its start while it grows.
func readersBesideTheWriter(t *testing.T, readers, frames int) {
	l := mustOpen(t, t.TempDir(), Config{SegmentBytes: 8 << 10, GenerationBytes: 64 << 10})
	mustDo(t)(l.Rotate([]Section{{Body: crashBody(1)}}))
	var wg sync.WaitGroup
	for range readers {
		wg.Go(func() { follow(t, l, LSN(frames)) })
	}
	for lsn := LSN(2); lsn <= LSN(frames); lsn++ {
		sections := []Section{{Kind: 2, Owner: uint32(lsn), Body: crashBody(lsn)}}
		if l.RotateDue() {
			mustDo(t)(l.Rotate(sections))
		} else {
			mustDo(t)(l.Append(2, sections))
		}
		if lsn%50 == 0 {
			waitAll(t, l)
		}
	}
	wg.Wait()
	if n := len(l.Generations()); n < 3 {
		t.Errorf("%d generations: the readers crossed none", n)
	}
}

func follow(t *testing.T, l *Log, last LSN) {
	r, err := l.Reader(0)
	if err != nil {
		t.Error(err)
		return
	}
	defer r.Close()
	for want := LSN(1); want <= last; want++ {
		if err := l.WaitDurable(context.Background(), want); err != nil {
			t.Error(err)
			return
		}
		f, err := r.Next()
		if err != nil {
			t.Errorf("frame %d, durable: %v", want, err)
			return
		}
		if b, err := f.Body(0); err != nil || f.LSN != want || !bytes.Equal(b, crashBody(want)) {
			t.Errorf("frame %d as %d: %v", want, f.LSN, err)
			return
		}
	}
}

func TestEngineTruncateFrontRewrites(t *testing.T) {
	inode := func(path string) uint64 {
		var st unix.Stat_t
		if err := unix.Stat(path, &st); err != nil {
			return 0
		}
		return st.Ino
	}
	t.Run("engine", func(t *testing.T) {
		dir := engineDir(t, 9, 300)
		l := openEngine(t, dir, 300)
		if err := l.TruncateFront(5); err != nil {
			t.Fatal(err)
		}
		if inode(filepath.Join(dir, segmentName(4))) != 0 || inode(filepath.Join(dir, segmentName(5))) == 0 {
			t.Fatal("the segment of the entries kept was not written anew: the row is out of date")
		}
	})
	t.Run("log", func(t *testing.T) {
		dir := t.TempDir()
		build(t, dir, Config{SegmentBytes: 4096}, 9, -1, 9, -1, 9)
		l := mustOpen(t, dir, Config{SegmentBytes: 4096})
		kept := l.Generations()[1].First
		before := snapshot(t, filepath.Join(dir, generationName(kept)))
		id := inode(filepath.Join(dir, generationName(kept), segmentName(1)))
		if err := l.Drop(kept + 3); err != nil { // whole generations only
			t.Fatal(err)
		}
		if gens := l.Generations(); len(gens) != 2 || gens[0].First != kept {
			t.Errorf("generations %v, want the first gone and no more", gens)
		}
		if after := snapshot(t, filepath.Join(dir, generationName(kept))); after != before ||
			inode(filepath.Join(dir, generationName(kept), segmentName(1))) != id {
			t.Error("a generation that stays was touched")
		}
		if _, err := l.Reader(1); !errors.Is(err, ErrGone) {
			t.Errorf("Reader of a dropped frame: %v, want ErrGone", err)
		}
	})
}

// allocated is the number of bytes that fn allocates.
func allocated(fn func()) uint64 {
	var before, after goruntime.MemStats
	goruntime.ReadMemStats(&before)
	fn()
	goruntime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

func TestEngineTrustsLengths(t *testing.T) {
	t.Run("engine", func(t *testing.T) {
		dir := engineDir(t, 3, 1<<20)
		os.Truncate(filepath.Join(dir, segmentName(1)), 4<<20) // a hole: four million empty entries
		n := allocated(func() { openEngine(t, dir, 1<<20) })
		if n < 64<<20 {
			t.Fatalf("Open took %d bytes: the row is out of date", n)
		}
		if err := openEngine(t, t.TempDir(), 1<<20).Write(1, make([]byte, 64<<20)); err != nil {
			t.Fatalf("%v: the row is out of date", err)
		}
	})
	t.Run("log", func(t *testing.T) {
		dir := t.TempDir()
		cfg := Config{ReserveBytes: -1}
		build(t, dir, cfg, 3)
		os.Truncate(tailPath(t, dir), 4<<20)
		n := allocated(func() { mustOpen(t, dir, cfg).Close() })
		if n > 16<<20 {
			t.Errorf("Open took %d bytes", n)
		}
		l := mustOpen(t, t.TempDir(), Config{FrameBytes: 1 << 20})
		mustDo(t)(l.Rotate(nil))
		if _, err := l.Append(2, []Section{{Body: make([]byte, 1<<20)}}); !errors.Is(err, ErrTooLarge) || l.Last() != 1 {
			t.Errorf("Append of too much: %v, Last %d; want ErrTooLarge, 1", err, l.Last())
		}
	})
}
