package cli

import (
	"bytes"
	"encoding/json"
	"os"

	"github.com/spf13/cobra"

	"github.com/sidestream-dev/sidestream/jobs/connector/all"
	"github.com/sidestream-dev/sidestream/jobs/spec"
	"github.com/sidestream-dev/sidestream/runtime/admin"
)

func (a *app) schema() *cobra.Command {
	c := a.command(cobra.Command{
		Use:   "schema",
		Short: "Print the JSON Schema of job definitions, for an editor",
		Long: `Schema prints what a definition may contain, for editors that complete and check YAML. An editor with a YAML language server
finds it by the first line of a definition: # yaml-language-server: $schema=job.schema.json`,
		Example: `  sidestream schema >job.schema.json`,
		Args:    noSuch,
	}, func(cmd *cobra.Command, _ []string) error {
		b := spec.Schema(all.Registry())
		if text(cmd, "output") == "yaml" {
			return writeYAML(a.stdout, json.RawMessage(b))
		}
		_, err := a.stdout.Write(b)
		return err
	})
	prints(c, "json", "yaml")
	c.AddCommand(a.schemaJob(), a.schemaAPI(), a.schemaTest())
	return c
}

func (a *app) schemaJob() *cobra.Command {
	c := a.command(cobra.Command{
		Use:   "job",
		Short: "Print the JSON Schema of job definitions, or write it to a file",
		Long: `Job prints what schema alone prints. With --write it goes to a file, whole or not at all; an editor finds it by the first line
of a definition beside it: # yaml-language-server: $schema=job.schema.json`,
		Example: `  sidestream schema job`,
		Args:    noArgs,
	}, func(cmd *cobra.Command, _ []string) error {
		var b bytes.Buffer
		if text(cmd, "output") == "yaml" {
			if err := writeYAML(&b, json.RawMessage(spec.Schema(all.Registry()))); err != nil {
				return err
			}
		} else {
			b.Write(spec.Schema(all.Registry()))
		}
		file := text(cmd, "write")
		if file == "" {
			_, err := a.stdout.Write(b.Bytes())
			return err
		}
		half := file + ".new"
		if err := os.WriteFile(half, b.Bytes(), 0o644); err != nil {
			return err
		}
		return os.Rename(half, file)
	})
	c.Flags().String("write", "", "the file to write, instead of printing")
	prints(c, "json", "yaml")
	return c
}

func (a *app) schemaTest() *cobra.Command {
	c := a.command(cobra.Command{
		Use:     "test",
		Short:   "Print the JSON Schema of files of cases, for an editor",
		Long:    "Test prints what a NAME.test.yaml file may contain, for editors that complete and check YAML.",
		Example: `  sidestream schema test >test.schema.json`,
		Args:    noArgs,
	}, func(cmd *cobra.Command, _ []string) error {
		if text(cmd, "output") == "yaml" {
			return writeYAML(a.stdout, json.RawMessage(spec.CaseSchema()))
		}
		_, err := a.stdout.Write(spec.CaseSchema())
		return err
	})
	prints(c, "json", "yaml")
	return c
}

func (a *app) schemaAPI() *cobra.Command {
	c := a.command(cobra.Command{
		Use:     "api",
		Short:   "Print the description of the admin API, as OpenAPI 3.1",
		Long:    "Api prints what a running process serves at /v1/openapi.json, for tools that make clients of it.",
		Example: `  sidestream schema api -o yaml >sidestream-api.yaml`,
		Args:    noArgs,
	}, func(cmd *cobra.Command, _ []string) error {
		b, err := admin.OpenAPI(buildOf().Version)
		if err != nil {
			return err
		}
		if text(cmd, "output") == "yaml" {
			return writeYAML(a.stdout, json.RawMessage(b))
		}
		_, err = a.stdout.Write(append(b, '\n'))
		return err
	})
	prints(c, "json", "yaml")
	return c
}
