package wal

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"path/filepath"
)

// Generation is a stretch of the log that is dropped as a whole.
type Generation struct {
	First LSN
	Last  LSN // of the newest generation, the last frame appended
	Bytes int64
}

// logScan is what a log's directory holds, and what is to be cut from it.
type logScan struct {
	gens    []Generation
	newest  *generationScan // nil in an empty log
	id      LogID
	idFirst LSN
	ancest  []Ancestor

	removeGen LSN             // a generation whose catalog never became whole; 0 for none
	torn      *CorruptError   // why something is cut; nil when nothing is
	cut       behind          // what is cut
	lost      *generationScan // the generation removed
}

// scanLog finds the tail of a log, reading only. The newest generation is read in full, of older ones the catalog and
// the list of segments; damage to their bodies is found by who reads them. The error is a *DamagedError where
// acknowledged frames are damaged.
func scanLog(d disk, dir string, gens []LSN) (*logScan, error) {
	s := &logScan{}
	if len(gens) == 0 {
		return s, nil
	}
	catalogs, err := readCatalogs(d, dir, gens)
	if err != nil {
		return nil, err
	}
	n := len(gens) - 1
	g, err := scanNewest(d, dir, gens, catalogs)
	if err != nil {
		return nil, err
	}
	if g, err = s.judge(d, dir, g, func() (*generationScan, error) { return scanNewest(d, dir, gens, catalogs) }); err != nil {
		return nil, err
	}
	if g.frames == 0 { // its catalog was torn: the one before is the newest
		s.removeGen, s.lost = g.first, g
		if n == 0 {
			if g.first != 1 { // what was before it was dropped, for which its catalog had to be durable
				g.damage.Last = max(g.first, s.cut.last)
				return nil, &DamagedError{g.damage}
			}
			return s, nil
		}
		gens, n = gens[:n], n-1
		if g, err = scanNewest(d, dir, gens, catalogs); err != nil {
			return nil, err
		}
		// The old generation was fsynced before the new directory was made.
		if g.damage != nil || g.last() != s.removeGen-1 {
			c := g.damage
			if c == nil {
				c = g.corrupt(g.end, errTooShort)
			}
			c.Last = max(c.First, s.removeGen-1)
			return nil, &DamagedError{c}
		}
	}
	if catalogs[n] == nil { // it has become whole since
		catalogs[n] = &g.catalog
	}
	s.newest, s.id = g, g.catalog.id
	s.idFirst, s.ancest = g.catalog.ext.first, g.catalog.ext.ancestors
	for i := range n {
		old, err := checkOld(d, dir, gens[i], catalogs[i], catalogs[i+1])
		if err != nil {
			return nil, err
		}
		s.gens = append(s.gens, old)
	}
	s.gens = append(s.gens, Generation{First: g.first, Last: g.last(), Bytes: g.bytes})
	return s, nil
}

// judge decides whether the damage in g, the newest generation, is a tear or damage to what was acknowledged: the latter
// if a whole frame of this log behind it says that the frame due there was durable, and it still is not whole when it is
// read again (by a View of a log in use it may have been read while it was written). It returns g, or a newer reading of it.
func (s *logScan) judge(d disk, dir string, g *generationScan, again func() (*generationScan, error)) (*generationScan, error) {
	for g.damage != nil {
		b, err := searchBehind(d, dir, g)
		if err != nil {
			return nil, err
		}
		if b.durable < g.due.lsn {
			s.torn, s.cut = g.damage, b
			return g, nil
		}
		newer := g
		if _, shared := d.(locker); shared {
			if newer, err = again(); err != nil {
				return nil, err
			}
		}
		if newer.due.lsn <= g.due.lsn {
			g.damage.Last = b.durable
			return nil, &DamagedError{g.damage}
		}
		g = newer
	}
	return g, nil
}

// scanNewest reads the last of gens in full.
func scanNewest(d disk, dir string, gens []LSN, catalogs []*found) (*generationScan, error) {
	n := len(gens) - 1
	want := due{lsn: gens[n], anyPrv: gens[n] != 1, anyID: true}
	if n > 0 && catalogs[n-1] != nil {
		want.id, want.anyID = catalogs[n-1].id, catalogs[n] != nil // a jump of the id is checked by checkOld
	}
	return scanGeneration(d, dir, gens[n], want, nil)
}

// readCatalogs reads the head of each generation's catalog; nil where it is not whole.
func readCatalogs(d disk, dir string, gens []LSN) ([]*found, error) {
	catalogs := make([]*found, len(gens))
	for i, first := range gens {
		fr, err := readCatalog(d, filepath.Join(dir, generationName(first)), first)
		if err != nil && !isFault(err) {
			return nil, err
		}
		catalogs[i] = fr
	}
	return catalogs, nil
}

func readCatalog(d disk, gdir string, first LSN) (*found, error) {
	segs, err := listSegments(d, gdir)
	if err != nil {
		return nil, err
	}
	if len(segs) == 0 || segs[0].index != 1 {
		return nil, errMissing
	}
	fr := new(found)
	err = withCursor(d, filepath.Join(gdir, segmentName(1)), 4<<10, func(c *cursor) error { return c.entry(0, fr) })
	if errors.Is(err, io.EOF) {
		err = errShort
	}
	if err != nil {
		return nil, err
	}
	if fr.kind != KindCatalog || fr.lsn != first {
		return nil, errCatalog
	}
	return fr, nil
}

// checkOld checks a generation against the catalog of the one behind it, without reading it.
func checkOld(d disk, dir string, first LSN, catalog, next *found) (Generation, error) {
	name := generationName(first)
	corrupt := func(err error) error {
		last := LSN(0)
		if next != nil {
			last = next.lsn - 1
		}
		return &DamagedError{&CorruptError{Segment: name, First: first, Last: last, Err: err}}
	}
	if catalog == nil {
		return Generation{}, corrupt(errCatalog)
	}
	if next == nil {
		return Generation{}, corrupt(errGap)
	}
	last, ok := linked(catalog, next)
	if !ok {
		return Generation{}, corrupt(errGap)
	}
	segs, err := listSegments(d, filepath.Join(dir, name))
	if err != nil {
		return Generation{}, err
	}
	count, crc, bytes := summary(segs)
	if count != next.ext.segments || crc != next.ext.listCRC || bytes != next.ext.bytes {
		return Generation{}, corrupt(errList)
	}
	return Generation{First: first, Last: last, Bytes: bytes}, nil
}

// linked says where the generation of catalog ends if the one of next follows it.
func linked(catalog, next *found) (last LSN, ok bool) {
	if next.lsn <= catalog.lsn {
		return 0, false
	}
	if next.id == catalog.id {
		return next.lsn - 1, true
	}
	a := next.ext.ancestors
	if len(a) == 0 || next.ext.first != next.lsn {
		return 0, false
	}
	from := a[len(a)-1]
	return from.Last, from.ID == catalog.id && from.Last >= catalog.lsn && from.Last < next.lsn
}

// summary is what a catalog says of the segments of the generation before it.
func summary(segs []segment) (count int, crc uint32, bytes int64) {
	var line [16]byte
	for _, s := range segs {
		binary.LittleEndian.PutUint64(line[:], s.index)
		binary.LittleEndian.PutUint64(line[8:], uint64(s.size))
		crc = crc32.Update(crc, castagnoli, line[:])
		bytes += s.size
	}
	return len(segs), crc, bytes
}
