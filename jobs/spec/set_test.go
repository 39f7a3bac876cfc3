package spec

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sidestream-dev/sidestream/jobs"
	fileconn "github.com/sidestream-dev/sidestream/jobs/connector/file"
)

// hop is a job that carries records from one topic to another.
func hop(name, from, to string) string {
	return fmt.Sprintf("version: 1\njob: %s\nsource: {bus: %s}\noutputs: {main: {bus: %s}}\n", name, from, to)
}

// goHop is the same, written in Go.
func goHop(name, from string, to jobs.Topic) *jobs.Job {
	j := jobs.New(name)
	s := jobs.FromTopic(j, jobs.BusTopic[string]{Name: from})
	jobs.ToTopic(s, jobs.BusTopic[string]{Name: to.Name, Topic: to})
	return j
}

func words(ps []Problem) string {
	var all []string
	for _, p := range ps {
		s := fmt.Sprintf("%s:%d:%d: %s", filepath.Base(p.File), p.Line, p.Column, p.Msg)
		for _, a := range p.Also {
			s += fmt.Sprintf(" (%s:%d:%d: %s)", filepath.Base(a.File), a.Line, a.Column, a.Msg)
		}
		all = append(all, s+" | "+p.Hint)
	}
	return strings.Join(all, "\n")
}

func checkAll(t *testing.T, beside []*jobs.Job, files map[string]string) (js []*jobs.Job, problems, warnings string) {
	t.Helper()
	dir := t.TempDir()
	for name, src := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(src), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c := testConfig()
	c.Beside = beside
	js, ps, ws := Check(c, dir)
	return js, words(ps), words(ws)
}

// TestLonelyTopics: what nobody reads or writes is a warning, unless it is made to be looked at.
func TestLonelyTopics(t *testing.T) {
	const mayRead, mayWrite = "it may be right: with a job outside these files, or with `sidestream bus tail`", "it may be right, if a job outside these files writes it"
	head := func(name string) string { return "version: 1\njob: " + name + "\nsource:\n" + okSource }
	tests := []struct {
		name   string
		beside []*jobs.Job
		files  map[string]string
		want   string
	}{
		{"read and written", nil, map[string]string{"a.yaml": head("a") + "outputs: {main: {bus: t}}\n", "b.yaml": "version: 1\njob: b\nsource: {bus: t}\noutputs: {main: {stdout: {}}}\n"}, ""},
		{"misspelt", nil, map[string]string{"a.yaml": head("a") + "outputs: {main: {bus: signals}}\n", "b.yaml": "version: 1\njob: b\nsource: {bus: {topic: signal}}\noutputs: {main: {stdout: {}}}\n"},
			"a.yaml:5:23: nobody reads the topic signals | did you mean signal?\nb.yaml:3:23: nobody writes the topic signal | did you mean signals?"},
		{"alone", nil, map[string]string{"a.yaml": hop("a", "in", "out")},
			"a.yaml:3:15: nobody writes the topic in | " + mayWrite + "\na.yaml:4:23: nobody reads the topic out | " + mayRead},
		{"described only", nil, map[string]string{"a.yaml": head("a") + "topics: {t: {partitions: 4}}\noutputs: {main: {stdout: {}}}\n"},
			"a.yaml:5:10: nobody reads or writes the topic t | remove it, or let a job write it"},
		{"dead letters", nil, map[string]string{"a.yaml": head("a") + "  on_error: {to: dead}\noutputs: {main: {stdout: {}}, dead: {bus: letters}}\n"}, ""},
		{"retained", nil, map[string]string{"a.yaml": head("a") + "topics: {t: {retention: {max_age: 1d}}}\noutputs: {main: {bus: t}}\n"}, ""},
		{"a job in Go beside", []*jobs.Job{goHop("g", "out", jobs.Topic{Name: "in"})}, map[string]string{"a.yaml": head("a") + "outputs: {main: {bus: out}}\n", "b.yaml": "version: 1\njob: b\nsource: {bus: in}\noutputs: {main: {stdout: {}}}\n"}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			js, problems, warnings := checkAll(t, tt.beside, tt.files)
			if problems != "" || warnings != tt.want || len(js) != len(tt.files) {
				t.Errorf("%d jobs, problems %q, warnings\n%s\nwant\n%s", len(js), problems, warnings, tt.want)
			}
		})
	}
}

// TestSetProblems: what is wrong between files names every place that has a part in it.
func TestSetProblems(t *testing.T) {
	const breakIt = "break the circle, or give one of its topics on_full: drop_oldest: a full topic in it holds back the job that must empty it"
	sink := jobs.New("g")
	jobs.To(jobs.FromTopic(sink, jobs.BusTopic[string]{Name: "x"}), "main", fileconn.Sink{Path: "own.jsonl"}, jobs.JSON[string]())
	tests := []struct {
		name   string
		beside []*jobs.Job
		files  map[string]string
		want   string
	}{
		{"a circle of one", nil, map[string]string{"a.yaml": hop("a", "t", "t")},
			"a.yaml:4:23: the jobs feed themselves over the bus: a → a; here a writes t (a.yaml:3:15: a reads t) | " + breakIt},
		{"a circle of three, told once", nil, map[string]string{"a.yaml": hop("a", "x", "y"), "b.yaml": hop("b", "y", "z"), "c.yaml": hop("c", "z", "x")},
			"a.yaml:4:23: the jobs feed themselves over the bus: a → b → c → a; here a writes y (b.yaml:3:15: b reads y) (b.yaml:4:23: b writes z) (c.yaml:3:15: c reads z) (c.yaml:4:23: c writes x) (a.yaml:3:15: a reads x) | " + breakIt},
		{"two circles, both told", nil, map[string]string{"a.yaml": hop("a", "t", "t"), "b.yaml": hop("b", "u", "u")},
			"a.yaml:4:23: the jobs feed themselves over the bus: a → a; here a writes t (a.yaml:3:15: a reads t) | " + breakIt +
				"\nb.yaml:4:23: the jobs feed themselves over the bus: b → b; here b writes u (b.yaml:3:15: b reads u) | " + breakIt},
		{"a tail that leads into a circle is none", nil, map[string]string{"a.yaml": hop("a", "s", "t"), "b.yaml": hop("b", "t", "t")},
			"b.yaml:4:23: the jobs feed themselves over the bus: b → b; here b writes t (b.yaml:3:15: b reads t) | " + breakIt},
		{"a circle through Go", []*jobs.Job{goHop("g", "y", jobs.Topic{Name: "x"})}, map[string]string{"a.yaml": hop("a", "x", "y")},
			"a.yaml:4:23: the jobs feed themselves over the bus: a → g → a; here a writes y (.:0:0: g reads y) (.:0:0: g writes x) (a.yaml:3:15: a reads x) | " + breakIt},
		{"a circle that drops", []*jobs.Job{goHop("g", "y", jobs.Topic{Name: "x", OnFull: dropOldest})}, map[string]string{"a.yaml": hop("a", "x", "y")}, ""},
		{"one name", nil, map[string]string{"a.yaml": hop("j", "x", "y"), "b.yaml": hop("j", "z", "w")},
			"b.yaml:2:6: there is a job j already (a.yaml:2:6: the first is here) | "},
		{"the name of a job in Go", []*jobs.Job{goHop("j", "y", jobs.Topic{Name: "x"})}, map[string]string{"a.yaml": hop("j", "z", "w")},
			"a.yaml:2:6: there is a job j already (.:0:0: the first is of a job that no file here defines) | "},
		{"a topic in two ways", nil, map[string]string{"a.yaml": hop("a", "x", "y") + "topics: {t: {partitions: 4, limit: 1MiB}}\n", "b.yaml": hop("b", "z", "w") + "topics: {t: {limit: 2MiB, partitions: 4}}\n"},
			"b.yaml:5:14: the topic t: limit is given differently elsewhere (a.yaml:5:29: the first is here) | say it in one place"},
		{"a topic in another way than in Go", []*jobs.Job{goHop("g", "v", jobs.Topic{Name: "t", Partitions: 2})}, map[string]string{"a.yaml": hop("a", "x", "y") + "topics: {t: {partitions: 4}}\n"},
			"a.yaml:5:14: the topic t: partitions is given differently elsewhere (.:0:0: the first is of a job that no file here defines) | say it in one place"},
		{"a file that Go writes", []*jobs.Job{sink}, map[string]string{"a.yaml": "version: 1\njob: a\nsource: {bus: t}\noutputs: {main: {file: {path: ./own.jsonl}}}\n"},
			"a.yaml:4:31: output main: another output writes the same file (.:0:0: the first is of a job that no file here defines) | it belongs to one output alone: name another"},
		{"a file of two jobs", nil, map[string]string{"a.yaml": "version: 1\njob: a\nsource: {bus: t}\noutputs: {main: {file: {path: x}}}\n", "b.yaml": "version: 1\njob: b\nsource: {bus: t}\noutputs: {main: {file: {path: y/../x}}}\n"},
			"b.yaml:4:31: output main: another output writes the same file (a.yaml:4:31: the first is here) | it belongs to one output alone: name another"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			js, problems, _ := checkAll(t, tt.beside, tt.files)
			if problems != tt.want || (js == nil) != (tt.want != "") {
				t.Errorf("%d jobs, got\n%s\nwant\n%s", len(js), problems, tt.want)
			}
		})
	}
}

// TestOverFiles: who reads the file that another job writes is warned, also by a pattern, and where the reader is written in Go.
func TestOverFiles(t *testing.T) {
	const hint = "give the output a topic too (bus: NAME), and let the job read that: what a file has may be cut back or come again behind a crash"
	files := filepath.Join(t.TempDir(), "out-%s.jsonl")
	writer := fmt.Sprintf("version: 1\njob: writer\nsource: {generator: {count: 1}}\noutputs:\n  main: {file: {path: %q}}\n", fmt.Sprintf(files, "1"))
	reader := func(path string) string {
		return fmt.Sprintf("version: 1\njob: reader\nsource: {file: {path: %q}}\noutputs: {main: {stdout: {}}}\n", path)
	}
	inGo := jobs.New("go")
	jobs.To(jobs.From(inGo, fileconn.Source{Path: fmt.Sprintf(files, "*")}, jobs.JSON[string]()), "main", fileconn.Sink{Path: fmt.Sprintf(files, "go")}, jobs.JSON[string]())
	tests := []struct {
		name   string
		beside []*jobs.Job
		path   string
		want   string
	}{
		{"the file itself", nil, fmt.Sprintf(files, "1"), "writer.yaml:5:23: job reader reads this file too (file-1) | " + hint},
		{"a pattern", nil, fmt.Sprintf(files, "?"), "writer.yaml:5:23: job reader reads this file too (file-1) | " + hint},
		{"another", nil, fmt.Sprintf(files, "2"), ""},
		{"written in Go", []*jobs.Job{inGo}, fmt.Sprintf(files, "2"), "writer.yaml:5:23: job go reads this file too (file-1) | " + hint},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, problems, warnings := checkAll(t, tt.beside, map[string]string{"writer.yaml": writer, "reader.yaml": reader(tt.path)})
			if problems != "" || warnings != tt.want {
				t.Errorf("problems %q, warnings\n%s\nwant\n%s", problems, warnings, tt.want)
			}
		})
	}
}

// TestTopicAt: what is said of a topic of the bus is found, not what another connector says of one of the same name.
func TestTopicAt(t *testing.T) {
	def := []byte(`version: 1
job: j
source: {kafka: {brokers: b, topic: t, partitions: 3}}
outputs:
  out: {kafka: {brokers: b, topic: t, partitions: 4}}
  main:
    bus: {topic: t, partitions: 5}
topics:
  u: {retention: {max_age: 1h}}
`)
	for _, tt := range []struct {
		topic, property string
		line            int
	}{{"t", "partitions", 7}, {"u", "retention.max_age", 9}, {"u", "partitions", 0}, {"v", "partitions", 0}} {
		if line, _, _ := TopicAt(def, tt.topic, tt.property); line != tt.line {
			t.Errorf("%s of %s is in line %d, want %d", tt.property, tt.topic, line, tt.line)
		}
	}
}
