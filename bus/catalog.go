package bus

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/sidestream-dev/sidestream/wal"
)

// The catalog is JSON: it is written once a generation and read once at the start.
type catalogJSON struct {
	Version     int              `json:"version"`
	Visible     wal.LSN          `json:"visible"`
	Topics      []catalogTopic   `json:"topics"`
	Subs        []catalogSub     `json:"subs"`
	Generations []catalogGenJSON `json:"generations"`
}

type catalogTopic struct {
	ID        TopicID        `json:"id"`
	Spec      TopicSpec      `json:"spec"`
	Next      []Offset       `json:"next"`
	First     []Offset       `json:"first"`
	Bytes     []int64        `json:"bytes"`
	Producers []ProducerMark `json:"producers,omitempty"`
	Written   bool           `json:"written,omitempty"`
}

type catalogSub struct {
	ID    SubID            `json:"id"`
	Name  string           `json:"name"`
	Topic TopicID          `json:"topic"`
	Parts []catalogSubPart `json:"parts"`
}

type catalogSubPart struct {
	Sealed  Offset  `json:"sealed"`
	Durable Offset  `json:"durable"`
	Marks   wal.LSN `json:"marks"`
	Base    int64   `json:"base"`
}

type catalogGenJSON struct {
	First  wal.LSN              `json:"first"`
	Topics map[TopicID]genTopic `json:"topics"`
}

const catalogVersion = 1

// AppendCatalog appends all that the bus must know to do without older frames, but for the records in them.
func (b *Bus) AppendCatalog(dst []byte) []byte {
	b.mu.RLock()
	defer b.mu.RUnlock()
	c := catalogJSON{Version: catalogVersion, Visible: wal.LSN(b.visible.Load())}
	for _, id := range slices.Sorted(maps.Keys(b.topics)) {
		t := b.topics[id]
		ct := catalogTopic{ID: id, Spec: t.spec, Producers: t.producers, Written: t.written}
		for _, p := range t.parts {
			p.mu.Lock()
			ct.Next, ct.First, ct.Bytes = append(ct.Next, p.next), append(ct.First, p.first), append(ct.Bytes, p.total)
			p.mu.Unlock()
		}
		c.Topics = append(c.Topics, ct)
	}
	for _, id := range slices.Sorted(maps.Keys(b.subs)) {
		s := b.subs[id]
		cs := catalogSub{ID: id, Name: s.name, Topic: s.topic}
		for _, p := range s.parts {
			cs.Parts = append(cs.Parts, catalogSubPart{p.sealed, p.durable, p.marks, p.base})
		}
		c.Subs = append(c.Subs, cs)
	}
	for _, g := range b.gens {
		c.Generations = append(c.Generations, catalogGenJSON{g.first, g.topics})
	}
	out, err := json.Marshal(c)
	if err != nil {
		panic(fmt.Sprintf("bus: the catalog cannot be encoded: %v", err)) // it is made of numbers and checked names
	}
	return append(dst, out...)
}

// LoadCatalog makes an empty bus what AppendCatalog saw.
func (b *Bus) LoadCatalog(body []byte) error {
	var c catalogJSON
	if err := json.Unmarshal(body, &c); err != nil {
		return fmt.Errorf("bus: the catalog: %w", err)
	}
	if c.Version != catalogVersion {
		return fmt.Errorf("bus: a catalog of version %d is not known", c.Version)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.topics) > 0 {
		return fmt.Errorf("bus: a catalog needs an empty bus")
	}
	for _, ct := range c.Topics {
		if err := ct.Spec.check(); err != nil {
			return err
		}
		n := ct.Spec.partitions()
		if len(ct.Next) != n || len(ct.First) != n || len(ct.Bytes) != n {
			return fmt.Errorf("bus: the catalog has %d offsets for the %d partitions of topic %s", len(ct.Next), n, ct.Spec.Name)
		}
		t := b.addTopic(ct.ID, ct.Spec)
		t.producers, t.written = ct.Producers, ct.Written
		slices.SortFunc(t.producers, func(a, b ProducerMark) int { return cmp.Compare(a.Producer, b.Producer) })
		for i, p := range t.parts {
			p.next, p.first, p.total, p.lastGone = ct.Next[i], ct.First[i], ct.Bytes[i], c.Visible
		}
	}
	for _, cs := range c.Subs {
		t := b.topics[cs.Topic]
		if t == nil || len(cs.Parts) != len(t.parts) {
			return fmt.Errorf("bus: the catalog's subscription %s does not fit its topic", cs.Name)
		}
		s := &subscription{id: cs.ID, name: cs.Name, topic: cs.Topic}
		for _, p := range cs.Parts {
			s.parts = append(s.parts, subPart{p.Sealed, p.Durable, p.Marks, p.Base})
		}
		b.subs[cs.ID] = s
		t.subs = append(t.subs, s)
	}
	b.loadGenerations(c)
	b.visible.Store(uint64(c.Visible))
	return nil
}

// loadGenerations takes back where each generation began; with that every partition knows about how many bytes lie where.
func (b *Bus) loadGenerations(c catalogJSON) {
	for _, g := range c.Generations {
		gen := &generation{first: g.First, topics: map[TopicID]genTopic{}}
		for id, gt := range g.Topics {
			t := b.topics[id]
			if t == nil || len(gt.Next) != len(t.parts) || len(gt.Bytes) != len(t.parts) {
				continue
			}
			gt.exists = true
			gen.topics[id] = gt
			for i, p := range t.parts {
				p.points = append(p.points, point{gt.Next[i], gt.Bytes[i]})
			}
		}
		b.gens = append(b.gens, gen)
	}
}
