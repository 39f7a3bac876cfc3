package casetest

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/jobs/spec"
)

// Result is what became of a case.
type Result struct {
	Case    *spec.Case
	Took    time.Duration
	Err     string // what else is wrong: a job that failed, or did not
	Outputs []OutputResult

	engine *engine
	failed bool // a job did
}

// OutputResult is what became of one output that the case expects something of.
type OutputResult struct {
	Expected *spec.Expected
	Got      []Output
	pairs    []pair
}

// Passed reports whether everything was as expected.
func (o *OutputResult) Passed() bool {
	return !slices.ContainsFunc(o.pairs, func(p pair) bool { return !p.ok() })
}

// Passed reports whether everything was as expected.
func (r *Result) Passed() bool {
	return r.Err == "" && !slices.ContainsFunc(r.Outputs, func(o OutputResult) bool { return !o.Passed() })
}

// recordsMax bounds what a comparison takes: it compares every record that is expected with every one that came.
const recordsMax = 2000

// Run runs a case. What the jobs do wrong is in the result; it does not panic where they do.
func Run(c *spec.Case) (r *Result) {
	began := time.Now()
	r = &Result{Case: c}
	defer func() {
		if v := recover(); v != nil {
			r.Err = fmt.Sprintf("a step panicked: %v", v)
		}
		r.Took = time.Since(began)
	}()
	e, err := newEngine(c.Jobs)
	if err != nil {
		r.Err = err.Error()
		return r
	}
	r.engine = e
	e.prepare(c.Input)
	for i, m := range c.Input {
		e.take(i+1, m)
	}
	if c.End {
		e.end()
	}
	r.judge()
	return r
}

func (r *Result) judge() {
	failed := ""
	for _, j := range r.engine.jobs {
		if j.err != nil {
			failed, r.failed = j.err.Error(), true
			break
		}
	}
	switch want := r.Case.Fails; {
	case want == "" && failed != "":
		r.Err = failed
	case want != "" && failed == "":
		r.Err = fmt.Sprintf("no job failed; want an error with %q", want)
	case !strings.Contains(failed, want):
		r.Err = fmt.Sprintf("want an error with %q, got: %s", want, failed)
	}
	for i := range r.Case.Output {
		x := &r.Case.Output[i]
		o := OutputResult{Expected: x, Got: r.engine.output(x.Job, x.Output)}
		if n := max(len(x.Records), len(o.Got)); n > recordsMax {
			if r.Err != "" {
				r.Err += "; "
			}
			r.Err += fmt.Sprintf("output %s: %d records are more than the %d that can be compared", x.Name, n, recordsMax)
			continue
		}
		o.pairs = match(x, o.Got)
		r.Outputs = append(r.Outputs, o)
	}
}

// output returns what an output of a job has been given.
func (e *engine) output(job, name string) []Output {
	for _, r := range e.jobs {
		if r.job.Name == job {
			return r.output(name).records
		}
	}
	return nil
}

// node returns a step of a job, or nil.
func (e *engine) node(job, id string) *jobs.Node {
	for _, r := range e.jobs {
		if r.job.Name == job {
			return r.job.Node(id)
		}
	}
	return nil
}

func inOrderOf(spans []*span) []*span {
	slices.SortFunc(spans, func(a, b *span) int { return a.number - b.number })
	return slices.CompactFunc(spans, func(a, b *span) bool { return a == b })
}
