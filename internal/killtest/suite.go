package killtest

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"github.com/sidestream-dev/sidestream/internal/airdata"
)

// Kills is how many kills a suite makes: a handful, or its share of CRASH_KILLS, which is for all of them.
func Kills(tb testing.TB, handful, percent int) int {
	tb.Helper()
	s := os.Getenv("CRASH_KILLS")
	if s == "" {
		return handful
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 {
		tb.Fatalf("CRASH_KILLS=%q: want a number of kills", s)
	}
	return max(1, n*percent/100)
}

// Seeded returns a source of random numbers; CRASH_SEED repeats it.
func Seeded(tb testing.TB) *rand.Rand {
	tb.Helper()
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("CRASH_SEED"); s != "" {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			tb.Fatalf("CRASH_SEED=%q: %v", s, err)
		}
		seed = n
	}
	tb.Logf("CRASH_SEED=%d CRASH_KILLS=%s repeats this run", seed, os.Getenv("CRASH_KILLS"))
	return rand.New(rand.NewPCG(seed, 0))
}

// Suite kills a program until it has been killed so often, over as many campaigns as that takes, and compares what each has
// left with what an undisturbed run of the program leaves, and with the reference program.
type Suite struct {
	Command  func(w *Work) *exec.Cmd
	Variant  Variant
	Times    int // how often the sample's stations stand in the data
	Kills    int
	Campaign int // kills of one campaign, at most
	When     func(took time.Duration, bytes int64) func(*rand.Rand) Moment
	Killed   func(tb testing.TB, w *Work) // after each kill; may be nil
	PowerCut bool                         // a kill takes what was not fsynced
	Broken   bool                         // fsyncs do nothing
}

// Run is the suite. What is wrong is the test's failure.
func (s Suite) Run(tb testing.TB) {
	tb.Helper()
	rng := Seeded(tb)
	data := Times(tb, airdata.Sample(tb), s.Times)
	want := airdata.Expect(tb, data)
	left, took, bytes := s.undisturbed(tb, data, want)
	tb.Logf("an undisturbed run takes %v and writes %d KiB of log", took.Round(time.Millisecond), bytes>>10)
	began := time.Now()
	lost, asked := int64(0), 0
	for done, n := 0, 1; done < s.Kills || s.PowerCut && lost == 0 && done < 10*s.Kills; n++ { // few kills may find all fsynced
		w := NewWork(tb, data, s.Variant)
		repeats := NewRepeats(w)
		c := Campaign{Command: s.Command, Kills: min(s.Campaign, max(s.Kills-done, 1)), When: s.When(took, bytes)}
		c.Killed = func(tb testing.TB) {
			if s.Variant == AtLeastOnce {
				repeats.Killed(tb)
			}
			if s.Killed != nil {
				s.Killed(tb, w)
			}
		}
		if s.PowerCut {
			c.Disk = &Disk{Dirs: []string{w.Dir, w.Out}, Broken: s.Broken}
		}
		r := c.Run(tb, w, rng)
		done += r.Kills
		if r.Err != nil {
			tb.Fatalf("campaign %d, after %d kills: %v", n, r.Kills, r.Err)
		}
		w.Check(tb, left, want, repeats.Lines)
		s.again(tb, w)
		if tb.Failed() {
			tb.Fatalf("campaign %d, after %d kills", n, r.Kills)
		}
		tb.Logf("campaign %d: %d kills, %d in all, after %v; %d lines sent twice, at most %d of an output at once", n, r.Kills, done,
			time.Since(began).Round(time.Second), repeats.Count, repeats.Most)
		if s.PowerCut {
			l, a := c.Disk.Lost()
			lost, asked = lost+l, asked+a
		}
	}
	if s.PowerCut {
		tb.Logf("%d fsyncs were seen, %d bytes lost", asked, lost)
		if asked == 0 || lost == 0 {
			tb.Error("nothing was tried")
		}
	}
}

// undisturbed runs a Work without a kill, checks it, and returns what it left, how long it took and how large its log is.
func (s Suite) undisturbed(tb testing.TB, data airdata.Data, want airdata.Expected) (left Left, took time.Duration, bytes int64) {
	tb.Helper()
	w := NewWork(tb, data, s.Variant)
	began := time.Now()
	if _, err := runOnce(s.Command(w), nil, w, nil); err != nil {
		tb.Fatal(err)
	}
	took = time.Since(began)
	left = w.Left(tb)
	w.Check(tb, left, want, nil)
	if len(left["topic exceedances"]) == 0 || len(left["topic dead-letters"]) == 0 {
		tb.Fatalf("%d exceedances, %d dead letters: nothing to lose", len(left["topic exceedances"]), len(left["topic dead-letters"]))
	}
	return left, took, logBytes(w.Dir)
}

// again runs a program that is done once more: it finds nothing to do, and changes nothing.
func (s Suite) again(tb testing.TB, w *Work) {
	tb.Helper()
	before := w.Left(tb)
	if _, err := runOnce(s.Command(w), nil, w, nil); err != nil {
		tb.Errorf("run again: %v", err)
	}
	for name, lines := range w.Left(tb) {
		if d := difference(lines, before[name]); d != "" {
			tb.Errorf("run again: %s: %s", name, d)
		}
	}
}

// Anywhere kills a third of the runs in their first moments, where recovery is, a third later, and a third by the growth of
// the log, at most share of a whole run away.
func Anywhere(share float64) func(took time.Duration, bytes int64) func(*rand.Rand) Moment {
	return func(took time.Duration, bytes int64) func(*rand.Rand) Moment {
		return func(rng *rand.Rand) Moment {
			switch rng.IntN(3) {
			case 0:
				return Moment{After: time.Duration(rng.Int64N(int64(60 * time.Millisecond)))}
			case 1:
				return Moment{After: time.Duration(rng.Int64N(int64(float64(took) * share)))}
			}
			return Moment{After: runMax, Bytes: 1 + rng.Int64N(int64(float64(bytes)*share))}
		}
	}
}

// Recovery kills three of four runs in their first moments, and lets the others come a little further.
func Recovery(took time.Duration, bytes int64) func(*rand.Rand) Moment {
	later := Anywhere(0.5)(took, bytes)
	return func(rng *rand.Rand) Moment {
		if rng.IntN(4) == 0 {
			return later(rng)
		}
		return Moment{After: time.Duration(rng.Int64N(int64(40 * time.Millisecond)))}
	}
}

// Caught runs check and returns the first failure that it reports, or "": a broken program must be caught.
func Caught(tb testing.TB, check func(tb testing.TB)) (failure string) {
	p := &probe{TB: tb}
	defer func() {
		if v := recover(); v != nil && v != any(p) {
			panic(v)
		}
		failure = p.first
	}()
	check(p)
	return p.first
}

// probe takes failures down instead of failing the test.
type probe struct {
	testing.TB
	first string
}

func (p *probe) Failed() bool { return p.first != "" }

func (p *probe) Error(args ...any)                 { p.note(fmt.Sprint(args...)) }
func (p *probe) Errorf(format string, args ...any) { p.note(fmt.Sprintf(format, args...)) }
func (p *probe) Fatal(args ...any)                 { panic(p.note(fmt.Sprint(args...))) }
func (p *probe) Fatalf(format string, args ...any) { panic(p.note(fmt.Sprintf(format, args...))) }

func (p *probe) note(s string) *probe {
	if p.first == "" {
		p.first = s
	}
	return p
}
