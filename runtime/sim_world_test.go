package runtime

import (
	"context"
	"errors"
	"maps"
	"time"

	"github.com/sidestream-dev/sidestream/wal"
)

// newRuntime makes a Runtime in the simulator's world. What must wait parks its task.
func (s *sim) newRuntime(cfg Config, log *simLog) *Runtime {
	rt := &Runtime{cfg: cfg, logger: cfg.Logger, fatal: make(chan struct{}), durable: make(chan struct{})}
	rt.changes = newChanges(func(ctx context.Context, done <-chan struct{}) error { return rt.await(ctx, done) })
	rt.ctx, rt.cancel = context.WithCancel(context.Background())
	rt.world = world{log: log, frames: log, snapshots: s.snapshots, storeDisk: s.disk, now: func() time.Time { return s.now },
		chunkRecords: s.plan.chunkRecords, snapshotChunk: s.plan.chunkBytes,
		spawn: func(f func()) { s.spawn("snapshot", f) },
		await: func(_ context.Context, done <-chan struct{}) error {
			if !s.parkUntil(func() bool { return isClosed(done) }) {
				return wal.ErrClosed
			}
			return nil
		},
		sleep: func(_ context.Context, d time.Duration) error {
			t, until := s.running, s.now.Add(d)
			t.at = until
			defer func() { t.at = time.Time{} }()
			if !s.parkUntil(func() bool { return !s.now.Before(until) }) {
				return wal.ErrClosed
			}
			if d == drainLook && s.hotAway() { // who waits for an outside that is away waits for long
				s.now = s.now.Add(20 * drainLook)
			}
			return nil
		},
		supervise: s.supervise,
		sending: func(snd *sender) {
			s.spawn("sender of "+snd.job, func() {
				s.send(snd)
				if !isClosed(snd.done) {
					close(snd.done)
				}
			})
		},
		newTimer: func(f func()) timer {
			t := &simTimer{s: s, f: f}
			s.timers = append(s.timers, t)
			return t
		},
		do: func(f func(*core) error) error {
			if !s.parkUntil(nil) || log.dead {
				return wal.ErrClosed
			}
			attempts, last := maps.Clone(rt.committer.core.attempts), log.Last()
			err := f(rt.committer.core)
			if t := s.running; s.lazy && t != nil && t.name == "change" && log.Last() > last {
				s.lazy, s.hasty = false, true
			}
			if t := s.running; s.twin.unfenced && t != nil && t.name == "change" {
				rt.committer.core.attempts = attempts
			}
			if errors.Is(err, errEpochOrder) {
				s.violate("error", "%v", err)
			}
			rt.committer.wake()
			return err
		}}
	return rt
}

// send is a sender's goroutine.
func (s *sim) send(snd *sender) {
	at := snd.entry.Sent
	at.Sub = snd.entry.Sub
	snd.next.Store(uint64(at.Next))
	for {
		woken := false
		s.opening = snd.entry
		w, g, err := snd.open(snd.rt.ctx, &at, func() { woken = true })
		for err == nil && (!snd.quitting() || s.deaf(snd)) {
			changed := snd.rt.durableChanged()
			if s.twin.sendSealed {
				g.durable = s.log.Last
			}
			var n int
			if n, err = snd.sendNext(snd.rt.ctx, w, g, &at); err != nil {
				break
			}
			ok := false
			if n > 0 {
				ok = s.parkUntil(nil)
			} else {
				ok = s.parkUntil(func() bool { return woken || isClosed(changed) || snd.quitting() })
			}
			if woken = false; !ok {
				return
			}
		}
		if g != nil {
			g.reader.Close()
		}
		if errors.Is(err, wal.ErrClosed) || snd.quitting() {
			return
		}
		if !errors.Is(err, errInjected) {
			s.violate("R6", "the sender of %s: %v", snd.job, err)
		}
		t := snd.sink.(*simSink).j.target
		if !s.parkUntil(func() bool { return !t.away || snd.quitting() }) {
			return
		}
	}
}

// deaf lets a sender of a twin say that it has stopped, and go on for a while.
func (s *sim) deaf(snd *sender) bool {
	if s.twin.deafSenders && !isClosed(snd.done) {
		close(snd.done)
		t := snd.sink.(*simSink).j.target
		t.away, t.last = false, s.steps
	}
	return s.twin.deafSenders && s.sendsFirst
}

func isClosed(ch <-chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}
