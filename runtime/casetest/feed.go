package casetest

import (
	"strconv"

	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/jobs/spec"
)

// split is a partition of a source.
type split struct {
	jobs.Split
	offset int64
	mark   jobs.Watermark
	idle   bool
	ended  bool
}

// sourceNode returns a job's source.
func (r *jobRun) sourceNode() *nodeRun {
	for _, nr := range r.nodes {
		if nr.node.Source != nil {
			return nr
		}
	}
	panic("casetest: job " + r.job.Name + " has no source") // the job was checked
}

// prepare makes the splits that a case speaks of, before anything comes: one that has said nothing yet holds event time
// back. A source that the case does not feed has one that is empty; a topic has its partitions.
func (e *engine) prepare(input []spec.Moment) {
	for _, r := range e.jobs {
		nr := r.sourceNode()
		src := nr.node.Source
		for _, m := range input {
			if m.Job == r.job.Name && m.Partition >= 0 {
				nr.splitOf(nr.topicOf(m), m.Partition)
			}
		}
		if src.Source == nil && len(e.writers(src.Topic)) > 0 {
			for p := range e.topic(src.Topic).partitions {
				nr.splitOf(src.Topic, p)
			}
		}
		if len(nr.splits) == 0 {
			nr.splitOf(nr.topicOf(spec.Moment{}), 0)
		}
	}
}

// topicOf is where a moment's record says that it comes from.
func (nr *nodeRun) topicOf(m spec.Moment) string {
	switch src := nr.node.Source; {
	case src.Source == nil:
		return src.Topic
	case m.Topic != "":
		return m.Topic
	default:
		return src.Source.Kind()
	}
}

func (nr *nodeRun) splitOf(topic string, partition int) *split {
	for _, s := range nr.splits {
		if s.Topic == topic && int(s.Partition) == partition {
			return s
		}
	}
	s := &split{Split: jobs.Split{ID: topic + "/" + strconv.Itoa(partition), Topic: topic, Partition: int32(partition)}, mark: jobs.WatermarkNone}
	nr.splits = append(nr.splits, s)
	return s
}

// owner returns the subtask that reads a split.
func (nr *nodeRun) owner(s *split) int {
	width := len(nr.subs)
	for i, other := range nr.splits {
		if other == s {
			return i % width
		}
	}
	return 0
}

// deliver gives a source a message and returns the highest event time that came of it.
func (nr *nodeRun) deliver(s *split, m jobs.Message) jobs.Time {
	if nr.job.failed {
		return jobs.NoTime
	}
	return nr.subs[nr.owner(s)].built.Messages(&s.Split, []jobs.Message{m})
}

// sourceMark is the event time of the splits of subtask k.
func (nr *nodeRun) sourceMark(k int) (w jobs.Watermark, idle, ended bool) {
	var own []*subtask
	for _, s := range nr.splits {
		if nr.subs[nr.owner(s)] == nr.subs[k] {
			own = append(own, &subtask{mark: s.mark, idle: s.idle, ended: s.ended})
		}
	}
	return lowest(own)
}

// topicMark sets the event time of a source to that of the jobs that write its topic.
func (e *engine) topicMark(nr *nodeRun, from []*jobRun) {
	var marks []*subtask
	for _, r := range from {
		for _, o := range r.outputs {
			if o.node.Output.Sink != nil || o.node.Output.Topic != nr.node.Source.Topic {
				continue
			}
			if len(o.node.In) > 0 {
				marks = append(marks, r.of[o.node].subs...)
				continue
			}
			for _, any := range r.nodes { // a dead letter may come of any step
				if len(any.node.In) > 0 || any.node.Source != nil {
					marks = append(marks, any.subs...)
				}
			}
		}
	}
	w, idle, ended := lowest(marks)
	for _, s := range nr.splits {
		if ended {
			s.ended = true
			continue
		}
		s.mark, s.idle = max(s.mark, w), idle
	}
}

// take does what a moment of a case says.
func (e *engine) take(number int, m spec.Moment) {
	var r *jobRun
	for _, other := range e.jobs {
		if other.job.Name == m.Job {
			r = other
		}
	}
	nr := r.sourceNode()
	if m.Kind == spec.MomentRecord {
		e.record(nr, number, m)
		return
	}
	for _, s := range nr.splits {
		switch {
		case m.Partition >= 0 && int(s.Partition) != m.Partition:
		case m.Kind == spec.MomentIdle:
			s.idle = true
		default:
			s.mark, s.idle = max(s.mark, m.Watermark), false
		}
	}
	e.advance(r)
}

func (e *engine) record(nr *nodeRun, number int, m spec.Moment) {
	s := nr.splitOf(nr.topicOf(m), m.Partition)
	msg := m.Message
	msg.Offset = s.offset
	s.offset++
	s.idle = false
	var highest jobs.Time
	e.trace.input(number, m, func() { highest = nr.deliver(s, msg) })
	e.handOver(nr.job)
	if highest != jobs.NoTime && nr.node.Source.Source != nil { // on the bus event time comes beside the records
		s.mark = max(s.mark, jobs.Watermark(highest)-jobs.Watermark(nr.node.Source.OutOfOrderness.Milliseconds())-1)
	}
	e.advance(nr.job)
}

// end ends every source that the case feeds; the others end with the jobs that write their topics.
func (e *engine) end() {
	for _, r := range e.jobs {
		nr := r.sourceNode()
		if src := nr.node.Source; src.Source != nil || len(e.writers(src.Topic)) == 0 {
			for _, s := range nr.splits {
				s.ended = true
			}
			e.advance(r)
		}
	}
}
