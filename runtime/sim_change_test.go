package runtime

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/wal"
)

// hotName is what jobs are called that come, change and go while the process runs: one at a time, each another.
const hotName = "hot"

// version makes a definition of a hot job: of a new one, or another of the one that old is of.
func (s *sim) version(old *simJob) *simJob {
	var j simJob
	if old != nil {
		j = *old
	} else {
		j = simJob{idx: len(s.plan.jobs) + len(s.versions), name: hotName, in: "a", direct: s.rng.IntN(2) == 0,
			delivery: jobs.Delivery(s.rng.IntN(2)), target: &simTarget{}}
	}
	j.width = 1 + s.rng.IntN(3)
	j.number, j.bad = len(s.versions), old != nil && s.rng.IntN(2) == 0
	s.versions = append(s.versions, &j)
	j.build(s)
	j.def.Definition = fmt.Appendf(nil, "version %d", j.number)
	return &j
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
	return nil, errors.New("it is a file's")
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

// change begins one change of the hot job.
func (s *sim) change() {
	p := s.proc
	if !p.up || p.stopping || s.changing() {
		return
	}
	rt, ctx := p.rt, context.Background()
	j := rt.findJob(hotName)
	if j != nil {
		if t := j.trial.Load(); t != nil && !s.now.Before(t.until) {
			s.spawn("change", func() { rt.settleTrial(hotName) })
			return
		}
	}
	do := func(what string, f func() error) {
		s.spawn("change", func() {
			s.tracef("%s the hot job", what)
			err := f()
			s.tracef("%s: %v", what, err)
			if err == nil {
				s.count("changes: " + what)
			} else if !s.refusable(err) {
				s.violate("error", "%s: %v", what, err)
			}
			s.forgetGone()
		})
	}
	apply := func(v *simJob) func() error {
		o := ApplyOptions{Probation: -1}
		if s.rng.IntN(2) == 0 {
			o.Probation = time.Duration(1+s.rng.IntN(200)) * time.Millisecond
		}
		return func() error {
			_, err := rt.Apply(ctx, []Definition{{Job: v.def}}, o)
			if m := s.model.job(hotName); err == nil && (m == nil || m.j != v) {
				s.violate("R4", "version %d is applied, and not durable", v.number)
			}
			return err
		}
	}
	switch n := s.rng.IntN(9); {
	case j == nil && s.quiet:
	case j == nil:
		do("add", apply(s.version(nil)))
	case s.quiet:
		if st := j.state; st == StatePaused || st == StateStopped {
			do("resume", func() error { return rt.ResumeJob(ctx, hotName) })
		}
	case n < 3:
		do("update", apply(s.version(s.specOf(j))))
	case n < 5:
		do("remove", func() error {
			_, err := rt.RemoveJob(ctx, hotName, RemoveOptions{DropUnsent: true})
			return err
		})
	case n == 5:
		do("pause", func() error { return rt.PauseJob(ctx, hotName) })
	case n == 6:
		do("resume", func() error { return rt.ResumeJob(ctx, hotName) })
	case n == 7:
		do("restart", func() error { return rt.RestartJob(ctx, hotName) })
	default:
		do("stop", func() error { return rt.StopJob(ctx, hotName, StopOptions{}) })
	}
}

// refusable says whether a change may fail like this: then nothing has happened.
func (s *sim) refusable(err error) bool {
	var phase *PhaseError
	return errors.As(err, &phase) || errors.Is(err, wal.ErrClosed) || errors.Is(err, wal.ErrNoRoom) || errors.Is(err, ErrNoJob)
}

// forgetGone takes away the supervisors of jobs that are removed.
func (s *sim) forgetGone() {
	kept := s.proc.jobs[:0:0]
	for _, a := range s.proc.jobs {
		if n := s.proc.rt.findJob(a.j.def.Name); n != nil && n.id == a.j.id {
			kept = append(kept, a)
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
	if a.over && !isClosed(a.j.done) {
		close(a.j.done)
	}
}
