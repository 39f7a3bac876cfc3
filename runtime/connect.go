package runtime

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/sidestream-dev/sidestream/jobs"
)

// connectAtOnce is how many outsides are asked side by side.
const connectAtOnce = 64

// question is one end that is asked.
type question struct {
	of  *newDefinition
	end string
	ask func(context.Context) (splits []string, err error)
}

type answer struct {
	question int
	splits   []string
	err      error
}

// connect asks the outsides of every job for an answer, side by side, for at most Config.ConnectTimeout: of sources for their
// splits, of sinks that can (jobs.Prober) whether they could be opened. Nothing is left there. An end that a job has already,
// as it is, is not asked: that it is away keeps nobody from changing something else.
func (a *application) connect(ctx context.Context) error {
	asked := a.questions()
	answers := make(chan answer, len(asked)) // all fit: whoever answers too late is not kept
	within, cancel := context.WithTimeout(ctx, a.rt.cfg.ConnectTimeout)
	defer cancel()
	go askAll(within, asked, answers)
	wrong := map[string][]string{}
	left := map[int]bool{}
	for i := range asked {
		left[i] = true
	}
	for late := stuck(within, a.rt.cfg.StuckAfter); len(left) > 0; {
		select {
		case got := <-answers:
			delete(left, got.question)
			q := asked[got.question]
			if got.err != nil {
				wrong[q.of.Name] = append(wrong[q.of.Name], fmt.Sprintf("%s: %v", q.end, got.err))
			} else if got.splits != nil {
				if q.of.splits == nil {
					q.of.splits = map[string][]string{}
				}
				q.of.splits[strings.TrimPrefix(q.end, "source ")] = got.splits
			}
		case <-late:
			for i := range left {
				q := asked[i]
				wrong[q.of.Name] = append(wrong[q.of.Name], q.end+": its own code was asked and does not return, though its time is over")
			}
			clear(left)
		}
	}
	reasons := map[string]error{}
	for name, texts := range wrong {
		slices.Sort(texts)
		reasons[name] = fmt.Errorf("job %s: %s", name, strings.Join(texts, "; "))
	}
	outside := len(reasons) > 0
	if err := ctx.Err(); err != nil {
		reasons[""], outside = err, false
	}
	if len(reasons) > 0 {
		return &ApplyError{Reasons: reasons, Outside: outside}
	}
	return nil
}

// stuck is closed so long after the end of ctx.
func stuck(ctx context.Context, after time.Duration) <-chan struct{} {
	late := make(chan struct{})
	context.AfterFunc(ctx, func() { time.AfterFunc(after, func() { close(late) }) })
	return late
}

// questions returns what is to be asked.
func (a *application) questions() (asked []question) {
	for _, d := range a.changed {
		for _, n := range d.Nodes {
			switch {
			case !d.newEnd(n):
			case outside(n):
				asked = append(asked, question{d, "source " + n.ID, func(ctx context.Context) ([]string, error) {
					starts, err := a.rt.splitsOf(ctx, d.Job, n)
					ids := []string{}
					for _, st := range starts {
						ids = append(ids, st.Split.ID)
					}
					return ids, err
				}})
			case n.Output != nil && n.Output.Sink != nil:
				if p, ok := n.Output.Sink.(jobs.Prober); ok {
					asked = append(asked, question{d, "output " + n.Output.Name, func(ctx context.Context) ([]string, error) {
						return nil, a.rt.probe(ctx, d, n, p)
					}})
				}
			}
		}
	}
	return asked
}

// askAll asks; whoever does not return in time may stay in the job's own code, and holds up nobody but those whose turn is late.
func askAll(ctx context.Context, asked []question, answers chan<- answer) {
	turn := make(chan struct{}, connectAtOnce)
	for i, q := range asked {
		select {
		case turn <- struct{}{}:
		case <-ctx.Done():
			answers <- answer{i, nil, fmt.Errorf("too many others are asked, and none of them answers; %s", mendIt)}
			continue
		}
		go func() {
			defer func() { <-turn }()
			got := answer{question: i}
			got.err = guarded(q.of.Name, func() (err error) {
				got.splits, err = q.ask(ctx)
				return err
			})
			answers <- got
		}()
	}
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
	return o == nil || describeEnd(o) != describeEnd(n)
}

// describeEnd is describe of a source or output without where it stands in the graph, which is nothing to its outside.
func describeEnd(n *jobs.Node) string {
	end := *n
	end.In, end.Parallelism = nil, 0
	return describe(&end)
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
	return rt.within(ctx, &said, func(ctx context.Context) error { return p.Probe(ctx, env) })
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
