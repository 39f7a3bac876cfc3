package spec

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/jobs/connector"
)

// Config says where definitions are loaded.
type Config struct {
	Connectors connector.Registry // what source and outputs may name
	Env        func(name string) (value string, set bool)
	AllowEnv   []string // names, or patterns with *, of what ${env:NAME} may read; nil means DefaultAllowEnv
	Place      connector.LoadEnv
	Beside     []*jobs.Job // of the set too, but not from a file: written in Go, or running already
	// NoEnv gives what stands for a variable that the environment has not and that has no default, and for the file of a
	// secret, which is not read then; nil makes the former an error.
	NoEnv func(name string) string
}

func (c Config) withDefaults() Config {
	if c.Env == nil {
		c.Env = os.LookupEnv
	}
	if c.AllowEnv == nil {
		c.AllowEnv = DefaultAllowEnv()
	}
	return c
}

// Load reads the definitions in files, and in the .yaml and .yml files of directories, and returns their jobs, in the
// order of paths and names. It returns either no problem and every job, or every problem and no job.
func Load(c Config, paths ...string) ([]*jobs.Job, []Problem) {
	js, problems, _ := Check(c, paths...)
	return js, problems
}

// Check is Load that also tells what is odd about the set of jobs, where it finds no problem.
func Check(c Config, paths ...string) (js []*jobs.Job, problems, warnings []Problem) {
	files, problems := ReadFiles(paths...)
	return newLoader(c).check(files, problems)
}

// File is a file of definitions that has been read.
type File struct {
	Name    string // as problems name it
	Content []byte
}

// CheckFiles is Check of files that somebody else has read.
func CheckFiles(c Config, files ...File) (js []*jobs.Job, problems, warnings []Problem) {
	return newLoader(c).check(files, nil)
}

// LoadBytes is Load of one file's content.
func LoadBytes(c Config, name string, content []byte) ([]*jobs.Job, []Problem) {
	js, problems, _ := CheckFiles(c, File{name, content})
	return js, problems
}

// ReadFiles reads files, and the .yaml and .yml files of directories, as Load does.
func ReadFiles(paths ...string) (files []File, problems []Problem) {
	for _, p := range paths {
		names, problem := filesAt(p, isDefinition, "there is no .yaml file in it")
		if problem != nil {
			problems = append(problems, *problem)
		}
		for _, name := range names {
			if IsCaseFile(name) {
				problems = append(problems, Problem{File: name, Msg: "it holds cases, not jobs", Hint: "run them with the command test"})
				continue
			}
			b, err := readFile(name)
			if errors.Is(err, errPipe) {
				problems = append(problems, Problem{File: name, Msg: err.Error(), Hint: "/dev/stdin reads what is piped in"})
				continue
			}
			if err != nil {
				problems = append(problems, Problem{File: name, Msg: err.Error()})
				continue
			}
			files = append(files, File{name, b})
		}
	}
	return files, problems
}

var errPipe = errors.New("it is a pipe, not a file")

// readFile reads no more of a file than says that it is too large: some have no size, and no end. A pipe that nobody may ever write to is
// not waited for.
func readFile(name string) (b []byte, err error) {
	if NamedPipe(name) {
		return nil, errPipe
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // it was only read
	return io.ReadAll(io.LimitReader(f, MaxFileBytes+1))
}

type loader struct {
	cfg      Config
	jobs     []*jobs.Job
	problems []Problem
	warnings []Problem
	named    map[string]Problem // jobs by name, with where
	owned    map[string]Problem // places that one output may have, with where
	readers  []reader           // sources that may read what outputs write
	topics   map[string]described
	uses     []use
}

// described is what has been said of a topic so far, and where each property was said.
type described struct {
	topic jobs.Topic
	where map[string]Problem
}

func newLoader(c Config) *loader {
	l := &loader{cfg: c.withDefaults(), named: map[string]Problem{}, owned: map[string]Problem{}, topics: map[string]described{}}
	for _, j := range c.Beside {
		l.beside(j)
	}
	return l
}

// check loads files, some of which could not be read.
func (l *loader) check(files []File, unread []Problem) (js []*jobs.Job, problems, warnings []Problem) {
	l.problems = append(l.problems, unread...)
	for _, f := range files {
		l.load(f.Name, f.Content)
	}
	return l.result()
}

func (l *loader) result() (js []*jobs.Job, problems, warnings []Problem) {
	l.checkCycles()
	l.overFiles()
	if len(l.problems) > 0 {
		return nil, l.problems[:min(len(l.problems), maxProblems)], nil
	}
	l.lonely()
	return l.jobs, nil, l.warnings[:min(len(l.warnings), maxProblems)]
}

const noSuchFile = "there is no such file"

// isDefinition reports whether a file holds definitions, by its name.
func isDefinition(name string) bool {
	ext := filepath.Ext(name)
	return (ext == ".yaml" || ext == ".yml") && !IsCaseFile(name)
}

// because is why something of a file cannot be done, without its name.
func because(err error) string {
	var at *fs.PathError
	if errors.As(err, &at) {
		return at.Err.Error()
	}
	return err.Error()
}

// filesAt lists the files at a path: itself, or of a directory those that are wanted; where it has none, missing is said.
func filesAt(path string, wanted func(name string) bool, missing string) ([]string, *Problem) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, &Problem{File: path, Msg: noSuchFile}
	case err != nil:
		return nil, &Problem{File: path, Msg: because(err)}
	}
	if !info.IsDir() {
		return []string{path}, nil
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, &Problem{File: path, Msg: because(err)}
	}
	var names []string
	for _, e := range entries {
		if !e.IsDir() && wanted(e.Name()) {
			names = append(names, filepath.Join(path, e.Name()))
		}
	}
	if names == nil {
		return nil, &Problem{File: path, Msg: missing}
	}
	return names, nil
}

func (l *loader) load(name string, content []byte) {
	f := newFile(name, content)
	roots := f.documents()
	if len(roots) == 0 && len(f.problems) == 0 {
		f.add(1, 1, "", "there is no job in it")
	}
	for i, root := range roots {
		d := &document{loader: l, file: f, root: root, end: len(f.src)}
		if i+1 < len(roots) {
			d.end = f.offset(roots[i+1].Line, 1)
		}
		if j := d.job(); j != nil {
			l.jobs = append(l.jobs, j)
		}
	}
	f.credentials()
	l.commented(f)
	l.problems = append(l.problems, f.sorted()...)
}

// sorted returns the problems of the file in its order, with their lines, now that it is known what to hide of them.
func (f *file) sorted() []Problem {
	slices.SortStableFunc(f.problems, func(a, b Problem) int {
		if a.Line != b.Line {
			return a.Line - b.Line
		}
		return a.Column - b.Column
	})
	f.problems = f.problems[:min(len(f.problems), maxProblems)]
	f.show()
	return f.problems
}

// document is one job's definition.
type document struct {
	*loader
	*file
	root *yaml.Node
	end  int // of its text, where the next one begins
}

// definition returns the document's text.
func (d *document) definition() []byte {
	text := d.src[d.offset(d.root.Line, 1):d.end]
	if i := strings.LastIndex(text, "\n---"); i >= 0 && d.end < len(d.src) {
		text = text[:i+1]
	}
	return []byte(text)
}

// claim takes what only one may have; it reports who has it already.
func (d *document) claim(m map[string]Problem, key string, n *yaml.Node) (first Problem, ok bool) {
	if first, taken := m[key]; taken {
		return first, false
	}
	m[key] = d.file.at(n)
	return Problem{}, true
}
