package expr

import (
	"fmt"
	"regexp"
	"regexp/syntax"
	"strings"

	"github.com/expr-lang/expr/ast"

	"github.com/sidestream-dev/sidestream/jobs/spec/value"
)

// MaxPattern is the longest pattern of matches.
const MaxPattern = 512

func (c *compiler) binary(n *ast.BinaryNode) code {
	a, b := c.compile(n.Left), c.compile(n.Right)
	switch n.Operator {
	case "&&", "and":
		return c.logic(n, a, b, 0)
	case "||", "or":
		return c.logic(n, a, b, 1)
	case "==":
		return c.folded(n, c.equal(n, a, b, true), a, b)
	case "!=":
		return c.folded(n, c.equal(n, a, b, false), a, b)
	case "<", "<=", ">", ">=":
		return c.folded(n, c.order(n, a, b), a, b)
	case "+", "-", "*", "/", "%":
		return c.folded(n, c.arithmetic(n, a, b), a, b)
	case "??":
		return c.folded(n, coalesce(a, b), a, b)
	case "in":
		return c.folded(n, c.in(n, a, b), a, b)
	case "contains", "startsWith", "endsWith":
		return c.folded(n, c.find(n, a, b), a, b)
	case "matches":
		return c.folded(n, c.matches(n, a, b), a)
	}
	return c.problem(n, "", "%s is not in the language", n.Operator)
}

// logic compiles and (stop 0) and or (stop 1).
func (c *compiler) logic(n *ast.BinaryNode, a, b code, stop int8) code {
	c.wantBool(a, n.Left, n.Operator)
	c.wantBool(b, n.Right, n.Operator)
	first, second := c.decider(a, n.Left), c.decider(b, n.Right)
	if stop == 0 {
		return c.folded(n, decided(func(e *Env) int8 {
			if d := first(e); d != 1 {
				return d
			}
			return second(e)
		}), a, b)
	}
	return c.folded(n, decided(func(e *Env) int8 {
		if d := first(e); d != 0 {
			return d
		}
		return second(e)
	}), a, b)
}

func coalesce(a, b code) code {
	given := a.typ
	given.Kinds &^= KNil
	t := union(given, b.typ)
	x, y := a.eval, b.eval
	return code{typ: t, eval: func(e *Env) value.Value {
		if v := x(e); !v.IsNil() {
			return v
		}
		return y(e)
	}}
}

// equal compiles == and !=.
func (c *compiler) equal(n *ast.BinaryNode, a, b code, want bool) code {
	if !overlap(a.typ.Kinds, b.typ.Kinds) {
		hint := "convert one of them: string(x), float(x)"
		if (a.typ.Kinds|b.typ.Kinds)&KTime != 0 {
			hint = "compare a time with timestamp(x), or unix_ms(time) with a number"
		}
		return c.problem(n, hint, "%s is never equal to %s", a.typ.Kinds, b.typ.Kinds)
	}
	if a.konst != nil {
		a, b = b, a
	}
	is, not := truth(want), truth(!want)
	at, x, y := c.at(n), a.eval, b.eval
	switch {
	case b.konst != nil && b.konst.Kind() == value.String && a.site != nil:
		s, k := a.site, b.konst.Text()
		return decided(func(e *Env) int8 {
			r := &e.Rec.Value
			if r.Shape() == s.shape {
				if r.Slot(s.slot).IsText(k) {
					return is
				}
				return not
			}
			if v := s.find(e, r); v.IsText(k) {
				return is
			}
			return not
		})
	case b.konst != nil && b.konst.IsNil():
		return decided(func(e *Env) int8 {
			v := x(e)
			switch {
			case v.IsNil():
				return is
			case v.Kind() == value.Invalid:
				return failed
			}
			return not
		})
	}
	return decided(func(e *Env) int8 {
		v := x(e)
		if v.Kind() == value.Invalid {
			return failed
		}
		w := y(e)
		if w.Kind() == value.Invalid || !e.spend(at, comparing(v)+comparing(w)) {
			return failed
		}
		if value.Equal(v, w) {
			return is
		}
		return not
	})
}

// comparing is the work of comparing v with another value: strings that differ mostly do so soon, lists and objects may
// have to be decoded.
func comparing(v value.Value) int {
	if k := v.Kind(); k == value.List || k == value.Object {
		return 4 * v.Weight()
	}
	return v.Weight() / 8
}

// overlap reports whether values of a and b may compare with each other; nil is left to those who ask for nil alone.
func overlap(a, b Kinds) bool {
	if a == KNil || b == KNil {
		return true
	}
	return a&b&^KNil != 0 || a&KNumber != 0 && b&KNumber != 0
}

const kOrdered = KNumber | KString | KTime

// order compiles < <= > >=.
func (c *compiler) order(n *ast.BinaryNode, a, b code) code {
	for i, x := range []code{a, b} {
		if x.typ.Kinds&kOrdered == 0 {
			return c.problem([]ast.Node{n.Left, n.Right}[i], "", "%s cannot be ordered", x.typ.Kinds)
		}
	}
	if !overlap(a.typ.Kinds&kOrdered, b.typ.Kinds&kOrdered) {
		hint := "convert one of them: string(x), float(x)"
		if (a.typ.Kinds|b.typ.Kinds)&KTime != 0 {
			hint = "compare a time with timestamp(x), or unix_ms(time) with a number"
		}
		return c.problem(n, hint, "%s and %s cannot be ordered", a.typ.Kinds, b.typ.Kinds)
	}
	at, op := c.at(n), n.Operator
	less, same, more := truth(op[0] == '<'), truth(len(op) == 2), truth(op[0] == '>')
	general := func(e *Env, v, w value.Value) int8 {
		if v.Kind() == value.Invalid || w.Kind() == value.Invalid {
			return failed
		}
		d, ok := value.Compare(v, w)
		switch {
		case !ok:
			e.fail(at, "%s and %s cannot be ordered%s", v.Kind(), w.Kind(), e.absent(operand{a.path, v}, operand{b.path, w}))
			return failed
		case d < 0:
			return less
		case d > 0:
			return more
		}
		return same
	}
	x, y := a.eval, b.eval
	if b.konst != nil && b.konst.IsNumber() && fitsFloat(*b.konst) {
		return c.orderConst(x, *b.konst, less, same, more, general)
	}
	return decided(func(e *Env) int8 {
		v := x(e)
		if v.Kind() == value.Invalid {
			return failed
		}
		return general(e, v, y(e))
	})
}

// fitsFloat reports whether a number is exact as a float, and small enough that an int compares with it as a float does.
func fitsFloat(v value.Value) bool {
	const exact = 1 << 53
	f := v.Float()
	return -exact < f && f < exact
}

// orderConst orders numbers with a constant.
func (c *compiler) orderConst(x evaluate, k value.Value, less, same, more int8, general func(*Env, value.Value, value.Value) int8) code {
	f := k.Float()
	return decided(func(e *Env) int8 {
		v := x(e)
		if !v.IsNumber() {
			return general(e, v, k)
		}
		// Rounding an int beyond 2^53 does not carry it over a constant within.
		switch g := v.Float(); {
		case g < f:
			return less
		case g > f:
			return more
		}
		return same
	})
}

// in compiles x in list and name in object.
func (c *compiler) in(n *ast.BinaryNode, a, b code) code {
	if b.typ.Kinds&(KList|KObject) == 0 {
		return c.problem(n, "write x == y, or x in [a, b]", "in takes a list or an object, this is %s", b.typ.Kinds)
	}
	x := a.eval
	if b.konst != nil && b.konst.Kind() == value.List {
		return inConst(x, *b.konst)
	}
	at, y := c.at(n), b.eval
	return decided(func(e *Env) int8 {
		v := x(e)
		if v.Kind() == value.Invalid {
			return failed
		}
		w := y(e)
		switch w.Kind() {
		case value.Invalid:
			return failed
		case value.List:
			found, most := int8(0), comparing(v)
			w.Elems(nil, func(el value.Value) bool {
				if !e.spend(at, most+comparing(el)) {
					found = failed
				} else if value.Equal(v, el) {
					found = 1
				}
				return found == 0
			})
			return found
		case value.Object:
			if v.Kind() == value.String {
				if !e.spend(at, w.Weight()) {
					return failed
				}
				return truth(w.Has(v.Text()))
			}
		}
		e.fail(at, "%s in %s cannot be", v.Kind(), w.Kind())
		return failed
	})
}

func inConst(x evaluate, list value.Value) code {
	texts := map[string]bool{}
	var others []value.Value
	list.Elems(nil, func(v value.Value) bool {
		if v.Kind() == value.String {
			texts[v.Text()] = true
		} else {
			others = append(others, v)
		}
		return true
	})
	return decided(func(e *Env) int8 {
		v := x(e)
		switch v.Kind() {
		case value.Invalid:
			return failed
		case value.String:
			return truth(texts[v.Text()])
		}
		for _, o := range others {
			if value.Equal(v, o) {
				return 1
			}
		}
		return 0
	})
}

var finders = map[string]func(s, part string) bool{
	"contains": strings.Contains, "startsWith": strings.HasPrefix, "endsWith": strings.HasSuffix,
}

func (c *compiler) find(n *ast.BinaryNode, a, b code) code {
	for i, x := range []code{a, b} {
		if x.typ.Kinds&KString == 0 {
			hint := ""
			if n.Operator == "contains" && x.typ.Kinds&KList != 0 {
				hint = "write x in list"
			}
			return c.problem([]ast.Node{n.Left, n.Right}[i], hint, "%s takes strings, this is %s", n.Operator, x.typ.Kinds)
		}
	}
	at, x, y, f := c.at(n), a.eval, b.eval, finders[n.Operator]
	return decided(func(e *Env) int8 {
		v := x(e)
		if v.Kind() == value.Invalid {
			return failed
		}
		w := y(e)
		if v.Kind() == value.String && w.Kind() == value.String {
			if !e.spend(at, v.Weight()) {
				return failed
			}
			return truth(f(v.Text(), w.Text()))
		}
		if w.Kind() != value.Invalid {
			e.fail(at, "%s takes strings, not %s and %s%s", n.Operator, v.Kind(), w.Kind(), e.absent(operand{a.path, v}, operand{b.path, w}))
		}
		return failed
	})
}

func (c *compiler) matches(n *ast.BinaryNode, a, b code) code {
	if b.konst == nil || b.konst.Kind() != value.String {
		return c.problem(n.Right, "", "the pattern of matches is a constant string")
	}
	if len(b.konst.Text()) > MaxPattern {
		return c.problem(n.Right, "", "the pattern is longer than %d bytes", MaxPattern)
	}
	if a.typ.Kinds&KString == 0 {
		return c.problem(n.Left, "", "matches takes a string, this is %s", a.typ.Kinds)
	}
	re, steps, err := pattern(b.konst.Text())
	if err != nil {
		return c.problem(n.Right, "", "the pattern is wrong: %s", strings.TrimPrefix(err.Error(), "error parsing regexp: "))
	}
	at, x := c.at(n), a.eval
	return decided(func(e *Env) int8 {
		v := x(e)
		switch v.Kind() {
		case value.String:
			if !e.spend(at, v.Weight()*(1+steps)) {
				return failed
			}
			return truth(re.MatchString(v.Text()))
		case value.Invalid:
		default:
			e.fail(at, "matches takes a string, not %s%s", v.Kind(), e.absent(operand{a.path, v}))
		}
		return failed
	})
}

// maxPatternSteps is how many steps a pattern may have once its repetitions are written out; matching takes time for each
// at each character.
const maxPatternSteps = 2000

// pattern compiles a pattern and tells its steps.
func pattern(src string) (re *regexp.Regexp, steps int, err error) {
	tree, err := syntax.Parse(src, syntax.Perl)
	if err != nil {
		return nil, 0, err
	}
	if steps = stepsOf(tree); steps > maxPatternSteps {
		return nil, 0, fmt.Errorf("its repetitions come to more than %d steps", maxPatternSteps)
	}
	re, err = regexp.Compile(src)
	return re, steps, err
}

func stepsOf(re *syntax.Regexp) int {
	n := 1
	switch re.Op {
	case syntax.OpLiteral:
		n = len(re.Rune)
	case syntax.OpCharClass:
		n = 1 + len(re.Rune)/64 // large classes cost more
	}
	for _, sub := range re.Sub {
		n += stepsOf(sub)
	}
	if re.Op == syntax.OpRepeat {
		n *= max(1, re.Min, re.Max)
	}
	return min(n, maxPatternSteps+1)
}
