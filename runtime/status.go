package runtime

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/sidestream-dev/sidestream/bus"
	"github.com/sidestream-dev/sidestream/checkpoint"
	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/wal"
)

// Work is what was done with records.
type Work struct {
	In          int64 `json:"in"`       // records read by a job's sources
	Out         int64 `json:"out"`      // records given to its outputs
	InBytes     int64 `json:"in_bytes"` // keys and values read outside the bus
	OutBytes    int64 `json:"out_bytes"`
	Rejected    int64 `json:"rejected"`     // records that on_error took out
	Late        int64 `json:"late"`         // records that came too late for a window
	LateDropped int64 `json:"late_dropped"` // of those, the ones dropped: the window has nowhere to give them
}

// Plus returns both together.
func (w Work) Plus(o Work) Work {
	return Work{w.In + o.In, w.Out + o.Out, w.InBytes + o.InBytes, w.OutBytes + o.OutBytes, w.Rejected + o.Rejected, w.Late + o.Late, w.LateDropped + o.LateDropped}
}

func (w Work) minus(o Work) Work {
	return Work{w.In - o.In, w.Out - o.Out, w.InBytes - o.InBytes, w.OutBytes - o.OutBytes, w.Rejected - o.Rejected, w.Late - o.Late, w.LateDropped - o.LateDropped}
}

// JobCounters count over all attempts of a job in this process.
type JobCounters struct {
	Work                 // of the epochs that were sealed, and of those under way
	Undone Work          `json:"undone"` // of attempts that failed, behind the last epoch they sealed: what they had read is read again
	Epochs int64         `json:"epochs"`
	Busy   time.Duration `json:"busy_ns"` // of its subtasks' time, summed
	Idle   time.Duration `json:"idle_ns"`
	Held   time.Duration `json:"held_ns"` // held back by those behind it
}

// Total is all that was done, also what was undone: it never goes back.
func (c JobCounters) Total() Work { return c.Work.Plus(c.Undone) }

func (c *JobCounters) add(o JobCounters) {
	c.Work, c.Undone = c.Work.Plus(o.Work), c.Undone.Plus(o.Undone)
	c.Epochs += o.Epochs
	c.Busy += o.Busy
	c.Idle += o.Idle
	c.Held += o.Held
}

// SubtaskStatus is one subtask of the attempt under way.
type SubtaskStatus struct {
	Task      string         `json:"task"`
	Index     int            `json:"index"`
	In        int64          `json:"in"`
	Queued    int            `json:"queued"` // records waiting before it
	Busy      time.Duration  `json:"busy_ns"`
	Idle      time.Duration  `json:"idle_ns"`
	Held      time.Duration  `json:"held_ns"`
	Watermark jobs.Watermark `json:"watermark"`
}

// JobStatus is what a job does now.
type JobStatus struct {
	Name       string           `json:"name"`
	ID         uint32           `json:"id"`
	State      JobState         `json:"state"`
	Since      time.Time        `json:"since"`
	Waiting    []Wait           `json:"waiting,omitempty"`
	Stuck      []string         `json:"stuck,omitempty"` // steps that have not returned for long
	Error      string           `json:"error,omitempty"` // of the newest failed attempt, of the definition that it has
	RolledBack *RolledBack      `json:"rolled_back,omitempty"`
	Probation  time.Time        `json:"probation_until,omitzero"` // until then a failure brings the definition before back
	Restarts   int              `json:"restarts"`
	Epoch      checkpoint.Epoch `json:"epoch"`                // the last one that is sealed
	LastCommit time.Time        `json:"last_commit,omitzero"` // its time; zero if none in this process
	BarrierAge time.Duration    `json:"barrier_age_ns"`
	StateBytes int64            `json:"state_bytes"`
	Counters   JobCounters      `json:"counters"`
	Undone     Work             `json:"-"`   // of Counters.Undone, that of attempts which have another behind them: it never goes back
	Lag        int64            `json:"lag"` // records on the bus that it has yet to read
	CatchUp    *CatchUp         `json:"catch_up,omitempty"`
	Subtasks   []SubtaskStatus  `json:"subtasks,omitempty"`
	Outputs    []OutputStatus   `json:"outputs,omitempty"`
}

// RolledBack says that a changed definition failed on probation, and that the one before is back.
type RolledBack struct {
	At    time.Time `json:"at"`
	Error string    `json:"error"`
}

// OutputStatus is one output to the outside.
type OutputStatus struct {
	Name    string `json:"name"`
	Kind    string `json:"kind"`
	Sent    int64  `json:"sent"` // in this process
	Unsent  int64  `json:"unsent"`
	Waiting string `json:"waiting,omitempty"`
	Error   string `json:"error,omitempty"`
	Stopped bool   `json:"stopped,omitempty"`
	// GivenUp is when a change of the job gave the output up: what it has yet to send is sent on, and keeps the place it goes to.
	GivenUp time.Time `json:"given_up,omitzero"`
}

// Status is the whole runtime.
type Status struct {
	Started time.Time       `json:"started"`
	Jobs    []JobStatus     `json:"jobs"`
	Topics  []bus.TopicStat `json:"topics"`
	Missing []string        `json:"missing,omitempty"` // jobs in the data directory that nobody gave a definition of
	Log     LogStatus       `json:"log"`
}

// LogStatus is the log.
type LogStatus struct {
	ID          string    `json:"id"`
	Last        wal.LSN   `json:"last"`
	Durable     wal.LSN   `json:"durable"`
	Bytes       int64     `json:"bytes"`
	Max         int64     `json:"max_bytes"` // longer than it should not be
	Pins        []LogPin  `json:"pins,omitempty"`
	Generations int       `json:"generations"`
	Stats       wal.Stats `json:"stats"`
}

func (s *subtask) counters() JobCounters {
	c := JobCounters{Work: s.work(), Busy: time.Duration(s.stats.busy.Load())}
	c.Idle, c.Held = s.stats.waits.read()
	return c
}

// work is what the subtask has done in this attempt.
func (s *subtask) work() Work {
	w := Work{Rejected: s.stats.rejected.Load(), Late: s.stats.late.Load(), LateDropped: s.stats.lateDropped.Load(),
		Out: s.stats.written.Load(), InBytes: s.stats.inBytes.Load(), OutBytes: s.stats.writtenBytes.Load()}
	if s.feed != nil {
		w.In = s.stats.in.Load()
	}
	return w
}

// lastAttempt is what the newest attempt that is over has done. What of it counts is known for good when the next one begins:
// until then the committer may have an epoch of it.
type lastAttempt struct {
	counters JobCounters
	kept     *atomic.Pointer[Work] // see execution.kept
}

func (l lastAttempt) settled() JobCounters {
	c := l.counters
	if l.kept == nil {
		return c
	}
	kept := Work{}
	if k := l.kept.Load(); k != nil {
		kept = *k
	}
	c.Work, c.Undone = kept, c.Work.minus(kept)
	return c
}

// settle takes the last attempt into what is past, once the next is fenced off from it: nothing of it is sealed any more.
func (j *job) settle() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.past.add(j.last.settled())
	j.last = lastAttempt{}
}

// addPast takes what an attempt has done into what is past: the attempt is over. Who looks sees it in one of the two.
func (j *job) addPast(x *execution) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.last = lastAttempt{kept: x.kept}
	for _, s := range x.subtasks {
		j.last.counters.add(s.counters())
	}
	j.last.counters.Epochs += x.epochs.Load()
	if last := x.lastSeal.Load(); last != nil {
		j.sealed = *last
	}
	j.exec.Store(nil)
}

// status gathers what a job does now.
func (j *job) status() JobStatus {
	j.mu.Lock()
	st := JobStatus{Name: j.def.Name, ID: j.id, State: j.state, Since: j.since, Restarts: j.restarts, Counters: j.past, Undone: j.past.Undone, RolledBack: j.took,
		Epoch: j.sealed.epoch, LastCommit: j.sealed.at}
	st.Counters.add(j.last.settled())
	if t := j.trial.Load(); t.open(j.rt.now()) {
		st.Probation = t.until
	}
	x := j.exec.Load()
	if j.lastErr != nil {
		st.Error = errorText(j.lastErr)
	}
	for _, step := range slices.Sorted(maps.Keys(j.waiting)) {
		st.Waiting = append(st.Waiting, j.waiting[step])
	}
	j.mu.Unlock()
	st.Stuck = j.stuckTasks()
	if x != nil {
		x.fillStatus(&st)
	}
	if st.State == StateRunning && len(st.Waiting) > 0 {
		st.State = StateWaiting
	}
	return st
}

func (x *execution) fillStatus(st *JobStatus) {
	now, read := time.Now(), int64(0)
	for _, s := range x.subtasks {
		c := s.counters()
		read += c.In
		st.Counters.add(c)
		st.StateBytes += s.stats.stateBytes.Load()
		sub := SubtaskStatus{Task: s.plan.name(), Index: s.index, In: s.stats.in.Load(), Busy: time.Duration(s.stats.busy.Load()),
			Watermark: jobs.Watermark(s.stats.watermark.Load())}
		sub.Idle, sub.Held = s.stats.waits.read()
		if s.inbox != nil {
			sub.Queued = s.inbox.queued()
		}
		st.Subtasks = append(st.Subtasks, sub)
		if beat := s.beat.Load(); beat != 0 && now.Sub(time.Unix(0, beat)) > x.rt.cfg.StuckAfter {
			st.Stuck = append(st.Stuck, fmt.Sprintf("%s (subtask %d) has not returned for %s", s.plan.name(), s.index, now.Sub(time.Unix(0, beat)).Round(time.Second)))
		}
		if f, ok := s.feed.(*busFeed); ok {
			if names := x.rt.blame(f); len(names) > 0 {
				st.Waiting = append(st.Waiting, waitWatermark(f.node.ID, f.node.Source.Topic, names))
			}
			if s.index == 0 && len(x.rt.bus.Producers(f.topic)) == 0 && !x.rt.bus.Written(f.topic) {
				st.Waiting = append(st.Waiting, waitWriter(f.node.ID, f.node.Source.Topic))
			}
		}
	}
	if x.rt.committer.noRoom.Load() && x.barrier.Load() != 0 {
		st.Waiting = append(st.Waiting, waitDisk())
	}
	st.CatchUp = x.catchUp.status(now, read)
	st.Counters.Epochs += x.epochs.Load()
	if last := x.lastSeal.Load(); last != nil {
		st.Epoch, st.LastCommit = last.epoch, last.at
	}
	if at := x.barrier.Load(); at != 0 {
		st.BarrierAge = now.Sub(time.Unix(0, at))
	}
}

// blame names the producers that hold a subscription's watermark back and are not at work themselves.
func (rt *Runtime) blame(f *busFeed) []string {
	r := f.shared.Load()
	if r == nil {
		return nil
	}
	var names []string
	for _, p := range r.Blame() {
		rt.mu.Lock()
		for _, j := range rt.jobs {
			if j.id == uint32(p) && (j.exec.Load() == nil || j.isWaiting()) {
				names = append(names, j.def.Name)
			}
		}
		rt.mu.Unlock()
	}
	return names
}

func (j *job) isWaiting() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return len(j.waiting) > 0
}

func (s *sender) status() OutputStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := OutputStatus{Name: s.entry.Name, Kind: s.sink.Kind(), Sent: s.sent.Load(), Unsent: s.unsent(), Waiting: s.waiting, Stopped: s.stopped.Load()}
	if s.lastErr != nil {
		st.Error = errorText(s.lastErr)
	}
	if at := s.gaveUp.Load(); at != 0 {
		st.GivenUp = time.UnixMilli(at)
	}
	return st
}

// unsent is how many records, sealed or durable, are yet to be sent.
func (s *sender) unsent() int64 {
	return s.rt.bus.Records(s.entry.Topic, 0, bus.Offset(s.next.Load()))
}

// Status gathers what everything does now. It takes short locks only.
func (rt *Runtime) Status() Status {
	rt.mu.Lock()
	js, senders, missing := slices.Clone(rt.jobs), slices.Clone(rt.senders), slices.Clone(rt.missing)
	rt.mu.Unlock()
	st := Status{Started: rt.started, Missing: missing, Topics: rt.bus.Stats(),
		Log: LogStatus{ID: rt.log.ID().String(), Last: rt.log.Last(), Durable: rt.log.Durable(), Max: rt.cfg.LogBytes, Stats: rt.log.Stats()}}
	if pins := rt.pinned.Load(); pins != nil {
		st.Log.Pins = *pins
	}
	for _, g := range rt.log.Generations() {
		st.Log.Bytes += g.Bytes
		st.Log.Generations++
	}
	for _, j := range js {
		s := j.status()
		for _, out := range senders {
			if out.job == s.Name {
				s.Outputs = append(s.Outputs, out.status())
			}
		}
		s.Lag = rt.lag(s.Name, st.Topics)
		st.Jobs = append(st.Jobs, s)
	}
	return st
}

// lag sums what a job's subscriptions have yet to read.
func (rt *Runtime) lag(job string, topics []bus.TopicStat) int64 {
	n := int64(0)
	for _, t := range topics {
		for _, s := range t.Subscriptions {
			if strings.HasPrefix(s.Name, job+"/") {
				n += s.Lag
			}
		}
	}
	return n
}

func (rt *Runtime) allSent() bool {
	rt.mu.Lock()
	senders := slices.Clone(rt.senders)
	rt.mu.Unlock()
	for _, s := range senders {
		if !s.stopped.Load() && s.unsent() > 0 {
			return false
		}
	}
	return true
}
