package bus

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/sidestream-dev/sidestream/internal/crashfs"
	"github.com/sidestream-dev/sidestream/wal"
)

// The naive twin of a bus: the whole history as a list of frames, and readers that walk over it.

type modelFrame struct {
	pubs  []modelPub
	marks []Mark
	// What the runtime would hold in the frame, to be folded again by recovery.
	sub    *modelSub
	commit *modelCommit
	drop   wal.LSN
	store  []byte // JSON of a StoreChange
	drops  []Drop
	index  bool // it has one, and was or will be published
}

type modelPub struct {
	topic     TopicID
	partition int
	base      Offset
	values    []string
}

type modelSub struct {
	id     SubID
	topic  TopicID
	states []SubState
}

type modelCommit struct {
	id     SubID
	states []SubState
}

// modelReader is a place in one partition.
type modelReader struct {
	topic     TopicID
	partition int
	lsn       wal.LSN // frame whose items come next
	item      int     // of it, done
	record    int     // of the item, done
	next      Offset
	table     map[ProducerID]ProducerMark
	watermark int64
	low       int64 // of the table
	lowest    int64 // a reader that took up a table has not seen what lay before it: its watermark is between the two
	idle      bool
	dropped   uint64 // records that it went over
}

func (m modelReader) clone() modelReader {
	t := map[ProducerID]ProducerMark{}
	for k, v := range m.table {
		t[k] = v
	}
	m.table = t
	return m
}

// hear applies one mark by the words of the design.
func hear(table map[ProducerID]ProducerMark, m Mark) {
	p, known := table[m.Producer]
	switch {
	case m.Leave:
		delete(table, m.Producer)
		return
	case m.Join:
		if !known {
			table[m.Producer] = ProducerMark{Producer: m.Producer, Watermark: NoWatermark}
		}
		return
	case !known:
		p = ProducerMark{Producer: m.Producer, Watermark: NoWatermark}
	}
	if p.Idle = m.Idle; !m.Idle && m.Watermark > p.Watermark {
		p.Watermark = m.Watermark
	}
	table[m.Producer] = p
}

func (m *modelReader) settle() {
	low, active := int64(0), 0
	for _, p := range m.table {
		if p.Idle {
			continue
		}
		if active == 0 || p.Watermark < low {
			low = p.Watermark
		}
		active++
	}
	if m.idle = active == 0 && len(m.table) > 0; active > 0 && low > m.watermark {
		m.watermark = low
	}
	if m.low = NoWatermark; active > 0 {
		m.low = low
	}
}

// history is a bus with its log and its naive twin.
type history struct {
	r     *rand.Rand
	fault string // what is done wrong on purpose

	cfg    Config
	disk   crashDisk
	log    *memLog
	bus    *Bus
	frames []modelFrame // by LSN - 1
	gens   []wal.LSN    // in use
	next   map[TopicID][]Offset
	topics []TopicID
	subs   int
	values int
	passes []modelPass
	floors map[modelFloor]Offset
	alive  []*testReader
	wm     int64
	count  map[string]int // what the run has tried
}

type modelPass struct {
	lsn wal.LSN
	modelCommit
}

// testReader is a reader of the bus with the models that it must agree with.
type testReader struct {
	sub    SubID
	topic  TopicID
	r      *Reader
	models map[int]*modelReader
	saved  []savedReader // at each commit that may yet be lost, oldest first
}

type savedReader struct {
	lsn    wal.LSN
	states []SubState
	models map[int]*modelReader
}

// wrong is what a history panics with when the bus and the model disagree.
type wrong struct{ error }

func (h *history) fatalf(format string, args ...any) { panic(wrong{fmt.Errorf(format, args...)}) }

// tryHistory runs one history and returns where it went wrong.
func tryHistory(r *rand.Rand, fault string) (count map[string]int, err error) {
	h := newHistory(r, fault)
	defer func() {
		if p := recover(); p != nil {
			w, ok := p.(wrong)
			if !ok {
				panic(p)
			}
			err = w.error
		}
	}()
	h.run(40 + r.IntN(200))
	return h.count, nil
}

func newHistory(r *rand.Rand, fault string) *history {
	h := &history{r: r, fault: fault, log: &memLog{}, next: map[TopicID][]Offset{}, floors: map[modelFloor]Offset{}, count: map[string]int{}}
	h.cfg.MemoryBytes = []int64{1, 300, 3000, 1 << 20}[r.IntN(4)]
	h.disk = crashDisk{mem: crashfs.New(), noSync: fault == "the store is not synced", noSyncDir: fault == "the store's folders are not synced"}
	h.cfg.Store = StoreConfig{Dir: "/topics", Disk: h.disk, SegmentBytes: []int64{200, 1000, 1 << 20}[r.IntN(3)]}
	h.bus = New(h.cfg, h.log)
	h.rotate()
	for id := range TopicID(2) {
		id++
		spec := TopicSpec{Name: fmt.Sprint("t", id), Partitions: 1 + r.IntN(3), Retention: Retention{MaxBytes: []int64{KeepNothing, 1, 500, 1 << 20}[r.IntN(4)]}}
		if r.IntN(2) == 0 {
			spec.OnFull, spec.Limit = DropOldest, 40+r.Int64N(400)
		}
		h.must(h.bus.Define(id, spec))
		h.next[id] = make([]Offset, spec.Partitions)
		h.topics = append(h.topics, id)
	}
	return h
}

func (h *history) must(err error) {
	if err != nil {
		h.fatalf("%w", err)
	}
}

// frame appends to the log and to the model.
func (h *history) frame(m modelFrame, sections ...wal.Section) wal.LSN {
	h.frames = append(h.frames, m)
	return h.log.append(sections...)
}

func (h *history) rotate() {
	// What a generation begins with stands in its catalog, also for those who read the model from there on.
	lsn := h.frame(modelFrame{}, wal.Section{Kind: 0x32, Body: h.bus.AppendCatalog(nil)})
	h.bus.Generation(lsn)
	h.gens = append(h.gens, lsn)
	h.count["generations"]++
}

func (h *history) marks() (out []Mark) {
	for range h.r.IntN(4) {
		m := Mark{Topic: h.topics[h.r.IntN(2)], Producer: ProducerID(h.r.IntN(3))}
		switch h.r.IntN(8) {
		case 0:
			m.Join = true
		case 1:
			m.Leave = true
		case 2:
			m.Idle = true
		default:
			h.wm += int64(h.r.IntN(10)) - 2
			m.Watermark = h.wm
		}
		out = append(out, m)
	}
	return out
}

// epoch writes one, perhaps in parts with frames of others between them, and publishes it; readers may be faster.
func (h *history) epoch() {
	var pubs []Publication
	var values [][]string
	for range h.r.IntN(5) {
		topic := h.topics[h.r.IntN(2)]
		var b Builder
		var vs []string
		for range 1 + h.r.IntN(6) {
			h.values++
			vs = append(vs, fmt.Sprint("v", h.values))
			b.Append(Record{Value: []byte(vs[len(vs)-1]), Time: int64(h.r.IntN(1000))})
		}
		pubs = append(pubs, Publication{Topic: topic, Partition: h.r.IntN(len(h.next[topic])), Count: len(vs), Data: b.Bytes(), Payload: vs})
		values = append(values, vs)
	}
	written := h.writeParts(pubs)
	marks := h.marks()
	h.bus.Assign(pubs)
	var sections []wal.Section
	for i := written; i < len(pubs); i++ {
		pubs[i].Part, pubs[i].Section = 0, len(sections)
		sections = append(sections, wal.Section{Kind: SectionRecords, Owner: uint32(pubs[i].Topic), Body: pubs[i].Data})
	}
	m := modelFrame{marks: marks, index: true}
	for i, p := range pubs {
		next := &h.next[p.Topic][p.Partition]
		if p.Base != *next {
			h.fatalf("topic %d, partition %d: base %s, want %s", p.Topic, p.Partition, p.Base, *next)
		}
		*next += Offset(p.Count)
		m.pubs = append(m.pubs, modelPub{p.Topic, p.Partition, p.Base, values[i]})
	}
	lsn := h.frame(m, append(sections, wal.Section{Kind: SectionIndex, Body: AppendIndex(nil, pubs, marks)})...)
	if h.r.IntN(6) == 0 {
		h.log.setDurable(lsn) // before it is published: who reads the log is ahead
		h.readSome()
	}
	switch h.fault {
	case "marks are published before records":
		h.bus.Publish(lsn, nil, marks)
		marks = nil
	case "some epochs are not published":
		if h.r.IntN(20) == 0 {
			return
		}
	}
	h.bus.Publish(lsn, pubs, marks)
	h.dropOldest(pubs)
}

// writeParts writes the first of pubs as parts and returns how many.
func (h *history) writeParts(pubs []Publication) (written int) {
	for written < len(pubs) && h.r.IntN(3) == 0 {
		n := 1 + h.r.IntN(len(pubs)-written)
		sections := []wal.Section{{Kind: 0x20}}
		lsn := h.log.last() + 1
		for i := range n {
			p := &pubs[written+i]
			p.Part, p.Section = lsn, len(sections)
			sections = append(sections, wal.Section{Kind: SectionRecords, Owner: uint32(p.Topic), Body: p.Data})
		}
		h.frame(modelFrame{}, sections...)
		written += n
		h.count["parts"]++
		if h.r.IntN(3) == 0 {
			h.frame(modelFrame{}, wal.Section{Kind: 0x30}) // of somebody else
		}
	}
	return written
}

func (h *history) publishMarks() {
	marks := h.marks()
	h.bus.Publish(h.frame(modelFrame{marks: marks, index: true}, wal.Section{Kind: SectionIndex, Body: AppendIndex(nil, nil, marks)}), nil, marks)
}

func (h *history) makeDurable(lsn wal.LSN) {
	h.log.setDurable(lsn)
	if h.fault == "memory is given back before it is durable" {
		h.bus.Durable(h.log.last())
	}
	lsn = h.log.durable
	h.bus.Durable(lsn)
	n := 0
	for ; n < len(h.passes) && h.passes[n].lsn <= lsn; n++ {
		h.bus.Passed(h.passes[n].id, h.passes[n].states, true)
	}
	h.passes = h.passes[n:]
}

// drop cuts the log as the runtime does; half of the time everybody has read all but some marks.
func (h *history) drop() {
	if h.r.IntN(2) == 0 {
		for _, tr := range h.alive {
			h.read(tr, -1)
			h.commit(tr)
		}
		h.makeDurable(h.log.last())
		for range 3 {
			h.publishMarks()
		}
		h.rotate()
	}
	first := h.gens[len(h.gens)-1]
	if pins := h.bus.Pins(); len(pins) > 0 && h.fault != "what is pinned is dropped" {
		first = min(first, pins[0].LSN)
	}
	if h.fault != "what is pinned is dropped" {
		first = min(first, h.bus.Free())
	}
	h.must(h.dropTo(first, h.bus.Trim()))
}

// dropTo writes a frame that lets go what lies in the log before first, and what ch says of the store.
func (h *history) dropTo(first wal.LSN, ch StoreChange) error {
	n := 0
	for n+1 < len(h.gens) && h.gens[n+1] <= first {
		n++
	}
	if n == 0 && len(ch.Parts) == 0 {
		return nil
	}
	h.gens = h.gens[n:]
	b, err := json.Marshal(ch)
	h.must(err)
	if said := h.frame(modelFrame{drop: h.gens[0], store: b}, wal.Section{Kind: 0x30}); h.fault != "the log goes before the word of it is durable" {
		h.makeDurable(said)
	}
	h.bus.ApplyStore(ch)
	if h.fault != "the bus is not told of a drop" {
		h.bus.Dropped(h.gens[0])
	}
	h.log.drop(h.gens[0])
	h.count["drops"]++
	return h.bus.SweepStore(h.bus.TakeGarbage())
}

func (h *history) subscribe() {
	topic := h.topics[h.r.IntN(2)]
	first, end := h.bus.First(topic, 0), h.next[topic][0]
	start := []Start{{Earliest: true}, {Latest: true}, {At: first + Offset(h.r.IntN(int(end-first)+1))}}[h.r.IntN(3)]
	if len(h.next[topic]) > 1 && !start.Latest {
		start = Start{Earliest: true} // an offset is one of all partitions
	}
	h.subs++
	id := SubID(h.subs)
	states, err := h.bus.Subscribe(id, fmt.Sprint("s", id), topic, start)
	h.must(err)
	tr := &testReader{sub: id, topic: topic, models: map[int]*modelReader{}}
	for _, st := range states {
		m := h.modelAt(topic, start.Latest, st)
		if got, want := level(st.Watermark, st.Idle), level(m.watermark, m.idle); got != want {
			h.fatalf("subscription %d begins at %s, want %s", id, got, want)
		}
		tr.models[st.Partition] = &m
	}
	lsn := h.frame(modelFrame{sub: &modelSub{id, topic, states}}, wal.Section{Kind: 0x30})
	tr.saved = []savedReader{{lsn, states, cloneModels(tr.models)}}
	tr.r = h.bus.NewReader(id, topic, states, func() {})
	h.alive = append(h.alive, tr)
}

func cloneModels(ms map[int]*modelReader) map[int]*modelReader {
	out := map[int]*modelReader{}
	for p, m := range ms {
		c := m.clone()
		out[p] = &c
	}
	return out
}

// modelAt is a reader that begins at an offset: at the generation that holds it, with the table as of there; in the store
// it has not read the table yet.
func (h *history) modelAt(topic TopicID, latest bool, st SubState) modelReader {
	partition, at := st.Partition, st.Next
	m := modelReader{topic: topic, partition: partition, next: at, lsn: h.gens[0], watermark: NoWatermark, low: NoWatermark, lowest: NoWatermark}
	if st.Marks+1 < h.gens[0] && at < h.offsetAt(topic, partition, h.gens[0]) {
		m.lsn = st.Marks + 1
		h.count["starts in the store"]++
	}
	for _, g := range h.gens {
		if h.offsetAt(topic, partition, g) <= at || latest {
			m.lsn = max(m.lsn, g)
		}
	}
	if latest {
		m.lsn = h.log.last() + 1
	}
	m.table = h.tableAt(topic, m.lsn)
	m.settle()
	m.lowest = m.watermark
	return m
}

// offsetAt and tableAt are what stands before a frame.
func (h *history) offsetAt(topic TopicID, partition int, lsn wal.LSN) (next Offset) {
	for _, f := range h.frames[:lsn-1] {
		for _, p := range f.pubs {
			if p.topic == topic && p.partition == partition {
				next = p.base + Offset(len(p.values))
			}
		}
	}
	return next
}

func (h *history) tableAt(topic TopicID, lsn wal.LSN) map[ProducerID]ProducerMark {
	table := map[ProducerID]ProducerMark{}
	for _, f := range h.frames[:lsn-1] {
		for _, m := range f.marks {
			if m.Topic == topic {
				hear(table, m)
			}
		}
	}
	return table
}

func (h *history) run(steps int) {
	for range steps {
		switch n := h.r.IntN(100); {
		case n < 45:
			h.epoch()
		case n < 65:
			h.readSome()
		case n < 75:
			h.makeDurable(h.log.durable + wal.LSN(h.r.IntN(int(h.log.last()-h.log.durable)+1)))
		case n < 80 && len(h.alive) < 6:
			h.subscribe()
		case n < 84:
			h.rotate()
		case n < 86:
			h.drop()
		case n < 89:
			h.copyOut()
		case n < 94 && len(h.alive) > 0:
			h.commit(h.alive[h.r.IntN(len(h.alive))])
		case n < 98 && len(h.alive) > 0:
			h.restart(h.alive[h.r.IntN(len(h.alive))])
		case n == 99 && h.log.durable > 0 && h.gens[0] <= h.log.durable:
			h.crash()
		}
	}
	h.finish()
}

// finish reads everything to its end, with every reader and with new ones, live and cold.
func (h *history) finish() {
	check := func(how string, tr *testReader) {
		h.read(tr, -1)
		ended := true
		for _, m := range tr.models {
			h.catchUp(m, h.log.last()+1)
			if left := h.take(m); left != "" {
				h.fatalf("%s: subscription %d, partition %d ends before %q", how, tr.sub, m.partition, left)
			}
			h.compare(tr, m)
			ended = ended && len(m.table) == 0
		}
		if want := ended && h.bus.Written(tr.topic); tr.r.Ended() != want || !tr.r.CaughtUp() {
			h.fatalf("%s: subscription %d: ended %v, want %v; caught up %v", how, tr.sub, tr.r.Ended(), want, tr.r.CaughtUp())
		}
	}
	for _, tr := range h.alive {
		check("at the end", tr)
	}
	h.makeDurable(h.log.last())
	for _, how := range []string{"from memory", "from the log"} {
		for _, topic := range h.topics {
			h.subs++
			id := SubID(h.subs)
			states, err := h.bus.Subscribe(id, "all", topic, Start{Earliest: true})
			h.must(err)
			tr := &testReader{sub: id, topic: topic, models: map[int]*modelReader{}}
			for _, st := range states {
				m := h.modelAt(topic, false, st)
				tr.models[st.Partition] = &m
			}
			tr.r = h.bus.NewReader(id, topic, states, func() {})
			check(how, tr)
			h.bus.Unsubscribe(id)
			h.must(tr.r.Close())
		}
		for _, id := range h.topics {
			for _, p := range h.bus.topics[id].parts {
				p.evict(h.log.durable, 0)
			}
		}
	}
}

// TestHistory: a random history of epochs, parts, marks, evictions, generations, drops, failures and crashes, read by readers
// that come, lag and begin again, gives each of them exactly what a naive reading of the history gives.
func TestHistory(t *testing.T) {
	tried := map[string]int{}
	seeds(t, 60, func(t *testing.T, r *rand.Rand) {
		count, err := tryHistory(r, "")
		if err != nil {
			t.Fatal(err)
		}
		for k, n := range count {
			tried[k] += n
		}
	})
	t.Logf("%v", tried)
	for _, what := range []string{"generations", "parts", "drops", "live", "cold", "restarts", "crashes", "marks passed by a table",
		"drops of the oldest", "records dropped", "copies", "copies that a crash cut", "starts in the store", "read from the store", "trims"} {
		if tried[what] == 0 && envNumber(t, seedVariable) == 0 {
			t.Errorf("no %s were tried", what)
		}
	}
}

// TestHistoryFindsFaults: what is done wrong on purpose does not get through.
func TestHistoryFindsFaults(t *testing.T) {
	for _, fault := range []string{"memory is given back before it is durable", "what is pinned is dropped", "a place is one frame ahead",
		"a place is one record ahead", "the watermark is not restored", "the table is not restored", "recovery forgets marks",
		"recovery forgets records", "the bus is not told of a drop", "marks are published before records", "some epochs are not published",
		"the store is not synced", "the store's folders are not synced", "the log is cut without the store",
		"a drop is not in the log", "what was dropped is not counted", "a floor lies behind what its frame says", "the store keeps less than was copied"} {
		t.Run(fault, func(t *testing.T) {
			for seed := range uint64(200) {
				if _, err := tryHistory(rand.New(rand.NewPCG(seed, 1)), fault); err != nil {
					t.Logf("seed %d: %v", seed, err)
					return
				}
			}
			t.Error("not found in 200 histories")
		})
	}
}
