package jobs

import (
	"time"
	"unsafe"
)

// Option sets something of a source or a step that most do without.
type Option func(*options)

type options struct {
	id             string
	parallelism    int
	outOfOrderness time.Duration
	idleAfter      time.Duration
	onError        OnError
	start          BusStart
	eventTime      any // func(T) time.Time
}

func optionsOf(j *Job, opts []Option) options {
	var o options
	for _, set := range opts {
		set(&o)
	}
	if o.parallelism < 0 {
		j.fail("step %q: parallelism %d", o.id, o.parallelism)
	}
	return o
}

// ID names a step. State belongs to a step's id, so a step with state should have one: else it gets it from its kind
// and place, and a step put before it takes its state away.
func ID(id string) Option { return func(o *options) { o.id = id } }

// Parallel sets how many subtasks a step has, instead of the job's number.
func Parallel(subtasks int) Option { return func(o *options) { o.parallelism = subtasks } }

// EventTime says when a source's records happened, and how far behind the latest of them others may still come.
func EventTime[T any](at func(v T) time.Time, maxOutOfOrderness time.Duration) Option {
	return func(o *options) { o.eventTime, o.outOfOrderness = at, maxOutOfOrderness }
}

// IdleAfter lets a split of a source that has given nothing for d hold back no watermark.
func IdleAfter(d time.Duration) Option { return func(o *options) { o.idleAfter = d } }

// SkipErrors leaves out, and counts, records of a source that cannot be decoded or that make a step fail.
func SkipErrors() Option { return func(o *options) { o.onError = OnError{Policy: ErrorSkip} } }

// ErrorsTo sends them to an output (see DeadLetters), with the error, the step and the origin as headers.
func ErrorsTo(output string) Option {
	return func(o *options) { o.onError = OnError{Policy: ErrorTo, To: output} }
}

// StartLatest lets a new subscription of a topic begin behind its newest record.
func StartLatest() Option { return func(o *options) { o.start = BusStart{Latest: true} } }

// StartAt lets a new subscription of a topic begin at an offset, in every partition.
func StartAt(offset int64) Option {
	return func(o *options) { o.start = BusStart{At: offset, Exact: true} }
}

// StartTime lets a new subscription of a topic begin, in every partition, at the first record whose event time is t or later;
// where none is so late yet, behind the newest. That is found when the job is added, and once.
func StartTime(t time.Time) Option {
	return func(o *options) { o.start = BusStart{ByTime: true, Time: TimeOf(t)} }
}

// StartAgo is StartTime, at a time so long before the job is added.
func StartAgo(d time.Duration) Option {
	return func(o *options) { o.start = BusStart{ByTime: true, Ago: d} }
}

// From adds a source outside the process.
func From[T any](j *Job, src Source, codec Codec[T], opts ...Option) *Stream[T] {
	o := optionsOf(j, opts)
	at, _ := o.eventTime.(func(T) time.Time)
	if o.eventTime != nil && at == nil {
		var v T
		j.fail("source %s: EventTime takes a function of another type than %T", src.Kind(), v)
	}
	return Read(j, Input[T]{
		ID: o.id, Source: src, Parallelism: o.parallelism, Encode: codec.Encode,
		OutOfOrderness: o.outOfOrderness, IdleAfter: o.idleAfter, OnError: o.onError,
		Decode: func(*Env) func(*Message, *Rec[T]) error {
			return func(m *Message, r *Rec[T]) (err error) {
				if r.Value, err = codec.Decode(m.Value); err == nil && at != nil {
					r.Time = TimeOf(at(r.Value))
				}
				return err
			}
		},
	})
}

// BusTopic is a topic on the bus with the Go type of its records. Declared once, it keeps the jobs that write and read
// it from taking its records for something else.
type BusTopic[T any] struct {
	Name  string
	Topic Topic    // what this program defines of it; the zero Topic leaves all as it is
	Codec Codec[T] // the zero Codec is JSON
}

func (t BusTopic[T]) codec() Codec[T] {
	if t.Codec.Encode == nil || t.Codec.Decode == nil {
		return JSON[T]()
	}
	return t.Codec
}

// define adds what the topic says of itself to the job.
func (t BusTopic[T]) define(j *Job) {
	spec := t.Topic
	if spec == (Topic{}) {
		return
	}
	spec.Name = t.Name
	for _, d := range j.Topics {
		if d == spec {
			return
		}
	}
	j.Topics = append(j.Topics, spec)
}

// FromTopic reads a topic on the bus. Keys, times and watermarks come as they were written.
func FromTopic[T any](j *Job, topic BusTopic[T], opts ...Option) *Stream[T] {
	o, codec := optionsOf(j, opts), topic.codec()
	topic.define(j)
	if o.eventTime != nil {
		j.fail("topic %s: EventTime: records on the bus have their event time", topic.Name)
	}
	return Read(j, Input[T]{
		ID: o.id, Topic: topic.Name, Start: o.start, Parallelism: o.parallelism, Encode: codec.Encode,
		IdleAfter: o.idleAfter, OnError: o.onError,
		Decode: func(*Env) func(*Message, *Rec[T]) error {
			return func(m *Message, r *Rec[T]) (err error) {
				r.Value, err = codec.Decode(m.Value)
				return err
			}
		},
	})
}

// ToTopic writes a stream to a topic on the bus; the output has the topic's name.
func ToTopic[T any](s *Stream[T], topic BusTopic[T], opts ...Option) {
	o := optionsOf(s.job, opts)
	topic.define(s.job)
	codec := topic.codec()
	Write(s, Output[T]{Name: topic.Name, Topic: topic.Name, Parallelism: o.parallelism, Encode: codec.Encode, Plain: codec.plain})
}

// To writes a stream to a sink outside the process, under a name of the output. A string key goes out as its bytes,
// others as JSON.
func To[T any](s *Stream[T], name string, sink Sink, codec Codec[T], opts ...Option) {
	o := optionsOf(s.job, opts)
	Write(s, Output[T]{Name: name, Sink: sink, Parallelism: o.parallelism, Encode: codec.Encode, OutKey: AppendKeyText})
}

// AppendKeyText appends what the outside gets for a key: of a string its own bytes, of all others their JSON.
func AppendKeyText(dst []byte, k Key) []byte {
	if b := k.Bytes; len(b) >= 2 && b[0] == '"' {
		if s, err := (KeyCodec[string]{}).Decode(b); err == nil {
			return append(dst, s...)
		}
	}
	return append(dst, k.Bytes...)
}

// Filter lets the records pass for which keep is true.
func Filter[T any](s *Stream[T], keep func(v T) bool, opts ...Option) *Stream[T] {
	return attach(s, "filter", opts, func(emit func(*Rec[T])) func(*Rec[T]) error {
		return func(r *Rec[T]) error {
			if keep(r.Value) {
				emit(r)
			}
			return nil
		}
	})
}

// Map replaces each record's value.
func Map[In, Out any](s *Stream[In], to func(v In) Out, opts ...Option) *Stream[Out] {
	return TryMap(s, func(v In) (Out, error) { return to(v), nil }, opts...)
}

// TryMap replaces each record's value. An error is the record's.
func TryMap[In, Out any](s *Stream[In], to func(v In) (Out, error), opts ...Option) *Stream[Out] {
	return attach(s, "map", opts, func(emit func(*Rec[Out])) func(*Rec[In]) error {
		var out Rec[Out] // here, where it is allocated once
		return func(r *Rec[In]) error {
			v, err := to(r.Value)
			if err != nil {
				return err
			}
			out = With(r, v)
			emit(&out)
			return nil
		}
	})
}

// FlatMap replaces each record by those that to emits. An error is the record's, and nothing of it is sent on.
func FlatMap[In, Out any](s *Stream[In], to func(v In, emit func(Out)) error, opts ...Option) *Stream[Out] {
	return attach(s, "flat_map", opts, func(emit func(*Rec[Out])) func(*Rec[In]) error {
		var out Rec[Out]
		var vs []Out
		collect := func(v Out) { vs = append(vs, v) }
		return func(r *Rec[In]) error {
			clear(vs)
			vs = vs[:0]
			if err := to(r.Value, collect); err != nil {
				return err
			}
			for _, v := range vs {
				out = With(r, v)
				emit(&out)
			}
			return nil
		}
	})
}

// attach adds a step without state or side output, which changes and emits nothing for a record that fails.
func attach[In, Out any](s *Stream[In], kind string, opts []Option,
	process func(emit func(*Rec[Out])) func(*Rec[In]) error) *Stream[Out] {
	o := optionsOf(s.job, opts)
	out, _ := Attach(s, Op[In, Out, None]{
		Kind: kind, ID: o.id, Parallelism: o.parallelism, Atomic: true,
		New: func(_ *Env, emit func(*Rec[Out]), _ func(*Rec[None])) (Instance[In], error) {
			return Instance[In]{Process: process(emit)}, nil
		}})
	return out
}

// KeyBy gives the records the key that of returns. What follows and keeps state keeps it by that key.
func KeyBy[T, K any](s *Stream[T], of func(v T) K, opts ...Option) *Stream[T] {
	codec, o := NewKeyCodec[K](), optionsOf(s.job, opts)
	out, _ := Attach(s, Op[T, T, None]{
		Kind: "key_by", ID: o.id, Parallelism: o.parallelism, Atomic: true, Rekeys: true,
		New: func(_ *Env, emit func(*Rec[T]), _ func(*Rec[None])) (Instance[T], error) {
			var keys Arena
			var k K // here, where it is allocated once
			return Instance[T]{Process: func(r *Rec[T]) error {
				k = of(r.Value)
				b, err := codec.append(keys.Room(128), unsafe.Pointer(&k))
				if err != nil {
					return err
				}
				r.Key = MakeKey(keys.Keep(b))
				emit(r)
				return nil
			}}, nil
		}})
	out.keyType = keyType[K]()
	return out
}

// Rebalance spreads the records over the subtasks of the step behind it: each batch goes to the one with the least to do. So
// a source with few or uneven splits does not bound the parallelism of an expensive step. Records of one split may overtake one
// another from there on, also those of one key, until a step that keeps state by key takes them in the order of their arrival.
// Event time stays right. Where both sides have one subtask it does nothing.
func Rebalance[T any](s *Stream[T]) *Stream[T] {
	out := *s
	out.balance = true
	if out.keyed {
		out.spread = Hash // they are no longer as they were written
	}
	return &out
}
