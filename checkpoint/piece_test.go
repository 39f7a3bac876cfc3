package checkpoint

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"testing"
)

// somePiece has every operation.
func somePiece(t testing.TB) []byte {
	s := newStore(t, Config{Lo: 32, Hi: 96})
	w, j := s.Table("window", "state"), s.Table("join", "rows")
	w.Put(40, []byte("gone"), 1000, nil, []byte("x"))
	w.Put(40, []byte("old"), 2000, nil, []byte("x"))
	w.Put(41, []byte("kept"), 2000, nil, []byte("x"))
	s.Cut()
	w.DropNamespace(1000)
	w.Put(40, []byte("new"), 1000, nil, []byte("12345678"))
	w.Delete(40, []byte("old"), 2000, nil)
	w.Put(41, []byte("kept"), 2000, nil, []byte("y"))
	for _, sub := range []string{"", "a", "b"} {
		j.Put(95, []byte("key"), -1, []byte(sub), []byte("row "+sub))
	}
	piece, n := s.Cut()
	if n != 7 {
		t.Fatalf("%d entries, want 7", n)
	}
	return piece
}

func TestPieceGolden(t *testing.T) { golden(t, "piece-v1.hex", somePiece(t)) }

// reencode writes the operations that piece decodes to; their order and flags are part of the format.
func reencode(piece []byte) ([]byte, error) {
	r := newPieceReader(piece)
	out := []byte{pieceVersion, byte(r.lo), byte(r.hi - 1)}
	ns := int64(0)
	for r.next() {
		o := &r.op
		out = append(out, o.op)
		switch {
		case o.op == opTable:
			out = appendString(appendString(out, o.step), o.name)
		case o.op == opNamespace:
			out = binary.AppendUvarint(binary.AppendUvarint(out, zigzag(o.ns-ns)), o.said)
			ns = o.ns
		case o.op == opDrop:
		default:
			if o.op&entrySameKey == 0 {
				out = appendString(append(out, o.group), o.key)
			}
			if o.op&entryElement != 0 {
				out = appendString(out, o.sub)
			}
			if o.op&entryKind != entryDelete {
				out = appendString(out, o.val)
			}
		}
	}
	return out, r.d.result("piece")
}

func FuzzApply(f *testing.F) {
	f.Add(somePiece(f))
	f.Add([]byte{pieceVersion, 0, 127, opTable, 0, 0, opNamespace, 0, 0xff, 0xff, 0xff, 0xff, 0x0f, opEntry, 1, 1, 'k', 0})
	f.Fuzz(func(t *testing.T, in []byte) {
		out, err := reencode(in)
		s := newStore(t, Config{})
		applied := s.Apply(in, 0, KeyGroups)
		if (err == nil) != (applied == nil) {
			t.Fatalf("the reader says %v, Apply %v", err, applied)
		}
		var damage *DecodeError
		if err != nil {
			if !errors.As(err, &damage) {
				t.Fatalf("%v is no DecodeError", err)
			}
			return
		}
		if !bytes.Equal(in, out) {
			t.Fatalf("accepted %x, which encodes as %x", in, out)
		}
		// What the piece left must come back from a snapshot of it.
		if n, _ := s.Dirty(); n != 0 {
			t.Fatalf("%d changes are dirty", n)
		}
		chunk, _ := s.BeginSnapshot().Next(1 << 30)
		again := newStore(t, Config{})
		if chunk != nil {
			if err := again.Apply(chunk, 0, KeyGroups); err != nil {
				t.Fatal(err)
			}
		}
		n, b := s.Size()
		if m, c := again.Size(); m != n || c != b {
			t.Fatalf("%d entries of %d bytes came back as %d of %d", n, b, m, c)
		}
	})
}

func TestPieceTruncated(t *testing.T) {
	piece := somePiece(t)
	for i := range piece {
		if err := newStore(t, Config{}).Apply(piece[:i], 0, KeyGroups); err == nil {
			// A piece may end behind any operation; a section's length and checksum guard its end.
			if out, err := reencode(piece[:i]); err != nil || !bytes.Equal(out, piece[:i]) {
				t.Fatalf("the first %d bytes were accepted: %v", i, err)
			}
		}
	}
}

// TestEntryOverhead holds the encoding to its promise: what an entry takes beside key, sub-key and value.
func TestEntryOverhead(t *testing.T) {
	s := newStore(t, Config{})
	w := s.Table("window", "state")
	const n = 1000
	payload := 0
	for i := range n {
		key := fmt.Appendf(nil, "device-%d", i)
		w.Put(uint8(i%128), key, 1700000000000, nil, make([]byte, 40))
		payload += len(key) + 40
	}
	piece, _ := s.Cut()
	if per := float64(len(piece)-payload) / n; per > 10 {
		t.Errorf("%.1f bytes an entry beside key and value, want at most 10", per)
	} else {
		t.Logf("%.2f bytes an entry beside key and value", per)
	}
}

// TestCutPartSize holds parts to their limit: one that is passed does not fit its frame.
func TestCutPartSize(t *testing.T) {
	for _, max := range []int{1, 64, 500, 4096} {
		s := newStore(t, Config{})
		for i := range 300 {
			w := s.Table(fmt.Sprintf("step-%d", i%3), "state")
			w.Put(uint8(i%128), fmt.Appendf(nil, "key-%d", i), int64(i)<<40, nil, make([]byte, i%50))
		}
		all := 0
		for {
			piece, n := s.CutPart(max)
			if piece == nil {
				break
			}
			if all += n; len(piece) > max && n > 1 {
				t.Errorf("a part of %d bytes and %d entries, limit %d", len(piece), n, max)
			}
		}
		if n, b := s.Dirty(); all != 300 || n != 0 || b != 0 {
			t.Errorf("parts of %d bytes: %d entries; %d of %d bytes are left", max, all, n, b)
		}
		if s.Revert(); len(s.Table("step-0", "state").Namespaces()) != 0 {
			t.Error("what parts have written is not reverted")
		}
	}
}

// TestDropIsTheSubtasksOwn: two subtasks drop a namespace each in its own time, and both come back in one store.
func TestDropIsTheSubtasksOwn(t *testing.T) {
	key := func(i int) []byte { return []byte{byte(i)} }
	var pieces [][]byte
	for lo := 0; lo < KeyGroups; lo += 64 {
		s := newStore(t, Config{Lo: lo, Hi: lo + 64})
		w := s.Table("window", "state")
		for i := lo; i < lo+64; i++ {
			w.Put(uint8(i), key(i), 5, nil, key(i))
			w.Put(uint8(i), key(i), 5, key(i), key(i))
		}
		p, _ := s.Cut()
		pieces = append(pieces, p)
		if lo > 0 {
			w.DropNamespace(5)
			p, n := s.Cut()
			if n != 1 {
				t.Fatalf("a drop is %d entries", n)
			}
			pieces = append(pieces, p)
		}
	}
	for _, cfg := range []Config{{}, {Lo: 32, Hi: 96}, {Lo: 64, Hi: 128}, {Lo: 100, Hi: 128}} {
		s := newStore(t, cfg)
		for _, p := range pieces {
			if err := s.Apply(p, 0, KeyGroups); err != nil {
				t.Fatal(err)
			}
		}
		want := 0
		s.Table("window", "state").Scan(5, func(group uint8, _, _ []byte) bool {
			if group >= 64 {
				t.Errorf("group %d was dropped", group)
			}
			want += 2
			return true
		})
		if groups := max(0, min(64, s.cfg.Hi)-s.cfg.Lo); want != 2*groups {
			t.Errorf("%v: %d entries, want %d", cfg, want, 2*groups)
		}
		if n, _ := s.Size(); n != want {
			t.Errorf("%v: Size() = %d, want %d", cfg, n, want)
		}
	}
}

// TestApplyTakesItsShare: the same pieces applied by ranges, as recovery does in parallel.
func TestApplyTakesItsShare(t *testing.T) {
	piece := somePiece(t)
	s := newStore(t, Config{})
	for lo := 0; lo < KeyGroups; lo += 16 {
		if err := s.Apply(piece, lo, lo+16); err != nil {
			t.Fatal(err)
		}
	}
	whole := newStore(t, Config{})
	if err := whole.Apply(piece, 0, KeyGroups); err != nil {
		t.Fatal(err)
	}
	a, _ := s.Size()
	if b, _ := whole.Size(); a != b || a == 0 {
		t.Errorf("%d entries by shares, %d at once", a, b)
	}
}
