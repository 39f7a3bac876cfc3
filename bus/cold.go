package bus

import (
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/sidestream-dev/sidestream/wal"
)

// errLogShort is our own bug, or a log that lost what was durable: readers would look for ever.
var errLogShort = errors.New("the log ends before a frame that was said to be durable")

// coldItem is a publication, or the marks of a frame, in the log.
type coldItem struct {
	item
	at     Publication // where the records lie
	loaded bool
}

// openCold goes to the topic store or to the log, behind the last frame taken.
func (c *cursor) openCold(b *Bus, t *topic) error {
	for {
		if opened, err := c.openStore(b, t); opened || err != nil {
			return err
		}
		if err := c.skipGone(b, t); err != nil {
			return err
		}
		r, err := b.log.Reader(c.Marks + 1)
		if err == nil {
			c.cold, c.from = r, c.Marks
			return nil
		}
		if !c.gone(b, err) {
			return fmt.Errorf("bus: topic %s, partition %d: reading from frame %s: %w", t.name, c.part.number, c.Marks+1, err)
		}
	}
}

// skipGone goes to the oldest generation if the frame due lies before it: the subscription had passed the records that were
// dropped, and of the marks among them the catalog holds what they came to.
func (c *cursor) skipGone(b *Bus, t *topic) error {
	b.mu.RLock()
	defer b.mu.RUnlock()
	if len(b.gens) == 0 || b.gens[0].first <= c.Marks+1 {
		return nil
	}
	g := b.gens[0]
	gt := g.topics[t.id]
	c.part.mu.Lock()
	c.Next = c.part.over(c.Next)
	c.part.mu.Unlock()
	if gt.exists && gt.Next[c.part.number] > c.Next {
		if c.letGo() {
			return errLetGo
		}
		return c.part.missing(t.name, c.Next)
	}
	c.Table, c.Marks = slices.Clone(gt.Table), g.first
	c.settle()
	return nil
}

// gone reports whether err says that frames were dropped under the cursor, which then can go on behind them.
func (c *cursor) gone(b *Bus, err error) bool {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return errors.Is(err, wal.ErrGone) && len(b.gens) > 0 && b.gens[0].first > c.Marks+1
}

func (c *cursor) closeCold() error {
	if c.cold == nil {
		return nil
	}
	err := errors.Join(c.cold.Close(), c.parts.close())
	c.cold, c.frame, c.queue, c.reading = nil, nil, nil, 0
	return err
}

// takeCold takes from the frame at hand; ok is false where that was dropped meanwhile, with what it holds in the store.
func (c *cursor) takeCold(b *Bus, t *topic, max int) (Batch, bool, error) {
	it := &c.queue[0]
	if !it.loaded {
		data, err := c.load(b, it.at)
		if err != nil && c.gone(b, err) {
			return Batch{}, false, c.closeCold()
		}
		if err != nil {
			return Batch{}, false, c.wrap(t, err)
		}
		it.data, it.loaded = data, true
	}
	out, ok, err := c.take(t, it.item, max)
	if err != nil {
		return out, ok, err
	}
	if it.marks != nil || c.Next >= it.base+Offset(it.count) {
		*it = coldItem{}
		c.queue = c.queue[1:]
	}
	c.finishFrame()
	return out, true, nil
}

// finishFrame notes that a frame has been taken wholly.
func (c *cursor) finishFrame() {
	if len(c.queue) == 0 {
		c.Marks = max(c.Marks, c.reading)
	}
}

// readFrame reads the next frame of the log and queues what it holds for this partition; more is false at the end of
// what is durable, and where frames were dropped that the cursor need not read.
func (c *cursor) readFrame(b *Bus, t *topic) (more bool, err error) {
	f, err := c.cold.Next()
	if errors.Is(err, io.EOF) || err != nil && c.gone(b, err) {
		return false, nil
	}
	if err == nil {
		c.frame, c.reading = f, f.LSN()
		err = c.queueFrame(t, f)
	}
	if err != nil {
		return false, c.wrap(t, err)
	}
	c.finishFrame()
	return true, nil
}

func (c *cursor) wrap(t *topic, err error) error {
	return fmt.Errorf("bus: topic %s, partition %d, offset %s, at frame %s: %w", t.name, c.part.number, c.Next, max(c.Marks+1, c.reading), err)
}

// queueFrame finds what a frame's indexes say of this partition. The records are read when it is their turn.
func (c *cursor) queueFrame(t *topic, f Frame) error {
	lsn := c.reading
	var marks []Mark
	c.queue = c.queue[:0]
	for i := range f.Len() {
		if f.Section(i).Kind != SectionIndex {
			continue
		}
		body, err := f.Body(i)
		if err != nil {
			return err
		}
		pubs, ms, err := DecodeIndex(body)
		if err != nil {
			return err
		}
		for _, m := range ms {
			if m.Topic == t.id {
				marks = append(marks, m)
			}
		}
		for _, p := range pubs {
			if p.Topic == t.id && p.Partition == c.part.number && p.Base+Offset(p.Count) > c.Next {
				c.queue = append(c.queue, coldItem{item: item{lsn: lsn, base: p.Base, count: p.Count}, at: p})
			}
		}
	}
	if len(marks) > 0 && lsn > c.Marks {
		c.queue = append(c.queue, coldItem{item: item{lsn: lsn, marks: marks}, loaded: true})
	}
	return nil
}

// load reads a publication's records, from the frame at hand or from the part it names.
func (c *cursor) load(b *Bus, p Publication) ([]byte, error) {
	return loadRecords(b.log, c.frame, &c.parts, p)
}

// loadRecords reads a publication's records, from the frame of its index or from the part it names.
func loadRecords(log Log, f Frame, parts *partReader, p Publication) ([]byte, error) {
	from := f.LSN()
	if p.Part != 0 {
		var err error
		if f, err = parts.frame(log, p.Part); err != nil {
			return nil, fmt.Errorf("part %s: %w", p.Part, err)
		}
		from = p.Part
	}
	if p.Section >= f.Len() || f.Section(p.Section).Kind != SectionRecords {
		return nil, fmt.Errorf("the index names section %d of frame %s, which holds no records", p.Section, from)
	}
	data, err := f.Body(p.Section)
	if err != nil {
		return nil, err
	}
	return data, checkRecords(data, p.Count)
}

// partsApart is how many frames a reader of parts goes over rather than look for its place anew.
const partsApart = 64

// partReader reads the parts of epochs, which come in order and not far apart, beside the reader of last frames.
type partReader struct {
	r    LogReader
	part Frame // the one read last
	lsn  wal.LSN
}

func (p *partReader) frame(log Log, lsn wal.LSN) (f Frame, err error) {
	at := p.lsn
	switch {
	case p.r == nil:
		p.r, err = log.Reader(lsn)
		at = lsn - 1
	case at == lsn:
		return p.part, nil
	case at > lsn || at+partsApart < lsn:
		err = p.r.Seek(lsn)
		at = lsn - 1
	}
	p.part, p.lsn = nil, 0
	for at < lsn && err == nil {
		f, err = p.r.Next()
		if at++; at < lsn && errors.Is(err, wal.ErrGone) { // what lies between was dropped meanwhile
			err, at = p.r.Seek(lsn), lsn-1
		}
	}
	if err == nil && f.LSN() != lsn {
		err = fmt.Errorf("frame %s was read", f.LSN())
	}
	if err != nil {
		return nil, errors.Join(noEOF(err), p.close())
	}
	p.part, p.lsn = f, lsn
	return f, nil
}

// noEOF makes the end of the log, where a frame must be, an error that is none of the ends of a topic.
func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

func (p *partReader) close() error {
	if p.r == nil {
		return nil
	}
	err := p.r.Close()
	*p = partReader{}
	return err
}
