package runtime

import (
	"fmt"
	"os"
	goruntime "runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

func report(v *violation, trace []string) string {
	const tail = 150
	if len(trace) > tail {
		trace = append([]string{fmt.Sprintf("… %d lines", len(trace)-tail)}, trace[len(trace)-tail:]...)
	}
	return v.Error() + "\n" + strings.Join(trace, "\n")
}

// simEnv reads a number from the environment.
func simEnv(t *testing.T, name string, def uint64) uint64 {
	text := os.Getenv(name)
	if text == "" {
		return def
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("%s is %q: want a number", name, text)
	}
	return n
}

// explain runs a seed again with a trace.
func explain(seed uint64, twin simTwin, v *violation) string {
	var trace []string
	if again := runSim(seed, twin, &trace); again == nil || *again != *v {
		trace = append(trace, fmt.Sprintf("the second run of the seed found something else: %v", again))
	}
	return fmt.Sprintf("seed %d (SIM_SEED=%d runs it again): %s", seed, seed, report(v, trace))
}

// What the simulator holds the code to, by the rules of the design:
//
//	R1, R3     no effect without its cause: what an epoch holds is what the records made that its positions passed, and those
//	           stand before it (model.applyEpoch, model.fold)
//	R3, R4     position and state agree: what is recovered from every prefix of the log is what the positions make it
//	           (sim.checkPrefix, model.sameState), snapshots are exact by themselves (sim.snapshotsAt)
//	R5         an offset or LSN names one thing: offsets are dense over crashes (model.records), and readers find at each what
//	           was written there (sim.readOn)
//	R2, R4     nothing leaves before it is durable, nothing is missing outside, and what is sent again was sent since the
//	           sender's last durable position (simWriter.Write)
//	R6         nothing goes that a subscription, a sender or a state has not durably passed (sim.dropped), and every reader can
//	           read on (sim.checkReaders)
//	           or that a topic dropped for it by a frame before, no more than its limit asks for, and counted (model.applyDrops, read)
//	R4         of an output that is given up all is sent or dropped, never both, and dropped only where that is allowed and no outside
//	           takes it; what comes back goes on behind that (model.drop, applySent, simWriter.Write)
//	place      where an output goes is nobody else's for as long as it may come back (model.outputs, simSink.Open, sim.takePlace)
//	watermark  none goes back, what a producer promises is kept, no window fires twice (model.applyMark, records, foldWindows)

// TestSim runs SIM_SEEDS seeds, or the one in SIM_SEED with a trace.
func TestSim(t *testing.T) {
	if os.Getenv("SIM_SEED") != "" {
		seed := simEnv(t, "SIM_SEED", 0)
		var trace []string
		v := runSim(seed, simTwin{}, &trace)
		t.Logf("seed %d: %d lines\n%s", seed, len(trace), strings.Join(trace, "\n"))
		if v != nil {
			t.Fatalf("seed %d: %v", seed, v)
		}
		return
	}
	n, first := simEnv(t, "SIM_SEEDS", 200), simEnv(t, "SIM_FIRST", 1)
	defer debug.SetGCPercent(debug.SetGCPercent(800)) // a seed's heap is small
	var next atomic.Uint64
	var wg sync.WaitGroup
	var failed atomic.Int32
	var mu sync.Mutex
	counts := map[string]int{}
	before := goruntime.NumGoroutine()
	for range goruntime.GOMAXPROCS(0) {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for failed.Load() < 3 {
				seed := first + next.Add(1) - 1
				if seed >= first+n {
					return
				}
				s := newSim(seed, simTwin{}, nil)
				if s.run(); s.found != nil {
					failed.Add(1)
					t.Error(explain(seed, simTwin{}, s.found))
				}
				mu.Lock()
				for what, k := range s.counts {
					counts[what] += k
				}
				mu.Unlock()
			}
		}()
	}
	wg.Wait()
	if left := goruntime.NumGoroutine() - before; left > 10 { // each holds the memory of its seed
		t.Errorf("%d tasks of the seeds are left", left)
	}
	wanted := simHappenings
	if n >= 2000 {
		wanted = append(slices.Clone(wanted), simRare...)
	}
	for _, what := range wanted {
		if counts[what] == 0 && n >= 200 {
			t.Errorf("no seed brought about %q", what)
		}
	}
	t.Logf("%d seeds: %v", n, counts)
}

// TestSimRepeats says that a seed does the same every time.
func TestSimRepeats(t *testing.T) {
	for seed := uint64(1); seed <= simEnv(t, "SIM_REPEATS", 20); seed++ {
		var first, second []string
		runSim(seed, simTwin{}, &first)
		runSim(seed, simTwin{}, &second)
		if !slices.Equal(first, second) {
			i := 0
			for i < min(len(first), len(second)) && first[i] == second[i] {
				i++
			}
			t.Fatalf("seed %d differs in line %d:\n%s\nand\n%s", seed, i, first[min(i, len(first)-1)], second[min(i, len(second)-1)])
		}
	}
}

// simHappenings must come about in any two hundred seeds; a simulator in which they do not proves little.
var simHappenings = []string{"crashes", "restarts", "attempts", "prefixes checked", "frames: part", "frames: epoch", "frames: control", "frames: catalog", "frames: catalog-part", "catalogs cut in half",
	"frames read by a job that lags behind", "generations dropped", "snapshots read", "snapshots checked", "snapshots damaged", "late records", "windows",
	"drops of the oldest", "ranges lost by a reader",
	"records sent again", "partitions stored", "partitions let go by the store", "snapshots of jobs that do not run", "jobs held back by a full topic",
	"seals refused for want of room", "steps behind the end of an attempt", "producers that joined later", "replays over",
	"definitions taken back", "state dropped", "begun with a savepoint", "changes: pause", "changes: resume", "changes: restart", "changes: stop",
	"changes: " + opAdd, "changes: " + opUpdate, "changes: " + opLose, "changes: " + opRefused, "changes: " + opDrop, "changes: " + opRemove,
	"changes: " + opCopy, "copies done", "records copied", "changes: " + opDropRest, "savepoints checked",
	"changes: " + opKeep, "changes: " + opSavepoint, "changes: " + opSeek, "changes: " + opDetach, "changes: " + opReplay, "changes: " + opReplayTo,
	"changes: " + opTopic, "changes: " + opTopicUsed}

// simRare must come about in any two thousand.
var simRare = []string{"state brought back", "definitions taken back behind an epoch", "changes: " + opBegin, "changes: " + opForget, "changes: " + opReplaySP,
	"topics removed from the store", "outputs given up that are yet to be sent", "records of outputs dropped", "changes: " + opDropEarlier, "changes: " + opTaken}
