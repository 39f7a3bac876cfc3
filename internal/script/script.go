// Package script runs an example's run.sh for its test.
package script

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Run runs run.sh, of the folder that the test is in, in a copy of that folder, with the program built from these sources
// first on the PATH, and returns what it prints. It needs bash, as the guide's blocks do; a script that fails, or takes longer
// than three minutes, fails the test.
func Run(t *testing.T) string {
	t.Helper()
	bin, dir := t.TempDir(), filepath.Join(t.TempDir(), "copy")
	build := exec.CommandContext(t.Context(), "go", "build", "-buildvcs=false", "-o", filepath.Join(bin, "sidestream"), "github.com/sidestream-dev/sidestream/cmd/sidestream")
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
