package runtime_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
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
	crashChild = "SIDESTREAM_TEST_CRASH_CHILD" // makes this process that program: "plain", "snapshots", "serves", "store" or "repair reusing", and ", TWIN" for a broken one
	crashJobs  = "SIDESTREAM_TEST_CRASH_JOBS"
	crashData  = "SIDESTREAM_TEST_CRASH_DATA"
)

func init() {
	killtest.MaybeLaunch()
	if kind := os.Getenv(crashChild); kind != "" {
		if err := runChild(kind, os.Getenv(crashJobs), os.Getenv(crashData)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
}

func runChild(kind, dir, data string) error {
	if kind == "repair reusing" {
		return runtime.RepairReusing(data)
	}
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
	kind, twin, broken := strings.Cut(kind, ", ")
	switch kind {
	case "snapshots":
		cfg.SnapshotBytes, cfg.CommitInterval = 1, 2*time.Millisecond
	case "serves": // as killtest.Serve: so that the jobs wait for the disk, and not all for the processor
		cfg.EpochBytes, cfg.SealedBytes = 4<<10, 4<<10
	case "store": // as killtest.ServeShort: nearly all that topics keep moves to the topic store
		cfg.EpochBytes, cfg.SealedBytes, cfg.LogBytes, cfg.FrameBytes, cfg.TopicMemory, cfg.SnapshotBytes = 16<<10, 128<<10, 512<<10, 2<<10, 16<<10, 128<<10
		cfg.CatchUpPercent, cfg.BackoffMin, cfg.BackoffMax = 100, 50*time.Millisecond, 50*time.Millisecond
	}
	rt, err := runtime.Open(cfg)
	if err != nil {
		return err
	}
	if broken {
		if err := runtime.CrashTwins[twin](rt); err != nil {
			return err
		}
	}
	if err := rt.Start(defs); err != nil {
		return err
	}
	if kind == "serves" || kind == "store" {
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
	s.Command, s.Kills = child(t, "plain, positions apart"), 300 // the first few find it, mostly
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
	s.Command, s.Kills = child(t, "serves, changes late"), 300
	found := killtest.Caught(t, func(tb testing.TB) { s.Run(tb) })
	if found == "" {
		t.Fatal("a program that writes changes behind its answers was not caught")
	}
	t.Logf("caught: %.300s", found)
}

// TestTwinRounds: broken programs are caught by the suites of killtest that are there for what they break.
func TestTwinRounds(t *testing.T) {
	killtest.Rounds{Command: child(t, "store"), Kills: 2, Actors: func(r *killtest.Round) []killtest.Actor {
		return []killtest.Actor{killtest.Seeker(r), killtest.Detacher(r), killtest.Retainer(r), killtest.Keeper(r), killtest.Updater(r), killtest.Replayer(r), killtest.Rewinder(r), killtest.Copier(r), killtest.Loser(r), killtest.Sweeper(r)}
	}}.Run(t) // the program as it is passes
	killtest.Rounds{Command: child(t, "store"), Kills: 2, Actors: func(r *killtest.Round) []killtest.Actor {
		return []killtest.Actor{killtest.Purger(r)} // alone: it takes away where others move to
	}}.Run(t)
	tests := []struct {
		twin  string
		actor func(r *killtest.Round) killtest.Actor
	}{
		{"moves late", killtest.Seeker},
		{"claims kept", killtest.Detacher},
		{"purges late", killtest.Purger},
		{"retention late", killtest.Retainer},
		{"changes late", killtest.Keeper},
		{"probation forgotten", killtest.Updater},
		{"replays apart", killtest.Replayer},
		{"bases of now", killtest.Rewinder},
		{"positions late", killtest.Copier},
		{"store forgotten", killtest.Seeker},
		{"losses forgotten", killtest.Loser},
		{"topics late", killtest.Sweeper},
	}
	for _, tt := range tests {
		t.Run(tt.twin, func(t *testing.T) {
			if runtime.CrashTwins[tt.twin] == nil { // a program that does not begin would pass for one that is caught
				t.Fatal("there is no such twin")
			}
			s := killtest.Rounds{Command: child(t, "store, "+tt.twin), Kills: 4, Actors: func(r *killtest.Round) []killtest.Actor { return []killtest.Actor{tt.actor(r)} }}
			for n := range 60 { // "store forgotten" is wrong between a cut and the next catalog alone: a try in five finds it
				if found := killtest.Caught(t, func(tb testing.TB) { s.Run(tb) }); found != "" {
					t.Logf("caught within %d kills: %.300s", 4*(n+1), found)
					return
				}
			}
			t.Fatal("it was not caught")
		})
	}
}

// TestTwinDays: a program that writes the places of readers an epoch late is caught where days of the air example are read again.
func TestTwinDays(t *testing.T) {
	killtest.Days{Command: child(t, "serves"), Kills: 1}.Run(t) // as it is it passes
	for n := range 8 {
		found := killtest.Caught(t, func(tb testing.TB) { killtest.Days{Command: child(t, "serves, positions late"), Kills: 10}.Run(tb) })
		if strings.Contains(found, "read again: the file has") {
			t.Logf("caught within %d kills: %.300s", 10*(n+1), found)
			return
		}
		t.Logf("not yet: %q", found)
	}
	t.Fatal("it was not caught")
}

// TestTwinKillInCatchUp: a program that writes the places of readers an epoch late is caught by killtest.CatchUp.
func TestTwinKillInCatchUp(t *testing.T) {
	found := killtest.Caught(t, func(tb testing.TB) { killtest.CatchUp{Command: child(t, "store, positions late"), Kills: 10}.Run(tb) })
	if !strings.Contains(found, "records in the topic") {
		t.Fatalf("a program that writes places an epoch late was not caught: %s", found)
	}
	t.Logf("caught: %.300s", found)
}

// TestTwinGrows: a program that writes the positions of splits an epoch late is caught where files are rotated away and where a
// Kafka topic gets partitions.
func TestTwinGrows(t *testing.T) {
	for name, outside := range map[string]func(tb testing.TB, w *killtest.Work, rng *rand.Rand) killtest.Outside{
		"follow": killtest.Rotated, "discovery": killtest.Partitions,
	} {
		t.Run(name, func(t *testing.T) {
			killtest.Grows{Command: child(t, "store"), Kills: 1, Outside: outside}.Run(t) // as it is it passes
			found := killtest.Caught(t, func(tb testing.TB) {
				killtest.Grows{Command: child(t, "store, splits late"), Kills: 12, Outside: outside}.Run(tb)
			})
			if !strings.Contains(found, "too many") {
				t.Fatalf("it was not caught: %s", found)
			}
			t.Logf("caught: %.300s", found)
		})
	}
}
