package casetest

import (
	"slices"

	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/jobs/spec"
)

type spanKind uint8

const (
	spanInput    spanKind = iota // a record of the case came to a source
	spanMoved                    // event time moved
	spanStep                     // a step was given a record
	spanEmit                     // it emitted one
	spanPane                     // a window took it, or found it too late
	spanRejected                 // an error kept it from going on
	spanWritten                  // an output was given it
)

// span is one thing that happened to a record; what happened because of it lies below.
type span struct {
	kind   spanKind
	job    string
	step   string // for spanWritten the output
	port   int
	msg    jobs.Message
	key    jobs.Key
	parent *span
	below  []*span

	number     int         // spanInput: of the moment
	moment     spec.Moment // spanInput
	mark       jobs.Watermark
	start, end jobs.Time // spanPane
	late       bool
	gone       jobs.Watermark
	err        error // spanRejected
	on         jobs.OnError
}

// paneKey names what a window keeps of one key.
type paneKey struct {
	job, step, key string
	end            jobs.Time
}

// trace keeps what became of every record. A nil one keeps nothing.
type trace struct {
	roots []*span             // inputs and moves of event time, in order
	now   *span               // what is happening
	panes map[paneKey][]*span // what windows took
	fired map[paneKey][]*span // what they gave for it
}

func newTrace() *trace { return &trace{panes: map[paneKey][]*span{}, fired: map[paneKey][]*span{}} }

func (t *trace) add(s *span) *span {
	if s.parent = t.now; s.parent == nil {
		t.roots = append(t.roots, s)
	} else {
		s.parent.below = append(s.parent.below, s)
	}
	return s
}

// inside does f as a part of s.
func (t *trace) inside(s *span, f func()) {
	if t == nil {
		f()
		return
	}
	before := t.now
	t.now = s
	f()
	t.now = before
}

func (t *trace) input(number int, m spec.Moment, f func()) {
	t.inside(nil, func() {
		t.inside(t.add(&span{kind: spanInput, job: m.Job, number: number, moment: m, msg: m.Message}), f)
	})
}

func (t *trace) moved(w jobs.Watermark, f func()) {
	s := &span{kind: spanMoved, mark: w}
	t.inside(s, f)
	if len(s.below) > 0 {
		slices.SortStableFunc(s.below, func(a, b *span) int { return inTime(a.msg, b.msg) })
		t.roots = append(t.roots, s)
	}
}

func (t *trace) written(job, output string, m jobs.Message, key jobs.Key) *span {
	if t == nil {
		return nil
	}
	return t.add(&span{kind: spanWritten, job: job, step: output, msg: m, key: key})
}

func (t *trace) rejected(job, step string, on jobs.OnError, err error) {
	if t == nil {
		return
	}
	t.add(&span{kind: spanRejected, job: job, step: step, on: on, err: err})
}

// of returns the jobs.Trace of a job.
func (t *trace) of(job string) jobs.Trace {
	if t == nil {
		return nil
	}
	return &jobTrace{t, job}
}

type jobTrace struct {
	*trace
	job string
}

func (t *jobTrace) Begin(step string, m jobs.Message) {
	t.now = t.add(&span{kind: spanStep, job: t.job, step: step, msg: m})
}

func (t *jobTrace) End() { t.now = t.now.parent }

func (t *jobTrace) Emit(step string, port int, m jobs.Message) {
	t.now = t.add(&span{kind: spanEmit, job: t.job, step: step, port: port, msg: m})
	if k := t.now.pane(); port == 0 && t.panes[k] != nil {
		t.fired[k] = append(t.fired[k], t.now)
	}
}

func (t *jobTrace) Emitted() { t.now = t.now.parent }

func (t *jobTrace) Pane(step string, start, end jobs.Time, late bool, at, gone jobs.Watermark) {
	s := t.add(&span{kind: spanPane, job: t.job, step: step, msg: t.now.msg, start: start, end: end, late: late, mark: at, gone: gone})
	if !late {
		k := paneKey{t.job, step, string(s.msg.Key), end}
		t.panes[k] = append(t.panes[k], s)
	}
}

// sources returns what a span came of: the records of the case, each once, in order.
func (t *trace) sources(s *span) []*span {
	seen := map[*span]bool{}
	var found []*span
	var walk func(s *span)
	walk = func(s *span) {
		for ; s != nil && !seen[s]; s = s.parent {
			seen[s] = true
			if s.kind == spanEmit && s.port == 0 {
				for _, p := range t.panes[s.pane()] {
					walk(p)
				}
			}
			if s.kind == spanInput {
				found = append(found, s)
			}
		}
	}
	walk(s)
	return inOrderOf(found)
}

// pane names the window's share that an emitted record is the result of, if it is one's.
func (s *span) pane() paneKey { return paneKey{s.job, s.step, string(s.msg.Key), s.msg.Time + 1} }

// path returns what happened from a span's root to it, without the root.
func (s *span) path() []*span {
	var p []*span
	for ; s.parent != nil; s = s.parent {
		p = append([]*span{s}, p...)
	}
	return p
}
