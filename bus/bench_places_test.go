package bus

import (
	"fmt"
	"testing"
	"time"

	"github.com/sidestream-dev/sidestream/wal"
)

// BenchmarkPlaces reads the same records where they can lie: all in memory, all in the log, all in the topic store, and half in
// the store and half in the log. Each run reads them from memory too, right behind, and gives how many times as long it took.
func BenchmarkPlaces(b *testing.B) {
	for _, size := range []int{100, 1024} {
		for _, place := range []string{"memory", "log", "store", "store+log"} {
			b.Run(fmt.Sprintf("rec=%dB/from=%s", size, place), func(b *testing.B) { benchPlace(b, size, place) })
		}
	}
}

func benchPlace(b *testing.B, size int, place string) {
	const total = 64 << 20
	records := total / size
	memory := filled(b, size, records, Config{MemoryBytes: 1 << 30})
	bus := memory
	if place != "memory" {
		bus = filled(b, size, records, Config{MemoryBytes: 1})
		moveUpTo(b, bus, place)
	}
	b.SetBytes(int64(records * size))
	b.ReportAllocs()
	took, beside := time.Duration(0), time.Duration(0)
	for b.Loop() {
		took += readAllOf(b, bus, records)
		b.StopTimer()
		beside += readAllOf(b, memory, records)
		b.StartTimer()
	}
	b.ReportMetric(float64(b.N)*float64(records)/took.Seconds(), "records/s")
	b.ReportMetric(float64(took)/float64(beside), "of-memory")
}

// placed is a bus over the real log, with a store in a folder of its own.
type placed struct {
	*Bus
	log   walLog
	halfs wal.LSN // where the second generation begins
}

// filled is one with records in sections as an epoch has them, in two generations.
func filled(b *testing.B, size, records int, cfg Config) placed {
	log := newWAL(b, wal.Config{})
	cfg.Store = StoreConfig{Dir: b.TempDir()}
	p := placed{Bus: New(cfg, log), log: log}
	p.Generation(log.Last())
	if err := p.Define(1, TopicSpec{Name: "t", Limit: 1 << 62, Retention: Retention{MaxBytes: 1 << 40}}); err != nil {
		b.Fatal(err)
	}
	per := 64 << 10 / size
	for n := 0; n < records; n += per {
		if n >= records/2 && p.halfs == 0 {
			p.halfs = p.rotate(b)
		}
		pubs := []Publication{section(min(per, records-n), size)}
		p.Assign(pubs)
		lsn, err := log.Append(kindLast, frameSections(pubs, nil))
		if err != nil {
			b.Fatal(err)
		}
		p.Publish(lsn, pubs, nil)
	}
	p.settle(b)
	return p
}

func (p placed) rotate(b *testing.B) wal.LSN {
	lsn, err := p.log.Rotate([]wal.Section{{Kind: 0x32, Body: p.AppendCatalog(nil)}})
	if err != nil {
		b.Fatal(err)
	}
	p.Generation(lsn)
	return lsn
}

func (p placed) settle(b *testing.B) {
	if err := p.log.WaitDurable(b.Context(), p.log.Last()); err != nil {
		b.Fatal(err)
	}
	p.Durable(p.log.Durable())
}

// moveUpTo moves what a place says out of the log.
func moveUpTo(b *testing.B, p placed, place string) {
	upTo := p.halfs
	switch place {
	case "log":
		return
	case "store":
		upTo = p.rotate(b)
		p.settle(b)
	}
	plan, err := p.PlanCopy(upTo)
	if err != nil || plan == nil {
		b.Fatal(plan, err)
	}
	ch, err := plan.Run(b.Context(), nil)
	if err != nil {
		b.Fatal(err)
	}
	p.ApplyStore(ch)
	p.Dropped(upTo)
}

// readAllOf reads a topic from its beginning and returns how long it took.
func readAllOf(b *testing.B, p placed, records int) time.Duration {
	states, err := p.Begin(1, Start{Earliest: true})
	if err != nil {
		b.Fatal(err)
	}
	began := time.Now()
	r := p.NewReader(0, 1, states, func() {})
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
	if n != records {
		b.Fatalf("%d of %d records", n, records)
	}
	if err := r.Close(); err != nil {
		b.Fatal(err)
	}
	return time.Since(began)
}
