package bench

import (
	"context"
	"os"
	"testing"
	"time"
)

func TestMain(m *testing.M) {
	MaybeBroker()
	os.Exit(m.Run())
}

// BenchmarkFivePlusOne runs the whole workload once for each iteration, with a tenth of its records.
func BenchmarkFivePlusOne(b *testing.B) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	for b.Loop() {
		rep, err := FivePlusOne(ctx, FivePlusOneConfig{Records: 400_000, Dir: b.TempDir()})
		if err != nil {
			b.Fatal(err)
		}
		logReport(b, rep)
	}
}

func logReport(b *testing.B, rep *Report) {
	for _, f := range rep.Figures {
		b.Logf("%s: %.1f %s", f.Name, f.Value, f.Unit)
	}
	for _, r := range rep.Ratios {
		b.Logf("%s: %.3f (wanted %s)", r.Name, r.Value, r.Wanted)
	}
}

func BenchmarkLatency(b *testing.B) {
	for b.Loop() {
		rep, err := Latency(context.Background(), b.TempDir(), 2*time.Second)
		if err != nil {
			b.Fatal(err)
		}
		logReport(b, rep)
	}
}

func BenchmarkOverhead(b *testing.B) {
	for b.Loop() {
		rep, err := Overhead(context.Background(), b.TempDir(), 3*time.Second)
		if err != nil {
			b.Fatal(err)
		}
		logReport(b, rep)
	}
}

func BenchmarkRestart(b *testing.B) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	for b.Loop() {
		rep, err := Restart(ctx, b.TempDir(), 1<<30, 1_000_000)
		if err != nil {
			b.Fatal(err)
		}
		logReport(b, rep)
	}
}

func BenchmarkBus(b *testing.B) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	for b.Loop() {
		rep, err := Bus(ctx, b.TempDir(), 512<<20)
		if err != nil {
			b.Fatal(err)
		}
		logReport(b, rep)
	}
}
