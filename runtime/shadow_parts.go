package runtime

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/sidestream-dev/sidestream/bus"
	"github.com/sidestream-dev/sidestream/wal"
)

// A range may have been read in several stretches (past.go): by a replay from its middle on, and before that by what ran then.
// Each record of it is compared in the last stretch that read it, whose outputs are what the job gave of it in the end. So a
// range is cut into parts, of one stretch each, and each is compared by itself: with its own beginning and end in the job's
// outputs, and its own state, as the job's own state was another from there on.

// ShadowPart is a part of the range that the job read at one go.
type ShadowPart struct {
	Input   ReplaySpan `json:"input" doc:"what was compared: whole epochs of the job"`
	Replay  string     `json:"replay,omitempty" doc:"the replay whose outputs it is compared with; missing where the job read it without one"`
	Records int64      `json:"records"`
	State   string     `json:"state" doc:"what the definition began with"`
	Exact   bool       `json:"exact" doc:"the job's epochs say which outputs came of it"`
}

// shadowBox is a range of a topic, by partition.
type shadowBox struct{ from, to []bus.Offset }

func (b shadowBox) empty() bool {
	for p := range b.from {
		if b.from[p] < b.to[p] {
			return false
		}
	}
	return true
}

func (b shadowBox) String() string {
	return "offset " + offsetsLine(b.from) + " to " + offsetsLine(b.to)
}

// shadowPart is what one stretch has of the range. One that the job is at has Ended where it stands, and no Until.
type shadowPart struct {
	pastEntry
	shadowBox
	open bool // it ends where the stretch does
}

// stretches returns those of the topic, the newest first. One in which the job read something else besides is left out: what it
// gave came not of this topic alone.
func (s *shadow) stretches() []pastEntry {
	out := []pastEntry{{inputEntry: s.in, Ended: s.now()}}
	for _, p := range slices.Backward(s.e.Past) {
		other := func(o pastEntry) bool { return o.Sub != p.Sub && o.At < p.Until && p.At < o.Until }
		if p.Topic == s.topic && len(p.States) == len(s.in.States) && !slices.ContainsFunc(s.e.Past, other) {
			out = append(out, p)
		}
	}
	return out
}

// cutBox returns what a stretch has of a range, and what is left of that before and behind.
func cutBox(p pastEntry, w shadowBox) (in, before, behind shadowBox) {
	for i := range w.from {
		from, to, first, end := w.from[i], w.to[i], p.States[i].Next, max(p.States[i].Next, p.Ended[i].Next)
		lo := min(max(from, first), end)
		in.from, in.to = append(in.from, lo), append(in.to, min(max(to, lo), end))
		before.from, before.to = append(before.from, from), append(before.to, min(to, max(from, first)))
		behind.from, behind.to = append(behind.from, max(from, end)), append(behind.to, to)
	}
	return in, before, behind
}

// split finds the parts, in the order in which the job read them.
func (s *shadow) split(ctx context.Context, topic string) error {
	stretches := s.stretches()
	froms, err := s.froms()
	if err != nil {
		return err
	}
	all := shadowBox{from: froms, to: make([]bus.Offset, len(froms))}
	most := slices.Clone(all.to)
	for _, st := range stretches {
		for p := range most {
			most[p] = max(most[p], st.Ended[p].Next)
		}
	}
	copy(all.to, most)
	if s.o.To != nil {
		if all.to, err = s.o.To.offsets(s.rt.bus, s.topic); err != nil {
			return err
		}
	}
	want := []shadowBox{all}
	for _, st := range stretches {
		var left []shadowBox
		for _, w := range want {
			in, before, behind := cutBox(st, w)
			for _, b := range []shadowBox{before, behind} {
				if !b.empty() {
					left = append(left, b)
				}
			}
			if in.empty() {
				continue
			}
			ends := slices.EqualFunc(in.to, st.Ended, func(o bus.Offset, e bus.SubState) bool { return o >= e.Next })
			s.parts = append(s.parts, shadowPart{st, in, ends && (st.Until > 0 || s.o.To == nil || !slices.Equal(w.to, in.to))})
		}
		want = left
	}
	if len(s.parts) == 0 {
		return s.rt.nothingIn(ctx, topic) // and not "the same"
	}
	slices.SortStableFunc(s.parts, func(a, b shadowPart) int {
		return cmp.Or(cmp.Compare(a.At, b.At), cmp.Compare(a.from[0], b.from[0]))
	})
	s.explain(want, most)
	return nil
}

// explain says how the range was read, where that is not at one go.
func (s *shadow) explain(never []shadowBox, most []bus.Offset) {
	for _, w := range never {
		for p := range w.to {
			w.to[p] = max(w.from[p], min(w.to[p], most[p])) // where it has not come yet needs no words
		}
		switch {
		case w.empty():
		case s.e.PastGone:
			s.note("nothing is known of how the job read %s; it is not compared", w)
		default:
			s.note("the job never read %s, and gave nothing of it; it is not compared", w)
		}
	}
	for _, p := range s.parts {
		line := ""
		if p.Replay != "" {
			line = fmt.Sprintf("job %s was replayed from offset %s (%s): ", s.e.Name, offsetsLine(nexts(p.States)), p.Replay)
		}
		switch end := s.endedBy(p); {
		case end != "":
			s.note("%s%s is compared with what the job gave before %s, as it has not read that again", line, p.shadowBox, end)
		case len(s.parts) > 1 || line != "":
			s.note("%s%s is compared with what the job gave from there on", line, p.shadowBox)
		}
	}
}

// endedBy says what ended the stretch of a part; "" where the job is at it.
func (s *shadow) endedBy(p shadowPart) string {
	all := s.stretches()
	i := slices.IndexFunc(all, func(n pastEntry) bool { return n.At == p.Until })
	switch {
	case p.Until == 0:
		return ""
	case i < 0:
		return "it was changed"
	case all[i].Replay != "":
		return "the replay " + all[i].Replay
	case all[i].Sub == p.Sub:
		return "the end of that replay, behind which it went on at offset " + offsetsLine(nexts(all[i].States))
	}
	return "it was set to offset " + offsetsLine(nexts(all[i].States))
}

func nexts(states []bus.SubState) (out []bus.Offset) {
	for _, st := range states {
		out = append(out, st.Next)
	}
	return out
}

// errNoneCompared refuses a run that would compare nothing, and so find no difference.
var errNoneCompared = errors.New("has no output that can be compared")

// runParts compares each part by itself, and adds up.
func (s *shadow) runParts(ctx context.Context, _ string) (err error) {
	topic, run := s.rt.bus.Spec(s.topic).Name, 0
	left := int64(0)
	for _, p := range s.parts {
		left += p.records()
	}
	progress, done := s.o.Progress, int64(0)
	for _, p := range s.parts {
		one := *s
		one.in, one.until, one.part, one.result = p.inputEntry, p.Until, p, ShadowResult{}
		one.o.Show = s.o.Show - len(s.result.Differences)
		left -= p.records()
		if behind := left; progress != nil {
			one.o.Progress = func(d, all int64) { progress(done+d, done+all+behind) }
		}
		for _, step := range []func(context.Context, string) error{one.edges, one.basis, one.run} {
			if err = step(ctx, topic); err != nil {
				break
			}
		}
		switch {
		case errors.Is(err, errNoneCompared) && len(s.parts) > 1:
			s.note("%s is not compared: %v", p.shadowBox, err)
			continue
		case err != nil:
			return err
		}
		done += one.all
		s.add(&one, run == 0)
		run++
	}
	if run == 0 {
		return err
	}
	s.result.Job = s.o.Against
	s.result.Same = s.result.Missing == 0 && s.result.Extra == 0
	if s.result.Notes == nil {
		s.result.Notes = []string{}
	}
	return nil
}

func (p shadowPart) records() (n int64) {
	for i := range p.from {
		n += int64(p.to[i] - p.from[i])
	}
	return n
}

// add adds what came of a part.
func (s *shadow) add(one *shadow, first bool) {
	r, o := &s.result, one.result
	part := ShadowPart{Input: o.Input, Replay: one.in.Replay, Records: o.Records, State: o.State, Exact: o.Exact}
	r.Parts = append(r.Parts, part)
	for _, n := range o.Notes {
		if len(s.parts) > 1 {
			n = fmt.Sprintf("of %s: %s", one.part.shadowBox, n)
		}
		r.Notes = append(r.Notes, n)
	}
	if first {
		o.Parts, o.Notes = r.Parts, r.Notes
		o.Input.From, o.Input.To = slices.Clone(o.Input.From), slices.Clone(o.Input.To)
		*r = o
		return
	}
	for p := range r.Input.From {
		r.Input.From[p], r.Input.To[p] = min(r.Input.From[p], o.Input.From[p]), max(r.Input.To[p], o.Input.To[p])
	}
	if t := o.Input.First; t != nil && (r.Input.First == nil || t.Before(*r.Input.First)) {
		r.Input.First = t
	}
	if t := o.Input.Last; t != nil && (r.Input.Last == nil || t.After(*r.Input.Last)) {
		r.Input.Last = t
	}
	if r.State != o.State {
		r.State += "; then " + o.State
	}
	r.Records, r.WarmUp, r.Exact = r.Records+o.Records, r.WarmUp+o.WarmUp, r.Exact && o.Exact
	r.Equal, r.Missing, r.Extra, r.Apart = r.Equal+o.Equal, r.Missing+o.Missing, r.Extra+o.Extra, r.Apart+o.Apart
	r.Differences = append(r.Differences, o.Differences...)
	for i, out := range o.Outputs { // the same ones, as both are of the same job and definition
		was := &r.Outputs[i]
		was.Given, was.Gave, was.Equal = was.Given+out.Given, was.Gave+out.Gave, was.Equal+out.Equal
		was.Missing, was.Extra, was.Apart = was.Missing+out.Missing, was.Extra+out.Extra, was.Apart+out.Apart
		if was.Not != out.Not {
			s.note("output %s is compared in a part of the range only: %s", out.Output, cmp.Or(was.Not, out.Not))
			was.Not = ""
		}
	}
}

// stretchEnd is the last moment of the stretch that the part is of.
func (s *shadow) stretchEnd() (shadowEdge, error) {
	if s.until == 0 {
		return shadowEdge{states: slices.Clone(s.part.Ended), lsn: math.MaxInt64, exact: true}, nil // of its outputs up to s.ends
	}
	e := shadowEdge{states: slices.Clone(s.part.Ended), lsn: s.until, exact: true}
	for p, st := range e.states {
		if st.Marks > 0 {
			continue
		}
		lsn, err := s.lsnOf(p, st.Next)
		if err != nil {
			return e, err
		}
		e.states[p].Marks = lsn - min(lsn, 1)
	}
	return e, nil
}

// ownBase takes the state of the savepoint with which the job began the stretch.
func (s *shadow) ownBase() (bool, error) {
	if s.in.Base == "" || !slices.Equal(nexts(s.begin.states), nexts(s.in.States)) {
		return false, nil
	}
	sp, h, err := s.rt.savepoint(s.in.Base)
	if err != nil || sp.LSN > s.in.At {
		return false, nil // it was deleted, and perhaps made again
	}
	return s.fromSavepoint(sp, &h)
}

// lastOf is the last frame that may be of the stretch.
func (s *shadow) lastOf() wal.LSN {
	if s.until > 0 {
		return min(s.until, s.last)
	}
	return s.last
}
