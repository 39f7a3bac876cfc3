package cli

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime/debug"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sidestream-dev/sidestream/bench"
	"github.com/sidestream-dev/sidestream/jobs"
)

// Main runs the command that the program's arguments name and returns the exit code. defs are jobs written in Go, which
// run beside those of files.
func Main(defs ...*jobs.Job) int {
	bench.MaybeBroker()
	a := &app{defs: defs, stdout: os.Stdout, stderr: os.Stderr}
	return a.main(os.Args[1:])
}

// app is what the commands share.
type app struct {
	defs   []*jobs.Job // written in Go
	stdout io.Writer   // data
	stderr io.Writer   // messages
	ran    bool        // a command was found and its arguments were right
}

func (a *app) main(args []string) (code int) {
	defer func() {
		if v := recover(); v != nil {
			fmt.Fprintf(a.stderr, "sidestream: this is a bug of ours: %v\n%s", v, debug.Stack())
			code = exitBug
		}
	}()
	root := a.tree()
	root.SetArgs(args)
	err := root.Execute()
	if err == nil {
		return exitOK
	}
	code = exitCode(err)
	var exit *exitError
	if !a.ran && !errors.As(err, &exit) {
		code = exitUsage
	}
	if msg := err.Error(); msg != "" {
		fmt.Fprintln(a.stderr, "sidestream: "+strings.TrimRight(msg, "\n"))
	}
	if code == exitUsage {
		fmt.Fprintln(a.stderr, "sidestream: see 'sidestream --help'")
	}
	return code
}

// tree returns the commands.
func (a *app) tree() *cobra.Command {
	root := &cobra.Command{
		Use:           "sidestream",
		Short:         "Stream-processing jobs in one process, joined by a durable bus",
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.NoArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	root.AddCommand(a.dev(), a.run(), a.check(), a.busCommands(), a.walCommands(), a.bench(), a.schema(), a.version())
	return root
}

// command returns a command whose settings are filled before do runs.
func (a *app) command(c cobra.Command, do func(cmd *cobra.Command, args []string) error) *cobra.Command {
	c.DisableFlagsInUseLine = true
	c.RunE = func(cmd *cobra.Command, args []string) error {
		if err := a.fill(cmd); err != nil {
			return err
		}
		a.ran = true
		return do(cmd, args)
	}
	return &c
}

// logger returns what log-level and log-format ask for, on stderr.
func (a *app) logger(cmd *cobra.Command) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(text(cmd, "log-level"))); err != nil {
		return nil, withCode(exitConfig, fmt.Errorf("log-level is %q; it is one of debug, info, warn, error", text(cmd, "log-level")))
	}
	opts := &slog.HandlerOptions{Level: level}
	switch format := text(cmd, "log-format"); format {
	case "text":
		return slog.New(slog.NewTextHandler(a.stderr, opts)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(a.stderr, opts)), nil
	default:
		return nil, withCode(exitConfig, fmt.Errorf("log-format is %q; it is text or json", format))
	}
}

// duration reads a setting that is one.
func duration(cmd *cobra.Command, name string) (time.Duration, error) {
	d, err := time.ParseDuration(text(cmd, name))
	if err != nil || d < 0 {
		return 0, withCode(exitConfig, fmt.Errorf("%s is %q; it is a duration such as 10s or 2m", name, text(cmd, name)))
	}
	return d, nil
}
