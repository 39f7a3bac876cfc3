package runtime

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/sidestream-dev/sidestream/bus"
	"github.com/sidestream-dev/sidestream/wal"
)

const (
	janitorEvery = time.Second
	storeAtOnce  = 150       // partitions in one small frame that says what the store holds
	paceBytes    = 128 << 20 // the janitor copies no more a second, while the log is less than twice as long as it should be
)

// janitor cuts the log behind what nobody needs any more. Where it is longer than Config.LogBytes, what topics still need of
// its oldest generations moves to the topic store, unsent outputs too; a job whose state is in the way gives a snapshot.
func (rt *Runtime) janitor() {
	defer rt.background.Done()
	tick := time.NewTicker(janitorEvery)
	defer tick.Stop()
	named := ""
	var uncut, unsaved seldom
	for {
		select {
		case <-tick.C:
		case <-rt.ctx.Done():
			return
		}
		pins, err := rt.tend(rt.ctx)
		if rt.log.Err() != nil || rt.ctx.Err() != nil {
			return // it says its last word itself (R7)
		}
		if failed := (*wal.FailedError)(nil); errors.As(err, &failed) {
			rt.onFatal(failed) // the topic store's
			return
		}
		if err == nil {
			if n := uncut.over(); n > 1 {
				rt.logger.Info("the log can be cut again", "failed", n)
			}
		} else if uncut.again(rt.now()) {
			rt.logger.Error("the log could not be cut; it is tried again every second", "err", err, "times", uncut.times)
		}
		bytes := rt.logBytes()
		if bytes <= rt.cfg.LogBytes || len(pins) == 0 {
			named = ""
			rt.notePins(nil)
			continue
		}
		rt.notePins(pins)
		if who := pins[0].Who; who != named {
			named = who
			rt.logger.Warn("the log is longer than it should be", "bytes", bytes, "limit", rt.cfg.LogBytes, "held by", who, "at", pins[0].LSN)
		}
		switch err := rt.askSnapshots(); {
		case err == nil:
			unsaved.over()
		case rt.log.Err() == nil && unsaved.again(rt.now()):
			rt.logger.Error("the state of a job could not be written to a snapshot; it keeps the log", "err", err, "times", unsaved.times)
		}
	}
}

func (rt *Runtime) logBytes() (bytes int64) {
	for _, g := range rt.log.Generations() {
		bytes += g.Bytes
	}
	return bytes
}

// tend is one round: what nobody needs goes, and then what topics need moves out, generation by generation, until the log is
// no longer than it should be or somebody's state is in the way. It returns who holds it then.
func (rt *Runtime) tend(ctx context.Context) (pins []bus.Pin, err error) {
	rt.storeMu.Lock()
	defer rt.storeMu.Unlock()
	pins, err = rt.cutLog()
	for err == nil && rt.logBytes() > rt.cfg.LogBytes {
		moved := false
		if moved, err = rt.moveOut(ctx); err != nil || !moved {
			break
		}
		pins, err = rt.cutLog()
	}
	return pins, errors.Join(err, rt.sweep())
}

// askSnapshots asks every job whose state keeps the oldest generation for a snapshot; for one that does not run it is made
// of what the log says.
func (rt *Runtime) askSnapshots() error {
	oldest := rt.log.Generations()[0].Last
	asked := map[uint32]bool{}
	err := rt.do(func(c *core) error {
		for id, j := range c.ledger.Jobs {
			if j.pin() <= oldest {
				asked[id] = true
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	rt.mu.Lock()
	for _, j := range rt.jobs {
		if x := j.exec.Load(); x != nil && asked[j.id] {
			x.post(event{kind: eventSnapshot})
			delete(asked, j.id)
		}
	}
	rt.mu.Unlock()
	var errs []error
	for _, id := range sortedIDs(asked) {
		errs = append(errs, rt.snapshotIdle(id))
	}
	return errors.Join(errs...)
}

func sortedIDs(m map[uint32]bool) []uint32 {
	out := make([]uint32, 0, len(m))
	for id := range m {
		out = append(out, id)
	}
	slices.Sort(out)
	return out
}

// cutLog drops the generations, and the segments of the topic store, that nobody needs. A durable frame says so first.
func (rt *Runtime) cutLog() (pins []bus.Pin, err error) {
	gens := rt.log.Generations()
	if len(gens) == 0 {
		return nil, nil
	}
	first, said := wal.LSN(0), wal.LSN(0)
	err = rt.do(func(c *core) (err error) {
		pins = c.pins()
		first = min(gens[len(gens)-1].First, c.statePin(), c.bus.Free())
		keep := gens[0].First
		for _, g := range gens {
			if g.First <= first {
				keep = g.First
			}
		}
		first = keep
		said, err = c.cut(first, gens[0].First, c.bus.Trim())
		return err
	})
	if err != nil || said == 0 {
		return pins, err
	}
	if err := rt.log.WaitDurable(rt.ctx, said); err != nil {
		return pins, err
	}
	return pins, rt.log.Drop(first)
}

// moveOut copies what topics need of the oldest generation into the topic store, and drops it; moved is false where it has to
// stay.
func (rt *Runtime) moveOut(ctx context.Context) (moved bool, err error) {
	gens := rt.log.Generations()
	if len(gens) < 2 {
		return false, nil
	}
	upTo := gens[1].First
	if err := rt.log.WaitDurable(ctx, upTo); err != nil {
		return false, err
	}
	var plan *bus.CopyPlan
	held := false
	err = rt.do(func(c *core) (err error) {
		if held = c.statePin() < upTo; !held {
			plan, err = c.bus.PlanCopy(upTo)
		}
		return err
	})
	if err != nil || held {
		return false, err
	}
	var ch bus.StoreChange
	if plan != nil {
		if ch, err = plan.Run(ctx, rt.pace(ctx)); err != nil {
			return false, err
		}
	}
	said := wal.LSN(0)
	err = rt.do(func(c *core) (err error) {
		if c.statePin() < upTo || plan != nil && plan.Stale() || plan == nil && c.bus.Free() < upTo {
			return nil // somebody has come meanwhile who needs more
		}
		said, err = c.cut(upTo, gens[0].First, ch)
		return err
	})
	if err != nil || said == 0 {
		return false, err
	}
	rt.logger.Debug("what topics need moved out of the log", "up to", upTo, "partitions", len(ch.Parts))
	if err := rt.log.WaitDurable(ctx, said); err != nil {
		return false, err
	}
	return true, rt.log.Drop(upTo)
}

// pace returns what holds the copying back, so that others get their share of the disk: not where the log outgrows it.
func (rt *Runtime) pace(ctx context.Context) func(int) {
	owed := time.Duration(0)
	return func(bytes int) {
		owed += time.Duration(float64(bytes) / paceBytes * float64(time.Second))
		if owed < 20*time.Millisecond || rt.logBytes() > 2*rt.cfg.LogBytes {
			return
		}
		_ = rt.sleep(ctx, owed) // the copying ends with ctx itself
		owed = 0
	}
}

// sweep removes the files of the topic store that durable frames have let go.
func (rt *Runtime) sweep() error {
	var g bus.Garbage
	last := wal.LSN(0)
	err := rt.do(func(c *core) error {
		g, last = c.bus.TakeGarbage(), c.log.Last()
		return nil
	})
	if err != nil || g.Empty() {
		return err
	}
	if err := rt.log.WaitDurable(rt.ctx, last); err != nil {
		return err
	}
	return rt.bus.SweepStore(g)
}

// cut writes what the topic store holds from now on, and that the log's generations before first go, of which the oldest
// begins at oldest. It returns the last frame that says so, 0 where nothing changes.
func (c *core) cut(first, oldest wal.LSN, ch bus.StoreChange) (said wal.LSN, err error) {
	for len(ch.Parts) > 0 || first > oldest {
		n := min(len(ch.Parts), storeAtOnce)
		part := bus.StoreChange{Parts: ch.Parts[:n:n]}
		ch.Parts = ch.Parts[n:]
		ctl := &control{}
		if n > 0 {
			ctl.Store = &part
		}
		if len(ch.Parts) == 0 && first > oldest {
			ctl.DropFirst = first
		}
		if said, err = c.change(ctl, nil); err != nil {
			return 0, err
		}
		c.bus.ApplyStore(part)
		if ctl.DropFirst > 0 {
			c.bus.Dropped(first) // at once: nobody begins any more in what goes
			break
		}
	}
	return said, nil
}

// statePin is the first frame that the state of some job still needs.
func (c *core) statePin() wal.LSN {
	pin := wal.LSN(1<<63 - 1)
	for _, j := range c.ledger.Jobs {
		pin = min(pin, j.pin())
	}
	return pin
}
