package cli

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestCheckOfBadFiles: check prints of each definition with errors what its .txt file holds, and how many there are.
func TestCheckOfBadFiles(t *testing.T) {
	t.Chdir("../../jobs/spec/testdata/bad")
	texts, err := filepath.Glob("*.txt")
	if err != nil || len(texts) < 60 {
		t.Fatalf("%d files, %v", len(texts), err)
	}
	for _, name := range texts {
		want, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		bad := strings.TrimSuffix(name, ".txt") // a folder, or a file
		if _, err := os.Stat(bad); err != nil {
			bad += ".yaml"
		}
		var out, said bytes.Buffer
		code := (&app{name: "sidestream", stdout: &out, stderr: &said}).main([]string{"check", bad})
		got, last, _ := strings.Cut(said.String(), "sidestream: ")
		var n int
		if _, err := fmt.Sscanf(last, "%d problem", &n); err != nil || code != exitData || out.Len() > 0 || got != string(want) {
			t.Errorf("check %s: exit code %d, stdout %q, stderr\n%s\nwant\n%s", bad, code, out.String(), said.String(), want)
		}
	}
}
