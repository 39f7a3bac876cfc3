package cli

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/sidestream-dev/sidestream/examples/air"
	"github.com/sidestream-dev/sidestream/internal/port"
	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/jobs/connector/file"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"sidestream": func() { os.Exit(Main()) },
		"mine":       func() { os.Exit(Main(shout())) },
	})
}

// shout is a job written in Go, as a user's own program has it.
func shout() *jobs.Job {
	j := jobs.New("shout")
	type line struct {
		Text string `json:"text"`
	}
	lines := jobs.From(j, file.Source{Path: "in.jsonl"}, jobs.JSON[line]())
	jobs.To(jobs.Map(lines, func(l line) line { return line{strings.ToUpper(l.Text)} }), "main", file.Sink{Path: "out.jsonl"}, jobs.JSON[line]())
	return j
}

// TestScripts runs every script in testdata: whole commands of the real program, with their output and exit codes.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("XDG_CONFIG_HOME", filepath.Join(env.WorkDir, "xdg"))
			return nil
		},
		UpdateScripts: os.Getenv("UPDATE_SCRIPTS") != "",
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"exits":     exits,
			"until":     until,
			"follow":    follow,
			"interrupt": interrupt,
			"pipe":      pipe,
			"flip":      flip,
			"snapshot":  func(ts *testscript.TestScript, neg bool, args []string) { saveSnapshotOf(ts, args[0]) },
			"tear":      tear,
			"answer":    answer,
			"sample":    writeSample,
			"lines":     countLines,
			"sequence":  sequence,
			"timeless":  timeless,
			"junit":     junit,
			"free":      freeAddress,
			"hangup": func(ts *testscript.TestScript, neg bool, args []string) { // SIGHUP to what runs in the background
				for _, c := range ts.BackgroundCmds() {
					ts.Check(c.Process.Signal(syscall.SIGHUP))
				}
			},
			"terminate": func(ts *testscript.TestScript, neg bool, args []string) { // SIGTERM to what runs in the background
				for _, c := range ts.BackgroundCmds() {
					ts.Check(c.Process.Signal(syscall.SIGTERM))
				}
			},
		},
	})
}

// patience is how long what must happen may take on a machine that is busy with other things.
const patience = 90 * time.Second

// freeAddress puts a free address into a variable, and in its place wherever a file has that variable: free ADDR FILE.
func freeAddress(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: free VARIABLE FILE")
	}
	p, err := port.Find()
	ts.Check(err)
	addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(p))
	ts.Setenv(args[0], addr)
	file := ts.MkAbs(args[1])
	ts.Check(os.WriteFile(file, []byte(strings.ReplaceAll(ts.ReadFile(args[1]), "$"+args[0], addr)), 0o600))
}

// exits runs a command and wants its exit code: exits 65 sidestream check bad.yaml.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			ts.Fatalf("%v", err)
		}
		got = exit.ExitCode()
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

// until runs a command again and again until its stdout matches: until PATTERN COMMAND...
func until(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: until PATTERN COMMAND...")
	}
	re := regexp.MustCompile(args[0])
	for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		_ = ts.Exec(args[1], args[2:]...) // it may not work yet
		if re.MatchString(ts.ReadFile("stdout")) {
			return
		}
		if time.Now().After(end) {
			ts.Fatalf("no match of %q within %v", args[0], patience)
		}
	}
}

// follow runs a command until a line of its stdout matches, ends it by Ctrl-C, and keeps all it has printed as stdout:
// follow PATTERN COMMAND...
func follow(ts *testscript.TestScript, neg bool, args []string) {
	re := regexp.MustCompile(args[0])
	c := exec.Command(args[1], args[2:]...)
	c.Dir, c.Env = ts.MkAbs("."), append(os.Environ(), "XDG_CONFIG_HOME="+ts.Getenv("XDG_CONFIG_HOME"))
	c.Stderr = ts.Stderr()
	out, err := c.StdoutPipe()
	ts.Check(err)
	ts.Check(c.Start())
	stuck := time.AfterFunc(patience, func() { _ = c.Process.Kill() })
	defer stuck.Stop()
	found := false
	for lines := bufio.NewScanner(out); lines.Scan(); {
		fmt.Fprintln(ts.Stdout(), lines.Text())
		if !found && re.MatchString(lines.Text()) {
			found = true
			ts.Check(c.Process.Signal(os.Interrupt))
		}
	}
	if err := c.Wait(); err != nil || !found {
		ts.Fatalf("it ended with %v; a line that matches was found: %v", err, found)
	}
}

// interrupt runs a command, ends it by Ctrl-C, and wants its exit code and what it says: interrupt CODE PATTERN COMMAND... One that has not
// begun to wait for Ctrl-C dies of it, and is run again with more time.
func interrupt(ts *testscript.TestScript, neg bool, args []string) {
	re := regexp.MustCompile(args[1])
	for wait, end := 100*time.Millisecond, time.Now().Add(patience); ; wait *= 2 {
		var said strings.Builder
		c := exec.Command(args[2], args[3:]...)
		c.Dir, c.Env, c.Stderr = ts.MkAbs("."), append(os.Environ(), "XDG_CONFIG_HOME="+ts.Getenv("XDG_CONFIG_HOME")), &said
		ts.Check(c.Start())
		time.Sleep(wait)
		ts.Check(c.Process.Signal(os.Interrupt))
		stuck := time.AfterFunc(patience, func() { _ = c.Process.Kill() })
		_ = c.Wait() // its code says it
		stuck.Stop()
		if died := c.ProcessState.ExitCode() < 0; died && time.Now().Before(end) {
			continue
		}
		if got := strconv.Itoa(c.ProcessState.ExitCode()); got != args[0] || !re.MatchString(said.String()) {
			ts.Fatalf("exit code %s, want %s; it says %q, want %q", got, args[0], said.String(), args[1])
		}
		return
	}
}

// pipe makes a named pipe that nobody writes to: pipe NAME.
func pipe(ts *testscript.TestScript, neg bool, args []string) {
	ts.Check(syscall.Mkfifo(ts.MkAbs(args[0]), 0o600))
}

// flip turns a bit of the byte in the middle of a file, at an offset, or where a text first stands in it: what lies at an offset of
// a log depends on which job was first.
func flip(ts *testscript.TestScript, neg bool, args []string) {
	name := onlyFile(ts, args[0])
	b, err := os.ReadFile(name)
	ts.Check(err)
	at := len(b) / 2
	if len(args) > 1 {
		if at, err = strconv.Atoi(args[1]); err != nil {
			at = bytes.Index(b, []byte(args[1]))
		}
		if at < 0 {
			ts.Fatalf("%s: %s does not stand in it", name, args[1])
		}
	}
	b[at] ^= 1
	ts.Check(os.WriteFile(name, b, 0o600))
}

// tear cuts bytes off the end of a file, as a crash does.
func tear(ts *testscript.TestScript, neg bool, args []string) {
	name := onlyFile(ts, args[0])
	n, err := strconv.Atoi(args[1])
	ts.Check(err)
	info, err := os.Stat(name)
	ts.Check(err)
	ts.Check(os.Truncate(name, info.Size()-int64(n)))
}

// onlyFile returns the last file that a pattern matches.
func onlyFile(ts *testscript.TestScript, pattern string) string {
	names, err := filepath.Glob(ts.MkAbs(pattern))
	ts.Check(err)
	if len(names) == 0 {
		ts.Fatalf("%s: no such file", pattern)
	}
	return names[len(names)-1]
}

// answer asks a server, over a unix socket or TCP, and keeps what it says as stdout: answer STATUS SOCKET|ADDRESS PATH [HOST].
func answer(ts *testscript.TestScript, neg bool, args []string) {
	network := "tcp"
	at := args[1]
	if strings.Contains(at, "/") {
		network, at = "unix", ts.MkAbs(at)
	}
	host := "localhost"
	if len(args) > 3 {
		host = args[3]
	}
	req, err := http.NewRequest(http.MethodGet, "http://"+host+args[2], nil)
	ts.Check(err)
	client := http.Client{Timeout: patience, Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, at)
	}}}
	resp, err := client.Do(req)
	ts.Check(err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	ts.Check(err)
	_, err = ts.Stdout().Write(body)
	ts.Check(err)
	if got := strconv.Itoa(resp.StatusCode); got != args[0] {
		ts.Fatalf("status %s, want %s: %s", got, args[0], body)
	}
}

// writeSample puts the example's readings into a folder, a file for each pollutant and station, and its jobs over files into
// another: sample DATA JOBS.
func writeSample(ts *testscript.TestScript, neg bool, args []string) {
	readings, _, err := sample()
	ts.Check(err)
	dir := ts.MkAbs(args[0])
	ts.Check(os.MkdirAll(dir, 0o700))
	files := map[string][]byte{}
	for _, r := range readings {
		name := r.topic + "-" + r.station + ".jsonl"
		files[name] = append(append(files[name], r.line...), '\n')
	}
	for name, b := range files {
		ts.Check(os.WriteFile(filepath.Join(dir, name), b, 0o600))
	}
	defs, err := fs.Sub(air.Files, "files")
	ts.Check(err)
	ts.Check(os.CopyFS(ts.MkAbs(args[1]), defs))
}

// countLines wants a file to have so many lines: lines FILE N.
func countLines(ts *testscript.TestScript, neg bool, args []string) {
	got := strings.Count(ts.ReadFile(args[0]), "\n")
	if want := fmt.Sprint(args[1]); strconv.Itoa(got) != want {
		ts.Fatalf("%s has %d lines, want %s", args[0], got, want)
	}
}

// timeless compares stdout, without the durations at the ends of lines, with a file: timeless FILE.
func timeless(ts *testscript.TestScript, neg bool, args []string) {
	got := regexp.MustCompile(`(?m) \([0-9.]+[µmn]?s\)$`).ReplaceAllString(ts.ReadFile("stdout"), "")
	if want := ts.ReadFile(args[0]); got != want {
		ts.Fatalf("got\n%s\nwant\n%s", got, want)
	}
}

// junit reads a file as JUnit's XML and wants so many tests and failures in it: junit FILE TESTS FAILURES.
func junit(ts *testscript.TestScript, neg bool, args []string) {
	var all struct {
		XMLName  xml.Name `xml:"testsuites"`
		Tests    int      `xml:"tests,attr"`
		Failures int      `xml:"failures,attr"`
		Suites   []struct {
			Name  string `xml:"name,attr"`
			Tests int    `xml:"tests,attr"`
			Cases []struct {
				Name    string  `xml:"name,attr"`
				Class   string  `xml:"classname,attr"`
				Time    float64 `xml:"time,attr"`
				Failure *struct {
					Message string `xml:"message,attr"`
					Text    string `xml:",chardata"`
				} `xml:"failure"`
			} `xml:"testcase"`
		} `xml:"testsuite"`
	}
	ts.Check(xml.Unmarshal([]byte(ts.ReadFile(args[0])), &all))
	tests, failures := 0, 0
	for _, s := range all.Suites {
		if s.Name == "" || s.Tests != len(s.Cases) {
			ts.Fatalf("suite %q says %d tests, there are %d", s.Name, s.Tests, len(s.Cases))
		}
		for _, c := range s.Cases {
			tests++
			if c.Name == "" || c.Class == "" || c.Failure != nil && (c.Failure.Message == "" || c.Failure.Text == "") {
				ts.Fatalf("%+v: something is missing", c)
			}
			if c.Failure != nil {
				failures++
			}
		}
	}
	if fmt.Sprint(tests, failures) != args[1]+" "+args[2] || tests != all.Tests || failures != all.Failures {
		ts.Fatalf("%d tests, %d failures; it says %d and %d; want %s and %s", tests, failures, all.Tests, all.Failures, args[1], args[2])
	}
}

// sequence wants the records in stdout to be the generator's first ones, each once, in order, at dense offsets.
func sequence(ts *testscript.TestScript, neg bool, args []string) {
	n := 0
	for line := range strings.Lines(ts.ReadFile("stdout")) {
		var r struct {
			Offset int
			Value  struct{ Seq int }
		}
		ts.Check(json.Unmarshal([]byte(line), &r))
		if r.Offset != n || r.Value.Seq != n {
			ts.Fatalf("record %d has offset %d and is the generator's %d", n, r.Offset, r.Value.Seq)
		}
		n++
	}
	if n == 0 {
		ts.Fatalf("there are no records")
	}
}
