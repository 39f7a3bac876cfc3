package runtime

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/sidestream-dev/sidestream/bus"
	"github.com/sidestream-dev/sidestream/wal"
)

// ErrNoSubscription is the error of a subscription that is not there.
var ErrNoSubscription = errors.New("there is no such subscription")

// Moved is what a subscription's place was and is, by partition.
type Moved struct {
	Job          string       `json:"job"`
	Subscription string       `json:"subscription"`
	Topic        string       `json:"topic"`
	From         []bus.Offset `json:"from"`
	To           []bus.Offset `json:"to,omitempty"` // none where it is gone
	Notes        []string     `json:"notes,omitempty" doc:"what is to be known of it"`

	watermark int64 // that it keeps
}

// claim is a job's inputs on a topic, as somebody named them: all of the job's, or one by its subscription (JOB/STEP).
type claim struct {
	job, step string
	topic     bus.TopicID
	name      string // of the topic
}

func (rt *Runtime) claimOf(who, topic string) (claim, error) {
	id, ok := rt.bus.TopicByName(topic)
	if !ok {
		return claim{}, missing("topic", topic, ErrNoTopic)
	}
	c := claim{job: who, topic: id, name: topic}
	e, err := rt.entry(who)
	if errors.Is(err, ErrNoJob) {
		if job, step, cut := strings.Cut(who, "/"); cut {
			c.job, c.step = job, step
			e, err = rt.entry(job)
		}
	}
	if err != nil {
		return c, err
	}
	if len(c.of(e)) == 0 {
		return c, fmt.Errorf("%s does not read topic %s: %w", who, topic, ErrNoSubscription)
	}
	return c, nil
}

// of returns which inputs of a job are meant.
func (c claim) of(e *jobEntry) (inputs []int) {
	for i, in := range e.Inputs {
		if in.Topic == c.topic && (c.step == "" || in.Step == c.step) && e.Phase != PhaseEnded {
			inputs = append(inputs, i)
		}
	}
	return inputs
}

// Seek sets the subscriptions of a job on a topic elsewhere: who is the job, or one of them by its name, JOB/STEP. A job that
// runs comes to a last barrier, one frame sets the new place, and it goes on from there. Its state stays, and so does its
// watermark: what lies behind that is late. What was written before does not count against the topic's limit any more.
//
// So a seek to where they stand already is one too: it frees a topic that is full. What is late then is in Moved.Notes.
//
// A dry run says what would be, and does nothing; so it is for Detach.
func (rt *Runtime) Seek(ctx context.Context, who, topic string, to Place, dryRun bool) (moved []Moved, err error) {
	if to.Savepoint != "" {
		return nil, errors.New("a seek keeps the job's state, which is not the savepoint's; replay from it")
	}
	c, err := rt.claimOf(who, topic)
	if err != nil {
		return nil, err
	}
	offsets, err := to.offsets(rt.bus, c.topic)
	if err != nil {
		return nil, err
	}
	if _, err := to.states(rt.bus, c.topic, offsets); err != nil {
		return nil, err
	}
	err = rt.rewrite(ctx, rewriting{what: "seek", job: c.job, dryRun: dryRun}, func(r *registration, e *jobEntry) error {
		moved = nil
		jc := asItIs(e)
		for _, i := range c.of(e) {
			in := &jc.Inputs[i]
			m := Moved{Job: e.Name, Subscription: e.Name + "/" + in.Step, Topic: topic, watermark: bus.NoWatermark}
			var err error
			old := in.Sub
			in.Sub, in.At = bus.SubID(r.id()), 0
			if in.States, err = to.states(r.core.bus, c.topic, offsets); err != nil {
				return err
			}
			for p := range in.States {
				st := &in.States[p]
				if was, ok := placeOfSub(e, old, st.Partition); ok {
					m.From = append(m.From, was.Next)
					m.watermark = max(m.watermark, was.Watermark)
					st.Watermark = max(st.Watermark, was.Watermark)
					st.KeepLost(was)
				}
				m.To = append(m.To, st.Next)
			}
			moved = append(moved, m)
		}
		if len(moved) == 0 {
			return fmt.Errorf("%s does not read topic %s any more: %w", who, topic, ErrNoSubscription)
		}
		r.change.Jobs = append(r.change.Jobs, jc)
		return nil
	}, nil)
	if err == nil {
		rt.skipNotes(topic, moved)
		rt.lateNotes(c.job, topic, to, moved)
	}
	for _, m := range moved {
		if err == nil && !dryRun {
			rt.tell(Event{Kind: EventMoved, Job: m.Job, Text: fmt.Sprintf("%s in topic %s from %v to %v", m.Subscription, topic, m.From, m.To)})
		}
	}
	return moved, err
}

// Detach ends the subscriptions of a job on a topic, so that nothing is kept for them and they hold back no writer. The job is
// stopped behind a last barrier; when it is resumed or restarted, it begins in the topic anew, where its definition says.
func (rt *Runtime) Detach(ctx context.Context, who, topic string, dryRun bool) (gone []Moved, err error) {
	c, err := rt.claimOf(who, topic)
	if err != nil {
		return nil, err
	}
	err = rt.rewrite(ctx, rewriting{what: "detach", job: c.job, dryRun: dryRun}, func(r *registration, e *jobEntry) error {
		gone = nil
		jc := asItIs(e)
		for _, i := range c.of(e) {
			in := e.Inputs[i]
			m := Moved{Job: e.Name, Subscription: e.Name + "/" + in.Step, Topic: topic}
			for p := range r.core.bus.Partitions(in.Topic) {
				was, _ := placeOfSub(e, in.Sub, p)
				m.From = append(m.From, was.Next)
			}
			gone = append(gone, m)
			jc.Inputs = slices.DeleteFunc(jc.Inputs, func(o inputEntry) bool { return o.Sub == in.Sub })
		}
		if len(gone) == 0 {
			return fmt.Errorf("%s does not read topic %s any more: %w", who, topic, ErrNoSubscription)
		}
		if e.Phase == PhaseActive {
			jc.Phase, jc.Reason = PhaseStopped, fmt.Sprintf("it was detached from topic %s; resumed, it begins there where its definition says", topic)
		}
		r.change.Jobs = append(r.change.Jobs, jc)
		return nil
	}, nil)
	for _, m := range gone {
		if err == nil && !dryRun {
			rt.tell(Event{Kind: EventDetached, Job: m.Job, Text: fmt.Sprintf("%s from topic %s at %v", m.Subscription, topic, m.From)})
		}
	}
	return gone, err
}

// asItIs is a change that leaves a job as it is.
func asItIs(e *jobEntry) jobChange {
	return jobChange{ID: e.ID, Name: e.Name, Definition: e.Definition, Origin: e.Origin, At: e.Changed, Replace: true,
		Inputs: slices.Clone(e.Inputs), Outputs: slices.Clone(e.Outputs), Steps: e.Steps}
}

// placeOfSub is where a subscription stands by the job's last epoch.
func placeOfSub(e *jobEntry, sub bus.SubID, partition int) (bus.SubState, bool) {
	for _, s := range e.header.Subs {
		if s.Sub == uint32(sub) && s.Partition == partition {
			st, err := bus.DecodeSubState(s.State)
			return st, err == nil
		}
	}
	return bus.SubState{}, false
}

// rewrite halts a job, writes what change makes of it in one frame, and lets it do what that says. A probation ends first: what
// the job was before has nothing to go on from any more. begin, if it is not nil, makes the job that goes on.
func (rt *Runtime) rewrite(ctx context.Context, w rewriting, change func(*registration, *jobEntry) error, begin func(*job, *jobEntry) *job) error {
	name := w.job
	ctx, leave, err := rt.changes.enter(ctx, w.what, name)
	if err != nil {
		return err
	}
	if w.dryRun {
		defer leave()
		return rt.do(func(c *core) error { return rt.writeRewriting(w, c, nil, change) })
	}
	if err := rt.endTrial(name); err != nil {
		leave()
		return err
	}
	j := rt.findJob(name)
	if j != nil {
		halt, cancel := context.WithTimeout(ctx, rt.cfg.StopTimeout)
		defer cancel()
		if err := rt.halt(halt, []*job{j}, StateUpdating, leave); err != nil {
			return err // leave is called once it has stopped, and goes on
		}
	}
	defer leave()
	var lsn wal.LSN
	var now *jobEntry
	err = rt.do(func(c *core) error {
		rt.committer.flushSent()
		if err := rt.writeRewriting(w, c, &lsn, change); err != nil {
			return err
		}
		now = c.ledger.job(name).clone()
		if w.written != nil {
			w.written()
		}
		return nil
	})
	if err != nil {
		if j != nil {
			rt.goOn(j)
		}
		return err
	}
	if err := rt.log.WaitDurable(rt.ctx, lsn); err != nil {
		return err
	}
	if j == nil {
		return nil
	}
	n := j.again()
	if begin != nil {
		n = begin(n, now)
	}
	rt.putJob(n)
	rt.settleIn(n, now.Phase)
	return nil
}

// rewriting says what is done to which job.
type rewriting struct {
	what, job string
	dryRun    bool
	written   func() // is called when the frame is in the log, if it is not nil
}

// write makes a change of the job and writes it, if lsn is not nil.
func (rt *Runtime) writeRewriting(w rewriting, c *core, lsn *wal.LSN, change func(*registration, *jobEntry) error) error {
	have := c.ledger.job(w.job)
	if have == nil {
		return missing("job", w.job, ErrNoJob)
	}
	r, err := rt.newRegistration(c)
	if err != nil {
		return err
	}
	err = change(r, have)
	if err == nil && lsn != nil {
		*lsn, err = r.write()
	}
	return err
}

// endTrial settles a job's probation before its time.
func (rt *Runtime) endTrial(name string) error {
	j := rt.findJob(name)
	if j == nil || j.trial.Load() == nil {
		return nil
	}
	var given []*sender
	err := rt.do(func(c *core) error {
		e := c.ledger.Jobs[j.id]
		for _, s := range rt.sendersFor(j.id) {
			if e.gaveUp(s.entry.Sub) {
				given = append(given, s)
			}
		}
		rt.committer.flushSent()
		return c.settle(e)
	})
	if err != nil {
		return fmt.Errorf("job %s was changed a moment ago, and what it had before is not settled: %w", name, err)
	}
	rt.stopSenders(rt.ctx, given)
	rt.dropSenders(given)
	j.trial.Store(nil)
	rt.tell(Event{Kind: EventSettled, Job: name})
	return nil
}

// reattach gives a job that was detached from topics its subscriptions again, in the frame that lets it go on.
func (rt *Runtime) reattach(j *job, to JobPhase) error {
	d, err := rt.inspect(j.def, OriginAPI)
	if err != nil {
		return err
	}
	var lsn wal.LSN
	err = rt.do(func(c *core) error {
		r, err := rt.newRegistration(c)
		if err != nil {
			return err
		}
		have := c.ledger.Jobs[j.id]
		d.origin = have.Origin
		if err := r.defineTopics([]*definition{d}); err != nil {
			return err
		}
		if err := r.job(d, have, to, 0); err != nil {
			return err
		}
		lsn, err = r.write()
		return err
	})
	if err != nil {
		return err
	}
	return rt.log.WaitDurable(rt.ctx, lsn)
}

// detached reports whether a job lacks a subscription that its definition says.
func (j *job) detached(e *jobEntry) bool {
	if e.Phase == PhaseEnded {
		return false
	}
	for _, n := range j.def.Nodes {
		if n.Source != nil && n.Source.Source == nil && !slices.ContainsFunc(e.Inputs, func(in inputEntry) bool { return in.Step == n.ID }) {
			return true
		}
	}
	return false
}
