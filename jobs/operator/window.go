package operator

import (
	"fmt"
	"hash/crc32"
	"slices"
	"time"

	"github.com/sidestream-dev/sidestream/jobs"
)

// timeMax bounds event times, sizes and lateness, so that their sums do not overflow. Milliseconds.
const timeMax = 1 << 60

// Window describes a tumbling event-time window over a keyed stream; the package comment says when it fires.
type Window[In, Out any] struct {
	ID          string
	Parallelism int
	Size        time.Duration // whole milliseconds, at least one
	Lateness    time.Duration // whole milliseconds; how long a window that has fired takes records
	// Layout names what an accumulator holds: state that was written under another layout, or size, is not read. Who
	// wants a changed argument to begin anew puts the argument into it.
	Layout string
	// New makes the aggregator of one subtask.
	New        func(env *jobs.Env) (Aggregator[In, Out], error)
	EncodeOut  func(dst []byte, v Out) ([]byte, error) // nil means JSON
	EncodeLate func(dst []byte, v In) ([]byte, error)  // nil means JSON
}

// Aggregator folds records into accumulators, which are bytes of state. For each record Eval is called first, then
// Add; one goroutine calls it, so it may keep scratch space between the two.
type Aggregator[In, Out any] interface {
	// Size is the length of an accumulator, which begins as zero bytes; 0 says that it varies.
	Size() int
	// Eval computes what Add needs of r and keeps it. An error is the record's: nothing has changed then.
	Eval(r *jobs.Rec[In]) error
	// Elements lists what Eval found for aggregates that must know whether they have seen it in this window and key
	// before. The slice is the aggregator's; the window sets New. Mostly it is nil.
	Elements() []Element
	// Add folds the last record evaluated into acc. With a fixed size it changes acc and the result is not looked at;
	// else acc is what it returned last (nil at first), which it must not change, and it returns the new accumulator.
	Add(acc []byte) []byte
	// Result makes a pane's result; it must not keep p or p.Acc. It cannot fail: what cannot be said is a value.
	Result(p *Pane) Out
}

// Element is one value that is kept once a window and key.
type Element struct {
	Sub []byte // unlike those of any other aggregate; not empty
	New bool   // it was not there before
}

// Pane is one key's share of one window. It is valid during the call that it is given to; Key may be kept.
type Pane struct {
	Key        jobs.Key
	Start, End jobs.Time // End is outside
	Acc        []byte    // the accumulator

	cells []Number // of stock aggregates
}

// Op returns the window as a step: its main port gives results, its second the records that come too late.
func (w Window[In, Out]) Op() (jobs.Op[In, Out, In], error) {
	size, lateness := w.Size.Milliseconds(), w.Lateness.Milliseconds()
	switch {
	case size < 1 || w.Size%time.Millisecond != 0:
		return jobs.Op[In, Out, In]{}, fmt.Errorf("window: size %v: want whole milliseconds, at least one", w.Size)
	case lateness < 0 || w.Lateness%time.Millisecond != 0:
		return jobs.Op[In, Out, In]{}, fmt.Errorf("window: allowed lateness %v: want whole milliseconds, not negative", w.Lateness)
	case w.New == nil:
		return jobs.Op[In, Out, In]{}, fmt.Errorf("window: it has nothing to aggregate")
	}
	return jobs.Op[In, Out, In]{
		Kind: "window", ID: w.ID, Parallelism: w.Parallelism, Keyed: true, Atomic: true, Span: w.Size,
		EncodeOut: w.EncodeOut, EncodeSide: w.EncodeLate,
		New: func(env *jobs.Env, emit func(*jobs.Rec[Out]), late func(*jobs.Rec[In])) (jobs.Instance[In], error) {
			agg, err := w.New(env)
			if err != nil {
				return jobs.Instance[In]{}, err
			}
			name := fmt.Sprintf("tumbling-%d-%08x", size, crc32.ChecksumIEEE([]byte(w.Layout)))
			i := &window[In, Out]{
				env: env, table: env.Table(name), agg: agg, accSize: agg.Size(), emit: emit, late: late,
				size: size, lateness: lateness, watermark: int64(env.Restored), current: -1 << 63,
			}
			i.restore()
			if env.Trace != nil {
				return jobs.Instance[In]{Process: i.traced, Watermark: i.advance}, nil
			}
			return jobs.Instance[In]{Process: i.process, Watermark: i.advance}, nil
		},
	}, nil
}

// window is one subtask's instance.
type window[In, Out any] struct {
	env     *jobs.Env
	table   jobs.Table
	agg     Aggregator[In, Out]
	accSize int
	emit    func(*jobs.Rec[Out])
	late    func(*jobs.Rec[In])

	size, lateness int64
	watermark      int64
	current        int64 // start of the open window that took the last record
	open           []openWindow
	next           int64 // the watermark at which a window fires or goes; meaningless while none is open
	pane           Pane
	out            jobs.Rec[Out]
	keys           jobs.Arena
}

// openWindow is a window that has state.
type openWindow struct {
	start int64
	fired bool
}

// restore finds the open windows of an earlier attempt. Those that the restored watermark has reached fired then.
func (w *window[In, Out]) restore() {
	for _, start := range w.table.Namespaces() {
		w.open = append(w.open, openWindow{start, start+w.size-1 <= w.watermark})
	}
	w.schedule()
}

func (w *window[In, Out]) process(r *jobs.Rec[In]) error {
	t := int64(r.Time)
	start := w.current
	if uint64(t-start) >= uint64(w.size) {
		if t < -timeMax || t > timeMax {
			return fmt.Errorf("window: event time %v: want one within some 36 million years of 1970", r.Time)
		}
		start = floor(t, w.size)
	}
	last := start + w.size - 1
	if last+w.lateness <= w.watermark {
		if w.env.Late != nil {
			w.env.Late()
		}
		w.late(r)
		return nil
	}
	if err := w.agg.Eval(r); err != nil {
		return err
	}
	if start != w.current {
		w.begin(start)
	}
	var acc []byte
	if els := w.agg.Elements(); els != nil {
		acc = w.foldElements(r.Key, start, els)
	} else {
		acc = w.fold(r.Key, start)
	}
	if last <= w.watermark {
		w.fire(r.Key, start, acc)
	}
	return nil
}

// traced is process that first tells which window the record belongs to.
func (w *window[In, Out]) traced(r *jobs.Rec[In]) error {
	if t := int64(r.Time); t >= -timeMax && t <= timeMax {
		start := floor(t, w.size)
		gone := start + w.size - 1 + w.lateness
		w.env.Trace.Pane(w.env.Step, jobs.Time(start), jobs.Time(start+w.size), gone <= w.watermark, jobs.Watermark(w.watermark), jobs.Watermark(gone))
	}
	return w.process(r)
}

// fold adds the record in hand to its key's accumulator, or, where that is too large, panics and has changed nothing.
func (w *window[In, Out]) fold(key jobs.Key, start int64) (acc []byte) {
	if w.accSize > 0 {
		acc, _ = w.table.Edit(key.Group, key.Bytes, start, nil, w.accSize)
		w.agg.Add(acc)
		return acc
	}
	acc, _ = w.table.Get(key.Group, key.Bytes, start, nil)
	acc = w.agg.Add(acc)
	w.table.Put(key.Group, key.Bytes, start, nil, acc)
	return acc
}

// foldElements is fold with elements, which are kept first. They go again if one of them, or the accumulator, is too large.
func (w *window[In, Out]) foldElements(key jobs.Key, start int64, els []Element) (acc []byte) {
	kept, done := 0, false
	defer func() {
		for _, e := range els[:kept] {
			if e.New && !done {
				w.table.Delete(key.Group, key.Bytes, start, e.Sub)
			}
		}
	}()
	for i := range els {
		_, seen := w.table.Get(key.Group, key.Bytes, start, els[i].Sub)
		if els[i].New = !seen; !seen {
			w.table.Put(key.Group, key.Bytes, start, els[i].Sub, nil)
		}
		kept++
	}
	acc = w.fold(key, start)
	done = true
	return acc
}

// floor returns the start of the window of length size that t lies in, before 1970 too.
func floor(t, size int64) int64 {
	m := t % size
	if m < 0 {
		m += size
	}
	return t - m
}

// begin makes start the current window, and an open one if it is not.
func (w *window[In, Out]) begin(start int64) {
	w.current = start
	at, found := slices.BinarySearchFunc(w.open, start, func(o openWindow, s int64) int {
		switch {
		case o.start < s:
			return -1
		case o.start > s:
			return 1
		}
		return 0
	})
	if !found {
		w.open = slices.Insert(w.open, at, openWindow{start, start+w.size-1 <= w.watermark})
		w.schedule()
	}
}

// schedule sets next.
func (w *window[In, Out]) schedule() {
	w.next = 1<<63 - 1
	for _, o := range w.open {
		at := o.start + w.size - 1
		if o.fired {
			at += w.lateness
		}
		w.next = min(w.next, at)
	}
}

// advance fires and drops, in the order of their starts, the windows that event time has come to the end of.
func (w *window[In, Out]) advance(mark jobs.Watermark) error {
	if int64(mark) < w.watermark {
		return nil
	}
	w.watermark = int64(mark)
	if len(w.open) == 0 || w.watermark < w.next {
		return nil
	}
	kept := w.open[:0]
	for _, o := range w.open {
		last := o.start + w.size - 1
		if !o.fired && last <= w.watermark {
			w.fireAll(o.start)
			o.fired = true
		}
		if last+w.lateness <= w.watermark {
			w.table.DropNamespace(o.start)
			continue
		}
		kept = append(kept, o)
	}
	w.open = kept
	w.schedule()
	return nil
}

func (w *window[In, Out]) fireAll(start int64) {
	w.table.Scan(start, func(group uint8, key, acc []byte) bool {
		w.fire(jobs.Key{Bytes: w.keys.Copy(key), Group: group}, start, acc)
		return !*w.env.Failed
	})
}

// fire emits the result of one key's window.
func (w *window[In, Out]) fire(key jobs.Key, start int64, acc []byte) {
	w.pane.Key, w.pane.Acc = key, acc
	w.pane.Start, w.pane.End = jobs.Time(start), jobs.Time(start+w.size)
	w.out = jobs.Rec[Out]{Value: w.agg.Result(&w.pane), Time: w.pane.End - 1, Key: key}
	w.emit(&w.out)
}
