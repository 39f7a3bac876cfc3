package repair_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/sidestream-dev/sidestream/internal/script"
)

// TestRun: what the repaired job gives is what it would have given had it been right from the start.
func TestRun(t *testing.T) {
	out := script.Run(t)
	_, right, _ := strings.Cut(out, "right:\n")
	got := strings.Split(strings.TrimSpace(right), "\n")
	slices.Sort(got)
	want := []string{
		`{"device":"a","minute":"2026-01-31T12:00:00.000Z","hot":1,"max":95}`,
		`{"device":"b","minute":"2026-01-31T12:00:00.000Z","hot":1,"max":93}`,
		`{"device":"b","minute":"2026-01-31T12:01:00.000Z","hot":1,"max":97}`,
	}
	if !slices.Equal(got, want) || !strings.Contains(out, `"hot":2`) || !strings.Contains(out, `"records": 7,`) {
		t.Errorf("it prints\n%s", out)
	}
}
