package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v4"

	"github.com/sidestream-dev/sidestream/bench"
)

// TestBenchAll: bench all prints every measurement in every format, here of two that are soon over.
func TestBenchAll(t *testing.T) {
	t.Chdir(t.TempDir())
	short := func(name string) measurement {
		return measurement{name: name, short: "short", flags: func(*cobra.Command) {}, run: func(ctx context.Context, _ *cobra.Command, dir string) (*bench.Report, error) {
			return bench.Overhead(ctx, dir, 50*time.Millisecond)
		}}
	}
	for _, format := range []string{"table", "json", "yaml", "jsonl", "name"} {
		var out, said bytes.Buffer
		a := &app{name: "sidestream", stdout: &out, stderr: &said}
		root := a.bench([]measurement{short("one"), short("two")}) // all there are would take minutes
		root.SetArgs([]string{"all", "-o", format})
		if err := root.Execute(); err != nil {
			t.Fatalf("-o %s: %v\n%s", format, err, said.String())
		}
		var reports []bench.Report
		var err error
		switch format {
		case "json":
			err = json.Unmarshal(out.Bytes(), &reports)
		case "jsonl":
			for line := range strings.Lines(out.String()) {
				var r bench.Report
				if err == nil {
					err = json.Unmarshal([]byte(line), &r)
				}
				reports = append(reports, r)
			}
		case "yaml":
			var any []any
			err = yaml.Unmarshal(out.Bytes(), &any)
			reports = make([]bench.Report, len(any))
		case "name":
			reports = make([]bench.Report, strings.Count(out.String(), "overhead\n"))
		case "table":
			reports = make([]bench.Report, strings.Count(out.String(), "WHAT "))
		}
		if err != nil || len(reports) != 2 {
			t.Errorf("-o %s: %d reports, %v:\n%s", format, len(reports), err, out.String())
		}
	}
}
