package runtime

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sidestream-dev/sidestream/checkpoint"
	"github.com/sidestream-dev/sidestream/jobs"
)

const (
	batchRecords   = 256                   // records a batch on an edge
	edgeWork       = 50 * time.Millisecond // what an edge may hold of its reader's work
	edgeRecordsMin = 2 * batchRecords      // but never less than this, so that both ends can work at once
	edgeRecordsMax = 256 * batchRecords
)

type elementKind uint8

const (
	elementBatch elementKind = iota
	elementWatermark
	elementBarrier
	elementEnd
)

// element is what travels an edge, in one order.
type element struct {
	kind      elementKind
	batch     any
	n         int // records in batch
	watermark jobs.Watermark
	idle      bool
	epoch     checkpoint.Epoch
	last      bool // a barrier behind which nothing comes
}

// inbox is the reading end of all edges into one subtask. Each input is one upstream subtask of one edge; it has one
// sender. The reader alone calls next, hold and release.
type inbox struct {
	wake func() // tells the reader that there is something
	// perRecord is the reader's time for a record in nanoseconds, measured by the reader; it sets how much an edge may hold.
	perRecord atomic.Int64

	mu     sync.Mutex
	inputs []input
	turn   int
}

type input struct {
	deliver func(batch any)
	queue   []element
	head    int
	records int
	waiting chan struct{} // closed when there is room again; nil if the sender does not wait
	held    bool          // behind a barrier that others have not passed yet

	watermark jobs.Watermark // the reader's view
	idle      bool
	ended     bool
}

// limit is how many records an input may hold.
func (b *inbox) limit() int {
	per := b.perRecord.Load()
	if per <= 0 {
		return 16 * batchRecords
	}
	return min(max(int(int64(edgeWork)/per), edgeRecordsMin), edgeRecordsMax)
}

// send puts an element behind the others of input i. A batch waits for room; held reports how long. It returns false when
// ctx has ended.
func (b *inbox) send(ctx context.Context, i int, e element) (held time.Duration, ok bool) {
	b.mu.Lock()
	in := &b.inputs[i]
	var began time.Time
	for e.kind == elementBatch && in.records > 0 && in.records+e.n > b.limit() {
		if began.IsZero() {
			began = time.Now()
		}
		in.waiting = make(chan struct{})
		room := in.waiting
		b.mu.Unlock()
		select {
		case <-room:
		case <-ctx.Done():
			return time.Since(began), false
		}
		b.mu.Lock()
	}
	if n := len(in.queue); e.kind == elementWatermark && n > in.head && in.queue[n-1].kind == elementWatermark {
		in.queue[n-1] = e // the newer one says it all, and a queue of watermarks has no other bound
	} else {
		in.queue = append(in.queue, e)
	}
	in.records += e.n
	b.mu.Unlock()
	b.wake()
	if !began.IsZero() {
		held = time.Since(began)
	}
	return held, true
}

// next returns the next element and the input it came from; ok is false where there is none now.
func (b *inbox) next() (e element, from int, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for k := range b.inputs {
		i := (b.turn + k) % len(b.inputs)
		in := &b.inputs[i]
		if in.held || in.head == len(in.queue) {
			continue
		}
		e = in.queue[in.head]
		in.queue[in.head] = element{}
		if in.head++; in.head == len(in.queue) {
			in.queue, in.head = in.queue[:0], 0
		}
		in.records -= e.n
		if in.waiting != nil && in.records <= b.limit()/2 {
			close(in.waiting)
			in.waiting = nil
		}
		b.turn = i + 1
		return e, i, true
	}
	return element{}, 0, false
}

func (b *inbox) hold(i int) {
	b.mu.Lock()
	b.inputs[i].held = true
	b.mu.Unlock()
}

func (b *inbox) release() {
	b.mu.Lock()
	for i := range b.inputs {
		b.inputs[i].held = false
	}
	b.mu.Unlock()
}

// queued returns how many records wait.
func (b *inbox) queued() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := 0
	for i := range b.inputs {
		n += b.inputs[i].records
	}
	return n
}

// combined returns the lowest watermark of the inputs that are neither idle nor at their end, the highest where all that
// are left are idle, whether they are, and whether all have ended. Only the reader calls it.
func (b *inbox) combined() (w jobs.Watermark, idle, ended bool) {
	w, idle, ended = jobs.WatermarkMax, true, true
	highest := jobs.WatermarkNone
	for i := range b.inputs {
		in := &b.inputs[i]
		if in.ended {
			continue
		}
		ended = false
		if in.idle {
			highest = max(highest, in.watermark)
			continue
		}
		idle = false
		w = min(w, in.watermark)
	}
	if idle && !ended {
		return highest, true, false
	}
	return w, false, ended
}
