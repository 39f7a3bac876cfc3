package runtime

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/sidestream-dev/sidestream/bus"
	"github.com/sidestream-dev/sidestream/checkpoint"
	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/wal"
)

// shadowEdge is a moment of the job: it had read the topic up to states, and what it gave of that stands in frames up to lsn.
// One that is not exact is where somebody else would stand who reads at once what is written.
type shadowEdge struct {
	states []bus.SubState // by partition
	lsn    wal.LSN
	exact  bool
}

// errWalked ends a walk that has found what it looked for, errOver one behind which no frame is of the stretch.
var errWalked, errOver = errors.New("found"), errors.New("over")

// edges finds the moments of the job between which it read the range: the last at which it had read nothing of it, and the first
// at which it had read all. They are ends of epochs, so that what is compared may be more than was asked for.
func (s *shadow) edges(ctx context.Context, topic string) (err error) {
	if s.end, err = s.stretchEnd(); err != nil {
		return err
	}
	if !s.part.open {
		if s.end, err = s.endAt(ctx, s.part.to); err != nil {
			return err
		}
	}
	if s.begin, err = s.beginAt(ctx, s.part.from); err != nil {
		return err
	}
	for p := range s.begin.states {
		if s.end.states[p].Next < s.begin.states[p].Next {
			s.end.states[p] = s.begin.states[p]
		}
		from, to := s.begin.states[p].Next, s.end.states[p].Next
		s.result.Input.From, s.result.Input.To = append(s.result.Input.From, from), append(s.result.Input.To, to)
		s.result.Records += int64(to - from)
	}
	s.result.Input.Topic, s.result.Job = topic, s.o.Against
	s.result.Exact = s.begin.exact && s.end.exact
	if !s.result.Exact {
		s.note("the log no longer holds where the job stood at %s; it is taken to have read each record when it was written, so that differences there may be none", s.unclear())
	}
	spans := []ReplaySpan{s.result.Input}
	s.rt.times(ctx, spans)
	s.result.Input = spans[0]
	return nil
}

func (s *shadow) note(format string, args ...any) {
	s.result.Notes = append(s.result.Notes, fmt.Sprintf(format, args...))
}

func (s *shadow) unclear() string {
	switch {
	case s.end.exact:
		return "the range's beginning"
	case s.begin.exact:
		return "the range's end"
	}
	return "the range's beginning and end"
}

// froms is where the range is asked to begin. Before the job itself began it gave nothing.
func (s *shadow) froms() (froms []bus.Offset, err error) {
	if name := s.o.From.Savepoint; name != "" {
		sp, h, err := s.rt.savepoint(name)
		if err != nil {
			return nil, err
		}
		at, ok := s.savedPlaces(sp, &h)
		if sp.Job != s.e.Name || !ok {
			return nil, fmt.Errorf("savepoint %s is of job %s, or of a time before it read this topic", name, sp.Job)
		}
		for _, st := range at {
			froms = append(froms, st.Next)
		}
	} else if froms, err = s.o.From.offsets(s.rt.bus, s.topic); err != nil {
		return nil, err
	}
	for p := range froms {
		if _, err := s.rt.bus.Browse(s.topic, p, bus.Start{At: froms[p]}); err != nil {
			return nil, err
		}
	}
	return froms, nil
}

// now is where the job stands.
func (s *shadow) now() []bus.SubState {
	states := slices.Clone(s.in.States)
	for p := range states {
		if st, ok := placeOfSub(s.e, s.in.Sub, p); ok {
			states[p] = st
		}
	}
	return states
}

// behind reports whether every place is at or behind where states are.
func behind(places []bus.Offset, states []bus.SubState) bool {
	for p := range places {
		if places[p] < states[p].Next {
			return false
		}
	}
	return true
}

// reached reports whether states are at or behind every place.
func reached(places []bus.Offset, states []bus.SubState) bool {
	for p := range places {
		if states[p].Next < places[p] {
			return false
		}
	}
	return true
}

func (s *shadow) beginAt(ctx context.Context, froms []bus.Offset) (shadowEdge, error) {
	own := shadowEdge{states: s.in.States, lsn: s.in.At, exact: true}
	if reached(froms, own.states) && own.lsn > 0 {
		s.whole = s.in.Fresh
		return s.readable(own)
	}
	first, err := s.frameOf(froms, false)
	if err != nil {
		return shadowEdge{}, err
	}
	edge := shadowEdge{}
	err = s.walk(ctx, first, func(lsn wal.LSN, at []bus.SubState) error {
		if !behind(froms, at) {
			return errWalked
		}
		edge = shadowEdge{states: at, lsn: lsn, exact: true}
		return nil
	})
	if err != nil {
		return edge, err
	}
	if edge.exact {
		return s.readable(edge)
	}
	edge.lsn = first - min(first, 1)
	if first <= s.in.At { // the job read it later than it was written, as in a replay
		if own, err := s.readable(own); err == nil {
			s.whole = s.in.Fresh
			return own, nil
		}
		edge.lsn = s.in.At
	}
	for p, o := range froms {
		st, err := s.rt.bus.Browse(s.topic, p, bus.Start{At: min(o, s.end.states[p].Next)})
		if err != nil {
			return edge, err
		}
		edge.states = append(edge.states, st)
	}
	return edge, nil
}

// readable refuses a beginning whose records are not there any more.
func (s *shadow) readable(e shadowEdge) (shadowEdge, error) {
	for p, st := range e.states {
		if _, err := s.rt.bus.Browse(s.topic, p, bus.Start{At: st.Next}); err != nil {
			return e, err
		}
	}
	return e, nil
}

func (s *shadow) endAt(ctx context.Context, tos []bus.Offset) (shadowEdge, error) {
	first, err := s.frameOf(tos, false)
	if err != nil {
		return shadowEdge{}, err
	}
	last, err := s.frameOf(tos, true)
	if err != nil {
		return shadowEdge{}, err
	}
	edge, calls := shadowEdge{}, 0
	err = s.walk(ctx, first, func(lsn wal.LSN, at []bus.SubState) error {
		calls++
		switch {
		case !reached(tos, at):
			return nil
		case calls > 1 || behind(tos, at) || last <= s.in.At: // else the log does not reach back so far
			edge = shadowEdge{states: at, lsn: lsn, exact: true}
		}
		return errWalked
	})
	if err != nil || edge.exact {
		return edge, err
	}
	edge.lsn, edge.states = min(last, s.lastOf()), nil
	for p, o := range tos {
		st, err := s.rt.bus.Browse(s.topic, p, bus.Start{At: o})
		if err != nil {
			return edge, err
		}
		edge.states = append(edge.states, st)
	}
	return edge, nil
}

// frameOf returns the first, or last, frame that holds the records at places; where none is there yet, the log's end.
func (s *shadow) frameOf(places []bus.Offset, last bool) (wal.LSN, error) {
	out := s.last
	for p, o := range places {
		lsn, err := s.lsnOf(p, o)
		if err != nil {
			return 0, err
		}
		if p == 0 || last == (lsn > out) {
			out = lsn
		}
	}
	return out, nil
}

func (s *shadow) lsnOf(partition int, o bus.Offset) (wal.LSN, error) {
	st, err := s.rt.bus.Browse(s.topic, partition, bus.Start{At: o})
	if err != nil {
		return 0, err
	}
	r := s.rt.bus.NewReader(0, s.topic, []bus.SubState{st}, func() {})
	defer r.Close()
	for {
		b, ok, err := r.Next(1)
		switch {
		case err != nil:
			return 0, err
		case !ok:
			return s.last, nil
		case b.Len() > 0:
			return b.LSN, nil
		}
	}
}

// walk calls f with each moment of the job that the log still holds, from the last before a frame on: the frame, and how far
// the job had read the topic. A generation begins with that, which is where it looks first.
func (s *shadow) walk(ctx context.Context, before wal.LSN, f func(wal.LSN, []bus.SubState) error) error {
	gens := s.rt.log.Generations()
	from, before := gens[0].First, max(before, s.in.At)
	for _, g := range gens {
		if g.First <= before {
			from = g.First
		}
	}
	var at []bus.SubState
	if from < s.in.At {
		at = s.in.States
		if err := f(s.in.At, at); err != nil {
			return nil
		}
	}
	var read catalogRead
	begin := func() error {
		found, err := s.begun(&read, &at)
		if err == nil && found {
			err = f(read.at, at)
		}
		read = catalogRead{}
		return err
	}
	err := readFrom(s.rt.frames, from, func(fr frame) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		if fr.LSN() > s.last || s.until > 0 && fr.LSN() >= s.until {
			return errOver
		}
		if fr.LSN() <= s.in.At {
			return nil
		}
		if at == nil {
			if part, err := read.take(fr); part || err != nil {
				return err
			}
			if err := begin(); err != nil {
				return err
			}
		}
		moved, err := s.moved(fr, &at)
		if err != nil || !moved {
			return err
		}
		return f(fr.LSN(), at)
	})
	if err == nil || errors.Is(err, errOver) && read.at > 0 { // nothing stands behind the catalog
		err = begin()
	}
	if errors.Is(err, wal.ErrGone) {
		return nil // what was dropped meanwhile is as if it had never been there
	}
	if (err == nil || errors.Is(err, errOver)) && s.until > 0 {
		end, endErr := s.stretchEnd()
		if endErr != nil {
			return endErr
		}
		err = f(s.until, end.states)
	}
	if errors.Is(err, errWalked) || errors.Is(err, errOver) {
		return nil
	}
	return err
}

// moved takes from a frame how far the job had read; the slice is a new one each time.
func (s *shadow) moved(fr frame, at *[]bus.SubState) (bool, error) {
	if fr.Kind() != kindEpoch {
		return false, nil
	}
	for i := range fr.Len() {
		if info := fr.Section(i); info.Kind != checkpoint.SectionHeader || info.Owner != s.e.ID {
			continue
		}
		body, err := fr.Body(i)
		if err != nil {
			return false, err
		}
		h, err := checkpoint.DecodeHeader(body)
		if err != nil {
			return false, err
		}
		return true, s.place(&h, at)
	}
	return false, nil
}

// begun takes from a catalog how far the job had read; false where it does not know the job, or nothing was read of it.
func (s *shadow) begun(c *catalogRead, at *[]bus.SubState) (bool, error) {
	if c.at == 0 || *at != nil {
		return false, nil
	}
	l, err := decodeLedger(c.ledger)
	if err != nil {
		return false, err
	}
	e := l.Jobs[s.e.ID]
	if e == nil {
		return false, nil
	}
	return true, s.place(&e.header, at)
}

// place makes at a new slice of what a header says, over what was known.
func (s *shadow) place(h *checkpoint.Header, at *[]bus.SubState) error {
	next := slices.Clone(*at)
	if next == nil {
		next = slices.Clone(s.in.States)
	}
	*at = next
	return placesIn(h, s.in.Sub, next)
}

// placesIn puts what a header says of a subscription into states, by partition.
func placesIn(h *checkpoint.Header, sub bus.SubID, states []bus.SubState) error {
	for _, p := range h.Subs {
		if p.Sub != uint32(sub) || p.Partition >= len(states) {
			continue
		}
		st, err := bus.DecodeSubState(p.State)
		if err != nil {
			return err
		}
		states[p.Partition] = st
	}
	return nil
}

// savedPlaces is where a savepoint of the job stands in the topic, by partition.
func (s *shadow) savedPlaces(sp *savepointEntry, h *checkpoint.Header) ([]bus.SubState, bool) {
	i := slices.IndexFunc(sp.Inputs, func(in savedInput) bool { return in.is(s.rt.bus.Spec(s.topic).Name, s.topic) })
	if i < 0 {
		return nil, false
	}
	return s.places(h, sp.Inputs[i].Sub)
}

// places is where a header says that a subscription stands, in every partition.
func (s *shadow) places(h *checkpoint.Header, sub bus.SubID) ([]bus.SubState, bool) {
	states := make([]bus.SubState, len(s.in.States))
	for p := range states {
		states[p].Partition = -1
	}
	err := placesIn(h, sub, states)
	return states, err == nil && !slices.ContainsFunc(states, func(st bus.SubState) bool { return st.Partition < 0 })
}

// basis finds the state that the definition begins with: the newest that was saved at or before the beginning, and that it can
// take over. Without one it begins with nothing.
func (s *shadow) basis(_ context.Context, topic string) error {
	s.setup = ShadowSetup{Job: s.o.Definition, Partitions: len(s.in.States), Out: s.took}
	s.starts = s.begin.states
	if len(s.def.steps) == 0 {
		s.result.State, s.whole = "the definition keeps none", true
		return nil
	}
	if s.o.WarmUp != nil {
		return s.warmUp(topic)
	}
	ok := false
	if name := s.o.From.Savepoint; name != "" {
		sp, h, err := s.rt.savepoint(name)
		if err != nil {
			return err
		}
		if ok = len(s.parts) == 1 || sp.LSN >= s.in.At; ok {
			if ok, err = s.fromSavepoint(sp, &h); err != nil {
				return err
			}
		}
	}
	if !ok {
		var err error
		if ok, err = s.ownBase(); err != nil {
			return err
		}
	}
	if !ok && !s.whole {
		var err error
		if ok, err = s.fromNewest(); err != nil {
			return err
		}
	}
	switch {
	case ok:
		s.whole = true
	case s.whole:
		s.result.State = "from nothing, as the job did"
	default:
		s.result.State = "from nothing"
		s.note("no savepoint or snapshot of the job's lies at or before the range with state that the definition can take over: " +
			"what it makes of records before and behind the range's beginning together differs, and is counted apart; a warm-up reads from further back")
	}
	return nil
}

func (s *shadow) warmUp(topic string) error {
	at, err := s.o.WarmUp.offsets(s.rt.bus, s.topic)
	if err != nil {
		return err
	}
	s.starts = nil
	for p, o := range at {
		if s.in.Fresh { // of what lies before, the job's state has nothing
			o = max(o, s.in.States[p].Next)
		}
		st, err := s.rt.bus.Browse(s.topic, p, bus.Start{At: min(o, s.begin.states[p].Next)})
		if err != nil {
			return err
		}
		s.starts = append(s.starts, st)
	}
	s.result.State = "from nothing, at " + offsetsOf(s.starts) + " of " + topic
	return nil
}

func offsetsOf(states []bus.SubState) string {
	var out []bus.Offset
	for _, st := range states {
		out = append(out, st.Next)
	}
	return "offset " + offsetsLine(out)
}

func offsetsLine(os []bus.Offset) string {
	text := ""
	for i, o := range os {
		if i > 0 {
			text += ","
		}
		text += o.String()
	}
	return text
}

// fits reports whether reading can begin at states, and comes to the beginning from there.
func (s *shadow) fits(states []bus.SubState) bool {
	for p, st := range states {
		if st.Next > s.begin.states[p].Next || st.Marks > max(s.begin.states[p].Marks, s.begin.lsn) {
			return false
		}
		if _, err := s.rt.bus.Browse(s.topic, p, bus.Start{At: st.Next}); err != nil {
			return false
		}
	}
	return true
}

func (s *shadow) fromSavepoint(sp *savepointEntry, h *checkpoint.Header) (bool, error) {
	loss, _, _ := lossOf(sp.Steps, s.def.steps)
	states, ok := s.savedPlaces(sp, h)
	if len(loss) > 0 || !ok || !s.fits(states) || sp.Bytes > int64(s.o.StateBytes) {
		return false, nil
	}
	into := &shadowState{of: map[string][][]byte{}}
	if err := s.rt.snapshots.readSaved(sp.Name, into); err != nil {
		return false, err
	}
	s.take(into, h, states)
	s.result.State = "of savepoint " + sp.Name
	return true, nil
}

// fromNewest takes the newest savepoint or snapshot that fits.
func (s *shadow) fromNewest() (bool, error) {
	var saved []*savepointEntry
	err := s.rt.do(func(c *core) error {
		for _, sp := range c.ledger.Savepoints {
			if sp.Job == s.e.Name && sp.LSN <= s.begin.lsn && sp.LSN >= s.in.At { // of before, the job's state was another
				saved = append(saved, sp)
			}
		}
		return nil
	})
	if err != nil {
		return false, err
	}
	loss, _, _ := lossOf(s.e.Steps, s.def.steps)
	for _, snap := range slices.Backward(s.e.Snapshots) {
		if len(loss) > 0 || snap.LSN > s.begin.lsn || snap.LSN < s.e.changed() || snap.Bytes > int64(s.o.StateBytes) {
			continue
		}
		h, err := s.rt.snapshots.header(snap.File)
		if err != nil {
			continue // a newer one has taken its place
		}
		states, ok := s.places(&h, s.in.Sub)
		into := &shadowState{of: map[string][][]byte{}}
		if !ok || !s.fits(states) || s.rt.snapshots.read(snap.File, into) != nil {
			continue
		}
		s.take(into, &h, states)
		s.result.State = fmt.Sprintf("of the job's snapshot at epoch %s", snap.Epoch)
		return true, nil
	}
	slices.SortFunc(saved, func(a, b *savepointEntry) int { return int(b.LSN - a.LSN) })
	for _, sp := range saved {
		h, err := s.rt.snapshots.savedHeader(sp.Name)
		if err != nil {
			continue // deleted meanwhile
		}
		if ok, err := s.fromSavepoint(sp, &h); ok || err != nil {
			return ok, err
		}
	}
	return false, nil
}

func (s *shadow) take(into *shadowState, h *checkpoint.Header, states []bus.SubState) {
	s.starts, s.setup.State = states, into.of
	s.setup.Restored = map[string]jobs.Watermark{}
	for _, st := range h.Steps {
		s.setup.Restored[st.Step] = jobs.Watermark(st.Watermark)
	}
}

// shadowState is a restorer that keeps what it is given, by step.
type shadowState struct{ of map[string][][]byte }

func (*shadowState) begin(wal.LSN, []dropEntry) {}
func (*shadowState) passing(wal.LSN)            {}

func (c *shadowState) applyState(body []byte) error {
	step, entries, err := cutStep(body)
	c.of[step] = append(c.of[step], entries)
	return err
}
