package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/sidestream-dev/sidestream/runtime"
)

const (
	catchUpWorth = 1000                   // records to catch up from which on that is told
	catchUpDrawn = 250 * time.Millisecond // between two looks at it
	catchUpSaid  = 5 * time.Second        // between two lines of it, where nothing is drawn
)

// sayCaughtUp tells how far the jobs are with what stood on the bus for them when the process began, until they have read it
// or ctx ends: by a bar on a terminal, else by a line now and then.
func (p *process) sayCaughtUp(ctx context.Context) {
	c := catchingUp{began: time.Now()}
	c.said = c.began
	tick := time.NewTicker(catchUpDrawn)
	defer tick.Stop()
	defer p.line.end()
	p.line.rename("catching up")
	for last := false; ; {
		done, of, over := c.look(p.rt.Status())
		switch now := time.Now(); {
		case of < catchUpWorth:
			return
		case over:
			p.line.end()
			p.logger.Info("caught up", "records", of, "seconds", fmt.Sprintf("%.1f", now.Sub(c.began).Seconds()))
			return
		case last:
			return
		case p.line.shown():
			p.line.at(done, of, fmt.Sprintf("of %d records", of))
		case now.Sub(c.said) >= catchUpSaid:
			c.said = now
			p.logger.Info("catching up", "read", done, "of", of)
		}
		select {
		case <-ctx.Done():
			last = true // it may be over since
		case <-tick.C:
		}
	}
}

// catchingUp remembers what each subscription had written for it at the beginning.
type catchingUp struct {
	began, said time.Time
	parts       map[string]waitingFor
}

// waitingFor is what a subscription had to read, and of how many records in its topic's life that is the end.
type waitingFor struct{ records, until int64 }

// look returns how many of the records that were to be read at the first look are read, and whether all are. A subscription
// that is gone since has read all; one of a job that does not go on by itself is not counted any more.
func (c *catchingUp) look(st runtime.Status) (done, of int64, over bool) {
	first := c.parts == nil
	if first {
		c.parts = map[string]waitingFor{}
	}
	rests := map[string]bool{}
	for _, j := range st.Jobs {
		rests[j.Name] = j.State == runtime.StateStopped || j.State == runtime.StatePaused || j.State == runtime.StateFailed
	}
	left := map[string]int64{}
	for _, t := range st.Topics {
		written := int64(0)
		for _, p := range t.Partitions {
			written += int64(p.Next)
		}
		for _, s := range t.Subscriptions {
			if job, _, _ := strings.Cut(s.Name, "/"); rests[job] {
				delete(c.parts, s.Name)
				continue
			}
			if first && s.Lag > 0 {
				c.parts[s.Name] = waitingFor{s.Lag, written}
			}
			if w, ok := c.parts[s.Name]; ok {
				left[s.Name] = min(w.records, max(0, s.Lag-(written-w.until)))
			}
		}
	}
	over = true
	for name, w := range c.parts {
		of += w.records
		done += w.records - left[name]
		over = over && left[name] == 0
	}
	return done, of, over
}
