package checkpoint

import (
	"fmt"
	"time"
)

// CoordinatorConfig tunes a Coordinator; Subtasks is needed, all else has a good default.
type CoordinatorConfig struct {
	Subtasks   int
	Interval   time.Duration // of barriers while there is something to commit; 0 means 5 ms
	DryDelay   time.Duration // the same while all sources are dry; 0 means 1 ms
	MarkDelay  time.Duration // the same while only watermarks move; 0 means 100 ms
	EpochBytes int64         // an epoch this large gets its barrier at once; 0 means 64 MiB
	UnderWay   int           // barriers sent and not yet sealed, at most; 0 means 2
	First      Epoch         // the first epoch; 0 means 1
}

func (c CoordinatorConfig) withDefaults() (CoordinatorConfig, error) {
	if c.Interval == 0 {
		c.Interval = 5 * time.Millisecond
	}
	if c.DryDelay == 0 {
		c.DryDelay = min(time.Millisecond, c.Interval)
	}
	if c.MarkDelay == 0 {
		c.MarkDelay = max(100*time.Millisecond, c.Interval)
	}
	if c.EpochBytes == 0 {
		c.EpochBytes = 64 << 20
	}
	if c.UnderWay == 0 {
		c.UnderWay = 2
	}
	if c.First == 0 {
		c.First = 1
	}
	switch {
	case c.Subtasks < 1:
		return c, fmt.Errorf("checkpoint: %d subtasks", c.Subtasks)
	case c.Interval < 0 || c.EpochBytes < 0 || c.UnderWay < 0:
		return c, fmt.Errorf("checkpoint: Interval %v, EpochBytes %d and UnderWay %d must be positive", c.Interval, c.EpochBytes, c.UnderWay)
	case c.DryDelay < 0 || c.DryDelay > c.Interval:
		return c, fmt.Errorf("checkpoint: DryDelay %v is not within 0 and Interval %v", c.DryDelay, c.Interval)
	case c.MarkDelay < c.Interval:
		return c, fmt.Errorf("checkpoint: MarkDelay %v is shorter than Interval %v", c.MarkDelay, c.Interval)
	}
	return c, nil
}

// Decision is what is to be done now.
type Decision struct {
	Barrier Epoch   // send the barrier that ends this epoch; 0 is none
	Last    bool    // with Barrier: it is the last one, nothing is read behind it
	Seal    []Epoch // these are complete, in this order, each given once
	// Pause says that sources read nothing behind the last barrier sent, until a decision without it. It begins with a
	// barrier or while nothing waits for one, so that no epoch is held open.
	Pause bool
	// Full says that the epoch under way has come to EpochBytes, and its barrier has to wait for those before it: sources
	// read nothing until a decision without it. Pause lets an epoch that has begun grow, Full does not.
	Full bool
	Next time.Time // call Tick again then, if no event comes first; zero is never
}

// Coordinator decides for one attempt of a job when barriers are sent and which epochs are complete. It is told events and
// does nothing by itself; Tick, called after them, says what follows. Times must not go back.
//
// A barrier is sent when there is something to commit, fewer than UnderWay barriers are under way (sent and not sealed), and
// since the last one Interval has passed, or EpochBytes have come together, or all sources are dry and DryDelay has passed.
// Watermarks alone wait for MarkDelay. A subtask that has ended counts as having passed every later barrier; when all
// have, the last epoch needs no barrier on any edge and is complete at once.
type Coordinator struct {
	cfg     CoordinatorConfig
	growing Epoch     // the epoch that the next barrier ends
	last    time.Time // of the last barrier; zero before the first
	bytes   int64     // of the growing epoch
	changes bool      // there is something to commit
	marks   bool      // a watermark has moved
	dry     bool
	hold    bool
	paused  bool
	stop    bool  // the next barrier is the last
	over    Epoch // the last epoch, once its barrier is sent
	sealed  Epoch // everything up to it is sealed
	told    Epoch // everything up to it was given out in Decision.Seal

	acked []Epoch // by subtask: the last barrier it has passed
	ended []bool
	live  int // subtasks that have not ended
}

// NewCoordinator returns a Coordinator in whose first epoch nothing has happened yet.
func NewCoordinator(cfg CoordinatorConfig) (*Coordinator, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	c := &Coordinator{
		cfg: cfg, growing: cfg.First, sealed: cfg.First - 1, told: cfg.First - 1,
		acked: make([]Epoch, cfg.Subtasks), ended: make([]bool, cfg.Subtasks), live: cfg.Subtasks,
	}
	for i := range c.acked {
		c.acked[i] = cfg.First - 1
	}
	return c, nil
}

// Changed says that the growing epoch has something to commit, bytes more than was said before.
func (c *Coordinator) Changed(now time.Time, bytes int64) {
	c.changes = true
	c.bytes += bytes
}

// MarkMoved says that a watermark or an idleness has changed, and nothing else.
func (c *Coordinator) MarkMoved(now time.Time) { c.marks = true }

// Dry says whether all sources have nothing at hand.
func (c *Coordinator) Dry(now time.Time, dry bool) { c.dry = dry }

// Hold says whether a topic that this job writes is full.
func (c *Coordinator) Hold(hold bool) { c.hold = hold }

// Stop asks for a last barrier, as soon as one may be sent, also when there is nothing to commit.
func (c *Coordinator) Stop(now time.Time) { c.stop = true }

// Ack says that a subtask has passed the barrier of e and handed over its piece. It panics for a barrier that was not sent,
// or not the next one for this subtask.
func (c *Coordinator) Ack(subtask int, e Epoch) {
	if c.ended[subtask] || e != c.acked[subtask]+1 || e >= c.growing {
		panic(fmt.Sprintf("checkpoint: subtask %d (passed %d, ended %v) acknowledges the barrier of epoch %d; %d is growing",
			subtask, c.acked[subtask], c.ended[subtask], e, c.growing))
	}
	c.acked[subtask] = e
}

// Ended says that a subtask has come to the end of its input and handed over its last piece. That piece belongs to the epoch
// returned: the first whose barrier the subtask has not passed. After the last barrier it is 0 and the end is forgotten:
// the epochs are over, and the next attempt comes to the same end.
func (c *Coordinator) Ended(subtask int) Epoch {
	if c.ended[subtask] {
		panic(fmt.Sprintf("checkpoint: subtask %d has ended twice", subtask))
	}
	if c.over != 0 && c.acked[subtask] == c.over {
		return 0
	}
	c.ended[subtask] = true
	c.live--
	e := c.acked[subtask] + 1
	if e == c.growing {
		c.changes = true
	}
	return e
}

// Sealed says that e, which a Decision gave out, has its place in the log.
func (c *Coordinator) Sealed(e Epoch) {
	if e != c.sealed+1 || e > c.told {
		panic(fmt.Sprintf("checkpoint: epoch %d was sealed after %d; %d were given out", e, c.sealed, c.told))
	}
	c.sealed = e
}

// AllEnded reports whether every subtask has ended; with Done it says that the job has, and not only this attempt.
func (c *Coordinator) AllEnded() bool { return c.live == 0 }

// Done reports whether the last epoch is sealed.
func (c *Coordinator) Done() bool { return c.over != 0 && c.sealed >= c.over }

// UnderWay returns how many barriers were sent whose epochs are not sealed, and the oldest of these epochs.
func (c *Coordinator) UnderWay() (n int, oldest Epoch) {
	return int(c.growing - 1 - c.sealed), c.sealed + 1
}

// Tick says what is to be done at now.
func (c *Coordinator) Tick(now time.Time) Decision {
	var d Decision
	due, ever := c.due()
	if ever && !now.Before(due) {
		d.Barrier = c.growing
		d.Last = c.stop || c.live == 0
		if d.Last {
			c.over = c.growing
		}
		c.growing++
		c.last = now
		c.bytes, c.changes, c.marks = 0, false, false
		due, ever = c.due()
	}
	if ever {
		d.Next = due
	}
	c.paused = c.hold && (c.paused || d.Barrier != 0 || !c.changes && !c.marks)
	d.Pause = c.paused || c.over != 0
	d.Full = c.over == 0 && c.bytes >= c.cfg.EpochBytes && int(c.growing-1-c.sealed) >= c.cfg.UnderWay
	complete := c.growing - 1
	for i, e := range c.acked {
		if !c.ended[i] {
			complete = min(complete, e)
		}
	}
	for c.told < complete {
		c.told++
		d.Seal = append(d.Seal, c.told)
	}
	return d
}

// due returns when the next barrier is to be sent, as things stand; ever is false if only an event can bring one about.
func (c *Coordinator) due() (at time.Time, ever bool) {
	if c.over != 0 || int(c.growing-1-c.sealed) >= c.cfg.UnderWay {
		return time.Time{}, false
	}
	delay := c.cfg.Interval
	switch {
	case c.stop, c.live == 0, c.bytes >= c.cfg.EpochBytes:
		return time.Time{}, true
	case c.changes && c.dry:
		delay = c.cfg.DryDelay
	case c.changes:
	case c.marks:
		delay = c.cfg.MarkDelay
	default:
		return time.Time{}, false
	}
	if c.last.IsZero() {
		return time.Time{}, true
	}
	return c.last.Add(delay), true
}
