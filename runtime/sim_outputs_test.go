package runtime

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/sidestream-dev/sidestream/bus"
	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/wal"
)

// Outputs to the outside, in the simulator. A hot job's changes may move its output elsewhere, and back; an outside is away now
// and then. What an output that is given up holds is sent, or dropped where that is allowed, never both: what is counted as
// dropped was never taken by the outside, an outside that is there gets all before anything is dropped, and an output that comes
// back goes on behind that. Its place is nobody else's for as long as it may come back.

// simTarget is where an output goes outside: a place. It outlives processes, and may belong to one output after another.
type simTarget struct {
	name  string
	topic bus.TopicID // of the output that it belongs to, or did last
	got   []simValue  // as the outside has it
	high  int         // records that came at least once, or were dropped
	acked int         // records that the sender knows of that they came, or were dropped
	boot  int         // in which process
	away  bool
	last  int // the step in which it was away last
}

func (s *sim) newTarget() *simTarget {
	t := &simTarget{name: fmt.Sprintf("place %d", len(s.targets))}
	s.targets = append(s.targets, t)
	return t
}

// awaySince reports whether the outside has been away at or behind a step.
func (s *sim) awaySince(t *simTarget, step int) bool { return t.away || t.last > 0 && t.last >= step }

// hotTargets are those of the hot job's outputs, what it has given up included.
func (s *sim) hotTargets() (out []*simTarget) {
	if m := s.model.job(hotName); m != nil {
		for _, o := range []modelOut{m.out, m.prevOut} {
			if o.topic != 0 {
				out = append(out, o.target)
			}
		}
	}
	return out
}

func (s *sim) hotAway() bool {
	return slices.ContainsFunc(s.hotTargets(), func(t *simTarget) bool { return t.away })
}

// hotUnsent reports whether the hot job's output has something to send.
func (s *sim) hotUnsent() bool {
	m := s.model.job(hotName)
	return m != nil && m.out.topic != 0 && int(m.out.sent.Next) < len(s.model.recordsOf(m.out.topic))
}

// lapse lets one of the hot job's outsides go, or come back.
func (s *sim) lapse() {
	if all := s.hotTargets(); len(all) > 0 {
		t := all[s.rng.IntN(len(all))]
		if t.away && s.rng.IntN(8) > 0 {
			return
		}
		t.away, t.last = !t.away, s.steps
		s.tracef("%s is away: %v", t.name, t.away)
	}
}

// moveOutput lets a version's output go elsewhere: to a new place, or to one where it went before.
func (s *sim) moveOutput(j *simJob) {
	if s.rng.IntN(3) == 0 {
		j.target = (*j.places)[s.rng.IntN(len(*j.places))]
		return
	}
	j.target = s.newTarget()
	*j.places = append(*j.places, j.target)
}

// simSink takes a job's output outside. It can do exactly_once as a file does: cut back to where the position stands.
type simSink struct {
	s *sim
	j *simJob
}

func (k *simSink) Kind() string       { return "sim" }
func (k *simSink) ExactlyOnce() error { return nil }
func (k *simSink) Place() string      { return k.j.target.name }
func (k *simSink) String() string     { return k.j.name }

func (k *simSink) Open(_ context.Context, env jobs.SinkEnv) (jobs.Writer, error) {
	s, t, o := k.s, k.j.target, k.s.opening
	if o.Place != t.name {
		s.violate("place", "the sender of %s takes what is to go to %s to %s", k.j.name, o.Place, t.name)
	}
	if t.topic != o.Topic {
		if s.model.topics[t.topic] != nil {
			s.violate("place", "%s belongs to topic %d, and that of %s is %d", t.name, t.topic, k.j.name, o.Topic)
		}
		t.topic, t.got, t.high, t.acked = o.Topic, nil, 0, 0
	}
	w := &simWriter{simSink: k, target: t, topic: o.Topic}
	if env.State == nil && t.high > 0 {
		s.violate("R4", "the sender of %s begins anew, and %d records were sent", k.j.name, t.high)
	}
	if env.State != nil {
		w.next = int(binary.BigEndian.Uint32(env.State))
	}
	if k.j.delivery == jobs.ExactlyOnce {
		n := w.next
		if _, o := s.model.outOf(o.Topic); o != nil {
			n = o.outside(w.next)
		}
		if n > len(t.got) {
			s.violate("R2", "the position of %s says that %d records were sent, and %d were", k.j.name, n, len(t.got))
		}
		t.got = t.got[:n]
	}
	return w, nil
}

type simWriter struct {
	*simSink
	target *simTarget
	topic  bus.TopicID
	next   int
}

// Write checks that what leaves is durable (R2), follows what was sent before without a gap, save what was dropped, and repeats
// nothing that a durable position of the sender covers.
func (w *simWriter) Write(_ context.Context, ms []jobs.Message) ([]byte, error) {
	s, keep := w.s, len(ms)
	if len(ms) > 0 && w.target.away {
		return nil, errInjected
	}
	fail := len(ms) > 0 && !s.quiet && s.rng.IntN(12) == 0
	if fail {
		keep = s.rng.IntN(len(ms) + 1)
	}
	if len(ms) > 0 {
		_, o := s.model.outOf(w.topic)
		if o == nil {
			s.violate("R2", "%s sends, and is not durable itself", w.j.name)
		}
		recs := s.model.recordsOf(w.topic)
		w.next, w.target.high = o.behind(w.next), o.behind(w.target.high)
		if first := int(ms[0].Offset); first != w.next || first > w.target.high || first < int(o.sent.Next) {
			s.violate("R4", "the sender of %s sends from record %d on, where %d is next, %d were sent, and its durable position is %d",
				w.j.name, first, w.next, w.target.high, o.sent.Next)
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
	if len(ms) > 0 {
		w.target.acked, w.target.boot = w.next, s.boots
	}
	s.tracef("the sender of %s sent up to %d", w.j.name, w.next)
	return binary.BigEndian.AppendUint32(nil, uint32(w.next)), nil
}

func (w *simWriter) Close() error { return nil }

// modelOut is an output to the outside: how far it is sent by what the log says, and what was dropped of it.
type modelOut struct {
	topic   bus.TopicID // hidden; 0: there is none
	sub     bus.SubID   // its sender's
	sent    sentEntry
	target  *simTarget
	dropped []simJump // replaced, never changed
}

// behind returns what is next behind a number of records: what was dropped is gone over.
func (o *modelOut) behind(next int) int {
	for _, d := range o.dropped {
		if int(d.from) <= next && next < int(d.to) {
			next = int(d.to)
		}
	}
	return next
}

// outside is how many of the records before next are to be outside.
func (o *modelOut) outside(next int) int {
	n := next
	for _, d := range o.dropped {
		n -= max(0, min(next, int(d.to))-int(d.from))
	}
	return n
}

// outOf finds a job's output by its topic, or nil.
func (m *model) outOf(topic bus.TopicID) (*modelJob, *modelOut) {
	for _, j := range m.jobs {
		for _, o := range []*modelOut{&j.out, &j.prevOut} {
			if o.topic == topic && !j.removed {
				return j, o
			}
		}
	}
	return nil, nil
}

// recordsOf are those of an output's topic.
func (m *model) recordsOf(topic bus.TopicID) []modelRecord {
	t := m.topics[topic]
	if t == nil {
		m.s.violate("R5", "topic %d of an output is not there", topic)
	}
	return t.parts[0]
}

// outputs takes what a change makes of a job's output: it stays, goes on from where an earlier change gave it up, or is another.
func (m *model) outputs(j *modelJob, jc jobChange) {
	i := slices.IndexFunc(jc.Outputs, func(o outputEntry) bool { return o.Outside })
	if i < 0 {
		return // a copy has none
	}
	o, was, before := jc.Outputs[i], j.out, j.prevOut
	switch o.Topic {
	case was.topic:
	case before.topic:
		j.out = before
		m.s.count("outputs taken up again")
	default:
		j.out = modelOut{topic: o.Topic, sub: o.Sub, sent: o.Sent, target: j.j.target}
		m.subs[o.Sub] = &modelSub{topic: o.Topic, job: jc.ID, sender: true, parts: make([]modelPlace, 1)}
	}
	if j.out.target != j.j.target {
		m.s.violate("place", "frame %d lets the output of %s go to %s, where its definition says %s", m.lsn, jc.Name, j.out.target.name, j.j.target.name)
	}
	j.prevOut = modelOut{}
	for _, old := range []modelOut{was, before} {
		switch {
		case old.topic == 0 || old.topic == j.out.topic:
		case old.topic == was.topic && jc.Until > 0:
			j.prevOut = old
			m.s.count("outputs given up")
			if int(old.sent.Next) < len(m.recordsOf(old.topic)) {
				m.s.count("outputs given up that are yet to be sent")
			}
		default:
			m.goes(j, old, false)
		}
	}
	for _, k := range m.jobs {
		for _, other := range []modelOut{k.out, k.prevOut} {
			if other.topic != 0 && other.topic != j.out.topic && other.target == j.out.target && !k.removed {
				m.s.violate("place", "frame %d lets %s write %s, which is that of topic %d", m.lsn, jc.Name, other.target.name, other.topic)
			}
		}
	}
}

// goes takes away an output that nobody has any more. What it has yet to send is dropped with it.
func (m *model) goes(j *modelJob, o modelOut, back bool) {
	if o.topic == 0 {
		return
	}
	if next := bus.Offset(len(m.recordsOf(o.topic))); o.sent.Next < next {
		m.drop(j, &o, next, back)
	}
	m.sameOutside(j, &o)
	m.end(o.sub)
	delete(m.topics, o.topic)
	m.gone[o.topic] = true
}

// drop takes what is said to be dropped of an output: all that it has yet to send. back says that its definition is taken back.
func (m *model) drop(j *modelJob, o *modelOut, to bus.Offset, back bool) {
	s, from, t := m.s, o.sent.Next, o.target
	if next := bus.Offset(len(m.recordsOf(o.topic))); to != next {
		s.violate("R4", "frame %d drops what the output of %s has yet to send up to %d, where %d is next", m.lsn, j.j.name, to, next)
	}
	const lately = 5000
	switch {
	case back && !s.awaySince(t, s.steps-lately):
		s.violate("R4", "frame %d drops %d records of %s, whose definition is taken back, and its outside was there", m.lsn, to-from, j.j.name)
	case back:
	case !s.mayDrop:
		s.violate("R4", "frame %d drops %d records of %s that were never sent, and nobody has allowed it", m.lsn, to-from, j.j.name)
	case s.sendsFirst && !s.awaySince(t, s.askedAt):
		s.violate("R4", "frame %d drops %d records of %s that were never sent, and the outside was there", m.lsn, to-from, j.j.name)
	}
	if t.topic == o.topic && t.boot == s.boots && bus.Offset(t.acked) > from {
		s.violate("R4", "frame %d counts the records of %s from %d on as dropped, and they were sent up to %d", m.lsn, j.j.name, from, t.acked)
	}
	if !back {
		s.lost += int64(to - from)
	}
	o.dropped = append(o.dropped[:len(o.dropped):len(o.dropped)], simJump{from, to})
	s.count("records of outputs dropped")
}

// applySent takes a sender's place. A sender that goes over records did not send them: a change drops them.
func (m *model) applySent(st sentEntry) {
	sub := m.subs[st.Sub]
	if sub.over {
		return
	}
	j, o := m.outOf(sub.topic)
	if o == nil {
		m.s.violate("R4", "frame %d says that the sender of topic %d stands at %d, and the topic is no output", m.lsn, sub.topic, st.Next)
	}
	if recs := m.recordsOf(sub.topic); st.Next > bus.Offset(len(recs)) {
		m.s.violate("R2", "frame %d says that %d records of %s were sent, and the log holds %d", m.lsn, st.Next, j.j.name, len(recs))
	}
	if st.Next < o.sent.Next {
		m.s.violate("R4", "frame %d takes the sender of %s back from %d to %d", m.lsn, j.j.name, o.sent.Next, st.Next)
	}
	if t := o.target; st.Next > o.sent.Next && !(t.topic == o.topic && t.boot == m.s.boots && bus.Offset(t.acked) >= st.Next) {
		if string(st.State) != string(o.sent.State) {
			m.s.violate("R4", "frame %d drops records of %s, and takes the position of its outside to %x", m.lsn, j.j.name, st.State)
		}
		m.drop(j, o, st.Next, false)
	}
	o.sent = st
	sub.parts[0].Next = st.Next
}

// sameOutside compares what is outside of an output with the log, up to where it is sent.
func (m *model) sameOutside(j *modelJob, o *modelOut) {
	if j.j.delivery != jobs.ExactlyOnce || o.target.topic != o.topic {
		return
	}
	n := 0
	for i, r := range m.recordsOf(o.topic)[:o.sent.Next] {
		if o.behind(i) != i {
			continue
		}
		if n >= len(o.target.got) || o.target.got[n] != r.v {
			m.s.violate("R4", "record %d of %s is not outside at %s, as %d of %d", i, j.j.name, o.target.name, n, len(o.target.got))
		}
		n++
	}
}

// allSent checks how an output ended.
func (m *model) allSent(j *modelJob, o *modelOut) {
	recs, t := len(m.recordsOf(o.topic)), o.target
	if high := o.behind(t.high); high != recs || int(o.sent.Next) != recs || j.j.delivery == jobs.ExactlyOnce && len(t.got) != o.outside(recs) {
		m.s.violate("R4", "%d records of %s came outside, %d in all, of %d, of which %d were dropped; its sender stands at %d", high, j.j.name, len(t.got), recs,
			recs-o.outside(recs), o.sent.Next)
	}
	m.sameOutside(j, o)
}

// dropEarlier drops what the hot job gave up before, by the definition that it has.
func (s *sim) dropEarlier(j *job) {
	if m := s.model.job(hotName); m == nil || m.prevOut.topic == 0 {
		return
	}
	s.ask(opDropEarlier, s.applied(s.specOf(j), ApplyOptions{Probation: -1, AllowStateLoss: true, DropUnsent: true}))
	s.mayDrop, s.sendsFirst = true, true
}

// takePlace asks whether a job could have the place of the output that the hot job has given up.
func (s *sim) takePlace() {
	m := s.model.job(hotName)
	if m == nil || m.prevOut.topic == 0 {
		return
	}
	o, rt := m.prevOut, s.proc.rt
	codec := jobs.Codec[simValue]{Encode: encodeSim, Decode: decodeSim}
	thief := jobs.New("thief")
	in := jobs.FromTopic(thief, jobs.BusTopic[simValue]{Name: "a", Codec: codec}, jobs.ID("in"))
	jobs.To(in, "out", &simSink{s: s, j: &simJob{name: "thief", target: o.target}}, codec)
	s.ask(opTaken, func() error {
		_, err := rt.Apply(context.Background(), []Definition{{Job: thief}}, ApplyOptions{DryRun: true})
		if err != nil && (strings.Contains(err.Error(), "which is still that of output") || strings.Contains(err.Error(), "which can belong to one only")) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := s.log.WaitDurable(context.Background(), s.log.Last()); err != nil {
			return err
		}
		if _, still := s.model.outOf(o.topic); still != nil {
			s.violate("place", "a job could have %s, which is that of topic %d", o.target.name, o.topic)
		}
		return nil
	})
}

// unsentRefused says whether a change may be refused for what is unsent: not where that may be dropped, nor where the outside was
// there, save for changes that do not wait for it.
func (s *sim) unsentRefused(err error) bool {
	var unsent *UnsentError
	if !errors.As(err, &unsent) {
		return false
	}
	s.count("refused: unsent")
	if s.mayDrop {
		return false
	}
	switch s.asked {
	case opUpdate, opLose, opRemove:
		return slices.ContainsFunc(s.hotTargets(), func(t *simTarget) bool { return s.awaySince(t, s.askedAt) })
	}
	return true
}

// heldLog does not say of outputs that are kept for probation what is dropped of them.
type heldLog struct{ *simLog }

func (l heldLog) Append(kind wal.FrameKind, sections []wal.Section) (wal.LSN, error) {
	if c := changeOf(sections); c != nil && len(c.Jobs) > 0 && len(c.Sent) > 0 {
		c.Sent = nil
		sections = withChange(sections, c)
	}
	return l.simLog.Append(kind, sections)
}

// freePlaces forgets where outputs went that are given up.
func freePlaces(_ *sim, c *core) {
	for _, j := range c.ledger.Jobs {
		if j.Prev == nil {
			continue
		}
		outs := slices.Clone(j.Prev.Outputs)
		for i := range outs {
			if j.gaveUp(outs[i].Sub) {
				outs[i].Place = "nowhere"
			}
		}
		p := *j.Prev
		p.Outputs, j.Prev = outs, &p
	}
}

var outputTwins = []simTwin{
	{name: "what an output drops is not in the log", rules: []string{"R4"},
		coreLog: func(l *simLog) frameLog { return heldLog{l} }},
	{name: "a sender goes on while its records are dropped", rules: []string{"R2", "R4"}, seldom: true,
		deafSenders: true},
	{name: "the place of an output that is given up is free", rules: []string{"place"},
		sealed: freePlaces},
}
