package runtime

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/sidestream-dev/sidestream/bus"
)

// What a change gives up is sent on behind it, for as long as that takes, and the job stays at what it gave up till then: its
// probation is not settled, and no further change may give that up for good. Who does not want to wait drops it, by any
// definition, the one that the job has included.

// gaveUpAt is when the job's last change gave up what the log still keeps.
func (j *jobEntry) gaveUpAt() time.Time {
	switch {
	case j.Prev == nil:
		return time.Time{}
	case j.Prev.At == 0: // by a release that did not note it
		return time.UnixMilli(j.Changed)
	}
	return time.UnixMilli(j.Prev.At)
}

// gaveUpText says of outputs that they are of an earlier change.
func gaveUpText(n int, at time.Time) string {
	what := "an output"
	if n > 1 {
		what = "outputs"
	}
	return fmt.Sprintf("%s that the job gave up at %s", what, at.UTC().Format(time.RFC3339))
}

// earlier counts what the outputs that a job's last change gave up have yet to send.
func earlier(b *bus.Bus, e *jobEntry) map[string]int64 {
	unsent := map[string]int64{}
	if e.Prev == nil {
		return unsent
	}
	for _, o := range e.Prev.Outputs {
		if n := unsentIn(b, o); n > 0 && e.gaveUp(o.Sub) {
			unsent[o.Name] += n
		}
	}
	return unsent
}

// settled returns what is yet to be sent of what a job gave up.
func (c *core) settled(e *jobEntry) error {
	unsent := earlier(c.bus, e)
	for _, name := range slices.Sorted(maps.Keys(unsent)) {
		return fmt.Errorf("%d records of output %s, %s, are yet to be sent; wait until they are, or drop them (job apply FILE --drop-unsent)",
			unsent[name], name, gaveUpText(1, e.gaveUpAt()))
	}
	return nil
}

// dropEarlier drops what outputs that a job gave up earlier have yet to send. A definition that may still come back goes on
// behind it; where none can any more, the probation is over.
func (r *registration) dropEarlier(have *jobEntry) {
	unsent := earlier(r.core.bus, have)
	if len(unsent) == 0 || r.settled[have.ID] {
		return
	}
	for name, n := range unsent {
		r.drops(have.Name, name, n)
	}
	if !have.onTrial(time.UnixMilli(r.now)) {
		r.settled[have.ID] = true
		r.change.Jobs = append(r.change.Jobs, jobChange{ID: have.ID, Settle: true})
		return
	}
	for _, o := range have.Prev.Outputs {
		if have.gaveUp(o.Sub) && unsentIn(r.core.bus, o) > 0 {
			r.change.Sent = append(r.change.Sent, sentEntry{Sub: o.Sub, LSN: have.LSN, Next: r.core.bus.Next(o.Topic, 0), State: o.Sent.State})
		}
	}
}

func (r *registration) drops(job, output string, n int64) {
	if r.dropped[job] == nil {
		r.dropped[job] = map[string]int64{}
	}
	r.dropped[job][output] += n
}

// nameEnded makes the log say another definition of a job that has ended. What its outputs have yet to send goes where they went:
// where the definition says another place, nobody would send it.
func (r *registration) nameEnded(d *definition, have *jobEntry) error {
	unsent := map[string]int64{}
	for _, h := range have.Outputs {
		n := unsentIn(r.core.bus, h)
		if n == 0 || d.keeps(h) {
			continue
		}
		if unsent[h.Name] += n; r.dropUnsent {
			r.drops(d.Name, h.Name, n)
			r.change.Sent = append(r.change.Sent, sentEntry{Sub: h.Sub, LSN: have.LSN, Next: r.core.bus.Next(h.Topic, 0), State: h.Sent.State})
		}
	}
	if len(unsent) > 0 && !r.dropUnsent {
		return &UnsentError{Job: d.Name, Unsent: unsent, GivenUp: true}
	}
	r.name(d, have)
	return nil
}

// dropEarlierOf is dropEarlier of the jobs that definitions leave as they are.
func (r *registration) dropEarlierOf(defs []*definition) {
	if !r.dropUnsent {
		return
	}
	for _, d := range defs {
		if have := r.core.ledger.job(d.Name); have != nil && (have.Phase == PhaseEnded || bytes.Equal(have.Definition, d.text)) {
			r.dropEarlier(have)
		}
	}
}

// changes reports whether a definition gives the job other outputs, perhaps: else those there are stay, and those that an
// earlier change gave up are no output of its either.
func (d *newDefinition) changes(have *jobEntry) bool {
	return d.diff.Action == ActionUpdate && have.Phase != PhaseEnded
}

// gone returns the outputs that a job has no more by a definition: those that this one gives up, and those of before.
func (d *newDefinition) gone(have *jobEntry) []outputEntry {
	return slices.DeleteFunc(have.outputs(), func(o outputEntry) bool {
		if d.changes(have) || d.diff.Action == ActionUpdate && !have.gaveUp(o.Sub) {
			return d.keeps(o)
		}
		return !have.gaveUp(o.Sub)
	})
}

// lookUnsent notes in the diffs what outputs that are given up, or were before, have yet to send.
func (a *application) lookUnsent(c *core) {
	for i, d := range a.looked {
		have := c.ledger.job(d.Name)
		if have == nil {
			continue
		}
		diff := &a.result.Jobs[i]
		unsent, refused := map[string]int64{}, false
		for _, h := range d.gone(have) {
			n := unsentIn(c.bus, h)
			if n == 0 {
				continue
			}
			unsent[h.Name] += n
			if have.gaveUp(h.Sub) {
				diff.GaveUpAt = have.gaveUpAt()
			}
			refused = refused || d.changes(have) && (d.probation(have, a.probation()) <= 0 || have.gaveUp(h.Sub)) || !d.changes(have) && !have.gaveUp(h.Sub)
		}
		switch {
		case len(unsent) == 0:
		case a.options.DropUnsent:
			diff.Dropped = unsent
			if d.diff.Action == ActionUnchanged {
				a.drops = append(a.drops, d)
			}
		default:
			diff.Unsent = unsent
			if refused {
				diff.Needs = append(diff.Needs, "drop_unsent")
			}
		}
	}
}

// sendBefore lets outputs send what they hold for as long as any of them gets further, where the change would be refused for
// it, or would drop it. The senders of what is dropped are then stopped, so that how far they have come stays so.
func (a *application) sendBefore(ctx context.Context) {
	var going []*sender
	for _, d := range a.looked {
		if d.have == nil || d.diff.Action == ActionUnchanged && !slices.Contains(a.drops, d) {
			continue
		}
		gone := slices.DeleteFunc(d.gone(d.have), func(o outputEntry) bool { // what is kept for probation is sent meanwhile
			return !a.options.DropUnsent && !d.have.gaveUp(o.Sub) && d.probation(d.have, a.probation()) > 0
		})
		for _, s := range a.rt.sendersFor(d.have.ID) {
			if slices.ContainsFunc(gone, func(o outputEntry) bool { return o.Sub == s.entry.Sub }) {
				going = append(going, s)
			}
		}
	}
	a.rt.sendWhatGoes(ctx, a.options.Timeout, going)
	if a.options.DropUnsent {
		a.stopped = going
		a.rt.stopSenders(ctx, going)
	}
}

// resting returns the definitions that leave the job's outputs as they are.
func (a *application) resting(c *core) (out []*definition) {
	for _, d := range a.looked {
		if have := c.ledger.job(d.Name); have != nil && !d.changes(have) {
			out = append(out, d.definition)
		}
	}
	return out
}

// sayDropsSettled ends the probations that the frame has settled, since nothing of what was given up is left to be sent.
func (a *application) sayDropsSettled() {
	for _, d := range a.looked {
		if j := a.rt.findJob(d.Name); j != nil && a.settled[j.id] {
			j.trial.Store(nil)
			a.rt.tell(Event{Kind: EventSettled, Job: d.Name})
		}
	}
}
