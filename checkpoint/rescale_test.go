package checkpoint

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

// throughFile returns what a snapshot file gives back of pieces.
func throughFile(t *testing.T, e Epoch, pieces [][]byte) [][]byte {
	t.Helper()
	meta, out, err := readSnapshot(writeSnapshot(t, t.TempDir(), SnapshotMeta{Job: 1, Epoch: e}, pieces...))
	if err != nil || meta.Epoch != e {
		t.Fatal(meta, err)
	}
	return out
}

// all returns what rebuilds the store as it is sealed: every epoch's pieces, or a snapshot and those behind it.
func (w *world) all(snapshot bool) (out [][]byte) {
	from := Epoch(1)
	if snapshot {
		out, from = slices.Clone(w.snapshot), w.taken+1
	}
	for e := from; e <= w.sealed; e++ {
		out = append(out, w.pieces[e]...)
	}
	return out
}

// TestRescale: what some subtasks have sealed comes back whole, and each entry once, in any other number of them, from the log,
// and from snapshot files with the log behind them.
func TestRescale(t *testing.T) {
	seeds(t, 12, func(t *testing.T, r *rand.Rand) {
		var old []*world
		var keys []string
		var log, fromFiles [][]byte
		n := 1 + r.IntN(5)
		for i := range n {
			w := newWorld(t, r, KeyGroups*i/n, KeyGroups*(i+1)/n)
			for range 250 {
				w.step()
			}
			w.cut()
			w.sealed = w.grow - 1
			w.s.Sealed(w.sealed)
			log = append(log, w.all(false)...)
			if w.snapshot != nil {
				w.snapshot = throughFile(t, w.taken, w.snapshot)
			}
			fromFiles = append(fromFiles, w.all(w.snapshot != nil)...)
			keys = append(keys, w.keys...)
			old = append(old, w)
		}
		for how, pieces := range map[string][][]byte{"log": log, "snapshots": fromFiles} {
			m := 1 + r.IntN(8)
			entries := 0
			for k := range m {
				cfg := Config{Lo: KeyGroups * k / m, Hi: KeyGroups * (k + 1) / m}
				s := newStore(t, cfg)
				for _, p := range pieces {
					if err := s.Apply(p, 0, KeyGroups); err != nil {
						t.Fatalf("%s, %d/%d: %v", how, k, m, err)
					}
				}
				got, err := dump(s, keys)
				if err != nil {
					t.Fatalf("%s, %d/%d: %v", how, k, m, err)
				}
				for i, w := range old {
					// Between subtasks there is no order; within one it stays.
					lo, hi := w.s.Groups()
					if err := same(got.only(lo, hi), w.cur.only(cfg.Lo, cfg.Hi).order(keys)); err != nil {
						t.Fatalf("%s: what subtask %d/%d gave to %d/%d: %v", how, i, n, k, m, err)
					}
				}
				have, _ := s.Size()
				entries += have
			}
			want := 0
			for _, w := range old {
				have, _ := w.s.Size()
				want += have
			}
			if entries != want {
				t.Fatalf("%s: %d entries in %d subtasks, %d in %d before", how, entries, m, want, n)
			}
		}
	})
}

// same compares two models whose lists are in one order.
func same(got, want model) error {
	for p := range want {
		if !slices.Equal(got[p], want[p]) {
			return fmt.Errorf("in %v\n got %v\nwant %v", p, got[p], want[p])
		}
	}
	for p := range got {
		if len(want[p]) == 0 {
			return fmt.Errorf("in %v is %v too much", p, got[p])
		}
	}
	return nil
}
