package checkpoint

import (
	"bytes"
	"testing"
)

// tableMethods is jobs.Table, which this package must not import: the runtime hands *Table to operators as one.
type tableMethods interface {
	Get(group uint8, key []byte, ns int64, sub []byte) (val []byte, ok bool)
	Put(group uint8, key []byte, ns int64, sub, val []byte)
	Edit(group uint8, key []byte, ns int64, sub []byte, size int) (val []byte, fresh bool)
	Delete(group uint8, key []byte, ns int64, sub []byte)
	Elements(group uint8, key []byte, ns int64, f func(sub, val []byte) bool)
	Scan(ns int64, f func(group uint8, key, val []byte) bool)
	Namespaces() []int64
	DropNamespace(ns int64)
}

var _ tableMethods = (*Table)(nil)

func newStore(t testing.TB, cfg Config) *Store {
	t.Helper()
	s, err := NewStore(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestCutAndApply(t *testing.T) {
	s := newStore(t, Config{})
	a := s.Table("step", "state")
	a.Put(1, []byte("k"), 7, nil, []byte("one"))
	a.Put(1, []byte("k"), 7, []byte("sub"), []byte("two"))
	piece, n := s.Cut()
	if n != 2 {
		t.Fatalf("Cut wrote %d entries, want 2", n)
	}
	s.Sealed(1)
	b := newStore(t, Config{})
	if err := b.Apply(piece, 0, KeyGroups); err != nil {
		t.Fatal(err)
	}
	if v, ok := b.Table("step", "state").Get(1, []byte("k"), 7, []byte("sub")); !ok || !bytes.Equal(v, []byte("two")) {
		t.Fatalf("Get = %q, %v", v, ok)
	}
	a.Put(1, []byte("k"), 7, nil, []byte("three"))
	s.Revert()
	if v, _ := a.Get(1, []byte("k"), 7, nil); string(v) != "one" {
		t.Fatalf("after Revert %q", v)
	}
}

func TestStoreConfig(t *testing.T) {
	for _, bad := range []Config{{Lo: -1, Hi: 3}, {Lo: 5, Hi: 5}, {Lo: 6, Hi: 5}, {Hi: 129}, {EntryBytes: -1}, {EntryBytes: 1<<28 + 1}} {
		if _, err := NewStore(bad); err == nil {
			t.Errorf("%+v was taken", bad)
		}
	}
	if lo, hi := newStore(t, Config{}).Groups(); lo != 0 || hi != KeyGroups {
		t.Errorf("groups [%d, %d)", lo, hi)
	}
	if e := newStore(t, Config{Epoch: 40}).Epoch(); e != 40 {
		t.Errorf("epoch %s", e)
	}
}

// caught returns what f panics with.
func caught(f func()) (v any) {
	defer func() { v = recover() }()
	f()
	return nil
}

// TestTooLarge: an entry beyond the limit is refused with what it is, nothing of it is kept, and the store goes on.
func TestTooLarge(t *testing.T) {
	s := newStore(t, Config{EntryBytes: 100})
	a := s.Table("step", "state")
	key := []byte("0123456789")
	a.Put(1, key, 7, nil, make([]byte, 90))
	a.Put(1, key, 7, []byte("sub"), make([]byte, 87))
	entries, size := s.Size()
	dirty, _ := s.Dirty()
	for what, f := range map[string]func(){
		"Put":               func() { a.Put(1, key, 7, nil, make([]byte, 91)) },
		"Put of an element": func() { a.Put(1, key, 7, []byte("sub"), make([]byte, 88)) },
		"Put of a new key":  func() { a.Put(1, make([]byte, 101), 7, nil, nil) },
		"Edit":              func() { a.Edit(1, key, 7, nil, 91) },
		"Edit of a new one": func() { a.Edit(1, key, 9, nil, 91) },
	} {
		e, ok := caught(f).(*TooLargeError)
		if !ok || e.Step != "step" || e.Table != "state" || e.Max != 100 || e.Bytes != 101 {
			t.Errorf("%s: %v", what, e)
		}
		if n, b := s.Size(); n != entries || b != size {
			t.Errorf("%s: %d entries of %d bytes, %d of %d before", what, n, b, entries, size)
		}
	}
	if n, _ := s.Dirty(); n != dirty {
		t.Errorf("%d changes, %d before", n, dirty)
	}
	if ns := a.Namespaces(); len(ns) != 1 {
		t.Errorf("namespaces %v", ns)
	}
	a.Put(1, key, 7, nil, []byte("fits"))
	if piece, n := s.Cut(); n != 2 || piece == nil {
		t.Errorf("cut %d entries", n)
	}
}

// TestWrongGroup: a key is given with its own group, of this subtask.
func TestWrongGroup(t *testing.T) {
	s := newStore(t, Config{Lo: 10, Hi: 20})
	a := s.Table("step", "state")
	a.Put(10, []byte("k"), 0, nil, []byte("v"))
	for what, f := range map[string]func(){
		"a group of another subtask": func() { a.Put(20, []byte("x"), 0, nil, nil) },
		"another group":              func() { a.Put(11, []byte("k"), 0, nil, nil) },
		"Edit":                       func() { a.Edit(11, []byte("k"), 0, nil, 1) },
		"Delete":                     func() { a.Delete(11, []byte("k"), 0, nil) },
	} {
		if caught(f) == nil {
			t.Errorf("%s was taken", what)
		}
		if v, ok := a.Get(10, []byte("k"), 0, nil); !ok || string(v) != "v" {
			t.Errorf("%s: Get = %q, %v", what, v, ok)
		}
	}
}

// TestMisuse: what only our own bug can do.
func TestMisuse(t *testing.T) {
	dirty := func() *Store {
		s := newStore(t, Config{})
		s.Table("s", "t").Put(1, []byte("k"), 0, nil, []byte("v"))
		return s
	}
	for what, f := range map[string]func(){
		"Mark outside a record":             func() { dirty().Mark() },
		"Rollback outside a record":         func() { dirty().Rollback(Mark{}) },
		"a cut inside a record":             func() { s := dirty(); s.BeginRecord(); s.Cut() },
		"Successor without Fence":           func() { dirty().Successor(1) },
		"Successor twice":                   func() { s := dirty(); s.Fence(); s.Successor(0); s.Successor(0) },
		"sealed before it was cut":          func() { dirty().Sealed(1) },
		"Apply over changes":                func() { _ = dirty().Apply(nil, 0, KeyGroups) },
		"a scan that another one has ended": func() { s := dirty(); sc := s.BeginSnapshot(); s.BeginSnapshot(); sc.Next(1) },
		"Rollback to a mark behind a rolled back one": func() {
			s := dirty()
			s.BeginRecord()
			first := s.Mark()
			s.Table("s", "t").Put(1, []byte("x"), 0, nil, nil)
			later := s.Mark()
			s.Rollback(first)
			s.Rollback(later)
		},
	} {
		if caught(f) == nil {
			t.Errorf("%s was taken", what)
		}
	}
}

// TestFenceAmidUse: a goroutine that goes on with the state of an attempt that is over is refused, wherever it is, and
// changes nothing of the next attempt's, which has exactly what was sealed.
func TestFenceAmidUse(t *testing.T) {
	for round := range 60 {
		s := newStore(t, Config{})
		a := s.Table("step", "state")
		key := func(i int) []byte { return []byte{byte(i)} }
		for i := range 50 {
			a.Put(uint8(i), key(i), 0, nil, []byte{byte(round)})
			a.Put(uint8(i), key(i), 0, key(i), []byte{byte(round)})
		}
		s.Cut()
		s.Sealed(1)
		began, refused := make(chan struct{}), make(chan any)
		go func() { // a step that is stuck, wakes, and goes on
			refused <- caught(func() {
				for i := 0; ; i++ {
					if i == round {
						close(began)
					}
					k := i % 60
					switch i % 5 {
					case 0:
						a.Put(uint8(k), key(k), 0, nil, []byte("wrong"))
					case 1:
						v, _ := a.Edit(uint8(k), key(k), 0, key(k), 1)
						v[0] = 0xff
					case 2:
						a.Delete(uint8(k), key(k), 0, nil)
					case 3:
						a.Elements(uint8(k), key(k), 0, func(_, _ []byte) bool { return i%2 == 0 })
						a.Scan(0, func(uint8, []byte, []byte) bool { return i%3 == 0 })
					case 4:
						if i%70 == 4 {
							a.DropNamespace(0)
						}
						s.CutPart(100)
					}
				}
			})
		}()
		<-began
		s.Fence()
		n := s.Successor(1)
		if v := <-refused; v != ErrFenced {
			t.Fatalf("it ended with %v", v)
		}
		b := n.Table("step", "state")
		entries, _ := n.Size()
		for i := range 50 {
			v, ok := b.Get(uint8(i), key(i), 0, nil)
			e, eok := b.Get(uint8(i), key(i), 0, key(i))
			if !ok || !eok || len(v) != 1 || v[0] != byte(round) || e[0] != byte(round) {
				t.Fatalf("round %d, key %d: %x %v, %x %v", round, i, v, ok, e, eok)
			}
		}
		if entries != 100 || n.Epoch() != 2 {
			t.Fatalf("%d entries, epoch %s", entries, n.Epoch())
		}
		if dirty, _ := n.Dirty(); dirty != 0 {
			t.Fatalf("%d changes", dirty)
		}
	}
}

// TestFenceInsideUserCode: Fence does not wait for a step that is in a loop over its state, which is refused when it goes on.
func TestFenceInsideUserCode(t *testing.T) {
	s := newStore(t, Config{})
	a := s.Table("step", "state")
	for i := range 3 {
		a.Put(1, []byte("k"), 0, []byte{byte(i)}, []byte("v"))
	}
	s.Cut()
	s.Sealed(1)
	inside, goOn, refused := make(chan []byte), make(chan struct{}), make(chan any)
	go func() {
		refused <- caught(func() {
			a.Elements(1, []byte("k"), 0, func(_, val []byte) bool {
				inside <- val
				<-goOn
				return true
			})
		})
	}()
	val := <-inside
	s.Fence() // would not return if it waited
	n := s.Successor(1)
	copy(val, "X") // what the stuck one holds is its own
	close(goOn)
	if v := <-refused; v != ErrFenced {
		t.Errorf("it ended with %v", v)
	}
	n.Table("step", "state").Elements(1, []byte("k"), 0, func(sub, val []byte) bool {
		if string(val) != "v" {
			t.Errorf("element %x is %q", sub, val)
		}
		return true
	})
}
