package runtime

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sidestream-dev/sidestream/bus"
	"github.com/sidestream-dev/sidestream/checkpoint"
	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/wal"
)

// Runtime is one process's jobs over one data directory. Open it, Start it once, then Wait or Stop.
type Runtime struct {
	cfg    Config
	logger *slog.Logger
	world
	bus       *bus.Bus
	committer *committer
	recovered wal.Recovery

	ctx        context.Context // ends when the runtime has stopped
	cancel     context.CancelFunc
	endCommits context.CancelFunc
	background sync.WaitGroup // snapshots being written, the janitor
	jobsDone   sync.WaitGroup
	sendDone   sync.WaitGroup
	fatalOnce  sync.Once
	fatal      chan struct{}
	fatalErr   error

	changes *changes
	events  eventRing
	shadows shadows
	saving  savings

	mu      sync.Mutex
	jobs    []*job
	senders []*sender
	storeMu sync.Mutex    // held by who changes what the topic store holds
	missing []string      // jobs that the log knows and nobody gave a definition of
	durable chan struct{} // closed and replaced whenever more is durable
	started time.Time
	pinned  atomic.Pointer[[]LogPin] // who holds a log that is too long
}

// Open opens the data directory, finds the log's tail and reads what it says. No job runs yet. The error of a
// directory that another process has open is a *wal.LockedError.
func Open(cfg Config) (*Runtime, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(cfg.DataDir, 0o700); err != nil {
		return nil, fmt.Errorf("runtime: the data directory: %w", err)
	}
	rt := &Runtime{cfg: cfg, logger: cfg.Logger, fatal: make(chan struct{}), durable: make(chan struct{}), started: time.Now()}
	rt.changes = newChanges(func(ctx context.Context, done <-chan struct{}) error { return rt.await(ctx, done) })
	rt.ctx, rt.cancel = context.WithCancel(context.Background())
	cfg.Log.Logger = cfg.Logger
	cfg.Log.OnDurable = func(wal.LSN) {
		if c := rt.committer; c != nil {
			c.wake()
		}
	}
	log, err := wal.Open(filepath.Join(cfg.DataDir, "wal"), cfg.Log)
	if err != nil {
		return nil, err
	}
	rt.recovered = log.Recovered()
	rt.world = rt.realWorld(log)
	if _, err := checkpoint.RemoveUnfinished(filepath.Join(cfg.DataDir, "snapshots")); err != nil {
		return nil, errors.Join(err, log.Close())
	}
	if err := rt.load(); err != nil {
		return nil, errors.Join(err, log.Close())
	}
	if err := snapshotDir(filepath.Join(cfg.DataDir, "snapshots")).removeUnannounced(rt.committer.core.ledger); err != nil {
		return nil, errors.Join(err, log.Close())
	}
	ctx, cancel := context.WithCancel(context.Background())
	rt.endCommits = cancel
	go rt.committer.run(ctx)
	return rt, nil
}

// load makes the bus and the ledger what the log says, and a committer that goes on from there.
func (rt *Runtime) load() error {
	store := bus.StoreConfig{Dir: storeDir(rt.cfg.DataDir), Disk: rt.storeDisk, SegmentBytes: rt.cfg.StoreSegmentBytes, LogID: rt.log.ID()}
	rt.bus = bus.New(bus.Config{MemoryBytes: rt.cfg.TopicMemory, Logger: rt.logger, OnRoom: rt.onRoom, OnNearlyFull: rt.onNearlyFull,
		Now: rt.now, Store: store}, rt.frames)
	led := newLedger()
	if catalog := rt.log.Catalog(); catalog > 0 {
		var err error
		if led, err = recoverLedger(counted{rt.frames, catalog, rt.log.Durable(), rt.cfg.OnRead}, catalog, rt.bus); err != nil {
			return err
		}
	}
	if err := rt.bus.OpenStore(true); err != nil {
		return err
	}
	c := newCommitter(newCore(rt.log, rt.bus, led, rt.cfg.FrameBytes), rt.log, rt.logger, rt.cfg.SealedBytes)
	c.onDurable, c.onFatal = rt.onDurable, rt.onFatal
	c.core.onDrops = rt.onDrops
	rt.committer = c
	return nil
}

// Recovered says what opening the log found and cut.
func (rt *Runtime) Recovered() wal.Recovery { return rt.recovered }

// onDurable runs on the committer's goroutine.
func (rt *Runtime) onDurable(lsn wal.LSN) {
	rt.mu.Lock()
	close(rt.durable)
	rt.durable = make(chan struct{})
	for _, j := range rt.jobs {
		if x := j.exec.Load(); x != nil {
			x.durableUpTo(lsn)
		}
	}
	rt.mu.Unlock()
}

// durableChanged returns a channel that is closed when more is durable than now.
func (rt *Runtime) durableChanged() <-chan struct{} {
	rt.mu.Lock()
	defer rt.mu.Unlock()
	return rt.durable
}

// onFatal is the log's last word (R7): whoever waits learns it, and nothing more is committed.
func (rt *Runtime) onFatal(err error) {
	rt.fatalOnce.Do(func() {
		rt.fatalErr = err
		close(rt.fatal)
	})
}

// onRoom runs on whoever made room in a topic: those who write it may go on.
func (rt *Runtime) onRoom(bus.TopicID) {
	rt.mu.Lock()
	defer rt.mu.Unlock()
	for _, j := range rt.jobs {
		if x := j.exec.Load(); x != nil {
			x.post(event{kind: eventRoom})
		}
	}
}

// onDrops tells of each range that a subscription loses. It runs on the committer's goroutine.
func (rt *Runtime) onDrops(drops []bus.Drop) {
	for _, d := range drops {
		sub, topic := rt.bus.SubName(d.Sub)
		job, _, _ := strings.Cut(sub, "/")
		logger := rt.logger
		if j := rt.findJob(job); j != nil {
			logger = j.logger // it stands in the job's own lines too
		}
		logger.Warn("a reader is behind by its topic's limit, and loses what is oldest", "topic", topic, "subscription", sub,
			"partition", d.Partition, "from", d.From, "to", d.To, "records", d.Records)
		rt.tell(Event{Kind: EventDropped, Job: job, Text: fmt.Sprintf("%s is behind by the limit of topic %s: partition %d drops the offsets %s to %s for it, %d records less what it has read by then",
			sub, topic, d.Partition, d.From, d.To-1, d.Records)})
	}
}

func (rt *Runtime) onNearlyFull(topic bus.TopicID, name string, who string, fill float64) {
	if rt.bus.Spec(topic).OnFull == bus.DropOldest {
		if rt.committer == nil {
			return // the log is being read, and says what was so then
		}
		rt.logger.Warn("a reader is far behind in a topic that drops the oldest", "topic", name, "fill", fmt.Sprintf("%.0f%%", fill*100), "behind", who)
		return
	}
	rt.logger.Warn("a topic is nearly full; its writers will wait", "topic", name, "fill", fmt.Sprintf("%.0f%%", fill*100), "behind", who)
}

// Start makes the log say what defs say, in one change, restores every job's state and starts the jobs and senders. Jobs of
// the API are made from what the log has of them. Those that the log knows and nobody defines stay stopped, with their state;
// Status names them.
func (rt *Runtime) Start(defs []*jobs.Job) error {
	entries, err := rt.prepare(defs)
	if err != nil {
		return err
	}
	for _, j := range rt.jobList() {
		rt.startSenders(j, entries[j.def.Name])
	}
	for _, j := range rt.jobList() {
		e := entries[j.def.Name]
		rt.resumeTrial(j, e)
		if e.Phase == PhaseActive {
			rt.sayResumed(e)
			rt.launch(j)
		}
	}
	rt.changes.begin()
	rt.background.Add(1)
	go rt.janitor()
	rt.spawn(rt.endTrials)
	rt.endCopies(entries)
	return nil
}

// prepare is Start up to where goroutines begin; it returns how each job stands.
func (rt *Runtime) prepare(files []*jobs.Job) (map[string]*jobEntry, error) {
	defs, err := rt.definitions(files)
	if err != nil {
		return nil, err
	}
	entries, dropped, err := rt.register(defs)
	if err != nil {
		return nil, err
	}
	if err := rt.log.WaitDurable(rt.ctx, rt.log.Last()); err != nil {
		return nil, err
	}
	rt.sayDropped(dropped)
	into := map[uint32]restorer{}
	for _, d := range defs {
		e := entries[d.Name]
		plan, err := rt.planOf(d.Job)
		if err != nil {
			return nil, err
		}
		j := newJob(rt, d.Job, e, plan, nil)
		if e.Phase == PhaseFailed {
			j.lastErr = errors.New(e.Reason + staysFailed)
		}
		if e.Phase == PhaseActive {
			j.stores = newJobStores(plan, e.Epoch)
			into[e.ID] = j.stores
		}
		rt.putJob(j)
	}
	if err := rt.restore(entries, into); err != nil {
		return nil, err
	}
	return entries, nil
}

func (rt *Runtime) restore(entries map[string]*jobEntry, into map[uint32]restorer) error {
	l := newLedger()
	for _, e := range entries {
		l.Jobs[e.ID] = e
	}
	return restoreState(rt.frames, l, into, rt.loadSnapshot)
}

// Wait returns when ctx ends (nil), when the log has failed for good (its error), or, if untilDone, when every job has ended
// and all is durable and sent (nil), or when what remains cannot move (a *StalledError).
func (rt *Runtime) Wait(ctx context.Context, untilDone bool) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-rt.fatal:
			return rt.fatalErr
		case <-tick.C:
			if err := rt.log.Err(); err != nil {
				return err // also where jobs have failed with it meanwhile
			}
			if !untilDone {
				continue
			}
			if done, err := rt.done(); done || err != nil {
				return err
			}
		}
	}
}

// Stop sends every job a last barrier, lets senders take out what is durable, and closes the log. What is not done within
// Config.StopTimeout is cut: nothing committed is lost by it. Goroutines stuck in a job's own code are left behind and named
// in the error.
func (rt *Runtime) Stop() error {
	rt.changes.close()
	for _, j := range rt.jobList() {
		j.ask(StateStopping)
	}
	deadline, cancel := context.WithTimeout(context.Background(), rt.cfg.StopTimeout)
	defer cancel()
	if !waitUntil(&rt.jobsDone, deadline.Done()) {
		rt.logger.Warn("jobs did not stop in time; they are cut at their last epoch", "after", rt.cfg.StopTimeout)
	}
	drained := make(chan struct{})
	stopDrain := make(chan struct{})
	go func() {
		defer close(drained)
		for !rt.allSent() {
			select {
			case <-time.After(5 * time.Millisecond):
			case <-stopDrain:
				return
			case <-rt.fatal:
				return
			}
		}
	}()
	select {
	case <-drained:
	case <-deadline.Done():
		rt.logger.Warn("not all outputs could be sent before the end; the next run goes on with them")
	}
	close(stopDrain)
	<-drained
	rt.cancel()
	rt.jobsDone.Wait()
	for _, j := range rt.jobList() {
		j.rest()
	}
	left, give := context.WithTimeout(context.Background(), rt.cfg.StuckAfter)
	defer give()
	waitUntil(&rt.sendDone, left.Done())
	rt.endCommits()
	<-rt.committer.done
	rt.background.Wait()
	var stuck []string
	for _, j := range rt.jobList() {
		for _, s := range j.stuckTasks() {
			stuck = append(stuck, j.def.Name+": "+s)
		}
	}
	for _, s := range rt.senders {
		if !s.gone.Load() {
			stuck = append(stuck, s.job+": the sender of "+s.entry.Name)
		}
	}
	err := rt.log.Close()
	if rt.fatalErr != nil {
		return rt.fatalErr
	}
	if err == nil && len(stuck) > 0 {
		return &StuckError{Tasks: stuck}
	}
	return err
}

func waitUntil(wg *sync.WaitGroup, deadline <-chan struct{}) bool {
	done := make(chan struct{})
	go func() {
		wg.Wait()
		close(done)
	}()
	select {
	case <-done:
		return true
	case <-deadline:
		return false
	}
}
