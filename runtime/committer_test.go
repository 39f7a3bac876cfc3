package runtime

import (
	"context"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sidestream-dev/sidestream/bus"
	"github.com/sidestream-dev/sidestream/checkpoint"
	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/wal"
)

// fullLog is a log without room for epochs, and at times for small frames.
type fullLog struct {
	processLog
	noSmall atomic.Bool
	small   atomic.Int64
}

func (l *fullLog) Append(wal.FrameKind, []wal.Section) (wal.LSN, error) { return 0, wal.ErrNoRoom }

func (l *fullLog) AppendSmall(wal.FrameKind, []wal.Section) (wal.LSN, error) {
	if l.noSmall.Load() {
		return 0, wal.ErrNoRoom
	}
	return wal.LSN(l.small.Add(1)), nil
}

func (l *fullLog) Room(int64) error                           { return wal.ErrNoRoom }
func (l *fullLog) RotateDue() bool                            { return false }
func (l *fullLog) Last() wal.LSN                              { return wal.LSN(l.small.Load()) + 1 }
func (l *fullLog) Durable() wal.LSN                           { return l.Last() }
func (l *fullLog) Pending() int64                             { return 0 }
func (l *fullLog) Failed() <-chan struct{}                    { return nil }
func (l *fullLog) WaitDurable(context.Context, wal.LSN) error { return nil }

// TestCommitterWithoutRoom: senders' positions that found no room are written once there is some, and the committer ends
// although an epoch still waits for it.
func TestCommitterWithoutRoom(t *testing.T) {
	log := &fullLog{}
	log.noSmall.Store(true)
	l := newLedger()
	l.Jobs[1] = &jobEntry{ID: 1, Name: "job", Phase: PhaseActive, Outputs: []outputEntry{{Name: "out", Outside: true, Sub: 3}}}
	c := newCommitter(newCore(log, bus.New(bus.Config{}, nil), l, 1<<10), log, slog.New(slog.DiscardHandler), 1<<20)
	c.onDurable = func(wal.LSN) {}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go c.run(ctx)

	refused := make(chan error, 1)
	var attempt uint32
	if err := c.do(func(k *core) (err error) { attempt, _, err = k.fence(1); return err }); err != nil {
		t.Fatal(err)
	}
	c.seal(&sealRequest{job: 1, attempt: attempt, header: checkpoint.Header{Job: 1, Epoch: 1}}, func(_ wal.LSN, err error) { refused <- err })
	c.sentTo(sentEntry{Sub: 3, Next: 5})
	time.Sleep(3 * sentEvery)
	log.noSmall.Store(false)
	sent := func() (at bus.Offset) {
		_ = c.do(func(k *core) error { at = k.ledger.Jobs[1].Outputs[0].Sent.Next; return nil })
		return at
	}
	for end := time.Now().Add(20 * time.Second); sent() != 5; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the sender's position was never written")
		}
	}
	cancel()
	select {
	case <-c.done:
	case <-time.After(20 * time.Second):
		t.Fatal("the committer does not end")
	}
	if err := <-refused; err == nil {
		t.Error("an epoch was sealed without room")
	}
}

// TestCutInParts: no piece of a large epoch is larger than a frame, also where the first of what it changed came and went.
func TestCutInParts(t *testing.T) {
	const frameBytes = 64 << 10
	store, err := checkpoint.NewStore(checkpoint.Config{})
	if err != nil {
		t.Fatal(err)
	}
	s := &subtask{ex: &execution{rt: &Runtime{cfg: Config{FrameBytes: frameBytes}}}, nodes: []*nodeInstance{{node: &jobs.Node{ID: "step"}, store: store}}}
	table := store.Table("step", "windows")
	fill := func(window int64, keys int) {
		for k := range keys {
			table.Put(0, []byte{byte(k), byte(k >> 8)}, window, nil, make([]byte, 100))
		}
	}
	fill(1, 2000)
	table.DropNamespace(1)
	fill(2, 4000)
	p := s.cut(1)
	if len(p.states) < 4 {
		t.Errorf("%d pieces", len(p.states))
	}
	for i, b := range p.states {
		if len(b) > frameBytes {
			t.Errorf("piece %d has %d bytes; a frame holds %d", i, len(b), frameBytes)
		}
	}
}

// TestEdgeOfWatermarks: watermarks without records do not pile up before a reader that is slow.
func TestEdgeOfWatermarks(t *testing.T) {
	b := &inbox{wake: func() {}, inputs: make([]input, 1)}
	put := func(e element) {
		if !b.offer(0, e, nil) {
			t.Fatal("the edge does not take it")
		}
	}
	put(element{kind: elementBatch, n: 1})
	for w := range 100 {
		put(element{kind: elementWatermark, watermark: 10, idle: w%2 == 0})
	}
	put(element{kind: elementBarrier, epoch: 1})
	put(element{kind: elementWatermark, watermark: 20})
	var kinds []elementKind
	for {
		e, _, ok := b.next()
		if !ok {
			break
		}
		kinds = append(kinds, e.kind)
		if e.kind == elementWatermark && e.idle {
			t.Error("an older watermark was kept")
		}
	}
	if len(kinds) != 4 || kinds[2] != elementBarrier {
		t.Errorf("kinds %v", kinds)
	}
}

// TestPendingIsTheCommitters: what may wait to be durable is the committer's to bound, which lets one epoch alone pass; the
// log must not refuse it, or its job would fail for ever.
func TestPendingIsTheCommitters(t *testing.T) {
	cfg, err := Config{DataDir: "data"}.withDefaults()
	if err != nil || cfg.Log.PendingBytes < 1<<50 {
		t.Errorf("the log refuses more than %d bytes: %v", cfg.Log.PendingBytes, err)
	}
}
