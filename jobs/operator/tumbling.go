package operator

import (
	"fmt"
	"time"

	"github.com/sidestream-dev/sidestream/jobs"
)

// Option sets something of a window that most do without.
type Option func(*options)

type options struct {
	id          string
	parallelism int
	lateness    time.Duration
}

// Lateness keeps a window that has fired for d of event time: it fires again, whole, at each record that still comes.
func Lateness(d time.Duration) Option { return func(o *options) { o.lateness = d } }

// ID names the step; its state belongs to that name.
func ID(id string) Option { return func(o *options) { o.id = id } }

// Parallel sets how many subtasks the step has.
func Parallel(subtasks int) Option { return func(o *options) { o.parallelism = subtasks } }

// Spec says what a window computes: see [Aggregates] and [Custom].
type Spec[In, Out any] struct {
	layout string
	make   func(env *jobs.Env) (Aggregator[In, Out], error)
	err    error
}

// Tumbling puts the records of each key into windows of event time that follow one another, and emits what they come
// to. The second stream has the records that came too late for their window.
func Tumbling[In, Out any](s *jobs.Stream[In], size time.Duration, what Spec[In, Out], opts ...Option) (*jobs.Stream[Out], *jobs.Stream[In]) {
	var o options
	for _, set := range opts {
		set(&o)
	}
	op, err := Window[In, Out]{
		ID: o.id, Parallelism: o.parallelism, Size: size, Lateness: o.lateness,
		Layout: what.layout, New: what.make, EncodeLate: s.Encode,
	}.Op()
	if err == nil {
		err = what.err
	}
	if err != nil {
		s.Job().Fail(err)
	}
	return jobs.Attach(s, op)
}

// Aggregates computes stock aggregates. result makes a result of a key and its pane, where Int(i), Float(i) and
// Number(i) are the values of folds.
func Aggregates[K, In, Out any](result func(key K, p *Pane) Out, folds ...Fold[In]) Spec[In, Out] {
	return Spec[In, Out]{layout: Layout(folds), make: func(env *jobs.Env) (Aggregator[In, Out], error) {
		key := keyReader[K](env)
		return Folds(folds, func(p *Pane) Out { return result(key(p), p) }), nil
	}}
}

// keyReader returns a func that gives a pane's key. A key that is no K ends the attempt.
func keyReader[K any](env *jobs.Env) func(p *Pane) K {
	codec := jobs.NewKeyCodec[K]()
	return func(p *Pane) K {
		k, err := codec.Decode(p.Key.Bytes)
		if err != nil {
			env.Fail(fmt.Errorf("step %s: %w", env.Step, err))
		}
		return k
	}
}

// Custom computes with an accumulator of one's own, which is kept in the layout of state (see jobs.StateCodec); one of
// fixed size (numbers, bools, arrays and structs of them) is the fastest. add folds a record into an accumulator that
// begins as the zero A; result must not keep p.
func Custom[K, A, In, Out any](add func(acc *A, v In), result func(key K, p *Pane, acc *A) Out) Spec[In, Out] {
	codec, err := jobs.NewStateCodec[A]()
	if err != nil {
		return Spec[In, Out]{err: err}
	}
	return Spec[In, Out]{layout: codec.Layout(), make: func(env *jobs.Env) (Aggregator[In, Out], error) {
		return &custom[K, A, In, Out]{env: env, codec: codec, add: add, result: result, key: keyReader[K](env)}, nil
	}}
}

type custom[K, A, In, Out any] struct {
	env     *jobs.Env
	codec   jobs.StateCodec[A]
	add     func(acc *A, v In)
	result  func(key K, p *Pane, acc *A) Out
	key     func(p *Pane) K
	v       In
	acc     A // here, where it is allocated once
	scratch []byte
}

func (c *custom[K, A, In, Out]) Size() int           { return max(0, c.codec.Size()) }
func (c *custom[K, A, In, Out]) Elements() []Element { return nil }

func (c *custom[K, A, In, Out]) Eval(r *jobs.Rec[In]) error {
	c.v = r.Value
	return nil
}

func (c *custom[K, A, In, Out]) Add(acc []byte) []byte {
	c.load(acc)
	c.add(&c.acc, c.v)
	dst := acc[:0]
	if c.codec.Size() <= 0 {
		dst = c.scratch[:0] // acc belongs to the table
	}
	b, err := c.codec.Append(dst, &c.acc)
	if err != nil {
		c.env.Fail(fmt.Errorf("step %s: accumulator: %w", c.env.Step, err))
	}
	if c.codec.Size() <= 0 {
		c.scratch = b
	}
	return b
}

func (c *custom[K, A, In, Out]) Result(p *Pane) Out {
	c.load(p.Acc)
	return c.result(c.key(p), p, &c.acc)
}

// load sets c.acc to what b holds.
func (c *custom[K, A, In, Out]) load(b []byte) {
	var zero A
	c.acc = zero
	if b == nil {
		return
	}
	if err := c.codec.Decode(b, &c.acc); err != nil {
		c.env.Fail(fmt.Errorf("step %s: accumulator: %w", c.env.Step, err))
	}
}

// Numeric is what stock aggregates add and compare. Integers are kept as int64.
type Numeric interface {
	~int | ~int8 | ~int16 | ~int32 | ~int64 | ~uint8 | ~uint16 | ~uint32 | ~float32 | ~float64
}

// number makes the argument of an aggregate.
func number[T any, N Numeric](of func(v T) N) func(r *jobs.Rec[T]) (Number, error) {
	if half := 0.5; N(half) != 0 {
		return func(r *jobs.Rec[T]) (Number, error) { return Float(float64(of(r.Value))), nil }
	}
	return func(r *jobs.Rec[T]) (Number, error) { return Int(int64(of(r.Value))), nil }
}

// Count is the number of records.
func Count[T any]() Fold[T] { return Fold[T]{Func: FuncCount} }

// Sum is the sum of numbers.
func Sum[T any, N Numeric](of func(v T) N) Fold[T] { return Fold[T]{Func: FuncSum, Number: number(of)} }

// Mean is the mean of numbers, a float.
func Mean[T any, N Numeric](of func(v T) N) Fold[T] {
	return Fold[T]{Func: FuncMean, Number: number(of)}
}

// Min is the lowest of numbers.
func Min[T any, N Numeric](of func(v T) N) Fold[T] { return Fold[T]{Func: FuncMin, Number: number(of)} }

// Max is the highest of numbers.
func Max[T any, N Numeric](of func(v T) N) Fold[T] { return Fold[T]{Func: FuncMax, Number: number(of)} }

// Distinct is the number of different elements; they are equal if they are equal as keys are (see jobs.KeyCodec).
func Distinct[T, E any](of func(v T) E) Fold[T] {
	codec := jobs.NewKeyCodec[E]()
	return Fold[T]{Func: FuncDistinct, Element: func(dst []byte, r *jobs.Rec[T]) ([]byte, error) {
		return codec.Append(dst, of(r.Value))
	}}
}
