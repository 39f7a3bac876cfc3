package runtime

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"time"

	"github.com/sidestream-dev/sidestream/bus"
	"github.com/sidestream-dev/sidestream/checkpoint"
	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/wal"
)

// A savepoint is a snapshot with a name, in a file of its own. It outlives its job and pins nothing: a job that begins with it
// goes on from its positions, as far as what lies there still is.

// savepointEntry is what the log says of a savepoint.
type savepointEntry struct {
	Name       string           `json:"name"`
	Job        string           `json:"job"`
	Definition []byte           `json:"definition"`
	Origin     Origin           `json:"origin"`
	Epoch      checkpoint.Epoch `json:"epoch"`
	LSN        wal.LSN          `json:"lsn"`
	Bytes      int64            `json:"bytes"`
	At         int64            `json:"at"` // Unix ms
	Steps      []stepEntry      `json:"steps,omitempty"`
	Inputs     []savedInput     `json:"inputs,omitempty"`
	Unasked    bool             `json:"unasked,omitempty"`
}

// savedInput says which subscription in a savepoint's header was a step's.
type savedInput struct {
	Step  string      `json:"step"`
	Topic string      `json:"topic"`
	ID    bus.TopicID `json:"topic_id"` // one of the same name that was made later is another; see is
	Sub   bus.SubID   `json:"sub"`
}

// input returns the subscription that a step had on a topic; ok is false where it had none, other is true where it had one on
// a topic of that name which has been removed since.
func (e *savepointEntry) input(step, topic string, id bus.TopicID) (in savedInput, ok, other bool) {
	for _, s := range e.Inputs {
		if s.Step == step && s.Topic == topic {
			same := s.is(topic, id)
			return s, same, !same
		}
	}
	return in, false, false
}

// is reports whether the subscription was one on a topic. An entry that was written before topics could be removed has no
// number, and knows it by name.
func (s *savedInput) is(topic string, id bus.TopicID) bool {
	return s.ID == id || s.ID == 0 && s.Topic == topic
}

// SavepointInfo is a savepoint as it is listed.
type SavepointInfo struct {
	Name       string           `json:"name"`
	Job        string           `json:"job"`
	Epoch      checkpoint.Epoch `json:"epoch"`
	LSN        wal.LSN          `json:"lsn"`
	Bytes      int64            `json:"bytes"`
	Time       time.Time        `json:"time"`
	Definition []byte           `json:"definition"`
	Unasked    bool             `json:"unasked,omitempty"` // see RemoveOptions
	Missing    bool             `json:"missing,omitempty"` // its file is not there: nothing can begin with it
}

func (e *savepointEntry) info() SavepointInfo {
	return SavepointInfo{Name: e.Name, Job: e.Job, Epoch: e.Epoch, LSN: e.LSN, Bytes: e.Bytes, Time: time.UnixMilli(e.At), Definition: e.Definition, Unasked: e.Unasked}
}

var (
	// ErrNoSavepoint is the error of a savepoint that is not there.
	ErrNoSavepoint = errors.New("there is no such savepoint")
	// ErrSavepointExists refuses a second savepoint of a name.
	ErrSavepointExists = errors.New("there is one of that name already; choose another, or delete that one first")
)

// Savepoints returns what savepoints there are, by name.
func (rt *Runtime) Savepoints() (infos []SavepointInfo, err error) {
	err = rt.do(func(c *core) error {
		for _, name := range slices.Sorted(maps.Keys(c.ledger.Savepoints)) {
			infos = append(infos, c.ledger.Savepoints[name].info())
		}
		return nil
	})
	for i := range infos {
		_, err := rt.snapshots.savedHeader(infos[i].Name)
		infos[i].Missing = errors.Is(err, fs.ErrNotExist)
	}
	return infos, err
}

// Savepoint keeps the state and positions of a job as of an epoch that is sealed once it is asked for, under a name; "" makes
// one of the job's name and the time. It returns when that is durable; the job runs on meanwhile.
func (rt *Runtime) Savepoint(ctx context.Context, job, name string) (SavepointInfo, error) {
	ctx, leave, err := rt.changes.enter(ctx, "savepoint", append(savepointNamed(name), job)...)
	if err != nil {
		return SavepointInfo{}, err
	}
	defer leave()
	e, err := rt.entry(job)
	if err != nil {
		return SavepointInfo{}, err
	}
	sp, err := rt.newSavepoint(e, name)
	if err != nil {
		return SavepointInfo{}, err
	}
	snap, e, err := rt.snapshotNow(ctx, e)
	if err != nil {
		return SavepointInfo{}, fmt.Errorf("job %s: the savepoint was not made: %w", job, err)
	}
	if err := rt.keepAs(sp, e, snap); err != nil {
		return SavepointInfo{}, fmt.Errorf("job %s: the savepoint was not made: %w", job, err)
	}
	var lsn wal.LSN
	err = rt.do(func(c *core) (err error) {
		lsn, err = c.change(&control{Savepoint: sp}, nil)
		return err
	})
	if err != nil {
		return SavepointInfo{}, errors.Join(err, rt.snapshots.dropSavepoint(sp.Name))
	}
	if err := rt.log.WaitDurable(rt.ctx, lsn); err != nil {
		return SavepointInfo{}, err
	}
	rt.tell(Event{Kind: EventSavepoint, Job: job, Text: sp.Name})
	return sp.info(), nil
}

// savepointNamed is what one who makes, deletes or begins with a savepoint has to himself meanwhile, beside the job; no job is
// called so.
func savepointNamed(name string) []string {
	if name == "" {
		return nil // its name will have the job's in it
	}
	return []string{savepointPrefix + name}
}

const savepointPrefix = "savepoint "

// newSavepoint names a savepoint of a job.
func (rt *Runtime) newSavepoint(e *jobEntry, name string) (*savepointEntry, error) {
	if name == "" {
		name = fmt.Sprintf("%.100s-%s", e.Name, rt.now().UTC().Format("20060102T150405.000"))
	}
	switch {
	case e.Phase == PhaseEnded:
		return nil, &PhaseError{Job: e.Name, Operation: "be saved", Phase: e.Phase}
	case e.onTrial(rt.now()):
		return nil, fmt.Errorf("job %s was changed a moment ago, and may be changed back until %s: save it then", e.Name,
			time.UnixMilli(e.Prev.Until).Format(time.TimeOnly))
	}
	if err := jobs.CheckName(name); err != nil {
		return nil, fmt.Errorf("savepoint: %w", err)
	}
	err := rt.do(func(c *core) error {
		if c.ledger.Savepoints[name] != nil {
			return fmt.Errorf("savepoint %s: %w", name, ErrSavepointExists)
		}
		return nil
	})
	return &savepointEntry{Name: name, Job: e.Name}, err
}

// keepAs makes a snapshot of a job a savepoint's file.
func (rt *Runtime) keepAs(sp *savepointEntry, e *jobEntry, snap snapshotEntry) error {
	sp.Definition, sp.Origin, sp.Steps = e.Definition, e.Origin, e.Steps
	sp.Epoch, sp.LSN, sp.Bytes, sp.At = snap.Epoch, snap.LSN, snap.Bytes, rt.now().UnixMilli()
	for _, in := range e.Inputs {
		sp.Inputs = append(sp.Inputs, savedInput{in.Step, rt.bus.Spec(in.Topic).Name, in.Topic, in.Sub})
	}
	return rt.snapshots.saveAs(snap.File, sp.Name)
}

// snapshotNow returns a snapshot of a job that holds at least what was sealed before, and the job's entry with it.
func (rt *Runtime) snapshotNow(ctx context.Context, e *jobEntry) (snapshotEntry, *jobEntry, error) {
	first := max(e.Epoch, 1)
	for look := 0; ; look++ {
		j := rt.findJob(e.Name)
		rests := e.Phase != PhaseActive || j == nil || j.over() // such as one whose old definition is to come back, and waits for us
		if rests {
			first = e.Epoch // there will be no other
		}
		if s, ok := e.saved(first); ok {
			return s, e, nil
		}
		if rests {
			if err := rt.snapshotAtRest(j, e); err != nil {
				return snapshotEntry{}, nil, err
			}
		} else if x := j.exec.Load(); x != nil && look%10 == 0 {
			x.post(event{kind: eventSnapshot})
		}
		if err := rt.sleep(ctx, drainLook); err != nil {
			return snapshotEntry{}, nil, err
		}
		now, err := rt.entry(e.Name)
		if err != nil {
			return snapshotEntry{}, nil, err
		}
		if e = now; e.Phase == PhaseEnded {
			return snapshotEntry{}, nil, &PhaseError{Job: e.Name, Operation: "be saved", Phase: e.Phase}
		}
	}
}

// snapshotAtRest writes a snapshot of a job that has no attempt under way, and of which nobody else can begin one. The fence
// comes first: what a failed attempt has handed over may yet be sealed, and the stores keep of it what is sealed by now.
func (rt *Runtime) snapshotAtRest(j *job, e *jobEntry) (err error) {
	for !rt.saving.begin(e.ID) { // who cuts the log may be at it
		if err := rt.sleep(rt.ctx, drainLook); err != nil {
			return err
		}
	}
	defer rt.saving.end(e.ID)
	err = rt.do(func(c *core) error {
		_, _, err := c.fence(e.ID)
		if err == nil {
			e = c.ledger.Jobs[e.ID].clone()
		}
		return err
	})
	if err != nil {
		return err
	}
	var stores *jobStores
	if j != nil && j.stores != nil {
		stores = j.stores
		stores.handOver(e.Epoch)
	} else if stores, err = rt.restoreStores(nil, e); err != nil {
		return err
	}
	logID := rt.log.ID()
	meta := checkpoint.SnapshotMeta{LogID: logID[:], Job: e.ID, Epoch: e.Epoch, LSN: max(e.LSN, e.changed()), Header: e.header}
	// The file may take the place of one of the same epoch, from before a change, which a crash would need that loses the change.
	if err := rt.log.WaitDurable(rt.ctx, meta.LSN); err != nil {
		return err
	}
	return rt.saveSnapshot(meta, stores.bodies())
}

// DeleteSavepoint removes a savepoint. Jobs that began with it have what they need of it.
func (rt *Runtime) DeleteSavepoint(ctx context.Context, name string) error {
	_, leave, err := rt.changes.enter(ctx, "delete savepoint", savepointNamed(name)...)
	if err != nil {
		return err
	}
	defer leave()
	var lsn wal.LSN
	err = rt.do(func(c *core) (err error) {
		if c.ledger.Savepoints[name] == nil {
			return missing("savepoint", name, ErrNoSavepoint)
		}
		lsn, err = c.change(&control{DropSavepoint: name}, nil)
		return err
	})
	if err != nil {
		return err
	}
	if err := rt.log.WaitDurable(rt.ctx, lsn); err != nil {
		return err
	}
	return rt.snapshots.dropSavepoint(name)
}

// savepoint returns a savepoint with what its file says of positions.
func (rt *Runtime) savepoint(name string) (*savepointEntry, checkpoint.Header, error) {
	var sp *savepointEntry
	err := rt.do(func(c *core) error {
		if sp = c.ledger.Savepoints[name]; sp == nil {
			return missing("savepoint", name, ErrNoSavepoint)
		}
		return nil
	})
	if err != nil {
		return nil, checkpoint.Header{}, err
	}
	if err := rt.snapshots.checkSaved(name); err != nil {
		return nil, checkpoint.Header{}, &BadSavepointError{Name: name, Err: err}
	}
	h, err := rt.snapshots.savedHeader(name)
	return sp, h, err
}

// BadSavepointError is the error of a savepoint whose file is damaged or gone: nothing begins with it.
type BadSavepointError struct {
	Name string
	Err  error // a *checkpoint.SnapshotError where the file is there
}

func (e *BadSavepointError) Error() string {
	return fmt.Sprintf("savepoint %s cannot be read; nothing was changed: %v; name another, or begin without one", e.Name, e.Err)
}

func (e *BadSavepointError) Unwrap() error { return e.Err }

// from adds a job that begins with a savepoint's state and positions, in a snapshot of its own, of which a copy is staged.
func (r *registration) from(d *definition, sp *savepointEntry, h checkpoint.Header, staged string, files snapshotFiles) (file string, err error) {
	jc := jobChange{ID: r.id(), Name: d.Name, Definition: d.text, Origin: d.origin, At: r.now, Phase: PhaseActive, Replace: true, Steps: d.steps}
	_, jc.Drops, _ = lossOf(sp.Steps, d.steps)
	if err := r.savedInputs(d, sp, &h, &jc); err != nil {
		return "", err
	}
	if err := r.outputs(d, nil, &jc); err != nil {
		return "", err
	}
	h.Subs, h.Parts, h.Ended = nil, nil, false
	h.Extra = maps.Clone(h.Extra)
	delete(h.Extra, extraReplay) // its ends are of subscriptions that this job does not have
	h.Splits = slices.DeleteFunc(slices.Clone(h.Splits), func(s checkpoint.SplitState) bool {
		n := d.Node(s.Step)
		return n == nil || !outside(n)
	})
	if file, err = files.beginWith(staged, jc.ID, 0); err != nil {
		return "", err
	}
	jc.Base = &baseEntry{Snapshot: snapshotEntry{File: file, Bytes: sp.Bytes}, Header: checkpoint.AppendHeader(nil, h), Savepoint: sp.Name}
	r.change.Jobs = append(r.change.Jobs, jc)
	return file, nil
}

// savedInputs begins the subscriptions where the savepoint stood; those that it does not know where the definition says.
func (r *registration) savedInputs(d *definition, sp *savepointEntry, h *checkpoint.Header, jc *jobChange) error {
	if err := r.inputs(d, nil, jc); err != nil {
		return err
	}
	for i := range jc.Inputs {
		in := &jc.Inputs[i]
		saved, ok, other := sp.input(in.Step, d.Node(in.Step).Source.Topic, in.Topic)
		if other {
			return fmt.Errorf("job %s: step %s: the savepoint %s stands in topic %s as it was before that was removed, and what has its name now is another; "+
				"begin without the savepoint", d.Name, in.Step, sp.Name, saved.Topic)
		}
		if !ok {
			continue
		}
		for _, s := range h.Subs {
			if s.Sub != uint32(saved.Sub) {
				continue
			}
			was, err := bus.DecodeSubState(s.State)
			if err != nil {
				return err
			}
			now, err := r.core.bus.Browse(in.Topic, was.Partition, bus.Start{At: was.Next})
			if err != nil {
				return fmt.Errorf("job %s: step %s: the savepoint %s stands where the topic is no more: %w; or begin without the savepoint", d.Name, in.Step, sp.Name, err)
			}
			now.Watermark, now.Idle = max(now.Watermark, was.Watermark), was.Idle
			at := slices.IndexFunc(in.States, func(st bus.SubState) bool { return st.Partition == was.Partition })
			in.States[at] = now
		}
	}
	return nil
}
