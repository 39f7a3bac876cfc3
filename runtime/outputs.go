package runtime

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/sidestream-dev/sidestream/bus"
	"github.com/sidestream-dev/sidestream/jobs"
)

// Outputs to the outside over changes of their job: which go on, which are given up, and what becomes of what these have yet to
// send. A place that only one output may have (jobs.Exclusive) stays that of an output that is given up for as long as it may
// come back, or is being sent.

// UnsentError keeps a job from being removed, or its outputs from being given up: the outside does not have all of them.
type UnsentError struct {
	Job     string
	Unsent  map[string]int64  // by output
	Waiting map[string]string // what for, as far as it is known
	GivenUp bool              // by another definition of the job
	Earlier map[string]int64  // of Unsent, what an earlier change gave up, at At
	At      time.Time
}

func (e *UnsentError) Error() string {
	var outs, earlier []string
	for _, name := range slices.Sorted(maps.Keys(e.Unsent)) {
		why := ""
		if w := e.Waiting[name]; w != "" {
			why = " (" + w + ")"
		}
		if n := e.Unsent[name] - e.Earlier[name]; n > 0 {
			outs = append(outs, fmt.Sprintf("%d records of output %s%s", n, name, why))
		}
		if n := e.Earlier[name]; n > 0 {
			earlier = append(earlier, fmt.Sprintf("%d records of output %s%s", n, name, why))
		}
	}
	what := strings.Join(outs, ", ")
	if e.GivenUp && len(outs) > 0 {
		what += ", which its definition gives up,"
	}
	if len(earlier) > 0 {
		if what != "" {
			what += " and "
		}
		what += fmt.Sprintf("%s, %s,", strings.Join(earlier, ", "), gaveUpText(len(earlier), e.At))
	}
	switch {
	case !e.GivenUp:
		return fmt.Sprintf("job %s is not removed: %s were never sent; wait until they are, or drop them", e.Job, what)
	case len(outs) == 0:
		return fmt.Sprintf("job %s: %s were never sent; wait until they are, or drop them", e.Job, what)
	}
	return fmt.Sprintf("job %s: %s were never sent; keep it until they are, or drop them", e.Job, what)
}

// unsentOf counts what the outputs of a job hold that was never sent.
func unsentOf(c *core, e *jobEntry) map[string]int64 {
	unsent := map[string]int64{}
	for _, o := range e.outputs() {
		if n := unsentIn(c.bus, o); n > 0 {
			unsent[o.Name] += n
		}
	}
	return unsent
}

// unsentIn counts what an output holds that was never sent, by what the log says.
func unsentIn(b *bus.Bus, o outputEntry) int64 {
	if !o.Outside {
		return 0
	}
	return int64(b.Next(o.Topic, 0)) - int64(o.Sent.Next)
}

// kept returns which of a job's outputs an output of its new definition goes on with, or -1.
func (d *definition) kept(outs []outputEntry, n *jobs.Node) int {
	return slices.IndexFunc(outs, func(h outputEntry) bool {
		return h.Outside && h.Name == n.Output.Name && (h.Place == placeOf(n.Output.Sink) || h.Place == "")
	})
}

// keeps reports whether one of a definition's outputs goes on with one of the job's.
func (d *definition) keeps(h outputEntry) bool {
	return slices.ContainsFunc(d.Outputs(), func(n *jobs.Node) bool {
		return n.Output.Sink != nil && d.kept([]outputEntry{h}, n) == 0
	})
}

// placeOf is where outside an output goes; another place is another output.
func placeOf(s jobs.Sink) string {
	if x, ok := s.(jobs.Exclusive); ok {
		return x.Place()
	}
	return s.Kind()
}

func (r *registration) outputs(d *definition, have *jobEntry, jc *jobChange) error {
	for _, n := range d.Outputs() {
		if n.Output.Sink == nil {
			jc.Outputs = append(jc.Outputs, outputEntry{Name: n.Output.Name, Topic: r.topics[n.Output.Topic].ID})
			continue
		}
		o := outputEntry{Name: n.Output.Name, Outside: true, Place: placeOf(n.Output.Sink)}
		if have != nil { // one that an earlier change gave up, and that is still kept, goes on too
			if i := d.kept(have.outputs(), n); i >= 0 {
				kept := have.outputs()[i]
				kept.Place = o.Place
				jc.Outputs = append(jc.Outputs, kept)
				continue
			}
		}
		o.Topic, o.Sub = bus.TopicID(r.id()), bus.SubID(r.id())
		o.Sent = sentEntry{Sub: o.Sub}
		spec := bus.TopicSpec{Name: hiddenTopic(d.Name, o.Name, o.Topic), Partitions: 1, Limit: r.core.outputLimit,
			Retention: bus.Retention{MaxBytes: bus.KeepNothing}}
		if _, taken := r.core.bus.TopicByName(d.Name + "/" + o.Name); !taken {
			spec.Name = d.Name + "/" + o.Name
		}
		if err := r.define(topicEntry{o.Topic, spec}); err != nil {
			return err
		}
		jc.Outputs = append(jc.Outputs, o)
	}
	r.joinAndLeave(have, jc)
	if have == nil {
		return nil
	}
	return r.giveUp(d, have, jc)
}

// giveUp looks after the outputs that a job has no more. What the last definition had is kept for probation, and sent to its end
// before that is settled; what an earlier one had is not kept twice. Where what they have yet to send may be dropped, it is, in
// both cases: an output that comes back then goes on behind it.
func (r *registration) giveUp(d *definition, have *jobEntry, jc *jobChange) error {
	unsent, earlier := map[string]int64{}, map[string]int64{}
	for _, h := range have.outputs() {
		n := unsentIn(r.core.bus, h)
		if n == 0 || slices.ContainsFunc(jc.Outputs, func(o outputEntry) bool { return o.Topic == h.Topic }) {
			continue
		}
		kept := jc.Until > 0 && !have.gaveUp(h.Sub)
		if !kept || r.dropUnsent {
			unsent[h.Name] += n
			if have.gaveUp(h.Sub) {
				earlier[h.Name] += n
			}
		}
		if kept && r.dropUnsent {
			r.change.Sent = append(r.change.Sent, sentEntry{Sub: h.Sub, LSN: have.LSN, Next: r.core.bus.Next(h.Topic, 0), State: h.Sent.State})
		}
	}
	switch {
	case len(unsent) == 0:
		return nil
	case !r.dropUnsent:
		return &UnsentError{Job: d.Name, Unsent: unsent, GivenUp: true, Earlier: earlier, At: have.gaveUpAt()}
	}
	r.dropped[d.Name] = unsent
	return nil
}

// hiddenTopic names the topic of an output where that of an earlier output of the same name is still being sent.
func hiddenTopic(job, output string, id bus.TopicID) string {
	return fmt.Sprintf("%s/%s/%d", job, output, id)
}

// alone returns the outputs to the outside that a job has by its new definition alone: they go where the one before comes back.
func (j *jobEntry) alone() (out []outputEntry) {
	for _, o := range j.Outputs {
		if o.Outside && j.Prev != nil && !slices.ContainsFunc(j.Prev.Outputs, func(p outputEntry) bool { return p.Outside && p.Sub == o.Sub }) {
			out = append(out, o)
		}
	}
	return out
}

// settleDue ends the probations that are over, and of which nothing is yet to be sent.
func (r *registration) settleDue(now time.Time) {
	for _, e := range r.core.ledger.sorted() {
		if e.Prev != nil && !e.onTrial(now) && r.core.settled(e) == nil {
			r.settled[e.ID] = true
			r.change.Jobs = append(r.change.Jobs, jobChange{ID: e.ID, Settle: true})
		}
	}
}

// checkPlaces refuses definitions with an output to a place that is still that of another one which its job has given up, or
// gives up by this change: two would write it, at once or when that one comes back. settled are jobs that have none such any more.
func (l *ledger) checkPlaces(defs []*definition, probation time.Duration, settled map[uint32]bool) error {
	for _, d := range defs {
		for _, n := range d.Outputs() {
			x, ok := n.Output.Sink.(jobs.Exclusive)
			if !ok {
				continue
			}
			for _, e := range l.sorted() {
				i := slices.IndexFunc(defs, func(d *definition) bool { return d.Name == e.Name })
				var outs []outputEntry
				switch {
				case i >= 0 && e.Phase != PhaseEnded && !bytes.Equal(e.Definition, defs[i].text):
					if defs[i].probation(e, probation) > 0 {
						outs = slices.DeleteFunc(slices.Clone(e.Outputs), defs[i].keeps)
					}
				case !settled[e.ID]:
					outs = e.outputs()[len(e.Outputs):]
				}
				for _, o := range outs {
					if o.Outside && o.Place == x.Place() {
						return fmt.Errorf("output %s of job %s is to write %s, which is still that of output %s of job %s: its definition has changed, and what "+
							"was before may come back, or is yet to be sent; apply it when the probation of %s is over, or change that one with a probation of 0",
							n.Output.Name, d.Name, x.Place(), o.Name, e.Name, e.Name)
					}
				}
			}
		}
	}
	return nil
}

// stillAfter is how long an output has sent nothing that is taken for one whose outside is away.
const stillAfter = 500 * time.Millisecond

// sendWhatGoes lets outputs send what they hold for as long as any of them gets further: what has an outside is not dropped.
func (rt *Runtime) sendWhatGoes(ctx context.Context, asked time.Duration, senders []*sender) {
	ctx, cancel := context.WithTimeout(ctx, rt.timeout(asked))
	defer cancel()
	left := int64(math.MaxInt64)
	for moved := rt.now(); ; {
		unsent := int64(0)
		for _, s := range senders {
			unsent += s.status().Unsent
		}
		if unsent < left {
			left, moved = unsent, rt.now()
		}
		if unsent == 0 || rt.now().Sub(moved) > stillAfter || rt.sleep(ctx, drainLook) != nil {
			return
		}
	}
}

// sendAgain lets senders go on that were stopped for nothing.
func (rt *Runtime) sendAgain(stopped []*sender) {
	rt.dropSenders(stopped)
	for _, s := range stopped {
		o := s.entry
		err := rt.do(func(c *core) error {
			rt.committer.flushSent() // from where it has come
			c.ledger.eachOutput(o.Sub, func(now *outputEntry) { o = *now })
			return nil
		})
		if j := rt.findJob(s.job); err == nil && j != nil && j.id == s.jobID {
			n := rt.newSender(j, &jobs.Job{Name: s.job, Delivery: s.delivery}, o, s.sink)
			n.gaveUp.Store(s.gaveUp.Load())
			rt.startSender(n)
		}
	}
}

// sayDropped tells of records that were dropped with their outputs, by job and output.
func (rt *Runtime) sayDropped(dropped map[string]map[string]int64) {
	for _, job := range slices.Sorted(maps.Keys(dropped)) {
		if len(dropped[job]) == 0 {
			continue
		}
		var texts []string
		for _, name := range slices.Sorted(maps.Keys(dropped[job])) {
			texts = append(texts, fmt.Sprintf("%d records of output %s", dropped[job][name], name))
		}
		text := strings.Join(texts, ", ") + " were never sent, and are dropped"
		rt.logger.Warn("what outputs had yet to send is dropped", "job", job, "records by output", dropped[job])
		rt.tell(Event{Kind: EventUnsent, Job: job, Text: text})
	}
}
