package runtime

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/sidestream-dev/sidestream/bus"
	"github.com/sidestream-dev/sidestream/jobs"
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

// register makes the log say what defs say, in one frame, and returns a copy of each job's entry as it then stands.
func (rt *Runtime) register(defs []*jobs.Job) (entries map[string]*jobEntry, err error) {
	entries = map[string]*jobEntry{}
	err = rt.do(func(c *core) error {
		// A catalog due now is written before the change begins, so that it holds nothing of it.
		if err := c.rotateIfDue(); err != nil {
			return err
		}
		r := &registration{core: c, change: &control{}, topics: map[string]bus.TopicID{}, over: map[string]bool{}}
		if err := r.defineTopics(defs); err != nil {
			return err
		}
		given := map[string]bool{}
		for _, d := range defs {
			given[d.Name] = true
			if err := r.job(d); err != nil {
				return err
			}
		}
		for _, e := range c.ledger.sorted() {
			if !given[e.Name] && e.Phase == PhaseActive {
				rt.missing = append(rt.missing, e.Name)
				r.change.Jobs = append(r.change.Jobs, jobChange{ID: e.ID, Phase: PhaseStopped, Reason: "its definition is missing"})
			} else if !given[e.Name] && e.Phase != PhaseEnded {
				rt.missing = append(rt.missing, e.Name)
			}
		}
		if err := r.write(); err != nil {
			return err
		}
		for _, d := range defs {
			entries[d.Name] = c.ledger.job(d.Name).clone()
			if changed, over := r.over[d.Name]; over {
				rt.sayOver(d.Name, changed)
			}
		}
		return nil
	})
	return entries, err
}

// sayOver says why a job does nothing.
func (rt *Runtime) sayOver(job string, changed bool) {
	const again = "it ended in an earlier run and stays ended; another data directory, or another name, runs it again"
	if changed {
		rt.logger.Warn("the definition of an ended job has changed, for nothing: "+again, "job", job)
		return
	}
	rt.logger.Info(again, "job", job)
}

// registration gathers one change; it runs on the committer's goroutine.
type registration struct {
	core   *core
	change *control
	marks  []bus.Mark
	topics map[string]bus.TopicID
	over   map[string]bool // jobs that have ended; true where the definition is another since
	next   uint32
}

// senderName is what the subscription of an output's sender is called, in the first run as in all later ones.
func senderName(job, output string) string { return "sender:" + job + "/" + output }

func (r *registration) id() uint32 {
	r.next = max(r.next, r.core.ledger.NextID)
	r.next++
	return r.next - 1
}

// defineTopics joins what the definitions say of each topic and makes those the bus lacks.
func (r *registration) defineTopics(defs []*jobs.Job) error {
	specs := map[string]bus.TopicSpec{}
	var order []string
	say := func(job string, s bus.TopicSpec) error {
		have, ok := specs[s.Name]
		if !ok {
			order = append(order, s.Name)
			have = bus.TopicSpec{Name: s.Name}
		}
		m, err := have.Merge(s)
		if err != nil {
			return fmt.Errorf("job %s: topic %s: %w", job, s.Name, err)
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
		if err := r.topic(name, specs[name]); err != nil {
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
			return fmt.Errorf("topic %s, as the data directory has it: %w", name, err)
		}
		r.topics[name] = id
		if merged == have {
			return nil
		}
		spec = merged
	} else {
		id = bus.TopicID(r.id())
		r.topics[name] = id
	}
	r.change.Topics = append(r.change.Topics, topicEntry{ID: id, Spec: spec})
	return r.core.bus.Define(id, spec)
}

// job adds a job, or makes the one that the log has what its definition says now.
func (r *registration) job(d *jobs.Job) error {
	definition := d.Definition
	if definition == nil {
		definition = d.Describe()
	}
	have := r.core.ledger.job(d.Name)
	if have != nil && have.Phase == PhaseEnded {
		r.over[d.Name] = !bytes.Equal(have.Definition, definition)
	}
	if have != nil && bytes.Equal(have.Definition, definition) && have.Phase != PhaseStopped {
		return nil
	}
	jc := jobChange{Name: d.Name, Definition: definition, Origin: "file", Phase: PhaseActive, Replace: true}
	if have != nil && have.Phase == PhaseEnded {
		// It is over, and what it read and wrote stays as it was: a subscription would hold records for nobody, and who
		// joins a topic and never leaves keeps its readers waiting.
		r.change.Jobs = append(r.change.Jobs, jobChange{ID: have.ID, Name: d.Name, Definition: definition, Origin: "file", Phase: PhaseEnded})
		return nil
	}
	if have != nil {
		jc.ID = have.ID
	} else {
		jc.ID = r.id()
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

func (r *registration) inputs(d *jobs.Job, have *jobEntry, jc *jobChange) error {
	for _, n := range d.Nodes {
		if n.Source == nil || n.Source.Source != nil {
			continue
		}
		topic := r.topics[n.Source.Topic]
		if have != nil {
			i := slices.IndexFunc(have.Inputs, func(in inputEntry) bool { return in.Step == n.ID && in.Topic == topic })
			if i >= 0 {
				jc.Inputs = append(jc.Inputs, have.Inputs[i])
				continue
			}
		}
		start := bus.Start{Earliest: !n.Source.Start.Latest && !n.Source.Start.Exact, Latest: n.Source.Start.Latest, At: bus.Offset(n.Source.Start.At)}
		in := inputEntry{Step: n.ID, Topic: topic, Sub: bus.SubID(r.id()), Start: start}
		var err error
		if in.States, err = r.core.bus.Subscribe(in.Sub, d.Name+"/"+n.ID, topic, start); err != nil {
			return fmt.Errorf("job %s: step %s: %w", d.Name, n.ID, err)
		}
		jc.Inputs = append(jc.Inputs, in)
	}
	if have == nil {
		return nil
	}
	for _, old := range have.Inputs {
		if !slices.ContainsFunc(jc.Inputs, func(in inputEntry) bool { return in.Sub == old.Sub }) {
			r.core.bus.Unsubscribe(old.Sub)
		}
	}
	return nil
}

func (r *registration) outputs(d *jobs.Job, have *jobEntry, jc *jobChange) error {
	for _, n := range d.Outputs() {
		o := outputEntry{Name: n.Output.Name, Outside: n.Output.Sink != nil}
		if have != nil {
			i := slices.IndexFunc(have.Outputs, func(h outputEntry) bool {
				return h.Name == o.Name && h.Outside == o.Outside && (h.Outside || h.Topic == r.topics[n.Output.Topic])
			})
			if i >= 0 {
				jc.Outputs = append(jc.Outputs, have.Outputs[i])
				continue
			}
		}
		if o.Outside {
			o.Topic, o.Sub = bus.TopicID(r.id()), bus.SubID(r.id())
			spec := bus.TopicSpec{Name: d.Name + "/" + o.Name, Partitions: 1, Retention: bus.Retention{MaxBytes: bus.KeepNothing}}
			r.change.Topics = append(r.change.Topics, topicEntry{ID: o.Topic, Spec: spec})
			if err := r.core.bus.Define(o.Topic, spec); err != nil {
				return err
			}
			if _, err := r.core.bus.Subscribe(o.Sub, senderName(d.Name, o.Name), o.Topic, bus.Start{Earliest: true}); err != nil {
				return err
			}
			o.Sent = sentEntry{Sub: o.Sub}
		} else {
			o.Topic = r.topics[n.Output.Topic]
		}
		jc.Outputs = append(jc.Outputs, o)
	}
	written := map[bus.TopicID]bool{}
	for _, o := range jc.Outputs {
		if !o.Outside && !written[o.Topic] {
			written[o.Topic] = true
			if have == nil || !slices.ContainsFunc(have.Outputs, func(h outputEntry) bool { return h.Topic == o.Topic }) {
				r.marks = append(r.marks, bus.Mark{Topic: o.Topic, Producer: bus.ProducerID(jc.ID), Join: true})
			}
		}
	}
	if have == nil {
		return nil
	}
	for _, h := range have.Outputs {
		if slices.ContainsFunc(jc.Outputs, func(o outputEntry) bool { return o.Topic == h.Topic }) {
			continue
		}
		if !h.Outside {
			r.marks = append(r.marks, bus.Mark{Topic: h.Topic, Producer: bus.ProducerID(jc.ID), Leave: true})
			continue
		}
		if unsent := r.core.bus.Lag(h.Sub); unsent > 0 {
			return fmt.Errorf("job %s: output %s is gone from the definition, but %d records of it were never sent; "+
				"keep it until they are", d.Name, h.Name, unsent)
		}
		r.core.bus.Remove(h.Topic) // with its sender's subscription; an output of that name that comes later is another
		r.change.Gone = append(r.change.Gone, h.Topic)
	}
	return nil
}

// write writes the change, if there is any.
func (r *registration) write() error {
	if len(r.change.Jobs) == 0 && len(r.change.Topics) == 0 && len(r.marks) == 0 {
		return nil
	}
	_, err := r.core.change(r.change, r.marks)
	return err
}
