package runtime

import (
	"bytes"

	"github.com/sidestream-dev/sidestream/bus"
	"github.com/sidestream-dev/sidestream/checkpoint"
	"github.com/sidestream-dev/sidestream/wal"
)

// Broken twins of what sets jobs back, changes what they keep, and begins them with what others had.

// changedLog rewrites each change of jobs before it is written.
type changedLog struct {
	*simLog
	change func(*control)
}

func (l changedLog) Append(kind wal.FrameKind, sections []wal.Section) (wal.LSN, error) {
	if c := changeOf(sections); c != nil && len(c.Jobs) > 0 {
		l.change(c)
		sections = withChange(sections, c)
	}
	return l.simLog.Append(kind, sections)
}

// changing makes a twin's log that rewrites each change of one job.
func changing(change func(*jobChange)) func(*simLog) frameLog {
	return func(l *simLog) frameLog {
		return changedLog{l, func(c *control) {
			for i := range c.Jobs {
				change(&c.Jobs[i])
			}
		}}
	}
}

// keepState sets the places of a replay back, and leaves the state and the watermarks as they are.
func keepState(jc *jobChange) {
	if jc.Replay != nil {
		jc.Restart, jc.Base = false, nil
	}
}

// backTwice writes a replay in two frames, the places first.
type backTwice struct{ *simLog }

func (l backTwice) Append(kind wal.FrameKind, sections []wal.Section) (wal.LSN, error) {
	c := changeOf(sections)
	if c == nil || len(c.Jobs) != 1 || c.Jobs[0].Replay == nil {
		return l.simLog.Append(kind, sections)
	}
	places := c.Jobs[0]
	places.Restart, places.Replay, places.Base = false, nil, nil
	if lsn, err := l.simLog.Append(kind, withChange(sections[:1], &control{Topics: c.Topics, Jobs: []jobChange{places}})); err != nil {
		return lsn, err
	}
	return l.simLog.Append(kind, sections)
}

// loseState lets a job that gets its definition back begin without what the other definition did not keep.
func loseState(jc *jobChange) {
	if jc.RollBack {
		jc.Drops = append(jc.Drops, dropEntry{Step: "fold", Table: "count"}, dropEntry{Step: "fold", Table: "set"})
	}
}

// keepDropped drops no state of steps that stay.
func keepDropped(jc *jobChange) { jc.Drops = nil }

// forgetWatermark lets who is set elsewhere begin there without the watermark that the job has come to.
func forgetWatermark(jc *jobChange) {
	for i := range jc.Inputs {
		for k := range jc.Inputs[i].States {
			jc.Inputs[i].States[k].Watermark = bus.NoWatermark
		}
	}
}

// beforeTrial is how a job stood when its definition was changed.
type beforeTrial struct {
	definition []byte
	header     checkpoint.Header
}

// takeSealedBack lets a job that gets its definition back go on from where that was changed.
func takeSealedBack(s *sim, c *core) {
	for id, j := range c.ledger.Jobs {
		was, known := s.beforeTrials[id]
		switch {
		case j.Prev != nil && (!known || !bytes.Equal(was.definition, j.Prev.Definition)):
			s.beforeTrials[id] = beforeTrial{j.Prev.Definition, cloneHeader(j.header)}
		case j.Prev == nil && known:
			if bytes.Equal(was.definition, j.Definition) {
				j.header = was.header
			}
			delete(s.beforeTrials, id)
		}
	}
}

// inherit gives a new job the state that the last one of its name had.
func (s *sim) inherit(j *job) {
	if left := s.left; left != nil && j.stores != nil && s.proc.rt.committer.core.ledger.Jobs[j.id].Epoch == 0 {
		s.left = nil
		for _, body := range left.bodies() {
			s.must(j.stores.applyState(body))
		}
	}
}

// leave keeps the state of a job that is removed, for inherit.
func (s *sim) leave(j *job) {
	m := s.model.jobs[j.id]
	if s.twin.inherits && j.def.Name == hotName && j.stores != nil && m != nil {
		j.stores.handOver(m.epoch)
		s.left = j.stores
	}
}
