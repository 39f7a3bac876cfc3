package spec

import (
	"errors"
	"fmt"

	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/jobs/operator"
	"github.com/sidestream-dev/sidestream/jobs/spec/expr"
	"github.com/sidestream-dev/sidestream/jobs/spec/value"
)

// Row is the type of a YAML job's records.
type Row = value.Row

type rec = jobs.Rec[Row]

func encodeRow(dst []byte, r Row) ([]byte, error) { return r.AppendJSON(dst) }

var errNotText = errors.New("the output takes strings: map the value to one with string(x)")

// encodeText is for outputs whose records are lines of text.
func encodeText(dst []byte, r Row) ([]byte, error) {
	v := r.Value(nil)
	if v.Kind() != value.String {
		return dst, errNotText
	}
	return append(dst, v.Text()...), nil
}

// newEnv returns what a subtask's functions are evaluated over.
func newEnv() *expr.Env { return &expr.Env{Arena: &value.Arena{}} }

// result is the value of a map, a set or a key_by: one expression, or fields with one each.
type result struct {
	whole *expr.Program
	names []string
	parts []*expr.Program
}

// taken apart, an object literal is made as a row without an object in between.
func resultOf(p *expr.Program) *result {
	if names, parts, ok := p.Fields(); ok && len(names) > 0 {
		return &result{names: names, parts: parts}
	}
	return &result{whole: p}
}

func (r *result) programs() []*expr.Program {
	if r.whole != nil {
		return []*expr.Program{r.whole}
	}
	return r.parts
}

func (r *result) typ() expr.Type {
	if r.whole != nil {
		return r.whole.Type
	}
	return expr.ObjectOf(r.fields())
}

func (r *result) fields() map[string]expr.Type {
	fields := map[string]expr.Type{}
	for i, n := range r.names {
		fields[n] = r.parts[i].Type
	}
	return fields
}

// funcs makes the functions of one subtask.
func funcs(ps []*expr.Program) []*expr.Func {
	fs := make([]*expr.Func, len(ps))
	for i, p := range ps {
		fs[i] = p.New()
	}
	return fs
}

// row returns a function that makes a row of the result. It uses e.
func (r *result) row(e *expr.Env) func(in *rec) (Row, error) {
	fs := funcs(r.programs())
	if r.whole != nil {
		return func(in *rec) (Row, error) {
			e.Rec = in
			v, err := fs[0].Value(e)
			if err != nil {
				return Row{}, err
			}
			return value.OfValue(v, e.Arena), nil
		}
	}
	shape := value.NewObjectShape(r.names)
	return func(in *rec) (Row, error) {
		e.Rec = in
		slots := e.Arena.Values(len(fs))
		if err := fill(slots, fs, e); err != nil {
			return Row{}, err
		}
		return bounded(value.OfFields(shape, slots))
	}
}

var errLarge = fmt.Errorf("the value would be larger than %d MiB", expr.MaxValueBytes>>20)

// bounded gives r unless it is larger than a step may make a value.
func bounded(r Row) (Row, error) {
	if r.Weight() > expr.MaxValueBytes {
		return Row{}, errLarge
	}
	return r, nil
}

func fill(slots []value.Value, fs []*expr.Func, e *expr.Env) (err error) {
	for i, f := range fs {
		if slots[i], err = f.Value(e); err != nil {
			return err
		}
	}
	return nil
}

// key returns a function that appends the encoding of the result as a key. It uses e.
func (r *result) key(e *expr.Env) func(dst []byte, in *rec) ([]byte, error) {
	fs := funcs(r.programs())
	slots := make([]value.Value, len(fs))
	return func(dst []byte, in *rec) ([]byte, error) {
		e.Rec = in
		if err := fill(slots, fs, e); err != nil {
			return dst, err
		}
		if r.whole != nil {
			return value.AppendKey(dst, slots[0])
		}
		return value.AppendKey(dst, value.OfObject(r.names, slots))
	}
}

func filterOp(p *expr.Program) jobs.Op[Row, Row, jobs.None] {
	return operator.Filter(func(*jobs.Env) (func(*rec) (bool, error), error) {
		f, e := p.New(), newEnv()
		return func(r *rec) (bool, error) {
			e.Rec = r
			return f.Bool(e)
		}, nil
	})
}

func mapOp(to *result) jobs.Op[Row, Row, jobs.None] {
	return operator.Map(func(*jobs.Env) (func(*rec) (Row, error), error) { return to.row(newEnv()), nil })
}

func setOp(to *result) jobs.Op[Row, Row, jobs.None] {
	return operator.Map(func(*jobs.Env) (func(*rec) (Row, error), error) {
		fs, e := funcs(to.parts), newEnv()
		vals := make([]value.Value, len(fs))
		var shape, over *value.Shape // of the rows that came last, and what they become
		return func(r *rec) (Row, error) {
			e.Rec = r
			if err := fill(vals, fs, e); err != nil {
				return Row{}, err
			}
			s := r.Value.Shape()
			if s == nil {
				return Row{}, value.ErrNotObject
			}
			if s != shape {
				shape, over = s, s.Over(to.names)
			}
			out, err := r.Value.Set(over, to.names, vals, e.Arena)
			if err != nil {
				return Row{}, err
			}
			return bounded(out)
		}, nil
	})
}

func keyOp(to *result) jobs.Op[Row, Row, jobs.None] {
	return operator.KeyBy(func(*jobs.Env) (func([]byte, *rec) ([]byte, error), error) { return to.key(newEnv()), nil })
}

// sideStep is a side step, checked.
type sideStep struct {
	cond *expr.Program // nil for all records
	to   *result       // nil for the value as it is
	key  *expr.Program // nil for the record's
	// detach copies what goes aside: on the bus it may outlive by far the batch it came in, which would stay with it.
	detach bool
}

func sideOp(s sideStep) jobs.Op[Row, Row, Row] {
	return operator.Side(func(*jobs.Env) (func(r, out *rec) (bool, error), error) {
		e := newEnv()
		var cond *expr.Func
		var row func(*rec) (Row, error)
		if s.cond != nil {
			cond = s.cond.New()
		}
		if s.to != nil {
			row = s.to.row(e)
		}
		key := keyFunc(s.key)
		return func(r, out *rec) (ok bool, err error) {
			e.Rec = r
			if cond != nil {
				if ok, err = cond.Bool(e); err != nil || !ok {
					return false, err
				}
			}
			out.Value = r.Value
			if row != nil {
				if out.Value, err = row(r); err != nil {
					return false, err
				}
			}
			if s.detach {
				out.Value = out.Value.Detach(e.Arena)
			}
			if key != nil {
				out.Key, err = key(r)
			}
			return true, err
		}, nil
	})
}

// keyFunc returns a function that makes keys of p, or nil if p is.
func keyFunc(p *expr.Program) func(r *rec) (jobs.Key, error) {
	if p == nil {
		return nil
	}
	encode := (&result{whole: p}).key(newEnv())
	var keys jobs.Arena
	return func(r *rec) (jobs.Key, error) {
		b, err := encode(keys.Room(128), r)
		if err != nil {
			return jobs.Key{}, fmt.Errorf("key: %w", err)
		}
		return jobs.MakeKey(keys.Keep(b)), nil
	}
}
