package runtime

import (
	"math"
	goruntime "runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sidestream-dev/sidestream/bus"
)

// A job that begins with the history of a topic reads it as fast as it can, for seconds or hours, and on a machine of few
// cores those that are live wait for it: Go lets a goroutine run for 10 ms before another has its turn, and what waits behind
// an fsync under way is not taken by a core that is at work. So jobs that catch up are paced while others are at work: all of
// them together get Config.CatchUpPercent of the machine's time, counted by how long their subtasks, not only their readers,
// were busy, and take it in slices of a fraction of a millisecond. That is a floor too: they get it however much the others
// have to do.
//
// A job catches up from when it was added or set back until it has come to the end of its topics once. Who falls behind later
// is not paced, or it would never come back; nor is one by which a topic fills up, which would hold back the very jobs that
// are live.

const (
	paceSlice   = 300 * time.Microsecond // of a source's work, before others have their turn
	paceRecords = 16                     // a slice is not less
	paceBurst   = 2 * time.Millisecond   // of rest that was too long and is made good
	paceLive    = 5 * time.Second        // who was at work so long ago is still
	paceLook    = 100 * time.Millisecond // between two looks at what may end the pacing
	paceFill    = 0.25                   // of a topic's limit: by whom it is so full is not paced
)

// pacer shares out the time of a process's jobs that catch up.
type pacer struct {
	cores    float64      // that they get, in all; 0 bounds them not
	catching atomic.Int32 // their sources
	begun    atomic.Int64 // sources that ever did
	live     atomic.Int64 // Unix nanoseconds at which another job was last at work

	mu   sync.Mutex
	paid time.Time // until when what they have used is paid for
}

func newPacer(percent int) *pacer {
	if percent >= 100 {
		return &pacer{}
	}
	return &pacer{cores: float64(percent) / 100 * float64(goruntime.GOMAXPROCS(0))}
}

// atWork notes that a job which does not catch up is at work.
func (p *pacer) atWork(now time.Time) { p.live.Store(now.UnixNano()) }

// others reports whether jobs that do not catch up are at work.
func (p *pacer) others(now time.Time) bool { return now.UnixNano()-p.live.Load() < int64(paceLive) }

// use takes down that jobs which catch up were busy, and returns until when whoever was is to rest; zero if it need not.
func (p *pacer) use(now time.Time, busy time.Duration) time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	if least := now.Add(-busy - paceBurst); p.paid.Before(least) {
		p.paid = least
	}
	if p.cores == 0 || !p.others(now) {
		return time.Time{}
	}
	p.paid = p.paid.Add(time.Duration(float64(busy) / p.cores))
	return p.paid
}

// catchUp is the catching up of an attempt.
type catchUp struct {
	sources atomic.Int32 // that do
	follows atomic.Bool  // it has only to do what jobs that catch up give it
	judged  atomic.Int64 // how many sources had begun when that was found
	paced   atomic.Bool  // its sources rest for others

	mu    sync.Mutex
	busy  time.Duration // of its subtasks, as far as it is accounted for
	began time.Time     // zero if no source ever did
}

// CatchUp is how a job stands that catches up with what a topic held when the job was added or set back.
type CatchUp struct {
	Since time.Time `json:"since"` // of the attempt under way
	Rate  float64   `json:"rate"`  // records a second since then
	Paced bool      `json:"paced"` // it leaves the time to the jobs that are live, see Config.CatchUpPercent
}

// status returns nil for an attempt that does not catch up.
func (c *catchUp) status(now time.Time, read int64) *CatchUp {
	if c.sources.Load() == 0 {
		return nil
	}
	c.mu.Lock()
	st := &CatchUp{Since: c.began, Paced: c.paced.Load()}
	c.mu.Unlock()
	if d := now.Sub(st.Since); d > 0 {
		st.Rate = math.Round(float64(read) / d.Seconds())
	}
	return st
}

// noteWork notes that the attempt has something to do, if that counts against those who catch up.
func (x *execution) noteWork(now time.Time) {
	p := x.rt.pacer
	if p == nil || p.catching.Load() == 0 || x.catchUp.sources.Load() > 0 {
		return
	}
	if begun := p.begun.Load(); x.catchUp.judged.Load() != begun {
		x.rt.findFollowers(begun)
	}
	if !x.catchUp.follows.Load() {
		p.atWork(now)
	}
}

// unaccounted returns how long the attempt's subtasks were busy since the last call.
func (x *execution) unaccounted() time.Duration {
	x.catchUp.mu.Lock()
	defer x.catchUp.mu.Unlock()
	all := time.Duration(0)
	for _, s := range x.subtasks {
		all += time.Duration(s.stats.busy.Load())
	}
	d := all - x.catchUp.busy
	x.catchUp.busy = all
	return max(0, d)
}

// pace is called when a source has given records: it may have to rest.
func (s *subtask) pace(busy time.Duration, records int) {
	s.rest = time.Time{}
	p := s.ex.rt.pacer
	if p == nil || p.catching.Load() == 0 {
		return
	}
	now := time.Now()
	f, reads := s.feed.(*busFeed)
	if !reads || !f.pace.catching {
		s.ex.noteWork(now)
		return
	}
	if f.look(now); !f.pace.catching {
		return
	}
	if records > 0 {
		f.pace.measure(busy / time.Duration(records))
	}
	s.rest = p.use(now, s.ex.unaccounted())
	s.ex.catchUp.paced.Store(!s.rest.IsZero())
}

// rests reports whether the source is to leave the others their turn.
func (s *subtask) rests() bool { return !s.rest.IsZero() && time.Until(s.rest) > 0 }

// feedPace is a bus source's part in this. It is the subtask's own.
type feedPace struct {
	x         *execution
	catching  bool
	looked    time.Time
	perRecord time.Duration // about, of work
}

func (f *feedPace) measure(perRecord time.Duration) {
	if f.perRecord > 0 {
		perRecord = (7*f.perRecord + perRecord) / 8
	}
	f.perRecord = max(1, perRecord)
}

// beginCatchUp is called when the reader is made.
func (f *busFeed) beginCatchUp(x *execution) {
	p := x.rt.pacer
	if p == nil {
		return
	}
	if left, _ := f.bus.Past(f.sub); left == 0 {
		return
	}
	f.pace.x, f.pace.catching = x, true
	c := &x.catchUp
	c.mu.Lock()
	if c.began.IsZero() {
		c.began = time.Now()
	}
	c.mu.Unlock()
	c.sources.Add(1)
	p.catching.Add(1)
	p.begun.Add(1) // last: whoever sees it sees the others
}

// endCatchUp is called when the reader has come to the end once, or needs no pacing any more, or is closed.
func (f *busFeed) endCatchUp() {
	if !f.pace.catching {
		return
	}
	f.pace.catching = false
	f.pace.x.rt.pacer.catching.Add(-1)
	if f.pace.x.catchUp.sources.Add(-1) == 0 {
		f.pace.x.catchUp.paced.Store(false)
	}
}

// look sees now and then whether the source is still to be paced.
func (f *busFeed) look(now time.Time) {
	if now.Sub(f.pace.looked) < paceLook {
		return
	}
	f.pace.looked = now
	if _, fill := f.bus.Past(f.sub); fill >= paceFill {
		f.endCatchUp()
		return
	}
	f.pace.x.rt.findFollowers(f.pace.x.rt.pacer.begun.Load())
}

// records is how many records the next batch may have.
func (f *busFeed) records(most int) int {
	switch {
	case !f.pace.catching:
		return most
	case f.pace.perRecord == 0:
		return min(most, paceRecords)
	}
	return min(most, max(paceRecords, int(paceSlice/f.pace.perRecord)))
}

// findFollowers marks the attempts that have only to do what jobs that catch up give them: these need not wait for those. begun is
// of before.
func (rt *Runtime) findFollowers(begun int64) {
	running := map[bus.ProducerID]*execution{}
	for _, j := range rt.jobList() {
		if x := j.exec.Load(); x != nil {
			running[bus.ProducerID(j.id)] = x
		}
	}
	follows := map[*execution]bool{}
	for more := true; more; {
		more = false
		for _, x := range running {
			if !follows[x] && x.catchUp.sources.Load() == 0 && x.followsOnly(running, follows) {
				follows[x], more = true, true
			}
		}
	}
	for _, x := range running {
		x.catchUp.follows.Store(follows[x])
		x.catchUp.judged.Store(begun)
	}
}

// followsOnly reports whether all that the attempt reads is written by jobs that catch up or follow these, so far as it is
// written at all.
func (x *execution) followsOnly(running map[bus.ProducerID]*execution, follows map[*execution]bool) bool {
	some := false
	for _, s := range x.subtasks {
		if s.feed == nil {
			continue
		}
		f, reads := s.feed.(*busFeed)
		if !reads {
			return false
		}
		for _, id := range x.rt.bus.Producers(f.topic) {
			switch w := running[id]; {
			case w == nil:
			case w.catchUp.sources.Load() == 0 && !follows[w]:
				return false
			default:
				some = true
			}
		}
	}
	return some
}
