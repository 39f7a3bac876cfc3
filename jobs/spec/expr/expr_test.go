package expr

import (
	"fmt"
	"strings"
	"testing"

	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/jobs/spec/value"
)

const sample = `{"device":"device-004217","kind":"temperature","ts":1767225600123,"reading":42.731,"seq":918273,"site":"plant-3",` +
	`"line":17,"fw":"2.14.7","battery":87.5,"lat":52.52001,"lon":13.40495,"tags":["floor-2","hall-b"],"status":"ok","note":"über limits"}`

var keyed = Scope{Value: Any, Key: Any}

func record(t testing.TB, p *Program, in string) *Env {
	t.Helper()
	row, err := value.NewDecoder(p.Paths).Decode([]byte(in), nil)
	if err != nil {
		t.Fatal(err)
	}
	return &Env{Arena: &value.Arena{}, Rec: &jobs.Rec[Row]{
		Value: row, Time: 1767225600123, Key: jobs.MakeKey([]byte(`"k1"`)), Headers: []jobs.Header{{Name: "h", Value: []byte("v")}},
		Origin: jobs.Origin{Split: &jobs.Split{ID: "t-3", Topic: "t", Partition: 3}, Offset: 77}}}
}

func mustCompile(t testing.TB, src string) *Program {
	t.Helper()
	p, problems := Compile(src, keyed)
	if problems != nil {
		t.Fatalf("%s: %v", src, problems)
	}
	return p
}

func TestValues(t *testing.T) {
	tests := []struct{ src, want string }{
		{`value.kind == "temperature" && value.reading >= 5`, `true`},
		{`"temperature" == value.kind`, `true`},
		{`value.reading > 42 and value.reading < 43`, `true`},
		{`40 < value.reading <= 43`, `true`},
		{`not (value.line == 17.0)`, `false`},
		{`value.line != 17 || value.missing == nil`, `true`},
		{`value.missing != nil`, `false`},
		{`value.missing == 0`, `false`},
		{`value.missing ?? "d"`, `"d"`},
		{`value.kind ?? "d"`, `"temperature"`},
		{`value.line > 10 ? "big" : "small"`, `"big"`},
		{`value?.a?.b`, `null`},
		{`value.a.b.c`, `null`},
		{`value.kind.x`, `null`},
		{`value["device"]`, `"device-004217"`},
		{`value.tags[0] + "/" + value.tags[-1]`, `"floor-2/hall-b"`},
		{`value.tags[7]`, `null`},
		{`value.tags[1:]`, `["hall-b"]`},
		{`"hall-b" in value.tags`, `true`},
		{`"x" not in value.tags`, `true`},
		{`value.kind in ["humidity", "temperature"]`, `true`},
		{`value.line in [1, 17.0]`, `true`},
		{`"kind" in value`, `true`},
		{`value.device contains "0042"`, `true`},
		{`value.device startsWith "dev" and not (value.device endsWith "x")`, `true`},
		{`value.device matches "^device-[0-9]+$"`, `true`},
		{`value.line + 1`, `18`}, {`value.line * 2 - 4`, `30`}, {`value.line / 2`, `8.5`}, {`value.line % 5`, `2`},
		{`-value.line`, `-17`}, {`value.battery + value.line`, `104.5`}, {`4 / 2`, `2.0`}, {`1 + 2 * 3`, `7`},
		{`value.note[0:4]`, `"über"`}, {`len(value.note)`, `11`}, {`len(value.tags)`, `2`}, {`upper(value.note[:4])`, `"ÜBER"`},
		{`key`, `"k1"`}, {`time`, `"2026-01-01T00:00:00.123Z"`}, {`unix_ms(time) % 1000`, `123`},
		{`timestamp(value.ts) == time`, `true`}, {`time > timestamp("2025-01-01T00:00:00Z")`, `true`},
		{`{"t": time, "l": [time]}`, `{"t":"2026-01-01T00:00:00.123Z","l":["2026-01-01T00:00:00.123Z"]}`},
		{`headers.h`, `"v"`}, {`headers["none"]`, `null`}, {`source.topic + ":" + string(source.partition)`, `"t:3"`}, {`source.offset`, `77`},
		{`float("1.5")`, `1.5`}, {`float(value.line)`, `17.0`}, {`int("12") + int(3.9)`, `15`}, {`string(value.tags)`, `"[\"floor-2\",\"hall-b\"]"`},
		{`bool("true")`, `true`}, {`abs(-3)`, `3`}, {`min(3, 1.5, 2)`, `1.5`}, {`max(1, value.line)`, `17`},
		{`round(2.5)`, `3.0`}, {`floor(-2.5)`, `-3.0`}, {`ceil(2)`, `2`}, {`split("a,b", ",")`, `["a","b"]`}, {`join(value.tags, "+")`, `"floor-2+hall-b"`},
		{`trim(" a ") + lower("B")`, `"ab"`},
		{`{"device": key, "why": "hot", "level": value.reading}`, `{"device":"k1","why":"hot","level":42.731}`},
		{`{"a": {"b": 2}}.a.b`, `2`}, {`[1, "x", nil]`, `[1,"x",null]`}, {`if value.line > 1 { 1 } else { 2 }`, `1`},
		{`value.reading > 5.0 == true`, `true`}, {`[1] == [1.0]`, `true`}, {`{"a":1,"b":2} == {"b":2,"a":1}`, `true`},
		{`9007199254740993 > 9007199254740992`, `true`}, {`value.seq > -1e300`, `true`},
		{`"a" < "b"`, `true`}, {`value`, sample},
	}
	for _, tt := range tests {
		t.Run(tt.src, func(t *testing.T) {
			p := mustCompile(t, tt.src)
			f := p.New()
			for range 2 {
				v, err := f.Value(record(t, p, sample))
				if err != nil {
					t.Fatal(err)
				}
				if got, _ := value.AppendJSON(nil, v); string(got) != tt.want {
					t.Errorf("= %s, want %s", got, tt.want)
				}
			}
		})
	}
}

// TestNullIsSaid: a field that is there, and null, is told from one that is not.
func TestNullIsSaid(t *testing.T) {
	p := mustCompile(t, `value.reading > 5`)
	_, err := p.New().Value(record(t, p, `{"reading":null,"other":1}`))
	if want := "nil and an int cannot be ordered: value.reading is null, at 15 of value.reading > 5"; err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
}

func TestRecordErrors(t *testing.T) {
	tests := []struct{ src, want string }{
		{`value.missing > 5`, `nil and an int cannot be ordered: there is no value.missing, at 15 of value.missing > 5`},
		{`90 > value.readng`, `an int and nil cannot be ordered: there is no value.readng (did you mean reading?), at 4 of 90 > value.readng`},
		{`value.reading.deep > 5`, `nil and an int cannot be ordered: value.reading.deep is nil, as value.reading is no object, at 20 of value.reading.deep > 5`},
		{`value.missing + 1`, `+ does not go with nil and an int: there is no value.missing, at 15 of value.missing + 1`},
		{`value.kind > 5`, `a string and an int cannot be ordered, at 12 of value.kind > 5`},
		{`value.kind && true`, `want a bool, not a string, at 7 of value.kind && true`},
		{`not value.missing`, `want a bool, not nil: there is no value.missing, at 11 of not value.missing`},
		{`value.line / 0`, `division by zero, at 12 of value.line / 0`},
		{`value.line % 0`, `division by zero, at 12 of value.line % 0`},
		{`value.seq * 9223372036854775807`, `the result does not fit an int: write float(x), at 11 of value.seq * 9223372036854775807`},
		{`value.reading * 1e308`, `the result does not fit a float, at 15 of value.reading * 1e308`},
		{`float(value.status)`, `float: "ok" is not a number, at 1 of float(value.status)`},
		{`float(value.missing)`, `float takes a number or a string, not nil: there is no value.missing, at 1 of float(value.missing)`},
		{`int(1e300 * value.line)`, `int: the number does not fit an int, at 1 of int(1e300 * value.line)`},
		{`value.device matches value.x ? 1 : 2`, ``},
		{`value.line startsWith "x"`, `startsWith takes strings, not an int and a string, at 12 of value.line startsWith "x"`},
		{`value.line in value.kind`, `an int in a string cannot be, at 12 of value.line in value.kind`},
		{`unix_ms(value.kind)`, `unix_ms: "temperature" is not an RFC 3339 time, at 1 of unix_ms(value.kind)`},
		{`join([value.line], ",")`, `join: the list holds an int, not only strings, at 1 of join([value.line], ",")`},
		{`value.tags["x"]`, ``},
	}
	for _, tt := range tests {
		p, problems := Compile(tt.src, keyed)
		if problems != nil {
			if tt.want != "" {
				t.Errorf("%s: %v", tt.src, problems)
			}
			continue
		}
		_, err := p.New().Value(record(t, p, sample))
		if tt.want != "" && (err == nil || err.Error() != tt.want) {
			t.Errorf("%s: %v, want %s", tt.src, err, tt.want)
		}
	}
}

func TestProblems(t *testing.T) {
	afterMap := Scope{Value: ObjectOf(map[string]Type{"device": String, "level": kinds(KNumber)})}
	tests := []struct {
		src   string
		scope Scope
		want  string
	}{
		{``, keyed, `0: the expression is empty`},
		{`value.`, keyed, `6: the expression ends too early`},
		{`value.a = 1`, keyed, `8: unexpected = (== compares)`},
		{`valeu.a > 1`, keyed, `0: there is no valeu (did you mean value?)`},
		{`kind == 1`, keyed, `0: there is no kind (a field of the record is value.kind)`},
		{`key`, Scope{Value: Any}, `0: there is no key here (put a key_by step before this one)`},
		{`"a" > 1`, keyed, `4: a string and an int cannot be ordered (convert one of them: string(x), float(x))`},
		{`"1" == 1`, keyed, `4: a string is never equal to an int (convert one of them: string(x), float(x))`},
		{`time == "2026"`, keyed, `5: nil or a time is never equal to a string (compare a time with timestamp(x), or unix_ms(time) with a number)`},
		{`time + 1`, keyed, `5: + does not go with nil or a time and an int (unix_ms(time) is a number)`},
		{`"a" + 1`, keyed, `4: + does not go with a string and an int (convert one of them: string(x), float(x))`},
		{`"a" && true`, keyed, `0: && takes bools, this is a string`},
		{`1 / 0`, keyed, `2: division by zero`},
		{`flaot("1")`, keyed, `0: there is no function flaot (did you mean float?)`},
		{`float()`, keyed, `0: float takes 1 argument, not 0`},
		{`len(3)`, keyed, `4: len takes a string, a list or an object, this is an int`},
		{`any(value.tags, # == "x")`, keyed, `0: any is not in the language (an expression does not run over a list; x in list looks into one)`},
		{`filter(value.tags, .x)`, keyed, `0: filter is not in the language (an expression does not run over a list; x in list looks into one)`},
		{`reduce(1..9, #acc + #)`, keyed, `8: .. is not in the language (write the list out)`},
		{`sum(value.x)`, keyed, `0: sum is an aggregate (it stands in a window's aggregate)`},
		{`count()`, keyed, `0: count is an aggregate (it stands in a window's aggregate)`},
		{`let x = 1; x`, keyed, `0: let is not in the language (an expression has no variables; a map or set step before this one can name a value) 9: ; is not in the language (an expression is one value)`},
		{`value.a | upper()`, keyed, `8: | is not in the language (write f(x) for x | f())`},
		{`2 ** 3`, keyed, `2: ** is not in the language (multiply)`},
		{`b"x" == 1`, keyed, `0: byte strings are not in the language (write a string)`},
		{`value.x.upper()`, keyed, `8: values have no methods`},
		{`value.a matches value.b`, keyed, `22: the pattern of matches is a constant string`},
		{`value.a matches "("`, keyed, "16: the pattern is wrong: missing closing ): `(`"},
		{`value.a contains 3`, keyed, `17: contains takes strings, this is an int`},
		{`[1] contains 1`, keyed, `0: contains takes strings, this is a list (write x in list)`},
		{`source`, keyed, `0: source is not a value by itself (write source.topic, source.partition or source.offset)`},
		{`source.ofset`, keyed, `7: source has no ofset (did you mean offset?)`},
		{`value.devise == "x"`, afterMap, `6: there is no field devise (did you mean device?)`},
		{`value.device > 3 && value.nope`, afterMap, `13: a string and an int cannot be ordered (convert one of them: string(x), float(x)) 26: there is no field nope (known are device, level)`},
		{`value.device.x`, afterMap, `13: a string has no fields`},
		{`value.x`, Scope{Value: String}, `6: a string has no fields`},
		{`{"a": 1, "a": 2}`, keyed, `9: there are two fields a`},
		{`{(value.x): 1}`, keyed, `8: the name of a field is a constant`},
		{`"abc`, keyed, `4: the string is not closed`},
		{`é.x`, keyed, `0: there is no é (a field of the record is value.é)`},
		{`"é" + x`, keyed, `7: there is no x (a field of the record is value.x)`},
		{strings.Repeat("(", 40) + "1" + strings.Repeat(")", 40), keyed, ``},
		{strings.Repeat("-(", 40) + "1" + strings.Repeat(")", 40), keyed, `64: the expression is nested deeper than 32 (name parts of it in a map or set step before)`},
		{strings.Repeat("x", 5000), keyed, `4096: the expression is longer than 4096 bytes`},
		{"[" + strings.Repeat("1,", 300) + "1]", keyed, `0: the list has more than 256 elements`},
		{`value.x[true]`, keyed, `8: an element is named by an int or a string, not a bool`},
	}
	for _, tt := range tests {
		_, problems := Compile(tt.src, tt.scope)
		var got []string
		for _, p := range problems {
			got = append(got, fmt.Sprintf("%d: %s", p.Pos, p))
		}
		if s := strings.Join(got, " "); s != tt.want {
			t.Errorf("%.60s\n got %s\nwant %s", tt.src, s, tt.want)
		}
	}
}

func TestAggregates(t *testing.T) {
	for src, want := range map[string]string{
		`count()`: "count ", `sum(value.a)`: "sum value.a", `mean(value.a * 2)`: "mean value.a", `max(float(value.a))`: "max value.a", `distinct(value.k)`: "distinct value.k",
	} {
		a, problems := CompileAggregate(src, keyed)
		if problems != nil {
			t.Errorf("%s: %v", src, problems)
			continue
		}
		got := a.Func + " "
		if a.Arg != nil {
			got += "value." + strings.Join(a.Arg.Paths[0], ".")
		}
		if got != want {
			t.Errorf("%s is %s, want %s", src, got, want)
		}
	}
	for src, want := range map[string]string{
		`value.a`:        `this is not an aggregate (` + aggregateHint + `)`,
		`avg(value.a)`:   `avg is not an aggregate (known are count, sum, mean, min, max, distinct)`,
		`meen(value.a)`:  `meen is not an aggregate (did you mean mean?)`,
		`count(1)`:       `count takes no argument (records are counted: filter before the window to count fewer)`,
		`sum()`:          `sum takes 1 argument, not 0`,
		`sum("x")`:       `sum takes a number, this is a string`,
		`sum(value.)`:    `a name is missing`,
		`float(value.a)`: `float is not an aggregate (put it inside one: sum(float(x)))`,
	} {
		_, problems := CompileAggregate(src, keyed)
		if len(problems) == 0 || problems[0].String() != want {
			t.Errorf("%s: %v, want %s", src, problems, want)
		}
	}
}

func TestPaths(t *testing.T) {
	for src, want := range map[string]string{
		`value.a.b > 1 && value.c["d"] == nil`: `[[a b] [c d]] false`, `value.l[0].x`: `[[l]] false`, `value`: `[] true`,
		`"x" in value`: `[] true`, `value[key]`: `[] true`, `time`: `[] false`,
	} {
		p := mustCompile(t, src)
		if got := fmt.Sprint(p.Paths, p.Whole); got != want {
			t.Errorf("%s reads %s, want %s", src, got, want)
		}
	}
}

// A site that meets rows of several shapes gives the field of each.
func TestShapes(t *testing.T) {
	p := mustCompile(t, `value.a + value.b`)
	f := p.New()
	over := []string{"b"}
	dyn, err := value.Parse([]byte(`{"b":2,"a":1}`), nil)
	if err != nil {
		t.Fatal(err)
	}
	dec, _ := value.NewDecoder(p.Paths).Decode([]byte(`{"a":1,"b":2}`), nil)
	none, _ := value.NewDecoder(nil).Decode([]byte(`{"a":1,"b":2}`), nil)
	set, _ := dec.Set(dec.Shape().Over(over), over, []value.Value{value.OfInt(2)}, nil)
	rows := []Row{dec, none, set, value.OfValue(dyn, nil), value.OfFields(value.NewObjectShape([]string{"b", "a"}), []value.Value{value.OfInt(2), value.OfInt(1)})}
	for i := range 3 * len(rows) {
		v, err := f.Value(&Env{Rec: &jobs.Rec[Row]{Value: rows[i%len(rows)]}})
		if err != nil || v.Int() != 3 {
			t.Errorf("row %d: %d, %v", i%len(rows), v.Int(), err)
		}
	}
}

func TestFilterDoesNotAllocate(t *testing.T) {
	for _, src := range []string{`value.kind == "temperature" && value.reading >= 5`, `value.device matches "^dev" or value.line in [1,2]`,
		`value.reading * 2 > 90 && value.missing == nil`, `key == "k1" && len(value.note) > 3`} {
		p := mustCompile(t, src)
		f, e := p.New(), record(t, p, sample)
		if n := testing.AllocsPerRun(200, func() {
			if _, err := f.Bool(e); err != nil {
				t.Fatal(err)
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations", src, n)
		}
	}
}

func TestFunctionsAreDocumented(t *testing.T) {
	for _, f := range Functions() {
		if f.Doc == "" || f.SQL == "" {
			t.Errorf("%s is not described", f.Name)
		}
	}
}

func FuzzCompile(f *testing.F) {
	for _, s := range []string{`value.kind == "a" && value.x >= 5`, `{"a": [1, value.b ?? nil]}`, `split(value.s, ",")[1:2]`, `value?.a["b"][0]`, `1..9`, "if true { 1 } else { 2 }"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, src string) {
		p, problems := Compile(src, keyed)
		for _, pr := range problems {
			if pr.Pos < 0 || pr.Pos > len(src) || pr.Msg == "" {
				t.Fatalf("%q: problem %+v", src, pr)
			}
		}
		if p == nil {
			return
		}
		v, err := p.New().Value(record(t, p, sample))
		if err != nil {
			return
		}
		if kindOf(v)&p.Type.Kinds == 0 {
			t.Fatalf("%q gives %s, its type is %s", src, v.Kind(), p.Type.Kinds)
		}
		if _, err := value.AppendJSON(nil, v); err != nil {
			t.Fatalf("%q gives a value that cannot be written: %v", src, err)
		}
	})
}

func BenchmarkFilter(b *testing.B) {
	for _, bb := range []struct{ name, src string }{
		{"kind_and_reading", `value.kind == "temperature" && value.reading >= 5`},
		{"one_comparison", `value.reading > 80`},
		{"matches", `value.device matches "^device-[0-9]+$"`},
	} {
		b.Run(bb.name, func(b *testing.B) {
			p := mustCompile(b, bb.src)
			f, e := p.New(), record(b, p, sample)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := f.Bool(e); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
