package jobs_test

import (
	"os"
	"strings"
	"testing"
)

// A job in Go needs fewer lines than its Flink twin: types and job, without imports, comments and empty lines.
func TestGoJobsAreShorterThanTheirTwins(t *testing.T) {
	text, err := os.ReadFile("twin_test.go")
	if err != nil {
		t.Fatal(err)
	}
	parts := strings.Split(string(text), "\n// Job ")[1:]
	for i, twin := range []string{"Temperature", "Sessions", "Pricing"} {
		job, _, _ := strings.Cut(parts[i], "\nfunc Test")
		java, err := os.ReadFile("../docs/adr/0003-twins/" + twin + ".java")
		if err != nil {
			t.Fatal(err)
		}
		got, theirs := codeLines("// Job "+job), codeLines(string(java))
		t.Logf("%s: %d lines of Go, %d of Java", twin, got, theirs)
		if got >= theirs {
			t.Errorf("%s: %d lines of Go are not fewer than %d of Java", twin, got, theirs)
		}
	}
}

func codeLines(text string) int {
	n := 0
	for line := range strings.Lines(text) {
		if l := strings.TrimSpace(line); l != "" && !strings.HasPrefix(l, "//") && !strings.HasPrefix(l, "import ") {
			n++
		}
	}
	return n
}
