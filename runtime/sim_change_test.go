package runtime

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sidestream-dev/sidestream/bus"
	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/wal"
)

// hotName is what jobs are called that come, change and go while the process runs: one at a time, each another.
const hotName = "hot"

// hotTopic is what some of them write and others read, and nobody else, so that it can be removed.
const hotTopic = "h"

// version makes a definition of a hot job: of a new one, another of the one that old is of, or, as it begins with a savepoint,
// of a new one that does what old did.
func (s *sim) version(old *simJob, saved bool) *simJob {
	var j simJob
	if old != nil {
		j = *old
	} else {
		j = simJob{name: hotName, in: "a", direct: s.rng.IntN(2) == 0, tells: s.rng.IntN(3) > 0, delivery: jobs.Delivery(s.rng.IntN(2))}
		switch {
		case s.wasWritten(hotTopic) && s.rng.IntN(4) > 0:
			j.in = hotTopic // which ends, since who wrote it has gone
			s.count("readers of the hot topic")
		case s.rng.IntN(4) > 0:
			j.forward = hotTopic
		}
	}
	if old == nil || saved {
		j.idx, j.target = len(s.plan.jobs)+len(s.versions), s.newTarget()
		j.places = &[]*simTarget{j.target}
	} else if s.hotUnsent() || s.rng.IntN(6) == 0 {
		s.moveOutput(&j)
	}
	j.width = 1 + s.rng.IntN(3)
	j.number, j.bad = len(s.versions), old != nil && !saved && s.rng.IntN(2) == 0
	if old != nil && s.rng.IntN(2) == 0 { // what was kept is not, or the other way round
		j.drops ^= uint8(1 + s.rng.IntN(3))
	}
	s.versions = append(s.versions, &j)
	j.build(s)
	j.def.Definition = fmt.Appendf(nil, "version %d", j.number)
	return &j
}

// wasWritten reports whether there is such a topic, and has been written.
func (s *sim) wasWritten(topic string) bool {
	id, ok := s.model.names[topic]
	return ok && len(s.model.topics[id].marks) > 0
}

// versionOf returns the version that a definition names, or nil.
func (s *sim) versionOf(definition []byte) *simJob {
	text, ok := strings.CutPrefix(string(definition), "version ")
	if !ok {
		return nil
	}
	n, err := strconv.Atoi(text)
	s.must(err)
	return s.versions[n]
}

func (s *sim) loadVersion(definition []byte, _ Origin) (*jobs.Job, error) {
	if j := s.versionOf(definition); j != nil {
		return j.def, nil
	}
	if j := s.files[string(definition)]; j != nil {
		return j, nil
	}
	return nil, errors.New("nobody has made it")
}

// changing reports whether a change is under way.
func (s *sim) changing() bool {
	for _, t := range s.tasks {
		if t.name == "change" && !t.done {
			return true
		}
	}
	return false
}

// atRest reports whether the hot job is stopped or paused, and nobody changes that.
func (s *sim) atRest() bool {
	j := s.proc.rt.findJob(hotName)
	return s.proc.up && !s.changing() && j != nil && (j.state == StatePaused || j.state == StateStopped)
}

// change begins one change of the hot job, or of another that reads a topic alone.
func (s *sim) change() {
	p := s.proc
	if !p.up || p.stopping || s.changing() || s.steps < s.rest && !s.quiet && !s.hotUnsent() {
		return
	}
	j := p.rt.findJob(hotName)
	if j != nil {
		over := func(t *trial) bool { return t != nil && !s.now.Before(t.until) }
		if over(j.trial.Load()) && (!s.hotAway() || s.rng.IntN(3) == 0) { // else it waits for the outside
			s.spawn("change", func() { p.rt.settleTrial(hotName) })
			return
		}
		if t := j.trial.Load(); t != nil && !over(t) && s.specOf(j).bad && !s.quiet && s.rng.IntN(8) > 0 {
			return // it is to fail first
		}
	}
	if !s.quiet && s.rng.IntN(8) == 0 {
		s.copyInto()
		return
	}
	if !s.quiet && s.rng.IntN(8) == 0 {
		if other := s.reader(); other != nil {
			s.moveReader(other)
			return
		}
	}
	id, there := p.rt.bus.TopicByName(hotTopic)
	last := s.quiet && !s.lastTopic && there && s.inStore(id) // the only change then, so that topics go that the store has
	if last || !s.quiet && s.rng.IntN(s.topicEvery(j)) == 0 {
		s.lastTopic = last
		s.removeTopic(j)
		return
	}
	switch {
	case j != nil:
		s.changeHot(j)
	case !s.quiet:
		s.add()
	}
}

// ask makes one change in a task of its own. Where the committer is lazy meanwhile, the job fails as it is halted (heed), and
// what it has handed over by then comes behind the change.
func (s *sim) ask(what string, f func() error) {
	s.asked, s.lazy = what, s.rng.IntN(3) == 0 && !s.quiet
	s.askedAt, s.mayDrop, s.sendsFirst = s.steps, false, false
	s.model.rememberAll(s.model.job(hotName), what == opSavepoint || what == opKeep || what == opDropRest || what == opTopic)
	s.spawn("change", func() {
		s.tracef("%s the hot job", what)
		err := f()
		s.tracef("%s: %v", what, err)
		if err == nil {
			s.count("changes: " + what)
			if m := s.model.job(hotName); m != nil && m.j.tells && slices.Contains([]string{opAdd, opBegin, opUpdate, opLose}, what) {
				s.rest = s.steps + s.rng.IntN(2)*s.rng.IntN(300) // it is to read something
			}
		} else if !s.log.dead && !s.refusable(err) && !s.unsentRefused(err) { // a dying process says what it was waiting for
			s.violate("error", "%s: %v", what, err)
		}
		if s.log.dead {
			return // what it came to is seen in what is left of the log
		}
		s.asked, s.lazy, s.mayDrop, s.sendsFirst = "", false, false, false
		s.model.rememberAll(s.model.job(hotName), false)
		s.forgetGone()
	})
}

// What the simulator asks for, as it is counted.
const (
	opAdd       = "add"
	opBegin     = "add with a savepoint"
	opUpdate    = "update"
	opLose      = "update, dropping state"
	opRefused   = "update, refused since it would drop state"
	opDrop      = "remove, dropping what is unsent"
	opRemove    = "remove, when all is sent"
	opKeep      = "remove, keeping state"
	opSavepoint = "savepoint"
	opForget    = "savepoint deleted"
	opSeek      = "seek"
	opDetach    = "detach"
	opReplay    = "replay"
	opReplayTo  = "replay with an end"
	opReplaySP  = "replay from a savepoint"
	opTopic     = "topic removed"
	opTopicUsed = "topic not removed, since it is used"

	opDropEarlier = "apply, dropping what was given up before"
	opTaken       = "a place that is given up asked for"
)

func (s *sim) add() {
	name := s.aSavepoint()
	if other := s.anotherStood(); other != "" && s.rng.IntN(4) > 0 {
		if name = other; s.idOf(hotTopic) == 0 {
			name = ""
		}
	}
	if name != "" && s.rng.IntN(3) > 0 {
		// A reader of a topic that was removed since would wait for a writer, and the run would not end.
		if of := s.versionOf(s.definitionOf(name)); of != nil && (of.in != hotTopic || s.wasWritten(hotTopic)) {
			v := s.version(of, true)
			s.ask(opBegin, s.applied(v, ApplyOptions{Probation: -1, From: name, AllowStateLoss: true}))
			return
		}
	}
	v := s.version(nil, false)
	s.ask(opAdd, s.applied(v, ApplyOptions{Probation: -1}))
}

// applied applies a version.
func (s *sim) applied(v *simJob, o ApplyOptions) func() error {
	rt := s.proc.rt
	return func() error {
		before := s.lost
		res, err := rt.Apply(context.Background(), []Definition{{Job: v.def}}, o)
		if err == nil {
			s.sameDropped(before, res.Jobs[0].Dropped)
		}
		if m := s.model.job(hotName); err == nil && (m == nil || m.j != v && !m.ended) { // one that has ended takes it up when it begins anew
			s.violate("R4", "version %d is applied, and not durable", v.number)
		}
		return err
	}
}

// sameDropped compares the records that a change says it has dropped with what is missing of outputs.
func (s *sim) sameDropped(before int64, said map[string]int64) {
	n := int64(0)
	for _, k := range said {
		n += k
	}
	if n != s.lost-before {
		s.violate("R4", "%s says that it has dropped %d records, and it is %d", s.asked, n, s.lost-before)
	}
}

// update gives the hot job another definition.
func (s *sim) update(j *job) {
	was := s.specOf(j)
	v := s.version(was, false)
	o := ApplyOptions{Probation: -1, AllowStateLoss: true}
	if v.bad || s.rng.IntN(3) > 0 {
		o.Probation = time.Duration(20+s.rng.IntN(300)) * time.Millisecond
	}
	what := opUpdate
	if v.drops&^was.drops != 0 {
		if what = opLose; s.rng.IntN(4) == 0 {
			what, o.AllowStateLoss = opRefused, false
		}
	}
	o.DropUnsent = s.rng.IntN(2) == 0
	apply, backs := s.applied(v, o), s.backs
	s.ask(what, func() error {
		err := apply()
		var loss *StateLossError
		// Behind a roll-back it meets a definition that may have had no more than this one.
		if what == opRefused && err == nil && backs == s.backs && s.model.job(hotName) != nil && !s.model.job(hotName).ended {
			s.violate("R4", "version %d drops state, and nobody has allowed it", v.number)
		} else if what == opRefused && errors.As(err, &loss) {
			return nil
		}
		return err
	})
	s.mayDrop, s.sendsFirst = o.DropUnsent, o.DropUnsent
}

func (s *sim) changeHot(j *job) {
	rt, ctx := s.proc.rt, context.Background()
	do := func(what string, f func(context.Context, string) error) {
		s.ask(what, func() error { return f(ctx, hotName) })
	}
	stop := func(ctx context.Context, name string) error { return rt.StopJob(ctx, name, StopOptions{}) }
	if s.quiet {
		if st := j.state; st == StatePaused || st == StateStopped {
			do("resume", rt.ResumeJob)
		}
		return
	}
	switch n := s.rng.IntN(25); {
	case n == 21 || n == 23:
		s.dropEarlier(j)
	case n > 21:
		s.takePlace()
	case n == 20:
		s.dropAtRest(j)
	case s.hotUnsent() && s.hotAway() && s.rng.IntN(2) == 0:
		s.update(j)
	case s.anotherStood() != "" && s.specOf(j).forward == hotTopic && s.rng.IntN(2) == 0:
		s.remove(rt)
	case n < 7:
		s.update(j)
	case n < 10:
		s.remove(rt)
	case n == 10:
		do("pause", rt.PauseJob)
	case n == 11:
		do("resume", rt.ResumeJob)
	case n == 12:
		do("restart", rt.RestartJob)
	case n == 13:
		do("stop", stop)
	case n < 16:
		s.save(rt)
	default:
		s.moveReader(j)
	}
}

func (s *sim) remove(rt *Runtime) {
	what, o := opDrop, RemoveOptions{DropUnsent: true}
	switch s.rng.IntN(3) {
	case 0:
		what, o = opRemove, RemoveOptions{}
	case 1:
		what, o.KeepState, o.Savepoint = opKeep, true, s.newSavepointName()
	}
	s.ask(what, func() error {
		before := s.lost
		res, err := rt.RemoveJob(context.Background(), hotName, o)
		if err == nil {
			s.sameDropped(before, res.Dropped)
		}
		return err
	})
	s.mayDrop = o.DropUnsent
}

const simSavepoints = 3

func (s *sim) newSavepointName() string {
	s.saves++
	return fmt.Sprintf("save%d", s.saves)
}

// save makes a savepoint of the hot job, or deletes one.
func (s *sim) save(rt *Runtime) {
	if len(s.model.savepoints) >= simSavepoints {
		name := s.aSavepoint()
		s.ask(opForget, func() error { return rt.DeleteSavepoint(context.Background(), name) })
		return
	}
	s.ask(opSavepoint, func() error {
		_, err := rt.Savepoint(context.Background(), hotName, s.newSavepointName())
		return err
	})
}

// aSavepoint is one of those there are, or "".
func (s *sim) aSavepoint() string {
	names := slices.Sorted(maps.Keys(s.model.savepoints))
	if len(names) == 0 {
		return ""
	}
	return names[s.rng.IntN(len(names))]
}

func (s *sim) definitionOf(savepoint string) []byte {
	if sp := s.proc.rt.committer.core.ledger.Savepoints[savepoint]; sp != nil {
		return sp.Definition
	}
	return nil
}

// reader is the plan's job that reads a topic alone, if it runs.
func (s *sim) reader() *job {
	for _, sj := range s.plan.jobs {
		if j := s.proc.rt.findJob(sj.name); sj.in == "a" && j != nil {
			return j
		}
	}
	return nil
}

// moveReader sets a job elsewhere in the topic that it reads: with its state, or, in a replay, with that of before.
func (s *sim) moveReader(j *job) {
	rt, ctx, name, topic := s.proc.rt, context.Background(), j.def.Name, s.specOf(j).in
	switch n := s.rng.IntN(9); {
	case n < 2:
		to := s.place(topic)
		s.ask(opSeek, func() error {
			_, err := rt.Seek(ctx, name, topic, to, false)
			return err
		})
	case n == 2 && name == hotName:
		s.ask(opDetach, func() error {
			_, err := rt.Detach(ctx, name, topic, false)
			return err
		})
	default:
		what, o := opReplay, ReplayOptions{From: s.place(topic)}
		if sp := s.aSavepoint(); sp != "" && name == hotName && n < 6 {
			what, o.From = opReplaySP, Place{Savepoint: sp}
		}
		if s.rng.IntN(3) == 0 {
			to := s.place(topic)
			what, o.To = opReplayTo, &to
		}
		s.ask(what, func() error {
			_, err := rt.Replay(ctx, name, topic, o)
			return err
		})
	}
}

// place is some place in a topic.
func (s *sim) place(topic string) Place {
	b := s.proc.rt.bus
	id, _ := b.TopicByName(topic)
	switch s.rng.IntN(6) {
	case 0:
		return Place{Latest: true}
	case 1:
		return Place{Time: time.UnixMilli(s.rng.Int64N(1000))}
	case 2, 3:
		first, next := b.First(id, 0), b.Next(id, 0)
		o := first + bus.Offset(s.rng.Int64N(int64(next-first)+1))
		return Place{Offset: &o}
	}
	return Place{}
}

// refusable says whether a change may fail like this: then nothing has happened.
func (s *sim) refusable(err error) bool {
	var phase *PhaseError
	var offset *bus.OffsetError
	for _, text := range []string{"may be changed back", "is not settled", "cannot keep", "is damaged", "was changed meanwhile", "stands where the topic is no more",
		"as it was before that was removed", "and stands nowhere in it", "has no record in that range", "is still at replay"} {
		if strings.Contains(err.Error(), text) {
			s.count("refused: " + text)
			return true
		}
	}
	return errors.As(err, &phase) || errors.As(err, &offset) || errors.Is(err, wal.ErrClosed) || errors.Is(err, wal.ErrNoRoom) ||
		errors.Is(err, ErrNoJob) || errors.Is(err, ErrNoSubscription) || errors.Is(err, ErrNoSavepoint)
}

// forgetGone takes away the supervisors of jobs that are removed.
func (s *sim) forgetGone() {
	kept := s.proc.jobs[:0:0]
	for _, a := range s.proc.jobs {
		if n := s.proc.rt.findJob(a.j.def.Name); n != nil && n.id == a.j.id {
			kept = append(kept, a)
		} else {
			s.leave(a.j)
		}
	}
	s.proc.jobs = kept
}

// supervise takes a job among those whose attempts the scheduler makes.
func (s *sim) supervise(j *job) {
	kept := s.proc.jobs[:0:0]
	for _, a := range s.proc.jobs {
		if a.j.id != j.id {
			kept = append(kept, a)
		}
	}
	s.proc.jobs = append(kept, &simAttempts{j: j})
}

// heed does what a job was asked for: to stop behind a last barrier.
func (s *sim) heed(a *simAttempts) {
	if a.j.isStopped() && !a.asked {
		a.asked = true
		if a.x != nil {
			a.x.stop()
		} else {
			a.over = true
		}
	}
	if a.x != nil && a.asked && s.lazy && len(s.proc.rt.committer.queues[a.j.id]) > 0 && s.rng.IntN(4) == 0 {
		a.x.post(event{kind: eventFailed, err: errInjected})
		s.settle(a)
	}
	if a.over && !isClosed(a.j.done) {
		close(a.j.done)
	}
}
