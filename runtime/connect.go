package runtime

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sidestream-dev/sidestream/jobs"
)

// connectAtOnce is how many outsides are asked side by side.
const connectAtOnce = 64

// connect asks the outsides of every job for an answer, side by side, each for at most Config.ConnectTimeout: of sources for
// their splits, of sinks that can (jobs.Prober) whether they could be opened. Nothing is left there. An end that a job has
// already, as it is, is not asked: that it is away keeps nobody from changing something else.
func (a *application) connect(ctx context.Context) error {
	var mu sync.Mutex // of d.splits, and of wrong
	wrong := map[string][]string{}
	var asks []func() error
	var of []string // whose they are
	for _, d := range a.changed {
		for _, n := range d.Nodes {
			switch {
			case !d.newEnd(n):
			case outside(n):
				asks = append(asks, func() error {
					starts, err := a.rt.splitsOf(ctx, d.Job, n)
					if err != nil {
						return fmt.Errorf("source %s: %w", n.ID, err)
					}
					ids := []string{}
					for _, st := range starts {
						ids = append(ids, st.Split.ID)
					}
					mu.Lock()
					defer mu.Unlock()
					if d.splits == nil {
						d.splits = map[string][]string{}
					}
					d.splits[n.ID] = ids
					return nil
				})
				of = append(of, d.Name)
			case n.Output != nil && n.Output.Sink != nil:
				if p, ok := n.Output.Sink.(jobs.Prober); ok {
					asks = append(asks, func() error { return a.rt.probe(ctx, d, n, p) })
					of = append(of, d.Name)
				}
			}
		}
	}
	var under sync.WaitGroup
	turn := make(chan struct{}, connectAtOnce)
	for i, ask := range asks {
		turn <- struct{}{}
		under.Go(func() {
			defer func() { <-turn }()
			if err := guarded(of[i], ask); err != nil {
				mu.Lock()
				defer mu.Unlock()
				wrong[of[i]] = append(wrong[of[i]], err.Error())
			}
		})
	}
	under.Wait()
	reasons := map[string]error{}
	for name, texts := range wrong {
		slices.Sort(texts)
		reasons[name] = fmt.Errorf("job %s: %s", name, strings.Join(texts, "; "))
	}
	if err := ctx.Err(); err != nil {
		reasons[""] = err
	}
	if len(reasons) > 0 {
		return &ApplyError{reasons}
	}
	return nil
}

// guarded calls code that may be a job's own.
func guarded(job string, f func() error) (err error) {
	defer recovered(&err, job, "", 0)
	return f()
}

// newEnd reports whether a source or output is one that the job did not have, or had otherwise.
func (d *newDefinition) newEnd(n *jobs.Node) bool {
	if d.have == nil || d.old == nil {
		return true
	}
	o := d.old.def.Node(n.ID)
	return o == nil || describe(o) != describe(n)
}

func (rt *Runtime) splitsOf(ctx context.Context, d *jobs.Job, n *jobs.Node) ([]jobs.Start, error) {
	var said lastSaid
	env := jobs.SourceEnv{Job: d.Name, Step: n.ID, Logger: slog.New(slog.DiscardHandler), DataDir: rt.cfg.DataDir, Services: rt.cfg.Services,
		Waiting: said.set}
	var starts []jobs.Start
	err := rt.within(ctx, &said, func(ctx context.Context) (err error) {
		starts, err = n.Source.Source.Splits(ctx, env)
		return err
	})
	return starts, err
}

// probe asks whether an output could be opened. One that the job keeps is asked for with what it knows of what is there.
func (rt *Runtime) probe(ctx context.Context, d *newDefinition, n *jobs.Node, p jobs.Prober) error {
	var said lastSaid
	env := jobs.SinkEnv{Job: d.Name, Output: n.Output.Name, LogID: rt.log.ID().String(), Delivery: d.Delivery, Logger: slog.New(slog.DiscardHandler),
		DataDir: rt.cfg.DataDir, Services: rt.cfg.Services, Waiting: said.set}
	if d.have != nil {
		if outs := d.have.outputs(); d.kept(outs, n) >= 0 {
			o := outs[d.kept(outs, n)]
			env.State, env.Known = o.Sent.State, int64(rt.bus.Next(o.Topic, 0))
		}
	}
	err := rt.within(ctx, &said, func(ctx context.Context) error { return p.Probe(ctx, env) })
	if err != nil {
		return fmt.Errorf("output %s: %w", n.Output.Name, err)
	}
	return nil
}

// within gives an outside so long to answer. Where it does not, the error is what it waits for, as far as it has said.
func (rt *Runtime) within(ctx context.Context, said *lastSaid, ask func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, rt.cfg.ConnectTimeout)
	defer cancel()
	err := ask(ctx)
	if err == nil || ctx.Err() == nil {
		return err
	}
	if why := said.get(); why != "" {
		return fmt.Errorf("it waits for %s; %s", why, mendIt)
	}
	return fmt.Errorf("no answer within %v; %s", rt.cfg.ConnectTimeout.Round(time.Millisecond), mendIt)
}

const mendIt = "see to that, or change the definition, and apply again"

// lastSaid keeps what an end waits for.
type lastSaid struct{ why atomic.Pointer[string] }

// set keeps a reason; that it goes on ends none, since whoever gives up says so too.
func (l *lastSaid) set(why string) {
	if why != "" {
		l.why.Store(&why)
	}
}

func (l *lastSaid) get() string {
	if p := l.why.Load(); p != nil {
		return *p
	}
	return ""
}
