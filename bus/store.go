package bus

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"sync"

	"github.com/sidestream-dev/sidestream/wal"
)

// StoreConfig says where the topic store lies.
type StoreConfig struct {
	Dir          string
	Disk         Disk  // nil means OSDisk
	SegmentBytes int64 // a segment is complete from this size on, sooner for topics that keep less; 0 means 64 MiB
	LogID        wal.LogID
}

// StorePart is what the store holds of a partition, as a durable frame or a catalog says it. What the files hold beyond
// it counts for nothing.
type StorePart struct {
	Topic     TopicID `json:"topic"`
	Partition int     `json:"partition"`
	First     wal.LSN `json:"first,omitempty"` // name of the oldest segment; 0: the store holds nothing
	Last      wal.LSN `json:"last,omitempty"`  // name of the newest
	Size      int64   `json:"size,omitempty"`  // bytes of the newest that count
	From      Offset  `json:"from"`            // oldest record that is kept, in the store or, where that holds nothing, in the log
	Next      Offset  `json:"next,omitempty"`  // behind the newest record in the store
	Covered   wal.LSN `json:"covered,omitempty"`
	Bytes     int64   `json:"bytes,omitempty"` // of records ever written up to Next
	Latest    int64   `json:"latest,omitempty"`
	At        int64   `json:"at,omitempty"` // by when the newest record was written, Unix ms

	segs []*storeSegment // in memory, of a change that this process made
}

// StoreChange is a change of what the store holds: part of a frame, which must be durable before anything that it lets go
// is removed, from the log or the store. ApplyStore makes it so.
type StoreChange struct {
	Parts []StorePart `json:"parts,omitempty"`
}

// storeSegment is one file. What is in it never changes, but for points, which are read when they are needed; one that
// grows is replaced.
type storeSegment struct {
	segmentHeader
	size     int64          // of header and entries, the index excluded
	complete bool           // its index is in the file
	table    []ProducerMark // as of start
	index    segmentIndex

	mu     sync.Mutex
	loaded bool // index.points
}

// storeDir is the folder of the store on its disk.
type storeDir struct {
	StoreConfig
}

func newStoreDir(cfg StoreConfig) *storeDir {
	if cfg.Disk == nil {
		cfg.Disk = OSDisk{}
	}
	if cfg.SegmentBytes == 0 {
		cfg.SegmentBytes = 64 << 20
	}
	return &storeDir{cfg}
}

func (d *storeDir) topicDir(t TopicID) string {
	return filepath.Join(d.Dir, strconv.FormatUint(uint64(t), 10))
}

func (d *storeDir) partDir(t TopicID, partition int) string {
	return filepath.Join(d.topicDir(t), strconv.Itoa(partition))
}

func (d *storeDir) path(s *storeSegment) string {
	return filepath.Join(d.partDir(s.topic, s.partition), segmentName(s.start))
}

// damage makes err, which says what did not hold at a place in a segment, an error that names it. An error of the disk
// itself is passed on as what it is.
func (d *storeDir) damage(s *storeSegment, off int64, err error) error {
	name, relErr := filepath.Rel(d.Dir, d.path(s))
	if relErr != nil {
		name = d.path(s)
	}
	var pathErr *fs.PathError
	if errors.As(err, &pathErr) && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("bus: topic store: %s: %w", name, err)
	}
	return &SegmentError{File: name, Offset: off, Topic: s.topic, Partition: s.partition, First: s.base, Next: s.index.next, Err: err}
}

// readFull reads len(b) bytes; the file's end is errShort.
func readFull(f DiskFile, b []byte, off int64) error {
	n, err := f.ReadAt(b, off)
	switch {
	case n == len(b):
		return nil
	case err == nil || errors.Is(err, io.EOF):
		return errShort
	}
	return err
}

// openHeader reads and checks a segment's header.
func (d *storeDir) openHeader(f DiskFile, want segmentHeader) (segmentHeader, error) {
	b := make([]byte, segmentHeaderLen)
	if err := readFull(f, b, 0); err != nil {
		return segmentHeader{}, err
	}
	h, err := decodeSegmentHeader(b)
	if err == nil && (h.topic != want.topic || h.partition != want.partition || h.start != want.start) {
		err = errForeign
	}
	return h, err
}

// openComplete reads what a complete segment says of itself, without its points.
func (d *storeDir) openComplete(topic TopicID, partition int, start wal.LSN) (*storeSegment, error) {
	s := &storeSegment{segmentHeader: segmentHeader{topic: topic, partition: partition, start: start}, complete: true}
	f, err := d.Disk.Open(d.path(s), false)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, d.damage(s, 0, errMissing)
	}
	if err != nil {
		return nil, d.damage(s, 0, err)
	}
	defer f.Close()
	h, err := d.openHeader(f, s.segmentHeader)
	if err != nil {
		return nil, d.damage(s, 0, err)
	}
	s.segmentHeader = h
	size, err := f.Size()
	if err != nil {
		return nil, d.damage(s, 0, err)
	}
	if err := s.readIndex(f, size); err != nil {
		return nil, d.damage(s, max(0, size-trailerLen), err)
	}
	s.index.points = nil
	if err := s.readTable(f); err != nil {
		return nil, d.damage(s, segmentHeaderLen, err)
	}
	return s, nil
}

// readIndex reads the index at the end of a complete segment.
func (s *storeSegment) readIndex(f DiskFile, size int64) error {
	if size < segmentHeaderLen+entryHeaderLen+trailerLen {
		return errShort
	}
	b := make([]byte, trailerLen)
	if err := readFull(f, b, size-trailerLen); err != nil {
		return err
	}
	at, err := decodeTrailer(b, size)
	if err != nil {
		return err
	}
	b = make([]byte, size-trailerLen-at) // of a file that is so long
	if err := readFull(f, b, at); err != nil {
		return err
	}
	e, err := decodeEntry(b)
	if err == nil && e.kind != entryIndex {
		err = errKind
	}
	if err == nil && (e.index.next < s.base || e.index.bytes < s.before || e.index.covered < s.start) {
		err = errRange
	}
	s.size, s.index = at, e.index
	return err
}

// readTable reads the table that a segment begins with.
func (s *storeSegment) readTable(f DiskFile) error {
	head := make([]byte, entryHeaderLen)
	if err := readFull(f, head, segmentHeaderLen); err != nil {
		return err
	}
	n, err := entryLength(head, s.size-segmentHeaderLen)
	if err != nil {
		return err
	}
	b := make([]byte, entryHeaderLen+n)
	if err := readFull(f, b, segmentHeaderLen); err != nil {
		return err
	}
	e, err := decodeEntry(b)
	if err == nil && (e.kind != entryTable || e.lsn != s.start || e.base != s.base || e.bytes != s.before) {
		err = errForeign
	}
	s.table = e.table
	return err
}

// openPart finds the segments that part says the store holds; over goes over offsets that no record has. write removes what it does not say, and cuts the newest
// segment to what counts; both are synced, since what is announced next stands on it.
func (d *storeDir) openPart(part StorePart, over func(Offset) Offset, write bool) ([]*storeSegment, error) {
	dir := d.partDir(part.Topic, part.Partition)
	names, err := d.Disk.List(dir)
	if err != nil {
		return nil, fmt.Errorf("bus: topic store: %w", err)
	}
	var starts []wal.LSN
	removed := false
	for _, name := range slices.Sorted(maps.Keys(names)) {
		start, ok := isSegmentName(name)
		switch {
		case !ok:
			continue // not ours
		case part.First > 0 && start >= part.First && start <= part.Last:
			starts = append(starts, start)
		case write:
			if err := d.Disk.Remove(filepath.Join(dir, name)); err != nil {
				return nil, fmt.Errorf("bus: topic store: removing what was not announced: %w", err)
			}
			removed = true
		}
	}
	if removed {
		if err := d.Disk.SyncDir(dir); err != nil {
			return nil, fmt.Errorf("bus: topic store: %w", err)
		}
	}
	if part.First == 0 {
		return nil, nil
	}
	lost := &storeSegment{segmentHeader: segmentHeader{topic: part.Topic, partition: part.Partition, start: part.Last, base: part.From}}
	lost.index.next = part.Next
	if len(starts) == 0 || starts[len(starts)-1] != part.Last {
		return nil, d.damage(lost, 0, errMissing)
	}
	var segs []*storeSegment
	for i, start := range starts {
		var s *storeSegment
		if i+1 < len(starts) {
			s, err = d.openComplete(part.Topic, part.Partition, start)
		} else {
			s, err = d.openLast(part, write)
		}
		if err != nil {
			return nil, err
		}
		if i == 0 && start != part.First {
			lost.start = part.First
			return nil, d.damage(lost, 0, errMissing)
		}
		if i > 0 {
			if was := segs[i-1]; s.base != was.index.next && s.base != over(was.index.next) || s.before != was.index.bytes || s.start < was.index.covered {
				return nil, d.damage(s, 0, errChain)
			}
		}
		segs = append(segs, s)
	}
	return segs, nil
}

// openLast opens the segment that still grows, as far as part says; or that is complete and has no other behind it.
func (d *storeDir) openLast(part StorePart, write bool) (*storeSegment, error) {
	s := &storeSegment{segmentHeader: segmentHeader{topic: part.Topic, partition: part.Partition, start: part.Last}, size: part.Size}
	s.index = segmentIndex{covered: part.Covered, next: part.Next, bytes: part.Bytes, latest: part.Latest, at: part.At}
	f, err := d.Disk.Open(d.path(s), write)
	if err != nil {
		return nil, d.damage(s, 0, err)
	}
	defer f.Close()
	h, err := d.openHeader(f, s.segmentHeader)
	if err != nil {
		return nil, d.damage(s, 0, err)
	}
	s.segmentHeader = h
	size, err := f.Size()
	switch {
	case err != nil:
		return nil, d.damage(s, 0, err)
	case size < part.Size || part.Size < segmentHeaderLen:
		return nil, d.damage(s, size, errShort)
	case part.Next < s.base || part.Bytes < s.before:
		return nil, d.damage(s, 0, errRange)
	}
	if err := s.readTable(f); err != nil {
		return nil, d.damage(s, segmentHeaderLen, err)
	}
	if !write || size == part.Size {
		return s, nil
	}
	if err := f.Truncate(part.Size); err != nil {
		return nil, d.damage(s, part.Size, err)
	}
	if err := f.Sync(); err != nil {
		return nil, d.damage(s, part.Size, err)
	}
	return s, nil
}

// points returns where the tables of a segment stand. They are read from its index, or, of one that grows, found by
// going over its entries: at most a segment's bytes, once.
func (d *storeDir) points(s *storeSegment, f DiskFile) ([]storePoint, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.loaded {
		return s.index.points, nil
	}
	if s.complete {
		full := &storeSegment{segmentHeader: s.segmentHeader}
		size, err := f.Size()
		if err != nil {
			return nil, d.damage(s, 0, err)
		}
		if err := full.readIndex(f, size); err != nil {
			return nil, d.damage(s, s.size, err)
		}
		s.index.points = full.index.points
	} else {
		w := entryWindow{dir: d, seg: s, f: f, pos: segmentHeaderLen}
		for w.pos < s.size {
			pos := w.pos
			e, err := w.next()
			if err != nil {
				return nil, err
			}
			if e.kind == entryTable {
				s.index.points = append(s.index.points, storePoint{pos, e.lsn, e.base, e.latest})
			}
		}
	}
	s.loaded = true
	return s.index.points, nil
}

// entryWindow reads a segment's entries in order, through a window of bytes.
type entryWindow struct {
	dir *storeDir
	seg *storeSegment
	f   DiskFile
	pos int64 // of the next entry
	buf []byte
	off int64 // of buf in the file
}

const windowBytes = 256 << 10

// next returns the entry at pos, which must lie before the segment's size; its bytes are not used again.
func (w *entryWindow) next() (storeEntry, error) {
	head, err := w.bytes(w.pos, entryHeaderLen)
	if err != nil {
		return storeEntry{}, w.dir.damage(w.seg, w.pos, err)
	}
	n, err := entryLength(head, w.seg.size-w.pos)
	if err != nil {
		return storeEntry{}, w.dir.damage(w.seg, w.pos, err)
	}
	b, err := w.bytes(w.pos, entryHeaderLen+n)
	if err != nil {
		return storeEntry{}, w.dir.damage(w.seg, w.pos, err)
	}
	e, err := decodeEntry(b)
	if err == nil && e.kind == entryRecords {
		err = checkRecords(e.data, e.count)
	}
	if err == nil && e.kind == entryIndex {
		err = errKind
	}
	if err != nil {
		return storeEntry{}, w.dir.damage(w.seg, w.pos, err)
	}
	w.pos += int64(len(b))
	return e, nil
}

// bytes returns n bytes from off, which lie before the segment's size.
func (w *entryWindow) bytes(off int64, n int) ([]byte, error) {
	if off < w.off || off+int64(n) > w.off+int64(len(w.buf)) {
		// A new window each time: entries of the one before are shared by readers.
		size := min(max(int64(n), windowBytes), w.seg.size-off)
		if size < int64(n) {
			return nil, errShort
		}
		w.buf, w.off = make([]byte, size), off
		if err := readFull(w.f, w.buf, off); err != nil {
			w.buf = nil
			return nil, err
		}
	}
	at := off - w.off
	return w.buf[at : at+int64(n) : at+int64(n)], nil
}
