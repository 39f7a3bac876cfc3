package runtime

import (
	"fmt"

	"github.com/sidestream-dev/sidestream/jobs"
)

// taskPlan is a chain of nodes fused into one task: records go from one to the next by a call.
type taskPlan struct {
	nodes []*jobs.Node // the head first, each behind those it reads from
	width int
	ins   []edgePlan // edges that end at the head
}

func (t *taskPlan) head() *jobs.Node { return t.nodes[0] }

// name is what people see: the ids of the chain.
func (t *taskPlan) name() string {
	s := t.head().ID
	for _, n := range t.nodes[1:] {
		s += "→" + n.ID
	}
	return s
}

// edgePlan is an edge between two tasks.
type edgePlan struct {
	from *taskPlan
	node *jobs.Node // of from, that emits
	port int
	to   *taskPlan
	mode jobs.Mode
}

// jobPlan is how a job is run: its tasks, each behind those it reads from.
type jobPlan struct {
	job   *jobs.Job
	tasks []*taskPlan
	of    map[*jobs.Node]*taskPlan
}

// planJob cuts a graph into tasks. partitions tells how many a topic on the bus has.
func planJob(j *jobs.Job, partitions func(topic string) int) (*jobPlan, error) {
	if err := j.Check(); err != nil {
		return nil, err
	}
	p := &jobPlan{job: j, of: map[*jobs.Node]*taskPlan{}}
	for _, n := range j.Nodes {
		if n.Output != nil && len(n.In) == 0 {
			continue // only dead letters go there, from wherever they arise
		}
		if t := p.chainTo(n, partitions); t != nil {
			t.nodes = append(t.nodes, n)
			p.of[n] = t
			continue
		}
		t := &taskPlan{nodes: []*jobs.Node{n}, width: j.Width(n)}
		for _, e := range n.In {
			from := p.of[e.From]
			if from == nil {
				return nil, fmt.Errorf("job %s: step %s stands before %s, which it reads from", j.Name, n.ID, e.From.ID)
			}
			t.ins = append(t.ins, edgePlan{from: from, node: e.From, port: e.Port, to: t, mode: p.edgeMode(e, from, t)})
		}
		p.tasks = append(p.tasks, t)
		p.of[n] = t
	}
	return p, nil
}

// chainTo returns the task that n can be fused with, or nil.
func (p *jobPlan) chainTo(n *jobs.Node, partitions func(string) int) *taskPlan {
	if len(n.In) != 1 {
		return nil
	}
	e := n.In[0]
	t := p.of[e.From]
	if t == nil {
		return nil
	}
	width := p.job.Width(n)
	if n.Output != nil && n.Parallelism == 0 {
		width = t.width // an end runs where its records are
	}
	if width != t.width {
		return nil
	}
	switch e.Mode {
	case jobs.Forward:
		return t
	case jobs.Hash, jobs.Balanced:
		if width == 1 {
			return t
		}
	case jobs.AsWritten:
		if width == 1 || aligned(t, partitions) {
			return t
		}
	}
	return nil
}

// aligned reports whether each subtask of a task has just the keys it owns, where they are as written: behind a step that keeps
// state by key, or behind a bus source of which each subtask gets whole partitions that hold just its key groups.
func aligned(t *taskPlan, partitions func(string) int) bool {
	for _, n := range t.nodes {
		if n.Keyed {
			return true
		}
	}
	s := t.head().Source
	if s == nil || s.Source != nil {
		return false
	}
	return partitions(s.Topic)%t.width == 0
}

func (p *jobPlan) edgeMode(e jobs.Edge, from, to *taskPlan) jobs.Mode {
	switch {
	case e.Mode == jobs.Forward && from.width != to.width:
		return jobs.Balanced
	case e.Mode == jobs.AsWritten:
		return jobs.Hash
	}
	return e.Mode
}

// groupsOf returns the key groups [lo, hi) that belong to subtask i of n.
func groupsOf(i, n int) (lo, hi int) {
	lo = (i*jobs.KeyGroups + n - 1) / n
	hi = ((i+1)*jobs.KeyGroups + n - 1) / n
	return lo, hi
}

// topicsWritten returns the names of the bus topics that the job writes.
func topicsWritten(j *jobs.Job) []string {
	var out []string
	seen := map[string]bool{}
	for _, n := range j.Outputs() {
		if t := n.Output.Topic; n.Output.Sink == nil && !seen[t] {
			seen[t] = true
			out = append(out, t)
		}
	}
	return out
}
