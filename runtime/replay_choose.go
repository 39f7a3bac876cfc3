package runtime

import (
	"cmp"
	"slices"

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
