package spec

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"

	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/jobs/connector"
	"github.com/sidestream-dev/sidestream/jobs/spec/expr"
)

// name reads the name of a job, a step, an output or a topic.
func (d *document) name(n *yaml.Node, what string) string {
	s, ok := d.text(n, what)
	if !ok {
		return ""
	}
	if err := jobs.CheckName(s); err != nil {
		d.problem(n, "", "%s: %v", what, err)
		return ""
	}
	return s
}

// choice reads one of several words.
func (d *document) choice(n *yaml.Node, what string, choices []string) string {
	s, ok := d.text(n, what)
	if !ok {
		return ""
	}
	if !slices.Contains(choices, s) {
		d.problem(n, expr.DidYouMean(s, choices), "%s: %q is not one of %s", what, clip(s), strings.Join(choices, ", "))
		return ""
	}
	return s
}

// whole reads a whole number from least to most.
func (d *document) whole(n *yaml.Node, what string, least, most int64) int64 {
	s, ok := d.text(n, what)
	if !ok {
		return least
	}
	i, err := strconv.ParseInt(s, 10, 64)
	if (err != nil || i != least) && least == most {
		d.problem(n, "", "%s: want %d, not %s", what, least, describe(n))
		return least
	}
	if err != nil || i < least || i > most {
		d.problem(n, "", "%s: want a whole number from %d to %d, not %s", what, least, most, describe(n))
		return least
	}
	return i
}

var durationRE = regexp.MustCompile(`^(\d+)d(.*)$`)

// ParseDuration reads a duration as definitions have it: 250ms, 5s, 1h30m, 1d. It is not negative.
func ParseDuration(s string) (time.Duration, bool) {
	var days time.Duration
	if m := durationRE.FindStringSubmatch(s); m != nil {
		n, err := strconv.Atoi(m[1])
		if err != nil || n > 36500 {
			return 0, false
		}
		if days, s = time.Duration(n)*24*time.Hour, m[2]; s == "" {
			return days, true
		}
	}
	rest, err := time.ParseDuration(s)
	if err != nil || rest < 0 || rest+days < days || strings.ContainsAny(s, "+-") {
		return 0, false
	}
	return days + rest, true
}

// duration reads 250ms, 5s, 1h30m, 1d.
func (d *document) duration(n *yaml.Node, what string) time.Duration {
	s, ok := d.text(n, what)
	if !ok {
		return 0
	}
	v, ok := ParseDuration(s)
	if !ok {
		hint := ""
		if _, err := strconv.ParseFloat(s, 64); err == nil {
			hint = "did you mean " + s + "s?"
		}
		d.problem(n, hint, "%s: want a duration such as 250ms, 5s, 1h30m or 1d, not %s", what, describe(n))
	}
	return v
}

// bytes reads 4096, 64KiB, 1GB.
func (d *document) bytes(n *yaml.Node, what string) int64 {
	s, ok := d.text(n, what)
	if !ok {
		return 0
	}
	v, err := connector.Field{Kind: connector.Bytes}.Parse(s)
	if err != nil {
		d.problem(n, "", "%s: %s", what, err.Msg)
		return 0
	}
	if v.(int64) == 0 {
		d.problem(n, "", "%s: want more than 0", what)
	}
	return v.(int64)
}

// expression reads and checks an expression.
func (d *document) expression(n *yaml.Node, what string, scope expr.Scope) *expr.Program {
	if n.Kind != yaml.ScalarNode {
		d.problem(n, `quote an expression that begins with { or [: '{"a": 1}'`, "%s: want an expression, not %s", what, describe(n))
		return nil
	}
	if d.unchecked(n) {
		return nil
	}
	p, problems := expr.Compile(n.Value, scope)
	if problems != nil {
		d.inside(n, problems)
		return nil
	}
	return p
}

// maxExpressions is how many bytes of expressions are checked in a file in which something is wrong: each kilobyte may take
// some milliseconds.
const maxExpressions = 16 << 10

// unchecked reports whether an expression is one too many to be checked; it says so.
func (d *document) unchecked(n *yaml.Node) bool {
	d.file.expressions += len(n.Value)
	if d.file.expressions <= maxExpressions || len(d.file.problems) == 0 {
		return false
	}
	d.problem(n, "mend what is wrong before it first", "this expression is not checked, as the file has many")
	return true
}

// condition reads an expression that is true or false.
func (d *document) condition(n *yaml.Node, what string, scope expr.Scope) *expr.Program {
	p := d.expression(n, what, scope)
	if p != nil && p.Type.Kinds&expr.KBool == 0 {
		d.problem(n, "", "%s: want a condition, this is %s", what, p.Type.Kinds)
	}
	return p
}
