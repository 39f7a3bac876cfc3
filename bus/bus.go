package bus

import (
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sidestream-dev/sidestream/wal"
)

// Config tunes a Bus; the zero value is a good one. The callbacks run on the goroutine of whoever brought the change about,
// without a lock.
type Config struct {
	MemoryBytes  int64                                               // of each topic that stay in memory for live readers once durable; 0 means 16 MiB
	OnRoom       func(TopicID)                                       // a topic that was full is not any more, or is so by another subscription
	OnNearlyFull func(topic TopicID, name, who string, fill float64) // a subscription is 80 % of the limit behind; said once until it has read on
	Now          func() time.Time                                    // by which Retention.MaxAge is counted; nil means time.Now
	Store        StoreConfig                                         // of the topic store; without a Dir there is none
	Logger       *slog.Logger                                        // nil logs nothing
}

const nearlyFull = 0.8

// Bus is the topics of one process. See the package comment for who may call what.
type Bus struct {
	cfg   Config
	log   Log
	store *storeDir // nil without one

	storeFailed atomic.Pointer[wal.FailedError] // the disk did not take what it was given
	garbage     Garbage                         // what the store has let go and the disk still holds

	mu      sync.RWMutex // of the maps; a partition has its own
	topics  map[TopicID]*topic
	byName  map[string]TopicID
	subs    map[SubID]*subscription
	gens    []*generation // in use, oldest first
	asOf    int64         // when the newest catalog was made, Unix ms
	visible atomic.Uint64 // LSN of the last frame published

	touched []*partition // apply's own
	news    []news
}

// topic is one topic. Readers have tables of producers of their own. What may change is guarded by the Bus's mu.
type topic struct {
	id        TopicID
	name      string
	spec      TopicSpec
	parts     []*partition
	producers []ProducerMark // as of the last frame, by id
	written   atomic.Bool    // it has or had producers, whose marks are in the partitions
	removed   atomic.Bool
	subs      []*subscription
	behind    *subscription // the one furthest behind, as of the last look; nil without any
	full      bool          // it holds its writers back
	over      bool          // it drops the oldest, and somebody is behind by the limit
	said      bool          // of some subscription: nearly full
}

// generation is what a catalog's frame says of where each partition stood.
type generation struct {
	first  wal.LSN
	at     int64 // when it began, Unix ms
	topics map[TopicID]genTopic
}

type genTopic struct {
	Next   []Offset
	Bytes  []int64 // ever written
	Table  []ProducerMark
	exists bool
}

// New returns a Bus without topics, whose cold records lie in log.
func New(cfg Config, log Log) *Bus {
	if cfg.MemoryBytes == 0 {
		cfg.MemoryBytes = 16 << 20
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	var store *storeDir
	if cfg.Store.Dir != "" {
		store = newStoreDir(cfg.Store)
	}
	return &Bus{cfg: cfg, log: log, store: store, topics: map[TopicID]*topic{}, byName: map[string]TopicID{}, subs: map[SubID]*subscription{}}
}

// Define makes a topic, or gives one that is there the properties of spec; its name and partitions stay.
func (b *Bus) Define(id TopicID, spec TopicSpec) error {
	if err := spec.Check(); err != nil {
		return err
	}
	b.mu.Lock()
	n, err := b.define(id, spec)
	b.mu.Unlock()
	b.tell(n)
	return err
}

func (b *Bus) define(id TopicID, spec TopicSpec) (news, error) {
	if err := b.checkDefine(id, spec); err != nil {
		return news{}, err
	}
	t := b.topics[id]
	if t == nil {
		b.addTopic(id, spec)
		return news{}, nil
	}
	t.spec = spec
	return b.look(t), nil
}

// CheckDefine returns the error that Define would give, and changes nothing.
func (b *Bus) CheckDefine(id TopicID, spec TopicSpec) error {
	if err := spec.Check(); err != nil {
		return err
	}
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.checkDefine(id, spec)
}

func (b *Bus) checkDefine(id TopicID, spec TopicSpec) error {
	if other, ok := b.byName[spec.Name]; ok && other != id {
		return fmt.Errorf("bus: topic %s has the id %d already", spec.Name, other)
	}
	switch t := b.topics[id]; {
	case t == nil:
	case spec.Name != t.name:
		return fmt.Errorf("bus: the topic of id %d is called %s; it cannot become %s", id, t.name, spec.Name)
	case spec.partitions() != len(t.parts):
		return &ConflictError{Topic: spec.Name, Field: "partitions", Have: len(t.parts), Say: spec.partitions()}
	}
	return nil
}

func newTopic(id TopicID, spec TopicSpec) *topic {
	t := &topic{id: id, name: spec.Name, spec: spec, parts: make([]*partition, spec.partitions())}
	for i := range t.parts {
		t.parts[i] = newPartition(i)
	}
	return t
}

func (b *Bus) addTopic(id TopicID, spec TopicSpec) *topic {
	t := newTopic(id, spec)
	b.topics[id], b.byName[spec.Name] = t, id
	return t
}

// Remove takes a topic away with its records and subscriptions. Its readers find it ended.
func (b *Bus) Remove(id TopicID) {
	b.mu.Lock()
	t := b.topics[id]
	if t == nil {
		b.mu.Unlock()
		return
	}
	delete(b.topics, id)
	delete(b.byName, t.name)
	for _, s := range t.subs {
		delete(b.subs, s.id)
	}
	t.removed.Store(true)
	t.subs = nil
	b.garbage.topics = append(b.garbage.topics, id)
	n := b.look(t)
	b.mu.Unlock()
	b.tell(n)
	for _, p := range t.parts {
		p.wake()
	}
}

func (b *Bus) topic(id TopicID) *topic {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.topics[id]
}

// TopicByName returns the id of a topic.
func (b *Bus) TopicByName(name string) (TopicID, bool) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	id, ok := b.byName[name]
	return id, ok
}

// Spec returns how a topic is defined; the zero TopicSpec if it is not there.
func (b *Bus) Spec(id TopicID) TopicSpec {
	b.mu.RLock()
	defer b.mu.RUnlock()
	if t := b.topics[id]; t != nil {
		return t.spec
	}
	return TopicSpec{}
}

// Partitions returns how many partitions a topic has; 0 if it is not there.
func (b *Bus) Partitions(id TopicID) int {
	if t := b.topic(id); t != nil {
		return len(t.parts)
	}
	return 0
}

// Next returns the offset that the next record of a partition gets.
func (b *Bus) Next(id TopicID, partition int) Offset {
	t := b.topic(id)
	if t == nil || partition >= len(t.parts) {
		return 0
	}
	p := t.parts[partition]
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.next
}

// Producers returns the producers that a topic has now.
func (b *Bus) Producers(id TopicID) []ProducerID {
	b.mu.RLock()
	defer b.mu.RUnlock()
	var out []ProducerID
	if t := b.topics[id]; t != nil {
		for _, p := range t.producers {
			out = append(out, p.Producer)
		}
	}
	return out
}

// Written reports whether a topic has, or ever had, a producer. Where it had and has none left, its readers end once they
// have taken all of it.
func (b *Bus) Written(id TopicID) bool {
	b.mu.RLock()
	defer b.mu.RUnlock()
	t := b.topics[id]
	return t != nil && t.written.Load()
}

// Assign sets the Base of each publication to the offset it will have if it is published next. Nothing else changes until
// Publish, so that an epoch that finds no room leaves no trace.
func (b *Bus) Assign(pubs []Publication) {
	for i := range pubs {
		p := &pubs[i]
		p.Bytes = int64(len(p.Data))
		if p.Latest == 0 {
			b := Batch{data: p.Data, To: p.Count}
			p.Latest = b.latest(NoTime)
		}
		p.Base = b.Next(p.Topic, p.Partition)
		for k := i - 1; k >= 0; k-- {
			if pubs[k].Topic == p.Topic && pubs[k].Partition == p.Partition {
				p.Base = pubs[k].Base + Offset(pubs[k].Count)
				break
			}
		}
	}
}

// Publish makes the records and marks of the frame at lsn visible to live readers, in the order of LSNs.
func (b *Bus) Publish(lsn wal.LSN, pubs []Publication, marks []Mark) {
	b.apply(lsn, pubs, marks, true)
}

// Replay does the same for a frame that recovery reads: readers find its records in the log.
func (b *Bus) Replay(lsn wal.LSN, pubs []Publication, marks []Mark) {
	b.apply(lsn, pubs, marks, false)
}

func (b *Bus) apply(lsn wal.LSN, pubs []Publication, marks []Mark, memory bool) {
	touched, told := b.touched[:0], b.news[:0]
	b.mu.Lock()
	for i := range pubs {
		pub := &pubs[i]
		t := b.topics[pub.Topic]
		if t == nil || pub.Partition >= len(t.parts) {
			continue // of a topic that was removed
		}
		p := t.parts[pub.Partition]
		p.add(lsn, pub, memory)
		touched = append(touched, p)
		if i+1 == len(pubs) || pubs[i+1].Topic != pub.Topic {
			told = append(told, b.look(t))
			if !memory {
				t.unsay()
				told = told[:0]
			}
		}
	}
	for i := range marks {
		if id := marks[i].Topic; !slices.ContainsFunc(marks[:i], func(m Mark) bool { return m.Topic == id }) {
			touched = b.applyMarks(lsn, id, marks[i:], memory, touched)
		}
	}
	b.visible.Store(uint64(lsn))
	b.mu.Unlock()
	for _, n := range told {
		b.tell(n)
	}
	for _, p := range touched {
		p.wake()
	}
	clear(touched)
	b.touched, b.news = touched[:0], told[:0]
}

// applyMarks takes those of marks that a topic is given, all of a frame as one item.
func (b *Bus) applyMarks(lsn wal.LSN, id TopicID, marks []Mark, memory bool, touched []*partition) []*partition {
	t := b.topics[id]
	if t == nil {
		return touched
	}
	var own []Mark
	some := false
	for _, m := range marks {
		if m.Topic == id {
			m = m.normal()
			own = append(own, m)
			t.producers = applyMark(t.producers, m)
			some = some || len(t.producers) > 0
		}
	}
	for _, p := range t.parts {
		p.addMarks(lsn, own, memory)
		touched = append(touched, p)
	}
	if some {
		t.written.Store(true) // no reader may see it before the marks
	}
	return touched
}

// Durable says that every frame up to lsn is durable: memory beyond what is kept for live readers is given back.
func (b *Bus) Durable(lsn wal.LSN) {
	b.mu.RLock()
	ts := slices.Collect(maps.Values(b.topics))
	b.mu.RUnlock()
	for _, t := range ts {
		for _, p := range t.parts {
			p.evict(lsn, b.cfg.MemoryBytes/int64(len(t.parts)))
		}
	}
}

// Generation says that the frame at first is a catalog, the one that AppendCatalog wrote or LoadCatalog read last: what it
// holds is remembered as where every partition stood.
func (b *Bus) Generation(first wal.LSN) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if n := len(b.gens); n > 0 && b.gens[n-1].first >= first {
		return
	}
	b.gens = append(b.gens, b.stand(first))
}

// stand describes where every partition stands now.
func (b *Bus) stand(first wal.LSN) *generation {
	g := &generation{first: first, at: b.asOf, topics: map[TopicID]genTopic{}}
	for id, t := range b.topics {
		gt := genTopic{Table: slices.Clone(t.producers), exists: true}
		for _, p := range t.parts {
			p.mu.Lock()
			gt.Next, gt.Bytes = append(gt.Next, p.next), append(gt.Bytes, p.total)
			p.mu.Unlock()
		}
		g.topics[id] = gt
	}
	return g
}

// Dropped says that the generations that end before the LSN before are gone.
func (b *Bus) Dropped(before wal.LSN) {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := 0
	for n+1 < len(b.gens) && b.gens[n+1].first <= before {
		n++
	}
	b.gens = slices.Delete(b.gens, 0, n)
	if len(b.gens) == 0 {
		return
	}
	for id, t := range b.topics {
		gt := b.gens[0].topics[id]
		for i, p := range t.parts {
			if gt.exists {
				p.dropLog(gt.Next[i])
			}
		}
	}
}
