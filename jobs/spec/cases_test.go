package spec

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const caseJobs = `version: 1
job: one
source: {kafka: {brokers: ["${env:KAFKA_BROKERS}"], topics: [a]}}
outputs: {main: {bus: mid}}
---
version: 1
job: two
source: {bus: mid}
outputs: {main: {stdout: {}}}
---
version: 1
job: three
source: {bus: elsewhere}
outputs: {main: {stdout: {}}}
`

// readerOnly are the bad files of TestBadCases that no schema can tell from good ones.
var readerOnly = map[string]bool{
	"nothing": true, "no job beside it": true, "no such job file": true, "a case twice": true, "which job": true, "no such job": true,
	"a job that is fed": true, "a key of a watermark": true, "watermark is no time": true, "time": true, "topic of a bus source": true,
	"a hexadecimal number": true, "a number with underscores": true, "not a number": true, "a number without end": true,
	"a field twice": true, "no such file": true, "no JSON in it": true, "no such output": true, "output without job": true,
	"value and has": true, "an anchor": true, "a tag": true, "no YAML": true,
}

// TestBadCases wants, for each file of cases that is wrong, what is said and where.
func TestBadCases(t *testing.T) {
	head := "version: 1\njobs: [one.yaml]\ncases:\n"
	one := func(body string) string { return head + "  - {name: x, " + body + "}\n" }
	in := func(m string) string { return one("output: {one/main: []}, input: [" + m + "]") }
	out := func(o string) string { return one("input: [], output: " + o) }
	tests := []struct{ name, src, want string }{
		{"no version", "jobs: [one.yaml]\ncases: [{name: x, input: [], fails: a}]\n", "1:1: a file of cases needs version"},
		{"another version", "version: 2\njobs: [one.yaml]\ncases: [{name: x, input: [], fails: a}]\n", "1:10: version: want 1, not \"2\""},
		{"no cases", "version: 1\njobs: [one.yaml]\n", "1:1: a file of cases needs cases"},
		{"empty cases", "version: 1\njobs: [one.yaml]\ncases: []\n", "3:8: cases: there is none in it"},
		{"a list of cases alone", "- name: x\n", "1:1: a file of cases: want fields, not a list"},
		{"nothing", "# nothing\n", ": there is no case in it"},
		{"unknown field", "version: 1\njob: [one.yaml]\njobs: [one.yaml]\ncases: [{name: x, input: [], fails: a}]\n", "2:1: a file of cases has no field job"},
		{"no job beside it", "version: 1\ncases: [{name: x, input: [], fails: a}]\n", "1:1: there is no bad.yaml beside it"},
		{"no such job file", "version: 1\njobs: [nope.yaml]\ncases: []\n", "nope.yaml: there is no such file"},
		{"jobs no list", "version: 1\njobs: one.yaml\ncases: []\n", "2:7: jobs: want a list of files, not \"one.yaml\""},
		{"case without name", head + "  - {input: [], fails: a}\n", "4:5: a case needs name"},
		{"case without input", head + "  - {name: x, fails: a}\n", "4:5: a case needs input"},
		{"case without output", one("input: []"), "4:5: a case: it does not say what is to come out"},
		{"a case twice", head + "  - {name: x, input: [], fails: a}\n  - {name: x, input: [], fails: a}\n", "5:12: there is a case \"x\" already, in line 4"},
		{"unknown field of a case", one("input: [], fails: a, outptu: {}"), "4:36: a case has no field outptu"},
		{"end is no flag", one("input: [], fails: a, end: maybe"), "end: want true or false, not \"maybe\""},
		{"parallelism", one("input: [], fails: a, parallelism: 129"), "parallelism: want a whole number from 1 to 128"},
		{"input no list", one("input: {value: 1}, fails: a"), "input: want a list, not a block of fields"},
		{"input of words", in("hello"), "input: want a record, not \"hello\""},
		{"record without anything", in("{to: one}"), "a record: want one of value, text, from_file, watermark and idle, not none of them"},
		{"record with two", in("{to: one, value: 1, text: x}"), "not value and text"},
		{"which job", in("{value: 1}"), "a record: which job's source does it come to, one or three?"},
		{"no such job", in("{to: on, value: 1}"), "there is no job on here"},
		{"a job that is fed", in("{to: two, value: 1}"), "another job here writes what two reads"},
		{"a key of a watermark", in("{to: one, watermark: 5, key: a}"), "key belongs to a record"},
		{"watermark is no time", in("{to: one, watermark: soon}"), "watermark: want a time, not \"soon\""},
		{"time", in("{to: one, value: 1, time: 12:00}"), "time: want a time"},
		{"idle: false", in("{to: one, idle: false}"), "idle: want true"},
		{"partition", in("{to: one, value: 1, partition: -1}"), "partition: want a whole number"},
		{"key null", in("{to: three, value: 1, key: null}"), "key: it cannot be null"},
		{"topic of a bus source", in("{to: three, value: 1, topic: a}"), "the job reads the topic of its definition, and no other"},
		{"headers no fields", in("{to: one, value: 1, headers: [a]}"), "headers: want fields, not a list"},
		{"a hexadecimal number", in("{to: one, value: 0x1F}"), "value: 0x1F is no number in JSON"},
		{"a number with underscores", in("{to: one, value: {a: [1_000]}}"), "value.a: 1_000 is no number in JSON"},
		{"not a number", in("{to: one, value: .nan}"), "value: .nan is no number in JSON"},
		{"a number without end", in("{to: one, value: 1e999}"), "value: 1e999 is more than a number can be"},
		{"a field twice", in("{to: one, value: {a: 1, a: 2}}"), "a is given twice"},
		{"no such file", in("{to: one, from_file: nope.jsonl}"), "from_file: there is no file "},
		{"no JSON in it", in("{to: one, from_file: one.yaml}"), "one.yaml:1: not JSON at byte 0"},
		{"no such output", out("{one/mian: []}"), "there is no output one/mian"},
		{"output without job", out("{main: []}"), "there is no output main"},
		{"output no list", out("{one/main: 5}"), "output one/main: want a list, not \"5\""},
		{"two orders", out("{one/main: {any_order: [], contains: []}}"), "output one/main: want a list, any_order or contains"},
		{"another order", out("{one/main: {some: []}}"), "output one/main has no field some"},
		{"expected record of words", out("{one/main: [x]}"), "output: want a record, not \"x\""},
		{"empty record", out("{one/main: [{}]}"), "output: the record says nothing"},
		{"value and has", out("{one/main: [{value: 1, has: 1}]}"), "a record: it has both value and has"},
		{"partition of an output", out("{one/main: [{value: 1, partition: 1}]}"), "a record has no field partition"},
		{"an anchor", in("{to: one, value: &a 1}"), "anchors and aliases are not allowed"},
		{"a tag", in("{to: one, value: !!str 1}"), "tags are not allowed"},
		{"no YAML", "version: [1\n", "not YAML"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			file := filepath.Join(dir, "bad.test.yaml")
			for name, src := range map[string]string{"one.yaml": caseJobs, "bad.test.yaml": tt.src} {
				if err := os.WriteFile(filepath.Join(dir, name), []byte(src), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			cases, problems := LoadCases(testConfig(), file)
			if len(problems) == 0 || cases != nil {
				t.Fatalf("it is taken, with %d cases", len(cases))
			}
			got := strings.ReplaceAll(problems[0].String(), dir+"/", "")
			if !strings.Contains(got, tt.want) {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
			if !strings.Contains(tt.want, ".yaml: ") && !strings.HasPrefix(tt.want, ": ") && problems[0].Line == 0 {
				t.Errorf("without a place: %s", got)
			}
			if !readerOnly[tt.name] && validateWith(t, CaseSchema(), tt.src) == nil {
				t.Errorf("the schema takes it")
			}
			if len(problems) > 1 {
				t.Errorf("and %d more, the first %s", len(problems)-1, problems[1])
			}
		})
	}
}

// TestCasesAllAtOnce: the mistakes of the job and of all cases are said together, each once.
func TestCasesAllAtOnce(t *testing.T) {
	dir := t.TempDir()
	for name, src := range map[string]string{
		"a.yaml":      "version: 1\njob: a\nsource: {bus: x}\nsteps:\n  - filtr: 1\noutputs: {main: {stdout: {}}}\n",
		"a.test.yaml": "version: 1\ncases: []\n",
		"b.test.yaml": "version: 1\njobs: [a.yaml]\ncases: []\n",
		"c.yaml":      "version: 1\njob: c\nsource: {bus: x}\noutputs: {main: {stdout: {}}}\n",
		"c.test.yaml": "version: 1\ncases:\n  - {name: 1, input: [5], output: {main: [5]}}\n  - {name: 2, input: []}\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(src), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	_, problems := LoadCases(testConfig(), dir)
	var got []string
	for _, p := range problems {
		got = append(got, strings.TrimPrefix(strings.SplitN(p.String(), "\n", 2)[0], dir+"/"))
	}
	want := []string{"a.yaml:5:5: there is no step filtr", `c.test.yaml:3:23: input: want a record, not "5"`,
		`c.test.yaml:3:43: output: want a record, not "5"`, "c.test.yaml:4:5: a case: it does not say what is to come out"}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if _, problems := Load(testConfig(), dir); len(problems) == 0 || strings.Contains(problems[len(problems)-1].File, ".test.") {
		t.Errorf("Load of the directory: %v", problems)
	}
	if _, problems := Load(testConfig(), filepath.Join(dir, "c.test.yaml")); len(problems) != 1 || problems[0].Msg != "it holds cases, not jobs" {
		t.Errorf("Load of a file of cases: %v", problems)
	}
}

// TestCaseSchema: it takes the examples, and what LoadCases takes.
func TestCaseSchema(t *testing.T) {
	names, err := filepath.Glob("../../examples/air/jobs/*.test.yaml")
	if err != nil || len(names) != 6 {
		t.Fatalf("%d examples, %v", len(names), err)
	}
	var sources []string
	for _, name := range names {
		src, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		sources = append(sources, string(src))
	}
	all := `version: 1
jobs: [one.yaml]
env: {BROKERS: "a:1"}
cases:
  - name: all there is
    parallelism: 2
    end: false
    fails: x
    input:
      - {value: null, to: one, key: a, time: 5, headers: {a: b}, topic: t, partition: 3}
      - {text: x, to: three, key: {a: [1]}, time: 2026-01-31T12:00:00Z}
      - {watermark: 5, to: one}
      - {idle: true, to: one, partition: 3}
    output:
      one/main: [{value: [1], key: null}, {has: {a: 1}, time: 5}, {text: x, headers: {a: b}}]
      two/main: {any_order: [{value: 1}]}
      three/main: {contains: []}
`
	dir := t.TempDir()
	for name, src := range map[string]string{"one.yaml": caseJobs, "all.test.yaml": all} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(src), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, problems := LoadCases(testConfig(), dir); len(problems) > 0 {
		t.Errorf("the reader: %v", problems)
	}
	for _, src := range append(sources, all) {
		if err := validateWith(t, CaseSchema(), src); err != nil {
			t.Errorf("%v\n%s", err, src)
		}
	}
}
