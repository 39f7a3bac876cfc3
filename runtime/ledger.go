package runtime

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/sidestream-dev/sidestream/bus"
	"github.com/sidestream-dev/sidestream/checkpoint"
	"github.com/sidestream-dev/sidestream/wal"
)

// ledger is what the log says of the runtime up to an LSN: which jobs there are, where each stands, what was sent. The
// committer folds every frame into it as it writes it, recovery as it reads it, and a catalog is its encoding, so that the
// three cannot disagree. It is owned by one goroutine.
type ledger struct {
	NextID     uint32                     `json:"next_id"` // for jobs, topics and subscriptions; never used twice
	Jobs       map[uint32]*jobEntry       `json:"jobs"`
	First      wal.LSN                    `json:"first"` // first generation in use
	Savepoints map[string]*savepointEntry `json:"savepoints,omitempty"`
}

// jobEntry is what the log says of one job.
type jobEntry struct {
	ID         uint32            `json:"id"`
	Name       string            `json:"name"`
	Definition []byte            `json:"definition"`
	Origin     Origin            `json:"origin"`
	Changed    int64             `json:"changed,omitempty"` // when its definition was last changed, in Unix ms
	Change     wal.LSN           `json:"change,omitempty"`  // the frame that last changed it or its owner
	Phase      JobPhase          `json:"phase"`
	Reason     string            `json:"reason,omitempty"`
	Program    string            `json:"program,omitempty"` // that it failed for good under
	Since      wal.LSN           `json:"since"`             // the frame that added it, or made it begin again
	From       wal.LSN           `json:"from,omitempty"`    // first frame of its first epoch
	Moved      wal.LSN           `json:"moved,omitempty"`   // the last frame that changed its places beside its epochs
	Attempt    uint32            `json:"attempt"`
	Epoch      checkpoint.Epoch  `json:"epoch"` // last sealed
	LSN        wal.LSN           `json:"lsn"`   // of that epoch
	Inputs     []inputEntry      `json:"inputs,omitempty"`
	Past       []pastEntry       `json:"past,omitempty"`      // what it has read before with other inputs, oldest first
	PastGone   bool              `json:"past_gone,omitempty"` // that there was more
	Outputs    []outputEntry     `json:"outputs,omitempty"`
	Steps      []stepEntry       `json:"steps,omitempty"`       // those that keep state
	Drops      []dropEntry       `json:"drops,omitempty"`       // by their place in the log; those before the oldest snapshot are done
	Prev       *prevEntry        `json:"prev,omitempty"`        // while the definition is on probation
	Snapshots  []snapshotEntry   `json:"snapshots,omitempty"`   // oldest first, at most two
	HeaderBin  []byte            `json:"header,omitempty"`      // header, encoded, in a catalog
	FrameBytes int64             `json:"frame_bytes,omitempty"` // of its epochs since the newest snapshot
	header     checkpoint.Header // positions and watermarks as of Epoch
}

// prevEntry is what a job was before its definition was changed, and what it gave up then: kept until the new one has proved
// itself, or brought back. Until its time is over the job announces no snapshot, so that state that was dropped can come back.
type prevEntry struct {
	Definition []byte                  `json:"definition"`
	Origin     Origin                  `json:"origin"`
	Changed    int64                   `json:"changed"`
	Phase      JobPhase                `json:"phase"`
	Reason     string                  `json:"reason,omitempty"`
	Program    string                  `json:"program,omitempty"`
	Inputs     []inputEntry            `json:"inputs,omitempty"`
	Outputs    []outputEntry           `json:"outputs,omitempty"`
	Steps      []stepEntry             `json:"steps,omitempty"`
	Drops      []dropEntry             `json:"drops,omitempty"`
	Splits     []checkpoint.SplitState `json:"splits,omitempty"` // given up
	Until      int64                   `json:"until"`            // Unix ms
	At         int64                   `json:"at,omitempty"`     // when it was changed, in Unix ms
}

func newLedger() *ledger {
	return &ledger{NextID: 1, Jobs: map[uint32]*jobEntry{}, Savepoints: map[string]*savepointEntry{}}
}

// clone returns a copy that another goroutine may keep.
func (j *jobEntry) clone() *jobEntry {
	c := *j
	c.header = cloneHeader(j.header)
	c.Drops = slices.Clone(j.Drops)
	if j.Prev != nil {
		p := *j.Prev
		p.Outputs = slices.Clone(p.Outputs)
		c.Prev = &p
	}
	c.Past, c.Inputs, c.Outputs, c.Steps, c.Snapshots = slices.Clone(j.Past), slices.Clone(j.Inputs), slices.Clone(j.Outputs), slices.Clone(j.Steps), slices.Clone(j.Snapshots)
	return &c
}

// outputs returns those of the job, and those that its last change gave up and the log still keeps.
func (j *jobEntry) outputs() []outputEntry {
	out := slices.Clone(j.Outputs)
	if j.Prev != nil {
		for _, o := range j.Prev.Outputs {
			if o.Outside && j.gaveUp(o.Sub) {
				out = append(out, o)
			}
		}
	}
	return out
}

// onTrial reports whether what the job was before may come back. Prev may stay longer, while what it gave up is yet to be sent.
func (j *jobEntry) onTrial(now time.Time) bool {
	return j.Prev != nil && now.UnixMilli() < j.Prev.Until
}

// saved returns the newest snapshot, if it is of first or a later epoch and has what changes of the job made of its state.
func (j *jobEntry) saved(first checkpoint.Epoch) (s snapshotEntry, ok bool) {
	if n := len(j.Snapshots); n > 0 {
		s = j.Snapshots[n-1]
	}
	return s, len(j.Snapshots) > 0 && s.Epoch >= first && s.LSN >= j.changed()
}

// copies reports whether a subscription is that of a job which copies a range of its topic.
func (l *ledger) copies(sub bus.SubID) bool {
	for _, j := range l.Jobs {
		if slices.ContainsFunc(j.Inputs, func(in inputEntry) bool { return in.Sub == sub }) {
			mark, err := replaying(&j.header)
			return err == nil && mark != nil && mark.Copy
		}
	}
	return false
}

// savedSince reports whether the log has a snapshot already that holds what meta's does.
func (j *jobEntry) savedSince(meta checkpoint.SnapshotMeta) bool {
	if len(j.Snapshots) == 0 {
		return false
	}
	s := j.Snapshots[len(j.Snapshots)-1]
	return s.Epoch > meta.Epoch || s.Epoch == meta.Epoch && s.LSN >= meta.LSN
}

// changed is the last frame that changed the job's state or places beside its epochs: a snapshot from before says something else.
func (j *jobEntry) changed() wal.LSN {
	lsn := max(j.Since, j.Moved)
	for _, d := range j.Drops {
		lsn = max(lsn, d.LSN)
	}
	return lsn
}

// pin returns the first LSN that the job still needs, counted from the older of the two snapshots that are kept.
func (j *jobEntry) pin() wal.LSN {
	if j.Phase == PhaseEnded || j.Epoch == 0 {
		return wal.LSN(1<<63 - 1)
	}
	if len(j.Snapshots) > 0 {
		return j.Snapshots[0].LSN + 1
	}
	return max(j.Since, j.From)
}

// job returns the job with a name, or nil.
func (l *ledger) job(name string) *jobEntry {
	for _, j := range l.Jobs {
		if j.Name == name {
			return j
		}
	}
	return nil
}

// sorted returns the jobs by id.
func (l *ledger) sorted() []*jobEntry {
	out := make([]*jobEntry, 0, len(l.Jobs))
	for _, id := range slices.Sorted(maps.Keys(l.Jobs)) {
		out = append(out, l.Jobs[id])
	}
	return out
}

// eachOutput calls f for every output whose sender has a subscription: of the job as it is, and as it was before.
func (l *ledger) eachOutput(sub bus.SubID, f func(*outputEntry)) {
	for _, j := range l.Jobs {
		outs := [][]outputEntry{j.Outputs}
		if j.Prev != nil {
			outs = append(outs, j.Prev.Outputs)
		}
		for _, list := range outs {
			for i := range list {
				if list[i].Outside && list[i].Sub == sub {
					f(&list[i])
				}
			}
		}
	}
}

// applyEpoch folds the last frame of an epoch.
func (l *ledger) applyEpoch(lsn wal.LSN, h checkpoint.Header, bytes int64) error {
	j := l.Jobs[h.Job]
	if j == nil {
		return fmt.Errorf("runtime: frame %s is an epoch of job %d, which the log does not know", lsn, h.Job)
	}
	if h.Epoch != j.Epoch+1 {
		return fmt.Errorf("runtime: frame %s is epoch %s of job %s, which stands at epoch %s", lsn, h.Epoch, j.Name, j.Epoch)
	}
	if j.From == 0 {
		j.From = lsn
		if len(h.Parts) > 0 {
			j.From = h.Parts[0]
		}
	}
	if err := j.endReplay(lsn, &h); err != nil {
		return err
	}
	checkpoint.Merge(&j.header, h)
	j.Attempt, j.Epoch, j.LSN = max(j.Attempt, h.Attempt), h.Epoch, lsn
	j.FrameBytes += bytes
	if h.Ended {
		j.Phase = PhaseEnded
	}
	return nil
}

// applyControl folds a change. The bus's part of it is applied by applyBus.
func (l *ledger) applyControl(lsn wal.LSN, c *control) error {
	for _, t := range c.Topics {
		l.used(uint32(t.ID))
	}
	for _, jc := range c.Jobs {
		if err := l.applyJob(lsn, jc); err != nil {
			return err
		}
	}
	for _, s := range c.Sent {
		l.eachOutput(s.Sub, func(o *outputEntry) { o.Sent = s })
	}
	if s := c.Snapshot; s != nil {
		j := l.Jobs[s.Job]
		if j == nil {
			return fmt.Errorf("runtime: frame %s announces a snapshot of job %d, which the log does not know", lsn, s.Job)
		}
		if n := len(j.Snapshots); n > 0 && j.Snapshots[n-1].File == s.Snapshot.File {
			j.Snapshots = slices.Clone(j.Snapshots[:n-1]) // it was written again
		}
		j.Snapshots = append(j.Snapshots, s.Snapshot)
		j.FrameBytes = 0
		keep := keptSnapshots
		if s.Alone {
			keep = 1
		}
		if n := len(j.Snapshots); n > keep {
			j.Snapshots = slices.Clone(j.Snapshots[n-keep:])
			oldest := j.Snapshots[0].LSN
			j.Drops = slices.DeleteFunc(slices.Clone(j.Drops), func(d dropEntry) bool { return d.LSN < oldest })
		}
	}
	if c.Savepoint != nil {
		l.Savepoints[c.Savepoint.Name] = c.Savepoint
	}
	delete(l.Savepoints, c.DropSavepoint)
	l.First = max(l.First, c.DropFirst)
	return nil
}

func (l *ledger) applyJob(lsn wal.LSN, c jobChange) error {
	l.used(c.ID)
	if c.Remove {
		delete(l.Jobs, c.ID)
		return nil
	}
	j := l.Jobs[c.ID]
	if j == nil {
		j = &jobEntry{ID: c.ID, Since: lsn}
		l.Jobs[c.ID] = j
	}
	was := j.reading(lsn)
	switch {
	case c.RollBack:
		j.rollBack(lsn, c)
		j.endStretches(was)
		return nil
	case c.Settle:
		j.Prev = nil
		j.forgetSubs()
		return nil
	case c.Replace:
		j.Prev = j.previous(c)
	}
	if c.Name != "" && (c.At != j.Changed || c.Origin != j.Origin || !bytes.Equal(c.Definition, j.Definition)) {
		j.Change = lsn
	}
	if c.Name != "" {
		j.Name, j.Definition, j.Origin, j.Changed = c.Name, c.Definition, c.Origin, c.At
	}
	if c.Phase != "" {
		j.Phase, j.Reason, j.Program = c.Phase, c.Reason, c.Program
	}
	if c.Restart {
		j.header, j.Snapshots, j.Drops, j.FrameBytes, j.Since = checkpoint.Header{}, nil, nil, 0, lsn
	}
	if b := c.Base; b != nil {
		h, err := checkpoint.DecodeHeader(b.Header)
		if err != nil {
			return fmt.Errorf("runtime: frame %s: what job %s begins with: %w", lsn, j.Name, err)
		}
		j.header = h
		b.Snapshot.LSN = lsn - 1 // what the change drops of it is dropped behind it
		j.Snapshots = []snapshotEntry{b.Snapshot}
		j.Epoch = max(j.Epoch, b.Snapshot.Epoch)
	}
	if c.Replace {
		if err := l.replace(lsn, j, c); err != nil {
			return err
		}
		j.endStretches(was)
	}
	if c.Replay != nil {
		extra := maps.Clone(j.header.Extra)
		if extra == nil {
			extra = map[string][]byte{}
		}
		extra[extraReplay] = c.Replay
		j.header.Extra = extra
	}
	return nil
}

// replace gives a job other inputs, outputs and steps.
func (l *ledger) replace(lsn wal.LSN, j *jobEntry, c jobChange) error {
	same := slices.EqualFunc(j.Inputs, c.Inputs, func(a, b inputEntry) bool { return a.Sub == b.Sub })
	if !same || len(c.Forget) > 0 {
		j.Moved = lsn
	}
	j.Inputs, j.Outputs, j.Steps = slices.Clone(c.Inputs), c.Outputs, c.Steps
	for i := range j.Inputs {
		in := &j.Inputs[i]
		if in.At == 0 {
			if err := j.stretchBegins(lsn, in, c); err != nil {
				return err
			}
		}
		l.used(uint32(in.Sub))
		for _, s := range in.States {
			upsertSub(&j.header, in.Sub, s)
		}
	}
	for _, o := range c.Outputs {
		l.used(uint32(o.Topic))
		l.used(uint32(o.Sub))
	}
	j.drop(lsn, c.Drops)
	j.header.Splits = slices.DeleteFunc(slices.Clone(j.header.Splits), func(s checkpoint.SplitState) bool {
		return slices.Contains(c.Forget, splitEntry{s.Step, s.Split})
	})
	j.forgetSubs()
	return j.forgetReplay()
}

// forgetReplay takes the ends of subscriptions that the job no longer has out of the replay it is at; without any it is over.
func (j *jobEntry) forgetReplay() error {
	mark, err := replaying(&j.header)
	if err != nil || mark == nil {
		return err
	}
	subs := j.claims().subs
	left := slices.DeleteFunc(slices.Clone(mark.Ends), func(e replayEnd) bool { return !subs[e.Sub] })
	if len(left) == len(mark.Ends) {
		return nil
	}
	j.header.Extra = maps.Clone(j.header.Extra)
	if len(left) == 0 {
		delete(j.header.Extra, extraReplay)
		return nil
	}
	mark.Ends = left
	j.header.Extra[extraReplay], err = json.Marshal(mark)
	return err
}

// drop notes state that goes at a place in the log.
func (j *jobEntry) drop(lsn wal.LSN, drops []dropEntry) {
	for _, d := range drops {
		d.LSN = lsn
		j.Drops = append(slices.Clone(j.Drops), d)
	}
}

// previous is what a change keeps of a job that has a definition.
func (j *jobEntry) previous(c jobChange) *prevEntry {
	if c.Until == 0 || j.Definition == nil {
		return nil
	}
	p := &prevEntry{Definition: j.Definition, Origin: j.Origin, Changed: j.Changed, Phase: j.Phase, Reason: j.Reason, Program: j.Program, Inputs: j.Inputs,
		Outputs: j.Outputs, Steps: j.Steps, Drops: j.Drops, Until: c.Until, At: c.At}
	for _, s := range j.header.Splits {
		if slices.Contains(c.Forget, splitEntry{s.Step, s.Split}) {
			p.Splits = append(p.Splits, s)
		}
	}
	return p
}

// rollBack brings back what the job was. What both definitions have stands where the new one has come; what the new one had
// given up stands where it was, and what it had alone goes.
func (j *jobEntry) rollBack(lsn wal.LSN, c jobChange) {
	p := j.Prev
	if p == nil {
		return
	}
	j.Prev, j.Change = nil, lsn
	j.Definition, j.Origin, j.Changed, j.Phase, j.Reason, j.Program = p.Definition, p.Origin, p.Changed, c.Phase, c.Reason, p.Program
	j.bringBack(p.Inputs, lsn)
	j.Outputs, j.Steps, j.Drops, j.Moved = p.Outputs, p.Steps, p.Drops, lsn
	j.drop(lsn, c.Drops)
	for _, s := range p.Splits {
		if !slices.ContainsFunc(j.header.Splits, func(h checkpoint.SplitState) bool { return h.Step == s.Step && h.Split == s.Split }) {
			checkpoint.Merge(&j.header, checkpoint.Header{Splits: []checkpoint.SplitState{s}})
		}
	}
	j.forgetSubs()
}

// forgetSubs takes the places of subscriptions out of the header that the job no longer has.
func (j *jobEntry) forgetSubs() {
	subs := j.claims().subs
	j.header.Subs = slices.DeleteFunc(slices.Clone(j.header.Subs), func(s checkpoint.SubPosition) bool {
		_, has := subs[bus.SubID(s.Sub)]
		return !has
	})
}

// upsertSub sets a subscription's place in a header unless the header has one already.
func upsertSub(h *checkpoint.Header, sub bus.SubID, s bus.SubState) {
	for _, have := range h.Subs {
		if have.Sub == uint32(sub) && have.Partition == s.Partition {
			return
		}
	}
	checkpoint.Merge(h, checkpoint.Header{Subs: []checkpoint.SubPosition{{Sub: uint32(sub), Partition: s.Partition, State: bus.AppendSubState(nil, s)}}})
}

// claims are what jobs hold of the bus: subscriptions, their senders' too, and the topics of outputs to the outside.
type claims struct {
	subs   map[bus.SubID]bool
	topics map[bus.TopicID]bool
}

func (j *jobEntry) claims() claims {
	c := claims{map[bus.SubID]bool{}, map[bus.TopicID]bool{}}
	c.add(j)
	return c
}

func (c claims) add(j *jobEntry) {
	ins, outs := j.Inputs, j.Outputs
	if j.Prev != nil {
		ins, outs = slices.Concat(ins, j.Prev.Inputs), slices.Concat(outs, j.Prev.Outputs)
	}
	for _, in := range ins {
		c.subs[in.Sub] = true
	}
	for _, o := range outs {
		if o.Outside {
			c.subs[o.Sub], c.topics[o.Topic] = true, true
		}
	}
}

// claimsOf returns what the jobs that a change names hold.
func (l *ledger) claimsOf(c *control) claims {
	all := claims{map[bus.SubID]bool{}, map[bus.TopicID]bool{}}
	for _, jc := range c.Jobs {
		if j := l.Jobs[jc.ID]; j != nil {
			all.add(j)
		}
	}
	return all
}

func (l *ledger) used(id uint32) { l.NextID = max(l.NextID, id+1) }

// encode returns the ledger's part of a catalog.
func (l *ledger) encode() (wal.Section, error) {
	for _, j := range l.Jobs {
		j.HeaderBin = checkpoint.AppendHeader(nil, j.header)
	}
	b, err := json.Marshal(l)
	for _, j := range l.Jobs {
		j.HeaderBin = nil
	}
	return wal.Section{Kind: sectionLedger, Body: b}, err
}

func decodeLedger(body []byte) (*ledger, error) {
	l := newLedger()
	if err := json.Unmarshal(body, l); err != nil {
		return nil, fmt.Errorf("runtime: the catalog's ledger: %w", err)
	}
	if l.Savepoints == nil {
		l.Savepoints = map[string]*savepointEntry{}
	}
	for name, sp := range l.Savepoints {
		if sp == nil {
			return nil, fmt.Errorf("runtime: the catalog's ledger: savepoint %q is null", name)
		}
	}
	for id, j := range l.Jobs {
		if j == nil {
			return nil, fmt.Errorf("runtime: the catalog's ledger: job %d is null", id)
		}
		if len(j.HeaderBin) > 0 {
			h, err := checkpoint.DecodeHeader(j.HeaderBin)
			if err != nil {
				return nil, fmt.Errorf("runtime: the catalog's header of job %s: %w", j.Name, err)
			}
			j.header, j.HeaderBin = h, nil
		}
	}
	return l, nil
}
