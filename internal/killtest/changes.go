package killtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sidestream-dev/sidestream/internal/airdata"
	"github.com/sidestream-dev/sidestream/jobs/spec"
	"github.com/sidestream-dev/sidestream/runtime"
	"github.com/sidestream-dev/sidestream/runtime/admin"
)

// Changes kills a program that runs a Work's six jobs while two clients add, change, pause, resume, restart and remove further
// jobs over its socket. A campaign lasts until the six have ended; then the six must have left what they leave when nobody
// disturbs them, and the further jobs, changed or not, what each should have: see changecheck.go.
type Changes struct {
	Command func(w *Work) *exec.Cmd // serves until SIGTERM
	Times   int                     // how often the sample's stations stand in the data
	Kills   int
	Mean    int // changes begun between two kills, on average
}

// anchor is a further job that could write the topic echo as long as a campaign lasts, so that its readers do not end before.
const anchor = "anchor"

const anchorText = "version: 1\njob: anchor\nsource: {bus: quiet}\noutputs:\n  main: {bus: echo}\n"

// Serve returns the command that serves a Work with the real program until SIGTERM. The jobs wait for the disk, with epochs so
// small, and so have work for longer; a probation is over within a run, or the next.
func Serve(tb testing.TB) func(w *Work) *exec.Cmd {
	done := Sidestream(tb)
	return func(w *Work) *exec.Cmd {
		c := done(w)
		c.Args = slices.DeleteFunc(c.Args, func(a string) bool { return a == "--until-done" })
		c.Args = append(c.Args, "--update-probation", "300ms", "--epoch-bytes", "4KiB", "--sealed-bytes", "4KiB")
		return c
	}
}

// Run is the suite. What is wrong is the test's failure.
func (s Changes) Run(tb testing.TB) {
	tb.Helper()
	rng := Seeded(tb)
	data := Times(tb, airdata.Sample(tb), s.Times)
	want := airdata.Expect(tb, data)
	left := s.undisturbed(tb, data, want)
	began, counts, campaigns := time.Now(), map[string]int{}, 0
	for done := 0; done < s.Kills; campaigns++ {
		c := newCampaign(tb, s, data, rng)
		kills := c.kill(s.Kills - done)
		done += kills
		c.finish()
		c.work.Check(tb, left, want, nil)
		c.checkFurther()
		for what, n := range c.counts() {
			counts[what] += n
		}
		if tb.Failed() {
			tb.Fatalf("campaign %d, after %d kills", campaigns+1, done)
		}
	}
	total := 0
	var each []string
	for _, what := range slices.Sorted(maps.Keys(counts)) {
		each = append(each, fmt.Sprintf("%d %s", counts[what], what))
	}
	for _, what := range []string{didAdd, didUpdate, didRemove, didPause, didResume, didRestart} {
		total += counts[what]
	}
	tb.Logf("%d changes and %d kills in %d campaigns, %v: %s", total, s.Kills, campaigns, time.Since(began).Round(time.Second), strings.Join(each, ", "))
}

func (s Changes) undisturbed(tb testing.TB, data airdata.Data, want airdata.Expected) Left {
	tb.Helper()
	w := NewWork(tb, data, ExactlyOnce)
	p := serve(tb, s.Command, w)
	p.untilEnded(tb, func(admin.Job) bool { return true })
	p.stop(tb)
	left := w.Left(tb)
	w.Check(tb, left, want, nil)
	return left
}

// changeCampaign is one Work under changes and kills.
type changeCampaign struct {
	tb      testing.TB
	suite   Changes
	work    *Work
	rng     *rand.Rand
	clients []*changer
	lasting *changer
	both    *bothChange
	runs    int
	last    *served // the run that is under way

	mu    sync.Mutex
	begun []*further // every life of every further job
}

func newCampaign(tb testing.TB, s Changes, data airdata.Data, rng *rand.Rand) *changeCampaign {
	c := &changeCampaign{tb: tb, suite: s, work: NewWork(tb, data, ExactlyOnce), rng: rng, both: &bothChange{}}
	for i, names := range [][]string{{"a0", "a1", "a2"}, {"b0", "b1", "b2"}} {
		c.clients = append(c.clients, &changer{campaign: c, rng: rand.New(rand.NewPCG(rng.Uint64(), uint64(i))), names: names,
			now: map[string]further{}, counts: map[string]int{}})
	}
	lasting := &changer{campaign: c, now: map[string]further{}, counts: map[string]int{}} // added first, and never changed
	for name, k := range map[string]kind{"counts": counts, "writes": writes, "hears": hears} {
		lasting.names, lasting.now[name] = append(lasting.names, name), c.begin(name, k)
	}
	c.lasting = lasting
	return c
}

// kill runs the program, with both clients at work, and kills it, at most most times, until the six jobs have ended.
func (c *changeCampaign) kill(most int) (kills int) {
	for ; kills < most; kills++ {
		c.start()
		if c.sixEnded() {
			return kills
		}
		c.run()
		if c.tb.Failed() {
			c.tb.FailNow()
		}
	}
	return kills
}

// start starts the program and sees that all is as the clients left it.
func (c *changeCampaign) start() {
	if c.last != nil {
		return
	}
	if c.runs > 0 && c.rng.IntN(5) == 0 { // one more that falls into recovery
		p := launchServed(c.tb, c.suite.Command, c.work)
		time.Sleep(time.Duration(c.rng.Int64N(int64(60 * time.Millisecond))))
		p.kill(c.tb)
	}
	c.last = serve(c.tb, c.suite.Command, c.work)
	if c.runs++; c.runs == 1 {
		if _, err := c.last.client.Apply(context.Background(), []spec.File{{Name: anchor, Content: []byte(anchorText)}}, admin.ApplyRequest{}); err != nil {
			c.tb.Fatal(err)
		}
		if _, err := c.last.apply(slices.Collect(maps.Values(c.lasting.now))...); err != nil {
			c.tb.Fatal(err)
		}
	}
	for _, cl := range c.all() {
		if err := cl.compare(c.last); err != nil {
			c.tb.Fatalf("run %d: %v", c.runs, err)
		}
	}
	if err := c.both.compare(c.last); err != nil {
		c.tb.Fatalf("run %d: %v", c.runs, err)
	}
}

// run lets both clients change jobs, and kills the program in the middle.
func (c *changeCampaign) run() {
	p := c.last
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	begun := make(chan struct{}, 1024)
	errs := make([]error, len(c.clients))
	var wg sync.WaitGroup
	for i, cl := range c.clients {
		wg.Go(func() { errs[i] = cl.work(ctx, p, begun) })
	}
	for range 1 + c.rng.IntN(2*c.suite.Mean) {
		select {
		case <-begun:
		case <-p.ended:
		case <-time.After(runMax):
			c.tb.Error("the clients hang")
		}
	}
	time.Sleep(time.Duration(c.rng.Int64N(int64(8 * time.Millisecond))))
	p.kill(c.tb)
	cancel()
	wg.Wait()
	c.last = nil
	if err := errors.Join(errs...); err != nil {
		c.tb.Fatalf("run %d: %v", c.runs, err)
	}
}

// sixEnded reports whether the Work's own jobs have ended.
func (c *changeCampaign) sixEnded() bool {
	js, err := c.last.client.Jobs(context.Background())
	if err != nil {
		c.tb.Fatal(err)
	}
	return !slices.ContainsFunc(js, func(j admin.Job) bool { return j.Origin == runtime.OriginFile && j.Phase != runtime.PhaseEnded })
}

// all are the clients, and who has the jobs that last.
func (c *changeCampaign) all() []*changer { return append(slices.Clone(c.clients), c.lasting) }

func (c *changeCampaign) counts() map[string]int {
	counts := map[string]int{}
	for _, cl := range c.clients {
		for what, n := range cl.counts {
			counts[what] += n
		}
	}
	return counts
}

// served is one run of a program that serves.
type served struct {
	cmd    *exec.Cmd
	out    *output
	ended  chan struct{} // closed; err is set then
	err    error
	client *admin.Client
	slow   time.Duration // beyond runMax, that jobs may take to end
}

// output is what a program says, which may be looked at while it runs.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

// Bytes returns what was said so far.
func (o *output) Bytes() []byte {
	o.mu.Lock()
	defer o.mu.Unlock()
	return bytes.Clone(o.b.Bytes())
}

func launchServed(tb testing.TB, command func(w *Work) *exec.Cmd, w *Work) *served {
	tb.Helper()
	p := &served{cmd: command(w), out: &output{}, ended: make(chan struct{}),
		client: admin.NewClient(filepath.Join(w.Dir, "run", "admin.sock"))}
	p.cmd.Stdout, p.cmd.Stderr = p.out, p.out
	if err := p.cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.ended)
	}()
	tb.Cleanup(func() { // where the test gave up
		select {
		case <-p.ended:
		default:
			_ = p.cmd.Process.Kill() // it is ours, and the test says more
			<-p.ended
		}
	})
	return p
}

// serve starts a program and waits until its jobs can be changed.
func serve(tb testing.TB, command func(w *Work) *exec.Cmd, w *Work) *served {
	tb.Helper()
	p := launchServed(tb, command, w)
	for began := time.Now(); ; time.Sleep(2 * time.Millisecond) {
		var busy *admin.Problem // a job that is not there is not found once jobs can be changed
		if _, err := p.client.PauseJob(context.Background(), "nobody"); errors.As(err, &busy) && busy.Kind() == admin.KindNotFound {
			return p
		}
		select {
		case <-p.ended:
			tb.Fatalf("the program ended: %v\n%s", p.err, tail(p.out.Bytes()))
		default:
		}
		if time.Since(began) > runMax {
			p.kill(tb)
			tb.Fatalf("the program did not begin to serve within %v\n%s", runMax, tail(p.out.Bytes()))
		}
	}
}

// kill ends it with SIGKILL. One that has ended by itself is a failure.
func (p *served) kill(tb testing.TB) {
	tb.Helper()
	select {
	case <-p.ended:
		tb.Fatalf("the program ended by itself: %v\n%s", p.err, tail(p.out.Bytes()))
	default:
	}
	if err := p.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		tb.Fatal(err)
	}
	<-p.ended
}

// stop ends it in order.
func (p *served) stop(tb testing.TB) {
	tb.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		tb.Fatal(err)
	}
	select {
	case <-p.ended:
	case <-time.After(runMax):
		p.kill(tb)
		tb.Fatalf("it did not stop\n%s", tail(p.out.Bytes()))
	}
	if p.err != nil {
		tb.Fatalf("stopping: %v\n%s", p.err, tail(p.out.Bytes()))
	}
}

// untilEnded waits until the jobs that are meant have ended, and all that they gave out is sent.
func (p *served) untilEnded(tb testing.TB, meant func(admin.Job) bool) {
	tb.Helper()
	for began := time.Now(); ; time.Sleep(5 * time.Millisecond) {
		js, err := p.client.Jobs(context.Background())
		if err != nil {
			tb.Fatalf("%v\n%s", err, tail(p.out.Bytes()))
		}
		i := slices.IndexFunc(js, func(j admin.Job) bool { return meant(j) && !over(j) })
		if i < 0 {
			return
		}
		if time.Since(began) > runMax+p.slow {
			tb.Fatalf("job %s has not ended within %v: %+v\n%+v\n%s", js[i].Name, runMax+p.slow, js[i], js[i].Status, tail(p.out.Bytes()))
		}
	}
}

func over(j admin.Job) bool {
	return j.Phase == runtime.PhaseEnded && (j.Status == nil ||
		!slices.ContainsFunc(j.Status.Outputs, func(o runtime.OutputStatus) bool { return o.Unsent > 0 }))
}

// apply applies definitions in one request.
func (p *served) apply(fs ...further) (admin.ApplyResult, error) {
	var files []spec.File
	for _, f := range fs {
		files = append(files, spec.File{Name: f.name + ".yaml", Content: []byte(f.text())})
	}
	return p.client.Apply(context.Background(), files, admin.ApplyRequest{})
}
