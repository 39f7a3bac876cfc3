package killtest

import (
	"fmt"
	"os"
	"testing"

	"github.com/sidestream-dev/sidestream/internal/airdata"
)

// needKernel ends a test where the kernel does not let us follow a program's fsyncs. Where CI says that everything is
// there, that is a failure.
func needKernel(t *testing.T) {
	t.Helper()
	if err := Supported(); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("CI must be able to run this: a seccomp filter with a listener: %v", err)
		}
		t.Skipf("the kernel does not let us follow fsyncs by a seccomp filter with a listener: %v", err)
	}
}

// TestPowerCut: the real program, killed with all that it had not fsynced lost or spoiled, leaves what an undisturbed run
// leaves.
func TestPowerCut(t *testing.T) {
	needKernel(t)
	rng := seeded(t)
	data := Times(t, airdata.Sample(t), 2)
	want := airdata.Expect(t, data)
	left, took, bytes := undisturbed(t, data, want, ExactlyOnce)
	total := kills(t, 4)
	lost, asked := int64(0), 0
	for done, campaign := 0, 1; done < total; campaign++ {
		w := NewWork(t, data, ExactlyOnce)
		c := Campaign{Command: Sidestream(t), Kills: min(15, total-done), When: anywhere(took, bytes, 0.25), Disk: &Disk{Dirs: []string{w.Dir, w.Out}}}
		r := c.Run(t, w, rng)
		done += r.Kills
		if r.Err != nil {
			t.Fatalf("campaign %d, after %d power cuts: %v", campaign, r.Kills, r.Err)
		}
		w.Check(t, left, want, nil)
		again(t, w)
		if t.Failed() {
			t.Fatalf("campaign %d, after %d power cuts", campaign, r.Kills)
		}
		t.Logf("campaign %d: %d power cuts took %d bytes; %d fsyncs, %d cuts in all", campaign, r.Kills, c.Disk.lost, c.Disk.asked, done)
		lost, asked = lost+c.Disk.lost, asked+c.Disk.asked
	}
	if asked == 0 || lost == 0 {
		t.Errorf("%d fsyncs were seen, and %d bytes lost: nothing was tried", asked, lost)
	}
}

// TestTwinWithoutFsync: the same program, whose fsyncs do nothing, is caught by the same comparison.
func TestTwinWithoutFsync(t *testing.T) {
	needKernel(t)
	rng := seeded(t)
	data := Times(t, airdata.Sample(t), 2)
	want := airdata.Expect(t, data)
	left, took, bytes := undisturbed(t, data, want, ExactlyOnce)
	cuts := 0
	for campaign := 1; campaign <= 20; campaign++ {
		w := NewWork(t, data, ExactlyOnce)
		c := Campaign{Command: Sidestream(t), Kills: 4, When: anywhere(took, bytes, 0.4), Disk: &Disk{Dirs: []string{w.Dir, w.Out}, Broken: true}}
		found := caught(t, func(tb testing.TB) {
			r := c.Run(tb, w, rng)
			cuts += r.Kills
			if r.Err != nil {
				tb.Fatal(r.Err)
			}
			w.Check(tb, left, want, nil)
		})
		if found != "" {
			t.Logf("caught after %d power cuts: %.300s", cuts, found)
			return
		}
	}
	t.Fatalf("a program without fsync was not caught in %d power cuts", cuts)
}

// caught returns the first failure that check reports, or "".
func caught(t *testing.T, check func(tb testing.TB)) (failure string) {
	p := &probe{TB: t}
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

func (p *probe) Error(args ...any)                 { p.note(fmt.Sprint(args...)) }
func (p *probe) Errorf(format string, args ...any) { p.note(fmt.Sprintf(format, args...)) }
func (p *probe) Fatal(args ...any)                 { p.note(fmt.Sprint(args...)); panic(p) }
func (p *probe) Fatalf(format string, args ...any) { p.note(fmt.Sprintf(format, args...)); panic(p) }

func (p *probe) note(s string) {
	if p.first == "" {
		p.first = s
	}
}
