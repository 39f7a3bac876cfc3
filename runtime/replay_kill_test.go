package runtime_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/runtime"
)

const (
	replayChild = "SIDESTREAM_TEST_REPLAY_CHILD" // makes this process one that replays in this data directory
	replayTwin  = "SIDESTREAM_TEST_REPLAY_TWIN"  // breaks it: position and state are set back in two frames
	replayTotal = 10_000
)

func init() {
	if data := os.Getenv(replayChild); data != "" {
		if err := runReplayChild(data); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
}

// runReplayChild counts, and then, if no process before has begun to, replays; it ends when all is done.
func runReplayChild(data string) error {
	rt, err := runtime.Open(runtime.Config{DataDir: data, EpochBytes: 4 << 10, SealedBytes: 4 << 10})
	if err != nil {
		return err
	}
	topic := jobs.BusTopic[int64]{Name: "numbers"}
	if os.Getenv(replayTwin) != "" {
		if err := runtime.WriteReplaysApart(rt); err != nil {
			return err
		}
	}
	if err := rt.Start([]*jobs.Job{writerJob("writer", newTap(replayTotal, replayTotal), topic), tallyJob(topic, 2)}); err != nil {
		return err
	}
	if err := rt.Wait(context.Background(), true); err != nil {
		return err
	}
	if _, err := os.Stat(begunFile(data)); errors.Is(err, fs.ErrNotExist) {
		if err := os.WriteFile(begunFile(data), nil, 0o600); err != nil {
			return err
		}
		if _, err := rt.Replay(context.Background(), "tally", "numbers", runtime.ReplayOptions{}); err != nil {
			return err
		}
		if err := rt.Wait(context.Background(), true); err != nil {
			return err
		}
	}
	return rt.Stop()
}

func begunFile(data string) string { return filepath.Join(data, "begun") }

// TestReplayKilled: a process is killed with -9 somewhere in a replay; behind the next one the job was not set back, or it gave
// each of its records again, once, with the header, and none without. REPLAY_KILLS says how often, REPLAY_SEED when.
func TestReplayKilled(t *testing.T) {
	kills, seed := 3, uint64(time.Now().UnixNano())
	if s := os.Getenv("REPLAY_KILLS"); s != "" {
		var err error
		if kills, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
	}
	if s := os.Getenv("REPLAY_SEED"); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("REPLAY_SEED=%d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	whole, none := 0, 0
	for range kills {
		once, again := killedReplay(t, time.Duration(r.IntN(40))*time.Millisecond)
		sameLines(t, "before", once, tallied(replayTotal, nil))
		if len(again) == 0 {
			none++
			continue
		}
		whole++
		sameLines(t, "again", again, tallied(replayTotal, nil))
	}
	t.Logf("%d replays were whole, %d absent", whole, none)
	if kills >= 20 && whole == 0 {
		t.Error("no kill left a replay to look at")
	}
}

// TestReplayKilledTwin: one that sets position and state back in two frames is caught.
func TestReplayKilledTwin(t *testing.T) {
	t.Setenv(replayTwin, "1")
	for range 20 {
		once, _ := killedReplay(t, 60*time.Millisecond)
		want := tallied(replayTotal, nil)
		slices.Sort(once)
		slices.Sort(want)
		if !slices.Equal(once, want) {
			return
		}
	}
	t.Error("the twin was not caught by 20 kills")
}

// killedChild runs this program as a child, which env makes of it, in a new data directory; kills it with -9 some time after it
// has begun what it is to do, and runs another to the end. It returns the directory.
func killedChild(t *testing.T, env string, after time.Duration) (data string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	data = t.TempDir()
	run := func() *exec.Cmd {
		c := exec.CommandContext(t.Context(), self)
		c.Env, c.Stderr = append(os.Environ(), env+"="+data), os.Stderr
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		return c
	}
	first := run()
	until(t, nil, "it begins", func() bool { _, err := os.Stat(begunFile(data)); return err == nil })
	time.Sleep(after)
	_ = first.Process.Kill() // it may have ended
	_ = first.Wait()
	if err := run().Wait(); err != nil {
		t.Fatal(err)
	}
	return data
}

// killedReplay kills a process some time after it has begun to replay, runs another to the end, and returns what the job gave
// out: without the header of a replay, and with it.
func killedReplay(t *testing.T, after time.Duration) (once, again []string) {
	t.Helper()
	data := killedChild(t, replayChild, after)
	off, err := runtime.OpenOffline(data)
	if err != nil {
		t.Fatal(err)
	}
	for _, rec := range tailed(t, off, runtime.Tail{Topic: "tallies", Partition: -1, Last: 1 << 20})[0] {
		if rec.Headers[runtime.ReplayHeader] != "" {
			again = append(again, string(rec.Value))
		} else {
			once = append(once, string(rec.Value))
		}
	}
	return once, again
}
