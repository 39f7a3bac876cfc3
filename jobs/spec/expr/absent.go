package expr

import (
	"strings"

	"github.com/sidestream-dev/sidestream/jobs/spec/value"
)

// hintBytes is how large a record may be whose fields are looked through for a hint.
const hintBytes = 64 << 10

// operand is a part of an expression with what it came to; path is that of its field in the record, nil where it is no field.
type operand struct {
	path []string
	v    value.Value
}

// absent says which operands are fields that the record does not have, or that are null in it, to end an error with; "" where
// none is.
func (e *Env) absent(ops ...operand) string {
	for _, o := range ops {
		if !o.v.IsNil() || len(o.path) == 0 {
			continue
		}
		r, name := &e.Rec.Value, "value."+strings.Join(o.path, ".")
		if r.Weight() > hintBytes {
			return ": " + name + " is nil"
		}
		last := len(o.path) - 1
		parent := r.Lookup(o.path[:last], e.Arena)
		if parent.Kind() != value.Object {
			return ": " + name + " is nil, as " + strings.TrimSuffix("value."+strings.Join(o.path[:last], "."), ".") + " is no object"
		}
		if parent.Has(o.path[last]) {
			return ": " + name + " is null"
		}
		var names []string
		parent.Fields(e.Arena, func(n string, _ value.Value) bool {
			names = append(names, n)
			return len(names) < 256
		})
		hint := ""
		if n := Nearest(o.path[last], names); n != "" {
			hint = " (did you mean " + n + "?)"
		}
		return ": there is no " + name + hint
	}
	return ""
}
