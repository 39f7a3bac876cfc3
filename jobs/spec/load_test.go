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
