package bus

import (
	"fmt"
	"slices"
	"strings"

	"github.com/sidestream-dev/sidestream/wal"
)

// modelFloor is whose floor it is.
type modelFloor struct {
	sub       SubID
	partition int
}

func (h *history) noteFloors(drops []Drop) {
	for _, d := range drops {
		h.floors[modelFloor{d.Sub, d.Partition}] = d.To
	}
}

// dropOldest lets go what is due behind an epoch, as the runtime does.
func (h *history) dropOldest(pubs []Publication) {
	drops := h.bus.DropsDue(pubs)
	if len(drops) == 0 {
		return
	}
	for _, d := range drops {
		was := h.floors[modelFloor{d.Sub, d.Partition}]
		newest := slices.IndexFunc(pubs, func(p Publication) bool { return p.Topic == d.Topic && p.Partition == d.Partition })
		if d.To <= was || d.From < was || d.To > h.next[d.Topic][d.Partition] || newest >= 0 && d.To > pubs[newest].Base || d.Records != int64(d.To-d.From) {
			h.fatalf("the drop %+v, where the floor is %s", d, was)
		}
	}
	h.noteFloors(drops)
	m := modelFrame{drops: drops}
	if h.fault == "a drop is not in the log" {
		m = modelFrame{}
	}
	h.frame(m, wal.Section{Kind: 0x30})
	if h.fault == "a floor lies behind what its frame says" {
		drops = slices.Clone(drops)
		drops[0].To++
	}
	h.bus.ApplyDrops(drops)
	for _, d := range drops {
		if more := len(h.next[d.Topic]) == 1 && slices.ContainsFunc(h.bus.DropsDue(pubs), func(o Drop) bool { return o.Sub == d.Sub && o.Partition == d.Partition }); more {
			h.fatalf("behind %+v the same is due again", d)
		}
	}
	h.count["drops of the oldest"]++
}

// goOver lets a model go over what was let go for its subscription, if its reader has: all of it, to the floor, and counted.
func (h *history) goOver(tr *testReader, m *modelReader, st SubState) {
	if st.Dropped == m.dropped {
		return
	}
	floor := h.floors[modelFloor{tr.sub, m.partition}]
	if floor <= m.next || st.Dropped != m.dropped+uint64(floor-m.next) {
		h.fatalf("subscription %d, partition %d has gone over %d records at offset %s, where the floor is %s", tr.sub, m.partition, st.Dropped-m.dropped, m.next, floor)
	}
	h.count["records dropped"] += int(floor - m.next)
	m.next, m.dropped = floor, st.Dropped
	for _, g := range slices.Backward(h.gens) {
		if h.offsetAt(m.topic, m.partition, g) > floor {
			continue
		}
		for m.lsn < g { // the catalog says what these marks came to
			c := m.clone()
			if what := h.take(&c); c.lsn >= g {
				break
			} else if !strings.HasPrefix(what, "marks") {
				panic(fmt.Sprintf("%q lies before a floor", what))
			}
			*m = c
		}
		if m.lsn < g {
			m.lsn, m.item, m.record = g, 0, 0
		}
		return
	}
}
