package runtime_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/runtime"
)

// failing reads numbers and fails at one of them, as long as broken says so.
func failing(out string, in *tap, broken *atomic.Bool, attempts *atomic.Int64) *jobs.Job {
	return counting("j", in, out, func(_ int, n int64) error {
		if n == 500 && broken.Load() {
			attempts.Add(1)
			return errors.New("no good")
		}
		return nil
	})
}

// TestAnotherProgramTriesAgain: a job that has failed for good stays failed when the same program starts again, and says why;
// another program gives it a new budget of attempts, from where it stood.
func TestAnotherProgramTriesAgain(t *testing.T) {
	noLeaks(t)
	data, out := t.TempDir(), t.TempDir()
	const total = 1000
	var broken atomic.Bool
	var attempts atomic.Int64
	broken.Store(true)
	run := func(program string) *runtime.Runtime {
		attempts.Store(0)
		return start(t, runtime.Config{DataDir: data, Program: program, AttemptsMax: 3}, failing(out, newTap(total, total), &broken, &attempts))
	}
	failed := func(rt *runtime.Runtime) bool { return jobStatus(t, rt, "j").State == runtime.StateFailed }

	rt := run("one")
	until(t, rt, "it has failed", func() bool { return failed(rt) })
	stop(t, rt)

	rt = run("one")
	if st := jobStatus(t, rt, "j"); st.State != runtime.StateFailed || attempts.Load() != 0 ||
		!strings.Contains(st.Error, "no good") || !strings.Contains(st.Error, "nor the program has changed") {
		t.Errorf("under the same program it is %s after %d attempts: %s", st.State, attempts.Load(), st.Error)
	}
	stop(t, rt)

	rt = run("two") // still broken: a budget of its own, and failed again
	until(t, rt, "it has failed again", func() bool { return failed(rt) && attempts.Load() >= 3 })
	stop(t, rt)
	rt = run("two")
	if st := jobStatus(t, rt, "j"); st.State != runtime.StateFailed || attempts.Load() != 0 {
		t.Errorf("under the second program again it is %s after %d attempts", st.State, attempts.Load())
	}
	stop(t, rt)

	broken.Store(false)
	finish(t, run("three"))
	sameLines(t, "j", fileLines(t, fileOf(out)), tallied(total, nil))
}

// programEnv makes TestFailUnderThisProgram a process of its own: the directory where it runs.
const programEnv = "RUNTIME_TEST_PROGRAM"

// TestFailUnderThisProgram runs the failing job with nothing said of the program, and prints what came of it.
func TestFailUnderThisProgram(t *testing.T) {
	dir := os.Getenv(programEnv)
	if dir == "" {
		return // it is TestTheExecutableTells that runs it
	}
	var broken atomic.Bool
	var attempts atomic.Int64
	broken.Store(true)
	rt := start(t, runtime.Config{DataDir: filepath.Join(dir, "data"), AttemptsMax: 2}, failing(filepath.Join(dir, "out"), newTap(1000, 1000), &broken, &attempts))
	until(t, rt, "it has failed", func() bool { return jobStatus(t, rt, "j").State == runtime.StateFailed })
	stop(t, rt)
	if attempts.Load() > 0 {
		os.Stdout.WriteString("tried\n")
	} else {
		os.Stdout.WriteString("stayed failed\n")
	}
}

// TestTheExecutableTells: what tells programs apart is the executable that runs, whatever its name.
func TestTheExecutableTells(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(exe)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "out"), 0o755); err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, "program")
	for _, step := range []struct {
		exe  []byte // nil: the one before
		want string
	}{{b, "tried"}, {nil, "stayed failed"}, {append(b[:len(b):len(b)], "rebuilt"...), "tried"}, {nil, "stayed failed"}} {
		if step.exe != nil {
			if err := os.Remove(program); err != nil && !errors.Is(err, os.ErrNotExist) {
				t.Fatal(err)
			}
			if err := os.WriteFile(program, step.exe, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		cmd := exec.CommandContext(t.Context(), program, "-test.run", "^TestFailUnderThisProgram$")
		cmd.Env = append(os.Environ(), programEnv+"="+dir)
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.HasPrefix(string(out), step.want+"\n") {
			t.Fatalf("want %q: %v\n%s", step.want, err, out)
		}
	}
}
