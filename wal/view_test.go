package wal

import (
	"errors"
	"fmt"
	"io"
	"os"
	"testing"
)

// viewed returns the bodies of a view's frames from from on, by LSN.
func viewed(t *testing.T, v *View, from LSN) map[LSN]string {
	t.Helper()
	r, err := v.Reader(from)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	out := map[LSN]string{}
	for {
		f, err := r.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		for i := range f.Len() {
			b, err := f.Body(i)
			if err != nil {
				t.Fatal(err)
			}
			out[f.LSN] += string(b)
		}
	}
}

// TestView: a view has every whole frame, over generations, beside the process that has the lock; and stays as it was.
func TestView(t *testing.T) {
	dir := t.TempDir()
	build(t, dir, Config{}, 3, -1, 2, -1, 4)
	l := mustOpen(t, dir, Config{})
	v, err := OpenView(dir)
	if err != nil {
		t.Fatal(err)
	}
	d := v.Description()
	if d.Last != l.Last() || d.ID != l.ID() || len(d.Generations) != 3 || d.Catalog != d.Generations[2].First {
		t.Errorf("description %+v; the log stands at %s", d, l.Last())
	}
	want, err := readFrames(l, 1)
	if err != nil {
		t.Fatal(err)
	}
	got := viewed(t, v, 0)
	for lsn, body := range want {
		if got[lsn] != string(body) {
			t.Errorf("frame %s differs", lsn)
		}
	}
	if len(got) != len(want) || len(want) != int(l.Last()) {
		t.Errorf("%d frames seen, the log has %d", len(got), len(want))
	}
	mustDo(t)(l.Append(2, []Section{{Kind: 2, Body: []byte("later")}}))
	waitAll(t, l)
	if n := len(viewed(t, v, d.Last)); n != 1 {
		t.Errorf("the view has grown: %d frames from its last on", n)
	}
	if err := l.Drop(d.Generations[1].First); err != nil {
		t.Fatal(err)
	}
	if v, err = OpenView(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := v.Reader(1); !errors.Is(err, ErrGone) {
		t.Errorf("a reader from what was dropped: %v, want ErrGone", err)
	}
}

// TestViewWhileDropped: what a view has yet to read and is dropped meanwhile is gone, and no damage.
func TestViewWhileDropped(t *testing.T) {
	dir := t.TempDir()
	build(t, dir, Config{}, 3, -1, 2, -1, 4)
	l := mustOpen(t, dir, Config{})
	v, err := OpenView(dir)
	if err != nil {
		t.Fatal(err)
	}
	gens := v.Description().Generations
	r, err := v.Reader(0)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := r.Next(); err != nil {
		t.Fatal(err)
	}
	if err := l.Drop(gens[2].First); err != nil {
		t.Fatal(err)
	}
	for next := LSN(2); ; next++ {
		f, err := r.Next()
		if errors.Is(err, ErrGone) && next < gens[2].First {
			break
		}
		if err != nil || f.LSN != next {
			t.Fatalf("frame %s, where %s is due: %v", f.LSN, next, err)
		}
	}
	if _, err := v.Reader(1); !errors.Is(err, ErrGone) {
		t.Errorf("a reader from what was dropped: %v", err)
	}
	if n := len(viewed(t, v, gens[2].First)); n != int(l.Last()-gens[2].First)+1 {
		t.Errorf("%d frames of the newest generation", n)
	}
}

// TestViewOfTornAndDamaged: a tear ends the view before it, and stays; damage is refused.
func TestViewOfTornAndDamaged(t *testing.T) {
	dir := t.TempDir()
	build(t, dir, Config{}, 1, 1, 1)
	path := tailPath(t, dir)
	whole := mustRead(t, path)
	mustWrite(t, path, whole[:len(whole)-1])
	v, err := OpenView(dir)
	if err != nil {
		t.Fatal(err)
	}
	if d := v.Description(); d.Last != 3 || d.Torn == nil || len(viewed(t, v, 0)) != 3 {
		t.Errorf("a torn log of four frames: %+v", d)
	}
	if b := mustRead(t, path); len(b) != len(whole)-1 {
		t.Error("looking has changed the log")
	}
	for i := range whole {
		if i >= len(whole)/2 && i < len(whole)/2+8 {
			whole[i] ^= 0xff
		}
	}
	mustWrite(t, path, whole)
	var damaged *DamagedError
	if _, err := OpenView(dir); !errors.As(err, &damaged) {
		t.Errorf("a damaged log: %v, want a DamagedError", err)
	}
	if _, err := OpenView(fmt.Sprint(dir, "/nowhere")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no log: %v, want ErrNotExist", err)
	}
}
