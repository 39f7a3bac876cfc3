package wal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"path/filepath"
	"testing"

	"github.com/sidestream-dev/sidestream/internal/crashfs"
)

// workload is what the crash tests do to a log: groups of frames over several sectors and segments, generations, a
// dropped one, a log closed and opened again. It returns at the first error, with what was acknowledged.
type workload struct {
	bodies  [][]byte     // by LSN - 1
	within  map[LSN]bool // frames behind which a catalog goes on: no log ends there
	acked   LSN          // durable, says the log
	dropped LSN          // frames before it may be gone, now or after the crash
}

const workloadFrames = 24

// run drives a log over d.
func (w *workload) run(d disk) error {
	for part := range 2 {
		l, err := Open("/data/wal", Config{SegmentBytes: 4 << 10, GenerationBytes: 16 << 10, disk: d})
		if err != nil {
			return err
		}
		err = w.fill(l, part)
		w.acked = max(w.acked, l.Durable())
		if cerr := l.Close(); err == nil {
			err = cerr
		}
		w.acked = max(w.acked, l.Durable())
		if err != nil {
			return err
		}
	}
	return nil
}

func (w *workload) fill(l *Log, part int) error {
	for i := range workloadFrames / 2 {
		lsn := LSN(len(w.bodies) + 1)
		sections := w.frame()
		var got LSN
		var err error
		switch i {
		case 0:
			got, err = l.Rotate(sections)
		case 5, 10:
			w.within[lsn], w.within[lsn+1] = true, true
			got, err = l.Rotate(sections, w.frame(), w.frame())
		default:
			got, err = l.Append(2, sections)
		}
		if err != nil {
			return err
		}
		if got != lsn {
			return fmt.Errorf("Append gave LSN %d, want %d", got, lsn)
		}
		if i%3 == 0 {
			if err := l.WaitDurable(context.Background(), lsn); err != nil {
				return err
			}
		}
	}
	if err := l.WaitDurable(context.Background(), l.Last()); err != nil {
		return err
	}
	if gens := l.Generations(); part == 1 {
		w.dropped = gens[len(gens)-2].First
		return l.Drop(w.dropped)
	}
	return nil
}

// frame is the next frame.
func (w *workload) frame() []Section {
	lsn := LSN(len(w.bodies) + 1)
	body := crashBody(lsn)
	w.bodies = append(w.bodies, body)
	return []Section{{Kind: 2, Owner: uint32(lsn), Body: body[:len(body)/3]}, {Kind: 3, Body: body[len(body)/3:]}}
}

// crashBody is a frame's body: its own for each LSN, with no two sectors alike.
func crashBody(lsn LSN) []byte {
	rng := rand.New(rand.NewPCG(uint64(lsn), 77))
	b := make([]byte, 200+rng.IntN(2500))
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return b
}

// survived checks that a log over d holds what it must: every acknowledged frame, none that was not appended, no hole,
// all as written; and that it goes on.
func (w *workload) survived(d disk) error {
	l, err := Open("/data/wal", Config{SegmentBytes: 4 << 10, GenerationBytes: 16 << 10, disk: d})
	if err != nil {
		return err
	}
	defer l.Close()
	last := l.Last()
	if last < w.acked || last > LSN(len(w.bodies)) {
		return fmt.Errorf("log ends at %d; %d acknowledged, %d appended", last, w.acked, len(w.bodies))
	}
	if w.within[last] {
		return fmt.Errorf("log ends at %d, within a catalog", last)
	}
	first, err := w.compare(l, last)
	if err != nil {
		return err
	}
	if first > 1 && first > w.dropped {
		return fmt.Errorf("oldest frame is %d, dropped before %d only", first, w.dropped)
	}
	lsn, err := l.Rotate([]Section{{Body: []byte("after")}})
	if err != nil || lsn != last+1 {
		return fmt.Errorf("Rotate after the crash: %d, %v; want LSN %d", lsn, err, last+1)
	}
	if err := l.WaitDurable(context.Background(), lsn); err != nil {
		return err
	}
	rep, err := verify(d, "/data/wal")
	if err != nil || !rep.OK() || rep.Torn != nil {
		return fmt.Errorf("verify after the crash: %+v, %v", rep, err)
	}
	return nil
}

func (w *workload) compare(l *Log, last LSN) (first LSN, err error) {
	r, err := l.Reader(0)
	if err != nil {
		return 0, err
	}
	defer r.Close()
	want := LSN(0)
	for {
		f, err := r.Next()
		if errors.Is(err, io.EOF) {
			if first != 0 && want != last+1 {
				return 0, fmt.Errorf("reader ends behind %d, log at %d", want-1, last)
			}
			return first, nil
		}
		if err != nil {
			return 0, err
		}
		if first == 0 {
			first, want = f.LSN, f.LSN
		}
		var body []byte
		for i := range f.Len() {
			b, err := f.Body(i)
			if err != nil {
				return 0, err
			}
			body = append(body, b...)
		}
		if f.LSN != want || !bytes.Equal(body, w.bodies[f.LSN-1]) {
			return 0, fmt.Errorf("frame %d is not as written (read %d bytes)", want, len(body))
		}
		want++
	}
}

// crashEverywhere cuts the power at every disk operation of the workload and checks several survivals of each; its error
// is the first that a survivor shows.
func crashEverywhere(broken memDisk, seeds uint64, check func(*workload, disk) error) (points int, err error) {
	for k := 1; ; k++ {
		mem := crashfs.New()
		mem.FailFrom(k)
		d := broken
		d.Mem = mem
		w := workload{within: map[LSN]bool{}}
		werr := w.run(d)
		if werr != nil && !errors.Is(werr, crashfs.ErrInjected) {
			return k, fmt.Errorf("op %d: %w", k, werr)
		}
		for seed := range seeds {
			after := broken
			after.Mem = mem.Crash(rand.New(rand.NewPCG(seed, uint64(k))))
			if err := check(&w, after); err != nil {
				return k, fmt.Errorf("op %d, seed %d: %w", k, seed, err)
			}
		}
		if mem.Ops() < k {
			return k, nil // the run ended before operation k: every crash point was tried
		}
	}
}

func TestCrashAtEveryOperation(t *testing.T) {
	const seeds = 24
	points, err := crashEverywhere(memDisk{}, seeds, (*workload).survived)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d crash points × %d survivals", points, seeds)
	if points < 100 {
		t.Errorf("only %d crash points: the workload does too little", points)
	}
}

// TestCrashTwins breaks one thing each; the crash test must see it.
func TestCrashTwins(t *testing.T) {
	twins := []struct {
		name  string
		disk  memDisk
		check func(*workload, disk) error
	}{
		{"no fsync", memDisk{noSync: true}, (*workload).survived},
		{"no directory sync", memDisk{noSyncDir: true}, (*workload).survived},
		{"no CRC", memDisk{}, (*workload).survivedTrusting},
		{"half a catalog is one", memDisk{}, (*workload).survivedHalf},
	}
	for _, tt := range twins {
		t.Run(tt.name, func(t *testing.T) {
			points, err := crashEverywhere(tt.disk, 24, tt.check)
			if err == nil {
				t.Fatalf("not seen in %d crash points", points)
			}
			t.Logf("seen: %v", err)
		})
	}
}

// survivedHalf is a log that takes a generation for begun once the first frame of its catalog is whole.
func (w *workload) survivedHalf(d disk) error {
	gens, _, err := listGenerations(d, "/data/wal")
	if err != nil || len(gens) == 0 {
		return nil // not there yet
	}
	g := &generationScan{first: gens[len(gens)-1]}
	g.due = due{lsn: g.first, anyID: true, anyPrv: true}
	if g.segments, err = listSegments(d, filepath.Join("/data/wal", generationName(g.first))); err != nil {
		return err
	}
	if err := g.scan(d, "/data/wal", nil); err != nil {
		return err
	}
	if w.within[g.last()] {
		return fmt.Errorf("log ends at %d, within a catalog", g.last())
	}
	return nil
}

// survivedTrusting is a reader that believes lengths and LSNs and checks no sum.
func (w *workload) survivedTrusting(d disk) error {
	gens, _, err := listGenerations(d, "/data/wal")
	if err != nil {
		return nil // not there yet
	}
	for _, first := range gens {
		gdir := filepath.Join("/data/wal", generationName(first))
		segs, err := listSegments(d, gdir)
		if err != nil {
			return err
		}
		for _, s := range segs {
			f, err := d.Open(filepath.Join(gdir, segmentName(s.index)))
			if err != nil {
				return err
			}
			b := make([]byte, s.size)
			f.ReadAt(b, 0)
			if err := w.trust(b, first+LSN(s.index-1)); err != nil {
				return err
			}
		}
	}
	return nil
}

func (w *workload) trust(b []byte, lsn LSN) error {
	for {
		n := bytes.Index(b, magicBytes)
		if n < 0 || len(b) < n+headerLen {
			return nil
		}
		h, err := decodeHeader(b[n:])
		if err != nil || h.lsn != lsn || len(b) < n+h.length || lsn > LSN(len(w.bodies)) {
			return nil
		}
		if !bytes.Equal(b[n+h.headLen():n+h.length], w.bodies[lsn-1]) {
			return fmt.Errorf("frame %d is not as written", lsn)
		}
		b, lsn = b[n+h.length:], lsn+1
	}
}
