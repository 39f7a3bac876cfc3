package expr

import (
	"math"
	"math/bits"
	"unicode/utf8"

	"github.com/expr-lang/expr/ast"

	"github.com/sidestream-dev/sidestream/jobs/spec/value"
)

// Bounds of what an expression can make of a record; passing one is that record's error.
const (
	MaxStringBytes = 1 << 20
	MaxListLen     = 10_000
	MaxValueBytes  = 16 << 20 // lists and objects, as JSON
)

func (c *compiler) unary(n *ast.UnaryNode) code {
	x := c.compile(n.Node)
	switch n.Operator {
	case "!", "not":
		c.wantBool(x, n.Node, n.Operator)
		d := c.decider(x, n.Node)
		return c.folded(n, decided(func(e *Env) int8 {
			if r := d(e); r != failed {
				return 1 - r
			}
			return failed
		}), x)
	}
	if x.typ.Kinds&KNumber == 0 {
		return c.problem(n.Node, "", "%s takes a number, this is %s", n.Operator, x.typ.Kinds)
	}
	at, eval, negative := c.at(n), x.eval, n.Operator == "-"
	return c.folded(n, code{typ: kinds(x.typ.Kinds & KNumber), eval: func(e *Env) value.Value {
		v := eval(e)
		switch {
		case v.Kind() == value.Invalid:
			return v
		case !v.IsNumber():
			return e.fail(at, "%s takes a number, not %s%s", n.Operator, v.Kind(), e.absent(operand{x.path, v}))
		case !negative:
			return v
		case v.Kind() == value.Float:
			return value.OfFloat(-v.Float())
		case v.Int() == math.MinInt64:
			return e.fail(at, "the result does not fit an int")
		}
		return value.OfInt(-v.Int())
	}}, x)
}

func (c *compiler) arithmetic(n *ast.BinaryNode, a, b code) code {
	want := KNumber
	if n.Operator == "+" {
		want |= KString
	}
	if n.Operator == "%" {
		want = KInt
	}
	ok := a.typ.Kinds&want != 0 && b.typ.Kinds&want != 0
	if ok && n.Operator == "+" {
		ok = overlap(a.typ.Kinds&want, b.typ.Kinds&want)
	}
	if !ok {
		hint := ""
		switch {
		case (a.typ.Kinds|b.typ.Kinds)&KTime != 0:
			hint = "unix_ms(time) is a number"
		case (a.typ.Kinds|b.typ.Kinds)&KString != 0:
			hint = "convert one of them: string(x), float(x)"
		}
		return c.problem(n, hint, "%s does not go with %s and %s", n.Operator, a.typ.Kinds, b.typ.Kinds)
	}
	at, op, x, y := c.at(n), n.Operator[0], a.eval, b.eval
	return code{typ: kinds(resultKinds(op, a.typ.Kinds&want, b.typ.Kinds&want)), eval: func(e *Env) value.Value {
		v := x(e)
		if v.Kind() == value.Invalid {
			return v
		}
		w := y(e)
		switch {
		case w.Kind() == value.Invalid:
			return w
		case v.Kind() == value.Int && w.Kind() == value.Int:
			return ints(e, at, op, v.Int(), w.Int())
		case v.IsNumber() && w.IsNumber() && op != '%':
			return floats(e, at, op, v.Float(), w.Float())
		case op == '+' && v.Kind() == value.String && w.Kind() == value.String:
			return joined(e, at, v.Text(), w.Text())
		}
		return e.fail(at, "%c does not go with %s and %s%s", op, v.Kind(), w.Kind(), e.absent(operand{a.path, v}, operand{b.path, w}))
	}}
}

func resultKinds(op byte, a, b Kinds) Kinds {
	var k Kinds
	if a&KInt != 0 && b&KInt != 0 {
		k |= KInt
	}
	if (a|b)&KFloat != 0 && a&KNumber != 0 && b&KNumber != 0 {
		k |= KFloat
	}
	switch op {
	case '/':
		return KFloat
	case '+':
		k |= a & b & KString
	}
	return k
}

func ints(e *Env, at place, op byte, a, b int64) value.Value {
	switch op {
	case '+':
		if s := a + b; (s > a) == (b > 0) {
			return value.OfInt(s)
		}
	case '-':
		if s := a - b; (s < a) == (b > 0) {
			return value.OfInt(s)
		}
	case '*':
		if p, ok := product(a, b); ok {
			return value.OfInt(p)
		}
	case '/':
		return floats(e, at, op, float64(a), float64(b))
	case '%':
		switch b {
		case 0:
			return e.fail(at, "division by zero")
		case -1:
			return value.OfInt(0)
		}
		return value.OfInt(a % b)
	}
	return e.fail(at, "the result does not fit an int: write float(x)")
}

func product(a, b int64) (int64, bool) {
	ua, ub := uint64(a), uint64(b)
	if a < 0 {
		ua = -ua
	}
	if b < 0 {
		ub = -ub
	}
	hi, lo := bits.Mul64(ua, ub)
	negative := (a < 0) != (b < 0)
	switch {
	case hi != 0 || lo > 1<<63:
		return 0, false
	case negative:
		return -int64(lo), true
	}
	return int64(lo), lo < 1<<63
}

func floats(e *Env, at place, op byte, a, b float64) value.Value {
	var f float64
	switch op {
	case '+':
		f = a + b
	case '-':
		f = a - b
	case '*':
		f = a * b
	case '/':
		if b == 0 {
			return e.fail(at, "division by zero")
		}
		f = a / b
	}
	if math.IsInf(f, 0) || math.IsNaN(f) {
		return e.fail(at, "the result does not fit a float")
	}
	return value.OfFloat(f)
}

func joined(e *Env, at place, a, b string) value.Value {
	if len(a)+len(b) > MaxStringBytes {
		return e.fail(at, "a string longer than %d bytes", MaxStringBytes)
	}
	if !e.spend(at, len(a)+len(b)) {
		return value.None()
	}
	return value.OfString(e.Arena.Keep(append(append(e.Arena.Room(len(a)+len(b)), a...), b...)))
}

// list compiles a list literal.
func (c *compiler) list(n *ast.ArrayNode) code {
	if len(n.Nodes) > MaxLiteral {
		return c.problem(n, "", "the list has more than %d elements", MaxLiteral)
	}
	parts, evals := c.parts(n.Nodes)
	at := c.at(n)
	return c.folded(n, code{typ: kinds(KList), eval: func(e *Env) value.Value {
		vals := e.Arena.Values(len(evals))
		for i, f := range evals {
			if vals[i] = f(e); vals[i].Kind() == value.Invalid {
				return vals[i]
			}
		}
		return e.bounded(at, value.OfList(vals))
	}}, parts...)
}

// parts compiles what goes into a list or an object; times become strings there.
func (c *compiler) parts(nodes []ast.Node) ([]code, []evaluate) {
	parts, evals := make([]code, len(nodes)), make([]evaluate, len(nodes))
	for i, n := range nodes {
		parts[i] = c.compile(n)
		evals[i] = parts[i].eval
		if parts[i].typ.Kinds&KTime != 0 {
			at, eval := c.at(n), parts[i].eval
			evals[i] = func(e *Env) value.Value {
				v := eval(e)
				if v.Kind() != value.Time {
					return v
				}
				s, err := text(v.Int(), e)
				if err != nil {
					return e.fail(at, "%v", err)
				}
				return s
			}
		}
	}
	return parts, evals
}

// object compiles an object literal.
func (c *compiler) object(n *ast.MapNode) code {
	if len(n.Pairs) > MaxLiteral {
		return c.problem(n, "", "the object has more than %d fields", MaxLiteral)
	}
	var names []string
	var nodes []ast.Node
	fields := map[string]Type{}
	for _, p := range n.Pairs {
		pair := p.(*ast.PairNode)
		name, ok := pair.Key.(*ast.StringNode)
		if !ok {
			return c.problem(pair.Key, "", "the name of a field is a constant")
		}
		if _, twice := fields[name.Value]; twice {
			return c.problem(pair.Key, "", "there are two fields %s", name.Value)
		}
		fields[name.Value] = Type{}
		names, nodes = append(names, name.Value), append(nodes, pair.Value)
	}
	parts, evals := c.parts(nodes)
	for i, name := range names {
		fields[name] = parts[i].typ.stored()
	}
	at := c.at(n)
	return c.folded(n, code{typ: ObjectOf(fields), eval: func(e *Env) value.Value {
		vals := e.Arena.Values(len(evals))
		for i, f := range evals {
			if vals[i] = f(e); vals[i].Kind() == value.Invalid {
				return vals[i]
			}
		}
		return e.bounded(at, value.OfObject(names, vals))
	}}, parts...)
}

// slice compiles x[from:to], of the elements of a list or the characters of a string.
func (c *compiler) slice(n *ast.SliceNode) code {
	x := c.compile(n.Node)
	from, to := constant(value.OfInt(0)), constant(value.Value{})
	if n.From != nil {
		from = c.compile(n.From)
	}
	if n.To != nil {
		to = c.compile(n.To)
	}
	if x.typ.Kinds&(KString|KList) == 0 {
		return c.problem(n, "", "a slice is of a string or a list, not of %s", x.typ.Kinds)
	}
	for _, b := range []code{from, to} {
		if b.typ.Kinds&(KInt|KNil) == 0 {
			return c.problem(n, "", "the bounds of a slice are ints, not %s", b.typ.Kinds)
		}
	}
	at, of, lo, hi, open := c.at(n), x.eval, from.eval, to.eval, n.To == nil
	return c.folded(n, code{typ: kinds(x.typ.Kinds & (KString | KList)), eval: func(e *Env) value.Value {
		v := of(e)
		if v.Kind() == value.Invalid {
			return v
		}
		f := lo(e)
		if f.Kind() == value.Invalid {
			return f
		}
		t := hi(e)
		switch {
		case t.Kind() == value.Invalid || !e.spend(at, v.Weight()):
			return value.None()
		case f.Kind() != value.Int || !open && t.Kind() != value.Int:
			return e.fail(at, "the bounds of a slice are ints, not %s and %s", f.Kind(), t.Kind())
		case v.Kind() == value.String:
			return sliceText(v.Text(), f, t)
		case v.Kind() == value.List:
			return sliceList(e, v, f, t)
		}
		return e.fail(at, "a slice is of a string or a list, not of %s", v.Kind())
	}}, x, from, to)
}

// bounds returns from and to within 0..n; negative ones count from the end.
func bounds(f, t value.Value, n int) (int, int) {
	clamp := func(i int64) int {
		if i < 0 {
			i += int64(n)
		}
		return int(min(max(i, 0), int64(n)))
	}
	from, to := clamp(f.Int()), n
	if !t.IsNil() {
		to = clamp(t.Int())
	}
	return from, max(from, to)
}

func sliceText(s string, f, t value.Value) value.Value {
	from, to := bounds(f, t, utf8.RuneCountInString(s))
	b0 := byteOffset(s, from)
	return value.OfString(s[b0 : b0+byteOffset(s[b0:], to-from)])
}

func sliceList(e *Env, v value.Value, f, t value.Value) value.Value {
	from, to := bounds(f, t, v.Len())
	vals := e.Arena.Values(to - from)
	i := 0
	v.Elems(e.Arena, func(el value.Value) bool {
		if i >= from && i < to {
			vals[i-from] = el
		}
		i++
		return i < to
	})
	return value.OfList(vals)
}
