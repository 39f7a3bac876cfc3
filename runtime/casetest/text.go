package casetest

import (
	"bytes"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"

	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/jobs/spec"
)

// Paint colours text for a terminal.
type Paint bool

const (
	red   = "31"
	green = "32"
	cyan  = "36"
	bold  = "1"
)

func (p Paint) in(code, s string) string {
	if !p {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}

// Good colours a word of success.
func (p Paint) Good(s string) string { return p.in(green, s) }

// Bad colours a word of failure.
func (p Paint) Bad(s string) string { return p.in(red, s) }

// contextLines is how many equal records are shown before and behind what differs.
const contextLines = 3

// Place is where the case stands: "minutes.test.yaml:5".
func (r *Result) Place() string { return fmt.Sprintf("%s:%d", r.Case.File, r.Case.Line) }

// Diff writes what is not as expected, and for each record which step decided. It writes nothing for a case that passed.
func (r *Result) Diff(w io.Writer, p Paint) {
	if r.Err != "" {
		fmt.Fprintln(w, p.in(red, r.Err))
		if r.engine != nil && r.failed {
			r.failure(w, p)
		}
	}
	for i := range r.Outputs {
		if o := &r.Outputs[i]; !o.Passed() {
			r.diffOutput(w, p, o)
		}
	}
}

// failure tells what became of the record that a job failed with.
func (r *Result) failure(w io.Writer, p Paint) {
	for _, s := range slices.Backward(r.engine.trace.roots) {
		if s.kind == spanInput {
			r.tell(w, p, "  ", s)
			return
		}
	}
}

func (r *Result) diffOutput(w io.Writer, p Paint, o *OutputResult) {
	fmt.Fprintf(w, "%s\n%s\n", p.in(bold, fmt.Sprintf("--- expected %s  %s:%d", o.Expected.Name, filepath.Base(r.Case.File), o.Expected.Line)),
		p.in(bold, fmt.Sprintf("+++ got %s  %d %s", o.Expected.Name, len(o.Got), plural(len(o.Got), "record", "records"))))
	if o.Expected.Order != spec.InOrder {
		fmt.Fprintln(w, p.in(cyan, "@@ "+map[spec.Order]string{spec.AnyOrder: "in any order", spec.Contains: "among others"}[o.Expected.Order]+" @@"))
	}
	asked := aspects(o.Expected)
	for i, pr := range o.pairs {
		if pr.ok() {
			if near(o.pairs, i) {
				fmt.Fprintln(w, " "+asked.got(pr.Got))
				continue
			}
			if i+1 == len(o.pairs) || !pr.okNext(o.pairs, i) {
				fmt.Fprintln(w, p.in(cyan, " …"))
			}
			continue
		}
		if pr.Want != nil {
			fmt.Fprintln(w, p.in(red, "-"+wanted(pr.Want)))
		}
		if pr.Got != nil {
			fmt.Fprintln(w, p.in(green, "+"+asked.got(pr.Got)))
		}
		r.why(w, p, o, pr)
	}
}

// okNext reports whether the next record too is one that is left out.
func (pr pair) okNext(pairs []pair, i int) bool {
	return pairs[i+1].ok() && !near(pairs, i+1)
}

// near reports whether something that differs is close to a record.
func near(pairs []pair, i int) bool {
	return slices.ContainsFunc(pairs[max(0, i-contextLines):min(len(pairs), i+contextLines+1)], func(p pair) bool { return !p.ok() })
}

// why says, below a line of the difference, which step decided.
func (r *Result) why(w io.Writer, p Paint, o *OutputResult, pr pair) {
	e := r.engine
	switch {
	case pr.Got == nil:
		from := e.candidates(pr.Want, nil)
		if len(from) == 0 {
			fmt.Fprintln(w, "    no record of the input has any of it")
		}
		for _, s := range from {
			r.tell(w, p, "    ", s)
		}
	default:
		for _, d := range pr.Why {
			line := "    " + d.String()
			if by := e.decided(pr.Got, d.Where); by != "" {
				line += "; " + p.in(cyan, by)
			}
			fmt.Fprintln(w, line)
		}
		from := e.trace.sources(pr.Got.span)
		fmt.Fprintln(w, "    it came of "+r.names(from))
		if pr.Want == nil && len(from) > 0 {
			for _, line := range e.way(pr.Got) {
				fmt.Fprintln(w, "      "+p.in(cyan, line))
			}
			return
		}
		if !e.aggregated(pr.Got) {
			return
		}
		for _, s := range e.candidates(pr.Want, from) { // others that could have been in it
			r.tell(w, p, "    ", s)
		}
	}
}

// way tells what the steps did on the way of a record that came out.
func (e *engine) way(got *Output) (lines []string) {
	for _, s := range got.span.path() {
		if root := s.parent; root.parent == nil {
			for _, b := range root.below {
				if b.kind == spanRejected { // by the source
					lines = append(lines, e.step(b.job, b.step)+" "+refused(b))
				}
			}
		}
		switch s.kind {
		case spanStep:
			lines = append(lines, e.step(s.job, s.step)+" "+e.outcome(s))
		case spanEmit:
			if e.trace.panes[s.pane()] != nil && s.port == 0 {
				lines = append(lines, e.step(s.job, s.step)+" gave "+clip(string(s.msg.Value)))
			}
		}
	}
	return lines
}

// aggregated reports whether a record is the result of a window, or made of one.
func (e *engine) aggregated(got *Output) bool {
	return slices.ContainsFunc(got.span.path(), func(s *span) bool { return s.kind == spanEmit && s.port == 0 && e.trace.panes[s.pane()] != nil })
}

// names lists records of the input.
func (r *Result) names(from []*span) string {
	if len(from) == 0 {
		return "no record of the input"
	}
	var at []string
	for i, s := range from {
		if i == 8 {
			at = append(at, fmt.Sprintf("%d more", len(from)-i))
			break
		}
		at = append(at, fmt.Sprintf("%s:%d", filepath.Base(r.Case.File), s.moment.Line))
	}
	return plural(len(from), "the record ", "the records ") + strings.Join(at, ", ")
}

// tell says what became of a record of the input.
func (r *Result) tell(w io.Writer, p Paint, indent string, s *span) {
	fmt.Fprintf(w, "%s%s:%d %s\n", indent, filepath.Base(r.Case.File), s.moment.Line, clip(show(s.msg.Value, "", "", nil)))
	lines := r.engine.story(s)
	if len(lines) == 0 {
		lines = []string{"nothing became of it"}
	}
	for _, line := range lines {
		fmt.Fprintln(w, indent+"  "+p.in(cyan, line))
	}
}

// Trace writes what became of every record of the input, and what moving event time made steps emit.
func (r *Result) Trace(w io.Writer, p Paint) {
	if r.engine == nil {
		return
	}
	for _, s := range r.engine.trace.roots {
		if s.kind == spanInput {
			r.tell(w, p, "  ", s)
			continue
		}
		fmt.Fprintf(w, "  event time came to %s\n", s.mark)
		for _, b := range s.below {
			if b.kind == spanEmit {
				fmt.Fprintln(w, "    "+p.in(cyan, r.engine.step(b.job, b.step)+" gave "+clip(string(b.msg.Value))))
				for _, line := range r.engine.story(b) {
					fmt.Fprintln(w, "    "+p.in(cyan, line))
				}
			}
		}
	}
}

// shownOf says what of a record is shown beside its value: what the case speaks of.
type shownOf struct {
	key, time bool
	headers   []string
}

func aspects(x *spec.Expected) (a shownOf) {
	for _, r := range x.Records {
		a.key = a.key || r.Key != nil
		a.time = a.time || r.Time != nil
		for name := range r.Headers {
			if !slices.Contains(a.headers, name) {
				a.headers = append(a.headers, name)
			}
		}
	}
	return a
}

func (a shownOf) got(o *Output) string {
	key, time := "", ""
	if a.key {
		key = text(keyOf(o))
	}
	if a.time {
		time = o.Message.Time.String()
	}
	return show(o.Message.Value, key, time, headersOf(o.Message, a.headers))
}

func headersOf(m jobs.Message, names []string) map[string]string {
	out := map[string]string{}
	for _, h := range m.Headers {
		if slices.Contains(names, h.Name) {
			out[h.Name] = string(h.Value)
		}
	}
	return out
}

func wanted(want *spec.ExpectedRecord) string {
	key, time := string(want.Key), ""
	if want.Time != nil {
		time = want.Time.String()
	}
	switch {
	case want.Text != nil:
		return "text " + quote(*want.Text) + strings.TrimPrefix(show([]byte("0"), key, time, want.Headers), "0")
	case want.Has != nil:
		return "has " + show(want.Has, key, time, want.Headers)
	case want.Value == nil:
		return "any value" + strings.TrimPrefix(show([]byte("0"), key, time, want.Headers), "0")
	}
	return show(bytes.TrimSpace(want.Value), key, time, want.Headers)
}
