package runtime

import (
	"fmt"
	"slices"
	"strings"

	"github.com/sidestream-dev/sidestream/checkpoint"
	"github.com/sidestream-dev/sidestream/jobs"
)

// An epoch holds the watermark of each task under the id of its first step: the lowest of its subtasks. A subtask that is
// further, since it did not see an input that was idle for a while, has an entry of its own beside it: restored from a lower
// one, it would fire windows twice. With another parallelism a step may come to stand in another task; the first epoch then
// names the tasks there are (extraTasks) and gives an entry to each and to its subtasks, so that what older ones left counts
// no more.

// extraTasks is the name in Header.Extra of the tasks that the watermarks are of: the id of each one's first step and its
// subtasks ("in/2 fold/3").
const extraTasks = "tasks"

func tasksText(p *jobPlan) string {
	var names []string
	for _, t := range p.tasks {
		names = append(names, fmt.Sprintf("%s/%d", t.head().ID, t.width))
	}
	return strings.Join(names, " ")
}

// stepMarks are the watermarks that a job is restored from.
type stepMarks struct {
	of    map[string]jobs.Watermark
	tasks []string // "in/2"
}

func newStepMarks(h *checkpoint.Header) *stepMarks {
	m := &stepMarks{of: map[string]jobs.Watermark{}, tasks: strings.Fields(string(h.Extra[extraTasks]))}
	for _, st := range h.Steps {
		m.of[st.Step] = jobs.Watermark(st.Watermark)
	}
	return m
}

// get returns the entry of the task that began with a step, if there was one.
func (m *stepMarks) get(step string) (w jobs.Watermark, was bool) {
	was = slices.ContainsFunc(m.tasks, func(t string) bool { return strings.HasPrefix(t, step+"/") })
	if w, ok := m.of[step]; ok && was {
		return w, true
	}
	return jobs.WatermarkNone, was
}

// task is where the state of a task stands. What was a task and is now a part of one counts before the first step, which may
// be ahead of it; what was a part of one stood where that did.
func (m *stepMarks) task(t *taskPlan) jobs.Watermark {
	w, was := jobs.WatermarkNone, false
	for _, n := range t.nodes[1:] {
		if v, ok := m.get(n.ID); ok {
			w, was = max(w, v), true
		}
	}
	if was {
		return w
	}
	if w, was = m.get(t.head().ID); was || len(t.ins) == 0 {
		return w
	}
	w = jobs.WatermarkMax
	for _, e := range t.ins {
		w = min(w, m.task(e.from))
	}
	return w
}

// subtask is where the state of a subtask stands.
func (m *stepMarks) subtask(s *subtask) jobs.Watermark {
	w := m.task(s.plan)
	if own := s.ownStep(); own != "" && slices.Contains(m.tasks, fmt.Sprintf("%s/%d", s.plan.head().ID, s.plan.width)) {
		if v, ok := m.of[own]; ok {
			w = max(w, v)
		}
	}
	return w
}

// ownStep is under what name an epoch has the subtask's own watermark: its step, its number and how many there are. It is ""
// where there is but one, and for a reader of the outside, whose splits may be others the next time.
func (s *subtask) ownStep() string {
	if s.plan.width == 1 || s.plan.head().Source != nil && s.plan.head().Source.Source != nil {
		return ""
	}
	return fmt.Sprintf("%s/%d/%d", s.plan.head().ID, s.index, s.plan.width)
}

// reached is the watermark of a subtask as of the epoch that is put together.
func (x *execution) reached(subtask int) jobs.Watermark {
	if o := x.outside[subtask]; o.known {
		return o.watermark
	}
	return x.subtasks[subtask].restored
}

// stepStates adds to a header the watermarks of the tasks of which a subtask's has moved. A task's is the lowest of all its
// subtasks, also of those whose own has not: restored from a higher one, a subtask would take records for late.
func (x *execution) stepStates(h *checkpoint.Header, moved map[*taskPlan]bool) {
	all := x.newTasks != ""
	if all {
		h.Extra = map[string][]byte{extraTasks: []byte(x.newTasks)}
		x.newTasks = ""
	}
	for _, t := range x.plan.tasks {
		if !moved[t] && !all {
			continue
		}
		lowest := jobs.WatermarkMax
		for i, s := range x.subtasks {
			if s.plan == t {
				lowest = min(lowest, x.reached(i))
			}
		}
		h.Steps = append(h.Steps, checkpoint.StepState{Step: t.head().ID, Watermark: int64(lowest)})
		for i, s := range x.subtasks {
			if s.plan != t {
				continue
			}
			if own := s.ownStep(); own != "" && (all || x.reached(i) > lowest) {
				h.Steps = append(h.Steps, checkpoint.StepState{Step: own, Watermark: int64(x.reached(i))})
			}
		}
	}
}
