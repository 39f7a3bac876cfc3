package cli

import (
	"fmt"
	goruntime "runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// build says what this program was built from.
type build struct {
	Version string `json:"version"`
	Commit  string `json:"commit,omitempty"`
	Changed bool   `json:"changed,omitempty"` // files differed from the commit
	Go      string `json:"go"`
	OS      string `json:"os"`
	Arch    string `json:"arch"`
}

func buildOf() build {
	b := build{Version: "unknown", Go: goruntime.Version(), OS: goruntime.GOOS, Arch: goruntime.GOARCH}
	if info, ok := debug.ReadBuildInfo(); ok {
		b.Version = info.Main.Version
		for _, s := range info.Settings {
			switch s.Key {
			case "vcs.revision":
				b.Commit = s.Value
			case "vcs.modified":
				b.Changed = s.Value == "true"
			}
		}
	}
	return b
}

func (a *app) version() *cobra.Command {
	c := a.command(cobra.Command{
		Use:     "version",
		Short:   "Say what this program was built from",
		Long:    "Version says the module's version, the commit, whether files differed from it, and Go's version and platform.",
		Example: `  sidestream version -o json`,
		Args:    noArgs,
	},
		func(cmd *cobra.Command, _ []string) error {
			return showOne(a, cmd, view[build]{
				head: []string{"VERSION", "COMMIT", "GO", "PLATFORM"},
				row: func(b build) []string {
					return []string{b.Version, b.Commit, b.Go, fmt.Sprintf("%s/%s", b.OS, b.Arch)}
				},
				name: func(b build) string { return b.Version },
			}, buildOf())
		})
	prints(c)
	return c
}
