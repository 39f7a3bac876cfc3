package expr

import (
	"fmt"
	"slices"

	"github.com/expr-lang/expr/ast"

	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/jobs/spec/value"
)

// Scope is what is known at the place where an expression stands.
type Scope struct {
	Value Type // of value; Any if nothing is known
	Key   Type // of key; the zero Type if there is none
}

// Program is a checked expression. It is safe for concurrent use; its functions are not.
type Program struct {
	Src   string
	Type  Type       // of its values in a row
	Paths [][]string // the fields of value that it reads
	Whole bool       // it reads value as a whole
	node  ast.Node
	scope Scope
	konst *value.Value
}

// Compile checks src, an expression, and returns everything that is wrong with it.
func Compile(src string, scope Scope) (*Program, []Problem) {
	node, problems := parse(src)
	if problems != nil {
		return nil, problems
	}
	return compileNode(src, node, scope)
}

func compileNode(src string, node ast.Node, scope Scope) (*Program, []Problem) {
	c := &compiler{src: src, scope: scope}
	root := c.compile(node)
	if len(c.problems) > 0 {
		return nil, sorted(c.problems)
	}
	return &Program{Src: src, Type: root.typ.stored(), Paths: c.paths, Whole: c.whole, node: node, scope: scope, konst: root.konst}, nil
}

func sorted(ps []Problem) []Problem {
	slices.SortStableFunc(ps, func(a, b Problem) int { return a.Pos - b.Pos })
	return slices.Compact(ps)
}

// Const returns the program's value if it is the same for every record.
func (p *Program) Const() (v value.Value, ok bool) {
	if p.konst == nil {
		return value.Value{}, false
	}
	return *p.konst, true
}

// Fields takes an object literal apart: the names of its fields and what each is; ok is false for anything else.
func (p *Program) Fields() (names []string, parts []*Program, ok bool) {
	m, ok := p.node.(*ast.MapNode)
	if !ok {
		return nil, nil, false
	}
	for _, n := range m.Pairs {
		pair := n.(*ast.PairNode)
		part, problems := compileNode(p.Src, pair.Value, p.scope)
		if problems != nil {
			panic("expr: a part of a checked expression has problems") // each part was checked with the whole
		}
		names, parts = append(names, pair.Key.(*ast.StringNode).Value), append(parts, part)
	}
	return names, parts, true
}

// Func is a program's function for one goroutine.
type Func struct {
	eval   evaluate
	decide decide
}

// New returns a function that evaluates p.
func (p *Program) New() *Func {
	c := &compiler{src: p.Src, scope: p.scope}
	root := c.compile(p.node)
	return &Func{eval: root.eval, decide: c.decider(root, p.node)}
}

// Value returns the value for e.Rec, as it stands in a row: a time is a string. The error is the record's, an *Error.
func (f *Func) Value(e *Env) (value.Value, error) {
	e.work = 0
	v := f.eval(e)
	switch v.Kind() {
	case value.Invalid:
		return value.Value{}, e.err
	case value.Time:
		return text(v.Int(), e)
	}
	return v, nil
}

func text(ms int64, e *Env) (value.Value, error) {
	b, err := value.AppendTime(e.Arena.Room(32), ms)
	if err != nil {
		return value.Value{}, err
	}
	return value.OfString(e.Arena.Keep(b)), nil
}

// Bool returns the value of a condition for e.Rec.
func (f *Func) Bool(e *Env) (bool, error) {
	e.work = 0
	b := f.decide(e)
	if b == failed {
		return false, e.err
	}
	return b == 1, nil
}

// code is a compiled part of an expression.
type code struct {
	typ    Type
	eval   evaluate     // never nil
	decide decide       // nil if a decision has to be made from eval
	konst  *value.Value // what it always is
	site   *site        // it reads just this field
	path   []string     // value's field, or value itself if empty and not nil
}

type compiler struct {
	src      string
	scope    Scope
	problems []Problem
	paths    [][]string
	whole    bool
	depth    int
}

func (c *compiler) pos(n ast.Node) int { return byteOffset(c.src, n.Location().From) }

func (c *compiler) at(n ast.Node) place { return place{c.src, c.pos(n)} }

func (c *compiler) problem(n ast.Node, hint, format string, args ...any) code {
	c.problems = append(c.problems, Problem{c.pos(n), fmt.Sprintf(format, args...), hint})
	return code{typ: kinds(kStored | KTime), eval: func(*Env) value.Value { return value.Value{} }}
}

func constant(v value.Value) code {
	return code{typ: typeOf(v), konst: &v, eval: func(*Env) value.Value { return v }}
}

func typeOf(v value.Value) Type {
	if v.Kind() != value.Object {
		return kinds(kindOf(v))
	}
	fields := map[string]Type{}
	v.Fields(nil, func(name string, f value.Value) bool { fields[name] = typeOf(f); return true })
	return ObjectOf(fields)
}

// folded evaluates x now if all its parts are constant.
func (c *compiler) folded(n ast.Node, x code, parts ...code) code {
	for _, p := range parts {
		if p.konst == nil || len(c.problems) > 0 {
			return x
		}
	}
	e := &Env{}
	v := x.eval(e)
	if v.Kind() == value.Invalid {
		err := e.err.(*Error)
		c.problems = append(c.problems, Problem{Pos: err.Pos, Msg: err.Msg})
		return x
	}
	return constant(v)
}

func (c *compiler) compile(n ast.Node) code {
	if c.depth++; c.depth > MaxDepth {
		c.depth--
		return c.problem(n, "name parts of it in a map or set step before", "the expression is nested deeper than %d", MaxDepth)
	}
	defer func() { c.depth-- }()
	x := c.part(n)
	if x.path != nil && len(x.path) == 0 { // value itself
		c.whole = true
	}
	return x
}

func (c *compiler) part(n ast.Node) code {
	switch n := n.(type) {
	case *ast.NilNode:
		return constant(value.Value{})
	case *ast.BoolNode:
		return constant(value.OfBool(n.Value))
	case *ast.IntegerNode:
		return constant(value.OfInt(int64(n.Value)))
	case *ast.FloatNode:
		return constant(value.OfFloat(n.Value))
	case *ast.StringNode:
		return constant(value.OfString(n.Value))
	case *ast.IdentifierNode:
		return c.name(n)
	case *ast.ChainNode:
		return c.part(n.Node)
	case *ast.MemberNode:
		return c.member(n)
	case *ast.SliceNode:
		return c.slice(n)
	case *ast.UnaryNode:
		return c.unary(n)
	case *ast.BinaryNode:
		return c.binary(n)
	case *ast.ConditionalNode:
		return c.conditional(n)
	case *ast.ArrayNode:
		return c.list(n)
	case *ast.MapNode:
		return c.object(n)
	case *ast.BuiltinNode:
		return c.call(n, n.Name, n.Arguments)
	case *ast.CallNode:
		if id, ok := n.Callee.(*ast.IdentifierNode); ok {
			return c.call(n, id.Value, n.Arguments)
		}
		return c.problem(n, "", "values have no methods")
	}
	return c.problem(n, "", "this is not in the language")
}

var names = []string{"value", "key", "time", "headers", "source"}

func (c *compiler) name(n *ast.IdentifierNode) code {
	switch n.Value {
	case "value":
		at := c.at(n)
		return code{typ: c.scope.Value, path: []string{}, eval: func(e *Env) value.Value {
			if !e.spend(at, e.Rec.Value.Weight()/8) { // a row with fields set over it is written out
				return value.None()
			}
			v := e.Rec.Value.Value(e.Arena)
			if v.Kind() == value.Invalid {
				return e.fail(at, "the value cannot be written as JSON")
			}
			return v
		}}
	case "key":
		if c.scope.Key.Kinds == 0 {
			return c.problem(n, "put a key_by step before this one", "there is no key here")
		}
		return code{typ: c.scope.Key, eval: func(e *Env) value.Value { return value.DecodeKey(e.Rec.Key.Bytes, e.Arena) }}
	case "time":
		return code{typ: kinds(KTime | KNil), eval: func(e *Env) value.Value {
			if e.Rec.Time == jobs.NoTime {
				return value.Value{}
			}
			return value.OfTime(int64(e.Rec.Time))
		}}
	case "headers":
		at := c.at(n)
		return code{typ: Strings, eval: func(e *Env) value.Value {
			if !e.spend(at, 128*len(e.Rec.Headers)) {
				return value.None()
			}
			return headers(e)
		}}
	case "source":
		return c.problem(n, "write source.topic, source.partition or source.offset", "source is not a value by itself")
	}
	return c.problem(n, c.nameHint(n.Value), "there is no %s", n.Value)
}

func (c *compiler) nameHint(name string) string {
	if name == "null" || name == "None" {
		return "did you mean nil?"
	}
	if near := Nearest(name, names); near != "" {
		return "did you mean " + near + "?"
	}
	if _, missing := c.scope.Value.field(name); !missing && c.scope.Value.Kinds&KObject != 0 {
		return "a field of the record is value." + name
	}
	return "known are value, key, time, headers, source"
}

// headers gives the record's headers; of several of one name the last.
func headers(e *Env) value.Value {
	var names []string
	var vals []value.Value
	at := make(map[string]int, len(e.Rec.Headers))
	for _, h := range e.Rec.Headers {
		if i, twice := at[h.Name]; twice {
			vals[i] = value.OfText(h.Value)
			continue
		}
		at[h.Name] = len(names)
		names, vals = append(names, h.Name), append(vals, value.OfText(h.Value))
	}
	return value.OfObject(names, vals)
}

// member compiles x.name, x["name"] and x[i].
func (c *compiler) member(n *ast.MemberNode) code {
	prop, isName := n.Property.(*ast.StringNode)
	if id, ok := n.Node.(*ast.IdentifierNode); ok && isName {
		switch id.Value {
		case "source":
			return c.source(n, prop.Value)
		case "headers":
			name, at := prop.Value, c.at(n)
			return code{typ: kinds(KNil | KString), eval: func(e *Env) value.Value {
				if !e.spend(at, 8*len(e.Rec.Headers)) {
					return value.None()
				}
				return header(e.Rec.Headers, name)
			}}
		}
	}
	x := c.part(n.Node)
	if !isName {
		if x.path != nil && len(x.path) == 0 {
			c.whole = true
		}
		return c.index(n, x)
	}
	f, missing := x.typ.field(prop.Value)
	if missing {
		return c.noField(n, x, prop.Value)
	}
	if x.path != nil {
		path := append(slices.Clone(x.path), prop.Value)
		if len(x.path) > 0 && len(c.paths) > 0 && slices.Equal(c.paths[len(c.paths)-1], x.path) {
			c.paths = c.paths[:len(c.paths)-1]
		}
		c.paths = append(c.paths, path)
		s := newSite(path, c.at(n))
		return code{typ: f, path: path, site: s, eval: s.get}
	}
	eval, name, at := x.eval, prop.Value, c.at(n)
	return c.folded(n, code{typ: f, eval: func(e *Env) value.Value {
		v := eval(e)
		if v.Kind() == value.Invalid || !e.spend(at, v.Weight()/8) {
			return value.None()
		}
		return v.Member(name, e.Arena)
	}}, x)
}

func (c *compiler) noField(n ast.Node, x code, name string) code {
	if x.typ.Kinds&KObject == 0 {
		return c.problem(n, "", "%s has no fields", x.typ.Kinds)
	}
	var known []string
	for f := range x.typ.Fields {
		known = append(known, f)
	}
	slices.Sort(known)
	return c.problem(n, DidYouMean(name, known), "there is no field %s", name)
}

func header(hs []jobs.Header, name string) value.Value {
	for i := len(hs) - 1; i >= 0; i-- {
		if hs[i].Name == name {
			return value.OfText(hs[i].Value)
		}
	}
	return value.Value{}
}

func (c *compiler) source(n ast.Node, name string) code {
	get := func(typ Kinds, f func(o *jobs.Origin) value.Value) code {
		return code{typ: kinds(typ | KNil), eval: func(e *Env) value.Value {
			if e.Rec.Origin.Split == nil {
				return value.Value{}
			}
			return f(&e.Rec.Origin)
		}}
	}
	switch name {
	case "topic":
		return get(KString, func(o *jobs.Origin) value.Value { return value.OfString(o.Split.Topic) })
	case "partition":
		return get(KInt, func(o *jobs.Origin) value.Value { return value.OfInt(int64(o.Split.Partition)) })
	case "offset":
		return get(KInt, func(o *jobs.Origin) value.Value { return value.OfInt(o.Offset) })
	}
	return c.problem(n, DidYouMean(name, []string{"topic", "partition", "offset"}), "source has no %s", name)
}

func (c *compiler) index(n *ast.MemberNode, x code) code {
	i := c.compile(n.Property)
	if x.typ.Kinds&(KList|KObject) == 0 {
		return c.problem(n, "", "%s has no elements", x.typ.Kinds)
	}
	if i.typ.Kinds&(KInt|KString) == 0 {
		return c.problem(n.Property, "", "an element is named by an int or a string, not %s", i.typ.Kinds)
	}
	at, list, sub := c.at(n), x.eval, i.eval
	typ := Any
	if x.typ.Field != nil {
		typ = *x.typ.Field
	}
	return c.folded(n, code{typ: typ, eval: func(e *Env) value.Value {
		v := list(e)
		if v.Kind() == value.Invalid {
			return v
		}
		i := sub(e)
		switch {
		case i.Kind() == value.Invalid || !e.spend(at, v.Weight()/8):
			return value.None()
		case v.IsNil():
			return v
		case v.Kind() == value.List && i.Kind() == value.Int:
			return v.Index(i.Int(), e.Arena)
		case v.Kind() == value.Object && i.Kind() == value.String:
			return v.Member(i.Text(), e.Arena)
		}
		return e.fail(at, "%s has no element at %s", v.Kind(), i.Kind())
	}}, x, i)
}

func (c *compiler) conditional(n *ast.ConditionalNode) code {
	cond, a, b := c.compile(n.Cond), c.compile(n.Exp1), c.compile(n.Exp2)
	decide := c.decider(cond, n.Cond)
	x := code{typ: union(a.typ, b.typ)}
	yes, no := a.eval, b.eval
	x.eval = func(e *Env) value.Value {
		switch decide(e) {
		case 1:
			return yes(e)
		case 0:
			return no(e)
		}
		return value.None()
	}
	return c.folded(n, x, cond, a, b)
}

// decider makes a condition of x.
func (c *compiler) decider(x code, n ast.Node) decide {
	if x.decide != nil {
		return x.decide
	}
	at, eval, path := c.at(n), x.eval, x.path
	return func(e *Env) int8 {
		switch v := eval(e); v.Kind() {
		case value.Bool:
			return truth(v.Bool())
		case value.Invalid:
		default:
			e.fail(at, "want a bool, not %s%s", v.Kind(), e.absent(operand{path, v}))
		}
		return failed
	}
}

func (c *compiler) wantBool(x code, n ast.Node, what string) {
	if x.typ.Kinds&KBool == 0 {
		c.problem(n, "", "%s takes bools, this is %s", what, x.typ.Kinds)
	}
}

func decided(d decide) code {
	return code{typ: kinds(KBool), decide: d, eval: func(e *Env) value.Value {
		switch d(e) {
		case 1:
			return value.OfBool(true)
		case 0:
			return value.OfBool(false)
		}
		return value.None()
	}}
}
