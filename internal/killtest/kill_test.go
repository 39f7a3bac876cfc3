package killtest

import (
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/sidestream-dev/sidestream/internal/airdata"
)

func TestMain(m *testing.M) {
	MaybeLaunch()
	code := m.Run()
	Remove()
	os.Exit(code)
}

// kills is how many kills a suite makes: CRASH_KILLS, or a handful.
func kills(t testing.TB, handful int) int {
	t.Helper()
	s := os.Getenv("CRASH_KILLS")
	if s == "" {
		return handful
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 {
		t.Fatalf("CRASH_KILLS=%q: want a number of kills", s)
	}
	return n
}

// seeded returns a source of random numbers; CRASH_SEED repeats it.
func seeded(t testing.TB) *rand.Rand {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("CRASH_SEED"); s != "" {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatalf("CRASH_SEED=%q: %v", s, err)
		}
		seed = n
	}
	t.Logf("CRASH_SEED=%d CRASH_KILLS=%s repeats this run", seed, os.Getenv("CRASH_KILLS"))
	return rand.New(rand.NewPCG(seed, 0))
}

// undisturbed runs a Work once without a kill, checks it, and returns what it left, how long it took and how large its log is.
func undisturbed(t testing.TB, data airdata.Data, want airdata.Expected, v Variant) (left Left, took time.Duration, bytes int64) {
	t.Helper()
	var w *Work
	took = runMax
	for range 2 { // the first one reads what no cache has
		w = NewWork(t, data, v)
		began := time.Now()
		if _, err := runOnce(Sidestream(t)(w), nil, w, nil); err != nil {
			t.Fatal(err)
		}
		took = min(took, time.Since(began))
	}
	left = w.Left(t)
	w.Check(t, left, want, nil)
	if len(left["topic exceedances"]) == 0 || len(left["topic dead-letters"]) == 0 {
		t.Fatalf("%d exceedances, %d dead letters: nothing to lose", len(left["topic exceedances"]), len(left["topic dead-letters"]))
	}
	return left, took, logBytes(w.Dir)
}

// anywhere kills a third of the runs in their first moments, where recovery is, a third later, and a third by the growth of
// the log, at most share of a whole run away.
func anywhere(took time.Duration, bytes int64, share float64) func(*rand.Rand) Moment {
	return func(rng *rand.Rand) Moment {
		most := time.Duration(float64(took) * share)
		switch rng.IntN(3) {
		case 0:
			return Moment{After: time.Duration(rng.Int64N(int64(60 * time.Millisecond)))}
		case 1:
			return Moment{After: time.Duration(rng.Int64N(int64(most)))}
		}
		return Moment{After: runMax, Bytes: 1 + rng.Int64N(int64(float64(bytes)*share))}
	}
}

// TestKill: the real program, killed at random moments and started again until it is done, leaves what an undisturbed run
// leaves. Run once more it finds nothing to do.
func TestKill(t *testing.T) {
	rng := seeded(t)
	data := Times(t, airdata.Sample(t), 6)
	want := airdata.Expect(t, data)
	left, took, bytes := undisturbed(t, data, want, ExactlyOnce)
	t.Logf("an undisturbed run takes %v and writes %d KiB of log", took.Round(time.Millisecond), bytes>>10)
	total := kills(t, 10)
	began := time.Now()
	for done, campaign := 0, 1; done < total; campaign++ {
		w := NewWork(t, data, ExactlyOnce)
		c := Campaign{Command: Sidestream(t), Kills: min(25, total-done), When: anywhere(took, bytes, 0.25)}
		r := c.Run(t, w, rng)
		done += r.Kills
		if r.Err != nil {
			t.Fatalf("campaign %d, after %d kills: %v", campaign, r.Kills, r.Err)
		}
		w.Check(t, left, want, nil)
		again(t, w)
		if t.Failed() {
			t.Fatalf("campaign %d, after %d kills", campaign, r.Kills)
		}
		t.Logf("campaign %d: %d kills, %d in all, after %v", campaign, r.Kills, done, time.Since(began).Round(time.Second))
	}
}

// again runs a program that is done once more: it finds nothing to do, and changes nothing.
func again(t testing.TB, w *Work) {
	t.Helper()
	before := w.Left(t)
	if _, err := runOnce(Sidestream(t)(w), nil, w, nil); err != nil {
		t.Errorf("run again: %v", err)
	}
	for name, lines := range w.Left(t) {
		if d := difference(lines, before[name]); d != "" {
			t.Errorf("run again: %s: %s", name, d)
		}
	}
}
