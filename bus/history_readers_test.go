package bus

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/sidestream-dev/sidestream/wal"
)

func (h *history) readSome() {
	for _, tr := range h.alive {
		if h.r.IntN(2) == 0 {
			h.read(tr, h.r.IntN(8))
		}
	}
}

// read takes n batches and holds them against the models; n < 0 takes all.
func (h *history) read(tr *testReader, n int) {
	for ; n != 0; n-- {
		b, ok, err := tr.r.Next(1 + h.r.IntN(4))
		if err != nil {
			h.fatalf("subscription %d: %v", tr.sub, err)
		}
		for _, st := range tr.r.States() { // a reader may go over what was dropped and find nothing behind it yet
			h.goOver(tr, tr.models[st.Partition], st)
			if m := tr.models[st.Partition]; !ok || st.Partition != b.Partition {
				h.catchUp(m, st.Marks+1)
			}
		}
		if !ok {
			return
		}
		m := tr.models[b.Partition]
		switch {
		case b.Len() > 0:
			h.catchUp(m, b.LSN)
		case b.LSN < h.gens[0]: // marks of the store: of one frame, of several joined, or a table
			h.catchUp(m, b.LSN+1)
		default:
			h.catchUp(m, b.LSN)
			if b.LSN+1 > h.gens[0] && !(b.LSN < m.lsn) {
				h.step(tr, m, fmt.Sprintf("marks of %s", b.LSN))
			}
		}
		if c := tr.r.cursors[slices.IndexFunc(tr.r.cursors, func(c *cursor) bool { return c.part.number == b.Partition })]; c.store != nil {
			h.count["read from the store"]++
		}
		var live []string
		if b.Payload != nil {
			live = b.Payload.([]string)[b.From:b.To]
			h.count["live"]++
		} else {
			h.count["cold"]++
		}
		i, at := 0, b.Base
		for rec := range b.Records() {
			if live != nil && live[i] != string(rec.Value) {
				h.fatalf("offset %s: the payload has %q, the bytes %q", at, live[i], rec.Value)
			}
			h.step(tr, m, fmt.Sprintf("%s: %s=%s", b.LSN, at, rec.Value))
			at++
			i++
		}
		h.compare(tr, m)
	}
}

// catchUp lets a model go over the marks before lsn that the log does not hold any more: the store gives several as one, and
// a table sums up those that lie before what a reader lacks.
func (h *history) catchUp(m *modelReader, lsn wal.LSN) {
	lsn = min(lsn, h.gens[0])
	for {
		c := m.clone()
		if what := h.take(&c); !strings.HasPrefix(what, "marks") || c.lsn >= lsn {
			return
		}
		*m = c
		h.count["marks passed by a table"]++
	}
}

// take is the model's next record or marks, "" if there is none.
func (h *history) take(m *modelReader) string {
	for ; int(m.lsn) <= len(h.frames); m.lsn, m.item, m.record = m.lsn+1, 0, 0 {
		f := h.frames[m.lsn-1]
		for ; m.item < len(f.pubs); m.item, m.record = m.item+1, 0 {
			p := f.pubs[m.item]
			if p.topic != m.topic || p.partition != m.partition || p.base+Offset(len(p.values)) <= m.next {
				continue
			}
			m.record = int(m.next - p.base)
			m.next++
			return fmt.Sprintf("%s: %s=%s", m.lsn, m.next-1, p.values[m.record])
		}
		if m.item > len(f.pubs) {
			continue
		}
		m.item++
		some := false
		for _, mark := range f.marks {
			if mark.Topic == m.topic {
				hear(m.table, mark)
				some = true
			}
		}
		if some {
			m.settle()
			return fmt.Sprintf("marks of %s", m.lsn)
		}
	}
	return ""
}

func (h *history) step(tr *testReader, m *modelReader, got string) {
	if want := h.take(m); got != want {
		h.fatalf("subscription %d, partition %d: read %q, want %q", tr.sub, m.partition, got, want)
	}
}

// compare holds a reader's state in one partition against the model's.
func (h *history) compare(tr *testReader, m *modelReader) {
	states := tr.r.States()
	i := slices.IndexFunc(states, func(s SubState) bool { return s.Partition == m.partition })
	st := states[i]
	low := max(m.lowest, m.low)
	same := st.Next == m.next && st.Dropped == m.dropped && low <= st.Watermark && st.Watermark <= m.watermark && st.Idle == m.idle && len(st.Table) == len(m.table)
	for _, p := range st.Table {
		same = same && m.table[p.Producer] == p
	}
	if !same {
		h.fatalf("subscription %d stands at %+v\nwant %+v", tr.sub, st, *m)
	}
	m.watermark, m.lowest = st.Watermark, st.Watermark
}

// commit makes a reader's place part of a frame; roundTrip is what its epoch would hold.
func (h *history) commit(tr *testReader) {
	var states []SubState
	for _, st := range tr.r.States() {
		back, err := DecodeSubState(AppendSubState(nil, st))
		h.must(err)
		switch h.fault {
		case "a place is one frame ahead":
			back.Marks++
		case "a place is one record ahead":
			back.Next++
		case "the watermark is not restored":
			back.Watermark = NoWatermark
		case "the table is not restored":
			back.Table = nil
		case "what was dropped is not counted":
			back.Dropped = 0
		}
		states = append(states, back)
	}
	c := modelCommit{tr.sub, states}
	lsn := h.frame(modelFrame{commit: &c}, wal.Section{Kind: 0x20})
	h.bus.Passed(tr.sub, states, false)
	h.passes = append(h.passes, modelPass{lsn, c})
	tr.saved = append(tr.saved, savedReader{lsn, states, cloneModels(tr.models)})
}

// restart begins a reader again from its newest commit, as a job that failed does.
func (h *history) restart(tr *testReader) {
	h.must(tr.r.Close())
	s := tr.saved[len(tr.saved)-1]
	tr.models = cloneModels(s.models)
	tr.r = h.bus.NewReader(tr.sub, tr.topic, s.states, func() {})
	h.count["restarts"]++
}

// crash loses what is not durable, and recovers the bus from the newest catalog and the frames behind it.
func (h *history) crash() {
	h.log.crash()
	h.frames = h.frames[:h.log.durable]
	h.passes = nil
	for len(h.gens) > 0 && h.gens[len(h.gens)-1] > h.log.durable {
		h.gens = h.gens[:len(h.gens)-1]
	}
	for id, parts := range h.next {
		for p := range parts {
			parts[p] = h.offsetAt(id, p, h.log.durable+1)
		}
	}
	clear(h.floors)
	for _, f := range h.frames {
		h.noteFloors(f.drops)
	}
	was := h.bus
	h.disk.mem = h.disk.mem.Crash(h.r)
	h.cfg.Store.Disk = h.disk
	h.bus = New(h.cfg, h.log)
	catalog := h.gens[len(h.gens)-1]
	h.must(h.bus.LoadCatalog(h.log.frames[catalog-1].sections[0].Body))
	h.bus.Generation(catalog)
	for _, id := range h.topics {
		h.must(h.bus.Define(id, was.Spec(id)))
	}
	for lsn := catalog + 1; lsn <= h.log.durable; lsn++ {
		h.fold(lsn)
	}
	h.must(h.bus.OpenStore(true))
	h.must(h.bus.SweepStore(h.bus.TakeGarbage()))
	h.count["crashes"]++
	kept := h.alive[:0]
	for _, tr := range h.alive {
		for len(tr.saved) > 0 && tr.saved[len(tr.saved)-1].lsn > h.log.durable {
			tr.saved = tr.saved[:len(tr.saved)-1]
		}
		if len(tr.saved) == 0 {
			h.must(tr.r.Close()) // its subscription never was
			continue
		}
		h.restart(tr)
		kept = append(kept, tr)
	}
	h.alive = kept
}

// fold is what recovery does with a frame.
func (h *history) fold(lsn wal.LSN) {
	m := h.frames[lsn-1]
	switch {
	case m.sub != nil:
		_, err := h.bus.Subscribe(m.sub.id, "s", m.sub.topic, Start{Earliest: true})
		h.must(err)
		h.bus.Passed(m.sub.id, m.sub.states, true)
	case m.commit != nil:
		h.bus.Passed(m.commit.id, m.commit.states, true)
	case m.drops != nil:
		h.bus.ApplyDrops(m.drops)
	case m.drop > 0:
		var ch StoreChange
		h.must(json.Unmarshal(m.store, &ch))
		h.bus.ApplyStore(ch)
		h.bus.Dropped(m.drop)
	case m.index:
		ss := h.log.frames[lsn-1].sections
		pubs, marks, err := DecodeIndex(ss[len(ss)-1].Body)
		h.must(err)
		switch h.fault {
		case "recovery forgets marks":
			marks = nil
		case "recovery forgets records":
			pubs = nil
		}
		h.bus.Replay(lsn, pubs, marks)
	}
}

// copyOut moves the oldest generations out of the log, as the runtime does where it has grown too long; a crash may come
// between any two steps, and a subscription while it copies.
func (h *history) copyOut() {
	if len(h.gens) < 2 {
		return
	}
	h.makeDurable(h.log.last())
	upTo := h.gens[1+h.r.IntN(len(h.gens)-1)]
	plan, err := h.bus.PlanCopy(upTo)
	h.must(err)
	ch := StoreChange{}
	if plan != nil {
		if ch, err = plan.Run(context.Background(), nil); err != nil {
			h.fatalf("copying: %w", err)
		}
		h.count["copies"]++
		switch h.r.IntN(6) {
		case 0:
			h.crash()
			h.count["copies that a crash cut"]++
			return
		case 1:
			h.subscribe()
		case 2:
			return // it is stopped
		}
		if plan.Stale() && h.fault != "stale copies count" {
			return
		}
	}
	switch h.fault {
	case "the log is cut without the store":
		ch = StoreChange{}
	case "the store keeps less than was copied":
		for i := range ch.Parts {
			ch.Parts[i].Size = min(ch.Parts[i].Size, segmentHeaderLen+60)
		}
	}
	h.must(h.dropTo(upTo, ch))
	if trim := h.bus.Trim(); len(trim.Parts) > 0 {
		h.count["trims"]++
		h.must(h.dropTo(0, trim))
	}
	if h.r.IntN(4) == 0 && h.gens[0] <= h.log.durable {
		h.crash()
	}
}
