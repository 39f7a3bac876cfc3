package casetest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sidestream-dev/sidestream/jobs/connector/all"
	"github.com/sidestream-dev/sidestream/jobs/spec"
)

// load writes files, as name and content in turn, and returns the cases of the last.
func load(t *testing.T, files ...string) []*spec.Case {
	t.Helper()
	dir := t.TempDir()
	name := ""
	for i := 0; i < len(files); i += 2 {
		name = filepath.Join(dir, files[i])
		if err := os.WriteFile(name, []byte(files[i+1]), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cases, problems := spec.LoadCases(spec.Config{Connectors: all.Registry()}, name)
	for _, p := range problems {
		t.Error(p)
	}
	if len(problems) > 0 {
		t.FailNow()
	}
	return cases
}

const minutes = `version: 1
job: minutes
source:
  kafka: {brokers: ["${env:KAFKA_BROKERS}"], topics: [readings]}
  event_time: {from: value.at, max_out_of_orderness: 5s}
  on_error: {to: dead}
steps:
  - filter: {if: 'value.kind == "t"'}
  - key_by: value.device
  - set: {level: value.level * 2}
  - side: {if: value.level > 90, to: hot}
  - window:
      tumbling: 1m
      allowed_lateness: 10s
      late_to: late
      aggregate: {n: count(), max: max(value.level)}
  - map: {device: key, n: value.n, max: value.max}
outputs:
  main: {kafka: {topic: minutes}}
  hot: {bus: {topic: hot, partitions: 4}}
  late: {bus: late}
  dead: {bus: dead}
`

const hot = `version: 1
job: told
source: {bus: hot}
steps:
  - window: {tumbling: 2m, aggregate: {n: count()}}
  - filter: {if: value.n > 1}
outputs:
  main: {stdout: {}}
`

// diffOf runs a case and returns what it says of it.
func diffOf(t *testing.T, c *spec.Case) string {
	t.Helper()
	var b strings.Builder
	r := Run(c)
	r.Diff(&b, false)
	if r.Passed() != (b.Len() == 0) {
		t.Errorf("passed is %v, and it says %q", r.Passed(), b.String())
	}
	return b.String()
}

func TestCasesThatPass(t *testing.T) {
	for _, c := range load(t, "minutes.yaml", minutes, "told.yaml", hot, "x.test.yaml", `version: 1
jobs: [told.yaml, minutes.yaml]
cases:
  - name: two jobs
    input:
      - value: {device: b, kind: t, at: "2026-01-01T00:00:02Z", level: 60}
      - value: {device: a, kind: t, at: "2026-01-01T00:00:01Z", level: 1}
      - value: {device: b, kind: h, at: "2026-01-01T00:00:03Z", level: 60}
      - value: {device: b, kind: t, at: "2026-01-01T00:01:03Z", level: 60.5}
    output:
      minutes/main:
        - {value: {device: a, n: 1, max: 2}, key: a, time: "2026-01-01T00:00:59.999Z"}
        - {value: {n: 1.0, max: 120, device: b}, key: b}
        - value: {device: b, n: 1, max: 121.0}
      minutes/hot: {any_order: [{has: {at: "2026-01-01T00:01:03Z"}}, {has: {level: 120}, key: b}]}
      told/main: [{has: {key: b, n: 2}}]
      minutes/dead: []
  - name: the end has not come
    end: false
    input:
      - value: {device: a, kind: t, at: "2026-01-01T00:00:01Z", level: 1}
      - watermark: 2026-01-01T00:00:59.998Z
    output: {minutes/main: [], told/main: []}
  - name: event time alone makes a window fire
    end: false
    input:
      - value: {device: a, kind: t, at: "2026-01-01T00:00:01Z", level: 1}
      - watermark: 2026-01-01T00:00:59.999Z
    output: {minutes/main: [{value: {device: a, n: 1, max: 2}}]}
  - name: a partition that says nothing holds event time back, until it is idle
    end: false
    input:
      - {value: {device: a, kind: t, at: "2026-01-01T00:00:01Z", level: 1}}
      - {value: {device: a, kind: t, at: "2026-01-01T00:05:01Z", level: 1}}
      - {value: {device: a, kind: t, at: "2026-01-01T00:00:20Z", level: 1}, partition: 1}
      - {idle: true, partition: 1}
      - {value: {device: a, kind: t, at: "2026-01-01T00:00:30Z", level: 1}}
    output:
      minutes/main: [{has: {n: 2}}]
      minutes/late: [{has: {at: "2026-01-01T00:00:30Z"}}]
  - name: late
    input:
      - {value: {device: a, kind: t, at: "2026-01-01T00:00:01Z", level: 1}}
      - {watermark: "2026-01-01T00:01:00Z"}
      - {value: {device: a, kind: t, at: "2026-01-01T00:00:02Z", level: 1}}
      - {watermark: "2026-01-01T00:01:09.999Z"}
      - {value: {device: a, kind: t, at: "2026-01-01T00:00:03Z", level: 1}}
    output:
      minutes/main: [{has: {n: 1}}, {has: {n: 2}}]
      minutes/late: [{has: {level: 2}, time: "2026-01-01T00:00:03Z"}]
  - name: dead letters
    input:
      - text: "{no"
      - value: {device: a, kind: t, at: "2026-01-01T00:00:01Z", level: a}
      - value: {device: null, kind: t, at: "2026-01-01T00:00:01Z", level: 1}
    output:
      minutes/dead:
        - text: "{no"
          headers: {step: kafka-1, origin: kafka/0@0}
        - has: {level: a}
          headers: {step: map-1}
        - has: {device: null}
          headers: {step: key_by-1, origin: kafka/0@2}
`) {
		if d := diffOf(t, c); d != "" {
			t.Errorf("%s:\n%s", c.Name, d)
		}
		for _, n := range []int{2, 4} { // determinism over parallelism
			wide := *c
			wide.Jobs = nil
			for _, j := range c.Jobs {
				w := *j
				w.Parallelism = n
				wide.Jobs = append(wide.Jobs, &w)
			}
			if d := diffOf(t, &wide); d != "" {
				t.Errorf("%s, parallelism %d:\n%s", c.Name, n, d)
			}
		}
	}
}

// TestBlame wants each kind of step named where it decided.
func TestBlame(t *testing.T) {
	tests := []struct {
		name, input, output string
		want                []string
	}{
		{"filter", `[{value: {device: a, kind: h, at: 1000, level: 1}}]`, `{main: [{has: {device: a}}]}`,
			[]string{"-has {\"device\":\"a\"}", `filter-1 (minutes.yaml:8) dropped it: value.kind == "t" was false; value.kind is "h"`}},
		{"filter, missing field", `[{value: {device: a, at: 1000}}]`, `{main: [{has: {device: a}}]}`,
			[]string{`value.kind is missing`}},
		{"key_by", `[{value: {kind: t, at: 1000, level: 1, id: x17}}]`, `{main: [{has: {device: x17}}]}`,
			[]string{"key_by-1 (minutes.yaml:9) refused it, so on_error sent it to dead: the key is nil"}},
		{"set", `[{value: {device: a, kind: t, at: 1000, level: 50}}]`, `{hot: [{has: {device: a, level: 50}}]}`,
			[]string{`value.level: want 50, got 100; map-1 (minutes.yaml:10) gave 100`}},
		{"set, error", `[{value: {device: a, kind: t, at: 1000, level: x}}]`, `{main: [{has: {device: a}}]}`,
			[]string{`map-1 (minutes.yaml:10) refused it, so on_error sent it to dead: `}},
		{"side", `[{value: {device: a, kind: t, at: 1000, level: 1}}]`, `{hot: [{has: {device: a}}]}`,
			[]string{`side-1 (minutes.yaml:11) did not copy it: value.level > 90 was false; value.level is 2`}},
		{"window, open", `[{value: {device: a, kind: t, at: 1000, level: 1}}, {watermark: 30000}]`, `{main: [{has: {device: a}}]}`,
			[]string{`window-1 (minutes.yaml:12) took it into the window from 1970-01-01T00:00:00.000Z to 1970-01-01T00:01:00.000Z of key "a", which is still open: it fires at the watermark 1970-01-01T00:00:59.999Z, and the watermark stands at 1970-01-01T00:00:30.000Z`}},
		{"window, late", `[{watermark: 75000}, {value: {device: a, kind: t, at: 1000, level: 1}}]`, `{main: [{has: {device: a}}]}`,
			[]string{"window-1 (minutes.yaml:12) found it late by 5.001s", "gone at the watermark 1970-01-01T00:01:09.999Z", "it went to late_to", "output late was given"}},
		{"window, another number", `[{value: {device: a, kind: t, at: 1000, level: 1}}, {value: {device: a, kind: t, at: 2000, level: 1}}, {value: {device: a, kind: h, at: 3000, level: 1}}, {watermark: 75000}]`,
			`{main: [{value: {device: a, n: 3, max: 2}}]}`,
			[]string{`value.n: want 3, got 2; window-1 (minutes.yaml:12) gave 2, from 2 records`, "it came of the records x.test.yaml:4, x.test.yaml:4", "filter-1 (minutes.yaml:8) dropped it"}},
		{"map, another name", `[{value: {device: a, kind: t, at: 1000, level: 1}}, {watermark: 75000}]`, `{main: [{value: {device: b, n: 1, max: 2}}]}`,
			[]string{`value.device: want "b", got "a"; map-2 (minutes.yaml:17) gave "a"`}},
		{"source", `[{text: "{oops"}]`, `{main: [{text: "{oops"}]}`,
			[]string{`kafka-1 (minutes.yaml:3) refused it, so on_error sent it to dead: not JSON at byte 1`}},
		{"too many", `[{value: {device: a, kind: t, at: 1000, level: 1}}, {watermark: 75000}]`, `{main: []}`,
			[]string{`+{"device":"a","n":1,"max":2}`, "it came of the record x.test.yaml:4", "window-1 (minutes.yaml:12) gave {", "map-2 (minutes.yaml:17) gave {"}},
		{"nothing like it", `[{value: {device: a, kind: t, at: 1000, level: 1}}]`, `{main: [{value: {other: zzz}}]}`,
			[]string{"no record of the input has any of it"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			src := "version: 1\njobs: [minutes.yaml]\ncases:\n  - {name: x, end: false, input: " + tt.input + ", output: " + tt.output + "}\n"
			got := diffOf(t, load(t, "minutes.yaml", strings.Replace(minutes, "from: value.at", "from: value.at, unit: ms", 1), "x.test.yaml", src)[0])
			for _, want := range tt.want {
				if !strings.Contains(got, want) {
					t.Errorf("there is no %q in\n%s", want, got)
				}
			}
		})
	}
}

func TestFails(t *testing.T) {
	job := "version: 1\njob: strict\nsource: {bus: in}\nsteps:\n  - map: {half: value.n / 2}\noutputs: {main: {stdout: {}}}\n"
	tests := []struct{ name, body, want string }{
		{"as expected", "input: [{value: {n: x}}], fails: does not go with a string, output: {main: []}", ""},
		{"not", "input: [{value: {n: 4}}], fails: divide", `no job failed; want an error with "divide"`},
		{"otherwise", "input: [{value: {n: x}}], fails: zebra", `want an error with "zebra", got: job strict: step map-1`},
		{"unexpected", "input: [{value: {n: x}}], output: {main: []}", "job strict: step map-1: record in/0@0"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := diffOf(t, load(t, "strict.yaml", job, "strict.test.yaml", "version: 1\ncases:\n  - {name: x, "+tt.body+"}\n")[0])
			if (tt.want == "") != (got == "") || !strings.Contains(got, tt.want) {
				t.Errorf("%q", got)
			}
		})
	}
}

// TestTooMuchToCompare: that an output has too many records to be compared does not hide why the job failed, nor another output.
func TestTooMuchToCompare(t *testing.T) {
	c := load(t, "many.jsonl", strings.Repeat("{\"n\": 1}\n", recordsMax+1)+"{\"n\": {}}\n", "many.yaml", `version: 1
job: many
source: {kafka: {brokers: [b:1], topics: [numbers]}, decode: json}
steps:
  - side: {if: 'true', to: copy}
  - set: {m: value.n + 1}
outputs:
  main: {kafka: {brokers: [b:1], topic: sums}}
  copy: {bus: copies}
`, "many.test.yaml", `version: 1
cases:
  - name: many
    input: [{from_file: many.jsonl}]
    output: {main: [], copy: []}
`)[0]
	r := Run(c)
	for _, want := range []string{"value.n + 1", "output main: 2001 records", "output copy: 2002 records"} {
		if !strings.Contains(r.Err, want) {
			t.Errorf("%q does not say %q", r.Err, want)
		}
	}
}
