package bus

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// TestFitStore: a log that was repaired may be older or newer than the files. What is there is used, as far as it meets the
// log; what is not there is named, and readers go over it; no file is changed.
func TestFitStore(t *testing.T) {
	for _, tt := range []struct {
		name   string
		older  bool // the catalog is of before the last two copies, the log from behind them
		remove func(files []string) []string
		lost   []OffsetRange
		beyond int
		cut    bool
	}{
		{name: "nothing is wrong"},
		{name: "the oldest has gone since", remove: func(f []string) []string { return f[:1] }, lost: []OffsetRange{{0, 2}}},
		{name: "one in the middle is missing", remove: func(f []string) []string { return f[2:3] }, lost: []OffsetRange{{0, 6}}, beyond: 2},
		{name: "the newest is missing", remove: func(f []string) []string { return f[len(f)-1:] }, lost: []OffsetRange{{0, 60}}, beyond: 5},
		{name: "some have come since", older: true, lost: []OffsetRange{{40, 60}}, beyond: 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, dir := storeRig(t, 200)
			r.define(1, TopicSpec{Name: "t"})
			st := r.subscribe(1, 1, Start{Earliest: true})
			var catalog []byte
			for round := range 6 {
				for range 10 {
					r.epoch([]Publication{hundred(1, 0)})
				}
				r.moveOut()
				if round == 3 {
					catalog = r.AppendCatalog(nil)
				}
			}
			r.epoch([]Publication{hundred(1, 0)})
			r.durable()
			if !tt.older {
				catalog = r.AppendCatalog(nil)
			}
			files, err := filepath.Glob(filepath.Join(dir, "1", "0", "*.seg"))
			if err != nil || len(files) < 6 {
				t.Fatalf("%v %v", files, err)
			}
			if tt.remove != nil {
				for _, f := range tt.remove(files) {
					r.must(os.Remove(f))
				}
			}
			again := makeRig(t, Config{MemoryBytes: 1, Store: StoreConfig{Dir: dir, Disk: lazyDisk{}, SegmentBytes: 200}}, r.log, r.now)
			r.must(again.LoadCatalog(catalog))
			again.gens = again.gens[:0]
			again.gens = append(again.gens, r.gens...)
			p := again.topics[1].parts[0] // as the frames behind the catalog make it
			p.next, p.total, p.lastGone = r.Next(1, 0), r.topics[1].parts[0].total, r.log.last()
			again.visible.Store(r.visible.Load())
			fits, err := again.FitStore()
			r.must(err)
			var fit StoreFit
			if len(fits) > 0 {
				fit = fits[0]
			}
			if !slices.Equal(fit.Lost, tt.lost) {
				t.Errorf("lost %v, want %v", fit.Lost, tt.lost)
			}
			if n := len(fit.Beyond); tt.beyond == 0 && n != 0 || tt.beyond > 0 && n < tt.beyond {
				t.Errorf("beyond the log: %v", fit.Beyond)
			}
			for _, f := range append(fit.Beyond, fit.Cut) {
				if _, err := os.Stat(filepath.Join(dir, f)); err != nil {
					t.Error(err)
				}
			}
			var want []string
			for o := range 61 {
				if !slices.ContainsFunc(tt.lost, func(l OffsetRange) bool { return l.From <= Offset(o) && Offset(o) < l.To }) {
					want = append(want, fmt.Sprintf("0:%d", o))
				}
			}
			if first := again.First(1, 0); first > 0 {
				st, err = again.Begin(1, Start{Earliest: true})
				r.must(err)
			}
			rd := again.NewReader(1, 1, st, func() {})
			defer rd.Close()
			var got []string
			for _, line := range drain(t, rd, 7) {
				got = append(got, line[:len(line)-99])
			}
			equal(t, "read", got, want)
			last := makeRig(t, Config{}, r.log, r.now)
			r.must(last.LoadCatalog(again.AppendCatalog(nil)))
		})
	}
}
