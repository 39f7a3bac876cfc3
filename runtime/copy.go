package runtime

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sidestream-dev/sidestream/bus"
	"github.com/sidestream-dev/sidestream/jobs"
)

// A replay into another topic is a job of its own: it reads a range of one topic and writes another, with its places and its
// records in the same epochs, so that each is there once over a crash. It is at a replay (replay.go) from its first frame on,
// and stays at it: its readers stop at the ends, and once an epoch is durable that holds all before them the job is removed.
// A process that begins in between finds the job, still at its replay, and goes on.

const copyLook = 50 * time.Millisecond

// CopyOptions say what is copied.
type CopyOptions struct {
	From   Place
	To     *Place  // nil: to the topic's end as of now
	Rate   float64 // records a second; 0 is as fast as can be
	DryRun bool
}

// ReplayInto adds def, a job that reads topic alone and writes another, to read a range of it once. It returns when the job is
// there; that goes by itself when it is done. Its records have the replay's id, which is its name, in ReplayHeader.
func (rt *Runtime) ReplayInto(ctx context.Context, def *jobs.Job, topic string, o CopyOptions) (res ReplayResult, err error) {
	id, ok := rt.bus.TopicByName(topic)
	if !ok {
		return res, missing("topic", topic, ErrNoTopic)
	}
	for _, n := range def.Outputs() {
		if n.Output.Sink == nil && n.Output.Topic == topic {
			return res, fmt.Errorf("topic %s cannot be replayed into itself: it would read what it writes", topic)
		}
		res.Outputs = append(res.Outputs, n.Output.Name+" (bus:"+n.Output.Topic+")")
	}
	froms, err := o.From.offsets(rt.bus, id)
	if err != nil {
		return res, err
	}
	end := Place{Latest: true}
	if o.To != nil {
		end = *o.To
	}
	tos, err := end.offsets(rt.bus, id)
	if err != nil {
		return res, err
	}
	span := ReplaySpan{Topic: topic}
	for p := range froms {
		if _, err := rt.bus.Browse(id, p, bus.Start{At: froms[p]}); err != nil {
			return res, err
		}
		tos[p] = max(froms[p], min(tos[p], rt.bus.Next(id, p)))
		records, bytes := rt.bus.Span(id, p, froms[p], tos[p])
		res.Records, res.Bytes = res.Records+records, res.Bytes+bytes
		span.From, span.To = append(span.From, froms[p]), append(span.To, tos[p])
	}
	spans := []ReplaySpan{span}
	rt.times(ctx, spans)
	res.Job, res.Inputs = def.Name, spans
	if err := rt.do(func(c *core) error { res.Notes = othersIn(c, def); return nil }); err != nil {
		return res, err
	}
	if o.DryRun {
		return res, nil
	}
	if res.Records == 0 {
		return res, rt.nothingIn(ctx, topic)
	}
	if _, err := rt.entry(def.Name); !errors.Is(err, ErrNoJob) {
		return res, errors.Join(err, fmt.Errorf("there is a job %s already", def.Name))
	}
	a := &application{rt: rt, options: ApplyOptions{Probation: -1}}
	a.begins = func(r *registration, jc *jobChange) error {
		in := &jc.Inputs[0]
		if in.Topic != id || len(jc.Inputs) != 1 {
			return fmt.Errorf("job %s reads something else", def.Name)
		}
		if in.States, err = (Place{Offset: new(bus.Offset)}).states(r.core.bus, id, froms); err != nil {
			return err // what is to be copied must be there, all of it
		}
		mark := replayMark{ID: def.Name, Copy: true, Rate: o.Rate}
		for p, at := range tos {
			mark.Ends = append(mark.Ends, replayEnd{Sub: in.Sub, Partition: p, At: at})
		}
		jc.Replay, err = json.Marshal(mark)
		return err
	}
	if _, err := rt.apply(ctx, a, []Definition{{Job: def, Origin: OriginAPI}}, []string{def.Name}); err != nil {
		return res, err
	}
	res.ID = def.Name
	rt.tell(Event{Kind: EventReplay, Job: def.Name, Text: fmt.Sprintf("%s: %d records of topic %s", res.ID, res.Records, topic)})
	rt.spawn(func() { rt.endCopy(def.Name) })
	return res, nil
}

// othersIn says what a copy's topics have already, and who writes them: a topic is nobody's, so that a copy may be mixed with what
// others write.
func othersIn(c *core, def *jobs.Job) (notes []string) {
	for _, n := range def.Outputs() {
		id, ok := c.bus.TopicByName(n.Output.Topic)
		if n.Output.Sink != nil || !ok {
			continue
		}
		records := int64(0)
		for p := range c.bus.Partitions(id) {
			records += int64(c.bus.Next(id, p) - c.bus.First(id, p))
		}
		var writers []string
		for _, j := range c.ledger.sorted() {
			if j.Name != def.Name && j.Phase != PhaseEnded && slices.ContainsFunc(j.Outputs, func(o outputEntry) bool { return o.Topic == id }) {
				writers = append(writers, j.Name)
			}
		}
		switch by := strings.Join(writers, ", "); {
		case by != "":
			notes = append(notes, fmt.Sprintf("topic %s, with %d records, is written by job %s too: copies stand among its records, and those that are older than its watermark are late to windows; the header %s tells them apart",
				n.Output.Topic, records, by, ReplayHeader))
		case records > 0:
			notes = append(notes, fmt.Sprintf("topic %s has %d records already; the copies stand behind them", n.Output.Topic, records))
		}
	}
	return notes
}

// endCopies looks after the copies that an earlier process began.
func (rt *Runtime) endCopies(entries map[string]*jobEntry) {
	for name, e := range entries {
		if mark, err := replaying(&e.header); err == nil && mark != nil && mark.Copy {
			rt.spawn(func() { rt.endCopy(name) })
		}
	}
}

// endCopy removes a copy when it is done. One that has failed, or rests, stays as it is.
func (rt *Runtime) endCopy(name string) {
	told := false
	for rt.sleep(rt.changes.ctx, copyLook) == nil {
		e, err := rt.entry(name)
		if errors.Is(err, ErrNoJob) {
			return
		}
		if err != nil {
			continue // the process is ending, which is seen above
		}
		mark, err := replaying(&e.header)
		if err != nil || mark == nil || !mark.Copy {
			return // it was made something else
		}
		if _, left, err := rt.Replaying(name); err != nil || left > 0 || e.Phase != PhaseActive || e.LSN > rt.log.Durable() {
			continue
		}
		if !told { // before it goes: who sees it gone knows by that that it was done
			told = true
			rt.tell(Event{Kind: EventReplayed, Job: name, Text: mark.ID})
		}
		if _, err := rt.RemoveJob(rt.changes.ctx, name, RemoveOptions{}); err == nil {
			return
		}
	}
}

// recordRate spreads records over time; a nil one does not.
type recordRate struct {
	rate  float64
	have  float64
	since time.Time
}

func newRecordRate(rate float64) *recordRate {
	if rate <= 0 {
		return nil
	}
	return &recordRate{rate: rate}
}

// allow returns how many records may be taken now, at most n.
func (p *recordRate) allow(now time.Time, n int) int {
	if p == nil {
		return n
	}
	if p.since.IsZero() {
		p.since, p.have = now, 1
	}
	p.have = min(p.have+now.Sub(p.since).Seconds()*p.rate, max(1, p.rate/10)) // no more at once than a tenth of a second's
	p.since = now
	return min(n, int(p.have))
}

func (p *recordRate) took(n int) {
	if p != nil {
		p.have -= float64(n)
	}
}

// in returns when the next record may be taken; 0 is now.
func (p *recordRate) in() time.Duration {
	if p == nil || p.have >= 1 {
		return 0
	}
	return max(time.Millisecond, time.Duration((1-p.have)/p.rate*float64(time.Second)))
}
