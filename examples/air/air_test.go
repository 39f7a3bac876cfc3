package air_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sidestream-dev/sidestream/internal/airdata"
	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/jobs/connector/all"
	"github.com/sidestream-dev/sidestream/jobs/spec"
	"github.com/sidestream-dev/sidestream/runtime"
)

// runWait bounds a run of the six jobs over all four years on a busy machine.
const runWait = 5 * time.Minute

// load reads the definitions in a folder, with env as their ${env:…}.
func load(t *testing.T, dir string, env map[string]string) []*jobs.Job {
	t.Helper()
	defs, problems := spec.Load(spec.Config{Connectors: all.Registry(), Env: func(name string) (string, bool) {
		v, ok := env[name]
		return v, ok
	}}, dir)
	for _, p := range problems {
		t.Errorf("%s", p)
	}
	if len(defs) != 6 {
		t.Fatalf("%s: %d jobs, want 6", dir, len(defs))
	}
	return defs
}

// edited returns a folder with the definitions of dir, each pair of texts replaced; every pair must be found.
func edited(t *testing.T, dir string, pairs ...string) string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
	names = slices.DeleteFunc(names, spec.IsCaseFile)
	if err != nil || len(names) != 6 {
		t.Fatalf("%d definitions in %s: %v", len(names), dir, err)
	}
	to, found := t.TempDir(), map[string]bool{}
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; i < len(pairs); i += 2 {
			found[pairs[i]] = found[pairs[i]] || strings.Contains(string(b), pairs[i])
		}
		text := strings.NewReplacer(pairs...).Replace(string(b))
		if err := os.WriteFile(filepath.Join(to, filepath.Base(name)), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for i := 0; i < len(pairs); i += 2 {
		if !found[pairs[i]] {
			t.Fatalf("no definition in %s says %q", dir, pairs[i])
		}
	}
	return to
}

func TestDefinitionsLoad(t *testing.T) {
	load(t, "jobs", nil)
	load(t, "files", nil)
}

// TestFiles: the YAML jobs over files give what the reference program gives, at every parallelism; a second run on the same
// data directory finds nothing to do.
func TestFiles(t *testing.T) {
	d := airdata.Asked(t)
	want := airdata.Expect(t, d)
	for _, parallelism := range []int{1, 2, 4} {
		t.Run(fmt.Sprintf("data=%s,parallelism=%d", d.Name, parallelism), func(t *testing.T) {
			out, dir := t.TempDir(), t.TempDir()
			defs := load(t, "files", map[string]string{"SIDESTREAM_JOB_DATA": d.Dir, "SIDESTREAM_JOB_OUT": out})
			for _, j := range defs {
				j.Parallelism = parallelism
			}
			began := time.Now()
			st := untilDone(t, runtime.Config{DataDir: dir}, defs)
			t.Logf("done in %v", time.Since(began).Round(time.Millisecond))
			got := fromFiles(t, out)
			got.check(t, want)
			checkDead(t, st, want)
			checkNothingToDo(t, untilDone(t, runtime.Config{DataDir: dir}, defs))
			got.checkSame(t, fromFiles(t, out))
		})
	}
}

// written is what the six jobs wrote: lines by output.
type written map[string][]string

func collect(read func(name string) []string) written {
	w := written{"alerts": read("alerts")}
	for _, p := range airdata.Pollutants {
		w[p] = read(p)
	}
	return w
}

func fromFiles(t *testing.T, out string) written {
	t.Helper()
	return collect(func(name string) []string { return airdata.Lines(t, filepath.Join(out, name+".jsonl")) })
}

// check compares it with what must have been written.
func (w written) check(t *testing.T, want airdata.Expected) {
	t.Helper()
	for _, p := range airdata.Pollutants {
		airdata.Compare(t, p, w[p], want.Windows[p])
	}
	airdata.Compare(t, "alerts", w["alerts"], want.Alerts)
}

// checkSame checks that another run on the same data directory has changed nothing.
func (w written) checkSame(t *testing.T, again written) {
	t.Helper()
	for name, lines := range w {
		slices.Sort(lines)
		slices.Sort(again[name])
		if !slices.Equal(lines, again[name]) {
			t.Errorf("%s, run again: %d lines became %d", name, len(lines), len(again[name]))
		}
	}
}

// checkDead compares what the jobs counted, and what lies in the topic, with the gaps in the data.
func checkDead(t *testing.T, st runtime.Status, want airdata.Expected) {
	t.Helper()
	gaps := 0
	for _, j := range st.Jobs {
		gaps += want.Dead[j.Name]
		if j.Counters.Rejected != int64(want.Dead[j.Name]) || j.Counters.Late != 0 {
			t.Errorf("%s: %d dead letters, want %d; %d came late, want none", j.Name, j.Counters.Rejected, want.Dead[j.Name], j.Counters.Late)
		}
	}
	if gaps == 0 {
		t.Error("the data has no gaps")
	}
	found := false
	for _, topic := range st.Topics {
		if topic.Name != "dead-letters" {
			continue
		}
		found = true
		if int(topic.Partitions[0].Next) != gaps {
			t.Errorf("topic dead-letters has %d records, want %d", topic.Partitions[0].Next, gaps)
		}
	}
	if !found {
		t.Error("there is no topic dead-letters")
	}
}

// checkNothingToDo checks that no job of a run has read or written anything.
func checkNothingToDo(t *testing.T, st runtime.Status) {
	t.Helper()
	for _, j := range st.Jobs {
		if j.Counters.In != 0 || j.Counters.Out != 0 || j.State != runtime.StateEnded {
			t.Errorf("%s, run again: %v, %d records in, %d out; want it ended, with nothing to do", j.Name, j.State, j.Counters.In, j.Counters.Out)
		}
		for _, o := range j.Outputs {
			if o.Sent != 0 {
				t.Errorf("%s, run again: output %s sent %d records", j.Name, o.Name, o.Sent)
			}
		}
	}
}

// TestDeadLetters: each gap arrives, with its origin and the reason, for whoever reads the topic.
func TestDeadLetters(t *testing.T) {
	d := airdata.Sample(t)
	want := airdata.Expect(t, d)
	out := t.TempDir()
	defs := load(t, "files", map[string]string{"SIDESTREAM_JOB_DATA": d.Dir, "SIDESTREAM_JOB_OUT": out})
	graves, problems := spec.LoadBytes(spec.Config{Connectors: all.Registry()}, "graves.yaml", []byte(`
version: 1
job: graves
source: {bus: dead-letters}
steps:
  - map: {station: value.station, ts: value.ts, gap: value.value, headers: headers}
outputs:
  main: {file: {path: "`+out+`/graves.jsonl", format: jsonl}}
`))
	for _, p := range problems {
		t.Fatal(p)
	}
	untilDone(t, runtime.Config{DataDir: t.TempDir()}, append(defs, graves...))
	lines, gaps := airdata.Lines(t, filepath.Join(out, "graves.jsonl")), 0
	for _, n := range want.Dead {
		gaps += n
	}
	if len(lines) != gaps {
		t.Errorf("%d dead letters, want %d", len(lines), gaps)
	}
	for _, l := range lines {
		var v struct {
			Station string
			TS      int64
			Gap     string
			Headers map[string]string
		}
		if err := json.Unmarshal([]byte(l), &v); err != nil {
			t.Fatalf("%s: %v", l, err)
		}
		h := v.Headers
		if v.Station == "" || v.TS == 0 || v.Gap != "NA" || !strings.Contains(h["error"], "mean takes a number") ||
			h["step"] != "window-1" || !strings.Contains(h["origin"], v.Station+".jsonl") {
			t.Fatalf("dead letter %s", l)
		}
	}
	t.Logf("%d dead letters, such as %s", len(lines), lines[0])
}

// untilDone runs defs until all is committed and sent, and returns how everything stood then.
func untilDone(t *testing.T, cfg runtime.Config, defs []*jobs.Job) runtime.Status {
	t.Helper()
	if os.Getenv("AIR_LOG") != "" {
		cfg.Logger = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	rt, err := runtime.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := rt.Stop(); err != nil {
			t.Error(err)
		}
	}()
	if err := rt.Start(defs); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), runWait)
	defer cancel()
	err = rt.Wait(ctx, true)
	st := rt.Status()
	if err != nil || ctx.Err() != nil {
		b, _ := json.MarshalIndent(st, "", " ")
		t.Fatalf("not done (%v, %v):\n%s", err, ctx.Err(), b)
	}
	return st
}
