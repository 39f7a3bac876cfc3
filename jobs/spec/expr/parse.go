package expr

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/builtin"
	"github.com/expr-lang/expr/conf"
	"github.com/expr-lang/expr/file"
	"github.com/expr-lang/expr/parser"
	"github.com/expr-lang/expr/parser/lexer"
)

// Limits of an expression.
const (
	MaxSourceBytes = 4096
	MaxDepth       = 32  // nesting of its parts
	MaxLiteral     = 256 // elements of a list or object literal
	maxNodes       = 1024
)

// Operators of expr-lang/expr that are not in the language.
var refusedOperators = map[string]string{
	"|":   "write f(x) for x | f()",
	";":   "an expression is one value",
	"let": "an expression has no variables; a map or set step before this one can name a value",
	"..":  "write the list out",
	"**":  "multiply",
	"^":   "multiply",
	"::":  "",
}

// parse returns the tree of src, or all that is wrong with its words, or the first thing that is wrong with its syntax.
func parse(src string) (ast.Node, []Problem) {
	if strings.TrimSpace(src) == "" {
		return nil, []Problem{{Msg: "the expression is empty"}}
	}
	if len(src) > MaxSourceBytes {
		return nil, []Problem{{Pos: MaxSourceBytes, Msg: fmt.Sprintf("the expression is longer than %d bytes", MaxSourceBytes)}}
	}
	tokens, err := lexer.Lex(file.NewSource(src))
	if err != nil {
		return nil, []Problem{syntaxProblem(src, err)}
	}
	var problems []Problem
	for _, t := range tokens {
		if hint, ok := refusedOperators[t.Value]; ok && t.Kind == lexer.Operator {
			problems = append(problems, Problem{byteOffset(src, t.From), t.Value + " is not in the language", hint})
		}
		if t.Kind == lexer.Bytes {
			problems = append(problems, Problem{byteOffset(src, t.From), "byte strings are not in the language", "write a string"})
		}
	}
	if problems != nil {
		return nil, problems
	}
	c := conf.CreateNew()
	c.MaxNodes = maxNodes
	c.Functions["count"], c.Functions["sum"] = &builtin.Function{}, &builtin.Function{} // plain calls: aggregates
	tree, err := parser.ParseWithConfig(src, c)
	if err != nil {
		return nil, []Problem{syntaxProblem(src, err)}
	}
	return tree.Node, nil
}

var tokenRE = regexp.MustCompile(`unexpected token (\w+)(?:\("(.*)"\))?`)

func syntaxProblem(src string, err error) Problem {
	p := Problem{Msg: err.Error()}
	if e, ok := errors.AsType[*file.Error](err); ok {
		p.Pos, p.Msg = byteOffset(src, e.From), e.Message
	}
	if m := tokenRE.FindStringSubmatch(p.Msg); m != nil {
		p.Msg = "unexpected " + m[2]
		if m[1] == "EOF" {
			p.Msg, p.Pos = "the expression ends too early", len(src)
		}
	}
	switch {
	case p.Msg == "unexpected end of expression":
		p.Msg, p.Pos = "the expression ends too early", len(src)
	case p.Msg == "expected name":
		p.Msg = "a name is missing"
	case strings.HasPrefix(p.Msg, "unexpected ="):
		p.Hint = "== compares"
	case strings.Contains(p.Msg, "literal not terminated"):
		p.Msg = "the string is not closed"
	case strings.HasPrefix(p.Msg, "invalid integer literal"), strings.HasPrefix(p.Msg, "invalid float literal"):
		p.Msg = "the number does not fit an int or a float"
	case strings.Contains(p.Msg, "maximum allowed nodes"):
		p.Msg = fmt.Sprintf("the expression has more than %d parts", maxNodes)
	}
	p.Msg = p.Msg[:min(len(p.Msg), 200)]
	return p
}
