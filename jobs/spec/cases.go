package spec

import (
	"path/filepath"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/jobs/spec/expr"
)

// Case is one test of a job, or of several that the bus joins: what goes in, in order, and what is to come out. It speaks
// of records, event times and outputs only, so that it holds wherever the definition runs.
type Case struct {
	File   string
	Line   int // of its name
	Name   string
	Jobs   []*jobs.Job // each behind those whose topics it reads
	Input  []Moment
	End    bool   // the input ends behind the last moment
	Fails  string // what the error says that the job must fail with; "" if it must not fail
	Output []Expected
}

// MomentKind is the kind of a Moment.
type MomentKind uint8

const (
	MomentRecord    MomentKind = iota
	MomentWatermark            // event time moves on
	MomentIdle                 // partitions hold no event time back until their next record
)

// Moment is one thing that comes to a job's source.
type Moment struct {
	Kind      MomentKind
	Line      int
	Job       string
	Topic     string // what the record says of where it came from
	Partition int    // -1 for all that the source has: never of a record
	Message   jobs.Message
	Watermark jobs.Watermark
}

// Order says how records are compared with those expected.
type Order uint8

const (
	InOrder  Order = iota // just these, in this order
	AnyOrder              // just these
	Contains              // these, and maybe others
)

// Expected is what one output is to be given.
type Expected struct {
	Line    int
	Name    string // as the case has it
	Job     string
	Output  string
	Order   Order
	Records []ExpectedRecord

	file   *file
	name   *yaml.Node // before the list
	list   *yaml.Node // of Records
	inFlow bool       // the list stands within braces
}

// ExpectedRecord is one record that is to come out. What is nil is not looked at.
type ExpectedRecord struct {
	Line    int
	Value   []byte // JSON
	Has     []byte // JSON: the value has at least this
	Text    *string
	Key     []byte // JSON
	Time    *jobs.Time
	Headers map[string]string

	item int  // which of the list it is
	file bool // it is one of a file's
}

// caseExt is how the name of a file with cases ends, before .yaml.
const caseExt = ".test"

// IsCaseFile reports whether a file holds cases, by its name.
func IsCaseFile(name string) bool {
	ext := filepath.Ext(name)
	return (ext == ".yaml" || ext == ".yml") && strings.HasSuffix(strings.TrimSuffix(name, ext), caseExt)
}

// caseFileOf returns the name of the file that holds the cases of a definition file.
func caseFileOf(name string) string {
	ext := filepath.Ext(name)
	return strings.TrimSuffix(name, ext) + caseExt + ext
}

// LoadCases reads the cases in files, beside definition files, and in directories, and the jobs that they are of. It
// returns either no problem and every case, in the order of paths and lines, or every problem and no case. The
// environment is not read: ${env:NAME} is what the cases say it is, else its default.
func LoadCases(c Config, paths ...string) ([]*Case, []Problem) {
	l := &caseLoader{cfg: c.withDefaults()}
	for _, p := range paths {
		for _, name := range l.files(p) {
			b, err := readFile(name)
			if err != nil {
				l.problems = append(l.problems, Problem{File: name, Msg: err.Error()})
				continue
			}
			l.load(name, b)
		}
	}
	if len(l.problems) > 0 {
		return nil, l.problems[:min(len(l.problems), maxProblems)]
	}
	return l.cases, nil
}

type caseLoader struct {
	cfg      Config
	cases    []*Case
	problems []Problem
}

// files lists the files with cases at a path.
func (l *caseLoader) files(path string) []string {
	missing := "there is no file with cases (NAME" + caseExt + ".yaml) in it"
	names, problem := filesAt(path, IsCaseFile, missing)
	if len(names) == 1 && names[0] == path && !IsCaseFile(path) {
		if names, problem = filesAt(caseFileOf(path), IsCaseFile, missing); problem != nil && problem.Msg == noSuchFile {
			problem = &Problem{File: path, Msg: "there are no cases beside it", Hint: "write them in " + caseFileOf(path)}
		}
	}
	if problem != nil {
		l.problems = append(l.problems, *problem)
	}
	return names
}

func (l *caseLoader) load(name string, content []byte) {
	f := newFile(name, content)
	roots := f.documents()
	if len(roots) == 0 && len(f.problems) == 0 {
		f.add(0, 0, "", "there is no case in it")
	}
	for _, root := range roots {
		(&suite{caseLoader: l, file: f, root: root}).read()
	}
	l.add(f.sorted())
}

// add takes problems, each once: several files of cases may be of one job.
func (l *caseLoader) add(ps []Problem) {
	for _, p := range ps {
		if !slices.ContainsFunc(l.problems, func(q Problem) bool { return q.String() == p.String() }) {
			l.problems = append(l.problems, p)
		}
	}
}

// suite is one document of cases.
type suite struct {
	*caseLoader
	*file
	root *yaml.Node
	jobs []*jobs.Job
	env  map[string]string
}

func (s *suite) read() {
	b := s.block(s.root, "a file of cases", suiteFields)
	if s.root.Kind != yaml.MappingNode {
		return
	}
	if n := b.get("version"); b.has("version") && (n.Kind != yaml.ScalarNode || n.Value != "1") {
		s.problem(n, "", "version: want 1, not %s", describe(n))
	}
	s.env = map[string]string{}
	if b.has("env") {
		for _, e := range s.pairs(b.get("env"), "env") {
			if v, ok := s.word(e.value, "env."+e.name.Value); ok {
				s.env[e.name.Value] = v
			}
		}
	}
	if !s.loadJobs(b) || !b.has("cases") {
		return
	}
	n := b.get("cases")
	switch {
	case n.Kind != yaml.SequenceNode:
		s.problem(n, "begin each case with -", "cases: want a list, not %s", describe(n))
		return
	case len(n.Content) == 0:
		s.problem(n, "", "cases: there is none in it")
	}
	names := map[string]int{}
	for _, c := range n.Content {
		s.readCase(c, names)
	}
}

// loadJobs loads the definitions; ok is false where they are wrong, which makes it useless to read on.
func (s *suite) loadJobs(b block) (ok bool) {
	var paths []string
	at := s.root
	if b.has("jobs") {
		at = b.get("jobs")
		if at.Kind != yaml.SequenceNode || len(at.Content) == 0 {
			s.problem(at, "write [FILE, …], relative to this file", "jobs: want a list of files, not %s", describe(at))
			return false
		}
		for _, n := range at.Content {
			if p, ok := s.word(n, "jobs"); ok {
				if !filepath.IsAbs(p) {
					p = filepath.Join(filepath.Dir(s.file.name), p)
				}
				paths = append(paths, p)
			}
		}
	} else {
		ext := filepath.Ext(s.file.name)
		paths = []string{strings.TrimSuffix(s.file.name, caseExt+ext) + ext}
	}
	cfg := s.cfg
	cfg.Env = func(name string) (string, bool) { v, set := s.env[name]; return v, set }
	cfg.NoEnv = func(name string) string {
		return "no-" + strings.ToLower(strings.ReplaceAll(name, "_", "-")) + ".invalid:1"
	}
	loaded, problems := Load(cfg, paths...)
	if len(problems) > 0 {
		if !b.has("jobs") && len(problems) == 1 && problems[0].Line == 0 && problems[0].Msg == noSuchFile {
			s.problem(at, "say which with jobs: [FILE, …]", "there is no %s beside it", filepath.Base(paths[0]))
			return false
		}
		s.caseLoader.add(problems)
		return false
	}
	s.jobs = inOrder(loaded)
	return true
}

// inOrder returns jobs each behind those that write what it reads. There is no circle: the loader has seen to that.
func inOrder(all []*jobs.Job) []*jobs.Job {
	var out []*jobs.Job
	seen := map[*jobs.Job]bool{}
	var visit func(j *jobs.Job)
	visit = func(j *jobs.Job) {
		if seen[j] {
			return
		}
		seen[j] = true
		for _, other := range all {
			for _, n := range j.Nodes {
				if n.Source != nil && n.Source.Source == nil && writes(other, n.Source.Topic) {
					visit(other)
				}
			}
		}
		out = append(out, j)
	}
	for _, j := range all {
		visit(j)
	}
	return out
}

func writes(j *jobs.Job, topic string) bool {
	return slices.ContainsFunc(j.Outputs(), func(n *jobs.Node) bool { return n.Output.Sink == nil && n.Output.Topic == topic })
}

// takes reports whether a job has a source that cases can feed: one that no other of the jobs writes.
func (s *suite) takes(j *jobs.Job) bool {
	for _, n := range j.Nodes {
		if n.Source != nil && (n.Source.Source != nil || !slices.ContainsFunc(s.jobs, func(o *jobs.Job) bool { return writes(o, n.Source.Topic) })) {
			return true
		}
	}
	return false
}

// jobNames returns the names of the jobs for which is is true.
func (s *suite) jobNames(is func(*jobs.Job) bool) []string {
	var names []string
	for _, j := range s.jobs {
		if is(j) {
			names = append(names, j.Name)
		}
	}
	return names
}

// job returns the job called name, or says that there is none.
func (s *suite) job(n *yaml.Node, name string) *jobs.Job {
	for _, j := range s.jobs {
		if j.Name == name {
			return j
		}
	}
	s.problem(n, expr.DidYouMean(name, s.jobNames(func(*jobs.Job) bool { return true })), "there is no job %s here", name)
	return nil
}
