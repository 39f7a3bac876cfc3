package runtime

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sidestream-dev/sidestream/bus"
	"github.com/sidestream-dev/sidestream/checkpoint"
	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/wal"
)

// execution is one attempt of a job: its subtasks and the master that cuts their work into epochs.
type execution struct {
	rt          *Runtime
	name        string
	job         uint32
	attempt     uint32
	plan        *jobPlan
	subtasks    []*subtask
	discoveries []*discovery
	topics      map[bus.TopicID]string // that the job writes, outputs to the outside among them
	onBus       []bus.TopicID          // those that others read
	logger      *slog.Logger
	waiting     func(step string, what Wait) // the zero Wait: it goes on

	eventsMu sync.Mutex
	events   []event
	result   chan outcome

	replay   atomic.Pointer[replayMark] // under way; nil if there is none
	catchUp  catchUp
	snapping atomic.Bool // the header of each sealed epoch is wanted
	trial    *atomic.Pointer[trial]

	durableMu sync.Mutex
	undurable []sealedEpoch // sealed and not yet durable
	durable   atomic.Uint64 // the last durable epoch
	frames    atomic.Int64  // bytes sealed since the newest snapshot
	ctx       context.Context
	cancel    context.CancelFunc
	dirty     atomic.Bool // something to commit since the last barrier
	markMoved atomic.Bool // a watermark has moved since the last barrier
	large     atomic.Bool
	held      atomic.Bool // a topic is full: no new epoch begins
	epochFull atomic.Bool // the epoch under way has come to its bound and waits for those before it
	running   sync.WaitGroup

	// The master's own, under master.
	master       sync.Mutex
	spare        []event
	tick         timer
	over         *outcome
	coord        *checkpoint.Coordinator
	pieces       map[checkpoint.Epoch][]*piece
	finished     []bool                     // subtasks that have ended
	sentAt       map[checkpoint.Epoch]int64 // when each barrier under way was sent
	dry          []bool
	marks        map[bus.TopicID]topicMark // last mark given to each topic
	outside      map[int]topicMark         // last watermark of each subtask
	stopping     bool
	full         bool             // a topic that the job writes is full
	final        checkpoint.Epoch // the last one, once its barrier is sent
	snap         *snapshotRun
	wantSnapshot bool                     // though none is due
	newTasks     string                   // see extraTasks: to be said in the next epoch
	handed       []handedPiece            // of epochs given to the committer and not known to be sealed
	barrier      atomic.Int64             // Unix nanoseconds at which the oldest barrier under way was sent; 0 if none is
	lastSeal     atomic.Pointer[sealedAt] // nil: it has sealed none
	epochs       atomic.Int64
	did          map[int]Work          // by each subtask, in this attempt, up to its last piece
	kept         *atomic.Pointer[Work] // what the attempt has done up to the last epoch that was sealed; it outlives the attempt
}

type topicMark struct {
	watermark jobs.Watermark
	idle      bool
	known     bool
}

// piece is what one subtask hands over at a barrier.
type piece struct {
	subtask   int
	epoch     checkpoint.Epoch
	ended     bool
	header    checkpoint.Header // splits and subscriptions that have moved
	states    [][]byte
	pubs      []bus.Publication
	read      []readUpTo
	watermark jobs.Watermark
	idle      bool
	moved     bool
	did       Work      // by the subtask in this attempt
	replayed  bool      // it does not read, or has read all of the replay under way
	stopped   *readUpTo // where, if it has
}

type eventKind uint8

const (
	eventChanged eventKind = iota
	eventMark
	eventLarge
	eventDry
	eventPiece
	eventSealed
	eventFailed
	eventStop
	eventRoom
	eventScanned
	eventSnapshot // whoever cuts the log asks for one
	eventTick
)

// event is what the master is told.
type event struct {
	kind    eventKind
	subtask int
	dry     bool
	piece   *piece
	epoch   checkpoint.Epoch
	lsn     wal.LSN
	err     error
	header  *checkpoint.Header // as of epoch, for a snapshot
}

type sealedEpoch struct {
	epoch checkpoint.Epoch
	lsn   wal.LSN
}

// noteSealed runs on the committer's goroutine.
func (x *execution) noteSealed(e checkpoint.Epoch, lsn wal.LSN, bytes int64) {
	x.frames.Add(bytes)
	x.durableMu.Lock()
	x.undurable = append(x.undurable, sealedEpoch{e, lsn})
	x.durableMu.Unlock()
}

// durableUpTo runs on the committer's goroutine: sources may show the positions of what is durable.
func (x *execution) durableUpTo(lsn wal.LSN) {
	x.durableMu.Lock()
	defer x.durableMu.Unlock()
	n := 0
	for n < len(x.undurable) && x.undurable[n].lsn <= lsn {
		x.durable.Store(uint64(x.undurable[n].epoch))
		n++
	}
	x.undurable = append(x.undurable[:0], x.undurable[n:]...)
	for _, s := range x.subtasks {
		if _, ok := s.feed.(*outsideFeed); ok && n > 0 {
			s.wake() // also where nothing more is to be read
		}
	}
}

func cloneHeader(h checkpoint.Header) checkpoint.Header {
	var c checkpoint.Header
	checkpoint.Merge(&c, h)
	return c
}

// post tells the master. Whoever posts does the master's work if nobody else is at it: no goroutine has to be woken
// between a record and the frame that holds it. It never blocks for long, and may be called from anywhere.
func (x *execution) post(e event) {
	x.eventsMu.Lock()
	x.events = append(x.events, e)
	x.eventsMu.Unlock()
	x.work()
}

// work handles what was posted until nothing is left, unless somebody else does.
func (x *execution) work() {
	for x.master.TryLock() {
		for x.handleAll() {
		}
		x.master.Unlock()
		x.eventsMu.Lock()
		more := len(x.events) > 0
		x.eventsMu.Unlock()
		if !more {
			return // what is posted from now on finds the master free
		}
	}
}

// handleAll takes the events posted so far and does what then is to be done.
func (x *execution) handleAll() bool {
	x.eventsMu.Lock()
	events := x.events
	if len(events) == 0 || x.over != nil {
		x.events = events[:0]
		x.eventsMu.Unlock()
		return false
	}
	x.events, x.spare = x.spare[:0], nil // never the same memory twice: what is posted meanwhile would be lost
	x.eventsMu.Unlock()
	for _, e := range events {
		if err := x.handle(e); err != nil {
			x.finish(false, err)
			return false
		}
	}
	clear(events)
	x.spare = events
	done, ended, err := x.decide()
	if done || err != nil {
		x.finish(ended, err)
		return false
	}
	return true
}

// finish notes how the attempt came out, once.
func (x *execution) finish(ended bool, err error) {
	x.over = &outcome{ended, err}
	x.tick.Stop()
	x.result <- *x.over
}

type outcome struct {
	ended bool
	err   error
}

func (x *execution) ack(p *piece) { x.post(event{kind: eventPiece, piece: p}) }

// run starts the subtasks and returns when the job has ended (ended is true), the last barrier is sealed, or the attempt has
// failed. The master's work is done by whoever posts an event.
func (x *execution) run() (ended bool, err error) {
	defer x.cancel()
	x.post(event{kind: eventRoom}) // a topic may be full before the first epoch
	for _, s := range x.subtasks {
		x.running.Add(1)
		go x.runSubtask(s)
	}
	for _, d := range x.discoveries {
		x.running.Add(1)
		go x.runDiscovery(d)
	}
	select {
	case o := <-x.result:
		return o.ended, o.err
	case <-x.ctx.Done():
		return false, context.Cause(x.ctx)
	}
}

func (x *execution) runSubtask(s *subtask) {
	defer x.running.Done()
	defer s.gone.Store(true)
	x.guard(s, func() error { return s.run(x.ctx) })
}

// guard runs f, the work of a subtask; where it fails or panics, so does the attempt. It reports whether f returned nil.
func (x *execution) guard(s *subtask, f func() error) bool {
	err := func() (err error) {
		defer func() {
			if s.failed {
				err = s.err
			}
		}()
		defer recovered(&err, x.name, s.plan.name(), s.index)
		return f()
	}()
	if err != nil && !errors.Is(err, errStopped) && !isFenced(err) {
		x.post(event{kind: eventFailed, err: err})
	}
	return err == nil
}

// isFenced reports whether err only says that a state handle refused because the attempt is over.
func isFenced(err error) bool {
	var p *PanicError
	return errors.As(err, &p) && p.Value == error(checkpoint.ErrFenced)
}

func (x *execution) handle(e event) error {
	now := x.rt.now()
	switch e.kind {
	case eventChanged:
		x.coord.Changed(now, 0)
	case eventLarge:
		x.coord.Changed(now, x.rt.cfg.EpochBytes)
	case eventMark:
		x.coord.MarkMoved(now)
	case eventDry:
		x.dry[e.subtask] = e.dry
		x.coord.Dry(now, x.allDry())
	case eventPiece:
		return x.takePiece(now, e.piece)
	case eventSealed:
		return x.takeSealed(now, e)
	case eventFailed:
		return e.err
	case eventStop:
		x.stopping = true
		x.coord.Stop(now)
	case eventRoom:
		x.checkFull()
	case eventTick: // decide looks at the clock
	case eventScanned:
		return x.finishSnapshot()
	case eventSnapshot:
		x.wantSnapshot = true
		x.coord.Changed(now, 0) // it begins with an epoch, also where nothing happens
	}
	return nil
}

func (x *execution) allDry() bool {
	for i, s := range x.subtasks {
		if s.feed != nil && !x.dry[i] && !x.finished[i] {
			return false
		}
	}
	return true
}

func (x *execution) takePiece(now time.Time, p *piece) error {
	if !p.ended {
		x.pieces[p.epoch] = append(x.pieces[p.epoch], p)
		x.coord.Ack(p.subtask, p.epoch)
		return nil
	}
	x.finished[p.subtask] = true
	x.coord.Dry(now, x.allDry())
	switch e := x.coord.Ended(p.subtask); e {
	case p.epoch:
		x.pieces[e] = append(x.pieces[e], p)
	case 0: // behind the last barrier: the next attempt comes to the same end
	default:
		return fmt.Errorf("runtime: subtask %d ended in epoch %s, where the coordinator has %s", p.subtask, p.epoch, e)
	}
	return nil
}

// takeSealed learns that an epoch has its place in the log, or that it was refused.
func (x *execution) takeSealed(now time.Time, e event) error {
	if e.err != nil {
		return e.err
	}
	x.lastSeal.Store(&sealedAt{e.epoch, now})
	x.epochs.Add(1)
	x.coord.Sealed(e.epoch)
	delete(x.sentAt, e.epoch)
	x.barrier.Store(x.oldestBarrier())
	for _, s := range x.subtasks {
		s.sealed.Store(uint64(e.epoch))
		if s.snapshot.Load() != nil || x.finished[s.id] {
			s.wake()
		}
	}
	return x.snapshotSealed(e)
}

func (x *execution) oldestBarrier() int64 {
	oldest := int64(0)
	for _, at := range x.sentAt {
		if oldest == 0 || at < oldest {
			oldest = at
		}
	}
	return oldest
}

// decide does what the coordinator says; done is true when nothing is left to do.
func (x *execution) decide() (done, ended bool, err error) {
	now := x.rt.now()
	d := x.coord.Tick(now)
	if d.Barrier > 0 {
		if d.Last {
			x.final = d.Barrier
		}
		x.sendBarrier(now, d)
		x.checkFull()
	}
	paused, full := x.held.Swap(d.Pause), x.epochFull.Swap(d.Full)
	if paused && !d.Pause || full && !d.Full {
		for _, s := range x.subtasks {
			s.wake()
		}
	}
	for _, e := range d.Seal {
		if err := x.sealEpoch(e); err != nil {
			return false, false, err
		}
	}
	if x.coord.Done() {
		return true, x.coord.AllEnded(), nil
	}
	if !d.Next.IsZero() {
		x.tick.Reset(max(0, d.Next.Sub(now)))
	}
	return false, false, nil
}

func (x *execution) sendBarrier(now time.Time, d checkpoint.Decision) {
	x.dirty.Store(false)
	x.markMoved.Store(false)
	x.large.Store(false)
	x.sentAt[d.Barrier] = now.UnixNano()
	x.barrier.Store(x.oldestBarrier())
	for _, s := range x.subtasks {
		if s.feed != nil {
			if d.Last {
				s.last.Store(uint64(d.Barrier))
			}
			s.request.Store(uint64(d.Barrier))
			s.wake()
		}
	}
}

// sealEpoch joins an epoch's pieces and hands them to the committer.
func (x *execution) sealEpoch(e checkpoint.Epoch) error {
	r := &sealRequest{job: x.job, attempt: x.attempt, header: checkpoint.Header{Job: x.job, Attempt: x.attempt, Epoch: e}}
	r.header.Ended = e == x.final && x.coord.AllEnded()
	moved := map[*taskPlan]bool{}
	for _, p := range x.pieces[e] {
		r.header.Splits = append(r.header.Splits, p.header.Splits...)
		r.header.Subs = append(r.header.Subs, p.header.Subs...)
		r.states = append(r.states, p.states...)
		if len(p.states) > 0 {
			x.handed = append(x.handed, handedPiece{e, p.subtask, p.states})
		}
		r.pubs = append(r.pubs, p.pubs...)
		r.read = append(r.read, p.read...)
		x.outside[p.subtask] = topicMark{p.watermark, p.idle, true}
		x.did[p.subtask] = p.did
		if p.moved {
			moved[x.subtasks[p.subtask].plan] = true
		}
	}
	x.stepStates(&r.header, moved)
	if err := x.endReplay(r, x.pieces[e]); err != nil {
		return err
	}
	delete(x.pieces, e)
	r.marks = x.topicMarks(r.header.Ended)
	for _, s := range r.states {
		r.bytes += int64(len(s))
	}
	for _, p := range r.pubs {
		r.bytes += int64(len(p.Data))
	}
	var did Work
	for _, w := range x.did {
		did = did.Plus(w)
	}
	x.rt.committer.seal(r, func(lsn wal.LSN, err error) {
		done := event{kind: eventSealed, epoch: e, lsn: lsn, err: err}
		if err == nil {
			x.kept.Store(&did)
			x.noteSealed(e, lsn, r.bytes)
			if x.snapping.Load() {
				h := cloneHeader(x.rt.committer.core.ledger.Jobs[x.job].header)
				done.header = &h
			}
		}
		x.post(done)
	})
	return nil
}

// topicMarks returns the marks that have moved: for each topic the lowest watermark of the subtasks that write it.
func (x *execution) topicMarks(ended bool) []bus.Mark {
	var out []bus.Mark
	for _, id := range x.onBus {
		if ended {
			out = append(out, bus.Mark{Topic: id, Producer: bus.ProducerID(x.job), Leave: true})
			continue
		}
		m := topicMark{watermark: jobs.WatermarkMax, idle: true, known: true}
		for i, s := range x.subtasks {
			if !s.writes(id) {
				continue
			}
			o := x.outside[i]
			if !o.known {
				o.watermark = jobs.WatermarkNone
			}
			if o.idle {
				continue
			}
			m.idle = false
			m.watermark = min(m.watermark, o.watermark)
		}
		if m.idle {
			m.watermark = x.marks[id].watermark
		}
		if m == x.marks[id] || m.watermark == jobs.WatermarkMax || m.watermark == jobs.WatermarkNone && !m.idle {
			continue
		}
		x.marks[id] = m
		out = append(out, bus.Mark{Topic: id, Producer: bus.ProducerID(x.job), Watermark: int64(m.watermark), Idle: m.idle})
	}
	return out
}

func (s *subtask) writes(id bus.TopicID) bool {
	for _, o := range s.outs {
		if o.topic == id {
			return true
		}
	}
	return false
}

// checkFull holds the sources back, between epochs, while a topic that the job writes is full.
func (x *execution) checkFull() {
	full := false
	for id, name := range x.topics {
		if who, f, fill := x.rt.bus.Full(id); f {
			full = true
			x.waiting("", waitRoom(name, who, fill))
		}
	}
	full = full && !x.stopping
	if x.full && !full {
		x.waiting("", Wait{})
	}
	x.full = full
	x.coord.Hold(full)
}

// stop asks for a last barrier.
func (x *execution) stop() { x.post(event{kind: eventStop}) }

// abandon ends the attempt and waits for its goroutines until the deadline; it returns the names of those that are
// stuck in a job's own code and are left behind.
func (x *execution) abandon(deadline time.Duration) (stuck []*leftBehind) {
	x.cancel()
	x.tick.Stop()
	gone := make(chan struct{})
	go func() {
		x.running.Wait()
		close(gone)
	}()
	select {
	case <-gone:
	case <-time.After(deadline):
		for _, s := range x.subtasks {
			if !s.gone.Load() {
				stuck = append(stuck, &leftBehind{fmt.Sprintf("%s (subtask %d)", s.plan.name(), s.index), gone})
			}
		}
		for _, d := range x.discoveries {
			if !d.gone.Load() {
				stuck = append(stuck, &leftBehind{fmt.Sprintf("%s (looking for new splits)", d.env.Step), gone})
			}
		}
	}
	for _, s := range x.subtasks {
		if !s.gone.Load() {
			continue
		}
		if err := x.closeSubtask(s); err != nil {
			x.logger.Warn("closing a subtask", "task", s.plan.name(), "err", err)
		}
	}
	return stuck
}

// closeSubtask gives free what the source and the steps of a subtask hold whose goroutine is gone. It is the job's own code.
func (x *execution) closeSubtask(s *subtask) (err error) {
	defer recovered(&err, x.name, s.plan.name(), s.index)
	var errs []error
	if s.feed != nil {
		if f, ok := s.feed.(*outsideFeed); ok {
			f.showDurable(checkpoint.Epoch(x.durable.Load()))
		}
		errs = append(errs, s.feed.close())
	}
	for _, n := range s.nodes {
		if n.built.Close != nil {
			errs = append(errs, n.built.Close())
		}
	}
	return errors.Join(errs...)
}

// runUntil is run, cut short when ctx ends.
func (x *execution) runUntil(ctx context.Context) (ended bool, err error) {
	stop := context.AfterFunc(ctx, x.cancel)
	defer stop()
	ended, err = x.run()
	if ctx.Err() != nil && err != nil {
		err = errStopped
	}
	return ended, err
}
