package checkpoint

import (
	"errors"
	"fmt"
	goruntime "runtime"
	"sync/atomic"
	"time"
)

// ErrFenced is what a handle panics with when its attempt is over; the runtime catches it.
var ErrFenced = errors.New("checkpoint: this attempt is over")

// TooLargeError is what Put and Edit panic with for an entry beyond Config.EntryBytes: the record's failure.
type TooLargeError struct {
	Step, Table string
	Bytes, Max  int // of key, sub-key and value
}

// RecordFault makes it a jobs.RecordFault.
func (e *TooLargeError) RecordFault() {}

func (e *TooLargeError) Error() string {
	return fmt.Sprintf("checkpoint: an entry of %d bytes in table %q of step %q; at most %d fit", e.Bytes, e.Table, e.Step, e.Max)
}

// Config tunes a Store; the zero value is a good one.
type Config struct {
	Lo, Hi     int   // the subtask's key groups [Lo, Hi); both 0 means all
	Epoch      Epoch // the first epoch; 0 means 1
	EntryBytes int   // the largest entry: key, sub-key and value; 0 means 960 KiB, which leaves a frame of 1 MiB its head
}

func (c Config) withDefaults() (Config, error) {
	if c.Lo == 0 && c.Hi == 0 {
		c.Hi = KeyGroups
	}
	if c.Epoch == 0 {
		c.Epoch = 1
	}
	if c.EntryBytes == 0 {
		c.EntryBytes = 960 << 10
	}
	if c.Lo < 0 || c.Lo >= c.Hi || c.Hi > KeyGroups {
		return c, fmt.Errorf("checkpoint: key groups [%d, %d) are not within [0, %d)", c.Lo, c.Hi, KeyGroups)
	}
	if c.EntryBytes < 0 || c.EntryBytes > 1<<28 {
		return c, fmt.Errorf("checkpoint: EntryBytes %d is not within 1 to %d", c.EntryBytes, 1<<28)
	}
	return c, nil
}

// The bits of Store.word.
const (
	inCall uint32 = 1
	fenced uint32 = 2
)

// Store is the keyed state of one subtask, in memory. See the package comment for who may call what.
type Store struct {
	word atomic.Uint32

	cfg     Config
	byName  map[tableName]*tableData
	tables  []*tableData
	handles map[*tableData]*Table

	entries int
	bytes   int

	// gen counts the stretches in which an entry's old value is kept once: it grows at each epoch, cut and mark, and is
	// never set back. An entry with the present gen needs nothing kept; cutGen is what it was after the last cut.
	gen, cutGen uint64
	logs        []*epochLog // of the unsealed epochs, oldest first; the last is that of the growing one
	log         *epochLog
	epoch       Epoch // the growing one
	sealed      Epoch
	cut         int // changes of log before this one were cut
	dirtyBytes  int
	pool        pool

	recording bool
	record    []change
	recordOld []byte

	cuts    uint64
	scratch cutScratch
	scan    *Scan

	handed *cell  // whose bytes the last call of a handle gave out
	loops  []loop // calls of Elements and Scan under way
	depth  int
	taken  bool // by Successor
}

type tableName struct{ step, name string }

// NewStore returns an empty Store.
func NewStore(cfg Config) (*Store, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	s := &Store{cfg: cfg, byName: map[tableName]*tableData{}, epoch: cfg.Epoch, sealed: cfg.Epoch - 1}
	s.begin()
	return s, nil
}

// begin starts the log of s.epoch.
func (s *Store) begin() {
	s.gen++
	s.cutGen = s.gen
	s.cut, s.dirtyBytes = 0, 0
	if s.log == nil || s.log.n > 0 {
		s.log = &epochLog{}
		s.logs = append(s.logs, s.log)
	}
	s.log.epoch, s.log.gen = s.epoch, s.gen
}

// enter and leave stand around each call of the owner, so that Fence can wait for it and refuse the next.
func (s *Store) enter() {
	if !s.word.CompareAndSwap(0, inCall) {
		s.refuse()
	}
}

func (s *Store) leave() {
	if !s.word.CompareAndSwap(inCall, 0) {
		s.word.Store(fenced)
	}
}

func (s *Store) refuse() {
	if s.word.Load()&fenced != 0 {
		panic(ErrFenced)
	}
	panic("checkpoint: a Store was used by two goroutines at once")
}

// Fence makes every method of this Store and of its Tables and Scan panic with ErrFenced from now on, whichever goroutine
// calls; only Fence and Successor go on working. It waits for a call under way, which is never one of user code: Elements
// and Scan are out of the Store while they call back.
func (s *Store) Fence() {
	s.word.Or(fenced)
	for i := 0; s.word.Load()&inCall != 0; i++ {
		if i < 100 {
			goruntime.Gosched()
		} else {
			time.Sleep(20 * time.Microsecond)
		}
	}
}

// Successor returns a Store for the next attempt, with what is sealed: sealed is the last epoch that the committer has
// sealed, and all changes of later ones are dropped. It needs Fence first and can be called once. Bytes that a handle of
// the fenced Store gave out are not shared with it.
func (s *Store) Successor(sealed Epoch) *Store {
	if s.word.Load() != fenced || s.taken {
		panic("checkpoint: Successor without Fence, or twice")
	}
	s.taken = true
	n := &Store{
		cfg: s.cfg, byName: s.byName, tables: s.tables, entries: s.entries, bytes: s.bytes,
		gen: s.gen, cutGen: s.cutGen, cuts: s.cuts, cut: s.cut, logs: s.logs, log: s.log, epoch: s.epoch, sealed: s.sealed,
	}
	n.seal(min(sealed, n.epoch-1))
	n.revert(true)
	for _, l := range s.loops[:s.depth] {
		n.detach(l.cell)
	}
	n.detach(s.handed)
	n.sealed = max(n.sealed, sealed)
	n.epoch = n.sealed + 1
	n.log.epoch = n.epoch
	s.byName, s.tables, s.handles, s.logs, s.log, s.scan = nil, nil, nil, nil, nil, nil
	s.record, s.recordOld, s.scratch, s.pool, s.handed, s.loops = nil, nil, cutScratch{}, pool{}, nil, nil
	return n
}

// detach gives c other memory for its value.
func (s *Store) detach(c *cell) {
	if c != nil && c.chain != nil && len(c.val) > 0 {
		old := c.val
		c.val = c.chain.space.newValue(len(old))
		copy(c.val, old)
	}
}

// Epoch returns the growing epoch: the one that the next Cut ends.
func (s *Store) Epoch() Epoch {
	s.enter()
	defer s.leave()
	return s.epoch
}

// Groups returns the key groups [lo, hi) of this subtask.
func (s *Store) Groups() (lo, hi int) { return s.cfg.Lo, s.cfg.Hi }

// Size returns the number of entries and the bytes of their keys, sub-keys and values, unsealed changes included.
func (s *Store) Size() (entries, bytes int) {
	s.enter()
	defer s.leave()
	return s.entries, s.bytes
}

// Dirty returns how many changes wait for the next cut, and about how many bytes they take, rather more than less.
func (s *Store) Dirty() (entries, bytes int) {
	s.enter()
	defer s.leave()
	return s.log.n - s.cut, s.dirtyBytes
}

// Sealed says that all epochs up to e are sealed: they cannot be reverted any more. On a Store in which nothing is
// unsealed, e may also be one that was never cut here: that is where recovery has arrived.
func (s *Store) Sealed(e Epoch) {
	s.enter()
	defer s.leave()
	s.seal(e)
}

func (s *Store) seal(e Epoch) {
	for s.logs[0] != s.log && s.logs[0].epoch <= e {
		s.finish(s.logs[0])
		s.pool.recycle(s.logs[0])
		s.logs = append(s.logs[:0], s.logs[1:]...)
	}
	s.sealed = max(s.sealed, e)
	if e < s.epoch {
		return
	}
	if s.log.n > 0 {
		panic("checkpoint: an epoch was sealed that was not cut")
	}
	s.epoch = e + 1
	s.begin()
}

// finish does what a sealed deletion leaves to do.
func (s *Store) finish(l *epochLog) {
	for i := 0; i < l.n && l.gone > 0; i++ {
		switch r := l.at(i); r.kind {
		case died:
			l.gone--
			s.remove(r.cell)
		case dropped:
			l.gone--
			r.space.gone = true
			t := r.space.table
			for j, sp := range t.dropped {
				if sp == r.space {
					t.dropped = append(t.dropped[:j], t.dropped[j+1:]...)
					break
				}
			}
		}
	}
}

// Revert drops the changes of all unsealed epochs; the epoch behind the last sealed one begins again.
func (s *Store) Revert() {
	s.enter()
	defer s.leave()
	s.revert(false)
}

func (s *Store) revert(away bool) {
	s.endRecord()
	for len(s.logs) > 0 {
		l := s.logs[len(s.logs)-1]
		for i := l.n - 1; i >= 0; i-- {
			s.undo(l.at(i), away)
		}
		s.pool.recycle(l)
		s.logs = s.logs[:len(s.logs)-1]
	}
	s.log = nil
	s.epoch = s.sealed + 1
	s.begin()
}

// add makes an entry with a zero value and counts it.
func (s *Store) add(ch *chain, group uint8, name []byte, size int) *cell {
	sp := ch.space
	c := sp.newCell()
	c.chain, c.group, c.name = ch, group, string(name)
	c.val = sp.newValue(size)
	clear(c.val)
	ch.link(c)
	s.count(sp, 1, c.size())
	return c
}

func (s *Store) count(sp *space, n, size int) {
	s.bytes += size
	sp.bytes += int64(size)
	if n == 0 {
		return
	}
	s.entries += n
	was := sp.live
	sp.live += n
	if was == 0 {
		sp.table.show(sp.ns)
	} else if sp.live == 0 {
		sp.table.hide(sp.ns)
	}
}

// remove takes a dead cell away, and with the last one its key's list and the namespace.
func (s *Store) remove(c *cell) {
	ch := c.chain
	sp := ch.space
	s.scan.leaving(c)
	ch.unlink(c)
	if s.handed == c {
		s.handed = nil
	}
	sp.freeCell(c)
	if ch.linked == 0 && !ch.values {
		s.scan.leavingChain(ch)
		sp.unlist(ch)
	}
	if sp.linked == 0 && !sp.dropped {
		t := sp.table
		delete(t.spaces, sp.ns)
		t.cached = nil
	}
}

func (s *Store) spaceOf(t *tableData, ns int64) *space {
	if sp := t.space(ns); sp != nil {
		return sp
	}
	sp := &space{table: t, ns: ns, born: s.gen}
	sp.vals.space, sp.vals.values = sp, true
	t.spaces[ns] = sp
	t.cached = sp
	return sp
}

func (s *Store) drop(sp *space) {
	t := sp.table
	s.entries -= sp.live
	s.bytes -= int(sp.bytes)
	t.hide(sp.ns)
	delete(t.spaces, sp.ns)
	t.cached = nil
	sp.dropped = true
	t.dropped = append(t.dropped, sp)
}

func (s *Store) undrop(sp *space) {
	t := sp.table
	t.dropped = t.dropped[:len(t.dropped)-1] // drops are taken back newest first
	sp.dropped = false
	if t.spaces[sp.ns] != nil {
		panic("checkpoint: a namespace came back beside another")
	}
	t.spaces[sp.ns] = sp
	t.cached = nil
	t.show(sp.ns)
	s.entries += sp.live
	s.bytes += int(sp.bytes)
}
