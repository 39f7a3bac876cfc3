package spread_test

import (
	"os"
	"os/exec"
	"path/filepath"
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

// TestRun: all subtasks of the expensive step get work once its records are spread, and only one did before.
func TestRun(t *testing.T) {
	out := runScript(t)
	for _, want := range []string{"subtasks at work: 1\n", "slow  update  ", "subtasks at work, rebalanced: 4\n", "JOB   STATE"} {
		if !strings.Contains(out, want) {
			t.Errorf("it does not print %q:\n%s", want, out)
		}
	}
}
