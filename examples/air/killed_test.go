package air_test

import (
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sidestream-dev/sidestream/internal/airdata"
)

// TestKilledOverKafka: the program is killed with -9 again and again while it reads Kafka and writes to it, and started until
// it is done. With exactly_once the topics hold what the reference program says, no line twice; nothing is missing with
// at_least_once either, but some lines are repeated: the broken twin, without which the test would prove nothing.
func TestKilledOverKafka(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("AIR_SEED"); s != "" {
		seed, _ = strconv.ParseUint(s, 10, 64)
	}
	t.Logf("AIR_SEED=%d", seed)
	d, bin, addr, in := airdata.Sample(t), binary(t), airdata.Broker(t), airdata.Prefix()
	want := airdata.Expect(t, d)
	d.Produce(t, addr, in, 4)
	rng := rand.New(rand.NewPCG(seed, 0))

	out := airdata.Prefix()
	defs := onKafka(t, in, out, 2)
	killedUntilDone(t, bin, exactly(t, defs), addr, rng)
	fromKafka(t, addr, out).check(t, want)

	for n := 1; ; n++ {
		out := airdata.Prefix()
		killedUntilDone(t, bin, onKafka(t, in, out, 2), addr, rng)
		got, repeated := fromKafka(t, addr, out), 0
		for name, lines := range got {
			slices.Sort(lines)
			once := slices.Compact(slices.Clone(lines))
			repeated += len(lines) - len(once)
			got[name] = once
		}
		got.check(t, want)
		if repeated > 0 {
			t.Logf("at_least_once: %d lines repeated in run %d", repeated, n)
			return
		}
		if n == 10 {
			t.Fatal("no line was repeated at least once in 10 runs: the test sees nothing")
		}
	}
}

// exactly returns the definitions with exactly_once.
func exactly(t *testing.T, dir string) string {
	t.Helper()
	return edited(t, dir, "version: 1\n", "version: 1\ndelivery: exactly_once\n")
}

// killedUntilDone runs the program, kills it up to twenty times, and lets it end.
func killedUntilDone(t *testing.T, bin, defs, addr string, rng *rand.Rand) {
	t.Helper()
	data, kills := t.TempDir(), 0
	env := []string{"KAFKA_BROKERS=" + addr, "KAFKA_END=latest"}
	for n := range 20 {
		var log strings.Builder
		cmd := exec.CommandContext(t.Context(), bin, "run", defs, "--until-done", "--data-dir", data)
		cmd.Env = append(os.Environ(), env...)
		cmd.Stderr = &log
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		after := time.Duration(30+rng.IntN(60+25*n)) * time.Millisecond // in the end all get somewhere
		timer := time.AfterFunc(after, func() { _ = cmd.Process.Kill() })
		err := cmd.Wait()
		timer.Stop()
		if err == nil {
			break // it was quicker
		}
		if code := cmd.ProcessState.ExitCode(); code != -1 {
			t.Fatalf("it ended by itself with %d:\n%s", code, log.String())
		}
		kills++
	}
	t.Logf("killed %d times", kills)
	runDone(t, bin, defs, data, env...)
}
