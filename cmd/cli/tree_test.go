package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v4"
)

// trial says how the examples of a command are run, where it is not as they stand, in the folder of serving with its process at
// work: jobs/ with the jobs ticks and counts, the topic ticks, more.yaml with a further job, the context lab.
type trial struct {
	alone   bool   // in such a folder of its own, where no process runs
	endless bool   // ended by Ctrl-C once it has said something
	long    bool   // only where SIDESTREAM_DOCS_LONG is set, as in .ci/run, and not in every format: a shorter one of its kind is
	by      string // who runs it instead
	before  string // a line that is run before each of them
	prints  string // what it writes to stdout without -o, and why that is no data of ours
}

// trials is for the commands that need one. Every other example is run as it stands, and must exit with 0.
var trials = map[string]trial{
	"run":                   {alone: true, endless: true, prints: "what jobs with a stdout output write"},
	"dev":                   {alone: true, endless: true, prints: "how the jobs stand, for people; status is for programs"},
	"job remove":            {before: "sidestream job apply gone.yaml"},
	"bus detach":            {before: "sidestream job remove gone --drop-unsent -o name >/dev/null 2>&1; sidestream job apply gone.yaml"},
	"bus remove":            {before: "sidestream job apply old.yaml -o name >/dev/null && sidestream job remove old -o name >/dev/null"},
	"checkpoint list":       {alone: true, before: withSnapshot},
	"checkpoint inspect":    {alone: true, before: withSnapshot},
	"checkpoint export":     {alone: true, before: withSnapshot},
	"checkpoint delete":     {alone: true, before: withSnapshot},
	"wal repair":            {alone: true, before: "sidestream run bounded/ --until-done"},
	"job savepoints delete": {before: "sidestream job savepoint ticks before-upgrade -o name >/dev/null 2>&1 || true"},
	"completion":            {prints: "a script for a shell"},
	"bench all":             {long: true, by: "TestDocs, as README has it; TestBenchAll in every format"},
	"bench bus":             {long: true},
	"bench latency":         {long: true},
	"bench restart":         {long: true},
	"bench five-plus-one":   {long: true},
	"bench isolation":       {long: true},
	"bench hot-add":         {long: true},
	"bench catch-up":        {long: true},
}

// withSnapshot makes a data directory of the job all with a snapshot, which the next run removes as one that was never announced.
const withSnapshot = "sidestream run bounded/ --until-done && mkdir -p sidestream-data/snapshots && cp saved/* sidestream-data/snapshots/"

// endlessly is an example of a command that ends by itself in others.
var endlessly = regexp.MustCompile(`--follow| -f( |$)`)

// leaves returns the commands that can be run, by their names below the root.
func leaves(c *cobra.Command, path []string, all map[string]*cobra.Command) map[string]*cobra.Command {
	if len(path) > 0 && c.Annotations[runs] != "" {
		all[strings.Join(path, " ")] = c
	}
	for _, sub := range c.Commands() {
		if !sub.Hidden && sub.Name() != "help" {
			leaves(sub, append(slices.Clone(path), sub.Name()), all)
		}
	}
	return all
}

// examples are the lines of a command's Example that are commands.
func examples(c *cobra.Command) (lines []string) {
	for line := range strings.Lines(c.Example) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			lines = append(lines, line)
		}
	}
	return lines
}

// TestTree holds every command to the rules: it is told of at length, with examples, which work as they stand; what prints does
// so in every format it says, and those for programs can be read by them; nothing else comes to stdout; the fields of what it
// prints are those that docs/guide/output.md promises. A new command is tried by its own examples: where they need more than the
// folder of serving has, put it there, or give the command a trial.
func TestTree(t *testing.T) {
	root := (&app{name: "sidestream", stdout: os.Stderr, stderr: os.Stderr}).tree()
	all := leaves(root, nil, map[string]*cobra.Command{})
	if len(all) < 15 {
		t.Fatalf("only %d commands were found", len(all))
	}
	for name := range trials {
		if all[name] == nil {
			t.Errorf("there is a trial of the command %q, and no such command", name)
		}
	}
	for c := range commandsOf(root) {
		if c.Short == "" || c.Long == "" && c != root {
			t.Errorf("%s is not told of: it lacks Short or Long", c.CommandPath())
		}
		if c.Hidden || c.Annotations[runs] == "" && (!c.HasSubCommands() || c.Example != "" || c.Flags().Lookup("output") != nil) {
			t.Errorf("%s is not tried: it is hidden, or neither a command nor merely a group of commands", c.CommandPath())
		}
	}
	page, err := filepath.Abs(filepath.Join("../..", outputPage))
	if err != nil {
		t.Fatal(err)
	}
	shapes := map[string]string{}
	t.Run("served", func(t *testing.T) {
		sandbox(t)
		serveJobs(t, "jobs/")
		for _, name := range sortedKeys(all) {
			if !trials[name].alone {
				tryCommand(t, name, all[name], shapes)
			}
		}
	})
	for _, name := range sortedKeys(all) {
		if trials[name].alone {
			t.Run("alone/"+name, func(t *testing.T) {
				sandbox(t)
				tryCommand(t, name, all[name], shapes)
			})
		}
	}
	if !t.Failed() {
		maps.DeleteFunc(shapes, func(name, _ string) bool { return trials[name].long }) // they are told of by a shorter one
		comparePage(t, page, shapes)
	}
}

func sortedKeys[V any](m map[string]V) []string {
	var keys []string
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// commandsOf yields c and all below it.
func commandsOf(c *cobra.Command) func(yield func(*cobra.Command) bool) {
	return func(yield func(*cobra.Command) bool) {
		queue := []*cobra.Command{c}
		for len(queue) > 0 {
			if !yield(queue[0]) {
				return
			}
			queue = append(queue[1:], queue[0].Commands()...)
		}
	}
}

// sandbox makes the folder that examples are run in, and goes there.
func sandbox(t *testing.T) {
	t.Helper()
	inFolderOfJobs(t)
	saveSnapshot(t, "saved")
	for name, content := range map[string]string{
		"bounded/all.yaml": "version: 1\njob: all\nsource: {generator: {count: 10}}\noutputs:\n  main: {bus: all}\n",
		"jobs/ticks.test.yaml": "version: 1\ncases:\n  - name: what is high goes aside\n    input: [{value: {reading: 51}}, {value: {reading: 50}}]\n" +
			"    output: {high: [{value: {reading: 51}}]}\n",
		settingsFile: "contexts:\n  lab: {data_dir: sidestream-data}\n",
		"more.yaml":  "version: 1\njob: more\nsource: {bus: ticks}\noutputs:\n  main: {bus: more}\n",
		"old.yaml":   "version: 1\njob: old\nsource: {bus: ticks}\noutputs:\n  main: {bus: old}\n",
		"gone.yaml":  "version: 1\njob: gone\nsource: {bus: ticks}\noutputs:\n  main: {bus: gone}\n",
	} {
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// tryCommand runs the examples of a command and its formats.
func tryCommand(t *testing.T, name string, c *cobra.Command, shapes map[string]string) {
	t.Run(name, func(t *testing.T) {
		lines, tr := examples(c), trials[name]
		formats := strings.Fields(c.Annotations["formats"])
		if len(lines) == 0 {
			t.Fatal("it has no example")
		}
		if tr.by != "" || tr.long && os.Getenv("SIDESTREAM_DOCS_LONG") == "" {
			return
		}
		if formats == nil && tr.prints == "" {
			t.Error("it has no -o, and nothing says why it needs none")
		}
		for _, line := range lines {
			if !strings.HasPrefix(line, "sidestream "+name+" ") && line != "sidestream "+name {
				t.Errorf("example %q: it is of another command", line)
				continue
			}
			prepare(t, tr)
			out := runExample(t, line, tr)
			if tr.long && formats != nil {
				asJSON(t, line)
			}
			if out != "" && formats == nil && tr.prints == "" && !strings.Contains(line, "|") {
				t.Errorf("example %q writes to stdout, and has no -o:\n%s", line, out)
			}
		}
		if tr.long {
			return // JSON is enough
		}
		for _, format := range formats {
			prepare(t, tr)
			tryFormat(t, name, strings.TrimPrefix(lines[0], "sidestream "), format, shapes)
		}
	})
}

// asJSON runs a line with -o json in a process of its own, which a measurement wants to itself.
func asJSON(t *testing.T, line string) {
	t.Helper()
	var out, said bytes.Buffer
	c := command(".", "bash", "-c", line+" -o json")
	c.Stdout, c.Stderr = &out, &said
	if err := within(c); err != nil || !json.Valid(out.Bytes()) {
		t.Errorf("%s -o json: %v\n%s%s", line, err, out.String(), said.String())
	}
}

// prepare runs what a command needs before each example.
func prepare(t *testing.T, tr trial) {
	t.Helper()
	if tr.before == "" {
		return
	}
	c := command(".", "bash", "-c", tr.before)
	var said bytes.Buffer
	c.Stderr = &said
	if err := within(c); err != nil {
		t.Fatalf("%s: %v\n%s", tr.before, err, said.String())
	}
}

// runExample runs a line as it stands and returns what it writes to stdout.
func runExample(t *testing.T, line string, tr trial) string {
	t.Helper()
	var out, said syncBuffer
	c := command(".", "bash", "-c", line)
	c.Stdout, c.Stderr = &out, &said
	if !(tr.endless || endlessly.MatchString(line)) || strings.Contains(line, "--until-done") {
		if err := within(c); err != nil {
			t.Errorf("example %q: %v\n%s%s", line, err, out.String(), said.String())
		}
		return out.String()
	}
	c.Args[2] = "exec " + line
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- c.Wait() }()
	began := time.Now()
	begun := func() bool { return out.Len() > 0 || strings.Contains(said.String(), "msg=running") }
	for !begun() && len(ended) == 0 && time.Since(began) < patience {
		time.Sleep(20 * time.Millisecond)
	}
	_ = syscall.Kill(c.Process.Pid, syscall.SIGINT)
	select {
	case err := <-ended:
		if err != nil || !begun() {
			t.Errorf("example %q: %v\n%s%s", line, err, out.String(), said.String())
		}
	case <-time.After(patience):
		_ = syscall.Kill(-c.Process.Pid, syscall.SIGKILL)
		t.Errorf("example %q does not end by Ctrl-C\n%s%s", line, out.String(), said.String())
	}
	return out.String()
}

var ofOutput = regexp.MustCompile(`(-o|--output)[ =]\S+`)

// tryFormat runs a line with -o format.
func tryFormat(t *testing.T, name, line, format string, shapes map[string]string) {
	t.Helper()
	line, _, _ = strings.Cut(line, "#")
	for _, cut := range []string{"|", ">", "&&"} {
		line, _, _ = strings.Cut(line, cut)
	}
	args := append(words(ofOutput.ReplaceAllString(line, "")), "-o", format)
	var out, said bytes.Buffer
	a := &app{name: "sidestream", stdout: &out, stderr: &said}
	if code := a.main(args); code != 0 {
		t.Errorf("%q: exit code %d\n%s%s", args, code, out.String(), said.String())
		return
	}
	var err error
	switch format {
	case "json":
		if !json.Valid(out.Bytes()) {
			err = fmt.Errorf("that is no JSON")
		}
		if a.shape != nil {
			shapes[name] = shapeOf(a.shape, a.many)
		}
	case "yaml":
		var v any
		err = yaml.Unmarshal(out.Bytes(), &v)
	case "jsonl":
		for line := range strings.Lines(out.String()) {
			if !json.Valid([]byte(line)) {
				err = fmt.Errorf("%q is no JSON", line)
			}
		}
	case "name":
		for line := range strings.Lines(out.String()) {
			if strings.TrimSpace(line) == "" {
				err = fmt.Errorf("there is a name that is empty")
			}
		}
	}
	if out.Len() == 0 && format != "name" && format != "jsonl" {
		err = fmt.Errorf("nothing is printed")
	}
	if err != nil {
		t.Errorf("%q: %v:\n%s", args, err, out.String())
	}
	if strings.Contains(out.String(), "\x1b[") {
		t.Errorf("%q: there are colours where there is no terminal", args)
	}
}

// words splits a line as a shell does, as far as examples need it.
func words(line string) (ws []string) {
	var w strings.Builder
	quote, in := rune(0), false
	for _, r := range line {
		switch {
		case quote != 0 && r == quote:
			quote = 0
		case quote != 0:
			w.WriteRune(r)
		case r == '\'' || r == '"':
			quote, in = r, true
		case r == ' ':
			if in {
				ws = append(ws, w.String())
				w.Reset()
			}
			in = false
		default:
			w.WriteRune(r)
			in = true
		}
	}
	if in {
		ws = append(ws, w.String())
	}
	return ws
}

// shapeOf lists the fields that a type encodes to as JSON, a line each.
func shapeOf(t reflect.Type, many bool) string {
	var lines []string
	fieldsOf(t, "", func(name, kind string) { lines = append(lines, fmt.Sprintf("  %-36s %s", name, kind)) })
	what := "an object"
	if many {
		what = "a list of objects; jsonl: one a line"
	}
	return what + "\n" + strings.Join(lines, "\n") + "\n"
}

var (
	marshals = reflect.TypeFor[json.Marshaler]()
	ofTime   = reflect.TypeFor[time.Time]()
)

func fieldsOf(t reflect.Type, path string, f func(name, kind string)) {
	switch {
	case t == ofTime:
		f(path, "time")
	case t.Kind() == reflect.Pointer:
		fieldsOf(t.Elem(), path, f)
	case t.Implements(marshals):
		f(path, "any")
	case t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Uint8:
		f(path, "text, base64")
	case t.Kind() == reflect.Slice:
		fieldsOf(t.Elem(), path+"[]", f)
	case t.Kind() == reflect.Map:
		fieldsOf(t.Elem(), path+".NAME", f)
	case t.Kind() == reflect.Struct:
		for _, field := range reflect.VisibleFields(t) {
			name, opts, _ := strings.Cut(field.Tag.Get("json"), ",")
			if len(field.Index) > 1 && !anonymous(t, field) || field.Anonymous && name == "" || !field.IsExported() || name == "-" {
				continue
			}
			if name == "" {
				name = field.Name
			}
			ours := strings.TrimPrefix(path+"."+name, ".")
			fieldsOf(field.Type, ours, func(name, kind string) {
				if strings.Contains(opts, "omit") && name == ours {
					kind += ", or missing"
				}
				f(name, kind)
			})
		}
	case t.Kind() == reflect.Bool:
		f(path, "true or false")
	case t.Kind() == reflect.String:
		f(path, "text")
	case t.Kind() == reflect.Interface:
		f(path, "any")
	default:
		f(path, "number")
	}
}

// anonymous reports whether a field of an embedded struct shows as one of t's own.
func anonymous(t reflect.Type, field reflect.StructField) bool {
	for i := range len(field.Index) - 1 {
		if at := t.FieldByIndex(field.Index[:i+1]); !at.Anonymous || at.Tag.Get("json") != "" {
			return false
		}
	}
	return true
}

const outputPage = "docs/guide/output.md"

var shapesOnPage = regexp.MustCompile(`(?s)(<!-- fields: .*? -->\n).*(<!-- end of fields -->\n)`)

// comparePage wants the fields of the page to be those that there are; with UPDATE_DOCS set it writes them there.
func comparePage(t *testing.T, page string, shapes map[string]string) {
	var want strings.Builder
	for _, name := range sortedKeys(shapes) {
		fmt.Fprintf(&want, "### %s\n\n```text\n%s```\n\n", name, shapes[name])
	}
	b, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	m := shapesOnPage.FindSubmatch(b)
	if m == nil {
		t.Fatalf("%s has no place for the fields", outputPage)
	}
	now := shapesOnPage.ReplaceAllFunc(b, func([]byte) []byte { return slices.Concat(m[1], []byte("\n"+want.String()), m[2]) })
	if bytes.Equal(b, now) {
		return
	}
	if os.Getenv("UPDATE_DOCS") == "" {
		t.Errorf("%s promises other fields than the commands print; where that is meant, UPDATE_DOCS=1 go test ./cmd/cli -run TestTree writes them there:\n%s", outputPage, want.String())
		return
	}
	if err := os.WriteFile(page, now, 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestTreeFinds: the rules refuse what they are there for.
func TestTreeFinds(t *testing.T) {
	type inner struct {
		A int `json:"a"`
	}
	type outer struct {
		inner
		B    []inner        `json:"b,omitempty"`
		C    map[string]any `json:"c"`
		At   *time.Time     `json:"at,omitempty"`
		None string         `json:"-"`
	}
	want := "an object\n" + fmt.Sprintf("  %-36s %s\n", "b[].a", "number") + fmt.Sprintf("  %-36s %s\n", "c.NAME", "any") + fmt.Sprintf("  %-36s %s\n", "at", "time, or missing")
	got := shapeOf(reflect.TypeFor[outer](), false)
	if !strings.Contains(got, fmt.Sprintf("  %-36s %s\n", "a", "number")) || strings.ReplaceAll(got, fmt.Sprintf("  %-36s %s\n", "a", "number"), "") != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if got := words(`job apply 'a b.yaml' --x "c d"  e`); !slices.Equal(got, []string{"job", "apply", "a b.yaml", "--x", "c d", "e"}) {
		t.Errorf("%q", got)
	}
	if _, err := exec.LookPath("sidestream"); err != nil {
		t.Error(err)
	}
}
