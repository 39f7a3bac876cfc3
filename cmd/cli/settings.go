package cli

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/sidestream-dev/sidestream/jobs/connector"
	"github.com/sidestream-dev/sidestream/jobs/connector/all"
	"github.com/sidestream-dev/sidestream/jobs/spec"
	"github.com/sidestream-dev/sidestream/runtime"
)

// setting is a flag that may also be given as SIDESTREAM_NAME, or as name in a file (file.go). What is asked once, such as the
// first offset to show, is a flag alone.
type setting struct {
	name string // of the flag
	def  string
	doc  string
}

// settings is all of them; a command has those it takes as flags.
var settings = []setting{
	{name: "data-dir", def: "sidestream-data", doc: "directory of the log, the snapshots and the embedded broker"},
	{name: "listen", doc: "address (such as 127.0.0.1:9600) that serves the admin API: /metrics and the status, read-only; all with --token-file"},
	{name: "token-file", doc: "file with the token that a client over TCP must send; only its owner may read it"},
	{name: "tls-cert", doc: "certificate, in PEM, for TLS"},
	{name: "tls-key", doc: "its key"},
	{name: "tls-client-ca", doc: "authorities whose certificates clients must show (mTLS)"},
	{name: "socket", doc: "unix socket of the admin API; empty means run/admin.sock in the data directory"},
	{name: "context", doc: "server to ask, by its name in a settings file; see 'context list'"},
	{name: "drain-timeout", def: "30s", doc: "how long a stop may take: last barriers, and what is yet to be sent"},
	{name: "kafka-port", def: "0", doc: "port of the embedded Kafka broker; 0 takes one that is free"},
	{name: "log-level", def: "info", doc: "debug, info, warn or error"},
	{name: "log-format", def: "text", doc: "text or json"},
	{name: "commit-interval", def: "5ms", doc: "between two barriers of a job while there is something to commit"},
	{name: "epoch-bytes", def: "64MiB", doc: "an epoch that has grown so large is committed early"},
	{name: "sealed-bytes", doc: "no epoch is sealed while more than this is not durable; empty means twice epoch-bytes"},
	{name: "frame-bytes", def: "1MiB", doc: "an epoch larger than this is written to the log in parts"},
	{name: "topic-memory", def: "16MiB", doc: "of each topic that is kept in memory for live readers"},
	{name: "snapshot-bytes", def: "64MiB", doc: "a job writes a snapshot after so many bytes of log, or its state's size if that is more"},
	{name: "log-max-bytes", def: "4GiB", doc: "past this, whoever keeps the log from being cut is named and acted on"},
	{name: "catch-up-percent", def: "12", doc: "of the machine's time for all jobs together that catch up with a topic's history, while others are at work; 100 paces none"},
	{name: "attempts-max", def: "10", doc: "attempts of a job in a row that commit nothing before it is failed"},
	{name: "backoff-max", def: "30s", doc: "the longest wait between two attempts of a failing job"},
	{name: "stuck-after", def: "5s", doc: "a step that has not returned for so long is named"},
	{name: "update-probation", def: "30s", doc: "a definition that fails so soon after a change is taken back; 0s never"},
	{name: "allow-env", def: strings.Join(spec.DefaultAllowEnv(), ","), doc: "what definitions may read of the environment by ${env:NAME}: names, or patterns with *, with commas between them"},
	{name: "output"}, // see prints
	{name: "color", def: "auto", doc: "auto (on a terminal, unless NO_COLOR is set), always, never"},
}

// tuning is what run sets of a runtime.Config.
var tuning = []string{"commit-interval", "epoch-bytes", "sealed-bytes", "frame-bytes", "topic-memory", "snapshot-bytes", "log-max-bytes",
	"catch-up-percent", "attempts-max", "backoff-max", "stuck-after", "update-probation"}

// frameBytesMax leaves room in the log's frames, of 16 MiB at most, for a record that is larger than the rest.
const frameBytesMax = 8 << 20

// key is a setting's name in a file.
func (s setting) key() string { return strings.ReplaceAll(s.name, "-", "_") }

// env is a setting's name in the environment.
func (s setting) env() string { return "SIDESTREAM_" + strings.ToUpper(s.key()) }

// take gives a command the settings it takes.
func take(cmd *cobra.Command, names ...string) {
	for _, name := range names {
		i := slices.IndexFunc(settings, func(s setting) bool { return s.name == name })
		s := settings[i]
		cmd.Flags().String(name, s.def, s.doc)
		isSetting(cmd, name)
		switch name {
		case "data-dir":
			must(cmd.MarkFlagDirname(name))
		case "socket", "token-file", "tls-cert", "tls-key", "tls-client-ca":
			must(cmd.MarkFlagFilename(name))
		case "color":
			completes(cmd, name, "auto", "always", "never")
		case "log-level":
			completes(cmd, name, "debug", "info", "warn", "error")
		case "log-format":
			completes(cmd, name, "text", "json")
		case "context":
			completeFlag(cmd, name, &app{}, contextNames)
		}
	}
}

// language is what a command loads definitions with.
func language(cmd *cobra.Command) spec.Config {
	allow := []string{}
	for _, name := range strings.Split(text(cmd, "allow-env"), ",") {
		if name = strings.TrimSpace(name); name != "" {
			allow = append(allow, name)
		}
	}
	return spec.Config{Connectors: all.Registry(), AllowEnv: allow}
}

// isSetting marks a flag as one that fill fills.
func isSetting(cmd *cobra.Command, name string) {
	must(cmd.Flags().SetAnnotation(name, "setting", nil))
}

// must is for what fails only by our own mistake, such as a flag that is not there.
func must(err error) {
	if err != nil {
		panic("cli: " + err.Error())
	}
}

// rank orders where a setting may come from: what ranks higher wins.
type rank int

const (
	byDefault rank = iota
	byFile
	byEnv
	byFlag
)

// origin is where a setting is from; where names it for people, and is empty for a flag and a default.
type origin struct {
	rank  rank
	where string // SIDESTREAM_NAME, FILE:LINE
}

// fill gives the flags of cmd that the command line left out what the environment or a file says. A variable that is empty says
// nothing.
func (a *app) fill(cmd *cobra.Command) error {
	given, err := readSettings()
	if err != nil {
		return err
	}
	a.contexts = given.contexts
	a.from = map[string]origin{}
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		s := setting{name: f.Name}
		_, is := f.Annotations["setting"]
		if f.Changed {
			a.from[f.Name] = origin{rank: byFlag}
		} else if v := os.Getenv(s.env()); v != "" && is {
			a.from[f.Name] = origin{byEnv, s.env()}
			_ = f.Value.Set(v) // settings are strings, which take anything
		} else if v, ok := given.values[s.key()]; ok && is {
			a.from[f.Name] = origin{byFile, v.where}
			_ = f.Value.Set(v.value)
		}
	})
	return nil
}

// bad says that a setting's value is not one: a mistake in usage where it was a flag, else in configuration.
func (a *app) bad(cmd *cobra.Command, name, want string) error {
	if from := a.from[name]; from.where != "" {
		return withCode(exitConfig, fmt.Errorf("%s: %s is %q; it is %s", from.where, name, text(cmd, name), want))
	}
	return withCode(exitUsage, fmt.Errorf("--%s is %q; it is %s", name, text(cmd, name), want))
}

// duration reads a setting that is one.
func (a *app) duration(cmd *cobra.Command, name string) (time.Duration, error) {
	d, err := time.ParseDuration(text(cmd, name))
	if err != nil || d < 0 {
		return 0, a.bad(cmd, name, "a duration such as 10s or 2m")
	}
	return d, nil
}

// bytes reads a setting that is a size. Empty is 0.
func (a *app) bytes(cmd *cobra.Command, name string, most int64) (int64, error) {
	if text(cmd, name) == "" {
		return 0, nil
	}
	n, ok := connector.ParseBytes(text(cmd, name))
	if !ok || n < 1 || n > most {
		return 0, a.bad(cmd, name, "a size such as 64MiB or 1GB, at most "+sized(most))
	}
	return n, nil
}

// tune gives cfg what the settings of run say.
func (a *app) tune(cmd *cobra.Command, cfg *runtime.Config) error {
	var errs []error
	size := func(into *int64, name string) {
		n, err := a.bytes(cmd, name, 1<<60)
		*into, errs = n, append(errs, err)
	}
	span := func(into *time.Duration, name string) {
		d, err := a.duration(cmd, name)
		if err == nil && d == 0 {
			err = a.bad(cmd, name, "a duration above 0, such as 5ms")
		}
		*into, errs = d, append(errs, err)
	}
	span(&cfg.CommitInterval, "commit-interval")
	span(&cfg.BackoffMax, "backoff-max")
	span(&cfg.StuckAfter, "stuck-after")
	size(&cfg.EpochBytes, "epoch-bytes")
	size(&cfg.SealedBytes, "sealed-bytes")
	size(&cfg.TopicMemory, "topic-memory")
	size(&cfg.SnapshotBytes, "snapshot-bytes")
	size(&cfg.LogBytes, "log-max-bytes")
	frame, err := a.bytes(cmd, "frame-bytes", frameBytesMax)
	cfg.FrameBytes, errs = int(frame), append(errs, err)
	if cfg.AttemptsMax, err = strconv.Atoi(text(cmd, "attempts-max")); err != nil || cfg.AttemptsMax < 1 {
		errs = append(errs, a.bad(cmd, "attempts-max", "a number, 1 or more"))
	}
	if cfg.CatchUpPercent, err = strconv.Atoi(text(cmd, "catch-up-percent")); err != nil || cfg.CatchUpPercent < 1 || cfg.CatchUpPercent > 100 {
		errs = append(errs, a.bad(cmd, "catch-up-percent", "a number from 1 to 100"))
	}
	if cfg.Probation, err = a.duration(cmd, "update-probation"); err == nil && cfg.Probation == 0 {
		cfg.Probation = -1
	}
	errs = append(errs, err)
	cfg.BackoffMin = min(100*time.Millisecond, cfg.BackoffMax)
	if cfg.SealedBytes > 0 && cfg.SealedBytes < cfg.EpochBytes {
		errs = append(errs, a.bad(cmd, "sealed-bytes", "no less than epoch-bytes, which is "+text(cmd, "epoch-bytes")))
	}
	for _, err := range errs { // one at a time; its exit code is that of where it is from
		if err != nil {
			return err
		}
	}
	return nil
}

// needsDirectory refuses an empty --data-dir, which would be the directory one is in.
func (a *app) needsDirectory(cmd *cobra.Command) error {
	if f := cmd.Flags().Lookup("data-dir"); f != nil && f.Value.String() == "" {
		if _, is := f.Annotations["setting"]; is { // dev takes a temporary one
			return a.bad(cmd, "data-dir", "the name of a directory")
		}
	}
	return nil
}

// text returns a flag's value, "" where the command does not take it.
func text(cmd *cobra.Command, name string) string {
	if f := cmd.Flags().Lookup(name); f != nil {
		return f.Value.String()
	}
	return ""
}

// errServers is a command that is told of two servers.
var errServers = errors.New("--context names the server, and so does --socket or --data-dir; leave one out")
