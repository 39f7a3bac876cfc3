package jobstest

import (
	"log/slog"
	"testing"

	"github.com/sidestream-dev/sidestream/jobs"
)

// Harness runs a whole job in the test's goroutine: one subtask a step, records one by one, event time as the test
// says. It stands in for runtime's rules where they concern steps: watermarks are the lowest of a step's inputs, a
// restart gives state and watermarks of the last barrier back, what a step refuses goes where on_error says.
type Harness struct {
	Rejected []Rejected // what steps and decoders refused, with any policy
	Late     int        // records counted as late
	Err      error      // what ended the attempt; Crash clears it

	t     testing.TB
	job   *jobs.Job
	nodes []*nodeRun
	byID  map[string]*nodeRun

	failed  bool
	barrier struct{ rejected, late int }
}

// nodeRun is one node's instance and what outlives it.
type nodeRun struct {
	node    *jobs.Node
	built   jobs.Built
	store   *Store
	mark    jobs.Watermark
	split   jobs.Split
	offset  int64
	highest jobs.Time      // of a source
	out     []jobs.Message // of an output
	keys    []jobs.Key     // beside out: the encoded keys

	sealed struct {
		store  *Store
		mark   jobs.Watermark
		offset int64
		high   jobs.Time
		out    int
	}
}

// New builds j, which must pass its Check.
func New(t testing.TB, j *jobs.Job) *Harness {
	t.Helper()
	if err := j.Check(); err != nil {
		t.Fatal(err)
	}
	h := &Harness{t: t, job: j, byID: map[string]*nodeRun{}}
	for _, n := range j.Nodes {
		r := &nodeRun{node: n, store: NewStore(), mark: jobs.WatermarkNone, highest: jobs.NoTime}
		if s := n.Source; s != nil {
			r.split = jobs.Split{ID: "test-0", Topic: s.Topic}
		}
		h.nodes = append(h.nodes, r)
		h.byID[n.ID] = r
	}
	h.build()
	h.Barrier()
	return h
}

// build makes all instances, those that are read from last, so that each finds what takes its records.
func (h *Harness) build() {
	h.t.Helper()
	h.failed, h.Err = false, nil
	for i := len(h.nodes) - 1; i >= 0; i-- {
		r := h.nodes[i]
		outs := make([][]any, len(r.node.Ports))
		for _, after := range h.nodes[i+1:] {
			for _, e := range after.node.In {
				if e.From == r.node {
					outs[e.Port] = append(outs[e.Port], after.built.In)
				}
			}
		}
		var err error
		if r.built, err = r.node.Build(h.env(r), outs); err != nil {
			h.t.Fatal(err)
		}
	}
	for _, r := range h.nodes {
		if r.mark != jobs.WatermarkNone && r.built.Watermark != nil {
			r.built.Watermark(r.mark)
		}
	}
}

func (h *Harness) env(r *nodeRun) *jobs.Env {
	onError := h.sourceOf(r.node).OnError
	env := &jobs.Env{
		Job: h.job.Name, Step: r.node.ID, Parallelism: 1, Logger: slog.New(slog.DiscardHandler), OnError: onError,
		Restored: r.mark, Table: r.store.Table, Failed: &h.failed, Records: r.store,
		Late: func() { h.Late++ },
		Fail: h.fail,
	}
	env.Reject = func(m jobs.Message, o jobs.Origin, err error) {
		h.Rejected = append(h.Rejected, Rejected{r.node.ID, m, o, err})
		switch onError.Policy {
		case jobs.ErrorFail:
			h.fail(err)
		case jobs.ErrorTo:
			m.Headers = append(m.Headers[:len(m.Headers):len(m.Headers)], jobs.Header{Name: "error", Value: []byte(err.Error())},
				jobs.Header{Name: "step", Value: []byte(r.node.ID)}, jobs.Header{Name: "origin", Value: []byte(o.String())})
			for _, o := range h.nodes {
				if o.node.Output != nil && o.node.Output.Name == onError.To {
					m.Key = nil
					o.write(&m, jobs.Key{})
				}
			}
		}
	}
	if r.node.Output != nil {
		env.Out = (*out)(r)
	}
	return env
}

func (h *Harness) fail(err error) {
	if !h.failed {
		h.failed, h.Err = true, err
	}
}

// sourceOf returns the source that a node's records come from; of several the first.
func (h *Harness) sourceOf(n *jobs.Node) *jobs.SourceSpec {
	for n.Source == nil {
		if len(n.In) == 0 {
			return &jobs.SourceSpec{}
		}
		n = n.In[0].From
	}
	return n.Source
}

// out is an output node's jobs.Out: one partition, kept.
type out nodeRun

func (o *out) Write(m *jobs.Message, key jobs.Key) int {
	(*nodeRun)(o).write(m, key)
	return 0
}
func (o *out) Payload(func(int) any) {}
func (o *out) Partitions() int       { return 1 }

func (r *nodeRun) write(m *jobs.Message, key jobs.Key) {
	c := *m
	c.Key, c.Value = clone(m.Key), clone(m.Value)
	c.Offset = int64(len(r.out))
	r.out, r.keys = append(r.out, c), append(r.keys, key)
}

func clone(b []byte) []byte {
	if b == nil {
		return nil
	}
	return append([]byte{}, b...)
}

// source returns the source with an id; "" is the only one.
func (h *Harness) source(id string) *nodeRun {
	h.t.Helper()
	var found *nodeRun
	for _, r := range h.nodes {
		if r.node.Source != nil && (id == "" || id == r.node.ID) {
			if found != nil {
				h.t.Fatalf("the job has several sources: say which")
			}
			found = r
		}
	}
	if found == nil {
		h.t.Fatalf("the job has no source %q", id)
	}
	return found
}

// Send gives a source messages and does not move event time. source is its id, or "" for the only one.
func (h *Harness) Send(source string, ms ...jobs.Message) {
	h.t.Helper()
	r := h.source(source)
	for _, m := range ms {
		if h.failed {
			return
		}
		m.Offset = r.offset
		r.offset++
		r.highest = max(r.highest, r.built.Messages(&r.split, []jobs.Message{m}))
	}
}

// Feed is Send that moves event time after each message as runtime does: to the highest time seen, less the source's
// out-of-orderness, less 1 ms.
func (h *Harness) Feed(source string, ms ...jobs.Message) {
	h.t.Helper()
	r := h.source(source)
	for _, m := range ms {
		h.Send(source, m)
		if r.highest != jobs.NoTime {
			h.Watermark(source, jobs.Watermark(int64(r.highest)-r.node.Source.OutOfOrderness.Milliseconds()-1))
		}
	}
}

// Watermark moves a source's event time to w, if that is further than it is, and carries it through the graph.
func (h *Harness) Watermark(source string, w jobs.Watermark) {
	h.t.Helper()
	r := h.source(source)
	if w <= r.mark || h.failed {
		return
	}
	r.mark = w
	for _, n := range h.nodes {
		if len(n.node.In) == 0 {
			continue
		}
		low := jobs.WatermarkMax
		for _, e := range n.node.In {
			low = min(low, h.byID[e.From.ID].mark)
		}
		if low > n.mark {
			n.mark = low
			if n.built.Watermark != nil {
				n.built.Watermark(low)
			}
		}
	}
}

// End gives every source its final watermark.
func (h *Harness) End() {
	h.t.Helper()
	for _, r := range h.nodes {
		if r.node.Source != nil {
			h.Watermark(r.node.ID, jobs.WatermarkMax)
		}
	}
}

// Barrier seals what has been done so far.
func (h *Harness) Barrier() {
	for _, r := range h.nodes {
		r.sealed.store, r.sealed.mark, r.sealed.offset = r.store.Clone(), r.mark, r.offset
		r.sealed.high, r.sealed.out = r.highest, len(r.out)
	}
	h.barrier.rejected, h.barrier.late = len(h.Rejected), h.Late
}

// Crash throws away what was done since the last Barrier and starts the job anew from there. The test sends again what
// it sent since.
func (h *Harness) Crash() {
	h.t.Helper()
	for _, r := range h.nodes {
		r.store, r.mark, r.offset = r.sealed.store.Clone(), r.sealed.mark, r.sealed.offset
		r.highest, r.out, r.keys = r.sealed.high, r.out[:r.sealed.out], r.keys[:r.sealed.out]
	}
	h.Rejected, h.Late = h.Rejected[:h.barrier.rejected], h.barrier.late
	h.build()
}

// Output returns what an output has been given so far.
func (h *Harness) Output(name string) []jobs.Message {
	h.t.Helper()
	for _, r := range h.nodes {
		if r.node.Output != nil && r.node.Output.Name == name {
			return r.out
		}
	}
	h.t.Fatalf("the job has no output %q", name)
	return nil
}

// Lines returns the values of an output as strings.
func (h *Harness) Lines(name string) []string {
	h.t.Helper()
	var lines []string
	for _, m := range h.Output(name) {
		lines = append(lines, string(m.Value))
	}
	return lines
}

// State returns the state of a step.
func (h *Harness) State(step string) *Store {
	h.t.Helper()
	r := h.byID[step]
	if r == nil {
		h.t.Fatalf("the job has no step %q", step)
	}
	return r.store
}
