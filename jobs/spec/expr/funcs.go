package expr

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/expr-lang/expr/ast"

	"github.com/sidestream-dev/sidestream/jobs/spec/value"
)

// Function describes a function of the language.
type Function struct {
	Name     string
	Doc      string
	SQL      string  // how Flink SQL says it
	takes    []Kinds // of each argument; the last one's go on if more are allowed
	most     int     // arguments; 0 means as many as takes has
	gives    func(args []Kinds) Kinds
	evaluate func(e *Env, args []value.Value) (value.Value, error)
}

func gives(k Kinds) func([]Kinds) Kinds { return func([]Kinds) Kinds { return k } }

func sameNumber(args []Kinds) Kinds {
	var k Kinds
	for _, a := range args {
		k |= a & KNumber
	}
	return k
}

// Functions lists the functions of the language.
func Functions() []Function {
	return []Function{
		{"float", "a float of a number or of its text", "CAST(x AS DOUBLE)", []Kinds{KNumber | KString}, 0, gives(KFloat), toFloat},
		{"int", "an int of a number, cut towards zero, or of its text", "CAST(x AS BIGINT)", []Kinds{KNumber | KString}, 0, gives(KInt), toInt},
		{"string", "the text of any value but nil; JSON of a list or an object", "CAST(x AS STRING)", []Kinds{KBool | KNumber | KString | KTime | KList | KObject}, 0, gives(KString), toString},
		{"bool", "a bool of \"true\" or \"false\"", "CAST(x AS BOOLEAN)", []Kinds{KBool | KString}, 0, gives(KBool), toBool},
		{"len", "the characters of a string, the elements of a list, the fields of an object", "CHAR_LENGTH(x), CARDINALITY(x)", []Kinds{KString | KList | KObject}, 0, gives(KInt), length},
		{"lower", "the string in lower case", "LOWER(s)", []Kinds{KString}, 0, gives(KString), onText(strings.ToLower)},
		{"upper", "the string in upper case", "UPPER(s)", []Kinds{KString}, 0, gives(KString), onText(strings.ToUpper)},
		{"trim", "the string without space around it", "TRIM(s)", []Kinds{KString}, 0, gives(KString), onText(strings.TrimSpace)},
		{"abs", "the number without its sign", "ABS(x)", []Kinds{KNumber}, 0, sameNumber, absolute},
		{"min", "the smallest of its numbers", "LEAST(x, y)", []Kinds{KNumber, KNumber}, 16, sameNumber, extreme(-1)},
		{"max", "the largest of its numbers", "GREATEST(x, y)", []Kinds{KNumber, KNumber}, 16, sameNumber, extreme(1)},
		{"round", "the nearest whole number, of two the one away from zero", "ROUND(x)", []Kinds{KNumber}, 0, sameNumber, onFloat(math.Round)},
		{"floor", "the next whole number below", "FLOOR(x)", []Kinds{KNumber}, 0, sameNumber, onFloat(math.Floor)},
		{"ceil", "the next whole number above", "CEIL(x)", []Kinds{KNumber}, 0, sameNumber, onFloat(math.Ceil)},
		{"split", "the parts of a string between separators", "SPLIT(s, sep)", []Kinds{KString, KString}, 0, gives(KList), split},
		{"join", "the strings of a list with a separator between them", "ARRAY_JOIN(list, sep)", []Kinds{KList, KString}, 0, gives(KString), join},
		{"unix_ms", "a time, or its RFC 3339 text, as milliseconds since 1970", "UNIX_TIMESTAMP(t) * 1000 + EXTRACT(MILLISECOND FROM t)", []Kinds{KTime | KString}, 0, gives(KInt), unixMs},
		{"timestamp", "the time of milliseconds since 1970 or of RFC 3339 text", "TO_TIMESTAMP_LTZ(ms, 3)", []Kinds{KInt | KString | KTime}, 0, gives(KTime), timestamp},
	}
}

func functionNames() []string {
	var names []string
	for _, f := range Functions() {
		names = append(names, f.Name)
	}
	return names
}

// loops are the functions of expr-lang/expr that run over a list.
var loops = []string{"all", "none", "any", "one", "filter", "map", "find", "findIndex", "findLast", "findLastIndex",
	"groupBy", "sortBy", "reduce", "sort", "concat", "flatten", "uniq", "repeat", "sum", "count"}

func (c *compiler) call(n ast.Node, name string, args []ast.Node) code {
	fs := Functions()
	i := slices.IndexFunc(fs, func(f Function) bool { return f.Name == name })
	if i < 0 {
		return c.noFunction(n, name)
	}
	f := &fs[i]
	most := max(f.most, len(f.takes))
	if len(args) < len(f.takes) || len(args) > most {
		return c.problem(n, "", "%s takes %s, not %d", name, plural(len(f.takes), most), len(args))
	}
	parts, evals, ks := make([]code, len(args)), make([]evaluate, len(args)), make([]Kinds, len(args))
	for i, a := range args {
		parts[i] = c.compile(a)
		evals[i], ks[i] = parts[i].eval, parts[i].typ.Kinds
		if takes := f.accepts(i); ks[i]&takes == 0 {
			return c.problem(a, "", "%s takes %s, this is %s", name, takes, ks[i])
		}
	}
	at, vals := c.at(n), make([]value.Value, len(args))
	return c.folded(n, code{typ: kinds(f.gives(ks)), eval: func(e *Env) value.Value {
		for i, eval := range evals {
			v := eval(e)
			if v.Kind() == value.Invalid {
				return v
			}
			if kindOf(v)&f.accepts(i) == 0 {
				return e.fail(at, "%s takes %s, not %s%s", f.Name, f.accepts(i), v.Kind(), e.absent(operand{parts[i].path, v}))
			}
			if !e.spend(at, v.Weight()) {
				return value.None()
			}
			vals[i] = v
		}
		v, err := f.evaluate(e, vals)
		if err != nil {
			return e.fail(at, "%s: %v", f.Name, err)
		}
		return v
	}}, parts...)
}

func (f *Function) accepts(i int) Kinds { return f.takes[min(i, len(f.takes)-1)] }

func plural(least, most int) string {
	switch {
	case most > least:
		return fmt.Sprintf("%d to %d arguments", least, most)
	case least == 1:
		return "1 argument"
	}
	return fmt.Sprintf("%d arguments", least)
}

func (c *compiler) noFunction(n ast.Node, name string) code {
	if slices.Contains(aggregateNames, name) {
		return c.problem(n, "it stands in a window's aggregate", "%s is an aggregate", name)
	}
	if slices.Contains(loops, name) {
		return c.problem(n, "an expression does not run over a list; x in list looks into one", "%s is not in the language", name)
	}
	return c.problem(n, DidYouMean(name, functionNames()), "there is no function %s", name)
}

var errIntRange = errors.New("the number does not fit an int")

func toFloat(_ *Env, a []value.Value) (value.Value, error) {
	if a[0].IsNumber() {
		return value.OfFloat(a[0].Float()), nil
	}
	f, err := strconv.ParseFloat(strings.TrimSpace(a[0].Text()), 64)
	if err != nil || math.IsNaN(f) || math.IsInf(f, 0) || strings.ContainsAny(a[0].Text(), "xX_") {
		return value.Value{}, fmt.Errorf("%s is not a number", quoted(a[0].Text()))
	}
	return value.OfFloat(f), nil
}

func quoted(s string) string {
	if len(s) > 40 {
		s = s[:40] + "…"
	}
	return strconv.Quote(s)
}

func toInt(_ *Env, a []value.Value) (value.Value, error) {
	switch a[0].Kind() {
	case value.Int:
		return a[0], nil
	case value.Float:
		f := math.Trunc(a[0].Float())
		if f >= 1<<63 || f < -(1<<63) {
			return value.Value{}, errIntRange
		}
		return value.OfInt(int64(f)), nil
	}
	i, err := strconv.ParseInt(strings.TrimSpace(a[0].Text()), 10, 64)
	if err != nil {
		return value.Value{}, fmt.Errorf("%s is not an int", quoted(a[0].Text()))
	}
	return value.OfInt(i), nil
}

func toString(e *Env, a []value.Value) (value.Value, error) {
	switch a[0].Kind() {
	case value.String:
		return a[0], nil
	case value.Time:
		return text(a[0].Int(), e)
	}
	if a[0].Weight() > 8*MaxStringBytes { // a number weighs more than it is long
		return value.Value{}, errLong
	}
	b, err := value.AppendJSON(nil, a[0])
	if err == nil && len(b) > MaxStringBytes {
		err = errLong
	}
	return value.OfBytes(b), err
}

func toBool(_ *Env, a []value.Value) (value.Value, error) {
	switch {
	case a[0].Kind() == value.Bool:
		return a[0], nil
	case a[0].IsText("true"), a[0].IsText("false"):
		return value.OfBool(a[0].IsText("true")), nil
	}
	return value.Value{}, fmt.Errorf("%s is neither true nor false", quoted(a[0].Text()))
}

func length(_ *Env, a []value.Value) (value.Value, error) {
	if a[0].Kind() == value.String {
		return value.OfInt(int64(utf8.RuneCountInString(a[0].Text()))), nil
	}
	return value.OfInt(int64(a[0].Len())), nil
}

var (
	errLong = fmt.Errorf("a string longer than %d bytes", MaxStringBytes)
	errMany = fmt.Errorf("a list longer than %d", MaxListLen)
)

func onText(f func(string) string) func(*Env, []value.Value) (value.Value, error) {
	return func(_ *Env, a []value.Value) (value.Value, error) {
		if len(a[0].Text()) > MaxStringBytes {
			return value.Value{}, errLong
		}
		return value.OfString(f(a[0].Text())), nil
	}
}

// onFloat leaves ints as they are.
func onFloat(f func(float64) float64) func(*Env, []value.Value) (value.Value, error) {
	return func(_ *Env, a []value.Value) (value.Value, error) {
		if a[0].Kind() == value.Int {
			return a[0], nil
		}
		return value.OfFloat(f(a[0].Float())), nil
	}
}

func absolute(_ *Env, a []value.Value) (value.Value, error) {
	switch {
	case a[0].Kind() == value.Float:
		return value.OfFloat(math.Abs(a[0].Float())), nil
	case a[0].Int() == math.MinInt64:
		return value.Value{}, errIntRange
	case a[0].Int() < 0:
		return value.OfInt(-a[0].Int()), nil
	}
	return a[0], nil
}

// extreme gives the argument that compares with the others as sign; of equal ones the first.
func extreme(sign int) func(*Env, []value.Value) (value.Value, error) {
	return func(_ *Env, a []value.Value) (value.Value, error) {
		best := a[0]
		for _, v := range a[1:] {
			if c, _ := value.Compare(v, best); c == sign {
				best = v
			}
		}
		return best, nil
	}
}

func split(e *Env, a []value.Value) (value.Value, error) {
	s, sep := a[0].Text(), a[1].Text()
	if sep == "" {
		return value.Value{}, errors.New("the separator is empty")
	}
	n := strings.Count(s, sep) + 1
	if n > MaxListLen {
		return value.Value{}, errMany
	}
	vals := e.Arena.Values(n)
	for i := range vals {
		var part string
		part, s, _ = strings.Cut(s, sep)
		vals[i] = value.OfString(part)
	}
	return value.OfList(vals), nil
}

func join(e *Env, a []value.Value) (value.Value, error) {
	var b []byte
	var err error
	first, sep := true, a[1].Text()
	a[0].Elems(e.Arena, func(v value.Value) bool {
		switch {
		case v.Kind() != value.String:
			err = fmt.Errorf("the list holds %s, not only strings", v.Kind())
		case len(b)+len(sep)+len(v.Text()) > MaxStringBytes:
			err = errLong
		default:
			if !first {
				b = append(b, sep...)
			}
			first = false
			b = append(b, v.Text()...)
		}
		return err == nil
	})
	return value.OfBytes(b), err
}

func unixMs(_ *Env, a []value.Value) (value.Value, error) {
	if a[0].Kind() == value.Time {
		return value.OfInt(a[0].Int()), nil
	}
	ms, err := value.ParseTime(a[0].Text())
	if err != nil {
		return value.Value{}, fmt.Errorf("%s is %w", quoted(a[0].Text()), err)
	}
	return value.OfInt(ms), nil
}

func timestamp(_ *Env, a []value.Value) (value.Value, error) {
	switch a[0].Kind() {
	case value.Time:
		return a[0], nil
	case value.Int:
		if _, err := value.AppendTime(nil, a[0].Int()); err != nil {
			return value.Value{}, err
		}
		return value.OfTime(a[0].Int()), nil
	}
	ms, err := value.ParseTime(a[0].Text())
	if err != nil {
		return value.Value{}, fmt.Errorf("%s is %w", quoted(a[0].Text()), err)
	}
	return value.OfTime(ms), nil
}
