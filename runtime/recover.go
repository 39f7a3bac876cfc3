package runtime

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"

	"github.com/sidestream-dev/sidestream/bus"
	"github.com/sidestream-dev/sidestream/checkpoint"
	"github.com/sidestream-dev/sidestream/wal"
)

// readFrom calls f for each durable frame from an LSN on.
func readFrom(log frames, from wal.LSN, f func(frame) error) error {
	r, err := log.Reader(from)
	if err != nil {
		return err
	}
	defer r.Close()
	for {
		fr, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := f(fr.(frame)); err != nil {
			return err
		}
	}
}

// frame is a frame of the log, or of the simulator's.
type frame interface {
	bus.Frame
	Kind() wal.FrameKind
}

// frames is the log as recovery reads it. It is a bus.Log too; the bus does not ask for kinds.
type frames interface {
	Reader(from wal.LSN) (bus.LogReader, error)
}

// counted tells how far its readers have come between two LSNs, at each hundredth of the way.
type counted struct {
	frames
	from, to wal.LSN
	tell     func(read, of int64)
}

func (c counted) Reader(from wal.LSN) (bus.LogReader, error) {
	r, err := c.frames.Reader(from)
	if err != nil || c.tell == nil {
		return r, err
	}
	return &countedReader{LogReader: r, counted: c}, nil
}

type countedReader struct {
	bus.LogReader
	counted
	told int64
}

func (r *countedReader) Next() (bus.Frame, error) {
	f, err := r.LogReader.Next()
	if err == nil {
		read, of := int64(f.LSN()-r.from)+1, int64(r.to-r.from)+1
		if read-r.told >= (of+99)/100 {
			r.told = read
			r.tell(read, of)
		}
	}
	return f, err
}

// walFrames makes a log readable for the bus and for recovery.
type walFrames struct{ log *wal.Log }

func (l walFrames) Reader(from wal.LSN) (bus.LogReader, error) {
	r, err := l.log.Reader(from)
	if err != nil {
		return nil, err
	}
	return walReader{r}, nil
}

type walReader struct{ r *wal.Reader }

func (r walReader) Next() (bus.Frame, error) {
	f, err := r.r.Next()
	if err != nil {
		return nil, err
	}
	return &walFrame{f}, nil
}

func (r walReader) Seek(lsn wal.LSN) error { return r.r.Seek(lsn) }
func (r walReader) Close() error           { return r.r.Close() }

type walFrame struct{ f wal.Frame }

func (f *walFrame) LSN() wal.LSN                  { return f.f.LSN }
func (f *walFrame) Kind() wal.FrameKind           { return f.f.Kind }
func (f *walFrame) Len() int                      { return f.f.Len() }
func (f *walFrame) Section(i int) wal.SectionInfo { return f.f.Section(i) }
func (f *walFrame) Body(i int) ([]byte, error)    { return f.f.Body(i) }

// recoverLedger reads the newest catalog, at an LSN, and folds all that stands behind it.
func recoverLedger(log frames, catalog wal.LSN, b *bus.Bus) (*ledger, error) {
	var l *ledger
	var read catalogRead
	err := readFrom(log, catalog, func(fr frame) (err error) {
		if l == nil {
			if part, err := read.take(fr); part || err != nil {
				return err
			}
			if l, err = read.load(b); err != nil {
				return err
			}
		}
		if fr.Kind() == wal.KindCatalog || fr.Kind() == wal.KindCatalogPart {
			return nil // a later generation's: it says nothing new
		}
		return foldFrame(l, b, fr)
	})
	if err == nil && l == nil { // nothing stands behind it
		l, err = read.load(b)
	}
	if err != nil {
		return nil, fmt.Errorf("runtime: reading the log: %w", err)
	}
	return l, nil
}

// foldFrame applies one frame behind the catalog to the ledger and the bus; state entries are left to restoreState.
func foldFrame(l *ledger, b *bus.Bus, fr frame) error {
	if fr.Kind() == kindPart {
		return nil
	}
	var header *checkpoint.Header
	var ctl *control
	var pubs []bus.Publication
	var marks []bus.Mark
	bytes := int64(0)
	for i := range fr.Len() {
		info := fr.Section(i)
		bytes += int64(info.Len)
		if info.Kind != checkpoint.SectionHeader && info.Kind != bus.SectionIndex && info.Kind != sectionControl {
			continue
		}
		body, err := fr.Body(i)
		if err != nil {
			return err
		}
		switch info.Kind {
		case checkpoint.SectionHeader:
			var h checkpoint.Header
			h, err = checkpoint.DecodeHeader(body)
			header = &h
		case bus.SectionIndex:
			pubs, marks, err = bus.DecodeIndex(body)
		case sectionControl:
			ctl, err = decodeControl(body)
		}
		if err != nil {
			return fmt.Errorf("frame %s: %w", fr.LSN(), err)
		}
	}
	if ctl != nil {
		if err := applyChange(l, b, fr.LSN(), ctl); err != nil {
			return err
		}
		for _, s := range ctl.Sent {
			b.Passed(s.Sub, sentStates(s), true)
		}
		if ctl.Store != nil {
			b.ApplyStore(*ctl.Store)
		}
		if ctl.DropFirst > 0 {
			b.Dropped(ctl.DropFirst)
		}
	}
	if header != nil {
		if err := l.applyEpoch(fr.LSN(), *header, bytes); err != nil {
			return err
		}
		for _, s := range header.Subs {
			st, err := bus.DecodeSubState(s.State)
			if err != nil {
				return fmt.Errorf("frame %s: %w", fr.LSN(), err)
			}
			b.Passed(bus.SubID(s.Sub), []bus.SubState{st}, true)
		}
	}
	b.Replay(fr.LSN(), pubs, marks)
	if header != nil && header.Ended {
		for _, in := range l.Jobs[header.Job].Inputs {
			b.Unsubscribe(in.Sub)
		}
	}
	return nil
}

// applyChange makes the ledger and the bus what a change in the log says. A process that writes one does the same as one that
// reads it back.
func applyChange(l *ledger, b *bus.Bus, lsn wal.LSN, c *control) error {
	had := l.claimsOf(c)
	if err := l.applyControl(lsn, c); err != nil {
		return err
	}
	if err := applyBus(b, c); err != nil {
		return err
	}
	has := l.claimsOf(c)
	for _, sub := range slices.Sorted(maps.Keys(had.subs)) {
		if !has.subs[sub] {
			b.Unsubscribe(sub)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(had.topics)) {
		if !has.topics[id] {
			b.Remove(id)
		}
	}
	for _, id := range c.DropTopics {
		b.Remove(id)
	}
	return nil
}

// applyBus makes the bus know the topics and subscriptions of a change that the log holds, and what these lose.
func applyBus(b *bus.Bus, c *control) error {
	for _, t := range c.Topics {
		if err := b.Define(t.ID, t.Spec); err != nil {
			return err
		}
	}
	for _, j := range c.Jobs {
		for _, in := range j.Inputs {
			if err := resubscribe(b, in.Sub, j.Name+"/"+in.Step, in.Topic, in.States); err != nil {
				return err
			}
		}
		for _, o := range j.Outputs {
			if o.Outside {
				if err := resubscribe(b, o.Sub, senderName(j.Name, o.Name), o.Topic, sentStates(o.Sent)); err != nil {
					return err
				}
			}
		}
	}
	b.ApplyDrops(c.Drops)
	return nil
}

// resubscribe registers a subscription where the log says it began; one that a change of its job kept stays where it is.
func resubscribe(b *bus.Bus, sub bus.SubID, name string, topic bus.TopicID, states []bus.SubState) error {
	if b.Subscribed(sub) {
		return nil
	}
	if _, err := b.Subscribe(sub, name, topic, bus.Start{Earliest: true}); err != nil {
		return err
	}
	b.Passed(sub, states, true)
	return nil
}

// restorer takes the state of one job back, piece by piece, in the order of the log.
type restorer interface {
	begin(lsn wal.LSN, drops []dropEntry) // behind the snapshot at lsn, or where there is none
	passing(lsn wal.LSN)                  // before what stands at lsn
	applyState(body []byte) error
}

// restoreState loads the snapshots of jobs and applies the epochs behind them in one pass over the log. load reads a
// job's newest snapshot that is whole and returns its LSN, or 0 if it has none.
func restoreState(log frames, l *ledger, into map[uint32]restorer, load func(*jobEntry, restorer) (wal.LSN, error)) error {
	behind := map[uint32]wal.LSN{}
	from := wal.LSN(0)
	for id, r := range into {
		j := l.Jobs[id]
		lsn, err := load(j, r)
		if err != nil {
			return fmt.Errorf("runtime: job %s: its snapshot: %w", j.Name, err)
		}
		r.begin(lsn, j.Drops)
		behind[id] = max(lsn, j.Since, j.From-min(j.From, 1))
		if next := behind[id] + 1; j.LSN >= next && (from == 0 || next < from) {
			from = next // what lies at behind itself may be gone
		}
	}
	defer func() {
		for _, r := range into {
			r.passing(math.MaxInt64)
		}
	}()
	if from == 0 {
		return nil
	}
	parts := map[wal.LSN][][]byte{}
	err := readFrom(log, from, func(fr frame) error {
		if fr.Kind() != kindPart && fr.Kind() != kindEpoch {
			return nil
		}
		return restoreFrame(fr, into, behind, parts)
	})
	if err != nil {
		return fmt.Errorf("runtime: restoring state from the log: %w", err)
	}
	return nil
}

// restoreFrame applies a frame's state entries. Those of a part wait for the frame that lists it.
func restoreFrame(fr frame, into map[uint32]restorer, behind map[uint32]wal.LSN, parts map[wal.LSN][][]byte) error {
	var bodies [][]byte
	var owner uint32
	var header []byte
	for i := range fr.Len() {
		info := fr.Section(i)
		if info.Kind != checkpoint.SectionState && info.Kind != checkpoint.SectionHeader {
			continue
		}
		if owner = info.Owner; into[owner] == nil || fr.LSN() <= behind[owner] {
			return nil
		}
		body, err := fr.Body(i)
		if err != nil {
			return err
		}
		if info.Kind == checkpoint.SectionHeader {
			header = body
			continue
		}
		bodies = append(bodies, body)
	}
	if fr.Kind() == kindPart {
		if len(bodies) > 0 {
			parts[fr.LSN()] = bodies
		}
		return nil
	}
	h, err := checkpoint.DecodeHeader(header)
	if err != nil {
		return fmt.Errorf("frame %s: %w", fr.LSN(), err)
	}
	var all [][]byte
	for _, p := range h.Parts {
		all = append(all, parts[p]...)
		delete(parts, p)
	}
	into[owner].passing(fr.LSN())
	for _, b := range slices.Concat(all, bodies) {
		if err := into[owner].applyState(b); err != nil {
			return fmt.Errorf("frame %s: %w", fr.LSN(), err)
		}
	}
	return nil
}
