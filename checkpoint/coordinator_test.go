package checkpoint

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

var epochZero = time.UnixMilli(1_700_000_000_000)

func newCoordinator(t testing.TB, cfg CoordinatorConfig) *Coordinator {
	t.Helper()
	c, err := NewCoordinator(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestCoordinatorConfig(t *testing.T) {
	for _, bad := range []CoordinatorConfig{
		{}, {Subtasks: -1}, {Subtasks: 1, Interval: -1}, {Subtasks: 1, EpochBytes: -1}, {Subtasks: 1, UnderWay: -1},
		{Subtasks: 1, DryDelay: -1}, {Subtasks: 1, DryDelay: time.Second}, {Subtasks: 1, Interval: time.Second, MarkDelay: time.Millisecond},
	} {
		if _, err := NewCoordinator(bad); err == nil {
			t.Errorf("%+v was taken", bad)
		}
	}
}

// TestCoordinatorBarriers: when a barrier is sent, and when Tick asks to be called again.
func TestCoordinatorBarriers(t *testing.T) {
	ms := time.Millisecond
	type step struct {
		at   time.Duration
		do   func(c *Coordinator, now time.Time)
		send Epoch
		next time.Duration // 0: never
	}
	nothing := func(*Coordinator, time.Time) {}
	changed := func(c *Coordinator, now time.Time) { c.Changed(now, 10) }
	large := func(c *Coordinator, now time.Time) { c.Changed(now, 64<<20) }
	mark := func(c *Coordinator, now time.Time) { c.MarkMoved(now) }
	dry := func(c *Coordinator, now time.Time) { c.Dry(now, true) }
	wet := func(c *Coordinator, now time.Time) { c.Dry(now, false) }
	stop := func(c *Coordinator, now time.Time) { c.Stop(now) }
	pass := func(e Epoch) func(*Coordinator, time.Time) {
		return func(c *Coordinator, now time.Time) {
			c.Ack(0, e)
			c.Tick(now)
			c.Sealed(e)
		}
	}
	tests := []struct {
		name  string
		steps []step
	}{
		{"nothing to commit, no barrier", []step{{0, nothing, 0, 0}, {time.Hour, dry, 0, 0}}},
		{"the first change goes at once", []step{{3 * ms, changed, 1, 0}}},
		{"after that, every interval", []step{{0, changed, 1, 0}, {0, pass(1), 0, 0}, {2 * ms, changed, 0, 5 * ms}, {4 * ms, nothing, 0, 5 * ms}, {5 * ms, nothing, 2, 0}}},
		{"a change after a pause goes at once", []step{{0, changed, 1, 0}, {0, pass(1), 0, 0}, {70 * ms, changed, 2, 0}}},
		{"at most two are under way", []step{{0, changed, 1, 0}, {5 * ms, changed, 2, 0}, {10 * ms, changed, 0, 0}, {time.Hour, large, 0, 0},
			{time.Hour, pass(1), 3, 0}}},
		{"a large epoch does not wait", []step{{0, changed, 1, 0}, {1 * ms, large, 2, 0}}},
		{"bytes add up", []step{{0, changed, 1, 0}, {0, pass(1), 0, 0}, {1 * ms, func(c *Coordinator, now time.Time) { c.Changed(now, 40<<20) }, 0, 5 * ms},
			{2 * ms, func(c *Coordinator, now time.Time) { c.Changed(now, 24<<20) }, 2, 0}, {2 * ms, changed, 0, 7 * ms}}},
		{"all sources dry, 1 ms is enough", []step{{0, changed, 1, 0}, {0, pass(1), 0, 0}, {200 * time.Microsecond, changed, 0, 5 * ms},
			{300 * time.Microsecond, dry, 0, 1 * ms}, {1 * ms, nothing, 2, 0}}},
		{"no longer dry", []step{{0, changed, 1, 0}, {0, pass(1), 0, 0}, {200 * time.Microsecond, changed, 0, 5 * ms}, {300 * time.Microsecond, dry, 0, 1 * ms},
			{400 * time.Microsecond, wet, 0, 5 * ms}, {1 * ms, nothing, 0, 5 * ms}, {5 * ms, nothing, 2, 0}}},
		{"watermarks alone wait for 100 ms", []step{{0, changed, 1, 0}, {0, pass(1), 0, 0}, {1 * ms, mark, 0, 100 * ms}, {50 * ms, mark, 0, 100 * ms}, {100 * ms, nothing, 2, 0}}},
		{"a record takes a watermark with it", []step{{0, changed, 1, 0}, {0, pass(1), 0, 0}, {1 * ms, mark, 0, 100 * ms}, {2 * ms, changed, 0, 5 * ms}, {5 * ms, nothing, 2, 0}, {time.Hour, nothing, 0, 0}}},
		{"a stop goes at once, also with nothing to commit", []step{{0, stop, 1, 0}, {1 * ms, changed, 0, 0}}},
		{"a stop waits for a barrier's place", []step{{0, changed, 1, 0}, {5 * ms, changed, 2, 0}, {6 * ms, stop, 0, 0}, {7 * ms, pass(1), 3, 0}}},
		{"an end goes at once", []step{{0, changed, 1, 0}, {1 * ms, func(c *Coordinator, now time.Time) { c.Ended(0) }, 2, 0}, {time.Hour, changed, 0, 0}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := newCoordinator(t, CoordinatorConfig{Subtasks: 1})
			for i, s := range tt.steps {
				now := epochZero.Add(s.at)
				s.do(c, now)
				d := c.Tick(now)
				next := time.Duration(0)
				if !d.Next.IsZero() {
					next = d.Next.Sub(epochZero)
				}
				if d.Barrier != s.send || next != s.next {
					t.Errorf("step %d: barrier %v, next %v; want %v, %v", i, d.Barrier, next, s.send, s.next)
				}
			}
		})
	}
}

// TestCoordinatorPanics: what only our own bug can say.
func TestCoordinatorPanics(t *testing.T) {
	for what, f := range map[string]func(c *Coordinator){
		"a barrier that was not sent":   func(c *Coordinator) { c.Ack(0, 2) },
		"a barrier twice":               func(c *Coordinator) { c.Ack(0, 1); c.Ack(0, 1) },
		"a subtask that has ended":      func(c *Coordinator) { c.Ended(0); c.Ack(0, 1) },
		"an end twice":                  func(c *Coordinator) { c.Ended(0); c.Ended(0) },
		"a seal that was not given out": func(c *Coordinator) { c.Sealed(1) },
		"a seal out of order":           func(c *Coordinator) { c.Ack(0, 1); c.Ack(1, 1); c.Tick(epochZero); c.Sealed(2) },
	} {
		t.Run(what, func(t *testing.T) {
			c := newCoordinator(t, CoordinatorConfig{Subtasks: 2})
			c.Changed(epochZero, 1)
			if d := c.Tick(epochZero); d.Barrier != 1 {
				t.Fatalf("%+v", d)
			}
			defer func() {
				if recover() == nil {
					t.Error("taken")
				}
			}()
			f(c)
		})
	}
}

// coordination is a job in the eyes of its coordinator, played at random, with what must hold kept beside it.
type coordination struct {
	c   *Coordinator
	cfg CoordinatorConfig
	r   *rand.Rand
	now time.Time

	subs   []coordinated
	sent   Epoch // last barrier sent
	sentAt time.Time
	over   Epoch // the last one
	given  Epoch // last epoch given out to be sealed
	sealed Epoch
	stop   bool
	hold   bool
	dry    bool
	bytes  int64
	change bool // something to commit in the growing epoch
	marks  bool
	pause  bool
	tried  map[string]int
}

type coordinated struct {
	passed Epoch
	ended  Epoch // the epoch of its last piece; 0: it has not
}

func (w *coordination) ended() bool {
	return !slices.ContainsFunc(w.subs, func(s coordinated) bool { return s.ended == 0 })
}

// due is when, by the words of the design, the next barrier goes.
func (w *coordination) due() (time.Time, bool) {
	if w.over > 0 || w.sent-w.sealed >= 2 {
		return time.Time{}, false
	}
	if w.stop || w.ended() || w.bytes >= w.cfg.EpochBytes {
		return w.now, true
	}
	if !w.change && !w.marks {
		return time.Time{}, false
	}
	if w.sent < w.cfg.First {
		return w.now, true // none before it to wait behind
	}
	switch {
	case w.change && w.dry:
		return w.sentAt.Add(w.cfg.DryDelay), true
	case w.change:
		return w.sentAt.Add(w.cfg.Interval), true
	}
	return w.sentAt.Add(w.cfg.MarkDelay), true
}

// event does one thing that can happen now.
func (w *coordination) event() error {
	r := w.r
	switch n := r.IntN(20); {
	case n < 4:
		bytes := int64(r.IntN(int(w.cfg.EpochBytes / 3)))
		w.c.Changed(w.now, bytes)
		w.change, w.bytes = true, w.bytes+bytes
	case n < 6:
		w.c.MarkMoved(w.now)
		w.marks = true
	case n < 7:
		w.dry = r.IntN(2) == 0
		w.c.Dry(w.now, w.dry)
	case n < 8:
		w.hold = r.IntN(2) == 0
		w.c.Hold(w.hold)
	case n < 12: // a subtask passes the next barrier
		i := r.IntN(len(w.subs))
		if s := &w.subs[i]; s.ended == 0 && s.passed < w.sent {
			s.passed++
			w.c.Ack(i, s.passed)
		}
	case n < 16:
		if w.sealed < w.given {
			w.sealed++
			w.c.Sealed(w.sealed)
		}
	case n == 16 && r.IntN(60) == 0:
		w.stop = true
		w.c.Stop(w.now)
		w.tried["stops"]++
	case n == 17 && r.IntN(20) == 0:
		return w.end(r.IntN(len(w.subs)))
	default:
		w.now = w.now.Add(time.Duration(r.Int64N(int64(w.cfg.Interval))))
	}
	return nil
}

func (w *coordination) end(i int) error {
	s := &w.subs[i]
	if s.ended > 0 {
		return nil
	}
	want := s.passed + 1
	if w.over > 0 && s.passed == w.over {
		want = 0 // the epochs are over
		w.tried["ends behind the last barrier"]++
	}
	if got := w.c.Ended(i); got != want {
		return fmt.Errorf("subtask %d, which has passed %s, ends in epoch %s, want %s", i, s.passed, got, want)
	}
	if want == 0 {
		return nil
	}
	s.ended = want
	w.tried["ends"]++
	if want == w.sent+1 {
		w.change = true // its last piece is to be committed
	}
	return nil
}

// tick asks for a decision and holds it against what must hold.
func (w *coordination) tick() error {
	due, ever := w.due()
	d := w.c.Tick(w.now)
	must := ever && !w.now.Before(due)
	switch {
	case must && d.Barrier == 0:
		return fmt.Errorf("no barrier, which was due at %v", due.Sub(epochZero))
	case !must && d.Barrier != 0:
		return fmt.Errorf("barrier %s, which is due at %v, if ever: %v", d.Barrier, due.Sub(epochZero), ever)
	case must && (d.Barrier != w.sent+1 || d.Last != (w.stop || w.ended())):
		return fmt.Errorf("barrier %s, last %v; %s was sent, stopping %v, ended %v", d.Barrier, d.Last, w.sent, w.stop, w.ended())
	}
	idle := !w.change && !w.marks
	if must {
		w.sent, w.sentAt, w.bytes, w.change, w.marks = d.Barrier, w.now, 0, false, false
		if d.Last {
			w.over = d.Barrier
		}
		w.tried["barriers"]++
		due, ever = w.due()
	}
	if ever != !d.Next.IsZero() || ever && due.After(w.now) && !d.Next.Equal(due) {
		return fmt.Errorf("Tick is wanted at %v, want %v, %v", d.Next, due, ever)
	}
	if w.sent-w.sealed > 2 {
		return fmt.Errorf("barriers up to %s were sent, %s is sealed", w.sent, w.sealed)
	}
	if n, oldest := w.c.UnderWay(); n != int(w.sent-w.sealed) || oldest != w.sealed+1 {
		return fmt.Errorf("%d under way from %s, want %d from %s", n, oldest, w.sent-w.sealed, w.sealed+1)
	}
	for _, e := range d.Seal {
		if e != w.given+1 {
			return fmt.Errorf("epoch %s is to be sealed behind %s", e, w.given)
		}
		w.given = e
	}
	complete := w.sent
	for _, s := range w.subs {
		if s.ended == 0 {
			complete = min(complete, s.passed)
		}
	}
	if w.given != complete {
		return fmt.Errorf("epochs up to %s were given out, complete are those up to %s", w.given, complete)
	}
	return w.checkPause(d, idle)
}

// checkPause: sources are held back while a topic is full, from a barrier on or while nothing waits for one, and behind the
// last barrier; not else.
func (w *coordination) checkPause(d Decision, idle bool) error {
	want := w.over > 0 || w.hold && (w.pause || d.Barrier > 0 || idle)
	if d.Pause != want {
		return fmt.Errorf("pause %v, want %v: hold %v, before %v, barrier %s, nothing waits %v", d.Pause, want, w.hold, w.pause, d.Barrier, idle)
	}
	if full := w.over == 0 && w.bytes >= w.cfg.EpochBytes && w.sent-w.sealed == 2; d.Full != full {
		return fmt.Errorf("full %v, want %v: %d bytes, %s sent, %s sealed", d.Full, full, w.bytes, w.sent, w.sealed)
	} else if full {
		w.tried["full epochs"]++
	}
	w.pause = d.Pause && w.over == 0
	if w.pause {
		w.tried["pauses"]++
	}
	if done := w.over > 0 && w.sealed >= w.over; w.c.Done() != done || w.c.AllEnded() != w.ended() {
		return fmt.Errorf("done %v, all ended %v", w.c.Done(), w.c.AllEnded())
	}
	return nil
}

// finish lets everything that is under way come to its end: it must be able to.
func (w *coordination) finish() error {
	w.hold = false
	w.c.Hold(false)
	w.stop = true
	w.c.Stop(w.now)
	for n := 0; !w.c.Done(); n++ {
		if n > 100 {
			return fmt.Errorf("no end: sent %s, given %s, sealed %s, over %s, subtasks %+v", w.sent, w.given, w.sealed, w.over, w.subs)
		}
		for i := range w.subs {
			if s := &w.subs[i]; s.ended == 0 && s.passed < w.sent {
				s.passed++
				w.c.Ack(i, s.passed)
			}
		}
		for w.sealed < w.given {
			w.sealed++
			w.c.Sealed(w.sealed)
		}
		if err := w.tick(); err != nil {
			return err
		}
	}
	return nil
}

// TestCoordinatorAtRandom: whatever happens, in whatever order: at most two barriers are under way; one is sent exactly when
// there is something to commit and interval, bytes or dry sources say so; epochs are given out once, in order, exactly when
// every subtask has passed or ended; sources pause at barriers only; and the end is always reached.
func TestCoordinatorAtRandom(t *testing.T) {
	tried := map[string]int{}
	seeds(t, 1500, func(t *testing.T, r *rand.Rand) {
		cfg := CoordinatorConfig{Subtasks: 1 + r.IntN(5), Interval: 5 * time.Millisecond, DryDelay: time.Millisecond, MarkDelay: 100 * time.Millisecond,
			EpochBytes: 1000, First: Epoch(1 + r.IntN(3)*1000)}
		w := &coordination{c: newCoordinator(t, cfg), cfg: cfg, r: r, now: epochZero, sent: cfg.First - 1, given: cfg.First - 1, sealed: cfg.First - 1, tried: tried}
		for range cfg.Subtasks {
			w.subs = append(w.subs, coordinated{passed: cfg.First - 1})
		}
		for i := range 400 {
			if err := w.event(); err != nil {
				t.Fatalf("event %d: %v", i, err)
			}
			if r.IntN(3) > 0 || w.c.Done() {
				if err := w.tick(); err != nil {
					t.Fatalf("event %d: %v", i, err)
				}
			}
		}
		if err := w.finish(); err != nil {
			t.Fatal(err)
		}
	})
	t.Logf("%v", tried)
	for _, what := range []string{"barriers", "ends", "ends behind the last barrier", "stops", "pauses"} {
		if tried[what] == 0 && envNumber(t, seedVariable) == 0 {
			t.Errorf("no %s were tried", what)
		}
	}
}
