package cli

import (
	"encoding/json"

	"github.com/spf13/cobra"

	"github.com/sidestream-dev/sidestream/jobs/connector/all"
	"github.com/sidestream-dev/sidestream/jobs/spec"
)

func (a *app) schema() *cobra.Command {
	c := a.command(cobra.Command{
		Use:   "schema",
		Short: "Print the JSON Schema of job definitions, for an editor",
		Example: `  sidestream schema >job.schema.json
  # first line of a definition: # yaml-language-server: $schema=job.schema.json`,
		Args: cobra.NoArgs,
	}, func(cmd *cobra.Command, _ []string) error {
		b := spec.Schema(all.Registry())
		if text(cmd, "output") == "yaml" {
			return writeYAML(a.stdout, json.RawMessage(b))
		}
		_, err := a.stdout.Write(b)
		return err
	})
	prints(c, "json", "yaml")
	return c
}
