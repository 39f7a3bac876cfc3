package casetest

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/jobs/connector"
	"github.com/sidestream-dev/sidestream/jobs/jobstest"
	"github.com/sidestream-dev/sidestream/jobs/spec"
	"github.com/sidestream-dev/sidestream/runtime"
)

// given is a source of one split that gives one record at a time, so that event time moves after each, as in a case.
type given struct{ *jobstest.Messages }

func (g given) Open(ctx context.Context, env jobs.SourceEnv, starts []jobs.Start) (jobs.Reader, error) {
	r, err := g.Messages.Open(ctx, env, starts)
	return oneByOne{r}, err
}

type oneByOne struct{ jobs.Reader }

func (r oneByOne) Read(c *jobs.Chunk, want []int) error {
	c.Max = 1
	return r.Reader.Read(c, want)
}

// draw makes a random pair of jobs, the second of which reads a topic of the first.
func draw(rnd *rand.Rand) string {
	pick := func(of ...string) string { return of[rnd.IntN(len(of))] }
	var b strings.Builder
	width, lateness, twice := 1+rnd.IntN(4), rnd.IntN(2)*rnd.IntN(30), rnd.IntN(2) == 0
	if twice && width > 1 { // a window that fires again is late for the next one or not, as the other subtasks come along
		lateness = 0
	}
	outOfOrder, rebalance := rnd.IntN(20), ""
	if rnd.IntN(4) > 0 { // one reader: of several, those without a split hold event time back until they have begun
		b.WriteString("version: 1\njob: first\nsource:\n  given: {}\n")
	} else { // order is given up: what is late then depends on who is faster, so nothing is
		fmt.Fprintf(&b, "version: 1\njob: first\nparallelism: %d\nsource:\n  given: {}\n", width)
		outOfOrder, rebalance = 60, "  - rebalance: {}\n  - set: {r: 1}\n"
	}
	fmt.Fprintf(&b, "  event_time: {from: value.at, max_out_of_orderness: %ds}\n  on_error: {to: dead}\nsteps:\n%s", outOfOrder, rebalance)
	for range rnd.IntN(3) {
		b.WriteString("  - " + pick("filter: {if: value.level > 20}", "set: {twice: value.level * 2}", `filter: {if: 'value.kind != "c"'}`,
			"set: {at2: unix_ms(time) + source.offset}") + "\n")
	}
	b.WriteString("  - key_by: " + pick("value.device", "{d: value.device, k: value.kind}", "value.level % 3") + "\n")
	b.WriteString("  - side: {if: value.level > 50, to: mid}\n")
	fmt.Fprintf(&b, "  - window: {tumbling: %ds, allowed_lateness: %ds, late_to: late, aggregate: {n: count(), sum: sum(value.level), kinds: distinct(value.kind)}}\n    parallelism: %d\n",
		10+rnd.IntN(60), lateness, width)
	if twice {
		b.WriteString("  - key_by: value.n\n  - window: {tumbling: 3m, aggregate: {n: count(), sum: sum(value.sum)}}\n")
	}
	b.WriteString("  - " + pick("filter: {if: value.n > 1}", "map: {k: key, n: value.n, s: value.sum, t: time}") + "\n")
	fmt.Fprintf(&b, "outputs: {main: {bus: main}, mid: {bus: {topic: mid, partitions: %d}}, late: {bus: late}, dead: {bus: dead}}\n", 1+rnd.IntN(4))
	fmt.Fprintf(&b, "---\nversion: 1\njob: second\nparallelism: %d\nsource: {bus: mid}\nsteps:\n", 1+rnd.IntN(4))
	// What is late for a reader of the bus depends on where epochs end: its windows are so long that nothing is.
	b.WriteString("  - window: {tumbling: 30d, aggregate: {n: count(), max: max(value.level)}}\noutputs: {main: {bus: second}}\n")
	return b.String()
}

func records(rnd *rand.Rand) (ms []jobs.Message) {
	at := int64(1767225600000)
	for range 30 + rnd.IntN(120) {
		at += int64(rnd.IntN(4000))
		v := fmt.Sprintf(`{"device":"d%d","kind":%q,"level":%d.%d,"at":%d}`, rnd.IntN(5), string(rune('a'+rnd.IntN(3))), rnd.IntN(100), 25*rnd.IntN(4), at-int64(rnd.IntN(40000)))
		switch rnd.IntN(25) {
		case 0:
			v = `{"device":"d1","kind":"a","at":` + fmt.Sprint(at) + `}`
		case 1:
			v = v[:len(v)/2]
		case 2:
			v = strings.Replace(v, `"at":`, `"at":"x`, 1)
		}
		ms = append(ms, jobs.Message{Value: []byte(v), Time: jobs.NoTime})
	}
	return ms
}

var topics = map[string]string{"first/main": "main", "first/mid": "mid", "first/late": "late", "first/dead": "dead", "second/main": "second"}

// TestAsTheRuntime runs random jobs over random records in a runtime, with its log, its goroutines and its bus, and as
// cases at several parallelisms: every output gets the same records. CASE_SEEDS says how many, CASE_SEED which one.
func TestAsTheRuntime(t *testing.T) {
	seeds, first := 8, uint64(1)
	if s := os.Getenv("CASE_SEEDS"); s != "" {
		seeds, _ = strconv.Atoi(s)
	}
	if s := os.Getenv("CASE_SEED"); s != "" {
		first, _ = strconv.ParseUint(s, 10, 64)
		seeds = 1
	}
	seen := map[string]int{}
	for seed := first; seed < first+uint64(seeds); seed++ {
		rnd := rand.New(rand.NewPCG(seed, 0))
		src, ms := draw(rnd), records(rnd)
		want := inRuntime(t, src, ms)
		order := ""
		for _, width := range []int{1, 2, 4} {
			got, inOrder := asCase(t, src, ms, width)
			if width == 1 {
				order = inOrder
			} else if inOrder != order {
				t.Errorf("seed %d: with parallelism %d the records come in another order", seed, width)
			}
			for name := range topics {
				seen[name] += len(got[name])
				if g, w := strings.Join(got[name], "\n"), strings.Join(want[name], "\n"); g != w {
					t.Fatalf("seed %d, parallelism %d: %s is given\n%s\nthe runtime gives it\n%s\nby\n%s", seed, width, name, g, w, src)
				}
			}
		}
	}
	for name := range topics {
		if seen[name] == 0 && os.Getenv("CASE_SEED") == "" {
			t.Errorf("nothing came to %s: the test shows nothing of it", name)
		}
	}
}

func loadGiven(t *testing.T, src string, ms []jobs.Message) []*jobs.Job {
	t.Helper()
	reg := connector.Registry{Sources: []connector.SourceKind{{Name: "given", New: func(connector.Values, connector.LoadEnv) (jobs.Source, error) {
		return given{&jobstest.Messages{Parts: [][]jobs.Message{ms}}}, nil
	}}}}
	js, problems := spec.LoadBytes(spec.Config{Connectors: reg}, "random.yaml", []byte(src))
	if len(problems) > 0 {
		t.Fatalf("%v in\n%s", problems, src)
	}
	return js
}

// line is a record as the test compares it: without the origin, which names the source's own splits.
func line(value, key string, at *time.Time, headers map[string]string) string {
	when := "none"
	if at != nil {
		when = jobs.TimeOf(*at).String()
	}
	return fmt.Sprint(value, " ", key, " ", when, " ", headers["error"], " ", headers["step"])
}

func inRuntime(t *testing.T, src string, ms []jobs.Message) map[string][]string {
	t.Helper()
	rt, err := runtime.Open(runtime.Config{DataDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	if err := rt.Start(loadGiven(t, src, ms)); err != nil {
		t.Fatal(err)
	}
	if err := rt.Wait(ctx, true); err != nil {
		t.Fatalf("%v\n%s", err, src)
	}
	out := map[string][]string{}
	for name, topic := range topics {
		err := rt.Tail(ctx, runtime.Tail{Topic: topic, Partition: -1, Last: 1 << 20}, func(r runtime.TopicRecord) error {
			out[name] = append(out[name], line(string(r.Value), string(r.Key), r.Time, r.Headers))
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		slices.Sort(out[name])
	}
	if err := rt.Stop(); err != nil {
		t.Fatal(err)
	}
	return out
}

func asCase(t *testing.T, src string, ms []jobs.Message, width int) (out map[string][]string, inOrder string) {
	t.Helper()
	c := &spec.Case{Jobs: loadGiven(t, src, nil), End: true}
	for _, j := range c.Jobs {
		j.Parallelism = width
		for _, n := range j.Nodes {
			n.Parallelism = 0
		}
	}
	for _, m := range ms {
		c.Input = append(c.Input, spec.Moment{Job: "first", Message: m})
	}
	r := Run(c)
	if r.Err != "" {
		t.Fatal(r.Err)
	}
	out = map[string][]string{}
	for name := range topics {
		job, output, _ := strings.Cut(name, "/")
		for _, o := range r.engine.output(job, output) {
			headers := map[string]string{}
			for _, h := range o.Message.Headers {
				headers[h.Name] = string(h.Value)
			}
			var at *time.Time
			if o.Message.Time != jobs.NoTime {
				when := o.Message.Time.Go()
				at = &when
			}
			v, key := string(o.Message.Value), string(o.Key.Bytes)
			if !json.Valid(o.Message.Value) { // shown as a string where it is no JSON
				v = quote(v)
			}
			out[name] = append(out[name], line(v, key, at, headers))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(topics)) {
		inOrder += name + "\n" + strings.Join(out[name], "\n") + "\n"
		slices.Sort(out[name])
	}
	return out, inOrder
}
