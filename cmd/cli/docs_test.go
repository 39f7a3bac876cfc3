package cli

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sidestream-dev/sidestream/internal/port"
	"github.com/sidestream-dev/sidestream/jobs/connector/all"
	"github.com/sidestream-dev/sidestream/jobs/spec"
	"github.com/sidestream-dev/sidestream/jobs/spec/expr"
	"github.com/sidestream-dev/sidestream/runtime"
	"github.com/sidestream-dev/sidestream/runtime/admin"
)

const (
	root  = "../.."
	noVCS = "GOFLAGS=-buildvcs=false" // the sources may belong to another user, or be committed to at this moment
)

// apart lists the blocks of commands that are not run with the others of their page, and what is done instead. Whoever adds
// one says who runs it.
var apart = map[string]func(t *testing.T, block string){
	"go run ./cmd/sidestream dev": runDev,
	"go test ./...":               func(*testing.T, string) {}, // it is what runs this test
	"sidestream bench all": func(t *testing.T, block string) { // takes minutes; .ci/run asks for it
		if os.Getenv("SIDESTREAM_DOCS_LONG") != "" {
			shIn(10*time.Minute, t, t.TempDir(), block)
		}
	},
}

// block is a fenced block of a page.
type block struct {
	lang string
	text string
	line int
}

// name is the file that a block is, if its first line says so: "# minutes.yaml", "// main.go".
func (b block) name() string {
	first, _, _ := strings.Cut(b.text, "\n")
	m := regexp.MustCompile(`^(?:#|//) ([\w.-]+\.(?:yaml|go))$`).FindStringSubmatch(first)
	if m == nil {
		return ""
	}
	return m[1]
}

func blocks(t *testing.T, page string) []block {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, page))
	if err != nil {
		t.Fatal(err)
	}
	var out []block
	open := -1
	for i, line := range strings.Split(string(b), "\n") {
		switch {
		case !strings.HasPrefix(line, "```") && open >= 0:
			out[open].text += line + "\n"
		case strings.HasPrefix(line, "```") && open >= 0:
			open = -1
		case strings.HasPrefix(line, "```"):
			out = append(out, block{lang: strings.TrimPrefix(line, "```"), line: i + 2})
			open = len(out) - 1
		}
	}
	if open >= 0 {
		t.Fatalf("%s:%d: a block without an end", page, out[open].line)
	}
	return out
}

// pages are README and what docs has for users. Decisions (docs/adr) show sketches and are true of their day.
func pages(t *testing.T) []string {
	t.Helper()
	guide, err := filepath.Glob(filepath.Join(root, "docs/guide/*.md"))
	if err != nil || len(guide) < 2 {
		t.Fatal(guide, err)
	}
	out := []string{"README.md"}
	for _, g := range guide {
		out = append(out, strings.TrimPrefix(g, root+"/"))
	}
	return out
}

// TestDocs does what the pages say: YAML is loaded, Go is compiled, commands are run in the order of the page, in one folder,
// and print what the page says they print. Where a page has "…", anything may stand.
func TestDocs(t *testing.T) {
	if _, err := exec.LookPath("bash"); err != nil {
		cannot(t, "there is no bash to run the pages' commands with")
	}
	bin := t.TempDir()
	for _, page := range pages(t) {
		t.Run(strings.ReplaceAll(page, "/", "-"), func(t *testing.T) {
			p := &docPage{t: t, page: page, bin: bin, dir: t.TempDir()}
			p.check(blocks(t, page))
		})
	}
}

// cannot skips a test that this machine cannot run, except in CI, which must be able to.
func cannot(t *testing.T, why string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(why)
	}
	t.Skip(why)
}

type docPage struct {
	t    *testing.T
	page string
	bin  string // where sidestream is
	dir  string // where the commands run

	script bytes.Buffer
	run    []block        // commands in script, in order
	want   map[int]string // by index in run
}

func (p *docPage) check(all []block) {
	p.want = map[int]string{}
	p.build()
	for i, b := range all {
		where := fmt.Sprintf("%s:%d", p.page, b.line)
		switch b.lang {
		case "yaml":
			p.yaml(where, b)
		case "go":
			compile(p.t, where, b.text)
		case "sh":
			if do, ok := apart[strings.TrimSpace(b.text)]; ok {
				do(p.t, b.text)
				continue
			}
			p.add(b)
		case "text":
			if i > 0 && all[i-1].lang == "sh" && apart[strings.TrimSpace(all[i-1].text)] == nil {
				p.want[len(p.run)-1] = b.text
			}
		default:
			p.t.Errorf("%s: a block of %q: it is sh, yaml, go or text", where, b.lang)
		}
	}
	p.execute()
}

// build makes the program as README says.
func (p *docPage) build() {
	c := exec.Command("go", "install", "./cmd/sidestream")
	c.Dir, c.Env = root, append(os.Environ(), "GOBIN="+p.bin, noVCS)
	if out, err := c.CombinedOutput(); err != nil {
		p.t.Fatalf("%v: %s", err, out)
	}
}

func (p *docPage) yaml(where string, b block) {
	name := b.name()
	if name == "" {
		p.t.Errorf("%s: a definition begins with its file's name: # name.yaml", where)
		return
	}
	if name == "sidestream.yaml" {
		dir := p.t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(b.text), 0o600); err != nil {
			p.t.Fatal(err)
		}
		sh(p.t, dir, filepath.Join(p.bin, "sidestream")+" version")
	} else if spec.IsCaseFile(name) { // the page's own command runs it
	} else if _, problems := spec.LoadBytes(spec.Config{Connectors: all.Registry()}, name, []byte(b.text)); len(problems) > 0 {
		p.t.Errorf("%s: %s", where, problems[0])
	}
	fmt.Fprintf(&p.script, "cat >%s <<'END OF FILE'\n%sEND OF FILE\n", name, b.text)
}

// add takes commands into the page's script. What runs in the background is waited for, as a reader's eyes do.
func (p *docPage) add(b block) {
	text := b.text
	if strings.HasPrefix(text, "go ") {
		text = "(cd \"$ROOT\"\n" + text + ")\n"
	}
	if strings.HasSuffix(strings.TrimSpace(text), "&") {
		text += "until ls */run/admin.sock >/dev/null 2>&1; do sleep 0.05; done\n"
	}
	n := len(p.run)
	fmt.Fprintf(&p.script, "{\n%s} >out.%d 2>err.%d\ntouch done.%d\n", text, n, n, n)
	p.run = append(p.run, b)
}

func (p *docPage) execute() {
	script := "set -e\n" + strings.ReplaceAll(p.script.String(), "127.0.0.1:9600", port.Addr(p.t))
	if strings.Contains(script, "curl ") {
		if _, err := exec.LookPath("curl"); err != nil {
			cannot(p.t, "there is no curl, which the page's commands use")
		}
	}
	abs, err := filepath.Abs(root)
	if err != nil {
		p.t.Fatal(err)
	}
	c := command(p.dir, "bash", "-c", script)
	c.Env = append(os.Environ(), "ROOT="+abs, "GOBIN="+p.bin, noVCS, "PATH="+p.bin+":"+os.Getenv("PATH"), "XDG_CONFIG_HOME="+p.dir)
	err = within(c)
	for n, b := range p.run {
		where := fmt.Sprintf("%s:%d", p.page, b.line)
		out, _ := os.ReadFile(filepath.Join(p.dir, fmt.Sprintf("out.%d", n)))
		if _, missing := os.Stat(filepath.Join(p.dir, fmt.Sprintf("done.%d", n))); missing != nil {
			said, _ := os.ReadFile(filepath.Join(p.dir, fmt.Sprintf("err.%d", n)))
			p.t.Fatalf("%s: these commands failed (%v):\n%s\n%s%s", where, err, b.text, out, said)
		}
		if want, ok := p.want[n]; ok && !like(string(out), want) {
			p.t.Errorf("%s: the commands print\n%s\nthe page says\n%s", where, out, want)
		}
	}
}

// like reports whether got is want, in which "…" stands for anything and a line of it alone for any lines.
func like(got, want string) bool {
	re := regexp.QuoteMeta(strings.TrimSpace(want))
	re = regexp.MustCompile(`(?m)^…$`).ReplaceAllString(re, `(?s:.*)`)
	re = strings.ReplaceAll(re, "…", ".*")
	return regexp.MustCompile("^" + re + "$").MatchString(strings.TrimSpace(got))
}

// command is one that is ended with all it has started.
func command(dir, name string, args ...string) *exec.Cmd {
	c := exec.Command(name, args...)
	c.Dir = dir
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return c
}

// within runs c for as long as a block of a page may take.
func within(c *exec.Cmd) error { return in(2*patience, c) }

func in(limit time.Duration, c *exec.Cmd) error {
	if err := c.Start(); err != nil {
		return err
	}
	stuck := time.AfterFunc(limit, func() { _ = syscall.Kill(-c.Process.Pid, syscall.SIGKILL) })
	defer stuck.Stop()
	err := c.Wait()
	_ = syscall.Kill(-c.Process.Pid, syscall.SIGKILL) // what it left in the background
	return err
}

// sh runs a script.
func sh(t *testing.T, dir, script string) {
	t.Helper()
	shIn(2*patience, t, dir, script)
}

func shIn(limit time.Duration, t *testing.T, dir, script string) {
	t.Helper()
	c := command(dir, "bash", "-ec", script)
	var out bytes.Buffer
	c.Stdout, c.Stderr = &out, &out
	if err := in(limit, c); err != nil {
		t.Errorf("%s: %v\n%s", script, err, out.Bytes())
	}
}

// runDev runs README's first command, from the sources as they are, until there is an alert, and ends it by Ctrl-C.
func runDev(t *testing.T, block string) {
	args := strings.Fields(block)
	c := command(root, args[0], args[1:]...)
	var said bytes.Buffer
	c.Stderr = &said
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	stuck := time.AfterFunc(2*patience, func() { _ = syscall.Kill(-c.Process.Pid, syscall.SIGKILL) })
	defer stuck.Stop()
	var lines []string
	found := false
	for s := bufio.NewScanner(out); s.Scan(); {
		lines = append(lines, s.Text())
		if !found && strings.HasPrefix(s.Text(), "newest alert: ") {
			found = true
			if err := syscall.Kill(-c.Process.Pid, syscall.SIGINT); err != nil {
				t.Fatal(err)
			}
		}
	}
	err = c.Wait()
	text := strings.Join(lines, "\n")
	for _, job := range []string{"alerts", "co", "no2", "o3", "pm25", "so2"} {
		if !regexp.MustCompile(`(?m)^job=` + job + ` .* in=[1-9]`).MatchString(text) {
			t.Errorf("%s has read nothing", job)
		}
	}
	if !found || !strings.Contains(text, "What to try next:") {
		t.Errorf("%s: %v\n%s\n%s", block, err, text, said.Bytes())
	}
}

// compile builds a program that stands beside ours.
func compile(t *testing.T, where, text string) {
	t.Helper()
	dir := t.TempDir()
	abs, err := filepath.Abs(root)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "main.go")
	overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{filepath.Join(abs, "examples/ofpage/main.go"): file}})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "overlay.json"), overlay, 0o600); err != nil {
		t.Fatal(err)
	}
	c := exec.Command("go", "build", "-overlay", filepath.Join(dir, "overlay.json"), "-o", filepath.Join(dir, "program"), "./examples/ofpage")
	c.Dir = root
	if out, err := c.CombinedOutput(); err != nil {
		t.Errorf("%s: %v\n%s", where, err, out)
	}
}

// TestDocsAreComplete: every field, function, setting, exit code and metric there is stands in the guide, and no metric that
// there is not.
func TestDocsAreComplete(t *testing.T) {
	read := func(page string) string {
		b, err := os.ReadFile(filepath.Join(root, page))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	language, operate := read("docs/guide/jobs.md"), read("docs/guide/operate.md")
	var schema any
	if err := json.Unmarshal(spec.Schema(all.Registry()), &schema); err != nil {
		t.Fatal(err)
	}
	words := map[string]bool{}
	for _, w := range regexp.MustCompile(`[\w.]+`).FindAllString(language, -1) {
		words[w] = true
	}
	var want []string
	properties(schema, func(name string) { want = append(want, name) })
	for _, f := range expr.Functions() {
		want = append(want, f.Name)
	}
	for _, name := range want {
		if !words[name] {
			t.Errorf("docs/guide/jobs.md lacks %s", name)
		}
	}
	for _, s := range settings {
		if name := "`" + strings.ReplaceAll(s.name, "-", "_") + "`"; !strings.Contains(operate, name) {
			t.Errorf("docs/guide/operate.md lacks the setting %s", name)
		}
	}
	for _, code := range []int{exitOK, exitFailed, exitUsage, exitData, exitUnreachable, exitBug, exitDisk, exitAgain, exitConfig} {
		if !strings.Contains(operate, fmt.Sprintf("\n| %d | ", code)) {
			t.Errorf("docs/guide/operate.md lacks exit code %d", code)
		}
	}
	there := admin.NewCollector(func() runtime.Status { return runtime.Status{} }).Names()
	told := map[string]bool{}
	for _, m := range regexp.MustCompile(`sidestream_\w+`).FindAllString(operate, -1) {
		told[m] = true
	}
	if got := slices.Sorted(maps.Keys(told)); !slices.Equal(got, there) {
		t.Errorf("docs/guide/operate.md has the metrics\n%v\nthere are\n%v", got, there)
	}
}

// properties calls f with the name of every property in a schema.
func properties(v any, f func(string)) {
	switch v := v.(type) {
	case map[string]any:
		if p, ok := v["properties"].(map[string]any); ok {
			for name := range p {
				f(name)
			}
		}
		for _, e := range v {
			properties(e, f)
		}
	case []any:
		for _, e := range v {
			properties(e, f)
		}
	}
}
