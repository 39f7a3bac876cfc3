package runtime

import (
	"errors"
	"slices"
	"time"

	"github.com/sidestream-dev/sidestream/wal"
)

// step lets one of those that can go on do so; false is the end.
func (s *sim) step() bool {
	s.steps++
	if len(s.lateSyncs) > 0 && s.rng.IntN(60) == 0 {
		for _, sync := range s.lateSyncs {
			sync()
		}
		s.lateSyncs = nil
	}
	if s.steps > 200_000 {
		s.violate("stuck", "no end after %d steps", s.steps)
	}
	if s.proc.refused {
		s.crash()
	}
	switch {
	case s.quiet && s.doom > 0 && s.steps >= s.doom:
		s.crash()
		return true
	case !s.quiet:
		if s.steps > s.plan.steps {
			s.calm()
		} else if s.fault() {
			return true
		}
	}
	if s.proc.stopping && s.allStopped() {
		s.restart()
		return true
	}
	if s.hasty {
		s.hasty = false
		s.do(simAct{})
		return true
	}
	acts := s.runnable()
	if n := len(acts); n > 0 && s.rng.IntN(n+4) < n {
		s.do(acts[s.rng.IntN(n)])
		s.chores()
		return true
	}
	if len(acts) > 0 {
		s.now = s.now.Add(time.Duration(s.rng.IntN(2000)) * time.Microsecond)
		return true
	}
	if s.lame != nil || s.lazy {
		s.lame, s.lazy = nil, false
		return true
	}
	if s.log.durable < s.log.Last() { // the disk is slow
		s.now = s.now.Add(time.Millisecond)
		return true
	}
	for _, a := range s.proc.jobs {
		if s.reveal(a) {
			return true
		}
	}
	next := s.nextTime()
	switch {
	case s.ended() && s.quiet:
		return false
	case !s.quiet && (next.IsZero() || s.ended()):
		s.calm() // they wait for a job that comes later, or all have ended
		return true
	case next.IsZero() && s.atRest():
		s.change() // it is resumed by hand
		return true
	case next.IsZero():
		s.violate("stuck", "nothing can go on: %s", s.standing())
	}
	s.now = next
	return true
}

// simAct is one thing that can be done now; one of its pointers says what.
type simAct struct {
	task   *simTask
	timer  *simTimer
	begin  *simAttempts
	sub    *simSub
	zombie *simSub
	sync   bool // else it is the committer's turn
}

func (s *sim) do(a simAct) {
	switch {
	case a.task != nil:
		s.resume(a.task)
	case a.timer != nil:
		a.timer.at = time.Time{}
		a.timer.f()
	case a.begin != nil:
		s.begin(a.begin)
	case a.sub != nil:
		s.token(a.sub, true)
		s.stepSub(a.sub)
	case a.zombie != nil:
		s.count("steps behind the end of an attempt")
		a.zombie.zombie--
		s.stepSub(a.zombie)
	case a.sync:
		s.sync()
	default:
		s.stepCommitter()
	}
	for _, a := range s.proc.jobs {
		s.settle(a)
		s.heed(a)
	}
}

// runnable returns what can be done now. Each is what one goroutine would do.
func (s *sim) runnable() []simAct {
	p, acts := s.proc, s.acts[:0]
	if s.committerDue() && (!s.lazy || s.rng.IntN(100) == 0) {
		acts = append(acts, simAct{}, simAct{})
	}
	if s.log.durable < s.log.Last() && (s.quiet || s.rng.IntN(1+s.slow) == 0) {
		acts = append(acts, simAct{sync: true})
	}
	kept := s.tasks[:0]
	for _, t := range s.tasks {
		if t.done {
			continue
		}
		kept = append(kept, t)
		if t.until == nil || t.until() {
			acts = append(acts, simAct{task: t})
			if t.name == "change" {
				acts = append(acts, simAct{task: t}, simAct{task: t})
			}
		}
	}
	s.tasks = kept
	for _, t := range s.timers {
		if !t.at.IsZero() && !t.at.After(s.now) {
			acts = append(acts, simAct{timer: t})
		}
	}
	for _, a := range p.jobs {
		if a.x == nil && !a.over && !a.again.After(s.now) {
			acts = append(acts, simAct{begin: a})
		}
		if a == s.lame && s.rng.IntN(15) > 0 {
			continue
		}
		for _, b := range a.subs {
			if !b.over && s.token(b, false) && roomBehind(b.s) {
				acts = append(acts, simAct{sub: b})
			}
		}
	}
	p.zombies = slices.DeleteFunc(p.zombies, func(b *simSub) bool { return b.over || b.zombie == 0 })
	for _, b := range p.zombies {
		acts = append(acts, simAct{zombie: b})
	}
	s.acts = acts
	return acts
}

// roomBehind says whether a subtask may write to its edges without having to wait.
func roomBehind(b *subtask) bool {
	for _, e := range b.edges {
		for _, t := range e.targets {
			if t.queued() > edgeRecordsMin/4 {
				return false
			}
		}
	}
	return true
}

// nextTime is when something will be due, or zero.
func (s *sim) nextTime() (next time.Time) {
	take := func(t time.Time) {
		if !t.IsZero() && t.After(s.now) && (next.IsZero() || t.Before(next)) {
			next = t
		}
	}
	for _, t := range s.timers {
		take(t.at)
	}
	for _, t := range s.tasks {
		take(t.at)
	}
	take(s.proc.flushAt)
	take(s.proc.retryAt)
	for _, a := range s.proc.jobs {
		if a.x == nil && !a.over {
			take(a.again)
		}
		for _, b := range a.subs {
			if b.parked {
				take(b.until)
			}
		}
	}
	return next
}

// fault does now and then what should not happen; true where the process is another one.
func (s *sim) fault() bool {
	rng, p := s.rng, s.proc
	one := func(n int) bool { return rng.IntN(n) == 0 }
	if doomed := s.doom > 0 && s.steps >= s.doom; one(s.plan.steps/s.plan.crashes) || doomed {
		s.crash()
		return true
	}
	if s.log.full {
		s.log.full = !one(15)
	} else if one(150) {
		s.tracef("no room")
		s.log.full = true
	}
	if one(40) {
		s.lapse()
	}
	if one(100) {
		s.slow = rng.IntN(2) * rng.IntN(40)
	}
	if len(p.jobs) == 0 || p.stopping {
		return false
	}
	a := p.jobs[rng.IntN(len(p.jobs))]
	if one(120) {
		s.lame = a
	}
	switch {
	case a.x == nil:
	case one(60):
		s.armed[s.specOf(a.j).idx] = 1 + rng.IntN(20)
	case a.x.full || a.x.held.Load():
		s.count("jobs held back by a full topic")
	case one(600) && !s.changing():
		s.stop()
	}
	return false
}

// chores asks for what a runtime does now and then: snapshots, and cutting the log.
func (s *sim) chores() {
	rng, p := s.rng, s.proc
	if rng.IntN(20) == 0 && !slices.ContainsFunc(s.tasks, func(t *simTask) bool { return t.name == "janitor" }) {
		s.spawn("janitor", func() {
			if _, err := p.rt.tend(p.rt.ctx); err != nil && !errors.Is(err, wal.ErrClosed) {
				s.violate("R6", "the log cannot be cut: %v", err)
			}
			if p.up && p.rt.logBytes() > p.rt.cfg.LogBytes {
				if err := p.rt.askSnapshots(); err != nil && !errors.Is(err, wal.ErrClosed) {
					s.violate("R4", "no snapshot of a job that does not run: %v", err)
				}
			}
		})
	}
	if len(p.jobs) > 0 && rng.IntN(25) == 0 {
		s.reveal(p.jobs[rng.IntN(len(p.jobs))])
	}
	if rng.IntN(s.plan.changes) == 0 {
		s.change()
	}
	if len(p.jobs) > 0 && rng.IntN(6) == 0 {
		if a := p.jobs[rng.IntN(len(p.jobs))]; a.x != nil {
			a.x.post(event{kind: eventSnapshot})
		}
	}
}

// stop asks every job for a last barrier, as Stop does.
func (s *sim) stop() {
	s.tracef("stopping")
	s.proc.stopping = true
	s.log.full = false
	c := s.proc.rt.changes // as close does, which waits
	c.mu.Lock()
	c.open = false
	c.mu.Unlock()
	c.end()
	for _, a := range s.proc.jobs {
		if a.x != nil {
			a.x.stop()
		} else {
			a.over = true
		}
	}
}

func (s *sim) allStopped() bool {
	for _, a := range s.proc.jobs {
		if !a.over {
			return false
		}
	}
	c := s.proc.rt.committer
	return s.log.durable == s.log.Last() && len(c.turn) == 0 && !c.hasSent()
}

// calm ends the faults; jobs that are not there come now.
func (s *sim) calm() {
	s.tracef("no more faults")
	s.quiet = true
	s.log.full, s.lame, s.lazy, s.hasty = false, nil, false, false
	clear(s.armed)
	for _, t := range s.targets {
		if t.away {
			t.away, t.last = false, s.steps
		}
	}
	switch {
	case s.proc.defs == len(s.plan.jobs) || s.proc.stopping:
	case s.proc.up && !s.changing():
		s.stop()
	default:
		s.crash()
	}
}

// ended reports whether every job has ended and all is durable and sent.
func (s *sim) ended() bool {
	if !s.proc.up || s.log.durable != s.log.Last() || s.proc.rt.committer.hasSent() {
		return false
	}
	for _, a := range s.proc.jobs {
		// One whose attempt failed as it was to be changed may have sealed its end: where nothing comes of the change, it has ended.
		now := s.proc.rt.findJob(a.j.def.Name)
		if !a.ended && !s.goneCopy(a.j) && (now == nil || now.state != StateEnded) {
			return false
		}
	}
	return s.proc.rt.allSent()
}
