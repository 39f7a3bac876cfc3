package runtime

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"slices"
	"time"

	"github.com/sidestream-dev/sidestream/bus"
	"github.com/sidestream-dev/sidestream/checkpoint"
	"github.com/sidestream-dev/sidestream/wal"
)

const (
	// newIDRise is how far every counter goes up where a copy of the directory was put back: what the lost original wrote
	// since nobody can say.
	newIDRise = 1 << 44
	idsRise   = 1 << 20 // of ids, of which there are fewer
	idBytes   = 16      // a change that uses an id takes more
)

// ErrStateLoss refuses a repair.
var ErrStateLoss = errors.New("the state of jobs would be lost, which begin anew then; --allow-state-loss accepts that")

// Repair is a data directory that is held for repair. Nothing is changed before Write.
type Repair struct {
	dir string
	wal *wal.Repair
}

// RepairOptions is what a person decides.
type RepairOptions struct {
	From           wal.LSN // the first frame that is kept; 0 takes the best
	NewID          bool    // a new id although nothing is damaged, for a copy that was put back
	AllowStateLoss bool    // jobs whose state cannot be had any more begin anew
}

// RepairPlan says what a repair does, for people and programs.
type RepairPlan struct {
	Damage  []string     `json:"damage"`
	Nothing bool         `json:"nothing"` // there is nothing to repair
	Keep    *RepairKeep  `json:"keep,omitempty"`
	Others  []RepairKeep `json:"others,omitempty"` // what could be kept instead, by From
	NewID   bool         `json:"new_id"`

	options RepairOptions
	kept    *keptLog
}

// RepairKeep is a stretch of the log and what it costs to go on from it alone.
type RepairKeep struct {
	First   wal.LSN        `json:"first"` // 0: nothing is kept
	Last    wal.LSN        `json:"last"`
	Removed []RemovedPart  `json:"removed"`
	Jobs    []RemovedJob   `json:"jobs,omitempty"`
	Topics  []RemovedTopic `json:"topics,omitempty"`
	Outputs []RemovedSent  `json:"outputs,omitempty"`
	Unread  []LostUnread   `json:"unread,omitempty"`
	Store   []LostStored   `json:"store,omitempty"`
	Aside   []string       `json:"aside,omitempty"` // files of the topic store and savepoints that the log then does not know: they are kept aside
	Frees   bool           `json:"frees"`           // nothing that a job, a subscription or a sender still needs is lost
	Refused string         `json:"refused,omitempty"`
}

// RemovedPart is a stretch of the log that goes.
type RemovedPart struct {
	First  wal.LSN `json:"first"`
	Last   wal.LSN `json:"last"`
	Frames int     `json:"frames"` // whole ones
	Lost   int     `json:"lost"`   // damaged, or not there
	Bytes  int64   `json:"bytes"`
}

// RemovedJob is what a repair does to a job.
type RemovedJob struct {
	Name      string           `json:"name"`
	Epoch     checkpoint.Epoch `json:"epoch"`          // that it goes back to
	Was       checkpoint.Epoch `json:"was,omitempty"`  // the last one that the whole frames tell of
	StateLost bool             `json:"state_lost"`     // it begins anew
	Gone      bool             `json:"gone,omitempty"` // it was added by what is removed
}

// RemovedTopic is what a topic loses.
type RemovedTopic struct {
	Name      string     `json:"name"`
	Partition int        `json:"partition"`
	From      bus.Offset `json:"from"` // records From up to, without, To; of damaged frames nobody can say
	To        bus.Offset `json:"to"`
	Gone      bool       `json:"gone,omitempty"` // it was made by what is removed
}

// RemovedSent is what an output to the outside has to do with a repair.
type RemovedSent struct {
	Job    string     `json:"job"`
	Output string     `json:"output"`
	From   bus.Offset `json:"from"` // records From up to, without, To are removed
	To     bus.Offset `json:"to"`
	Sent   bus.Offset `json:"sent"` // up to here, without, they were sent, by what the log says
	Unsent int64      `json:"unsent,omitempty"`
}

// LostUnread is what a subscription had yet to read and cannot any more.
type LostUnread struct {
	Job       string `json:"job"`
	Topic     string `json:"topic"`
	Partition int    `json:"partition"`
	Records   int64  `json:"records"`
}

// OpenRepair takes the lock of a data directory and reads its log. The error of one that is in use is a *wal.LockedError.
func OpenRepair(dataDir string) (*Repair, error) {
	w, err := wal.OpenRepair(filepath.Join(dataDir, "wal"), wal.Config{})
	if err != nil {
		return nil, err
	}
	return &Repair{dir: dataDir, wal: w}, nil
}

// Close gives the directory free.
func (r *Repair) Close() error { return r.wal.Close() }

// Begun reports whether a repair was decided upon and not finished; Finish ends it.
func (r *Repair) Begun() bool { return r.wal.Begun() }

// Finish ends a repair that was begun.
func (r *Repair) Finish() (wal.Done, error) { return r.wal.Finish() }

// Plan says what Write would do.
func (r *Repair) Plan(o RepairOptions) (*RepairPlan, error) {
	rep := r.wal.Report()
	p := &RepairPlan{Damage: []string{}, NewID: o.NewID, options: o}
	for _, d := range rep.Damage {
		p.Damage = append(p.Damage, d.Error())
	}
	if rep.OK() && !o.NewID {
		p.Nothing = true
		return p, nil
	}
	var all []*keptLog
	for _, c := range r.wal.Choices() {
		k, err := r.judge(c)
		if err != nil {
			return nil, err
		}
		all = append(all, k)
	}
	if err := p.choose(all, o); err != nil {
		return nil, err
	}
	for _, k := range all {
		if k != p.kept {
			p.Others = append(p.Others, k.say)
		}
	}
	p.Keep = &p.kept.say
	return p, nil
}

// choose takes the newest stretch that costs nothing anybody needs, else the oldest that keeps every state, else the oldest.
func (p *RepairPlan) choose(all []*keptLog, o RepairOptions) error {
	if len(all) == 0 {
		return errors.New("nothing can be kept: no generation of the log that is left has a whole catalog, and what was before them is gone. " +
			"Begin with a new data directory; the snapshots of this one can still be read (`checkpoint export`)")
	}
	if o.From > 0 {
		i := slices.IndexFunc(all, func(k *keptLog) bool { return k.say.First == o.From })
		if i < 0 {
			return fmt.Errorf("what is kept cannot begin with frame %s; it can begin with %s", o.From, firsts(all))
		}
		p.kept = all[i]
		return nil
	}
	for _, k := range slices.Backward(all) {
		if p.kept == nil && k.say.Frees && k.choice.Behind.Last == 0 {
			p.kept = k
		}
	}
	for _, k := range all {
		if p.kept == nil && k.say.Refused == "" {
			p.kept = k
		}
	}
	if p.kept == nil {
		p.kept = all[0]
	}
	return nil
}

func firsts(all []*keptLog) string {
	s := ""
	for i, k := range all {
		if i > 0 {
			s += " or "
		}
		s += k.say.First.String()
	}
	return s
}

// Write does what a plan of this Repair says.
func (r *Repair) Write(p *RepairPlan, now time.Time) (wal.Done, error) {
	k := p.kept
	if k.say.Refused != "" && !p.options.AllowStateLoss {
		return wal.Done{}, ErrStateLoss
	}
	files, err := k.removedSnapshots(r.snapshotDir())
	if err != nil {
		return wal.Done{}, err
	}
	if err := k.keepAside(r.dir, now); err != nil {
		return wal.Done{}, err
	}
	rise := uint64(0)
	if p.NewID {
		rise = newIDRise
	}
	return r.wal.Write(k.choice, wal.NewLog{Rise: rise, Files: files, Note: k.say, Now: now,
		Catalog: func(first wal.LSN) ([][]wal.Section, error) { return k.catalog(first, rise) }})
}

func (r *Repair) snapshotDir() string { return filepath.Join(r.dir, "snapshots") }

// keptLog is what a choice keeps, as the runtime sees it.
type keptLog struct {
	choice wal.Choice
	ledger *ledger
	bus    *bus.Bus
	seen   *seenFrames
	lost   []uint32 // jobs whose state cannot be had any more
	fits   []bus.StoreFit
	say    RepairKeep
}

// judge reads what a choice keeps and what it gives up.
func (r *Repair) judge(c wal.Choice) (*keptLog, error) {
	k := &keptLog{choice: c, ledger: newLedger(), say: RepairKeep{First: c.First, Last: c.Last, Removed: []RemovedPart{}}}
	view := viewFrames{r.wal.View(c)}
	k.bus = bus.New(bus.Config{Store: bus.StoreConfig{Dir: storeDir(r.dir)}}, view)
	if c.Catalog > 0 {
		var err error
		if k.ledger, err = recoverLedger(view, c.Catalog, k.bus); err != nil {
			return nil, err
		}
		k.bus.Dropped(c.First)
		k.ledger.First = max(k.ledger.First, c.First)
	}
	for _, cut := range []wal.Cut{c.Before, c.Behind} {
		if cut.Last > 0 {
			k.say.Removed = append(k.say.Removed, RemovedPart{First: cut.First, Last: cut.Last, Frames: cut.Frames, Lost: cut.Lost, Bytes: cut.Bytes})
		}
	}
	k.seen = newSeenFrames()
	err := r.wal.Removed(c, func(f *wal.Frame) error {
		if f.LSN <= c.Last {
			return nil
		}
		return k.seen.take(&walFrame{*f})
	})
	k.seen.end()
	if err != nil {
		return nil, err
	}
	if err := k.checkState(r.snapshotDir()); err != nil {
		return nil, err
	}
	if err := k.fitStore(); err != nil {
		return nil, err
	}
	if err := k.passBefore(); err != nil {
		return nil, err
	}
	if err := k.unknownSavepoints(r.dir); err != nil {
		return nil, err
	}
	k.describe()
	return k, nil
}

// checkState finds the snapshots that can be used, and the jobs whose state cannot be had from them and the frames kept.
func (k *keptLog) checkState(dir string) error {
	for _, j := range k.ledger.sorted() {
		if j.Phase == PhaseEnded {
			continue
		}
		var whole []snapshotEntry
		for _, s := range j.Snapshots {
			if s.LSN+1 < k.choice.First {
				continue
			}
			err := readSnapshot(filepath.Join(dir, s.File))
			if err == nil {
				whole = append(whole, s)
			}
		}
		j.Snapshots = whole
		if len(whole) == 0 && j.Since < k.choice.First {
			k.lost = append(k.lost, j.ID)
			k.say.Refused = ErrStateLoss.Error()
		}
	}
	return nil
}

// readSnapshot reads and checks a snapshot.
func readSnapshot(path string) error {
	s, err := checkpoint.OpenSnapshot(path)
	if err != nil {
		return err
	}
	defer s.Close()
	for {
		if _, err := s.Next(); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
	}
}

// passBefore moves subscriptions and senders on over what is not there any more before the frames that are kept: it is
// removed, or it was dropped for reasons that stood in frames which are removed, such as that the topic store has it.
func (k *keptLog) passBefore() error {
	for _, j := range k.ledger.sorted() {
		ins, outs := pointers(j.Inputs), pointers(j.Outputs)
		if j.Prev != nil { // it may come back, with what it has of its own
			ins, outs = append(ins, pointers(j.Prev.Inputs)...), append(outs, pointers(j.Prev.Outputs)...)
		}
		for _, in := range ins {
			if err := k.passInput(j, in, in.Topic); err != nil {
				return err
			}
		}
		for _, o := range outs {
			if first := k.bus.First(o.Topic, 0); o.Outside && o.Sent.Next < first {
				lost := RemovedSent{Job: j.Name, Output: o.Name, From: o.Sent.Next, To: first, Sent: o.Sent.Next, Unsent: int64(first - o.Sent.Next)}
				if !slices.Contains(k.say.Outputs, lost) { // as it is, and as it was
					k.say.Outputs = append(k.say.Outputs, lost)
				}
				o.Sent.Sub, o.Sent.Next, o.Sent.LSN = o.Sub, first, max(o.Sent.LSN, k.choice.First)
				k.bus.Passed(o.Sub, sentStates(o.Sent), true)
			}
		}
	}
	return nil
}

func (k *keptLog) passInput(j *jobEntry, in *inputEntry, topic bus.TopicID) error {
	for i := range j.header.Subs {
		s := &j.header.Subs[i]
		if s.Sub != uint32(in.Sub) {
			continue
		}
		have, err := bus.DecodeSubState(s.State)
		if err != nil {
			return err
		}
		have = k.bus.Beyond(in.Sub, have)
		oldest, err := k.bus.Browse(topic, s.Partition, bus.Start{Earliest: true})
		if err != nil {
			return err
		}
		if k.passStored(j, topic, have); have.Next >= oldest.Next {
			continue
		}
		if j.Phase != PhaseEnded {
			k.say.Unread = append(k.say.Unread, LostUnread{Job: j.Name, Topic: k.bus.Spec(topic).Name, Partition: s.Partition,
				Records: int64(oldest.Next - have.Next)})
		}
		oldest.Watermark = max(oldest.Watermark, have.Watermark)
		oldest.KeepLost(have)
		s.State = bus.AppendSubState(nil, oldest)
		k.bus.Passed(in.Sub, []bus.SubState{oldest}, true)
	}
	return nil
}

// describe says what becomes of jobs, topics and outputs.
func (k *keptLog) describe() {
	names := map[string]bool{}
	for _, j := range k.ledger.sorted() {
		names[j.Name] = true
		was, lost := k.seen.epochs[j.ID], slices.Contains(k.lost, j.ID)
		if was > j.Epoch || lost {
			k.say.Jobs = append(k.say.Jobs, RemovedJob{Name: j.Name, Epoch: j.Epoch, Was: max(was, j.Epoch), StateLost: lost})
		}
		for _, o := range j.Outputs {
			to, known := max(k.seen.next[place{o.Topic, 0}], k.seen.sent[o.Sub]), k.bus.Next(o.Topic, 0)
			if o.Outside && to > known {
				k.say.Outputs = append(k.say.Outputs, RemovedSent{Job: j.Name, Output: o.Name, From: known, To: to, Sent: max(o.Sent.Next, k.seen.sent[o.Sub])})
			}
		}
	}
	for _, id := range slices.Sorted(maps.Keys(k.seen.jobs)) {
		if name := k.seen.jobs[id]; k.ledger.Jobs[id] == nil && !names[name] {
			k.say.Jobs = append(k.say.Jobs, RemovedJob{Name: name, Was: k.seen.epochs[id], Gone: true})
		}
	}
	for _, at := range k.seen.places() {
		spec := k.bus.Spec(at.topic)
		t := RemovedTopic{Name: spec.Name, Partition: at.partition, From: k.bus.Next(at.topic, at.partition), To: k.seen.next[at], Gone: spec.Name == ""}
		if t.Gone {
			t.Name = k.seen.topics[at.topic]
		}
		hidden := spec.Private()
		if t.To > t.From && !hidden {
			k.say.Topics = append(k.say.Topics, t)
		}
	}
	unsent := slices.ContainsFunc(k.say.Outputs, func(o RemovedSent) bool { return o.Unsent > 0 })
	k.say.Frees = k.choice.Behind.Last == 0 && len(k.lost) == 0 && len(k.say.Unread) == 0 && !unsent
}

// removedSnapshots lists the snapshots that nothing kept names: the next run removes them.
func (k *keptLog) removedSnapshots(dir string) (paths []string, err error) {
	files, err := checkpoint.ListSnapshots(dir)
	for _, f := range files {
		j := k.ledger.Jobs[f.Job]
		if j == nil || !slices.ContainsFunc(j.Snapshots, func(s snapshotEntry) bool { return s.File == filepath.Base(f.Path) }) {
			paths = append(paths, f.Path)
		}
	}
	return paths, err
}

// catalog makes the first frames under the new id: all that is kept, every counter past what may have been removed.
func (k *keptLog) catalog(first wal.LSN, rise uint64) ([][]wal.Section, error) {
	l := k.ledger
	rise += k.choice.Behind.Unknown()
	marks := k.removeLost()
	for _, j := range l.Jobs {
		if seen := k.seen.epochs[j.ID]; seen > j.Epoch {
			rise = max(rise, uint64(seen-j.Epoch))
		}
	}
	for at, next := range k.seen.next {
		if known := k.bus.Next(at.topic, at.partition); next > known {
			rise = max(rise, uint64(next-known))
		}
	}
	if rise > 0 {
		for _, j := range l.Jobs {
			j.Epoch += checkpoint.Epoch(rise)
		}
		k.bus.Raise(rise)
		l.NextID = max(l.NextID, k.seen.id+1) + uint32(min(rise/idBytes+1, idsRise))
	}
	k.bus.Replay(first, nil, marks)
	led, err := l.encode()
	if err != nil {
		return nil, err
	}
	var whole []wal.Section
	if len(marks) > 0 {
		whole = append(whole, wal.Section{Kind: bus.SectionIndex, Body: bus.AppendIndex(nil, nil, marks)})
	}
	return catalogFrames(defaultFrameBytes, led, wal.Section{Kind: sectionBusCatalog, Body: k.bus.AppendCatalog(nil)}, whole...), nil
}

// removeLost takes the jobs away whose state is lost, as if they had never been there, and returns the marks that say so.
func (k *keptLog) removeLost() (marks []bus.Mark) {
	for _, id := range k.lost {
		j := k.ledger.Jobs[id]
		if j == nil {
			continue
		}
		held := j.claims() // of what it was before its last change too
		for sub := range held.subs {
			k.bus.Unsubscribe(sub)
		}
		for topic := range held.topics {
			k.bus.Remove(topic)
		}
		for _, o := range j.Outputs {
			if !o.Outside {
				marks = append(marks, bus.Mark{Topic: o.Topic, Producer: bus.ProducerID(id), Leave: true})
			}
		}
		delete(k.ledger.Jobs, id)
	}
	return marks
}
