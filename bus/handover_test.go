package bus

import (
	"errors"
	"fmt"
	"math/rand/v2"
	goruntime "runtime"
	"sync"
	"testing"
	"time"

	"github.com/sidestream-dev/sidestream/wal"
)

// handover is one goroutine that writes a topic through a log, and many that read it at speeds of their own, so that they
// cross between memory and log all the while.
type handover struct {
	t          *testing.T
	bus        *Bus
	append     func(kind wal.FrameKind, sections []wal.Section) wal.LSN
	rotate     func() (wal.LSN, bool) // if it is due
	durable    func() wal.LSN
	drop       func(before wal.LSN)
	finish     func()
	partitions int
	epochs     int
	patience   time.Duration // that a reader waits to be woken
	calls      chan func()   // run by the writer, between two epochs
	over       chan struct{}
	gens       []wal.LSN
	written    []Offset
}

const handoverTopic = TopicID(1)

func (h *handover) begin() {
	if err := h.bus.Define(handoverTopic, TopicSpec{Name: "t", Partitions: h.partitions, Retention: Retention{MaxBytes: KeepNothing}}); err != nil {
		h.t.Fatal(err)
	}
	h.calls, h.over = make(chan func()), make(chan struct{})
	h.written = make([]Offset, h.partitions)
}

// write is the committer: it alone changes the bus.
func (h *handover) write(r *rand.Rand) {
	defer close(h.over)
	watermark := int64(0)
	h.publish(nil, nil, []Mark{join(1)})
	for i := range h.epochs {
		select {
		case f := <-h.calls:
			f()
		default:
		}
		if lsn, due := h.rotate(); due {
			h.bus.Generation(lsn)
			h.gens = append(h.gens, lsn)
			h.cut()
		}
		var pubs []Publication
		for range r.IntN(4) {
			p := r.IntN(h.partitions)
			var b Builder
			for range 1 + r.IntN(20) {
				b.Append(Record{Value: fmt.Appendf(nil, "%d/%d", p, h.written[p]), Time: watermark + int64(r.IntN(50))})
				h.written[p]++
			}
			pubs = append(pubs, Publication{Topic: handoverTopic, Partition: p, Count: b.Count(), Data: b.Bytes()})
		}
		var marks []Mark
		if r.IntN(3) == 0 {
			watermark++
			marks = []Mark{at(1, watermark)}
		}
		parts := pubs
		if r.IntN(3) != 0 {
			parts = nil
		}
		h.publish(pubs, parts, marks)
		h.bus.Durable(h.durable())
		if i%64 == 0 {
			goruntime.Gosched()
		}
	}
	h.publish(nil, nil, []Mark{leave(1)})
	h.finish()
	h.bus.Durable(h.durable())
}

// publish writes one epoch; parts are those of pubs that go into a frame before the last.
func (h *handover) publish(pubs, parts []Publication, marks []Mark) {
	if len(parts) > 0 {
		sections := make([]wal.Section, len(parts))
		for i := range parts {
			sections[i] = wal.Section{Kind: SectionRecords, Owner: 1, Body: parts[i].Data}
		}
		lsn := h.append(kindPart, sections)
		for i := range parts {
			parts[i].Part, parts[i].Section = lsn, i
		}
	}
	h.bus.Assign(pubs)
	var sections []wal.Section
	for i := range pubs {
		if pubs[i].Part == 0 {
			pubs[i].Section = len(sections)
			sections = append(sections, wal.Section{Kind: SectionRecords, Owner: 1, Body: pubs[i].Data})
		}
	}
	lsn := h.append(kindLast, append(sections, wal.Section{Kind: SectionIndex, Body: AppendIndex(nil, pubs, marks)}))
	h.bus.Publish(lsn, pubs, marks)
}

// cut drops what nobody needs.
func (h *handover) cut() {
	first := h.gens[len(h.gens)-1]
	for _, p := range h.bus.Pins() {
		first = min(first, p.LSN)
	}
	keep := wal.LSN(0)
	for _, g := range h.gens {
		if g <= first && g <= h.durable() {
			keep = g
		}
	}
	if keep > 0 {
		h.bus.Dropped(keep)
		h.drop(keep)
	}
}

// do runs f on the writer's goroutine, or alone once that has ended.
func (h *handover) do(f func()) {
	done := make(chan struct{})
	select {
	case h.calls <- func() { f(); close(done) }:
		<-done
	case <-h.over:
		f()
	}
}

// pace is how a reader reads.
type pace struct {
	name    string
	max     int
	every   int           // batches, after which it
	sleep   time.Duration // waits so long
	restart bool          // and begins again from its states
	parts   []int         // nil: all
	deaf    chan struct{} // if not nil, it is never woken, and this is closed when it first waits
}

var errStuck = errors.New("nobody woke it")

// read takes the topic to its end and checks that nothing is lost or read twice.
func (h *handover) read(sub SubID, p pace, states []SubState) error {
	wakes := make(chan struct{}, 1)
	wake := func() {
		select {
		case wakes <- struct{}{}:
		default:
		}
	}
	if p.deaf != nil {
		wake = func() {}
	}
	rd := h.bus.NewReader(sub, handoverTopic, states, wake)
	defer func() { rd.Close() }()
	next, marks := map[int]Offset{}, map[int]wal.LSN{}
	level := NoWatermark
	for n := 1; ; n++ {
		b, ok, err := rd.Next(p.max)
		if err != nil {
			return err
		}
		w, _ := rd.Watermark()
		if w < level {
			return fmt.Errorf("the watermark went from %d to %d", level, w)
		}
		level = w
		if !ok {
			if rd.Ended() {
				return h.complete(rd, next, states)
			}
			if p.deaf != nil && n == 1 {
				close(p.deaf)
			}
			select {
			case <-wakes:
			case <-time.After(h.patience):
				return fmt.Errorf("%w: it stands at %+v, caught up %v", errStuck, rd.States(), rd.CaughtUp())
			}
			continue
		}
		if b.Len() == 0 {
			if b.LSN <= marks[b.Partition] {
				return fmt.Errorf("partition %d: marks of frame %s behind those of %s", b.Partition, b.LSN, marks[b.Partition])
			}
			marks[b.Partition] = b.LSN
		}
		for r := range b.Records() {
			if want := fmt.Sprintf("%d/%d", b.Partition, next[b.Partition]); string(r.Value) != want {
				return fmt.Errorf("read %s, want %s", r.Value, want)
			}
			next[b.Partition]++
		}
		if p.every > 0 && n%p.every == 0 {
			time.Sleep(p.sleep)
			at := rd.States()
			h.do(func() { h.bus.Passed(sub, at, false); h.bus.Passed(sub, at, true) })
			if p.restart {
				if err := rd.Close(); err != nil {
					return err
				}
				rd = h.bus.NewReader(sub, handoverTopic, at, wake)
			}
		}
	}
}

// complete checks that a reader which has ended had everything.
func (h *handover) complete(rd *Reader, next map[int]Offset, states []SubState) error {
	select {
	case <-h.over:
	case <-time.After(h.patience):
		return fmt.Errorf("%w: ended, but the writer has not", errStuck)
	}
	for _, st := range states {
		if next[st.Partition] != h.written[st.Partition] {
			return fmt.Errorf("partition %d ended at %d of %d", st.Partition, next[st.Partition], h.written[st.Partition])
		}
	}
	return nil
}

// run writes and reads; it returns the readers' errors by name.
func (h *handover) run(r *rand.Rand, paces []pace) map[string]error {
	h.begin()
	var readers sync.WaitGroup
	var mu sync.Mutex
	errs := map[string]error{}
	for i, p := range paces {
		states, err := h.bus.Subscribe(SubID(i+1), p.name, handoverTopic, Start{Earliest: true})
		if err != nil {
			h.t.Fatal(err)
		}
		if p.parts != nil {
			var some []SubState
			for _, k := range p.parts {
				some = append(some, states[k])
			}
			states = some
		}
		readers.Add(1)
		go func() {
			defer readers.Done()
			err := h.read(SubID(i+1), p, states)
			mu.Lock()
			errs[p.name] = err
			mu.Unlock()
			h.do(func() { h.bus.Unsubscribe(SubID(i + 1)) })
		}()
	}
	stop := make(chan struct{})
	var lookers sync.WaitGroup
	lookers.Add(1)
	go func() { // those who look on from outside
		defer lookers.Done()
		for {
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond):
				for _, s := range h.bus.Stats() {
					h.bus.Full(s.ID)
					h.bus.Producers(s.ID)
					h.bus.Spec(s.ID)
				}
			}
		}
	}()
	h.write(r)
	readers.Wait()
	close(stop)
	lookers.Wait()
	return errs
}

// inMemory is over a log in memory that makes durable what was written some frames ago.
func inMemory(t *testing.T, r *rand.Rand, memory int64) *handover {
	log := &memLog{}
	h := &handover{t: t, bus: New(Config{MemoryBytes: memory}, log), partitions: 3, patience: time.Minute, gens: []wal.LSN{1}}
	h.append = func(_ wal.FrameKind, sections []wal.Section) wal.LSN { return log.append(sections...) }
	h.rotate = func() (wal.LSN, bool) {
		if r.IntN(500) > 0 {
			return 0, false
		}
		return log.append(wal.Section{Kind: 0x32, Body: h.bus.AppendCatalog(nil)}), true
	}
	h.durable = func() wal.LSN {
		if behind := wal.LSN(r.IntN(20)); behind < log.last() {
			log.setDurable(log.last() - behind)
		}
		log.mu.Lock()
		defer log.mu.Unlock()
		return log.durable
	}
	h.drop = log.drop
	h.finish = func() { log.setDurable(log.last()) }
	log.append(wal.Section{Kind: 0x32})
	h.bus.Generation(1)
	return h
}

// onDisk is over the real log, with small segments and generations.
func onDisk(t *testing.T, memory int64) *handover {
	log := newWAL(t, wal.Config{SegmentBytes: 64 << 10, GenerationBytes: 512 << 10, FrameBytes: 32 << 10})
	h := &handover{t: t, bus: New(Config{MemoryBytes: memory}, log), partitions: 3, patience: time.Minute, gens: []wal.LSN{1}}
	fail := func(err error) {
		if err != nil {
			t.Errorf("the log: %v", err)
		}
	}
	h.append = func(kind wal.FrameKind, sections []wal.Section) wal.LSN {
		lsn, err := log.Append(kind, sections)
		fail(err)
		return lsn
	}
	h.rotate = func() (wal.LSN, bool) {
		if !log.RotateDue() {
			return 0, false
		}
		lsn, err := log.Rotate([]wal.Section{{Kind: 0x32, Body: h.bus.AppendCatalog(nil)}})
		fail(err)
		return lsn, true
	}
	h.durable = log.Durable
	h.drop = func(before wal.LSN) { fail(log.Drop(before)) }
	h.finish = func() { fail(log.WaitDurable(t.Context(), log.Last())) }
	h.bus.Generation(1)
	return h
}

func paces() []pace {
	return []pace{
		{name: "as fast as it can", max: 1000},
		{name: "one record at a time", max: 1},
		{name: "now and then", max: 64, every: 40, sleep: 3 * time.Millisecond},
		{name: "slow", max: 16, every: 4, sleep: 200 * time.Microsecond},
		{name: "one that fails", max: 7, every: 30, restart: true},
		{name: "one that fails and is slow", max: 100, every: 60, sleep: time.Millisecond, restart: true},
		{name: "one partition", max: 32, every: 25, sleep: time.Millisecond, parts: []int{1}},
		{name: "the others", max: 32, parts: []int{0, 2}},
	}
}

// TestHandOver: no reader loses a record, has one twice or is left unwoken, however it crosses between memory and log.
func TestHandOver(t *testing.T) {
	const epochs = 500
	for _, memory := range []int64{1, 4000, 100_000} {
		for _, where := range []string{"memory", "disk"} {
			t.Run(fmt.Sprintf("log=%s/kept=%dB", where, memory), func(t *testing.T) {
				seeds(t, 1, func(t *testing.T, r *rand.Rand) {
					h := onDisk(t, memory)
					if where == "memory" {
						h = inMemory(t, r, memory)
					}
					h.epochs = epochs
					for name, err := range h.run(r, paces()) {
						if err != nil {
							t.Errorf("%s: %v", name, err)
						}
					}
				})
			})
		}
	}
}

// TestHandOverFindsTheUnwoken: a reader that waits and is not woken is found to be stuck.
func TestHandOverFindsTheUnwoken(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	h := inMemory(t, r, 1)
	h.epochs, h.patience = 20, 300*time.Millisecond
	h.begin()
	states, err := h.bus.Subscribe(1, "deaf", handoverTopic, Start{Earliest: true})
	if err != nil {
		t.Fatal(err)
	}
	waits, stuck := make(chan struct{}), make(chan error)
	go func() { stuck <- h.read(1, pace{max: 10, deaf: waits}, states) }()
	<-waits
	h.write(r)
	if err := <-stuck; !errors.Is(err, errStuck) {
		t.Errorf("%v", err)
	}
}

// TestNotEndedBeforeItBegan: a reader that looks while the first producer joins does not take the topic for one that had
// producers and has none left.
func TestNotEndedBeforeItBegan(t *testing.T) {
	for range 300 {
		b := New(Config{}, &memLog{})
		if err := b.Define(1, TopicSpec{Name: "t", Partitions: 3}); err != nil {
			t.Fatal(err)
		}
		states, err := b.Subscribe(1, "s", 1, Start{Earliest: true})
		if err != nil {
			t.Fatal(err)
		}
		go b.Publish(1, nil, []Mark{join(1)})
		rd := b.NewReader(1, 1, states, func() {})
		for joined := 0; joined < 3; {
			_, ok, err := rd.Next(1)
			if err != nil {
				t.Fatal(err)
			}
			if ok {
				joined++
			} else if rd.Ended() {
				t.Fatal("ended before it began")
			}
		}
	}
}
