package runtime

import (
	"encoding/json"
	"maps"
	"slices"

	"github.com/sidestream-dev/sidestream/bus"
	"github.com/sidestream-dev/sidestream/checkpoint"
	"github.com/sidestream-dev/sidestream/jobs"
)

// What the model knows of jobs that are set back, begin with savepoints, change their definitions and get them back. It asks
// what a change is to come to, and takes nothing for granted of how the frame says it: which state goes follows from the
// definitions, not from the drops that the frame lists, and who replays begins without state whether it says so or not.

// modelPast is how a job stood at an epoch.
type modelPast struct {
	state modelState
	steps map[string]int64
	step  int64
	fired map[modelWindow]bool
	parts []modelPlace // of its input; nil if it has none
	topic bus.TopicID  // that they are of
	late  bool
}

func (m *model) past(j *modelJob) *modelPast {
	p := &modelPast{state: j.state.clone(), steps: maps.Clone(j.steps), step: j.step, fired: maps.Clone(j.fired), late: j.late}
	if len(j.inputs) == 1 {
		p.parts, p.topic = slices.Clone(m.subs[j.inputs[0]].parts), m.subs[j.inputs[0]].topic
	}
	return p
}

// remember keeps how a job stands, if a savepoint of it is being made.
func (m *model) remember(j *modelJob) {
	if j.pasts != nil {
		j.pasts[j.epoch] = m.past(j)
	}
}

// rememberAll begins or ends that for a job.
func (m *model) rememberAll(j *modelJob, on bool) {
	if j == nil {
		return
	}
	if j.pasts = nil; on {
		j.pasts = map[checkpoint.Epoch]*modelPast{}
		m.remember(j)
	}
}

func (m *model) applySavepoint(sp *savepointEntry) {
	j := m.job(sp.Job)
	if j == nil || j.pasts[sp.Epoch] == nil {
		m.s.violate("R4", "frame %d has a savepoint %s of epoch %d of %s, which had no such epoch while it was made", m.lsn, sp.Name, sp.Epoch, sp.Job)
	}
	m.savepoints[sp.Name] = j.pasts[sp.Epoch]
	m.savedAs(sp.Name, j, j.pasts[sp.Epoch])
}

// subscribe begins a subscription where a change says.
func (m *model) subscribe(id uint32, name string, in inputEntry) *modelSub {
	sub := &modelSub{topic: in.Topic, job: id}
	t := m.topics[in.Topic]
	for _, recs := range t.parts {
		sub.found = append(sub.found, len(recs))
	}
	if len(in.States) != len(t.parts) {
		m.s.violate("R3", "frame %d does not say where %s begins", m.lsn, name)
	}
	for _, st := range in.States {
		if st.Next > bus.Offset(len(t.parts[st.Partition])) {
			m.s.violate("R3", "%s begins at offset %d of topic %s, partition %d, which has %d", name, st.Next, t.name, st.Partition, len(t.parts[st.Partition]))
		}
		p := modelPlace{SubState: st, taken: t.marksUpTo(st)}
		m.checkTable(t, sub, &p)
		sub.parts = append(sub.parts, p)
	}
	m.subs[in.Sub] = sub
	return sub
}

// marksUpTo is how many of a topic's marks a place has taken.
func (t *modelTopic) marksUpTo(st bus.SubState) int {
	taken := 0
	for taken < len(t.marks) && t.marks[taken].lsn <= st.Marks {
		taken++
	}
	return taken
}

// base lets a job begin with what a savepoint has.
func (m *model) base(j *modelJob, jc jobChange) {
	b := jc.Base
	name, ok := m.s.snapshots.of[b.Snapshot.File]
	sp := m.savepoints[name]
	if !ok || sp == nil {
		m.s.violate("R4", "frame %d lets %s begin with %s, which is of no savepoint", m.lsn, jc.Name, b.Snapshot.File)
	}
	j.state, j.steps, j.step, j.fired, j.late = sp.state.clone(), maps.Clone(sp.steps), sp.step, maps.Clone(sp.fired), sp.late
	m.keep(j, nil)
	j.epoch = max(j.epoch, b.Snapshot.Epoch)
	snap := b.Snapshot
	snap.LSN = m.lsn - 1
	j.snapshots = []snapshotEntry{snap}
	j.blurred = true // the parallelism may be another
	if len(j.inputs) == 0 || sp.parts == nil {
		return
	}
	if id := m.subs[j.inputs[0]].topic; id != sp.topic {
		m.s.violate("R5", "frame %d lets %s begin with savepoint %s in topic %d, and its places are of topic %d", m.lsn, jc.Name, name, id, sp.topic)
	}
	for i, p := range m.subs[j.inputs[0]].parts {
		was, over := sp.parts[i], p.Next
		if m.dropsOldest(m.topics[m.subs[j.inputs[0]].topic].name) {
			over = min(over, was.Next) // what was dropped since it has gone over
		}
		if over != was.Next || p.Watermark < was.Watermark {
			m.s.violate("R3", "frame %d lets %s begin with savepoint %s at offset %d, watermark %d, of partition %d, and its state is as of %d, %d",
				m.lsn, jc.Name, name, p.Next, p.Watermark, i, was.Next, was.Watermark)
		}
	}
	m.s.count("begun with a savepoint")
}

// dropsOldest reports whether a topic drops what it has no room for.
func (m *model) dropsOldest(name string) bool {
	return slices.ContainsFunc(m.s.plan.topics, func(t jobs.Topic) bool { return t.Name == name && t.OnFull == string(bus.DropOldest) })
}

// keep takes from a job's state what its definition does not keep, and returns it in spare, if that is not nil.
func (m *model) keep(j *modelJob, spare *modelState) {
	if j.j.drops&simCount != 0 && len(j.state.count) > 0 {
		if spare != nil {
			spare.count = j.state.count
		}
		j.state.count = map[string]modelSum{}
		m.s.count("state dropped")
	}
	if j.j.drops&simSet != 0 && len(j.state.set) > 0 {
		if spare != nil {
			spare.set = j.state.set
		}
		j.state.set = map[string]bool{}
		m.s.count("state dropped")
	}
}

// settle ends a job's probation.
func (m *model) settle(j *modelJob) {
	m.endAllBut(j.prevInputs, j.inputs)
	m.goes(j, j.prevOut, false)
	j.prevOut = modelOut{}
	j.prev, j.prevInputs, j.spare = nil, nil, modelState{}
}

// redefine gives a job another definition; what it has no more is kept for probation, if until is not 0.
func (m *model) redefine(j *modelJob, v *simJob, until int64) {
	was, gaveUp := j.j, j.prevInputs
	j.j, j.prev, j.prevInputs = v, nil, nil
	m.endAllBut(gaveUp, j.inputs) // what an earlier definition had given up is not kept twice
	if until > 0 {
		j.prev, j.prevInputs, j.spare = was, j.inputs, modelState{}
		m.keep(j, &j.spare)
		return
	}
	m.keep(j, nil)
}

// rollBack brings the definition before back, and with it the state that the other did not keep.
func (m *model) rollBack(j *modelJob, name string) {
	if j.prev == nil {
		m.s.violate("R4", "frame %d takes back the definition of %s, which is not on probation", m.lsn, name)
	}
	gone := j.j.drops
	if j.prevOut.topic != 0 {
		m.goes(j, j.out, true)
		j.out, j.prevOut = j.prevOut, modelOut{}
	}
	m.endAllBut(j.inputs, j.prevInputs) // one that was detached before is so again, and begins anew when it is resumed (seed 9126)
	j.late = j.late || !slices.Equal(j.inputs, j.prevInputs)
	j.j, j.prev, j.inputs, j.prevInputs = j.prev, nil, j.prevInputs, nil
	if gone&simCount != 0 && j.spare.count != nil {
		j.state.count = maps.Clone(j.spare.count)
		m.s.count("state brought back")
	}
	if gone&simSet != 0 && j.spare.set != nil {
		j.state.set = maps.Clone(j.spare.set)
		m.s.count("state brought back")
	}
	j.spare = modelState{}
	m.keep(j, nil)
	if m.epochsSince(j) {
		m.s.count("definitions taken back behind an epoch")
	}
}

// epochsSince reports whether a job has sealed anything since its definition was changed.
func (m *model) epochsSince(j *modelJob) bool { return j.epoch > j.changedAt }

// elsewhere takes the places of a job that goes on with other subscriptions: one that was sought, or attached again.
func (m *model) elsewhere(j *modelJob, jc jobChange) {
	var inputs []bus.SubID
	for _, in := range jc.Inputs {
		inputs = append(inputs, in.Sub)
		if slices.Contains(j.inputs, in.Sub) {
			continue
		}
		if m.s.asked == opReplay {
			m.s.violate("R4", "frame %d sets places of %s back for a replay, and its state is as it was", m.lsn, jc.Name)
		}
		sub := m.subscribe(jc.ID, jc.Name, in)
		m.keepsLost(jc.Name, j.inputs, sub)
		j.late = true // its watermark stays
		for _, old := range j.inputs {
			if was := m.subs[old]; was.topic == sub.topic && !slices.ContainsFunc(jc.Inputs, func(o inputEntry) bool { return o.Sub == old }) {
				for i, p := range was.parts {
					if sub.parts[i].Watermark < p.Watermark {
						m.s.violate("watermark", "frame %d takes the watermark of %s in partition %d back from %d to %d", m.lsn, jc.Name, i, p.Watermark, sub.parts[i].Watermark)
					}
				}
			}
		}
	}
	m.endAllBut(j.inputs, slices.Concat(inputs, j.prevInputs))
	j.inputs = inputs
	if j.back == nil {
		return
	}
	back := *j.back
	back.Ends = slices.DeleteFunc(slices.Clone(back.Ends), func(e replayEnd) bool { return !slices.Contains(inputs, e.Sub) })
	if j.back = &back; len(back.Ends) == 0 { // who is set elsewhere reads on from there
		j.back = nil
	}
}

// end ends a claim.
func (m *model) end(sub bus.SubID) {
	c := *m.subs[sub]
	c.over = true
	m.subs[sub] = &c
}

// endAllBut ends the claims that are not among those kept.
func (m *model) endAllBut(subs, kept []bus.SubID) {
	for _, sub := range subs {
		if !slices.Contains(kept, sub) {
			m.end(sub)
		}
	}
}

// replayBegins takes what a change says of a replay.
func (m *model) replayBegins(j *modelJob, jc jobChange) {
	j.back = nil
	if jc.Replay == nil {
		return
	}
	j.back = new(replayMark)
	m.s.must(json.Unmarshal(jc.Replay, j.back))
	for _, end := range j.back.Ends {
		sub := m.subs[end.Sub]
		if sub == nil || sub.job != j.id || end.At < sub.parts[end.Partition].Next || end.At > bus.Offset(len(m.topics[sub.topic].parts[end.Partition])) {
			m.s.violate("R3", "frame %d lets a replay of %s end at offset %d of partition %d, where it is not to come", m.lsn, jc.Name, end.At, end.Partition)
		}
	}
	for _, t := range []string{j.j.forward, j.j.results} {
		if id, ok := m.names[t]; ok { // what it writes once more is behind what it has promised
			m.topics[id].joined[bus.ProducerID(j.id)] = true
		}
	}
}

// passReplay looks at how an epoch of a job that is at a replay moves its places: none goes past the end before all are there.
// Where it says that the replay is over it returns the records passed up to there, and the places where the job goes on.
func (m *model) passReplay(f *simFrame, j *modelJob, h *checkpoint.Header) (passed []modelRecord, jumped map[bus.SubID][]int) {
	over := false
	if v, said := h.Extra[extraReplay]; said {
		over = len(v) == 0
	}
	if j.back == nil {
		return nil, nil
	}
	jumped = map[bus.SubID][]int{}
	for _, end := range j.back.Ends {
		sub := m.subs[end.Sub]
		next, there := sub.parts[end.Partition].Next, bus.SubState{}
		moved := false
		for _, sp := range h.Subs {
			if bus.SubID(sp.Sub) == end.Sub && sp.Partition == end.Partition {
				st, err := bus.DecodeSubState(sp.State)
				m.s.must(err)
				moved, there = true, st
			}
		}
		switch {
		case over && end.Then != nil:
			then, err := bus.DecodeSubState(end.Then)
			m.s.must(err)
			t := m.topics[sub.topic]
			was := sub.parts[end.Partition].SubState
			at := was
			at.Next = end.At
			read, lost := m.readOver(f, h.Attempt, end.Sub, was, at, t.parts[end.Partition][next:at.Next])
			for _, l := range then.Lost { // what was let go before the replay, of which that has nothing
				if l.From < end.At || l.To > then.Next {
					m.s.violate("R6", "frame %d: %s has lost %v where it goes on behind the replay, which ends at %d, at %v", f.lsn, j.j.name, then.Lost, end.At, then)
				}
				lost.add(l)
				m.s.count("ranges lost before a replay")
			}
			then.Dropped, then.Lost = lost.records, lost.ranges
			if !moved || !sameState(there, then) {
				m.s.violate("R4", "frame %d ends the replay of %s and does not say that it goes on where it was, at %v: %v", f.lsn, j.j.name, then, there)
			}
			passed = append(passed, read...)
			sub.parts[end.Partition] = modelPlace{then, t.marksUpTo(then), h.Attempt}
			m.checkTable(t, sub, &sub.parts[end.Partition])
			jumped[end.Sub] = append(jumped[end.Sub], end.Partition)
			continue
		case moved:
			next = there.Next
		}
		if next > end.At || over && next < end.At {
			m.s.violate("R3", "frame %d: %s stands at offset %d of partition %d, and its replay goes to %d; over %v", f.lsn, j.j.name, next, end.Partition, end.At, over)
		}
	}
	if over {
		j.wasBack, j.back = j.back.ID, nil
		m.s.count("replays over")
	}
	return passed, jumped
}

// simMarked is what replay some records of a section name, windows or others.
type simMarked struct {
	replay string
	window bool
}

// checkMarked looks at the header of what a job writes that reads nothing but records without one: that of its replay, or none.
// A window of nothing but the replay's records may come right behind the epoch that says that it is over.
func (m *model) checkMarked(f *simFrame, j *modelJob, id string, from *simFrame, section int) {
	if j.j.in != "a" {
		return
	}
	for _, have := range from.headers[section] {
		if have.replay != id && !(have.window && have.replay == j.wasBack) {
			m.s.violate("R1", "frame %d: %s gives records of replay %q, and is at %q", f.lsn, j.j.name, have.replay, id)
		}
	}
}

// setBackByOne makes a header a little older than its state.
func (s *sim) setBackByOne(h *checkpoint.Header) {
	for i := range h.Subs {
		st, err := bus.DecodeSubState(h.Subs[i].State)
		s.must(err)
		if st.Next > 0 {
			st.Next--
			h.Subs[i].State = bus.AppendSubState(nil, st)
		}
	}
}
