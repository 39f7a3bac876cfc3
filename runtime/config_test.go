package runtime_test

import (
	"strings"
	"testing"

	"github.com/sidestream-dev/sidestream/runtime"
	"github.com/sidestream-dev/sidestream/wal"
)

// TestConfigFrames: a part of an epoch is cut when it has grown past Config.FrameBytes, by a record that may be as long again: where
// the log would not take that the runtime does not open, rather than stop at the first such epoch.
func TestConfigFrames(t *testing.T) {
	for _, tt := range []struct {
		frame, log int
		ok         bool
	}{{0, 0, true}, {8 << 20, 0, true}, {8<<20 + 1, 0, false}, {0, 1 << 20, false}, {512 << 10, 1 << 20, true}} {
		cfg := runtime.Config{DataDir: t.TempDir(), FrameBytes: tt.frame, Log: wal.Config{FrameBytes: tt.log}}
		rt, err := runtime.Open(cfg)
		if ok := err == nil; ok != tt.ok || !ok && !strings.Contains(err.Error(), "Log.FrameBytes") {
			t.Errorf("FrameBytes %d in frames of %d: %v", tt.frame, tt.log, err)
		}
		if err == nil {
			stop(t, rt)
		}
	}
}
