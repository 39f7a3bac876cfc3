package spec

import (
	"fmt"
	"strings"
	"testing"
	"time"

	bare "github.com/expr-lang/expr"

	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/jobs/jobstest"
	"github.com/sidestream-dev/sidestream/jobs/spec/value"
)

// recordLimits hold one record with a hostile expression, and are passed by the same expression with bare expr-lang/expr.
var recordLimits = limits{bytes: 640 << 20, cpu: 3 * time.Second}

// hostile is an attack on an expression's time or memory.
type hostile struct {
	name  string
	steps string // of a job; the record is record below
	want  string // in what the checker or the record's error says; "=" if the step just gives its result
	bare  string // the same in expr-lang/expr; "" where that has no such thing, or bounds it
}

const deepParens = 5_000_000

func hostiles() []hostile {
	step := func(kind, src string) string {
		return "  - " + kind + ": '" + strings.ReplaceAll(src, "'", "''") + "'\n"
	}
	filter := func(src string) string { return "  - filter: {if: '" + strings.ReplaceAll(src, "'", "''") + "'}\n" }
	times := func(n int, s, sep string) string { return strings.TrimSuffix(strings.Repeat(s+sep, n), sep) }
	nest := "true"
	for range 5 {
		nest = "all(value.l, " + nest + ")"
	}
	double := "let a0 = value.s + value.s; "
	for i := range 16 {
		double += fmt.Sprintf("let a%d = a%d + a%d; ", i+1, i, i)
	}
	regex := "(?:(?:(?:x|x?){30}){30}){1}y"
	return []hostile{
		{"reduce that doubles", step("map", `reduce(1..40, #acc + #acc, "x")`), ".. is not in the language", `reduce(1..40, #acc + #acc, "x")`},
		{"reduce over the record", step("map", `reduce(value.l, #acc + #acc, value.s)`), "reduce is not in the language", `reduce(value.l, #acc + #acc, value.s)`},
		{"nested predicates", filter(nest), "all is not in the language", nest},
		{"variables that double", step("map", double+"len(a16)"), "is not in the language", double + "len(a16)"},
		{"repeat", step("map", `repeat(value.s, 900000)`), "repeat is not in the language", `repeat(value.s, 900000)`},
		{"join of large strings", step("map", `join(map(1..9000, value.s), "")`), "is not in the language", `join(map(1..9000, value.s), "")`},
		{"join of a large list of large strings", step("map", "join(["+times(250, "value.s", ", ")+`], "")`), "a value larger than 16 MiB", ""},
		{"join of a list of large strings", step("map", "join(["+times(12, "value.s", ", ")+`], "")`), "join: a string longer than", ""},
		{"a large sum", step("map", times(20, "value.s", " + ")), "a string longer than 1048576 bytes", ""},
		{"a long sum", step("map", times(200, "value.s", " + ")), "deeper than 32", ""},
		{"many sums, none too long", step("map", "["+times(200, `(value.s + "")`, ", ")+"]"), "would go through more than 64 MiB", ""},
		{"cases of a large string", step("map", "["+times(250, `upper(value.s)`, ", ")+"]"), "would go through more than 64 MiB", ""},
		{"the text of large values", step("map", "["+times(200, `string(value.l)`, ", ")+"]"), "would go through more than 64 MiB", ""},
		{"large values compared", step("map", "["+times(120, "value.o == value.p", ", ")+"]"), "would go through more than 64 MiB", ""},
		{"a large value in a list of values", filter("value.o in value.pairs"), "would go through more than 64 MiB", ""},
		{"a search in large strings", step("map", "["+times(120, `value.s contains "no"`, ", ")+"]"), "would go through more than 64 MiB", ""},
		{"a pattern that repeats", filter(`value.s matches "` + regex + `"`), "its repetitions come to more than 2000 steps", `value.big matches "` + regex + `"`},
		{"a pattern that only just may", filter(`value.s matches "(?:(?:x|x?){30}){12}y"`), "would go through more than 64 MiB", ""},
		{"the same on a text that only just may", filter(`value.t matches "(?:(?:x|x?){30}){12}y"`), "=", ""},
		{"a pattern of large classes", filter(`value.s matches "` + times(50, `\\pL{1000}`, "") + `"`), "its repetitions come to", ""},
		{"deep brackets", step("map", strings.Repeat("(", 5000)+"1"+strings.Repeat(")", 5000)), "is longer than 4096 bytes", "deep"},
		{"brackets as deep as fit", step("map", strings.Repeat("(", 2000)+"1"+strings.Repeat(")", 2000)), "=", ""},
		{"many signs", step("map", strings.Repeat("-", 4000)+"1"), "more than 1024 parts", ""},
		{"deep signs", step("map", strings.Repeat("-", 1000)+"1"), "deeper than 32", ""},
		{"deep lists", step("map", strings.Repeat("[", 1000)+strings.Repeat("]", 1000)), "deeper than 32", ""},
		{"a giant range", filter("1 in 1..1000000000"), ".. is not in the language", ""},
		{"a giant slice", step("map", "value.l[0:9223372036854775807]"), "=", ""},
		{"a giant index", step("map", "value.l[9223372036854775807]"), "=", ""},
		{"a giant number", step("map", strings.Repeat("9", 4000)), "the number does not fit an int", ""},
		{"a giant power", step("map", "9 ** 9 ** 9 ** 9"), "** is not in the language", ""},
		{"a giant exponent", step("map", `float("1e999999999")`), "is not a number", ""},
		{"a duration", step("map", `duration("99999999h")`), "there is no function duration", ""},
		{"a date in any layout", step("map", `date("x", "2006")`), "there is no function date", ""},
		{"a time beyond the calendar", step("map", "timestamp(9223372036854775807)"), "the time lies outside years 1 to 9999", ""},
		{"a time of a large text", step("map", "unix_ms(value.s)"), "is not an RFC 3339 time", ""},
		{"an int that overflows", step("map", "9223372036854775807 + value.one"), "does not fit", ""},
		{"a list of lists of lists", step("map", "["+times(250, "["+times(8, "value.s", ", ")+"]", ", ")[:3900]+"]"), "more than 1024 parts", ""},
		{"values that hold the record many times", step("map", "["+times(200, "value.l", ", ")+"]"), "a value larger than 16 MiB", ""},
		{"steps that double", times(40, step("map", `{"a": value, "b": value}`), ""), "larger than 16 MiB", "dag"},
		{"steps that double fields", times(40, "  - map: {a: value, b: value}\n", ""), "larger than 16 MiB", ""},
		{"steps that set the record in itself", times(40, "  - set: {a: value, b: value}\n", ""), "larger than 16 MiB", ""},
		{"steps that double a key", times(40, "  - map: {a: value, b: value}\n", "") + "  - key_by: value\n", "larger than 16 MiB", ""},
		{"steps that double what is known", "  - map: {a: value.one}\n" + times(200, "  - map: {a: value, b: value}\n", "") + "  - key_by: value\n  - map: {k: key}\n", "larger than 16 MiB", ""},
	}
}

// record is what hostile expressions are tried on: strings and lists as large as a record may have.
func record() string {
	l := strings.TrimSuffix(strings.Repeat("1,", 200_000), ",")
	obj := func(last string) string {
		var b strings.Builder
		b.WriteByte('{')
		for i := range 20_000 {
			fmt.Fprintf(&b, `"name-%d":%d,`, i, i)
		}
		return b.String() + `"last":` + last + `}`
	}
	pairs := strings.TrimSuffix(strings.Repeat(`{"a":1},`, 2000), ",")
	return fmt.Sprintf(`{"one":1,"s":%q,"t":%q,"l":[%s],"o":%s,"p":%s,"pairs":[%s]}`,
		strings.Repeat("x", 1<<20-1), strings.Repeat("x", 32<<10), l, obj("1"), obj("1"), pairs)
}

func hostileNamed(name string) hostile {
	for _, h := range hostiles() {
		if h.name == name {
			return h
		}
	}
	panic("no such case: " + name)
}

func init() {
	children["ours"] = func(t *testing.T, name string) string {
		src := small(okSource, "steps:\n"+hostileNamed(name).steps+"outputs: {main: {stdout: {}}}\n")
		js, problems := LoadBytes(testConfig(), "f", []byte(src))
		if problems != nil {
			return "refused: " + problems[0].Msg
		}
		h := jobstest.New(t, js[0])
		h.Feed("", jobs.Message{Value: []byte(record()), Time: jobs.NoTime})
		if h.Err != nil {
			return "the record's error: " + h.Err.Error()
		}
		return "="
	}
	children["bare"] = func(t *testing.T, name string) string {
		src := hostileNamed(name).bare
		switch src {
		case "deep":
			src = strings.Repeat("(", deepParens) + "1" + strings.Repeat(")", deepParens)
		case "dag": // the steps' doubling, without a look at its weight
			v := value.OfString("x")
			for range 40 {
				v = value.OfObject([]string{"a", "b"}, []value.Value{v, v})
			}
			b, err := value.AppendJSON(nil, v)
			return fmt.Sprint(len(b), err)
		}
		l := make([]int, 1000)
		env := map[string]any{"value": map[string]any{"l": l, "s": strings.Repeat("x", 1<<20), "big": strings.Repeat("x", 64<<20)}}
		p, err := bare.Compile(src, bare.Env(env))
		if err != nil {
			return "refused: " + err.Error()
		}
		_, err = bare.Run(p, env)
		return fmt.Sprintf("ended: %v", err)
	}
}

// TestHostileExpressions: each attack is refused by the checker, or bounded for each record. Its twin shows that bare
// expr-lang/expr would have fallen to it.
func TestHostileExpressions(t *testing.T) {
	for _, h := range hostiles() {
		t.Run(h.name, func(t *testing.T) {
			o := confined(t, "ours", h.name, recordLimits)
			if o.over != "" || o.failed != "" || !strings.Contains(o.out, h.want) {
				t.Errorf("took too much %s (%d MiB, %v of CPU); %s; got %q, want %q", o.over, o.bytes>>20, o.cpu, o.failed, o.out, h.want)
			}
			t.Logf("%d MiB, %v: %.150s", o.bytes>>20, o.cpu, o.out)
		})
		if h.bare == "" {
			continue
		}
		t.Run(h.name+", bare", func(t *testing.T) {
			o := confined(t, "bare", h.name, recordLimits)
			if o.over == "" && o.failed == "" {
				t.Errorf("the twin holds: %q with %d MiB in %v; the case shows nothing", o.out, o.bytes>>20, o.cpu)
			}
			t.Logf("over %q, %d MiB, %v, %.200s", o.over, o.bytes>>20, o.cpu, o.failed)
		})
	}
}
