package spec

import (
	"cmp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/jobs/spec/expr"
)

var stepKinds = []string{"filter", "map", "set", "key_by", "side", "rebalance", "window"}

// MaxSteps is how many steps a job may have.
const MaxSteps = 256

// step is what all steps have.
type step struct {
	id          string
	parallelism int
}

func (w *draft) readSteps(n *yaml.Node) {
	if n.Kind != yaml.SequenceNode {
		w.problem(n, "begin each step with -", "steps: want a list, not %s", describe(n))
		return
	}
	if len(n.Content) > MaxSteps {
		w.problem(n.Content[MaxSteps], "", "steps: more than %d", MaxSteps)
		return
	}
	for _, s := range n.Content {
		w.readStep(s)
	}
	if w.rebalanced != nil && w.parallelism == 1 {
		w.spreadsNothing(w.rebalanced)
	}
}

// spreadsNothing warns of a rebalance behind which there is one subtask.
func (w *draft) spreadsNothing(n *yaml.Node) {
	w.warn(w.file.at(n), "give the step behind it, or the job, a parallelism of two or more, or leave it out", "rebalance: it does nothing, for what stands behind it has one subtask")
}

func (w *draft) readStep(n *yaml.Node) {
	if n.Kind != yaml.MappingNode {
		w.problem(n, "write - filter: {if: …}", "a step: want one of %s, not %s", strings.Join(stepKinds, ", "), describe(n))
		return
	}
	b := block{node: n, fields: map[string]entry{}}
	kind := ""
	for _, e := range w.pairs(n, "a step") {
		name := e.name.Value
		switch {
		case laterFields[name] != "":
			w.problem(e.name, laterFields[name], "%s is not in this version", name)
			return
		case !slices.Contains(fieldNames(stepFields), name):
			w.problem(e.name, expr.DidYouMean(name, stepKinds), "there is no step %s", name)
			return
		case slices.Contains(stepKinds, name) && kind != "":
			w.problem(e.name, "begin each step with -", "a step: it is both %s and %s", kind, name)
			return
		case slices.Contains(stepKinds, name):
			kind = name
		}
		b.fields[name] = e
	}
	if kind == "" {
		w.problem(n, "name one of "+strings.Join(stepKinds, ", "), "a step: it does not say what it does")
		return
	}
	var s step
	if b.has("id") {
		s.id = w.stepID(b.get("id"))
	}
	if b.has("parallelism") {
		s.parallelism = int(w.whole(b.get("parallelism"), "parallelism", 1, jobs.KeyGroups))
	}
	w.read = nil
	w.oneStep(kind, b.get(kind), s)
	if len(w.steps) > len(w.places) {
		p := w.place(b.at(kind), w.read...)
		p.Said = said(n)
		w.places = append(w.places, p)
	}
}

// stepID reads the name of a source or a step, which no other may have.
func (w *draft) stepID(n *yaml.Node) string {
	id := w.document.name(n, "id")
	if id == "" {
		return ""
	}
	if first, twice := w.ids[id]; twice {
		w.problemWith(w.file.at(first).place("the first is here"), n, "", "there is a step %s already", id)
	}
	w.ids[id] = n
	return id
}

func (w *draft) oneStep(kind string, n *yaml.Node, s step) {
	before := w.rebalanced
	w.rebalanced = nil
	if before != nil && kind != "rebalance" && cmp.Or(s.parallelism, w.parallelism) == 1 {
		w.spreadsNothing(before)
	}
	switch kind {
	case "rebalance":
		w.rebalance(n, s, before)
	case "filter":
		w.filter(n, s)
	case "map":
		if to := w.valueOrFields(n, "map"); to != nil {
			w.attach(s, mapOp(to))
			w.scope.Value = to.typ()
		} else {
			w.scope.Value = expr.Any
		}
		w.fromSource = false
	case "set":
		if to := w.fieldsOf(n, "set"); to != nil {
			if w.scope.Value.Kinds&expr.KObject == 0 {
				w.problem(n, "", "set: the value is %s, in which nothing can be set", w.scope.Value.Kinds)
			}
			w.attach(s, setOp(to))
			w.scope.Value = w.scope.Value.With(to.fields())
		}
	case "key_by":
		w.keyBy(n, s)
	case "side":
		w.side(n, s)
	case "window":
		if before != nil {
			w.problem(before, "put it before steps that keep no state", "rebalance: a window stands behind it, and each record goes to the subtask that has the window of its key")
		}
		w.window(n, s)
	}
}

// rebalance spreads the records over the subtasks of the step behind it. It is no step that runs somewhere.
func (w *draft) rebalance(n *yaml.Node, s step, before *yaml.Node) {
	w.rebalanced = n
	if before != nil {
		w.problem(n, "remove one", "rebalance: there is one before it already")
	}
	if s.parallelism > 0 {
		w.problem(n, "write parallelism at the step behind it", "rebalance: it has no parallelism: it spreads records over the subtasks of the step behind it")
	}
	w.block(n, "rebalance", nil)
	w.steps = append(w.steps, func(g *graph) { g.stream = jobs.Rebalance(g.stream) })
}

// attach adds a step without a second port to the graph to be.
func (w *draft) attach(s step, op jobs.Op[Row, Row, jobs.None]) {
	op.ID, op.Parallelism, op.EncodeOut = s.id, s.parallelism, encodeRow
	w.steps = append(w.steps, func(g *graph) { g.stream, _ = jobs.Attach(g.stream, op) })
}

func (w *draft) filter(n *yaml.Node, s step) {
	b := w.block(n, "filter", filterFields)
	if !b.has("if") {
		return
	}
	p := w.condition(b.get("if"), "if", w.scope)
	w.reads(p)
	if p != nil {
		w.attach(s, filterOp(p))
	}
}

func (w *draft) keyBy(n *yaml.Node, s step) {
	to := w.valueOrFields(n, "key_by")
	w.scope.Key = expr.Any
	if to == nil {
		return
	}
	t := to.typ()
	if t.Kinds == expr.KNil {
		w.problem(n, "", "key_by: the key is always nil")
	}
	if t.Kinds &^= expr.KNil; t.Kinds&expr.KFloat != 0 {
		t.Kinds |= expr.KInt // equal numbers are one key
	}
	w.scope.Key = t
	if t.Fields != nil {
		w.scope.Key = keyType(t)
	}
	w.attach(s, keyOp(to))
}

// keyType is the type of an object key: its floats may come back as ints.
func keyType(t expr.Type) expr.Type {
	fields := map[string]expr.Type{}
	for n, f := range t.Fields {
		if f.Kinds&expr.KFloat != 0 {
			f.Kinds |= expr.KInt
		}
		if f.Fields != nil {
			f = keyType(f)
		}
		fields[n] = f
	}
	t.Fields = fields
	return t
}

func (w *draft) side(n *yaml.Node, s step) {
	b := w.block(n, "side", sideFields)
	var side sideStep
	var o *outputDraft
	before := len(w.file.problems)
	if b.has("to") {
		o = w.output(b.get("to"), "side")
	}
	if b.has("if") {
		side.cond = w.condition(b.get("if"), "if", w.scope)
		w.reads(side.cond)
	}
	if b.has("map") {
		side.to = w.valueOrFields(b.get("map"), "map")
	}
	if b.has("key") {
		side.key = w.value(b.get("key"), "key")
	}
	if o == nil {
		return
	}
	w.aside(o, side)
	if len(w.file.problems) > before {
		return
	}
	side.detach = o.topic != ""
	op := sideOp(side)
	op.ID, op.Parallelism, op.EncodeOut, op.EncodeSide = s.id, s.parallelism, encodeRow, encodeRow
	w.steps = append(w.steps, func(g *graph) {
		var aside *jobs.Stream[Row]
		g.stream, aside = jobs.Attach(g.stream, op)
		g.end(o, aside)
	})
}

// aside notes that the copies a side step makes go to an output.
func (w *draft) aside(o *outputDraft, s sideStep) {
	scope, fromSource := w.scope, w.fromSource
	if s.to != nil {
		w.scope.Value, w.fromSource = s.to.typ(), false
	}
	if s.key != nil {
		w.scope.Key = s.key.Type
	}
	w.writes(o)
	w.scope, w.fromSource = scope, fromSource
}
