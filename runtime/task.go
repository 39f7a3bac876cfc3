package runtime

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sidestream-dev/sidestream/checkpoint"
	"github.com/sidestream-dev/sidestream/jobs"
)

// chunkRecords is how many records a source gives between two looks at what else is to do.
const chunkRecords = 512

// subtask is one parallel instance of a task: one goroutine. Fields without a comment belong to it.
type subtask struct {
	ex    *execution
	plan  *taskPlan
	index int
	id    int // among all of the execution

	nodes   []*nodeInstance
	edges   []*edgeOut
	inbox   *inbox // of a task that reads edges; else nil
	feed    feed   // of a task that begins with a source; else nil
	outs    []*outBuffer
	passed  int // inputs that have passed the barrier under way
	barrier element

	watermark jobs.Watermark
	idle      bool
	epoch     checkpoint.Epoch // being filled
	restored  jobs.Watermark   // where it began; the master reads it too
	ended     bool
	failed    bool
	err       error
	marked    jobs.Watermark // watermark and idleness in the last piece
	markIdle  bool
	dry       bool
	rest      time.Time   // until when the source rests, see pacer; zero if it does not
	begun     bool        // the source has read something in this epoch
	scans     []*nodeScan // of the snapshot under way

	wakeup   chan struct{}
	request  atomic.Uint64 // a source should have sent the barriers up to this epoch's
	last     atomic.Uint64 // the epoch behind whose barrier nothing is read; 0 while there is none
	sealed   atomic.Uint64 // last sealed epoch the master told
	snapshot atomic.Pointer[snapshotRun]
	seen     *snapshotRun     // the snapshot whose scan has been begun
	sealedTo checkpoint.Epoch // the last one that the stores were told
	beat     atomic.Int64     // Unix nanoseconds since when it is in code that may be a user's; 0 when it is not
	gone     atomic.Bool      // its goroutine has returned
	stats    subtaskStats
}

// subtaskStats counts; any goroutine may read it.
type subtaskStats struct {
	in, out, written, rejected, late, lateDropped atomic.Int64
	inBytes, writtenBytes                         atomic.Int64 // keys and values; of what is read on the bus none
	busy                                          atomic.Int64 // nanoseconds
	waits                                         waitClock
	watermark                                     atomic.Int64
	stateBytes                                    atomic.Int64 // at the last barrier
}

// waitClock counts how long a subtask has waited, a wait under way included.
type waitClock struct {
	mu         sync.Mutex
	idle, held time.Duration
	since      time.Time // zero where it does not wait
	forOthers  bool      // it is held back, not idle
}

func (c *waitClock) begin(held bool) {
	c.mu.Lock()
	c.since, c.forOthers = time.Now(), held
	c.mu.Unlock()
}

func (c *waitClock) end() {
	c.mu.Lock()
	c.idle, c.held = c.sums()
	c.since = time.Time{}
	c.mu.Unlock()
}

func (c *waitClock) sums() (idle, held time.Duration) {
	idle, held = c.idle, c.held
	switch {
	case c.since.IsZero():
	case c.forOthers:
		held += time.Since(c.since)
	default:
		idle += time.Since(c.since)
	}
	return idle, held
}

// read returns the sums as of now; they never go back.
func (c *waitClock) read() (idle, held time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.sums()
}

// nodeInstance is one node of a subtask's chain.
type nodeInstance struct {
	node  *jobs.Node
	built jobs.Built
	store *checkpoint.Store // nil until the node asks for a table
}

// edgeOut is the writing end of an edge.
type edgeOut struct {
	flush   func()
	targets []*inbox
	inputs  []int         // which input of each target is ours
	room    chan struct{} // a token when a target that had no room has
	turn    int           // see offerLeast, as order and loads
	order   []int
	loads   []int
}

// errStopped ends a subtask whose attempt is over for another reason.
var errStopped = fmt.Errorf("stopped")

func (s *subtask) wake() {
	select {
	case s.wakeup <- struct{}{}:
	default:
	}
}

// run returns nil behind the last barrier, or once the attempt no longer needs an ended subtask.
func (s *subtask) run(ctx context.Context) error {
	if err := s.start(ctx); err != nil {
		return err
	}
	for {
		if err := s.housekeeping(); err != nil {
			return err
		}
		progressed, last, err := s.step(ctx)
		switch {
		case err != nil:
			return err
		case last:
			return s.awaitSealed(ctx)
		case ctx.Err() != nil:
			return errStopped
		case progressed:
			continue
		}
		if err := s.wait(ctx); err != nil {
			return err
		}
	}
}

// start opens the source, if there is one, and tells every node where event time stood.
func (s *subtask) start(ctx context.Context) error {
	if s.feed != nil {
		if err := s.feed.open(ctx, s); err != nil {
			return err
		}
		// The step's is the lowest of its subtasks'; this one's splits may have been further.
		w, _, _ := s.feed.watermark()
		s.watermark = max(s.watermark, w)
	}
	s.stats.watermark.Store(int64(s.watermark))
	if s.watermark == jobs.WatermarkNone {
		return nil
	}
	for _, n := range s.nodes {
		if n.built.Watermark != nil {
			n.built.Watermark(s.watermark)
		}
	}
	if err := s.flushEdges(); err != nil {
		return err
	}
	// Those behind must not wait for one that has nothing new to say.
	return s.sendAll(ctx, element{kind: elementWatermark, watermark: s.watermark})
}

// step does one thing; progressed is false if there was nothing to do.
func (s *subtask) step(ctx context.Context) (progressed, last bool, err error) {
	if s.feed != nil {
		return s.stepSource(ctx)
	}
	e, from, ok := s.inbox.next()
	if !ok {
		return false, false, nil
	}
	_, held := s.stats.waits.read()
	began := time.Now()
	s.beat.Store(began.UnixNano())
	last, err = s.take(ctx, e, from)
	s.beat.Store(0)
	d := s.addBusy(began, held)
	if e.n > 0 {
		s.measure(d, e.n)
		s.ex.noteWork(began)
	}
	return true, last, err
}

// measure keeps a moving average of the time a record takes, which bounds what an edge may hold.
func (s *subtask) measure(d time.Duration, n int) {
	per := int64(d) / int64(n)
	old := s.inbox.perRecord.Load()
	if old > 0 {
		per = (7*old + per) / 8
	}
	s.inbox.perRecord.Store(max(1, per))
}

func (s *subtask) stepSource(ctx context.Context) (progressed, last bool, err error) {
	if r := checkpoint.Epoch(s.request.Load()); r >= s.epoch && !s.ended {
		e := s.epoch // two may be under way, and the first not yet seen
		last = uint64(e) == s.last.Load()
		if err := s.passBarrier(ctx, element{kind: elementBarrier, epoch: e, last: last}); err != nil {
			return false, false, err
		}
		return true, last, nil
	}
	if s.ended || s.ex.epochFull.Load() || s.ex.held.Load() && !s.begun || s.rests() {
		return false, false, nil
	}
	_, held := s.stats.waits.read()
	began := time.Now()
	s.beat.Store(began.UnixNano())
	defer s.beat.Store(0)
	n, err := s.feed.poll(s)
	if err != nil {
		return false, false, err
	}
	if s.failed {
		return false, false, s.err
	}
	if n > 0 {
		s.begun = true
		s.setDry(false)
		s.changed()
	}
	w, idle, ended := s.feed.watermark()
	moved, err := s.advance(ctx, w, idle)
	if err != nil {
		return false, false, err
	}
	if ended {
		return true, false, s.end(ctx)
	}
	if n == 0 {
		if err := s.flushEdges(); err != nil {
			return false, false, err
		}
		s.setDry(true)
	}
	if n > 0 || moved {
		s.pace(s.addBusy(began, held), n)
	}
	return n > 0, false, nil
}

// take handles one element of an edge.
func (s *subtask) take(ctx context.Context, e element, from int) (last bool, err error) {
	in := &s.inbox.inputs[from]
	switch e.kind {
	case elementBatch:
		s.stats.in.Add(int64(e.n))
		in.deliver(e.batch)
		if s.failed {
			return false, s.err
		}
		s.changed()
		return false, nil
	case elementWatermark:
		in.watermark, in.idle = max(in.watermark, e.watermark), e.idle
		return false, s.advanceInputs(ctx)
	case elementBarrier:
		s.inbox.hold(from)
		s.barrier = e
		s.passed++
		return s.maybeBarrier(ctx)
	case elementEnd:
		in.ended = true
		if err := s.advanceInputs(ctx); err != nil {
			return false, err
		}
		if _, _, ended := s.inbox.combined(); ended {
			return false, s.end(ctx)
		}
		return s.maybeBarrier(ctx)
	}
	return false, nil
}

func (s *subtask) advanceInputs(ctx context.Context) error {
	w, idle, ended := s.inbox.combined()
	if ended {
		w = s.watermark
	}
	_, err := s.advance(ctx, w, idle)
	return err
}

// maybeBarrier passes the barrier under way once every input that has not ended has.
func (s *subtask) maybeBarrier(ctx context.Context) (last bool, err error) {
	if s.passed == 0 {
		return false, nil
	}
	open := 0
	for i := range s.inbox.inputs {
		if !s.inbox.inputs[i].ended {
			open++
		}
	}
	if s.passed < open {
		return false, nil
	}
	s.passed = 0
	if err := s.passBarrier(ctx, s.barrier); err != nil {
		return false, err
	}
	s.inbox.release()
	return s.barrier.last, nil
}

// passBarrier hands over the epoch's piece and sends the barrier on.
func (s *subtask) passBarrier(ctx context.Context, e element) error {
	if err := s.flushEdges(); err != nil {
		return err
	}
	s.ex.ack(s.cut(e.epoch))
	s.epoch, s.begun = e.epoch+1, false
	return s.sendAll(ctx, e)
}

// advance moves event time on: each node fires what is due, in the order of the chain, then the edges are told.
func (s *subtask) advance(ctx context.Context, w jobs.Watermark, idle bool) (moved bool, err error) {
	w = max(w, s.watermark)
	if w == s.watermark && idle == s.idle {
		return false, nil
	}
	if w > s.watermark {
		s.watermark = w
		s.stats.watermark.Store(int64(w))
		for _, n := range s.nodes {
			if n.built.Watermark != nil {
				n.built.Watermark(w)
			}
		}
		if s.failed {
			return true, s.err
		}
	}
	s.idle = idle
	if err := s.flushEdges(); err != nil {
		return true, err
	}
	if s.touched() {
		s.changed() // what fired is to be committed, also when no record comes
	}
	s.changedMark()
	return true, s.sendAll(ctx, element{kind: elementWatermark, watermark: w, idle: idle})
}

// end is the end of input: the final watermark, the message to those behind, and a last piece, which counts as having
// passed every later barrier.
func (s *subtask) end(ctx context.Context) error {
	if s.ended {
		return nil
	}
	if _, err := s.advance(ctx, jobs.WatermarkMax, false); err != nil {
		return err
	}
	if err := s.flushEdges(); err != nil {
		return err
	}
	s.ended = true
	p := s.cut(s.epoch)
	p.ended = true
	s.ex.ack(p)
	return s.sendAll(ctx, element{kind: elementEnd})
}

func (s *subtask) flushEdges() error {
	for _, e := range s.edges {
		e.flush()
	}
	if s.failed {
		return s.err
	}
	return nil
}

// send puts an element on an edge. Waiting for room there is not being stuck.
func (s *subtask) send(ctx context.Context, out *edgeOut, target int, e element) bool {
	if out.offer(target, e) {
		return true
	}
	beat := s.beat.Swap(0)
	began := time.Now()
	s.stats.waits.begin(true)
	ok := out.await(ctx, target, e)
	s.stats.waits.end()
	if beat != 0 {
		s.beat.Store(beat + int64(time.Since(began)))
	}
	return ok
}

// addBusy counts the time since began, save what it was held back meanwhile, and returns all of it.
func (s *subtask) addBusy(began time.Time, heldBefore time.Duration) time.Duration {
	d := time.Since(began)
	_, held := s.stats.waits.read()
	s.stats.busy.Add(int64(max(0, d-(held-heldBefore))))
	return d
}

func (s *subtask) sendAll(ctx context.Context, e element) error {
	for _, out := range s.edges {
		for t := range out.targets {
			if !s.send(ctx, out, t, e) {
				return errStopped
			}
		}
	}
	return nil
}

// housekeeping does what the master asked for between two batches.
func (s *subtask) housekeeping() error {
	snapshot := s.snapshot.Load() // before sealed: its scan must hold all that was sealed when it was asked for
	if e := checkpoint.Epoch(s.sealed.Load()); e > 0 {
		for _, n := range s.nodes {
			if n.store != nil {
				n.store.Sealed(e)
			}
		}
		s.sealed.CompareAndSwap(uint64(e), 0)
		s.sealedTo = e
	}
	if f, ok := s.feed.(*outsideFeed); ok {
		f.showDurable(checkpoint.Epoch(s.ex.durable.Load()))
	}
	if snapshot != nil {
		return s.stepSnapshot(snapshot)
	}
	return nil
}

// wait sleeps until there may be something to do.
func (s *subtask) wait(ctx context.Context) error {
	var ready <-chan struct{}
	var timer <-chan time.Time
	held := s.feed != nil && (s.ex.held.Load() || s.ex.epochFull.Load())
	if s.feed != nil && !s.ended && !held {
		d := time.Duration(0)
		if !s.rest.IsZero() {
			d = time.Until(s.rest)
		}
		if d <= 0 {
			ready = s.feed.ready()
			d = s.feed.idleIn()
		}
		if d > 0 {
			t := time.NewTimer(d)
			defer t.Stop()
			timer = t.C
		}
	}
	s.stats.waits.begin(held)
	defer s.stats.waits.end()
	select {
	case <-s.wakeup:
	case <-ready:
	case <-timer:
	case <-ctx.Done():
		return errStopped
	}
	return nil
}

// awaitSealed stays, after the last barrier, until the master ends the attempt.
func (s *subtask) awaitSealed(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

// cut makes the piece of the epoch that ends here.
func (s *subtask) cut(e checkpoint.Epoch) *piece {
	p := &piece{subtask: s.id, epoch: e, watermark: s.watermark, idle: s.idle}
	state := 0
	for _, n := range s.nodes {
		if n.store == nil {
			continue
		}
		_, size := n.store.Size()
		state += size
		for _, dirty := n.store.Dirty(); dirty > s.ex.rt.cfg.FrameBytes; _, dirty = n.store.Dirty() {
			if b, entries := n.store.CutPart(s.ex.rt.cfg.FrameBytes / 2); entries > 0 { // 0 where all of it came and went
				p.states = append(p.states, appendStep(n.node.ID, b))
			}
		}
		if b, entries := n.store.Cut(); entries > 0 {
			p.states = append(p.states, appendStep(n.node.ID, b))
		}
	}
	s.stats.stateBytes.Store(int64(state))
	for _, o := range s.outs {
		s.stats.written.Add(o.records)
		s.stats.writtenBytes.Add(int64(o.bytes))
		p.pubs = o.cut(p.pubs)
	}
	if s.feed != nil {
		p.read = s.feed.positions(e, &p.header)
	}
	f, reads := s.feed.(*busFeed)
	p.replayed = !reads || f.ends == nil || f.reader.Stopped()
	if reads && f.ends != nil && p.replayed {
		p.stopped = &readUpTo{f.sub, f.reader.States()}
	}
	p.did = s.work()
	if s.watermark != s.marked || s.idle != s.markIdle {
		s.marked, s.markIdle, p.moved = s.watermark, s.idle, true
	}
	return p
}

// changed tells the master, once an epoch, that there is something to commit, and when it has grown large.
func (s *subtask) changed() {
	if !s.ex.dirty.Swap(true) {
		s.ex.post(event{kind: eventChanged})
	}
	bytes := 0
	for _, o := range s.outs {
		bytes += o.bytes
	}
	for _, n := range s.nodes {
		if n.store != nil {
			_, b := n.store.Dirty()
			bytes += b
		}
	}
	if int64(bytes) > s.ex.rt.cfg.EpochBytes/int64(len(s.ex.subtasks)) && !s.ex.large.Swap(true) {
		s.ex.post(event{kind: eventLarge})
	}
}

// touched reports whether the epoch under way has outputs or changes of state.
func (s *subtask) touched() bool {
	for _, o := range s.outs {
		if o.records > 0 {
			return true
		}
	}
	for _, n := range s.nodes {
		if n.store != nil {
			if entries, _ := n.store.Dirty(); entries > 0 {
				return true
			}
		}
	}
	return false
}

func (s *subtask) changedMark() {
	if len(s.ex.onBus) > 0 && !s.ex.markMoved.Swap(true) {
		s.ex.post(event{kind: eventMark})
	}
}

func (s *subtask) setDry(dry bool) {
	if dry != s.dry {
		s.dry = dry
		s.ex.post(event{kind: eventDry, subtask: s.id, dry: dry})
	}
}

// fail is the attempt's failure at a step; the chain emits nothing from then on.
func (s *subtask) fail(step string, err error) {
	if !s.failed {
		s.failed = true
		s.err = &JobError{Job: s.ex.name, Step: step, Subtask: s.index, Err: err}
	}
}
