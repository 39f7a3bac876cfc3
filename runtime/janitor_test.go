package runtime_test

import (
	"testing"

	"github.com/sidestream-dev/sidestream/runtime"
	"github.com/sidestream-dev/sidestream/wal"
)

// TestIdleJobLetsTheLogGo: a job in which nothing happens is asked for a snapshot like any other where its state keeps a log
// that is too long, while another job goes on writing it.
func TestIdleJobLetsTheLogGo(t *testing.T) {
	noLeaks(t)
	out := t.TempDir()
	cfg := runtime.Config{DataDir: t.TempDir(), Log: wal.Config{SegmentBytes: 16 << 10, GenerationBytes: 32 << 10},
		LogBytes: 64 << 10, SnapshotBytes: 32 << 10}
	idle, busy := newTap(100, 10), newTap(1_000_000, 0)
	rt := start(t, cfg, counting("idle", idle, out, nil), counting("busy", busy, out, nil))
	until(t, rt, "generations are dropped", func() bool {
		busy.open(busy.opened.Load() + 50)
		return rt.Status().Log.Stats.Dropped > 2
	})
	stop(t, rt)

	idle, busy = newTap(100, 100), newTap(busy.opened.Load(), busy.opened.Load())
	rt = start(t, cfg, counting("idle", idle, out, nil), counting("busy", busy, out, nil))
	finish(t, rt)
	sameLines(t, "idle", fileLines(t, out+"/idle.jsonl"), tallied(100, nil))
	sameLines(t, "busy", fileLines(t, out+"/busy.jsonl"), tallied(busy.total, nil))
}
