package bus

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/sidestream-dev/sidestream/wal"
)

// lazyDisk is the real file system without its syncs, for tests of what is kept and not of what survives.
type lazyDisk struct{ OSDisk }

type lazyFile struct{ DiskFile }

func (d lazyDisk) Open(path string, create bool) (DiskFile, error) {
	f, err := d.OSDisk.Open(path, create)
	if err != nil {
		return nil, err
	}
	return lazyFile{f}, nil
}

func (lazyDisk) SyncDir(string) error { return nil }
func (lazyFile) Sync() error          { return nil }

// storeRig is a rig with a store in a folder.
func storeRig(t testing.TB, segment int64) (*rig, string) {
	dir := t.TempDir()
	return newRig(t, Config{MemoryBytes: 1, Store: StoreConfig{Dir: dir, Disk: lazyDisk{}, SegmentBytes: segment}}), dir
}

// moveOut moves all but the newest generation into the store.
func (r *rig) moveOut() {
	r.t.Helper()
	upTo := r.rotate()
	r.durable()
	plan, err := r.PlanCopy(upTo)
	r.must(err)
	var ch StoreChange
	if plan != nil {
		ch, err = plan.Run(r.t.Context(), nil)
		r.must(err)
	}
	r.ApplyStore(ch)
	r.Dropped(upTo)
	r.log.drop(upTo)
	r.must(r.SweepStore(r.TakeGarbage()))
}

// TestStartByTime: a start by time is at the first record that is not before it, wherever that lies.
func TestStartByTime(t *testing.T) {
	seeds(t, 30, func(t *testing.T, rn *rand.Rand) {
		r, _ := storeRig(t, 400)
		r.define(1, TopicSpec{Name: "t", Partitions: 2})
		times := make([][]int64, 2)
		for range 40 {
			var pubs []Publication
			for p := range 2 {
				var b Builder
				for range rn.IntN(4) {
					at := int64(len(times[p])*10 + rn.IntN(100))
					if rn.IntN(8) == 0 {
						at = NoTime
					}
					times[p] = append(times[p], at)
					b.Append(Record{Value: []byte("v"), Time: at})
				}
				if b.Count() > 0 {
					pubs = append(pubs, Publication{Topic: 1, Partition: p, Count: b.Count(), Data: b.Bytes(), Latest: b.Latest()})
				}
			}
			r.epoch(pubs)
			if rn.IntN(6) == 0 {
				r.moveOut()
			} else if rn.IntN(6) == 0 {
				r.rotate()
				r.durable()
			}
		}
		r.durable()
		for at := int64(-1); at < 1200; at += 1 + int64(rn.IntN(40)) {
			start, err := r.Resolve(1, Start{ByTime: true, Time: at})
			r.must(err)
			for p, ts := range times {
				want := 0
				for want < len(ts) && (ts[want] == NoTime || ts[want] < at) {
					want++
				}
				if got := start.Offsets[p]; got != Offset(want) {
					t.Fatalf("time %d, partition %d: offset %s, want %d", at, p, got, want)
				}
			}
			if _, err := r.Browse(1, 1, start); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// TestPurge: what is purged is gone exactly, in store and log, but not what a subscription has yet to read.
func TestPurge(t *testing.T) {
	r, dir := storeRig(t, 100)
	r.define(1, TopicSpec{Name: "t"})
	for i := range 20 {
		r.epoch([]Publication{pub(1, 0, fmt.Sprint("a", i), fmt.Sprint("b", i))})
		if i%5 == 4 {
			r.moveOut()
		}
	}
	r.epoch([]Publication{pub(1, 0, "c", "d")})
	r.durable()
	files := func() int {
		names, err := filepath.Glob(filepath.Join(dir, "1", "0", "*.seg"))
		r.must(err)
		return len(names)
	}
	before := files()
	states := r.subscribe(1, 1, Start{At: 17})
	var refused *PurgeError
	if _, err := r.Purge(1, Start{At: 18}); !errors.As(err, &refused) || refused.Needs != 17 || refused.Subscription != "sub1" {
		t.Errorf("purging what a subscription needs: %v", err)
	}
	ch, err := r.Purge(1, Start{At: 17})
	r.must(err)
	r.ApplyStore(ch)
	r.must(r.SweepStore(r.TakeGarbage()))
	if got := r.First(1, 0); got != 17 || files() >= before {
		t.Errorf("the oldest record is %s, of 17; %d files of %d", got, files(), before)
	}
	rd := r.NewReader(1, 1, states, func() {})
	defer rd.Close()
	if got := drain(t, rd, 9); len(got) != 42-17 || got[0] != "0:17=b8" {
		t.Errorf("read on: %q", got)
	}
	if _, err := r.Browse(1, 0, Start{At: 16}); !errors.As(err, new(*OffsetError)) {
		t.Errorf("what was purged: %v", err)
	}
}

// TestStoreDamage: a byte changed in the store is an error that says which file, never an end or other records.
func TestStoreDamage(t *testing.T) {
	r, dir := storeRig(t, 1<<20)
	r.define(1, TopicSpec{Name: "t"})
	for i := range 30 {
		r.epoch([]Publication{pub(1, 0, fmt.Sprint("value ", i))})
	}
	r.moveOut()
	names, err := filepath.Glob(filepath.Join(dir, "1", "0", "*.seg"))
	if err != nil || len(names) != 1 {
		t.Fatal(names, err)
	}
	whole, err := os.ReadFile(names[0])
	r.must(err)
	for at := 0; at < len(whole); at += 7 {
		b := bytes.Clone(whole)
		b[at] ^= 0x10
		r.must(os.WriteFile(names[0], b, 0o600))
		st, err := r.Browse(1, 0, Start{Earliest: true})
		r.must(err)
		rd := r.NewReader(0, 1, []SubState{st}, func() {})
		n, failure := 0, error(nil)
		for {
			batch, ok, err := rd.Next(100)
			if failure = err; err != nil || !ok {
				break
			}
			for rec := range batch.Records() {
				if string(rec.Value) != fmt.Sprint("value ", n) {
					t.Fatalf("byte %d: record %d is %q", at, n, rec.Value)
				}
				n++
			}
		}
		r.must(rd.Close())
		var damaged *SegmentError
		if !errors.As(failure, &damaged) || damaged.Topic != 1 || damaged.File == "" {
			t.Fatalf("byte %d of %d was changed: %d records, then %v", at, len(whole), n, failure)
		}
	}
}

// TestWeekBesideNeighbours: what a topic of 1 kB/s that is kept for a week needs on disk beside neighbours that write
// 50 MB/s: its week, and not theirs. All bytes are a tenth, of the log, its generations and what the neighbours keep too.
func TestWeekBesideNeighbours(t *testing.T) {
	const (
		week, neighbours = TopicID(1), TopicID(2)
		step             = time.Minute
		steps            = 7 * 24 * 60
		genBytes         = 25_600_000
		logBytes         = 400_000_000
		kiloByte         = 100
		burst            = 5_000_000 * 60 / 4 // 4 frames a minute
	)
	r, dir := storeRig(t, 0)
	r.define(week, TopicSpec{Name: "week", Retention: Retention{MaxAge: 7 * 24 * time.Hour}})
	r.define(neighbours, TopicSpec{Name: "neighbours", Retention: Retention{MaxBytes: 100_000_000}})
	var gens []wal.LSN
	var sizes []int64
	begin := func() { gens, sizes = append(gens, r.rotate()), append(sizes, 0) }
	begin()
	much := Publication{Topic: neighbours, Count: 1, Data: make([]byte, burst), Latest: NoTime}
	total := func() (n int64) {
		for _, s := range sizes {
			n += s
		}
		return n
	}
	written, longest := int64(0), int64(0)
	for i := range steps {
		r.now = r.now.Add(step)
		for k := range 4 {
			pubs := []Publication{much}
			if k%2 == 0 {
				var b Builder
				for s := range 6 {
					b.Append(Record{Time: r.now.UnixMilli() + int64(s), Value: bytes.Repeat([]byte{byte(i)}, kiloByte*5-6)})
				}
				pubs = append(pubs, Publication{Topic: week, Count: b.Count(), Data: b.Bytes(), Latest: b.Latest()})
				written += int64(b.Count() * kiloByte * 5)
			}
			r.epoch(pubs, Mark{Topic: week, Producer: 9, Watermark: r.now.UnixMilli()})
			for _, p := range pubs {
				sizes[len(sizes)-1] += int64(len(p.Data))
			}
			if sizes[len(sizes)-1] >= genBytes {
				begin()
			}
		}
		r.durable()
		for total() > logBytes {
			longest = max(longest, total())
			ch, first := r.Trim(), r.Free()
			if first <= gens[0] {
				first = gens[1]
				plan, err := r.PlanCopy(first)
				r.must(err)
				ch, err = plan.Run(t.Context(), nil)
				r.must(err)
			}
			r.ApplyStore(ch)
			r.Dropped(first)
			r.log.drop(first)
			for gens[0] < first {
				gens, sizes = gens[1:], sizes[1:]
			}
		}
		r.must(r.SweepStore(r.TakeGarbage()))
	}
	disk := int64(0)
	r.must(filepath.Walk(dir, func(_ string, info os.FileInfo, err error) error {
		if err == nil && !info.IsDir() {
			disk += info.Size()
		}
		return err
	}))
	st, err := r.Browse(week, 0, Start{Earliest: true})
	r.must(err)
	rd := r.NewReader(0, week, []SubState{st}, func() {})
	defer rd.Close()
	read := int64(0)
	for {
		batch, ok, err := rd.Next(1000)
		r.must(err)
		if !ok {
			break
		}
		read += int64(batch.Len()) * kiloByte * 5
	}
	t.Logf("a week of the topic is %d MB, of its neighbours %d GB; the store has %d MB, the log was %d MB at most, of %d",
		written/1e6, int64(burst)*4*steps/1e9, disk/1e6, longest/1e6, int64(logBytes)/1e6)
	if read != written {
		t.Errorf("%d bytes of the week are read, of %d", read, written)
	}
	if disk > written+written/10 || longest > logBytes+4*burst+genBytes {
		t.Errorf("the store has %d bytes for %d; the log was %d bytes long, of %d", disk, written, longest, int64(logBytes))
	}
}
