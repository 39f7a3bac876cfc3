package runtime_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/runtime"
)

// TestOutputLimitHoldsItsJob: an output whose outside is away holds its job back once what is unsent has reached its limit, and
// the job says so; the others go on, also one that reads what that job writes to the bus. Once the outside is back all is sent.
func TestOutputLimitHoldsItsJob(t *testing.T) {
	noLeaks(t)
	out := t.TempDir()
	const total, limit = 50_000, 64 << 10
	rt, err := runtime.Open(runtime.Config{DataDir: t.TempDir(), CatchUpPercent: 100, StuckAfter: patience})
	if err != nil {
		t.Fatal(err)
	}
	rt.SmallOutputs(limit)
	outside := &slotOutside{away: true}
	side := jobs.BusTopic[int64]{Name: "side"}
	held := jobs.New("held")
	in := numbers(held, newTap(total, total))
	jobs.ToTopic(in, side)
	jobs.To(in, "main", slot{"one", outside}, jobs.JSON[int64]())
	if err := rt.Start([]*jobs.Job{held, readTopic("beside", side, out, nil), counting("other", newTap(total, total), out, nil)}); err != nil {
		t.Fatal(err)
	}
	waits := func() bool {
		return slices.ContainsFunc(jobStatus(t, rt, "held").Waiting, func(w runtime.Wait) bool {
			return w.For == runtime.WaitRoom && slices.Equal(w.Jobs, []string{"held"}) && strings.Contains(w.Text, "output main") && strings.Contains(w.Text, "not sent")
		})
	}
	until(t, rt, "the job waits and says for what", waits)
	until(t, rt, "the other has ended", func() bool { return jobStatus(t, rt, "other").State == runtime.StateEnded })
	// The epochs under way may still pass; then nothing more is read, for as long as the outside is away.
	read, still := int64(0), 0
	until(t, rt, "nothing more is read, and the job waits", func() bool {
		st := jobStatus(t, rt, "held")
		if still++; st.Counters.In != read || st.State != runtime.StateWaiting || !waits() {
			read, still = st.Counters.In, 0
		}
		return still == 40 // polls, 5 ms apart
	})
	if st := jobStatus(t, rt, "held"); read >= total || st.Restarts != 0 {
		t.Errorf("%d of %d numbers were read, with %d restarts: %v", read, total, st.Restarts, st.Waiting)
	}
	until(t, rt, "the one behind it has all that was written", func() bool { return jobStatus(t, rt, "beside").Lag == 0 })
	if got := outside.has(); len(got) > 0 {
		t.Errorf("%d records are outside, which is away", len(got))
	}
	outside.back()
	finish(t, rt)
	if got := outside.has(); len(got) != total {
		t.Errorf("%d records were sent, want %d", len(got), total)
	}
}
