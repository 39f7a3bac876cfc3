package cli

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/jobs/spec"
	"github.com/sidestream-dev/sidestream/runtime"
)

// badDefinitions is every mistake in the definitions.
type badDefinitions struct {
	Problems []spec.Problem
}

func (e *badDefinitions) Error() string {
	var b strings.Builder
	for _, p := range e.Problems {
		b.WriteString(p.String() + "\n")
	}
	return b.String()
}

// load returns the jobs of files and of the program itself, checked by themselves and as a set, and what is odd about them.
func (a *app) load(cmd *cobra.Command, paths []string) (defs []*jobs.Job, warnings []spec.Problem, err error) {
	if len(paths) == 0 && len(a.defs) == 0 {
		return nil, nil, withCode(exitUsage, errors.New("name the files, or directories of files, that define the jobs"))
	}
	defs = a.defs
	if len(paths) > 0 {
		cfg := language(cmd)
		cfg.Beside = a.defs
		loaded, problems, odd := spec.Check(cfg, paths...)
		if len(problems) > 0 {
			return nil, nil, withCode(exitData, &badDefinitions{Problems: problems})
		}
		defs, warnings = append(loaded, a.defs...), odd
	}
	if err := runtime.CheckSet(defs); err != nil {
		return nil, nil, withCode(exitData, err)
	}
	return defs, warnings, nil
}

// jobInfo is what check says of a job.
type jobInfo struct {
	Job         string   `json:"job"`
	Parallelism int      `json:"parallelism"`
	Delivery    string   `json:"delivery"`
	Bounded     bool     `json:"bounded"` // ends by itself, if what it reads on the bus does
	Reads       []string `json:"reads"`
	Writes      []string `json:"writes"`
}

func describe(j *jobs.Job) jobInfo {
	d := jobInfo{Job: j.Name, Parallelism: max(1, j.Parallelism), Delivery: j.Delivery.String(), Bounded: j.Bounded()}
	for _, n := range j.Nodes {
		switch {
		case n.Source != nil && n.Source.Source != nil:
			d.Reads = append(d.Reads, n.Source.Source.Kind())
		case n.Source != nil:
			d.Reads = append(d.Reads, "bus:"+n.Source.Topic)
		case n.Output != nil && n.Output.Sink != nil:
			d.Writes = append(d.Writes, n.Output.Sink.Kind())
		case n.Output != nil:
			d.Writes = append(d.Writes, "bus:"+n.Output.Topic)
		}
	}
	return d
}

func (a *app) check() *cobra.Command {
	c := a.command(cobra.Command{
		Use:   "check [FILE|DIR...]",
		Short: "Load job definitions without running them, and say everything that is wrong with them",
		Long: `Check loads the jobs that files define, as run would, and says everything that is wrong with them, each with its place.
What is only odd, such as a topic that nobody reads or nobody writes, is a warning; with --strict it is an error.`,
		Example: `  sidestream check jobs/                        # every .yaml file in jobs
  sidestream check --strict jobs/               # warnings are errors too
  sidestream check -o name jobs/ticks.yaml      # only the names of the jobs`,
	}, func(cmd *cobra.Command, args []string) error {
		defs, warnings, err := a.load(cmd, args)
		if err != nil {
			return a.problems(cmd, err)
		}
		if strict, _ := cmd.Flags().GetBool("strict"); strict && len(warnings) > 0 {
			return a.problems(cmd, withCode(exitData, &badDefinitions{Problems: warnings}))
		}
		a.warn(warnings)
		var infos []jobInfo
		for _, d := range defs {
			infos = append(infos, describe(d))
		}
		return show(a, cmd, view[jobInfo]{
			head: []string{"JOB", "PARALLELISM", "DELIVERY", "READS", "WRITES"},
			row: func(d jobInfo) []string {
				return []string{d.Job, fmt.Sprint(d.Parallelism), d.Delivery, strings.Join(d.Reads, " "), strings.Join(d.Writes, " ")}
			},
			name: func(d jobInfo) string { return d.Job },
		}, infos)
	})
	c.Flags().Bool("strict", false, "take warnings for errors")
	take(c, "allow-env")
	prints(c)
	c.ValidArgsFunction = definitionFiles
	return c
}

// warn says what is odd about definitions.
func (a *app) warn(warnings []spec.Problem) {
	for _, w := range warnings {
		w.Msg = "warning: " + w.Msg
		fmt.Fprintln(a.stderr, w)
	}
}

// problem is a mistake in a definition, as data.
type problem struct {
	place
	Hint string  `json:"hint,omitempty"`
	Also []place `json:"also,omitempty"` // what else has a part in it
}

type place struct {
	File    string `json:"file,omitempty"`
	Line    int    `json:"line,omitempty"`
	Column  int    `json:"column,omitempty"`
	Message string `json:"message"`
	Source  string `json:"source,omitempty"`
}

// problems prints the mistakes as data where a format for machines is asked for, and returns what is left to be said.
func (a *app) problems(cmd *cobra.Command, err error) error {
	var bad *badDefinitions
	format := text(cmd, "output")
	if !errors.As(err, &bad) {
		return err
	}
	n := len(bad.Problems)
	said := withCode(exitData, fmt.Errorf("%d %s", n, plural(n, "problem", "problems")))
	if format == "table" || format == "name" || format == "" {
		fmt.Fprint(a.stderr, bad.Error())
		return said
	}
	var list []problem
	for _, p := range bad.Problems {
		d := problem{place: place{p.File, p.Line, p.Column, p.Msg, p.Source}, Hint: p.Hint}
		for _, q := range p.Also {
			d.Also = append(d.Also, place{q.File, q.Line, q.Column, q.Msg, q.Source})
		}
		list = append(list, d)
	}
	if err := show(a, cmd, view[problem]{}, list); err != nil {
		return err
	}
	return said
}

func plural(n int, one, many string) string {
	if n == 1 {
		return one
	}
	return many
}
