package bus

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync/atomic"

	"github.com/sidestream-dev/sidestream/wal"
)

// The catalog is JSON: it is written once a generation and read once at the start.
type catalogJSON struct {
	Version     int              `json:"version"`
	Visible     wal.LSN          `json:"visible"`
	At          int64            `json:"at"` // when it was made, Unix ms
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
	Gaps      [][]gap        `json:"gaps,omitempty"`  // by partition
	Store     []StorePart    `json:"store,omitempty"` // of partitions of which the store holds something
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
	Floor   Offset  `json:"floor,omitempty"`
	Marks   wal.LSN `json:"marks"`
	Base    int64   `json:"base"`
	Dropped uint64  `json:"dropped,omitempty"`
	Lost    []Lost  `json:"lost,omitempty"`
}

type catalogGenJSON struct {
	First  wal.LSN              `json:"first"`
	At     int64                `json:"at"`
	Topics map[TopicID]genTopic `json:"topics"`
}

const catalogVersion = 1

// AppendCatalog appends all that the bus must know to do without older frames, but for the records in them. Generation
// follows, once the catalog has its place in the log.
func (b *Bus) AppendCatalog(dst []byte) []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.asOf = b.cfg.Now().UnixMilli()
	c := catalogJSON{Version: catalogVersion, Visible: wal.LSN(b.visible.Load()), At: b.asOf}
	for _, id := range slices.Sorted(maps.Keys(b.topics)) {
		t := b.topics[id]
		ct := catalogTopic{ID: id, Spec: t.spec, Producers: t.producers, Written: t.written.Load()}
		for _, p := range t.parts {
			p.mu.Lock()
			ct.Next, ct.First, ct.Bytes = append(ct.Next, p.next), append(ct.First, p.first), append(ct.Bytes, p.total)
			if len(p.gaps) > 0 {
				if ct.Gaps == nil {
					ct.Gaps = make([][]gap, len(t.parts))
				}
				ct.Gaps[p.number] = slices.Clone(p.gaps)
			}
			if p.stored.First != 0 {
				ct.Store = append(ct.Store, p.stored)
			}
			p.mu.Unlock()
		}
		c.Topics = append(c.Topics, ct)
	}
	for _, id := range slices.Sorted(maps.Keys(b.subs)) {
		s := b.subs[id]
		cs := catalogSub{ID: id, Name: s.name, Topic: s.topic}
		for _, p := range s.parts {
			cs.Parts = append(cs.Parts, catalogSubPart{p.sealed, p.durable, Offset(p.floor.Load()), p.marks, p.base, p.lost.records, p.lost.ranges})
		}
		c.Subs = append(c.Subs, cs)
	}
	for _, g := range b.gens {
		c.Generations = append(c.Generations, catalogGenJSON{g.first, g.at, g.topics})
	}
	out, err := json.Marshal(c)
	if err != nil {
		panic(fmt.Sprintf("bus: the catalog cannot be encoded: %v", err)) // it is made of numbers and checked names
	}
	return append(dst, out...)
}

// LoadCatalog makes an empty bus what AppendCatalog saw. After an error the bus is of no use.
func (b *Bus) LoadCatalog(body []byte) error {
	var c catalogJSON
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(&c); err != nil {
		return fmt.Errorf("bus: the catalog: %w", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return fmt.Errorf("bus: the catalog: %w", errRest)
	}
	if c.Version != catalogVersion {
		return fmt.Errorf("bus: a catalog of version %d is not known; %d is", c.Version, catalogVersion)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.topics) > 0 {
		return fmt.Errorf("bus: a catalog needs an empty bus")
	}
	for _, ct := range c.Topics {
		if err := b.loadTopic(ct, c.Visible); err != nil {
			return err
		}
	}
	for _, cs := range c.Subs {
		if err := b.loadSub(cs); err != nil {
			return err
		}
	}
	if err := b.loadGenerations(c); err != nil {
		return err
	}
	for _, ct := range c.Topics {
		t := b.topics[ct.ID]
		if len(ct.Gaps) != 0 && len(ct.Gaps) != len(t.parts) {
			return fmt.Errorf("bus: the catalog's gaps do not fit topic %s", t.name)
		}
		for i, gaps := range ct.Gaps {
			if !t.parts[i].loadGaps(gaps) {
				return fmt.Errorf("bus: the catalog's gaps in partition %d of topic %s are not in order", i, t.name)
			}
		}
	}
	b.asOf = c.At
	b.visible.Store(uint64(c.Visible))
	for _, t := range b.topics {
		b.look(t)
		t.unsay()
	}
	return nil
}

func (b *Bus) loadTopic(ct catalogTopic, visible wal.LSN) error {
	if err := ct.Spec.Check(); err != nil {
		return fmt.Errorf("bus: the catalog: %w", err)
	}
	n := ct.Spec.partitions()
	_, named := b.byName[ct.Spec.Name]
	switch {
	case named || b.topics[ct.ID] != nil:
		return fmt.Errorf("bus: the catalog has two topics called %s, or of id %d", ct.Spec.Name, ct.ID)
	case len(ct.Next) != n || len(ct.First) != n || len(ct.Bytes) != n:
		return fmt.Errorf("bus: the catalog has %d, %d and %d numbers for the %d partitions of topic %s",
			len(ct.Next), len(ct.First), len(ct.Bytes), n, ct.Spec.Name)
	case !sorted(ct.Producers):
		return fmt.Errorf("bus: the catalog's producers of topic %s are not in ascending order", ct.Spec.Name)
	}
	t := b.addTopic(ct.ID, ct.Spec)
	t.producers = ct.Producers
	t.written.Store(ct.Written)
	for i, p := range t.parts {
		if ct.First[i] > ct.Next[i] || ct.Bytes[i] < 0 {
			return fmt.Errorf("bus: the catalog has offsets %s to %s and %d bytes for partition %d of topic %s",
				ct.First[i], ct.Next[i], ct.Bytes[i], i, ct.Spec.Name)
		}
		p.next, p.first, p.total, p.lastGone = ct.Next[i], ct.First[i], ct.Bytes[i], visible
	}
	for _, part := range ct.Store {
		if part.Topic != ct.ID || part.Partition < 0 || part.Partition >= n || part.Next > ct.Next[part.Partition] {
			return fmt.Errorf("bus: the catalog's store of topic %s does not fit it: %+v", ct.Spec.Name, part)
		}
		t.parts[part.Partition].stored = part
	}
	return nil
}

// sorted reports whether a table is one that applyMark can have made.
func sorted(table []ProducerMark) bool {
	for i := 1; i < len(table); i++ {
		if table[i].Producer <= table[i-1].Producer {
			return false
		}
	}
	return true
}

func (b *Bus) loadSub(cs catalogSub) error {
	t := b.topics[cs.Topic]
	if t == nil || len(cs.Parts) != len(t.parts) || b.subs[cs.ID] != nil {
		return fmt.Errorf("bus: the catalog's subscription %d, %s, does not fit its topic, or is there twice", cs.ID, cs.Name)
	}
	s := &subscription{id: cs.ID, name: cs.Name, topic: cs.Topic}
	for i, p := range cs.Parts {
		if p.Durable > p.Sealed || p.Base < 0 || p.Base > t.parts[i].total {
			return fmt.Errorf("bus: the catalog's subscription %s has durable %s, sealed %s and base %d in partition %d",
				cs.Name, p.Durable, p.Sealed, p.Base, i)
		}
		if p.Floor > t.parts[i].next {
			return fmt.Errorf("bus: the catalog lets go of records before %s for subscription %s, in partition %d, where %s is next", p.Floor, cs.Name, i, t.parts[i].next)
		}
		if slices.ContainsFunc(p.Lost, func(l Lost) bool { return l.From >= l.To || l.To > t.parts[i].next }) {
			return fmt.Errorf("bus: the catalog says that subscription %s lost %v of partition %d, where %s is next", cs.Name, p.Lost, i, t.parts[i].next)
		}
		lost := account{p.Dropped, p.Lost}
		part := subPart{sealed: p.Sealed, durable: p.Sealed, floor: new(atomic.Uint64), marks: p.Marks, base: p.Base, lost: lost, counted: lost} // a catalog that is read is durable
		part.floor.Store(uint64(p.Floor))
		s.parts = append(s.parts, part)
	}
	b.subs[cs.ID] = s
	t.subs = append(t.subs, s)
	return nil
}

// loadGenerations takes back where each generation began; with that every partition knows about how many bytes lie where.
func (b *Bus) loadGenerations(c catalogJSON) error {
	for k, g := range c.Generations {
		if k > 0 && g.First <= c.Generations[k-1].First {
			return fmt.Errorf("bus: the catalog's generations %s and %s are out of order", c.Generations[k-1].First, g.First)
		}
		gen := &generation{first: g.First, at: g.At, topics: map[TopicID]genTopic{}}
		for id, gt := range g.Topics {
			t := b.topics[id]
			if t == nil {
				continue // removed since
			}
			if len(gt.Next) != len(t.parts) || len(gt.Bytes) != len(t.parts) || !sorted(gt.Table) {
				return fmt.Errorf("bus: the catalog's generation %s does not fit topic %s", g.First, t.name)
			}
			gt.exists = true
			gen.topics[id] = gt
			for i, p := range t.parts {
				at := point{gt.Next[i], gt.Bytes[i]}
				if n := len(p.points); at.offset > p.next || at.bytes > p.total || n > 0 && (at.offset < p.points[n-1].offset || at.bytes < p.points[n-1].bytes) {
					return fmt.Errorf("bus: the catalog's generation %s goes back in partition %d of topic %s", g.First, i, t.name)
				}
				p.points = append(p.points, at)
			}
		}
		b.gens = append(b.gens, gen)
	}
	return nil
}
