package runtime

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/sidestream-dev/sidestream/bus"
	"github.com/sidestream-dev/sidestream/checkpoint"
)

// choose finds the newest savepoint of the job that lies at or before where the replay begins, in every topic, and whose state
// the definition can take over: with it nothing is missing of what records before and behind the beginning make together.
// Where there is none the job begins with nothing.
func (r *replay) choose(job string) error {
	froms := map[string][]bus.Offset{} // by step
	topics := map[string]string{}
	for _, n := range r.def.Nodes {
		if n.Source == nil || outside(n) {
			continue
		}
		id, ok := r.rt.bus.TopicByName(n.Source.Topic)
		if !ok || id != r.topic && r.options.From.Offset != nil {
			return nil // which is refused
		}
		at, err := r.options.From.offsets(r.rt.bus, id)
		if err != nil {
			return err
		}
		froms[n.ID], topics[n.ID] = at, n.Source.Topic
	}
	var saved []*savepointEntry
	err := r.rt.do(func(c *core) error {
		for _, sp := range c.ledger.Savepoints {
			if loss, _, _ := lossOf(sp.Steps, r.def.steps); sp.Job == job && len(loss) == 0 {
				saved = append(saved, sp)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	slices.SortFunc(saved, func(a, b *savepointEntry) int { return cmp.Compare(b.LSN, a.LSN) })
	for _, sp := range saved {
		h, err := r.rt.snapshots.savedHeader(sp.Name)
		if err != nil {
			continue // deleted meanwhile
		}
		fits := true
		for step, at := range froms {
			fits = fits && r.before(sp, &h, step, topics[step], at)
		}
		if fits {
			r.saved, r.header = sp, h
			return nil
		}
	}
	return nil
}

// before reports whether a savepoint stands at or before places in a topic, in every partition, where all is still there.
func (r *replay) before(sp *savepointEntry, h *checkpoint.Header, step, topic string, at []bus.Offset) bool {
	id, ok := r.rt.bus.TopicByName(topic)
	if !ok {
		return false
	}
	saved, ok, _ := sp.input(step, topic, id)
	if !ok {
		return false
	}
	states := make([]bus.SubState, len(at))
	for p := range states {
		states[p].Partition = -1
	}
	if placesIn(h, saved.Sub, states) != nil {
		return false
	}
	for p, st := range states {
		if st.Partition < 0 || st.Next > at[p] {
			return false
		}
		if _, err := r.rt.bus.Browse(id, p, bus.Start{At: st.Next}); err != nil {
			return false
		}
	}
	return true
}

// earlierNote says that a replay which begins with a savepoint reads from there, where that lies before the place asked for, and
// how many records that is more.
func (r *replay) earlierNote() error {
	if r.saved == nil || r.options.From.Savepoint != "" {
		return nil
	}
	for _, span := range r.result.Inputs {
		id, ok := r.rt.bus.TopicByName(span.Topic)
		if !ok || id != r.topic {
			continue
		}
		asked, err := r.options.From.offsets(r.rt.bus, id)
		if err != nil {
			return err
		}
		more := int64(0)
		for p := range min(len(asked), len(span.From)) {
			n, _ := r.rt.bus.Span(id, p, span.From[p], max(asked[p], span.From[p]))
			more += n
		}
		if more > 0 {
			r.result.Notes = append(r.result.Notes, fmt.Sprintf("it begins with savepoint %s, at offset %s of topic %s: %d records before %s are read again too, and what they give repeats. With --from-nothing it begins at %s, with no state",
				r.saved.Name, offsetsList(span.From), span.Topic, more, r.options.From, r.options.From))
		}
	}
	return nil
}

func offsetsList(at []bus.Offset) string {
	var out []string
	for _, o := range at {
		out = append(out, o.String())
	}
	return strings.Join(out, ",")
}

// restNote says that the job is set back and reads nothing of it yet.
func (r *replay) restNote() {
	if r.rests != "" {
		r.result.Notes = append(r.result.Notes, fmt.Sprintf("job %s is %s, and reads nothing until it goes on: job resume %s", r.result.Job, r.rests, r.result.Job))
	}
}

// skipNote says what a replay that ends before the job's place leaves of state there: what the job had is gone, and what it has
// instead knows nothing of the records between.
func (r *replay) skipNote() {
	if r.skips == 0 || len(r.def.steps) == 0 {
		return
	}
	var windows, others []string
	for _, n := range r.def.Nodes {
		switch i := slices.IndexFunc(r.def.steps, func(s stepEntry) bool { return s.ID == n.ID }); {
		case i < 0:
		case n.Span > 0:
			windows = append(windows, fmt.Sprintf("%s (%v)", n.ID, n.Span))
		default:
			others = append(others, n.ID)
		}
	}
	var what []string
	if len(windows) > 0 {
		what = append(what, fmt.Sprintf("of windows of %s that are open there only what comes from there on is counted", strings.Join(windows, ", ")))
	}
	if len(others) > 0 {
		what = append(what, fmt.Sprintf("the state of %s lacks what lies between", strings.Join(others, ", ")))
	}
	r.result.Notes = append(r.result.Notes, fmt.Sprintf("behind its end the job goes on from where it was, %d records further on, with the state that the replay leaves: %s. "+
		"Without an end it reads on to there, and nothing is missing", r.skips, strings.Join(what, "; ")))
}
