package runtime

import (
	"context"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sidestream-dev/sidestream/bus"
	"github.com/sidestream-dev/sidestream/checkpoint"
	"github.com/sidestream-dev/sidestream/jobs"
)

// feed is where a task's records come from: an outside source or a topic on the bus.
type feed interface {
	open(ctx context.Context, s *subtask) error
	// poll counts the next records and runs them through the chain; n is 0 where there was nothing, not even an end.
	poll(s *subtask) (n int, err error)
	watermark() (w jobs.Watermark, idle, ended bool)
	// positions adds what has moved since the last call to a header.
	positions(e checkpoint.Epoch, h *checkpoint.Header) []readUpTo
	ready() <-chan struct{}
	idleIn() time.Duration // when a split may become idle; 0 if none can
	close() error
}

// splitState is one split of an outside source in one subtask.
type splitState struct {
	start     jobs.Start
	position  []byte
	watermark jobs.Watermark
	idle      bool
	ended     bool
	seen      time.Time // of the last record, or of the start
	moved     bool
}

// outsideFeed reads a jobs.Source.
type outsideFeed struct {
	node   *jobs.Node
	built  *jobs.Built
	env    jobs.SourceEnv
	splits []splitState
	want   []int
	reader jobs.Reader
	chunk  jobs.Chunk
	now    func() time.Time
	watch  jobs.CommitWatcher // nil if the reader does not care what is durable
	shown  checkpoint.Epoch
	cuts   []cutPosition // of epochs that are not durable yet

	newsMu sync.Mutex
	news   []jobs.Start // found and not yet taken
	isNews atomic.Bool
}

// cutPosition is where a split stood at the end of an epoch.
type cutPosition struct {
	epoch    checkpoint.Epoch
	split    int
	position []byte
}

// showDurable tells the reader the positions of durable epochs.
func (f *outsideFeed) showDurable(e checkpoint.Epoch) {
	if f.watch == nil || e <= f.shown {
		return
	}
	f.shown = e
	n := 0
	for n < len(f.cuts) && f.cuts[n].epoch <= e {
		f.watch.Committed(f.cuts[n].split, f.cuts[n].position)
		n++
	}
	f.cuts = append(f.cuts[:0], f.cuts[n:]...)
}

func (f *outsideFeed) open(ctx context.Context, s *subtask) error {
	starts := make([]jobs.Start, len(f.splits))
	for i := range f.splits {
		starts[i] = f.splits[i].start
		f.splits[i].seen = f.now()
		if !f.splits[i].ended {
			f.want = append(f.want, i)
		}
	}
	r, err := f.node.Source.Source.Open(ctx, f.env, starts)
	if err != nil {
		return &JobError{Job: s.ex.name, Step: f.node.ID, Subtask: s.index, Err: err}
	}
	f.reader = r
	f.watch, _ = r.(jobs.CommitWatcher)
	for i := range f.splits {
		if f.splits[i].moved {
			s.changed() // where a new split begins stands in the next epoch
			break
		}
	}
	return nil
}

func (f *outsideFeed) poll(s *subtask) (int, error) {
	if f.isNews.Load() {
		if err := f.takeNews(s); err != nil {
			return 0, err
		}
	}
	if len(f.want) > 1 {
		slices.SortStableFunc(f.want, func(a, b int) int {
			switch wa, wb := f.splits[a].watermark, f.splits[b].watermark; {
			case wa < wb:
				return -1
			case wa > wb:
				return 1
			}
			return 0
		})
	}
	if len(f.want) == 0 {
		return 0, nil
	}
	f.chunk.Reset()
	f.chunk.Max = s.ex.rt.chunkRecords
	if err := f.reader.Read(&f.chunk, f.want); err != nil {
		return 0, &JobError{Job: s.ex.name, Step: f.node.ID, Subtask: s.index, Err: err}
	}
	n := len(f.chunk.Messages)
	f.judgeIdle(n > 0 || f.chunk.Ended)
	if n == 0 && !f.chunk.Ended && !f.chunk.Moved {
		return 0, nil
	}
	sp := &f.splits[f.chunk.Split]
	if n > 0 {
		s.stats.in.Add(int64(n))
		s.stats.inBytes.Add(bytesOf(f.chunk.Messages))
		highest := f.built.Messages(&sp.start.Split, f.chunk.Messages)
		if highest != jobs.NoTime {
			sp.watermark = max(sp.watermark, jobs.Watermark(highest)-jobs.Watermark(f.node.Source.OutOfOrderness.Milliseconds())-1)
		}
		sp.seen, sp.idle = f.now(), false
	}
	sp.moved = true
	if f.chunk.Position != nil {
		sp.position = f.chunk.Position
	}
	if f.chunk.Ended {
		sp.ended = true
		i := slices.Index(f.want, f.chunk.Split)
		f.want = slices.Delete(f.want, i, i+1)
		s.changed()
	}
	return max(n, 1), nil
}

// judgeIdle takes for idle each split that had nothing when it was asked and has been silent for IdleAfter. One behind the
// split that gave something was not asked: it may have records that the job itself, being slow, has not come to.
func (f *outsideFeed) judgeIdle(some bool) {
	after := f.node.Source.IdleAfter
	if after == 0 {
		return
	}
	now := f.now()
	for _, i := range f.want {
		if some && i == f.chunk.Split {
			return
		}
		if sp := &f.splits[i]; !sp.idle && now.Sub(sp.seen) >= after {
			sp.idle, sp.moved = true, true
		}
	}
}

func (f *outsideFeed) watermark() (w jobs.Watermark, idle, ended bool) {
	w, idle, ended = jobs.WatermarkMax, true, f.node.Source.Source.Bounded()
	highest := jobs.WatermarkNone // of those that are idle
	for i := range f.splits {
		sp := &f.splits[i]
		if sp.ended {
			continue
		}
		ended = false
		if sp.idle {
			highest = max(highest, sp.watermark)
			continue
		}
		idle = false
		w = min(w, sp.watermark)
	}
	if idle {
		w = highest // whichever became idle last: where all do at once it must not depend on their order
	}
	return w, idle, ended
}

func bytesOf(ms []jobs.Message) (n int64) {
	for i := range ms {
		n += int64(len(ms[i].Key) + len(ms[i].Value))
	}
	return n
}

func (f *outsideFeed) positions(e checkpoint.Epoch, h *checkpoint.Header) []readUpTo {
	for i := range f.splits {
		sp := &f.splits[i]
		if !sp.moved {
			continue
		}
		sp.moved = false
		if f.watch != nil {
			f.cuts = append(f.cuts, cutPosition{e, i, sp.position})
		}
		h.Splits = append(h.Splits, checkpoint.SplitState{Step: f.node.ID, Split: sp.start.Split.ID,
			Topic: sp.start.Split.Topic, Partition: sp.start.Split.Partition, Position: sp.position,
			Watermark: int64(sp.watermark), Idle: sp.idle, Ended: sp.ended})
	}
	return nil
}

func (f *outsideFeed) ready() <-chan struct{} { return f.reader.Ready() }

func (f *outsideFeed) idleIn() time.Duration {
	after := f.node.Source.IdleAfter
	if after == 0 {
		return 0
	}
	var least time.Duration
	for i := range f.splits {
		sp := &f.splits[i]
		if sp.idle || sp.ended {
			continue
		}
		d := max(after-f.now().Sub(sp.seen), time.Millisecond)
		if least == 0 || d < least {
			least = d
		}
	}
	return least
}

func (f *outsideFeed) close() error {
	if f.reader == nil {
		return nil
	}
	return f.reader.Close()
}

// busFeed reads a subscription.
type busFeed struct {
	node   *jobs.Node
	built  *jobs.Built
	bus    *bus.Bus
	sub    bus.SubID
	topic  bus.TopicID
	states []bus.SubState
	splits map[int]*jobs.Split
	reader *bus.Reader
	shared atomic.Pointer[bus.Reader] // the same, for whoever asks how it stands
	wakes  chan struct{}
	msgs   []jobs.Message
	sent   []bus.SubState

	ends []replayEnd // of the replay under way; nil once it is over, or where there is none
	told bool        // that the reader has come there
	rate *recordRate // of a copy; nil: as fast as can be

	pace feedPace
}

func (f *busFeed) open(_ context.Context, s *subtask) error {
	f.wakes = make(chan struct{}, 1)
	f.splits = map[int]*jobs.Split{}
	for _, st := range f.states {
		f.splits[st.Partition] = &jobs.Split{ID: f.node.Source.Topic + "/" + strconv.Itoa(st.Partition), Topic: f.node.Source.Topic, Partition: int32(st.Partition)}
	}
	f.reader = f.bus.NewReader(f.sub, f.topic, f.states, func() {
		select {
		case f.wakes <- struct{}{}:
		default:
		}
	})
	if after := f.node.Source.IdleAfter; after > 0 {
		f.reader.IdleAfter(after, s.ex.rt.now)
	}
	for _, end := range f.ends {
		f.reader.StopAt(end.Partition, end.At)
	}
	f.shared.Store(f.reader)
	f.beginCatchUp(s.ex)
	return nil
}

func (f *busFeed) poll(s *subtask) (int, error) {
	if err := f.pastReplay(s); err != nil {
		return 0, err
	}
	most := f.rate.allow(s.ex.rt.now(), f.records(s.ex.rt.chunkRecords))
	if most == 0 {
		return 0, nil
	}
	b, ok, err := f.reader.Next(most)
	for ok && err == nil && b.Len() == 0 { // marks alone
		b, ok, err = f.reader.Next(most)
	}
	if err != nil {
		return 0, &JobError{Job: s.ex.name, Step: f.node.ID, Subtask: s.index, Err: err}
	}
	if !ok {
		f.endCatchUp()
		if f.ends != nil && !f.told && f.reader.Stopped() {
			f.told = true
			s.changed() // the epoch that holds the rest of the replay is to end
		}
		return 0, nil
	}
	n := b.Len()
	f.rate.took(n)
	s.stats.in.Add(int64(n))
	split := f.splits[b.Partition]
	if b.Payload != nil {
		if _, ok := f.built.Payload(split, int64(b.Base), b.Payload, b.From, b.To); ok {
			return n, nil
		}
	}
	f.msgs = f.msgs[:0]
	for r := range b.Records() {
		f.msgs = append(f.msgs, jobs.Message{Key: r.Key, Value: r.Value, Time: jobs.Time(r.Time), Headers: jobsHeaders(r.Headers), Offset: int64(b.Base) + int64(len(f.msgs))})
	}
	f.built.Messages(split, f.msgs)
	clear(f.msgs)
	return n, nil
}

func (f *busFeed) watermark() (w jobs.Watermark, idle, ended bool) {
	wm, idle := f.reader.Watermark()
	return jobs.Watermark(wm), idle, f.reader.Ended()
}

func (f *busFeed) positions(_ checkpoint.Epoch, h *checkpoint.Header) []readUpTo {
	states := f.reader.States()
	var moved []bus.SubState
	for i, st := range states {
		if i < len(f.sent) && sameState(f.sent[i], st) {
			continue
		}
		moved = append(moved, st)
		h.Subs = append(h.Subs, checkpoint.SubPosition{Sub: uint32(f.sub), Partition: st.Partition, State: bus.AppendSubState(nil, st)})
	}
	f.sent = states
	if len(moved) == 0 {
		return nil
	}
	return []readUpTo{{f.sub, moved}}
}

func sameState(a, b bus.SubState) bool {
	return a.Partition == b.Partition && a.Position == b.Position && a.Watermark == b.Watermark && a.Idle == b.Idle && slices.Equal(a.Table, b.Table) &&
		a.Dropped == b.Dropped && slices.Equal(a.Lost, b.Lost)
}

func (f *busFeed) ready() <-chan struct{} { return f.wakes }

func (f *busFeed) idleIn() time.Duration {
	if d := f.rate.in(); d > 0 {
		return d
	}
	return f.reader.QuietIn()
}

func (f *busFeed) close() error {
	f.endCatchUp()
	return f.reader.Close()
}
