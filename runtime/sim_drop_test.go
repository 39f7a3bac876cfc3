package runtime

import (
	"maps"
	"slices"
	"testing"

	"github.com/sidestream-dev/sidestream/bus"
	"github.com/sidestream-dev/sidestream/checkpoint"
	"github.com/sidestream-dev/sidestream/wal"
)

// Topics that drop the oldest, in the simulator. A range that is dropped stands in a frame before any epoch whose position is
// behind it; what a reader goes over it counts; and nobody loses more than the limit asks for (R6).

// simReading is a partition that an attempt reads for a subscription.
type simReading struct {
	sub       bus.SubID
	partition int
	attempt   uint32
	then      bool // it goes on where it was before a replay that is over
}

// simJump is a range that a reader went over.
type simJump struct{ from, to bus.Offset }

// simPlaces is where the readers of a subtask stand, and the ends of the replay that they are at.
type simPlaces struct {
	sub    bus.SubID
	states []bus.SubState
	ends   []replayEnd
}

func placesOf(b *subtask) simPlaces {
	if f, ok := b.feed.(*busFeed); ok && f.reader != nil {
		return simPlaces{f.sub, f.reader.States(), f.ends}
	}
	return simPlaces{}
}

// noteJumps remembers what a subtask's readers went over in one step: a step reads one batch at most, behind that.
func (s *sim) noteJumps(b *simSub, was simPlaces) {
	now := placesOf(b.s)
	if now.states == nil {
		return
	}
	if now.ends == nil {
		s.must(was.goOn(b))
	}
	for i, st := range now.states {
		if i >= len(was.states) || was.states[i].Dropped == st.Dropped {
			continue
		}
		at := simReading{now.sub, st.Partition, b.x.attempt, b.then[st.Partition]}
		j := jumpBetween(was.states[i], st)
		if s.jumps == nil {
			s.jumps = map[simReading][]simJump{}
		}
		s.jumps[at] = append(s.jumps[at], j)
		s.tracef("subscription %d, partition %d: its reader goes over %d to %d", now.sub, st.Partition, j.from, j.to-1)
	}
}

// jumpBetween returns what a reader went over that then read on.
func jumpBetween(was, now bus.SubState) simJump {
	return simJump{was.Next, was.Next + bus.Offset(now.Dropped-was.Dropped)}
}

// goOn sets the places where a replay that is over by now lets the readers go on: that is no jump, and in the same step they
// may make one from there.
func (p *simPlaces) goOn(b *simSub) error {
	for _, end := range p.ends {
		i := slices.IndexFunc(p.states, func(st bus.SubState) bool { return st.Partition == end.Partition })
		if end.Then == nil || i < 0 {
			continue
		}
		then, err := bus.DecodeSubState(end.Then)
		if err != nil {
			return err
		}
		then.Dropped += p.states[i].Dropped
		p.states[i] = then
		if b.then == nil {
			b.then = map[int]bool{}
		}
		b.then[end.Partition] = true
	}
	return nil
}

// TestSimJumpBehindReplay: in one step a reader goes on where it was before a replay, goes over what was let go from there,
// and reads a batch.
func TestSimJumpBehindReplay(t *testing.T) {
	place := func(next bus.Offset, dropped uint64) bus.SubState {
		return bus.SubState{Position: bus.Position{Next: next}, Watermark: bus.NoWatermark, Dropped: dropped}
	}
	for name, tt := range map[string]struct {
		was, then, now bus.SubState
		want           simJump
	}{
		"it goes on, and loses more":   {place(31, 12), place(40, 0), place(50, 17), simJump{40, 45}},
		"with what it lost, and reads": {place(31, 12), place(40, 8), place(44, 20), simJump{40, 40}},
		"with it, and loses more":      {place(31, 12), place(40, 8), place(50, 25), simJump{40, 45}},
	} {
		b := &simSub{}
		was := simPlaces{1, []bus.SubState{tt.was}, []replayEnd{{Sub: 1, Then: bus.AppendSubState(nil, tt.then)}}}
		if err := was.goOn(b); err != nil {
			t.Fatal(err)
		}
		if got := jumpBetween(was.states[0], tt.now); got != tt.want || !b.then[0] {
			t.Errorf("%s: it goes over %v, want %v", name, got, tt.want)
		}
	}
}

// read returns what an epoch has read of the records that it passed, and checks what it says that it lost.
func (m *model) read(f *simFrame, attempt uint32, id bus.SubID, was, st bus.SubState, passed []modelRecord) (read []modelRecord) {
	sub := m.subs[id]
	read, want := m.readOver(f, attempt, id, was, st, passed)
	m.sameLost(f.lsn, m.jobs[sub.job].j.name, st, want)
	return read
}

// readOver returns what was read of the records between two places, and the account of the subscription at the second.
func (m *model) readOver(f *simFrame, attempt uint32, id bus.SubID, was, st bus.SubState, passed []modelRecord) (read []modelRecord, lost modelAccount) {
	sub := m.subs[id]
	name := m.jobs[sub.job].j.name
	from := was.Next
	lost = accountOf(was)
	for _, j := range m.s.jumps[simReading{id, st.Partition, attempt, sub.parts[st.Partition].then == attempt}] {
		if j.from < was.Next || j.to > st.Next {
			continue
		}
		if floor := sub.floors[st.Partition]; j.to > floor {
			m.s.violate("R6", "in frame %d %s has gone over partition %d up to %d, and the log lets go of what lies before %d", f.lsn, name, st.Partition, j.to, floor)
		}
		read = append(read, passed[from-was.Next:j.from-was.Next]...)
		lost.add(bus.Lost{From: j.from, To: j.to})
		from = j.to
		m.s.count("ranges lost by a reader")
	}
	return append(read, passed[from-was.Next:]...), lost
}

// modelAccount is what a subscription has lost of a partition over its life, and the newest ranges of it.
type modelAccount struct {
	records uint64
	ranges  []bus.Lost
}

func accountOf(st bus.SubState) modelAccount {
	return modelAccount{st.Dropped, slices.Clone(st.Lost)}
}

// add counts a range. No offset is without a record here. Eight are named, and two that meet are one.
func (a *modelAccount) add(l bus.Lost) {
	a.records += uint64(l.To - l.From)
	if n := len(a.ranges); n > 0 && a.ranges[n-1].To == l.From {
		a.ranges[n-1].To = l.To
	} else if a.ranges = append(a.ranges, l); n == 8 {
		a.ranges = a.ranges[1:]
	}
}

// sameLost compares what a place says that was lost with what was (R6).
func (m *model) sameLost(lsn wal.LSN, name string, st bus.SubState, want modelAccount) {
	if st.Dropped != want.records || !slices.Equal(st.Lost, want.ranges) {
		m.s.violate("R6", "frame %d says that %s has lost %d records of partition %d, the last of them %v; it is %d, %v", lsn, name,
			st.Dropped, st.Partition, st.Lost, want.records, want.ranges)
	}
}

// keepsLost checks that a job which begins elsewhere in a topic, with another subscription, does not forget what it lost there.
func (m *model) keepsLost(name string, olds []bus.SubID, sub *modelSub) {
	for _, id := range olds {
		if old := m.subs[id]; old.topic == sub.topic {
			for p := range sub.parts {
				m.sameLost(m.lsn, name, sub.parts[p].SubState, accountOf(old.parts[p].SubState))
				if old.parts[p].Dropped > 0 {
					m.s.count("losses kept by who is set elsewhere")
				}
			}
		}
	}
}

// lostIn checks what a bus says that subscriptions lost: what the durable epochs say, or, of one that runs, less as yet.
func (s *sim) lostIn(b *bus.Bus, m *model, all bool) {
	for _, t := range b.Stats() {
		for _, st := range t.Subscriptions {
			sub := m.subs[st.ID]
			if sub == nil || sub.over {
				continue // by what is not durable yet
			}
			want := uint64(0)
			var ranges []bus.LostIn
			for p, at := range sub.parts {
				want += at.Dropped
				for _, l := range at.Lost {
					ranges = append(ranges, bus.LostIn{Partition: p, Lost: l, Records: int64(l.To - l.From)})
				}
			}
			if st.Dropped > want || all && (st.Dropped != want || !slices.Equal(st.Lost, ranges)) {
				s.violate("R6", "at LSN %d %s is said to have lost %d records of topic %s, %v, and by what is durable it is %d, %v", m.lsn, st.Name, st.Dropped, t.Name, st.Lost, want, ranges)
			}
		}
	}
}

// applyDrops takes what subscriptions are to lose.
func (m *model) applyDrops(drops []bus.Drop) {
	subs := map[bus.SubID]bool{}
	for _, d := range drops {
		subs[d.Sub] = true
	}
	for _, id := range slices.Sorted(maps.Keys(subs)) {
		sub := m.subs[id]
		t, limit := m.topics[sub.topic], int64(0)
		for _, spec := range m.s.plan.topics {
			if spec.Name == t.name && spec.OnFull == string(bus.DropOldest) {
				limit = spec.LimitBytes
			}
		}
		name := m.jobs[sub.job].j.name
		before := m.unread(sub)
		sub = m.changed(id)
		sub.floors = maps.Clone(sub.floors)
		if sub.floors == nil {
			sub.floors = map[int]bus.Offset{}
		}
		for _, d := range drops {
			if d.Sub != id {
				continue
			}
			if n := bus.Offset(len(t.parts[d.Partition])); d.To <= sub.floors[d.Partition] || d.To <= d.From || d.To > n {
				m.s.violate("R6", "frame %d drops %d to %d of partition %d for %s, where it drops up to %d already, and %d is next", m.lsn, d.From, d.To, d.Partition, name, sub.floors[d.Partition], n)
			}
			sub.floors[d.Partition] = d.To
		}
		// The bus knows only about how many bytes lie where: by what lies between two places that it remembers, or by their number.
		if after := m.unread(sub); limit == 0 || before < limit/2 || after < limit/2-100 {
			m.s.violate("R6", "frame %d drops %v for %s, which had %d bytes to read and has %d left, where the limit is %d", m.lsn, drops, name, before, after, limit)
		}
		m.s.count("drops of the oldest")
	}
}

// changed returns a subscription to change, which other models do not share.
func (m *model) changed(id bus.SubID) *modelSub {
	c := *m.subs[id]
	m.subs[id] = &c
	return &c
}

// unread is how many bytes a subscription has yet to read that were written since it came, as the bus may take it at most: it
// knows little of what lies where in so small a topic, so that each record may count as one of middle size. They differ: those
// of a replay have a header that is longer than the rest (seed 4037).
func (m *model) unread(sub *modelSub) int64 {
	exact, middle := int64(0), int64(0)
	for i, recs := range m.topics[sub.topic].parts {
		all := int64(0)
		for _, r := range recs {
			all += r.bytes
		}
		left := recs[max(int(sub.parts[i].Next), int(sub.floors[i]), min(sub.found[i], len(recs))):]
		for _, r := range left {
			exact += r.bytes
		}
		middle += all * int64(len(left)) / max(1, int64(len(recs)))
	}
	return max(exact, middle)
}

// placeOf is where a subscription reads on: behind what the log lets go of for it.
func (sub *modelSub) placeOf(partition int) bus.Offset {
	return max(sub.parts[partition].Next, sub.floors[partition])
}

// silentLog does not say what is dropped.
type silentLog struct{ *simLog }

func (l silentLog) AppendSmall(kind wal.FrameKind, sections []wal.Section) (wal.LSN, error) {
	if c := changeOf(sections); c != nil && c.Drops != nil {
		c.Drops = nil
		sections = withChange(sections, c)
	}
	return l.simLog.AppendSmall(kind, sections)
}

// uncountedLog forgets what readers have lost.
type uncountedLog struct{ *simLog }

func (l uncountedLog) Append(kind wal.FrameKind, sections []wal.Section) (wal.LSN, error) {
	if kind == kindEpoch {
		i := slices.IndexFunc(sections, func(s wal.Section) bool { return s.Kind == checkpoint.SectionHeader })
		h, err := checkpoint.DecodeHeader(sections[i].Body)
		l.s.must(err)
		for k := range h.Subs {
			st, err := bus.DecodeSubState(h.Subs[k].State)
			l.s.must(err)
			st.Dropped = 0
			h.Subs[k].State = bus.AppendSubState(nil, st)
		}
		sections = slices.Clone(sections)
		sections[i].Body = checkpoint.AppendHeader(nil, h)
	}
	return l.simLog.Append(kind, sections)
}

// dropMore drops all but the newest record once half the limit is unread.
func dropMore(_ *sim, c *core) {
	var drops []bus.Drop
	for _, t := range c.bus.Stats() {
		for _, sub := range t.Subscriptions {
			for i, p := range t.Partitions {
				if t.OnFull == bus.DropOldest && sub.Unread > t.Limit/2 && sub.Lag > 1 && p.Next > 0 {
					d := bus.Drop{Topic: t.ID, Sub: sub.ID, Partition: i, From: p.First, To: p.Next - 1}
					if b := c.bus.Beyond(sub.ID, bus.SubState{Partition: i}); d.To > b.Next && d.To > d.From {
						drops = append(drops, d)
					}
				}
			}
		}
	}
	c.letGo(drops)
}

var dropTwins = []simTwin{
	{name: "what is dropped is not in the log", rules: []string{"R4", "R6"},
		coreLog: func(l *simLog) frameLog { return silentLog{l} }},
	{name: "what is dropped is not counted", rules: []string{"R6"},
		coreLog: func(l *simLog) frameLog { return uncountedLog{l} }},
	{name: "more is dropped than the limit asks for", rules: []string{"R6"},
		sealed: dropMore},
}
