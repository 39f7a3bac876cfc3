package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/sidestream-dev/sidestream/jobs/spec"
	"github.com/sidestream-dev/sidestream/runtime/casetest"
)

// caseInfo is what test says of a case.
type caseInfo struct {
	File    string  `json:"file"`
	Line    int     `json:"line"`
	Case    string  `json:"case"`
	Passed  bool    `json:"passed"`
	Seconds float64 `json:"seconds"`
	Why     string  `json:"why,omitempty"`
	Diff    string  `json:"diff,omitempty"`
	Trace   string  `json:"trace,omitempty"`
}

func (a *app) test() *cobra.Command {
	c := a.command(cobra.Command{
		Use:   "test [FILE|DIR...]",
		Short: "Run the cases beside job definitions: records in, expected out, on virtual time",
		Long: `Run the cases in NAME.test.yaml files, on virtual time, without log, network and disk.
A FILE is one with cases, or a definition, whose cases stand beside it; of a DIR all NAME.test.yaml are run.
For what is not as expected it says which step decided. It exits with 1 where a case failed.`,
		Example: `  sidestream test jobs/                         # every case of every job in jobs
  sidestream test jobs/ticks.yaml --run high    # those of one job whose names match
  sidestream test jobs/ --junit results.xml     # for a CI system
  sidestream test -v jobs/ticks.yaml            # what became of every record`,
	}, func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return withCode(exitUsage, errors.New("name the files with cases, or directories of them"))
		}
		run, err := regexp.Compile(text(cmd, "run"))
		if err != nil {
			return a.bad(cmd, "run", "a regular expression")
		}
		cases, err := loadCases(cmd, args...)
		if err != nil {
			return a.problems(cmd, err)
		}
		verbose, err := cmd.Flags().GetBool("verbose")
		if err != nil {
			return err
		}
		update, err := cmd.Flags().GetBool("update")
		if err != nil {
			return err
		}
		if update {
			if cases, err = a.updateCases(cmd, cases, run); err != nil {
				return err
			}
		}
		t := &testRun{app: a, cmd: cmd, verbose: verbose, began: time.Now()}
		if text(cmd, "output") == "table" {
			t.paint = casetest.Paint(colored(cmd, a.stdout))
		} else {
			t.data = newPrinter(a, cmd, view[caseInfo]{name: func(c caseInfo) string { return fmt.Sprintf("%s:%d", c.File, c.Line) }})
		}
		for _, c := range cases {
			if !run.MatchString(c.Name) {
				t.skipped++
				continue
			}
			if err := t.one(c); err != nil {
				return err
			}
		}
		return t.end()
	})
	prints(c)
	c.ValidArgsFunction = definitionFiles
	take(c, "allow-env")
	f := c.Flags()
	f.String("run", "", "only the cases whose names match this regular expression")
	f.String("junit", "", "write the results to this file as JUnit XML")
	f.Bool("update", false, "write what came into the cases that fail, where an output is given something else, and run them again")
	f.BoolP("verbose", "v", false, "tell what became of every record")
	return c
}

func loadCases(cmd *cobra.Command, paths ...string) ([]*spec.Case, error) {
	cases, problems := spec.LoadCases(language(cmd), paths...)
	if len(problems) > 0 {
		return nil, withCode(exitData, &badDefinitions{Problems: problems})
	}
	return cases, nil
}

// updateCases writes into the files what outputs are given, and returns their cases as they are now.
func (a *app) updateCases(cmd *cobra.Command, cases []*spec.Case, run *regexp.Regexp) (now []*spec.Case, err error) {
	var files []string
	updates := map[string][]spec.Update{}
	for _, c := range cases {
		if !slices.Contains(files, c.File) {
			files = append(files, c.File)
		}
		if run.MatchString(c.Name) {
			updates[c.File] = append(updates[c.File], casetest.Run(c).Updates()...)
		}
	}
	for _, name := range files {
		n := len(updates[name])
		if n == 0 {
			continue
		}
		b, err := spec.Updated(updates[name])
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		if err := replaceFile(name, b); err != nil {
			return nil, err
		}
		a.say("%s: %d %s written", name, n, plural(n, "output", "outputs"))
	}
	return loadCases(cmd, files...)
}

// replaceFile writes a file anew: it has all of the old content or all of the new.
func replaceFile(name string, content []byte) error {
	info, err := os.Stat(name)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(name), ".*.tmp")
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err = errors.Join(err, f.Chmod(info.Mode().Perm()), f.Close()); err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		_ = os.Remove(f.Name()) // it is of no use
	}
	return err
}

// testRun is one call of test.
type testRun struct {
	*app
	cmd     *cobra.Command
	paint   casetest.Paint
	verbose bool
	began   time.Time
	results []*casetest.Result
	data    *printer[caseInfo] // nil where people read it
	failed  int
	skipped int
}

func (t *testRun) one(c *spec.Case) error {
	r := casetest.Run(c)
	info := caseInfo{File: c.File, Line: c.Line, Case: c.Name, Passed: r.Passed(), Seconds: r.Took.Seconds(), Why: r.Summary()}
	t.results = append(t.results, r)
	if !info.Passed {
		t.failed++
	}
	var diff, trace bytes.Buffer
	r.Diff(&diff, t.paint)
	if t.verbose {
		r.Trace(&trace, t.paint)
	}
	info.Diff, info.Trace = diff.String(), trace.String()
	if t.data != nil {
		return t.data.add(info)
	}
	word := t.paint.Good("ok  ")
	if !info.Passed {
		word = t.paint.Bad("FAIL")
	}
	_, err := fmt.Fprintf(t.stdout, "%s %s: %s (%s)\n%s%s", word, r.Place(), c.Name, r.Took.Round(10*time.Microsecond),
		indented(info.Diff), indented(info.Trace))
	return err
}

func indented(s string) string {
	var b bytes.Buffer
	for line := range bytes.Lines([]byte(s)) {
		b.WriteString("    ")
		b.Write(line)
	}
	return b.String()
}

// end prints what is printed at the end, and says how it went.
func (t *testRun) end() error {
	if t.data != nil {
		if err := t.data.end(); err != nil {
			return err
		}
	}
	if name := text(t.cmd, "junit"); name != "" {
		if err := writeFile(name, func(w io.Writer) error { return casetest.WriteJUnit(w, t.results) }); err != nil {
			return err
		}
	}
	n := len(t.results)
	said := fmt.Sprintf("%d %s", n, plural(n, "case", "cases"))
	if t.skipped > 0 {
		said += fmt.Sprintf(", %d left out by --run", t.skipped)
	}
	took := time.Since(t.began).Round(time.Millisecond)
	switch {
	case t.failed > 0:
		return withCode(exitFailed, fmt.Errorf("%d of %s failed (%v)", t.failed, said, took))
	case n == 0:
		return withCode(exitUsage, fmt.Errorf("no case has a name that matches %q; there are %d others", text(t.cmd, "run"), t.skipped))
	}
	t.say("%s, all as expected (%v)", said, took)
	return nil
}

// writeFile makes a file of what write writes.
func writeFile(name string, write func(io.Writer) error) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	return errors.Join(write(f), f.Close())
}
