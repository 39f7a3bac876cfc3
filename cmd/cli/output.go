package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v4"
)

// view says how things are shown as a table and by name; json, yaml and jsonl show them as they encode to JSON. What a T
// encodes to is a promise to whoever reads it with a program: docs/guide/output.md lists the fields, and a test compares.
type view[T any] struct {
	head []string
	row  func(T) []string
	name func(T) string
}

// prints gives a command -o with the formats it knows, the first of which is its default; none stands for all five. A command
// that has something to say calls it, and then show, showOne or a printer; nothing else writes data to stdout.
func prints(cmd *cobra.Command, formats ...string) {
	if formats == nil {
		formats = []string{"table", "json", "yaml", "jsonl", "name"}
	}
	cmd.Flags().StringP("output", "o", formats[0], strings.Join(formats, ", "))
	isSetting(cmd, "output")
	if slices.Contains(formats, "table") {
		take(cmd, "color")
	}
	if cmd.Annotations == nil {
		cmd.Annotations = map[string]string{}
	}
	cmd.Annotations["formats"] = strings.Join(formats, " ")
	completes(cmd, "output", formats...)
}

// completes gives a flag the values that a shell offers for it.
func completes(cmd *cobra.Command, flag string, values ...string) {
	must(cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp)))
}

// checkFormat refuses one that a command does not know, before it does anything.
func (a *app) checkFormat(cmd *cobra.Command) error {
	formats := strings.Fields(cmd.Annotations["formats"])
	if len(formats) > 0 && !slices.Contains(formats, text(cmd, "output")) {
		return a.bad(cmd, "output", "one of "+strings.Join(formats, ", "))
	}
	if c := text(cmd, "color"); !slices.Contains([]string{"", "auto", "always", "never"}, c) {
		return a.bad(cmd, "color", "auto, always or never")
	}
	return nil
}

// show prints things in the format that -o asks for: a list, in JSON and YAML.
func show[T any](a *app, cmd *cobra.Command, v view[T], items []T) error {
	p := newPrinter(a, cmd, v)
	for _, it := range items {
		if err := p.add(it); err != nil {
			return err
		}
	}
	return p.end()
}

// showOne is show of one thing, which is no list in JSON and YAML.
func showOne[T any](a *app, cmd *cobra.Command, v view[T], item T) error {
	a.shape, a.many = reflect.TypeFor[T](), false
	switch text(cmd, "output") {
	case "json":
		return writeJSON(a.stdout, item)
	case "yaml":
		return writeYAML(a.stdout, item)
	}
	return show(a, cmd, v, []T{item})
}

// printer prints things as they come, in the format that -o asks for. A table is printed at the end, since its columns are as
// wide as what stands in them; every other format at once.
type printer[T any] struct {
	w      io.Writer
	format string
	view   view[T]
	grid   gridded
	rows   [][]string
	n      int
}

// newPrinter returns a printer of a command's output. Whoever gets it calls end, also after an error of its own: what was
// printed is whole JSON then.
func newPrinter[T any](a *app, cmd *cobra.Command, v view[T]) *printer[T] {
	a.shape, a.many = reflect.TypeFor[T](), true
	columns, _ := sizeOf(a.stdout)
	return &printer[T]{w: a.stdout, format: text(cmd, "output"), view: v, grid: gridded{columns, colored(cmd, a.stdout)}}
}

func (p *printer[T]) add(item T) error {
	p.n++
	switch p.format {
	case "json":
		var b bytes.Buffer
		enc := json.NewEncoder(&b)
		enc.SetEscapeHTML(false)
		enc.SetIndent("  ", "  ")
		if err := enc.Encode(item); err != nil {
			return err
		}
		before := ",\n  "
		if p.n == 1 {
			before = "[\n  "
		}
		_, err := fmt.Fprintf(p.w, "%s%s", before, bytes.TrimRight(b.Bytes(), "\n"))
		return err
	case "yaml":
		return writeYAML(p.w, []T{item})
	case "jsonl":
		enc := json.NewEncoder(p.w)
		enc.SetEscapeHTML(false)
		return enc.Encode(item)
	case "name":
		_, err := fmt.Fprintln(p.w, p.view.name(item))
		return err
	}
	p.rows = append(p.rows, p.view.row(item))
	return nil
}

// end prints what is left.
func (p *printer[T]) end() error {
	var err error
	switch {
	case p.format == "json" && p.n == 0, p.format == "yaml" && p.n == 0:
		_, err = io.WriteString(p.w, "[]\n")
	case p.format == "json":
		_, err = io.WriteString(p.w, "\n]\n")
	case p.format == "table":
		err = p.grid.write(p.w, p.view.head, p.rows)
	}
	return err
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
