package runtime

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/sidestream-dev/sidestream/bus"
	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/wal"
)

// CheckSet returns what is wrong with a set of jobs as a whole: two with one name, or a cycle over the bus, which could
// only be broken by losing records.
func CheckSet(defs []*jobs.Job) error { return checkSet(defs) }

func checkSet(defs []*jobs.Job) error {
	seen := map[string]bool{}
	places := map[string]string{}
	writers := map[string][]string{} // topic → jobs
	drops := map[string]bool{}       // topics that hold back nobody
	for _, d := range defs {
		for _, t := range d.Topics {
			drops[t.Name] = drops[t.Name] || t.OnFull == string(bus.DropOldest)
		}
	}
	for _, d := range defs {
		if err := d.Check(); err != nil {
			return err
		}
		if seen[d.Name] {
			return fmt.Errorf("two jobs are called %q", d.Name)
		}
		seen[d.Name] = true
		for _, n := range d.Outputs() {
			x, ok := n.Output.Sink.(jobs.Exclusive)
			if !ok {
				continue
			}
			here := d.Name + "/" + n.Output.Name
			if other := places[x.Place()]; other != "" {
				return fmt.Errorf("outputs %s and %s both write %s, which can belong to one only", other, here, x.Place())
			}
			places[x.Place()] = here
		}
		for _, t := range topicsWritten(d) {
			writers[t] = append(writers[t], d.Name)
		}
	}
	feeds := map[string][]string{} // job → jobs it reads from
	for _, d := range defs {
		for _, n := range d.Nodes {
			if n.Source != nil && n.Source.Source == nil && !drops[n.Source.Topic] {
				feeds[d.Name] = append(feeds[d.Name], writers[n.Source.Topic]...)
			}
		}
	}
	for _, d := range defs {
		if path := cycle(feeds, d.Name, []string{d.Name}); path != nil {
			slices.Reverse(path)
			return fmt.Errorf("the jobs %s feed one another in a circle over the bus: a full topic would stop them for ever", strings.Join(path, " → "))
		}
	}
	return nil
}

// cycle returns a path from the last of path back to start.
func cycle(feeds map[string][]string, start string, path []string) []string {
	for _, from := range feeds[path[len(path)-1]] {
		if from == start {
			return append(path, start)
		}
		if !slices.Contains(path, from) {
			if p := cycle(feeds, start, append(slices.Clone(path), from)); p != nil {
				return p
			}
		}
	}
	return nil
}

// missingReason is why a job is stopped that Start was given no definition of; it goes on once there is one.
const missingReason = "its definition is missing"

// definitions returns all jobs that are to be there, built and checked: those of files, and those that the log keeps.
func (rt *Runtime) definitions(files []*jobs.Job) (defs []*definition, err error) {
	var kept []*jobEntry
	err = rt.do(func(c *core) error {
		for _, e := range c.ledger.sorted() {
			kept = append(kept, e.clone())
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	all := slices.Clone(files)
	origins := map[string]Origin{}
	for _, k := range kept {
		given := slices.ContainsFunc(files, func(d *jobs.Job) bool { return d.Name == k.Name })
		switch {
		case k.Origin != OriginAPI:
		case given && rt.cfg.Adopt:
		case given:
			return nil, &OriginError{k.Name, k.Origin}
		case rt.cfg.Load == nil:
			rt.logger.Error("nothing here can load the definition of a job of the API; it stays stopped, with its state", "job", k.Name)
		default:
			d, err := rt.cfg.Load(k.Definition, k.Origin)
			if err != nil {
				rt.logger.Error("the definition of a job of the API cannot be loaded; it stays stopped, with its state", "job", k.Name, "err", err)
				continue
			}
			all, origins[k.Name] = append(all, d), OriginAPI
		}
	}
	if err := checkSet(all); err != nil {
		return nil, err
	}
	for _, d := range all {
		o := OriginFile
		if origins[d.Name] != "" {
			o = origins[d.Name]
		}
		defs = append(defs, rt.inspectAtStart(d, o, kept))
	}
	return defs, nil
}

// inspectAtStart is inspect where a job that cannot be built is that job's failure, as its attempts will tell.
func (rt *Runtime) inspectAtStart(d *jobs.Job, o Origin, kept []*jobEntry) *definition {
	def, err := rt.inspect(d, o)
	if err == nil {
		return def
	}
	rt.logger.Error("the job cannot be built now", "job", d.Name, "err", err)
	def = &definition{Job: d, origin: o, text: textOf(d)}
	for _, k := range kept {
		if k.Name == d.Name {
			def.steps = k.Steps
		}
	}
	return def
}

// newRegistration begins a change. A catalog due now is written before, so that it holds nothing of it.
func (rt *Runtime) newRegistration(c *core) (*registration, error) {
	if err := c.rotateIfDue(); err != nil {
		return nil, err
	}
	return &registration{core: c, now: rt.now().UnixMilli(), change: &control{}, topics: map[string]topicEntry{},
		settled: map[uint32]bool{}, dropped: map[string]map[string]int64{}}, nil
}

// register makes the log say what defs say, in one frame, and returns a copy of each job's entry as it then stands.
func (rt *Runtime) register(defs []*definition) (entries map[string]*jobEntry, dropped map[string]map[string]int64, err error) {
	entries = map[string]*jobEntry{}
	err = rt.do(func(c *core) error {
		r, err := rt.newRegistration(c)
		if err != nil {
			return err
		}
		r.dropUnsent = rt.cfg.DropUnsent
		if err := r.defineTopics(defs); err != nil {
			return err
		}
		r.dropEarlierOf(defs)
		r.settleDue(rt.now())
		if err := c.ledger.checkPlaces(defs, 0, r.settled); err != nil {
			return err
		}
		given, over := map[string]bool{}, map[string]bool{}
		for _, d := range defs {
			given[d.Name] = true
			have := c.ledger.job(d.Name)
			if have != nil && have.Phase == PhaseEnded {
				over[d.Name] = !bytes.Equal(have.Definition, d.text)
			}
			if err := rt.checkLoss(d, have); err != nil {
				return err
			}
			if err := r.start(d, have, rt.triesAgain(d, have)); err != nil {
				return err
			}
		}
		for _, e := range c.ledger.sorted() {
			if given[e.Name] {
				continue
			}
			if e.Phase == PhaseActive && e.Origin != OriginAPI {
				r.change.Jobs = append(r.change.Jobs, jobChange{ID: e.ID, Phase: PhaseStopped, Reason: missingReason})
			}
			if e.Phase != PhaseEnded {
				rt.missing = append(rt.missing, e.Name)
			}
		}
		if _, err := r.write(); err != nil {
			return err
		}
		dropped = r.dropped
		for _, d := range defs {
			entries[d.Name] = c.ledger.job(d.Name).clone()
			if changed, over := over[d.Name]; over {
				rt.sayOver(d.Name, changed)
			}
		}
		return nil
	})
	return entries, dropped, err
}

// checkLoss refuses a definition that has changed since the last run and cannot keep the job's state.
func (rt *Runtime) checkLoss(d *definition, have *jobEntry) error {
	if have == nil || have.Phase == PhaseEnded {
		return nil
	}
	loss, _, _ := lossOf(have.Steps, d.steps)
	if len(loss) > 0 && !rt.cfg.AllowStateLoss {
		return &StateLossError{d.Name, loss}
	}
	for _, l := range loss {
		rt.logger.Warn("state is dropped, since the definition has changed", "job", d.Name, "what", l.String())
	}
	return nil
}

// start makes the log say what a definition that Start is given says.
func (r *registration) start(d *definition, have *jobEntry, retry bool) error {
	if have == nil {
		return r.job(d, nil, PhaseActive, 0)
	}
	same := bytes.Equal(have.Definition, d.text) && sameSteps(have.Steps, d.steps)
	back := have.Phase == PhaseStopped && have.Reason == missingReason || have.Phase == PhaseFailed && retry
	switch {
	case same && !back && have.Origin == d.origin:
		return nil
	case same && !back:
		r.name(d, have)
		return nil
	case have.Phase == PhaseEnded:
		// It is over, and what it read and wrote stays as it was: a subscription would hold records for nobody, and who
		// joins a topic and never leaves keeps its readers waiting.
		return r.nameEnded(d, have)
	case back || have.Phase == PhaseFailed:
		return r.job(d, have, PhaseActive, 0)
	}
	return r.job(d, have, have.Phase, 0)
}

// name makes the log say a definition, or an owner, by which the job itself does not change.
func (r *registration) name(d *definition, have *jobEntry) {
	r.change.Jobs = append(r.change.Jobs, jobChange{ID: have.ID, Name: d.Name, Definition: d.text, Origin: d.origin, At: r.now})
}

func sameSteps(a, b []stepEntry) bool {
	return slices.EqualFunc(a, b, func(a, b stepEntry) bool {
		return a.ID == b.ID && a.Key == b.Key && slices.Equal(a.Tables, b.Tables)
	})
}

// sayOver says why a job does nothing.
func (rt *Runtime) sayOver(job string, changed bool) {
	const again = "it ended in an earlier run and stays ended; restart it, or use another data directory or another name, to run it again"
	if changed {
		rt.logger.Warn("the definition of an ended job has changed, for nothing: "+again, "job", job)
		return
	}
	rt.logger.Info(again, "job", job)
}

// definition is a job with what a change of the log must know of it.
type definition struct {
	*jobs.Job
	origin Origin
	text   []byte                  // what it was made from
	steps  []stepEntry             // that keep state
	splits map[string][]string     // of its sources, by step, where they were asked
	moved  map[string]bool         // sources that read something else than those of that name before
	starts map[string][]bus.Offset // of new subscriptions that begin at a time, by step, once they are found
}

// start is where a new subscription of a step begins.
func (d *definition) start(n *jobs.Node) bus.Start {
	switch s := n.Source.Start; {
	case s.Latest:
		return bus.Start{Latest: true}
	case s.Exact:
		return bus.Start{At: bus.Offset(s.At)}
	case s.ByTime && len(d.starts[n.ID]) > 0:
		return bus.Start{Offsets: slices.Clone(d.starts[n.ID])}
	}
	return bus.Start{Earliest: true} // by time too, where the topic is made by the same change
}

// registration works out a change of jobs against what the log says; it changes nothing itself. It runs on the committer's
// goroutine, where nothing moves meanwhile.
type registration struct {
	core   *core
	now    int64 // Unix ms
	change *control
	marks  []bus.Mark
	topics map[string]topicEntry // as they will be
	next   uint32

	settled    map[uint32]bool             // jobs whose probation this change ends
	dropUnsent bool                        // what given up outputs have yet to send goes
	dropped    map[string]map[string]int64 // that does: records by job and output
}

// senderName is what the subscription of an output's sender is called, in the first run as in all later ones.
func senderName(job, output string) string { return senderPrefix + job + "/" + output }

const senderPrefix = "sender:"

func (r *registration) id() uint32 {
	r.next = max(r.next, r.core.ledger.NextID)
	r.next++
	return r.next - 1
}

// defineTopics joins what the definitions say of each topic and makes those the bus lacks.
func (r *registration) defineTopics(defs []*definition) error {
	specs := map[string]bus.TopicSpec{}
	var order []string
	say := func(job string, s bus.TopicSpec) error {
		if id, is := r.core.bus.TopicByName(s.Name); is && r.core.bus.Spec(id).RetentionSet {
			s.Retention = bus.Retention{} // what an operator has set counts in place of it
		}
		have, ok := specs[s.Name]
		if !ok {
			order = append(order, s.Name)
			have = bus.TopicSpec{Name: s.Name}
		}
		m, err := have.Merge(s)
		var differs *bus.ConflictError
		if errors.As(err, &differs) {
			return fmt.Errorf("topic %s: %s is %v for job %s and %v for job %s; say it in one place", s.Name, differs.Field, differs.Have, whoSays(defs, s.Name, differs.Field), differs.Say, job)
		}
		if err != nil {
			return err
		}
		specs[s.Name] = m
		return nil
	}
	for _, d := range defs {
		for _, t := range d.Topics {
			s := bus.TopicSpec{Name: t.Name, Partitions: t.Partitions, Limit: t.LimitBytes,
				Retention: bus.Retention{MaxBytes: t.RetentionBytes, MaxAge: t.RetentionAge}, OnFull: bus.OnFull(t.OnFull)}
			if err := say(d.Name, s); err != nil {
				return err
			}
		}
		for _, n := range d.Nodes {
			switch {
			case n.Source != nil && n.Source.Source == nil:
				if err := say(d.Name, bus.TopicSpec{Name: n.Source.Topic}); err != nil {
					return err
				}
			case n.Output != nil && n.Output.Sink == nil:
				if err := say(d.Name, bus.TopicSpec{Name: n.Output.Topic}); err != nil {
					return err
				}
			}
		}
	}
	for _, name := range order {
		err := r.topic(name, specs[name])
		var differs *bus.ConflictError
		if errors.As(err, &differs) {
			return &TopicError{Job: whoSays(defs, name, differs.Field), Differs: *differs}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// topic defines a topic, or gives the one the bus has what the definitions add to it.
func (r *registration) topic(name string, spec bus.TopicSpec) error {
	id, ok := r.core.bus.TopicByName(name)
	if ok {
		have := r.core.bus.Spec(id)
		merged, err := have.Merge(spec)
		if err != nil {
			return err
		}
		r.topics[name] = topicEntry{id, merged}
		if merged == have {
			return nil
		}
		spec = merged
	} else {
		id = bus.TopicID(r.id())
	}
	return r.define(topicEntry{id, spec})
}

func (r *registration) define(t topicEntry) error {
	r.topics[t.Spec.Name] = t
	r.change.Topics = append(r.change.Topics, t)
	return r.core.bus.CheckDefine(t.ID, t.Spec)
}

// begin returns where a subscription begins on a topic, which may be one that this change makes.
func (r *registration) begin(t topicEntry, start bus.Start) ([]bus.SubState, error) {
	if r.core.bus.Partitions(t.ID) == 0 {
		return r.core.bus.BeginNew(t.Spec, start)
	}
	return r.core.bus.Begin(t.ID, start)
}

// job adds a job, or makes the one that the log has what its definition says now. What it gives up is kept for probation, if
// that is not 0.
func (r *registration) job(d *definition, have *jobEntry, phase JobPhase, probation time.Duration) error {
	jc := jobChange{Name: d.Name, Definition: d.text, Origin: d.origin, At: r.now, Phase: phase, Replace: true, Steps: d.steps}
	if have == nil {
		jc.ID = r.id()
	} else {
		jc.ID = have.ID
		_, jc.Drops, _ = lossOf(have.Steps, d.steps)
		jc.Forget = forgotten(have, d)
		if probation > 0 {
			jc.Until = r.now + max(1, probation.Milliseconds())
		}
	}
	if err := r.inputs(d, have, &jc); err != nil {
		return err
	}
	if err := r.outputs(d, have, &jc); err != nil {
		return err
	}
	r.change.Jobs = append(r.change.Jobs, jc)
	return nil
}

// forgotten lists the splits of sources that a definition no longer has, or whose new shape does not list them any more.
func forgotten(have *jobEntry, d *definition) (out []splitEntry) {
	for _, s := range have.header.Splits {
		n := d.Node(s.Step)
		if n != nil && n.Source != nil && n.Source.Source != nil {
			listed, asked := d.splits[s.Step]
			if !asked || !d.moved[s.Step] || slices.Contains(listed, s.Split) {
				continue
			}
		}
		out = append(out, splitEntry{s.Step, s.Split})
	}
	return out
}

func (r *registration) inputs(d *definition, have *jobEntry, jc *jobChange) error {
	for _, n := range d.Nodes {
		if n.Source == nil || n.Source.Source != nil {
			continue
		}
		topic := r.topics[n.Source.Topic]
		if have != nil {
			i := slices.IndexFunc(have.Inputs, func(in inputEntry) bool { return in.Step == n.ID && in.Topic == topic.ID })
			if i >= 0 {
				jc.Inputs = append(jc.Inputs, have.Inputs[i])
				continue
			}
		}
		start := d.start(n)
		for p, o := range start.Offsets { // what has gone since they were found is left out
			start.Offsets[p] = max(o, r.core.bus.First(topic.ID, p))
		}
		in := inputEntry{Step: n.ID, Topic: topic.ID, Sub: bus.SubID(r.id()), Start: start}
		var err error
		if in.States, err = r.begin(topic, start); err != nil {
			return fmt.Errorf("job %s: step %s: %w", d.Name, n.ID, err)
		}
		jc.Inputs = append(jc.Inputs, in)
	}
	return nil
}

// joinAndLeave tells the readers of topics that a job begins or ends to write them.
func (r *registration) joinAndLeave(have *jobEntry, jc *jobChange) {
	was, is := map[bus.TopicID]bool{}, map[bus.TopicID]bool{}
	if have != nil && have.Phase != PhaseEnded {
		for _, h := range have.Outputs {
			was[h.Topic] = !h.Outside
		}
	}
	for _, o := range jc.Outputs {
		is[o.Topic] = !o.Outside
	}
	for _, id := range slices.Sorted(maps.Keys(is)) {
		if is[id] && !was[id] {
			r.marks = append(r.marks, bus.Mark{Topic: id, Producer: bus.ProducerID(jc.ID), Join: true})
		}
	}
	for _, id := range slices.Sorted(maps.Keys(was)) {
		if was[id] && !is[id] {
			r.marks = append(r.marks, bus.Mark{Topic: id, Producer: bus.ProducerID(jc.ID), Leave: true})
		}
	}
}

// rollBack brings back what a job was before its definition was changed.
func (r *registration) rollBack(have *jobEntry, phase JobPhase, reason string) {
	p := have.Prev
	_, drops, _ := lossOf(have.Steps, p.Steps)
	r.joinAndLeave(have, &jobChange{ID: have.ID, Outputs: p.Outputs})
	r.change.Jobs = append(r.change.Jobs, jobChange{ID: have.ID, RollBack: true, Phase: phase, Reason: reason, Drops: drops})
}

// restart lets a job that has ended begin anew.
func (r *registration) restart(d *definition, have *jobEntry) error {
	jc := jobChange{ID: have.ID, Name: d.Name, Definition: d.text, Origin: d.origin, At: have.Changed, Phase: PhaseActive, Restart: true,
		Replace: true, Steps: d.steps}
	if err := r.inputs(d, nil, &jc); err != nil {
		return err
	}
	for _, in := range jc.Inputs {
		for _, h := range have.Inputs {
			for p := range in.States {
				if was, ok := placeOfSub(have, h.Sub, in.States[p].Partition); ok && h.Step == in.Step && h.Topic == in.Topic {
					in.States[p].KeepLost(was)
				}
			}
		}
	}
	if err := r.outputs(d, have, &jc); err != nil {
		return err
	}
	r.change.Jobs = append(r.change.Jobs, jc)
	return nil
}

// remove takes a job away.
func (r *registration) remove(have *jobEntry) {
	r.joinAndLeave(have, &jobChange{ID: have.ID})
	r.change.Jobs = append(r.change.Jobs, jobChange{ID: have.ID, Remove: true})
}

// write writes the change, if there is any, and returns its LSN or 0.
func (r *registration) write() (wal.LSN, error) {
	if len(r.change.Jobs) == 0 && len(r.change.Topics) == 0 && len(r.change.Sent) == 0 && len(r.marks) == 0 {
		return 0, nil
	}
	return r.core.change(r.change, r.marks)
}
