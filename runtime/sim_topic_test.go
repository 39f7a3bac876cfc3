package runtime

import (
	"context"
	"errors"
	"maps"
	"path"
	"slices"
	"strconv"

	"github.com/sidestream-dev/sidestream/bus"
)

// Removing topics, in the simulator. No frame removes one that a job has anything of; its number is never given again; a
// savepoint's places are of the topic that they were taken in. What the files are for is seen where the process dies as it
// removes one: then all of it is there, or nothing.

// removeTopic removes the topic of hot jobs, or asks for what is refused: one that is used, or an output on its way outside.
func (s *sim) removeTopic(hot *job) {
	rt, ctx := s.proc.rt, context.Background()
	id, there := rt.bus.TopicByName(hotTopic)
	used := hot != nil && (s.specOf(hot).in == hotTopic || s.specOf(hot).forward == hotTopic)
	if !s.quiet && (!there || used && s.specOf(hot).in != hotTopic && !s.inStore(id) && s.rng.IntN(4) > 0 || s.rng.IntN(8) == 0) {
		names := []string{"a", s.plan.jobs[0].name + "/out"}
		if there && used {
			names = append(names, hotTopic)
		}
		name := names[s.rng.IntN(len(names))]
		if _, known := rt.bus.TopicByName(name); !known {
			return // its job comes later
		}
		s.ask(opTopicUsed, func() error {
			_, err := rt.RemoveTopic(ctx, name, false)
			var used *TopicInUseError
			switch {
			case err == nil:
				s.violate("R6", "topic %s is removed, and it is used", name)
			case errors.As(err, &used), rt.bus.Spec(s.idOf(name)).Private():
				return nil
			}
			return err
		})
		return
	}
	if s.rng.IntN(4) == 0 {
		s.doom = s.steps + s.rng.IntN(40)
	}
	s.ask(opTopic, func() error {
		if used { // whoever uses it goes first
			o := RemoveOptions{DropUnsent: true, KeepState: len(s.model.savepoints) < simSavepoints}
			if o.KeepState { // which stands in the topic, if the job reads it
				o.Savepoint = s.newSavepointName()
			}
			if _, err := rt.RemoveJob(ctx, hotName, o); err != nil {
				return err
			}
		}
		if s.inStore(id) {
			s.count("topics removed from the store")
		}
		if s.twin.filesFirst && s.removeFiles(id) {
			s.doom = s.steps
		}
		_, err := rt.RemoveTopic(ctx, hotTopic, false)
		if _, known := s.model.topics[id]; err == nil && known {
			s.violate("R4", "topic %d is removed, and that is not durable", id)
		}
		return err
	})
	s.mayDrop = used
}

// topicEvery says which part of all changes are removals of the hot topic, now that there is this hot job or none.
func (s *sim) topicEvery(hot *job) int {
	id, there := s.proc.rt.bus.TopicByName(hotTopic)
	switch {
	case there && s.anotherStood() != "":
		return 40 // who begins with the savepoint is to find a topic of that name
	case there && s.inStore(id):
		return 2
	case there && hot == nil:
		return 4
	case hot != nil && s.specOf(hot).in == hotTopic:
		return 2
	}
	return 24
}

// anotherStood returns a savepoint that stands in a topic of hot jobs that was removed, or "".
func (s *sim) anotherStood() string {
	id, _ := s.proc.rt.bus.TopicByName(hotTopic)
	for _, name := range slices.Sorted(maps.Keys(s.model.savepoints)) {
		if sp := s.model.savepoints[name]; s.model.gone[sp.topic] && s.model.nameOf[sp.topic] == hotTopic && sp.topic != id {
			return name
		}
	}
	return ""
}

// inStore reports whether the store holds something of a topic.
func (s *sim) inStore(id bus.TopicID) bool {
	t := s.model.topics[id]
	return t != nil && len(t.stored) > 0
}

func (s *sim) idOf(topic string) bus.TopicID {
	id, _ := s.proc.rt.bus.TopicByName(topic)
	return id
}

// removeFiles takes what the store holds of a topic; some reports whether that was anything.
func (s *sim) removeFiles(id bus.TopicID) (some bool) {
	d := s.disk
	for p := range s.proc.rt.bus.Partitions(id) {
		dir := path.Join(storeDir("sim"), strconv.Itoa(int(id)), string(rune('0'+p)))
		files, err := d.List(dir)
		s.must(err)
		for f := range files {
			s.must(d.Remove(path.Join(dir, f)))
		}
		if some = some || len(files) > 0; len(files) > 0 {
			s.must(d.SyncDir(dir))
		}
	}
	return some
}

// removeTopics takes topics away.
func (m *model) removeTopics(ids []bus.TopicID) {
	for _, id := range ids {
		t := m.topics[id]
		if t == nil {
			m.s.violate("R5", "frame %d removes topic %d, which is not there", m.lsn, id)
		}
		for _, j := range m.jobs {
			if j.removed {
				continue
			}
			own := id == j.out.topic || id == j.prevOut.topic || slices.ContainsFunc(j.inputs, func(sub bus.SubID) bool { return m.subs[sub].topic == id })
			if own || j.j.in == t.name || j.j.forward == t.name || j.j.results == t.name {
				m.s.violate("R6", "frame %d removes topic %s, and %s has to do with it", m.lsn, t.name, j.j.name)
			}
		}
		delete(m.topics, id)
		if m.names[t.name] == id {
			delete(m.names, t.name)
		}
		m.gone[id], m.lastOf[t.name] = true, id
		m.nameOf[id] = t.name
	}
}

// sameNumber gives the topic of hot jobs the number that the last one of that name had.
func sameNumber(l *simLog) frameLog {
	return changedLog{l, func(c *control) {
		for i, t := range c.Topics {
			if last := l.s.model.lastOf[t.Spec.Name]; last != 0 && l.s.model.topics[last] == nil {
				c.Topics[i].ID = last
			}
		}
	}}
}

var topicTwins = []simTwin{
	{name: "a topic's files go before the frame that removes it", rules: []string{"error", "R4", "R5", "R6"},
		filesFirst: true},
	{name: "a topic's number is given again", rules: []string{"R5"},
		coreLog: sameNumber},
}
