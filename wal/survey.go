package wal

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"time"
)

// survey is a whole log read as Verify reads it, for repair to choose from.
type survey struct {
	gens    []*generationScan
	breaks  []bool // the log does not go on from gens[i] to gens[i+1]
	foreign []string
	report  Report
}

// surveyLog reads every frame of every generation. Only a failure to read is an error. live says that the log may be in
// use: then generations may go while it is read, and what is damaged in the newest may still be being written.
func surveyLog(d disk, dir string, live bool) (*survey, error) {
	s := &survey{}
	gens, _, err := listGenerations(d, dir)
	if err != nil {
		return s, err
	}
	dropped := false
	for i, first := range gens {
		g, foreign, err := s.scan(d, dir, first)
		if live && errors.Is(err, fs.ErrNotExist) {
			dropped = true // and all before it
			continue
		}
		if err != nil {
			return s, err
		}
		newest := i == len(gens)-1
		if _, shared := d.(locker); live && shared && newest && g.damage != nil {
			if g, err = s.settle(d, dir, g); err != nil {
				return s, err
			}
		}
		if n := len(s.gens); n > 0 && !dropped {
			s.breaks = append(s.breaks, s.gens[n-1].damage != nil || s.between(s.gens[n-1], g))
		} else if n > 0 {
			s.breaks = append(s.breaks, true)
		}
		for _, f := range foreign {
			s.foreign = append(s.foreign, f)
			s.report.Damage = append(s.report.Damage, &CorruptError{Segment: f, First: first, Err: errForeign})
		}
		dropped = false
		s.gens = append(s.gens, g)
		if err := s.report.add(d, dir, g, newest); err != nil {
			return s, err
		}
	}
	return s, nil
}

// stale reports whether a generation that was read is gone: one that is dropped while it is read looks damaged, or ends early.
func (s *survey) stale(d disk, dir string) bool {
	now, _, err := listGenerations(d, dir)
	return err == nil && slices.ContainsFunc(s.gens, func(g *generationScan) bool { return !slices.Contains(now, g.first) })
}

const (
	settleTries = 5
	settlePause = 20 * time.Millisecond
)

// settle reads the newest generation of a log in use again where it ended in what is not whole. A frame was written whole
// before any behind it could call it durable, and what is only half written soon is whole; what stays as it is, is torn or
// damaged.
func (s *survey) settle(d disk, dir string, g *generationScan) (*generationScan, error) {
	for range settleTries {
		b, err := searchBehind(d, dir, g)
		if err != nil {
			return g, err
		}
		newer, _, err := s.scan(d, dir, g.first)
		if err != nil {
			return g, err
		}
		if newer.due.lsn > g.due.lsn {
			newer.damage = nil // of what was written since
			return newer, nil
		}
		if b.durable >= g.due.lsn {
			return g, nil
		}
		time.Sleep(settlePause)
	}
	return g, nil
}

// scan reads the next generation, and names the files in it that are not the log's.
func (s *survey) scan(d disk, dir string, first LSN) (g *generationScan, foreign []string, err error) {
	want := due{lsn: first, anyID: true, anyPrv: first != 1}
	if n := len(s.gens); n > 0 && s.gens[n-1].damage == nil {
		want.prev, want.anyPrv = s.gens[n-1].due.prev, false
	}
	name := generationName(first)
	segs, foreign, err := listFiles(d, filepath.Join(dir, name))
	if err != nil {
		return nil, nil, err
	}
	for i := range foreign {
		foreign[i] = name + "/" + foreign[i]
	}
	g, err = scanSegments(d, dir, first, want, segs, nil)
	return g, foreign, err
}

// between checks what the catalog of g says of the generation before it, and reports whether it does not follow.
func (s *survey) between(prev, g *generationScan) bool {
	n := len(s.report.Damage)
	s.report.between(prev, g)
	return len(s.report.Damage) > n
}

// Choice is a stretch of a damaged log that can be kept: frames First to Last, whole and in a row, from a catalog on.
type Choice struct {
	First, Last LSN // 0 and 0: nothing at all can be kept, and the log begins anew
	Catalog     LSN // the newest one among them
	Before      Cut // older than what is kept
	Behind      Cut // newer; damaged frames and all that stand on them
	gens        []*generationScan
}

// Cut is what a Choice gives up on one side.
type Cut struct {
	First, Last LSN // of the frames; 0 and 0 for none. Last is the highest that anything speaks of
	Frames      int // whole ones
	Lost        int // what lies between First and Last and is not whole, or not there
	Bytes       int64
}

// choices lists what can be kept, oldest first.
func (s *survey) choices(d disk, dir string) ([]Choice, error) {
	var out []Choice
	for from := 0; from < len(s.gens); {
		to := from
		for to < len(s.breaks) && !s.breaks[to] {
			to++
		}
		kept := s.gens[from : to+1]
		if n := len(kept); kept[n-1].frames == 0 {
			kept = kept[:n-1]
		}
		if len(kept) > 0 || from == 0 && s.gens[0].first == 1 {
			c, err := s.choice(d, dir, from, kept)
			if err != nil {
				return nil, err
			}
			out = append(out, c)
		}
		from = to + 1
	}
	return out, nil
}

// choice counts what is given up around the generations kept, the first of which is from.
func (s *survey) choice(d disk, dir string, from int, kept []*generationScan) (Choice, error) {
	c := Choice{gens: kept}
	if len(kept) > 0 {
		newest := kept[len(kept)-1]
		c.First, c.Last, c.Catalog = kept[0].first, newest.last(), newest.first
		if from > 0 {
			c.Before = Cut{First: s.gens[0].first, Last: c.First - 1}
		}
	}
	for _, g := range s.gens {
		if g.first > c.Last || g.due.lsn > c.Last {
			c.Behind.Last = max(c.Behind.Last, g.named())
		}
	}
	err := s.removed(d, dir, c, func(fr *found, _ *cursor, _ string) error {
		side := &c.Behind
		if fr.lsn < c.First {
			side = &c.Before
		}
		side.Frames++
		side.Last = max(side.Last, fr.lsn, fr.durable)
		return nil
	}, func(segment int64, before bool) {
		if before {
			c.Before.Bytes += segment
		} else {
			c.Behind.Bytes += segment
		}
	})
	if c.Behind.Last <= c.Last {
		c.Behind.Last = 0
	} else {
		c.Behind.First = c.Last + 1
	}
	for _, side := range []*Cut{&c.Before, &c.Behind} {
		if side.Last > 0 {
			side.Lost = max(0, int(side.Last-side.First)+1-side.Frames)
		}
	}
	return c, err
}

// named is the highest LSN that the names of a generation's files and its whole frames speak of.
func (g *generationScan) named() LSN {
	last := g.last()
	for _, s := range g.segments {
		if s.index > 1 { // what is before it was written
			last = max(last, g.first+LSN(s.index-1)-1)
		}
	}
	return max(last, g.first-1, g.marked)
}

// removed calls each with every whole frame outside a choice, and bytes with every stretch of a file that is.
func (s *survey) removed(d disk, dir string, c Choice, each func(fr *found, c *cursor, segment string) error, bytes func(n int64, before bool)) error {
	for _, g := range s.gens {
		from := place{}
		if c.keeps(g) {
			if g.first != c.Catalog {
				continue
			}
			from = g.end
		}
		for i := from.seg; i < len(g.segments); i++ {
			off := int64(0)
			if i == from.seg {
				off = from.off
			}
			bytes(g.segments[i].size-off, g.first < c.First)
			if err := s.removedOf(d, dir, g, i, off, each); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *survey) removedOf(d disk, dir string, g *generationScan, i int, off int64, each func(*found, *cursor, string) error) error {
	return withCursor(d, filepath.Join(dir, g.segmentName(i)), scanAhead, func(c *cursor) error {
		var err error
		serr := c.search(off, func(fr *found) {
			if err == nil && (g.frames == 0 || fr.id == g.catalog.id) {
				err = each(fr, c, g.segmentName(i))
			}
		})
		return errors.Join(err, serr)
	})
}

func (c *Choice) keeps(g *generationScan) bool {
	for _, k := range c.gens {
		if k == g {
			return true
		}
	}
	return false
}

func (c Choice) String() string {
	if c.Last == 0 {
		return "nothing"
	}
	return fmt.Sprintf("LSN %d to %d", c.First, c.Last)
}
