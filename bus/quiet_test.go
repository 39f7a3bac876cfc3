package bus

import (
	"testing"
	"time"
)

// TestIdleAfter: a reader with idle_after leaves out a producer that has said nothing for so long while all was read, until
// it speaks again; others do not.
func TestIdleAfter(t *testing.T) {
	r := newRig(t, Config{})
	r.define(1, TopicSpec{Name: "t", Partitions: 2})
	rd := r.NewReader(1, 1, r.subscribe(1, 1, Start{Earliest: true}), func() {})
	defer rd.Close()
	plain := r.NewReader(2, 1, r.subscribe(2, 1, Start{Earliest: true}), func() {})
	defer plain.Close()
	now := time.UnixMilli(0)
	rd.IdleAfter(time.Minute, func() time.Time { return now })

	step := func(what, want, wantPlain string, in time.Duration) {
		t.Helper()
		drain(t, rd, 9)
		drain(t, plain, 9)
		w, idle := rd.Watermark()
		pw, pidle := plain.Watermark()
		if level(w, idle) != want || level(pw, pidle) != wantPlain {
			t.Errorf("%s: %s, without idle_after %s; want %s and %s", what, level(w, idle), level(pw, pidle), want, wantPlain)
		}
		if got := rd.QuietIn(); got != in {
			t.Errorf("%s: the next is quiet in %v, want %v", what, got, in)
		}
	}
	r.epoch(nil, at(1, 50), at(2, 40), join(3))
	step("one has never spoken", "none", "none", time.Minute)
	now = now.Add(40 * time.Second)
	r.epoch([]Publication{pub(1, 0, "a")}, at(1, 60))
	step("one has spoken again", "none", "none", 20*time.Second)
	now = now.Add(20 * time.Second)
	step("two are quiet", "60", "none", 40*time.Second)
	now = now.Add(39 * time.Second)
	step("almost", "60", "none", time.Second)
	now = now.Add(time.Second)
	step("all are quiet", "60 idle", "none", 0)
	r.epoch(nil, at(3, 55))
	step("one is back, late", "60", "40", time.Minute)
	r.epoch(nil, at(3, 70))
	step("and has passed it", "70", "40", time.Minute)
	r.epoch(nil, leave(3))
	step("left", "70 idle", "40", 0)
	r.epoch(nil, idle(1), idle(2))
	step("idle by their own word", "70 idle", "40 idle", 0)

	// While there is something to read nobody is taken for quiet: its marks may lie behind.
	r.epoch(nil, at(1, 100), at(2, 90))
	step("both back", "90", "90", time.Minute)
	now = now.Add(time.Hour)
	r.epoch([]Publication{pub(1, 0, "b", "c")}, at(1, 110))
	if _, ok, err := rd.Next(1); !ok || err != nil {
		t.Fatal(ok, err)
	}
	if w, _ := rd.Watermark(); w != 90 {
		t.Errorf("watermark %d in the middle of what there is", w)
	}
}
