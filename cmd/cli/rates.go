package cli

import (
	"cmp"
	"slices"
	"time"

	"github.com/sidestream-dev/sidestream/runtime"
)

// load is what a process did between two looks at it.
type load struct {
	At     time.Time   `json:"at"`
	Server string      `json:"server"`
	Jobs   []jobLoad   `json:"jobs"`
	Topics []topicLoad `json:"topics"`
	Log    logLoad     `json:"log"`
}

// jobLoad is a job's part. Busy, Held and Idle are shares of its subtasks' time, of which the rest is unknown.
type jobLoad struct {
	Name       string    `json:"name"`
	State      string    `json:"state"`
	In         float64   `json:"in_per_second"` // records
	Out        float64   `json:"out_per_second"`
	Lag        int64     `json:"lag"`
	Busy       float64   `json:"busy"`
	Held       float64   `json:"held"` // held back by those behind it
	Idle       float64   `json:"idle"`
	StateBytes int64     `json:"state_bytes"`
	LastCommit time.Time `json:"last_commit,omitzero"`
}

type topicLoad struct {
	Name   string  `json:"name"`
	In     float64 `json:"in_per_second"` // records
	Bytes  float64 `json:"bytes_per_second"`
	Lag    int64   `json:"lag"` // of the slowest reader
	Reader string  `json:"reader,omitempty"`
	Full   float64 `json:"full"` // share of its limit that the slowest has not read
}

type logLoad struct {
	Bytes       float64 `json:"bytes_per_second"`
	Syncs       float64 `json:"syncs_per_second"`
	SyncNanos   int64   `json:"sync_ns"` // one fsync, on the average
	Size        int64   `json:"size_bytes"`
	Generations int     `json:"generations"`
}

// look is how a process stood at a moment.
type look struct {
	at time.Time
	st runtime.Status
}

// loadOf compares two looks. A job or topic that the first does not have counts from nothing; a process that was started
// between them likewise.
func loadOf(server string, was, is look) load {
	l := load{At: is.at, Server: server, Jobs: []jobLoad{}, Topics: []topicLoad{}}
	if !was.st.Started.Equal(is.st.Started) {
		was = look{at: is.st.Started}
	}
	seconds := is.at.Sub(was.at).Seconds()
	per := func(n int64) float64 {
		if seconds <= 0 || n < 0 {
			return 0
		}
		return float64(n) / seconds
	}
	for _, j := range is.st.Jobs {
		var b runtime.JobStatus
		if i := slices.IndexFunc(was.st.Jobs, func(o runtime.JobStatus) bool { return o.Name == j.Name && o.ID == j.ID }); i >= 0 {
			b = was.st.Jobs[i]
		}
		busy, held, idle := j.Counters.Busy-b.Counters.Busy, j.Counters.Held-b.Counters.Held, j.Counters.Idle-b.Counters.Idle
		all := float64(max(1, busy+held+idle))
		did, before := j.Counters.Total(), b.Counters.Total()
		l.Jobs = append(l.Jobs, jobLoad{Name: j.Name, State: string(j.State), In: per(did.In - before.In), Out: per(did.Out - before.Out), Lag: j.Lag,
			Busy: max(0, float64(busy)/all), Held: max(0, float64(held)/all), Idle: max(0, float64(idle)/all), StateBytes: j.StateBytes, LastCommit: j.LastCommit})
	}
	topics := map[string]topicReport{}
	for _, t := range was.st.Topics {
		topics[t.Name] = topicOf(t)
	}
	for _, t := range is.st.Topics {
		if t.Hidden {
			continue
		}
		now, b := topicOf(t), topics[t.Name]
		tl := topicLoad{Name: t.Name, In: per(now.written - b.written), Bytes: per(now.writtenBytes - b.writtenBytes), Lag: now.Lag}
		for _, s := range t.Subscriptions {
			if s.Lag == now.Lag {
				tl.Reader = s.Name
			}
		}
		if t.Limit > 0 {
			tl.Full = float64(now.Unread) / float64(t.Limit)
		}
		l.Topics = append(l.Topics, tl)
	}
	a, b := is.st.Log.Stats, was.st.Log.Stats
	l.Log = logLoad{Bytes: per(int64(a.Bytes - b.Bytes)), Syncs: per(int64(a.Syncs - b.Syncs)), Size: is.st.Log.Bytes, Generations: is.st.Log.Generations}
	if n := a.Syncs - b.Syncs; n > 0 && a.Syncs > b.Syncs {
		l.Log.SyncNanos = int64(a.SyncTime-b.SyncTime) / int64(n)
	}
	return l
}

// orders are by what jobs can be sorted, by the key that is pressed; what is most comes first, names from a to z.
var orders = map[byte]struct {
	name string
	less func(a, b jobLoad) int
}{
	'n': {"name", func(a, b jobLoad) int { return 0 }},
	's': {"state", func(a, b jobLoad) int { return cmp.Compare(a.State, b.State) }},
	'i': {"in", func(a, b jobLoad) int { return cmp.Compare(b.In, a.In) }},
	'o': {"out", func(a, b jobLoad) int { return cmp.Compare(b.Out, a.Out) }},
	'l': {"lag", func(a, b jobLoad) int { return cmp.Compare(b.Lag, a.Lag) }},
	'b': {"busy", func(a, b jobLoad) int { return cmp.Compare(b.Busy, a.Busy) }},
	'h': {"held", func(a, b jobLoad) int { return cmp.Compare(b.Held, a.Held) }},
}

// sortLoad orders the jobs of l by a key of orders.
func sortLoad(l load, by byte, reverse bool) {
	slices.SortStableFunc(l.Jobs, func(a, b jobLoad) int {
		c := cmp.Or(orders[by].less(a, b), cmp.Compare(a.Name, b.Name))
		if reverse {
			return -c
		}
		return c
	})
}
