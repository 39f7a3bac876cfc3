package runtime

import (
	"errors"
	"sync"
	"sync/atomic"

	"github.com/sidestream-dev/sidestream/checkpoint"
	"github.com/sidestream-dev/sidestream/wal"
)

// snapshotChunk is about how many bytes a subtask scans between two batches.
const snapshotChunk = 256 << 10

// snapshotRun is a snapshot being taken: what the subtasks have scanned, with the pieces of the epochs sealed meanwhile
// behind it, is the job's state at the last of those epochs.
type snapshotRun struct {
	mu     sync.Mutex
	chunks [][]byte     // bodies of state sections, scanned and not yet written
	left   atomic.Int32 // subtasks that scan

	from []checkpoint.Epoch // by subtask: the last epoch that its scan holds, set when it begins

	// The master's own.
	pieces []handedPiece    // of the epochs sealed since, in their order
	epoch  checkpoint.Epoch // last epoch in pieces
	lsn    wal.LSN
	header checkpoint.Header
}

// handedPiece is what one subtask changed in an epoch.
type handedPiece struct {
	epoch   checkpoint.Epoch
	subtask int
	states  [][]byte
}

// bodies returns the state as of the last epoch: what was scanned, then each subtask's changes since its scan began.
func (r *snapshotRun) bodies() [][]byte {
	out := r.chunks
	for _, p := range r.pieces {
		if p.epoch > r.from[p.subtask] {
			out = append(out, p.states...)
		}
	}
	return out
}

type nodeScan struct {
	step string
	scan *checkpoint.Scan
}

// startSnapshot begins a snapshot of the job, unless one is under way.
func (x *execution) startSnapshot() {
	if x.snap != nil || x.stopping || x.rt.saving.busy(x.job) || x.trial.Load().open(x.rt.now()) {
		return
	}
	r := &snapshotRun{from: make([]checkpoint.Epoch, len(x.subtasks))}
	r.left.Store(int32(len(x.subtasks)))
	x.snap, x.wantSnapshot = r, false
	x.snapping.Store(true)
	x.coord.Changed(x.rt.now(), 0) // it ends with an epoch
	for _, s := range x.subtasks {
		s.snapshot.Store(r)
		s.wake()
	}
}

// stepSnapshot scans a little of the sealed state, between two batches.
func (s *subtask) stepSnapshot(r *snapshotRun) error {
	if s.seen != r {
		s.seen, s.scans = r, nil
		r.from[s.id] = s.sealedTo
		for _, n := range s.nodes {
			if n.store != nil {
				s.scans = append(s.scans, &nodeScan{n.node.ID, n.store.BeginSnapshot()})
			}
		}
	}
	for len(s.scans) > 0 {
		sc := s.scans[0]
		chunk, done := sc.scan.Next(s.ex.rt.snapshotChunk)
		if len(chunk) > 0 {
			r.add(appendStep(sc.step, chunk))
		}
		if done {
			s.scans = s.scans[1:]
			continue
		}
		s.wake() // go on after the next batch, or at once if there is none
		return nil
	}
	s.snapshot.Store(nil)
	if r.left.Add(-1) == 0 {
		s.ex.post(event{kind: eventScanned})
	}
	return nil
}

func (r *snapshotRun) add(body []byte) {
	r.mu.Lock()
	r.chunks = append(r.chunks, body)
	r.mu.Unlock()
}

// snapshotSealed takes a sealed epoch's pieces into the snapshot under way, or begins one that is due.
func (x *execution) snapshotSealed(e event) error {
	n := 0
	for n < len(x.handed) && x.handed[n].epoch <= e.epoch {
		n++
	}
	sealed := x.handed[:n:n]
	x.handed = x.handed[n:]
	if x.snap == nil {
		state := int64(0)
		for _, s := range x.subtasks {
			state += s.stats.stateBytes.Load()
		}
		if x.wantSnapshot || checkpoint.SnapshotDue(x.frames.Load(), state, x.rt.cfg.SnapshotBytes) {
			x.startSnapshot()
		}
		return nil
	}
	x.snap.pieces = append(x.snap.pieces, sealed...)
	if e.header == nil {
		return nil // sealed just before the snapshot began
	}
	x.snap.epoch, x.snap.lsn, x.snap.header = e.epoch, e.lsn, *e.header
	if x.snap.left.Load() == 0 {
		return x.finishSnapshot()
	}
	return nil
}

// finishSnapshot hands a complete snapshot to a goroutine that writes it; it waits for one more epoch if none was sealed
// since it began, since its header must be that of an epoch, and while another one of the job is written.
func (x *execution) finishSnapshot() error {
	r := x.snap
	if r == nil || r.left.Load() != 0 || r.epoch == 0 || !x.rt.saving.begin(x.job) {
		return nil
	}
	x.snap = nil
	x.snapping.Store(false)
	x.frames.Store(0)
	x.rt.spawn(func() {
		defer x.rt.saving.end(x.job)
		if err := x.rt.writeSnapshot(x.job, r); err != nil && !errors.Is(err, wal.ErrClosed) && x.rt.log.Err() == nil {
			x.logger.Error("a snapshot was not written; the log keeps what it would have replaced", "job", x.name, "err", err)
		}
	})
	return nil
}

// savings are the jobs of which a snapshot is being written: one at a time, so that they are announced in their order, and
// that none takes the place of a later one of the same epoch, which has its name.
type savings struct {
	mu   sync.Mutex
	jobs map[uint32]bool
}

// begin reports whether it is the caller's turn; end gives it back.
func (s *savings) begin(job uint32) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.jobs[job] {
		return false
	}
	if s.jobs == nil {
		s.jobs = map[uint32]bool{}
	}
	s.jobs[job] = true
	return true
}

func (s *savings) end(job uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.jobs, job)
}

func (s *savings) busy(job uint32) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.jobs[job]
}

// writeSnapshot writes the file and announces it once the epoch it stands for is durable.
func (rt *Runtime) writeSnapshot(id uint32, r *snapshotRun) error {
	logID := rt.log.ID()
	return rt.saveSnapshot(checkpoint.SnapshotMeta{LogID: logID[:], Job: id, Epoch: r.epoch, LSN: r.lsn, Header: r.header}, r.bodies())
}

// saveSnapshot writes a snapshot, if the log has none yet that is as good, and announces it once what it holds is durable. It
// is the caller's turn in Runtime.saving.
func (rt *Runtime) saveSnapshot(meta checkpoint.SnapshotMeta, bodies [][]byte) error {
	late := false
	err := rt.do(func(c *core) error {
		j := c.ledger.Jobs[meta.Job]
		late = j == nil || meta.LSN < j.Since || j.savedSince(meta)
		return nil
	})
	if err != nil || late {
		return err
	}
	file, bytes, err := rt.snapshots.write(meta, bodies)
	if err != nil {
		return err
	}
	if err := rt.log.WaitDurable(rt.ctx, meta.LSN); err != nil {
		return err
	}
	var lsn wal.LSN
	var oldest checkpoint.Epoch // of those that are announced and kept
	gone, said := false, false
	err = rt.do(func(c *core) (err error) {
		j := c.ledger.Jobs[meta.Job]
		named := false
		if j != nil && len(j.Snapshots) > 0 {
			// Who cuts the log may have written one of a job between two attempts meanwhile. What the log keeps must be two files.
			// One of the same epoch may lack what a change has made of the state since: then this one takes its place.
			newest := j.Snapshots[len(j.Snapshots)-1]
			named = newest.File == file
			said, gone = named && newest.LSN >= meta.LSN, newest.Epoch > meta.Epoch
			if said || gone {
				return nil
			}
		}
		if j == nil || meta.LSN < j.Since || j.onTrial(rt.now()) {
			said, gone = named, !named // the job, or what it was; or there may be a way back to state that this one lacks
			return nil
		}
		lsn, err = c.change(&control{Snapshot: &snapshotChange{Job: meta.Job,
			Snapshot: snapshotEntry{Epoch: meta.Epoch, LSN: meta.LSN, File: file, Bytes: bytes}}}, nil)
		if err == nil {
			oldest = j.Snapshots[0].Epoch
		}
		return err
	})
	if err != nil {
		return err
	}
	switch {
	case gone:
		return rt.snapshots.remove(file)
	case said:
		return nil
	}
	if err := rt.log.WaitDurable(rt.ctx, lsn); err != nil {
		return err
	}
	return rt.snapshots.keep(meta.Job, oldest)
}

// loadSnapshot fills a job's stores from its newest snapshot that is whole and returns its LSN, or 0 if it has none.
func (rt *Runtime) loadSnapshot(j *jobEntry, into restorer) (wal.LSN, error) {
	var damaged error
	for i := len(j.Snapshots) - 1; i >= 0; i-- {
		e := j.Snapshots[i]
		err := rt.snapshots.read(e.File, into)
		if err == nil {
			return e.LSN, nil
		}
		rt.logger.Error("a snapshot cannot be used; the one before it is tried", "job", j.Name, "snapshot", e.File, "err", err)
		damaged = errors.Join(damaged, err)
	}
	return 0, damaged
}
