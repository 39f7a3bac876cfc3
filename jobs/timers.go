package jobs

import (
	"container/heap"
	"encoding/binary"
)

// timerBucket is the length of the namespaces that timers are kept in, milliseconds; a power of two.
const timerBucket = 1 << 10

// Timers are event-time timers over a Table: at most one a key and time. An entry holds one key's timers of one bucket
// of time (namespace: the bucket's start; value: times, i64 little-endian, in the order in which they were set), so one
// timer is one entry nearly always. A heap in memory, built anew from the table by NewTimers, knows what is next; the
// table decides: what a heap item names and the table no longer has, does not fire. So undoing a record's changes in
// the table undoes its timers. Timers are for one goroutine.
type Timers struct {
	t       Table
	heap    timerHeap
	swept   int // items when the heap was last built
	keys    Arena
	scratch []byte
}

type timerItem struct {
	at  Time
	key Key
}

type timerHeap []timerItem

func (h timerHeap) Len() int           { return len(h) }
func (h timerHeap) Less(i, j int) bool { return h[i].at < h[j].at }
func (h timerHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *timerHeap) Push(x any)        { *h = append(*h, x.(timerItem)) }
func (h *timerHeap) Pop() any {
	old := *h
	x := old[len(old)-1]
	old[len(old)-1] = timerItem{}
	*h = old[:len(old)-1]
	return x
}

// NewTimers returns the timers that t holds.
func NewTimers(t Table) *Timers {
	ts := &Timers{t: t}
	ts.sweep()
	return ts
}

// sweep builds the heap from the table.
func (ts *Timers) sweep() {
	clear(ts.heap)
	ts.heap, ts.keys = ts.heap[:0], Arena{}
	for _, ns := range ts.t.Namespaces() {
		ts.t.Scan(ns, func(group uint8, key, val []byte) bool {
			k := Key{Bytes: ts.keys.Copy(key), Group: group}
			for ; len(val) >= 8; val = val[8:] {
				ts.heap = append(ts.heap, timerItem{Time(binary.LittleEndian.Uint64(val)), k})
			}
			return true
		})
	}
	heap.Init(&ts.heap)
	ts.swept = len(ts.heap)
}

func bucketOf(at Time) int64 { return int64(at) &^ (timerBucket - 1) }

// find returns the times of at's entry and where at stands in them, -1 if it does not.
func (ts *Timers) find(key Key, at Time) (times []byte, where int) {
	times, _ = ts.t.Get(key.Group, key.Bytes, bucketOf(at), nil)
	for i := 0; i+8 <= len(times); i += 8 {
		if Time(binary.LittleEndian.Uint64(times[i:])) == at {
			return times, i
		}
	}
	return times, -1
}

// Set makes a timer of key go off at at, if it is not set already. It keeps key.
func (ts *Timers) Set(key Key, at Time) {
	times, where := ts.find(key, at)
	if where >= 0 {
		return
	}
	ts.scratch = binary.LittleEndian.AppendUint64(append(ts.scratch[:0], times...), uint64(at))
	ts.t.Put(key.Group, key.Bytes, bucketOf(at), nil, ts.scratch)
	heap.Push(&ts.heap, timerItem{at, key})
}

// Delete removes the timer of key at at, and reports whether there was one.
func (ts *Timers) Delete(key Key, at Time) bool {
	times, where := ts.find(key, at)
	switch {
	case where < 0:
		return false
	case len(times) == 8:
		ts.t.Delete(key.Group, key.Bytes, bucketOf(at), nil)
	default:
		ts.scratch = append(append(ts.scratch[:0], times[:where]...), times[where+8:]...)
		ts.t.Put(key.Group, key.Bytes, bucketOf(at), nil, ts.scratch)
	}
	return true
}

// Pending returns how many items the heap holds: the timers set, and some that were taken back.
func (ts *Timers) Pending() int { return len(ts.heap) }

// Advance calls fire for every timer at or before w, in the order of their times, until fire returns an error, which it
// returns. A timer is gone when fire is called; one that fire sets at or before w goes off in the same call. It is not
// for calling between BeginRecord and EndRecord.
func (ts *Timers) Advance(w Watermark, fire func(key Key, at Time) error) error {
	if len(ts.heap) > 2*ts.swept+1024 {
		ts.sweep() // what was taken back, or set again, leaves items behind; not in Set, whose record may be undone
	}
	for len(ts.heap) > 0 && int64(ts.heap[0].at) <= int64(w) {
		top := heap.Pop(&ts.heap).(timerItem)
		if !ts.Delete(top.key, top.at) {
			continue
		}
		if err := fire(top.key, top.at); err != nil {
			return err
		}
	}
	return nil
}
