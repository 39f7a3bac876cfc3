package air_test

import (
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sidestream-dev/sidestream/internal/airdata"
	"github.com/sidestream-dev/sidestream/jobs/connector/kafka"
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
	killedUntilDone(t, bin, exactly(t, defs), t.TempDir(), addr, rng)
	fromKafka(t, addr, out).check(t, want)

	for n := 1; ; n++ {
		out := airdata.Prefix()
		killedUntilDone(t, bin, onKafka(t, in, out, 2), t.TempDir(), addr, rng)
		got, repeated := fromKafka(t, addr, out).once()
		got.check(t, want)
		if repeated > 0 {
			t.Logf("at_least_once: %d lines repeated in run %d", repeated, n)
			return
		}
		if n == 20 {
			t.Fatal("no line was repeated at least once in 20 runs: the test sees nothing")
		}
	}
}

// TestKilledWithItsBroker: the same on the embedded broker, which dies with the program: nothing is missing in its topics, and
// nothing stands there that should not.
func TestKilledWithItsBroker(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("AIR_SEED"); s != "" {
		seed, _ = strconv.ParseUint(s, 10, 64)
	}
	t.Logf("AIR_SEED=%d", seed)
	d, bin, data := airdata.Sample(t), binary(t), t.TempDir()
	embedded := func(use func(addr string)) {
		e := &kafka.Embedded{Dir: filepath.Join(data, "kafka")}
		addr, err := e.Kafka(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		use(addr)
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
	}
	embedded(func(addr string) { d.Produce(t, addr, "", 4) })
	killedUntilDone(t, bin, "jobs", data, "embedded", rand.New(rand.NewPCG(seed, 0)))
	embedded(func(addr string) {
		got, repeated := fromKafka(t, addr, "").once()
		t.Logf("%d lines repeated", repeated)
		got.check(t, airdata.Expect(t, d))
	})
}

// once leaves each line once, and says how many are left out.
func (w written) once() (got written, repeated int) {
	got = written{}
	for name, lines := range w {
		slices.Sort(lines)
		got[name] = slices.Compact(slices.Clone(lines))
		repeated += len(lines) - len(got[name])
	}
	return got, repeated
}

// exactly returns the definitions with exactly_once.
func exactly(t *testing.T, dir string) string {
	t.Helper()
	return edited(t, dir, "version: 1\n", "version: 1\ndelivery: exactly_once\n")
}

// killedUntilDone runs the program, kills it up to twenty times, each time when its log has grown by some more, and lets it
// end.
func killedUntilDone(t *testing.T, bin, defs, data, addr string, rng *rand.Rand) {
	t.Helper()
	kills := 0
	env := []string{"KAFKA_BROKERS=" + addr, "KAFKA_END=latest"}
	for range 20 {
		var log strings.Builder
		cmd := exec.CommandContext(t.Context(), bin, "run", defs, "--until-done", "--data-dir", data)
		cmd.Env = append(os.Environ(), env...)
		cmd.Stderr = &log
		at := logBytes(data) + 3_000 + rng.Int64N(100_000)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan struct{})
		go func() {
			for {
				select {
				case <-ended:
					return
				case <-time.After(time.Millisecond):
					if logBytes(data) >= at {
						_ = cmd.Process.Kill()
						return
					}
				}
			}
		}()
		err := cmd.Wait()
		close(ended)
		if err == nil {
			break // there was no more to come
		}
		if code := cmd.ProcessState.ExitCode(); code != -1 {
			t.Fatalf("it ended by itself with %d:\n%s", code, log.String())
		}
		kills++
	}
	t.Logf("killed %d times", kills)
	if kills == 0 {
		t.Error("it was never killed")
	}
	runDone(t, bin, defs, data, env...)
}

// logBytes is how long the log of a data directory is.
func logBytes(data string) (n int64) {
	_ = filepath.WalkDir(filepath.Join(data, "wal"), func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || d.Name() == "RESERVE" {
			return nil // it is being made, or gone
		}
		if info, err := d.Info(); err == nil {
			n += info.Size()
		}
		return nil
	})
	return n
}
