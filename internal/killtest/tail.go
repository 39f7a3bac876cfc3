package killtest

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/sidestream-dev/sidestream/runtime"
)

// Grows kills a program that reads what grows outside, while it grows: files that are followed and rotated away, or a Kafka
// topic that gets more partitions. Each line must be on the bus once.
type Grows struct {
	Command func(w *Work) *exec.Cmd // serves until SIGTERM
	Kills   int
	Outside func(tb testing.TB, w *Work, rng *rand.Rand) Outside
}

// Outside is what grows.
type Outside interface {
	// Source is the definition of the source.
	Source() string
	// Grow writes lines, numbered from next on, and returns the number behind the last. seen is how many lines the program
	// has durably read.
	Grow(next, seen int) (int, error)
	// Counts says what was done.
	Counts() string
}

// Run is the suite. What is wrong is the test's failure.
func (s Grows) Run(tb testing.TB) {
	tb.Helper()
	rng, dir := Seeded(tb), tb.TempDir()
	w := &Work{Jobs: filepath.Join(dir, "jobs"), Dir: filepath.Join(dir, "data"), Out: filepath.Join(dir, "out")}
	for _, d := range []string{w.Jobs, w.Out} {
		if err := os.Mkdir(d, 0o700); err != nil {
			tb.Fatal(err)
		}
	}
	outside := s.Outside(tb, w, rand.New(rand.NewPCG(rng.Uint64(), 0)))
	out := filepath.Join(w.Out, "lines.txt")
	text := fmt.Sprintf("version: 1\njob: lines\ndelivery: exactly_once\nsource: {%s}\nsteps:\n  - side: {if: 'true', to: topic}\noutputs:\n  topic: {bus: lines}\n  main: {file: {path: %q}}\n",
		outside.Source(), out)
	if err := os.WriteFile(filepath.Join(w.Jobs, "lines.yaml"), []byte(text), 0o600); err != nil {
		tb.Fatal(err)
	}
	seen := func() int { return len(wholeLines(tb, out)) }
	grow := growing{outside: outside, seen: seen, stop: make(chan struct{}), stopped: make(chan struct{})}
	go grow.run() // also while the program is dead
	defer grow.end()
	for range s.Kills {
		p := serve(tb, s.Command, w)
		time.Sleep(time.Duration(rng.Int64N(int64(600 * time.Millisecond))))
		p.kill(tb)
		time.Sleep(time.Duration(rng.Int64N(int64(60 * time.Millisecond))))
	}
	p := serve(tb, s.Command, w)
	time.Sleep(300 * time.Millisecond)
	if err := grow.end(); err != nil {
		tb.Fatal(err)
	}
	late := until(context.Background(), "all lines are read", func() (bool, error) {
		lines := wholeLines(tb, out)
		once := map[string]bool{}
		for _, l := range lines {
			if once[string(l)] {
				return true, nil // what is missing does not matter any more
			}
			once[string(l)] = true
		}
		return len(lines) >= grow.written, nil
	})
	p.stop(tb)
	var topic, file, want []string
	w.read(tb, "lines", func(r runtime.TopicRecord) { topic = append(topic, string(r.Value)) })
	for _, l := range wholeLines(tb, out) {
		file = append(file, string(l))
	}
	for n := range grow.written {
		b, _ := json.Marshal(line(n)) // a string
		want = append(want, string(b))
	}
	slices.Sort(topic)
	slices.Sort(file)
	slices.Sort(want)
	if d := difference(topic, want); d != "" {
		tb.Fatalf("on the bus: %s", d)
	}
	if d := difference(file, want); d != "" || late != nil {
		tb.Fatalf("in the file: %s %v", d, late)
	}
	tb.Logf("%d kills: %d lines, %s", s.Kills, grow.written, outside.Counts())
}

// growing lets an Outside grow until it is ended.
type growing struct {
	outside Outside
	seen    func() int
	written int
	err     error
	stop    chan struct{}
	stopped chan struct{}
	once    sync.Once
}

func (g *growing) run() {
	defer close(g.stopped)
	for g.err == nil {
		select {
		case <-g.stop:
			return
		case <-time.After(5 * time.Millisecond):
		}
		g.written, g.err = g.outside.Grow(g.written, g.seen())
	}
}

// end returns when it has stopped.
func (g *growing) end() error {
	g.once.Do(func() { close(g.stop) })
	<-g.stopped
	return g.err
}

func line(n int) string { return fmt.Sprintf("line %d", n) }

// Rotated is a file that is followed, rotated away and made anew.
func Rotated(tb testing.TB, w *Work, rng *rand.Rand) Outside {
	r := &rotated{path: filepath.Join(filepath.Dir(w.Out), "in.log"), rng: rng}
	if err := os.WriteFile(r.path, nil, 0o600); err != nil {
		tb.Fatal(err)
	}
	return r
}

type rotated struct {
	path  string
	rng   *rand.Rand
	first int // number of the first line of the file at the path
	turns int
}

func (r *rotated) Source() string {
	return fmt.Sprintf("file: {path: %q, format: lines, follow: true, poll_interval: 10ms}", r.path)
}

// Grow appends lines, some of them torn for a moment, and rotates a file away once a line of it was read: one that goes unseen is
// not read, as the connector says.
func (r *rotated) Grow(next, seen int) (int, error) {
	f, err := os.OpenFile(r.path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return next, err
	}
	for range 1 + r.rng.IntN(20) {
		text := line(next) + "\n"
		cut := r.rng.IntN(len(text))
		for _, part := range []string{text[:cut], text[cut:]} {
			if _, err := f.WriteString(part); err != nil {
				return next, err
			}
		}
		next++
	}
	if err := f.Close(); err != nil {
		return next, err
	}
	if seen <= r.first || r.rng.IntN(30) > 0 {
		return next, nil
	}
	r.first = next
	r.turns++
	return next, os.Rename(r.path, fmt.Sprintf("%s.%d", r.path, r.turns))
}

func (r *rotated) Counts() string { return fmt.Sprintf("%d times rotated", r.turns) }

// Partitions is a Kafka topic that gets more partitions.
func Partitions(tb testing.TB, _ *Work, rng *rand.Rand) Outside {
	c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "in"))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(c.Close)
	cl, err := kgo.NewClient(kgo.SeedBrokers(c.ListenAddrs()...), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.MetadataMinAge(20*time.Millisecond))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(cl.Close)
	return &partitions{rng: rng, addr: c.ListenAddrs()[0], cl: cl, n: 1}
}

type partitions struct {
	rng   *rand.Rand
	addr  string
	cl    *kgo.Client
	n     int
	later int // lines in partitions that came later
}

func (k *partitions) Source() string {
	return fmt.Sprintf("kafka: {brokers: [%q], topics: [in], discovery_interval: 100ms}, decode: text", k.addr)
}

// Grow writes lines to partitions at random, and now and then adds one.
func (k *partitions) Grow(next, _ int) (int, error) {
	ctx, cancel := context.WithTimeout(context.Background(), runMax)
	defer cancel()
	if k.n < 30 && k.rng.IntN(20) == 0 {
		if _, err := kadm.NewClient(k.cl).CreatePartitions(ctx, 1, "in"); err != nil {
			return next, err
		}
		k.n++
		k.cl.ForceMetadataRefresh()
	}
	for range 1 + k.rng.IntN(20) {
		rec := &kgo.Record{Topic: "in", Partition: int32(k.rng.IntN(k.n)), Value: []byte(line(next))}
		err := k.cl.ProduceSync(ctx, rec).FirstErr()
		if err != nil && strings.Contains(err.Error(), "invalid record partitioning choice") { // our client does not know of it yet, and sent nothing
			err = k.cl.ProduceSync(ctx, &kgo.Record{Topic: "in", Value: rec.Value}).FirstErr()
		} else if rec.Partition > 0 {
			k.later++
		}
		if err != nil {
			return next, err
		}
		next++
	}
	return next, nil
}

func (k *partitions) Counts() string {
	return fmt.Sprintf("%d of them in the %d partitions that came later", k.later, k.n-1)
}
