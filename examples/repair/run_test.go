package repair_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// runScript runs run.sh in a copy of this folder, with the program built from here, and returns what it prints.
func runScript(t *testing.T) string {
	t.Helper()
	if _, err := exec.LookPath("bash"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip("there is no bash to run the example with")
	}
	bin, dir := t.TempDir(), filepath.Join(t.TempDir(), "copy")
	build := exec.CommandContext(t.Context(), "go", "build", "-buildvcs=false", "-o", filepath.Join(bin, "sidestream"), "../../cmd/sidestream")
	if b, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, b)
	}
	if err := os.CopyFS(dir, os.DirFS(".")); err != nil {
		t.Fatal(err)
	}
	c := exec.Command("bash", "run.sh")
	c.Dir, c.Env = dir, append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "XDG_CONFIG_HOME="+filepath.Join(bin, "none"))
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	var out, said strings.Builder
	c.Stdout, c.Stderr = &out, &said
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	stuck := time.AfterFunc(3*time.Minute, func() { _ = syscall.Kill(-c.Process.Pid, syscall.SIGKILL) })
	defer stuck.Stop()
	err := c.Wait()
	_ = syscall.Kill(-c.Process.Pid, syscall.SIGKILL) // what it may have left
	if err != nil {
		t.Fatalf("%v\n%s%s", err, out.String(), said.String())
	}
	return out.String()
}

// TestRun: what the repaired job gives is what it would have given had it been right from the start.
func TestRun(t *testing.T) {
	out := runScript(t)
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
