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
