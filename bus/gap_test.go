package bus

import (
	"context"
	"testing"
)

// TestStoreBehindGap: a subscription that had passed all before a repair left offsets out goes on behind them, when what
// was written since is in the topic store and what it had passed is gone; so does one that begins at that offset.
func TestStoreBehindGap(t *testing.T) {
	r := newRig(t, Config{MemoryBytes: 1, Store: StoreConfig{Dir: t.TempDir()}})
	r.define(1, TopicSpec{Name: "a", Retention: Retention{MaxBytes: KeepNothing}})
	states := r.subscribe(1, 1, Start{Earliest: true})
	r.epoch([]Publication{pub(1, 0, "x", "y", "z")})
	rd := r.NewReader(1, 1, states, func() {})
	drain(t, rd, 10)
	states = rd.States()
	r.must(rd.Close())
	r.Passed(1, states, true)
	r.Raise(100)
	r.rotate()
	r.epoch([]Publication{pub(1, 0, "v", "w")})
	upTo := r.rotate()
	r.durable()

	plan, err := r.PlanCopy(upTo)
	r.must(err)
	ch, err := plan.Run(context.Background(), nil)
	r.must(err)
	r.ApplyStore(ch)
	r.Dropped(upTo)
	r.log.drop(upTo)

	begun, err := r.Begin(1, Start{At: 3})
	r.must(err)
	for what, st := range map[string][]SubState{"that stood there": states, "that begins there": begun} {
		rd := r.NewReader(1, 1, st, func() {})
		equal(t, "a reader "+what, drain(t, rd, 10), []string{"0:103=v", "0:104=w"})
		r.must(rd.Close())
	}
}
