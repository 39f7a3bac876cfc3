package runtime_test

import (
	"errors"
	"io/fs"
	"testing"

	"github.com/sidestream-dev/sidestream/bus"
	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/runtime"
	"github.com/sidestream-dev/sidestream/wal"
)

// TestOfflineWhileCut: a directory is read while a process writes a topic, moves it to the topic store and cuts the log all the
// time. Each reader gets every record once, in order, up to the end there was as it opened the directory; where what it has yet to
// read goes under it, it says so and gives nothing else.
func TestOfflineWhileCut(t *testing.T) {
	noLeaks(t)
	const step, rounds = 4000, 8
	const total = step * (2*rounds + 2) // there is always more to write: what is not written to is not cut
	in := newTap(total, 0)
	topic := jobs.BusTopic[int64]{Name: "numbers", Topic: jobs.Topic{RetentionBytes: 256 << 10}}
	writer := jobs.New("writer")
	jobs.ToTopic(numbers(writer, in), topic)
	dir := t.TempDir()
	rt := start(t, runtime.Config{DataDir: dir, EpochBytes: 4 << 10, LogBytes: 32 << 10, SnapshotBytes: 4 << 10, StoreSegmentBytes: 16 << 10,
		Log: wal.Config{SegmentBytes: 8 << 10, GenerationBytes: 16 << 10}}, writer)
	write := func() {
		t.Helper()
		in.open(min(in.opened.Load()+step, total))
		until(t, rt, "it is written", func() bool { return jobStatus(t, rt, "writer").Counters.Out == in.opened.Load() })
	}
	write()
	whole, gone, records := 0, 0, 0
	for round := range rounds {
		write()
		o, err := runtime.OpenOffline(dir)
		if err != nil && isGone(err) { // a generation went as it was being opened
			gone++
			continue
		}
		if err != nil {
			t.Fatalf("opening it: %v", err)
		}
		p := o.Topics()[0].Partitions[0]
		first, at := p.First, p.First
		err = o.Tail(t.Context(), runtime.Tail{Topic: "numbers", From: &first}, func(r runtime.TopicRecord) error {
			if r.Offset != at || string(r.Value) != at.String() {
				t.Fatalf("offset %d is %s, where %d is due", r.Offset, r.Value, at)
			}
			records++
			if at++; at != first+(p.Next-first)/4 {
				return nil
			}
			was := rt.Status().Log.Stats.Dropped // the process goes on in the middle of it
			write()
			if round%2 == 1 {
				if _, err := rt.PurgeTopic(t.Context(), "numbers", runtime.Place{Latest: true}, false); err != nil {
					t.Fatal(err)
				}
			}
			until(t, rt, "the log is cut", func() bool { return rt.Status().Log.Stats.Dropped > was })
			return nil
		})
		switch {
		case err == nil && at == p.Next:
			whole++
		case err != nil && at < p.Next && isGone(err):
			gone++
		default:
			t.Fatalf("round %d: it read %d to %d of %d: %v", round, first, at, p.Next, err)
		}
	}
	t.Logf("%d records; %d directories were read to the end, and of %d what was to come went meanwhile", records, whole, gone)
	if gone == 0 {
		t.Error("nothing went under a reader: that shows little")
	}
	stop(t, rt)
}

// isGone reports whether an error says that what was to be read is not there any more.
func isGone(err error) bool {
	var offset *bus.OffsetError
	return errors.Is(err, wal.ErrGone) || errors.Is(err, fs.ErrNotExist) || errors.As(err, &offset)
}
