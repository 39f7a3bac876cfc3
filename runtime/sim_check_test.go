package runtime

import (
	"log/slog"
	"slices"

	"github.com/sidestream-dev/sidestream/bus"
	"github.com/sidestream-dev/sidestream/checkpoint"
	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/wal"
)

// dropped checks, as a generation goes, that nobody needs what is in it, by what is durable (R6).
func (s *sim) dropped(first, next wal.LSN) {
	s.tracef("the generation at %d is dropped", first)
	s.count("generations dropped")
	for _, sub := range s.model.subs {
		if sub.over {
			continue
		}
		t := s.model.topics[sub.topic]
		who := s.model.jobs[sub.job].j.name
		for i, p := range sub.parts {
			p.Next = sub.placeOf(i)
			if st := t.stored[i]; st.First > 0 && p.Next >= st.From {
				p.Next = max(p.Next, st.Next) // readers find it there: see checkReaders
			}
			if recs := t.parts[i]; int(p.Next) < len(recs) && recs[p.Next].at < next {
				s.violate("R6", "frames %d to %d go, and %s has durably read topic %s, partition %d up to offset %d, which lies in frame %d",
					first, next-1, who, t.name, i, p.Next, recs[p.Next].at)
			}
		}
	}
	for _, j := range s.model.jobs {
		if j.removed {
			continue
		}
		floor := j.since
		if len(j.snapshots) > 0 {
			floor = j.snapshots[0].LSN
		}
		for lsn := max(first, floor+1); lsn < next && !j.ended; lsn++ {
			if f := s.log.frames[lsn-1]; f.kind == kindEpoch && f.owner() == j.id {
				s.violate("R6", "frames %d to %d go, and the state of %s needs frame %d", first, next-1, j.j.name, lsn)
			}
		}
	}
}

// snapshotsAt checks the snapshots that were written of a job's epoch as that becomes durable: each is exact by itself.
func (s *sim) snapshotsAt(m *model, j *modelJob) {
	for name, f := range s.snapshots.files {
		if f.checked || f.meta.Job != j.id || f.meta.LSN != m.lsn {
			continue
		}
		f.checked = true
		s.snapshots.files[name] = f
		st := s.storesOf(j, 0)
		s.must(s.snapshots.read(name, st))
		s.count("snapshots checked")
		m.sameState("snapshot", j, st)
	}
}

// storesOf makes empty stores for a job.
func (s *sim) storesOf(j *modelJob, sealed checkpoint.Epoch) *jobStores {
	plan, err := planJob(j.j.def, func(name string) int {
		i := slices.IndexFunc(s.plan.topics, func(t jobs.Topic) bool { return t.Name == name })
		return s.plan.topics[i].Partitions
	})
	s.must(err)
	return newJobStores(plan, sealed)
}

// checkPrefix recovers from what a crash may leave of the log, with the code that does so, and compares all that comes of it
// with the model.
func (s *sim) checkPrefix(l *simLog, m *model) {
	s.count("prefixes checked")
	cfg := s.proc.rt.cfg
	cfg.Logger = slog.New(slog.DiscardHandler)
	rt := s.newRuntime(cfg, l)
	s.must(rt.load())
	led := rt.committer.core.ledger
	for id, j := range m.jobs {
		if e := led.Jobs[id]; (e == nil) != j.removed {
			s.violate("R1", "at LSN %d job %d, %s, removed %v, is in the ledger: %v", m.lsn, id, j.j.name, j.removed, e != nil)
		}
	}
	entries, into := map[string]*jobEntry{}, map[uint32]restorer{}
	stores := map[uint32]*jobStores{}
	for id, e := range led.Jobs {
		if m.jobs[id] == nil {
			s.violate("R1", "at LSN %d the ledger has a job %d", m.lsn, id)
		}
		s.samePlace(m, m.jobs[id], e)
		entries[e.Name] = e
		if e.Phase != PhaseEnded {
			stores[id] = s.storesOf(m.jobs[id], e.Epoch)
			into[id] = stores[id]
		}
	}
	if err := rt.restore(entries, into); err != nil {
		s.violate("R4", "at LSN %d: %v", m.lsn, err)
	}
	for id, st := range stores {
		m.sameState("R4", m.jobs[id], st)
	}
	for _, t := range rt.bus.Stats() {
		mt := m.topics[t.ID]
		if mt == nil {
			s.violate("R1", "at LSN %d the bus has a topic %d, %s, which is not there", m.lsn, t.ID, t.Name)
		}
		for i, p := range t.Partitions {
			if p.Next != bus.Offset(len(mt.parts[i])) {
				s.violate("R5", "at LSN %d topic %s, partition %d goes on at offset %d, where %d is next", m.lsn, t.Name, i, p.Next, len(mt.parts[i]))
			}
		}
	}
	s.lostIn(rt.bus, m, true)
	s.checkReaders(rt, m)
}

// samePlace compares what the ledger says of a job with the model (R4).
func (s *sim) samePlace(m *model, j *modelJob, e *jobEntry) {
	if e.Epoch != j.epoch || e.LSN != j.lsn || (e.Phase == PhaseEnded) != j.ended || len(e.Snapshots) != len(j.snapshots) {
		s.violate("R4", "at LSN %d %s stands at epoch %d, LSN %d, %s, %d snapshots, where it is at %d, %d, ended %v, %d", m.lsn, e.Name,
			e.Epoch, e.LSN, e.Phase, len(e.Snapshots), j.epoch, j.lsn, j.ended, len(j.snapshots))
	}
	for _, sp := range e.header.Splits {
		want := j.splits[int(sp.Split[0]-'0')]
		if positionOf(sp.Position) != want.next || sp.Watermark != want.watermark || sp.Ended != want.ended {
			s.violate("R4", "at LSN %d %s stands at %d (watermark %d, ended %v) of split %s, where it is at %v", m.lsn, e.Name,
				positionOf(sp.Position), sp.Watermark, sp.Ended, sp.Split, want)
		}
	}
	for _, sp := range e.header.Subs {
		st, err := bus.DecodeSubState(sp.State)
		s.must(err)
		if want := m.subs[bus.SubID(sp.Sub)].parts[sp.Partition]; !sameState(st, want.SubState) {
			s.violate("R4", "at LSN %d %s stands at %v of its topic, where it is at %v", m.lsn, e.Name, st, want.SubState)
		}
	}
	for _, st := range e.header.Steps {
		if j.steps[st.Step] != st.Watermark {
			s.violate("watermark", "at LSN %d step %s of %s has the watermark %d, where it is %d", m.lsn, st.Step, e.Name, st.Watermark, j.steps[st.Step])
		}
	}
	for _, o := range e.outputs() {
		if !o.Outside {
			continue
		}
		of, want := m.outOf(o.Topic)
		if of != j || want == nil || o.Sent.Next != want.sent.Next || string(o.Sent.State) != string(want.sent.State) {
			s.violate("R4", "at LSN %d the sender of %s stands at %d, where it is at %v", m.lsn, e.Name, o.Sent.Next, want)
		}
	}
	if have := e.outputs(); j.prevOut.topic != 0 && !slices.ContainsFunc(have, func(o outputEntry) bool { return o.Topic == j.prevOut.topic }) {
		s.violate("R4", "at LSN %d %s has the outputs %v, and has given up that of topic %d", m.lsn, e.Name, have, j.prevOut.topic)
	}
}

// checkReaders reads on from every subscription's place, and from the earliest, to the end (R1, R5, R6).
func (s *sim) checkReaders(rt *Runtime, m *model) {
	for id, sub := range m.subs {
		if sub.over {
			continue
		}
		var states []bus.SubState
		if sub.sender {
			_, o := m.outOf(sub.topic)
			if o == nil {
				s.violate("R4", "at LSN %d a sender of %s reads topic %d, which is no output", m.lsn, m.jobs[sub.job].j.name, sub.topic)
			}
			states = sentStates(o.sent)
		} else {
			for _, p := range sub.parts {
				states = append(states, p.SubState)
			}
		}
		s.readOn(rt, m, id, sub.topic, m.jobs[sub.job].j.name, states)
	}
	for id := range m.topics {
		const late bus.SubID = 1 << 30
		states, err := rt.bus.Subscribe(late, "late", id, bus.Start{Earliest: true})
		s.must(err)
		s.readOn(rt, m, late, id, "one that begins at the earliest", states)
		rt.bus.Unsubscribe(late)
	}
}

func (s *sim) readOn(rt *Runtime, m *model, sub bus.SubID, topic bus.TopicID, who string, states []bus.SubState) {
	t := m.topics[topic]
	r := rt.bus.NewReader(sub, topic, states, func() {})
	defer r.Close()
	next := map[int]int{}
	for _, st := range states {
		next[st.Partition] = int(st.Next)
		if own := m.subs[sub]; own != nil {
			next[st.Partition] = max(int(st.Next), int(own.floors[st.Partition]))
		}
	}
	for {
		b, ok, err := r.Next(1 + len(who)%5)
		if err != nil {
			s.violate("R6", "at LSN %d %s cannot read on in topic %s from %v: %v", m.lsn, who, t.name, states, err)
		}
		if !ok {
			break
		}
		n := next[b.Partition]
		if b.Len() > 0 && n != int(b.Base) {
			s.violate("R4", "at LSN %d %s reads topic %s, partition %d, offset %d, where %d is next", m.lsn, who, t.name, b.Partition, b.Base, n)
		}
		for rec := range b.Records() {
			v, err := decodeSim(rec.Value)
			s.must(err)
			if n >= len(t.parts[b.Partition]) || t.parts[b.Partition][n].v != v {
				s.violate("R5", "at LSN %d %s reads %v at offset %d of topic %s, partition %d, which was not written there", m.lsn, who, v, n, t.name, b.Partition)
			}
			n++
		}
		next[b.Partition] = n
	}
	for p, n := range next {
		if n != len(t.parts[p]) {
			s.violate("R4", "at LSN %d %s reads topic %s, partition %d up to %d, where %d records are", m.lsn, who, t.name, p, n, len(t.parts[p]))
		}
	}
	table := modelTable(t.marks)
	for _, st := range r.States() {
		ok := len(st.Table) == len(table)
		for _, p := range st.Table {
			ok = ok && table[p.Producer] == p
		}
		if !ok && t.marks != nil {
			s.violate("R6", "at LSN %d %s comes to the producers %v in topic %s, partition %d, where they are %v", m.lsn, who, st.Table, t.name, st.Partition, table)
		}
	}
}

// checkEnd compares how all ended with the records there were.
func (s *sim) checkEnd() {
	m := s.model
	all := slices.Clone(s.plan.jobs)
	if j := m.job(hotName); j != nil {
		all = append(all, j.j)
	}
	for _, sj := range all {
		j := m.job(sj.name)
		for i := range sj.splits {
			if j.splits[i].next != sj.total {
				s.violate("R4", "%s ended at record %d of %d of split %d", sj.name, j.splits[i].next, sj.total, i)
			}
		}
		for _, sub := range j.inputs {
			for p, place := range m.subs[sub].parts {
				if n := len(m.topics[m.subs[sub].topic].parts[p]); int(place.Next) != n && m.producersBefore(m.subs[sub].topic, place.Marks) {
					s.violate("R4", "%s ended at offset %d of %d in partition %d", sj.name, place.Next, n, p)
				}
			}
		}
		if len(j.state.windows) > 0 {
			s.violate("R4", "%s ended with open windows: %v", sj.name, j.state.windows)
		}
		m.allSent(j, &j.out)
		if j.prevOut.topic != 0 {
			m.allSent(j, &j.prevOut)
		}
	}
}

// producersBefore says whether no producer joined a topic behind an LSN up to which a reader has taken it. One that joins while
// the end that a reader has found is on its way to the job's last epoch comes too late for it (seed 563).
func (m *model) producersBefore(topic bus.TopicID, taken wal.LSN) bool {
	for _, mk := range m.topics[topic].marks {
		if mk.Join && mk.lsn > taken {
			return false
		}
	}
	return true
}
