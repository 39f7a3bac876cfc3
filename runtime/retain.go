package runtime

import (
	"context"
	"errors"
	"fmt"

	"github.com/sidestream-dev/sidestream/bus"
	"github.com/sidestream-dev/sidestream/wal"
)

// PurgeResult is what a purge let go, or would.
type PurgeResult struct {
	Topic   string       `json:"topic"`
	Before  []bus.Offset `json:"before"` // by partition: what lies before is gone
	Records int64        `json:"records"`
	DryRun  bool         `json:"dry_run,omitempty"`
}

// PurgeTopic lets the records of a topic before a place go, at once and whatever its retention says; it returns when that is
// durable. What a registered subscription has yet to read stays: then nothing goes, and the error is a *bus.PurgeError.
// An unknown topic is ErrNoTopic. A dry run says what would go, and does nothing.
func (rt *Runtime) PurgeTopic(ctx context.Context, topic string, before Place, dryRun bool) (res PurgeResult, err error) {
	res = PurgeResult{Topic: topic, DryRun: dryRun}
	id, ok := rt.bus.TopicByName(topic)
	if !ok {
		return res, missing("topic", topic, ErrNoTopic)
	}
	if err := rt.shared(id); err != nil {
		return res, err
	}
	if before, err = before.timed(rt.bus, id); err != nil {
		return res, err
	}
	if res.Before, err = before.offsets(rt.bus, id); err != nil {
		return res, err
	}
	if !before.Time.IsZero() && rt.untimed(ctx, topic) {
		return res, fmt.Errorf("purging topic %s: its newest records have no event time, so that none says what is older; name an offset", topic)
	}
	rt.storeMu.Lock()
	defer rt.storeMu.Unlock()
	if err := rt.log.WaitDurable(ctx, rt.log.Last()); err != nil { // what subscriptions have passed counts by durable epochs
		return res, err
	}
	said := wal.LSN(0)
	err = rt.do(func(c *core) error {
		for p, o := range res.Before {
			n, _ := c.bus.Span(id, p, 0, o)
			res.Records += n
			res.Before[p] = max(o, c.bus.First(id, p))
		}
		ch, err := c.bus.Purge(id, bus.Start{Offsets: res.Before})
		if err == nil && !dryRun {
			said, err = c.cut(0, 0, ch)
		}
		return err
	})
	if err == nil && said > 0 {
		err = rt.log.WaitDurable(rt.ctx, said)
	}
	if err != nil {
		return res, fmt.Errorf("purging topic %s: %w", topic, err)
	}
	if said == 0 {
		return res, nil
	}
	rt.tell(Event{Kind: EventPurged, Text: fmt.Sprintf("topic %s: %d records before %v", topic, res.Records, res.Before)})
	return res, rt.sweep()
}

// shared refuses a topic that is an output on its way outside: it keeps what is yet to be sent, and nothing else.
func (rt *Runtime) shared(id bus.TopicID) error {
	if spec := rt.bus.Spec(id); spec.Private() {
		return fmt.Errorf("topic %s is an output on its way outside: it keeps what is yet to be sent, and that alone", spec.Name)
	}
	return nil
}

// untimed reports whether the newest record of some partition has no event time.
func (rt *Runtime) untimed(ctx context.Context, topic string) (some bool) {
	err := rt.Tail(ctx, Tail{Topic: topic, Partition: -1, Last: 1}, func(r TopicRecord) error {
		some = some || r.Time == nil
		return nil
	})
	return some || err != nil
}

// SetRetention gives a topic another retention, in place of what definitions say of it, now and later; it returns when that
// is durable, with what held before. What no longer has to stay goes when the log and the topic store are next looked at.
// A dry run only says what holds.
func (rt *Runtime) SetRetention(ctx context.Context, topic string, r bus.Retention, dryRun bool) (was bus.Retention, err error) {
	said := wal.LSN(0)
	err = rt.do(func(c *core) error {
		id, ok := c.bus.TopicByName(topic)
		if !ok {
			return missing("topic", topic, ErrNoTopic)
		}
		if err := rt.shared(id); err != nil {
			return err
		}
		spec := c.bus.Spec(id)
		was, spec.Retention, spec.RetentionSet = spec.Retention, r, true
		if err := spec.Check(); err != nil || dryRun {
			return err
		}
		lsn, err := c.change(&control{Topics: []topicEntry{{ID: id, Spec: spec}}}, nil)
		if err != nil {
			return err
		}
		said = lsn
		return c.bus.Define(id, spec)
	})
	if err == nil && said > 0 {
		err = rt.log.WaitDurable(ctx, said)
	}
	if errors.Is(err, ErrNoTopic) {
		return was, err
	}
	if err != nil {
		return was, fmt.Errorf("the retention of topic %q: %w", topic, err)
	}
	if said > 0 {
		rt.tell(Event{Kind: EventRetention, Text: fmt.Sprintf("topic %s: %+v, was %+v", topic, r, was)})
	}
	return was, nil
}
