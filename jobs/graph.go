package jobs

import (
	"fmt"
	"regexp"
	"strings"
	"time"
)

// Job is a named graph of sources, steps and outputs. It is built by one goroutine and read-only from then on.
type Job struct {
	Name        string
	Parallelism int      // subtasks of every step that does not say its own; 0 means 1
	Delivery    Delivery // what the outputs promise
	Nodes       []*Node  // in an order in which every node stands behind those it reads from
	Topics      []Topic  // topics that the definition describes, beside those it only names
	Definition  []byte   // what the job was made from; a Go job's is its graph (see Describe)

	ids map[string]int
	err error
}

var nameRE = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`)

// CheckName returns an error where s cannot name a job, a topic, an output or a step: 1 to 128 letters, digits, '.',
// '_' and '-', the first a letter or digit.
func CheckName(s string) error {
	if !nameRE.MatchString(s) {
		if len(s) > 60 {
			s = strings.ToValidUTF8(s[:60], "") + "…"
		}
		return fmt.Errorf("name %q: want 1 to 128 letters, digits, '.', '_' or '-', beginning with a letter or digit", s)
	}
	return nil
}

// New begins a job. A name that is not one (see CheckName) is reported by Check.
func New(name string) *Job { return &Job{Name: name, ids: map[string]int{}, err: CheckName(name)} }

// Topic is what a job knows of a topic on the bus. Zero fields are taken as other definitions have them, or by default.
type Topic struct {
	Name           string
	Partitions     int           // 1 to KeyGroups; default 1
	RetentionBytes int64         // default 1 GiB
	RetentionAge   time.Duration // default none
	LimitBytes     int64         // how far a reader may fall behind; default 1 GiB
	OnFull         string        // "block" (default), or "drop_oldest"
}

// Mode says how records get from one node to the next.
type Mode uint8

const (
	Forward   Mode = iota // same subtask
	Hash                  // to the subtask that owns the record's key group
	AsWritten             // Hash, but nothing is moved where records are with the owner of their key already
	Balanced              // whole batches, to the subtask with the least to do
)

// Edge is where a node's records come from.
type Edge struct {
	From *Node
	Port int // index into From.Ports
	Mode Mode
}

// Node is one source, step or output of a graph. Exactly one of Source and Output is set for an end, none for a step.
type Node struct {
	ID          string // unique within the job
	Kind        string
	In          []Edge
	Ports       []Port        // what it emits; empty for an output
	Parallelism int           // 0 means the job's
	Keyed       bool          // it reads keyed state, so that a key must always meet the same subtask
	KeyType     string        // of the keys that a keyed step keeps state by, as far as it is known; "" where it is not
	Span        time.Duration // how far back in event time records may lie of which a step makes one; 0 is none but its own time
	Source      *SourceSpec
	Output      *OutputSpec
	Place       Place // where its definition has it
	// Build makes the instance of one subtask. outs[p] lists what takes the records of port p: each is a func(*Rec[T])
	// of the port's type.
	Build func(env *Env, outs [][]any) (Built, error)
}

// SourceSpec is what runtime must know of a source node.
type SourceSpec struct {
	Source         Source // nil for a topic on the bus
	Topic          string // on the bus
	Start          BusStart
	OutOfOrderness time.Duration // how far behind the highest event time the watermark stays
	IdleAfter      time.Duration // a split without records for that long holds nothing back; 0 means never
	OnError        OnError
}

// BusStart is where a new subscription begins: at the oldest record that is still there, unless it says something else.
type BusStart struct {
	Latest bool  // behind the newest record
	At     int64 // an offset, if Exact
	Exact  bool
	Time   Time          // if ByTime: in each partition at the first record of that event time or later
	Ago    time.Duration // if more than 0: ByTime, so long before the job is added
	ByTime bool
}

// OutputSpec is what runtime must know of an output node.
type OutputSpec struct {
	Name  string
	Sink  Sink   // nil for a topic on the bus
	Topic string // on the bus
}

// OnError says what becomes of a record that cannot be decoded or that makes a step fail.
type OnError struct {
	Policy ErrorPolicy
	To     string // the output, for ErrorTo
}

// ErrorPolicy is the kind of an OnError.
type ErrorPolicy uint8

const (
	ErrorFail ErrorPolicy = iota // the attempt fails
	ErrorSkip                    // the record is counted and left out
	ErrorTo                      // the record goes to an output, with the error, the step and the origin as headers
)

// add gives n its id and takes it into the graph.
func (j *Job) add(n *Node) *Node {
	if n.ID == "" {
		j.ids[n.Kind]++
		n.ID = fmt.Sprintf("%s-%d", n.Kind, j.ids[n.Kind])
	}
	j.Nodes = append(j.Nodes, n)
	return n
}

// fail keeps the first mistake of building the graph for Check.
func (j *Job) fail(format string, args ...any) {
	if j.err == nil {
		j.err = fmt.Errorf("job %s: %w", j.Name, fmt.Errorf(format, args...))
	}
}

// Fail keeps err, a mistake in building the graph, for Check; of several the first.
func (j *Job) Fail(err error) { j.fail("%w", err) }

// Node returns the node with an id, or nil.
func (j *Job) Node(id string) *Node {
	for _, n := range j.Nodes {
		if n.ID == id {
			return n
		}
	}
	return nil
}

// Outputs returns the job's output nodes in the order of the graph.
func (j *Job) Outputs() []*Node {
	var out []*Node
	for _, n := range j.Nodes {
		if n.Output != nil {
			out = append(out, n)
		}
	}
	return out
}

// Width returns how many subtasks run n.
func (j *Job) Width(n *Node) int {
	if n.Parallelism > 0 {
		return n.Parallelism
	}
	return max(1, j.Parallelism)
}

// Bounded reports whether every source outside the bus ends by itself.
func (j *Job) Bounded() bool {
	for _, n := range j.Nodes {
		if n.Source != nil && n.Source.Source != nil && !n.Source.Source.Bounded() {
			return false
		}
	}
	return true
}

// Check returns the first mistake in the graph: made while building it, a name that is used twice, an output that is
// named and not there, a promise that a sink cannot keep.
func (j *Job) Check() error {
	if j.err != nil {
		return j.err
	}
	seen := map[string]bool{}
	outputs := map[string]bool{}
	for _, n := range j.Nodes {
		if err := CheckName(n.ID); err != nil {
			return fmt.Errorf("job %s: step: %w", j.Name, err)
		}
		if seen[n.ID] {
			return fmt.Errorf("job %s: two steps are called %q", j.Name, n.ID)
		}
		seen[n.ID] = true
		if w := j.Width(n); w > KeyGroups {
			return fmt.Errorf("job %s: step %s: parallelism %d is more than %d", j.Name, n.ID, w, KeyGroups)
		}
		if n.Output != nil {
			if outputs[n.Output.Name] {
				return fmt.Errorf("job %s: two outputs are called %q", j.Name, n.Output.Name)
			}
			outputs[n.Output.Name] = true
			if n.Output.Sink != nil && j.Delivery == ExactlyOnce {
				if err := n.Output.Sink.ExactlyOnce(); err != nil {
					return fmt.Errorf("job %s: output %s: exactly_once: %w", j.Name, n.Output.Name, err)
				}
			}
		}
	}
	for _, n := range j.Nodes {
		if n.Source != nil && n.Source.OnError.Policy == ErrorTo && !outputs[n.Source.OnError.To] {
			return fmt.Errorf("job %s: source %s: on_error names the output %q, which the job does not have", j.Name, n.ID, n.Source.OnError.To)
		}
	}
	if len(j.Nodes) == 0 {
		return fmt.Errorf("job %s: it has no source", j.Name)
	}
	return nil
}
