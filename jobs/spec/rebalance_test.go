package spec

import (
	"fmt"
	"testing"

	"github.com/sidestream-dev/sidestream/jobs/connector/all"
)

// TestRebalanceWithoutEffect: a rebalance behind which there is one subtask is warned of, with its place; one that spreads is not.
func TestRebalanceWithoutEffect(t *testing.T) {
	const step = "rebalance: {}"
	for _, tt := range []struct {
		name, job, behind string
		warned            bool
	}{
		{"nothing parallel", "", "filter: {if: true}", true},
		{"the job", "parallelism: 2", "filter: {if: true}", false},
		{"the step behind it", "", "{filter: {if: true}, parallelism: 2}", false},
		{"the step behind it has one", "parallelism: 2", "{filter: {if: true}, parallelism: 1}", true},
		{"no step behind it", "", "", true},
		{"the outputs behind it", "parallelism: 2", "", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			text := "version: 1\njob: a\nsource: {generator: {count: 1}}\nsteps:\n  - filter: {if: true}\n  - " + step + "\n"
			if tt.behind != "" {
				text += "  - " + tt.behind + "\n"
			}
			text += "outputs:\n  main: {stdout: {}}\n" + tt.job + "\n"
			_, problems, warnings := CheckFiles(Config{Connectors: all.Registry()}, File{"a.yaml", []byte(text)})
			if len(problems) > 0 {
				t.Fatal(problems)
			}
			if got := len(warnings) == 1; got != tt.warned || len(warnings) > 1 {
				t.Fatalf("warnings %v, want one: %v", warnings, tt.warned)
			}
			if tt.warned {
				if at := fmt.Sprint(warnings[0].Line, warnings[0].Column, warnings[0].Hint != ""); at != "6 16 true" {
					t.Errorf("at %s: %v", at, warnings[0])
				}
			}
		})
	}
}
