package runtime_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sidestream-dev/sidestream/runtime"
	"github.com/sidestream-dev/sidestream/wal"
)

// TestLogDamaged: damage of what was acknowledged is never taken for the end of the log: the data directory is refused, by
// segment, offset and LSN, and nothing in it is changed. What lies behind the last whole frame is cut, and the job goes on.
func TestLogDamaged(t *testing.T) {
	noLeaks(t)
	data, out := t.TempDir(), t.TempDir()
	const total = 20_000
	rt := start(t, runtime.Config{DataDir: data}, counting("j", newTap(total, total/2), out, nil))
	until(t, rt, "half of it is through", func() bool { return linesOf(t, filepath.Join(out, "j.jsonl")) == total/2 })
	stop(t, rt)

	segments, err := filepath.Glob(filepath.Join(data, "wal", "0*", "0*"))
	if err != nil || len(segments) == 0 {
		t.Fatalf("%d segments: %v", len(segments), err)
	}
	good, err := os.ReadFile(segments[0])
	if err != nil {
		t.Fatal(err)
	}
	write := func(b []byte) {
		t.Helper()
		if err := os.WriteFile(segments[0], b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, at := range []int{0, len(good) / 4, len(good) / 2} {
		bad := append([]byte(nil), good...)
		bad[at] ^= 0x08
		write(bad)
		_, err := runtime.Open(runtime.Config{DataDir: data})
		var damaged *wal.DamagedError
		if !errors.As(err, &damaged) || !strings.Contains(err.Error(), filepath.Base(segments[0])) || !strings.Contains(err.Error(), "wal repair") {
			t.Errorf("a bit flipped at byte %d of %d: Open: %v", at, len(good), err)
		}
		if now, err := os.ReadFile(segments[0]); err != nil || string(now) != string(bad) {
			t.Errorf("Open changed the log it refused (%v)", err)
		}
	}

	write(append(good, "what a power cut may leave"...))
	rt = start(t, runtime.Config{DataDir: data}, counting("j", newTap(total, total), out, nil))
	if r := rt.Recovered(); r.CutBytes == 0 {
		t.Errorf("nothing was cut: %s", r)
	}
	finish(t, rt)
	sameLines(t, "j", fileLines(t, filepath.Join(out, "j.jsonl")), tallied(total, nil))
}
