package spec

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/jobs/connector/all"
)

func testConfig() Config {
	return Config{Connectors: all.Registry(), AllowEnv: []string{"NOPE", "TOPIC", "N", "D", "FORMAT", "KAFKA_*"}, Env: func(name string) (string, bool) {
		if name == "TOPIC" {
			return "from-env", true
		}
		return "", false
	}}
}

func mustLoad(t testing.TB, src string) *jobs.Job {
	t.Helper()
	js, problems := LoadBytes(testConfig(), "job.yaml", []byte(src))
	for _, p := range problems {
		t.Errorf("%v", p)
	}
	if len(js) != 1 {
		t.Fatalf("%d jobs", len(js))
	}
	return js[0]
}

func TestTheSampleLoads(t *testing.T) {
	js, problems := Load(testConfig(), "testdata/temperature.yaml")
	if problems != nil {
		t.Fatalf("%v", problems)
	}
	j := js[0]
	src, err := os.ReadFile("testdata/temperature.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if string(j.Definition) != string(src) {
		t.Errorf("definition is\n%s", j.Definition)
	}
	var got []string
	for _, n := range j.Nodes {
		s := n.ID + " " + n.Kind
		for _, e := range n.In {
			s += fmt.Sprintf(" %s.%d/%d", e.From.ID, e.Port, e.Mode)
		}
		got = append(got, s)
	}
	want := []string{"kafka-1 kafka", "filter-1 filter kafka-1.0/0", "key_by-1 key_by filter-1.0/0", "side-1 side key_by-1.0/0",
		"window-1 window side-1.0/1", "out-main kafka-out window-1.0/0", "out-signals bus-out side-1.1/0", "out-late bus-out window-1.1/0", "out-dead bus-out"}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("graph is\n%s", strings.Join(got, "\n"))
	}
	if j.Parallelism != 2 || len(j.Topics) != 1 || j.Topics[0] != (jobs.Topic{Name: "late-readings", RetentionAge: 6 * time.Hour}) {
		t.Errorf("parallelism %d, topics %+v", j.Parallelism, j.Topics)
	}
	s := j.Nodes[0].Source
	if s.OutOfOrderness != 5*time.Second || s.IdleAfter != 30*time.Second || s.OnError != (jobs.OnError{Policy: jobs.ErrorTo, To: "dead"}) {
		t.Errorf("source %+v", s)
	}
}

// small returns a job that is right but for what the test puts in.
func small(source, rest string) string {
	return "version: 1\njob: j\nsource:\n" + source + rest
}

const okSource = "  kafka: {topics: [t], brokers: [embedded]}\n"

func TestProblems(t *testing.T) {
	main := "outputs: {main: {stdout: {}}}\n"
	steps := func(s string) string { return small(okSource, "steps:\n"+s+main) }
	tests := []struct{ name, src, want string }{
		{"empty file", "", `f: there is no job in it`},
		{"not YAML", "version: 1\njob: [a\n", `f:3:1: not YAML: did not find expected ',' or ']'`},
		{"a tab", "version: 1\n\tjob: a\n", `f:2:1: not YAML: found a tab character that violates indentation | YAML is indented with spaces, not with tabs`},
		{"no block", "- 1\n", `f:1:1: a job: want fields, not a list`},
		{"nothing there", "version: 1\n", `f:1:1: a job needs job | The job's name.
f:1:1: a job needs source | Where records come from.
f:1:1: a job needs outputs | Where they go, by name; main takes what the last step emits.`},
		{"another version", "version: 2\njob: j\nsource:\n" + okSource + main, `f:1:10: version: want 1, not "2"`},
		{"a bad name", "version: 1\njob: a b\nsource:\n" + okSource + main, `f:2:6: job: name "a b": want 1 to 128 letters, digits, '.', '_' or '-', beginning with a letter or digit`},
		{"unknown field", small(okSource, "step: []\n"+main), `f:5:1: a job has no field step | did you mean steps?`},
		{"twice", small(okSource, "job: k\n"+main), `f:5:1: job is given twice (f:2:1: the first is here)`},
		{"alias", small("  kafka: &a {topics: [t]}\n", main), `f:4:10: anchors and aliases are not allowed | write the value out`},
		{"tag", small(okSource, "delivery: !!str at_least_once\n"+main), `f:5:11: tags are not allowed | leave the tag out`},
		{"unknown source", small("  kafak: {topics: [t]}\n", main), `f:4:3: source has no field kafak | did you mean kafka?`},
		{"no source named", small("  decode: json\n", main), `f:4:3: source: it does not say where records come from | name one of bus, kafka, file, generator`},
		{"two sources", small(okSource+"  bus: t\n", main), `f:5:3: source: it names both kafka and bus | another job can read the other and give to this one over the bus`},
		{"kafka in short", small("  kafka: t\n", main), `f:4:10: source.kafka: want settings, not "t" | write {topics: t}`},
		{"unknown setting", small("  kafka: {topic: t}\n", main), `f:4:11: source.kafka has no field topic | did you mean topics?`},
		{"setting missing", small("  kafka: {start: earliest, brokers: [embedded]}\n", main), `f:4:10: source.kafka.topics: is required`},
		{"setting wrong", small("  file: {path: x, format: xml}\n", main), `f:4:27: source.file.format: "xml" is not one of jsonl, csv, lines`},
		{"decode of a bus source", small("  bus: t\n  decode: json\n", main), `f:5:11: decode: of a bus source it is text, which takes records that are no JSON, such as dead letters, or left out, not "json" | remove decode`},
		{"a field of a text on the bus", small("  bus: t\n  decode: text\n", "steps: [{filter: {if: value.a > 1}}]\n"+main), `f:6:29: a string has no fields`},
		{"bus start", small("  bus: {topic: t, start: now}\n", main), `f:4:26: start: want earliest, latest or an offset, not "now"`},
		{"decode against format", small("  file: {path: x, format: lines}\n  decode: json\n", main), `f:5:11: decode: the source's format makes its records text already | remove decode`},
		{"decode unknown", small(okSource+"  decode: jsno\n", main), `f:5:11: decode: "jsno" is not one of json, text | did you mean json?`},
		{"on_error", small(okSource+"  on_error: ignore\n", main), `f:5:13: on_error: want fail, skip or {to: OUTPUT}, not "ignore"`},
		{"on_error to nowhere", small(okSource+"  on_error: {to: daed}\n", "outputs: {main: {stdout: {}}, dead: {bus: d}}\n"), `f:5:18: on_error: there is no output daed | did you mean dead?
f:6:31: nothing is written to the output dead | write to it with side, late_to or on_error, or remove it`},
		{"event_time", small(okSource+"  event_time: {unit: h}\n", main), `f:5:15: event_time needs from | When the record happened: a number, or RFC 3339 text.
f:5:22: unit: "h" is not one of s, ms, us, ns | did you mean s?`},
		{"duration", small(okSource+"  event_time: {from: value.ts, idle_after: 30}\n", main), `f:5:44: idle_after: want a duration such as 250ms, 5s, 1h30m or 1d, not "30" | did you mean 30s?`},
		{"delivery", small(okSource, "delivery: once\n"+main), `f:5:11: delivery: "once" is not one of at_least_once, exactly_once | known are at_least_once, exactly_once`},
		{"parallelism", small(okSource, "parallelism: 129\n"+main), `f:5:14: parallelism: want a whole number from 1 to 128, not "129"`},
		{"exactly_once", small(okSource, "delivery: exactly_once\n"+main), `f:6:18: output main cannot be exactly_once: what was printed cannot be taken back, nor asked for: use at_least_once | use delivery: at_least_once, or another output`},
		{"env missing", small("  kafka: {topics: [\"${env:NOPE}\"]}\n", main), `f:4:20: source.kafka.topics: the environment has no NOPE | set it, or write ${env:NOPE:-default}`},
		{"env without env", small("  kafka: {topics: [\"${TOPIC}\"]}\n", main), `f:4:20: source.kafka.topics: ${TOPIC} is not a reference | write ${env:TOPIC}`},
		{"inputs", small(okSource, "inputs: {}\n"+main), `f:5:1: a job has no field inputs | a job has one source for now; another job can bring several topics together`},
		{"unknown step", steps("  - filtr: {if: true}\n"), `f:6:5: there is no step filtr | did you mean filter?`},
		{"later step", steps("  - join: {with: x}\n"), `f:6:5: join is not in this version | it comes in a later version`},
		{"rebalance with fields", steps("  - rebalance: {to: 4}\n"), `f:6:17: rebalance has no field to`},
		{"rebalance in parallel", steps("  - rebalance: {}\n    parallelism: 4\n"), `f:6:16: rebalance: it has no parallelism: it spreads records over the subtasks of the step behind it | write parallelism at the step behind it`},
		{"rebalance twice", steps("  - rebalance: {}\n  - rebalance: {}\n"), `f:7:16: rebalance: there is one before it already | remove one`},
		{"rebalance before a window", steps("  - key_by: value.device\n  - rebalance: {}\n  - window: {tumbling: 1m, aggregate: {n: count()}}\n"), `f:7:16: rebalance: a window stands behind it, and each record goes to the subtask that has the window of its key | put it before steps that keep no state`},
		{"two steps in one", steps("  - filter: {if: true}\n    map: value.a\n"), `f:7:5: a step: it is both filter and map | begin each step with -`},
		{"no step", steps("  - id: x\n"), `f:6:5: a step: it does not say what it does | name one of filter, map, set, key_by, side, rebalance, window`},
		{"step ids", steps("  - id: x\n    filter: {if: true}\n  - id: x\n    filter: {if: true}\n"), `f:8:9: there is a step x already (f:6:9: the first is here)`},
		{"filter field", steps("  - filter: {fi: true}\n"), `f:6:13: filter needs if | Which records pass.
f:6:14: filter has no field fi | did you mean if?`},
		{"no condition", steps("  - filter: {if: '\"x\"'}\n"), `f:6:18: if: want a condition, this is a string`},
		{"in an expression", steps("  - filter: {if: valeu.a > 1}\n"), `f:6:18: there is no valeu | did you mean value?`},
		{"in single quotes", steps("  - filter: {if: 'value.a == \"it''s\" && nope'}\n"), `f:6:41: there is no nope | a field of the record is value.nope`},
		{"in double quotes", steps("  - filter: {if: \"value.a == \\\"x\\\" && nope\"}\n"), `f:6:39: there is no nope | a field of the record is value.nope`},
		{"in a block", steps("  - filter:\n      if: >-\n        value.a == 1 &&\n        nope\n"), `f:9:9: there is no nope | a field of the record is value.nope`},
		{"in a plain scalar of two lines", steps("  - filter:\n      if: value.a == 1 &&\n          nope\n"), `f:8:11: there is no nope | a field of the record is value.nope`},
		{"several in one", steps("  - filter: {if: nope > nix}\n"), `f:6:18: there is no nope | a field of the record is value.nope
f:6:25: there is no nix | a field of the record is value.nix`},
		{"an object unquoted where a condition stands", steps("  - filter: {if: {a: 1}}\n"), `f:6:18: if: want an expression, not a block of fields | quote an expression that begins with { or [: '{"a": 1}'`},
		{"field gone after map", steps("  - map: {device: value.device}\n  - filter: {if: value.devise == 1}\n"), `f:7:24: there is no field devise | did you mean device?`},
		{"types after map", steps("  - map: {n: len(value.s)}\n  - filter: {if: value.n == \"x\"}\n"), `f:7:26: an int is never equal to a string | convert one of them: string(x), float(x)`},
		{"key before key_by", steps("  - filter: {if: key == 1}\n"), `f:6:18: there is no key here | put a key_by step before this one`},
		{"set of an expression", steps("  - set: value.a\n"), `f:6:10: set: want fields, not "value.a" | write {name: EXPRESSION}`},
		{"set in a string", small("  file: {path: x, format: lines}\n", "steps:\n  - set: {a: 1}\n"+main), `f:6:10: set: the value is a string, in which nothing can be set`},
		{"side to nowhere", steps("  - side: {to: signals}\n"), `f:6:16: side: there is no output signals | known are main`},
		{"window without key_by", steps("  - window: {tumbling: 1m, aggregate: {n: count()}}\n"), `f:6:13: window: the records have no key | put a key_by step before it`},
		{"window without time", small("  file: {path: x}\n", "steps:\n  - key_by: value.k\n  - window: {tumbling: 1m, aggregate: {n: count()}}\n"+main), `f:7:13: window: the records of a file have no time of their own | say in source when they happened: event_time: {from: value.ts}`},
		{"window fields", steps("  - key_by: value.k\n  - window: {tumbling: 1x, agregate: {}}\n"), `f:7:13: window needs aggregate | The fields of a result, an aggregate each.
f:7:24: tumbling: want a duration such as 250ms, 5s, 1h30m or 1d, not "1x"
f:7:28: window has no field agregate | did you mean aggregate?`},
		{"sliding", steps("  - key_by: value.k\n  - window: {sliding: 1m}\n"), `f:7:14: sliding is not in this version | only tumbling windows for now`},
		{"aggregates", steps("  - key_by: value.k\n  - window: {tumbling: 1m, aggregate: {n: cuont(), key: count(), m: value.x, s: sum(\"a\")}}\n"), `f:7:43: cuont is not an aggregate | did you mean count?
f:7:52: aggregate: a window's result has key already | give it another name
f:7:75: this is not an aggregate | write count(), sum(x), mean(x), min(x), max(x) or distinct(x)
f:7:85: sum takes a number, this is a string`},
		{"a function of a field that is not an aggregate", steps("  - key_by: value.k\n  - window: {tumbling: 1m, aggregate: {n: float(value.x)}}\n"), `f:7:43: float is not an aggregate | put it inside one: sum(float(x))`},
		{"output without end", small(okSource, "outputs: {main: {}}\n"), `f:5:17: output main: it does not say where records go | name one of bus, kafka, file, stdout`},
		{"output unknown", small(okSource, "outputs: {main: {kafk: {topic: x}}}\n"), `f:5:18: output main has no field kafk | did you mean kafka?`},
		{"unused output", small(okSource, "outputs: {main: {stdout: {}}, spare: {bus: x}}\n"), `f:5:31: nothing is written to the output spare | write to it with side, late_to or on_error, or remove it`},
		{"a filter without if", steps("  - filter: value.a > 1\n"), `f:6:13: filter: want fields, not "value.a > 1" | write filter: {if: …}`},
		{"the source's own file", small("  file: {path: d/x, format: lines}\n", "outputs:\n  main: {file: {path: ./d/x}}\n"), `f:6:23: output main: the job's own source reads this file | name another file, or a folder that the source does not read`},
		{"one of the source's own files", small("  file: {path: \"d/*.jsonl\"}\n", "outputs:\n  main: {file: {path: d/x.jsonl}}\n"), `f:6:23: output main: the job's own source reads this file | name another file, or a folder that the source does not read`},
		{"one file twice", small(okSource+"  on_error: {to: b}\n", "outputs:\n  main: {file: {path: x}}\n  b: {file: {path: ./x}}\n"), `f:8:20: output b: another output writes the same file (f:7:23: the first is here) | it belongs to one output alone: name another`},
		{"output key", small(okSource, "outputs: {main: {bus: {topic: t, key: vale.x}}}\n"), `f:5:39: there is no vale | did you mean value?`},
		{"topic of two kinds", small(okSource, "topics: {t: {partitions: 4}}\noutputs: {main: {bus: {topic: t, partitions: 8}}}\n"), `f:6:34: the topic t: partitions is given differently elsewhere (f:5:14: the first is here) | say it in one place`},
		{"on_full", small(okSource, "topics: {t: {on_full: drop_oldest}}\n"+main), `f:5:23: on_full: "drop_oldest" is not one of block | drop_oldest comes in a later version; a full topic holds its writers back`},
		{"retention", small(okSource, "topics: {t: {retention: {max_bytes: much}}}\n"+main), `f:5:37: max_bytes: want a size such as 4096, 64KiB or 1MB, not "much"`},
		{"a circle over the bus", small("  bus: a\n", "outputs: {main: {bus: b}}\n---\nversion: 1\njob: k\nsource: {bus: b}\noutputs: {main: {bus: a}}\n"),
			`f:5:23: the jobs feed themselves over the bus: j → k → j; here j writes b (f:9:15: k reads b) (f:10:23: k writes a) (f:4:8: j reads a) | break the circle: a full topic in it would hold back the job that must empty it`},
		{"two jobs of one name", small(okSource, main) + "---\n" + small(okSource, main), `f:8:6: there is a job j already (f:2:6: the first is here)`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			js, problems := LoadBytes(testConfig(), "f", []byte(tt.src))
			var got []string
			for _, p := range problems {
				s := p.File
				if p.Line > 0 {
					s = fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Column)
				}
				s += ": " + p.Msg
				for _, a := range p.Also {
					s += fmt.Sprintf(" (%s:%d:%d: %s)", a.File, a.Line, a.Column, a.Msg)
				}
				if p.Hint != "" {
					s += " | " + p.Hint
				}
				got = append(got, s)
			}
			if s := strings.Join(got, "\n"); s != tt.want || js != nil {
				t.Errorf("got\n%s\nwant\n%s", s, tt.want)
			}
		})
	}
}

func TestProblemString(t *testing.T) {
	_, problems := LoadBytes(testConfig(), "jobs/a.yaml", []byte(small(okSource, "steps:\n  - filter: {if: valeu.a > 1}\noutputs: {main: {stdout: {}}}\n")))
	want := `jobs/a.yaml:6:18: there is no valeu
      - filter: {if: valeu.a > 1}
                     ^
    did you mean value?`
	if got := problems[0].String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestSchemaIsJSON(t *testing.T) {
	var v map[string]any
	if err := json.Unmarshal(Schema(all.Registry()), &v); err != nil {
		t.Fatal(err)
	}
	p := v["properties"].(map[string]any)
	for _, f := range jobFields {
		if p[f.Name] == nil {
			t.Errorf("the schema has no %s", f.Name)
		}
	}
}

// What could blow the loader up is refused, and soon.
func TestHostileFiles(t *testing.T) {
	deep := strings.Repeat("[", 1<<19)
	bomb := "a: &a [x,x,x,x,x,x,x,x,x]\n"
	for i := range 9 {
		bomb += fmt.Sprintf("%c: &%c [*%c,*%c,*%c,*%c,*%c,*%c,*%c,*%c]\n", 'b'+i, 'b'+i, 'a'+i, 'a'+i, 'a'+i, 'a'+i, 'a'+i, 'a'+i, 'a'+i, 'a'+i)
	}
	nested := ""
	for i := range 500 {
		nested += strings.Repeat(" ", i) + "a:\n"
	}
	for name, src := range map[string]string{
		"deep": deep, "bomb": bomb, "nested": nested, "large": strings.Repeat("a", MaxFileBytes+1), "not UTF-8": "a: \xff",
		"documents": strings.Repeat("---\na: 1\n", 300), "words": strings.Repeat("x: y\n", 1<<17), "colons": strings.Repeat("? ", 1<<18),
	} {
		start := time.Now()
		js, problems := LoadBytes(testConfig(), "f", []byte(src))
		if len(problems) == 0 || len(problems) > maxProblems || js != nil {
			t.Errorf("%s: %d jobs, %d problems", name, len(js), len(problems))
		}
		if d := time.Since(start); d > 5*time.Second {
			t.Errorf("%s takes %v", name, d)
		}
	}
}

func FuzzLoad(f *testing.F) {
	src, err := os.ReadFile("testdata/temperature.yaml")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(src))
	f.Add(small(okSource, "steps: [{map: {a: 1}}, {set: {b: value.a}}, {side: {to: x, key: key}}]\noutputs: {x: {bus: t}}\n"))
	f.Add("version: 1\n---\n- a: &x [*x]\n")
	f.Add(small("  file: {path: x, format: lines}\n", "outputs:\n  main:\n    stdout:\n"))
	f.Fuzz(func(t *testing.T, src string) {
		js, problems := LoadBytes(testConfig(), "f", []byte(src))
		if (len(js) == 0) == (len(problems) == 0) {
			t.Fatalf("%d jobs and %d problems", len(js), len(problems))
		}
		lines := len(newFile("f", []byte(src)).starts)
		for _, p := range problems {
			if p.Msg == "" || p.Line < 0 || p.Line > lines || p.Line > 0 && p.Column < 1 {
				t.Fatalf("problem %+v", p)
			}
		}
	})
}

func TestDefinitionsOfAFile(t *testing.T) {
	a, b := small(okSource, "outputs: {main: {stdout: {}}}\n"), strings.Replace(small(okSource, "outputs: {main: {stdout: {}}}\n"), "job: j", "job: k", 1)
	js, problems := LoadBytes(testConfig(), "f", []byte("# both\n---\n"+a+"---\n"+b))
	if problems != nil || len(js) != 2 || string(js[0].Definition) != a || string(js[1].Definition) != b {
		t.Errorf("%v; %d jobs with the definitions", problems, len(js))
		for _, j := range js {
			t.Errorf("%q", j.Definition)
		}
	}
}

func TestLoadOfFolders(t *testing.T) {
	dir := t.TempDir()
	if _, problems := Load(testConfig(), dir, dir+"/none.yaml"); len(problems) != 2 {
		t.Errorf("an empty folder and a missing file: %v", problems)
	}
	for _, name := range []string{"b.yaml", "a.yml", "c.txt"} {
		src := strings.Replace(small(okSource, "outputs: {main: {stdout: {}}}\n"), "job: j", "job: "+name[:1], 1)
		if err := os.WriteFile(dir+"/"+name, []byte(src), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	js, problems := Load(testConfig(), dir)
	if problems != nil || len(js) != 2 || js[0].Name != "a" || js[1].Name != "b" {
		t.Errorf("%d jobs, %v", len(js), problems)
	}
}
