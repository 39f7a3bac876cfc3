package operator

import (
	"errors"

	"github.com/sidestream-dev/sidestream/jobs"
)

// Evaluator makes, for one subtask, a function over its records. An error of the function is the record's.
type Evaluator[In, V any] func(env *jobs.Env) (func(r *jobs.Rec[In]) (V, error), error)

// None is the type of a port that emits nothing.
type None = jobs.None

// Filter lets the records pass for which keep is true, as they are.
func Filter[T any](keep Evaluator[T, bool]) jobs.Op[T, T, None] {
	return jobs.Op[T, T, None]{Kind: "filter", Atomic: true,
		New: func(env *jobs.Env, emit func(*jobs.Rec[T]), _ func(*jobs.Rec[None])) (jobs.Instance[T], error) {
			keep, err := keep(env)
			return jobs.Instance[T]{Process: func(r *jobs.Rec[T]) error {
				ok, err := keep(r)
				if ok && err == nil {
					emit(r)
				}
				return err
			}}, err
		}}
}

// Map replaces the value of each record.
func Map[In, Out any](to Evaluator[In, Out]) jobs.Op[In, Out, None] {
	return jobs.Op[In, Out, None]{Kind: "map", Atomic: true,
		New: func(env *jobs.Env, emit func(*jobs.Rec[Out]), _ func(*jobs.Rec[None])) (jobs.Instance[In], error) {
			to, err := to(env)
			var out jobs.Rec[Out] // here and not in Process, where each record would allocate one
			return jobs.Instance[In]{Process: func(r *jobs.Rec[In]) error {
				v, err := to(r)
				if err != nil {
					return err
				}
				out = jobs.With(r, v)
				emit(&out)
				return nil
			}}, err
		}}
}

// ErrNoKey is a record whose key is nil.
var ErrNoKey = errors.New("the key is nil")

// KeyBy gives each record the key whose encoding appendKey appends to dst. See [jobs.AppendKey] for the encoding.
func KeyBy[T any](appendKey func(env *jobs.Env) (func(dst []byte, r *jobs.Rec[T]) ([]byte, error), error)) jobs.Op[T, T, None] {
	return jobs.Op[T, T, None]{Kind: "key_by", Atomic: true, Rekeys: true,
		New: func(env *jobs.Env, emit func(*jobs.Rec[T]), _ func(*jobs.Rec[None])) (jobs.Instance[T], error) {
			appendKey, err := appendKey(env)
			var keys jobs.Arena
			return jobs.Instance[T]{Process: func(r *jobs.Rec[T]) error {
				b, err := appendKey(keys.Room(keyRoom), r)
				if err != nil {
					return err
				}
				if len(b) == 0 {
					return ErrNoKey
				}
				r.Key = jobs.MakeKey(keys.Keep(b))
				emit(r)
				return nil
			}}, err
		}}
}

// keyRoom is how long a key may be before it costs an allocation of its own at the end of a chunk.
const keyRoom = 128

// Side lets every record pass on the main port; a copy goes to the second, with what to makes of it, where to says so.
func Side[T, S any](to func(env *jobs.Env) (func(r *jobs.Rec[T], out *jobs.Rec[S]) (ok bool, err error), error)) jobs.Op[T, T, S] {
	return jobs.Op[T, T, S]{Kind: "side", Atomic: true,
		New: func(env *jobs.Env, emit func(*jobs.Rec[T]), side func(*jobs.Rec[S])) (jobs.Instance[T], error) {
			to, err := to(env)
			var out jobs.Rec[S]
			return jobs.Instance[T]{Process: func(r *jobs.Rec[T]) error {
				out = jobs.Rec[S]{Time: r.Time, Key: r.Key, Headers: r.Headers, Origin: r.Origin}
				ok, err := to(r, &out)
				if err != nil {
					return err
				}
				if ok {
					side(&out)
				}
				emit(r)
				return nil
			}}, err
		}}
}
