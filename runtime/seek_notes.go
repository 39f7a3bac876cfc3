package runtime

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sidestream-dev/sidestream/bus"
	"github.com/sidestream-dev/sidestream/jobs"
)

// skipNotes say, of subscriptions that are set forward, how many records they pass over that they have not read: nobody did that by
// mistake who was told, for they are not counted as lost.
func (rt *Runtime) skipNotes(topic string, moved []Moved) {
	id, ok := rt.bus.TopicByName(topic)
	if !ok {
		return
	}
	for i := range moved {
		m, n := &moved[i], int64(0)
		for p := range min(len(m.From), len(m.To)) {
			skipped, _ := rt.bus.Span(id, p, m.From[p], m.To[p])
			n += skipped
		}
		if n > 0 {
			m.Notes = append(m.Notes, fmt.Sprintf("%s passes over %d records that it has not read", m.Subscription, n))
		}
	}
}

// lateNotes say, of subscriptions that are set back, that windows which are over take none of what is read again: a seek keeps the
// watermark, a replay does not.
func (rt *Runtime) lateNotes(job, topic string, to Place, moved []Moved) {
	j, id := rt.findJob(job), bus.TopicID(0)
	if j != nil {
		id, _ = rt.bus.TopicByName(topic)
	}
	for i := range moved {
		m := &moved[i]
		if j == nil || m.watermark == bus.NoWatermark || len(m.From) != len(m.To) {
			continue
		}
		first, n, from := bus.NoTime, int64(0), ""
		for p := range m.To {
			if m.To[p] >= m.From[p] {
				continue
			}
			records, _ := rt.bus.Span(id, p, m.To[p], m.From[p])
			n, from = n+records, "offset:"+m.To[p].String()
			err := rt.eachTime(id, p, m.To[p], min(m.From[p], m.To[p]+shadowChunk), func(t int64) {
				if t != bus.NoTime && (first == bus.NoTime || t < first) {
					first = t
				}
			})
			if err != nil {
				return // it has gone meanwhile
			}
		}
		if len(m.To) > 1 { // no one offset is that of all of them
			from = fromTime(first, to)
		}
		var over []*jobs.Node
		for _, n := range j.def.Nodes {
			if size := n.Span.Milliseconds(); size > 0 && first != bus.NoTime && windowOf(first, size)+size-1 <= m.watermark {
				over = append(over, n)
			}
		}
		if len(over) > 0 {
			m.Notes = append(m.Notes, fmt.Sprintf("%s keeps its watermark, %s, behind which windows of %s are over: of the %d records that it reads again, those of such windows are %s, "+
				"but for what an allowed lateness still takes. A replay sets state and watermark back too: replay %s --from %s --job %s",
				m.Subscription, jobs.Time(m.watermark), windowsText(over), n, lateText(j.def, over), topic, from, job))
		}
	}
}

// fromTime is the place from which a replay reads all that is read again from the places of a seek, in every partition: the first
// event time there. It may begin before them.
func fromTime(first int64, to Place) string {
	from := jobs.Time(first).String()
	if p, err := ParsePlace(from, time.Time{}, false); to == (Place{}) || err != nil || p.Time.IsZero() {
		return "earliest"
	}
	return from
}

// windowsText names windows.
func windowsText(nodes []*jobs.Node) string {
	var names []string
	for _, n := range nodes {
		names = append(names, fmt.Sprintf("%s (%v)", n.ID, n.Span))
	}
	return strings.Join(names, ", ")
}

// lateText says what becomes of the records that are late to windows.
func lateText(def *jobs.Job, nodes []*jobs.Node) string {
	var all, each []string
	for _, n := range nodes {
		to := strings.Join(takesLate(def, n), " and ")
		all = append(all, to)
		if to == "" {
			each = append(each, fmt.Sprintf("those to %s are dropped", n.ID))
		} else {
			each = append(each, fmt.Sprintf("those to %s go to %s", n.ID, to))
		}
	}
	switch {
	case len(slices.Compact(all)) > 1:
		return "late: " + strings.Join(each, ", ")
	case all[0] == "":
		return "late and dropped"
	}
	return "late: they go to " + all[0]
}

// takesLate names what takes the records that are late to a window; none drops them.
func takesLate(def *jobs.Job, window *jobs.Node) (names []string) {
	const side = 1 // of a step's ports: see jobs.Attach
	for _, n := range def.Nodes {
		for _, e := range n.In {
			switch {
			case e.From != window || e.Port != side:
			case n.Output != nil:
				names = append(names, "output "+n.Output.Name)
			default:
				names = append(names, "step "+n.ID)
			}
		}
	}
	return names
}
