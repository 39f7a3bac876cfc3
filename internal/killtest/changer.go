package killtest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/sidestream-dev/sidestream/runtime"
	"github.com/sidestream-dev/sidestream/runtime/admin"
)

// kind is what a further job does.
type kind int

const (
	counts kind = iota // windows over the topic exceedances, to a file
	writes             // exceedances to the topic echo
	hears              // echo to a file
	kinds
)

// further is a job beside the six, as it is defined now.
type further struct {
	name     string
	kind     kind
	life     int // no two jobs, also of one name, have the same
	version  int // changes with each update
	parallel int
	paused   bool
	path     string // of its file
}

func (f further) tag() string { return fmt.Sprintf("%s-%d", f.name, f.life) }

// text is its definition.
func (f further) text() string {
	head := fmt.Sprintf("version: 1\njob: %s\ndelivery: exactly_once\nparallelism: %d\n", f.name, f.parallel)
	file := fmt.Sprintf("outputs:\n  main: {file: {path: %q, format: jsonl}}\n", f.path)
	switch f.kind {
	case counts:
		return head + "source: {bus: exceedances}\nsteps:\n  - {id: days, window: {tumbling: 24h, aggregate: {n: count()}}}\n" +
			fmt.Sprintf("  - map: {station: key, start: value.window.start, n: value.n, v: %d}\n", f.version) + file
	case writes:
		return head + fmt.Sprintf("source: {bus: exceedances}\nsteps:\n  - map: {by: '%q', station: value.station, pollutant: value.pollutant, start: value.start, v: %d}\n",
			f.tag(), f.version) + "outputs:\n  main: {bus: echo}\n"
	}
	return head + fmt.Sprintf("source: {bus: echo}\nsteps:\n  - map: {by: value.by, station: value.station, pollutant: value.pollutant, start: value.start, w: %d}\n", f.version) + file
}

// begin makes the next life of a job and takes it down: what it writes is looked at in the end, however it ends.
func (c *changeCampaign) begin(name string, k kind) further {
	c.mu.Lock()
	defer c.mu.Unlock()
	f := &further{name: name, kind: k, life: len(c.begun), parallel: 1}
	f.path = filepath.Join(c.work.Out, f.tag()+".jsonl")
	c.begun = append(c.begun, f)
	return *f
}

// What a client did, as it is counted.
const (
	didAdd     = "added"
	didUpdate  = "updated"
	didRemove  = "removed"
	didPause   = "paused"
	didResume  = "resumed"
	didRestart = "restarted"
	didRefused = "refused, as they should be"
	didWhole   = "killed in the middle and there"
	didAbsent  = "killed in the middle and absent"
	didBoth    = "of a job that both clients change"
)

// changer is a client. Its jobs are its own, so that it knows how each must stand: as it was left by the last change that was
// acknowledged, or, where the kill fell into one, before or behind that.
type changer struct {
	campaign *changeCampaign
	rng      *rand.Rand
	names    []string
	now      map[string]further // the jobs there are
	pending  *changeOf
	counts   map[string]int
}

// changeOf is a change that was asked for.
type changeOf struct {
	what   string
	names  []string           // of the jobs that it concerns
	behind map[string]further // the jobs there are, once it has happened
}

// work makes changes until ctx ends or the program is gone. begun gets one for each.
func (c *changer) work(ctx context.Context, p *served, begun chan<- struct{}) error {
	for ctx.Err() == nil {
		select {
		case begun <- struct{}{}:
		case <-ctx.Done():
			return nil
		}
		var err error
		if c.rng.IntN(8) == 0 {
			err = c.campaign.both.change(ctx, c, p)
		} else {
			err = c.change(ctx, p)
		}
		var problem *admin.Problem
		switch {
		case err == nil:
		case errors.As(err, &problem), errors.Is(err, errWrong):
			return err
		default:
			return nil // it is killed; a change under way stays pending
		}
	}
	return nil
}

var errWrong = errors.New("not as it should be")

// change makes one change of jobs of its own.
func (c *changer) change(ctx context.Context, p *served) error {
	name := c.names[c.rng.IntN(len(c.names))]
	f, there := c.now[name]
	switch n := c.rng.IntN(20); {
	case n < 9 || !there && n < 18:
		return c.apply(p, name)
	case n < 11 && there:
		return c.move(ctx, p, didPause, f)
	case n < 14 && there:
		return c.move(ctx, p, didResume, f)
	case n < 15 && there && f.kind == hears: // no other may have ended, which a restart begins anew
		return c.move(ctx, p, didRestart, f)
	case n < 18:
		return c.remove(ctx, p, name)
	}
	return c.refused(p)
}

// do asks for a change and takes down what came of it. while it is asked, a kill leaves it pending.
func (c *changer) do(what string, behind map[string]further, names []string, ask func() error) error {
	c.pending = &changeOf{what: what, names: names, behind: behind}
	if err := ask(); err != nil {
		return fmt.Errorf("%s %s: %w", what, strings.Join(names, " and "), err)
	}
	c.now, c.pending = behind, nil
	c.counts[what]++
	return nil
}

// next is a job changed, or a new one.
func (c *changer) next(name string) (f further, what string) {
	f, there := c.now[name]
	if !there {
		f = c.campaign.begin(name, kind(c.rng.IntN(int(kinds))))
		f.parallel = 1 + c.rng.IntN(3)
		return f, didAdd
	}
	f.version++
	if c.rng.IntN(3) == 0 {
		f.parallel = 1 + c.rng.IntN(3)
	}
	return f, didUpdate
}

// apply adds or changes a job, now and then another in the same request.
func (c *changer) apply(p *served, name string) error {
	f, what := c.next(name)
	fs, behind := []further{f}, maps.Clone(c.now)
	behind[name] = f
	if other := c.names[c.rng.IntN(len(c.names))]; other != name && c.rng.IntN(3) == 0 {
		g, _ := c.next(other)
		fs, behind[other] = append(fs, g), g
	}
	return c.do(what, behind, namesOf(fs), func() error {
		res, err := p.apply(fs...)
		if err == nil && (len(res.Jobs) != len(fs) || res.Jobs[0].Action == runtime.ActionUnchanged) {
			return fmt.Errorf("%w: %+v", errWrong, res.Jobs)
		}
		return err
	})
}

func namesOf(fs []further) (names []string) {
	for _, f := range fs {
		names = append(names, f.name)
	}
	return names
}

func (c *changer) move(ctx context.Context, p *served, what string, f further) error {
	behind := maps.Clone(c.now)
	f.paused = what == didPause
	behind[f.name] = f
	err := c.do(what, behind, []string{f.name}, func() (err error) {
		switch what {
		case didPause:
			_, err = p.client.PauseJob(ctx, f.name)
		case didResume:
			_, err = p.client.ResumeJob(ctx, f.name)
		default:
			_, err = p.client.RestartJob(ctx, f.name)
		}
		return err
	})
	var problem *admin.Problem
	if !errors.As(err, &problem) {
		return err
	}
	j, lookErr := p.client.Job(ctx, f.name)
	if lookErr != nil {
		return lookErr
	}
	if j.Phase != runtime.PhaseEnded { // one that has ended meanwhile cannot be paused
		return fmt.Errorf("%w, and it is %s", err, j.Phase)
	}
	c.pending = nil
	return nil
}

func (c *changer) remove(ctx context.Context, p *served, name string) error {
	if _, there := c.now[name]; !there {
		return nil
	}
	behind := maps.Clone(c.now)
	delete(behind, name)
	return c.do(didRemove, behind, []string{name}, func() error { return p.remove(ctx, name) })
}

// remove removes a job and waits until it is gone.
func (p *served) remove(ctx context.Context, name string) error {
	op, err := p.client.RemoveJob(ctx, name, runtime.RemoveOptions{})
	if err != nil {
		return err
	}
	_, err = p.client.Await(ctx, op, func(admin.Operation) {})
	return err
}

// refused asks for a good job and one that cannot be, since its file is another's: neither may be there.
func (c *changer) refused(p *served) error {
	var fs []further
	for _, name := range c.names[:2] {
		f, _ := c.next(name)
		fs = append(fs, f)
	}
	bad := c.campaign.begin("bad-"+c.names[0], hears)
	bad.path = c.campaign.work.OutputPath("alerts")
	fs = append(fs, bad)
	err := c.do(didRefused, c.now, append(slices.Clone(c.names), bad.name), func() error {
		_, err := p.apply(fs...)
		var problem *admin.Problem
		if errors.As(err, &problem) && problem.Kind() == admin.KindRefused {
			return nil
		}
		if err == nil {
			err = fmt.Errorf("%w: two jobs may write one file", errWrong)
		}
		return err
	})
	return err
}

// compare looks at how the client's jobs stand in a program that has started again: as acknowledged; a change that the kill
// fell into has happened as a whole, or not at all.
func (c *changer) compare(p *served) error {
	before := c.differs(p, c.now)
	if c.pending == nil {
		return before
	}
	change := c.pending
	c.pending = nil
	behind := c.differs(p, change.behind)
	switch {
	case before == nil && (behind != nil || change.what == didRefused):
		c.counts[didAbsent]++
		return nil
	case behind == nil:
		c.now = change.behind
		c.counts[didWhole]++
		return nil
	}
	return fmt.Errorf("%s %v, killed in the middle, is neither whole nor absent: %w; %w", change.what, change.names, before, behind)
}

// differs says where the jobs of a client are not those of want.
func (c *changer) differs(p *served, want map[string]further) error {
	for _, name := range append(slices.Clone(c.names), "bad-"+c.names[0]) { // what is refused is not there either
		f, there := want[name]
		j, err := p.client.Job(context.Background(), name)
		var problem *admin.Problem
		switch gone := errors.As(err, &problem) && problem.Kind() == admin.KindNotFound; {
		case gone && there:
			return fmt.Errorf("job %s, which was there, is not", name)
		case gone:
		case err != nil:
			return err
		case !there:
			return fmt.Errorf("job %s, which was removed or never added, is there", name)
		case j.Definition != f.text():
			return fmt.Errorf("job %s is defined as\n%s\nand should be\n%s", name, j.Definition, f.text())
		case f.paused != (j.Phase == runtime.PhasePaused): // one that is paused does not end
			return fmt.Errorf("job %s is %s; paused should be %v", name, j.Phase, f.paused)
		}
	}
	return nil
}

// both is a job that both clients add, change and remove, often at once. Its definition behind a kill must be what some change
// made of it that no other, acknowledged and asked for later, has replaced.
const both = "both"

type bothChange struct {
	mu   sync.Mutex
	tick int
	list []*bothWrite
}

// bothWrite is one change: it happened between two ticks, or, where it was not acknowledged, perhaps.
type bothWrite struct {
	text       string // "" removes it
	begin, end int    // end is 0 until it is acknowledged
}

func (b *bothChange) begin(text string) *bothWrite {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.tick++
	w := &bothWrite{text: text, begin: b.tick}
	b.list = append(b.list, w)
	return w
}

// over takes down that a change was acknowledged, or, if not done, had no effect.
func (b *bothChange) over(w *bothWrite, done bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.tick++
	w.end = b.tick
	if !done {
		b.list = slices.DeleteFunc(b.list, func(o *bothWrite) bool { return o == w })
	}
}

func (b *bothChange) change(ctx context.Context, c *changer, p *served) (err error) {
	var w *bothWrite
	if c.rng.IntN(3) == 0 {
		w = b.begin("")
		err = p.remove(ctx, both)
	} else {
		f := c.campaign.begin(both, writes)
		w = b.begin(f.text())
		_, err = p.apply(f)
	}
	var problem *admin.Problem
	switch {
	case err == nil:
		b.over(w, true)
		c.counts[didBoth]++
	case errors.As(err, &problem) && problem.Kind() == admin.KindNotFound:
		b.over(w, false)
	default:
		return err
	}
	return nil
}

func (b *bothChange) compare(p *served) error {
	var text string
	j, err := p.client.Job(context.Background(), both)
	var problem *admin.Problem
	switch {
	case err == nil:
		text = j.Definition
	case !errors.As(err, &problem) || problem.Kind() != admin.KindNotFound:
		return err
	}
	if !slices.ContainsFunc(b.possible(), func(w *bothWrite) bool { return w.text == text }) {
		return fmt.Errorf("job %s is %q, which none of the last changes made of it", both, text)
	}
	b.list = []*bothWrite{{text: text, end: b.tick}}
	return nil
}

// possible returns the changes that may have been the last.
func (b *bothChange) possible() (out []*bothWrite) {
	if len(b.list) == 0 {
		return []*bothWrite{{}}
	}
	for _, w := range b.list {
		if !slices.ContainsFunc(b.list, func(o *bothWrite) bool { return w.end > 0 && o.end > 0 && o.begin > w.end }) {
			out = append(out, w)
		}
	}
	return out
}
