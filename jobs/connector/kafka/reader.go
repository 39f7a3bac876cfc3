package kafka

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/sidestream-dev/sidestream/jobs"
)

// probeAfter is how long nothing must have come before the end of a bounded partition is looked for without records.
const probeAfter = time.Second

// reader reads the partitions of one subtask. Its goroutine fetches and puts what comes into queue; Read takes it out.
type reader struct {
	src    Source
	env    jobs.SourceEnv
	status *status
	ready  chan struct{}
	room   chan struct{} // a token when Read has made room
	stop   context.CancelFunc
	done   chan struct{}
	group  *groupOffsets // nil with NoGroup

	splits []*split // used by Read alone

	mu     sync.Mutex
	opened []opened // by split; what is in one is fixed
	byPart map[partKey]int
	todo   []int     // splits that are not at their end from the start
	queue  [][]batch // by split, fetched and not yet taken
	queued int64     // bytes
	asked  []int64   // by split, the offset behind what was fetched
	ends   []bool    // by split, no record stands before its end any more
	over   []bool    // by split, its end was read: what still comes is dropped
	err    error
	client *kgo.Client // set once
}

type partKey struct {
	topic     string
	partition int32
}

// opened is a partition and where it was begun.
type opened struct {
	partKey
	from position
}

type batch struct {
	records []*kgo.Record
	bytes   int64
}

type split struct {
	partKey
	pos   position
	batch batch // being read
	at    int
	ended bool
}

func newReader(s Source, env jobs.SourceEnv, starts []jobs.Start) (*reader, error) {
	r := &reader{
		src: s, env: env, status: newStatus(env.Waiting), byPart: map[partKey]int{},
		ready: make(chan struct{}, 1), room: make(chan struct{}, 1), done: make(chan struct{}),
	}
	if err := r.take(starts); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	r.stop = cancel
	if s.Group != NoGroup {
		name := s.Group
		if name == "" {
			name = clientID(env.Job)
		}
		r.group = newGroupOffsets(name, env.Logger)
	}
	r.ready <- struct{}{}
	go r.run(ctx)
	return r, nil
}

// take makes splits of starts. Beside the fetching goroutine it needs mu.
func (r *reader) take(starts []jobs.Start) error {
	for _, st := range starts {
		pos, err := decodePosition(st.Position)
		if err != nil {
			return fmt.Errorf("kafka: %s: %w", st.Split.ID, err)
		}
		i, key := len(r.splits), partKey{st.Split.Topic, st.Split.Partition}
		r.splits = append(r.splits, &split{partKey: key, pos: pos, ended: st.Ended})
		r.opened = append(r.opened, opened{key, pos})
		r.byPart[key] = i
		r.queue = append(r.queue, nil)
		r.asked = append(r.asked, pos.offset)
		r.ends = append(r.ends, pos.bounded && pos.offset >= pos.end)
		r.over = append(r.over, false)
		if !st.Ended && !r.ends[i] {
			r.todo = append(r.todo, i)
		}
	}
	return nil
}

// Add begins to read partitions that were added to the topics.
func (r *reader) Add(starts []jobs.Start) error {
	r.mu.Lock()
	if err := r.take(starts); err != nil {
		r.mu.Unlock()
		return err
	}
	parts, cl := offsetsOf(r.opened[len(r.opened)-len(starts):]), r.client
	r.mu.Unlock()
	if cl != nil { // else whoever makes the client finds them
		cl.AddConsumePartitions(parts)
	}
	return nil
}

func offsetsOf(os []opened) map[string]map[int32]kgo.Offset {
	parts := map[string]map[int32]kgo.Offset{}
	for _, o := range os {
		if parts[o.topic] == nil {
			parts[o.topic] = map[int32]kgo.Offset{}
		}
		parts[o.topic][o.partition] = kgo.NewOffset().At(o.from.offset).WithEpoch(o.from.epoch)
	}
	return parts
}

func (r *reader) Ready() <-chan struct{} { return r.ready }

func token(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Read takes from the first wanted split that has records, or has come to its end.
func (r *reader) Read(c *jobs.Chunk, want []int) error {
	for _, i := range want {
		s := r.splits[i]
		if s.ended {
			continue
		}
		for s.at < len(s.batch.records) || r.next(i) {
			c.Split = i
			s.take(c)
			c.Position = s.pos.encode()
			if c.Ended {
				r.finish(i)
			}
			if len(c.Messages) > 0 || c.Ended {
				return nil
			}
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.err
}

// next puts the next batch of a split in place. It returns true without one where the split has ended.
func (r *reader) next(i int) bool {
	s := r.splits[i]
	r.mu.Lock()
	defer r.mu.Unlock()
	r.queued -= s.batch.bytes
	s.batch, s.at = batch{}, 0
	token(r.room)
	if q := r.queue[i]; len(q) > 0 {
		s.batch = q[0]
		q[0] = batch{}
		r.queue[i] = q[1:]
		return true
	}
	if r.ends[i] {
		s.pos.offset = max(s.pos.offset, s.pos.end)
		return true
	}
	return false
}

// finish stops fetching a partition that has ended, and gives back the room of what was fetched behind its end.
func (r *reader) finish(i int) {
	s := r.splits[i]
	s.ended = true
	r.mu.Lock()
	r.over[i] = true
	r.queued -= s.batch.bytes
	for _, b := range r.queue[i] {
		r.queued -= b.bytes
	}
	s.batch, s.at, r.queue[i] = batch{}, 0, nil
	cl := r.client
	r.mu.Unlock()
	token(r.room)
	if cl != nil {
		cl.PauseFetchPartitions(map[string][]int32{s.topic: {s.partition}})
	}
}

// take turns records of the batch in place into messages and gives them back to the pool.
func (s *split) take(c *jobs.Chunk) {
	rs := s.batch.records[s.at:]
	if n := c.Max - len(c.Messages); len(rs) > n {
		rs = rs[:n]
	}
	s.at += len(rs)
	out, pos := c.Messages, &s.pos
	for _, r := range rs {
		if pos.bounded && r.Offset >= pos.end {
			pos.offset = pos.end
			break // what is left of the batch is not given back; it is the last
		}
		if !r.Attrs.IsControl() {
			m := jobs.Message{Key: r.Key, Value: r.Value, Time: jobs.NoTime, Offset: r.Offset}
			if ms := r.Timestamp.UnixMilli(); ms >= 0 {
				m.Time = jobs.Time(ms)
			}
			if len(r.Headers) > 0 {
				m.Headers = headers(r.Headers)
			}
			out = append(out, m)
		}
		pos.offset, pos.epoch = r.Offset+1, r.LeaderEpoch
		r.Recycle()
	}
	c.Messages = out
	c.Ended = pos.bounded && pos.offset >= pos.end
}

func headers(hs []kgo.RecordHeader) []jobs.Header {
	out := make([]jobs.Header, len(hs))
	for i, h := range hs {
		out[i] = jobs.Header{Name: h.Key, Value: h.Value}
	}
	return out
}

// Committed shows the offset to the group, soon.
func (r *reader) Committed(i int, pos []byte) {
	if r.group == nil {
		return
	}
	p, err := decodePosition(pos)
	if err != nil {
		return // it is one of ours, or Open would have failed
	}
	s := r.splits[i]
	r.group.set(s.topic, s.partition, p)
}

// Close ends the goroutines; group offsets that were not shown yet get a second to be.
func (r *reader) Close() error {
	r.stop()
	<-r.done
	return nil
}

func (r *reader) fail(err error) {
	r.mu.Lock()
	if r.err == nil {
		r.err = err
	}
	r.mu.Unlock()
	token(r.ready)
}

// run connects, then fetches until ctx ends.
func (r *reader) run(ctx context.Context) {
	defer close(r.done)
	defer r.status.fine()
	todo, opened := r.unread()
	if err := r.connect(ctx, todo); err != nil {
		if ctx.Err() == nil {
			r.fail(err)
		}
		return
	}
	opts := []kgo.Opt{
		kgo.ConsumePartitions(offsetsOf(todo)), // none where all have ended
		kgo.ConsumeResetOffset(kgo.NoResetOffset()),
		kgo.FetchMaxBytes(r.src.FetchBytes),
		kgo.FetchMaxPartitionBytes(r.src.PartitionBytes),
		kgo.FetchMaxWait(r.src.FetchWait),
		kgo.KeepRetryableFetchErrors(),
		kgo.WithPools(&recordPool{}),
	}
	if !r.src.Uncommitted {
		opts = append(opts, kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	}
	if r.src.Bounded() {
		opts = append(opts, kgo.KeepControlRecords()) // the last offset may be one
	}
	cl, err := r.newClient(ctx, opts...)
	if err != nil {
		r.fail(err)
		return
	}
	defer cl.Close()
	r.mu.Lock()
	r.client = cl
	added := r.opened[opened:]
	r.mu.Unlock()
	cl.AddConsumePartitions(offsetsOf(added))
	if r.group != nil {
		r.group.start(cl)
		defer r.group.close()
	}
	if len(todo) == 0 && r.src.Bounded() {
		<-ctx.Done() // all have ended; only offsets may still be shown
		return
	}
	r.fetch(ctx, cl)
}

func (r *reader) newClient(ctx context.Context, opts ...kgo.Opt) (*kgo.Client, error) {
	return newClient(ctx, r.src.Brokers, r.src.Security, r.env.Services, clientID(r.env.Job), r.status, opts...)
}

// unread returns the partitions that are not at their end from the start, and how many there are of all.
func (r *reader) unread() (todo []opened, n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, i := range r.todo {
		todo = append(todo, r.opened[i])
	}
	return todo, len(r.opened)
}

// connect waits for the brokers and checks that every position is one they have.
func (r *reader) connect(ctx context.Context, todo []opened) error {
	if len(todo) == 0 {
		return nil
	}
	cl, err := r.newClient(ctx)
	if err != nil {
		return err
	}
	defer cl.Close()
	var names []string
	for _, o := range todo {
		if !slices.Contains(names, o.topic) {
			names = append(names, o.topic)
		}
	}
	return untilDone(ctx, r.status, func(ctx context.Context) error { return checkRanges(ctx, cl, names, todo) })
}

func checkRanges(ctx context.Context, cl *kgo.Client, names []string, todo []opened) error {
	topics, err := describe(ctx, cl, names, false)
	if err != nil {
		return err
	}
	adm := kadm.NewClient(cl)
	first, err := adm.ListStartOffsets(ctx, names...)
	if err == nil {
		err = first.Error()
	}
	var end kadm.ListedOffsets
	if err == nil {
		end, err = adm.ListEndOffsets(ctx, names...)
	}
	if err == nil {
		err = end.Error()
	}
	if err != nil {
		return fmt.Errorf("kafka: list offsets: %w", err)
	}
	for _, s := range todo {
		from := s.from
		if replaced(from.topicID, topics[s.topic].id) {
			return &ReplacedError{Topic: s.topic}
		}
		f, ok1 := first.Lookup(s.topic, s.partition)
		e, ok2 := end.Lookup(s.topic, s.partition)
		if !ok1 || !ok2 {
			return fmt.Errorf("kafka: %s/%d: the brokers did not tell its offsets", s.topic, s.partition)
		}
		if from.offset < f.Offset || from.offset > e.Offset {
			return &RangeError{Topic: s.topic, Partition: s.partition, Offset: from.offset, First: f.Offset, End: e.Offset}
		}
	}
	return nil
}

// fetch polls until ctx ends, a partition cannot be read on or the brokers refuse the login.
func (r *reader) fetch(ctx context.Context, cl *kgo.Client) {
	ctx, release := r.status.login.guard(ctx)
	defer release()
	defer func() {
		if err := r.status.login.err(); err != nil {
			r.fail(err)
		}
	}()
	for ctx.Err() == nil {
		pctx, cancel := ctx, context.CancelFunc(func() {})
		if r.src.Bounded() {
			pctx, cancel = context.WithTimeout(ctx, probeAfter)
		}
		fs := cl.PollFetches(pctx)
		idle := pctx.Err() != nil
		cancel()
		if ctx.Err() != nil {
			return
		}
		if err := r.accept(ctx, cl, fs); err != nil {
			r.fail(err)
			return
		}
		if idle {
			r.probe(ctx, cl)
		}
		r.waitForRoom(ctx)
	}
}

func (r *reader) waitForRoom(ctx context.Context) {
	for {
		r.mu.Lock()
		full := r.queued > r.src.BufferBytes
		r.mu.Unlock()
		if !full {
			return
		}
		select {
		case <-r.room:
		case <-ctx.Done():
			return
		}
	}
}

// accept queues what was fetched; an error is one that waiting does not mend.
func (r *reader) accept(ctx context.Context, cl *kgo.Client, fs kgo.Fetches) error {
	var failed error
	got := false
	fs.EachPartition(func(p kgo.FetchTopicPartition) {
		if len(p.Records) > 0 {
			b := batch{records: p.Records}
			for _, rec := range p.Records {
				b.bytes += int64(len(rec.Key) + len(rec.Value))
			}
			got = r.enqueue(partKey{p.Topic, p.Partition}, b) || got
		}
		if p.Err != nil && failed == nil {
			failed = r.partitionError(ctx, cl, p)
		}
	})
	if got {
		token(r.ready)
		r.status.expire()
	}
	return failed
}

// enqueue takes what was fetched of a partition for Read.
func (r *reader) enqueue(of partKey, b batch) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	i, ok := r.byPart[of]
	if !ok {
		return false
	}
	if !r.over[i] {
		r.queue[i] = append(r.queue[i], b)
		r.queued += b.bytes
	}
	r.asked[i] = b.records[len(b.records)-1].Offset + 1
	return true
}

func (r *reader) partitionError(ctx context.Context, cl *kgo.Client, p kgo.FetchTopicPartition) error {
	lost, isLoss := errors.AsType[*kgo.ErrDataLoss](p.Err)
	switch {
	case errors.Is(p.Err, context.Canceled), errors.Is(p.Err, context.DeadlineExceeded), errors.Is(p.Err, kgo.ErrClientClosed):
		return nil
	case isLoss:
		return &RangeError{Topic: lost.Topic, Partition: lost.Partition, Offset: lost.ConsumedTo, First: -1, End: lost.ResetTo}
	case errors.Is(p.Err, kerr.OffsetOutOfRange):
		return r.rangeError(ctx, cl, p)
	case permanent(p.Err):
		return fmt.Errorf("kafka: %s: %w", splitID(p.Topic, p.Partition), p.Err)
	}
	r.status.wait("partition "+splitID(p.Topic, p.Partition), fmt.Sprintf("%s: %s", splitID(p.Topic, p.Partition), shorten(p.Err)))
	return nil
}

func (r *reader) rangeError(ctx context.Context, cl *kgo.Client, p kgo.FetchTopicPartition) error {
	e := &RangeError{Topic: p.Topic, Partition: p.Partition, First: -1, End: -1}
	r.mu.Lock()
	if i, ok := r.byPart[partKey{p.Topic, p.Partition}]; ok {
		e.Offset = r.asked[i]
	}
	r.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, tryTimeout)
	defer cancel()
	adm := kadm.NewClient(cl)
	if l, err := adm.ListStartOffsets(ctx, p.Topic); err == nil {
		if o, ok := l.Lookup(p.Topic, p.Partition); ok {
			e.First = o.Offset
		}
	}
	if l, err := adm.ListEndOffsets(ctx, p.Topic); err == nil {
		if o, ok := l.Lookup(p.Topic, p.Partition); ok {
			e.End = o.Offset
		}
	}
	return e
}
