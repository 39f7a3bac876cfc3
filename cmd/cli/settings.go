package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v4"
)

// setting is a flag that may also be given as SIDESTREAM_NAME, or as name in a file: ./sidestream.yaml, then
// sidestream/sidestream.yaml below the user's configuration directory ($XDG_CONFIG_HOME, ~/.config).
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
	{name: "drain-timeout", def: "30s", doc: "how long a stop may take: last barriers, and what is yet to be sent"},
	{name: "kafka-port", def: "0", doc: "port of the embedded Kafka broker; 0 takes one that is free"},
	{name: "log-level", def: "info", doc: "debug, info, warn or error"},
	{name: "log-format", def: "text", doc: "text or json"},
	{name: "output"}, // see prints
	{name: "color", def: "auto", doc: "auto (on a terminal, unless NO_COLOR is set), always, never"},
}

// take gives a command the settings it takes.
func take(cmd *cobra.Command, names ...string) {
	for _, name := range names {
		i := slices.IndexFunc(settings, func(s setting) bool { return s.name == name })
		s := settings[i]
		cmd.Flags().String(name, s.def, s.doc)
		isSetting(cmd, name)
	}
}

// isSetting marks a flag as one that fill fills.
func isSetting(cmd *cobra.Command, name string) {
	if err := cmd.Flags().SetAnnotation(name, "setting", nil); err != nil {
		panic("cli: " + err.Error()) // there is no such flag: our own mistake
	}
}

// fill gives the flags of cmd that the command line left out what the environment or a file says.
func (a *app) fill(cmd *cobra.Command) error {
	given, err := a.files()
	if err != nil {
		return err
	}
	a.from = map[string]string{}
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if _, is := f.Annotations["setting"]; !is || f.Changed {
			return
		}
		key := strings.ReplaceAll(f.Name, "-", "_")
		value, from := "", ""
		if v, ok := os.LookupEnv("SIDESTREAM_" + strings.ToUpper(key)); ok {
			value, from = v, "SIDESTREAM_"+strings.ToUpper(key)
		} else if v, ok := given[key]; ok {
			value, from = v.value, v.file
		} else {
			return
		}
		_ = f.Value.Set(value) // settings are strings, which take anything
		a.from[f.Name] = from
	})
	return nil
}

// bad says that a setting's value is not one: a mistake in usage where it was a flag, else in configuration.
func (a *app) bad(cmd *cobra.Command, name, want string) error {
	if from, ok := a.from[name]; ok {
		return withCode(exitConfig, fmt.Errorf("%s: %s is %q; it is %s", from, name, text(cmd, name), want))
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

// fromFile is a setting as a file has it.
type fromFile struct{ value, file string }

// files reads the settings files, the nearest last so that it wins.
func (a *app) files() (map[string]fromFile, error) {
	all := map[string]fromFile{}
	var names []string
	if dir, err := os.UserConfigDir(); err == nil {
		names = append(names, filepath.Join(dir, "sidestream", "sidestream.yaml"))
	}
	for _, name := range append(names, "sidestream.yaml") {
		b, err := os.ReadFile(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, withCode(exitConfig, err)
		}
		var m map[string]any
		if err := yaml.Unmarshal(b, &m); err != nil {
			return nil, withCode(exitConfig, fmt.Errorf("%s: %w", name, err))
		}
		for _, key := range slices.Sorted(maps.Keys(m)) {
			if !slices.ContainsFunc(settings, func(s setting) bool { return strings.ReplaceAll(s.name, "-", "_") == key }) {
				return nil, withCode(exitConfig, fmt.Errorf("%s: there is no setting %q; there are %s", name, key, settingNames()))
			}
			all[key] = fromFile{fmt.Sprint(m[key]), name}
		}
	}
	return all, nil
}

func settingNames() string {
	var names []string
	for _, s := range settings {
		names = append(names, strings.ReplaceAll(s.name, "-", "_"))
	}
	return strings.Join(names, ", ")
}

// text returns a flag's value, "" where the command does not take it.
func text(cmd *cobra.Command, name string) string {
	if f := cmd.Flags().Lookup(name); f != nil {
		return f.Value.String()
	}
	return ""
}
