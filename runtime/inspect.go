package runtime

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"

	"github.com/sidestream-dev/sidestream/bus"
	"github.com/sidestream-dev/sidestream/jobs"
)

// inspect builds a job as an attempt would, with empty state and nothing behind it, and takes it apart again: what cannot be
// built is found before anything has changed, and the tables that its steps open tell what it keeps.
func (rt *Runtime) inspect(d *jobs.Job, o Origin) (def *definition, err error) {
	defer recovered(&err, d.Name, "", 0) // building steps runs the job's own code
	def = &definition{Job: d, origin: o, text: textOf(d)}
	plan, err := rt.planOf(d)
	if err != nil {
		return nil, err
	}
	j := &job{rt: rt, def: d, plan: plan, stores: newJobStores(plan, 0), logger: slog.New(slog.DiscardHandler)}
	x := &execution{rt: rt, name: d.Name, plan: plan, logger: j.logger, waiting: func(string, Wait) {}}
	x.ctx, x.cancel = context.WithCancel(context.Background())
	defer x.cancel()
	entry := &jobEntry{Name: d.Name}
	for _, n := range d.Outputs() {
		id, _ := rt.bus.TopicByName(n.Output.Topic)
		entry.Outputs = append(entry.Outputs, outputEntry{Name: n.Output.Name, Topic: id})
	}
	b := &builder{rt: rt, x: x, j: j, entry: entry, marks: newStepMarks(&entry.header), subtasks: map[*taskPlan][]*subtask{},
		opened: map[string]map[string]bool{}}
	err = b.buildSteps()
	for _, s := range x.subtasks {
		for _, n := range s.nodes {
			if n != nil && n.built.Close != nil {
				err = errors.Join(err, n.built.Close())
			}
		}
	}
	if err != nil {
		return nil, err
	}
	for _, id := range slices.Sorted(maps.Keys(b.opened)) {
		def.steps = append(def.steps, stepEntry{ID: id, Key: d.Node(id).KeyType, Tables: slices.Sorted(maps.Keys(b.opened[id]))})
	}
	return def, rt.findStarts(def)
}

// findStarts finds where the subscriptions begin that are new and begin at a time. It may have to read records, for which the
// committer must not wait: the frame that adds the job takes what was found here, and later ones and other processes go on
// from there.
func (rt *Runtime) findStarts(d *definition) error {
	var have *jobEntry
	for _, n := range d.Nodes {
		if n.Source == nil || !n.Source.Start.ByTime {
			continue
		}
		topic, ok := rt.bus.TopicByName(n.Source.Topic)
		if !ok {
			continue
		}
		if have == nil {
			var err error
			if have, err = rt.entry(d.Name); err != nil && !errors.Is(err, ErrNoJob) {
				return err
			}
		}
		if have != nil && have.Phase != PhaseEnded && slices.ContainsFunc(have.Inputs, func(in inputEntry) bool { return in.Step == n.ID && in.Topic == topic }) {
			continue
		}
		at := int64(n.Source.Start.Time)
		if ago := n.Source.Start.Ago; ago > 0 {
			at = rt.now().Add(-ago).UnixMilli()
		}
		found, err := rt.bus.Resolve(topic, bus.Start{ByTime: true, Time: at})
		if err != nil {
			return fmt.Errorf("step %s: finding where to begin in topic %s: %w", n.ID, n.Source.Topic, err)
		}
		if d.starts == nil {
			d.starts = map[string][]bus.Offset{}
		}
		d.starts[n.ID] = found.Offsets
	}
	return nil
}

// textOf is a job's definition: what it was made from, or its graph.
func textOf(d *jobs.Job) []byte {
	if d.Definition != nil {
		return d.Definition
	}
	return d.Describe()
}

// planOf cuts a job into tasks; topics that are not there yet have the partitions that the job says.
func (rt *Runtime) planOf(d *jobs.Job) (*jobPlan, error) {
	return planJob(d, func(topic string) int {
		if id, ok := rt.bus.TopicByName(topic); ok {
			return rt.bus.Partitions(id)
		}
		for _, t := range d.Topics {
			if t.Name == topic {
				return max(1, t.Partitions)
			}
		}
		return 1
	})
}
