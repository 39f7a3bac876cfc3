package runtime

import (
	"errors"
	"fmt"
	"io"

	"github.com/sidestream-dev/sidestream/bus"
	"github.com/sidestream-dev/sidestream/checkpoint"
	"github.com/sidestream-dev/sidestream/wal"
)

// framesUpTo is a log that ends at a frame.
type framesUpTo struct {
	frames
	last wal.LSN
}

func (l framesUpTo) Reader(from wal.LSN) (bus.LogReader, error) {
	r, err := l.frames.Reader(from)
	if err != nil {
		return nil, err
	}
	return &readerUpTo{r, l.last}, nil
}

type readerUpTo struct {
	bus.LogReader
	last wal.LSN
}

func (r *readerUpTo) Next() (bus.Frame, error) {
	f, err := r.LogReader.Next()
	if err == nil && f.LSN() > r.last {
		return nil, io.EOF
	}
	return f, err
}

// snapshotIdle writes the state of a job that does not run to a snapshot, so that it needs the log no more: its newest
// snapshot and the epochs behind that say what it is. That one alone is then kept, since what an older one would need of
// the log is to go; so it is read back first.
func (rt *Runtime) snapshotIdle(id uint32) (err error) {
	if !rt.saving.begin(id) {
		return nil // it gets one just now
	}
	defer rt.saving.end(id)
	var j *jobEntry
	err = rt.do(func(c *core) error {
		if e := c.ledger.Jobs[id]; e != nil {
			j = e.clone()
		}
		return nil
	})
	if err != nil || j == nil || j.Epoch == 0 || j.onTrial(rt.now()) { // on probation it announces none
		return err
	}
	defer func() {
		if err == nil {
			return
		}
		if anew, failed := rt.beganAnew(j); anew {
			err = nil // its files have gone meanwhile, and the log need not keep what they were for
		} else if failed != nil {
			err = errors.Join(failed, err) // nobody knows: the process is ending
		}
	}()
	if err := rt.log.WaitDurable(rt.ctx, max(j.LSN, j.changed())); err != nil {
		return err
	}
	n := len(j.Snapshots)
	_, now := j.saved(j.Epoch)
	whole := now && rt.snapshots.read(j.Snapshots[n-1].File, newJobStores(nil, j.Epoch)) == nil
	if !whole { // a damaged one is written again, from the one before it; so is one that a change has left behind
		l := newLedger()
		l.Jobs[id] = j
		state := newJobStores(nil, j.Epoch)
		if err := restoreState(framesUpTo{rt.frames, j.LSN}, l, map[uint32]restorer{id: state}, rt.loadSnapshot); err != nil {
			return err
		}
		logID := rt.log.ID()
		meta := checkpoint.SnapshotMeta{LogID: logID[:], Job: id, Epoch: j.Epoch, LSN: max(j.LSN, j.changed()), Header: j.header}
		file, bytes, err := rt.snapshots.write(meta, state.bodies())
		if err != nil {
			return err
		}
		j.Snapshots = append(j.Snapshots, snapshotEntry{Epoch: j.Epoch, LSN: meta.LSN, File: file, Bytes: bytes})
		n++
	}
	newest := j.Snapshots[n-1]
	if err := rt.snapshots.read(newest.File, newJobStores(nil, j.Epoch)); err != nil {
		return fmt.Errorf("runtime: job %s: the snapshot that was to free the log: %w", j.Name, err)
	}
	said := wal.LSN(0)
	err = rt.do(func(c *core) (err error) {
		e := c.ledger.Jobs[id]
		if e == nil || e.onTrial(rt.now()) || newest.LSN < e.Since || len(e.Snapshots) > 0 && e.Snapshots[len(e.Snapshots)-1].Epoch > newest.Epoch {
			return nil // it runs again and has given a newer one, or began anew
		}
		said, err = c.change(&control{Snapshot: &snapshotChange{Job: id, Snapshot: newest, Alone: true}}, nil)
		return err
	})
	if err != nil || said == 0 {
		return err
	}
	if err := rt.log.WaitDurable(rt.ctx, said); err != nil {
		return err
	}
	return rt.snapshots.keep(id, newest.Epoch)
}

// beganAnew reports whether a job is gone, or was set back, since e was what the log says of it.
func (rt *Runtime) beganAnew(e *jobEntry) (anew bool, err error) {
	err = rt.do(func(c *core) error {
		now := c.ledger.Jobs[e.ID]
		anew = now == nil || now.Since != e.Since
		return nil
	})
	return anew, err
}
