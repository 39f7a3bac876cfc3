package runtime

import (
	"context"
	"fmt"

	"github.com/sidestream-dev/sidestream/bus"
	"github.com/sidestream-dev/sidestream/wal"
)

// PurgeTopic lets the records of a topic before a place go, at once and whatever its retention says; it returns when that is
// durable. What a registered subscription has yet to read stays: then nothing goes, and the error is a *bus.PurgeError.
// An unknown topic is ErrNoTopic.
func (rt *Runtime) PurgeTopic(ctx context.Context, topic string, before bus.Start) error {
	id, ok := rt.bus.TopicByName(topic)
	if !ok {
		return fmt.Errorf("topic %q: %w", topic, ErrNoTopic)
	}
	before, err := rt.bus.Resolve(id, before)
	if err != nil {
		return err
	}
	rt.storeMu.Lock()
	defer rt.storeMu.Unlock()
	said := wal.LSN(0)
	err = rt.do(func(c *core) error {
		ch, err := c.bus.Purge(id, before)
		if err == nil {
			said, err = c.cut(0, 0, ch)
		}
		return err
	})
	if err == nil && said > 0 {
		err = rt.log.WaitDurable(ctx, said)
	}
	if err != nil {
		return fmt.Errorf("purging topic %s: %w", topic, err)
	}
	return rt.sweep()
}

// SetRetention gives a topic another retention, in place of what definitions say of it, now and later; it returns when that
// is durable. What no longer has to stay goes when the log and the topic store are next looked at.
func (rt *Runtime) SetRetention(ctx context.Context, topic string, r bus.Retention) error {
	said := wal.LSN(0)
	err := rt.do(func(c *core) error {
		id, ok := c.bus.TopicByName(topic)
		if !ok {
			return ErrNoTopic
		}
		spec := c.bus.Spec(id)
		spec.Retention, spec.RetentionSet = r, true
		if err := spec.Check(); err != nil {
			return err
		}
		lsn, err := c.change(&control{Topics: []topicEntry{{ID: id, Spec: spec}}}, nil)
		if err != nil {
			return err
		}
		said = lsn
		return c.bus.Define(id, spec)
	})
	if err == nil {
		err = rt.log.WaitDurable(ctx, said)
	}
	if err != nil {
		return fmt.Errorf("the retention of topic %s: %w", topic, err)
	}
	return nil
}
