package killtest

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sidestream-dev/sidestream/bus"
	"github.com/sidestream-dev/sidestream/jobs/spec"
	"github.com/sidestream-dev/sidestream/runtime"
	"github.com/sidestream-dev/sidestream/runtime/admin"
)

// CatchUp adds a job at the oldest record of a topic that lies in the topic store for the most part, while the topic is
// written, and kills the program again and again while the job catches up: it must see each record once.
type CatchUp struct {
	Command func(w *Work) *exec.Cmd // serves until SIGTERM, with a log so short that topics lie in the store
	Kills   int
	Records int // that the topic has as the job is added; 0 means 20,000
}

// liveRate is how many records a second are written while the job catches up.
const liveRate = 1500

// Run is the suite. What is wrong is the test's failure.
func (s CatchUp) Run(tb testing.TB) {
	tb.Helper()
	history := cmp.Or(s.Records, 20_000)
	live := min(history*3/10, 300_000)
	slow := time.Duration(history/1_000_000)*runMax/2 + time.Duration(live/liveRate)*time.Second
	rng, dir := Seeded(tb), tb.TempDir()
	w := &Work{Jobs: filepath.Join(dir, "jobs"), Dir: filepath.Join(dir, "data"), Out: filepath.Join(dir, "late.jsonl")}
	job := "version: 1\njob: %s\nsource: {generator: {count: %d, devices: 7, seed: %d%s}}\noutputs:\n  main: {bus: {topic: kept, retention: {max_bytes: 16GiB}}}\n"
	text := fmt.Sprintf(job, "past", history, 1, "") + "---\n" + fmt.Sprintf(job, "live", live, 2, fmt.Sprint(", rate: ", liveRate))
	if err := os.MkdirAll(w.Jobs, 0o700); err != nil {
		tb.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(w.Jobs, "jobs.yaml"), []byte(text), 0o600); err != nil {
		tb.Fatal(err)
	}
	p := serve(tb, s.Command, w)
	p.slow = slow
	p.untilEnded(tb, func(j admin.Job) bool { return j.Name == "past" })
	stored := func() (n int64) {
		files, err := filepath.Glob(filepath.Join(w.Dir, "topics", "*", "*", "*"))
		if err != nil {
			tb.Fatal(err)
		}
		for _, f := range files {
			if info, err := os.Stat(f); err == nil { // else it was let go
				n += info.Size()
			}
		}
		return n
	}
	for began := time.Now(); stored() < p.written(tb, "kept")*3/4; time.Sleep(5 * time.Millisecond) {
		if time.Since(began) > runMax+slow {
			tb.Fatal("most of the topic does not come to lie in the topic store")
		}
	}
	late := fmt.Sprintf("version: 1\njob: late\ndelivery: exactly_once\nsource: {bus: kept}\noutputs:\n  main: {file: {path: %q, format: jsonl}}\n", w.Out)
	if _, err := p.client.Apply(context.Background(), []spec.File{{Name: "late", Content: []byte(late)}}, admin.ApplyRequest{}); err != nil {
		tb.Fatal(err)
	}
	inside := 0
	for range s.Kills {
		time.Sleep(time.Duration(rng.Int64N(int64(history) * 2000)))
		if j, err := p.client.Job(context.Background(), "late"); err == nil && j.Status != nil && j.Status.CatchUp != nil {
			inside++
		}
		p.kill(tb)
		p = serve(tb, s.Command, w)
		p.slow = slow
	}
	if inside < min(1, s.Kills) {
		tb.Fatalf("%d of %d kills came while the job caught up", inside, s.Kills)
	}
	p.untilEnded(tb, func(admin.Job) bool { return true })
	p.stop(tb)
	var got, want []string
	for _, line := range wholeLines(tb, w.Out) {
		got = append(got, string(line))
	}
	o, err := runtime.OpenOffline(w.Dir)
	if err != nil {
		tb.Fatal(err)
	}
	first := bus.Offset(0)
	err = o.Tail(context.Background(), runtime.Tail{Topic: "kept", Partition: -1, From: &first}, func(r runtime.TopicRecord) error {
		want = append(want, strings.TrimSpace(string(r.Value)))
		return nil
	})
	slices.Sort(got)
	slices.Sort(want)
	if d := difference(got, want); err != nil || d != "" || len(want) != history+live {
		tb.Fatalf("%d records in the topic, where %d are due; %s; %v", len(want), history+live, d, err)
	}
	tb.Logf("%d records, %d more meanwhile: %d kills, %d of them while the job caught up; %d bytes in the topic store", history, live, s.Kills, inside, stored())
}

// written is how many bytes were ever written to a topic.
func (p *served) written(tb testing.TB, topic string) (n int64) {
	tb.Helper()
	topics, err := p.client.Topics(context.Background())
	if err != nil {
		tb.Fatal(err)
	}
	for _, t := range topics {
		if t.Name == topic {
			for _, part := range t.Partitions {
				n += part.Bytes
			}
		}
	}
	return n
}
