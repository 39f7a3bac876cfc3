package bus

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"syscall"
	"testing"

	"github.com/sidestream-dev/sidestream/internal/crashfs"
	"github.com/sidestream-dev/sidestream/wal"
)

// The topic store alone, with a disk that fails at each operation in turn.

// faultDisk is a crashDisk whose operation number at fails, once. Late, a sync is done only at the operation that follows it.
type faultDisk struct {
	crashDisk
	f *diskFault
}

type diskFault struct {
	at, n int
	err   error
	hit   string // what failed
	late  bool
	owed  []func() error
}

// op counts an operation, and fails it if it is its turn.
func (f *diskFault) op(what string) error {
	owed := f.owed
	f.owed = nil
	if f.n++; f.n == f.at {
		f.hit = what
		return fmt.Errorf("%s: %w", what, f.err)
	}
	for _, sync := range owed {
		if err := sync(); err != nil {
			return err
		}
	}
	return nil
}

func (f *diskFault) sync(what string, sync func() error) error {
	if err := f.op(what); err != nil {
		return err
	}
	if f.late {
		f.owed = append(f.owed, sync)
		return nil
	}
	return sync()
}

func (d faultDisk) MakeDir(dir string) error {
	if err := d.f.op("mkdir"); err != nil {
		return err
	}
	return d.crashDisk.MakeDir(dir)
}

func (d faultDisk) Open(name string, create bool) (DiskFile, error) {
	f, err := d.crashDisk.Open(name, create)
	if err != nil {
		return nil, err
	}
	return faultFile{f, d.f}, nil
}

func (d faultDisk) Remove(name string) error {
	if err := d.f.op("remove"); err != nil {
		return err
	}
	return d.crashDisk.Remove(name)
}

func (d faultDisk) SyncDir(dir string) error {
	return d.f.sync("fsync of a folder", func() error { return d.crashDisk.SyncDir(dir) })
}

type faultFile struct {
	DiskFile
	f *diskFault
}

func (f faultFile) WriteAt(b []byte, off int64) (int, error) {
	if err := f.f.op("write"); err != nil {
		n, _ := f.DiskFile.WriteAt(b[:len(b)/2], off)
		return n, err
	}
	return f.DiskFile.WriteAt(b, off)
}

func (f faultFile) Truncate(size int64) error {
	if err := f.f.op("truncate"); err != nil {
		return err
	}
	return f.DiskFile.Truncate(size)
}

func (f faultFile) Sync() error { return f.f.sync("fsync", f.DiskFile.Sync) }

// newStoreRun is a history of two topics with their subscriptions: one that keeps little and is read, and an output that is
// not taken outside, so that all of it moves out. Its store lies on a disk with a fault.
func newStoreRun(seed uint64, fault string, f *diskFault) *history {
	h := &history{r: rand.New(rand.NewPCG(seed, 7)), fault: fault, log: &memLog{}, next: map[TopicID][]Offset{}, floors: map[modelFloor]Offset{}, count: map[string]int{}}
	h.cfg.MemoryBytes = 1
	h.disk = crashDisk{mem: crashfs.New(), noSync: fault == "the store is not synced", noSyncDir: fault == "the store's folders are not synced"}
	h.cfg.Store = StoreConfig{Dir: "/topics", Disk: faultDisk{h.disk, f}, SegmentBytes: 300}
	h.bus = New(h.cfg, h.log)
	h.rotate()
	for id, spec := range []TopicSpec{{Name: "kept", Partitions: 2, Retention: Retention{MaxBytes: 600}}, {Name: "out", Retention: Retention{MaxBytes: KeepNothing}}} {
		id := TopicID(id + 1)
		h.must(h.bus.Define(id, spec))
		h.next[id] = make([]Offset, spec.partitions())
		h.topics = append(h.topics, id)
		h.subs++
		sub := SubID(h.subs)
		states, err := h.bus.Subscribe(sub, spec.Name, id, Start{Earliest: true})
		h.must(err)
		tr := &testReader{sub: sub, topic: id, models: map[int]*modelReader{}}
		for _, st := range states {
			m := h.modelAt(id, false, st)
			tr.models[st.Partition] = &m
		}
		lsn := h.frame(modelFrame{sub: &modelSub{sub, id, states}}, wal.Section{Kind: 0x30})
		tr.saved = []savedReader{{lsn, states, cloneModels(tr.models)}}
		tr.r = h.bus.NewReader(sub, id, states, func() {})
		h.alive = append(h.alive, tr)
	}
	return h
}

// round writes, and moves out, trims and purges as the runtime does. An error is the disk's.
func (h *history) round(i int) error {
	for range 5 {
		h.epoch()
	}
	h.rotate()
	h.makeDurable(h.log.last())
	upTo := h.gens[len(h.gens)-1]
	plan, err := h.bus.PlanCopy(upTo)
	if err != nil {
		return err
	}
	ch := StoreChange{}
	if plan != nil {
		if ch, err = plan.Run(context.Background(), nil); err != nil {
			return err
		}
	}
	if h.fault == "the log is cut without the store" {
		ch = StoreChange{}
	}
	if err := h.dropTo(upTo, ch); err != nil {
		return err
	}
	kept := h.alive[0]
	h.read(kept, -1)
	h.commit(kept)
	h.makeDurable(h.log.last())
	if err := h.dropTo(0, h.bus.Trim()); err != nil || i%3 != 2 {
		return err
	}
	purge, err := h.bus.Purge(1, Start{Offsets: h.next[1]})
	h.must(err)
	return h.dropTo(0, purge)
}

const storeRounds = 9

// storeRun runs the rounds with operation at failing by err; a failure of the store for good is followed by a crash, and so is
// the end. Everything must be there then. It returns what failed and how.
func storeRun(seed uint64, fault string, at int, with error) (hit string, failed bool, err error) {
	f := &diskFault{at: at, err: with, late: fault == "it is announced before it is synced"}
	defer func() {
		if p := recover(); p != nil {
			w, ok := p.(wrong)
			if !ok {
				panic(p)
			}
			hit, err = f.hit, w.error
		}
	}()
	h := newStoreRun(seed, fault, f)
	cut := errors.Is(with, errPowerCut)
	for i := range storeRounds {
		if err := h.round(i); err != nil {
			if f.hit == "" {
				return "", false, err
			}
			var last *wal.FailedError
			failed = errors.As(err, &last)
			if failed || cut {
				break
			}
		}
	}
	if f.owed = nil; !failed && !cut && f.hit != "" { // it went on: what the rounds behind the fault did is there as well
		h.must(h.round(storeRounds))
	}
	if h.gens[0] <= h.log.durable {
		h.crash()
	}
	f.at, f.late = 0, false
	h.must(h.round(0)) // what a crash left is no hindrance
	h.finish()
	return f.hit, failed, nil
}

var errPowerCut = errors.New("the power is cut")

// TestStoreCrash: a power cut at any operation of the store's disk, while it copies, makes indexes, trims, purges and moves an
// unsent output out, loses nothing that a frame has announced, and brings nothing back; a failed write or fsync is the store's
// last word (R7), and a full disk is none.
func TestStoreCrash(t *testing.T) {
	disk := errors.New("input/output error")
	runs := 2 * max(1, envNumber(t, runsVariable))
	hits := map[string]int{}
	for _, with := range []error{errPowerCut, disk, syscall.ENOSPC} {
		for at := 1; ; at++ {
			hit := ""
			for seed := range runs {
				var failed bool
				var err error
				if hit, failed, err = storeRun(seed, "", at, with); err != nil {
					t.Fatalf("%v at operation %d, %s, seed %d: %v", with, at, hit, seed, err)
				}
				if hit == "" {
					continue
				}
				full, word := with == syscall.ENOSPC, hit == "fsync" || hit == "fsync of a folder"
				if want := hit != "remove" && (word || !full); failed != want {
					t.Fatalf("%v at operation %d, %s, seed %d: failed for good %v, want %v", with, at, hit, seed, failed, want)
				}
				hits[hit]++
			}
			if hit == "" && at > 40 {
				break
			}
		}
	}
	t.Logf("%v", hits)
	for _, what := range []string{"mkdir", "write", "truncate", "fsync", "fsync of a folder", "remove"} {
		if hits[what] == 0 {
			t.Errorf("no %s failed", what)
		}
	}
}

// TestStoreCrashFindsFaults: a store that is wrong on purpose does not get through.
func TestStoreCrashFindsFaults(t *testing.T) {
	for _, fault := range []string{"the store is not synced", "the store's folders are not synced", "it is announced before it is synced",
		"the log goes before the word of it is durable", "the log is cut without the store"} {
		t.Run(fault, func(t *testing.T) {
			for at := 1; at < 200; at++ {
				for seed := range uint64(6) {
					if hit, _, err := storeRun(seed, fault, at, errPowerCut); err != nil {
						t.Logf("at operation %d, %s, seed %d: %v", at, hit, seed, err)
						return
					}
				}
			}
			t.Error("not found")
		})
	}
}
