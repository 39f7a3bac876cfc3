package air_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sidestream-dev/sidestream/internal/airdata"
)

// binary builds the program once for a test.
func binary(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "sidestream")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-o", path, "../../cmd/sidestream")
	if b, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, b)
	}
	return path
}

// runDone runs `sidestream run DIR --until-done`, which must end with 0.
func runDone(t *testing.T, bin, defs, data string, env ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), runWait)
	defer cancel()
	cmd := exec.CommandContext(ctx, bin, "run", defs, "--until-done", "--data-dir", data)
	cmd.Env = append(os.Environ(), env...)
	var log strings.Builder
	cmd.Stdout, cmd.Stderr = &log, &log
	began := time.Now()
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v: %v\n%s", cmd.Args, err, log.String())
	}
	t.Logf("done in %v", time.Since(began).Round(time.Millisecond))
}

// TestBinaryFiles: the same as TestFiles with the program that users have.
func TestBinaryFiles(t *testing.T) {
	d, bin := airdata.Asked(t), binary(t)
	want := airdata.Expect(t, d)
	for _, parallelism := range []int{1, 2, 4} {
		t.Run(fmt.Sprintf("data=%s,parallelism=%d", d.Name, parallelism), func(t *testing.T) {
			out, data := t.TempDir(), t.TempDir()
			defs := edited(t, "files", "parallelism: 2\n", fmt.Sprintf("parallelism: %d\n", parallelism))
			env := []string{"SIDESTREAM_JOB_DATA=" + d.Dir, "SIDESTREAM_JOB_OUT=" + out}
			runDone(t, bin, defs, data, env...)
			got := fromFiles(t, out)
			got.check(t, want)
			runDone(t, bin, defs, data, env...) // finds nothing to do
			got.checkSame(t, fromFiles(t, out))
		})
	}
}

// TestBinaryKafka: the same as TestKafka with the program that users have.
func TestBinaryKafka(t *testing.T) {
	d, bin, addr, in, out := airdata.Asked(t), binary(t), airdata.Broker(t), airdata.Prefix(), airdata.Prefix()
	want := airdata.Expect(t, d)
	d.Produce(t, addr, in, 4)
	defs, data := onKafka(t, in, out, 2), t.TempDir()
	env := []string{"KAFKA_BROKERS=" + addr, "KAFKA_END=latest"}
	runDone(t, bin, defs, data, env...)
	got := fromKafka(t, addr, out)
	got.check(t, want)
	runDone(t, bin, defs, data, env...) // finds nothing to do
	got.checkSame(t, fromKafka(t, addr, out))
}
