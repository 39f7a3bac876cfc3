package casetest

import (
	"errors"
	"fmt"

	"github.com/sidestream-dev/sidestream/checkpoint"
	"github.com/sidestream-dev/sidestream/jobs"
)

// mutedDirtyBytes is how many bytes of changes the stores of a muted job may collect before they are let go.
const mutedDirtyBytes = 8 << 20

// MutedConfig says how a job is run on records that come from elsewhere, with its outputs muted.
type MutedConfig struct {
	Job        *jobs.Job // it reads one topic, and nothing else
	Partitions int       // of the topic
	// Restored and State are what the job begins with: the watermarks of steps, and of each the entries of its state, as
	// checkpoint has them. Both may be nil.
	Restored map[string]jobs.Watermark
	State    map[string][][]byte
	// Out is given what an output would have been. m is valid during the call only.
	Out func(output *jobs.Node, m *jobs.Message)

	err error // of the state
}

func (c *MutedConfig) restored(step string) jobs.Watermark {
	if w, ok := c.Restored[step]; ok {
		return w
	}
	return jobs.WatermarkNone
}

func (c *MutedConfig) restore(step string, st *checkpoint.Store, lo, hi int) {
	for _, entries := range c.State[step] {
		if err := st.Apply(entries, lo, hi); err != nil && c.err == nil {
			c.err = fmt.Errorf("state of step %s: %w", step, err)
		}
	}
}

// Muted is one job under way in one goroutine, without log, network and disk. Its state is in memory; nothing else of it
// grows with what it is given.
type Muted struct {
	e   *engine
	run *jobRun
	src *nodeRun
}

// NewMuted builds a job. Close releases what its steps took.
func NewMuted(c MutedConfig) (*Muted, error) {
	e := &engine{topics: map[string]*topic{}, muted: &c}
	if err := e.add(c.Job); err != nil {
		return nil, err
	}
	m := &Muted{e: e, run: e.jobs[0]}
	if c.err != nil {
		return nil, errors.Join(c.err, m.Close())
	}
	for _, nr := range m.run.nodes {
		for _, s := range nr.subs {
			s.mark = c.restored(nr.node.ID)
		}
	}
	m.src = m.run.sourceNode()
	for p := range c.Partitions {
		m.src.splitOf(m.src.node.Source.Topic, p)
	}
	return m, nil
}

// Records gives the job records of a partition, in order.
func (m *Muted) Records(partition int, ms []jobs.Message) error {
	s := m.src.splits[partition]
	if !m.run.failed {
		m.src.subs[m.src.owner(s)].built.Messages(&s.Split, ms)
	}
	m.settle()
	return m.run.err
}

// Watermark says how far event time has come in a partition.
func (m *Muted) Watermark(partition int, w jobs.Watermark, idle bool) error {
	s := m.src.splits[partition]
	s.mark, s.idle = max(s.mark, w), idle
	return m.advance()
}

// End ends the input: event time comes to its end everywhere.
func (m *Muted) End() error {
	for _, s := range m.src.splits {
		s.ended = true
	}
	return m.advance()
}

// advance carries event time through the job. What it makes several keys emit at one moment comes as their steps have it.
func (m *Muted) advance() error {
	for _, nr := range m.run.nodes {
		marks := make([]jobs.Watermark, len(nr.subs))
		for k, s := range nr.subs {
			if marks[k], s.idle, s.ended = nr.combined(k); s.ended {
				marks[k], s.idle = jobs.WatermarkMax, false
			}
		}
		nr.move(marks)
	}
	m.settle()
	return m.run.err
}

// settle lets go of what outputs have collected, and of what stores keep to undo changes, once it is much.
func (m *Muted) settle() {
	for _, o := range m.run.outputs {
		for _, letGo := range o.letGo {
			letGo()
		}
	}
	for _, nr := range m.run.nodes {
		for _, s := range nr.subs {
			if s.store == nil {
				continue
			}
			if _, dirty := s.store.Dirty(); dirty > mutedDirtyBytes {
				s.store.Cut()
				s.store.Sealed(s.store.Epoch() - 1)
			}
		}
	}
}

// StateBytes returns how much state the job keeps.
func (m *Muted) StateBytes() (bytes int) {
	for _, nr := range m.run.nodes {
		for _, s := range nr.subs {
			if s.store != nil {
				_, n := s.store.Size()
				bytes += n
			}
		}
	}
	return bytes
}

// Close releases what the job's steps took.
func (m *Muted) Close() (err error) {
	for _, nr := range m.run.nodes {
		for _, s := range nr.subs {
			if s.built.Close != nil {
				err = errors.Join(err, s.built.Close())
			}
		}
	}
	return err
}
