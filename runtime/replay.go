package runtime

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/sidestream-dev/sidestream/bus"
	"github.com/sidestream-dev/sidestream/checkpoint"
)

// A replay into a job sets its places in topics, its state and its watermarks back in one frame: to nothing, or to a savepoint.
// What it gives out then, until it is where it was before, or at the replay's end, are new records, which say so in a header
// (ReplayHeader): exactly those that came of records of the replay. To know which these are, the job's readers stop at the end
// until an epoch holds all before it; the header of that epoch says that the replay is over, and where the job goes on.
//
// Until then the header has the replay as an extra, which a later change of the job keeps; another replay and a restart of an
// ended job begin with another header.

// ReplayHeader is the header that says of which replay a record came.
const ReplayHeader = "sidestream-replay"

// extraReplay is the name in Header.Extra of the replay under way.
const extraReplay = "replay"

// replayMark is a replay under way.
type replayMark struct {
	ID   string      `json:"id"`
	Ends []replayEnd `json:"ends"`

	Copy bool    `json:"copy,omitempty"` // the job is there for it alone, and goes when it is over (copy.go)
	Rate float64 `json:"rate,omitempty"` // records a second that a copy takes; 0 is any
}

// replayEnd is where it ends in a partition.
type replayEnd struct {
	Sub       bus.SubID  `json:"sub"`
	Partition int        `json:"partition"`
	At        bus.Offset `json:"at"`
	Then      []byte     `json:"then,omitempty"` // where the job goes on, behind what it lost in the replay; nil is there too
}

// goesOn returns where a job goes on whose readers stand at a replay's end, in these pieces; ok is false where it is there.
func (e replayEnd) goesOn(pieces []*piece) (then bus.SubState, ok bool, err error) {
	if e.Then == nil {
		return then, false, nil
	}
	if then, err = bus.DecodeSubState(e.Then); err != nil {
		return then, false, err
	}
	for _, p := range pieces {
		if p.stopped == nil || p.stopped.sub != e.Sub {
			continue
		}
		for _, st := range p.stopped.states {
			if st.Partition == e.Partition {
				return then.Behind(st), true, nil
			}
		}
	}
	return then, false, fmt.Errorf("runtime: a replay is over, and nobody says where partition %d stands", e.Partition)
}

// replaying returns the replay under way, nil if there is none.
func replaying(h *checkpoint.Header) (*replayMark, error) {
	b := h.Extra[extraReplay]
	if len(b) == 0 {
		return nil, nil
	}
	m := new(replayMark)
	if err := json.Unmarshal(b, m); err != nil {
		return nil, fmt.Errorf("runtime: the replay in a header: %w", err)
	}
	return m, nil
}

// ReplayOptions say what is replayed into a job.
type ReplayOptions struct {
	From    Place
	To      *Place // nil: to where the job stands; it goes on from there either way
	Nothing bool   // begin with no state, also where a savepoint lies at or before From
	DryRun  bool
}

// ReplayResult is what a replay does, or would do.
type ReplayResult struct {
	ID        string       `json:"id,omitempty"` // that records say in the header sidestream-replay; none of a dry run
	Job       string       `json:"job"`
	Inputs    []ReplaySpan `json:"inputs"`
	Records   int64        `json:"records"`
	Bytes     int64        `json:"bytes"`               // about
	Savepoint string       `json:"savepoint,omitempty"` // that the job's state begins with; "" is none
	Outputs   []string     `json:"outputs"`             // that repeat
	Cut       []ReplayCut  `json:"cut,omitempty" doc:"steps whose state lacks what lies before the place; missing where none does"`
	Whole     *time.Time   `json:"whole_from,omitempty" doc:"a place from which the windows that are cut would be whole"`
	Notes     []string     `json:"notes,omitempty" doc:"what is to be known of it"`
}

// ReplaySpan is what is replayed of a topic, by partition: From up to, without, To.
type ReplaySpan struct {
	Topic string       `json:"topic"`
	From  []bus.Offset `json:"from"`
	To    []bus.Offset `json:"to"`
	First *time.Time   `json:"first,omitempty"` // event time of the first record of a partition, the earliest of them
	Last  *time.Time   `json:"last,omitempty"`
}

// replay is one Replay of a job.
type replay struct {
	rt      *Runtime
	topic   bus.TopicID
	options ReplayOptions
	def     *definition
	froms   map[bus.TopicID][]bus.Offset
	tos     map[bus.TopicID][]bus.Offset // nil without To
	saved   *savepointEntry
	header  checkpoint.Header
	staged  string   // a copy of the savepoint
	file    string   // made of that, until the frame has it
	rests   JobPhase // in which the job reads nothing yet
	skips   int64    // records between the replay's end and where the job goes on
	result  ReplayResult
}

// Replay lets a job read a topic again. Its places, its state and its watermarks are set back in one frame, behind a last
// barrier; it returns when that is durable and the job is at it. A job that reads several topics is set back in all of them,
// to the same time; one that reads from outside only to a savepoint, which has its place there too. A job that has failed or
// ended goes on; one that is paused or stopped stays so.
func (rt *Runtime) Replay(ctx context.Context, job, topic string, o ReplayOptions) (ReplayResult, error) {
	id, ok := rt.bus.TopicByName(topic)
	if !ok {
		return ReplayResult{}, missing("topic", topic, ErrNoTopic)
	}
	var err error
	if o.From, err = o.From.timed(rt.bus, id); err != nil {
		return ReplayResult{}, err
	}
	if o.To != nil {
		to, err := o.To.timed(rt.bus, id)
		if err != nil {
			return ReplayResult{}, err
		}
		o.To = &to
	}
	r := &replay{rt: rt, topic: id, options: o, froms: map[bus.TopicID][]bus.Offset{}, tos: map[bus.TopicID][]bus.Offset{}}
	if err := r.look(job, topic); errors.Is(err, errNothingIn) {
		return ReplayResult{}, rt.nothingIn(ctx, topic)
	} else if err != nil {
		return ReplayResult{}, err
	}
	if !o.DryRun {
		r.result.ID = fmt.Sprintf("%s-%s", job, rt.now().UTC().Format("20060102T150405.000"))
		if r.saved != nil { // the committer must not wait for a copy
			if r.staged, err = rt.snapshots.stage(r.saved.Name); err != nil {
				return ReplayResult{}, errors.Join(err, rt.snapshots.remove(r.staged))
			}
			defer rt.snapshots.remove(r.staged) // what is left of it goes at the next start
		}
	}
	err = rt.rewrite(ctx, rewriting{what: "replay", job: job, dryRun: o.DryRun, written: func() { r.file = "" }}, r.change, r.begin)
	if err != nil {
		if r.file != "" {
			err = errors.Join(err, rt.snapshots.remove(r.file))
		}
		if errors.Is(err, errNothingIn) {
			err = rt.nothingIn(ctx, topic)
		}
		return ReplayResult{}, err
	}
	rt.times(ctx, r.result.Inputs)
	r.restNote()
	r.skipNote()
	if err := r.earlierNote(); err != nil {
		r.result.Notes = append(r.result.Notes, "how much lies between the savepoint and the place is not known: "+err.Error())
	}
	if err := r.cutOff(); err != nil {
		r.result.Notes = append(r.result.Notes, "which windows are cut off at the beginning is not known: "+err.Error()) // the replay stands
	}
	if !o.DryRun {
		rt.tell(Event{Kind: EventReplay, Job: job, Text: fmt.Sprintf("%s: %d records of topic %s", r.result.ID, r.result.Records, topic)})
	}
	return r.result, nil
}

// look finds all that can be known before the job stands still.
func (r *replay) look(job, topic string) error {
	rt := r.rt
	e, err := rt.entry(job)
	if err != nil {
		return err
	}
	j := rt.findJob(job)
	if j == nil {
		return fmt.Errorf("job %s cannot be replayed into: %s; apply it again", job, missingReason)
	}
	if err := oneReplay(e); err != nil {
		return err
	}
	if r.def, err = rt.inspect(j.def, e.Origin); err != nil {
		return err
	}
	if name := r.options.From.Savepoint; name != "" {
		if r.saved, r.header, err = rt.savepoint(name); err != nil {
			return err
		}
		if loss, _, _ := lossOf(r.saved.Steps, r.def.steps); len(loss) > 0 || r.saved.Job != job {
			return fmt.Errorf("savepoint %s is of job %s, or of a definition whose state this one cannot keep", name, r.saved.Job)
		}
	} else if len(r.def.steps) > 0 && !r.options.Nothing {
		if err := r.choose(job); err != nil {
			return err
		}
	}
	reads := false
	for _, n := range j.def.Nodes {
		switch {
		case n.Source == nil:
			continue
		case outside(n) && r.saved == nil:
			return fmt.Errorf("job %s reads from outside too (%s), so that its state cannot be made again from topics alone; replay from a savepoint", job, n.ID)
		case outside(n):
			continue
		}
		id, ok := rt.bus.TopicByName(n.Source.Topic)
		if !ok {
			return missing("topic", n.Source.Topic, ErrNoTopic)
		}
		if r.saved != nil && id == r.topic {
			if _, ok, other := r.saved.input(n.ID, topic, id); !ok && !other {
				return fmt.Errorf("savepoint %s was made when step %s of job %s did not read topic %s, and stands nowhere in it", r.saved.Name, n.ID, job, topic)
			}
		}
		reads = reads || id == r.topic
		if err := r.places(job, n.Source.Topic, id); err != nil {
			return err
		}
	}
	if !reads {
		return fmt.Errorf("%s does not read topic %s: %w", job, topic, ErrNoSubscription)
	}
	if r.options.From.Savepoint == "" && r.nothing(e) {
		return errNothingIn
	}
	for _, n := range j.def.Outputs() {
		where := "bus:" + n.Output.Topic
		if n.Output.Sink != nil {
			where = n.Output.Sink.Kind()
		}
		r.result.Outputs = append(r.result.Outputs, n.Output.Name+" ("+where+")")
	}
	if r.result.Job = job; r.saved != nil {
		r.result.Savepoint = r.saved.Name
	}
	return nil
}

// oneReplay refuses a replay into a job that is at one: where it was before that, and up to where its records are marked, would be
// forgotten, and the rest would come again without the header.
func oneReplay(e *jobEntry) error {
	mark, err := replaying(&e.header)
	if err != nil || mark == nil {
		return err
	}
	return fmt.Errorf("job %s is still at replay %s, which goes on, also after a restart: wait for its end ('job wait %s --for caught-up'), or give it up by setting the job "+
		"elsewhere ('bus seek')", e.Name, mark.ID, e.Name)
}

// errNothingIn refuses a replay without a record: all that it would do is to drop the job's state.
var errNothingIn = errors.New("no record in that range")

// nothing reports whether the job has read no record of the range, before it is halted for that.
func (r *replay) nothing(e *jobEntry) bool {
	for _, in := range e.Inputs {
		tos := r.tos[in.Topic]
		for p, from := range r.froms[in.Topic] {
			st, known := placeOfSub(e, in.Sub, p)
			some := (!known || from < st.Next) && (tos == nil || from < tos[p])
			if some || from > r.rt.bus.Next(in.Topic, p) { // a place that is not there yet has an error of its own
				return false
			}
		}
	}
	return len(e.Inputs) > 0
}

// places finds where a topic is read from and to.
func (r *replay) places(job, topic string, id bus.TopicID) (err error) {
	from, to := r.options.From, r.options.To
	if id != r.topic && (from.Offset != nil || to != nil && to.Offset != nil) {
		return fmt.Errorf("job %s reads topic %s too, where offsets are others; say a time", job, topic)
	}
	if from.Savepoint == "" {
		if r.froms[id], err = from.offsets(r.rt.bus, id); err != nil {
			return err
		}
	}
	if to != nil {
		r.tos[id], err = to.offsets(r.rt.bus, id)
	}
	return err
}

// change makes the frame. It runs on the committer's goroutine, also in a dry run.
func (r *replay) change(reg *registration, have *jobEntry) error {
	if !bytes.Equal(have.Definition, r.def.text) { // r.def was looked at before the job was this change's own
		return fmt.Errorf("job %s was changed meanwhile, and nothing was replayed: replay again", have.Name)
	}
	if err := oneReplay(have); err != nil {
		return err
	}
	if err := reg.defineTopics([]*definition{r.def}); err != nil {
		return err
	}
	jc := jobChange{ID: have.ID, Name: have.Name, Definition: have.Definition, Origin: have.Origin, At: have.Changed,
		Phase: have.Phase, Reason: have.Reason, Restart: true, Replace: true, Steps: r.def.steps}
	if r.rests = ""; have.Phase == PhasePaused || have.Phase == PhaseStopped {
		r.rests = have.Phase
	}
	if have.Phase == PhaseFailed || have.Phase == PhaseEnded {
		jc.Phase, jc.Reason = PhaseActive, ""
	}
	if err := r.inputs(reg, &jc); err != nil {
		return err
	}
	if err := reg.outputs(r.def, have, &jc); err != nil {
		return err
	}
	mark := replayMark{ID: r.result.ID}
	r.skips = 0
	for i := range jc.Inputs {
		if err := r.ends(reg, have, &jc.Inputs[i], &mark); err != nil {
			return err
		}
	}
	if r.options.From.Savepoint == "" && r.result.Records == 0 {
		return errNothingIn
	}
	if r.saved != nil && !r.options.DryRun {
		if err := r.base(have, &jc); err != nil {
			return err
		}
	}
	var err error
	if jc.Replay, err = json.Marshal(mark); err != nil {
		return err
	}
	reg.change.Jobs = append(reg.change.Jobs, jc)
	return nil
}

// inputs subscribes the job anew, where the replay begins.
func (r *replay) inputs(reg *registration, jc *jobChange) (err error) {
	if r.saved != nil {
		h := r.header
		return reg.savedInputs(r.def, r.saved, &h, jc)
	}
	for _, n := range r.def.Nodes {
		if n.Source == nil || outside(n) {
			continue
		}
		t := reg.topics[n.Source.Topic]
		if len(r.froms[t.ID]) == 0 { // places are of the topic as it was looked at
			return fmt.Errorf("topic %s was made anew meanwhile, and nothing was replayed: replay again", n.Source.Topic)
		}
		in := inputEntry{Step: n.ID, Topic: t.ID, Sub: bus.SubID(reg.id()), Start: bus.Start{Offsets: r.froms[t.ID]}}
		if in.States, err = r.options.From.states(reg.core.bus, t.ID, r.froms[t.ID]); err != nil {
			return err
		}
		jc.Inputs = append(jc.Inputs, in)
	}
	return nil
}

// ends says where the replay of an input ends: where the job stood, or before.
func (r *replay) ends(reg *registration, have *jobEntry, in *inputEntry, mark *replayMark) error {
	b := reg.core.bus
	span := ReplaySpan{Topic: b.Spec(in.Topic).Name}
	for i := range in.States {
		st := &in.States[i]
		end := replayEnd{Sub: in.Sub, Partition: st.Partition, At: b.Next(in.Topic, st.Partition)}
		was, known, sub := bus.SubState{}, false, bus.SubID(0)
		for _, h := range have.Inputs {
			if h.Step == in.Step && h.Topic == in.Topic {
				was, known = placeOfSub(have, h.Sub, st.Partition)
				if sub = h.Sub; known {
					st.KeepLost(was)
					end.At = min(end.At, b.Beyond(sub, was).Next)
				}
			}
		}
		if tos := r.tos[in.Topic]; tos != nil && tos[st.Partition] < end.At {
			end.At = tos[st.Partition]
			if !known {
				latest, err := b.Browse(in.Topic, st.Partition, bus.Start{Latest: true})
				if err != nil {
					return err
				}
				was = latest
			}
			// Of what was let go for it, the replay reads what lies before its end, and the rest is lost where the job goes on.
			was.Dropped, was.Lost = 0, nil
			was.Next = max(was.Next, min(max(end.At, st.Next), b.Beyond(sub, was).Next))
			if was = b.Beyond(sub, was); was.Next > st.Next {
				end.Then = bus.AppendSubState(nil, was)
				if have.Phase != PhaseEnded { // in whose state nothing was open any more
					n, _ := b.Span(in.Topic, st.Partition, max(end.At, st.Next), was.Next)
					r.skips += n
				}
			}
		}
		end.At = max(end.At, st.Next)
		mark.Ends = append(mark.Ends, end)
		records, bytes := b.Span(in.Topic, st.Partition, st.Next, end.At)
		r.result.Records, r.result.Bytes = r.result.Records+records, r.result.Bytes+bytes
		span.From, span.To = append(span.From, st.Next), append(span.To, end.At)
	}
	r.result.Inputs = append(r.result.Inputs, span)
	return nil
}

// base lets the job begin with a savepoint's state. The snapshot is of an epoch of its own, so that its file is not that of any
// other.
func (r *replay) base(have *jobEntry, jc *jobChange) (err error) {
	h := cloneHeader(r.header)
	h.Subs, h.Parts, h.Ended = nil, nil, false
	delete(h.Extra, extraReplay)
	h.Splits = slices.DeleteFunc(slices.Clone(h.Splits), func(s checkpoint.SplitState) bool {
		n := r.def.Node(s.Step)
		return n == nil || !outside(n)
	})
	epoch := have.Epoch + 1
	if r.file, err = r.rt.snapshots.beginWith(r.staged, have.ID, epoch); err != nil {
		return err
	}
	jc.Base = &baseEntry{Snapshot: snapshotEntry{Epoch: epoch, File: r.file, Bytes: r.saved.Bytes}, Header: checkpoint.AppendHeader(nil, h), Savepoint: r.saved.Name}
	return nil
}

// begin makes the job that goes on: without state, or with what is restored of the savepoint. The snapshots of what it was go
// with its next ones, or at the next start: one of the same epoch, and so of the same name, may be the job's own by now.
func (r *replay) begin(n *job, now *jobEntry) *job {
	n.stores = nil
	if r.saved == nil {
		n.stores = newJobStores(n.plan, now.Epoch)
	}
	r.rt.replaceSenders(n, now)
	n.logger.Info("a replay begins", "replay", r.result.ID, "records", r.result.Records)
	return n
}

// times finds the event times of the ends of spans, as far as records have any.
func (rt *Runtime) times(ctx context.Context, spans []ReplaySpan) {
	for i := range spans {
		s := &spans[i]
		for p := range s.From {
			if s.From[p] >= s.To[p] {
				continue
			}
			for _, at := range []bus.Offset{s.From[p], s.To[p] - 1} {
				_ = rt.Tail(ctx, Tail{Topic: s.Topic, Partition: p, From: &at, Last: 1}, func(rec TopicRecord) error {
					if t := rec.Time; t != nil {
						if s.First == nil || t.Before(*s.First) {
							s.First = t
						}
						if s.Last == nil || t.After(*s.Last) {
							s.Last = t
						}
					}
					return nil
				}) // what has gone meanwhile has no time
			}
		}
	}
}

// nothingIn is the error of a range of a topic that holds no record. It happens to who says "an hour ago" of a topic whose
// event times are of last year, so it says of when the newest is.
func (rt *Runtime) nothingIn(ctx context.Context, topic string) error {
	id, _ := rt.bus.TopicByName(topic)
	all := ReplaySpan{Topic: topic}
	for p := range rt.bus.Partitions(id) {
		next := rt.bus.Next(id, p)
		all.From, all.To = append(all.From, max(next, 1)-1), append(all.To, next)
	}
	spans := []ReplaySpan{all}
	if rt.times(ctx, spans); spans[0].Last != nil {
		return fmt.Errorf("topic %s has no record in that range, so nothing was done; its newest is of %s, by event time", topic, spans[0].Last.UTC().Format(time.RFC3339))
	}
	return fmt.Errorf("topic %s has no record in that range, so nothing was done", topic)
}

// Replaying returns the replay that a job is at, and how many records are left of it; "" where there is none.
func (rt *Runtime) Replaying(job string) (id string, left int64, err error) {
	err = rt.do(func(c *core) error {
		e := c.ledger.job(job)
		if e == nil {
			return missing("job", job, ErrNoJob)
		}
		mark, err := replaying(&e.header)
		if err != nil || mark == nil {
			return err
		}
		id = mark.ID
		for _, end := range mark.Ends {
			for _, in := range e.Inputs {
				if st, ok := placeOfSub(e, end.Sub, end.Partition); ok && in.Sub == end.Sub {
					n, _ := c.bus.Span(in.Topic, end.Partition, st.Next, end.At)
					left += n
				}
			}
		}
		return nil
	})
	return id, left, err
}

// endReplay ends the replay with the epoch that r seals, if every reader has come to its end there: the header says so, and
// where they go on.
func (x *execution) endReplay(r *sealRequest, pieces []*piece) error {
	mark := x.replay.Load()
	if mark == nil || mark.Copy || slices.ContainsFunc(pieces, func(p *piece) bool { return !p.replayed }) {
		return nil
	}
	h := &r.header
	h.Extra = maps.Clone(h.Extra)
	if h.Extra == nil {
		h.Extra = map[string][]byte{}
	}
	h.Extra[extraReplay] = nil
	for _, end := range mark.Ends {
		then, moves, err := end.goesOn(pieces)
		if err != nil {
			return err
		}
		if !moves {
			continue
		}
		h.Subs = slices.DeleteFunc(h.Subs, func(s checkpoint.SubPosition) bool {
			return s.Sub == uint32(end.Sub) && s.Partition == end.Partition
		})
		h.Subs = append(h.Subs, checkpoint.SubPosition{Sub: uint32(end.Sub), Partition: end.Partition, State: bus.AppendSubState(nil, then)})
		r.read = append(r.read, readUpTo{end.Sub, []bus.SubState{then}})
	}
	x.replay.Store(nil)
	for _, s := range x.subtasks {
		s.wake()
	}
	x.logger.Info("the replay is over", "replay", mark.ID, "epoch", h.Epoch)
	x.rt.tell(Event{Kind: EventReplayed, Job: x.name, Text: mark.ID})
	return nil
}

// stopAt takes from a replay where a feed's reader stops.
func (f *busFeed) stopAt(mark *replayMark) {
	if mark == nil {
		return
	}
	f.rate = newRecordRate(mark.Rate)
	for _, end := range mark.Ends {
		if end.Sub == f.sub && slices.ContainsFunc(f.states, func(s bus.SubState) bool { return s.Partition == end.Partition }) {
			f.ends = append(f.ends, end)
		}
	}
}

// pastReplay lets a reader that has stopped go on once the replay is over.
func (f *busFeed) pastReplay(s *subtask) error {
	if f.ends == nil || s.ex.replay.Load() != nil {
		return nil
	}
	var then []bus.SubState
	for _, end := range f.ends {
		if end.Then != nil {
			st, err := bus.DecodeSubState(end.Then)
			if err != nil {
				return err
			}
			then = append(then, st)
		}
	}
	f.ends = nil
	return f.reader.Go(then)
}

// String names a replay's span for people.
func (s ReplaySpan) String() string {
	var out []string
	for p := range s.From {
		out = append(out, fmt.Sprintf("%s-%s", s.From[p], s.To[p]))
	}
	return s.Topic + " " + strings.Join(out, ",")
}
