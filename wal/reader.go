package wal

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"path/filepath"
	"sort"
)

const (
	aheadMin = 64 << 10 // bytes read at once by a reader that takes few of the bodies
	aheadMax = 4 << 20  // by one that takes them all, in order
)

// source is what a reader reads: the files of a log, and how far.
type source struct {
	disk disk
	dir  string
	gens func() []Generation
	end  func() LSN // the last frame that may be read
}

// Reader reads frames in order, by positions of its own. It shares nothing with the writer and sees what is durable,
// nothing later. One goroutine at a time may use it.
type Reader struct {
	src source
	due due // the frame that Next gives

	gen     Generation // that holds it, as last seen; zero before the first
	c       *cursor
	segment string
	off     int64
	filled  LSN // what was durable when the window was filled
	fr      found
	moves   uint64 // counts Next and Seek, to know old frames by
	taken   int    // bytes of bodies taken of the current frame
	streak  int    // frames in a row of which most was taken
	scratch []byte
	closed  bool
}

// Frame is one frame of the log. It is valid until its reader's next Next, Seek or Close; the fields stay.
type Frame struct {
	LSN     LSN
	Kind    FrameKind
	ID      LogID
	Durable LSN // what was durable when it was written
	Bytes   int // all of it
	Segment string
	Offset  int64 // of its entry in the segment
	r       *Reader
	move    uint64
	table   []entry
}

// Reader returns a cursor whose first frame is from; 0 stands for the oldest. It sees frames up to Durable, as that
// moves. [ErrGone] if from was dropped.
func (l *Log) Reader(from LSN) (*Reader, error) {
	return newReader(source{disk: l.disk, dir: l.dir, gens: l.Generations, end: l.Durable}, from)
}

func newReader(src source, from LSN) (*Reader, error) {
	r := &Reader{src: src}
	return r, r.Seek(from)
}

// Seek makes lsn the next frame; 0 stands for the oldest. [ErrGone] if it was dropped.
func (r *Reader) Seek(lsn LSN) error {
	if r.closed {
		return ErrClosed
	}
	r.moves++
	r.closeFile()
	gens := r.src.gens()
	if lsn == 0 {
		lsn = 1
		if len(gens) > 0 {
			lsn = gens[0].First
		}
	}
	r.due, r.gen = due{lsn: lsn, anyID: true, anyPrv: true}, Generation{}
	if len(gens) > 0 && lsn < gens[0].First {
		return fmt.Errorf("%w: LSN %d, the oldest is %d", ErrGone, lsn, gens[0].First)
	}
	return nil
}

func (r *Reader) closeFile() {
	if r.c != nil {
		r.c.f.Close()
		r.c = nil
	}
}

// Close gives the reader's file free.
func (r *Reader) Close() error {
	r.moves++
	r.closed = true
	r.closeFile()
	return nil
}

// Next returns the next frame. It has checked the frame's header and table, and that it follows the one before; bodies
// are checked as they are taken. [io.EOF] at the end of what is durable now: call again later. A [*CorruptError] on
// damage, [ErrGone] if the frame was dropped meanwhile.
func (r *Reader) Next() (Frame, error) {
	if r.closed {
		return Frame{}, ErrClosed
	}
	r.moves++
	r.adapt()
	for {
		end := r.src.end()
		if r.due.lsn > end {
			return Frame{}, io.EOF
		}
		if r.c == nil {
			if err := r.find(); err != nil {
				return Frame{}, err
			}
			if r.due.lsn > end { // an LSN that a change of the log's id left out
				continue
			}
		}
		if r.due.lsn > r.filled {
			r.c.buf = r.c.buf[:0] // it may hold what was only half written
		}
		if len(r.c.buf) == 0 {
			r.filled = end
		}
		err := r.c.entry(r.off, &r.fr)
		if errors.Is(err, io.EOF) { // the frame begins the next segment, or generation
			r.closeFile()
			if r.off == 0 {
				return Frame{}, r.corrupt(errShort)
			}
			continue
		}
		if err == nil {
			err = r.due.check(&r.fr.head)
		}
		if err != nil {
			if !isFault(err) {
				return Frame{}, err
			}
			return Frame{}, r.corrupt(err)
		}
		return r.take(), nil
	}
}

// take makes a Frame of r.fr and goes on behind it.
func (r *Reader) take() Frame {
	f := Frame{
		LSN: r.fr.lsn, Kind: r.fr.kind, ID: r.fr.id, Durable: r.fr.durable, Bytes: r.fr.length,
		Segment: r.segment, Offset: r.off, r: r, move: r.moves, table: r.fr.table,
	}
	r.due.follow(&r.fr.head)
	r.off = r.fr.next
	return f
}

// adapt reads on in larger steps for who takes most of the bodies, in smaller ones for who picks.
func (r *Reader) adapt() {
	if r.c == nil {
		return
	}
	if r.taken*2 >= r.fr.length {
		r.streak++
	} else {
		r.streak = 0
	}
	r.taken = 0
	r.c.ahead = r.ahead()
}

func (r *Reader) ahead() int { return min(aheadMin<<min(r.streak, 6), aheadMax) }

func (r *Reader) corrupt(err error) *CorruptError {
	return &CorruptError{Segment: r.segment, Offset: r.off, First: r.due.lsn, Last: r.due.lsn, Err: err}
}

// find opens the segment that holds the frame due and goes to its place there.
func (r *Reader) find() error {
	if err := r.findGeneration(); err != nil {
		return err
	}
	gdir := filepath.Join(r.src.dir, generationName(r.gen.First))
	index := uint64(r.due.lsn-r.gen.First) + 1
	if !r.due.anyPrv || index == 1 { // the frame before was the last of its segment
		err := r.open(gdir, index)
		if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return r.missing(index)
	}
	segs, err := listSegments(r.src.disk, gdir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	i := sort.Search(len(segs), func(i int) bool { return segs[i].index > index })
	if i == 0 {
		return r.missing(index)
	}
	if err := r.open(gdir, segs[i-1].index); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return r.missing(index)
		}
		return err
	}
	return r.skipTo(segs[i-1].index)
}

// findGeneration finds the generation of the frame due, and raises what is due over a gap that a change of id left.
func (r *Reader) findGeneration() error {
	gens := r.src.gens()
	if len(gens) == 0 || r.due.lsn < gens[0].First {
		return fmt.Errorf("%w: LSN %d", ErrGone, r.due.lsn)
	}
	i := sort.Search(len(gens), func(i int) bool { return gens[i].First > r.due.lsn }) - 1
	if i+1 < len(gens) && r.due.lsn > gens[i].Last {
		i++
		r.due.lsn = gens[i].First
	}
	if r.due.lsn == gens[i].First {
		r.due.anyID = true // checked against the catalog by Open; what was before it, by the checksum
	}
	r.gen = gens[i]
	return nil
}

// missing is the error for a segment that is not there: dropped meanwhile, or lost.
func (r *Reader) missing(index uint64) error {
	if gens := r.src.gens(); len(gens) == 0 || r.due.lsn < gens[0].First {
		return fmt.Errorf("%w: LSN %d", ErrGone, r.due.lsn)
	}
	r.segment, r.off = generationName(r.gen.First)+"/"+segmentName(index), 0
	return r.corrupt(errMissing)
}

func (r *Reader) open(gdir string, index uint64) error {
	f, err := r.src.disk.Open(filepath.Join(gdir, segmentName(index)))
	if err != nil {
		return err
	}
	c, err := newCursor(f, r.ahead())
	if err != nil {
		f.Close()
		return err
	}
	r.c, r.off, r.filled = c, 0, r.src.end()
	r.segment = filepath.Base(gdir) + "/" + segmentName(index)
	return nil
}

// skipTo reads headers from the first frame of the segment, index, up to the frame due.
func (r *Reader) skipTo(index uint64) error {
	target := r.due.lsn
	r.due = due{lsn: r.gen.First + LSN(index-1), anyID: true, anyPrv: true}
	for r.due.lsn < target {
		err := r.c.entry(r.off, &r.fr)
		if errors.Is(err, io.EOF) {
			err = errEarly
		}
		if err == nil {
			err = r.due.check(&r.fr.head)
		}
		if err != nil {
			if isFault(err) {
				c := r.corrupt(err)
				c.Last = target
				err = c
			}
			r.closeFile()
			r.due = due{lsn: target, anyID: true, anyPrv: true}
			return err
		}
		r.due.follow(&r.fr.head)
		r.off = r.fr.next
	}
	return nil
}

// Len returns the number of sections.
func (f *Frame) Len() int { return len(f.table) }

// Section returns a line of the table.
func (f *Frame) Section(i int) SectionInfo { return f.table[i].SectionInfo }

// Body reads and checks a section. The slice is the caller's.
func (f *Frame) Body(i int) ([]byte, error) {
	b, err := f.View(i)
	if err != nil {
		return nil, err
	}
	return append(make([]byte, 0, len(b)), b...), nil
}

// View is Body without the copy: the slice must not be changed, and is valid until the reader's next call, View of
// another section included.
func (f *Frame) View(i int) ([]byte, error) {
	r := f.r
	if f.move != r.moves || r.c == nil {
		return nil, ErrStale
	}
	e := &f.table[i]
	b, err := r.view(e)
	if err != nil {
		return nil, err
	}
	r.taken += e.Len
	if len(b) < e.Len {
		err = errShort
	} else if crc32.Checksum(b, castagnoli) != e.crc {
		err = errBodyCRC
	}
	if err != nil {
		return nil, &CorruptError{Segment: f.Segment, Offset: r.fr.at + int64(e.off), First: f.LSN, Last: f.LSN,
			Err: fmt.Errorf("section %d: %w", i, err)}
	}
	return b, nil
}

// view reads a section: from the window, with the rest of the frame if the reader takes everything, or by itself.
func (r *Reader) view(e *entry) ([]byte, error) {
	at := r.fr.at + int64(e.off)
	if r.c.has(at, e.Len) || r.streak > 0 && r.fr.length <= aheadMax {
		if !r.c.has(at, e.Len) {
			r.filled = r.src.end()
			if err := r.c.fill(r.fr.at, r.fr.length); err != nil {
				return nil, err
			}
		}
		return r.c.bytes(at, e.Len)
	}
	if cap(r.scratch) < e.Len {
		r.scratch = make([]byte, e.Len)
	}
	n, err := r.c.f.ReadAt(r.scratch[:e.Len], at)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("wal: read: %w", err)
	}
	return r.scratch[:n], nil
}
