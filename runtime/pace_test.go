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
// end all the same; where no other is, or the other has only to do what it is given by this one, nobody is waited for.
func TestCatchUpIsPaced(t *testing.T) {
	const history, step = 3_000, 40 * time.Microsecond
	share := max(1, 25/goruntime.GOMAXPROCS(0)) // of all; about a quarter of a core
	cores := float64(share) / 100 * float64(goruntime.GOMAXPROCS(0))
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
			topic, echo := jobs.BusTopic[int64]{Name: "numbers"}, jobs.BusTopic[int64]{Name: "echo"}
			in, out := newTap(1<<40, history), t.TempDir()
			rt := start(t, runtime.Config{DataDir: t.TempDir(), CatchUpPercent: tt.percent}, writerJob("writer", in, topic))
			until(t, rt, "the history is written", func() bool { return jobStatus(t, rt, "writer").Counters.Out == history })
			ended := make(chan struct{})
			if tt.live {
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
			if tt.follower {
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
			busy, bound := jobStatus(t, rt, "late").Counters.Busy, time.Duration(cores*float64(time.Since(began)))+step*history/4
			close(ended)
			if paced != tt.paced {
				t.Errorf("it was paced: %v", paced)
			}
			if within := busy <= bound; within != tt.paced {
				t.Errorf("it was busy for %v, and its share would be %v", busy, bound)
			}
			until(t, rt, "all are written", func() bool { return linesOf(t, filepath.Join(out, "late.jsonl")) >= history })
			stop(t, rt)
			got := fileLines(t, filepath.Join(out, "late.jsonl"))
			var want []string
			for i := range got {
				want = append(want, jsonOf(i))
			}
			sameLines(t, "late", got, want)
		})
	}
}
