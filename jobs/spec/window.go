package spec

import (
	"slices"
	"time"

	"go.yaml.in/yaml/v4"

	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/jobs/operator"
	"github.com/sidestream-dev/sidestream/jobs/spec/expr"
	"github.com/sidestream-dev/sidestream/jobs/spec/value"
)

// windowDraft is a window step, checked.
type windowDraft struct {
	size, lateness time.Duration
	names          []string // of the aggregates
	aggregates     []*expr.Aggregate
	late           *outputDraft
}

func (w *draft) window(n *yaml.Node, s step) {
	before := len(w.file.problems)
	if n.Kind == yaml.MappingNode {
		for i := 0; i+1 < len(n.Content); i += 2 {
			if hint := laterFields[n.Content[i].Value]; hint != "" {
				w.problem(n.Content[i], hint, "%s is not in this version", n.Content[i].Value)
				return
			}
		}
	}
	b := w.block(n, "window", windowFields)
	switch {
	case w.scope.Key.Kinds == 0:
		w.problem(n, "put a key_by step before it", "window: the records have no key")
	case w.untimed != "":
		w.problem(n, "say in source when they happened: event_time: {from: value.ts}", "window: %s", w.untimed)
	}
	var win windowDraft
	if b.has("tumbling") {
		win.size = w.millis(b.get("tumbling"), "tumbling")
		if win.size == 0 && len(w.file.problems) == before {
			w.problem(b.get("tumbling"), "", "tumbling: want more than 0")
		}
	}
	if b.has("allowed_lateness") {
		win.lateness = w.millis(b.get("allowed_lateness"), "allowed_lateness")
	}
	if b.has("late_to") {
		if win.late = w.output(b.get("late_to"), "late_to"); win.late != nil {
			w.writes(win.late)
		}
	}
	fields := map[string]expr.Type{
		"key":    w.scope.Key,
		"window": expr.ObjectOf(map[string]expr.Type{"start": expr.String, "end": expr.String}),
	}
	if b.has("aggregate") {
		w.readAggregates(b.get("aggregate"), &win, fields)
	}
	w.scope.Value, w.fromSource = expr.ObjectOf(fields), false
	if len(w.file.problems) == before {
		w.attachWindow(win, s)
	}
}

// millis reads a duration of whole milliseconds.
func (w *draft) millis(n *yaml.Node, what string) time.Duration {
	v := w.duration(n, what)
	if v%time.Millisecond != 0 {
		w.problem(n, "", "%s: want whole milliseconds, not %s", what, describe(n))
	}
	return v
}

func (w *draft) readAggregates(n *yaml.Node, win *windowDraft, fields map[string]expr.Type) {
	entries := w.pairs(n, "aggregate")
	if n.Kind == yaml.MappingNode && len(n.Content) == 0 {
		w.problem(n, "write {n: count()}", "aggregate: there is no field in it")
	}
	if len(entries) > 200 { // distinct elements carry their aggregate's number in one byte
		w.problem(n, "", "aggregate: more than 200 fields")
		return
	}
	for _, e := range entries {
		name := e.name.Value
		if name == "key" || name == "window" {
			w.problem(e.name, "give it another name", "aggregate: a window's result has %s already", name)
			continue
		}
		if e.value.Kind != yaml.ScalarNode {
			w.problem(e.value, "write {n: count()}", "aggregate.%s: want an aggregate, not %s", name, describe(e.value))
			continue
		}
		if w.unchecked(e.value) {
			continue
		}
		a, problems := expr.CompileAggregate(e.value.Value, w.scope)
		if problems != nil {
			w.inside(e.value, problems)
			continue
		}
		w.reads(a.Arg)
		fields[name] = a.Type
		win.names, win.aggregates = append(win.names, name), append(win.aggregates, a)
	}
}

func (w *draft) attachWindow(win windowDraft, s step) {
	op, err := operator.Window[Row, Row]{
		ID: s.id, Parallelism: s.parallelism, Size: win.size, Lateness: win.lateness,
		Layout: operator.Layout(win.folds()),
		New: func(*jobs.Env) (operator.Aggregator[Row, Row], error) {
			return operator.Folds(win.folds(), win.result()), nil
		},
		EncodeOut: encodeRow, EncodeLate: encodeRow,
	}.Op()
	if err != nil {
		w.problem(w.root, "", "%v", err)
		return
	}
	w.steps = append(w.steps, func(g *graph) {
		var late *jobs.Stream[Row]
		g.stream, late = jobs.Attach(g.stream, op)
		if win.late != nil {
			g.end(win.late, late)
		}
	})
}

// folds returns the aggregates with functions of their own.
func (win *windowDraft) folds() []operator.Fold[Row] {
	kinds := []operator.Func{operator.FuncCount, operator.FuncSum, operator.FuncMean, operator.FuncMin, operator.FuncMax, operator.FuncDistinct}
	e := newEnv()
	folds := make([]operator.Fold[Row], len(win.aggregates))
	for i, a := range win.aggregates {
		at := slices.IndexFunc(kinds, func(k operator.Func) bool { return k.String() == a.Func })
		folds[i].Func = kinds[at]
		if a.Arg == nil {
			continue
		}
		f, what := a.Arg.New(), a.Arg.Src
		folds[i].Number = func(r *rec) (operator.Number, error) {
			e.Rec = r
			v, err := f.Value(e)
			switch {
			case err != nil:
				return operator.Number{}, err
			case v.Kind() == value.Int:
				return operator.Int(v.Int()), nil
			case v.Kind() == value.Float:
				return operator.Float(v.Float()), nil
			}
			return operator.Number{}, &expr.Error{Src: what, Msg: a.Func + " takes a number, not " + v.Kind().String()}
		}
		folds[i].Element = func(dst []byte, r *rec) ([]byte, error) {
			e.Rec = r
			v, err := f.Value(e)
			if err != nil {
				return dst, err
			}
			if v.IsNil() {
				return dst, &expr.Error{Src: what, Msg: a.Func + " takes a value, not nil"}
			}
			return value.AppendKey(dst, v)
		}
	}
	return folds
}

// result returns a function that makes a window's value.
func (win *windowDraft) result() func(p *operator.Pane) Row {
	shape := value.NewObjectShape(append([]string{"key", "window"}, win.names...))
	a := &value.Arena{}
	var start jobs.Time
	var bounds value.Value // of the window that fired last: all its keys have the same
	return func(p *operator.Pane) Row {
		if bounds.IsNil() || p.Start != start {
			start, bounds = p.Start, boundsOf(p)
		}
		slots := a.Values(2 + len(win.names))
		slots[0], slots[1] = value.DecodeKey(p.Key.Bytes, a), bounds
		for i := range win.names {
			switch n := p.Number(i); {
			case n.IsInt():
				slots[2+i] = value.OfInt(n.Int())
			case !n.IsNone():
				slots[2+i] = value.OfFloat(n.Float())
			}
		}
		return value.OfFields(shape, slots)
	}
}

func boundsOf(p *operator.Pane) value.Value {
	return value.OfObject([]string{"start", "end"}, []value.Value{value.OfString(p.Start.String()), value.OfString(p.End.String())})
}
