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
		for _, f := range rep.Figures {
			b.Logf("%s: %.0f %s", f.Name, f.Value, f.Unit)
		}
		for _, r := range rep.Ratios {
			b.Logf("%s: %.2f (wanted %s)", r.Name, r.Value, r.Wanted)
		}
	}
}
