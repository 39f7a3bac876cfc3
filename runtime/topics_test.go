package runtime_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/sidestream-dev/sidestream/bus"
	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/jobs/connector/file"
	"github.com/sidestream-dev/sidestream/runtime"
	"github.com/sidestream-dev/sidestream/wal"
)

// tailer is a Runtime or an Offline.
type tailer interface {
	Tail(ctx context.Context, q runtime.Tail, f func(runtime.TopicRecord) error) error
}

// tailed returns what is shown, by partition.
func tailed(t *testing.T, src tailer, q runtime.Tail) map[int][]runtime.TopicRecord {
	t.Helper()
	out := map[int][]runtime.TopicRecord{}
	err := src.Tail(t.Context(), q, func(r runtime.TopicRecord) error {
		if have := out[r.Partition]; len(have) > 0 && r.Offset != have[len(have)-1].Offset+1 {
			t.Errorf("partition %d: offset %s behind %s", r.Partition, r.Offset, have[len(have)-1].Offset)
		}
		out[r.Partition] = append(out[r.Partition], r)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestTailAndOffline: every record of a topic that spans generations is shown once, in order; by the process, by a reader of
// its directory beside it, and by one afterwards.
func TestTailAndOffline(t *testing.T) {
	const n = 20_000
	dir := t.TempDir()
	in, data := filepath.Join(dir, "in.jsonl"), filepath.Join(dir, "data")
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "{\"n\":%d,\"pad\":%q}\n", i, strings.Repeat("x", 100))
	}
	if err := os.WriteFile(in, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	type number struct {
		N   int    `json:"n"`
		Pad string `json:"pad"`
	}
	j := jobs.New("numbers")
	keyed := jobs.KeyBy(jobs.From(j, file.Source{Path: in}, jobs.JSON[number]()), func(v number) int { return v.N % 100 })
	jobs.ToTopic(keyed, jobs.BusTopic[number]{Name: "numbers", Topic: jobs.Topic{Partitions: 3}})
	cfg := runtime.Config{DataDir: data, TopicMemory: 64 << 10, EpochBytes: 64 << 10, Log: wal.Config{GenerationBytes: 1 << 20, SegmentBytes: 512 << 10, FrameBytes: 400 << 10}, FrameBytes: 128 << 10}
	rt, err := runtime.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(rt.Start([]*jobs.Job{j}), rt.Wait(t.Context(), true)); err != nil {
		t.Fatal(err)
	}
	check := func(what string, src tailer) map[int][]runtime.TopicRecord {
		t.Helper()
		all := tailed(t, src, runtime.Tail{Topic: "numbers", Partition: -1, From: new(bus.Offset)})
		seen := map[int]bool{}
		for p, records := range all {
			for _, r := range records {
				var v number
				if err := json.Unmarshal(r.Value, &v); err != nil || seen[v.N] || string(r.Key) != fmt.Sprint(v.N%100) {
					t.Fatalf("%s: partition %d: %+v, %v; seen before: %v", what, p, r, err, seen[v.N])
				}
				seen[v.N] = true
			}
		}
		if len(seen) != n || len(all) != 3 {
			t.Errorf("%s: %d records in %d partitions, want %d in 3", what, len(seen), len(all), n)
		}
		for p, last := range tailed(t, src, runtime.Tail{Topic: "numbers", Partition: 1, Last: 5}) {
			if want := all[1][len(all[1])-5:]; p != 1 || !reflect.DeepEqual(last, want) {
				t.Errorf("%s: the last five of partition 1 are %v, want %v", what, last, want)
			}
		}
		from := bus.Offset(7)
		for p, first := range tailed(t, src, runtime.Tail{Topic: "numbers", Partition: 2, From: &from, Last: 3}) {
			if want := all[2][7:10]; p != 2 || !reflect.DeepEqual(first, want) {
				t.Errorf("%s: three of partition 2 from 7 on are %v, want %v", what, first, want)
			}
		}
		return all
	}
	inTurn(t, rt, n, check("the process", rt))
	beside, err := runtime.OpenOffline(data)
	if err != nil {
		t.Fatal(err)
	}
	check("beside the process", beside)
	topics := rt.Status().Topics
	generations := rt.Status().Log.Stats.Rotations
	if err := rt.Stop(); err != nil {
		t.Fatal(err)
	}
	if generations < 2 {
		t.Errorf("the log had %d generations begun; the test wants several", generations)
	}
	after, err := runtime.OpenOffline(data)
	if err != nil {
		t.Fatal(err)
	}
	check("afterwards", after)
	for i, topic := range after.Topics() {
		if topic.Name != topics[i].Name || topic.Partitions[0].Next != topics[i].Partitions[0].Next {
			t.Errorf("topic %+v, the process had %+v", topic, topics[i])
		}
	}
}

// inTurn wants who follows a topic of n records to be shown all of its partitions in turn: one that is never read dry keeps
// nobody from the others.
func inTurn(t *testing.T, rt *runtime.Runtime, n int, all map[int][]runtime.TopicRecord) {
	t.Helper()
	seen, sum := map[int]int{}, 0
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	err := rt.Tail(ctx, runtime.Tail{Topic: "numbers", Partition: -1, From: new(bus.Offset), Follow: true}, func(r runtime.TopicRecord) error {
		if seen[r.Partition] == 0 {
			for p, records := range all {
				if seen[p] > len(records)/2 {
					t.Errorf("partition %d begins when %d of %d of partition %d are shown", r.Partition, seen[p], len(records), p)
				}
			}
		}
		seen[r.Partition]++
		if sum++; sum == n {
			cancel()
		}
		return nil
	})
	if err != nil || sum != n {
		t.Errorf("following: %d records of %d, %v", sum, n, err)
	}
}

func TestTailErrors(t *testing.T) {
	if _, err := runtime.OpenOffline(t.TempDir()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an empty directory: %v, want ErrNotExist", err)
	}
	rt, err := runtime.Open(runtime.Config{DataDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer rt.Stop()
	if err := rt.Start(nil); err != nil {
		t.Fatal(err)
	}
	err = rt.Tail(t.Context(), runtime.Tail{Topic: "nope", Partition: -1}, func(runtime.TopicRecord) error { return nil })
	if !errors.Is(err, runtime.ErrNoTopic) {
		t.Errorf("no topic: %v, want ErrNoTopic", err)
	}
	if _, ok := rt.Topic("nope"); ok {
		t.Error("there is a topic that nobody made")
	}
}
