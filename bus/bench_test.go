package bus

import (
	"fmt"
	"testing"

	"github.com/sidestream-dev/sidestream/wal"
)

// section makes one of n records of size bytes.
func section(n, size int) Publication {
	var b Builder
	for i := range n {
		b.Append(Record{Value: make([]byte, size), Time: 1_700_000_000_000 + int64(i)})
	}
	return Publication{Topic: 1, Count: n, Data: b.Bytes()}
}

// BenchmarkBuild is one record into a section.
func BenchmarkBuild(b *testing.B) {
	for _, size := range []int{100, 1024} {
		b.Run(fmt.Sprintf("rec=%dB", size), func(b *testing.B) {
			r := Record{Key: []byte("device-17"), Value: make([]byte, size), Time: 1_700_000_000_000}
			var bd Builder
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				if bd.Append(r); len(bd.Bytes()) > 256<<10 {
					bd.Reset()
				}
			}
		})
	}
}

// BenchmarkLive is one record published and read from memory by each of some readers, in epochs of 512 records; what a
// record costs beside its encoding.
func BenchmarkLive(b *testing.B) {
	for _, readers := range []int{1, 5} {
		b.Run(fmt.Sprintf("rec=100B/readers=%d", readers), func(b *testing.B) {
			bus := New(Config{MemoryBytes: 1 << 20}, &memLog{})
			if err := bus.Define(1, TopicSpec{Name: "t", Limit: 1 << 62}); err != nil {
				b.Fatal(err)
			}
			var rs []*Reader
			for i := range readers {
				states, err := bus.Subscribe(SubID(i), "s", 1, Start{Earliest: true})
				if err != nil {
					b.Fatal(err)
				}
				rs = append(rs, bus.NewReader(SubID(i), 1, states, func() {}))
			}
			one := section(512, 100)
			pubs, marks := make([]Publication, 1), make([]Mark, 1)
			b.SetBytes(100)
			b.ReportAllocs()
			b.ResetTimer()
			for done := 0; done < b.N; done += 512 {
				lsn := wal.LSN(done + 1)
				pubs[0], marks[0] = one, at(1, int64(done))
				bus.Assign(pubs)
				bus.Publish(lsn, pubs, marks)
				for _, r := range rs {
					for {
						batch, ok, err := r.Next(512)
						if err != nil {
							b.Fatal(err)
						}
						if !ok {
							break
						}
						for range batch.Records() {
						}
					}
				}
				bus.Durable(lsn)
			}
		})
	}
}

// BenchmarkCold reads a topic from the real log, beside as much of another one.
func BenchmarkCold(b *testing.B) {
	for _, size := range []int{100, 1024} {
		for _, parts := range []bool{false, true} {
			b.Run(fmt.Sprintf("rec=%dB/parts=%v", size, parts), func(b *testing.B) { benchCold(b, size, parts) })
		}
	}
}

func benchCold(b *testing.B, size int, parts bool) {
	log := newWAL(b, wal.Config{})
	bus := New(Config{MemoryBytes: 1}, log)
	if err := bus.Define(1, TopicSpec{Name: "t"}); err != nil {
		b.Fatal(err)
	}
	const records = 128 << 10
	perSection := 128 << 10 / size
	for n := 0; n < records; n += perSection {
		own, other := section(perSection, size), section(perSection, size)
		other.Topic = 2
		pubs := []Publication{own}
		bus.Assign(pubs)
		sections := []wal.Section{{Kind: SectionRecords, Owner: 2, Body: other.Data}, {Kind: SectionRecords, Owner: 1, Body: own.Data}}
		pubs[0].Section = 1
		if parts {
			lsn, err := log.Append(kindPart, sections)
			if err != nil {
				b.Fatal(err)
			}
			pubs[0].Part, sections = lsn, nil
		}
		lsn, err := log.Append(kindLast, append(sections, wal.Section{Kind: SectionIndex, Body: AppendIndex(nil, pubs, nil)}))
		if err != nil {
			b.Fatal(err)
		}
		bus.Publish(lsn, pubs, nil)
	}
	if err := log.WaitDurable(b.Context(), log.Last()); err != nil {
		b.Fatal(err)
	}
	bus.Durable(log.Durable())
	states, err := bus.Subscribe(1, "s", 1, Start{Earliest: true})
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(records * size))
	b.ReportAllocs()
	for b.Loop() {
		r := bus.NewReader(1, 1, states, func() {})
		n := 0
		for {
			batch, ok, err := r.Next(512)
			if err != nil {
				b.Fatal(err)
			}
			if !ok {
				break
			}
			for range batch.Records() {
				n++
			}
		}
		if n < records {
			b.Fatalf("%d of %d records", n, records)
		}
		if err := r.Close(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)*records/b.Elapsed().Seconds(), "records/s")
}

// TestLiveAllocatesNothing: a live reader's part of the hand-over takes no memory.
func TestLiveAllocatesNothing(t *testing.T) {
	r := newRig(t, Config{})
	r.define(1, TopicSpec{Name: "t"})
	rd := r.NewReader(1, 1, r.subscribe(1, 1, Start{Earliest: true}), func() {})
	defer rd.Close()
	r.epoch(nil, join(1))
	drain(t, rd, 9)
	r.epoch([]Publication{section(1000, 100)})
	n := 0
	if got := testing.AllocsPerRun(50, func() {
		b, ok, err := rd.Next(10)
		if !ok || err != nil {
			t.Fatal(ok, err)
		}
		for range b.Records() {
			n++
		}
		rd.Watermark()
	}); got > 0 {
		t.Errorf("%v allocations a batch", got)
	}
	if n != 510 {
		t.Errorf("%d records", n)
	}
	var bd Builder
	rec := Record{Key: []byte("k"), Value: make([]byte, 100), Time: 5}
	if got := testing.AllocsPerRun(2000, func() { bd.Append(rec) }); got > 0 {
		t.Errorf("%v allocations a record in a Builder that grows", got)
	}
}
