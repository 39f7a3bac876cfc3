package bus

import (
	"fmt"
	"slices"

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
			if m := tr.models[st.Partition]; !ok || st.Partition != b.Partition {
				h.catchUp(m, st.Marks+1)
			}
		}
		if !ok {
			return
		}
		m := tr.models[b.Partition]
		h.catchUp(m, b.LSN)
		if b.Len() == 0 {
			h.step(tr, m, fmt.Sprintf("marks of %s", b.LSN))
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

// catchUp lets a model go over marks in generations that were dropped before the reader came to them: it takes up what they
// came to.
func (h *history) catchUp(m *modelReader, lsn wal.LSN) {
	first := h.gens[0]
	if lsn <= first || m.lsn >= first || h.peek(m) >= first {
		return
	}
	m.lsn, m.item, m.record = first, 0, 0
	m.table = h.tableAt(m.topic, first)
	m.settle()
	h.count["tables taken up"]++
}

// peek returns the frame of the model's next item.
func (h *history) peek(m *modelReader) wal.LSN {
	c := m.clone()
	if h.take(&c) == "" {
		return h.log.last() + 1
	}
	return c.lsn
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
	same := st.Next == m.next && st.Watermark == m.watermark && st.Idle == m.idle && len(st.Table) == len(m.table)
	for _, p := range st.Table {
		same = same && m.table[p.Producer] == p
	}
	if !same {
		h.fatalf("subscription %d stands at %+v\nwant %+v", tr.sub, st, *m)
	}
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
	was := h.bus
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
	case m.drop > 0:
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
