package runtime

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/sidestream-dev/sidestream/bus"
	"github.com/sidestream-dev/sidestream/jobs"
)

// Copies of topic a into another topic, in the simulator: a job that is there for that alone. What it has passed by an epoch is in
// the target by the same epoch, each record once, as it was, and those of one key in their order; nothing behind the end is; and
// when all is there, and not before, it goes by itself.

const copyName = "copy"

const (
	opCopy     = "copy into a topic"
	opDropRest = "drop state at rest, then save"
)

// copyInto begins a copy, if none is under way.
func (s *sim) copyInto() {
	rt := s.proc.rt
	if _, there := rt.bus.TopicByName("a"); !there || rt.committer.core.ledger.job(copyName) != nil {
		return
	}
	into := []string{"d", "d"}
	for _, j := range s.plan.jobs {
		for _, t := range []string{j.forward, j.results} {
			if t != "" && t != "a" {
				into = append(into, t)
			}
		}
	}
	j := &simJob{name: copyName, in: "a", forward: into[s.rng.IntN(len(into))], copies: true, some: s.rng.IntN(2) == 0, width: 1 + s.rng.IntN(2),
		idx: len(s.plan.jobs) + len(s.versions), number: len(s.versions)}
	s.versions = append(s.versions, j)
	j.build(s)
	j.def.Definition = fmt.Appendf(nil, "version %d", j.number)
	o := CopyOptions{}
	if s.rng.IntN(3) == 0 {
		o.From = s.place("a")
	}
	if s.rng.IntN(3) == 0 {
		to := s.place("a")
		o.To = &to
	}
	if s.rng.IntN(3) == 0 {
		o.Rate = float64(100 + s.rng.IntN(5000))
	}
	s.ask(opCopy, func() error {
		res, err := rt.ReplayInto(context.Background(), j.def, "a", o)
		if err != nil {
			return err
		}
		m := s.model.jobs[s.copyOf(j)]
		if m == nil {
			s.violate("R4", "the copy %s is told of, and not durable", j.def.Definition)
		}
		for p, first := range res.Inputs[0].From {
			if m.first[p] != first || m.ends[p] != res.Inputs[0].To[p] {
				s.violate("R3", "a copy of %v says that it takes %v", []any{m.first, m.ends}, res.Inputs[0])
			}
		}
		return nil
	})
}

// copyOf finds what the model has of a copy, which may be gone by now.
func (s *sim) copyOf(j *simJob) uint32 {
	for id, m := range s.model.jobs {
		if m.j == j {
			return id
		}
	}
	return 0
}

// buildCopy makes the definition of a copy: as the API writes one, with a filter or without.
func (j *simJob) buildCopy(s *sim, def *jobs.Job, from, into jobs.BusTopic[simValue]) {
	out := jobs.FlatMap(jobs.FromTopic(def, from, jobs.ID("in")), func(v simValue, emit func(simValue)) error {
		if err := s.inject(j); err != nil {
			return err
		}
		if j.copied(v) {
			emit(v)
		}
		return nil
	}, jobs.ID("some"))
	jobs.ToTopic(out, into)
	j.def, j.head = def, "some"
}

// copied says whether a copy takes a record.
func (j *simJob) copied(v simValue) bool { return !j.some || v.Sum%2 == 0 }

// goneCopy reports whether a job of this process has removed itself.
func (s *sim) goneCopy(j *job) bool {
	if j.def.Name != copyName {
		return false
	}
	now := s.proc.rt.findJob(copyName)
	return now == nil || now.id != j.id
}

// copyBegins takes where a copy begins and ends.
func (m *model) copyBegins(j *modelJob) {
	if !j.j.copies {
		return
	}
	if j.back == nil || !j.back.Copy || len(j.inputs) != 1 || len(j.back.Ends) != len(m.subs[j.inputs[0]].parts) {
		m.s.violate("R3", "frame %d begins a copy that does not say where it ends", m.lsn)
	}
	parts := m.subs[j.inputs[0]].parts
	j.first, j.ends = make([]bus.Offset, len(parts)), make([]bus.Offset, len(parts))
	for _, end := range j.back.Ends {
		j.first[end.Partition], j.ends[end.Partition] = parts[end.Partition].Next, end.At
	}
}

// copyGoes checks that a copy that is removed has passed all of its range.
func (m *model) copyGoes(j *modelJob) {
	if !j.j.copies {
		return
	}
	sub := m.subs[j.inputs[0]]
	for p, at := range j.ends {
		if sub.placeOf(p) < at {
			m.s.violate("R4", "frame %d removes the copy at offset %d of partition %d, and it goes to %d", m.lsn, sub.placeOf(p), p, at)
		}
	}
	m.s.count("copies done")
}

// copies compares what an epoch of a copy gives with the records that it passed.
func (m *model) copies(f *simFrame, j *modelJob, passed []modelRecord, out map[bus.TopicID][]simValue, marks map[bus.TopicID]int64) {
	if j.back == nil {
		m.s.violate("R3", "frame %d: a copy is over, and reads on", f.lsn)
	}
	into := m.names[j.j.forward]
	promised, some := marks[into]
	want, have := map[string][]simValue{}, map[string][]simValue{}
	for _, r := range passed {
		if !j.j.copied(r.v) {
			continue
		}
		want[r.v.Key] = append(want[r.v.Key], r.v)
		if some && r.v.Time <= promised && !r.v.Wild && m.s.plan.idle == 0 && !m.mayBeLate(j, r) {
			m.s.violate("watermark", "frame %d: a copy writes %v behind its watermark %d", f.lsn, r.v, promised)
		}
	}
	for _, v := range out[into] {
		have[v.Key] = append(have[v.Key], v)
	}
	for _, key := range slices.Sorted(maps.Keys(want)) {
		if len(have[key]) < len(want[key]) {
			m.s.violate("R3", "frame %d: a copy passes %d records of key %s, and gives %d", f.lsn, len(want[key]), key, len(have[key]))
		}
	}
	for _, key := range slices.Sorted(maps.Keys(have)) {
		if vs := have[key]; !slices.Equal(vs, want[key]) {
			m.s.violate("R1", "frame %d: a copy gives of key %s\n%v\nand has passed\n%v", f.lsn, key, vs, want[key])
		}
	}
	m.s.counts["records copied"] += len(out[into])
}

// dropAtRest puts the hot job to rest, gives it a definition that keeps less, and saves it there.
func (s *sim) dropAtRest(j *job) {
	rt, ctx := s.proc.rt, context.Background()
	was := s.specOf(j)
	if j.trial.Load() != nil || was.drops == simCount|simSet {
		return
	}
	v := s.version(was, false)
	v.bad, v.drops = false, was.drops|uint8(1+s.rng.IntN(3))
	v.build(s)
	v.def.Definition = fmt.Appendf(nil, "version %d", v.number)
	before := s.rng.IntN(2) == 0 // there is a savepoint from before the change, of the same epoch
	name, first := s.newSavepointName(), s.newSavepointName()
	s.ask(opDropRest, func() error {
		if err := rt.PauseJob(ctx, hotName); err != nil {
			return err
		}
		if before {
			if _, err := rt.Savepoint(ctx, hotName, first); err != nil {
				return err
			}
		}
		if err := s.applied(v, ApplyOptions{Probation: -1, AllowStateLoss: true})(); err != nil {
			return err
		}
		if s.rng.IntN(2) == 0 { // who cuts the log may be at it
			if err := rt.sleep(ctx, time.Duration(s.rng.IntN(20))*time.Millisecond); err != nil {
				return err
			}
		}
		_, err := rt.Savepoint(ctx, hotName, name)
		if err == nil && s.rng.IntN(2) == 0 {
			err = rt.ResumeJob(ctx, hotName)
		}
		return err
	})
}

// savedAs checks a savepoint's file as the frame that names it becomes durable: it holds the state that the job had.
func (m *model) savedAs(name string, j *modelJob, past *modelPast) {
	if _, there := m.s.snapshots.files[savedPrefix+name]; !there {
		return // it is deleted by now
	}
	st := m.s.storesOf(j, 0)
	m.s.must(m.s.snapshots.readSaved(name, st))
	as := *j
	as.state = past.state
	m.s.count("savepoints checked")
	m.sameState("savepoint", &as, st)
}
