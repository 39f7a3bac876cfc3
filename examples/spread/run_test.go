package spread_test

import (
	"strings"
	"testing"

	"github.com/sidestream-dev/sidestream/internal/script"
)

// TestRun: all subtasks of the expensive step get work once its records are spread, and only one did before.
func TestRun(t *testing.T) {
	out := script.Run(t)
	for _, want := range []string{"subtasks at work: 1\n", "slow  update  ", "subtasks at work, rebalanced: 4\n", "JOB   STATE"} {
		if !strings.Contains(out, want) {
			t.Errorf("it does not print %q:\n%s", want, out)
		}
	}
}
