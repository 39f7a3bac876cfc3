package runtime

import (
	"slices"
	"time"
)

// step lets one of those that can go on do so; false is the end.
func (s *sim) step() bool {
	s.steps++
	if s.steps > 200_000 {
		s.violate("stuck", "no end after %d steps", s.steps)
	}
	if s.proc.refused {
		s.crash()
	}
	if !s.quiet {
		if s.steps > s.plan.steps {
			s.calm()
		} else if s.fault() {
			return true
		}
	}
	if len(s.runnable()) > 0 {
		s.chores()
	}
	if s.proc.stopping && s.allStopped() {
		s.restart()
		return true
	}
	acts := s.runnable()
	if n := len(acts); n > 0 && s.rng.IntN(n+4) < n {
		acts[s.rng.IntN(n)]()
		return true
	}
	if len(acts) > 0 {
		s.now = s.now.Add(time.Duration(s.rng.IntN(2000)) * time.Microsecond)
		return true
	}
	next := s.nextTime()
	switch {
	case s.ended() && s.quiet:
		return false
	case !s.quiet:
		s.calm() // they wait for a job that comes later, or all have ended
		return true
	case next.IsZero():
		s.violate("stuck", "nothing can go on: %s", s.standing())
	}
	s.now = next
	return true
}

// runnable returns what can be done now. Each is what one goroutine would do.
func (s *sim) runnable() (acts []func()) {
	p := s.proc
	if s.committerDue() {
		turn := func() {
			s.stepCommitter()
			s.settleAll()
		}
		acts = append(acts, turn, turn)
	}
	if s.log.durable < s.log.Last() && (s.quiet || s.rng.IntN(1+s.slow) == 0) {
		acts = append(acts, s.sync)
	}
	kept := s.tasks[:0]
	for _, t := range s.tasks {
		if t.done {
			continue
		}
		kept = append(kept, t)
		if t.until == nil || t.until() {
			acts = append(acts, func() { s.resume(t) })
		}
	}
	s.tasks = kept
	for _, t := range s.timers {
		if !t.at.IsZero() && !t.at.After(s.now) {
			acts = append(acts, func() {
				t.at = time.Time{}
				t.f()
				s.settleAll()
			})
		}
	}
	for _, a := range p.jobs {
		if a.x == nil {
			if !a.over && !a.again.After(s.now) {
				acts = append(acts, func() { s.begin(a) })
			}
			continue
		}
		for _, b := range a.subs {
			if !b.over && s.token(b, false) && roomBehind(b.s) {
				acts = append(acts, func() {
					s.token(b, true)
					s.stepSub(b)
					s.settleAll()
				})
			}
		}
	}
	for i, b := range p.zombies {
		if b.over || b.zombie == 0 {
			p.zombies = append(p.zombies[:i:i], p.zombies[i+1:]...)
			break
		}
		acts = append(acts, func() {
			s.count("steps behind the end of an attempt")
			b.zombie--
			s.stepSub(b)
		})
	}
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

func (s *sim) settleAll() {
	for _, a := range s.proc.jobs {
		s.settle(a)
	}
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
	if one(s.plan.steps / s.plan.crashes) {
		s.crash()
		return true
	}
	if s.log.full {
		s.log.full = !one(15)
	} else if one(150) {
		s.tracef("no room")
		s.log.full = true
	}
	if one(100) {
		s.slow = rng.IntN(2) * rng.IntN(40)
	}
	if len(p.jobs) == 0 || p.stopping {
		return false
	}
	a := p.jobs[rng.IntN(len(p.jobs))]
	switch {
	case a.x == nil:
	case one(60):
		s.armed[s.specOf(a).idx] = 1 + rng.IntN(20)
	case a.x.held.Load():
		s.count("jobs held back by a full topic")
	case one(600):
		s.stop()
	}
	return false
}

// chores asks for what a runtime does now and then: snapshots, and cutting the log.
func (s *sim) chores() {
	rng, p := s.rng, s.proc
	if rng.IntN(20) == 0 && !slices.ContainsFunc(s.tasks, func(t *simTask) bool { return t.name == "janitor" }) {
		s.spawn("janitor", func() {
			_, _ = p.rt.cutLog() // an error is its process's end
		})
	}
	if len(p.jobs) > 0 && rng.IntN(6) == 0 {
		if a := p.jobs[rng.IntN(len(p.jobs))]; a.x != nil {
			a.x.wantSnapshot.Store(true)
		}
	}
}

// stop asks every job for a last barrier, as Stop does.
func (s *sim) stop() {
	s.tracef("stopping")
	s.proc.stopping = true
	s.log.full = false
	for _, a := range s.proc.jobs {
		if a.x != nil {
			a.x.stop()
		} else {
			a.over = true
		}
	}
	s.settleAll()
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
	s.log.full = false
	clear(s.armed)
	switch {
	case s.proc.defs == len(s.plan.jobs) || s.proc.stopping:
	case s.proc.up:
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
		if !a.ended {
			return false
		}
	}
	return s.proc.rt.allSent()
}
