package runtime

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"iter"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/sidestream-dev/sidestream/bus"
	"github.com/sidestream-dev/sidestream/checkpoint"
	"github.com/sidestream-dev/sidestream/wal"
)

// simFrame is a frame of the simulator's log. It implements frame.
type simFrame struct {
	lsn      wal.LSN
	kind     wal.FrameKind
	sections []wal.Section // copies
	given    []wal.Section // what the committer passed, which must not change until the frame is durable
	bytes    int64
	decoded  map[int][]simValue // records, by section
	headers  map[int][]simMarked
	apart    bool // of a twin: what belongs to it stands in the next frame
	more     bool // a catalog goes on in the next frame
}

// owner returns the job whose epoch the frame is of, or 0.
func (f *simFrame) owner() uint32 {
	for _, s := range f.sections {
		if s.Kind == checkpoint.SectionHeader {
			return s.Owner
		}
	}
	return 0
}

func (f *simFrame) LSN() wal.LSN        { return f.lsn }
func (f *simFrame) Kind() wal.FrameKind { return f.kind }
func (f *simFrame) Len() int            { return len(f.sections) }

func (f *simFrame) Section(i int) wal.SectionInfo {
	s := f.sections[i]
	return wal.SectionInfo{Kind: s.Kind, Owner: s.Owner, Len: len(s.Body)}
}

func (f *simFrame) Body(i int) ([]byte, error) { return f.sections[i].Body, nil }

// body returns the first section of a kind, or nil.
func (f *simFrame) body(kind uint8) []byte {
	for _, s := range f.sections {
		if s.Kind == kind {
			return s.Body
		}
	}
	return nil
}

// simLog is a log in memory: what was appended, how far it is durable, and where its generations begin. It implements
// processLog and frames. A process has one of its own; the next one begins with a prefix of its frames.
type simLog struct {
	s        *sim
	frames   []*simFrame // all that ever were, dropped ones too: frame n is frames[n-1]
	gens     []wal.LSN   // first frames of the generations that are there
	durable  wal.LSN
	syncing  wal.LSN // where the fsync under way will come to; 0 if there is none
	genBytes int64
	pending  int64
	full     bool // the disk has no room
	dead     bool // its process has crashed
}

var simID = wal.LogID{'s', 'i', 'm'}

// whole returns the last frame up to last with which a log may end: one that ends within a catalog loses what there is of that.
func (l *simLog) whole(last wal.LSN) wal.LSN {
	for last > 0 && l.frames[last-1].more && !l.s.twin.halfCatalogs {
		last--
	}
	return last
}

// prefix returns what a crash may leave of the log: its frames up to last, all of them durable once it was opened again.
func (l *simLog) prefix(last wal.LSN) *simLog {
	p := &simLog{s: l.s, frames: l.frames[:last:last], durable: last}
	for _, g := range l.gens {
		if g <= last {
			p.gens = append(p.gens, g)
		}
	}
	if n := len(p.gens); n > 0 {
		for _, f := range p.frames[p.gens[n-1]:] {
			p.genBytes += f.bytes
		}
	}
	return p
}

func (l *simLog) Room(int64) error {
	if l.full {
		return wal.ErrNoRoom
	}
	return nil
}

func (l *simLog) append(kind wal.FrameKind, sections []wal.Section, small bool) (wal.LSN, error) {
	switch {
	case l.dead:
		return 0, wal.ErrClosed
	case l.full && !small:
		return 0, fmt.Errorf("%w: the simulator's disk is full", wal.ErrNoRoom)
	case len(l.frames) == 0 && kind != wal.KindCatalog:
		return 0, wal.ErrNoFrames
	}
	f := &simFrame{lsn: wal.LSN(len(l.frames) + 1), kind: kind, given: sections, bytes: 64}
	n := 0
	for _, s := range sections {
		n += len(s.Body)
		f.bytes += int64(len(s.Body)) + 16
	}
	all := make([]byte, 0, n)
	f.sections = make([]wal.Section, len(sections))
	for i, s := range sections {
		at := len(all)
		all = append(all, s.Body...)
		f.sections[i] = wal.Section{Kind: s.Kind, Owner: s.Owner, Body: all[at:len(all):len(all)]}
	}
	l.frames = append(l.frames, f)
	l.genBytes += f.bytes
	switch kind {
	case wal.KindCatalog:
		l.gens = append(l.gens, f.lsn)
		l.genBytes = 0 // or small generations would hold nothing but catalogs
	case wal.KindCatalogPart:
		l.genBytes = 0
	}
	l.pending += f.bytes
	l.s.tracef("log %d: %s, %d bytes", f.lsn, KindName(kind), f.bytes)
	l.s.count("frames: " + KindName(kind))
	return f.lsn, nil
}

func (l *simLog) Append(kind wal.FrameKind, sections []wal.Section) (wal.LSN, error) {
	return l.append(kind, sections, false)
}

func (l *simLog) AppendSmall(kind wal.FrameKind, sections []wal.Section) (wal.LSN, error) {
	return l.append(kind, sections, true)
}

// Rotate has no room for a catalog of several frames on a full disk, as the real one has none for one longer than its reserve.
func (l *simLog) Rotate(catalog []wal.Section, rest ...[]wal.Section) (wal.LSN, error) {
	if l.full && len(rest) > 0 {
		l.s.count("catalogs refused for want of room")
		return 0, fmt.Errorf("%w: the simulator's disk is full", wal.ErrNoRoom)
	}
	first, err := l.append(wal.KindCatalog, catalog, true)
	for _, sections := range rest {
		if err == nil {
			l.frames[l.Last()-1].more = true
			_, err = l.append(wal.KindCatalogPart, sections, true)
		}
	}
	return first, err
}

func (l *simLog) RotateDue() bool         { return l.genBytes >= l.s.plan.genBytes }
func (l *simLog) Last() wal.LSN           { return wal.LSN(len(l.frames)) }
func (l *simLog) Durable() wal.LSN        { return l.durable }
func (l *simLog) ID() wal.LogID           { return simID }
func (l *simLog) Pending() int64          { return l.pending }
func (l *simLog) Failed() <-chan struct{} { return nil }
func (l *simLog) Err() error              { return nil }
func (l *simLog) Stats() wal.Stats        { return wal.Stats{} }
func (l *simLog) Close() error            { return nil }

func (l *simLog) Catalog() wal.LSN {
	for i := len(l.gens) - 1; i >= 0; i-- {
		if l.gens[i] <= l.durable {
			return l.gens[i]
		}
	}
	return 0
}

func (l *simLog) Generations() []wal.Generation {
	var out []wal.Generation
	for i, first := range l.gens {
		g := wal.Generation{First: first, Last: l.Last()}
		if i+1 < len(l.gens) {
			g.Last = l.gens[i+1] - 1
		}
		for _, f := range l.frames[g.First-1 : g.Last] {
			g.Bytes += f.bytes
		}
		out = append(out, g)
	}
	return out
}

// WaitDurable parks the task that is running.
func (l *simLog) WaitDurable(_ context.Context, lsn wal.LSN) error {
	if l.durable < lsn && !l.s.parkUntil(func() bool { return l.durable >= lsn }) || l.dead {
		return wal.ErrClosed
	}
	return nil
}

// Drop deletes generations one by one, as the real one does: a crash may come between two.
func (l *simLog) Drop(before wal.LSN) error {
	for len(l.gens) > 1 && l.gens[1] <= before && l.gens[1] <= l.durable {
		l.s.dropped(l.gens[0], l.gens[1])
		l.gens = l.gens[1:]
		if !l.s.parkUntil(nil) || l.dead {
			return wal.ErrClosed
		}
	}
	return nil
}

// sync does the next half of an fsync: it takes what is written, or makes that durable.
func (l *simLog) sync() {
	if l.syncing == 0 {
		l.syncing = l.Last()
		return
	}
	for l.durable < l.syncing {
		f := l.frames[l.durable]
		for i, s := range f.given {
			if !bytes.Equal(s.Body, f.sections[i].Body) {
				l.s.violate("frames", "frame %d, section %d was changed before it was durable", f.lsn, i)
			}
		}
		f.given = nil
		l.pending -= f.bytes
		l.durable++
	}
	l.syncing = 0
}

func (l *simLog) Reader(from wal.LSN) (bus.LogReader, error) {
	r := &simReader{log: l}
	return r, r.Seek(from)
}

// simReader reads durable frames.
type simReader struct {
	log  *simLog
	next wal.LSN
}

func (r *simReader) Seek(lsn wal.LSN) error {
	l := r.log
	if lsn == 0 {
		lsn = 1
		if len(l.gens) > 0 {
			lsn = l.gens[0]
		}
	}
	r.next = lsn
	return r.gone()
}

func (r *simReader) gone() error {
	if l := r.log; len(l.gens) > 0 && r.next < l.gens[0] {
		return fmt.Errorf("%w: LSN %d, the oldest is %d", wal.ErrGone, r.next, l.gens[0])
	}
	return nil
}

func (r *simReader) Next() (bus.Frame, error) {
	if err := r.gone(); err != nil {
		return nil, err
	}
	if r.next > r.log.durable {
		return nil, io.EOF
	}
	f := r.log.frames[r.next-1]
	r.next++
	if r.log.s.log == r.log && r.log.s.running == nil {
		r.log.s.count("frames read by a job that lags behind")
	}
	if f.apart && r.next <= r.log.durable {
		if second := r.log.frames[r.next-1]; !second.apart && second.owner() == f.owner() {
			joined := *f // it says nothing beside the second
			joined.kind = kindPart
			return &joined, nil
		}
	}
	return f, nil
}

func (r *simReader) Close() error { return nil }

// simSnapshots keeps snapshots in memory. They are durable once written, as files are.
type simSnapshots struct {
	s     *sim
	files map[string]simSnapshot
	of    map[string]string // by file, the savepoint that it was made of

	stages int
}

type simSnapshot struct {
	meta    checkpoint.SnapshotMeta
	bodies  [][]byte
	damaged bool
	checked bool // its content was compared with the model, or its epoch is no longer in the log
}

// crash leaves the files of epochs that are gone; they count for nothing.
func (d *simSnapshots) crash(last wal.LSN) {
	for name, f := range d.files {
		if f.meta.LSN > last {
			f.checked = true
			d.files[name] = f
		}
	}
}

func (d *simSnapshots) write(meta checkpoint.SnapshotMeta, bodies [][]byte) (file string, n int64, err error) {
	if !d.s.parkUntil(nil) {
		return "", 0, wal.ErrClosed
	}
	file = fmt.Sprintf("%d-%d", meta.Job, meta.Epoch)
	if old, there := d.files[file]; there && d.s.twin.staleRest {
		bodies = old.bodies
	}
	d.files[file] = simSnapshot{meta: meta, bodies: bodies}
	d.s.tracef("snapshot of job %d at epoch %d, LSN %d", meta.Job, meta.Epoch, meta.LSN)
	return file, 1, nil
}

func (d *simSnapshots) read(file string, into restorer) error {
	f, ok := d.files[file]
	if !ok {
		return fmt.Errorf("snapshot %s is not there", file)
	}
	if f.damaged {
		return fmt.Errorf("snapshot %s is damaged", file)
	}
	d.s.count("snapshots read")
	for _, b := range f.bodies {
		if err := into.applyState(b); err != nil {
			return err
		}
	}
	return nil
}

// keep removes those before oldest, as checkpoint.KeepSnapshots does.
func (d *simSnapshots) keep(job uint32, oldest checkpoint.Epoch) error {
	for name, f := range d.files {
		if f.meta.Job == job && f.meta.Epoch < oldest {
			delete(d.files, name)
		}
	}
	return nil
}

// Savepoints lie among the snapshots.
const savedPrefix = "savepoint "

func (d *simSnapshots) saveAs(file, savepoint string) error {
	f, ok := d.files[file]
	if !ok {
		return fmt.Errorf("snapshot %s is not there", file)
	}
	if !d.s.parkUntil(nil) {
		return wal.ErrClosed
	}
	f.meta.Job, f.damaged, f.checked = 0, false, true
	d.files[savedPrefix+savepoint] = f
	return nil
}

func (d *simSnapshots) checkSaved(string) error { return nil }

func (d *simSnapshots) savedHeader(savepoint string) (checkpoint.Header, error) {
	h := cloneHeader(d.files[savedPrefix+savepoint].meta.Header)
	if d.s.twin.staleSavepoints {
		d.s.setBackByOne(&h)
	}
	return h, nil
}

func (d *simSnapshots) header(file string) (checkpoint.Header, error) {
	return d.files[file].meta.Header, nil
}

func (d *simSnapshots) readSaved(savepoint string, into restorer) error {
	return d.read("savepoint "+savepoint, into)
}

func (d *simSnapshots) stage(savepoint string) (string, error) {
	if !d.s.parkUntil(nil) {
		return "", wal.ErrClosed
	}
	d.stages++
	staged := fmt.Sprintf("staged %d", d.stages)
	d.files[staged] = d.files[savedPrefix+savepoint]
	d.of[staged] = savepoint
	return staged, nil
}

func (d *simSnapshots) beginWith(staged string, job uint32, epoch checkpoint.Epoch) (string, error) {
	savepoint := d.of[staged]
	f, file := d.files[staged], fmt.Sprintf("%d-%d", job, epoch)
	delete(d.files, staged)
	f.meta.Job, f.meta.Epoch, f.checked = job, epoch, true
	d.files[file] = f
	d.of[file] = savepoint
	return file, nil
}

func (d *simSnapshots) dropSavepoint(savepoint string) error {
	delete(d.files, savedPrefix+savepoint)
	return nil
}

func (d *simSnapshots) remove(file string) error {
	delete(d.files, file)
	return nil
}

// removeUnannounced does at a start what Open does.
func (d *simSnapshots) removeUnannounced(l *ledger) {
	for name, f := range d.files {
		if sp, is := strings.CutPrefix(name, savedPrefix); is {
			if l.Savepoints[sp] == nil {
				delete(d.files, name)
			}
			continue
		}
		j := l.Jobs[f.meta.Job]
		if j == nil || !slices.ContainsFunc(j.Snapshots, func(s snapshotEntry) bool { return s.File == name }) {
			delete(d.files, name)
		}
	}
}

// simTask is a func that may park, run by the scheduler a stretch at a time.
type simTask struct {
	name  string
	next  func() (struct{}, bool)
	stop  func()
	yield func(struct{}) bool
	until func() bool // nil: it may go on at once
	at    time.Time   // when it may go on, if it sleeps
	done  bool
}

// spawn makes a task of f.
func (s *sim) spawn(name string, f func()) *simTask {
	t := &simTask{name: name}
	t.next, t.stop = iter.Pull(func(yield func(struct{}) bool) {
		t.yield = yield
		defer func() {
			if v := recover(); v != nil {
				if v != any(s.found) && s.found == nil { // a panic that leaves a coroutine has lost where it came from
					s.found = &violation{"panic", fmt.Sprintf("%v\n%s", v, debug.Stack())}
				}
				panic(s.found)
			}
		}()
		f()
	})
	s.tasks = append(s.tasks, t)
	return t
}

// resume runs a task until it parks or returns.
func (s *sim) resume(t *simTask) {
	was := s.running
	s.running = t
	_, more := t.next()
	s.running = was
	t.done = !more
}

// parkUntil parks the running task until cond holds; false says that its process is over. Where no task runs, as when a
// prefix of the log is checked, it returns at once.
func (s *sim) parkUntil(cond func() bool) bool {
	t := s.running
	if t == nil {
		return true
	}
	t.until = cond
	ok := t.yield(struct{}{})
	t.until = nil
	return ok
}

// simTimer is a timer on the simulator's clock.
type simTimer struct {
	s  *sim
	f  func()
	at time.Time // zero: it is stopped
}

func (t *simTimer) Reset(d time.Duration) bool {
	was := !t.at.IsZero()
	t.at = t.s.now.Add(d)
	return was
}

func (t *simTimer) Stop() bool {
	was := !t.at.IsZero()
	t.at = time.Time{}
	return was
}
