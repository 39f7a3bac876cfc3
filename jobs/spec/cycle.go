package spec

import (
	"fmt"
	"slices"
	"strings"

	"github.com/sidestream-dev/sidestream/jobs"
)

// flow is what a job reads from the bus and writes to it.
type flow struct {
	job    string
	reads  string
	writes []string
	where  Problem
}

// flowOf returns the flow of a job; ok is false where it reads no topic.
func flowOf(j *jobs.Job, where Problem) (f flow, ok bool) {
	f = flow{job: j.Name, where: where}
	for _, n := range j.Nodes {
		switch {
		case n.Source != nil && n.Source.Source == nil:
			f.reads = n.Source.Topic
		case n.Output != nil && n.Output.Sink == nil:
			f.writes = append(f.writes, n.Output.Topic)
		}
	}
	return f, f.reads != ""
}

// checkCycles reports jobs that feed themselves over the bus: a full topic would hold back the one that must empty it.
func (l *loader) checkCycles() {
	for _, f := range l.flows {
		if path := l.wayBack(f.reads, f, []string{f.job}, map[string]bool{}); path != nil {
			p := f.where
			p.Msg = fmt.Sprintf("the jobs feed themselves over the bus: %s", strings.Join(append(path, f.job), " → "))
			p.Hint = "break the circle: a full topic in it would hold back the job that must empty it"
			l.problems = append(l.problems, p)
			return // others are mostly the same one, seen from another job
		}
	}
}

// wayBack returns the jobs of a way from f's outputs to topic, or nil. Jobs in seen lead nowhere.
func (l *loader) wayBack(topic string, f flow, path []string, seen map[string]bool) []string {
	seen[f.job] = true
	if slices.Contains(f.writes, topic) {
		return path
	}
	for _, g := range l.flows {
		if !seen[g.job] && slices.Contains(f.writes, g.reads) {
			if found := l.wayBack(topic, g, append(slices.Clone(path), g.job), seen); found != nil {
				return found
			}
		}
	}
	return nil
}
