package casetest

import (
	"bytes"
	"cmp"
	"fmt"
	"log/slog"
	"slices"

	"github.com/sidestream-dev/sidestream/checkpoint"
	"github.com/sidestream-dev/sidestream/jobs"
)

// engine runs jobs in one goroutine.
type engine struct {
	jobs   []*jobRun // each behind those whose topics it reads
	topics map[string]*topic
	trace  *trace
	muted  *MutedConfig // nil for a case

	firing  bool // event time moves in a step
	sending []sending
}

// topic is what jobs write for one another.
type topic struct {
	name       string
	partitions int
	offsets    []int64
	pending    []Output // written and not yet handed to the readers
}

// jobRun is a job under way.
type jobRun struct {
	job     *jobs.Job
	nodes   []*nodeRun
	of      map[*jobs.Node]*nodeRun
	outputs []*outputRun
	failed  bool
	err     error
}

// nodeRun is a node with its subtasks.
type nodeRun struct {
	job    *jobRun
	node   *jobs.Node
	source *jobs.SourceSpec // that its records come from
	subs   []*subtask
	splits []*split // of a source
}

// subtask is one parallel instance of a node.
type subtask struct {
	built jobs.Built
	store *checkpoint.Store // nil until it asks for a table
	mark  jobs.Watermark
	idle  bool
	ended bool
	undo  checkpoint.Mark
}

// outputRun is what an output has been given.
type outputRun struct {
	node    *jobs.Node
	records []Output
	since   int // records before it came before the moment in hand
	turn    int
	letGo   []func() // between records: of what its nodes have collected of decoded values
}

// Output is one record that an output was given.
type Output struct {
	Message   jobs.Message
	Key       jobs.Key
	partition int
	span      *span
}

// newEngine builds all jobs.
func newEngine(all []*jobs.Job) (*engine, error) {
	e := &engine{topics: map[string]*topic{}, trace: newTrace()}
	for _, j := range all {
		for _, t := range j.Topics {
			if t.Partitions > 0 {
				e.topic(t.Name).setPartitions(t.Partitions)
			}
		}
	}
	for _, j := range all {
		if err := e.add(j); err != nil {
			return nil, err
		}
	}
	return e, nil
}

func (e *engine) topic(name string) *topic {
	t := e.topics[name]
	if t == nil {
		t = &topic{name: name}
		t.setPartitions(1)
		e.topics[name] = t
	}
	return t
}

func (t *topic) setPartitions(n int) { t.partitions, t.offsets = n, make([]int64, n) }

// add builds the instances of a job, those that are read from last, so that each finds what takes its records.
func (e *engine) add(j *jobs.Job) error {
	r := &jobRun{job: j, of: map[*jobs.Node]*nodeRun{}}
	for _, n := range j.Nodes {
		nr := &nodeRun{job: r, node: n, source: n.Source}
		if n.Source == nil && len(n.In) > 0 {
			nr.source = r.of[n.In[0].From].source
		}
		width := j.Width(n)
		if n.Output != nil && n.Parallelism == 0 && len(n.In) == 1 {
			width = len(r.of[n.In[0].From].subs) // an end runs where its records are
		}
		for range width {
			nr.subs = append(nr.subs, &subtask{mark: jobs.WatermarkNone})
		}
		if n.Output != nil {
			r.outputs = append(r.outputs, &outputRun{node: n})
		}
		r.nodes, r.of[n] = append(r.nodes, nr), nr
	}
	e.jobs = append(e.jobs, r)
	for i := len(r.nodes) - 1; i >= 0; i-- {
		nr := r.nodes[i]
		for k := range nr.subs {
			if err := e.build(nr, k, r.nodes[i+1:]); err != nil {
				return err
			}
		}
	}
	return nil
}

// build makes subtask k of a node; after are the nodes that may read from it.
func (e *engine) build(nr *nodeRun, k int, after []*nodeRun) (err error) {
	outs := make([][]any, len(nr.node.Ports))
	for _, to := range after {
		for _, in := range to.node.In {
			if in.From == nr.node {
				outs[in.Port] = append(outs[in.Port], e.connect(nr, in, to, k))
			}
		}
	}
	nr.subs[k].built, err = nr.node.Build(e.env(nr, k), outs)
	return err
}

// sameSubtask reports whether records stay in the subtask with the same number on their way from one node to another.
func sameSubtask(from *nodeRun, mode jobs.Mode, to *nodeRun) bool {
	return len(to.subs) == 1 && len(from.subs) == 1 || mode == jobs.Forward && len(from.subs) == len(to.subs)
}

// connect returns what takes the records that subtask k emits for another node.
func (e *engine) connect(from *nodeRun, edge jobs.Edge, to *nodeRun, k int) any {
	targets := to.subs
	if sameSubtask(from, edge.Mode, to) {
		targets = to.subs[k : k+1]
	}
	port := from.node.Ports[edge.Port]
	deliver := make([]func(any), len(targets))
	for i := range deliver {
		deliver[i] = port.Deliver(targets[i].built.In)
	}
	w := jobs.EdgeWriter{Targets: len(targets), Max: 1, // a full batch leaves at once
		Send: func(target int, batch any, _ int) { e.send(func() { deliver[target](batch) }) }}
	if len(targets) > 1 && (edge.Mode == jobs.Balanced || edge.Mode == jobs.Forward) { // to any: here in turn
		turn, send := 0, w.Send
		w.Targets = 1
		w.Send = func(_ int, batch any, n int) {
			turn = (turn + 1) % len(deliver)
			send(turn, batch, n)
		}
	}
	in, _ := port.Writer(w)
	return in
}

// sending is a record on an edge, which event time has made a step emit.
type sending struct {
	span    *span // its spanEmit
	deliver func()
}

// send gives a record on, or, while event time moves in a step, keeps it until all subtasks of the step have emitted.
func (e *engine) send(deliver func()) {
	if e.firing {
		e.sending = append(e.sending, sending{e.trace.now, deliver})
		return
	}
	deliver()
}

// fire moves event time in the subtasks of a step. What they emit goes on in the order of event times, then of keys.
func (e *engine) fire(nr *nodeRun, marks []jobs.Watermark) {
	e.firing = true
	e.trace.moved(slices.Max(marks), func() { nr.move(marks) })
	e.firing = false
	all := e.sending
	e.sending = nil
	slices.SortStableFunc(all, func(a, b sending) int { return inTime(a.span.msg, b.span.msg) })
	for _, s := range all {
		e.trace.inside(s.span, s.deliver)
	}
}

// move tells the subtasks of a step how far event time has come.
func (nr *nodeRun) move(marks []jobs.Watermark) {
	for k, s := range nr.subs {
		if marks[k] > s.mark && !nr.job.failed {
			s.mark = marks[k]
			if s.built.Watermark != nil {
				s.built.Watermark(s.mark)
			}
		}
	}
}

func inTime(a, b jobs.Message) int {
	return cmp.Or(cmp.Compare(a.Time, b.Time), bytes.Compare(a.Key, b.Key))
}

// env is what a subtask is given of the world.
func (e *engine) env(nr *nodeRun, k int) *jobs.Env {
	r, n, s := nr.job, nr.node, nr.subs[k]
	env := &jobs.Env{Job: r.job.Name, Step: n.ID, Subtask: k, Parallelism: len(nr.subs), Logger: slog.New(slog.DiscardHandler),
		Restored: jobs.WatermarkNone, Failed: &r.failed, Records: s, Trace: e.trace.of(r.job.Name)}
	if nr.source != nil {
		env.OnError = nr.source.OnError
	}
	env.Fail = func(err error) { r.fail(n.ID, err) }
	if e.muted != nil {
		env.Restored = e.muted.restored(n.ID)
	}
	env.Table = func(name string) jobs.Table {
		if s.store == nil {
			lo, hi := groupsOf(k, len(nr.subs))
			st, err := checkpoint.NewStore(checkpoint.Config{Lo: lo, Hi: hi, Epoch: 1})
			if err != nil {
				panic(err) // key groups of a checked width are always right
			}
			s.store = st
			if e.muted != nil {
				e.muted.restore(n.ID, st, lo, hi)
			}
		}
		return s.store.Table(n.ID, name)
	}
	env.Reject = func(m jobs.Message, o jobs.Origin, err error) { e.reject(nr, m, o, err) }
	if n.Output != nil {
		env.Out = &out{engine: e, job: r, to: r.output(n.Output.Name)}
	}
	return env
}

// groupsOf returns the key groups that belong to subtask i of n.
func groupsOf(i, n int) (lo, hi int) {
	return (i*jobs.KeyGroups + n - 1) / n, ((i+1)*jobs.KeyGroups + n - 1) / n
}

func (r *jobRun) fail(step string, err error) {
	if !r.failed {
		r.failed, r.err = true, fmt.Errorf("job %s: step %s: %w", r.job.Name, step, err)
	}
}

func (r *jobRun) output(name string) *outputRun {
	for _, o := range r.outputs {
		if o.node.Output.Name == name {
			return o
		}
	}
	panic("casetest: job " + r.job.Name + " has no output " + name) // the job was checked
}

// reject does with a record that an error keeps from going on what on_error says, as package runtime does.
func (e *engine) reject(nr *nodeRun, m jobs.Message, o jobs.Origin, err error) {
	on := jobs.OnError{}
	if nr.source != nil {
		on = nr.source.OnError
	}
	e.trace.rejected(nr.job.job.Name, nr.node.ID, on, err)
	switch on.Policy {
	case jobs.ErrorFail:
		nr.job.fail(nr.node.ID, fmt.Errorf("record %s: %w", o, err))
	case jobs.ErrorTo:
		m.Headers = append(slices.Clone(m.Headers), jobs.Header{Name: "error", Value: []byte(err.Error())},
			jobs.Header{Name: "step", Value: []byte(nr.node.ID)}, jobs.Header{Name: "origin", Value: []byte(o.String())})
		m.Key = nil
		(&out{engine: e, job: nr.job, to: nr.job.output(on.To)}).Write(&m, jobs.Key{})
	}
}

// BeginRecord, RollbackRecord and EndRecord make a subtask the jobs.RecordScope of its own state.
func (s *subtask) BeginRecord() {
	if s.store != nil {
		s.store.BeginRecord()
		s.undo = s.store.Mark()
	}
}

// RollbackRecord undoes what was done since BeginRecord.
func (s *subtask) RollbackRecord() {
	if s.store != nil {
		s.store.Rollback(s.undo)
	}
}

// EndRecord ends it.
func (s *subtask) EndRecord() {
	if s.store != nil {
		s.store.EndRecord()
	}
}

// out is an output node's jobs.Out.
type out struct {
	engine *engine
	job    *jobRun
	to     *outputRun
}

// Partitions implements jobs.Out.
func (o *out) Partitions() int {
	if n := o.to.node.Output; n.Sink == nil && o.engine.muted == nil {
		return o.engine.topic(n.Topic).partitions
	}
	return 1
}

// Payload implements jobs.Out: readers here decode what was written, and what is collected for them is let go.
func (o *out) Payload(take func(partition int) any) {
	o.to.letGo = append(o.to.letGo, func() {
		for p := range o.Partitions() {
			take(p)
		}
	})
}

// Write implements jobs.Out.
func (o *out) Write(m *jobs.Message, key jobs.Key) int {
	if x := o.engine.muted; x != nil {
		x.Out(o.to.node, m)
		return 0
	}
	p, n := 0, o.Partitions()
	if n > 1 {
		if key.IsZero() {
			o.to.turn = (o.to.turn + 1) % n
			p = o.to.turn
		} else {
			p = jobs.Owner(key.Group, n)
		}
	}
	c := *m
	c.Key, c.Value, c.Headers = bytes.Clone(m.Key), bytes.Clone(m.Value), slices.Clone(m.Headers)
	rec := Output{Message: c, Key: key, partition: p}
	rec.span = o.engine.trace.written(o.job.job.Name, o.to.node.Output.Name, c, key)
	o.to.records = append(o.to.records, rec)
	return p
}

// handOver gives a job's new records for topics to those that read them.
func (e *engine) handOver(r *jobRun) {
	var topics []string
	for _, o := range r.outputs {
		for _, letGo := range o.letGo {
			letGo()
		}
		if out := o.node.Output; out.Sink == nil {
			t := e.topic(out.Topic)
			t.pending = append(t.pending, o.records[o.since:]...)
			if !slices.Contains(topics, out.Topic) {
				topics = append(topics, out.Topic)
			}
		}
		o.since = len(o.records)
	}
	for _, name := range topics {
		t := e.topic(name)
		pending := t.pending
		t.pending = nil
		for _, rec := range pending {
			offset := t.offsets[rec.partition]
			t.offsets[rec.partition]++
			for _, other := range e.jobs {
				for _, nr := range other.nodes {
					if nr.node.Source != nil && nr.node.Source.Source == nil && nr.node.Source.Topic == name {
						e.fromTopic(nr, rec, offset)
					}
				}
			}
		}
	}
}

// fromTopic gives a record of a topic to a job that reads it.
func (e *engine) fromTopic(nr *nodeRun, rec Output, offset int64) {
	m := rec.Message
	m.Key, m.Offset = rec.Key.Bytes, offset
	e.trace.inside(rec.span, func() { nr.deliver(nr.splitOf(nr.node.Source.Topic, rec.partition), m) })
	e.handOver(nr.job)
}

// advance carries event time through a job, and then through those that read its topics.
func (e *engine) advance(r *jobRun) {
	for _, nr := range r.nodes {
		marks := make([]jobs.Watermark, len(nr.subs))
		for k, s := range nr.subs {
			if marks[k], s.idle, s.ended = nr.combined(k); s.ended {
				marks[k], s.idle = jobs.WatermarkMax, false
			}
		}
		e.fire(nr, marks)
	}
	e.handOver(r)
	for _, other := range e.jobs {
		for _, nr := range other.nodes {
			if nr.node.Source == nil || nr.node.Source.Source != nil {
				continue
			}
			if from := e.writers(nr.node.Source.Topic); slices.Contains(from, r) {
				e.topicMark(nr, from)
				e.advance(other)
			}
		}
	}
}

// combined returns the event time that a subtask's inputs have come to, as runtime's inbox does.
func (nr *nodeRun) combined(k int) (w jobs.Watermark, idle, ended bool) {
	if nr.node.Source != nil {
		return nr.sourceMark(k)
	}
	if len(nr.node.In) == 0 { // dead letters only
		return jobs.WatermarkNone, true, false
	}
	var ins []*subtask
	for _, in := range nr.node.In {
		from := nr.job.of[in.From]
		if sameSubtask(from, in.Mode, nr) {
			ins = append(ins, from.subs[k])
		} else {
			ins = append(ins, from.subs...)
		}
	}
	return lowest(ins)
}

// lowest returns the lowest watermark of those that are neither idle nor at their end, the highest where all are idle.
func lowest(ins []*subtask) (w jobs.Watermark, idle, ended bool) {
	w, idle, ended = jobs.WatermarkMax, true, true
	highest := jobs.WatermarkNone
	for _, in := range ins {
		if in.ended {
			continue
		}
		ended = false
		if in.idle {
			highest = max(highest, in.mark)
			continue
		}
		idle = false
		w = min(w, in.mark)
	}
	if idle && !ended {
		return highest, true, false
	}
	return w, false, ended
}

// writers returns the jobs that write a topic.
func (e *engine) writers(topic string) []*jobRun {
	var out []*jobRun
	for _, r := range e.jobs {
		if slices.ContainsFunc(r.outputs, func(o *outputRun) bool { return o.node.Output.Sink == nil && o.node.Output.Topic == topic }) {
			out = append(out, r)
		}
	}
	return out
}
