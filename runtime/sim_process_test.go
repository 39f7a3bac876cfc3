package runtime

import (
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/sidestream-dev/sidestream/internal/crashfs"
	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/wal"
)

// sim runs a data directory's life from a seed: processes one after another, each with the real jobs, committer, bus, senders,
// snapshots and janitor, but a log, a clock and a scheduler of the simulator's, on one goroutine. A process crashes; what
// the log may keep of its frames is checked, every prefix of it; the next one begins with one of them.
type sim struct {
	seed  uint64
	rng   *rand.Rand
	plan  *simPlan
	twin  simTwin
	now   time.Time
	boots int
	backs int          // definitions brought back
	quiet bool         // no more faults: the end is awaited
	slow  int          // how much an fsync takes now
	lame  *simAttempts // a job that gets less time than the others now
	steps int
	doom  int // the step by which the process crashes; 0 for none

	targets    []*simTarget // of hot jobs
	opening    outputEntry  // the output whose sender opens its sink
	mayDrop    bool         // the change that is under way may drop what is unsent
	sendsFirst bool         // and sends what it can before
	rest       int          // the step by which the hot job is changed again, unless it has something to send
	askedAt    int          // the step in which it was asked for
	lost       int64        // records of outputs that changes have dropped

	files     map[string]*jobs.Job // by what the log keeps of files' definitions
	lastTopic bool                 // a topic was removed once no more faults came

	log       *simLog
	snapshots *simSnapshots
	disk      simDisk   // of the topic store
	versions  []*simJob // definitions of hot jobs
	saves     int       // savepoints that were asked for
	asked     string    // the change that is under way
	lazy      bool      // the committer gets less time than others, until the change is written
	hasty     bool      // and then goes before all others

	beforeTrials map[uint32]beforeTrial // of twins: by job
	left         *jobStores
	lateSyncs    []func()
	revealed     map[int]int // by job, hidden splits that have come
	model        *model      // of what is durable
	jumps        map[simReading][]simJump
	armed        []int // records until a job fails, 0 for never
	tasks        []*simTask
	running      *simTask
	timers       []*simTimer
	proc         *simProcess
	acts         []simAct // scratch

	found  *violation
	trace  *[]string // nil: none is kept
	counts map[string]int
}

// violation is what the simulator found wrong.
type violation struct {
	rule string
	text string
}

func (v *violation) Error() string { return v.rule + ": " + v.text }

// violate ends the run: what was found first counts, also where the code under test catches the panic.
func (s *sim) violate(rule, format string, args ...any) {
	if s.found == nil {
		s.found = &violation{rule, fmt.Sprintf(format, args...)}
	}
	panic(s.found)
}

func (s *sim) must(err error) {
	if err != nil {
		s.violate("error", "%v", err)
	}
}

func (s *sim) tracef(format string, args ...any) {
	if s.trace != nil {
		*s.trace = append(*s.trace, fmt.Sprintf("%5d  ", s.steps)+fmt.Sprintf(format, args...))
	}
}

// runSim runs a seed and returns what is wrong, or nil.
func runSim(seed uint64, twin simTwin, trace *[]string) *violation {
	s := newSim(seed, twin, trace)
	s.run()
	return s.found
}

func newSim(seed uint64, twin simTwin, trace *[]string) *sim {
	s := &sim{counts: map[string]int{}, files: map[string]*jobs.Job{}, beforeTrials: map[uint32]beforeTrial{}, seed: seed, rng: rand.New(rand.NewPCG(seed, 0x5157)), twin: twin, now: time.UnixMilli(1_700_000_000_000), trace: trace, revealed: map[int]int{}}
	s.plan = newPlan(s.rng)
	s.disk = simDisk{mem: crashfs.New(), noSync: twin.noStoreSync}
	if twin.lateStoreSync {
		s.disk.late = &s.lateSyncs
	}
	s.snapshots = &simSnapshots{s: s, files: map[string]simSnapshot{}, of: map[string]string{}}
	s.model = newModel(s)
	s.armed = make([]int, 256)
	s.log = &simLog{s: s}
	return s
}

// count says that something happened that the seeds should bring about.
func (s *sim) count(what string) { s.counts[what]++ }

func (s *sim) run() {
	defer func() {
		s.endTasks()
		if v := recover(); v != nil {
			if w, ok := v.(*violation); !ok || w != s.found {
				panic(v)
			}
		}
	}()
	for _, j := range s.plan.jobs {
		j.build(s)
	}
	s.boot()
	for s.step() {
		if s.found != nil {
			panic(s.found)
		}
	}
	s.checkEnd()
}

// simProcess is one process: a Runtime, and what its goroutines would be.
type simProcess struct {
	rt       *Runtime
	jobs     []*simAttempts
	zombies  []*simSub // subtasks of attempts that are over
	defs     int       // jobs that Start is given
	up       bool      // Start has returned
	refused  bool      // Start has returned an error: there was no room
	stopping bool

	commitParked     bool
	flushAt, retryAt time.Time
}

// simAttempts is a job's supervisor.
type simAttempts struct {
	j     *job
	x     *execution // nil between attempts
	subs  []*simSub
	over  bool // it has ended or was stopped
	asked bool // for its end
	ended bool
	again time.Time
}

// simSub is a subtask and where its goroutine stands.
type simSub struct {
	s       *subtask
	x       *execution
	started bool
	over    bool
	parked  bool
	until   time.Time    // when a split may become idle, while parked
	then    map[int]bool // partitions in which it went on where it was before a replay
	zombie  int          // steps that it makes behind the end of its attempt
	bad     bool         // it fails sooner or later
}

// boot begins a process on s.log.
func (s *sim) boot() {
	s.boots++
	s.jumps = nil
	s.tracef("process %d begins with %d frames", s.boots, s.log.Last())
	cfg, err := Config{DataDir: "sim", Program: "sim", FrameBytes: s.plan.frameBytes, EpochBytes: s.plan.epochBytes, SealedBytes: s.plan.sealedBytes,
		TopicMemory: s.plan.topicMemory, LogBytes: s.plan.logBytes, StoreSegmentBytes: s.plan.segmentBytes}.withDefaults()
	s.must(err)
	cfg.Logger, cfg.Load = slog.New(slog.DiscardHandler), s.loadVersion
	cfg.DropUnsent = !s.quiet && s.rng.IntN(4) == 0
	s.mayDrop, s.sendsFirst = cfg.DropUnsent, false
	rt := s.newRuntime(cfg, s.log)
	p := &simProcess{rt: rt}
	s.proc, s.asked, s.lazy, s.hasty, s.doom = p, "", false, false, 0
	for _, j := range s.model.jobs {
		j.pasts = nil
	}
	s.must(rt.load())
	s.snapshots.removeUnannounced(rt.committer.core.ledger)
	s.twin.put(s, rt, s.log)
	var defs []*jobs.Job
	for _, j := range s.plan.jobs {
		if s.boots > 1 && s.rng.IntN(6) == 0 {
			j.width = 1 + s.rng.IntN(3)
			j.build(s)
		}
		s.files[string(textOf(j.def))] = j.def
		if s.quiet || j.boot < s.boots && s.rng.IntN(10) > 0 { // without its definition a job stays stopped
			defs = append(defs, j.def)
		}
	}
	p.defs = len(defs)
	s.spawn("start", func() {
		entries, err := rt.prepare(defs)
		switch {
		case errors.Is(err, wal.ErrClosed):
			return
		case errors.Is(err, wal.ErrNoRoom): // it ends with this error, and is begun again
			s.log.full, p.refused = false, true
			return
		}
		s.must(err)
		for _, j := range rt.jobList() {
			e := entries[j.def.Name]
			rt.resumeTrial(j, e)
			rt.startSenders(j, e)
			if e.Phase == PhaseActive {
				rt.launch(j)
			} else {
				p.jobs = append(p.jobs, &simAttempts{j: j, over: true, ended: e.Phase == PhaseEnded})
			}
		}
		rt.changes.begin()
		rt.endCopies(entries)
		p.up, s.mayDrop = true, false
	})
}

// crash ends the process. Every prefix of the log that may be left is checked; one of them is.
func (s *sim) crash() {
	s.tracef("crash: %d of %d frames are durable", s.log.durable, s.log.Last())
	s.count("crashes")
	s.lostIn(s.proc.rt.bus, s.model, false)
	s.log.dead = true
	s.endTasks()
	if s.found != nil {
		panic(s.found)
	}
	s.proc.rt.cancel()
	cut := s.disk
	keep := s.log.durable + wal.LSN(s.rng.IntN(int(s.log.Last()-s.log.durable)+1))
	if whole := s.log.whole(keep); whole < keep {
		s.count("catalogs cut in half")
		keep = whole
	}
	m := s.model
	var kept *model
	for k := s.log.durable; ; k++ {
		at := m
		if k > 0 && s.log.frames[k-1].apart { // of a twin: alone it is an epoch that did nothing
			at = m.clone()
			at.applyEpoch(s.log.frames[k-1])
		}
		s.disk.mem = cut.mem.Crash(s.rng)
		if s.log.whole(k) == k {
			s.checkPrefix(s.log.prefix(k), at)
		}
		if k == keep {
			kept = at.clone()
		}
		if k == s.log.Last() {
			break
		}
		if s.twin.prefixes != nil {
			s.twin.prefixes(s, m, int64(k))
		}
		m.apply(s.log.frames[k])
	}
	s.model = kept
	s.disk.mem, s.lateSyncs = cut.mem.Crash(s.rng), nil
	s.log = s.log.prefix(keep)
	s.snapshots.crash(keep)
	s.damage()
	s.timers = nil
	clear(s.armed)
	s.boot()
}

// damage makes the newest snapshot of a job unusable, where the one before it is whole.
func (s *sim) damage() {
	if s.rng.IntN(3) == 0 {
		return
	}
	names := []string{hotName}
	for _, sj := range s.plan.jobs {
		names = append(names, sj.name)
	}
	for _, name := range names {
		j := s.model.job(name)
		if j == nil || len(j.snapshots) < keptSnapshots || s.snapshots.files[j.snapshots[0].File].damaged {
			continue
		}
		file := j.snapshots[1].File
		f := s.snapshots.files[file]
		f.damaged = true
		s.snapshots.files[file] = f
		s.tracef("snapshot %s is damaged", file)
		s.count("snapshots damaged")
		return
	}
}

// restart is a process that stops in order, and the next one.
func (s *sim) restart() {
	s.tracef("stopped")
	s.count("restarts")
	s.log.dead = true
	s.endTasks()
	s.log = s.log.prefix(s.log.Last())
	s.checkPrefix(s.log, s.model)
	s.timers = nil
	clear(s.armed)
	s.boot()
}

func (s *sim) endTasks() {
	for len(s.tasks) > 0 { // one that is ended may begin another
		t := s.tasks[0]
		s.tasks = s.tasks[1:]
		was := s.running
		s.running = t // so that whatever it waits for from now on ends at once, in vain
		t.stop()
		s.running = was
	}
}

// durable moves what is durable on, and the model with it.
func (s *sim) sync() {
	s.log.sync()
	for s.model.lsn < s.log.durable {
		s.model.apply(s.log.frames[s.model.lsn])
	}
	s.proc.rt.committer.wake()
}

// begin starts the next attempt of a job.
func (s *sim) begin(a *simAttempts) {
	spec := s.specOf(a.j)
	s.armed[spec.idx] = 0
	bad := spec.bad && !s.quiet && a.j.trial.Load().on(s.now)
	if bad && s.rng.IntN(2) == 0 {
		s.armed[spec.idx] = 1 + s.rng.IntN(4)
	}
	if s.twin.inherits && a.j.def.Name == hotName {
		s.inherit(a.j)
	}
	a.j.move(StateStarting)
	x, err := a.j.begin(a.j.rt.ctx)
	s.must(err)
	if x == nil { // the attempt before, which failed, had sealed its end
		a.ended, a.over = true, true
		a.j.move(StateEnded)
		return
	}
	a.j.move(StateRunning)
	s.tracef("%s: attempt %d", a.j.def.Name, x.attempt)
	s.count("attempts")
	a.x, a.subs = x, nil
	for _, st := range x.subtasks {
		a.subs = append(a.subs, &simSub{s: st, x: x, bad: bad})
	}
}

func (s *sim) specOf(j *job) *simJob {
	for _, v := range s.versions {
		if v.def == j.def {
			return v
		}
	}
	for _, sj := range s.plan.jobs {
		if sj.name == j.def.Name {
			return sj
		}
	}
	panic("no such job")
}

// stepSub lets a subtask do one thing.
func (s *sim) stepSub(b *simSub) {
	b.parked = false
	was := placesOf(b.s)
	defer func() { s.noteJumps(b, was) }()
	ok := b.x.guard(b.s, func() error {
		if s.twin.stepping != nil {
			s.twin.stepping(b.s)
		}
		ctx := b.x.ctx
		if b.bad && s.rng.IntN(30) == 0 {
			return errInjected
		}
		if !b.started {
			b.started = true
			return b.s.start(ctx)
		}
		if err := b.s.housekeeping(); err != nil {
			return err
		}
		progressed, last, err := b.s.step(ctx)
		switch {
		case err != nil:
			return err
		case last:
			b.over = true
		case ctx.Err() != nil:
			return errStopped
		}
		if b.parked = !progressed && !last; b.parked {
			b.until = time.Time{}
			if b.s.feed != nil && !b.s.ended {
				if d := b.s.feed.idleIn(); d > 0 {
					b.until = s.now.Add(d)
				}
			}
		}
		return nil
	})
	b.over = b.over || !ok
}

// token takes what would wake a parked subtask, if it is there.
func (s *sim) token(b *simSub, take bool) bool {
	if !b.parked {
		return true
	}
	var ready <-chan struct{}
	if b.s.feed != nil && !b.s.ended && !b.x.held.Load() {
		ready = b.s.feed.ready()
	}
	for _, ch := range []<-chan struct{}{b.s.wakeup, ready} {
		if len(ch) > 0 {
			if take {
				<-ch
			}
			return true
		}
	}
	return !b.until.IsZero() && !b.until.After(s.now)
}

// settle looks at how a job's attempt came out.
func (s *sim) settle(a *simAttempts) {
	if a.x == nil {
		return
	}
	var o outcome
	select {
	case o = <-a.x.result:
	default:
		return
	}
	s.tracef("%s: attempt %d is over: ended %v, %v", a.j.def.Name, a.x.attempt, o.ended, o.err)
	if o.err != nil && !s.expected(o.err) {
		s.violate("error", "%s: %v", a.j.def.Name, o.err)
	}
	if o.err != nil && s.rng.IntN(3) == 0 { // some of its subtasks are stuck for a while
		a.x.cancel()
		a.x.tick.Stop()
		for _, b := range a.subs {
			if b.zombie = s.rng.IntN(4); b.zombie > 0 && !b.over {
				s.proc.zombies = append(s.proc.zombies, b)
			}
		}
	} else {
		for _, b := range a.subs {
			if !b.started { // its goroutine would have begun
				s.stepSub(b)
			}
		}
		a.x.abandon(time.Hour)
	}
	a.j.exec.Store(nil)
	a.x, a.subs = nil, nil
	a.ended = o.ended
	a.over = o.err == nil || s.proc.stopping || a.asked
	switch {
	case o.ended:
		a.j.move(StateEnded)
	case a.over:
	case a.j.trial.Load().on(s.now):
		s.count("definitions taken back")
		a.over = true
		a.j.failTrial(0, o.err)
	default:
		a.j.move(StateRestarting)
	}
	a.again = s.now.Add(time.Duration(s.rng.IntN(20)) * time.Millisecond)
}

// expected says whether an attempt may fail like this.
func (s *sim) expected(err error) bool {
	var p *PanicError
	if errors.As(err, &p) {
		e, ok := p.Value.(error)
		return ok && errors.Is(e, errInjected)
	}
	return errors.Is(err, errInjected)
}

// stepCommitter is one turn of the committer's goroutine.
func (s *sim) stepCommitter() {
	p, c := s.proc, s.proc.rt.committer
	select {
	case <-c.wakeup:
	default:
	}
	if !p.flushAt.IsZero() && !p.flushAt.After(s.now) {
		p.flushAt = time.Time{}
		c.flushSent()
	}
	if !p.retryAt.IsZero() && !p.retryAt.After(s.now) {
		p.retryAt = time.Time{}
	}
	more, full := c.work()
	if s.twin.sealed != nil {
		s.twin.sealed(s, c.core)
	}
	if p.commitParked = !more; more {
		return
	}
	if full {
		s.count("seals refused for want of room")
	}
	if full && p.retryAt.IsZero() {
		p.retryAt = s.now.Add(roomRetry)
	}
	if p.flushAt.IsZero() && c.hasSent() {
		p.flushAt = s.now.Add(sentEvery)
	}
}

func (s *sim) committerDue() bool {
	p := s.proc
	due := func(t time.Time) bool { return !t.IsZero() && !t.After(s.now) }
	return !p.commitParked || len(p.rt.committer.wakeup) > 0 || due(p.flushAt) || due(p.retryAt)
}

// standing says how all stand, for one who looks for what they wait for.
func (s *sim) standing() string {
	var b strings.Builder
	fmt.Fprintf(&b, "log %d, durable %d, catalog %d, up %v, stopping %v\n", s.log.Last(), s.log.durable, s.log.Catalog(), s.proc.up, s.proc.stopping)
	for _, a := range s.proc.jobs {
		fmt.Fprintf(&b, "%s: over %v, attempt %v, waiting %v\n", a.j.def.Name, a.over, a.x != nil, a.j.waiting)
		if a.x == nil {
			continue
		}
		n, oldest := a.x.coord.UnderWay()
		fmt.Fprintf(&b, "  barriers under way %d from %d, held %v, full %v\n", n, oldest, a.x.held.Load(), a.x.full)
		for _, c := range a.subs {
			fmt.Fprintf(&b, "  %s/%d: over %v, parked %v, ended %v, watermark %d", c.s.plan.name(), c.s.index, c.over, c.parked, c.s.ended, c.s.watermark)
			if f, ok := c.s.feed.(*busFeed); ok && f.reader != nil {
				fmt.Fprintf(&b, ", at %v", f.reader.States())
			}
			b.WriteByte('\n')
		}
	}
	for _, t := range s.tasks {
		fmt.Fprintf(&b, "task %s\n", t.name)
	}
	for _, snd := range s.proc.rt.senders {
		fmt.Fprintf(&b, "sender of %s: %d unsent\n", snd.job, snd.unsent())
	}
	fmt.Fprintf(&b, "%+v", s.proc.rt.bus.Stats())
	return b.String()
}
