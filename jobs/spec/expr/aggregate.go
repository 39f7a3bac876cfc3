package expr

import (
	"slices"

	"github.com/expr-lang/expr/ast"
)

var aggregateNames = []string{"count", "sum", "mean", "min", "max", "distinct"}

const aggregateHint = "write count(), sum(x), mean(x), min(x), max(x) or distinct(x)"

// Aggregate is one aggregate of a window.
type Aggregate struct {
	Func string   // count, sum, mean, min, max or distinct
	Arg  *Program // nil for count
	Type Type     // of its value
}

// CompileAggregate checks src, an aggregate over one expression, as it stands in a window.
func CompileAggregate(src string, scope Scope) (*Aggregate, []Problem) {
	node, problems := parse(src)
	if problems != nil {
		return nil, problems
	}
	c := &compiler{src: src, scope: scope}
	name, args := called(node)
	switch {
	case name == "":
		c.problem(node, aggregateHint, "this is not an aggregate")
	case !slices.Contains(aggregateNames, name):
		hint := DidYouMean(name, aggregateNames)
		if slices.Contains(functionNames(), name) {
			hint = "put it inside one: sum(" + name + "(x))"
		}
		c.problem(node, hint, "%s is not an aggregate", name)
	case name == "count" && len(args) != 0:
		c.problem(node, "records are counted: filter before the window to count fewer", "count takes no argument")
	case name != "count" && len(args) != 1:
		c.problem(node, "", "%s takes 1 argument, not %d", name, len(args))
	}
	if len(c.problems) > 0 {
		return nil, c.problems
	}
	a := &Aggregate{Func: name, Type: kinds(KInt)}
	if name == "count" {
		return a, nil
	}
	if a.Arg, problems = compileNode(src, args[0], scope); problems != nil {
		return nil, problems
	}
	if name == "distinct" {
		return a, nil
	}
	if a.Arg.Type.Kinds&KNumber == 0 {
		c.problem(args[0], "", "%s takes a number, this is %s", name, a.Arg.Type.Kinds)
		return nil, c.problems
	}
	a.Type = kinds(KNumber)
	if name == "mean" {
		a.Type = kinds(KFloat)
	}
	return a, nil
}

func called(n ast.Node) (string, []ast.Node) {
	switch n := n.(type) {
	case *ast.BuiltinNode:
		return n.Name, n.Arguments
	case *ast.CallNode:
		if id, ok := n.Callee.(*ast.IdentifierNode); ok {
			return id.Value, n.Arguments
		}
	}
	return "", nil
}
