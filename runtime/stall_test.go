package runtime_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/jobs/connector/file"
	"github.com/sidestream-dev/sidestream/runtime"
)

// TestStallWithoutWriter: a run until done that reads a topic which no job ever wrote ends with that, named. Where a writer
// was and has ended, the reader ends too.
func TestStallWithoutWriter(t *testing.T) {
	dir, out, data := t.TempDir(), t.TempDir(), t.TempDir()
	reader := func() *jobs.Job {
		j := jobs.New("reader")
		jobs.To(jobs.FromTopic(j, signals), "main", file.Sink{Path: out + "/signals.jsonl"}, jobs.JSON[signal]())
		return j
	}
	run := func(defs ...*jobs.Job) error {
		rt, err := runtime.Open(runtime.Config{DataDir: dir})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := rt.Start(defs); err != nil {
			t.Fatal(err)
		}
		err = rt.Wait(ctx, true)
		if ctx.Err() != nil {
			t.Error("not done in time")
		}
		if err := rt.Stop(); err != nil {
			t.Error(err)
		}
		return err
	}
	var stalled *runtime.StalledError
	if err := run(reader()); !errors.As(err, &stalled) || !strings.Contains(err.Error(), "job reader waits for topic signals, which no job writes") {
		t.Errorf("got %v", err)
	}
	writeReadings(t, data, 100, 1)
	writer := jobs.New("writer")
	rs := jobs.From(writer, file.Source{Path: data + "/temperature-*.jsonl"}, jobs.JSON[reading](),
		jobs.EventTime(func(r reading) time.Time { return time.UnixMilli(r.TS) }, time.Second))
	jobs.ToTopic(jobs.Map(rs, func(r reading) signal { return signal{r.Device, r.Kind, r.TS} }), signals)
	if err := run(reader(), writer); err != nil {
		t.Errorf("with a writer: %v", err)
	}
}
