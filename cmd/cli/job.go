package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/sidestream-dev/sidestream/jobs/spec"
	"github.com/sidestream-dev/sidestream/runtime"
	"github.com/sidestream-dev/sidestream/runtime/admin"
)

func (a *app) jobCommands() *cobra.Command {
	c := group("job", "Change the jobs of a running process, and see how they are",
		`The job commands ask the process that runs on the data directory, on --socket or at --context. What they change is durable
before they return: it outlives a crash, and the next run has it.`)
	c.AddCommand(a.jobApply(), a.jobDiff(), a.jobList(), a.jobGet(), a.jobPause(), a.jobResume(), a.jobRestart(), a.jobStop(), a.jobRemove(),
		a.jobLogs(), a.jobWait(), a.jobSavepoint(), a.jobSavepoints())
	return c
}

// asks gives a command what it needs to find the process.
func asks(c *cobra.Command) { take(c, "data-dir", "socket", "context") }

// client returns a client of the process that a command is to ask.
func (a *app) client(cmd *cobra.Command) (*admin.Client, error) {
	at, err := a.site(cmd)
	if err != nil {
		return nil, err
	}
	c, err := at.client()
	if err == nil {
		c.StartWait = starting(cmd)
		c.OnSilence = a.waitsOn
	}
	return c, err
}

// waitsOn says that a command that waits for what goes on in a process has no answer, and is not over.
func (a *app) waitsOn(err *admin.SilentError) {
	a.say("%v; waiting on (Ctrl-C ends that)", err)
}

// startingMax is how long a command waits for a process that is starting, so that scripts need no loop.
const startingMax = 10 * time.Second

// starting is that, within the command's own --timeout.
func starting(cmd *cobra.Command) time.Duration {
	if f := cmd.Flags().Lookup("timeout"); f != nil && f.Value.Type() == "duration" {
		if d, _ := cmd.Flags().GetDuration("timeout"); d > 0 {
			return min(d, startingMax)
		}
	}
	return startingMax
}

// untilInterrupt returns a context that Ctrl-C ends.
func untilInterrupt(cmd *cobra.Command) (context.Context, context.CancelFunc) {
	return signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
}

// namesJob makes a command take the name of a job, which a shell completes.
func (a *app) namesJob(c *cobra.Command) {
	c.Args = one("a job", "job list")
	c.ValidArgsFunction = a.completeWith(jobNames, 1)
	asks(c)
}

// jobNames are the jobs of the process.
func jobNames(ctx context.Context, a *app, cmd *cobra.Command) ([]string, error) {
	client, err := a.client(cmd)
	if err != nil {
		return nil, err
	}
	js, err := client.Jobs(ctx)
	var names []string
	for _, j := range js {
		names = append(names, j.Name+"\t"+string(j.State))
	}
	return names, err
}

// said gives an error of asking a process its exit code, and prints what is wrong with definitions as check does.
func (a *app) said(cmd *cobra.Command, err error) error {
	var p *admin.Problem
	var away *admin.UnreachableError
	var silent *admin.SilentError
	switch {
	case errors.As(err, &away), errors.As(err, &silent), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return reached(err)
	case !errors.As(err, &p):
		return err
	case p.Kind() == admin.KindUnauthorized, p.Kind() == admin.KindForbidden:
		return reached(err)
	case p.Kind() == admin.KindBadDefinition:
		bad := &badDefinitions{}
		for _, at := range p.Problems {
			bad.Problems = append(bad.Problems, at.Problem())
		}
		return a.problems(cmd, bad)
	case p.Kind() == admin.KindRefused && len(p.Problems) > 0:
		var b strings.Builder
		for _, at := range p.Problems {
			fmt.Fprintf(&b, "\n  %s", strings.TrimPrefix(at.Problem().String(), ": "))
		}
		return withCode(exitFailed, fmt.Errorf("nothing was changed:%s", b.String()))
	case p.Kind() == admin.KindNotFound:
		return notThere(err, p.Missing, p.Near)
	}
	return err
}

// definitions reads files, directories and, for "-", standard input.
func (a *app) definitions(paths []string) ([]spec.File, error) {
	var files []spec.File
	var problems []spec.Problem
	for _, p := range paths {
		if p == "-" {
			b, err := io.ReadAll(io.LimitReader(os.Stdin, spec.MaxFileBytes+1))
			if err != nil {
				return nil, fmt.Errorf("standard input: %w", err)
			}
			files = append(files, spec.File{Name: "-", Content: b})
			continue
		}
		fs, ps := spec.ReadFiles(p)
		files, problems = append(files, fs...), append(problems, ps...)
	}
	if len(problems) > 0 {
		return nil, &badDefinitions{Problems: problems}
	}
	return files, nil
}

// someFiles wants definitions.
func someFiles(_ *cobra.Command, args []string) error {
	if len(args) == 0 {
		return errors.New("name the files, or directories of files, that define the jobs; - is standard input")
	}
	return nil
}

func (a *app) jobApply() *cobra.Command {
	c := a.command(cobra.Command{
		Use:   "apply FILE|DIR|-...",
		Short: "Add jobs to a running process, or change those there are",
		Long: `Apply gives definitions to the process: all of them are taken, or none. Everything new is checked, built and connected before
anything is changed; what is wrong is told as 'check' tells it, and brokers, topics and files that could not be had job by job. The files, variables and secrets that definitions name are those
of the process, where it runs. From then on the process owns the definition: the next run has it without a file.

A job that is changed commits once more and goes on with the new definition; where that fails within --probation, the old one comes
back, and 'job list' and 'job logs' say why; --wait waits for it. What a change would drop of a job's state is said, and needs --allow-state-loss.

What outputs that a job has no more have yet to send is sent on in the background, after apply has returned. Until it is, they keep the
places they go to, also past --probation, and a change that would lose what is unsent is refused. Where their outside is away for good,
--drop-unsent drops what is left, and counts it; that is gone, also where the old definition comes back. It drops what was given up
earlier too, by any definition: the one that the job has already is fine.`,
		Example: `  sidestream job apply more.yaml
  sidestream job apply more.yaml --dry-run
  sidestream job apply more.yaml --wait --probation 5s
  sidestream job apply more.yaml --drop-unsent --dry-run
  sidestream job apply - <more.yaml`,
		Args: someFiles,
	}, func(cmd *cobra.Command, args []string) error {
		var r admin.ApplyRequest
		r.DryRun, _ = cmd.Flags().GetBool("dry-run")
		if d := timeoutOf(cmd); d > 0 {
			r.Timeout = d.String()
		}
		if cmd.Flags().Changed("probation") {
			d, _ := cmd.Flags().GetDuration("probation")
			r.Probation = d.String()
		}
		return a.doApply(cmd, args, r)
	})
	c.Flags().Bool("dry-run", false, "say what would be done, and do nothing")
	c.Flags().Duration("probation", 30*time.Second, "for how long the old definition is kept, to come back if the new one fails; 0 is not at all")
	c.Flags().Bool("wait", false, "until the jobs are at work and probation is over: exit code 1 where an old definition is back, or a job fails")
	takesTime(c)
	a.changes(c)
	prints(c)
	return c
}

// changes gives a command what apply and diff both need.
func (a *app) changes(c *cobra.Command) {
	c.Flags().Bool("adopt", false, "take jobs over whose definitions are a file's of the process")
	c.Flags().Bool("allow-state-loss", false, "drop state that the new definition cannot keep")
	c.Flags().Bool("if-match", false, "only where each job is still at the version that its file says in its first line, as 'job get --with-version' gives it")
	c.Flags().Bool("drop-unsent", false, "drop what outputs that the definition gives up, or that the job gave up earlier, have yet to send; it is counted")
	c.Flags().String("from", "", "a savepoint that the job, of which there is one and which is new, begins with")
	completeFlag(c, "from", a, savepointNames)
	c.ValidArgsFunction = definitionFiles
	asks(c)
}

func (a *app) jobDiff() *cobra.Command {
	c := a.command(cobra.Command{
		Use:   "diff FILE|DIR|-...",
		Short: "Say what apply would change",
		Long:  "Diff gives definitions to the process, which says what 'job apply' would do with them, and does nothing.",
		Example: `  sidestream job diff more.yaml
  sidestream job diff more.yaml --exit-code   # 1 where something would change`,
		Args: someFiles,
	}, func(cmd *cobra.Command, args []string) error {
		return a.doApply(cmd, args, admin.ApplyRequest{DryRun: true})
	})
	c.Flags().Bool("exit-code", false, "end with 1 where something would change")
	a.changes(c)
	prints(c)
	return c
}

// doApply gives definitions to the process and shows what it makes of them.
func (a *app) doApply(cmd *cobra.Command, args []string, r admin.ApplyRequest) error {
	match, _ := cmd.Flags().GetBool("if-match")
	if err := noVersions(match, args); err != nil {
		return err
	}
	files, err := a.definitions(args)
	if err != nil {
		return a.problems(cmd, withCode(exitData, err))
	}
	client, err := a.client(cmd)
	if err != nil {
		return err
	}
	r.Adopt, _ = cmd.Flags().GetBool("adopt")
	r.AllowStateLoss, _ = cmd.Flags().GetBool("allow-state-loss")
	at := versions(files)
	if match {
		if len(at) == 0 {
			return withCode(exitUsage, fmt.Errorf("--if-match: no file says at which version a job was; '%s job get JOB --with-version' gives one", a.name))
		}
		r.IfMatch = at
	}
	r.DropUnsent, _ = cmd.Flags().GetBool("drop-unsent")
	if r.From = text(cmd, "from"); r.From == "" && cmd.Flags().Changed("from") { // a script's variable may be unset
		return withCode(exitUsage, errors.New("--from is empty, and nothing was done: it takes the name of a savepoint"))
	}
	ctx, stop := untilInterrupt(cmd)
	defer stop()
	wait := false
	var before []admin.Job
	if !r.DryRun {
		wait, _ = cmd.Flags().GetBool("wait")
	}
	if wait {
		before, _ = client.Jobs(ctx) // of a process that starts there is none yet, and what it has read is not known
	}
	res, err := client.Apply(ctx, files, r)
	if err != nil {
		return a.said(cmd, err)
	}
	for _, w := range res.Warnings {
		a.warn([]spec.Problem{w.Problem()})
	}
	if wait && text(cmd, "output") == "name" { // the names of what has come to be, for a script to go on with
		well, err := a.settled(ctx, client, res.Jobs, before)
		return errors.Join(err, show(a, cmd, diffView, well))
	}
	if err := show(a, cmd, diffView, res.Jobs); err != nil {
		return err
	}
	if wait {
		_, err := a.settled(ctx, client, res.Jobs, before)
		return err
	}
	if !r.DryRun {
		a.onProbation(ctx, client, res.Jobs)
	}
	if format := text(cmd, "output"); r.DryRun && (format == "table") {
		for _, d := range res.Jobs {
			if _, err := fmt.Fprint(a.stdout, d.Text); err != nil {
				return err
			}
		}
	}
	if code, _ := cmd.Flags().GetBool("exit-code"); code {
		for _, d := range res.Jobs {
			if d.Action != runtime.ActionUnchanged || len(d.Dropped) > 0 {
				return withCode(exitFailed, nil)
			}
		}
	}
	return nil
}

// noVersions refuses what is taken for a file and was meant for the value of --if-match, which it has for 'job remove' alone.
func noVersions(match bool, args []string) error {
	for _, arg := range args {
		if _, err := os.Stat(arg); match && arg != "-" && errors.Is(err, fs.ErrNotExist) && filepath.Ext(arg) == "" {
			return withCode(exitUsage, fmt.Errorf("%q: there is no such file; --if-match takes no value here, for each file says in its first line at which version "+
				"its job was ('job get --with-version' makes one); 'job remove' takes a version", arg))
		}
	}
	return nil
}

var diffView = view[runtime.Diff]{
	head: []string{"JOB", "ACTION", "STEPS", "NOTES"},
	row: func(d runtime.Diff) []string {
		var steps, notes []string
		for _, s := range d.Steps {
			steps = append(steps, map[string]string{"added": "+", "removed": "-", "changed": "~"}[s.Change]+s.Step)
		}
		for _, l := range d.StateLoss {
			notes = append(notes, "drops "+l.String())
		}
		if d.NoWayBack != "" {
			notes = append(notes, "no way back: "+d.NoWayBack)
		}
		for _, g := range d.GivenUp {
			notes = append(notes, "gives up "+g)
		}
		for _, name := range slices.Sorted(maps.Keys(d.Unsent)) {
			notes = append(notes, fmt.Sprintf("%d records of output %s are yet to be sent", d.Unsent[name], name))
		}
		for _, name := range slices.Sorted(maps.Keys(d.Dropped)) {
			notes = append(notes, fmt.Sprintf("drops %d records of output %s that were never sent: no way back for them", d.Dropped[name], name))
		}
		if !d.GaveUpAt.IsZero() {
			notes = append(notes, "it gave up an output at "+d.GaveUpAt.UTC().Format(time.RFC3339)+", and its old definition's claim stays until that is sent, or dropped by --drop-unsent")
		}
		for _, n := range d.Needs {
			notes = append(notes, "needs --"+strings.ReplaceAll(n, "_", "-"))
		}
		return []string{d.Job, string(d.Action), strings.Join(steps, " "), strings.Join(notes, "; ")}
	},
	name: func(d runtime.Diff) string { return d.Job },
}

func (a *app) jobList() *cobra.Command {
	c := a.command(cobra.Command{
		Use:   "list",
		Short: "List the jobs that the process knows, and what they do",
		Long: `List shows every job of the data directory: its state, whose its definition is (a file's or the API's), and what it waits for.
IN and OUT count records since the process began; what an attempt that failed has to read again counts once.`,
		Example: `  sidestream job list
  sidestream job list -o name`,
		Args: noArgs,
	}, func(cmd *cobra.Command, _ []string) error {
		client, err := a.client(cmd)
		if err != nil {
			return err
		}
		js, err := client.Jobs(cmd.Context())
		if err != nil {
			return a.said(cmd, err)
		}
		return show(a, cmd, jobView, js)
	})
	asks(c)
	prints(c)
	return c
}

// waitsFor is what a job waits for, as a list shows it.
func waitsFor(waits []runtime.Wait) string {
	var texts []string
	for _, w := range waits {
		texts = append(texts, w.Text)
	}
	return strings.Join(texts, ", ")
}

var jobView = view[admin.Job]{
	head: []string{"JOB", "STATE", "ORIGIN", "SINCE", "IN", "OUT", "LAG", "WHY"},
	row: func(j admin.Job) []string {
		why := ofJob(j.Name, j.Reason)
		since, in, out, lag := "", "", "", ""
		if st := j.Status; st != nil {
			since, in, out, lag = ago(time.Now(), st.Since), fmt.Sprint(st.Counters.In), fmt.Sprint(st.Counters.Out), fmt.Sprint(st.Lag)
			switch {
			case len(st.Waiting) > 0:
				why = "waits for " + waitsFor(st.Waiting)
			case why != "":
			case st.CatchUp != nil:
				why = "catches up"
				if st.CatchUp.Rate >= 0.5 { // none is known in the first moments
					why = fmt.Sprintf("catches up, %.0f records a second", st.CatchUp.Rate)
				}
				if st.CatchUp.Paced {
					why += ", and leaves time to the others"
				}
			case st.RolledBack != nil:
				why = "the definition before is back, for the changed one failed: " + ofJob(j.Name, st.RolledBack.Error)
			case st.State != runtime.StateRunning && st.Error != "":
				why = ofJob(j.Name, st.Error)
			default:
				why = lateText(*st)
			}
		}
		return []string{j.Name, string(j.State), string(j.Origin), since, in, out, lag, why}
	},
	name: func(j admin.Job) string { return j.Name },
}

func (a *app) jobGet() *cobra.Command {
	c := a.command(cobra.Command{
		Use:   "get JOB",
		Short: "Show a job: its state, or with -o yaml its definition",
		Long:  "Get shows how a job stands; -o json has its subtasks, outputs and definition too, and -o yaml is its definition, as it was given. --with-version is that\nwith a first line that says at which version it is: 'job apply --if-match' takes it, changed, only where nobody else has changed the job meanwhile.",
		Example: `  sidestream job get ticks
  sidestream job get ticks -o yaml >ticks.yaml
  sidestream job get ticks --with-version >ticks.yaml`,
	}, func(cmd *cobra.Command, args []string) error {
		versioned, _ := cmd.Flags().GetBool("with-version")
		if format := text(cmd, "output"); versioned && cmd.Flags().Changed("output") && format != "yaml" {
			return withCode(exitUsage, fmt.Errorf("--with-version writes the definition, in YAML: leave out -o %s, or, for the version as a field, --with-version", format))
		}
		client, err := a.client(cmd)
		if err != nil {
			return err
		}
		j, err := client.Job(cmd.Context(), args[0])
		if err != nil {
			return a.said(cmd, err)
		}
		if versioned {
			if _, err := fmt.Fprintf(a.stdout, "%s%s of job %s\n", versionLine, j.Version, j.Name); err != nil {
				return err
			}
		}
		if versioned || text(cmd, "output") == "yaml" {
			_, err := fmt.Fprintln(a.stdout, strings.TrimRight(j.Definition, "\n"))
			return err
		}
		return showOne(a, cmd, jobView, j)
	})
	c.Flags().Bool("with-version", false, "its definition, with the version at which it is, for 'job apply --if-match'")
	a.namesJob(c)
	prints(c)
	return c
}

// versionLine begins the line of a file that says at which version a job was when the file was made of it.
const versionLine = "# sidestream-version: "

// versions takes the lines that say at which version jobs were out of files, and returns what they say by job.
func versions(files []spec.File) map[string]string {
	said := map[string]string{}
	for i, f := range files {
		var kept [][]byte
		for line := range bytes.Lines(f.Content) {
			rest, is := strings.CutPrefix(string(line), versionLine)
			version, job, ok := strings.Cut(strings.TrimSpace(rest), " of job ")
			if is && ok {
				said[job] = version
				line = []byte("\n") // places in the file stay what they are
			}
			kept = append(kept, line)
		}
		files[i].Content = bytes.Join(kept, nil)
	}
	return said
}
