package runtime

import (
	"encoding/json"
	"maps"
	"math"
	"slices"
	"testing"

	"github.com/sidestream-dev/sidestream/bus"
	"github.com/sidestream-dev/sidestream/checkpoint"
	"github.com/sidestream-dev/sidestream/wal"
)

// model is what the frames up to an LSN say, told again without the code under test, save the decoders of sections; as it
// takes a frame it checks that each effect in it has its cause at or before the positions that it commits.
type model struct {
	s      *sim
	lsn    wal.LSN
	begins wal.LSN // generations that end before it go: whose frames the bus reads no more, though the log may still have them
	topics map[bus.TopicID]*modelTopic
	names  map[string]bus.TopicID
	jobs   map[uint32]*modelJob
	subs   map[bus.SubID]*modelSub
	parts  map[wal.LSN]*simFrame // not yet listed by an epoch
	gens   []wal.LSN

	savepoints map[string]*modelPast
	gone       map[bus.TopicID]bool   // topics that were removed
	lastOf     map[string]bus.TopicID // of their names
	nameOf     map[bus.TopicID]string
}

type modelTopic struct {
	name   string
	parts  [][]modelRecord
	marks  []modelMark
	stored map[int]bus.StorePart   // of partitions
	joined map[bus.ProducerID]bool // true: when others had given marks already, so that its records may be late
}

type modelRecord struct {
	lsn wal.LSN // of its epoch
	at  wal.LSN // of the frame that holds its bytes
	by  uint32  // job
	v   simValue

	bytes int64 // about, in its topic
}

type modelMark struct {
	lsn wal.LSN
	bus.Mark
}

type modelJob struct {
	id        uint32
	j         *simJob
	prev      *simJob // while j is on probation
	removed   bool
	ended     bool
	epoch     checkpoint.Epoch
	lsn       wal.LSN
	splits    map[int]modelSplit
	step      int64 // watermark of the step that keeps state
	steps     map[string]int64
	inputs    []bus.SubID
	out       modelOut
	prevOut   modelOut // that a change gave up, and that is kept for probation
	snapshots []snapshotEntry
	marks     map[bus.TopicID]int64
	state     modelState
	fired     map[modelWindow]bool
	blurred   bool // what was late for one subtask may not be for its successor

	since      wal.LSN                         // the frame that let it begin, or begin anew
	late       bool                            // it was set elsewhere and kept its watermark
	spare      modelState                      // that prev kept and j does not
	prevInputs []bus.SubID                     // of prev
	changedAt  checkpoint.Epoch                // where it stood when its definition was changed
	back       *replayMark                     // that it is at
	wasBack    string                          // the last that was over
	pasts      map[checkpoint.Epoch]*modelPast // while a savepoint is made of it

	first, ends []bus.Offset // of a copy, by partition
}

type modelSplit struct {
	next      int
	watermark int64
	ended     bool
}

// modelState is what the step keeps.
type modelState struct {
	count   map[string]modelSum
	set     map[string]bool
	windows map[modelWindow]modelSum
}

type modelSum struct{ n, sum uint64 }

type modelWindow struct {
	start int64
	key   string
}

func (s *modelState) clone() modelState {
	return modelState{maps.Clone(s.count), maps.Clone(s.set), maps.Clone(s.windows)}
}

// modelSub is a subscription, a sender's too.
type modelSub struct {
	topic  bus.TopicID
	job    uint32
	sender bool
	over   bool
	parts  []modelPlace
	floors map[int]bus.Offset // by partition; replaced, never changed
	found  []int              // records of each partition when it came
}

// modelPlace is a subscription's place in a partition: its states of newest and of where it began.
type modelPlace struct {
	bus.SubState
	taken int    // marks of the topic in Table
	then  uint32 // the attempt that went on there, behind a replay; 0 if none has
}

func newModel(s *sim) *model {
	return &model{s: s, topics: map[bus.TopicID]*modelTopic{}, names: map[string]bus.TopicID{}, jobs: map[uint32]*modelJob{},
		subs: map[bus.SubID]*modelSub{}, parts: map[wal.LSN]*simFrame{}, savepoints: map[string]*modelPast{}, gone: map[bus.TopicID]bool{}, lastOf: map[string]bus.TopicID{}, nameOf: map[bus.TopicID]string{}}
}

func (m *model) clone() *model {
	c := newModel(m.s)
	c.lsn, c.begins, c.gens, c.parts, c.names = m.lsn, m.begins, m.gens[:len(m.gens):len(m.gens)], maps.Clone(m.parts), maps.Clone(m.names)
	c.savepoints, c.gone, c.lastOf = maps.Clone(m.savepoints), maps.Clone(m.gone), maps.Clone(m.lastOf)
	c.nameOf = maps.Clone(m.nameOf)
	for id, t := range m.topics {
		n := *t
		n.parts = make([][]modelRecord, len(t.parts))
		for i, p := range t.parts {
			n.parts[i] = p[:len(p):len(p)]
		}
		n.marks, n.joined = t.marks[:len(t.marks):len(t.marks)], maps.Clone(t.joined)
		c.topics[id] = &n
	}
	for id, j := range m.jobs {
		n := *j
		n.splits, n.steps, n.marks, n.state, n.fired = maps.Clone(j.splits), maps.Clone(j.steps), maps.Clone(j.marks), j.state.clone(), maps.Clone(j.fired)
		n.pasts = maps.Clone(j.pasts)
		c.jobs[id] = &n
	}
	for id, sub := range m.subs {
		n := *sub
		n.parts = append([]modelPlace(nil), sub.parts...)
		c.subs[id] = &n
	}
	return c
}

func (m *model) job(name string) *modelJob {
	for _, j := range m.jobs {
		if j.j.name == name && !j.removed {
			return j
		}
	}
	return nil
}

// apply takes the next frame.
func (m *model) apply(f *simFrame) {
	if f.lsn != m.lsn+1 {
		m.s.violate("R5", "frame %d follows frame %d", f.lsn, m.lsn)
	}
	m.lsn = f.lsn
	switch f.kind {
	case wal.KindCatalog:
		m.gens = append(m.gens, f.lsn)
	case kindPart:
		m.parts[f.lsn] = f
	case kindControl:
		m.applyControl(f)
	case kindEpoch:
		if !f.apart {
			m.applyEpoch(f)
		}
	}
}

func (m *model) applyControl(f *simFrame) {
	c, err := decodeControl(f.body(sectionControl))
	m.s.must(err)
	m.begins = max(m.begins, c.DropFirst)
	for _, t := range c.Topics {
		if m.gone[t.ID] {
			m.s.violate("R5", "frame %d gives the number %d of a topic that was removed to %s", m.lsn, t.ID, t.Spec.Name)
		}
		if m.topics[t.ID] == nil {
			m.topics[t.ID] = &modelTopic{name: t.Spec.Name, parts: make([][]modelRecord, max(1, t.Spec.Partitions)), joined: map[bus.ProducerID]bool{}}
			m.names[t.Spec.Name] = t.ID
		}
	}
	if c.Savepoint != nil {
		m.applySavepoint(c.Savepoint)
	}
	delete(m.savepoints, c.DropSavepoint)
	for _, jc := range c.Jobs {
		m.applyJob(jc)
		if j := m.jobs[jc.ID]; j != nil {
			m.remember(j)
		}
	}
	m.removeTopics(c.DropTopics)
	m.applyDrops(c.Drops)
	for _, st := range c.Sent {
		m.applySent(st)
	}
	if c.Store != nil {
		for _, part := range c.Store.Parts {
			t := m.topics[part.Topic]
			if t == nil && m.gone[part.Topic] {
				continue // removed while it was copied
			}
			t.stored = maps.Clone(t.stored)
			if t.stored == nil {
				t.stored = map[int]bus.StorePart{}
			}
			t.stored[part.Partition] = part
			if part.First > 0 {
				m.s.count("partitions stored")
			} else {
				m.s.count("partitions let go by the store")
			}
		}
	}
	if sc := c.Snapshot; sc != nil {
		j := m.jobs[sc.Job]
		if sc.Snapshot.LSN >= f.lsn || sc.Snapshot.Epoch > j.epoch {
			m.s.violate("snapshot", "frame %d announces a snapshot of %s at epoch %d, LSN %d, where the job stands at epoch %d",
				f.lsn, j.j.name, sc.Snapshot.Epoch, sc.Snapshot.LSN, j.epoch)
		}
		if sc.Alone {
			j.snapshots = nil
			m.s.count("snapshots of jobs that do not run")
		}
		if n := len(j.snapshots); n > 0 && j.snapshots[n-1].File == sc.Snapshot.File {
			j.snapshots = j.snapshots[:n-1]
		}
		if j.snapshots = append(j.snapshots[:len(j.snapshots):len(j.snapshots)], sc.Snapshot); len(j.snapshots) > keptSnapshots {
			j.snapshots = j.snapshots[1:]
		}
	}
	if body := f.body(bus.SectionIndex); body != nil {
		_, marks, err := bus.DecodeIndex(body)
		m.s.must(err)
		for _, mk := range marks {
			m.applyMark(f.lsn, mk)
		}
	}
}

func (m *model) applyJob(jc jobChange) {
	j := m.jobs[jc.ID]
	switch {
	case j != nil && j.removed:
		m.s.violate("R5", "frame %d gives job %d's number, which was removed, to another", m.lsn, jc.ID)
	case jc.Remove:
		m.copyGoes(j)
		m.remove(j)
		return
	case jc.RollBack:
		m.s.backs++
		m.rollBack(j, j.j.name)
		j.blurred = j.blurred || j.j.direct || m.s.plan.idle > 0 || m.uneven(j)
		return
	case jc.Settle:
		m.settle(j)
		return
	case !jc.Replace:
		return
	case j != nil && (jc.Restart || jc.Replay != nil):
		m.endAllBut(slices.Concat(j.inputs, j.prevInputs), nil)
		if v := m.s.versionOf(jc.Definition); v != nil {
			j.j = v
		}
		m.begin(j, jc)
		return
	case j != nil: // with another parallelism perhaps: then each subtask begins at the lowest watermark
		if v := m.s.versionOf(jc.Definition); v != nil && v != j.j {
			m.redefine(j, v, jc.Until)
			j.changedAt = j.epoch
		}
		m.elsewhere(j, jc)
		m.outputs(j, jc)
		j.blurred = j.blurred || j.j.direct || m.s.plan.idle > 0 || m.uneven(j)
		m.s.count("jobs changed")
		return
	}
	j = &modelJob{id: jc.ID, j: m.s.versionOf(jc.Definition)}
	for _, sj := range m.s.plan.jobs {
		if sj.name == jc.Name {
			j.j = sj
		}
	}
	m.jobs[jc.ID] = j
	m.begin(j, jc)
}

// remove takes a job away with its claims, and what its outputs hold.
func (m *model) remove(j *modelJob) {
	m.endAllBut(slices.Concat(j.inputs, j.prevInputs), nil)
	m.goes(j, j.out, false)
	m.goes(j, j.prevOut, false)
	j.removed = true
}

// begin lets a job begin where a change says: without state, or with a savepoint's.
func (m *model) begin(j *modelJob, jc jobChange) {
	was := *j
	*j = modelJob{id: jc.ID, j: j.j, epoch: was.epoch, lsn: was.lsn, splits: map[int]modelSplit{}, steps: map[string]int64{}, step: math.MinInt64, marks: map[bus.TopicID]int64{},
		fired: map[modelWindow]bool{}, state: modelState{map[string]modelSum{}, map[string]bool{}, map[modelWindow]modelSum{}}}
	j.since, j.pasts = m.lsn, was.pasts
	for _, in := range jc.Inputs {
		m.keepsLost(jc.Name, was.inputs, m.subscribe(jc.ID, jc.Name, in))
		j.inputs = append(j.inputs, in.Sub)
	}
	j.out, j.prevOut = was.out, was.prevOut
	m.outputs(j, jc)
	if jc.Base != nil {
		m.base(j, jc)
	}
	m.replayBegins(j, jc)
	m.copyBegins(j)
}

// applyMark takes a producer's mark. It must not go back, nor promise what is broken later (see records).
func (m *model) applyMark(lsn wal.LSN, mk bus.Mark) {
	t := m.topics[mk.Topic]
	j := m.jobs[uint32(mk.Producer)]
	if mk.Join {
		given := false
		for _, old := range t.marks {
			given = given || old.Watermark != bus.NoWatermark
		}
		t.joined[mk.Producer] = given
		if given {
			m.s.count("producers that joined later")
		}
	}
	if w, ok := j.marks[mk.Topic]; ok && mk.Watermark != bus.NoWatermark && mk.Watermark < w && m.s.plan.idle == 0 {
		m.s.violate("watermark", "frame %d takes the watermark of %s in topic %s back from %d to %d", lsn, j.j.name, t.name, w, mk.Watermark)
	}
	if mk.Watermark != bus.NoWatermark {
		j.marks[mk.Topic] = mk.Watermark
	}
	t.marks = append(t.marks, modelMark{lsn, mk})
}

// modelTable folds the marks of a topic up to a number of them.
func modelTable(marks []modelMark) map[bus.ProducerID]bus.ProducerMark {
	table := map[bus.ProducerID]bus.ProducerMark{}
	for _, mk := range marks {
		p, ok := table[mk.Producer]
		switch {
		case mk.Leave:
			delete(table, mk.Producer)
			continue
		case !ok:
			p = bus.ProducerMark{Producer: mk.Producer, Watermark: bus.NoWatermark}
		}
		if !mk.Join {
			p.Watermark, p.Idle = max(p.Watermark, mk.Watermark), mk.Idle
		}
		table[mk.Producer] = p
	}
	return table
}

// checkTable says whether a place's table of producers is the topic's as of there (R3).
func (m *model) checkTable(t *modelTopic, sub *modelSub, p *modelPlace) {
	want := modelTable(t.marks[:p.taken])
	ok := len(want) == len(p.Table)
	for _, have := range p.Table {
		ok = ok && want[have.Producer] == have
	}
	if !ok {
		m.s.violate("R3", "%s has the producers %v at LSN %d of topic %s, partition %d, where they are %v",
			m.jobs[sub.job].j.name, p.Table, p.Marks, t.name, p.Partition, want)
	}
}

// moveTo takes a subscription's place on and returns the records that it passes.
func (m *model) moveTo(sub *modelSub, st bus.SubState) []modelRecord {
	t, p := m.topics[sub.topic], &sub.parts[st.Partition]
	name := m.jobs[sub.job].j.name
	recs := t.parts[st.Partition]
	switch {
	case st.Next < p.Next || st.Marks < p.Marks:
		m.s.violate("R4", "frame %d takes %s back in topic %s, partition %d, from %v to %v", m.lsn, name, t.name, st.Partition, p.Position, st.Position)
	case st.Next > bus.Offset(len(recs)):
		m.s.violate("R1", "in frame %d %s has read topic %s, partition %d up to offset %d, where the log holds %d: an effect without its cause",
			m.lsn, name, t.name, st.Partition, st.Next, len(recs))
	case st.Marks >= m.lsn:
		m.s.violate("R1", "frame %d says that %s has read up to frame %d", m.lsn, name, st.Marks)
	case st.Next < bus.Offset(len(recs)) && recs[st.Next].lsn <= st.Marks:
		m.s.violate("R3", "frame %d says that %s has taken all of topic %s, partition %d up to LSN %d, and stands at offset %d, which is of LSN %d",
			m.lsn, name, t.name, st.Partition, st.Marks, st.Next, recs[st.Next].lsn)
	}
	passed, before, lost := recs[p.Next:st.Next], p.Marks, st.Dropped > p.Dropped
	w, taken := p.Watermark, p.taken
	for taken < len(t.marks) && t.marks[taken].lsn <= st.Marks {
		taken++
		if taken == len(t.marks) || t.marks[taken].lsn != t.marks[taken-1].lsn {
			low, some := lowestOf(modelTable(t.marks[:taken]))
			if some {
				w = max(w, low)
			}
		}
	}
	*p = modelPlace{st, taken, p.then}
	m.checkTable(t, sub, p)
	// Marks that a frame has let go of are known by what they came to, which may be less than what they were meanwhile.
	if w != st.Watermark && (before+1 >= m.begins && !lost || st.Watermark > w) {
		m.s.violate("watermark", "frame %d says that %s has the watermark %d at LSN %d of topic %s, partition %d, where it is %d",
			m.lsn, name, st.Watermark, st.Marks, t.name, st.Partition, w)
	}
	return passed
}

func lowestOf(table map[bus.ProducerID]bus.ProducerMark) (low int64, some bool) {
	for _, p := range table {
		if !p.Idle && (!some || p.Watermark < low) {
			low, some = p.Watermark, true
		}
	}
	return low, some
}

// TestSimMarksLetGo: a place that passes marks of which one is above what they come to has been at that one's, unless a frame
// let go of them before, whether the log still has them or not.
func TestSimMarksLetGo(t *testing.T) {
	begin := func(letGo wal.LSN) (*sim, *model, *modelSub) {
		s := newSim(1, simTwin{}, nil)
		m := s.model
		s.log.gens = []wal.LSN{30, 43}
		m.topics[1] = &modelTopic{name: "a", parts: make([][]modelRecord, 1), joined: map[bus.ProducerID]bool{}}
		m.jobs[7] = &modelJob{id: 7, j: &simJob{name: "hot"}, marks: map[bus.TopicID]int64{}}
		m.applyMark(25, bus.Mark{Topic: 1, Producer: 7, Watermark: -18})
		m.applyMark(34, bus.Mark{Topic: 1, Producer: 7, Watermark: -11})
		m.applyMark(37, bus.Mark{Topic: 1, Producer: 7, Watermark: bus.NoWatermark, Idle: true})
		sub := &modelSub{topic: 1, job: 7, parts: []modelPlace{{taken: 1, SubState: bus.SubState{Position: bus.Position{Marks: 30},
			Table: []bus.ProducerMark{{Producer: 7, Watermark: -18}}, Watermark: -18}}}}
		body, err := json.Marshal(&control{DropFirst: letGo})
		if err != nil {
			t.Fatal(err)
		}
		m.lsn = 105
		m.applyControl(&simFrame{lsn: 105, kind: kindControl, sections: []wal.Section{{Kind: sectionControl, Body: body}}})
		return s, m.clone(), sub
	}
	for _, tt := range []struct {
		letGo     wal.LSN
		watermark int64
		ok        bool
	}{{30, -11, true}, {30, -18, false}, {43, -11, true}, {43, -18, true}, {43, -10, false}} {
		s, m, sub := begin(tt.letGo)
		func() {
			defer func() {
				if v := recover(); v != nil && s.found == nil {
					panic(v)
				}
			}()
			m.moveTo(sub, bus.SubState{Position: bus.Position{Marks: 41}, Watermark: tt.watermark, Idle: true,
				Table: []bus.ProducerMark{{Producer: 7, Watermark: -11, Idle: true}}})
		}()
		if ok := s.found == nil; ok != tt.ok || !ok && s.found.rule != "watermark" {
			t.Errorf("let go before %d, watermark %d: found %v", tt.letGo, tt.watermark, s.found)
		}
	}
}
