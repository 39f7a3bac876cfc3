package air_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/sidestream-dev/sidestream/internal/airdata"
	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/jobs/connector/all"
	"github.com/sidestream-dev/sidestream/jobs/spec"
	"github.com/sidestream-dev/sidestream/runtime"
)

// load reads the definitions in a folder of the example, with settings as their ${env:…}.
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

func TestDefinitionsLoad(t *testing.T) {
	load(t, "jobs", nil)
	load(t, "files", nil)
}

// TestFiles: the YAML jobs over files give what the reference program gives, at every parallelism. The sample always; all
// four years where they are.
func TestFiles(t *testing.T) {
	data := []airdata.Data{airdata.Sample(t)}
	if whole, ok := airdata.Whole(t); ok && !testing.Short() {
		data = append(data, whole)
	}
	for _, d := range data {
		want := airdata.Expect(t, d)
		for _, parallelism := range []int{1, 2, 4} {
			t.Run(fmt.Sprintf("data=%s,parallelism=%d", d.Name, parallelism), func(t *testing.T) {
				out := t.TempDir()
				defs := load(t, "files", map[string]string{"AIR_DATA": d.Dir, "AIR_OUT": out})
				for _, j := range defs {
					j.Parallelism = parallelism
				}
				began := time.Now()
				st := untilDone(t, runtime.Config{DataDir: t.TempDir()}, defs)
				t.Logf("done in %v", time.Since(began).Round(time.Millisecond))
				for _, p := range airdata.Pollutants {
					airdata.Compare(t, p, airdata.Lines(t, filepath.Join(out, p+".jsonl")), want.Windows[p])
				}
				airdata.Compare(t, "alerts", airdata.Lines(t, filepath.Join(out, "alerts.jsonl")), want.Alerts)
				checkDead(t, st, want)
			})
		}
	}
}

// checkDead compares what the jobs counted, and what lies in the topic, with the gaps in the data.
func checkDead(t *testing.T, st runtime.Status, want airdata.Expected) {
	t.Helper()
	all := 0
	for _, j := range st.Jobs {
		all += want.Dead[j.Name]
		if j.Counters.Rejected != int64(want.Dead[j.Name]) || j.Counters.Late != 0 {
			t.Errorf("%s: %d dead letters, want %d; %d came late, want none", j.Name, j.Counters.Rejected, want.Dead[j.Name], j.Counters.Late)
		}
	}
	for _, topic := range st.Topics {
		if topic.Name == "dead-letters" && int(topic.Partitions[0].Next) != all {
			t.Errorf("topic dead-letters has %d records, want %d", topic.Partitions[0].Next, all)
		}
	}
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
	if err := rt.Start(defs); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	if err := rt.Wait(ctx, true); err != nil {
		t.Fatal(err)
	}
	st := rt.Status()
	if ctx.Err() != nil {
		b, _ := json.MarshalIndent(st, "", " ")
		t.Fatalf("not done in time:\n%s", b)
	}
	if err := rt.Stop(); err != nil {
		t.Fatal(err)
	}
	return st
}
