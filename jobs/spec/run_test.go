package spec

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/jobs/jobstest"
)

func feed(h *jobstest.Harness, values ...string) {
	for _, v := range values {
		h.Feed("", jobs.Message{Value: []byte(v), Time: jobs.NoTime})
	}
}

func wantLines(t *testing.T, h *jobstest.Harness, output string, want ...string) {
	t.Helper()
	if got := strings.Join(h.Lines(output), "\n"); got != strings.Join(want, "\n") {
		t.Errorf("%s is\n%s\nwant\n%s", output, got, strings.Join(want, "\n"))
	}
}

func TestTheSampleRuns(t *testing.T) {
	js, problems := Load(testConfig(), "testdata/temperature.yaml")
	if problems != nil {
		t.Fatal(problems)
	}
	h := jobstest.New(t, js[0])
	feed(h,
		`{"device":"a","kind":"temperature","ts":1767225600000,"reading":10}`,
		`{"device":"b","kind":"temperature","ts":1767225600500,"reading":95.5}`,
		`{"device":"a","kind":"humidity","ts":1767225601000,"reading":99}`,
		`{"device":"a","kind":"temperature","ts":1767225630000,"reading":20.5}`,
		`{"device":"a","kind":"temperature","ts":"oops","reading":20.5}`,
		`{"device":"a",`,
		`{"device":"a","kind":"temperature","ts":1767225640000}`,
		`{"kind":"temperature","ts":1767225640000,"reading":1}`,
		`{"device":"b","kind":"temperature","ts":1767225665000,"reading":1}`, // fires the first minute
		`{"device":"b","kind":"temperature","ts":1767225600001,"reading":2}`, // late, but allowed: it fires again
		`{"device":"c","kind":"temperature","ts":1767225705000,"reading":3}`,
		`{"device":"b","kind":"temperature","ts":1767225600002,"reading":5}`, // too late
	)
	h.End()
	wantLines(t, h, "main",
		`{"key":"a","window":{"start":"2026-01-01T00:00:00.000Z","end":"2026-01-01T00:01:00.000Z"},"n":2,"mean":15.25,"max":20.5}`,
		`{"key":"b","window":{"start":"2026-01-01T00:00:00.000Z","end":"2026-01-01T00:01:00.000Z"},"n":1,"mean":95.5,"max":95.5}`,
		`{"key":"b","window":{"start":"2026-01-01T00:00:00.000Z","end":"2026-01-01T00:01:00.000Z"},"n":2,"mean":48.75,"max":95.5}`,
		`{"key":"b","window":{"start":"2026-01-01T00:01:00.000Z","end":"2026-01-01T00:02:00.000Z"},"n":1,"mean":1.0,"max":1}`,
		`{"key":"c","window":{"start":"2026-01-01T00:01:00.000Z","end":"2026-01-01T00:02:00.000Z"},"n":1,"mean":3.0,"max":3}`)
	wantLines(t, h, "signals", `{"device":"b","why":"hot","level":95.5}`)
	wantLines(t, h, "late", `{"device":"b","kind":"temperature","ts":1767225600002,"reading":5}`)
	if m := h.Output("main")[0]; string(m.Key) != "a" || m.Time.String() != "2026-01-01T00:00:59.999Z" {
		t.Errorf("a window's record has key %s and time %v", m.Key, m.Time)
	}
	if m := h.Output("signals")[0]; string(m.Key) != `"b"` || m.Time.String() != "2026-01-01T00:00:00.500Z" {
		t.Errorf("a signal has key %s and time %v", m.Key, m.Time)
	}
	var got []string
	for _, m := range h.Output("dead") {
		s := string(m.Value)
		for _, hd := range m.Headers {
			s += fmt.Sprintf(" | %s=%s", hd.Name, hd.Value)
		}
		got = append(got, s)
	}
	want := []string{
		`{"device":"a","kind":"temperature","ts":"oops","reading":20.5} | error=event_time: "oops" is not an RFC 3339 time | step=kafka-1 | origin=test-0@4`,
		`{"device":"a", | error=not JSON at byte 14: the text ends too early | step=kafka-1 | origin=test-0@5`,
		`{"device":"a","kind":"temperature","ts":1767225640000} | error=nil and an int cannot be ordered: there is no value.reading, at 15 of value.reading > 90 | step=side-1 | origin=test-0@6`,
		`{"kind":"temperature","ts":1767225640000,"reading":1} | error=the key is nil | step=key_by-1 | origin=test-0@7`,
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("dead letters\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestSteps(t *testing.T) {
	const a = `{"a":1, "b":{"c":"x"},"l":[1,2.0]}`
	tests := []struct{ name, steps, in, want string }{
		{"unchanged", ``, a, a},
		{"spaces around go", ``, " " + a + "\n", a},
		{"filter", `[{filter: {if: value.a > 1}}]`, a, ``},
		{"map", `[{map: value.b}]`, a, `{"c":"x"}`},
		{"map of an object", `[{map: '{"x": value.b.c, "y": value.a + 1}'}]`, a, `{"x":"x","y":2}`},
		{"map of fields", `[{map: {x: value.b.c, t: time, n: 1}}]`, a, `{"x":"x","t":null,"n":1}`},
		{"set", `[{set: {z: value.a / 2, a: 9}}]`, a, `{"a":9,"b":{"c":"x"},"l":[1,2.0],"z":0.5}`},
		{"set reads what was before", `[{set: {a: 2, z: value.a}}, {set: {y: value.a + value.z}}]`, a, `{"a":2,"b":{"c":"x"},"l":[1,2.0],"z":1,"y":3}`},
		{"set over a map", `[{map: {x: 1}}, {set: {y: value.x, x: 3}}, {filter: {if: value.x == 3 and value.y == 1}}]`, a, `{"x":3,"y":1}`},
		{"set in a value", `[{map: value.b}, {set: {d: value.c}}]`, a, `{"c":"x","d":"x"}`},
		{"a list", `[{map: "value.l[1:] == [2]"}]`, a, `true`},
		{"key", `[{key_by: value.b.c}, {map: {k: key}}]`, a, `{"k":"x"}`},
		{"key of a float", `[{key_by: "value.l[1]"}, {map: {k: key}}]`, a, `{"k":2}`},
		{"key of fields", `[{key_by: {z: value.a, a: value.b.c}}, {map: {k: key, z: key.z}}]`, a, `{"k":{"a":"x","z":1},"z":1}`},
		{"nested object literal", `[{map: '{"o": {"p": value.a, "q": [value.b.c]}}'}, {map: value.o.q}]`, a, `["x"]`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			src := small(okSource, "steps: "+tt.steps+"\noutputs: {main: {stdout: {}}}\n")
			if tt.steps == "" {
				src = small(okSource, "outputs: {main: {stdout: {}}}\n")
			}
			h := jobstest.New(t, mustLoad(t, src))
			feed(h, tt.in)
			if h.Err != nil {
				t.Fatal(h.Err)
			}
			if tt.want == "" {
				wantLines(t, h, "main")
				return
			}
			wantLines(t, h, "main", tt.want)
		})
	}
}

func TestAnOutputOfSeveralSteps(t *testing.T) {
	j := mustLoad(t, small(okSource, `steps:
  - side: {if: value.n == 1, to: s, map: {n: value.n, from: '"first"'}}
  - side: {if: value.n == 1, to: s, key: value.k}
outputs:
  s: {bus: {topic: t, key: value.n}}
`))
	h := jobstest.New(t, j)
	feed(h, `{"n":1,"k":"x"}`, `{"n":2,"k":"y"}`)
	wantLines(t, h, "s", `{"n":1,"from":"first"}`, `{"n":1,"k":"x"}`)
	if m := h.Output("s")[1]; string(m.Key) != `1` {
		t.Errorf("key %s", m.Key)
	}
}

func TestBusSourceAndDistinct(t *testing.T) {
	j := mustLoad(t, small("  bus: {topic: signals, start: 17}\n", `steps:
  - id: perday
    window: {tumbling: 1d, aggregate: {kinds: distinct(value.kind), n: count(), sum: sum(value.level)}}
  - filter: {if: value.kinds >= 2}
  - set: {on: 'value.window.start[0:10]'}
outputs: {main: {bus: alerts}}
`))
	if s := j.Nodes[0].Source; s.Topic != "signals" || s.Start != (jobs.BusStart{At: 17, Exact: true}) || j.Nodes[1].ID != "perday" {
		t.Errorf("source %+v", s)
	}
	h := jobstest.New(t, j)
	for i, v := range []string{`{"kind":"a","level":1}`, `{"kind":"a","level":2}`, `{"kind":"b","level":0.5}`, `{"kind":1.0,"level":1}`, `{"kind":1,"level":1}`} {
		h.Send("", jobs.Message{Key: []byte(`"dev"`), Value: []byte(v), Time: jobs.Time(1767225600000 + i)})
	}
	h.Send("", jobs.Message{Key: []byte(`"other"`), Value: []byte(`{"kind":"a","level":1}`), Time: 1767225600000})
	h.End()
	wantLines(t, h, "main", `{"key":"dev","window":{"start":"2026-01-01T00:00:00.000Z","end":"2026-01-02T00:00:00.000Z"},"kinds":3,"n":5,"sum":5.5,"on":"2026-01-01"}`)
}

func TestFormats(t *testing.T) {
	j := mustLoad(t, small("  file: {path: x, format: csv}\n  on_error: skip\n  event_time: {from: value.at, unit: s}\n",
		"steps:\n  - map: {v: float(value.v), t: unix_ms(time)}\noutputs: {main: {stdout: {}}}\n"))
	h := jobstest.New(t, j)
	feed(h, `{"v":"1.5","at":"2026-01-01T00:00:00Z"}`, `{"v":"NA","at":"2026-01-01T00:00:00Z"}`)
	wantLines(t, h, "main", `{"v":1.5,"t":1767225600000}`)
	if len(h.Rejected) != 1 || h.Rejected[0].Err.Error() != `float: "NA" is not a number, at 1 of float(value.v)` {
		t.Errorf("rejected %+v", h.Rejected)
	}
	j = mustLoad(t, small("  file: {path: x, format: lines}\n", "steps:\n  - map: upper(value)\noutputs: {main: {file: {path: y, format: lines}}}\n"))
	h = jobstest.New(t, j)
	feed(h, `a "b"`)
	wantLines(t, h, "main", `A "B"`)
}

func TestEventTimeUnits(t *testing.T) {
	for unit, in := range map[string]string{"s": `1767225600`, "ms": `1767225600000`, "us": `1767225600000999`, "ns": `1767225600000999999`} {
		j := mustLoad(t, small(okSource+"  event_time: {from: value, unit: "+unit+"}\n", "outputs: {main: {stdout: {}}}\n"))
		h := jobstest.New(t, j)
		feed(h, in)
		if m := h.Output("main")[0]; m.Time != 1767225600000 {
			t.Errorf("%s: %v", unit, m.Time)
		}
	}
}

func BenchmarkJob(b *testing.B) {
	j := mustLoad(b, small(okSource+"  event_time: {from: value.ts, max_out_of_orderness: 500ms}\n", `steps:
  - filter: {if: 'value.kind == "temperature" && value.reading >= 5'}
  - key_by: value.device
  - side: {if: value.reading > 80, to: signals, map: '{"device": key, "kind": value.kind, "ts": value.ts, "level": value.reading}'}
  - window: {tumbling: 10s, aggregate: {n: count(), sum: sum(value.reading), max: max(value.reading)}}
outputs:
  main: {kafka: {topic: out}}
  signals: {bus: signals}
`))
	env := &jobs.Env{}
	decode := mustDecoder(j, env)
	var ms []jobs.Message
	for i := range 1000 {
		ms = append(ms, jobs.Message{Value: fmt.Appendf(nil, `{"device":"device-%06d","kind":"temperature","ts":%d,"reading":%d.731,"seq":918273,"site":"plant-3",`+
			`"line":17,"fw":"2.14.7","battery":87.5,"lat":52.52001,"lon":13.40495,"tags":["floor-2","hall-b"],"status":"ok","note":"within limits"}`, i*7%1000, 1767225600000+int64(i)/20, i%95)})
	}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		decode(ms[i%1000 : i%1000+1])
		i++
	}
}

// mustDecoder builds the source and the filter alone.
func mustDecoder(j *jobs.Job, env *jobs.Env) func([]jobs.Message) {
	failed := false
	env.Failed, env.Reject = &failed, func(jobs.Message, jobs.Origin, error) {}
	side, err := j.Node("side-1").Build(env, [][]any{{func(*rec) {}}, {func(*rec) {}}})
	if err != nil {
		panic(err)
	}
	key, err := j.Node("key_by-1").Build(env, [][]any{{side.In}, nil})
	if err != nil {
		panic(err)
	}
	filter, err := j.Node("filter-1").Build(env, [][]any{{key.In}, nil})
	if err != nil {
		panic(err)
	}
	source, err := j.Node("kafka-1").Build(env, [][]any{{filter.In}})
	if err != nil {
		panic(err)
	}
	split := &jobs.Split{ID: "t-0"}
	return func(ms []jobs.Message) { source.Messages(split, ms) }
}

// TestTextOfATopicIsDecoded: what a publisher in the same process has attached to its records is not taken for their text.
func TestTextOfATopicIsDecoded(t *testing.T) {
	published := any([]jobs.Rec[Row]{{}})
	for src, want := range map[string]bool{"  bus: t\n": true, "  bus: t\n  decode: text\n": false} {
		j := mustLoad(t, small(src, "outputs: {main: {stdout: {}}}\n"))
		n := j.Nodes[0]
		failed := false
		built, err := n.Build(&jobs.Env{Failed: &failed}, [][]any{nil})
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := built.Payload(nil, 0, published, 0, 1); ok != want {
			t.Errorf("%q takes what the publisher attached: %v, want %v", src, ok, want)
		}
	}
}

// TestBusStart: where a subscription begins, as `bus tail`, `bus seek` and `replay` say it too; the schema takes the same.
func TestBusStart(t *testing.T) {
	at := jobs.TimeOf(time.Date(2026, 1, 31, 8, 0, 0, 0, time.UTC))
	for text, want := range map[string]jobs.BusStart{
		"earliest": {}, "beginning": {}, "latest": {Latest: true}, "end": {Latest: true}, "17": {At: 17, Exact: true}, `"offset:17"`: {At: 17, Exact: true},
		"2026-01-31T08:00:00Z": {ByTime: true, Time: at}, `"2026-01-31T09:00:00.5+01:00"`: {ByTime: true, Time: at + 500}, "-2h": {ByTime: true, Ago: 2 * time.Hour},
		"-1h30m": {ByTime: true, Ago: 90 * time.Minute}, "-0.5s": {ByTime: true, Ago: time.Second / 2}, `"${env:NOPE:--2h}"`: {ByTime: true, Ago: 2 * time.Hour},
	} {
		src := small("  bus: {topic: t, start: "+text+"}\n", "outputs: {main: {stdout: {}}}\n")
		if got := mustLoad(t, src).Nodes[0].Source.Start; got != want {
			t.Errorf("%s is %+v, want %+v", text, got, want)
		}
		if err := validateYAML(t, src); err != nil {
			t.Errorf("the schema refuses %s: %v", text, err)
		}
	}
}
