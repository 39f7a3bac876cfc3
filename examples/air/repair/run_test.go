package repair_test

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/sidestream-dev/sidestream/internal/script"
)

// TestRun: the script compares a day that is read again with one that was right from the start. The same under kill -9, with more
// days, is killtest.TestKillDays.
func TestRun(t *testing.T) {
	data, err := filepath.Abs("../data")
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("SIDESTREAM_JOB_DATA", data)
	out := script.Run(t)
	_, out, _ = strings.Cut(out, "wrong:\n")
	wrong, right, _ := strings.Cut(out, "right:\n")
	if !strings.Contains(wrong, `"mean":106.0,"max":106.0`) || !strings.Contains(wrong, " 1440 ") ||
		!strings.Contains(right, `"mean":65.16666666666667,"max":106.0`) || !strings.Contains(right, "the same, line by line: 12\n") {
		t.Errorf("it prints\n%s", out)
	}
}
