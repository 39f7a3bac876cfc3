package wal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sidestream-dev/sidestream/internal/crashfs"
)

var repairTime = time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)

func repairedCatalog(first LSN) ([][]Section, error) {
	return [][]Section{{{Kind: 9, Body: fmt.Appendf(nil, "begins with %d", first)}}, {{Kind: 9, Body: []byte("and goes on")}}}, nil
}

// damageCase is one way to ruin a log of several generations.
type damageCase struct {
	name string
	ruin func(d memDisk, g, segment string, lsn LSN) error
}

func damageCases() []damageCase {
	flip := func(at func(e *found) int64) func(memDisk, string, string, LSN) error {
		return func(d memDisk, _, segment string, lsn LSN) error {
			return onFrame(d, segment, lsn, func(c *crashfs.File, fr *found) error { return flipByte(c, at(fr)) })
		}
	}
	return []damageCase{
		{"the engine's length", flip(func(fr *found) int64 { return fr.at - 1 })},
		{"the magic", flip(func(fr *found) int64 { return fr.at })},
		{"the version", flip(func(fr *found) int64 { return fr.at + 4 })},
		{"the kind", flip(func(fr *found) int64 { return fr.at + 5 })},
		{"the log id", flip(func(fr *found) int64 { return fr.at + 9 })},
		{"the LSN", flip(func(fr *found) int64 { return fr.at + 24 })},
		{"the durable mark", flip(func(fr *found) int64 { return fr.at + 32 })},
		{"prev", flip(func(fr *found) int64 { return fr.at + 40 })},
		{"the length", flip(func(fr *found) int64 { return fr.at + 48 })},
		{"the checksum", flip(func(fr *found) int64 { return fr.at + 52 })},
		{"the table", flip(func(fr *found) int64 { return fr.at + int64(fr.headLen()) - 1 })},
		{"the first body", flip(func(fr *found) int64 { return fr.at + int64(fr.headLen()) })},
		{"the last byte", flip(func(fr *found) int64 { return fr.next - 1 })},
		{"segment missing", func(d memDisk, _, segment string, _ LSN) error { return d.Remove(segment) }},
		{"segment empty", func(d memDisk, _, segment string, _ LSN) error { return d.Truncate(segment, 0) }},
		{"segment short", func(d memDisk, _, segment string, _ LSN) error {
			f, err := d.Mem.Open(segment)
			if err != nil {
				return err
			}
			return d.Truncate(segment, f.Size()-7)
		}},
		{"segment swapped with the one behind", func(d memDisk, g, victim string, _ LSN) error {
			index, err := strconv.ParseUint(path.Base(victim), 10, 64)
			if err != nil {
				return err
			}
			segs, err := listSegments(d, g)
			if err != nil {
				return err
			}
			i := slices.IndexFunc(segs, func(s segment) bool { return s.index == index })
			if i+1 == len(segs) {
				i--
			}
			a, b := path.Join(g, segmentName(segs[i].index)), path.Join(g, segmentName(segs[i+1].index))
			return errors.Join(d.Rename(a, a+"x"), d.Rename(b, a), d.Rename(a+"x", b))
		}},
		{"a file that the engine would act on", func(d memDisk, g, _ string, _ LSN) error {
			return d.WriteFile(path.Join(g, segmentName(2)+".START"), nil)
		}},
	}
}

func flipByte(f *crashfs.File, at int64) error {
	var b [1]byte
	f.ReadAt(b[:], at)
	b[0] ^= 0x10
	return f.WriteAt(b[:], at)
}

// onFrame calls fn with the frame of an LSN, which lies in segment.
func onFrame(d memDisk, segment string, lsn LSN, fn func(*crashfs.File, *found) error) error {
	f, err := d.Mem.Open(segment)
	if err != nil {
		return err
	}
	c, err := newCursor(memFile{f}, 4096)
	if err != nil {
		return err
	}
	var fr found
	for off := int64(0); ; off = fr.next {
		if err := c.entry(off, &fr); err != nil {
			return fmt.Errorf("frame %d is not in %s: %w", lsn, segment, err)
		}
		if fr.lsn == lsn {
			return fn(f, &fr)
		}
	}
}

// segmentOf is the segment that holds a frame.
func segmentOf(d disk, gdir string, lsn LSN) (string, error) {
	first, _ := parseName(path.Base(gdir))
	segs, err := listSegments(d, gdir)
	if err != nil {
		return "", err
	}
	name := ""
	for _, s := range segs {
		if LSN(s.index-1)+LSN(first) <= lsn && s.size > 0 {
			name = path.Join(gdir, segmentName(s.index))
		}
	}
	return name, nil
}

const repairDir = "/data/wal"

// repairLog makes a log of three generations and returns every frame.
func repairLog() (memDisk, map[LSN][]byte, error) {
	d := memDisk{Mem: crashfs.New()}
	if err := errors.Join(d.Mkdir("/data"), d.SyncDir("/")); err != nil {
		return d, nil, err
	}
	l, err := Open(repairDir, repairConfig(d))
	if err != nil {
		return d, nil, err
	}
	frame := func(i int) []Section {
		body := crashBody(LSN(i + 1))[:200]
		return []Section{{Kind: 2, Owner: 1, Body: body[:90]}, {Kind: 3, Body: body[90:]}}
	}
	for i := range 42 {
		switch i % 14 {
		case 0:
			_, err = l.Rotate(frame(i), frame(i+1))
		case 1:
			continue // the catalog goes on in it
		default:
			_, err = l.Append(2, frame(i))
		}
		if err == nil {
			err = l.WaitDurable(context.Background(), l.Last())
		}
		if err != nil {
			return d, nil, err
		}
	}
	frames, err := readFrames(l, 0)
	return d, frames, errors.Join(err, l.Close())
}

func repairConfig(d disk) Config {
	return Config{SegmentBytes: 1 << 10, GenerationBytes: 1 << 20, disk: d}
}

// TestRepairMatrix damages the log in each way, in the first, the middle and the last generation, in its catalog, in its
// middle and near its end, and repairs it, keeping each stretch that can be kept. What is kept is every frame of the stretch,
// the log opens, goes on, and gives no LSN twice.
func TestRepairMatrix(t *testing.T) {
	_, want, err := repairLog()
	if err != nil {
		t.Fatal(err)
	}
	tried, empty, several := 0, 0, 0
	for _, damage := range damageCases() {
		for gen := range 3 {
			for _, at := range []int{0, 1, 6, 12} {
				lsn := LSN(gen*14 + at + 1)
				name := fmt.Sprintf("%s, LSN %d", damage.name, lsn)
				for pick := 0; ; pick++ {
					d, _, err := repairLog()
					if err != nil {
						t.Fatal(err)
					}
					gdir := path.Join(repairDir, generationName(LSN(gen*14+1)))
					segment, err := segmentOf(d, gdir, lsn)
					if err == nil {
						err = damage.ruin(d, gdir, segment, lsn)
					}
					if err != nil {
						t.Fatalf("%s: %v", name, err)
					}
					n, none, err := repairOne(d, pick, want)
					if err != nil {
						t.Fatalf("%s, choice %d: %v", name, pick, err)
					}
					tried++
					if none {
						empty++
					}
					if n > 1 {
						several++
					}
					if pick+1 >= n {
						break
					}
				}
			}
		}
	}
	t.Logf("%d repairs, %d that kept nothing, %d of logs with a choice", tried, empty, several)
	if tried < 200 || empty == 0 || several == 0 {
		t.Error("the test does not reach everything")
	}
}

// repairOne repairs a log, keeping the choice of that number, and returns how many there were.
func repairOne(d memDisk, pick int, want map[LSN][]byte) (choices int, empty bool, err error) {
	cfg := repairConfig(d)
	rep, err := verify(d, repairDir)
	if err != nil {
		return 0, false, err
	}
	r, err := OpenRepair(repairDir, cfg)
	if err != nil {
		return 0, false, err
	}
	if got := r.Report(); !slices.EqualFunc(got.Damage, rep.Damage, func(a, b *CorruptError) bool { return a.Error() == b.Error() }) {
		return 0, false, fmt.Errorf("repair finds %v, verify %v", got.Damage, rep.Damage)
	}
	if rep.OK() {
		if rep.Torn == nil && rep.Last == 42 {
			return 0, false, errors.New("neither damage nor a tear was found")
		}
		return 0, false, nil // the last group fsynced, or the last segment without a trace: a tear
	}
	n := len(r.Choices())
	if n == 0 {
		return 0, false, errors.New("nothing can be kept")
	}
	before, err := bytesOf(d)
	if err != nil {
		return n, false, err
	}
	c := r.Choices()[pick]
	seen := LSN(0)
	if err := r.Removed(c, func(f *Frame) error { seen = max(seen, f.LSN); return checkRemoved(f, want) }); err != nil {
		return n, false, err
	}
	done, err := r.Write(c, NewLog{Catalog: repairedCatalog, Now: repairTime})
	if err != nil {
		return n, false, err
	}
	if err := repairedWell(d, c, done, want, seen); err != nil {
		return n, false, fmt.Errorf("%s kept: %w", c, err)
	}
	return n, c.Last == 0, keptAll(d, done.Folder, before)
}

func checkRemoved(f *Frame, want map[LSN][]byte) error {
	var got []byte
	for i := range f.Len() {
		b, err := f.Body(i)
		if err != nil {
			return err
		}
		got = append(got, b...)
	}
	if !bytes.Equal(got, want[f.LSN]) {
		return fmt.Errorf("removed frame %d is not as written", f.LSN)
	}
	return nil
}

// repairedWell opens a repaired log and checks that it holds what was kept and goes on.
func repairedWell(d memDisk, c Choice, done Done, want map[LSN][]byte, seen LSN) error {
	if rep, err := verify(d, repairDir); err != nil || !rep.OK() || rep.Torn != nil {
		return fmt.Errorf("verify: %v, torn %v, %w", rep.Damage, rep.Torn, err)
	}
	l, err := Open(repairDir, repairConfig(d))
	if err != nil {
		return err
	}
	defer l.Close()
	got, err := readFrames(l, 0)
	if err != nil {
		return err
	}
	catalog, _ := repairedCatalog(done.First)
	model := map[LSN][]byte{done.First: catalog[0][0].Body, done.First + 1: catalog[1][0].Body}
	for lsn := c.First; lsn <= c.Last && lsn > 0; lsn++ {
		model[lsn] = want[lsn]
	}
	if !maps.EqualFunc(got, model, bytes.Equal) {
		return fmt.Errorf("frames %v are there, want %v", slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(model)))
	}
	a := l.Ancestors()
	switch {
	case l.ID() != done.New || done.New == done.Old:
		return fmt.Errorf("id %s, said were %s for %s", l.ID(), done.New, done.Old)
	case len(a) == 0 || a[len(a)-1] != (Ancestor{ID: done.Old, Last: c.Last}):
		return fmt.Errorf("ancestors %v, want %s up to %d", a, done.Old, c.Last)
	case done.First <= seen || done.First <= LSN(len(want)) && c.Behind.Last > 0:
		return fmt.Errorf("the log goes on with %d, but %d of %d was seen in what is removed", done.First, seen, len(want))
	}
	for i := range 30 {
		lsn, err := l.Append(2, []Section{{Body: crashBody(LSN(i + 1))}})
		if err != nil || lsn != done.First+LSN(i)+2 { // its catalog is two frames
			return fmt.Errorf("Append: %d, %w", lsn, err)
		}
	}
	if _, err := l.Rotate(nil); err != nil {
		return err
	}
	if err := errors.Join(l.WaitDurable(context.Background(), l.Last()), l.Close()); err != nil {
		return err
	}
	if l, err = Open(repairDir, repairConfig(d)); err != nil {
		return err
	}
	_, err = readFrames(l, 0)
	return errors.Join(err, l.Close())
}

// bytesOf reads every file of the log's generations.
func bytesOf(d memDisk) (map[string][]byte, error) {
	out := map[string][]byte{}
	gens, _, err := listGenerations(d, repairDir)
	for _, g := range gens {
		list, lerr := d.List(path.Join(repairDir, generationName(g)))
		err = errors.Join(err, lerr)
		for _, e := range list {
			b, rerr := readWhole(d, path.Join(repairDir, generationName(g), e.name))
			err = errors.Join(err, rerr)
			out[path.Join(generationName(g), e.name)] = b
		}
	}
	return out, err
}

func readWhole(d disk, name string) ([]byte, error) {
	f, err := d.Open(name)
	if err != nil {
		return nil, err
	}
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	b := make([]byte, size)
	if _, err := f.ReadAt(b, 0); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return b, nil
}

// keptAll checks that every byte there was before is in the log still or in the folder of what was cut off.
func keptAll(d memDisk, folder string, before map[string][]byte) error {
	for name, b := range before {
		now, err := readWhole(d, path.Join(repairDir, name))
		if err == nil && bytes.Equal(now, b) {
			continue
		}
		kept, err := readWhole(d, path.Join(folder, name))
		if err != nil || !bytes.Equal(kept, b) {
			return fmt.Errorf("%s was cut off, and is not in %s as it was (%d bytes of %d): %w", name, folder, len(kept), len(b), err)
		}
	}
	_, err := readWhole(d, path.Join(folder, manifestOf))
	return err
}

// TestRepairCrashes cuts the power at every disk operation of a repair: the log is then as before, or repaired, or repair
// run again finishes.
func TestRepairCrashes(t *testing.T) {
	points, err := crashRepairs(memDisk{}, 12, false)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d crash points", points)
	if points < 20 {
		t.Error("the repair does too little")
	}
}

// TestRepairCrashTwins breaks one thing each; the crash test must see it.
func TestRepairCrashTwins(t *testing.T) {
	for _, tt := range []struct {
		name  string
		disk  memDisk
		hasty bool
	}{
		{"no fsync", memDisk{noSync: true}, false},
		{"no directory sync", memDisk{noSyncDir: true}, false},
		{"no manifest first", memDisk{}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			points, err := crashRepairs(tt.disk, 12, tt.hasty)
			if err == nil {
				t.Fatalf("not seen in %d crash points", points)
			}
			t.Logf("seen: %v", err)
		})
	}
}

func crashRepairs(broken memDisk, seeds uint64, hasty bool) (points int, err error) {
	for k := 1; ; k++ {
		d, want, err := repairLog()
		if err != nil {
			return k, err
		}
		gdir := path.Join(repairDir, generationName(15))
		segment, err := segmentOf(d, gdir, 20)
		if err == nil {
			err = onFrame(d, segment, 20, func(f *crashfs.File, fr *found) error { return errors.Join(flipByte(f, fr.next-3), f.Sync()) })
		}
		if err != nil {
			return k, err
		}
		broken.Mem = d.Mem
		start := d.Ops()
		d.FailFrom(start + k)
		rerr := repairOnce(broken, hasty)
		if rerr != nil && !errors.Is(rerr, crashfs.ErrInjected) {
			return k, fmt.Errorf("op %d: %w", k, rerr)
		}
		ended := d.Ops() < start+k
		for seed := range seeds {
			after := memDisk{Mem: d.Crash(rand.New(rand.NewPCG(seed, uint64(k))))}
			if err := afterCrash(after, want); err != nil {
				return k, fmt.Errorf("op %d, seed %d: %w", k, seed, err)
			}
		}
		if ended {
			return k, nil
		}
	}
}

func repairOnce(d memDisk, hasty bool) error {
	r, err := OpenRepair(repairDir, repairConfig(d))
	if err != nil {
		return err
	}
	c := r.Choices()[0]
	n := NewLog{Catalog: repairedCatalog, Now: repairTime}
	if hasty { // what is decided is not written down
		m := r.plan(c, n)
		r.begun = m
		if err := r.keep(m); err != nil {
			return err
		}
		if err := r.finish(&manifest{Generations: m.Generations, Tail: m.Tail, Folder: m.Folder, First: m.First}); err != nil {
			return err
		}
		return r.writeGeneration(c, n, m)
	}
	_, err = r.Write(c, n)
	return err
}

// afterCrash checks what a repair that may have been cut short has left, and repairs again.
func afterCrash(d memDisk, want map[LSN][]byte) error {
	l, err := Open(repairDir, repairConfig(d))
	if err == nil {
		err = l.Close()
	}
	switch {
	case err == nil: // it reads the newest generation, and that is not the one with the damage
	case errors.Is(err, ErrUnfinishedRepair):
		r, err := OpenRepair(repairDir, repairConfig(d))
		if err != nil {
			return err
		}
		if !r.Begun() {
			return errors.New("Open speaks of a repair that was begun, and there is none")
		}
		if _, err := r.Finish(); err != nil {
			return err
		}
	default:
		return fmt.Errorf("open after the crash: %w", err)
	}
	rep, err := verify(d, repairDir)
	if err != nil {
		return err
	}
	if !rep.OK() { // as it was before
		if err := repairOnce(d, false); err != nil {
			return err
		}
	}
	return wellRepaired(d, want)
}

func wellRepaired(d memDisk, want map[LSN][]byte) error {
	l, err := Open(repairDir, repairConfig(d))
	if err != nil {
		return err
	}
	defer l.Close()
	got, err := readFrames(l, 0)
	if err != nil {
		return err
	}
	for lsn := LSN(1); lsn < 20; lsn++ {
		if !bytes.Equal(got[lsn], want[lsn]) {
			return fmt.Errorf("frame %d is not as it was", lsn)
		}
	}
	if len(got) != 21 || l.Last() <= 42 {
		return fmt.Errorf("%d frames, the last is %d", len(got), l.Last())
	}
	folders, err := d.List(repairDir)
	if err != nil {
		return err
	}
	for _, e := range folders {
		if strings.HasPrefix(e.name, cutPrefix) && !strings.HasSuffix(e.name, tempSuffix) {
			for gen, frames := range map[LSN][]LSN{15: {21, 28}, 29: {29, 42}} {
				if err := inFolder(d, path.Join(repairDir, e.name, generationName(gen)), want, frames); err != nil {
					return err
				}
			}
			return l.Close()
		}
	}
	return errors.New("what was cut off is not there")
}

// inFolder looks for whole frames in what was kept of a generation.
func inFolder(d memDisk, gdir string, want map[LSN][]byte, frames []LSN) error {
	segs, err := listSegments(d, gdir)
	if err != nil {
		return err
	}
	seen := map[LSN]bool{}
	for _, s := range segs {
		err := withCursor(d, path.Join(gdir, segmentName(s.index)), scanAhead, func(c *cursor) error {
			return c.search(0, func(fr *found) { seen[fr.lsn] = true })
		})
		if err != nil {
			return err
		}
	}
	for lsn := frames[0]; lsn <= frames[1]; lsn++ {
		if !seen[lsn] {
			return fmt.Errorf("frame %d was cut off and is nowhere in %s", lsn, gdir)
		}
	}
	return nil
}

// TestRepairOnDisk does it on a real disk: the lock is taken, links are made.
func TestRepairOnDisk(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "wal")
	cfg := Config{SegmentBytes: 4 << 10, GenerationBytes: 16 << 10}
	build(t, dir, cfg, 5, -1, 4, 3, -1, 1, 1, 1, 1)
	l := mustOpen(t, dir, cfg)
	if _, err := OpenRepair(dir, cfg); !errors.As(err, new(*LockedError)) {
		t.Errorf("OpenRepair of a log in use: %v, want a LockedError", err)
	}
	last := l.Last()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	victim := filepath.Join(dir, generationName(7), segmentName(1))
	b := mustRead(t, victim)
	b[len(b)/2] ^= 1
	mustWrite(t, victim, b)
	r, err := OpenRepair(dir, cfg)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(r.Choices()); n != 2 {
		t.Fatalf("%d choices, want what is before and what is behind: %v", n, r.Choices())
	}
	done, err := r.Write(r.Choices()[1], NewLog{Catalog: repairedCatalog, Now: repairTime})
	if err = errors.Join(err, r.Close()); err != nil {
		t.Fatal(err)
	}
	l = mustOpen(t, dir, cfg)
	if got := l.Generations(); got[0].First <= 7 || l.Last() != done.First+1 || done.First != last+1 {
		t.Errorf("generations %v, last %d, want what lies behind the damage, and frame %d", got, l.Last(), last+1)
	}
	if kept := mustRead(t, filepath.Join(done.Folder, generationName(7), segmentName(1))); !bytes.Equal(kept, b) {
		t.Error("the damaged segment is not kept as it was")
	}
	if _, err := os.Stat(filepath.Join(done.Folder, manifestOf)); err != nil {
		t.Error(err)
	}
}

// TestRepairNewID gives a whole log a new id, as for a copy that was put back.
func TestRepairNewID(t *testing.T) {
	d, want, err := repairLog()
	if err != nil {
		t.Fatal(err)
	}
	r, err := OpenRepair(repairDir, repairConfig(d))
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Choices()) != 1 || len(r.Report().Damage) != 0 {
		t.Fatalf("choices %v, damage %v", r.Choices(), r.Report().Damage)
	}
	c := r.Choices()[0]
	done, err := r.Write(c, NewLog{Catalog: repairedCatalog, Now: repairTime, Rise: 1000})
	if err != nil {
		t.Fatal(err)
	}
	if done.First != LSN(len(want))+1001 {
		t.Errorf("it goes on with %d, want %d", done.First, len(want)+1001)
	}
	if err := repairedWell(d, c, done, want, LSN(len(want))); err != nil {
		t.Error(err)
	}
}
