package wal

import (
	"errors"
	"fmt"
	"io"
	"slices"
)

// Report is what Verify found.
type Report struct {
	ID          LogID
	Generations []Generation
	Frames      int
	Sections    int
	Bytes       int64
	Marked      LSN             // the highest LSN that a frame calls durable
	Damage      []*CorruptError // acknowledged frames that are damaged, in order
	Torn        *CorruptError   // the tear at the tail that Open would cut; nil when there is none
	TornBytes   int64
	TornFrames  int // whole ones among them
	Last        LSN // the last whole frame before the tear
}

// OK reports whether Open would lose nothing that was acknowledged.
func (r *Report) OK() bool { return len(r.Damage) == 0 }

// Verify reads every frame of every generation, bodies too, without the lock and without changing anything. The log may
// be in use: what its writer is about to write is neither damage nor a tear. Only a failure to read is an error, and a
// repair that was not finished.
func Verify(dir string) (Report, error) { return verify(osDisk{}, dir) }

func verify(d disk, dir string) (Report, error) {
	s, err := surveyLog(d, dir, true)
	for try := 0; try < 10 && err == nil && s.report.Damage != nil && s.stale(d, dir); try++ {
		s, err = surveyLog(d, dir, true)
	}
	if err == nil {
		err = unfinished(d, dir)
	}
	if err != nil {
		return s.report, fmt.Errorf("wal: verify: %w", err)
	}
	return s.report, nil
}

// between checks what the catalog of g says of the generation before it.
func (r *Report) between(prev, g *generationScan) {
	corrupt := func(err error, last LSN) {
		c := prev.corrupt(prev.end, err)
		c.Last = last
		r.Damage = append(r.Damage, c)
	}
	if g.frames == 0 { // nothing is known but its name
		if prev.damage == nil && prev.due.lsn != g.first {
			corrupt(errTooShort, g.first-1)
		}
		return
	}
	if prev.frames > 0 {
		if last, ok := linked(&prev.catalog, &g.catalog); !ok || prev.damage == nil && last != prev.last() {
			corrupt(errGap, g.first-1)
			return
		}
	}
	count, crc, bytes := summary(prev.segments)
	if e := &g.catalog.ext; prev.damage == nil && (count != e.segments || crc != e.listCRC || bytes != e.bytes) {
		corrupt(errList, g.first-1)
	}
}

// add counts g and names its damage: what lies behind the first is looked through for whole frames, each run of which
// ends one stretch of damage.
func (r *Report) add(d disk, dir string, g *generationScan, newest bool) error {
	r.Frames += g.frames
	r.Sections += g.sections
	r.Bytes += g.bytes
	r.Marked = max(r.Marked, g.marked)
	if g.frames > 0 {
		r.ID, r.Last = g.catalog.id, g.last()
	}
	r.Generations = append(r.Generations, Generation{First: g.first, Last: g.last(), Bytes: g.bytes})
	if g.damage == nil {
		return nil
	}
	b, err := searchBehind(d, dir, g)
	if err != nil {
		return err
	}
	r.Marked = max(r.Marked, b.durable)
	lost := g.frames == 0 && len(r.Generations) == 1 && g.first != 1 // what was before it was dropped: it had been durable
	if newest && b.durable < g.due.lsn && !lost {
		r.Torn, r.TornBytes, r.TornFrames = g.damage, b.bytes, b.frames
		return nil
	}
	g.damage.Last = max(g.damage.First, b.durable)
	r.Damage = append(r.Damage, g.damage)
	return nil
}

// Description is what Info finds without reading a whole log.
type Description struct {
	ID          LogID
	Ancestors   []Ancestor
	Generations []Generation
	Last        LSN
	Catalog     LSN
	Torn        *CorruptError
	TornBytes   int64
}

// Info describes the log in dir without the lock and without changing anything. It reads the newest generation only, and
// fails where Open would refuse.
func Info(dir string) (Description, error) { return info(osDisk{}, dir) }

func info(d disk, dir string) (Description, error) {
	s, gens, err := look(d, dir)
	for try := 0; try < 10 && err != nil; try++ {
		now, _, lerr := listGenerations(d, dir)
		if lerr != nil || slices.Equal(now, gens) {
			break
		}
		s, gens, err = look(d, dir) // a generation was dropped while it was read, which looks like damage
	}
	if err != nil {
		return Description{}, err
	}
	desc := Description{ID: s.id, Ancestors: s.ancest, Generations: s.gens, Torn: s.torn, TornBytes: s.cut.bytes}
	if s.newest != nil {
		desc.Last, desc.Catalog = s.newest.last(), s.newest.first
	}
	return desc, nil
}

// look is scanLog of a log that may be in use, whose generations it lists.
func look(d disk, dir string) (s *logScan, gens []LSN, err error) {
	gens, _, err = listGenerations(d, dir)
	if err == nil {
		err = unfinished(d, dir)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("wal: info: %w", err)
	}
	s, err = scanLog(d, dir, gens)
	return s, gens, err
}

// Dump calls fn with the frames from from (0: the oldest) to to (0: the last whole one), without the lock and without
// changing anything. It stops at the first error, of fn too.
func Dump(dir string, from, to LSN, fn func(*Frame) error) error {
	return dump(osDisk{}, dir, from, to, fn)
}

func dump(d disk, dir string, from, to LSN, fn func(*Frame) error) error {
	desc, err := info(d, dir)
	if err != nil {
		return err
	}
	if to == 0 || to > desc.Last {
		to = desc.Last
	}
	r, err := newReader(source{
		disk: d, dir: dir,
		gens: func() []Generation { return desc.Generations },
		end:  func() LSN { return to },
	}, from)
	if err != nil {
		return err
	}
	defer r.Close()
	for {
		f, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := fn(&f); err != nil {
			return err
		}
	}
}
