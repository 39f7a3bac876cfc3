package runtime

import (
	"slices"
	"time"

	"github.com/sidestream-dev/sidestream/checkpoint"
	"github.com/sidestream-dev/sidestream/wal"
)

// positionsApart is a broken log for a committer: it writes what an epoch has read, its positions and watermarks, in a frame of
// their own, behind the frame with the epoch's effects and just before the job's next one. Both frames are well-formed, so
// that recovery takes them; a crash between them keeps effects without their causes.
type positionsApart struct {
	frameLog
	epoch   map[uint32]checkpoint.Epoch // by job: of the last frame written
	waiting map[uint32]checkpoint.Header
}

// WritePositionsApart makes rt such a broken one. Call it before Start.
func WritePositionsApart(rt *Runtime) error {
	return rt.do(func(c *core) error {
		l := &positionsApart{frameLog: c.log, epoch: map[uint32]checkpoint.Epoch{}, waiting: map[uint32]checkpoint.Header{}}
		for id, j := range c.ledger.Jobs {
			l.epoch[id] = j.Epoch
		}
		c.log = l
		return nil
	})
}

func (l *positionsApart) Append(kind wal.FrameKind, sections []wal.Section) (wal.LSN, error) {
	at := slices.IndexFunc(sections, func(s wal.Section) bool { return s.Kind == checkpoint.SectionHeader })
	if kind != kindEpoch || at < 0 {
		return l.frameLog.Append(kind, sections)
	}
	h, err := checkpoint.DecodeHeader(sections[at].Body)
	if err != nil {
		return 0, err
	}
	if err := l.writePositions(h.Job); err != nil {
		return 0, err
	}
	l.epoch[h.Job]++
	effects := checkpoint.Header{Job: h.Job, Attempt: h.Attempt, Epoch: l.epoch[h.Job], Parts: h.Parts}
	sections = slices.Clone(sections)
	sections[at].Body = checkpoint.AppendHeader(nil, effects)
	lsn, err := l.frameLog.Append(kind, sections)
	if err != nil {
		return 0, err
	}
	h.Parts = nil
	l.waiting[h.Job] = h
	if h.Ended {
		err = l.writePositions(h.Job)
	}
	return lsn, err
}

func (l *positionsApart) writePositions(job uint32) error {
	h, ok := l.waiting[job]
	if !ok {
		return nil
	}
	delete(l.waiting, job)
	l.epoch[job]++
	h.Epoch = l.epoch[job]
	_, err := l.frameLog.Append(kindEpoch, []wal.Section{{Kind: checkpoint.SectionHeader, Owner: job, Body: checkpoint.AppendHeader(nil, h)}})
	return err
}

// lateLog is a broken log for a committer: a part of an epoch's header stands in the frame of the job's epoch behind it. A crash
// between the two gives a job again what it has had.
type lateLog struct {
	frameLog
	put func(*checkpoint.Header) // puts the part of the job's epoch before there, and keeps this one's
}

// WritePositionsLate makes rt one whose readers' places are late. Call it before Start.
func WritePositionsLate(rt *Runtime) error {
	waiting := map[uint32][]checkpoint.SubPosition{}
	return writeLate(rt, func(h *checkpoint.Header) { h.Subs, waiting[h.Job] = waiting[h.Job], h.Subs })
}

func writeLate(rt *Runtime, put func(*checkpoint.Header)) error {
	return rt.do(func(c *core) error {
		c.log = &lateLog{c.log, put}
		return nil
	})
}

func (l *lateLog) Append(kind wal.FrameKind, sections []wal.Section) (wal.LSN, error) {
	at := slices.IndexFunc(sections, func(s wal.Section) bool { return s.Kind == checkpoint.SectionHeader })
	if kind != kindEpoch || at < 0 {
		return l.frameLog.Append(kind, sections)
	}
	h, err := checkpoint.DecodeHeader(sections[at].Body)
	if err != nil {
		return 0, err
	}
	if !h.Ended {
		l.put(&h)
	}
	sections = slices.Clone(sections)
	sections[at].Body = checkpoint.AppendHeader(nil, h)
	return l.frameLog.Append(kind, sections)
}

// replayApart writes a replay as two frames: the places first, and, a moment later, the state and the watermarks.
type replayApart struct{ frameLog }

// WriteReplaysApart breaks a runtime so.
func WriteReplaysApart(rt *Runtime) error {
	return rt.do(func(c *core) error {
		c.log = &replayApart{c.log}
		return nil
	})
}

func (l *replayApart) Append(kind wal.FrameKind, sections []wal.Section) (wal.LSN, error) {
	c := changeOf(sections)
	if c == nil || len(c.Jobs) != 1 || c.Jobs[0].Replay == nil {
		return l.frameLog.Append(kind, sections)
	}
	places := c.Jobs[0]
	places.Restart, places.Replay = false, nil
	lsn, err := l.frameLog.Append(kind, withChange(sections, &control{Topics: c.Topics, Jobs: []jobChange{places}}))
	if err != nil {
		return lsn, err
	}
	for l.Durable() < lsn {
		time.Sleep(time.Millisecond)
	}
	time.Sleep(100 * time.Millisecond)
	return l.frameLog.Append(kind, sections)
}
