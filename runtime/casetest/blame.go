package casetest

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/jobs/spec"
	"github.com/sidestream-dev/sidestream/jobs/spec/value"
)

// candidatesMax is how many records of the input are followed for one that is missing.
const candidatesMax = 3

// step names a step with its place.
func (e *engine) step(job, id string) string {
	n := e.node(job, id)
	if n == nil || n.Place.File == "" {
		return id
	}
	if len(e.jobs) > 1 {
		id = job + "/" + id
	}
	return fmt.Sprintf("%s (%s:%d)", id, filepath.Base(n.Place.File), n.Place.Line)
}

// because says what the expressions of a step read of a record: `value.kind is "humidity"`.
func because(n *jobs.Node, m jobs.Message) string {
	var parts []string
	v := parse(m.Value)
	for _, path := range n.Place.Reads {
		at, is := v, "missing"
		found := true
		for _, name := range path {
			if !isObject(at) || !at.Has(name) {
				found = false
				break
			}
			at = at.Member(name, nil)
		}
		if found {
			is = clip(text(at))
		}
		if p := strings.Join(append([]string{"value"}, path...), ".") + " is " + is; !slices.Contains(parts, p) {
			parts = append(parts, p)
		}
	}
	return strings.Join(parts, ", ")
}

func clip(s string) string {
	if r := []rune(s); len(r) > 300 {
		return string(r[:300]) + "…"
	}
	return s
}

// story tells, a line each, what became of a record from s on.
func (e *engine) story(s *span) (lines []string) {
	for _, b := range s.below {
		switch b.kind {
		case spanStep:
			lines = append(lines, e.step(b.job, b.step)+" "+e.outcome(b))
			lines = append(lines, e.story(b)...)
		case spanRejected:
			if s.kind != spanStep {
				lines = append(lines, e.step(b.job, b.step)+" "+refused(b))
			}
		case spanWritten:
			lines = append(lines, "output "+e.outputName(b)+" was given "+shown(b))
			lines = append(lines, e.story(b)...)
		case spanPane:
			for _, f := range e.trace.fired[paneKey{b.job, b.step, string(b.msg.Key), b.end}] {
				if f.parent == s {
					continue // told as what the step gave at once
				}
				lines = append(lines, e.step(b.job, b.step)+" later gave "+clip(string(f.msg.Value)))
				lines = append(lines, e.story(f)...)
			}
		default:
			lines = append(lines, e.story(b)...)
		}
	}
	return lines
}

func (e *engine) outputName(s *span) string {
	if len(e.jobs) > 1 {
		return s.job + "/" + s.step
	}
	return s.step
}

func shown(s *span) string {
	line := show(s.msg.Value, "", "", nil)
	if !s.key.IsZero() {
		line = show(s.msg.Value, text(value.DecodeKey(s.key.Bytes, nil)), "", nil)
	}
	return clip(line)
}

func refused(s *span) string {
	then := "which fails the job"
	switch s.on.Policy {
	case jobs.ErrorSkip:
		then = "so on_error skipped it"
	case jobs.ErrorTo:
		then = "so on_error sent it to " + s.on.To
	}
	return fmt.Sprintf("refused it, %s: %v", then, s.err)
}

// outcome says what a step did with the record that it was given.
func (e *engine) outcome(s *span) string {
	n := e.node(s.job, s.step)
	var gave, aside *span
	for _, b := range s.below {
		switch {
		case b.kind == spanRejected:
			return refused(b)
		case b.kind == spanPane:
			return e.pane(b)
		case b.kind == spanEmit && b.port == 0:
			gave = b
		case b.kind == spanEmit:
			aside = b
		}
	}
	reads := because(n, s.msg)
	if reads != "" {
		reads = "; " + reads
	}
	switch {
	case n.Kind == "side" && aside != nil:
		return "copied it"
	case n.Kind == "side":
		return fmt.Sprintf("did not copy it: %s was false%s", n.Place.Text, reads)
	case n.Kind == "filter" && gave == nil:
		return fmt.Sprintf("dropped it: %s was false%s", n.Place.Text, reads)
	case n.Kind == "filter":
		return "let it pass"
	case gave == nil && aside == nil:
		return "emitted nothing for it"
	case gave == nil:
		return "gave its second output " + clip(string(aside.msg.Value))
	case string(gave.msg.Key) != string(s.msg.Key):
		return "gave it the key " + text(value.DecodeKey(gave.msg.Key, nil))
	}
	return "gave " + clip(string(gave.msg.Value))
}

// pane says what a window did with a record.
func (e *engine) pane(p *span) string {
	where := fmt.Sprintf("the window from %s to %s", p.start, p.end)
	if p.late {
		late := time.Duration(p.mark-p.gone) * time.Millisecond
		by := "by " + late.String()
		if p.mark == jobs.WatermarkMax {
			by = "since the input had ended"
		}
		then := "and it was dropped: there is no late_to"
		if p.parent != nil && slices.ContainsFunc(p.parent.below, func(b *span) bool { return b.kind == spanEmit && b.port == 1 && len(b.below) > 0 }) {
			then = "and it went to late_to"
		}
		return fmt.Sprintf("found it late %s: %s was gone at the watermark %s, and the watermark stood at %s, %s", by, where, p.gone, p.mark, then)
	}
	took := fmt.Sprintf("took it into %s of key %s", where, text(value.DecodeKey(p.msg.Key, nil)))
	if e.trace.fired[paneKey{p.job, p.step, string(p.msg.Key), p.end}] == nil {
		took += fmt.Sprintf(", which is still open: it fires at the watermark %s, and the watermark stands at %s", jobs.Watermark(p.end-1), e.markOf(p.job, p.step))
	}
	return took
}

// markOf is the event time that a step has come to.
func (e *engine) markOf(job, id string) jobs.Watermark {
	for _, r := range e.jobs {
		if n := r.job.Node(id); n != nil && r.job.Name == job {
			w := jobs.WatermarkMax
			for _, s := range r.of[n].subs {
				w = min(w, s.mark)
			}
			return w
		}
	}
	return jobs.WatermarkNone
}

// decided says which step gave a record what stands at a place that is not as expected.
func (e *engine) decided(got *Output, where string) string {
	var last *span
	before, known := "", false
	for _, s := range got.span.path() {
		if s.kind != spanStep && s.kind != spanEmit {
			continue
		}
		is := at(s.msg, where)
		if s.kind == spanEmit && (!known || is != before) {
			last = s
		}
		before, known = is, true
	}
	if last == nil {
		return "no step changed it"
	}
	what := at(last.msg, where)
	if what == "" {
		return e.step(last.job, last.step) + " gave none"
	}
	line := e.step(last.job, last.step) + " gave " + clip(what)
	if panes := e.trace.panes[last.pane()]; last.port == 0 && len(panes) > 0 {
		line += fmt.Sprintf(", from %d %s", len(panes), plural(len(panes), "record", "records"))
	}
	return line
}

// at returns what a message has at a place such as value.a.b, as JSON.
func at(m jobs.Message, where string) string {
	name, rest, _ := strings.Cut(where, ".")
	switch name {
	case "key":
		return text(value.DecodeKey(m.Key, nil))
	case "time":
		return m.Time.String()
	case "headers":
		for _, h := range m.Headers {
			if h.Name == rest {
				return quote(string(h.Value))
			}
		}
		return ""
	}
	v := parse(m.Value)
	for name := range strings.SplitSeq(rest, ".") {
		name, _, _ = strings.Cut(name, "[")
		if name == "" {
			continue
		}
		if !isObject(v) || !v.Has(name) {
			return ""
		}
		v = v.Member(name, nil)
	}
	return text(v)
}

// candidates returns the records of the input that an expected one most likely was to come of: those in whose way through
// the steps the most of what it says is found. Those in except are left out.
func (e *engine) candidates(want *spec.ExpectedRecord, except []*span) []*span {
	leaves := map[string]float64{}
	for _, b := range [][]byte{want.Value, want.Has, want.Key} {
		if b != nil {
			addLeaves(leaves, parse(b))
		}
	}
	if want.Text != nil {
		leaves[quote(*want.Text)] = 3
	}
	type scored struct {
		span  *span
		score float64
	}
	var all []scored
	for _, s := range e.trace.roots {
		if s.kind != spanInput || slices.Contains(except, s) {
			continue
		}
		found := map[string]float64{}
		e.leavesOf(s, found)
		score := 0.0
		for leaf, weight := range leaves {
			if found[leaf] > 0 {
				score += weight
			}
		}
		if score > 0 {
			all = append(all, scored{s, score})
		}
	}
	slices.SortStableFunc(all, func(a, b scored) int {
		switch {
		case a.score > b.score:
			return -1
		case a.score < b.score:
			return 1
		}
		return 0
	})
	var out []*span
	for _, a := range all {
		if len(out) < candidatesMax && a.score >= all[0].score {
			out = append(out, a.span)
		}
	}
	return inOrderOf(out)
}

// leavesOf collects what a record was on its way.
func (e *engine) leavesOf(s *span, found map[string]float64) {
	if s.msg.Value != nil {
		addLeaves(found, parse(s.msg.Value))
	}
	if s.msg.Key != nil {
		addLeaves(found, value.DecodeKey(s.msg.Key, nil))
	}
	if s.kind == spanPane {
		found[quote(s.start.String())], found[quote(s.end.String())] = 1, 1
	}
	for _, b := range s.below {
		e.leavesOf(b, found)
	}
}

// addLeaves adds the values that are neither objects nor lists, as JSON, with how telling they are.
func addLeaves(found map[string]float64, v value.Value) {
	switch s := text(v); {
	case strings.HasPrefix(s, "{"):
		v.Fields(nil, func(_ string, v value.Value) bool { addLeaves(found, v); return true })
	case strings.HasPrefix(s, "["):
		v.Elems(nil, func(v value.Value) bool { addLeaves(found, v); return true })
	case strings.HasPrefix(s, `"`):
		found[s] = 3
	case v.IsNumber():
		found[fmt.Sprint(number(v))] = 1
	default:
		found[s] = 0.1
	}
}

func number(v value.Value) float64 {
	if v.Kind() == value.Int {
		return float64(v.Int())
	}
	return v.Float()
}

func plural(n int, one, many string) string {
	if n == 1 {
		return one
	}
	return many
}
