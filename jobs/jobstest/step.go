package jobstest

import (
	"log/slog"
	"testing"

	"github.com/sidestream-dev/sidestream/jobs"
)

// Rejected is a record that a step or decoder refused.
type Rejected struct {
	Step    string
	Message jobs.Message
	Origin  jobs.Origin
	Err     error
}

// Step drives one typed step.
type Step[In, Out, Side any] struct {
	Main     []jobs.Rec[Out]  // what came out so far; a test may empty it
	Aside    []jobs.Rec[Side] // of the second port
	Rejected []Rejected
	Late     int   // records counted as late
	Err      error // what ended the attempt
	Store    *Store

	t         testing.TB
	node      *jobs.Node
	onError   jobs.OnError
	in        func(*jobs.Rec[In])
	watermark func(jobs.Watermark)
	mark      jobs.Watermark
	failed    bool
}

// NewStep builds op over an empty store. The records' source skips errors, so that what they undo can be seen;
// otherwise give [StepOf] the stream.
func NewStep[In, Out, Side any](t testing.TB, op jobs.Op[In, Out, Side]) *Step[In, Out, Side] {
	t.Helper()
	return NewStepOn(t, op, NewStore())
}

// NewStepOn builds op over a store.
func NewStepOn[In, Out, Side any](t testing.TB, op jobs.Op[In, Out, Side], store *Store) *Step[In, Out, Side] {
	t.Helper()
	return StepOf[In, Out, Side](t, store, func(s *jobs.Stream[In]) { jobs.Attach(s, op) })
}

// StepOf builds the one step that attach puts behind a keyed stream, over a store.
func StepOf[In, Out, Side any](t testing.TB, store *Store, attach func(s *jobs.Stream[In])) *Step[In, Out, Side] {
	t.Helper()
	j := jobs.New("test")
	attach(jobs.FromTopic(j, jobs.BusTopic[In]{Name: "in"}, jobs.SkipErrors()))
	if err := j.Check(); err != nil {
		t.Fatal(err)
	}
	if len(j.Nodes) != 2 {
		t.Fatalf("%d steps attached, want one", len(j.Nodes)-1)
	}
	s := &Step[In, Out, Side]{t: t, node: j.Nodes[1], onError: jobs.OnError{Policy: jobs.ErrorSkip}, Store: store, mark: jobs.WatermarkNone}
	s.build()
	return s
}

func (s *Step[In, Out, Side]) build() {
	s.t.Helper()
	s.failed = false
	env := newEnv(s.node.ID, s.Store, s.mark, &s.failed)
	env.OnError = s.onError
	env.Late = func() { s.Late++ }
	env.Fail = func(err error) { s.failed, s.Err = true, err }
	env.Reject = func(m jobs.Message, o jobs.Origin, err error) {
		s.Rejected = append(s.Rejected, Rejected{s.node.ID, m, o, err})
	}
	built, err := s.node.Build(env, [][]any{
		{func(r *jobs.Rec[Out]) { s.Main = append(s.Main, *r) }},
		{func(r *jobs.Rec[Side]) { s.Aside = append(s.Aside, *r) }},
	})
	if err != nil {
		s.t.Fatal(err)
	}
	s.in, s.watermark = built.In.(func(*jobs.Rec[In])), built.Watermark
	if s.mark != jobs.WatermarkNone && s.watermark != nil {
		s.watermark(s.mark)
	}
}

// Restart builds the step anew over a copy of its state, at its watermark, as after a restart at a barrier.
func (s *Step[In, Out, Side]) Restart() {
	s.t.Helper()
	s.Store = s.Store.Clone()
	s.build()
}

// Process gives the step a record.
func (s *Step[In, Out, Side]) Process(r jobs.Rec[In]) { s.in(&r) }

// ProcessPtr is Process without a copy: for benchmarks.
func (s *Step[In, Out, Side]) ProcessPtr(r *jobs.Rec[In]) { s.in(r) }

// Watermark moves event time.
func (s *Step[In, Out, Side]) Watermark(w jobs.Watermark) {
	s.mark = w
	if s.watermark != nil {
		s.watermark(w)
	}
}

func newEnv(step string, store *Store, restored jobs.Watermark, failed *bool) *jobs.Env {
	return &jobs.Env{
		Job: "test", Step: step, Parallelism: 1, Logger: slog.New(slog.DiscardHandler), Restored: restored,
		Table: store.Table, Failed: failed, Records: store,
	}
}
