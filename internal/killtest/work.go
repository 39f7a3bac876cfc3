package killtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/sidestream-dev/sidestream/bus"
	"github.com/sidestream-dev/sidestream/internal/airdata"
	"github.com/sidestream-dev/sidestream/runtime"
)

// Variant is how the jobs send their outputs.
type Variant string

const (
	ExactlyOnce Variant = "exactly_once"
	AtLeastOnce Variant = "at_least_once"
)

// Work is where one campaign happens.
type Work struct {
	Variant Variant
	Data    airdata.Data // what the jobs read
	Jobs    string       // folder of the six definitions
	Dir     string       // the data directory
	Out     string       // folder of the output files

	Settings []string // SIDESTREAM_… of the program
}

// topics on the bus that the jobs write.
var topics = [...]string{"exceedances", "dead-letters"}

// NewWork prepares the six jobs of examples/air over files.
func NewWork(tb testing.TB, data airdata.Data, v Variant) *Work {
	tb.Helper()
	dir := tb.TempDir()
	w := &Work{Variant: v, Data: data, Jobs: filepath.Join(dir, "jobs"), Dir: filepath.Join(dir, "data"), Out: filepath.Join(dir, "out")}
	for _, d := range []string{w.Jobs, w.Dir, w.Out} {
		if err := os.Mkdir(d, 0o700); err != nil {
			tb.Fatal(err)
		}
	}
	names, err := filepath.Glob(filepath.Join(root(tb), "examples/air/files/*.yaml"))
	if err != nil || len(names) != 6 {
		tb.Fatalf("%d definitions: %v", len(names), err)
	}
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			tb.Fatal(err)
		}
		if !bytes.Contains(b, []byte("delivery: "+ExactlyOnce)) {
			tb.Fatalf("%s does not say delivery: %s", name, ExactlyOnce)
		}
		b = bytes.Replace(b, []byte("delivery: "+ExactlyOnce), []byte("delivery: "+v), 1)
		if err := os.WriteFile(filepath.Join(w.Jobs, filepath.Base(name)), b, 0o600); err != nil {
			tb.Fatal(err)
		}
	}
	return w
}

// Outputs names the output files of the jobs, without folder and ending; each is that of the job's output "main".
func (w *Work) Outputs() []string { return append(slices.Clone(airdata.Pollutants[:]), "alerts") }

// OutputPath returns the path of an output file.
func (w *Work) OutputPath(job string) string { return filepath.Join(w.Out, job+".jsonl") }

// Env is what the definitions take from the environment.
func (w *Work) Env() []string {
	return append(append(os.Environ(), "SIDESTREAM_JOB_DATA="+w.Data.Dir, "SIDESTREAM_JOB_OUT="+w.Out), w.Settings...)
}

// Left is what a run has left: lines of the output files and records of the topics, each sorted.
type Left map[string][]string

// Left reads it. What does not hold by itself is an error: torn lines, offsets that are not dense.
func (w *Work) Left(tb testing.TB) Left {
	tb.Helper()
	left := Left{}
	for _, job := range w.Outputs() {
		left["file "+job] = airdata.Lines(tb, w.OutputPath(job))
	}
	o, err := runtime.OpenOffline(w.Dir)
	if err != nil {
		tb.Errorf("the data directory: %v", err)
		return left
	}
	for _, topic := range topics {
		lines, err := records(o, topic)
		if err != nil {
			tb.Errorf("topic %s: %v", topic, err)
		}
		left["topic "+topic] = lines
	}
	for _, lines := range left {
		slices.Sort(lines)
	}
	return left
}

// records reads a whole topic from the log.
func records(o *runtime.Offline, topic string) (lines []string, err error) {
	first := bus.Offset(0)
	next := map[int]bus.Offset{}
	err = o.Tail(context.Background(), runtime.Tail{Topic: topic, Partition: -1, From: &first}, func(r runtime.TopicRecord) error {
		if r.Offset != next[r.Partition] {
			return fmt.Errorf("partition %d: offset %s where %s is due", r.Partition, r.Offset, next[r.Partition])
		}
		next[r.Partition]++
		line := fmt.Sprintf("%d %s %s", r.Partition, r.Key, r.Value)
		if r.Time != nil {
			line += " " + r.Time.String()
		}
		for _, name := range slices.Sorted(maps.Keys(r.Headers)) {
			line += " " + name + "=" + r.Headers[name]
		}
		lines = append(lines, line)
		return nil
	})
	if err == nil {
		for _, t := range o.Topics() {
			for p, st := range t.Partitions {
				if t.Name == topic && st.Next != next[p] {
					err = fmt.Errorf("partition %d has %d records; its next offset is %s", p, next[p], st.Next)
				}
			}
		}
	}
	return lines, err
}

// Check compares what w has left with what an undisturbed run left, which must be the same multisets, and the files with the
// reference program. repeats says, for at_least_once, what is there more often: by output, line → how many times more.
func (w *Work) Check(tb testing.TB, undisturbed Left, want airdata.Expected, repeats map[string]map[string]int) {
	tb.Helper()
	left := w.Left(tb)
	for _, job := range w.Outputs() {
		reference := want.Alerts
		if job != "alerts" {
			reference = want.Windows[job]
		}
		airdata.Compare(tb, job, left["file "+job], with(reference, repeats[job]))
	}
	for name, lines := range undisturbed {
		job, _ := strings.CutPrefix(name, "file ")
		if d := difference(left[name], with(lines, repeats[job])); d != "" {
			tb.Errorf("%s: %s", name, d)
		}
	}
}

// with returns lines and their repeats, sorted.
func with(lines []string, repeats map[string]int) []string {
	out := slices.Clone(lines)
	for line, n := range repeats {
		for range n {
			out = append(out, line)
		}
	}
	slices.Sort(out)
	return out
}

// difference compares sorted multisets; "" says that they are the same.
func difference(got, want []string) string {
	var missing, extra []string
	for i, k := 0, 0; i < len(got) || k < len(want); {
		switch {
		case k == len(want) || i < len(got) && got[i] < want[k]:
			extra = append(extra, got[i])
			i++
		case i == len(got) || got[i] > want[k]:
			missing = append(missing, want[k])
			k++
		default:
			i, k = i+1, k+1
		}
	}
	if len(missing)+len(extra) == 0 {
		return ""
	}
	return fmt.Sprintf("%d lines, want %d; %d are missing, such as %q; %d are too many, such as %q", len(got), len(want),
		len(missing), missing[:min(2, len(missing))], len(extra), extra[:min(2, len(extra))])
}

// Times returns data in which every station stands n times, under names of their own.
func Times(tb testing.TB, d airdata.Data, n int) airdata.Data {
	tb.Helper()
	dir := tb.TempDir()
	paths, err := filepath.Glob(filepath.Join(d.Dir, "*.jsonl"))
	if err != nil || len(paths) == 0 {
		tb.Fatalf("no files in %s: %v", d.Dir, err)
	}
	for _, p := range paths {
		b, err := os.ReadFile(p)
		if err != nil {
			tb.Fatal(err)
		}
		pollutant, station, _ := strings.Cut(strings.TrimSuffix(filepath.Base(p), ".jsonl"), "-")
		for i := range n {
			name := fmt.Sprintf("%s%d", station, i)
			c := bytes.ReplaceAll(b, fmt.Appendf(nil, `"station":%q`, station), fmt.Appendf(nil, `"station":%q`, name))
			if err := os.WriteFile(filepath.Join(dir, pollutant+"-"+name+".jsonl"), c, 0o600); err != nil {
				tb.Fatal(err)
			}
		}
	}
	return airdata.Data{Name: fmt.Sprintf("%s×%d", d.Name, n), Dir: dir}
}

var built struct {
	sync.Mutex
	path string
}

// Sidestream builds the real program, once, and returns the command that runs a Work until all is done.
func Sidestream(tb testing.TB) func(w *Work) *exec.Cmd {
	tb.Helper()
	built.Lock()
	defer built.Unlock()
	if built.path == "" {
		dir, err := os.MkdirTemp("", "sidestream-killtest-*")
		if err != nil {
			tb.Fatal(err)
		}
		path := filepath.Join(dir, "sidestream")
		build := exec.Command("go", "build", "-o", path, "./cmd/sidestream")
		build.Dir = root(tb)
		if out, err := build.CombinedOutput(); err != nil {
			tb.Fatalf("building the program: %v\n%s", err, out)
		}
		built.path = path
	}
	path := built.path
	return func(w *Work) *exec.Cmd {
		c := exec.Command(path, "run", w.Jobs, "--data-dir", w.Dir, "--until-done", "--log-level", "warn")
		c.Env = w.Env()
		return c
	}
}

// Remove removes what Sidestream has built; TestMain calls it last.
func Remove() {
	if built.path != "" {
		_ = os.RemoveAll(filepath.Dir(built.path)) // in the folder for temporary files
	}
}

// root finds the repository from the folder of the test that runs.
func root(tb testing.TB) string {
	tb.Helper()
	dir, err := os.Getwd()
	if err != nil {
		tb.Fatal(err)
	}
	for ; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		} else if !errors.Is(err, fs.ErrNotExist) || dir == filepath.Dir(dir) {
			tb.Fatalf("no go.mod above the test's folder: %v", err)
		}
	}
}
