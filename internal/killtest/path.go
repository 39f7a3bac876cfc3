package killtest

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/sidestream-dev/sidestream/bus"
	"github.com/sidestream-dev/sidestream/runtime"
)

// reader is the definition of a job that reads the numbers and gives out, in the order in which it reads them, the place of each to
// the topic path-NAME; and to wins-NAME how many there are in each window of event time, which is its state.
func reader(name string, version int) string {
	return fmt.Sprintf(`version: 1
job: %s
source: {bus: {topic: numbers, start: earliest}}
steps:
  - {id: path, side: {if: 'true', to: path, map: {o: source.offset, v: %d}}}
  - {id: all, key_by: '"all"'}
  - {id: wins, window: {tumbling: 100ms, aggregate: {n: count()}}}
outputs:
  path: {bus: path-%s}
  main: {bus: wins-%s}
`, name, version, name, name)
}

// step is one record of a path: where its reader was, and of which replay.
type step struct {
	at      bus.Offset
	version int
	replay  string
}

// jump is a change of a reader's place.
type jump struct {
	to     bus.Offset
	from   int64  // as the answer said; -1 is not known
	sure   bool   // it has happened; else perhaps
	replay bool   // what is read again up to where the reader was is a replay
	id     string // its id, "" is not known
}

func (j jump) String() string {
	return fmt.Sprintf("{%d→%s sure=%v replay=%v %s}", j.from, j.to, j.sure, j.replay, j.id)
}

// walk is where a reader may be: which jumps are behind it, where it is, and at which replay.
type walk struct {
	jumps int
	at    bus.Offset
	until bus.Offset // of the replay; 0 where it is at none
	id    string     // of the replay; "?" until a record says it
}

// follows returns "" if a path is that of a reader that began at 0, took each record once in order, jumped as it was told and as
// often, and ended at end.
func follows(path []step, jumps []jump, end bus.Offset) string {
	open := func(set map[walk]bool) map[walk]bool { // what may have happened without a record
		queue := make([]walk, 0, len(set))
		for w := range set {
			queue = append(queue, w)
		}
		for len(queue) > 0 {
			w := queue[0]
			queue = queue[1:]
			add := func(n walk) {
				if !set[n] {
					set[n] = true
					queue = append(queue, n)
				}
			}
			if w.until > 0 && w.at >= w.until {
				add(walk{jumps: w.jumps, at: w.at})
			}
			if w.jumps == len(jumps) {
				continue
			}
			j := jumps[w.jumps]
			if !j.sure {
				add(walk{jumps: w.jumps + 1, at: w.at, until: w.until, id: w.id})
			}
			if j.from >= 0 && bus.Offset(j.from) != w.at {
				continue
			}
			n := walk{jumps: w.jumps + 1, at: j.to}
			if j.replay {
				if n.until, n.id = w.at, j.id; n.id == "" {
					n.id = "?"
				}
			}
			add(n)
		}
		return set
	}
	set := open(map[walk]bool{{}: true})
	for i, s := range path {
		next := map[walk]bool{}
		for w := range set {
			inside := w.until > 0 && w.at < w.until
			if w.at != s.at || inside != (s.replay != "") || inside && w.id != "?" && w.id != s.replay {
				continue
			}
			if w.at++; inside {
				w.id = s.replay
			}
			next[w] = true
		}
		if len(next) == 0 {
			from := max(0, i-2)
			return fmt.Sprintf("record %d of its %d cannot be: behind %v is %v (it may have been at %v of %d jumps: %v)", i, len(path), path[from:i], path[i:min(i+3, len(path))],
				some(set), len(jumps), jumps)
		}
		set = open(next)
	}
	for w := range set {
		if w.jumps == len(jumps) && w.at == end {
			return ""
		}
	}
	return fmt.Sprintf("its %d records end too early: it may be at %v, with %d jumps %v, and the topic ends at %s", len(path), some(set), len(jumps), jumps, end)
}

// some returns a few of a set.
func some(set map[walk]bool) (out []walk) {
	for w := range set {
		if out = append(out, w); len(out) == 3 {
			break
		}
	}
	return out
}

// path reads what a reader gave out.
func (w *Work) path(tb testing.TB, name string) (path []step) {
	tb.Helper()
	w.read(tb, "path-"+name, func(r runtime.TopicRecord) {
		var v struct {
			O bus.Offset `json:"o"`
			V int        `json:"v"`
		}
		if err := json.Unmarshal(r.Value, &v); err != nil {
			tb.Fatalf("%s: %v", r.Value, err)
		}
		path = append(path, step{at: v.O, version: v.V, replay: r.Headers[runtime.ReplayHeader]})
	})
	return path
}

// read calls f with each record of a topic, from the oldest that is there on.
func (w *Work) read(tb testing.TB, topic string, f func(runtime.TopicRecord)) {
	tb.Helper()
	o, err := runtime.OpenOffline(w.Dir)
	if err != nil {
		tb.Fatal(err)
	}
	for _, t := range o.Topics() {
		if t.Name != topic {
			continue
		}
		next := slices.Clone(t.Partitions)
		for p := range next {
			first := next[p].First
			err := o.Tail(context.Background(), runtime.Tail{Topic: topic, Partition: p, From: &first}, func(r runtime.TopicRecord) error {
				if r.Offset != first {
					return fmt.Errorf("offset %s where %s is due", r.Offset, first)
				}
				first++
				f(r)
				return nil
			})
			if err != nil || first != next[p].Next {
				tb.Fatalf("topic %s/%d: it ends at %s, which should be %s: %v", topic, p, first, next[p].Next, err)
			}
		}
		return
	}
	tb.Fatalf("there is no topic %s", topic)
}

// end is the offset behind a topic's last record.
func (w *Work) end(tb testing.TB, topic string) (end bus.Offset) {
	tb.Helper()
	w.read(tb, topic, func(r runtime.TopicRecord) { end = r.Offset + 1 })
	return end
}

// windows reads what a reader counted, by the replay that it was in and the window's start, and what it should have.
func (w *Work) windows(tb testing.TB, name string) (got map[string]map[string][]int, want map[string]int) {
	tb.Helper()
	got, want = map[string]map[string][]int{}, map[string]int{}
	w.read(tb, numbersTopic, func(r runtime.TopicRecord) {
		if r.Time == nil {
			tb.Fatalf("%+v has no time", r)
		}
		want[windowStart(*r.Time)]++
	})
	w.read(tb, "wins-"+name, func(r runtime.TopicRecord) {
		var v struct {
			N      int
			Window struct{ Start string }
		}
		if err := json.Unmarshal(r.Value, &v); err != nil {
			tb.Fatalf("%s: %v", r.Value, err)
		}
		id := r.Headers[runtime.ReplayHeader]
		if got[id] == nil {
			got[id] = map[string][]int{}
		}
		got[id][v.Window.Start] = append(got[id][v.Window.Start], v.N)
	})
	return got, want
}

func windowStart(t time.Time) string {
	return t.UTC().Truncate(windowSpan).Format("2006-01-02T15:04:05.000Z")
}
