package connector

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sidestream-dev/sidestream/jobs"
)

// TestSecretSources: where secrets are from, and what is wrong with what is there.
func TestSecretSources(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	t.Setenv("SIDESTREAM_JOB_SECRET", "from env")
	tests := []struct {
		name      string
		secret    jobs.Secret
		want, err string
	}{
		{"a file", SecretFile(write("a", "one\n")), "one", ""},
		{"a file of Windows", SecretFile(write("b", "one\r\n")), "one", ""},
		{"spaces stay", SecretFile(write("c", " one ")), " one ", ""},
		{"lines stay", SecretFile(write("d", "one\ntwo\n")), "one\ntwo", ""},
		{"an empty file", SecretFile(write("e", "\n")), "", "is empty"},
		{"a long file", SecretFile(write("f", strings.Repeat("x", MaxSecretBytes+1))), "", "is longer than a secret may be"},
		{"no file", SecretFile(filepath.Join(dir, "none")), "", "no such file"},
		{"a directory", SecretFile(dir), "", "is a directory"},
		{"the environment", SecretEnv("SIDESTREAM_JOB_SECRET"), "from env", ""},
		{"nothing in it", SecretEnv("SIDESTREAM_JOB_NONE"), "", "the environment has no SIDESTREAM_JOB_NONE"},
		{"none", jobs.Secret{}, "", "there is no secret"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := tt.secret.Reveal()
			if got != tt.want || (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
	path := write("g", "old")
	s := SecretFile(path)
	write("g", "new")
	if got, _ := s.Reveal(); got != "new" {
		t.Errorf("a file that was replaced gives %q", got)
	}
}
