package kafka

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/sidestream-dev/sidestream/jobs"
)

// discoveryMin is the least that a definition may ask for.
const discoveryMin = 100 * time.Millisecond

// partitions are those that a job has positions of, by topic.
type partitions map[string]map[int32]position

func knownPartitions(known []jobs.Start) (partitions, error) {
	ps := partitions{}
	for _, st := range known {
		pos, err := decodePosition(st.Position)
		if err != nil {
			return nil, fmt.Errorf("kafka: %s: %w", st.Split.ID, err)
		}
		if ps[st.Split.Topic] == nil {
			ps[st.Split.Topic] = map[int32]position{}
		}
		ps[st.Split.Topic][st.Split.Partition] = pos
	}
	return ps, nil
}

// check finds a topic that is another one than that of the positions.
func (ps partitions) check(topics map[string]topicInfo) error {
	for name, t := range topics {
		for _, pos := range ps[name] {
			if replaced(pos.topicID, t.id) {
				return &ReplacedError{Topic: name}
			}
		}
	}
	return nil
}

// replaced reports whether a topic's id is not the one that a position has. Old brokers have none.
func replaced(was, is [16]byte) bool {
	return was != is && was != [16]byte{} && is != [16]byte{}
}

// added returns, by the name of its split, the beginning of each partition that a topic has and before does not, though it
// has others of the topic. A source with an end has read what it is to read without them.
func (s Source) added(ctx context.Context, adm *kadm.Client, topics map[string]topicInfo, before partitions) (map[string]position, error) {
	var names []string
	for _, t := range s.Topics {
		if before[t] != nil && int(topics[t].partitions) > len(before[t]) && !s.Bounded() {
			names = append(names, t)
		}
	}
	out := map[string]position{}
	if len(names) == 0 {
		return out, nil
	}
	first, err := adm.ListStartOffsets(ctx, names...)
	if err == nil {
		err = first.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("kafka: list offsets: %w", err)
	}
	for _, t := range names {
		for p := range topics[t].partitions {
			if _, ok := before[t][p]; ok {
				continue
			}
			o, ok := first.Lookup(t, p)
			if !ok {
				return nil, fmt.Errorf("kafka: %s/%d: the brokers did not tell its offsets", t, p)
			}
			out[splitID(t, p)] = position{offset: o.Offset, epoch: o.LeaderEpoch, topicID: topics[t].id}
		}
	}
	return out, nil
}

// Discover waits until one of the topics has more partitions than env.Known has. It also finds a topic that was deleted and
// made again, which is an error.
func (s Source) Discover(ctx context.Context, env jobs.SourceEnv) ([]jobs.Start, error) {
	s, err := s.withDefaults()
	if err != nil {
		return nil, err
	}
	before, err := knownPartitions(env.Known)
	if err != nil {
		return nil, err
	}
	cl, err := newClient(ctx, s.Brokers, s.Security, env.Services, clientID(env.Job), newStatus(nil))
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	tick := time.NewTicker(s.Discovery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		tctx, cancel := context.WithTimeout(ctx, tryTimeout)
		starts, err := s.look(tctx, cl, before)
		cancel()
		switch {
		case err != nil && permanent(err):
			return nil, err
		case err != nil:
			env.Logger.Debug("kafka: looking for new partitions", "err", err) // the reader tells of what is away
		case len(starts) > 0:
			return starts, nil
		}
	}
}

func (s Source) look(ctx context.Context, cl *kgo.Client, before partitions) ([]jobs.Start, error) {
	topics, err := describe(ctx, cl, s.Topics, false)
	if err != nil {
		return nil, err
	}
	if err := before.check(topics); err != nil {
		return nil, err
	}
	added, err := s.added(ctx, kadm.NewClient(cl), topics, before)
	if err != nil {
		return nil, err
	}
	var starts []jobs.Start
	for _, t := range s.Topics {
		for p := range topics[t].partitions {
			if pos, ok := added[splitID(t, p)]; ok {
				starts = append(starts, jobs.Start{Split: jobs.Split{ID: splitID(t, p), Topic: t, Partition: p}, Position: pos.encode()})
			}
		}
	}
	return starts, nil
}
