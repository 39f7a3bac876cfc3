package cli

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

var (
	fences  = regexp.MustCompile("(?ms)^```.*?^```$")
	spans   = regexp.MustCompile("`([^`\n]+)`")
	quoted  = regexp.MustCompile(`'([a-z][^'\n]*)'`)
	oneFlag = regexp.MustCompile(`^--[a-z][a-z0-9-]*`)
	anyFlag = regexp.MustCompile(`(?:^|[\s(])(--[a-z][a-z0-9-]*)`)
)

// names is what a command line, as prose has it, is held against.
type names struct {
	root  *cobra.Command
	flags map[string]bool // of any command
}

func newNames() *names {
	n := &names{root: (&app{name: "sidestream", stdout: os.Stderr, stderr: os.Stderr}).tree(), flags: map[string]bool{"--help": true}}
	for c := range commandsOf(n.root) {
		c.Flags().VisitAll(func(f *pflag.Flag) { n.flags["--"+f.Name] = true })
	}
	return n
}

// wrong says what of a line is not there, or "": it begins with the program's name, with that of a command that has others below
// it or is given something, or with a flag; all else is no command line. A word may be several, as in list|tail.
func (n *names) wrong(line string) string {
	ws := strings.Fields(strings.ReplaceAll(line, `\|`, "|"))
	ours := len(ws) > 0 && ws[0] == "sidestream"
	if ours {
		ws = ws[1:]
	}
	if len(ws) == 0 {
		return ""
	}
	if f := oneFlag.FindString(ws[0]); f != "" {
		if !n.flags[f] {
			return "there is no flag " + f
		}
		return ""
	}
	if !ours && (len(ws) < 2 || below(n.root, ws[0]) == nil) {
		return ""
	}
	at := n.root
	for _, w := range ws {
		switch f := oneFlag.FindString(strings.Trim(w, "[](),;")); {
		case f != "":
			if at.Flags().Lookup(f[2:]) == nil && f != "--help" {
				return at.CommandPath() + " has no flag " + f
			}
		case !at.HasSubCommands():
		default:
			var next *cobra.Command
			for _, alt := range strings.Split(strings.Trim(w, ",;"), "|") {
				if c := below(at, alt); c != nil {
					next = c
				} else if alt != "…" && alt == strings.ToLower(alt) {
					return at.CommandPath() + " has no command " + alt
				}
			}
			if next == nil {
				return "" // in place of a name stands what is to be chosen
			}
			at = next
		}
	}
	return ""
}

func below(c *cobra.Command, name string) *cobra.Command {
	if i := slices.IndexFunc(c.Commands(), func(s *cobra.Command) bool { return s.Name() == name }); i >= 0 {
		return c.Commands()[i]
	}
	return nil
}

// TestNamesInProse: whatever the pages name between backquotes, outside the blocks that TestDocs runs, and whatever the commands'
// own help names, is there: each command, and each flag of it.
func TestNamesInProse(t *testing.T) {
	n := newNames()
	seen := 0
	for _, page := range pages(t) {
		b, err := os.ReadFile(filepath.Join(root, page))
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range spans.FindAllStringSubmatch(fences.ReplaceAllString(string(b), ""), -1) {
			seen++
			if wrong := n.wrong(m[1]); wrong != "" {
				t.Errorf("%s: `%s`: %s", page, m[1], wrong)
			}
		}
	}
	for c := range commandsOf(n.root) {
		texts := []string{c.Long, c.Short}
		c.Flags().VisitAll(func(f *pflag.Flag) { texts = append(texts, f.Usage) })
		for _, text := range texts {
			for _, m := range quoted.FindAllStringSubmatch(text, -1) {
				seen++
				if wrong := n.wrong(m[1]); wrong != "" {
					t.Errorf("%s --help: '%s': %s", c.CommandPath(), m[1], wrong)
				}
			}
			for _, m := range anyFlag.FindAllStringSubmatch(text, -1) {
				seen++
				if !n.flags[m[1]] {
					t.Errorf("%s --help: there is no flag %s", c.CommandPath(), m[1])
				}
			}
		}
	}
	if seen < 300 {
		t.Errorf("only %d names were found", seen)
	}
}

// TestNamesFindsWhatIsGone: a name that is not there is seen.
func TestNamesFindsWhatIsGone(t *testing.T) {
	n := newNames()
	for line, want := range map[string]string{
		"sidestream bus list\\|tail": "", "sidestream bus list\\|tial": "sidestream bus has no command tial", "sidestream jbo": "sidestream has no command jbo",
		"run --watch": "", "run --wacth": "sidestream run has no flag --wacth", "job apply --from X": "", "bus tail --from 3 --form": "sidestream bus tail has no flag --form",
		"--data-dir": "", "--date-dir": "there is no flag --date-dir", "SIDESTREAM_X": "", "status": "", "sidestream job apply\\|diff\\|…": "", "value.x > 1": "",
		"job savepoints delete NAME": "", "job savepoint delete": "", "sidestream bench NAME": "",
	} {
		if got := n.wrong(line); got != want {
			t.Errorf("%q: %q, want %q", line, got, want)
		}
	}
}
