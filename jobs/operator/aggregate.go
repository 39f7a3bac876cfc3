package operator

import (
	"encoding/binary"
	"errors"
	"strings"

	"github.com/sidestream-dev/sidestream/jobs"
)

// Func is what a stock aggregate computes.
type Func uint8

const (
	FuncCount    Func = iota // how many records
	FuncSum                  // of numbers
	FuncMean                 // of numbers, a float
	FuncMin                  // of numbers
	FuncMax                  // of numbers
	FuncDistinct             // how many different elements
)

// String returns the aggregate's name as in a definition.
func (f Func) String() string {
	return [...]string{"count", "sum", "mean", "min", "max", "distinct"}[f]
}

func (f Func) size() int {
	switch f {
	case FuncCount, FuncDistinct:
		return 8
	case FuncMean:
		return 8 + cellLen
	}
	return cellLen
}

// Fold is one stock aggregate and its argument. Sums are int64 while all numbers are integers and the sum fits, else
// float64, added plainly in the order in which records arrive: the last digits of a sum of floats depend on that order.
// Minimum and maximum give the number as it was; of equal ones the first.
type Fold[In any] struct {
	Func Func
	// Number gives the argument of sum, mean, min and max: an integer or a finite float.
	Number func(r *jobs.Rec[In]) (Number, error)
	// Element appends an encoding of distinct's argument to dst: equal elements have equal bytes.
	Element func(dst []byte, r *jobs.Rec[In]) ([]byte, error)
}

// ErrNotFinite is an argument that is none, NaN or infinite.
var ErrNotFinite = errors.New("the argument is not a finite number")

// Layout describes the accumulator of folds, for [Window.Layout].
func Layout[In any](folds []Fold[In]) string {
	names := make([]string, len(folds))
	for i, f := range folds {
		names[i] = f.Func.String()
	}
	return strings.Join(names, ",")
}

// Folds is the Aggregator of stock aggregates. result finds their values, in order, in its Pane.
func Folds[In, Out any](folds []Fold[In], result func(p *Pane) Out) Aggregator[In, Out] {
	a := &foldsAggregator[In, Out]{folds: folds, result: result, args: make([]Number, len(folds))}
	for _, f := range folds {
		a.size += f.Func.size()
		if f.Func == FuncDistinct {
			a.elements = append(a.elements, Element{})
		}
	}
	if len(folds) == 0 {
		a.size = 1 // a window of keys alone
	}
	a.cells = make([]Number, len(folds))
	return a
}

type foldsAggregator[In, Out any] struct {
	folds    []Fold[In]
	result   func(p *Pane) Out
	size     int
	args     []Number
	elements []Element // one for each distinct; their Subs are reused
	cells    []Number
}

func (a *foldsAggregator[In, Out]) Size() int           { return a.size }
func (a *foldsAggregator[In, Out]) Elements() []Element { return a.elements }

func (a *foldsAggregator[In, Out]) Eval(r *jobs.Rec[In]) error {
	e := 0
	for i := range a.folds {
		f := &a.folds[i]
		switch f.Func {
		case FuncCount:
		case FuncDistinct:
			sub, err := f.Element(append(a.elements[e].Sub[:0], byte(i)), r)
			if err != nil {
				return err
			}
			a.elements[e].Sub = sub
			e++
		default:
			n, err := f.Number(r)
			if err != nil {
				return err
			}
			if n.IsNone() || !n.Finite() {
				return ErrNotFinite
			}
			a.args[i] = n
		}
	}
	return nil
}

func (a *foldsAggregator[In, Out]) Add(acc []byte) []byte {
	b, e := acc, 0
	for i := range a.folds {
		switch a.folds[i].Func {
		case FuncCount:
			increment(b)
			b = b[8:]
		case FuncDistinct:
			if a.elements[e].New {
				increment(b)
			}
			e++
			b = b[8:]
		case FuncSum:
			putCell(b, cell(b).add(a.args[i]))
			b = b[cellLen:]
		case FuncMean:
			increment(b)
			putCell(b[8:], cell(b[8:]).add(a.args[i]))
			b = b[8+cellLen:]
		case FuncMin:
			if c := cell(b); c.IsNone() || a.args[i].less(c) {
				putCell(b, a.args[i])
			}
			b = b[cellLen:]
		case FuncMax:
			if c := cell(b); c.IsNone() || c.less(a.args[i]) {
				putCell(b, a.args[i])
			}
			b = b[cellLen:]
		}
	}
	return acc
}

func (a *foldsAggregator[In, Out]) Result(p *Pane) Out {
	b := p.Acc
	for i := range a.folds {
		switch a.folds[i].Func {
		case FuncCount, FuncDistinct:
			a.cells[i] = Int(int64(binary.LittleEndian.Uint64(b)))
		case FuncMean:
			a.cells[i] = Float(cell(b[8:]).Float() / float64(binary.LittleEndian.Uint64(b)))
		default:
			a.cells[i] = cell(b)
		}
		b = b[a.folds[i].Func.size():]
	}
	p.cells = a.cells
	return a.result(p)
}

func increment(b []byte) {
	binary.LittleEndian.PutUint64(b, binary.LittleEndian.Uint64(b)+1)
}

// Number returns the value of the i-th stock aggregate.
func (p *Pane) Number(i int) Number { return p.cells[i] }

// Int returns the value of the i-th stock aggregate as an integer.
func (p *Pane) Int(i int) int64 { return p.cells[i].Int() }

// Float returns the value of the i-th stock aggregate as a float64.
func (p *Pane) Float(i int) float64 { return p.cells[i].Float() }
