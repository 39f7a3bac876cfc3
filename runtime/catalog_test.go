package runtime_test

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/runtime"
	"github.com/sidestream-dev/sidestream/wal"
)

// bigJob is a paused job whose definition is a megabyte long.
func bigJob(i int, in *tap) *jobs.Job {
	j := writerJob(fmt.Sprintf("big-%02d", i), in, jobs.BusTopic[int64]{Name: fmt.Sprintf("numbers-%02d", i)})
	j.Definition = bytes.Repeat([]byte{'a' + byte(i)}, 1<<20)
	return j
}

// TestCatalogOfManyFrames: a catalog that is longer than any frame of the log is written, read back and verified. The log goes
// on from generation to generation meanwhile.
func TestCatalogOfManyFrames(t *testing.T) {
	noLeaks(t)
	data := t.TempDir()
	cfg := runtime.Config{DataDir: data, Log: wal.Config{FrameBytes: 4 << 20, GenerationBytes: 4 << 20, SegmentBytes: 1 << 20}}
	const n = 9
	rt := start(t, cfg)
	for i := range n {
		apply(t, rt, bigJob(i, newTap(50, 50)))
	}
	until(t, rt, "all have ended", func() bool {
		for i := range n {
			if jobStatus(t, rt, fmt.Sprintf("big-%02d", i)).State != runtime.StateEnded {
				return false
			}
		}
		return true
	})
	for i := range 100 { // more than eight times the catalog
		apply(t, rt, version(bigJob(0, newTap(50, 50)), strings.Repeat(string(rune('a'+i%26)), 1<<20)))
	}
	stop(t, rt)

	if rep, err := wal.Verify(filepath.Join(data, "wal")); err != nil || !rep.OK() || rep.Torn != nil {
		t.Fatalf("verify: %+v, %v", rep, err)
	}
	parts, begin := 0, wal.LSN(0)
	err := wal.Dump(filepath.Join(data, "wal"), 0, 0, func(f *wal.Frame) error {
		switch f.Kind {
		case wal.KindCatalog:
			parts, begin = 0, f.LSN
		case wal.KindCatalogPart:
			parts++
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if begin == 1 || parts < n {
		t.Fatalf("the newest catalog, at %d, has %d parts: the test does not reach what it is for", begin, parts)
	}
	rt = start(t, cfg)
	defer stop(t, rt)
	for i := 1; i < n; i++ {
		name := fmt.Sprintf("big-%02d", i)
		if d, err := rt.JobDefinition(name); err != nil || !bytes.Equal(d.Definition, bytes.Repeat([]byte{'a' + byte(i)}, 1<<20)) {
			t.Errorf("%s: %d bytes of its definition are left, %v", name, len(d.Definition), err)
		}
	}
}

// TestChangeOverAFrame: what does not fit in one frame is refused with what to do, and leaves nothing behind.
func TestChangeOverAFrame(t *testing.T) {
	noLeaks(t)
	rt := start(t, runtime.Config{DataDir: t.TempDir(), Log: wal.Config{FrameBytes: 4 << 20}})
	defer stop(t, rt)
	var js []*jobs.Job
	for i := range 4 {
		js = append(js, bigJob(i, newTap(50, 50)))
	}
	_, err := rt.Apply(t.Context(), byAPI(js...), runtime.ApplyOptions{})
	if err == nil || !errors.As(err, new(*runtime.ApplyError)) || !strings.Contains(err.Error(), "4 jobs in one change, with definitions of 4096 KiB") ||
		!strings.Contains(err.Error(), "a few at a time") {
		t.Fatalf("four jobs: %v", err)
	}
	if st := rt.Status(); len(st.Jobs) > 0 || len(st.Topics) > 0 {
		t.Errorf("left of what was refused: %+v", st)
	}
	for _, j := range js {
		apply(t, rt, j)
	}
}
