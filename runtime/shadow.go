package runtime

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sidestream-dev/sidestream/bus"
	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/wal"
)

// A shadow run lets another definition of a job read what the job has read of a topic, with its outputs muted, and compares
// what it gives with what the job gave of exactly these records. It reads, and nothing else: it has no subscription, writes no
// frame, and keeps its state in memory. Where the range begins and ends in the job's outputs, the job's own epochs say
// (shadow_range.go).

const (
	shadowsAtOnce    = 2
	shadowStateBytes = 256 << 20 // of the definition's state, where ShadowOptions say nothing
	shadowOpenMax    = 1 << 20   // records of one side whose equal has not come on the other, likewise
	shadowShownBytes = 16 << 20  // of records that are kept to be shown
	shadowTailMax    = 100_000   // records behind an end that is not exact, in which what is still open may be found
	shadowChunk      = 1024      // records at a time
	// ShadowShowMax is how many differences can be shown.
	ShadowShowMax = 1000
)

// ErrShadowsBusy refuses a shadow run while others are under way.
var ErrShadowsBusy = errors.New("other shadow runs are under way; try again when they are over")

// ShadowEngine runs one job on what it is given, in the caller's goroutine. Package casetest has one.
type ShadowEngine interface {
	Records(partition int, ms []jobs.Message) error
	Watermark(partition int, w jobs.Watermark, idle bool) error
	End() error
	StateBytes() int
	Close() error
}

// ShadowSetup is what an engine begins with: partitions of the topic, watermarks and state of the job's steps. Out is given what
// the outputs would have been.
type ShadowSetup struct {
	Job        *jobs.Job
	Partitions int
	Restored   map[string]jobs.Watermark
	State      map[string][][]byte
	Out        func(output *jobs.Node, m *jobs.Message)
}

// ShadowOptions say what is run, and on what.
type ShadowOptions struct {
	Definition *jobs.Job
	Against    string // the job whose outputs it is compared with; "" is the one of the definition's name
	From       Place
	To         *Place // nil: as far as the job has read
	WarmUp     *Place // read from here on, and compare from From on; nil leaves that to the savepoints there are
	Show       int    // so many differences; at most ShadowShowMax
	StateBytes int    // of the definition's state, at most; 0 means 256 MiB
	OpenMax    int    // records that one side has given and the other has not yet, at most; 0 means 1,048,576
	Engine     func(ShadowSetup) (ShadowEngine, error)
	Progress   func(done, all int64) // records; nil is told nothing
}

// ShadowResult is what came of it.
type ShadowResult struct {
	Job         string             `json:"job"`
	Input       ReplaySpan         `json:"input" doc:"what was compared: whole epochs of the job"`
	Parts       []ShadowPart       `json:"parts" doc:"what the job read at one go, in its order; several where it was replayed or set elsewhere"`
	Records     int64              `json:"records" doc:"of the input, compared"`
	WarmUp      int64              `json:"warm_up" doc:"records read before, whose outputs were not compared"`
	State       string             `json:"state" doc:"what the definition began with"`
	Exact       bool               `json:"exact" doc:"the job's epochs say which outputs came of the range"`
	Notes       []string           `json:"notes" doc:"what limits the comparison"`
	Same        bool               `json:"same" doc:"nothing is missing, and nothing extra"`
	Equal       int64              `json:"equal"`
	Missing     int64              `json:"missing" doc:"the job gave it, the definition does not"`
	Extra       int64              `json:"extra" doc:"the definition gives it, the job did not"`
	Apart       int64              `json:"apart" doc:"differences that the range's beginning explains; neither missing nor extra"`
	Outputs     []ShadowOutput     `json:"outputs"`
	Differences []ShadowDifference `json:"differences" doc:"the first"`
}

// ShadowOutput is one topic that is compared, or an output that is not.
type ShadowOutput struct {
	Output  string `json:"output" doc:"a topic as bus:TOPIC, or an output to the outside as NAME (outside)"`
	Given   int64  `json:"running" doc:"records that the job gave"`
	Gave    int64  `json:"shadow" doc:"records that the definition gives"`
	Equal   int64  `json:"equal"`
	Missing int64  `json:"missing"`
	Extra   int64  `json:"extra"`
	Apart   int64  `json:"apart" doc:"differences that the range's beginning explains; neither missing nor extra"`
	Not     string `json:"not_compared,omitempty" doc:"why it is not compared"`
}

// ShadowDifference is a record that one side has. Where the other has one of the same key and time, both are there.
type ShadowDifference struct {
	Output string          `json:"output"`
	Kind   string          `json:"kind" enum:"missing,extra,differs"`
	Key    json.RawMessage `json:"key,omitempty"`
	Time   *time.Time      `json:"time,omitempty"`
	Given  json.RawMessage `json:"running,omitempty" doc:"the value that the job gave"`
	Gave   json.RawMessage `json:"shadow,omitempty" doc:"the value that the definition gives"`
	Apart  bool            `json:"apart,omitempty" doc:"the range's beginning explains it"`
}

// shadow is one run.
type shadow struct {
	rt     *Runtime
	o      ShadowOptions
	topic  bus.TopicID
	e      *jobEntry
	in     inputEntry
	source *jobs.Node
	def    *definition
	ends   map[bus.TopicID][]bus.Offset // of the job's outputs, as of e
	shared map[bus.TopicID]string       // another job that writes an output's topic
	held   []bus.TopicID                // that are not removed meanwhile
	last   wal.LSN                      // of the log, as of e
	parts  []shadowPart

	// What follows is of one part.
	part       shadowPart
	until      wal.LSN // the frame that ended its stretch; 0 is none
	begin, end shadowEdge
	whole      bool // it begins with all the state there was
	starts     []bus.SubState
	setup      ShadowSetup

	engine   ShadowEngine
	owners   frameOwners
	owned    bool // they can be asked
	heads    []*shadowHead
	counting bool
	outs     []*shadowOut
	compare  *comparison
	fault    error
	done     int64
	all      int64
	result   ShadowResult
}

// shadows is how many are under way, and which topics they read: these are not removed meanwhile.
type shadows struct {
	n       atomic.Int32
	mu      sync.Mutex
	reading map[bus.TopicID]int
}

// hold says that one begins to read topics; or, by -1, that it is over.
func (s *shadows) hold(topics []bus.TopicID, by int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.reading == nil {
		s.reading = map[bus.TopicID]int{}
	}
	for _, id := range topics {
		if s.reading[id] += by; s.reading[id] == 0 {
			delete(s.reading, id)
		}
	}
}

func (s *shadows) reads(topic bus.TopicID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reading[topic] > 0
}

// Shadow runs a definition of a job over what the job has read of a topic, and compares. It disturbs nothing.
func (rt *Runtime) Shadow(ctx context.Context, topic string, o ShadowOptions) (res ShadowResult, err error) {
	if rt.shadows.n.Add(1) > shadowsAtOnce {
		rt.shadows.n.Add(-1)
		return res, ErrShadowsBusy
	}
	defer rt.shadows.n.Add(-1)
	defer recovered(&err, o.Definition.Name, "", 0) // the steps are the definition's own code
	s := &shadow{rt: rt, o: o, ends: map[bus.TopicID][]bus.Offset{}, shared: map[bus.TopicID]string{}}
	defer func() { rt.shadows.hold(s.held, -1) }()
	if s.o.Against == "" {
		s.o.Against = o.Definition.Name
	}
	s.o.Show = min(max(s.o.Show, 0), ShadowShowMax)
	def(&s.o.StateBytes, shadowStateBytes)
	def(&s.o.OpenMax, shadowOpenMax)
	for _, step := range []func(context.Context, string) error{s.look, s.split, s.runParts} {
		if err := step(ctx, topic); err != nil {
			return ShadowResult{}, err
		}
	}
	return s.result, nil
}

// look finds the job, and checks that the definition can be run on what it read.
func (s *shadow) look(ctx context.Context, topic string) (err error) {
	id, ok := s.rt.bus.TopicByName(topic)
	if !ok {
		return missing("topic", topic, ErrNoTopic)
	}
	s.topic = id
	for _, n := range s.o.Definition.Nodes {
		switch {
		case n.Source == nil:
		case outside(n) || n.Source.Topic != topic || s.source != nil:
			return fmt.Errorf("%sjob %s must read topic %s and nothing else, to be run on that", atPlace(n), s.o.Definition.Name, topic)
		default:
			s.source = n
		}
	}
	if s.source == nil {
		return fmt.Errorf("job %s reads nothing", s.o.Definition.Name)
	}
	if s.def, err = s.rt.inspect(s.o.Definition, OriginAPI); err != nil {
		return err
	}
	if err := s.rt.do(s.stand); err != nil {
		return err
	}
	if len(s.e.Inputs) != 1 || len(s.e.header.Splits) > 0 {
		return fmt.Errorf("job %s reads more than topic %s: what it gave did not come of that alone", s.o.Against, topic)
	}
	return s.rt.log.WaitDurable(ctx, s.last) // an answer is what is durable
}

// stand notes where the job and its outputs stand, at one moment. It runs on the committer's goroutine.
func (s *shadow) stand(c *core) error {
	j := c.ledger.job(s.o.Against)
	if j == nil {
		return fmt.Errorf("whose outputs are to be compared: %w", missing("job", s.o.Against, ErrNoJob))
	}
	i := slices.IndexFunc(j.Inputs, func(in inputEntry) bool { return in.Topic == s.topic })
	if i < 0 {
		return fmt.Errorf("%s does not read topic %s: %w", s.o.Against, c.bus.Spec(s.topic).Name, ErrNoSubscription)
	}
	s.e, s.in, s.last = j.clone(), j.Inputs[i], c.log.Last()
	s.held = append(s.held, s.topic)
	for _, o := range j.Outputs {
		s.held = append(s.held, o.Topic)
	}
	s.rt.shadows.hold(s.held, 1)
	for _, o := range j.Outputs {
		for p := range c.bus.Partitions(o.Topic) {
			s.ends[o.Topic] = append(s.ends[o.Topic], c.bus.Next(o.Topic, p))
		}
		for _, other := range c.ledger.sorted() {
			if other.ID != j.ID && slices.ContainsFunc(other.Outputs, func(x outputEntry) bool { return x.Topic == o.Topic }) {
				s.shared[o.Topic] = other.Name
			}
		}
	}
	return nil
}

// atPlace is where a definition has a node, to begin an error with; "" where that is not known.
func atPlace(n *jobs.Node) string {
	if n.Place.File == "" {
		return ""
	}
	return fmt.Sprintf("%s:%d: ", n.Place.File, n.Place.Line)
}

// outputs says which outputs are compared, and why others are not. A run that would compare nothing is refused: it would find
// no difference.
func (s *shadow) outputs() error {
	seen := map[string]bool{}
	add := func(name string, id bus.TopicID) (err error) {
		if seen[name] {
			return nil
		}
		seen[name] = true
		o := &shadowOut{id: id, ShadowOutput: ShadowOutput{Output: name}}
		o.Not, err = s.notCompared(o)
		s.outs = append(s.outs, o)
		return err
	}
	for _, o := range s.e.Outputs {
		name := "bus:" + s.rt.bus.Spec(o.Topic).Name
		if o.Outside {
			name = o.Name + " (outside)"
		}
		if err := add(name, o.Topic); err != nil {
			return err
		}
	}
	for _, n := range s.def.Outputs() {
		if err := add(shadowName(n), 0); err != nil {
			return err
		}
	}
	s.owners.frames, s.owned = s.rt.frames, s.inLog()
	var why []string
	for _, o := range s.outs {
		if o.Not == "" {
			return nil
		}
		why = append(why, o.Output+": "+o.Not)
	}
	return fmt.Errorf("job %s %w (%s)", s.e.Name, errNoneCompared, strings.Join(why, "; "))
}

// out is the shadow's side of an output node.
func (s *shadow) out(n *jobs.Node) *shadowOut {
	i := slices.IndexFunc(s.outs, func(o *shadowOut) bool { return o.Output == shadowName(n) })
	return s.outs[i]
}

func shadowName(n *jobs.Node) string {
	if n.Output.Sink != nil {
		return n.Output.Name + " (outside)"
	}
	return "bus:" + n.Output.Topic
}

// shadowOut is an output with who reads what the job gave.
type shadowOut struct {
	ShadowOutput
	id      bus.TopicID // 0 where the job has no such output
	readers []*givenReader
	seq     int64 // of records read
	matched int64 // seq of the first that has its equal, counted from 1
}
