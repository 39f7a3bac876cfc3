package cli

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/sidestream-dev/sidestream/bench"
	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/jobs/spec/expr"
)

// Main runs the command that the program's arguments name and returns the exit code. defs are jobs written in Go, which
// run beside those of files.
func Main(defs ...*jobs.Job) int {
	bench.MaybeBroker()
	a := &app{name: filepath.Base(os.Args[0]), defs: defs, stdout: os.Stdout, stderr: os.Stderr}
	return a.main(os.Args[1:])
}

// app is what the commands share.
type app struct {
	name   string            // of the program
	defs   []*jobs.Job       // written in Go
	stdout io.Writer         // data
	stderr io.Writer         // messages
	ran    bool              // a command was found and its arguments were right
	from   map[string]origin // where a setting is from
	shape  reflect.Type      // of what was printed last, for the test that compares it with the guide
	many   bool              // it was a list of them

	contexts map[string]site // by name, of the settings files
}

func (a *app) main(args []string) (code int) {
	defer func() {
		if v := recover(); v != nil {
			fmt.Fprintf(a.stderr, "%s: this is a bug of ours: %v\n%s", a.name, v, debug.Stack())
			code = exitBug
		}
	}()
	root := a.tree()
	root.SetArgs(args)
	cmd, err := root.ExecuteC()
	if err == nil {
		return exitOK
	}
	code = exitCode(err)
	var exit *exitError
	if !a.ran && !errors.As(err, &exit) {
		code = exitUsage
	}
	if m := flagsMissing.FindStringSubmatch(err.Error()); m != nil && !a.ran {
		err = fmt.Errorf("--%s is needed", strings.ReplaceAll(m[1], `", "`, " and --"))
	}
	if msg := err.Error(); msg != "" {
		for _, room := range []string{"admin: ", "runtime: "} { // of ours, and nobody else's business
			msg = strings.TrimPrefix(msg, room)
		}
		a.say("%s", strings.TrimRight(msg, "\n"))
	}
	if code == exitUsage {
		a.say("see '%s --help'", cmd.CommandPath())
	}
	return code
}

// flagsMissing is what the parser of flags says of those that are required.
var flagsMissing = regexp.MustCompile(`^required flag\(s\) "(.*)" not set$`)

// say writes a message.
func (a *app) say(format string, args ...any) {
	fmt.Fprintf(a.stderr, a.name+": "+format+"\n", args...)
}

// tree returns the commands.
func (a *app) tree() *cobra.Command {
	root := &cobra.Command{
		Use:           a.name,
		Short:         "Stream-processing jobs in one process, joined by a durable bus",
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          noSuch,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.CompletionOptions.DisableDefaultCmd = true
	root.SetFlagErrorFunc(badFlag)
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	root.AddCommand(a.dev(), a.run(), a.check(), a.test(), a.schema())
	root.AddCommand(a.jobCommands(), a.busCommands(), a.replayCommand())
	root.AddCommand(a.status(), a.top(), a.doctor())
	root.AddCommand(a.walCommands(), a.checkpointCommands())
	root.AddCommand(a.contextCommands(), a.bench(measurements), a.completion(), a.version())
	return root
}

// group returns a command that only holds others.
func group(use, short, long string) *cobra.Command {
	return &cobra.Command{Use: use, Short: short, Long: long, Args: noSuch, RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
}

// one wants a single argument, and says which command names those there are.
func one(what, lister string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) == 0 || args[0] == "":
			return fmt.Errorf("name %s; '%s %s' names those there are", what, cmd.Root().Name(), lister)
		case len(args) > 1:
			return fmt.Errorf("name %s, and one only: %q is too much", what, args[1])
		}
		return nil
	}
}

// noSuch refuses what should be the name of a command below cmd, and is none.
func noSuch(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	var names, elsewhere []string
	for _, c := range cmd.Commands() {
		names = append(names, c.Name())
		for _, below := range c.Commands() {
			if below.Name() == args[0] {
				elsewhere = append(elsewhere, "'"+below.CommandPath()+"'")
			}
		}
	}
	switch near := expr.Nearest(args[0], names); {
	case elsewhere != nil:
		return fmt.Errorf("unknown command %q; did you mean %s?", args[0], strings.Join(elsewhere, " or "))
	case near != "":
		return fmt.Errorf("unknown command %q; did you mean %s?", args[0], near)
	}
	return fmt.Errorf("unknown command %q; known are %s", args[0], strings.Join(names, ", "))
}

// noArgs wants none.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("%q is too much: %s takes flags only", args[0], cmd.Name())
	}
	return nil
}

// oneOf wants one of some words.
func oneOf(what string, words ...string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		switch {
		case len(args) == 0:
			return fmt.Errorf("name %s: %s", what, strings.Join(words, ", "))
		case !slices.Contains(words, args[0]):
			return fmt.Errorf("%q is no %s; %s", args[0], strings.TrimPrefix(strings.TrimPrefix(what, "an "), "a "), expr.DidYouMean(args[0], words))
		case len(args) > 1:
			return fmt.Errorf("name %s, and one only: %q is too much", what, args[1])
		}
		return nil
	}
}

// badFlag puts what the parser of flags says into our words.
func badFlag(cmd *cobra.Command, err error) error {
	var unknown *pflag.NotExistError
	var invalid *pflag.InvalidValueError
	switch {
	case errors.As(err, &unknown):
		var names []string
		cmd.Flags().VisitAll(func(f *pflag.Flag) { names = append(names, "--"+f.Name) })
		name := unknown.GetSpecifiedName()
		if len(name) == 1 {
			return err // a shorthand looks like too much
		}
		if hint := expr.DidYouMean("--"+name, names); strings.HasPrefix(hint, "did you mean") {
			return fmt.Errorf("%w; %s", err, hint)
		}
	case errors.As(err, &invalid):
		want, ok := map[string]string{"int": "a whole number", "int64": "a whole number", "uint64": "a whole number, 0 or more",
			"duration": "a duration such as 10s or 2m", "bool": "true or false"}[invalid.GetFlag().Value.Type()]
		if ok {
			return fmt.Errorf("--%s is %q; it is %s", invalid.GetFlag().Name, invalid.GetValue(), want)
		}
	}
	return err
}

// runs marks a command that does something by itself.
const runs = "runs"

// command returns a command whose settings are filled before do runs.
func (a *app) command(c cobra.Command, do func(cmd *cobra.Command, args []string) error) *cobra.Command {
	c.DisableFlagsInUseLine = true
	c.Annotations = map[string]string{runs: "yes"}
	c.RunE = func(cmd *cobra.Command, args []string) error {
		if err := a.fill(cmd); err != nil {
			return err
		}
		if err := notNegative(cmd); err != nil {
			return err
		}
		if err := a.checkFormat(cmd); err != nil {
			return err
		}
		if err := a.needsDirectory(cmd); err != nil {
			return err
		}
		a.ran = true
		return do(cmd, args)
	}
	return &c
}

// notNegative refuses a time before now where one to wait is wanted.
func notNegative(cmd *cobra.Command) (err error) {
	cmd.Flags().Visit(func(f *pflag.Flag) {
		if f.Value.Type() == "duration" && strings.HasPrefix(f.Value.String(), "-") {
			err = withCode(exitUsage, fmt.Errorf("--%s is %s; it is a duration such as 10s", f.Name, f.Value))
		}
	})
	return err
}

// logger returns what log-level and log-format ask for, on stderr.
func (a *app) logger(cmd *cobra.Command, w io.Writer) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(text(cmd, "log-level"))); err != nil {
		return nil, a.bad(cmd, "log-level", "debug, info, warn or error")
	}
	opts := &slog.HandlerOptions{Level: level}
	switch text(cmd, "log-format") {
	case "text":
		return slog.New(slog.NewTextHandler(w, opts)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, opts)), nil
	default:
		return nil, a.bad(cmd, "log-format", "text or json")
	}
}
