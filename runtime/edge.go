package runtime

import (
	"context"
	"slices"
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

	balancedRecordsMin = 32 // records a batch on an edge that any subtask may take, however many there are
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

	mu      sync.Mutex
	inputs  []input
	turn    int
	records int // in all queues
	taken   int // records of the element that next gave last
}

type input struct {
	deliver func(batch any)
	queue   []element
	head    int
	records int
	waiting chan<- struct{} // gets a token when there is room again; nil if the sender does not wait
	held    bool            // behind a barrier that others have not passed yet

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

// offer puts an element behind the others of input i. For a batch there may be no room: then it returns false, and waiting
// gets a token once there is.
func (b *inbox) offer(i int, e element, waiting chan<- struct{}) bool {
	b.mu.Lock()
	in := &b.inputs[i]
	if e.kind == elementBatch && in.records > 0 && in.records+e.n > b.limit() {
		in.waiting = waiting
		b.mu.Unlock()
		return false
	}
	if n := len(in.queue); e.kind == elementWatermark && n > in.head && in.queue[n-1].kind == elementWatermark {
		in.queue[n-1] = e // the newer one says it all, and a queue of watermarks has no other bound
	} else {
		in.queue = append(in.queue, e)
	}
	in.records += e.n
	b.records += e.n
	b.mu.Unlock()
	b.wake()
	return true
}

// load is how many records wait or are being worked on.
func (b *inbox) load() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.records + b.taken
}

// anyTarget stands for the target with the least to do.
const anyTarget = -1

// offer puts an element on the edge to one target, or a batch on that to anyTarget, where there is room.
func (o *edgeOut) offer(target int, e element) bool {
	if target == anyTarget {
		return o.offerLeast(e)
	}
	return o.targets[target].offer(o.inputs[target], e, o.room)
}

// await does it once there is room, which was not when it was offered. It returns false when ctx has ended.
func (o *edgeOut) await(ctx context.Context, target int, e element) bool {
	for {
		select {
		case <-o.room: // perhaps from an earlier wait: then there is another
		case <-ctx.Done():
			return false
		}
		if o.offer(target, e) {
			return true
		}
	}
}

// offerLeast offers a batch to the targets, the one with the least to do first, of equals the next in turn.
func (o *edgeOut) offerLeast(e element) bool {
	n := len(o.targets)
	if o.order == nil {
		o.order, o.loads = make([]int, n), make([]int, n)
	}
	for i := range o.order {
		t := (o.turn + i) % n
		o.order[i], o.loads[t] = t, o.targets[t].load()
	}
	slices.SortStableFunc(o.order, func(a, b int) int { return o.loads[a] - o.loads[b] })
	for _, t := range o.order {
		if o.targets[t].offer(o.inputs[t], e, o.room) {
			o.turn = t + 1
			return true
		}
	}
	return false
}

// next returns the next element and the input it came from; ok is false where there is none now.
func (b *inbox) next() (e element, from int, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.taken = 0
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
		b.records -= e.n
		b.taken = e.n
		if in.waiting != nil && in.records <= b.limit()/2 {
			select {
			case in.waiting <- struct{}{}:
			default: // it has one
			}
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
	return b.records
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
