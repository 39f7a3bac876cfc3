package jobs

import (
	"math"
	"strconv"
	"time"
)

// Time is event time in milliseconds since the Unix epoch.
type Time int64

// NoTime stands for a record that carries no event time.
const NoTime Time = math.MinInt64

// TimeOf converts t to event time, cut to milliseconds.
func TimeOf(t time.Time) Time { return Time(t.UnixMilli()) }

// Go returns t as a UTC time of package time.
func (t Time) Go() time.Time { return time.UnixMilli(int64(t)).UTC() }

// String formats t as RFC 3339 in UTC with milliseconds.
func (t Time) String() string {
	if t == NoTime {
		return "none"
	}
	return t.Go().Format("2006-01-02T15:04:05.000Z07:00")
}

// Watermark says that no record with an event time at or below it is expected any more (Akidau et al., "The Dataflow
// Model", VLDB 2015). Milliseconds since the Unix epoch.
type Watermark int64

const (
	// WatermarkNone is the watermark of an input that has given none.
	WatermarkNone Watermark = math.MinInt64
	// WatermarkMax is the final watermark, sent at the end of a bounded input.
	WatermarkMax Watermark = math.MaxInt64
)

// String formats w as a time, or as none or end.
func (w Watermark) String() string {
	switch w {
	case WatermarkNone:
		return "none"
	case WatermarkMax:
		return "end"
	}
	return Time(w).String()
}

// Header is one name and value that travels with a record.
type Header struct {
	Name  string
	Value []byte
}

// Split is one independently readable part of a source: a partition, a shard, a file.
type Split struct {
	ID        string // unique within the source and stable across restarts
	Topic     string // what an expression sees as source.topic; a file's path
	Partition int32  // what an expression sees as source.partition
}

// Origin says where a record entered the job. The zero Origin is unknown.
type Origin struct {
	Split  *Split
	Offset int64 // offset in the split; for a file the line, from 1
}

// String formats o for a message or a dead letter's header.
func (o Origin) String() string {
	if o.Split == nil {
		return "unknown"
	}
	return o.Split.ID + "@" + strconv.FormatInt(o.Offset, 10)
}

// Message is a record as bytes: what a source reads, what a topic carries and what a sink writes. Its slices are
// immutable and may be kept.
type Message struct {
	Key     []byte // outside: as the outside has it; on the bus: encoded (see [Key])
	Value   []byte
	Time    Time // NoTime where the outside gives none
	Headers []Header
	Offset  int64 // where a source read it: offset in its split
}

// Rec is one record inside a job. A step is given a pointer that is valid during the call only; what the fields point
// to is immutable and may be kept.
type Rec[T any] struct {
	Value   T
	Time    Time
	Key     Key // empty before a KeyBy
	Headers []Header
	Origin  Origin
}

// With returns r's envelope (time, key, headers, origin) around v.
func With[T, U any](r *Rec[T], v U) Rec[U] {
	return Rec[U]{Value: v, Time: r.Time, Key: r.Key, Headers: r.Headers, Origin: r.Origin}
}
