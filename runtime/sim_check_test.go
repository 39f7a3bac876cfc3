package runtime

import (
	"context"
	"encoding/binary"
	"log/slog"
	"slices"

	"github.com/sidestream-dev/sidestream/bus"
	"github.com/sidestream-dev/sidestream/checkpoint"
	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/wal"
)

// simTarget is where an output goes outside. It outlives processes.
type simTarget struct {
	got  []simValue // as the outside has it
	high int        // records that came at least once
}

// simSink takes a job's output outside. It can do exactly_once as a file does: cut back to where the position stands.
type simSink struct {
	s *sim
	j *simJob
}

func (k *simSink) Kind() string       { return "sim" }
func (k *simSink) ExactlyOnce() error { return nil }
func (k *simSink) String() string     { return k.j.name }

func (k *simSink) Open(_ context.Context, env jobs.SinkEnv) (jobs.Writer, error) {
	w := &simWriter{simSink: k, target: k.j.target}
	if env.State == nil && w.target.high > 0 {
		k.s.violate("R4", "the sender of %s begins anew, and %d records were sent", k.j.name, w.target.high)
	}
	if env.State != nil {
		w.next = int(binary.BigEndian.Uint32(env.State))
	}
	if k.j.delivery == jobs.ExactlyOnce {
		if w.next > len(w.target.got) {
			k.s.violate("R2", "the position of %s says that %d records were sent, and %d were", k.j.name, w.next, len(w.target.got))
		}
		w.target.got = w.target.got[:w.next]
	}
	return w, nil
}

type simWriter struct {
	*simSink
	target *simTarget
	next   int
}

// Write checks that what leaves is durable (R2), follows what was sent before without a gap, and repeats nothing that a
// durable position of the sender covers.
func (w *simWriter) Write(_ context.Context, ms []jobs.Message) ([]byte, error) {
	s, keep := w.s, len(ms)
	fail := len(ms) > 0 && !s.quiet && s.rng.IntN(12) == 0
	if fail {
		keep = s.rng.IntN(len(ms) + 1)
	}
	if len(ms) > 0 {
		j := s.model.job(w.j.name)
		if j == nil {
			s.violate("R2", "%s sends, and is not durable itself", w.j.name)
		}
		recs := s.model.topics[j.out].parts[0]
		if first := int(ms[0].Offset); first != w.next || first > w.target.high || first < int(j.sent.Next) {
			s.violate("R4", "the sender of %s sends from record %d on, where %d is next, %d were sent, and its durable position is %d",
				w.j.name, first, w.next, w.target.high, j.sent.Next)
		}
		for i, m := range ms[:keep] {
			v, err := decodeSim(m.Value)
			s.must(err)
			at := w.next + i
			if at >= len(recs) {
				s.violate("R2", "record %d of %s, %v, leaves before it is durable", at, w.j.name, v)
			}
			if int(m.Offset) != at || recs[at].v != v || keyText(m.Key) != v.Key || int64(m.Time) != v.Time {
				s.violate("R5", "record %d of %s leaves as %v (index %d), and the log has %v", at, w.j.name, v, m.Offset, recs[at].v)
			}
			w.target.got = append(w.target.got, v)
		}
		if w.next < w.target.high {
			s.count("records sent again")
		}
		w.target.high = max(w.target.high, w.next+keep)
	}
	if fail {
		return nil, errInjected
	}
	w.next += len(ms)
	s.tracef("the sender of %s sent up to %d", w.j.name, w.next)
	return binary.BigEndian.AppendUint32(nil, uint32(w.next)), nil
}

func (w *simWriter) Close() error { return nil }

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
	for _, o := range e.Outputs {
		if o.Outside && (o.Sent.Next != j.sent.Next || string(o.Sent.State) != string(j.sent.State)) {
			s.violate("R4", "at LSN %d the sender of %s stands at %d, where it is at %d", m.lsn, e.Name, o.Sent.Next, j.sent.Next)
		}
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
			states = sentStates(m.jobs[sub.job].sent)
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
				if n := len(m.topics[m.subs[sub].topic].parts[p]); int(place.Next) != n && m.producersBefore(sub, j) {
					s.violate("R4", "%s ended at offset %d of %d in partition %d", sj.name, place.Next, n, p)
				}
			}
		}
		if len(j.state.windows) > 0 {
			s.violate("R4", "%s ended with open windows: %v", sj.name, j.state.windows)
		}
		recs, target := m.topics[j.out].parts[0], sj.target
		if target.high != len(recs) || sj.delivery == jobs.ExactlyOnce && len(target.got) != len(recs) {
			s.violate("R4", "%d records of %s came outside, %d in all, of %d", target.high, sj.name, len(target.got), len(recs))
		}
		for i := range recs {
			if sj.delivery == jobs.ExactlyOnce && target.got[i] != recs[i].v {
				s.violate("R4", "record %d of %s is outside as %v, not %v", i, sj.name, target.got[i], recs[i].v)
			}
		}
	}
}

// producersBefore says whether no producer joined a subscription's topic after its job had ended.
func (m *model) producersBefore(sub bus.SubID, j *modelJob) bool {
	for _, mk := range m.topics[m.subs[sub].topic].marks {
		if mk.Join && mk.lsn > j.lsn {
			return false
		}
	}
	return true
}
