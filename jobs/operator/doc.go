// Package operator holds the stock steps of a job: filter, map, key_by, side and windows.
//
// Each is a [jobs.Op] for [jobs.Attach]; the YAML loader builds them over rows, Go users over their own types:
//
//	perMinute, late := operator.Tumbling(readings, time.Minute,
//		operator.Aggregates(func(device string, p *operator.Pane) Minute { return Minute{device, p.Int(0), p.Float(1)} },
//			operator.Count[Reading](), operator.Max(Reading.Level)),
//		operator.Lateness(30*time.Second))
//
// Steps are pure functions over (record, state, time): no I/O, no wall clock, no goroutine. One goroutine calls an
// instance. All steps here are atomic: a record that fails has emitted and changed nothing.
//
// # Windows
//
// A tumbling window [start, end) of event time holds the records with start ≤ time < end; starts are multiples of the
// size, also before 1970. It fires when the watermark reaches end − 1 ms, once, and again, whole, at each record that
// comes while it is kept for allowed lateness. It is dropped when the watermark reaches end − 1 ms + lateness; what
// comes later goes to the late port as it is, and is counted. A result has the event time end − 1 ms and the key.
//
// # State of a window
//
// One table, named after the window's size and what it aggregates: state of another shape is not taken over. The
// namespace is the window's start, the entry of a key its accumulator:
//
//	count     n u64                         sum       cell
//	mean      n u64 | cell                  min, max  cell
//	distinct  n u64                         cell      tag u8 (0 none, 1 int64, 2 float64) | bits u64
//
// all little-endian, in the order of the aggregates. Distinct elements are sub-entries without a value, their sub-key
// the aggregate's index (u8) and the element's bytes. A window is dropped as one entry. Which windows have fired is
// not stored: they are those with end − 1 ms ≤ the step's watermark, which stands in the same epoch.
package operator
