package jobstest_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/jobs/jobstest"
)

const records = 12

func newMessages(endless bool) *jobstest.Messages {
	m := &jobstest.Messages{Parts: make([][]jobs.Message, 3), Endless: endless} // the last one stays empty
	for i := range records {
		m.Parts[i%2] = append(m.Parts[i%2], jobstest.At(int64(i), fmt.Sprint("v", i)))
	}
	return m
}

func TestMessagesIsASource(t *testing.T) {
	for _, endless := range []bool{false, true} {
		t.Run(fmt.Sprintf("endless=%v", endless), func(t *testing.T) {
			var m *jobstest.Messages
			jobstest.TestSource(t, jobstest.SourceSuite{
				Records: records,
				New:     func(*testing.T) jobs.Source { m = newMessages(endless); return m },
				More:    func(*testing.T) { m.Add(1, jobstest.At(1, "more")) },
			})
		})
	}
}

// memory makes a SinkSuite of a sink in memory, wrapped.
func memory(wrap func(*jobstest.Sink) jobs.Sink) jobstest.SinkSuite {
	var sink *jobstest.Sink
	return jobstest.SinkSuite{
		New: func(*testing.T) jobs.Sink { sink = &jobstest.Sink{}; return wrap(sink) },
		Read: func(*testing.T) (out []string) {
			for _, m := range sink.Have() {
				out = append(out, string(m.Value))
			}
			return out
		},
	}
}

func TestSinkIsASink(t *testing.T) {
	jobstest.TestSink(t, memory(func(s *jobstest.Sink) jobs.Sink { return s }))
}

// brokenSource is Messages with one fault.
type brokenSource struct {
	*jobstest.Messages
	fault string
	calls int
}

func (s *brokenSource) Splits(ctx context.Context, env jobs.SourceEnv) ([]jobs.Start, error) {
	starts, err := s.Messages.Splits(ctx, env)
	if s.calls++; s.fault == "splits change their names" {
		starts[0].Split.ID += fmt.Sprint(s.calls)
	}
	return starts, err
}

func (s *brokenSource) Open(ctx context.Context, env jobs.SourceEnv, starts []jobs.Start) (jobs.Reader, error) {
	if s.fault == "Close leaves a goroutine" {
		go func() { select {} }()
	}
	r, err := s.Messages.Open(ctx, env, starts)
	return &brokenReader{Reader: r, fault: s.fault, never: make(chan struct{})}, err
}

type brokenReader struct {
	jobs.Reader
	fault string
	never chan struct{}
	buf   []byte
	reads int
}

func (r *brokenReader) Ready() <-chan struct{} {
	if r.fault == "Ready never wakes" {
		return r.never
	}
	return r.Reader.Ready()
}

func (r *brokenReader) Read(c *jobs.Chunk, want []int) error {
	r.reads++
	switch limit := c.Max; r.fault {
	case "Max is not respected":
		c.Max++
		defer func() { c.Max = limit }()
	case "want is not respected":
		want = []int{0}
	}
	err := r.Reader.Read(c, want)
	if len(c.Messages) == 0 {
		return err
	}
	switch r.fault {
	case "positions are one ahead":
		binary.LittleEndian.PutUint64(c.Position, binary.LittleEndian.Uint64(c.Position)+1)
	case "positions are one behind":
		binary.LittleEndian.PutUint64(c.Position, binary.LittleEndian.Uint64(c.Position)-1)
	case "no positions":
		c.Position = nil
	case "memory is used again":
		for i := range c.Messages {
			r.buf = append(r.buf[:0], c.Messages[i].Value...)
			c.Messages[i].Value = r.buf
		}
	case "a record is lost":
		if r.reads == 2 {
			c.Messages = c.Messages[1:]
		}
	}
	return err
}

// brokenSink is Sink with one fault.
type brokenSink struct {
	*jobstest.Sink
	fault string
}

func (s *brokenSink) Open(ctx context.Context, env jobs.SinkEnv) (jobs.Writer, error) {
	switch s.fault {
	case "nothing is cut back":
		env.Delivery = jobs.AtLeastOnce
	case "too much is cut back":
		if env.Delivery, env.State = jobs.ExactlyOnce, slices.Clone(env.State); len(env.State) > 0 {
			env.State[0]--
		}
	case "Close leaves a goroutine":
		go func() { select {} }()
	}
	w, err := s.Sink.Open(ctx, env)
	return &brokenWriter{w, s.fault, nil}, err
}

type brokenWriter struct {
	jobs.Writer
	fault string
	held  []jobs.Message
}

func (w *brokenWriter) Write(ctx context.Context, ms []jobs.Message) ([]byte, error) {
	switch w.fault {
	case "records are turned round":
		ms = slices.Clone(ms)
		slices.Reverse(ms)
	case "records are kept back":
		ms, w.held = w.held, slices.Clone(ms)
	case "records are changed":
		ms[0].Value = []byte("{}")
	}
	return w.Writer.Write(ctx, ms)
}

var (
	sourceFaults = []string{"splits change their names", "Close leaves a goroutine", "Max is not respected", "want is not respected",
		"positions are one ahead", "positions are one behind", "no positions", "memory is used again", "a record is lost", "Ready never wakes"}
	sinkFaults = []string{"nothing is cut back", "too much is cut back", "Close leaves a goroutine", "records are turned round",
		"records are kept back", "records are changed"}
)

const faultVariable = "JOBSTEST_FAULT"

// TestBroken runs a suite over the twin that the environment names; TestSuitesFindBrokenTwins starts it in a process of
// its own, where it must fail.
func TestBroken(t *testing.T) {
	kind, fault, ok := strings.Cut(os.Getenv(faultVariable), ":")
	if !ok {
		return // not a child
	}
	if kind == "sink" {
		jobstest.TestSink(t, memory(func(s *jobstest.Sink) jobs.Sink { return &brokenSink{s, fault} }))
		return
	}
	var m *jobstest.Messages
	jobstest.TestSource(t, jobstest.SourceSuite{
		Records: records, Wait: 300 * time.Millisecond,
		New: func(*testing.T) jobs.Source {
			m = newMessages(fault == "Ready never wakes")
			return &brokenSource{Messages: m, fault: fault}
		},
		More: func(*testing.T) { m.Add(1, jobstest.At(1, "more")) },
	})
}

func TestSuitesFindBrokenTwins(t *testing.T) {
	var twins []string
	for _, f := range sourceFaults {
		twins = append(twins, "source:"+f)
	}
	for _, f := range sinkFaults {
		twins = append(twins, "sink:"+f)
	}
	for _, twin := range append(twins, "source:", "sink:") {
		t.Run(twin, func(t *testing.T) {
			t.Parallel() // they wait more than they work
			cmd := exec.Command(os.Args[0], "-test.run=^TestBroken$")
			cmd.Env = append(os.Environ(), faultVariable+"="+twin)
			out, err := cmd.CombinedOutput()
			if broken := !strings.HasSuffix(twin, ":"); broken != (err != nil) || broken && !strings.Contains(string(out), "--- FAIL: TestBroken/") {
				t.Errorf("the suite ended with %v:\n%s", err, out)
			}
		})
	}
}
