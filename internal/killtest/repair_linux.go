package killtest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sidestream-dev/sidestream/runtime"
	"github.com/sidestream-dev/sidestream/wal"
)

// Repairs damages the log of a program that was killed, kills its repair at one fsync or another, with what was not fsynced
// lost or spoiled, lets repairs come to their end and the program go on, several times over: a repair that was killed keeps
// just what one keeps that nobody disturbed, no offset ever names two things, and where only the log's end was given up
// every number is there once.
type Repairs struct {
	Command func(w *Work) *exec.Cmd // runs until all is done
	Repair  func(w *Work) *exec.Cmd // repairs the log, or finishes a repair
	Kills   int
	Broken  bool // fsyncs of a repair do nothing
}

// RepairReal returns the command that repairs the log of a Work with the real program.
func RepairReal(tb testing.TB) func(w *Work) *exec.Cmd {
	run := Sidestream(tb)
	return func(w *Work) *exec.Cmd {
		c := run(w)
		c.Args = []string{c.Path, "wal", "repair", "--write", "--data-dir", w.Dir, "-o", "json"}
		return c
	}
}

const (
	repairRounds  = 4
	repairNumbers = 8000
)

// repairWork is a history of runs and repairs.
type repairWork struct {
	Repairs
	tb      testing.TB
	rng     *rand.Rand
	w       *Work
	run     int
	seen    map[string]string // what each topic and offset has ever named; one that is made again is another topic
	kills   int
	written int // repairs that had something to do
}

// Run is the suite. What is wrong is the test's failure.
func (s Repairs) Run(tb testing.TB) {
	tb.Helper()
	rng := Seeded(tb)
	kills, written, histories := 0, 0, 0
	for ; kills < s.Kills && histories < 10*s.Kills; histories++ {
		dir := tb.TempDir()
		h := &repairWork{Repairs: s, tb: tb, rng: rng, seen: map[string]string{},
			w: &Work{Jobs: filepath.Join(dir, "jobs"), Dir: filepath.Join(dir, "data"), Out: dir}}
		if err := os.Mkdir(h.w.Jobs, 0o700); err != nil {
			tb.Fatal(err)
		}
		for range repairRounds {
			h.round()
		}
		h.end()
		kills, written = kills+h.kills, written+h.written
	}
	if kills < s.Kills {
		tb.Fatalf("%d histories had %d repairs to kill", histories, kills)
	}
	tb.Logf("%d histories, %d repairs, %d kills in the middle of one", histories, written, kills)
}

// define writes the definitions of the next run: what a reader gives out says which run it was.
func (h *repairWork) define() {
	h.run++
	text := strings.Replace(writer, "rate: 2000", fmt.Sprintf("count: %d", repairNumbers), 1) + "---\n" + reader("reads", h.run)
	if err := os.WriteFile(filepath.Join(h.w.Jobs, "jobs.yaml"), []byte(text), 0o600); err != nil {
		h.tb.Fatal(err)
	}
}

// round runs the program, kills it, damages its log and repairs that.
func (h *repairWork) round() {
	tb := h.tb
	tb.Helper()
	h.define()
	if _, err := runOnce(h.Command(h.w), nil, h.w, &Moment{After: runMax, Bytes: 50_000 + h.rng.Int64N(800_000)}); err != nil {
		tb.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(h.w.Dir, "wal")); err != nil {
		return // it was killed before there was a log
	}
	h.look(h.w)
	whole := h.id(h.w)
	undo := h.damage()
	calm := &Work{Jobs: h.w.Jobs, Dir: h.w.Dir + "-calm", Out: h.w.Out}
	defer os.RemoveAll(calm.Dir)                                        // in the test's folder
	if err := os.RemoveAll(filepath.Join(h.w.Dir, "run")); err != nil { // sockets
		tb.Fatal(err)
	}
	if err := os.CopyFS(calm.Dir, os.DirFS(h.w.Dir)); err != nil {
		tb.Fatal(err)
	}
	disk := &Disk{Dirs: []string{calm.Dir}}
	disk.settle(tb)
	before := h.id(calm)
	if _, err := runOnce(disk.over(h.Repair)(calm), disk, calm, nil); err != nil {
		// What it rightly refuses: a log damaged in its first frames, or before all snapshots that its end needs.
		if !strings.Contains(err.Error(), "nothing can be kept") && !strings.Contains(err.Error(), "the state of jobs would be lost") {
			tb.Fatalf("a repair: %v", err)
		}
		undo()
		return
	}
	if h.id(calm) == before { // it cannot be told from a tear
		undo()
		return
	}
	_, fsyncs := disk.Lost()
	h.written++
	h.killed(fsyncs)
	if id := h.id(h.w); id == "" || id == whole {
		tb.Fatal("a repair that was killed has not given the log another id")
	}
	kept, want := h.look(h.w), h.look(calm)
	if !maps.Equal(kept, want) {
		tb.Fatalf("a repair that was killed keeps %d records, and one that was not %d", len(kept), len(want))
	}
}

// killed repairs the log and kills that once or twice, each time at one of its fsyncs.
func (h *repairWork) killed(fsyncs int) {
	tb := h.tb
	tb.Helper()
	for range 1 + h.rng.IntN(2) {
		at, n := 1+h.rng.IntN(max(1, fsyncs)), 0
		disk := &Disk{Dirs: []string{h.w.Dir}, Broken: h.Broken}
		cmd := disk.over(h.Repair)(h.w)
		disk.Fail = func(string) unix.Errno {
			if n++; n != at {
				return 0
			}
			_ = cmd.Process.Kill() // it is ours
			return unix.EIO        // this one is not done
		}
		disk.settle(tb)
		if _, err := runOnce(cmd, disk, h.w, nil); err == nil {
			continue // what a kill has left is done with fewer
		} else if n < at {
			tb.Fatalf("a repair behind a kill: %v", err)
		}
		disk.Fail = nil
		disk.cut(tb, h.rng)
		h.kills++
	}
	if _, err := runOnce(h.Repair(h.w), nil, h.w, nil); err != nil {
		tb.Fatalf("a repair behind a kill: %v", err)
	}
}

// id is the log's, "" where it cannot be read.
func (h *repairWork) id(w *Work) string {
	d, err := wal.Info(filepath.Join(w.Dir, "wal"))
	if err != nil {
		return ""
	}
	return d.ID.String()
}

// look reads all topics, and sees that what was seen before is what it was.
func (h *repairWork) look(w *Work) map[string]string {
	h.tb.Helper()
	o, err := runtime.OpenOffline(w.Dir)
	if err != nil {
		h.tb.Fatalf("the data directory: %v", err)
	}
	is := map[string]string{}
	for _, t := range o.Topics() {
		first := t.Partitions[0].First
		if first == t.Partitions[0].Next {
			continue
		}
		err := o.Tail(context.Background(), runtime.Tail{Topic: t.Name, Partition: 0, From: &first}, func(r runtime.TopicRecord) error {
			is[fmt.Sprintf("%s#%d@%s", t.Name, t.ID, r.Offset)] = string(r.Value)
			return nil
		})
		if err != nil {
			h.tb.Fatalf("topic %s: %v", t.Name, err)
		}
	}
	for name, value := range is {
		if was, ok := h.seen[name]; ok && was != value {
			h.tb.Fatalf("run %d: %s was %s and is %s", h.run, name, was, value)
		}
		h.seen[name] = value
	}
	return is
}

// damage flips a bit of the log.
func (h *repairWork) damage() (undo func()) {
	tb := h.tb
	tb.Helper()
	segments, err := filepath.Glob(filepath.Join(h.w.Dir, "wal", "0*", "0*"))
	segments = slices.DeleteFunc(segments, func(path string) bool { // one that was just begun has nothing to damage
		info, err := os.Stat(path)
		return err != nil || info.Size() == 0
	})
	if err != nil || len(segments) == 0 {
		tb.Fatal(segments, err)
	}
	path := segments[h.rng.IntN(len(segments))]
	b, err := os.ReadFile(path)
	if err != nil || len(b) == 0 {
		tb.Fatalf("%s has %d bytes: %v", path, len(b), err)
	}
	c := bytes.Clone(b)
	c[h.rng.IntN(len(c))] ^= 1 << h.rng.IntN(8)
	if err := os.WriteFile(path, c, 0o600); err != nil {
		tb.Fatal(err)
	}
	return func() {
		if err := os.WriteFile(path, b, 0o600); err != nil {
			tb.Fatal(err)
		}
	}
}

// end lets the program come to its end: every number is in the topic once, and was read once.
func (h *repairWork) end() {
	tb := h.tb
	tb.Helper()
	h.define()
	if _, err := runOnce(h.Command(h.w), nil, h.w, nil); err != nil {
		tb.Fatal(err)
	}
	numbers, read := map[int]int{}, map[int]int{}
	for name, value := range h.look(h.w) {
		var v struct{ Seq, O int }
		if err := json.Unmarshal([]byte(value), &v); err != nil {
			tb.Fatal(err)
		}
		switch topic, _, _ := strings.Cut(name, "#"); topic {
		case numbersTopic:
			numbers[v.Seq]++
		case "path-reads":
			read[v.O]++
		}
	}
	for n := range repairNumbers {
		if numbers[n] != 1 {
			tb.Fatalf("number %d is there %d times", n, numbers[n])
		}
	}
	for at, n := range read {
		if n != 1 {
			tb.Fatalf("the record at %d was read %d times", at, n)
		}
	}
	if len(read) != repairNumbers {
		tb.Fatalf("%d of %d records were read", len(read), repairNumbers)
	}
}

// RunSmall is Sidestream with small epochs, so that a log has many frames.
func RunSmall(tb testing.TB) func(w *Work) *exec.Cmd {
	run := Sidestream(tb)
	return func(w *Work) *exec.Cmd {
		c := run(w)
		c.Args = append(c.Args, "--epoch-bytes", "16KiB", "--sealed-bytes", "64KiB")
		return c
	}
}
