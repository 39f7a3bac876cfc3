package bench

import (
	"context"
	"fmt"
	"os"
	"strings"
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

// logReport prints what was measured.
func logReport(b *testing.B, rep *Report) {
	var out strings.Builder
	for _, f := range rep.Figures {
		fmt.Fprintf(&out, "\n%s: %.1f %s", f.Name, f.Value, f.Unit)
	}
	for _, r := range rep.Ratios {
		fmt.Fprintf(&out, "\n%s: %.3f (wanted %s)", r.Name, r.Value, r.Wanted)
	}
	fmt.Fprintln(os.Stderr, b.Name()+out.String()) // a benchmark's own log is cut after ten lines
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

func BenchmarkIsolation(b *testing.B) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	for b.Loop() {
		rep, err := Isolation(ctx, b.TempDir(), 4*time.Second)
		if err != nil {
			b.Fatal(err)
		}
		logReport(b, rep)
	}
}

func BenchmarkHotAdd(b *testing.B) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	for b.Loop() {
		rep, err := HotAdd(ctx, b.TempDir(), 500*time.Millisecond)
		if err != nil {
			b.Fatal(err)
		}
		logReport(b, rep)
	}
}

func BenchmarkCatchUp(b *testing.B) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	for b.Loop() {
		rep, err := CatchUp(ctx, b.TempDir(), 1_000_000)
		if err != nil {
			b.Fatal(err)
		}
		logReport(b, rep)
	}
}
