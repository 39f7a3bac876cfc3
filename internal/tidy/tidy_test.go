package tidy

import (
	"bytes"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

const (
	module    = "github.com/sidestream-dev/sidestream"
	linesMax  = 700
	rootOfAll = "../.."
)

// mayImport says, by the longest prefix of a room's name, which rooms of ours its program code may import; "x/" stands for
// all below x. Imports point one way: cmd → runtime → {jobs, bus, checkpoint, wal}, bus → wal, checkpoint → wal.
var mayImport = map[string][]string{
	"wal":            {},
	"bus":            {"wal"},
	"checkpoint":     {"wal"},
	"jobs":           {},
	"jobs/operator":  {"jobs"},
	"jobs/jobstest":  {"jobs"},
	"jobs/connector": {"jobs", "jobs/connector"},
	// The list of all connectors is the one that names them.
	"jobs/connector/all": {"jobs/connector", "jobs/connector/"},
	"jobs/spec":          {"jobs", "jobs/operator", "jobs/connector", "jobs/spec/"},
	"runtime":            {"jobs", "bus", "checkpoint", "wal"},
	"runtime/admin":      {"runtime", "runtime/casetest", "jobs", "jobs/spec", "bus", "checkpoint", "wal"},
	"runtime/casetest":   {"jobs", "jobs/spec", "jobs/spec/", "checkpoint"},
	// dev runs exactly examples/air, whose files are embedded there.
	"cmd":      {"cmd/", "runtime", "runtime/", "jobs", "jobs/", "bus", "checkpoint", "wal", "bench", "examples/air"},
	"bench":    {"runtime", "jobs", "jobs/", "bus", "checkpoint", "wal"},
	"examples": {"cmd/cli", "runtime", "jobs", "jobs/"},
	"internal": {"internal/"},
	// It drives the real program and reads what it leaves; only tests import it.
	"internal/killtest": {"internal/", "runtime", "runtime/admin", "jobs/spec", "bus", "wal"},
}

// testsMayImport is what tests, besides, may: the rooms that only tests need, and those whose real parts they try.
var testsMayImport = map[string][]string{
	"wal":        {"internal/"},
	"bus":        {"internal/"},
	"checkpoint": {"internal/"},
	"jobs":       {"internal/", "jobs", "jobs/"},
	"runtime":    {"internal/", "jobs/", "cmd/", "examples/", "runtime/admin", "runtime/casetest"},
	// The same cases are run by the runtime itself.
	"runtime/casetest": {"runtime", "jobs/"},
	"cmd":              {"internal/", "examples/"},
	"bench":            {"internal/"},
	"examples":         {"internal/", "runtime", "runtime/", "bus", "wal"},
	"internal":         {"internal/", "cmd/", "runtime", "runtime/", "jobs", "jobs/", "bus", "checkpoint", "wal", "examples/"},
}

// room returns the longest prefix of a package's path that rules has.
func room(rules map[string][]string, pkg string) (string, bool) {
	for p := pkg; p != "."; p = filepath.Dir(p) {
		if _, ok := rules[p]; ok {
			return p, true
		}
	}
	return "", false
}

func allowed(rules []string, imported string) bool {
	for _, r := range rules {
		if imported == r || strings.HasSuffix(r, "/") && strings.HasPrefix(imported, r) {
			return true
		}
	}
	return false
}

// judge returns what is wrong with pkg importing imported, both named from the module's root, or "".
func judge(pkg, imported string, test bool) string {
	r, ok := room(mayImport, pkg)
	if !ok {
		return "no rule says what " + pkg + " may import: add it to mayImport, or find its room"
	}
	rules := mayImport[r]
	if test {
		t, _ := room(testsMayImport, pkg)
		rules = append(append([]string{pkg}, rules...), testsMayImport[t]...)
	}
	if allowed(rules, imported) {
		return ""
	}
	return pkg + " may not import " + imported
}

// goFiles calls f for each Go file, by its path from the module's root.
func goFiles(t *testing.T, f func(path string, content []byte)) {
	t.Helper()
	err := filepath.WalkDir(rootOfAll, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == "testdata" || strings.HasPrefix(d.Name(), ".") && path != rootOfAll) {
			return fs.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(path, ".go") {
			return nil
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(rootOfAll, path)
		f(filepath.ToSlash(rel), content)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestImports: imports point one way.
func TestImports(t *testing.T) {
	files := 0
	goFiles(t, func(path string, content []byte) {
		file, err := parser.ParseFile(token.NewFileSet(), path, content, parser.ImportsOnly)
		if err != nil {
			t.Fatal(err)
		}
		files++
		for _, im := range file.Imports {
			name, err := strconv.Unquote(im.Path.Value)
			if err != nil {
				t.Fatal(err)
			}
			own, ok := strings.CutPrefix(name, module+"/")
			if !ok {
				continue
			}
			if wrong := judge(filepath.ToSlash(filepath.Dir(path)), own, strings.HasSuffix(path, "_test.go")); wrong != "" {
				t.Errorf("%s: %s", path, wrong)
			}
		}
	})
	if files < 100 {
		t.Fatalf("only %d files were looked at", files)
	}
}

// TestImportRules: the rules refuse what they are there for.
func TestImportRules(t *testing.T) {
	tests := []struct {
		name, pkg, imported string
		test, ok            bool
	}{
		{"the log knows nobody", "wal", "bus", false, false},
		{"the bus knows the log", "bus", "wal", false, true},
		{"jobs know no bus", "jobs", "bus", false, false},
		{"the runtime knows no connector", "runtime", "jobs/connector/kafka", false, false},
		{"nor the loader", "runtime", "jobs/spec", false, false},
		{"its tests do", "runtime", "jobs/connector/kafka", true, true},
		{"the API may load", "runtime/admin", "jobs/spec", false, true},
		{"a connector knows no other", "jobs/connector/file", "jobs/connector/kafka", false, false},
		{"programs know no test room", "cmd/cli", "internal/airdata", false, false},
		{"an example is copied, so it needs no internal room", "examples/airgo", "internal/airdata", false, false},
		{"a new room needs a rule", "util", "wal", false, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if wrong := judge(tt.pkg, tt.imported, tt.test); (wrong == "") != tt.ok {
				t.Errorf("judge(%s, %s) = %q, want allowed: %v", tt.pkg, tt.imported, wrong, tt.ok)
			}
		})
	}
}

// TestFiles: no file is longer than one can keep in mind, and every room says what it is for.
func TestFiles(t *testing.T) {
	documented := map[string]bool{}
	goFiles(t, func(path string, content []byte) {
		if n := bytes.Count(content, []byte("\n")); n > linesMax {
			t.Errorf("%s has %d lines, %d are possible: is there a second noun in it?", path, n, linesMax)
		}
		if strings.HasSuffix(path, "_test.go") {
			return
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, content, parser.PackageClauseOnly|parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		dir := filepath.Dir(path)
		documented[dir] = documented[dir] || file.Doc != nil
	})
	for dir, ok := range documented {
		if !ok {
			t.Errorf("%s has no package comment", dir)
		}
	}
}
