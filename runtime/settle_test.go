package runtime

import (
	"sync/atomic"
	"testing"

	"github.com/sidestream-dev/sidestream/bus"
)

// TestUndoneGrows: what a failed attempt had not committed counts once the next is fenced off from it, and once: until then an
// epoch of it may yet be sealed, and then it is not undone.
func TestUndoneGrows(t *testing.T) {
	j := &job{}
	x := &execution{kept: &atomic.Pointer[Work]{}}
	j.addPast(x)
	j.last.counters.In = 10
	if now := j.last.settled(); now.Undone.In != 10 || j.past.Undone.In != 0 {
		t.Fatalf("an attempt that is over: %+v now, %+v for good", now, j.past)
	}
	x.kept.Store(&Work{In: 4}) // sealed later
	for range 2 {
		j.settle()
		if j.past.In != 4 || j.past.Undone.In != 6 {
			t.Fatalf("settled: %+v; want 4 in, and 6 undone", j.past)
		}
	}
	if last := j.last.settled(); last.Total() != (Work{}) {
		t.Errorf("it counts twice: %+v", last)
	}
}

// TestSavedInput: a savepoint from before topics had numbers there knows them by name, others by number.
func TestSavedInput(t *testing.T) {
	e := &savepointEntry{Inputs: []savedInput{{Step: "old", Topic: "a", Sub: 1}, {Step: "new", Topic: "a", ID: 7, Sub: 2}}}
	for _, tt := range []struct {
		step      string
		id        bus.TopicID
		ok, other bool
	}{{"old", 7, true, false}, {"old", 9, true, false}, {"new", 7, true, false}, {"new", 9, false, true}, {"none", 7, false, false}} {
		if in, ok, other := e.input(tt.step, "a", tt.id); ok != tt.ok || other != tt.other {
			t.Errorf("step %s on topic %d: %+v, %v, other %v", tt.step, tt.id, in, ok, other)
		}
	}
}
