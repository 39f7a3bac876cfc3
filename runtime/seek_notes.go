package runtime

import (
	"fmt"
	"strings"

	"github.com/sidestream-dev/sidestream/bus"
	"github.com/sidestream-dev/sidestream/jobs"
)

// lateNotes say, of subscriptions that are set back, that windows which are over take none of what is read again: a seek keeps the
// watermark, a replay does not.
func (rt *Runtime) lateNotes(job, topic string, moved []Moved) {
	j, id := rt.findJob(job), bus.TopicID(0)
	if j != nil {
		id, _ = rt.bus.TopicByName(topic)
	}
	for i := range moved {
		m := &moved[i]
		if j == nil || m.watermark == bus.NoWatermark || len(m.From) != len(m.To) {
			continue
		}
		first, n, to := bus.NoTime, int64(0), ""
		for p := range m.To {
			if m.To[p] >= m.From[p] {
				continue
			}
			records, _ := rt.bus.Span(id, p, m.To[p], m.From[p])
			n, to = n+records, m.To[p].String()
			err := rt.eachTime(id, p, m.To[p], min(m.From[p], m.To[p]+shadowChunk), func(t int64) {
				if t != bus.NoTime && (first == bus.NoTime || t < first) {
					first = t
				}
			})
			if err != nil {
				return // it has gone meanwhile
			}
		}
		if len(m.To) > 1 {
			to = "PLACE"
		} else {
			to = "offset:" + to
		}
		var over []string
		for _, n := range j.def.Nodes {
			if size := n.Span.Milliseconds(); size > 0 && first != bus.NoTime && windowOf(first, size)+size-1 <= m.watermark {
				over = append(over, fmt.Sprintf("%s (%v)", n.ID, n.Span))
			}
		}
		if len(over) > 0 {
			m.Notes = append(m.Notes, fmt.Sprintf("%s keeps its watermark, %s, behind which windows of %s are over: of the %d records that it reads again, those of such windows are late and dropped, "+
				"but for what an allowed lateness still takes. A replay sets state and watermark back too: replay %s --from %s --job %s",
				m.Subscription, jobs.Time(m.watermark), strings.Join(over, ", "), n, topic, to, job))
		}
	}
}
