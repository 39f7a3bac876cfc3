package runtime

import (
	"context"
	"fmt"
	"slices"

	"github.com/sidestream-dev/sidestream/bus"
	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/wal"
)

// Which jobs and senders there are changes while the runtime runs: rt.jobs and rt.senders are replaced, never changed in
// place, under rt.mu.

// jobList returns the jobs there are; nobody changes the slice.
func (rt *Runtime) jobList() []*job {
	rt.mu.Lock()
	defer rt.mu.Unlock()
	return rt.jobs
}

func (rt *Runtime) findJob(name string) *job {
	for _, j := range rt.jobList() {
		if j.def.Name == name {
			return j
		}
	}
	return nil
}

// putJob takes a job into the list, in the place of the one that has its id.
func (rt *Runtime) putJob(j *job) {
	rt.mu.Lock()
	defer rt.mu.Unlock()
	list := slices.Clone(rt.jobs)
	if i := slices.IndexFunc(list, func(o *job) bool { return o.id == j.id }); i >= 0 {
		list[i] = j
	} else {
		list = append(list, j)
	}
	rt.jobs = list
	rt.missing = slices.DeleteFunc(slices.Clone(rt.missing), func(n string) bool { return n == j.def.Name })
}

// dropJob takes a job that the log has no more out of the lists.
func (rt *Runtime) dropJob(e *jobEntry) {
	rt.mu.Lock()
	defer rt.mu.Unlock()
	for _, j := range rt.jobs {
		if j.id == e.ID {
			defer j.lines.wake() // who follows its log learns that it is gone
		}
	}
	rt.jobs = slices.DeleteFunc(slices.Clone(rt.jobs), func(o *job) bool { return o.id == e.ID })
	rt.senders = slices.DeleteFunc(slices.Clone(rt.senders), func(s *sender) bool { return s.jobID == e.ID })
	rt.missing = slices.DeleteFunc(slices.Clone(rt.missing), func(n string) bool { return n == e.Name })
}

// makeJob makes a job whose entry is in the log; its state is restored when it begins.
func (rt *Runtime) makeJob(d *definition, e *jobEntry, plan *jobPlan) *job {
	var stores *jobStores
	if e.Epoch == 0 && len(e.Snapshots) == 0 {
		stores = newJobStores(plan, 0)
	}
	return newJob(rt, d.Job, e, plan, stores)
}

// restoreStores reads a job's state from the log. Where that fails and the janitor has meanwhile put another snapshot in the
// place of those that e names (snapshotIdle), it is read from there.
func (rt *Runtime) restoreStores(plan *jobPlan, e *jobEntry) (*jobStores, error) {
	if err := rt.log.WaitDurable(rt.ctx, e.LSN); err != nil {
		return nil, err
	}
	for {
		stores := newJobStores(plan, e.Epoch)
		l := newLedger()
		l.Jobs[e.ID] = e
		failed := restoreState(rt.frames, l, map[uint32]restorer{e.ID: stores}, rt.loadSnapshot)
		if failed == nil {
			return stores, nil
		}
		again := false
		err := rt.do(func(c *core) error {
			if now := c.ledger.Jobs[e.ID]; now != nil && now.Epoch == e.Epoch && !slices.Equal(now.Snapshots, e.Snapshots) {
				e, again = now.clone(), true
			}
			return nil
		})
		if err != nil || !again {
			return nil, failed
		}
	}
}

// launch begins a job's attempts, unless the runtime is stopping.
func (rt *Runtime) launch(j *job) {
	if rt.changes.ctx.Err() != nil {
		return // Stop puts it to rest
	}
	j.done = make(chan struct{})
	rt.supervise(j)
}

// halt asks jobs for a last barrier and waits until no attempt of theirs is under way. Where that takes until ctx ends, the
// error says so, and they go on once they have come there; leave is called behind that.
func (rt *Runtime) halt(ctx context.Context, js []*job, as JobState, leave func()) error {
	for _, j := range js {
		j.ask(as)
	}
	for _, j := range js {
		err := rt.await(ctx, j.done)
		if err == nil {
			continue
		}
		rt.spawn(func() {
			defer leave()
			for _, j := range js {
				if rt.await(rt.changes.ctx, j.done) == nil {
					rt.goOn(j)
				}
			}
		})
		return fmt.Errorf("job %s did not come to its last barrier in time; nothing has changed, and it goes on: %w", j.def.Name, err)
	}
	return nil
}

// goOn takes up a halted job again where its phase in the log says.
func (rt *Runtime) goOn(j *job) {
	e, err := rt.entry(j.def.Name)
	if err != nil || e.ID != j.id {
		return // the log has failed
	}
	n := j.again()
	rt.putJob(n)
	rt.settleIn(n, e.Phase)
}

// settleIn lets a job do what its phase says.
func (rt *Runtime) settleIn(j *job, p JobPhase) {
	if s, rests := restingState[p]; rests {
		j.move(s)
		return
	}
	j.move(StateStarting)
	rt.launch(j)
}

// setPhase writes where a job stands in its life, and waits until that is durable.
func (rt *Runtime) setPhase(id uint32, p JobPhase, reason string) error {
	var lsn wal.LSN
	program := ""
	if p == PhaseFailed {
		program = rt.program()
	}
	err := rt.do(func(c *core) (err error) {
		if c.ledger.Jobs[id] == nil {
			return ErrNoJob
		}
		lsn, err = c.change(&control{Jobs: []jobChange{{ID: id, Phase: p, Reason: reason, Program: program}}}, nil)
		return err
	})
	if err != nil {
		return err
	}
	return rt.log.WaitDurable(rt.ctx, lsn)
}

// sendersOf makes a sender for each output of a job that leaves the process.
func (rt *Runtime) sendersOf(j *job, e *jobEntry) []*sender {
	var out []*sender
	for _, o := range e.Outputs {
		n := j.def.Node("out-" + o.Name)
		if !o.Outside || n == nil || n.Output.Sink == nil {
			continue
		}
		moved := o.Place != "" && o.Place != placeOf(n.Output.Sink)
		if moved && e.Phase == PhaseEnded && unsentIn(rt.bus, o) == 0 {
			continue // all is where it was to go; who is at another place knows nothing of it
		}
		out = append(out, rt.newSender(j, j.def, o, n.Output.Sink))
	}
	return out
}

func (rt *Runtime) newSender(j *job, def *jobs.Job, o outputEntry, sink jobs.Sink) *sender {
	s := &sender{rt: rt, job: def.Name, jobID: j.id, delivery: def.Delivery, entry: o, sink: sink,
		logger: j.logger.With("output", o.Name), quit: make(chan struct{}), done: make(chan struct{})}
	rt.mu.Lock()
	rt.senders = append(slices.Clone(rt.senders), s)
	rt.mu.Unlock()
	return s
}

func (rt *Runtime) startSenders(j *job, e *jobEntry) {
	for _, s := range rt.sendersOf(j, e) {
		rt.startSender(s)
	}
}

func (rt *Runtime) startSender(s *sender) {
	s.ctx, s.cut = context.WithCancel(rt.ctx)
	rt.sending(s)
}

// replaceSenders gives a job the senders that its definition says. Those of outputs that it gave up go on, as long as the log
// keeps these.
func (rt *Runtime) replaceSenders(j *job, e *jobEntry) {
	var over []*sender
	for _, s := range rt.sendersFor(j.id) {
		if !e.gaveUp(s.entry.Sub) {
			over = append(over, s)
			continue
		}
		s.gaveUp.Store(e.gaveUpAt().UnixMilli())
	}
	rt.stopSenders(rt.ctx, over)
	rt.dropSenders(over)
	var now *jobEntry
	err := rt.do(func(c *core) error {
		rt.committer.flushSent() // they go on where the others have come
		if have := c.ledger.Jobs[j.id]; have != nil {
			now = have.clone()
		}
		return nil
	})
	if err == nil && now != nil {
		rt.startSenders(j, now)
	}
}

// gaveUp reports whether a sender's output is of what the job was before its definition was changed, and not of what it is.
func (e *jobEntry) gaveUp(sub bus.SubID) bool {
	has := func(o outputEntry) bool { return o.Outside && o.Sub == sub }
	return e.Prev != nil && !slices.ContainsFunc(e.Outputs, has) && slices.ContainsFunc(e.Prev.Outputs, has)
}

func (rt *Runtime) dropSenders(old []*sender) {
	rt.mu.Lock()
	defer rt.mu.Unlock()
	rt.senders = slices.DeleteFunc(slices.Clone(rt.senders), func(s *sender) bool { return slices.Contains(old, s) })
}

// sendersFor returns the senders of a job.
func (rt *Runtime) sendersFor(id uint32) []*sender {
	rt.mu.Lock()
	defer rt.mu.Unlock()
	var out []*sender
	for _, s := range rt.senders {
		if s.jobID == id {
			out = append(out, s)
		}
	}
	return out
}

// stopSenders lets senders finish what they are writing, and cuts those that do not until ctx ends, or long after.
func (rt *Runtime) stopSenders(ctx context.Context, senders []*sender) {
	for _, s := range senders {
		s.quitOnce.Do(func() { close(s.quit) })
	}
	for _, s := range senders {
		late, cancel := context.WithTimeout(ctx, rt.cfg.StuckAfter)
		if rt.await(late, s.done) != nil {
			s.cut()
			last, cancel := context.WithTimeout(context.Background(), rt.cfg.StuckAfter)
			_ = rt.await(last, s.done) // one that is stuck in a sink's code is left behind, and named when the runtime stops
			cancel()
		}
		cancel()
		s.cut()
	}
}

// sayResumed says of a job that an earlier process has run where it goes on, and what it has to catch up.
func (rt *Runtime) sayResumed(e *jobEntry) {
	if e.Epoch == 0 {
		return
	}
	behind := int64(0)
	for _, in := range e.Inputs {
		behind += rt.bus.Lag(in.Sub)
	}
	text := fmt.Sprintf("at epoch %s, %d records to catch up", e.Epoch, behind)
	said := []any{"job", e.Name, "epoch", e.Epoch, "to_catch_up", behind}
	if mark, err := replaying(&e.header); err == nil && mark != nil {
		text += ", in replay " + mark.ID
		said = append(said, "replay", mark.ID)
	}
	rt.logger.Info("resumes", said...)
	rt.tell(Event{Kind: EventResumed, Job: e.Name, Text: text})
}
