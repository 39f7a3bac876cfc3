package checkpoint

import (
	"encoding/binary"
	"fmt"
	"testing"
)

// benchStore has n keys of 40 bytes' state in one namespace, sealed.
func benchStore(b testing.TB, n int) (*Store, *Table, [][]byte) {
	s := newStore(b, Config{})
	t := s.Table("window", "state")
	keys := make([][]byte, n)
	for i := range keys {
		keys[i] = fmt.Appendf(nil, "device-%07d", i)
		t.Put(uint8(i&127), keys[i], 0, nil, make([]byte, 40))
	}
	s.Cut()
	s.Sealed(s.Epoch() - 1)
	return s, t, keys
}

// sizes of state: one that fits the processor's caches, and one that does not.
var benchKeys = []int{1_000, 1_000_000}

// BenchmarkEdit is a step's change of its accumulator, with a cut every 5,000 changes, as at 1,000,000 a second.
func BenchmarkEdit(b *testing.B) {
	for _, n := range benchKeys {
		b.Run(fmt.Sprintf("keys=%d", n), func(b *testing.B) {
			s, t, keys := benchStore(b, n)
			bytes := 0
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				k := int(uint32(i) * 2654435761 % uint32(n))
				acc, _ := t.Edit(uint8(k&127), keys[k], 0, nil, 40)
				binary.LittleEndian.PutUint64(acc, binary.LittleEndian.Uint64(acc)+1)
				if i%5000 == 4999 {
					piece, _ := s.Cut()
					bytes += len(piece)
					s.Sealed(s.Epoch() - 1)
				}
			}
			b.ReportMetric(float64(bytes)/float64(b.N), "log-B/op")
		})
	}
}

func BenchmarkGet(b *testing.B) {
	for _, n := range benchKeys {
		b.Run(fmt.Sprintf("keys=%d", n), func(b *testing.B) {
			_, t, keys := benchStore(b, n)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				k := int(uint32(i) * 2654435761 % uint32(n))
				if _, ok := t.Get(uint8(k&127), keys[k], 0, nil); !ok {
					b.Fatal("gone")
				}
			}
		})
	}
}

// BenchmarkPutNew is a new key, in windows of 100,000 keys that are dropped whole.
func BenchmarkPutNew(b *testing.B) {
	s, t, _ := benchStore(b, 0)
	keys := make([][]byte, 100_000)
	for i := range keys {
		keys[i] = fmt.Appendf(nil, "device-%07d", i)
	}
	val := make([]byte, 40)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		k := i % len(keys)
		window := int64(i / len(keys))
		if k == 0 && window > 0 {
			t.DropNamespace(window - 1)
		}
		t.Put(uint8(k&127), keys[k], window, nil, val)
		if i%5000 == 4999 {
			s.Cut()
			s.Sealed(s.Epoch() - 1)
		}
	}
}

// BenchmarkRecord is what on_error costs a record beside its change: the brackets that let it be undone.
func BenchmarkRecord(b *testing.B) {
	s, t, keys := benchStore(b, 1000)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		s.BeginRecord()
		m := s.Mark()
		k := i % len(keys)
		t.Edit(uint8(k&127), keys[k], 0, nil, 40)
		if i%100 == 0 {
			s.Rollback(m)
		}
		s.EndRecord()
		if i%5000 == 4999 {
			s.Cut()
			s.Sealed(s.Epoch() - 1)
		}
	}
}

// BenchmarkScan reads the sealed state for a snapshot; BenchmarkApply brings it back.
func BenchmarkScan(b *testing.B) {
	s, _, _ := benchStore(b, 200_000)
	_, size := s.Size()
	b.SetBytes(int64(size))
	b.ReportAllocs()
	for b.Loop() {
		sc := s.BeginSnapshot()
		for done := false; !done; {
			_, done = sc.Next(256 << 10)
		}
	}
}

func BenchmarkApply(b *testing.B) {
	s, _, _ := benchStore(b, 200_000)
	_, size := s.Size()
	var chunks [][]byte
	sc := s.BeginSnapshot()
	for done := false; !done; {
		var c []byte
		c, done = sc.Next(256 << 10)
		chunks = append(chunks, c)
	}
	b.SetBytes(int64(size))
	b.ReportAllocs()
	for b.Loop() {
		into := newStore(b, Config{})
		for _, c := range chunks {
			if c == nil {
				continue
			}
			if err := into.Apply(c, 0, KeyGroups); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.ReportMetric(float64(b.N)*200_000/b.Elapsed().Seconds(), "entries/s")
}

func BenchmarkHeader(b *testing.B) {
	h := Header{Job: 3, Attempt: 1, Epoch: 1 << 20, Steps: []StepState{{"window", 1_700_000_000_000}}}
	for i := range 4 {
		h.Splits = append(h.Splits, SplitState{Step: "source", Split: fmt.Sprint("readings-", i), Topic: "readings", Partition: int32(i),
			Position: []byte("12345678"), Watermark: 1_700_000_000_000 + int64(i)})
	}
	var dst []byte
	b.Run("encode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			dst = AppendHeader(dst[:0], h)
		}
		b.ReportMetric(float64(len(dst)), "B/header")
	})
	b.Run("decode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := DecodeHeader(dst); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkTick is the coordinator's part of an epoch of four subtasks.
func BenchmarkTick(b *testing.B) {
	c := newCoordinator(b, CoordinatorConfig{Subtasks: 4})
	now := epochZero
	b.ReportAllocs()
	for b.Loop() {
		now = now.Add(c.cfg.Interval)
		c.Changed(now, 100)
		d := c.Tick(now)
		for i := range 4 {
			c.Ack(i, d.Barrier)
		}
		for _, e := range c.Tick(now).Seal {
			c.Sealed(e)
		}
	}
}

// BenchmarkSnapshot writes and reads a file of 64 MiB in chunks.
func BenchmarkSnapshot(b *testing.B) {
	dir, chunk := b.TempDir(), make([]byte, 256<<10)
	b.SetBytes(64 << 20)
	b.ReportAllocs()
	for b.Loop() {
		chunks := make([][]byte, 256)
		for i := range chunks {
			chunks[i] = chunk
		}
		if _, _, err := readSnapshot(writeSnapshot(b, dir, SnapshotMeta{Job: 1, Epoch: 1}, chunks...)); err != nil {
			b.Fatal(err)
		}
	}
}

// TestHotPathAllocatesNothing: reading and changing what is there takes no memory, but for an epoch's log, which is used again.
func TestHotPathAllocatesNothing(t *testing.T) {
	s, a, keys := benchStore(t, 1000)
	for range 3 { // let the pools fill
		for i, k := range keys {
			a.Edit(uint8(i&127), k, 0, nil, 40)
		}
		s.Cut()
		s.Sealed(s.Epoch() - 1)
	}
	i := 0
	if got := testing.AllocsPerRun(2000, func() {
		k := i % len(keys)
		a.Edit(uint8(k&127), keys[k], 0, nil, 40)
		a.Get(uint8(k&127), keys[k], 0, nil)
		a.Put(uint8(k&127), keys[k], 0, nil, keys[k])
		a.Put(uint8(k&127), keys[k], 0, nil, make([]byte, 40))
		i++
	}); got > 0 {
		t.Errorf("%v allocations", got)
	}
	if testing.AllocsPerRun(10, func() { a.Put(1, []byte(fmt.Sprint("new", i)), 0, nil, nil); i++ }) == 0 {
		t.Error("a new key is said to take no memory: the test shows nothing")
	}
}
