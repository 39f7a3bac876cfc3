package spec

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/sidestream-dev/sidestream/jobs/connector/all"
)

// badFiles is how many definitions with errors there are at least.
const badFiles = 60

// bad lists the definitions with errors, without .txt: files, and folders of files that are right one by one. To be called in
// testdata/bad.
func bad(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	folders, err := filepath.Glob("*/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range folders {
		if dir := filepath.Dir(f); files[len(files)-1] != dir {
			files = append(files, dir)
		}
	}
	if len(files) < badFiles {
		t.Fatalf("%d files with errors, want at least %d", len(files), badFiles)
	}
	return files
}

// golden is where what check says of a bad definition stands.
func golden(name string) string { return strings.TrimSuffix(name, ".yaml") + ".txt" }

// badConfig is what the command check has, in an environment without variables.
func badConfig() Config {
	return Config{Connectors: all.Registry(), Env: func(string) (string, bool) { return "", false }}
}

// TestBadFiles: each definition with errors is refused in the words of its .txt file, every problem with its place; with
// UPDATE_BAD set they are written there.
func TestBadFiles(t *testing.T) {
	t.Chdir("testdata/bad")
	place := regexp.MustCompile(`^\S+\.yaml:[1-9]\d*:[1-9]\d*: .`)
	names := bad(t)
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			js, problems := Load(badConfig(), name)
			if len(problems) == 0 || js != nil {
				t.Fatalf("%d jobs, %d problems", len(js), len(problems))
			}
			var got strings.Builder
			for _, p := range problems {
				s := p.String()
				if !place.MatchString(s) {
					t.Errorf("no place: %s", s)
				}
				got.WriteString(s + "\n")
			}
			if os.Getenv("UPDATE_BAD") != "" {
				if err := os.WriteFile(golden(name), []byte(got.String()), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if want, err := os.ReadFile(golden(name)); err != nil || got.String() != string(want) {
				t.Errorf("%v; got\n%s\nwant\n%s", err, got.String(), want)
			}
		})
	}
	texts, err := filepath.Glob("*.txt")
	if err != nil || len(texts) != len(names) {
		t.Errorf("%d .txt files for %d definitions (%v)", len(texts), len(names), err)
	}
}
