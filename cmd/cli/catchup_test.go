package cli

import (
	"testing"

	"github.com/sidestream-dev/sidestream/bus"
	"github.com/sidestream-dev/sidestream/runtime"
)

// TestCatchingUp: what was there at the first look is counted, and not what is written meanwhile; nor is a job that stopped.
func TestCatchingUp(t *testing.T) {
	status := func(written, lag, otherLag int64, other runtime.JobState) runtime.Status {
		return runtime.Status{
			Jobs: []runtime.JobStatus{{Name: "a", State: runtime.StateRunning}, {Name: "b", State: other}},
			Topics: []bus.TopicStat{{Name: "t", Partitions: []bus.PartitionStat{{Next: bus.Offset(written / 2)}, {Next: bus.Offset(written - written/2)}},
				Subscriptions: []bus.SubStat{{Name: "a/t", Lag: lag}, {Name: "b/t", Lag: otherLag}}}},
		}
	}
	var c catchingUp
	for i, tt := range []struct {
		st       runtime.Status
		done, of int64
		over     bool
	}{
		{status(10_000, 4000, 2000, runtime.StateRunning), 0, 6000, false},
		{status(10_500, 3500, 1500, runtime.StateRunning), 2000, 6000, false},
		{status(11_000, 1000, 3000, runtime.StatePaused), 4000, 4000, true},
		{status(11_000, 1200, 3000, runtime.StateRunning), 3800, 4000, false},
		{status(20_000, 9_999, 10_000, runtime.StateRunning), 4000, 4000, true},
	} {
		if done, of, over := c.look(tt.st); done != tt.done || of != tt.of || over != tt.over {
			t.Errorf("look %d: %d of %d, over %v; want %d of %d, %v", i, done, of, over, tt.done, tt.of, tt.over)
		}
	}
	idle := catchingUp{}
	if _, of, over := idle.look(status(10, 5, 5, runtime.StateStopped)); of != 5 || over {
		t.Errorf("a stopped job is waited for: %d, %v", of, over)
	}
}
