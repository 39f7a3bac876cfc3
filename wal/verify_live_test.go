package wal

import (
	"context"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"
)

// TestVerifyWhileWritten verifies, describes and views a log that is written and rotated as fast as it goes: nothing of what is
// half written is damage or a tear.
func TestVerifyWhileWritten(t *testing.T) {
	dir := t.TempDir()
	l := mustOpen(t, dir, Config{SegmentBytes: 64 << 10, GenerationBytes: 1 << 20, ReserveBytes: -1})
	mustDo(t)(l.Rotate(nil))
	var stop atomic.Bool
	done := make(chan error, 1)
	go func() {
		rng := rand.New(rand.NewPCG(1, 2))
		body := crashBody(3)
		for i := 0; !stop.Load(); i++ {
			n := 1 + rng.IntN(len(body)-1)
			if rng.IntN(50) == 0 {
				n = 40 << 10 // a frame of many pages
			}
			b := make([]byte, n)
			copy(b, body)
			var err error
			if l.RotateDue() {
				_, err = l.Rotate([]Section{{Body: b}})
			} else {
				_, err = l.Append(2, []Section{{Kind: 2, Body: b}})
			}
			if err == nil && i%8 == 0 {
				err = l.WaitDurable(context.Background(), l.Last()-min(l.Last()-1, 16))
			}
			if gens := l.Generations(); err == nil && len(gens) > 3 {
				err = l.Drop(gens[len(gens)-2].First)
			}
			if err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	rounds := 0
	for end := time.Now().Add(2 * time.Second); time.Now().Before(end) || rounds < 5; rounds++ {
		before := l.Durable()
		rep, err := Verify(dir)
		if err != nil || !rep.OK() || rep.Torn != nil {
			t.Fatalf("round %d: Verify: damage %v, torn %v, %v", rounds, rep.Damage, rep.Torn, err)
		}
		if rep.Last < before {
			t.Fatalf("round %d: Verify came to %d, %d was durable before", rounds, rep.Last, before)
		}
		v, err := OpenView(dir)
		if err != nil {
			t.Fatalf("round %d: OpenView: %v", rounds, err)
		}
		if got := v.Description().Last; got < before {
			t.Fatalf("round %d: a View ends at %d, %d was durable before", rounds, got, before)
		}
	}
	stop.Store(true)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	t.Logf("%d rounds, %d frames", rounds, l.Last())
}
