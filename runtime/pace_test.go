package runtime_test

import (
	"path/filepath"
	goruntime "runtime"
	"testing"
	"time"

	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/jobs/connector/file"
	"github.com/sidestream-dev/sidestream/runtime"
)

// TestCatchUpIsPaced: a job that catches up while another is at work has its share of the machine and no more, and comes to the
// end all the same; where no other is, or the other has only to do what it is given by this one, nobody is waited for. Another
// process may take the processor away for as long as all of this takes, within a number or between two: a share is as it should be
// if it is once.
func TestCatchUpIsPaced(t *testing.T) {
	share := quarter()
	for _, tt := range []struct {
		name           string
		percent        int
		live, follower bool
		paced          bool
	}{
		{name: "beside one that is live", percent: share, live: true, paced: true},
		{name: "unbounded", percent: 100, live: true}, // the check of the share can fail
		{name: "alone", percent: share},
		{name: "before one that follows", percent: share, follower: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			noLeaks(t)
			for try := 1; ; try++ {
				busy, bound := catchUp(t, tt.percent, tt.live, tt.follower, tt.paced)
				if within := busy <= bound; within == tt.paced {
					return
				}
				if t.Logf("try %d: it was busy for %v, and its share would be %v", try, busy, bound); try == 8 {
					t.Fatal("that is not as it should be, again and again")
				}
			}
		})
	}
}

// catchUp lets a job catch up, and returns how long it was at work, and how long it may be with its share of the machine.
func catchUp(t *testing.T, percent int, live, follower, wantPaced bool) (busy, bound time.Duration) {
	t.Helper()
	const history, step = 3_000, 40 * time.Microsecond
	cores := float64(quarter()) / 100 * float64(goruntime.GOMAXPROCS(0))
	topic, echo := jobs.BusTopic[int64]{Name: "numbers"}, jobs.BusTopic[int64]{Name: "echo"}
	in, out := newTap(1<<40, history), t.TempDir()
	rt := start(t, runtime.Config{DataDir: t.TempDir(), CatchUpPercent: percent}, writerJob("writer", in, topic))
	until(t, rt, "the history is written", func() bool { return jobStatus(t, rt, "writer").Counters.Out == history })
	ended := make(chan struct{})
	if live {
		go func() {
			for n := int64(history); ; n++ {
				select {
				case <-time.After(time.Millisecond):
					in.open(n)
				case <-ended:
					return
				}
			}
		}()
		until(t, rt, "the live job is at work", func() bool { return jobStatus(t, rt, "writer").Counters.Out > history })
	}
	late := jobs.New("late")
	read := jobs.Map(jobs.FromTopic(late, topic), func(n int64) int64 {
		for began := time.Now(); time.Since(began) < step; {
		}
		return n
	})
	jobs.To(read, "main", file.Sink{Path: filepath.Join(out, "late.jsonl")}, jobs.JSON[int64]())
	jobs.ToTopic(read, echo)
	all := []*jobs.Job{late}
	if follower {
		f := jobs.New("follower")
		jobs.To(jobs.FromTopic(f, echo), "main", file.Sink{Path: filepath.Join(out, "follower.jsonl")}, jobs.JSON[int64]())
		all = append(all, f)
	}
	began := time.Now()
	apply(t, rt, all...)
	paced := false
	until(t, rt, "the job has caught up", func() bool {
		st := jobStatus(t, rt, "late")
		paced = paced || st.CatchUp != nil && st.CatchUp.Paced
		return st.Counters.In >= history && st.CatchUp == nil
	})
	busy, bound = jobStatus(t, rt, "late").Counters.Busy, time.Duration(cores*float64(time.Since(began)))+step*history/4
	close(ended)
	if paced != wantPaced {
		t.Errorf("it was paced: %v", paced)
	}
	until(t, rt, "all are written", func() bool { return linesOf(t, filepath.Join(out, "late.jsonl")) >= history })
	stop(t, rt)
	got := fileLines(t, filepath.Join(out, "late.jsonl"))
	var want []string
	for i := range got {
		want = append(want, jsonOf(i))
	}
	sameLines(t, "late", got, want)
	return busy, bound
}

// quarter is about a quarter of a core, in percent of all.
func quarter() int { return max(1, 25/goruntime.GOMAXPROCS(0)) }
