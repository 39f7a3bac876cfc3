package kafka

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/sidestream-dev/sidestream/jobs"
)

const (
	defaultBufferBytes    = 8 << 20
	defaultFetchBytes     = 8 << 20
	defaultPartitionBytes = 1 << 20
	defaultFetchWait      = 500 * time.Millisecond
	defaultDiscovery      = 30 * time.Second
)

// NoGroup as a Source's Group shows no offsets to anyone.
const NoGroup = "none"

// Source reads the partitions of Topics.
type Source struct {
	Brokers []string // addresses, or "embedded" alone
	Topics  []string
	Start   string // "earliest" (also ""), "latest", or a time in RFC 3339: the first record at or behind it
	End     string // "never" (also "") reads on for ever; "latest" ends at the offsets that are the newest at the first connection
	// Group is where durable offsets are shown; "" means sidestream.JOB, NoGroup nowhere.
	Group string
	// Uncommitted reads records of transactions that are open or aborted too.
	Uncommitted bool
	Security    Security
	// Discovery is how often the brokers are asked for partitions that were added to the topics; 0 means 30 s.
	Discovery time.Duration

	BufferBytes    int64         // fetched and not yet read, before fetching pauses (one answer may pass it); 0 means 8 MiB
	FetchBytes     int32         // of one answer of one broker, as it comes over the wire, compressed; 0 means 8 MiB
	PartitionBytes int32         // of one partition in one answer; 0 means 1 MiB
	FetchWait      time.Duration // how long a broker holds an empty answer; 0 means 500 ms
}

var (
	_ jobs.Source     = Source{}
	_ jobs.Discoverer = Source{}
)

func (s Source) withDefaults() (Source, error) {
	if err := errors.Join(checkBrokers(s.Brokers), s.Security.check()); err != nil {
		return s, err
	}
	if len(s.Topics) == 0 {
		return s, errors.New("kafka: no topics")
	}
	for i, t := range s.Topics {
		if err := checkTopic(t); err != nil {
			return s, err
		}
		if slices.Contains(s.Topics[:i], t) {
			return s, fmt.Errorf("kafka: topic %q is named twice", t)
		}
	}
	if _, _, err := s.startMillis(); err != nil {
		return s, err
	}
	if s.End != "" && s.End != "never" && s.End != "latest" {
		return s, fmt.Errorf("kafka: end %q is not never or latest", s.End)
	}
	if s.BufferBytes == 0 {
		s.BufferBytes = defaultBufferBytes
	}
	if s.FetchBytes == 0 {
		s.FetchBytes = defaultFetchBytes
	}
	if s.PartitionBytes == 0 {
		s.PartitionBytes = defaultPartitionBytes
	}
	if s.FetchWait == 0 {
		s.FetchWait = defaultFetchWait
	}
	if s.Discovery == 0 {
		s.Discovery = defaultDiscovery
	}
	if s.Discovery < 0 || s.BufferBytes < 0 || s.FetchBytes < 0 || s.PartitionBytes < 0 || s.FetchWait < 0 {
		return s, errors.New("kafka: a bound is negative")
	}
	if s.PartitionBytes > s.FetchBytes {
		return s, fmt.Errorf("kafka: partition bytes %d are more than fetch bytes %d", s.PartitionBytes, s.FetchBytes)
	}
	return s, nil
}

// startMillis returns the time to start at, if Start is one.
func (s Source) startMillis() (ms int64, isTime bool, err error) {
	switch s.Start {
	case "", "earliest", "latest":
		return 0, false, nil
	}
	t, err := time.Parse(time.RFC3339, s.Start)
	if err != nil {
		return 0, false, fmt.Errorf("kafka: start %q is not earliest, latest or a time such as 2026-01-31T00:00:00Z", s.Start)
	}
	return t.UnixMilli(), true, nil
}

// Kind returns "kafka".
func (s Source) Kind() string { return "kafka" }

// Bounded reports whether the source has an end.
func (s Source) Bounded() bool { return s.End == "latest" }

// String describes the source for a job's definition.
func (s Source) String() string {
	return fmt.Sprintf("kafka %v topics %v start %s end %s", s.Brokers, s.Topics, s.Start, s.End)
}

func clientID(job string) string { return "sidestream." + job }

// Splits lists the partitions, by topic as named and by number, each with the offset that Start means now. Partitions that
// were added to a topic of which env.Known has others begin with their first record; a source with an end leaves them out. It
// waits for the brokers, and for topics that do not exist yet.
func (s Source) Splits(ctx context.Context, env jobs.SourceEnv) ([]jobs.Start, error) {
	s, err := s.withDefaults()
	if err != nil {
		return nil, err
	}
	st := newStatus(env.Waiting)
	defer st.fine()
	cl, err := newClient(ctx, s.Brokers, s.Security, env.Services, clientID(env.Job), st)
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	var starts []jobs.Start
	err = untilDone(ctx, st, func(ctx context.Context) (err error) {
		starts, err = s.resolve(ctx, cl, env.Known)
		return err
	})
	return starts, err
}

func splitID(topic string, partition int32) string {
	return topic + "/" + strconv.Itoa(int(partition))
}

func (s Source) resolve(ctx context.Context, cl *kgo.Client, known []jobs.Start) ([]jobs.Start, error) {
	before, err := knownPartitions(known)
	if err != nil {
		return nil, err
	}
	topics, err := describe(ctx, cl, s.Topics, isEmbedded(s.Brokers))
	if err != nil {
		return nil, err
	}
	if err := before.check(topics); err != nil {
		return nil, err
	}
	adm := kadm.NewClient(cl)
	begins, err := s.list(ctx, adm, s.Start)
	if err != nil {
		return nil, err
	}
	var ends kadm.ListedOffsets
	if s.Bounded() {
		if ends, err = s.list(ctx, adm, "latest"); err != nil {
			return nil, err
		}
	}
	added, err := s.added(ctx, adm, topics, before)
	if err != nil {
		return nil, err
	}
	var starts []jobs.Start
	for _, t := range s.Topics {
		for p := range topics[t].partitions {
			split := jobs.Split{ID: splitID(t, p), Topic: t, Partition: p}
			if pos, ok := before[t][p]; ok {
				starts = append(starts, jobs.Start{Split: split, Position: pos.encode()})
				continue
			}
			if before[t] != nil {
				if pos, ok := added[split.ID]; ok {
					starts = append(starts, jobs.Start{Split: split, Position: pos.encode()})
				}
				continue
			}
			o, ok := begins.Lookup(t, p)
			if !ok {
				return nil, fmt.Errorf("kafka: %s/%d: the brokers did not tell its offsets", t, p)
			}
			pos := position{offset: o.Offset, epoch: o.LeaderEpoch, topicID: topics[t].id, bounded: s.Bounded()}
			if s.Bounded() {
				e, ok := ends.Lookup(t, p)
				if !ok {
					return nil, fmt.Errorf("kafka: %s/%d: the brokers did not tell its offsets", t, p)
				}
				pos.end = e.Offset
			}
			starts = append(starts, jobs.Start{Split: split, Position: pos.encode()})
		}
	}
	return starts, nil
}

// list asks for the offsets that where means now, of every partition of the source's topics.
func (s Source) list(ctx context.Context, adm *kadm.Client, where string) (kadm.ListedOffsets, error) {
	var l kadm.ListedOffsets
	var err error
	switch ms, isTime, _ := s.startMillis(); {
	case where == "latest" && s.Uncommitted:
		l, err = adm.ListEndOffsets(ctx, s.Topics...)
	case where == "latest":
		l, err = adm.ListCommittedOffsets(ctx, s.Topics...)
	case where == s.Start && isTime:
		l, err = adm.ListOffsetsAfterMilli(ctx, ms, s.Topics...)
	default:
		l, err = adm.ListStartOffsets(ctx, s.Topics...)
	}
	if err == nil {
		err = l.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("kafka: list offsets: %w", err)
	}
	return l, nil
}

// describe asks for the topics' ids and partitions. A topic that does not exist is an error, which may go away.
func describe(ctx context.Context, cl *kgo.Client, names []string, create bool) (map[string]topicInfo, error) {
	req := kmsg.NewPtrMetadataRequest()
	req.AllowAutoTopicCreation = create
	for _, n := range names {
		t := kmsg.NewMetadataRequestTopic()
		t.Topic = kmsg.StringPtr(n)
		req.Topics = append(req.Topics, t)
	}
	resp, err := req.RequestWith(ctx, cl)
	if err != nil {
		return nil, fmt.Errorf("kafka: metadata: %w", err)
	}
	out := map[string]topicInfo{}
	for _, t := range resp.Topics {
		if t.Topic == nil {
			continue
		}
		if err := kerr.ErrorForCode(t.ErrorCode); err != nil {
			if errors.Is(err, kerr.UnknownTopicOrPartition) {
				return nil, fmt.Errorf("kafka: topic %s does not exist: %w", *t.Topic, err)
			}
			return nil, fmt.Errorf("kafka: topic %s: %w", *t.Topic, err)
		}
		out[*t.Topic] = topicInfo{id: t.TopicID, partitions: int32(len(t.Partitions))}
	}
	for _, n := range names {
		if out[n].partitions == 0 {
			return nil, fmt.Errorf("kafka: topic %s has no partitions yet", n)
		}
	}
	return out, nil
}

type topicInfo struct {
	id         [16]byte
	partitions int32
}

// Open returns a reader at once; it connects by itself and tells what it waits for.
func (s Source) Open(_ context.Context, env jobs.SourceEnv, starts []jobs.Start) (jobs.Reader, error) {
	s, err := s.withDefaults()
	if err != nil {
		return nil, err
	}
	return newReader(s, env, starts)
}
