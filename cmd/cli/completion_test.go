package cli

import (
	"bytes"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// serving runs the program on jobs that have no end, in a folder of their own that the test is in from now on, and returns when
// it answers. It ends with the test. With nothing else said, commands ask it.
func serving(t *testing.T, args ...string) {
	t.Helper()
	inFolderOfJobs(t)
	serveJobs(t, append([]string{"jobs/"}, args...)...)
}

// inFolderOfJobs makes a folder with the jobs ticks and counts in jobs/, and goes there.
func inFolderOfJobs(t *testing.T) {
	t.Helper()
	t.Chdir(t.TempDir())
	t.Setenv("XDG_CONFIG_HOME", filepath.Join(t.TempDir(), "xdg"))
	if err := os.Mkdir("jobs", 0o700); err != nil {
		t.Fatal(err)
	}
	for name, def := range map[string]string{"ticks": `version: 1
job: ticks
source: {generator: {rate: 200}}
steps:
  - side: {if: value.reading > 50, to: high}
outputs:
  main: {bus: ticks}
  high: {file: {path: high.jsonl}}
`, "counts": `version: 1
job: counts
source: {bus: ticks}
steps:
  - key_by: value.device
  - window: {tumbling: 1s, aggregate: {n: count()}}
outputs:
  main: {file: {path: counts.jsonl}}
`} {
		if err := os.WriteFile("jobs/"+name+".yaml", []byte(def), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// serveJobs runs the program in the folder that the test is in, until the test ends.
func serveJobs(t *testing.T, args ...string) {
	t.Helper()
	t.Cleanup(serveUntil(t, args...))
}

// serveUntil is serveJobs until what it returns is called.
func serveUntil(t *testing.T, args ...string) (stop func()) {
	t.Helper()
	c := exec.Command("sidestream", append([]string{"run"}, args...)...)
	var said syncBuffer
	c.Stderr = &said
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- c.Wait() }()
	stop = func() {
		_ = c.Process.Signal(syscall.SIGTERM)
		select {
		case <-ended:
		case <-time.After(patience):
			_ = c.Process.Kill()
			t.Errorf("the process does not stop:\n%s", said.String())
		}
	}
	for end := time.Now().Add(patience); !strings.Contains(ask("bus", "tail", "ticks", "-n", "1", "--socket", socketIn("sidestream-data")), `"topic":"ticks"`); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) || len(ended) > 0 {
			stop()
			t.Fatalf("the process does not answer:\n%s", said.String())
		}
	}
	return stop
}

// ask runs a command in this process and returns what it prints.
func ask(args ...string) string {
	var out, said bytes.Buffer
	(&app{name: "sidestream", stdout: &out, stderr: &said}).main(args)
	return out.String()
}

// completions are what a shell would offer behind args.
func completions(args ...string) []string {
	var out, said bytes.Buffer
	(&app{name: "sidestream", stdout: &out, stderr: &said}).main(append([]string{"__complete"}, args...))
	var names []string
	for line := range strings.Lines(out.String()) {
		if name, _, _ := strings.Cut(strings.TrimSpace(line), "\t"); !strings.HasPrefix(name, ":") {
			names = append(names, name)
		}
	}
	return names
}

// completing is what is typed, and what a shell must offer with a process at work.
var completing = []struct {
	typed []string
	want  string
}{
	{[]string{"bus", "tail", ""}, "ticks"},
	{[]string{"bus", "tail", "ti"}, "ticks"},
	{[]string{"bus", "tail", "x"}, ""},
	{[]string{"bus", "tail", "ticks", ""}, ""},
	{[]string{"bus", "list", "-o", ""}, "table json yaml jsonl name"},
	{[]string{"bus", "tail", "-o", ""}, "jsonl json yaml table name value"},
	{[]string{"bus", "list", "--color", ""}, "auto always never"},
	{[]string{"bus", "list", "--context", ""}, "lab"},
	{[]string{"context", "use", ""}, "lab"},
	{[]string{"run", ""}, "yaml yml"}, // the endings of files to offer
	{[]string{"job", "apply", ""}, "yaml yml"},
	{[]string{"job", "get", ""}, "counts ticks"},
	{[]string{"job", "remove", "t"}, "ticks"},
	{[]string{"job", "logs", ""}, "counts ticks"},
	{[]string{"job", "wait", "ticks", ""}, ""},
	{[]string{"job", "apply", "--from", ""}, "mine"},
	{[]string{"job", "savepoints", "delete", ""}, "mine"},
	{[]string{"checkpoint", "inspect", "m"}, "mine"},
	{[]string{"job", "wait", "ticks", "--for", ""}, "caught-up ended failed paused removed running stopped"},
}

// TestCompletion: names are the server's, at its default place, on a named socket and by context.
func TestCompletion(t *testing.T) {
	serving(t)
	if err := os.WriteFile("sidestream.yaml", []byte("contexts: {lab: {data_dir: sidestream-data}}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if said := ask("job", "savepoint", "ticks", "mine", "-o", "name"); said != "ticks\n" {
		t.Fatal(said)
	}
	for _, tt := range completing {
		if got := strings.Join(completions(tt.typed...), " "); got != tt.want {
			t.Errorf("%q: offered are %q, want %q", tt.typed, got, tt.want)
		}
	}
	for _, where := range [][]string{{"--socket", "sidestream-data/run/admin.sock"}, {"--context", "lab"}} {
		typed := append(append([]string{"bus", "tail"}, where...), "")
		if got := completions(typed...); len(got) != 1 || got[0] != "ticks" {
			t.Errorf("%q: offered are %q", typed, got)
		}
	}
}

// TestCompletionWithoutServer: nobody, somebody who never answers, somebody who never even accepts, a damaged file of settings:
// nothing is offered, nothing is said, and the shell has its prompt back.
func TestCompletionWithoutServer(t *testing.T) {
	silent := func(t *testing.T, accept bool) string {
		path := filepath.Join(t.TempDir(), "s")
		l, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
		if accept {
			go func() {
				for {
					c, err := l.Accept()
					if err != nil {
						return
					}
					defer c.Close() // when the listener is closed
				}
			}()
		}
		return path
	}
	tests := []struct {
		name  string
		setup func(t *testing.T) []string
	}{
		{"no process and no directory", func(*testing.T) []string { return nil }},
		{"no socket", func(*testing.T) []string { return []string{"--socket", "nowhere"} }},
		{"no context", func(*testing.T) []string { return []string{"--context", "nowhere"} }},
		{"never answers", func(t *testing.T) []string { return []string{"--socket", silent(t, true)} }},
		{"never accepts", func(t *testing.T) []string { return []string{"--socket", silent(t, false)} }},
		{"settings are damaged", func(t *testing.T) []string {
			if err := os.WriteFile("sidestream.yaml", []byte("data_dir: ["), 0o600); err != nil {
				t.Fatal(err)
			}
			return nil
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Chdir(t.TempDir())
			t.Setenv("XDG_CONFIG_HOME", t.TempDir())
			typed := append(append([]string{"__complete", "bus", "tail"}, tt.setup(t)...), "")
			c := exec.Command("sidestream", typed...)
			var out, said bytes.Buffer
			c.Stdout, c.Stderr = &out, &said
			began := time.Now()
			if err := c.Start(); err != nil {
				t.Fatal(err)
			}
			// The bound is 300 ms, in the code; a machine that does other things gets a hundred times that, and whoever waits for
			// the server never ends.
			stuck := time.AfterFunc(100*completionMax, func() { _ = c.Process.Kill() })
			defer stuck.Stop()
			if err := c.Wait(); err != nil {
				t.Errorf("after %v: %v", time.Since(began), err)
			}
			if got := out.String(); got != ":4\n" {
				t.Errorf("offered is %q", got)
			}
			if got := said.String(); strings.TrimSpace(got) != "Completion ended with directive: ShellCompDirectiveNoFileComp" { // cobra's, which the scripts drop
				t.Errorf("said is %q", got)
			}
		})
	}
}

// TestShells: the scripts work in the shells they are for.
func TestShells(t *testing.T) {
	serving(t)
	tests := []struct{ shell, script string }{
		{"bash", `
_init_completion() { words=("${COMP_WORDS[@]}"); cword=$COMP_CWORD; cur=${COMP_WORDS[COMP_CWORD]}; prev=${COMP_WORDS[COMP_CWORD-1]}; }
compopt() { :; }
source <(sidestream completion bash)
COMP_WORDS=(sidestream bus tail ti); COMP_CWORD=3; COMP_LINE="sidestream bus tail ti"; COMP_POINT=${#COMP_LINE}; COMP_TYPE=9
__start_sidestream
echo "${COMPREPLY[0]}"`},
		{"zsh", `
compdef() { :; }
_describe() { print -rl -- "${completions[@]}"; }
source <(sidestream completion zsh)
words=(sidestream bus tail ti); CURRENT=4
_sidestream`},
		{"fish", `
sidestream completion fish | source
complete -C "sidestream bus tail ti"`},
	}
	for _, tt := range tests {
		t.Run(tt.shell, func(t *testing.T) {
			if _, err := exec.LookPath(tt.shell); err != nil {
				cannot(t, "there is no "+tt.shell+" to try its completion in")
			}
			c := command(".", tt.shell, "-c", tt.script)
			var out, said bytes.Buffer
			c.Stdout, c.Stderr = &out, &said
			if err := within(c); err != nil && tt.shell == "bash" {
				t.Errorf("%v: %s", err, said.Bytes())
			}
			if !strings.HasPrefix(out.String(), "ticks") {
				t.Errorf("%s offers %q\n%s", tt.shell, out.String(), said.String())
			}
		})
	}
}
