package bus

import (
	"encoding/hex"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/sidestream-dev/sidestream/wal"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden compares b with testdata/name, which holds it as a hex dump.
func golden(t *testing.T, name string, b []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(hex.Dump(b)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := hex.Dump(b); got != string(want) {
		t.Errorf("%s: the encoding has changed; data directories have the old one\n got\n%swant\n%s", name, got, want)
	}
}

// seedVariable names the one seed that a random test runs with; runsVariable multiplies how many it tries.
const (
	seedVariable = "SIDESTREAM_SEED"
	runsVariable = "SIDESTREAM_RUNS"
)

func envNumber(t testing.TB, name string) uint64 {
	t.Helper()
	s := os.Getenv(name)
	if s == "" {
		return 0
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		t.Fatalf("%s=%q: %v", name, s, err)
	}
	return n
}

// seeds calls f with n seeds, other ones in each run; a failure names the seed that repeats it.
func seeds(t *testing.T, n int, f func(t *testing.T, r *rand.Rand)) {
	t.Helper()
	first := uint64(time.Now().UnixNano())
	if one := envNumber(t, seedVariable); one > 0 {
		first, n = one, 1
	} else if times := envNumber(t, runsVariable); times > 0 {
		n *= int(times)
	}
	t.Logf("seeds %d to %d; %s repeats one", first, first+uint64(n)-1, seedVariable)
	for seed := first; seed < first+uint64(n) && !t.Failed(); seed++ {
		func() {
			defer func() {
				p := recover()
				if p != nil || t.Failed() {
					t.Logf("%s=%d go test ./bus -run '^%s$' repeats this", seedVariable, seed, t.Name())
				}
				if p != nil {
					panic(p)
				}
			}()
			f(t, rand.New(rand.NewPCG(seed, 0)))
		}()
	}
}

// memLog is a log in memory. Its readers hold the caller to the contract: a frame is of no use once its reader went on.
type memLog struct {
	mu      sync.Mutex
	frames  []*memFrame // by LSN - 1; nil once dropped
	first   wal.LSN     // oldest still there
	durable wal.LSN
	opens   int
}

type memFrame struct {
	lsn      wal.LSN
	sections []wal.Section
}

func (l *memLog) append(sections ...wal.Section) wal.LSN {
	l.mu.Lock()
	defer l.mu.Unlock()
	lsn := wal.LSN(len(l.frames)) + 1
	l.frames = append(l.frames, &memFrame{lsn, sections})
	return lsn
}

func (l *memLog) last() wal.LSN {
	l.mu.Lock()
	defer l.mu.Unlock()
	return wal.LSN(len(l.frames))
}

func (l *memLog) setDurable(lsn wal.LSN) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.durable = max(l.durable, lsn)
}

// drop removes what lies before first.
func (l *memLog) drop(first wal.LSN) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.first = max(l.first, 1); l.first < first; l.first++ {
		l.frames[l.first-1] = nil
	}
}

// crash loses what is not durable.
func (l *memLog) crash() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.frames = l.frames[:l.durable]
}

func (l *memLog) Reader(from wal.LSN) (LogReader, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.opens++
	if from < l.first {
		return nil, fmt.Errorf("%w: %s", wal.ErrGone, from)
	}
	return &memReader{log: l, due: max(from, 1)}, nil
}

type memReader struct {
	log    *memLog
	due    wal.LSN
	moves  int
	closed bool
}

func (r *memReader) Next() (Frame, error) {
	r.log.mu.Lock()
	defer r.log.mu.Unlock()
	r.moves++
	switch {
	case r.closed:
		return nil, wal.ErrClosed
	case r.due < r.log.first:
		return nil, fmt.Errorf("%w: %s", wal.ErrGone, r.due)
	case r.due > r.log.durable:
		return nil, io.EOF
	}
	r.due++
	return &memView{r.log.frames[r.due-2], r, r.moves}, nil
}

func (r *memReader) Seek(lsn wal.LSN) error {
	r.moves++
	r.due = lsn
	return nil
}

func (r *memReader) Close() error {
	r.moves++
	r.closed = true
	return nil
}

type memView struct {
	f     *memFrame
	r     *memReader
	moves int
}

func (v *memView) frame() *memFrame {
	if v.moves != v.r.moves {
		panic("a frame was used after its reader had gone on")
	}
	return v.f
}

func (v *memView) LSN() wal.LSN { return v.frame().lsn }
func (v *memView) Len() int     { return len(v.frame().sections) }

func (v *memView) Section(i int) wal.SectionInfo {
	s := v.frame().sections[i]
	return wal.SectionInfo{Kind: s.Kind, Owner: s.Owner, Len: len(s.Body)}
}

func (v *memView) Body(i int) ([]byte, error) { return slices.Clone(v.frame().sections[i].Body), nil }

// walLog is the real log, as the runtime gives it to the bus.
type walLog struct{ *wal.Log }

func (l walLog) Reader(from wal.LSN) (LogReader, error) {
	r, err := l.Log.Reader(from)
	if err != nil {
		return nil, err
	}
	return walReader{r}, nil
}

type walReader struct{ *wal.Reader }

func (r walReader) Next() (Frame, error) {
	f, err := r.Reader.Next()
	if err != nil {
		return nil, err
	}
	return walFrame{&f}, nil
}

type walFrame struct{ *wal.Frame }

func (f walFrame) LSN() wal.LSN { return f.Frame.LSN }

const (
	kindLast wal.FrameKind = 2
	kindPart wal.FrameKind = 3
)

func newWAL(t testing.TB, cfg wal.Config) walLog {
	t.Helper()
	l, err := wal.Open(t.TempDir(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	if _, err := l.Rotate(nil); err != nil {
		t.Fatal(err)
	}
	return walLog{l}
}

// records encodes values as a section.
func records(values ...string) (data []byte, count int) {
	var b Builder
	for _, v := range values {
		b.Append(Record{Value: []byte(v), Time: NoTime})
	}
	return b.Bytes(), b.Count()
}

// rig is a bus over a log in memory, with a committer's steps to take by hand.
type rig struct {
	t testing.TB
	*Bus
	log   *memLog
	now   time.Time
	rooms []TopicID
	near  []string
}

func newRig(t testing.TB, cfg Config) *rig {
	r := makeRig(t, cfg, &memLog{}, time.UnixMilli(1_700_000_000_000))
	r.rotate()
	return r
}

// makeRig is a rig over a log that may hold something.
func makeRig(t testing.TB, cfg Config, log *memLog, now time.Time) *rig {
	r := &rig{t: t, log: log, now: now}
	cfg.Now = func() time.Time { return r.now }
	cfg.OnRoom = func(id TopicID) { r.rooms = append(r.rooms, id) }
	cfg.OnNearlyFull = func(_ TopicID, name, who string, fill float64) {
		r.near = append(r.near, fmt.Sprintf("%s %s %.2f", name, who, fill))
	}
	r.Bus = New(cfg, r.log)
	return r
}

func (r *rig) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) define(id TopicID, spec TopicSpec) {
	r.t.Helper()
	r.must(r.Define(id, spec))
}

// rotate begins a generation.
func (r *rig) rotate() wal.LSN {
	lsn := r.log.append(wal.Section{Kind: 0x32, Body: r.AppendCatalog(nil)})
	r.Generation(lsn)
	return lsn
}

// pub makes a publication of values.
func pub(topic TopicID, partition int, values ...string) Publication {
	data, n := records(values...)
	return Publication{Topic: topic, Partition: partition, Count: n, Data: data}
}

// epoch writes and publishes one frame.
func (r *rig) epoch(pubs []Publication, marks ...Mark) wal.LSN {
	r.Assign(pubs)
	lsn := r.log.append(frameSections(pubs, marks)...)
	r.Publish(lsn, pubs, marks)
	return lsn
}

// frameSections sets where each publication's records lie in a frame that holds all of them.
func frameSections(pubs []Publication, marks []Mark) []wal.Section {
	var ss []wal.Section
	for i := range pubs {
		pubs[i].Part, pubs[i].Section = 0, len(ss)
		ss = append(ss, wal.Section{Kind: SectionRecords, Owner: uint32(pubs[i].Topic), Body: pubs[i].Data})
	}
	return append(ss, wal.Section{Kind: SectionIndex, Body: AppendIndex(nil, pubs, marks)})
}

func (r *rig) durable() {
	r.log.setDurable(r.log.last())
	r.Durable(r.log.last())
}

func (r *rig) subscribe(id SubID, topic TopicID, start Start) []SubState {
	r.t.Helper()
	st, err := r.Subscribe(id, fmt.Sprintf("sub%d", id), topic, start)
	r.must(err)
	return st
}

// drain reads all there is, in batches of max records, as "partition:offset=value" and "marks watermark idle".
func drain(t testing.TB, rd *Reader, max int) []string {
	t.Helper()
	var out []string
	for {
		b, ok, err := rd.Next(max)
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			return out
		}
		if b.Len() == 0 {
			w, idle := rd.Watermark()
			out = append(out, "marks "+level(w, idle))
			continue
		}
		at := b.Base
		for rec := range b.Records() {
			out = append(out, fmt.Sprintf("%d:%s=%s", b.Partition, at, rec.Value))
			at++
		}
	}
}

// level writes a watermark and idleness for people.
func level(w int64, idle bool) string {
	s := strconv.FormatInt(w, 10)
	if w == NoWatermark {
		s = "none"
	}
	if idle {
		s += " idle"
	}
	return s
}

func equal(t testing.TB, what string, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s:\n got %q\nwant %q", what, got, want)
	}
}
