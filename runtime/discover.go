package runtime

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/sidestream-dev/sidestream/jobs"
)

// discovery looks for splits that a source gets while it is read, and gives them to the source's subtasks. Where a split
// begins stands in the next epoch, with what was read of it; a crash before that finds it again, at the same place.
type discovery struct {
	source jobs.Discoverer
	env    jobs.SourceEnv
	to     []*subtask
	found  int // so many splits there are: the next is for subtask found mod len(to), as at a restart
	gone   atomic.Bool
}

func newDiscovery(d jobs.Discoverer, env jobs.SourceEnv, to []*subtask, states []splitState) *discovery {
	env.Known = nil
	for _, st := range states {
		env.Known = append(env.Known, st.start)
	}
	env.Waiting = func(string) {} // whoever reads the source says what it waits for
	return &discovery{source: d, env: env, to: to, found: len(states)}
}

// run returns when ctx has ended, or with the attempt's failure.
func (d *discovery) run(ctx context.Context) error {
	for {
		starts, err := d.source.Discover(ctx, d.env)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return err
		case len(starts) == 0:
			return errors.New("looking for new splits has found none and not waited")
		}
		d.give(starts)
	}
}

// give hands new splits to the subtasks that are to read them.
func (d *discovery) give(starts []jobs.Start) {
	for _, st := range starts {
		d.env.Logger.Info("a new split is read", "job", d.env.Job, "step", d.env.Step, "split", st.Split.ID)
		s := d.to[d.found%len(d.to)]
		s.feed.(*outsideFeed).offer(st)
		s.wake()
		d.found++
	}
	d.env.Known = append(d.env.Known, starts...)
}

// runDiscovery is the goroutine of a discovery.
func (x *execution) runDiscovery(d *discovery) {
	defer x.running.Done()
	defer d.gone.Store(true)
	err := func() (err error) {
		defer recovered(&err, x.name, d.env.Step, 0)
		return d.run(x.ctx)
	}()
	if err != nil {
		if _, ours := errors.AsType[*JobError](err); !ours {
			err = &JobError{Job: x.name, Step: d.env.Step, Err: err}
		}
		x.post(event{kind: eventFailed, err: err})
	}
}

// offer leaves a new split for the subtask to take. Any goroutine may call it.
func (f *outsideFeed) offer(st jobs.Start) {
	f.newsMu.Lock()
	f.news = append(f.news, st)
	f.newsMu.Unlock()
	f.isNews.Store(true)
}

// takeNews begins to read the new splits.
func (f *outsideFeed) takeNews(s *subtask) error {
	f.isNews.Store(false)
	f.newsMu.Lock()
	starts := f.news
	f.news = nil
	f.newsMu.Unlock()
	if len(starts) == 0 {
		return nil
	}
	g, ok := f.reader.(jobs.Grower)
	if !ok {
		return &JobError{Job: s.ex.name, Step: f.node.ID, Subtask: s.index, Err: fmt.Errorf("source %s finds new splits, and its reader takes none", f.node.Kind)}
	}
	if err := g.Add(starts); err != nil {
		return &JobError{Job: s.ex.name, Step: f.node.ID, Subtask: s.index, Err: err}
	}
	for _, st := range starts {
		f.want = append(f.want, len(f.splits))
		f.splits = append(f.splits, splitState{start: st, position: st.Position, watermark: jobs.WatermarkNone, seen: f.now(), moved: true})
	}
	s.changed()
	return nil
}
