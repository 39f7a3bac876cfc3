package runtime

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/sidestream-dev/sidestream/bus"
	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/wal"
)

// shadowHead reads one partition of the topic, one batch ahead, so that partitions can be taken in the order of the log.
type shadowHead struct {
	partition  int
	reader     *bus.Reader
	begin, end bus.SubState
	next       bus.Offset
	batch      bus.Batch
	have       bool
	mark       jobs.Watermark // behind the batch
	idle       bool
	told       jobs.Watermark
	toldIdle   bool
}

// run reads the range, and what the job gave of it, side by side.
func (s *shadow) run(ctx context.Context, _ string) (err error) {
	if err := s.outputs(); err != nil {
		return err
	}
	apart, err := s.span()
	if err != nil {
		return err
	}
	s.compare = newComparison(s.o.Show, s.o.OpenMax, apart)
	if s.engine, err = s.o.Engine(s.setup); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.engine.Close(), s.close()) }()
	s.open()
	for _, counting := range []bool{false, true} { // up to where the comparison begins, and from there
		s.counting = counting
		for {
			h, err := s.lowest(ctx)
			if err != nil {
				return err
			}
			if h == nil {
				break
			}
			if err := s.give(h); err != nil {
				return err
			}
			if err := s.follow(ctx, false); err != nil {
				return err
			}
		}
	}
	if s.end.lsn == wal.LSN(1<<63-1) && s.e.header.Ended {
		if err := s.engine.End(); err != nil {
			return s.failed(err)
		}
	}
	if err := errors.Join(s.fault, s.follow(ctx, true)); err != nil {
		return err
	}
	s.sum()
	return nil
}

// span finds what the beginning explains: differences of an event time up to the one returned, NoTime for none. It is where
// records before the range may have a part in what is made of those within.
func (s *shadow) span() (int64, error) {
	if s.whole {
		return bus.NoTime, nil
	}
	latest := int64(bus.NoTime)
	for p, st := range s.starts {
		latest = max(latest, st.Watermark)
		first := s.rt.bus.First(s.topic, p)
		from := max(first, st.Next-min(st.Next, shadowChunk))
		if err := s.rt.eachTime(s.topic, p, from, st.Next, func(t int64) { latest = max(latest, t) }); err != nil {
			return 0, err
		}
	}
	if latest == bus.NoTime {
		return latest, nil
	}
	span := int64(0)
	for _, n := range s.def.Nodes {
		span += n.Span.Milliseconds()
	}
	return latest + span, nil
}

func (s *shadow) open() {
	for p, st := range s.starts {
		h := &shadowHead{partition: p, begin: s.begin.states[p], end: s.end.states[p], next: st.Next, told: jobs.WatermarkNone}
		h.reader = s.rt.bus.NewReader(0, s.topic, []bus.SubState{st}, func() {})
		s.heads = append(s.heads, h)
		s.all += int64(max(h.end.Next, st.Next) - st.Next)
		s.result.WarmUp += int64(h.begin.Next - min(st.Next, h.begin.Next))
	}
	for _, o := range s.outs {
		if o.Not != "" || o.id == 0 {
			continue
		}
		for p, end := range s.ends[o.id] {
			at := s.rt.bus.Before(o.id, p, s.begin.lsn)
			o.readers = append(o.readers, &givenReader{partition: p, topic: o.id, at: at, end: end})
		}
	}
}

func (s *shadow) close() error {
	var errs []error
	for _, h := range s.heads {
		errs = append(errs, h.reader.Close())
	}
	for _, o := range s.outs {
		for _, g := range o.readers {
			if g.reader != nil {
				errs = append(errs, g.reader.Close())
			}
		}
	}
	return errors.Join(append(errs, s.owners.close())...)
}

// lowest returns the partition whose next batch was written first, of those that have one before where this stretch ends.
func (s *shadow) lowest(ctx context.Context) (low *shadowHead, err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	for _, h := range s.heads {
		until := h.begin
		if s.counting {
			until = h.end
		}
		if err := h.peek(); err != nil {
			return nil, err
		}
		marks := h.batch.Len() == 0 && h.next >= until.Next // before the last record all are taken, whatever Marks says
		if !h.have || h.batch.Len() > 0 && h.batch.Base >= until.Next || marks && h.batch.LSN > until.Marks {
			continue
		}
		if low == nil || h.batch.LSN < low.batch.LSN {
			low = h
		}
	}
	return low, nil
}

// peek reads the next batch, which ends where a stretch does.
func (h *shadowHead) peek() (err error) {
	if h.have {
		return nil
	}
	n := bus.Offset(shadowChunk)
	for _, at := range []bus.Offset{h.begin.Next, h.end.Next} {
		if h.next < at {
			n = min(n, at-h.next)
		}
	}
	if h.batch, h.have, err = h.reader.Next(int(n)); err != nil || !h.have {
		return err
	}
	w, idle := h.reader.Watermark()
	h.mark, h.idle = jobs.Watermark(w), idle
	return nil
}

// give runs a batch through the definition.
func (s *shadow) give(h *shadowHead) error {
	h.have = false
	if n := h.batch.Len(); n > 0 {
		ms := make([]jobs.Message, 0, n)
		for r := range h.batch.Records() {
			ms = append(ms, jobs.Message{Key: r.Key, Value: r.Value, Time: jobs.Time(r.Time), Headers: jobsHeaders(r.Headers),
				Offset: int64(h.batch.Base) + int64(len(ms))})
		}
		h.next = h.batch.Base + bus.Offset(n)
		if err := s.engine.Records(h.partition, ms); err != nil {
			return s.failed(err)
		}
		s.done += int64(n)
		if s.o.Progress != nil {
			s.o.Progress(s.done, s.all)
		}
	}
	if h.mark != h.told || h.idle != h.toldIdle {
		h.told, h.toldIdle = h.mark, h.idle
		if err := s.engine.Watermark(h.partition, h.mark, h.idle); err != nil {
			return s.failed(err)
		}
	}
	if n := s.engine.StateBytes(); n > s.o.StateBytes {
		return fmt.Errorf("the definition's state has grown to %d bytes; a shadow run keeps it in memory, at most %d: choose a shorter range", n, s.o.StateBytes)
	}
	return s.fault
}

// failed says that the definition failed, as a job of it would.
func (s *shadow) failed(err error) error {
	return fmt.Errorf("the definition fails on a record of topic %s: %w", s.result.Input.Topic, err)
}

// took is what the definition gives to an output.
func (s *shadow) took(n *jobs.Node, m *jobs.Message) {
	if !s.counting {
		return
	}
	o := s.out(n)
	o.Gave++
	if o.Not == "" && s.fault == nil {
		_, s.fault = s.compare.add(o, -1, 0, bus.Record{Key: m.Key, Value: m.Value, Time: int64(m.Time)})
	}
}

// givenReader reads what the job gave in one partition of an output.
type givenReader struct {
	partition int
	topic     bus.TopicID
	at, end   bus.Offset
	reader    *bus.Reader
	over      bool
	tail      int        // records taken behind an end that is not exact
	held      *bus.Batch // the first of these, until the definition has given all: only what it waits for counts there
}

// follow reads what the job gave, as much as the definition has given; all of it where that is over.
func (s *shadow) follow(ctx context.Context, all bool) error {
	if !s.counting {
		return nil
	}
	for _, o := range s.outs {
		for o.Given < o.Gave || all {
			if err := ctx.Err(); err != nil {
				return err
			}
			more := false
			for _, g := range o.readers {
				if g.over || g.held != nil && !all {
					continue
				}
				more = true
				if err := s.readGiven(o, g, all); err != nil {
					return err
				}
			}
			if !more {
				break
			}
		}
	}
	return nil
}

// readGiven takes the next batch.
func (s *shadow) readGiven(o *shadowOut, g *givenReader, all bool) error {
	if b := g.held; b != nil {
		g.held = nil
		return s.takeGiven(o, g, *b)
	}
	if g.at >= g.end {
		g.over = true
		return nil
	}
	if g.reader == nil {
		st, err := s.rt.bus.Browse(g.topic, g.partition, bus.Start{At: g.at})
		if err != nil {
			return err
		}
		g.reader = s.rt.bus.NewReader(0, g.topic, []bus.SubState{st}, func() {})
	}
	b, ok, err := g.reader.Next(int(min(shadowChunk, g.end-g.at)))
	if err != nil || !ok {
		g.over = true
		return err
	}
	if b.Len() == 0 {
		return nil
	}
	g.at = b.Base + bus.Offset(b.Len())
	if b.LSN <= s.begin.lsn {
		return nil
	}
	if b.LSN > s.end.lsn {
		g.tail += b.Len()
		if s.end.exact || g.tail > shadowTailMax {
			g.over = true
			return nil
		}
		if !all {
			g.held = &b
			return nil
		}
	}
	return s.takeGiven(o, g, b)
}

// takeGiven compares what a batch has.
func (s *shadow) takeGiven(o *shadowOut, g *givenReader, b bus.Batch) error {
	if s.owned {
		if job, err := s.owners.of(b.LSN); err != nil || job != s.e.ID {
			return err
		}
	}
	for r := range b.Records() {
		if b.LSN > s.end.lsn && !s.compare.waits(o, r) {
			continue
		}
		o.Given++
		o.seq++
		matched, err := s.compare.add(o, 1, o.seq, r)
		if err != nil {
			return err
		}
		if matched && o.matched == 0 {
			o.matched = o.seq
		}
	}
	return nil
}

// sum adds up.
func (s *shadow) sum() {
	s.compare.close(func(o *shadowOut, n int64, seq int64, apart bool) bool {
		apart = apart || n > 0 && !s.begin.exact && seq < o.matched
		switch {
		case apart:
			o.Apart += max(n, -n)
			s.result.Apart += max(n, -n)
		case n > 0:
			o.Missing += n
		default:
			o.Extra -= n
		}
		return apart
	})
	s.result.Same = true
	for _, o := range s.outs {
		s.result.Equal += o.Equal
		s.result.Missing += o.Missing
		s.result.Extra += o.Extra
		s.result.Outputs = append(s.result.Outputs, o.ShadowOutput)
	}
	s.result.Differences = s.compare.shown
	if s.compare.forgot > 0 {
		s.note("%d differences are too large to be kept for showing", s.compare.forgot)
	}
	if s.result.Outputs == nil {
		s.result.Outputs = []ShadowOutput{}
	}
}

// keepRecord copies a record, so that it may be kept.
func keepRecord(r bus.Record) *bus.Record {
	return &bus.Record{Key: bytes.Clone(r.Key), Value: bytes.Clone(r.Value), Time: r.Time}
}
