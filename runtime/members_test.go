package runtime

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/sidestream-dev/sidestream/jobs"
)

// onTheBus is a job that reads a topic and writes another.
func onTheBus(name string) *jobs.Job {
	j := jobs.New(name)
	jobs.ToTopic(jobs.FromTopic(j, jobs.BusTopic[int64]{Name: "a"}), jobs.BusTopic[int64]{Name: "b"})
	return j
}

// TestChangeEndsAsRuntimeStops: a change that lets a job go on when the runtime has begun to stop leaves it at rest.
func TestChangeEndsAsRuntimeStops(t *testing.T) {
	rt, err := Open(Config{DataDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	if err := rt.Start([]*jobs.Job{onTheBus("j")}); err != nil {
		t.Fatal(err)
	}
	if err := rt.PauseJob(t.Context(), "j"); err != nil {
		t.Fatal(err)
	}
	rt.changes.end() // what Stop does first; changes under way come to their end behind it
	if err := rt.afterHalt(rt.findJob("j"), opResume, ""); err != nil {
		t.Fatal(err)
	}
	if err := rt.Stop(); err != nil {
		t.Fatal(err)
	}
	if s := rt.findJob("j").state; s != StateStopped {
		t.Errorf("the job is %s", s)
	}
}

// away is a source that does not answer.
type away struct{ jobs.Source }

func (away) Kind() string  { return "away" }
func (away) Bounded() bool { return false }
func (away) Splits(ctx context.Context, _ jobs.SourceEnv) ([]jobs.Start, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// TestSavepointOfJobsAtRest: a job that was paused before its first epoch can be saved, and one of the API whose definition
// cannot be loaded.
func TestSavepointOfJobsAtRest(t *testing.T) {
	cfg := Config{DataDir: t.TempDir()}
	rt, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	build := func() []*jobs.Job {
		j := jobs.New("waiting")
		jobs.ToTopic(jobs.From(j, away{}, jobs.JSON[int64]()), jobs.BusTopic[int64]{Name: "a"})
		return []*jobs.Job{j}
	}
	if err := rt.Start(build()); err != nil {
		t.Fatal(err)
	}
	if _, err := rt.Apply(t.Context(), []Definition{{Job: onTheBus("unknown")}}, ApplyOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := rt.PauseJob(t.Context(), "waiting"); err != nil {
		t.Fatal(err)
	}
	if err := rt.Stop(); err != nil {
		t.Fatal(err)
	}
	if rt, err = Open(cfg); err != nil {
		t.Fatal(err)
	}
	if err := rt.Start(build()); err != nil { // without Config.Load nobody can make the API's again
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for _, name := range []string{"waiting", "unknown"} {
		if sp, err := rt.Savepoint(ctx, name, "of-"+name); err != nil || (name == "waiting") != (sp.Epoch == 0) {
			t.Errorf("%s: epoch %s, %v", name, sp.Epoch, err)
		}
	}
	if err := rt.Stop(); err != nil {
		t.Fatal(err)
	}
}

// TestSavepointsOfOneName: of two jobs that are saved under one name at a time, one is.
func TestSavepointsOfOneName(t *testing.T) {
	rt, err := Open(Config{DataDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	if err := rt.Start([]*jobs.Job{onTheBus("j"), onTheBus("k")}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"j", "k"} {
		if err := rt.PauseJob(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 10 {
		name := "s" + string(rune('0'+i))
		errs := make(chan error, 2)
		for _, job := range []string{"j", "k"} {
			go func() {
				_, err := rt.Savepoint(t.Context(), job, name)
				errs <- err
			}()
		}
		a, b := <-errs, <-errs
		if (a == nil) == (b == nil) || !errors.Is(errors.Join(a, b), ErrSavepointExists) {
			t.Errorf("savepoint %s: %v and %v", name, a, b)
		}
	}
	if err := rt.Stop(); err != nil {
		t.Fatal(err)
	}
}
