package runtime_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	ossignal "os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sidestream-dev/sidestream/internal/killtest"
	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/jobs/connector/all"
	"github.com/sidestream-dev/sidestream/jobs/spec"
	"github.com/sidestream-dev/sidestream/runtime"
	"github.com/sidestream-dev/sidestream/runtime/admin"
)

// The suites here kill this test's own program, which then runs the jobs of a folder until they are done: the real program
// has no settings for what is wanted. The suites over the real program are in internal/killtest.

const (
	crashChild = "SIDESTREAM_TEST_CRASH_CHILD" // makes this process that program: "plain", "snapshots", "apart", "serves", "forgets", "store" or "store late"
	crashJobs  = "SIDESTREAM_TEST_CRASH_JOBS"
	crashData  = "SIDESTREAM_TEST_CRASH_DATA"
)

func init() {
	if kind := os.Getenv(crashChild); kind != "" {
		if err := runChild(kind, os.Getenv(crashJobs), os.Getenv(crashData)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
}

func runChild(kind, dir, data string) error {
	defs, problems := spec.Load(spec.Config{Connectors: all.Registry(), Env: os.LookupEnv}, dir)
	if len(problems) > 0 {
		return fmt.Errorf("%s", problems)
	}
	cfg := runtime.Config{DataDir: data, Load: func(definition []byte, _ runtime.Origin) (*jobs.Job, error) {
		js, problems := spec.LoadBytes(spec.Config{Connectors: all.Registry()}, "definition", definition)
		if len(problems) > 0 {
			return nil, fmt.Errorf("%s", problems)
		}
		return js[0], nil
	}}
	if kind == "snapshots" {
		cfg.SnapshotBytes, cfg.CommitInterval = 1, 2*time.Millisecond
	}
	if kind == "serves" || kind == "forgets" { // so that the jobs wait for the disk, and not all for the processor
		cfg.EpochBytes, cfg.SealedBytes = 4<<10, 4<<10
	}
	if kind == "store" || kind == "store late" { // nearly all that topics keep moves to the topic store
		cfg.LogBytes, cfg.Log.GenerationBytes, cfg.Log.SegmentBytes, cfg.StoreSegmentBytes, cfg.TopicMemory = 64<<10, 32<<10, 16<<10, 16<<10, 4<<10
	}
	rt, err := runtime.Open(cfg)
	if err != nil {
		return err
	}
	if kind == "store late" {
		if err := runtime.WritePositionsLate(rt); err != nil {
			return err
		}
	}
	if kind == "apart" {
		if err := runtime.WritePositionsApart(rt); err != nil {
			return err
		}
	}
	if err := rt.Start(defs); err != nil {
		return err
	}
	if kind == "serves" || kind == "forgets" || kind == "store" || kind == "store late" {
		if kind == "forgets" {
			if err := runtime.WriteChangesLate(rt); err != nil {
				return err
			}
		}
		return serveChild(rt, filepath.Join(data, "run", "admin.sock"))
	}
	if err := rt.Wait(context.Background(), true); err != nil {
		return err
	}
	return rt.Stop()
}

// serveChild serves the admin API of a runtime until SIGTERM.
func serveChild(rt *runtime.Runtime, socket string) error {
	stop := make(chan os.Signal, 1)
	ossignal.Notify(stop, syscall.SIGTERM)
	s, err := admin.New(admin.Config{Spec: spec.Config{Connectors: all.Registry()}})
	if err != nil {
		return err
	}
	s.Attach(rt)
	if err := s.ListenUnix(socket); err != nil {
		return err
	}
	s.Started()
	<-stop
	return errors.Join(s.Close(), rt.Stop())
}

func child(t testing.TB, kind string) func(w *killtest.Work) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return func(w *killtest.Work) *exec.Cmd {
		c := exec.Command(self)
		c.Env = append(w.Env(), crashChild+"="+kind, crashJobs+"="+w.Jobs, crashData+"="+w.Dir)
		return c
	}
}

// TestKillWithSnapshots: the same as killtest.TestKill, while snapshots are taken all the time, so that kills fall into
// writing and announcing them too, and recovery begins with them.
func TestKillWithSnapshots(t *testing.T) {
	snapshots := 0
	s := killtest.Suite{Command: child(t, "snapshots"), Variant: killtest.ExactlyOnce, Times: 2, Kills: killtest.Kills(t, 4, 15), Campaign: 20,
		When: killtest.Anywhere(0.25), Killed: func(tb testing.TB, w *killtest.Work) {
			files, err := filepath.Glob(filepath.Join(w.Dir, "snapshots", "*"))
			if err != nil {
				tb.Fatal(err)
			}
			snapshots += len(files)
			if slices.ContainsFunc(files, func(f string) bool { return filepath.Ext(f) == ".tmp" }) {
				tb.Log("a kill fell into the writing of a snapshot")
			}
		}}
	for n := 0; snapshots == 0; n++ { // a few kills may all come too early
		if n == 10 {
			t.Fatal("no snapshot was there at any kill")
		}
		s.Run(t)
	}
}

// TestTwinPositionsApart: a program that writes positions in a frame of their own is caught by the same comparison, which
// the same program passes as it is.
func TestTwinPositionsApart(t *testing.T) {
	s := killtest.Suite{Command: child(t, "plain"), Variant: killtest.ExactlyOnce, Times: 1, Kills: 2, Campaign: 2, When: killtest.Anywhere(0.4)}
	s.Run(t)
	s.Command, s.Kills = child(t, "apart"), 40
	found := killtest.Caught(t, func(tb testing.TB) { s.Run(tb) })
	if found == "" {
		t.Fatal("a program that writes positions in a frame of their own was not caught")
	}
	t.Logf("caught: %.300s", found)
}

// TestTwinChangesLate: a program that writes the second half of a change of two jobs, and removals, behind the answer is caught
// by killtest.Changes, which the same program passes as it is.
func TestTwinChangesLate(t *testing.T) {
	s := killtest.Changes{Command: child(t, "serves"), Times: 2, Kills: 2, Mean: 15}
	s.Run(t)
	s.Command, s.Kills = child(t, "forgets"), 40
	found := killtest.Caught(t, func(tb testing.TB) { s.Run(tb) })
	if found == "" {
		t.Fatal("a program that writes changes behind its answers was not caught")
	}
	t.Logf("caught: %.300s", found)
}

// TestKillInCatchUp: a job that begins with a topic's oldest record, in the topic store, sees each once, however often it is killed.
func TestKillInCatchUp(t *testing.T) {
	killtest.CatchUp{Command: child(t, "store"), Kills: killtest.Kills(t, 4, 5)}.Run(t)
}

// TestTwinKillInCatchUp: one that writes the places of readers an epoch late is caught by that.
func TestTwinKillInCatchUp(t *testing.T) {
	found := killtest.Caught(t, func(tb testing.TB) { killtest.CatchUp{Command: child(t, "store late"), Kills: 10}.Run(tb) })
	if !strings.Contains(found, "records in the topic") {
		t.Fatalf("a program that writes places an epoch late was not caught: %s", found)
	}
	t.Logf("caught: %.300s", found)
}
