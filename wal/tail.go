package wal

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strconv"
	"strings"
)

const (
	nameLen    = 20 // digits in the name of a generation or a segment
	dropSuffix = ".drop"
	scanAhead  = 1 << 20
)

func generationName(first LSN) string { return fmt.Sprintf("%020d", uint64(first)) }
func segmentName(index uint64) string { return fmt.Sprintf("%020d", index) }

func parseName(name string) (uint64, bool) {
	if len(name) != nameLen {
		return 0, false
	}
	n, err := strconv.ParseUint(name, 10, 64)
	return n, err == nil && n > 0
}

// segment is a file of a generation, as its directory lists it.
type segment struct {
	index uint64
	size  int64
}

// place is a spot in a generation.
type place struct {
	seg int // index into segments
	off int64
}

// generationScan is a generation read from its first byte to the first that is not the frame due.
type generationScan struct {
	first    LSN
	segments []segment
	frames   int // 0 where its catalog is not whole
	sections int
	bytes    int64 // up to end
	end      place // behind the last whole frame
	due      due   // what is due there
	catalog  found
	marked   LSN           // the highest durable mark seen
	unmarked []place       // where the frames above it begin, oldest first
	damage   *CorruptError // why it does not go on; nil at the end of the last segment
}

// last is the last whole frame of the generation, 0 if it has none.
func (g *generationScan) last() LSN {
	if g.frames == 0 {
		return 0
	}
	return g.due.lsn - 1
}

func (g *generationScan) segmentName(i int) string {
	return generationName(g.first) + "/" + segmentName(g.segments[i].index)
}

func (g *generationScan) corrupt(at place, err error) *CorruptError {
	name := generationName(g.first)
	if at.seg < len(g.segments) {
		name = g.segmentName(at.seg)
	}
	return &CorruptError{Segment: name, Offset: at.off, First: g.due.lsn, Err: err}
}

// listSegments lists the segments of a generation. A file that the engine would act on is a fault.
func listSegments(d disk, dir string) ([]segment, error) {
	segs, foreign, err := listFiles(d, dir)
	if err == nil && len(foreign) > 0 {
		err = &CorruptError{Segment: filepath.Base(dir) + "/" + foreign[0], Err: errForeign}
	}
	return segs, err
}

// listFiles lists the segments of a generation, and the files beside them on whose account the engine would delete some.
func listFiles(d disk, dir string) (segs []segment, foreign []string, err error) {
	list, err := d.List(dir)
	if err != nil {
		return nil, nil, err
	}
	for _, e := range list {
		if index, ok := parseName(e.name); ok && !e.dir {
			segs = append(segs, segment{index: index, size: e.size})
			continue
		}
		for _, suffix := range []string{".START", ".END"} {
			base, ok := strings.CutSuffix(e.name, suffix)
			if _, isName := parseName(base); ok && isName {
				foreign = append(foreign, e.name)
			}
		}
	}
	return segs, foreign, nil
}

// listGenerations lists the generations of a log, and those half deleted.
func listGenerations(d disk, dir string) (gens []LSN, dropped []string, err error) {
	list, err := d.List(dir)
	if err != nil {
		return nil, nil, err
	}
	for _, e := range list {
		base, isDrop := strings.CutSuffix(e.name, dropSuffix)
		n, ok := parseName(base)
		switch {
		case !ok || !e.dir:
		case isDrop:
			dropped = append(dropped, e.name)
		default:
			gens = append(gens, LSN(n))
		}
	}
	return gens, dropped, nil
}

// scanGeneration reads all frames of a generation, bodies too. An error is one of reading; what the bytes say is in the
// result. each, if not nil, is called with every whole frame.
func scanGeneration(d disk, dir string, first LSN, want due, each func(*found)) (*generationScan, error) {
	segs, err := listSegments(d, filepath.Join(dir, generationName(first)))
	if err != nil {
		return &generationScan{first: first, due: want}, err
	}
	return scanSegments(d, dir, first, want, segs, each)
}

// scanSegments is scanGeneration of segments that are listed already.
func scanSegments(d disk, dir string, first LSN, want due, segs []segment, each func(*found)) (*generationScan, error) {
	g := &generationScan{first: first, due: want, segments: segs}
	err := g.scan(d, dir, each)
	if err == nil && g.frames > 0 && g.frames <= g.catalog.ext.parts {
		g.halfCatalog()
	}
	return g, err
}

// halfCatalog makes a generation whose catalog breaks off what it would be without any of it.
func (g *generationScan) halfCatalog() {
	if g.damage == nil {
		g.damage = g.corrupt(g.end, errHalf)
	}
	g.damage.First = g.first
	*g = generationScan{first: g.first, segments: g.segments, damage: g.damage, due: due{lsn: g.first, id: g.catalog.id, anyPrv: true}}
}

func (g *generationScan) scan(d disk, dir string, each func(*found)) error {
	gdir := filepath.Join(dir, generationName(g.first))
	for i, s := range g.segments {
		if index := uint64(g.due.lsn-g.first) + 1; s.index != index {
			g.damage = g.corrupt(place{max(i-1, 0), g.end.off}, errMissing)
			if s.index < index {
				g.damage = g.corrupt(place{i, 0}, errLSN)
			}
			return nil
		}
		if err := g.scanSegment(d, gdir, i, each); err != nil {
			return err
		}
		if g.damage != nil {
			return nil
		}
	}
	if g.frames == 0 {
		g.damage = g.corrupt(place{}, errShort)
	}
	return nil
}

func (g *generationScan) scanSegment(d disk, gdir string, i int, each func(*found)) error {
	path := filepath.Join(gdir, segmentName(g.segments[i].index))
	g.end = place{seg: i}
	return withCursor(d, path, scanAhead, func(c *cursor) error {
		var fr found
		for {
			err := g.check(c, &fr)
			switch {
			case err == nil:
			case errors.Is(err, io.EOF):
				return nil
			case isFault(err):
				g.damage = g.corrupt(g.end, err)
				return nil
			default:
				return err
			}
			if each != nil {
				each(&fr)
			}
			g.take(&fr)
		}
	})
}

// check reads the next frame, bodies too.
func (g *generationScan) check(c *cursor, fr *found) error {
	if err := c.entry(g.end.off, fr); err != nil {
		return err
	}
	if err := g.due.check(&fr.head); err != nil {
		return err
	}
	if (fr.kind == KindCatalog) != (g.frames == 0) {
		return errCatalog
	}
	if (fr.kind == KindCatalogPart) != (g.frames > 0 && g.frames <= g.catalog.ext.parts) {
		return errPart
	}
	return c.bodies(fr)
}

// take adds a whole frame.
func (g *generationScan) take(fr *found) {
	if g.frames == 0 {
		g.catalog = *fr
		g.catalog.table = nil
	}
	g.frames++
	g.sections += fr.sections
	g.bytes += fr.next - g.end.off
	g.unmarked = append(g.unmarked, g.end)
	if fr.durable > g.marked {
		g.marked = fr.durable
		if keep := int(fr.lsn - fr.durable); keep < len(g.unmarked) {
			g.unmarked = append(g.unmarked[:0], g.unmarked[len(g.unmarked)-keep:]...)
		}
	}
	g.due.follow(&fr.head)
	g.end.off = fr.next
}

// behind is what lies behind the first bytes that are not the frame due.
type behind struct {
	frames  int // whole ones of this log
	durable LSN // the highest mark in them
	last    LSN // the highest LSN
	bytes   int64
}

// searchBehind looks for whole frames of this log from the end of g on.
func searchBehind(d disk, dir string, g *generationScan) (behind, error) {
	var found behind
	gdir := filepath.Join(dir, generationName(g.first))
	for i := g.end.seg; i < len(g.segments); i++ {
		off := int64(0)
		if i == g.end.seg {
			off = g.end.off
		}
		found.bytes += g.segments[i].size - off
		if err := searchSegment(d, filepath.Join(gdir, segmentName(g.segments[i].index)), off, g.due, &found); err != nil {
			return found, err
		}
	}
	return found, nil
}

func searchSegment(d disk, path string, off int64, want due, b *behind) error {
	return withCursor(d, path, scanAhead, func(c *cursor) error {
		return c.search(off, func(fr *found) {
			if !want.anyID && fr.id != want.id {
				return
			}
			b.frames++
			b.durable = max(b.durable, fr.durable)
			b.last = max(b.last, fr.lsn)
		})
	})
}
