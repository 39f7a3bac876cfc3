package checkpoint

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"
)

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
					t.Logf("%s=%d go test ./checkpoint -run '^%s$' repeats this", seedVariable, seed, t.Name())
				}
				if p != nil {
					panic(p)
				}
			}()
			f(t, rand.New(rand.NewPCG(seed, 0)))
		}()
	}
}

// modelEntry and model are the naive twin of a Store: one list of entries a namespace, in the order of addition.
type modelEntry struct {
	key, sub string
	element  bool
	val      string
}

type modelPlace struct {
	table int
	ns    int64
}

type model map[modelPlace][]modelEntry

func (m model) clone() model {
	out := model{}
	for p, es := range m {
		out[p] = slices.Clone(es)
	}
	return out
}

func (m model) at(p modelPlace, key string, element bool, sub string) int {
	return slices.IndexFunc(m[p], func(e modelEntry) bool { return e.key == key && e.element == element && e.sub == sub })
}

func (m model) put(p modelPlace, e modelEntry) {
	if i := m.at(p, e.key, e.element, e.sub); i >= 0 {
		m[p][i] = e
		return
	}
	m[p] = append(m[p], e)
}

func (m model) del(p modelPlace, key string, element bool, sub string) {
	if i := m.at(p, key, element, sub); i >= 0 {
		if m[p] = slices.Delete(m[p], i, i+1); len(m[p]) == 0 {
			delete(m, p)
		}
	}
}

// only returns the entries of the groups [lo, hi).
func (m model) only(lo, hi int) model {
	out := model{}
	for p, es := range m {
		for _, e := range es {
			if g := int(groupOf([]byte(e.key))); g >= lo && g < hi {
				out[p] = append(out[p], e)
			}
		}
	}
	return out
}

func groupOf(key []byte) uint8 {
	h := 7
	for _, b := range key {
		h = h*31 + int(b)
	}
	return uint8(h & 127)
}

var modelTables = []struct{ step, name string }{{"window", "state"}, {"window", "timers"}, {"join", ""}}

// dump reads everything that the handles show: what it says must be all that there is.
func dump(s *Store, keys []string) (model, error) {
	m := model{}
	entries, size := 0, 0
	for i, n := range modelTables {
		t := s.Table(n.step, n.name)
		if !slices.IsSorted(t.Namespaces()) {
			return nil, fmt.Errorf("namespaces %v", t.Namespaces())
		}
		for _, ns := range t.Namespaces() {
			p := modelPlace{i, ns}
			t.Scan(ns, func(group uint8, key, val []byte) bool {
				m[p] = append(m[p], modelEntry{key: string(key), val: string(val)})
				if group != groupOf(key) {
					panic(fmt.Sprintf("group %d of key %q", group, key))
				}
				return true
			})
			for _, key := range keys {
				t.Elements(groupOf([]byte(key)), []byte(key), ns, func(sub, val []byte) bool {
					m[p] = append(m[p], modelEntry{key: key, sub: string(sub), element: true, val: string(val)})
					return true
				})
			}
			if len(m[p]) == 0 {
				return nil, fmt.Errorf("namespace %v holds nothing", p)
			}
			for _, e := range m[p] {
				entries++
				size += len(e.key) + len(e.sub) + len(e.val)
			}
		}
	}
	if n, b := s.Size(); n != entries || b != size {
		return nil, fmt.Errorf("Size() = %d, %d; there are %d entries of %d bytes", n, b, entries, size)
	}
	return m, nil
}

// order brings a model's lists into dump's order: values, then the elements of each key.
func (m model) order(keys []string) model {
	out := model{}
	for p, es := range m {
		for _, e := range es {
			if !e.element {
				out[p] = append(out[p], e)
			}
		}
		for _, key := range keys {
			for _, e := range es {
				if e.element && e.key == key {
					out[p] = append(out[p], e)
				}
			}
		}
	}
	return out
}

func compare(s *Store, want model, keys []string) error {
	got, err := dump(s, keys)
	if err != nil {
		return err
	}
	want = want.order(keys)
	for _, p := range slices.Concat(slices.Collect(maps.Keys(got)), slices.Collect(maps.Keys(want))) {
		if !slices.Equal(got[p], want[p]) {
			return fmt.Errorf("in %v\n got %v\nwant %v", p, got[p], want[p])
		}
	}
	return nil
}

// world runs a Store beside its model.
type world struct {
	t      *testing.T
	r      *rand.Rand
	s      *Store
	cur    model
	at     map[Epoch]model    // the state when each epoch was cut
	pieces map[Epoch][][]byte // of each epoch cut; 0 those of the growing one
	grow   Epoch
	sealed Epoch
	keys   []string

	scan     *Scan
	scanFrom Epoch
	chunks   [][]byte
	scanned  int
	snapshot [][]byte // the last one that was finished
	taken    Epoch    // as of which it is
}

// newWorld begins with an empty store of the key groups [lo, hi).
func newWorld(t *testing.T, r *rand.Rand, lo, hi int) *world {
	w := &world{t: t, r: r, cur: model{}, at: map[Epoch]model{0: {}}, pieces: map[Epoch][][]byte{}, grow: 1}
	w.s = newStore(t, Config{Lo: lo, Hi: hi})
	for i := 0; len(w.keys) == 0 || i < 1+r.IntN(30); i++ {
		if key := fmt.Sprintf("k%d", i*i); int(groupOf([]byte(key))) >= lo && int(groupOf([]byte(key))) < hi {
			w.keys = append(w.keys, key)
		}
	}
	return w
}

func (w *world) check(what string, err error) {
	if err != nil {
		w.t.Fatalf("%s: %v", what, err)
	}
}

func (w *world) step() {
	r := w.r
	switch n := r.IntN(100); {
	case n < 72:
		w.change()
	case n < 76:
		w.record()
	case n < 82:
		w.cut()
	case n < 85:
		if piece, _ := w.s.CutPart(1 + r.IntN(400)); piece != nil {
			w.pieces[0] = append(w.pieces[0], piece)
		}
	case n < 89:
		w.seal()
	case n < 91:
		w.revert(r.IntN(2) == 0)
	case n < 94:
		w.check("live", compare(w.s, w.cur, w.keys))
	case w.scan == nil:
		w.scan, w.scanFrom, w.chunks = w.s.BeginSnapshot(), w.sealed, nil
	default:
		w.next()
	}
}

func (w *world) change() {
	r := w.r
	p := modelPlace{r.IntN(len(modelTables)), int64(r.IntN(4))*1000 - 1000}
	t := w.s.Table(modelTables[p.table].step, modelTables[p.table].name)
	key := w.keys[r.IntN(len(w.keys))]
	var sub []byte
	element := r.IntN(2) == 0
	if element {
		sub = append([]byte{}, "abcdefghijklmnop"[:r.IntN(16)]...)
	}
	e := modelEntry{key: key, element: element, sub: string(sub)}
	k, g := []byte(key), groupOf([]byte(key))
	i := w.cur.at(p, key, element, string(sub))
	switch n := r.IntN(20); {
	case n < 6:
		e.val = string(bytes.Repeat([]byte{byte('A' + r.IntN(26))}, r.IntN(30)))
		if r.IntN(40) == 0 {
			e.val = string(bytes.Repeat([]byte("big"), 100+r.IntN(3000)))
		}
		t.Put(g, k, p.ns, sub, []byte(e.val))
		w.cur.put(p, e)
	case n < 13:
		size := 1 + r.IntN(2)*8
		val, fresh := t.Edit(g, k, p.ns, sub, size)
		if want := i < 0 || len(w.cur[p][i].val) != size; fresh != want {
			w.t.Fatalf("Edit: fresh %v, want %v", fresh, want)
		} else if fresh && !bytes.Equal(val, make([]byte, size)) {
			w.t.Fatalf("Edit: fresh bytes %x", val)
		} else if !fresh && string(val) != w.cur[p][i].val {
			w.t.Fatalf("Edit: %x, want %x", val, w.cur[p][i].val)
		}
		val[r.IntN(size)] = byte(r.Uint32())
		e.val = string(val)
		w.cur.put(p, e)
	case n < 17:
		t.Delete(g, k, p.ns, sub)
		w.cur.del(p, key, element, string(sub))
	case n < 19:
		val, ok := t.Get(g, k, p.ns, sub)
		if ok != (i >= 0) || ok && string(val) != w.cur[p][i].val {
			w.t.Fatalf("Get(%v %v) = %q, %v", p, e, val, ok)
		}
	case r.IntN(4) == 0:
		t.DropNamespace(p.ns)
		delete(w.cur, p)
	}
}

// record is a record whose steps fail now and then.
func (w *world) record() {
	w.s.BeginRecord()
	marks, models := []Mark{w.s.Mark()}, []model{w.cur.clone()}
	for range w.r.IntN(6) {
		for range w.r.IntN(8) {
			w.change()
		}
		switch i := w.r.IntN(len(marks)); w.r.IntN(3) {
		case 0:
			w.s.Rollback(marks[i])
			w.cur = models[i].clone()
			marks, models = marks[:i+1], models[:i+1]
			w.check("Rollback", compare(w.s, w.cur, w.keys))
		case 1:
			marks, models = append(marks, w.s.Mark()), append(models, w.cur.clone())
		}
	}
	w.s.EndRecord()
}

func (w *world) cut() {
	if e := w.s.Epoch(); e != w.grow {
		w.t.Fatalf("epoch %v is growing, want %v", e, w.grow)
	}
	dirty, size := w.s.Dirty()
	piece, n := w.s.Cut()
	if n > dirty || len(piece) > size+modelOverhead {
		w.t.Fatalf("Cut: %d entries, %d bytes; Dirty said %d, %d", n, len(piece), dirty, size)
	}
	if n, size := w.s.Dirty(); n != 0 || size != 0 {
		w.t.Fatalf("Dirty after Cut: %d, %d", n, size)
	}
	parts := w.pieces[0]
	delete(w.pieces, 0)
	if piece != nil {
		parts = append(parts, piece)
	}
	w.pieces[w.grow], w.at[w.grow] = parts, w.cur.clone()
	w.grow++
}

// modelOverhead is what a piece says beside its entries: at most a dozen namespaces of three tables.
const modelOverhead = 12*spaceOverhead + 100

func (w *world) seal() {
	if w.sealed == w.grow-1 {
		return
	}
	w.sealed += 1 + Epoch(w.r.IntN(int(w.grow-1-w.sealed)))
	w.s.Sealed(w.sealed)
}

func (w *world) revert(fence bool) {
	if fence {
		old := w.s
		old.Fence()
		if w.r.IntN(2) == 0 { // the committer has sealed more than this attempt knows
			w.sealed += Epoch(w.r.IntN(int(w.grow - w.sealed)))
		}
		w.s = old.Successor(w.sealed)
		w.scan = nil
		if !panics(func() { old.Table("window", "state").Namespaces() }) {
			w.t.Fatal("a fenced Store answers")
		}
	} else {
		w.s.Revert()
	}
	delete(w.pieces, 0)
	for ; w.grow > w.sealed+1; w.grow-- {
		delete(w.pieces, w.grow-1)
		delete(w.at, w.grow-1)
	}
	w.cur = w.at[w.sealed].clone()
	w.check("Revert", compare(w.s, w.cur, w.keys))
}

func panics(f func()) (yes bool) {
	defer func() { yes = recover() == ErrFenced }()
	f()
	return false
}

// next reads a chunk; when it was the last the snapshot must be exact at the epoch sealed now, whoever loads it.
func (w *world) next() {
	chunk, done := w.scan.Next(1 + w.r.IntN(300))
	if chunk != nil {
		w.chunks = append(w.chunks, chunk)
	}
	if !done {
		return
	}
	w.scan = nil
	w.scanned++
	all := w.chunks
	for e := w.scanFrom + 1; e <= w.sealed; e++ {
		all = append(all, w.pieces[e]...)
	}
	if w.r.IntN(40) == 0 {
		all = throughFile(w.t, w.sealed, all)
	}
	w.snapshot, w.taken = all, w.sealed
	w.rebuild("snapshot", all)
}

func (w *world) rebuild(what string, all [][]byte) {
	n := 1 + w.r.IntN(4)
	for i := range n {
		cfg := Config{Lo: KeyGroups * i / n, Hi: KeyGroups * (i + 1) / n}
		s := newStore(w.t, cfg)
		for _, piece := range all {
			w.check(what, s.Apply(piece, 0, KeyGroups))
		}
		s.Sealed(w.sealed)
		w.check(fmt.Sprintf("%s of %d/%d", what, i, n), compare(s, w.at[w.sealed].only(cfg.Lo, cfg.Hi), w.keys))
	}
}

func TestStoreAgainstModel(t *testing.T) {
	scans := 0
	seeds(t, 60, func(t *testing.T, r *rand.Rand) {
		w := newWorld(t, r, 0, KeyGroups)
		for range 400 {
			w.step()
		}
		w.cut()
		w.sealed = w.grow - 1
		w.s.Sealed(w.sealed)
		w.check("at the end", compare(w.s, w.cur, w.keys))
		var all [][]byte
		for e := Epoch(1); e <= w.sealed; e++ {
			all = append(all, w.pieces[e]...)
		}
		w.rebuild("log", all)
		scans += w.scanned
	})
	if scans < 20 && envNumber(t, seedVariable) == 0 {
		t.Errorf("only %d snapshots were finished", scans)
	}
	t.Logf("%d snapshots", scans)
}
