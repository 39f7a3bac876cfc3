package air_test

import (
	"os"
	"slices"
	"testing"

	"github.com/sidestream-dev/sidestream/jobs/connector/all"
	"github.com/sidestream-dev/sidestream/jobs/spec"
	"github.com/sidestream-dev/sidestream/runtime/casetest"
)

// TestCases runs the cases beside the jobs; every job has some.
func TestCases(t *testing.T) {
	cases, problems := spec.LoadCases(spec.Config{Connectors: all.Registry()}, "jobs")
	for _, p := range problems {
		t.Error(p)
	}
	var tested []string
	for _, c := range cases {
		r := casetest.Run(c)
		if !r.Passed() {
			t.Errorf("%s: %s", r.Place(), c.Name)
			r.Diff(os.Stderr, false)
		}
		for _, j := range c.Jobs {
			if !slices.Contains(tested, j.Name) {
				tested = append(tested, j.Name)
			}
		}
	}
	if len(tested) != 6 {
		t.Errorf("only %v have cases", tested)
	}
}
