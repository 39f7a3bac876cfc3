package runtime

import (
	"time"

	"github.com/sidestream-dev/sidestream/bus"
	"github.com/sidestream-dev/sidestream/wal"
)

const janitorEvery = time.Second

// janitor cuts the log behind what nobody needs any more, and looks to whoever makes it too long.
func (rt *Runtime) janitor() {
	defer rt.background.Done()
	tick := time.NewTicker(janitorEvery)
	defer tick.Stop()
	named := ""
	for {
		select {
		case <-tick.C:
		case <-rt.ctx.Done():
			return
		}
		pins, err := rt.cutLog()
		if rt.log.Err() != nil {
			return // it says its last word itself (R7)
		}
		if err != nil {
			rt.logger.Error("the log could not be cut", "err", err)
		}
		bytes := int64(0)
		for _, g := range rt.log.Generations() {
			bytes += g.Bytes
		}
		if bytes <= rt.cfg.LogBytes || len(pins) == 0 {
			named = ""
			continue
		}
		if who := pins[0].Who; who != named {
			named = who
			rt.logger.Warn("the log is longer than it should be", "bytes", bytes, "limit", rt.cfg.LogBytes, "held by", who, "at", pins[0].LSN)
		}
		if err := rt.askSnapshots(); err != nil && rt.log.Err() == nil {
			rt.logger.Error("jobs could not be asked for snapshots", "err", err)
		}
	}
}

// askSnapshots asks every job whose state keeps the oldest generation for a snapshot.
func (rt *Runtime) askSnapshots() error {
	oldest := rt.log.Generations()[0].Last
	asked := map[uint32]bool{}
	err := rt.do(func(c *core) error {
		for id, j := range c.ledger.Jobs {
			asked[id] = j.pin() <= oldest
		}
		return nil
	})
	rt.mu.Lock()
	defer rt.mu.Unlock()
	for _, j := range rt.jobs {
		if x := j.exec.Load(); x != nil && asked[j.id] {
			x.post(event{kind: eventSnapshot})
		}
	}
	return err
}

// cutLog drops the generations behind the oldest frame that somebody still needs. A durable frame says so first.
func (rt *Runtime) cutLog() (pins []bus.Pin, err error) {
	gens := rt.log.Generations()
	if len(gens) < 2 {
		return nil, nil
	}
	first, said := wal.LSN(0), wal.LSN(0)
	err = rt.do(func(c *core) (err error) {
		pins = c.pins()
		first = gens[len(gens)-1].First
		if len(pins) > 0 {
			first = min(first, pins[0].LSN)
		}
		keep := gens[0].First
		for _, g := range gens {
			if g.First <= first {
				keep = g.First
			}
		}
		first = keep
		if first <= gens[0].First {
			return nil
		}
		if said, err = c.change(&control{DropFirst: first}, nil); err == nil {
			c.bus.Dropped(first) // at once: nobody begins any more in what goes
		}
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
