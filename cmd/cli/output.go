package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v4"
)

// view says how things are shown as a table and by name; json, yaml and jsonl show them as they encode to JSON.
type view[T any] struct {
	head []string
	row  func(T) []string
	name func(T) string
}

// prints gives a command -o with the formats it knows, the first of which is its default. None stands for all.
func prints(cmd *cobra.Command, formats ...string) {
	if formats == nil {
		formats = []string{"table", "json", "yaml", "jsonl", "name"}
	}
	cmd.Flags().StringP("output", "o", formats[0], strings.Join(formats, ", "))
	isSetting(cmd, "output")
	cmd.Annotations = map[string]string{"formats": strings.Join(formats, " ")}
}

// checkFormat refuses one that a command does not know, before it does anything.
func (a *app) checkFormat(cmd *cobra.Command) error {
	formats := strings.Fields(cmd.Annotations["formats"])
	if len(formats) == 0 || slices.Contains(formats, text(cmd, "output")) {
		return nil
	}
	return a.bad(cmd, "output", "one of "+strings.Join(formats, ", "))
}

// show prints things in the format that -o asks for.
func show[T any](a *app, cmd *cobra.Command, v view[T], items []T) error {
	if items == nil {
		items = []T{}
	}
	switch text(cmd, "output") {
	case "json":
		return writeJSON(a.stdout, items)
	case "yaml":
		return writeYAML(a.stdout, items)
	}
	return v.lines(a.stdout, text(cmd, "output"), items)
}

// showOne is show of one thing, which is no list in JSON and YAML.
func showOne[T any](a *app, cmd *cobra.Command, v view[T], item T) error {
	switch text(cmd, "output") {
	case "json":
		return writeJSON(a.stdout, item)
	case "yaml":
		return writeYAML(a.stdout, item)
	}
	return v.lines(a.stdout, text(cmd, "output"), []T{item})
}

func (v view[T]) lines(w io.Writer, format string, items []T) error {
	switch format {
	case "jsonl":
		enc := json.NewEncoder(w)
		enc.SetEscapeHTML(false)
		for _, it := range items {
			if err := enc.Encode(it); err != nil {
				return err
			}
		}
		return nil
	case "name":
		for _, it := range items {
			if _, err := fmt.Fprintln(w, v.name(it)); err != nil {
				return err
			}
		}
		return nil
	}
	return v.table(w, items)
}

func (v view[T]) table(w io.Writer, items []T) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, strings.Join(v.head, "\t"))
	for _, it := range items {
		row := v.row(it)
		for i, cell := range row {
			if cell == "" {
				row[i] = "-"
			}
		}
		fmt.Fprintln(t, strings.Join(row, "\t"))
	}
	return t.Flush()
}

func writeJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// writeYAML writes what v encodes to as JSON, with the same names in the same order.
func writeYAML(w io.Writer, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	var n yaml.Node
	if err := yaml.Unmarshal(b, &n); err != nil {
		return err
	}
	plain(&n)
	enc := yaml.NewEncoder(w)
	enc.SetIndent(2)
	if err := enc.Encode(&n); err != nil {
		return err
	}
	return enc.Close()
}

// plain takes JSON's braces and quotes away.
func plain(n *yaml.Node) {
	n.Style = 0
	for _, c := range n.Content {
		plain(c)
	}
}
