package runtime

import (
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/sidestream-dev/sidestream/bus"
	"github.com/sidestream-dev/sidestream/checkpoint"
	"github.com/sidestream-dev/sidestream/jobs"
)

// records returns what an epoch publishes, by topic, and appends it to the topics.
func (m *model) records(f *simFrame, j *modelJob, replay string) map[bus.TopicID][]simValue {
	out := map[bus.TopicID][]simValue{}
	body := f.body(bus.SectionIndex)
	if body == nil {
		return out
	}
	pubs, marks, err := bus.DecodeIndex(body)
	m.s.must(err)
	for _, p := range pubs {
		t := m.topics[p.Topic]
		if t == nil {
			m.s.violate("R1", "frame %d publishes to topic %d, which is not there", f.lsn, p.Topic)
		}
		from := f
		if p.Part != 0 {
			if from = m.parts[p.Part]; from == nil {
				m.s.violate("R1", "frame %d names part %d, which is not one of its own", f.lsn, p.Part)
			}
		}
		if next := bus.Offset(len(t.parts[p.Partition])); p.Base != next {
			m.s.violate("R5", "frame %d gives offsets from %d on in topic %s, partition %d, where %d is next", f.lsn, p.Base, t.name, p.Partition, next)
		}
		values := from.values(m.s, p.Section, p.Count)
		data, err := from.Body(p.Section)
		m.s.must(err)
		m.checkMarked(f, j, replay, from, p.Section)
		for _, v := range values {
			if w, ok := j.marks[p.Topic]; ok && !j.j.copies && v.Time <= w && !v.Wild && v.Kind != simLate && m.s.plan.idle == 0 {
				m.s.violate("watermark", "frame %d: %s writes %v to topic %s behind its watermark %d", f.lsn, j.j.name, v, t.name, w)
			}
			t.parts[p.Partition] = append(t.parts[p.Partition], modelRecord{f.lsn, from.lsn, j.id, v, int64(len(data) / len(values))})
			out[p.Topic] = append(out[p.Topic], v)
		}
	}
	for _, mk := range marks {
		m.applyMark(f.lsn, mk)
	}
	return out
}

// values reads a section of records through the bus's own reader of them, once.
func (f *simFrame) values(s *sim, section, count int) []simValue {
	if out := f.decoded[section]; out != nil {
		return out
	}
	data := f.sections[section].Body
	out := make([]simValue, 0, count)
	var headers []simMarked
	b := bus.New(bus.Config{}, nil)
	s.must(b.Define(1, bus.TopicSpec{Name: "x"}))
	b.Publish(1, []bus.Publication{{Topic: 1, Count: count, Data: data}}, nil)
	r := b.NewReader(1, 1, []bus.SubState{{}}, func() {})
	defer r.Close()
	for len(out) < count {
		batch, ok, err := r.Next(count)
		s.must(err)
		if !ok {
			s.violate("R1", "a section of %d records gives %d", count, len(out))
		}
		for r := range batch.Records() {
			v, err := decodeSim(r.Value)
			s.must(err)
			if r.Time != v.Time || keyText(r.Key) != v.Key {
				s.violate("R1", "record %v has time %d and key %q", v, r.Time, r.Key)
			}
			out = append(out, v)
			replay := ""
			for _, h := range r.Headers {
				if h.Name == ReplayHeader {
					replay = string(h.Value)
				}
			}
			if m := (simMarked{replay, v.Kind == simWindow}); !slices.Contains(headers, m) {
				headers = append(headers, m)
			}
		}
	}
	if f.headers == nil {
		f.headers = map[int][]simMarked{}
	}
	f.headers[section] = headers
	if f.decoded == nil {
		f.decoded = map[int][]simValue{}
	}
	f.decoded[section] = out
	return out
}

func (m *model) position(f *simFrame, j *modelJob, h *checkpoint.Header) (passed []modelRecord) {
	for _, sp := range h.Splits {
		i := int(sp.Split[0] - '0')
		was, next := j.splits[i], positionOf(sp.Position)
		if next < was.next || next > j.j.total {
			m.s.violate("R4", "frame %d takes %s, split %d from %d to %d", f.lsn, j.j.name, i, was.next, next)
		}
		if was.next > 0 && sp.Watermark < was.watermark {
			m.s.violate("watermark", "frame %d takes the watermark of %s, split %d back from %d to %d", f.lsn, j.j.name, i, was.watermark, sp.Watermark)
		}
		for n := was.next; n < next; n++ {
			passed = append(passed, modelRecord{v: m.s.sourceRecord(j.j, i, n)})
		}
		j.splits[i] = modelSplit{next, sp.Watermark, sp.Ended}
	}
	replayed, jumped := m.passReplay(f, j, h)
	passed = append(passed, replayed...)
	for _, sp := range h.Subs {
		if slices.Contains(jumped[bus.SubID(sp.Sub)], sp.Partition) {
			continue
		}
		st, err := bus.DecodeSubState(sp.State)
		m.s.must(err)
		sub := m.subs[bus.SubID(sp.Sub)]
		if sub == nil || sub.job != j.id || sub.over {
			m.s.violate("R3", "frame %d has a position of subscription %d, which is not %s's", f.lsn, sp.Sub, j.j.name)
		}
		was := sub.parts[st.Partition].SubState
		passed = append(passed, m.read(f, h.Attempt, bus.SubID(sp.Sub), was, st, m.moveTo(sub, st))...)
	}
	for _, st := range h.Steps {
		if was, ok := j.steps[st.Step]; ok && st.Watermark < was && !j.blurred && (h.Extra == nil || !strings.Contains(st.Step, "/")) {
			m.s.violate("watermark", "frame %d takes the watermark of %s, step %s back from %d to %d", f.lsn, j.j.name, st.Step, was, st.Watermark)
		}
		j.steps[st.Step] = st.Watermark
	}
	return passed
}

// applyEpoch checks that what an epoch holds is what its positions passed made, and takes it (R1, R3, R4).
func (m *model) applyEpoch(f *simFrame) {
	h, err := checkpoint.DecodeHeader(f.body(checkpoint.SectionHeader))
	m.s.must(err)
	j := m.jobs[h.Job]
	switch {
	case j == nil:
		m.s.violate("R1", "frame %d is an epoch of job %d, which is not there", f.lsn, h.Job)
	case h.Epoch != j.epoch+1 || j.ended:
		m.s.violate("R4", "frame %d is epoch %d of %s, which stands at %d, ended %v", f.lsn, h.Epoch, j.j.name, j.epoch, j.ended)
	}
	m.s.tracef("frame %d is epoch %d of %s (parallelism %d, %s): %v", f.lsn, h.Epoch, j.j.name, j.j.width, j.j.head, h.Steps)
	replay := ""
	if j.back != nil {
		replay = j.back.ID
	}
	passed, marks := m.position(f, j, &h), maps.Clone(j.marks)
	out := m.records(f, j, replay)
	for _, p := range h.Parts {
		if m.parts[p] == nil {
			m.s.violate("R1", "frame %d names part %d, which is not there", f.lsn, p)
		}
		delete(m.parts, p)
	}
	if !h.Ended {
		for id := range out {
			if t := m.topics[id]; id != j.out.topic && t.name != j.j.forward && t.name != j.j.results {
				m.s.violate("R1", "frame %d: %s writes to topic %s", f.lsn, j.j.name, t.name)
			}
		}
	}
	j.epoch, j.lsn = h.Epoch, f.lsn
	if w, ok := j.steps[j.j.head]; ok && w != bus.NoWatermark {
		j.step = w
	}
	if j.j.copies {
		m.copies(f, j, passed, out, marks)
	} else {
		m.fold(f, j, passed, out)
	}
	if h.Ended {
		j.ended = true
		for _, sub := range j.inputs {
			m.subs[sub].over = true
		}
	}
	m.remember(j)
	m.s.snapshotsAt(m, j)
}

func wildOf(v simValue) simValue {
	v.Wild = true
	return v
}

func addSum(m map[string]modelSum, key string, v uint64) {
	s := m[key]
	s.n, s.sum = s.n+1, s.sum+v
	m[key] = s
}

// tally is a multiset of values.
type tally map[simValue]int

func (t tally) add(vs ...simValue) {
	for _, v := range vs {
		t[v]++
	}
}

// less returns a value of t that o does not have as often, if there is one.
func (t tally) less(o tally) (v simValue, ok bool) {
	for v, n := range t {
		if n > o[v] {
			return v, true
		}
	}
	return v, false
}

func (m *model) sameTally(f *simFrame, j *modelJob, what string, have, want tally) {
	if v, ok := have.less(want); ok {
		m.s.violate("R1", "frame %d: %s gives %s %v, which nothing has caused", f.lsn, j.j.name, what, v)
	}
	if v, ok := want.less(have); ok {
		m.s.violate("R3", "frame %d: %s has passed what makes it give %s %v, and does not", f.lsn, j.j.name, what, v)
	}
}

// fold does what the step should have done with the records passed and compares what it gave.
func (m *model) fold(f *simFrame, j *modelJob, passed []modelRecord, out map[bus.TopicID][]simValue) {
	late, fired, may, told := tally{}, tally{}, tally{}, tally{}
	for _, v := range out[j.out.topic] {
		switch v.Kind {
		case simLate:
			late.add(v)
		case simTold:
			told.add(v)
		default:
			fired.add(v)
		}
	}
	if r := m.names[j.j.results]; j.j.results != "" && r != m.names[j.j.forward] {
		both := tally{}
		both.add(out[r]...)
		all := maps.Clone(late)
		for v, n := range fired {
			all[v] += n
		}
		m.sameTally(f, j, "results", both, all)
	}
	forwarded, have, tell := tally{}, tally{}, tally{}
	have.add(out[m.names[j.j.forward]]...)
	var unsure []simValue
	st := &j.state
	for _, r := range passed {
		v := r.v
		if j.j.tells {
			tell.add(toldOf(v, j.j))
		}
		if j.j.drops&simCount == 0 {
			addSum(st.count, v.Key, v.Sum)
		}
		switch el := v.Key + string(rune('0'+v.Sum%5)); {
		case j.j.drops&simSet != 0:
		case st.set[el]:
			delete(st.set, el)
		default:
			st.set[el] = true
		}
		l := lateOf(v, j.j)
		may.add(l)
		if late[l] >= may[l] {
			if !v.Wild && !m.mayBeLate(j, r) {
				m.s.violate("watermark", "frame %d: %s found %v late, which it cannot be", f.lsn, j.j.name, v)
			}
			v.Wild = true
			m.s.count("late records")
		} else {
			w := modelWindow{m.s.windowOf(v.Time), v.Key}
			s := st.windows[w]
			s.n, s.sum = s.n+1, s.sum+v.Sum
			st.windows[w] = s
		}
		switch {
		case !forwards(v) || j.j.forward == "":
		case !v.Wild && m.mayBeLate(j, r):
			unsure = append(unsure, forwardOf(v, j.j))
		default:
			forwarded.add(forwardOf(v, j.j))
		}
	}
	for _, v := range unsure { // behind the watermark or not
		if w := wildOf(v); have[w] > forwarded[w] {
			v = w
		}
		forwarded.add(v)
	}
	if v, ok := late.less(may); ok {
		m.s.violate("R1", "frame %d: %s found %v late, which it has not read", f.lsn, j.j.name, v)
	}
	m.sameTally(f, j, "on", have, forwarded)
	m.sameTally(f, j, "outside", told, tell)
	m.foldWindows(f, j, fired)
}

// foldWindows checks which windows an epoch gives: each whole, once, when the watermark of its subtask has come there.
func (m *model) foldWindows(f *simFrame, j *modelJob, fired tally) {
	due := tally{}
	for w, s := range j.state.windows {
		end := w.start + m.s.plan.window
		if end-1 <= m.watermarkOf(j, w.key) {
			due.add(windowOut(j.j, w.key, end, s.n, s.sum))
			delete(j.state.windows, w)
			if j.fired[w] && !j.blurred {
				m.s.violate("watermark", "frame %d: the window %v of %s fires a second time", f.lsn, w, j.j.name)
			}
			j.fired[w] = true
			m.s.count("windows")
		}
	}
	m.sameTally(f, j, fmt.Sprintf("at watermark %d the window", j.step), fired, due)
}

// watermarkOf is where the subtask that has a key stands by the last epoch: where the step does, or, if it says so, ahead of that.
func (m *model) watermarkOf(j *modelJob, key string) int64 {
	w := j.step
	if n := j.j.width; n > 1 {
		if own, ok := j.steps[fmt.Sprintf("%s/%d/%d", j.j.head, jobs.Owner(jobs.GroupOf([]byte(`"`+key+`"`)), n), n)]; ok {
			w = max(w, own)
		}
	}
	return w
}

// uneven reports whether some subtask of the step is ahead of the others: with another parallelism each begins with the lowest
// of all. The fold is the head of its chain or stands in it, as the parallelism was before.
func (m *model) uneven(j *modelJob) bool {
	for step, w := range j.steps {
		if (strings.HasPrefix(step, j.j.head+"/") || strings.HasPrefix(step, "fold/")) && w > j.step {
			return true
		}
	}
	return false
}

func (m *model) mayBeLate(j *modelJob, r modelRecord) bool {
	for _, sub := range j.inputs {
		if m.topics[m.subs[sub].topic].joined[bus.ProducerID(r.by)] {
			return true
		}
	}
	return j.late || m.s.plan.idle > 0
}

// sameState compares the stores of a job with the model.
func (m *model) sameState(rule string, j *modelJob, st *jobStores) {
	have := modelState{map[string]modelSum{}, map[string]bool{}, map[modelWindow]modelSum{}}
	for _, store := range st.of["fold"] {
		count, set, windows := store.Table("fold", "count"), store.Table("fold", "set"), store.Table("fold", "windows")
		count.Scan(0, func(g uint8, key, val []byte) bool {
			have.count[keyText(key)] = sumOf(val)
			return true
		})
		for i := range simKeys {
			key := string(rune('a' + i))
			k := []byte(`"` + key + `"`)
			set.Elements(jobs.GroupOf(k), k, 0, func(sub, _ []byte) bool {
				have.set[key+string(sub)] = true
				return true
			})
		}
		for _, ns := range windows.Namespaces() {
			windows.Scan(ns, func(_ uint8, key, val []byte) bool {
				have.windows[modelWindow{ns, keyText(key)}] = sumOf(val)
				return true
			})
		}
	}
	if !maps.Equal(have.count, j.state.count) || !maps.Equal(have.set, j.state.set) || !maps.Equal(have.windows, j.state.windows) {
		m.s.violate(rule, "the state of %s at LSN %d, epoch %d is\n%v\nand its positions make it\n%v", j.j.name, m.lsn, j.epoch, have, j.state)
	}
}

func sumOf(b []byte) modelSum {
	return modelSum{binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[8:])}
}

// keyText is a key without its quotes; outside it has none.
func keyText(b []byte) string {
	if n := len(b); n > 2 && b[0] == '"' {
		return string(b[1 : n-1])
	}
	return string(b)
}
