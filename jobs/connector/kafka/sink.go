package kafka

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/sidestream-dev/sidestream/jobs"
)

// sinkLinger only bounds how long a partition's last batch waits while a Write still hands over records; it is flushed
// when all are.
const (
	sinkLinger          = 10 * time.Millisecond
	maxBufferedRecords  = 1 << 20
	defaultMessageBytes = 1_000_012
)

// Sink produces records to a topic.
type Sink struct {
	Brokers      []string // addresses, or "embedded" alone
	Topic        string
	MustExist    bool   // wait for a missing topic instead of making it
	Partitions   int32  // of a topic it makes; 0 is the brokers' default
	Compression  string // "none" (also ""), "gzip", "snappy", "lz4", "zstd"
	MessageBytes int32  // the largest batch, and so the largest record; 0 means 1,000,012
	Security     Security
}

var (
	_ jobs.Sink   = Sink{}
	_ jobs.Prober = Sink{}
)

func (s Sink) withDefaults() (Sink, error) {
	if err := errors.Join(checkBrokers(s.Brokers), s.Security.check()); err != nil {
		return s, err
	}
	if s.Topic == "" {
		return s, errors.New("kafka: no topic")
	}
	if err := checkTopic(s.Topic); err != nil {
		return s, err
	}
	if s.Partitions < 0 || s.MessageBytes < 0 {
		return s, errors.New("kafka: partitions or message bytes are negative")
	}
	if s.MessageBytes == 0 {
		s.MessageBytes = defaultMessageBytes
	}
	if _, err := s.codec(); err != nil {
		return s, err
	}
	return s, nil
}

func (s Sink) codec() (kgo.CompressionCodec, error) {
	switch s.Compression {
	case "", "none":
		return kgo.NoCompression(), nil
	case "gzip":
		return kgo.GzipCompression(), nil
	case "snappy":
		return kgo.SnappyCompression(), nil
	case "lz4":
		return kgo.Lz4Compression(), nil
	case "zstd":
		return kgo.ZstdCompression(), nil
	}
	return kgo.CompressionCodec{}, fmt.Errorf("kafka: compression %q is not one of none, gzip, snappy, lz4, zstd", s.Compression)
}

// Kind returns "kafka".
func (s Sink) Kind() string { return "kafka" }

// String describes the sink for a job's definition.
func (s Sink) String() string { return fmt.Sprintf("kafka %v topic %s", s.Brokers, s.Topic) }

// ExactlyOnce returns nil where the brokers are Kafka's: each Write is then a transaction with the position in it. Who reads
// the topic must read committed records only. The embedded broker ends with the process, and its transactions are not whole
// after a kill -9 (markers, offsets and producers are files of their own there).
func (s Sink) ExactlyOnce() error {
	if isEmbedded(s.Brokers) {
		return errors.New("the embedded broker does not keep a transaction whole when the process is killed; use at_least_once, or a Kafka of its own")
	}
	return nil
}

// Open waits until the topic is there, and makes it where it is missing.
func (s Sink) Open(ctx context.Context, env jobs.SinkEnv) (jobs.Writer, error) {
	s, err := s.withDefaults()
	if err != nil {
		return nil, err
	}
	w := &writer{sink: s, env: env, status: newStatus(env.Waiting), known: env.Known}
	if env.State == nil {
		w.state.id = env.LogID + "." + rand.Text()[:8]
	} else {
		if w.state, err = decodeOutputState(env.State); err != nil {
			return nil, err
		}
	}
	if err := w.connect(ctx); err != nil {
		_ = w.Close() // nothing was sent
		return nil, err
	}
	return w, nil
}

// Probe asks the brokers for the topic, and whether they would make it where it is missing and not MustExist.
func (s Sink) Probe(ctx context.Context, env jobs.SinkEnv) error {
	s, err := s.withDefaults()
	if err != nil {
		return err
	}
	st := newStatus(env.Waiting)
	defer st.fine()
	cl, err := newClient(ctx, s.Brokers, s.Security, env.Services, clientID(env.Job), st)
	if err != nil {
		return err
	}
	defer cl.Close()
	var missing error
	err = untilDone(ctx, st, func(ctx context.Context) error {
		_, err := describe(ctx, cl, []string{s.Topic}, false)
		switch {
		case !errors.Is(err, kerr.UnknownTopicOrPartition):
			return err
		case s.MustExist:
			missing = fmt.Errorf("kafka: topic %s does not exist, and create_topic is false: make the topic, or let the output make it", s.Topic)
			return nil
		}
		made, err := kadm.NewClient(cl).ValidateCreateTopics(ctx, s.newPartitions(), -1, nil, s.Topic)
		if err == nil {
			err = made[s.Topic].Err
		}
		if _, answered := errors.AsType[*kerr.Error](err); answered && !kerr.IsRetriable(err) && !errors.Is(err, kerr.TopicAlreadyExists) {
			missing = fmt.Errorf("kafka: topic %s does not exist and cannot be made: %w", s.Topic, err)
			return nil
		}
		return ignoring(err, kerr.TopicAlreadyExists)
	})
	return errors.Join(err, missing)
}

// ignoring is err, unless it is of one sort.
func ignoring(err, target error) error {
	if errors.Is(err, target) {
		return nil
	}
	return err
}

// newPartitions is how many a topic gets that the sink makes, as the brokers are told.
func (s Sink) newPartitions() int32 {
	if s.Partitions == 0 {
		return -1
	}
	return s.Partitions
}

type writer struct {
	sink   Sink
	env    jobs.SinkEnv
	status *status
	state  outputState
	cl     *kgo.Client // nil after a Write that was cut off, or a transaction that failed
	there  bool        // the topic was found since the last failure

	// With exactly once:
	next  int64 // the index behind what committed transactions hold
	known int64 // the index behind what the log is known to know

	records []kgo.Record // reused: every promise has been kept when Write returns
	headers []kgo.RecordHeader
}

func (w *writer) connect(ctx context.Context) error {
	if w.cl == nil {
		codec, err := w.sink.codec()
		if err != nil {
			return err
		}
		opts := []kgo.Opt{
			kgo.DefaultProduceTopic(w.sink.Topic),
			kgo.RequiredAcks(kgo.AllISRAcks()),
			kgo.RecordPartitioner(kgo.StickyKeyPartitioner(nil)), // murmur2, as Java's default
			kgo.ProducerBatchCompression(codec),
			kgo.ProducerBatchMaxBytes(w.sink.MessageBytes),
			kgo.ProducerLinger(sinkLinger),
			kgo.MaxBufferedRecords(maxBufferedRecords),
		}
		if w.exactly() {
			opts = append(opts, w.transactional()...)
		}
		w.cl, err = newClient(ctx, w.sink.Brokers, w.sink.Security, w.env.Services, clientID(w.env.Job), w.status, opts...)
		if err != nil {
			return err
		}
		w.there = false
	}
	if w.there {
		return nil
	}
	err := untilDone(ctx, w.status, w.findTopic)
	if err == nil && w.exactly() {
		err = untilDone(ctx, w.status, w.fence)
	}
	if err != nil && w.exactly() {
		w.drop()
	}
	w.there = err == nil
	return err
}

func (w *writer) exactly() bool { return w.env.Delivery == jobs.ExactlyOnce }

// drop gives the client up, and with it what it has not sent and the transaction it is in.
func (w *writer) drop() {
	if w.cl != nil {
		w.cl.Close()
		w.cl = nil
	}
}

func (w *writer) findTopic(ctx context.Context) error {
	_, err := describe(ctx, w.cl, []string{w.sink.Topic}, false)
	if err == nil || w.sink.MustExist || !errors.Is(err, kerr.UnknownTopicOrPartition) {
		return err
	}
	_, err = kadm.NewClient(w.cl).CreateTopic(ctx, w.sink.newPartitions(), -1, nil, w.sink.Topic)
	if ignoring(err, kerr.TopicAlreadyExists) != nil {
		return fmt.Errorf("kafka: make topic %s: %w", w.sink.Topic, err)
	}
	_, err = describe(ctx, w.cl, []string{w.sink.Topic}, false)
	return err
}

// Write returns when every record has been acknowledged by all replicas in sync. Where ctx ends before, the client is
// given up, so that nothing of this Write is sent any more once it has returned.
func (w *writer) Write(ctx context.Context, ms []jobs.Message) ([]byte, error) {
	if n := len(ms); n > 0 {
		w.known = max(w.known, ms[n-1].Offset+1)
	}
	if err := w.connect(ctx); err != nil {
		return nil, err
	}
	if w.exactly() {
		ms = w.unsent(ms)
	}
	if len(ms) == 0 {
		return w.state.encode(), nil
	}
	ctx, release := w.status.login.guard(ctx)
	defer release()
	err := w.send(ctx, ms)
	if err == nil {
		w.status.fine()
		w.state.committed = w.exactly()
		return w.state.encode(), nil
	}
	w.records, w.headers, w.there = nil, nil, false
	if w.exactly() {
		w.drop() // the next one aborts the transaction, unless it was committed after all
	}
	if refused := w.status.login.err(); refused != nil {
		return nil, refused
	}
	if ctx.Err() != nil {
		return nil, fmt.Errorf("kafka: write to %s: %w", w.sink.Topic, ctx.Err())
	}
	return nil, err
}

// send produces ms, in a transaction with exactly once.
func (w *writer) send(ctx context.Context, ms []jobs.Message) error {
	if w.exactly() {
		if err := w.cl.BeginTransaction(); err != nil {
			return fmt.Errorf("kafka: begin a transaction on %s: %w", w.sink.Topic, err)
		}
	}
	if err := w.produce(ctx, ms); err != nil || !w.exactly() {
		return err
	}
	next := ms[len(ms)-1].Offset + 1
	if err := w.commit(ctx, next); err != nil {
		return fmt.Errorf("kafka: commit a transaction on %s: %w", w.sink.Topic, err)
	}
	w.next = next
	return nil
}

func (w *writer) produce(ctx context.Context, ms []jobs.Message) error {
	w.fill(ms)
	var (
		left sync.WaitGroup
		mu   sync.Mutex
		bad  error
	)
	left.Add(len(ms))
	promise := func(r *kgo.Record, err error) {
		if err != nil {
			mu.Lock()
			if bad == nil {
				bad = w.produceError(r, err)
			}
			mu.Unlock()
		}
		left.Done()
	}
	cl, cut := w.cl, make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(cut)
		cl.Close()
	})
	for i := range w.records {
		cl.Produce(ctx, &w.records[i], promise)
	}
	_ = cl.Flush(ctx) // what became of the records their promises say
	left.Wait()
	if !stop() {
		<-cut
		w.cl = nil
	}
	mu.Lock()
	defer mu.Unlock()
	return bad
}

func (w *writer) fill(ms []jobs.Message) {
	if cap(w.records) < len(ms) {
		w.records = make([]kgo.Record, len(ms))
	}
	w.records = w.records[:len(ms)]
	n := 0
	for i := range ms {
		n += len(ms[i].Headers)
	}
	if cap(w.headers) < n {
		w.headers = make([]kgo.RecordHeader, 0, n)
	}
	hs := w.headers[:0]
	for i := range ms {
		m := &ms[i]
		r := &w.records[i]
		*r = kgo.Record{Key: m.Key, Value: m.Value}
		if m.Time != jobs.NoTime {
			r.Timestamp = m.Time.Go()
		}
		if len(m.Headers) > 0 {
			from := len(hs)
			for _, h := range m.Headers {
				hs = append(hs, kgo.RecordHeader{Key: h.Name, Value: h.Value})
			}
			r.Headers = hs[from:len(hs):len(hs)]
		}
	}
	w.headers = hs
}

func (w *writer) produceError(r *kgo.Record, err error) error {
	if errors.Is(err, kerr.MessageTooLarge) || errors.Is(err, kerr.RecordListTooLarge) {
		return &jobs.StoppedError{
			Why: fmt.Sprintf("topic %s takes no record of %d bytes", w.sink.Topic, len(r.Key)+len(r.Value)),
			Choice: fmt.Sprintf("raise the topic's max.message.bytes and the output's message_bytes (%d), or drop what is unsent",
				w.sink.MessageBytes),
		}
	}
	if errors.Is(err, kerr.InvalidRecord) {
		return &jobs.StoppedError{
			Why:    fmt.Sprintf("topic %s refuses a record: %v", w.sink.Topic, err),
			Choice: "change the topic (a compacted one wants keys), or drop what is unsent",
		}
	}
	return fmt.Errorf("kafka: write to %s: %w", w.sink.Topic, err)
}

func (w *writer) Close() error {
	w.status.fine()
	w.drop()
	return nil
}
