package runtime

import (
	"encoding/json"
	"slices"
	"time"

	"github.com/sidestream-dev/sidestream/bus"
	"github.com/sidestream-dev/sidestream/checkpoint"
	"github.com/sidestream-dev/sidestream/wal"
)

// editedLog is a broken log for a committer: edit takes something out of each change, and what it returns, if anything, is
// written some dozens of frames later. A crash before that has what was acknowledged without that.
type editedLog struct {
	frameLog
	edit func(ch *control) (later *control)
	late []*control
	left int // frames until they are written
}

func (l *editedLog) Append(kind wal.FrameKind, sections []wal.Section) (wal.LSN, error) {
	return l.append(l.frameLog.Append, kind, sections)
}

func (l *editedLog) AppendSmall(kind wal.FrameKind, sections []wal.Section) (wal.LSN, error) {
	return l.append(l.frameLog.AppendSmall, kind, sections)
}

func (l *editedLog) append(take func(wal.FrameKind, []wal.Section) (wal.LSN, error), kind wal.FrameKind, sections []wal.Section) (wal.LSN, error) {
	if l.left--; l.left <= 0 {
		for _, ch := range l.late {
			s, err := ch.section()
			if err != nil {
				return 0, err
			}
			if _, err := l.frameLog.Append(kindControl, []wal.Section{s}); err != nil {
				return 0, err
			}
		}
		l.late = nil
	}
	if kind != kindControl || len(sections) == 0 || sections[0].Kind != sectionControl {
		return take(kind, sections)
	}
	ch := new(control)
	if err := json.Unmarshal(sections[0].Body, ch); err != nil {
		return 0, err
	}
	if later := l.edit(ch); later != nil {
		l.late, l.left = append(l.late, later), 40
	}
	s, err := ch.section()
	if err != nil {
		return 0, err
	}
	sections = slices.Clone(sections)
	sections[0] = s
	return take(kind, sections)
}

// edits breaks a runtime so. edit gets what the ledger knows too.
func edits(edit func(l *ledger, ch *control) (later *control)) func(rt *Runtime) error {
	return func(rt *Runtime) error {
		return rt.do(func(c *core) error {
			led := c.ledger
			c.log = &editedLog{frameLog: c.log, edit: func(ch *control) *control { return edit(led, ch) }}
			return nil
		})
	}
}

// CrashTwins are broken programs by name: what breaks a runtime before Start.
var CrashTwins = map[string]func(rt *Runtime) error{
	"positions apart": WritePositionsApart,
	"positions late":  WritePositionsLate,
	"replays apart":   WriteReplaysApart,

	// The removal of a job, and the second job that one change gives another definition, are written behind the answer.
	"changes late": edits(func(l *ledger, ch *control) *control {
		keep := slices.IndexFunc(ch.Jobs, func(j jobChange) bool { return j.Remove || l.Jobs[j.ID] != nil && j.ID != ch.Jobs[0].ID })
		if keep < 0 {
			return nil
		}
		later := &control{Jobs: ch.Jobs[keep:]}
		ch.Jobs = ch.Jobs[:keep]
		return later
	}),
	// So is the new place of a job.
	"moves late": edits(func(l *ledger, ch *control) *control {
		if len(ch.Jobs) != 1 || l.Jobs[ch.Jobs[0].ID] == nil || !ch.Jobs[0].Replace {
			return nil
		}
		later := &control{Jobs: ch.Jobs}
		ch.Jobs = nil
		return later
	}),
	// A job that is detached keeps its subscription, as far as the log knows.
	"claims kept": edits(func(l *ledger, ch *control) *control {
		if len(ch.Jobs) == 1 && ch.Jobs[0].Phase == PhaseStopped {
			ch.Jobs[0].Replace, ch.Jobs[0].Inputs, ch.Jobs[0].Outputs, ch.Jobs[0].Steps = false, nil, nil, nil
		}
		return nil
	}),
	// What the topic store lets go is gone before the log says so.
	"purges late": edits(func(l *ledger, ch *control) *control {
		if ch.Store == nil || ch.DropFirst > 0 {
			return nil
		}
		later := &control{Store: ch.Store}
		ch.Store = nil
		return later
	}),
	// A retention that was set is said behind the answer.
	"retention late": edits(func(l *ledger, ch *control) *control {
		if len(ch.Topics) != 1 || !ch.Topics[0].Spec.RetentionSet || len(ch.Jobs) > 0 {
			return nil
		}
		later := &control{Topics: ch.Topics}
		ch.Topics = nil
		return later
	}),
	// The log does not know that a definition is on probation.
	"probation forgotten": edits(func(l *ledger, ch *control) *control {
		for i := range ch.Jobs {
			ch.Jobs[i].Until = 0
		}
		return nil
	}),
	// A replay from a savepoint begins with its places and the state of before, as far as the log knows.
	"bases of now": edits(func(l *ledger, ch *control) *control {
		for _, jc := range ch.Jobs {
			if e := l.Jobs[jc.ID]; jc.Base != nil && e != nil && len(e.Snapshots) > 0 {
				jc.Base.Snapshot.File = e.Snapshots[len(e.Snapshots)-1].File
			}
		}
		return nil
	}),
	// The generations that the topic store has got are dropped with nothing said of where their records are.
	"store forgotten": edits(func(l *ledger, ch *control) *control {
		if ch.DropFirst > 0 {
			ch.Store = nil
		}
		return nil
	}),
	// A topic that was removed goes, as far as the log knows, behind the answer.
	"topics late": edits(func(l *ledger, ch *control) *control {
		if len(ch.DropTopics) == 0 {
			return nil
		}
		later := &control{DropTopics: ch.DropTopics}
		ch.DropTopics = nil
		return later
	}),
	"splits late":      WriteSplitsLate,
	"losses forgotten": WriteLossesForgotten,
}

// WriteSplitsLate makes rt one whose positions of splits are late.
func WriteSplitsLate(rt *Runtime) error {
	waiting := map[uint32][]checkpoint.SplitState{}
	return writeLate(rt, func(h *checkpoint.Header) { h.Splits, waiting[h.Job] = waiting[h.Job], h.Splits })
}

// WriteLossesForgotten makes rt one whose positions do not say what was lost on the way to them.
func WriteLossesForgotten(rt *Runtime) error {
	return writeLate(rt, func(h *checkpoint.Header) {
		h.Subs = slices.Clone(h.Subs)
		for i, s := range h.Subs {
			if st, err := bus.DecodeSubState(s.State); err == nil {
				st.KeepLost(bus.SubState{})
				h.Subs[i].State = bus.AppendSubState(nil, st)
			}
		}
	})
}

// RepairReusing is a broken repair: it raises no counter past what it removes.
func RepairReusing(dataDir string) error {
	r, err := OpenRepair(dataDir)
	if err != nil {
		return err
	}
	defer r.Close()
	if r.Begun() {
		_, err := r.Finish()
		return err
	}
	p, err := r.Plan(RepairOptions{})
	if err != nil || p.Nothing {
		return err
	}
	k := p.kept
	all := k.choice
	k.seen, k.choice.Behind = newSeenFrames(), wal.Cut{}
	_, err = r.wal.Write(all, wal.NewLog{Note: k.say, Now: time.Now(), Catalog: func(first wal.LSN) ([][]wal.Section, error) { return k.catalog(first, 0) }})
	return err
}
