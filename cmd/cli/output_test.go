package cli

import (
	"bytes"
	"encoding/json"
	"os"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/creack/pty"
	"github.com/spf13/cobra"
)

type thing struct {
	Name  string `json:"name"`
	State string `json:"state"`
	Why   string `json:"why,omitempty"`
}

var things = view[thing]{
	head: []string{"NAME", "STATE", "WHY"},
	row:  func(t thing) []string { return []string{t.Name, t.State, t.Why} },
	name: func(t thing) string { return t.Name },
}

// showing runs a command that shows items, in the format that args ask for, and returns what it prints.
func showing(t *testing.T, items []thing, args ...string) string {
	t.Helper()
	var out, said bytes.Buffer
	a := &app{name: "sidestream", stdout: &out, stderr: &said}
	c := a.command(cobra.Command{Use: "things"}, func(cmd *cobra.Command, _ []string) error { return show(a, cmd, things, items) })
	prints(c)
	c.SetArgs(args)
	c.SilenceUsage, c.SilenceErrors = true, true
	if err := c.Execute(); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func TestFormats(t *testing.T) {
	two := []thing{{Name: "a", State: "running"}, {Name: "b & c", State: "failed", Why: "x < y"}}
	tests := []struct {
		name  string
		items []thing
		args  []string
		want  string
	}{
		{"table", two, nil, "NAME   STATE    WHY\na      running  -\nb & c  failed   x < y\n"},
		{"table of none", nil, nil, "NAME  STATE  WHY\n"},
		{"name", two, []string{"-o", "name"}, "a\nb & c\n"},
		{"name of none", nil, []string{"-o", "name"}, ""},
		{"jsonl", two, []string{"-o", "jsonl"}, `{"name":"a","state":"running"}` + "\n" + `{"name":"b & c","state":"failed","why":"x < y"}` + "\n"},
		{"json", two, []string{"-o", "json"}, "[\n  {\n    \"name\": \"a\",\n    \"state\": \"running\"\n  },\n  {\n    \"name\": \"b & c\",\n    \"state\": \"failed\",\n    \"why\": \"x < y\"\n  }\n]\n"},
		{"json of none", nil, []string{"-o", "json"}, "[]\n"},
		{"yaml", two, []string{"-o", "yaml"}, "- name: a\n  state: running\n- name: b & c\n  state: failed\n  why: x < y\n"},
		{"yaml of none", nil, []string{"-o", "yaml"}, "[]\n"},
		{"colours where they are asked for", two[:1], []string{"--color", "always"}, "\x1b[1mNAME\x1b[0m  \x1b[1mSTATE\x1b[0m    \x1b[1mWHY\x1b[0m\na     \x1b[32mrunning\x1b[0m  -\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := showing(t, tt.items, tt.args...)
			if got != tt.want {
				t.Errorf("got\n%q\nwant\n%q", got, tt.want)
			}
			if tt.name == "json" && !json.Valid([]byte(got)) {
				t.Error("that is no JSON")
			}
		})
	}
}

// TestPrinterCutShort: what was printed before an error is whole JSON.
func TestPrinterCutShort(t *testing.T) {
	var out bytes.Buffer
	a := &app{stdout: &out}
	c := &cobra.Command{}
	prints(c)
	if err := c.Flags().Set("output", "json"); err != nil {
		t.Fatal(err)
	}
	p := newPrinter(a, c, things)
	if err := p.add(thing{Name: "a"}); err != nil {
		t.Fatal(err)
	}
	if err := p.end(); err != nil || !json.Valid(out.Bytes()) {
		t.Errorf("%v: %s", err, out.Bytes())
	}
}

// TestTableFits: on a terminal no line is broken: what is widest is cut.
func TestTableFits(t *testing.T) {
	row := []string{"a", "running", strings.Repeat("why ", 40)}
	for _, columns := range []int{200, 80, 40, 26, 10} {
		var out bytes.Buffer
		if err := (gridded{columns: columns}).write(&out, things.head, [][]string{row}); err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(out.String()) {
			least := 4 + 2 + cellMin + 2 + cellMin // a table has an end
			if n := utf8.RuneCountInString(strings.TrimRight(line, "\n")); n > max(columns, least) {
				t.Errorf("%d columns, of a terminal's %d: %s", n, columns, line)
			}
		}
		if cuts := strings.Count(out.String(), "…"); columns == 200 && cuts != 0 || columns == 40 && cuts != 1 {
			t.Errorf("at %d columns %d cells are cut:\n%s", columns, cuts, out.String())
		}
	}
}

// tty is a terminal of so many columns and lines, and what is written to it.
func tty(t *testing.T, columns, lines uint16) (inside *os.File, written func() string) {
	t.Helper()
	outside, inside, err := pty.Open()
	if err != nil {
		cannot(t, "there is no pseudo-terminal here: "+err.Error())
	}
	if err := pty.Setsize(inside, &pty.Winsize{Cols: columns, Rows: lines}); err != nil {
		t.Fatal(err)
	}
	var got bytes.Buffer
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = got.ReadFrom(outside) // ends when the inside is closed
	}()
	t.Cleanup(func() { _ = inside.Close(); _ = outside.Close() })
	return inside, func() string {
		_ = inside.Close()
		<-done
		return got.String()
	}
}

// TestTerminal: colours and the width of the terminal, on a terminal alone; NO_COLOR and --color win; progress is drawn there
// and nowhere else.
func TestTerminal(t *testing.T) {
	long := []thing{{Name: "a", State: "running", Why: strings.Repeat("why ", 40)}}
	tests := []struct {
		name    string
		env     [2]string
		color   string
		colours bool
	}{
		{"auto", [2]string{"TERM", "xterm"}, "auto", true},
		{"NO_COLOR", [2]string{"NO_COLOR", "1"}, "auto", false},
		{"NO_COLOR is empty", [2]string{"NO_COLOR", ""}, "auto", true},
		{"dumb", [2]string{"TERM", "dumb"}, "auto", false},
		{"never", [2]string{"TERM", "xterm"}, "never", false},
		{"always beats NO_COLOR", [2]string{"NO_COLOR", "1"}, "always", true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Setenv("TERM", "xterm")
			t.Setenv("NO_COLOR", "")
			t.Setenv(tt.env[0], tt.env[1])
			inside, written := tty(t, 60, 20)
			a := &app{stdout: inside, stderr: inside}
			c := &cobra.Command{}
			prints(c)
			if err := c.Flags().Set("color", tt.color); err != nil {
				t.Fatal(err)
			}
			if err := show(a, c, things, long); err != nil {
				t.Fatal(err)
			}
			got := written()
			if strings.Contains(got, "\x1b[32mrunning") != tt.colours {
				t.Errorf("colours: want %v:\n%q", tt.colours, got)
			}
			if !strings.Contains(got, "…") {
				t.Errorf("the line is not cut:\n%s", got)
			}
		})
	}
	t.Run("progress", func(t *testing.T) {
		t.Setenv("TERM", "xterm")
		inside, written := tty(t, 60, 20)
		p := (&app{stderr: inside}).progress("reading")
		p.at(1, 2, "half of it")
		p.end()
		if got := written(); !strings.Contains(got, "reading [############............]  50% half of it") || !strings.HasSuffix(got, "\r\x1b[K") {
			t.Errorf("%q", got)
		}
		var file bytes.Buffer
		p = (&app{stderr: &file}).progress("reading")
		p.at(1, 2, "half of it")
		p.end()
		if file.Len() > 0 {
			t.Errorf("where there is no terminal: %q", file.String())
		}
	})
}
