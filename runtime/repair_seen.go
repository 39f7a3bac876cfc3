package runtime

import (
	"cmp"
	"maps"
	"slices"

	"github.com/sidestream-dev/sidestream/bus"
	"github.com/sidestream-dev/sidestream/checkpoint"
	"github.com/sidestream-dev/sidestream/wal"
)

// place is a partition of a topic.
type place struct {
	topic     bus.TopicID
	partition int
}

// seenFrames is how far the frames that a repair removes had come, as far as they can be read.
type seenFrames struct {
	epochs map[uint32]checkpoint.Epoch // by job
	next   map[place]bus.Offset        // behind the last record
	sent   map[bus.SubID]bus.Offset
	jobs   map[uint32]string
	topics map[bus.TopicID]string
	id     uint32 // the highest

	catalog catalogRead // that is being read
}

func newSeenFrames() *seenFrames {
	return &seenFrames{epochs: map[uint32]checkpoint.Epoch{}, next: map[place]bus.Offset{}, sent: map[bus.SubID]bus.Offset{},
		jobs: map[uint32]string{}, topics: map[bus.TopicID]string{}}
}

// take notes what a frame says. What cannot be decoded says nothing.
func (s *seenFrames) take(fr frame) error {
	if fr.Kind() != wal.KindCatalogPart {
		s.end()
	}
	if part, err := s.catalog.take(fr); part || err != nil {
		return err
	}
	for i := range fr.Len() {
		kind := fr.Section(i).Kind
		if kind == checkpoint.SectionState || kind == bus.SectionRecords {
			continue
		}
		body, err := fr.Body(i)
		if err != nil {
			return err
		}
		switch kind {
		case checkpoint.SectionHeader:
			if h, err := checkpoint.DecodeHeader(body); err == nil && fr.Kind() == kindEpoch {
				s.epochs[h.Job] = max(s.epochs[h.Job], h.Epoch)
				s.id = max(s.id, h.Job)
			}
		case bus.SectionIndex:
			pubs, _, _ := bus.DecodeIndex(body)
			for _, p := range pubs {
				s.written(place{p.Topic, p.Partition}, p.Base+bus.Offset(p.Count))
			}
		case sectionControl:
			if c, err := decodeControl(body); err == nil {
				s.changed(c)
			}
		}
	}
	return nil
}

// end notes what the catalog says whose last frame was taken, if there is one.
func (s *seenFrames) end() {
	c := s.catalog
	if s.catalog = (catalogRead{}); c.at == 0 {
		return
	}
	if l, err := decodeLedger(c.ledger); err == nil {
		s.ledger(l)
	}
	b := bus.New(bus.Config{}, nil)
	if b.LoadCatalog(c.bus) == nil {
		s.stats(b.Stats())
	}
}

func (s *seenFrames) written(at place, next bus.Offset) {
	s.next[at] = max(s.next[at], next)
	s.id = max(s.id, uint32(at.topic))
}

func (s *seenFrames) changed(c *control) {
	for _, t := range c.Topics {
		s.topics[t.ID] = t.Spec.Name
		s.id = max(s.id, uint32(t.ID))
	}
	for _, j := range c.Jobs {
		if j.Name != "" {
			s.jobs[j.ID] = j.Name
		}
		s.ids(j.ID, j.Inputs, j.Outputs)
	}
	for _, sent := range c.Sent {
		s.sent[sent.Sub] = max(s.sent[sent.Sub], sent.Next)
	}
}

func (s *seenFrames) ids(job uint32, ins []inputEntry, outs []outputEntry) {
	s.id = max(s.id, job)
	for _, in := range ins {
		s.id = max(s.id, uint32(in.Sub))
	}
	for _, o := range outs {
		s.id = max(s.id, uint32(o.Topic), uint32(o.Sub))
	}
}

// ledger takes a catalog that is removed.
func (s *seenFrames) ledger(l *ledger) {
	for id, j := range l.Jobs {
		s.epochs[id] = max(s.epochs[id], j.Epoch)
		s.jobs[id] = j.Name
		for _, o := range j.Outputs {
			s.sent[o.Sub] = max(s.sent[o.Sub], o.Sent.Next)
		}
	}
	s.id = max(s.id, l.NextID)
}

func (s *seenFrames) stats(topics []bus.TopicStat) {
	for _, t := range topics {
		s.topics[t.ID] = t.Name
		for i, p := range t.Partitions {
			s.written(place{t.ID, i}, p.Next)
		}
	}
}

// places lists the partitions that were written, in order.
func (s *seenFrames) places() []place {
	return slices.SortedFunc(maps.Keys(s.next), func(a, b place) int {
		return cmp.Or(cmp.Compare(a.topic, b.topic), cmp.Compare(a.partition, b.partition))
	})
}
