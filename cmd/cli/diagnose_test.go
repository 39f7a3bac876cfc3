package cli

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sidestream-dev/sidestream/bus"
	"github.com/sidestream-dev/sidestream/runtime"
	"github.com/sidestream-dev/sidestream/wal"
)

// TestDiagnose: who waits for whom and why, and what to do; a command to type is one that there is.
func TestDiagnose(t *testing.T) {
	a := &app{name: "sidestream"}
	job := func(j runtime.JobStatus) runtime.Status { return runtime.Status{Jobs: []runtime.JobStatus{j}} }
	topic := func(s bus.TopicStat) runtime.Status { return runtime.Status{Topics: []bus.TopicStat{s}} }
	pinned := func(p runtime.LogPin) runtime.Status {
		return runtime.Status{Log: runtime.LogStatus{Bytes: 2048, Max: 1024, Pins: []runtime.LogPin{p}}}
	}
	readers := []bus.SubStat{{Name: "fast/bus-1", Unread: 10}, {Name: "slow/bus-1", Unread: 900}}
	tests := []struct {
		name   string
		st     runtime.Status
		status string
		want   []string // in what is said and what is to be done, together
	}{
		{"at work", job(runtime.JobStatus{Name: "a", State: runtime.StateRunning}), isOK, nil},
		{"ended", job(runtime.JobStatus{Name: "a", State: runtime.StateEnded}), isOK, nil},
		{"failed", job(runtime.JobStatus{Name: "a", State: runtime.StateFailed, Error: "no such column"}), isFail, []string{"job a", "failed: no such column"}},
		{"restarting", job(runtime.JobStatus{Name: "a", State: runtime.StateRestarting, Error: "away", Restarts: 1}), isWarn, []string{"1 restart so far", "away"}},
		{"stopped", job(runtime.JobStatus{Name: "a", State: runtime.StateStopped}), isWarn, []string{"stopped"}},
		{"paused", job(runtime.JobStatus{Name: "a", State: runtime.StatePaused}), isWarn, []string{"paused"}},
		{"waits for whom", job(runtime.JobStatus{Name: "a", State: runtime.StateWaiting, Waiting: []runtime.Wait{{For: runtime.WaitWatermark, Topic: "t", Jobs: []string{"b"}, Text: "the watermark of topic t, which b holds back"}}}), isWarn, []string{"job a", "which b holds back"}},
		{"no room", job(runtime.JobStatus{Name: "a", State: runtime.StateWaiting, Waiting: []runtime.Wait{{For: runtime.WaitDisk, Text: "room on the disk"}}}), isWarn, []string{"free space"}},
		{"nobody writes", job(runtime.JobStatus{Name: "a", State: runtime.StateWaiting, Waiting: []runtime.Wait{{For: runtime.WaitWriter, Topic: "t", Text: "topic t, which no job writes"}}}), isWarn, []string{"start a job that writes it"}},
		{"stuck", job(runtime.JobStatus{Name: "a", State: runtime.StateRunning, Stuck: []string{"map has not returned for 7s"}}), isWarn, []string{"is stuck: map"}},
		{"records were dropped as late", job(runtime.JobStatus{Name: "a", State: runtime.StateRunning, Counters: runtime.JobCounters{Work: runtime.Work{Late: 9, LateDropped: 7}}}), isWarn, []string{"7 records were late and dropped", "late_to"}},
		{"late records went to late_to", job(runtime.JobStatus{Name: "a", State: runtime.StateRunning, Counters: runtime.JobCounters{Work: runtime.Work{Late: 9}}}), isOK, nil},
		{"an output is stopped", job(runtime.JobStatus{Name: "a", State: runtime.StateRunning, Outputs: []runtime.OutputStatus{{Name: "main", Unsent: 7, Stopped: true, Error: "the file is shorter"}}}), isFail, []string{"output main is stopped, with 7 unsent: the file is shorter"}},
		{"an output waits", job(runtime.JobStatus{Name: "a", State: runtime.StateRunning, Outputs: []runtime.OutputStatus{{Name: "main", Unsent: 7, Waiting: "its broker"}}}), isWarn, []string{"output main waits for its broker"}},
		{"no definition", runtime.Status{Missing: []string{"old"}}, isWarn, []string{"job old", "start the process with its file too", "sidestream job remove old"}},
		{"a topic has room", topic(bus.TopicStat{Name: "t", Limit: 1200, Subscriptions: readers}), isOK, nil},
		{"a topic is nearly full", topic(bus.TopicStat{Name: "t", Limit: 1000, Subscriptions: readers}), isWarn, []string{"topic t", "90 %", "slow/bus-1", "let job slow catch up"}},
		{"a topic is full", topic(bus.TopicStat{Name: "t", Limit: 900, Full: true, Subscriptions: readers}), isFail, []string{"full: 900B", "slow/bus-1", "who writes it waits"}},
		{"a topic drops the oldest", topic(bus.TopicStat{Name: "t", Limit: 1000, OnFull: bus.DropOldest, Subscriptions: []bus.SubStat{{Name: "slow/bus-1", Unread: 900, Dropped: 5, Dropping: 2}}}),
			isWarn, []string{"topic t", "slow/bus-1", "90 %", "5 records were lost", "let job slow catch up"}},
		{"a topic is full, and its reader is not at work", runtime.Status{Topics: []bus.TopicStat{{Name: "t", Limit: 900, Full: true, Subscriptions: readers}},
			Jobs: []runtime.JobStatus{{Name: "slow", State: runtime.StateEnded}}}, isFail, []string{"bring job slow back to work, which is ended"}},
		{"waits for room", job(runtime.JobStatus{Name: "a", State: runtime.StateWaiting, Waiting: []runtime.Wait{{For: runtime.WaitRoom, Topic: "t", Jobs: []string{"slow"}, Text: "room in topic t, which is full"}}}), isWarn, []string{": waits for room in topic t, which is full"}},
		{"waits for one that is paused", runtime.Status{Jobs: []runtime.JobStatus{{Name: "a", State: runtime.StateWaiting, Waiting: []runtime.Wait{{For: runtime.WaitWatermark, Jobs: []string{"b"}, Text: "b"}}},
			{Name: "b", State: runtime.StatePaused}}}, isWarn, []string{"job "}},
		{"taken back", job(runtime.JobStatus{Name: "a", State: runtime.StateRunning, RolledBack: &runtime.RolledBack{Error: "no such field"}}), isWarn, []string{"the one before is back: no such field", "job apply"}},
		{"a reader keeps the log", pinned(runtime.LogPin{Who: "subscription slow/bus-1", LSN: 7, Topic: "t", Job: "slow"}), isWarn, []string{"log: 2KiB", "log_max_bytes is 1KiB", "slow/bus-1", "frame 7", "bus seek slow t --to latest"}},
		{"retention keeps the log", pinned(runtime.LogPin{Who: "retention of topic t", LSN: 7, Topic: "t"}), isWarn, []string{"bus retention t"}},
		{"state keeps the log", pinned(runtime.LogPin{Who: "state of job a", LSN: 7, Job: "a"}), isWarn, []string{"job get a"}},
		{"an output's own topic is none", topic(bus.TopicStat{Name: "a/main", Hidden: true, Limit: 900, Full: true, Subscriptions: readers}), isOK, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			fs := a.diagnose(tt.st)
			if got := worst(fs); got != tt.status || len(fs) > max(1, len(tt.st.Jobs)) {
				t.Errorf("%s of %v, want %s", got, fs, tt.status)
			}
			for _, f := range fs {
				for _, part := range tt.want {
					if said := f.Check + ": " + f.What + "; " + f.Do; !strings.Contains(said, part) {
						t.Errorf("%q lacks %q", said, part)
					}
				}
				if f.Check == "job a" && len(tt.st.Jobs) > 1 && !strings.Contains(f.Do, "job resume b") {
					t.Errorf("%v does not say how who is waited for goes on", f)
				}
				if rest, is := strings.CutPrefix(f.Do, a.called()+" "); is {
					if c, _, err := a.tree().Find(strings.Fields(rest)); err != nil || c.Annotations[runs] == "" {
						t.Errorf("%q is no command", f.Do)
					}
				}
			}
		})
	}
}

// TestDoctorsClock: a clock that has gone back behind the log is said.
func TestDoctorsClock(t *testing.T) {
	t.Chdir(t.TempDir())
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	if err := os.MkdirAll("d/wal/1", 0o700); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join("d", "wal", "1", "1")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for ahead, want := range map[time.Duration]string{-time.Hour: isOK, 2 * time.Hour: isWarn} {
		at := time.Now().Add(ahead)
		if err := os.Chtimes(file, at, at); err != nil {
			t.Fatal(err)
		}
		d := &doctor{app: &app{name: "sidestream", stdout: &bytes.Buffer{}}}
		d.clock("d")
		if len(d.found) != 1 || d.found[0].Status != want {
			t.Errorf("the log is %v ahead: %v, want %s", ahead, d.found, want)
		}
	}
}

// TestMend: what is to be typed has the name that the program was called by, and a directory that a shell takes for one word.
func TestMend(t *testing.T) {
	for dir, want := range map[string]string{"d/e": "`mine wal repair --data-dir d/e --write`", "a b'c": `--data-dir 'a b'\''c'`} {
		a := &app{name: "mine"}
		if got := strings.ReplaceAll(a.mend(wal.ErrUnfinishedRepair, dir).Error(), a.called(), "mine"); !strings.Contains(got, want) {
			t.Errorf("%s: %s; want %s", dir, got, want)
		}
	}
}
