package jobstest

import (
	"context"
	"fmt"
	"log/slog"
	goruntime "runtime"
	"slices"
	"testing"

	"github.com/sidestream-dev/sidestream/jobs"
)

// SinkSuite is what TestSink needs of a connector.
type SinkSuite struct {
	// New returns a sink over an empty outside of its own. It is called once a rule and opened several times.
	New func(t *testing.T) jobs.Sink
	// Read returns the values that stand outside now, in order, for the sink that New returned last.
	Read func(t *testing.T) []string
	// Fail, if not nil, makes the next Write fail, before, in the middle of, or after its work.
	Fail func(t *testing.T)
	// Value makes the value of the i-th record; nil makes {"n":i}.
	Value func(i int) string
	Dir   string // SinkEnv.DataDir; "" is a temporary one
}

// rule is one of a contract.
type rule struct {
	name string
	run  func(t *testing.T)
}

// TestSink checks the contract of jobs.Sink and jobs.Writer: one subtest a rule, those that apply to the sink.
func TestSink(t *testing.T, s SinkSuite) {
	if s.Value == nil {
		s.Value = func(i int) string { return fmt.Sprintf(`{"n":%d}`, i) }
	}
	rules := []rule{
		{"records arrive in order", s.order},
		{"what Write returned has arrived", s.arrived},
		{"State comes back and goes on", s.state},
		{"records are not changed", s.unchanged},
		{"at_least_once loses nothing after a crash", s.atLeastOnce},
		{"Close leaves no goroutine", s.closes},
	}
	if s.Fail != nil {
		rules = append(rules, rule{"the same records can be written again", s.repeat})
	}
	if s.New(t).ExactlyOnce() == nil {
		rules = append(rules, rule{"exactly_once cuts back what has no position", s.exactlyOnce})
	}
	for _, r := range rules {
		t.Run(r.name, r.run)
	}
}

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

func (s SinkSuite) open(t *testing.T, sink jobs.Sink, d jobs.Delivery, state []byte) jobs.Writer {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), suiteWait)
	defer cancel()
	dir := s.Dir
	if dir == "" {
		dir = t.TempDir()
	}
	w, err := sink.Open(ctx, jobs.SinkEnv{Job: "suite", Output: "out", LogID: "suite-log", Delivery: d, Known: 1 << 20, State: state,
		Logger: discard(), Waiting: func(string) {}, DataDir: dir})
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	return w
}

func (s SinkSuite) messages(from, to int) []jobs.Message {
	var ms []jobs.Message
	for i := from; i < to; i++ {
		ms = append(ms, jobs.Message{Key: []byte(fmt.Sprint("k", i%3)), Value: []byte(s.Value(i)), Time: jobs.Time(1000 + i), Offset: int64(i)})
	}
	return ms
}

func (s SinkSuite) values(from, to int) []string {
	var vs []string
	for i := from; i < to; i++ {
		vs = append(vs, s.Value(i))
	}
	return vs
}

func (s SinkSuite) write(t *testing.T, w jobs.Writer, from, to int) []byte {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), suiteWait)
	defer cancel()
	state, err := w.Write(ctx, s.messages(from, to))
	if err != nil {
		t.Fatalf("Write: %v", err)
	}
	return slices.Clone(state)
}

func (s SinkSuite) shut(t *testing.T, w jobs.Writer) {
	t.Helper()
	if err := w.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
}

func (s SinkSuite) want(t *testing.T, want []string) {
	t.Helper()
	if got := s.Read(t); !slices.Equal(got, want) {
		t.Fatalf("outside stands %q, want %q", got, want)
	}
}

// deliveries are those that the sink can promise.
func deliveries(sink jobs.Sink) []jobs.Delivery {
	if sink.ExactlyOnce() != nil {
		return []jobs.Delivery{jobs.AtLeastOnce}
	}
	return []jobs.Delivery{jobs.AtLeastOnce, jobs.ExactlyOnce}
}

func (s SinkSuite) order(t *testing.T) {
	sink := s.New(t)
	if sink.Kind() == "" {
		t.Error("Kind is empty")
	}
	w := s.open(t, sink, jobs.AtLeastOnce, nil)
	for i := 0; i < 60; i += 20 {
		s.write(t, w, i, i+20)
	}
	s.shut(t, w)
	s.want(t, s.values(0, 60))
}

func (s SinkSuite) arrived(t *testing.T) {
	w := s.open(t, s.New(t), jobs.AtLeastOnce, nil)
	defer s.shut(t, w)
	for i := range 5 {
		s.write(t, w, i, i+1)
		s.want(t, s.values(0, i+1))
	}
}

func (s SinkSuite) state(t *testing.T) {
	for _, d := range deliveries(s.New(t)) {
		sink := s.New(t)
		var state []byte
		for i := 0; i < 30; i += 10 {
			w := s.open(t, sink, d, state)
			state = s.write(t, w, i, i+10)
			s.shut(t, w)
			s.want(t, s.values(0, i+10))
		}
	}
}

func (s SinkSuite) repeat(t *testing.T) {
	sink := s.New(t)
	w := s.open(t, sink, jobs.AtLeastOnce, nil)
	state := s.write(t, w, 0, 5)
	s.Fail(t)
	ctx, cancel := context.WithTimeout(t.Context(), suiteWait)
	defer cancel()
	if _, err := w.Write(ctx, s.messages(5, 10)); err == nil {
		t.Fatal("Write returned nil where it must fail")
	}
	if _, err := w.Write(ctx, s.messages(5, 10)); err != nil {
		s.shut(t, w) // to the next writer, then
		w = s.open(t, sink, jobs.AtLeastOnce, state)
		s.write(t, w, 5, 10)
	}
	s.shut(t, w)
	s.covers(t, 10)
}

// covers checks that outside stand the first n records in order, with repeats of a stretch at most.
func (s SinkSuite) covers(t *testing.T, n int) {
	t.Helper()
	next, known := 0, map[string]int{}
	for i := range n {
		known[s.Value(i)] = i
	}
	for _, v := range s.Read(t) {
		i, ok := known[v]
		if !ok || i > next {
			t.Fatalf("outside stands %q where record %d is due", v, next)
		}
		next = max(next, i+1)
	}
	if next < n {
		t.Fatalf("record %d is missing outside", next)
	}
}

func (s SinkSuite) unchanged(t *testing.T) {
	w := s.open(t, s.New(t), jobs.AtLeastOnce, nil)
	defer s.shut(t, w)
	ms, want := s.messages(0, 10), s.messages(0, 10)
	if _, err := w.Write(t.Context(), ms); err != nil {
		t.Fatalf("Write: %v", err)
	}
	if !slices.EqualFunc(ms, want, sameMessage) {
		t.Error("Write changed the records it was given")
	}
}

// crash writes 0..5 with a position that counts and 5..10 without one, and opens the sink anew there.
func (s SinkSuite) crash(t *testing.T, d jobs.Delivery) jobs.Writer {
	t.Helper()
	sink := s.New(t)
	w := s.open(t, sink, d, nil)
	state := s.write(t, w, 0, 5)
	s.write(t, w, 5, 10)
	s.shut(t, w)
	return s.open(t, sink, d, state)
}

func (s SinkSuite) atLeastOnce(t *testing.T) {
	w := s.crash(t, jobs.AtLeastOnce)
	s.write(t, w, 5, 12)
	s.shut(t, w)
	s.covers(t, 12)
}

func (s SinkSuite) exactlyOnce(t *testing.T) {
	w := s.crash(t, jobs.ExactlyOnce)
	s.write(t, w, 5, 8) // cut otherwise than before
	s.write(t, w, 8, 12)
	s.shut(t, w)
	s.want(t, s.values(0, 12))
}

func (s SinkSuite) closes(t *testing.T) {
	sink := s.New(t)
	w := s.open(t, sink, jobs.AtLeastOnce, nil)
	state := s.write(t, w, 0, 1) // a service that the sink shares may stay
	s.shut(t, w)
	before := goruntime.NumGoroutine()
	for i := 1; i < 4; i++ {
		w := s.open(t, sink, jobs.AtLeastOnce, state)
		state = s.write(t, w, i, i+1)
		s.shut(t, w)
	}
	noneLeft(t, before)
}
