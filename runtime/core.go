package runtime

import (
	"errors"
	"fmt"
	"slices"

	"github.com/sidestream-dev/sidestream/bus"
	"github.com/sidestream-dev/sidestream/checkpoint"
	"github.com/sidestream-dev/sidestream/wal"
)

// keptSnapshots is how many snapshots of a job are kept, so that a damaged newest one has another behind it.
const keptSnapshots = 2

var (
	// errFenced refuses what an attempt hands over after a newer one has begun.
	errFenced = errors.New("the attempt is over")
	// errEpochOrder refuses an epoch that is not the next one: our own bug.
	errEpochOrder = errors.New("epoch out of order")
)

// frameLog is the part of the log that the committer's core writes: *wal.Log, or the simulator's.
type frameLog interface {
	Append(kind wal.FrameKind, sections []wal.Section) (wal.LSN, error)
	AppendSmall(kind wal.FrameKind, sections []wal.Section) (wal.LSN, error)
	Rotate(catalog []wal.Section, rest ...[]wal.Section) (wal.LSN, error)
	Room(bytes int64) error
	RotateDue() bool
	Last() wal.LSN
	Durable() wal.LSN
}

// core is the committer without its goroutine: Seal(epoch) → LSN. It alone gives out LSNs and offsets, folds the
// ledger and publishes in memory. One goroutine owns it; the simulator drives the same code.
type core struct {
	log        frameLog
	bus        *bus.Bus
	ledger     *ledger
	frameBytes int // an epoch larger than this is written as parts, and a catalog
	attempts   map[uint32]uint32
	passes     []passed         // what sealed epochs have read, until they are durable
	onDrops    func([]bus.Drop) // may be nil; must not block

	outputLimit int64 // of what a new output has yet to send, in bytes; 0: as of any topic
}

// sealRequest is one epoch of one job, joined from its subtasks' pieces.
type sealRequest struct {
	job     uint32
	attempt uint32
	header  checkpoint.Header
	states  [][]byte // section bodies, in the order in which they apply
	pubs    []bus.Publication
	marks   []bus.Mark
	read    []readUpTo
	bytes   int64
}

// readUpTo is how far a subscription has read.
type readUpTo struct {
	sub    bus.SubID
	states []bus.SubState
}

type passed struct {
	lsn wal.LSN
	readUpTo
}

func newCore(log frameLog, b *bus.Bus, l *ledger, frameBytes int) *core {
	return &core{log: log, bus: b, ledger: l, frameBytes: frameBytes, attempts: map[uint32]uint32{}}
}

// fence ends every older attempt of a job and returns the number of the new one and the last epoch that is sealed:
// from now on nothing of the older ones is taken, also what lies in a queue.
func (c *core) fence(job uint32) (attempt uint32, last checkpoint.Epoch, err error) {
	j := c.ledger.Jobs[job]
	if j == nil {
		return 0, 0, fmt.Errorf("runtime: there is no job %d", job)
	}
	c.attempts[job] = max(c.attempts[job], j.Attempt) + 1
	return c.attempts[job], j.Epoch, nil
}

// seal gives the epoch its place in the order of the log and makes its records visible. wal.ErrNoRoom leaves no trace, and
// the same request may be made again. An epoch refused for good ends its attempt, so that none behind it is taken.
func (c *core) seal(r *sealRequest) (wal.LSN, error) {
	lsn, err := c.trySeal(r)
	if err == nil {
		c.letGo(c.bus.DropsDue(r.pubs))
	}
	if err != nil && !errors.Is(err, wal.ErrNoRoom) && c.attempts[r.job] == r.attempt {
		c.attempts[r.job]++
	}
	return lsn, err
}

func (c *core) trySeal(r *sealRequest) (wal.LSN, error) {
	j := c.ledger.Jobs[r.job]
	if j == nil || c.attempts[r.job] != r.attempt {
		return 0, errFenced
	}
	if r.header.Epoch != j.Epoch+1 {
		return 0, fmt.Errorf("%w: %s of job %s, which stands at %s", errEpochOrder, r.header.Epoch, j.Name, j.Epoch)
	}
	if err := c.rotateIfDue(); err != nil {
		return 0, err
	}
	sections, err := c.writeParts(r)
	if err != nil {
		return 0, err
	}
	c.bus.Assign(r.pubs)
	sections = append(sections, wal.Section{Kind: checkpoint.SectionHeader, Owner: r.job, Body: checkpoint.AppendHeader(nil, r.header)})
	if len(r.pubs) > 0 || len(r.marks) > 0 {
		sections = append(sections, wal.Section{Kind: bus.SectionIndex, Body: bus.AppendIndex(nil, r.pubs, r.marks)})
	}
	lsn, err := c.log.Append(kindEpoch, sections)
	if err != nil {
		return 0, fmt.Errorf("runtime: sealing epoch %s of job %s: %w", r.header.Epoch, j.Name, err)
	}
	if err := c.ledger.applyEpoch(lsn, r.header, r.bytes); err != nil {
		return 0, err
	}
	c.bus.Publish(lsn, r.pubs, r.marks)
	for _, p := range r.read {
		c.bus.Passed(p.sub, p.states, false)
		c.passes = append(c.passes, passed{lsn, p})
	}
	if r.header.Ended {
		for _, in := range j.Inputs {
			c.bus.Unsubscribe(in.Sub)
		}
	}
	return lsn, nil
}

// writeParts returns the sections that the last frame holds. What does not fit in one frame is written before it, as
// parts, which count for nothing until the last one lists them. Section numbers in r.pubs are set.
func (c *core) writeParts(r *sealRequest) ([]wal.Section, error) {
	type item struct {
		section wal.Section
		pub     int // index into r.pubs, or -1
	}
	items := make([]item, 0, len(r.states)+len(r.pubs)+2)
	total := 0
	for _, s := range r.states {
		items = append(items, item{wal.Section{Kind: checkpoint.SectionState, Owner: r.job, Body: s}, -1})
		total += len(s)
	}
	for i, p := range r.pubs {
		items = append(items, item{wal.Section{Kind: bus.SectionRecords, Owner: uint32(p.Topic), Body: p.Data}, i})
		total += len(p.Data)
	}
	if total > c.frameBytes { // parts whose last finds no room would fill the disk in vain, again and again
		if err := c.log.Room(int64(total)); err != nil {
			return nil, fmt.Errorf("runtime: %d bytes of epoch %s: %w", total, r.header.Epoch, err)
		}
	}
	id := wal.Section{Kind: checkpoint.SectionHeader, Owner: r.job,
		Body: checkpoint.AppendHeader(nil, checkpoint.Header{Job: r.job, Attempt: r.attempt, Epoch: r.header.Epoch})}
	r.header.Parts = nil
	for total > c.frameBytes {
		part, bytes, n := []wal.Section{id}, 0, 0
		for n < len(items) && (n == 0 || bytes+len(items[n].section.Body) <= c.frameBytes) {
			bytes += len(items[n].section.Body)
			part = append(part, items[n].section)
			n++
		}
		lsn, err := c.log.Append(kindPart, part)
		if err != nil {
			return nil, fmt.Errorf("runtime: a part of epoch %s: %w", r.header.Epoch, err)
		}
		r.header.Parts = append(r.header.Parts, lsn)
		for k, it := range items[:n] {
			if it.pub >= 0 {
				r.pubs[it.pub].Part, r.pubs[it.pub].Section = lsn, k+1
			}
		}
		items, total = items[n:], total-bytes
	}
	sections := make([]wal.Section, 0, len(items)+2)
	for k, it := range items {
		if it.pub >= 0 {
			r.pubs[it.pub].Part, r.pubs[it.pub].Section = 0, k
		}
		sections = append(sections, it.section)
	}
	return sections, nil
}

// change writes a control frame with the marks that go with it and applies both. Room is not asked for: these frames
// are small and free what is full.
func (c *core) change(ch *control, marks []bus.Mark) (wal.LSN, error) {
	if err := c.rotateIfDue(); err != nil {
		return 0, err
	}
	s, err := ch.section()
	if err != nil {
		return 0, err
	}
	sections := []wal.Section{s}
	if len(marks) > 0 {
		sections = append(sections, wal.Section{Kind: bus.SectionIndex, Body: bus.AppendIndex(nil, nil, marks)})
	}
	write := c.log.AppendSmall
	if len(ch.Jobs) > 0 {
		write = c.log.Append // definitions may be large
	}
	lsn, err := write(kindControl, sections)
	if errors.Is(err, wal.ErrTooLarge) && len(ch.Jobs) > 0 {
		return 0, fmt.Errorf("%d jobs in one change, with definitions of %d KiB, are more than one frame of the log holds; apply them a few at a time: %w",
			len(ch.Jobs), definitionBytes(ch)>>10, err)
	}
	if err != nil {
		return 0, fmt.Errorf("runtime: writing a change: %w", err)
	}
	if err := applyChange(c.ledger, c.bus, lsn, ch); err != nil {
		return 0, err
	}
	for _, jc := range ch.Jobs {
		if jc.Replace || jc.Remove || jc.RollBack {
			_, _, _ = c.fence(jc.ID) // nothing of an attempt that ran by what was there before is taken any more
		}
	}
	for _, s := range ch.Sent {
		c.passes = append(c.passes, passed{lsn, readUpTo{s.Sub, sentStates(s)}})
	}
	if len(marks) > 0 {
		c.bus.Publish(lsn, nil, marks)
	}
	return lsn, nil
}

// definitionBytes is the length of the definitions that a change gives jobs.
func definitionBytes(ch *control) (n int) {
	for _, j := range ch.Jobs {
		n += len(j.Definition)
	}
	return n
}

// dropsAtOnce is how many drops are in one small frame.
const dropsAtOnce = 200

// letGo lets subscriptions lose what topics drop. It is said in the log first: the epochs of whoever goes over it stand behind
// that, so that no crash takes a floor back that a position has passed. Without room for the frame it is for the next epoch
// to do; any other error is the log's last word.
// A job that copies a range loses nothing of it: it ends by itself, and what it was to copy would be missing for good.
func (c *core) letGo(drops []bus.Drop) {
	drops = slices.DeleteFunc(drops, func(d bus.Drop) bool { return c.ledger.copies(d.Sub) })
	for some := range slices.Chunk(drops, dropsAtOnce) {
		if _, err := c.change(&control{Drops: some}, nil); err != nil {
			return
		}
		if c.onDrops != nil {
			c.onDrops(some)
		}
	}
}

// sentStates is a sender's place as a subscription's: an output is a topic of one partition without marks. The frame of
// the last record sent may hold more that were not.
func sentStates(s sentEntry) []bus.SubState {
	return []bus.SubState{{Partition: 0, Position: bus.Position{Next: s.Next, Marks: max(s.LSN, 1) - 1}}}
}

// durable applies what holds only for durable frames.
func (c *core) durable(lsn wal.LSN) {
	c.bus.Durable(lsn)
	n := 0
	for n < len(c.passes) && c.passes[n].lsn <= lsn {
		c.bus.Passed(c.passes[n].sub, c.passes[n].states, true)
		n++
	}
	c.passes = slices.Delete(c.passes, 0, n)
}

// rotateIfDue begins a new generation, or the log's first, with a catalog of all that is known now.
func (c *core) rotateIfDue() error {
	if c.log.Last() > 0 && !c.log.RotateDue() {
		return nil
	}
	led, err := c.ledger.encode()
	if err != nil {
		return fmt.Errorf("runtime: encoding the catalog: %w", err)
	}
	frames := catalogFrames(c.frameBytes, led, wal.Section{Kind: sectionBusCatalog, Body: c.bus.AppendCatalog(nil)})
	lsn, err := c.log.Rotate(frames[0], frames[1:]...)
	if errors.Is(err, wal.ErrNoRoom) && c.log.Last() > 0 {
		return nil // the generation goes on for longer: what frees room is said in it, or nothing ever could be
	}
	if err != nil {
		return fmt.Errorf("runtime: starting a generation: %w", err)
	}
	c.bus.Generation(lsn)
	return nil
}

// pins names who still needs which LSN, oldest first.
func (c *core) pins() []bus.Pin {
	pins := c.bus.Pins()
	for _, j := range c.ledger.sorted() {
		if j.Phase != PhaseEnded {
			pins = append(pins, bus.Pin{Who: ofState + j.Name, LSN: j.pin()})
		}
	}
	slices.SortStableFunc(pins, func(a, b bus.Pin) int {
		switch {
		case a.LSN < b.LSN:
			return -1
		case a.LSN > b.LSN:
			return 1
		}
		return 0
	})
	return pins
}
