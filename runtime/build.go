package runtime

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/sidestream-dev/sidestream/bus"
	"github.com/sidestream-dev/sidestream/checkpoint"
	"github.com/sidestream-dev/sidestream/jobs"
)

// newExecution builds an attempt: it asks sources for their splits, which may wait for an outside, and makes every
// subtask's chain. entry is a copy of what the log says of the job.
func (rt *Runtime) newExecution(ctx context.Context, j *job, entry *jobEntry, attempt uint32) (*execution, error) {
	x := &execution{rt: rt, name: j.def.Name, job: entry.ID, attempt: attempt, plan: j.plan, logger: j.logger,
		result: make(chan outcome, 1), waiting: j.setWaiting, topics: map[bus.TopicID]string{},
		pieces: map[checkpoint.Epoch][]*piece{}, sentAt: map[checkpoint.Epoch]int64{}, did: map[int]Work{}, kept: new(atomic.Pointer[Work]),
		marks: map[bus.TopicID]topicMark{}, outside: map[int]topicMark{}}
	x.ctx, x.cancel = context.WithCancel(context.Background())
	x.frames.Store(entry.FrameBytes)
	x.trial = &j.trial
	mark, err := replaying(&entry.header)
	if err != nil {
		return nil, err
	}
	x.replay.Store(mark)
	for _, name := range topicsWritten(j.def) {
		id, ok := rt.bus.TopicByName(name)
		if !ok {
			return nil, fmt.Errorf("runtime: topic %s is not defined", name)
		}
		x.topics[id] = name
		x.onBus = append(x.onBus, id)
	}
	for _, o := range entry.Outputs {
		if o.Outside {
			x.topics[o.Topic] = "output " + o.Name
		}
	}
	b := &builder{rt: rt, x: x, j: j, entry: entry, marks: newStepMarks(&entry.header), subtasks: map[*taskPlan][]*subtask{}}
	if err := b.build(ctx); err != nil {
		x.cancel()
		return nil, err
	}
	if tasks := tasksText(j.plan); tasks != string(entry.header.Extra[extraTasks]) {
		x.newTasks = tasks
	}
	x.finished = make([]bool, len(x.subtasks))
	x.dry = make([]bool, len(x.subtasks))
	x.coord, err = checkpoint.NewCoordinator(checkpoint.CoordinatorConfig{Subtasks: len(x.subtasks), Interval: rt.cfg.CommitInterval,
		EpochBytes: rt.cfg.EpochBytes, First: entry.Epoch + 1})
	x.tick = rt.newTimer(func() { x.post(event{kind: eventTick}) })
	return x, err
}

// builder makes the subtasks of an attempt.
type builder struct {
	rt       *Runtime
	x        *execution
	j        *job
	entry    *jobEntry
	marks    *stepMarks
	subtasks map[*taskPlan][]*subtask
	sources  map[*jobs.Node]*jobs.Node // node → the source its records come from
	deads    map[*subtask]map[string]*outBuffer
	opened   map[string]map[string]bool // where not nil: the tables that each step opens
}

// build makes the subtasks, those that read a source with their splits or partitions.
func (b *builder) build(ctx context.Context) error {
	if err := b.buildSteps(); err != nil {
		return err
	}
	for k := len(b.j.plan.tasks) - 1; k >= 0; k-- {
		if t := b.j.plan.tasks[k]; t.head().Source != nil {
			if err := b.feeds(ctx, t); err != nil {
				return err
			}
		}
	}
	return nil
}

// buildSteps makes the subtasks with their chains.
func (b *builder) buildSteps() error {
	b.sources, b.deads = map[*jobs.Node]*jobs.Node{}, map[*subtask]map[string]*outBuffer{}
	for _, n := range b.j.def.Nodes {
		if n.Source != nil {
			b.sources[n] = n
		} else if len(n.In) > 0 {
			b.sources[n] = b.sources[n.In[0].From]
		}
	}
	for _, t := range b.j.plan.tasks {
		for i := range t.width {
			b.addSubtask(t, i)
		}
	}
	for k := len(b.j.plan.tasks) - 1; k >= 0; k-- {
		t := b.j.plan.tasks[k]
		for _, s := range b.subtasks[t] {
			if err := b.chain(s); err != nil {
				return err
			}
		}
	}
	return nil
}

func (b *builder) addSubtask(t *taskPlan, i int) {
	s := &subtask{ex: b.x, plan: t, index: i, id: len(b.x.subtasks), epoch: b.entry.Epoch + 1,
		watermark: jobs.WatermarkNone, wakeup: make(chan struct{}, 1)}
	s.watermark = b.marks.subtask(s)
	s.marked, s.restored = s.watermark, s.watermark
	if len(t.ins) > 0 {
		s.inbox = &inbox{wake: s.wake}
		for _, e := range t.ins {
			n := e.from.width
			if e.mode == jobs.Forward {
				n = 1
			}
			for range n {
				s.inbox.inputs = append(s.inbox.inputs, input{watermark: jobs.WatermarkNone})
			}
		}
	}
	b.subtasks[t] = append(b.subtasks[t], s)
	b.x.subtasks = append(b.x.subtasks, s)
}

// chain builds the nodes of a subtask, the last first, since each needs those behind it.
func (b *builder) chain(s *subtask) error {
	ins := map[*jobs.Node]any{}
	s.nodes = make([]*nodeInstance, len(s.plan.nodes))
	for k := len(s.plan.nodes) - 1; k >= 0; k-- {
		n := s.plan.nodes[k]
		outs := make([][]any, len(n.Ports))
		for _, m := range s.plan.nodes {
			for _, e := range m.In {
				if e.From == n && ins[m] != nil {
					outs[e.Port] = append(outs[e.Port], ins[m])
				}
			}
		}
		for _, t := range b.j.plan.tasks {
			for ei := range t.ins {
				if e := &t.ins[ei]; e.from == s.plan && e.node == n {
					outs[e.port] = append(outs[e.port], b.edge(s, t, ei))
				}
			}
		}
		ni := &nodeInstance{node: n}
		if stores := b.j.stores.of[n.ID]; stores != nil {
			ni.store = stores[s.index]
		}
		built, err := n.Build(b.env(s, ni), outs)
		if err != nil {
			return &JobError{Job: b.x.name, Step: n.ID, Subtask: s.index, Err: err}
		}
		ni.built, s.nodes[k] = built, ni
		ins[n] = built.In
	}
	if s.inbox != nil {
		at := 0
		for _, e := range s.plan.ins {
			deliver := e.node.Ports[e.port].Deliver(s.nodes[0].built.In)
			n := e.from.width
			if e.mode == jobs.Forward {
				n = 1
			}
			for range n {
				s.inbox.inputs[at].deliver = deliver
				at++
			}
		}
	}
	return nil
}

// edge makes s's writing end of edge ei into task t.
func (b *builder) edge(s *subtask, t *taskPlan, ei int) any {
	e := t.ins[ei]
	base := 0
	for _, before := range t.ins[:ei] {
		if before.mode == jobs.Forward {
			base++
		} else {
			base += before.from.width
		}
	}
	out := &edgeOut{room: make(chan struct{}, 1)}
	for i, target := range b.subtasks[t] {
		if e.mode == jobs.Forward {
			if i != s.index {
				continue
			}
			out.inputs = append(out.inputs, base)
		} else {
			out.inputs = append(out.inputs, base+s.index)
		}
		out.targets = append(out.targets, target.inbox)
	}
	w := jobs.EdgeWriter{Targets: len(out.targets), Max: batchRecords,
		Send: func(target int, batch any, n int) {
			ok := s.send(b.x.ctx, out, target, element{kind: elementBatch, batch: batch, n: n})
			s.stats.out.Add(int64(n))
			if !ok {
				s.failed, s.err = true, errStopped
			}
		}}
	if e.mode == jobs.Balanced {
		send := w.Send
		w.Send = func(_ int, batch any, n int) { send(anyTarget, batch, n) }
		w.Max = max(batchRecords/w.Targets, balancedRecordsMin) // a burst is for all of them
		w.Targets = 1
	}
	in, flush := e.node.Ports[e.port].Writer(w)
	out.flush = flush
	s.edges = append(s.edges, out)
	return in
}

// env is what one node of a subtask gets.
func (b *builder) env(s *subtask, ni *nodeInstance) *jobs.Env {
	n := ni.node
	env := &jobs.Env{Job: b.x.name, Step: n.ID, Subtask: s.index, Parallelism: s.plan.width, Logger: b.x.logger,
		Failed: &s.failed, Fail: func(err error) { s.fail(n.ID, err) }, Records: &recordScope{node: ni}, Restored: s.watermark,
		Late: func() { s.stats.late.Add(1) }}
	if len(takesLate(b.j.def, n)) == 0 {
		env.Late = func() {
			s.stats.late.Add(1)
			s.stats.lateDropped.Add(1)
		}
	}
	if src := b.sources[n]; src != nil {
		env.OnError = src.Source.OnError
	}
	env.Table = func(name string) jobs.Table {
		if b.opened != nil {
			if b.opened[n.ID] == nil {
				b.opened[n.ID] = map[string]bool{}
			}
			b.opened[n.ID][name] = true
		}
		if ni.store == nil {
			stores, err := b.j.stores.step(n.ID)
			if err != nil {
				panic(err) // key groups of a checked width are always right
			}
			ni.store = stores[s.index]
		}
		return ni.store.Table(n.ID, name)
	}
	env.Reject = b.rejecter(s, n.ID, env.OnError)
	if n.Output != nil {
		env.Out = b.out(s, n.Output.Name)
	}
	return env
}

// out makes a buffer for one of the job's outputs.
func (b *builder) out(s *subtask, name string) *outBuffer {
	for _, o := range b.entry.Outputs {
		if o.Name == name {
			ob := newOutBuffer(o.Topic, b.rt.bus.Partitions(o.Topic), b.rt.cfg.FrameBytes/2)
			ob.replay = &b.x.replay
			s.outs = append(s.outs, ob)
			return ob
		}
	}
	panic(fmt.Sprintf("runtime: job %s has no output %q in the log", b.x.name, name)) // registered with the job
}

// rejecter does with a record that an error keeps from going on what on_error says.
func (b *builder) rejecter(s *subtask, step string, on jobs.OnError) func(jobs.Message, jobs.Origin, error) {
	var dead *outBuffer
	if on.Policy == jobs.ErrorTo {
		dead = b.dead(s, on.To)
	}
	return func(m jobs.Message, o jobs.Origin, err error) {
		if on.Policy == jobs.ErrorFail {
			s.fail(step, fmt.Errorf("record %s: %w", o, err))
			return
		}
		s.stats.rejected.Add(1)
		if on.Policy == jobs.ErrorSkip {
			return
		}
		m.Headers = append(slices.Clone(m.Headers), jobs.Header{Name: "error", Value: []byte(err.Error())},
			jobs.Header{Name: "step", Value: []byte(step)}, jobs.Header{Name: "origin", Value: []byte(o.String())})
		m.Key = nil
		if len(m.Value) > jobs.RecordBytesMax { // the headers say what it was
			m.Value = m.Value[:jobs.RecordBytesMax]
		}
		dead.Write(&m, jobs.Key{})
	}
}

// dead returns the buffer that all nodes of a subtask give their dead letters to. It is made with the subtask, so that the
// topic's watermark waits for those whose first dead letter is yet to come.
func (b *builder) dead(s *subtask, output string) *outBuffer {
	if b.deads[s] == nil {
		b.deads[s] = map[string]*outBuffer{}
	}
	if b.deads[s][output] == nil {
		b.deads[s][output] = b.out(s, output)
	}
	return b.deads[s][output]
}

// feeds gives a source task's subtasks their splits or partitions, with where to go on.
func (b *builder) feeds(ctx context.Context, t *taskPlan) error {
	if t.head().Source.Source == nil {
		return b.busFeeds(t)
	}
	n := t.head()
	env := jobs.SourceEnv{Job: b.x.name, Step: n.ID, Logger: b.x.logger, DataDir: b.rt.cfg.DataDir, Services: b.rt.cfg.Services,
		Waiting: func(why string) { b.x.waiting(n.ID, waitOutside(n.ID, why)) }}
	env.Known = b.known(n.ID)
	starts, err := n.Source.Source.Splits(ctx, env)
	if err != nil {
		return &JobError{Job: b.x.name, Step: n.ID, Err: err}
	}
	states := b.splitStates(n.ID, starts)
	if d, ok := n.Source.Source.(jobs.Discoverer); ok && !n.Source.Source.Bounded() {
		b.x.discoveries = append(b.x.discoveries, newDiscovery(d, env, b.subtasks[t], states))
	}
	env.Known = nil
	for i, s := range b.subtasks[t] {
		env.Subtask = i
		f := &outsideFeed{node: n, built: &s.nodes[0].built, env: env, now: b.rt.now}
		for k := i; k < len(states); k += t.width {
			f.splits = append(f.splits, states[k])
		}
		s.feed = f
	}
	return nil
}

// known returns the splits of a source that the last epoch has a position of.
func (b *builder) known(step string) (known []jobs.Start) {
	for _, k := range b.entry.header.Splits {
		if k.Step == step {
			known = append(known, jobs.Start{Split: jobs.Split{ID: k.Split, Topic: k.Topic, Partition: k.Partition}, Position: k.Position, Ended: k.Ended})
		}
	}
	return known
}

// splitStates joins what the source says there is with where the last epoch left each split.
func (b *builder) splitStates(step string, starts []jobs.Start) []splitState {
	known := map[string]checkpoint.SplitState{}
	for _, st := range b.entry.header.Splits {
		if st.Step == step {
			known[st.Split] = st
		}
	}
	var out []splitState
	for _, st := range starts {
		s := splitState{start: st, position: st.Position, watermark: jobs.WatermarkNone, ended: st.Ended, moved: true}
		if k, ok := known[st.Split.ID]; ok {
			s.position, s.watermark, s.ended, s.moved = k.Position, jobs.Watermark(k.Watermark), k.Ended, false
			delete(known, st.Split.ID)
		}
		s.start.Position, s.start.Ended = s.position, s.ended
		out = append(out, s)
	}
	for _, k := range b.entry.header.Splits {
		if _, left := known[k.Split]; left && k.Step == step && !k.Ended {
			out = append(out, splitState{start: jobs.Start{Split: jobs.Split{ID: k.Split, Topic: k.Topic, Partition: k.Partition},
				Position: k.Position}, position: k.Position, watermark: jobs.Watermark(k.Watermark)})
		}
	}
	return out
}

func (b *builder) busFeeds(t *taskPlan) error {
	n := t.head()
	var in *inputEntry
	for i := range b.entry.Inputs {
		if b.entry.Inputs[i].Step == n.ID {
			in = &b.entry.Inputs[i]
		}
	}
	if in == nil {
		return fmt.Errorf("runtime: job %s has no subscription for step %s in the log", b.x.name, n.ID)
	}
	per := make([][]bus.SubState, t.width)
	partitions := b.rt.bus.Partitions(in.Topic)
	for _, sp := range b.entry.header.Subs {
		if sp.Sub != uint32(in.Sub) {
			continue
		}
		st, err := bus.DecodeSubState(sp.State)
		if err != nil {
			return fmt.Errorf("runtime: job %s: position of step %s: %w", b.x.name, n.ID, err)
		}
		owner := st.Partition % t.width
		if partitions%t.width == 0 {
			owner = st.Partition * t.width / partitions
		}
		per[owner] = append(per[owner], st)
	}
	for i, s := range b.subtasks[t] {
		slices.SortFunc(per[i], func(a, b bus.SubState) int { return a.Partition - b.Partition })
		f := &busFeed{node: n, built: &s.nodes[0].built, bus: b.rt.bus, sub: in.Sub, topic: in.Topic, states: per[i]}
		f.stopAt(b.x.replay.Load())
		s.feed = f
	}
	return nil
}
