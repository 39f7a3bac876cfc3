package killtest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/sidestream-dev/sidestream/bus"
	"github.com/sidestream-dev/sidestream/jobs/spec"
	"github.com/sidestream-dev/sidestream/runtime/admin"
	"github.com/sidestream-dev/sidestream/wal"
)

// Rounds kills a program that serves, again and again, while actors ask things of it over its socket. The program writes numbers
// to a topic all the time, and its log is so short that it is cut, and the topic moves to the topic store, all the time.
type Rounds struct {
	Command func(w *Work) *exec.Cmd // serves until SIGTERM, with a short log: ServeShort
	Kills   int
	Actors  func(r *Round) []Actor
}

// Actor is a client with something of its own in the program, such as a job that reads the topic. It knows how that must stand,
// but for a change that a kill fell into, which has happened as a whole or not at all.
type Actor interface {
	// Begin makes what is its own, in the first run.
	Begin(p *served) error
	// Act asks for one thing. An error that is the program's own answer, or errWrong, is the test's failure; any other is
	// the kill, which leaves what was asked for pending.
	Act(ctx context.Context, p *served) error
	// Compare looks at how it stands behind a kill.
	Compare(p *served) error
	// End lets it come to an end: all that it disturbed goes on.
	End(p *served) error
	// Check looks at what is left, with the program ended.
	Check(tb testing.TB, w *Work)
	// Counts says what it has done.
	Counts() string
}

// Round is a campaign under way, as actors see it.
type Round struct {
	tb   testing.TB
	work *Work
	rng  *rand.Rand
}

// random returns a source of random numbers for one actor.
func (r *Round) random() *rand.Rand { return rand.New(rand.NewPCG(r.rng.Uint64(), 0)) }

// ServeShort is Serve with a log so short that topics move to the topic store, and with no pace for who catches up.
func ServeShort(tb testing.TB) func(w *Work) *exec.Cmd {
	serve := Serve(tb)
	return func(w *Work) *exec.Cmd {
		c := serve(w) // of a setting given twice the last counts
		c.Args = append(c.Args, "--epoch-bytes", "16KiB", "--sealed-bytes", "128KiB", "--log-max-bytes", "512KiB", "--frame-bytes", "2KiB", "--topic-memory", "16KiB", "--catch-up-percent", "100", "--snapshot-bytes", "128KiB", "--backoff-max", "50ms")
		return c
	}
}

const numbersTopic = "numbers"

// writer writes the numbers from 0 on until it is removed.
const writer = `version: 1
job: writer
source: {generator: {rate: 2000, devices: 7, seed: 1}}
outputs:
  main: {bus: {topic: numbers, retention: {max_bytes: 1GiB}}}
`

// Run is the suite. What is wrong is the test's failure.
func (s Rounds) Run(tb testing.TB) {
	tb.Helper()
	rng, dir := Seeded(tb), tb.TempDir()
	w := &Work{Jobs: filepath.Join(dir, "jobs"), Dir: filepath.Join(dir, "data"), Out: filepath.Join(dir, "out")}
	for _, d := range []string{w.Jobs, w.Out} {
		if err := os.Mkdir(d, 0o700); err != nil {
			tb.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(w.Jobs, "writer.yaml"), []byte(writer), 0o600); err != nil {
		tb.Fatal(err)
	}
	actors := s.Actors(&Round{tb: tb, work: w, rng: rng})
	began, p := time.Now(), serve(tb, s.Command, w)
	must := func(what string, do func(a Actor) error) {
		for _, a := range actors {
			if err := do(a); err != nil {
				tb.Fatalf("%s: %v\n%s", what, err, tail(p.out.Bytes()))
			}
		}
	}
	must("in the beginning", func(a Actor) error { return a.Begin(p) })
	if err := until(context.Background(), "the topic comes to lie in the topic store", func() (bool, error) { return w.stored(tb) > 0, nil }); err != nil {
		tb.Fatal(err)
	}
	for n := range s.Kills {
		s.act(tb, rng, p, actors)
		if rng.IntN(5) == 0 { // one more that falls into recovery
			p = launchServed(tb, s.Command, w)
			time.Sleep(time.Duration(rng.Int64N(int64(100 * time.Millisecond))))
			p.kill(tb)
		}
		p = serve(tb, s.Command, w)
		must(fmt.Sprintf("behind kill %d", n+1), func(a Actor) error { return a.Compare(p) })
	}
	must("in the end", func(a Actor) error { return a.End(p) })
	if err := p.remove(context.Background(), "writer"); err != nil {
		tb.Fatal(err)
	}
	p.untilEnded(tb, func(admin.Job) bool { return true })
	p.stop(tb)
	w.inParts(tb)
	for _, a := range actors {
		a.Check(tb, w)
	}
	if tb.Failed() {
		tb.Fatalf("after %d kills", s.Kills)
	}
	for _, a := range actors {
		tb.Logf("%d kills, %v: %s", s.Kills, time.Since(began).Round(time.Second), a.Counts())
	}
}

// inParts sees that the log's catalogs are in parts, so that kills fell between these too.
func (w *Work) inParts(tb testing.TB) {
	tb.Helper()
	parts := 0
	err := wal.Dump(filepath.Join(w.Dir, "wal"), 0, 0, func(f *wal.Frame) error {
		if f.Kind == wal.KindCatalogPart {
			parts++
		}
		return nil
	})
	if err != nil || parts == 0 {
		tb.Errorf("%d frames in which a catalog goes on are in the log, %v", parts, err)
	}
}

// act lets the actors act, and kills the program in the middle.
func (s Rounds) act(tb testing.TB, rng *rand.Rand, p *served, actors []Actor) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	errs := make([]error, len(actors))
	var wg sync.WaitGroup
	for i, a := range actors {
		wg.Go(func() {
			for ctx.Err() == nil && errs[i] == nil {
				errs[i] = a.Act(ctx, p)
			}
		})
	}
	most := 400 * time.Millisecond
	if rng.IntN(4) == 0 {
		most = 2 * time.Second // once a second the log is cut
	}
	time.Sleep(time.Duration(rng.Int64N(int64(most))))
	p.kill(tb)
	cancel()
	wg.Wait()
	for _, err := range errs {
		var problem *admin.Problem
		if errors.As(err, &problem) || errors.Is(err, errWrong) {
			tb.Fatalf("%v\n%s", err, tail(p.out.Bytes()))
		}
	}
}

// stored is how many bytes lie in the topic store.
func (w *Work) stored(tb testing.TB) (n int64) {
	tb.Helper()
	return w.storedIn(tb, "*")
}

// storedOf is how many bytes of a topic do.
func (w *Work) storedOf(tb testing.TB, id bus.TopicID) (n int64) {
	tb.Helper()
	return w.storedIn(tb, fmt.Sprint(id))
}

func (w *Work) storedIn(tb testing.TB, topic string) (n int64) {
	tb.Helper()
	files, err := filepath.Glob(filepath.Join(w.Dir, "topics", topic, "*", "*"))
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

// define applies one definition.
func (p *served) define(text string, r admin.ApplyRequest) error {
	_, err := p.client.Apply(context.Background(), []spec.File{{Name: "job.yaml", Content: []byte(text)}}, r)
	return err
}

// topic returns how a topic stands.
func (p *served) topic(name string) (bus.TopicStat, error) {
	topics, err := p.client.Topics(context.Background())
	if err != nil {
		return bus.TopicStat{}, err
	}
	i := slices.IndexFunc(topics, func(t bus.TopicStat) bool { return t.Name == name })
	if i < 0 {
		return bus.TopicStat{}, fmt.Errorf("%w: there is no topic %s", errWrong, name)
	}
	return topics[i], nil
}

// subscription returns how a job's subscription of a topic stands; ok is false where it has none.
func (p *served) subscription(topic, job string) (st bus.SubStat, ok bool, err error) {
	t, err := p.topic(topic)
	i := slices.IndexFunc(t.Subscriptions, func(s bus.SubStat) bool {
		return s.Name == job || len(s.Name) > len(job) && s.Name[:len(job)+1] == job+"/"
	})
	if err != nil || i < 0 {
		return st, false, err
	}
	return t.Subscriptions[i], true, nil
}

// until polls until something holds.
func until(ctx context.Context, what string, holds func() (bool, error)) error {
	for began := time.Now(); ; time.Sleep(5 * time.Millisecond) {
		ok, err := holds()
		if ok || err != nil {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if time.Since(began) > runMax {
			return fmt.Errorf("%w: not within %v: %s", errWrong, runMax, what)
		}
	}
}

// isProblem reports whether an error is an answer of the program of that kind.
func isProblem(err error, kind admin.Kind) bool {
	var p *admin.Problem
	return errors.As(err, &p) && p.Kind() == kind
}
