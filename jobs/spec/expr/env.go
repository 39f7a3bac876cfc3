package expr

import (
	"fmt"

	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/jobs/spec/value"
)

// Row is the value of a YAML job's records.
type Row = value.Row

// Env is what an expression is evaluated over. One goroutine uses it.
type Env struct {
	Rec   *jobs.Rec[Row] // during the call only
	Arena *value.Arena   // where new strings and lists lie
	err   error          // of the evaluation under way
	work  int            // of the evaluation under way, in bytes gone through
}

// maxWork is how many bytes one evaluation may go through. An expression has no loops, but it may look through a large
// record some hundred times.
const maxWork = 64 << 20

// spend adds n bytes to the evaluation's work. It returns false, with the error set, where that is too much.
func (e *Env) spend(at place, n int) bool {
	if e.work += n; e.work <= maxWork {
		return true
	}
	e.fail(at, "the expression would go through more than %d MiB for one record", maxWork>>20)
	return false
}

// bounded gives v unless it is larger than an expression may make a value.
func (e *Env) bounded(at place, v value.Value) value.Value {
	if v.Weight() > MaxValueBytes {
		return e.fail(at, "a value larger than %d MiB", MaxValueBytes>>20)
	}
	return v
}

// fail makes the evaluation end with an error at a part of an expression.
func (e *Env) fail(at place, format string, args ...any) value.Value {
	e.err = &Error{Src: at.src, Pos: at.pos, Msg: fmt.Sprintf(format, args...)}
	return value.None()
}

// place is a part of an expression, for a record's error.
type place struct {
	src string
	pos int
}

// evaluate gives a value, or none with e.err set.
type evaluate func(e *Env) value.Value

// decide gives 1 or 0, or failed with e.err set.
type decide func(e *Env) int8

const failed = -1

func truth(b bool) int8 {
	if b {
		return 1
	}
	return 0
}

// site is a place in an expression that reads a field: it remembers where the field lies in the rows that come by.
type site struct {
	shape *value.Shape // of the rows whose slot is the field; never nil
	slot  int
	path  []string
	at    place
}

var noShape = value.NewObjectShape(nil)

func newSite(path []string, at place) *site { return &site{shape: noShape, path: path, at: at} }

func (s *site) get(e *Env) value.Value {
	r := &e.Rec.Value
	if r.Shape() == s.shape {
		return *r.Slot(s.slot)
	}
	return s.find(e, r)
}

func (s *site) find(e *Env, r *Row) value.Value {
	if shape := r.Shape(); shape != nil {
		if slot, rest := shape.Find(s.path); slot >= 0 && len(rest) == 0 {
			s.shape, s.slot = shape, slot
			return *r.Slot(slot)
		}
	}
	if !e.spend(s.at, r.Weight()/8) { // a search goes fast over what it does not want
		return value.None()
	}
	return r.Lookup(s.path, e.Arena)
}
