package jobstest

import (
	"bytes"
	"context"
	"fmt"
	goruntime "runtime"
	"slices"
	"testing"
	"time"

	"github.com/sidestream-dev/sidestream/jobs"
)

// suiteWait bounds a wait in the suites.
const suiteWait = 10 * time.Second

// SourceSuite is what TestSource needs of a connector.
type SourceSuite struct {
	// New returns a source over an outside with exactly Records records that does not change by itself. It is called once
	// a rule.
	New     func(t *testing.T) jobs.Source
	Records int // at least 5
	// More adds at least one record to the outside of the source that New returned last; nil if that cannot be.
	More func(t *testing.T)
	// Split adds a split to the outside of the source that New returned last, and returns how many records it holds, at least
	// one; nil if that cannot be. The source is a jobs.Discoverer then.
	Split func(t *testing.T) int
	Dir   string        // SourceEnv.DataDir; "" is a temporary one
	Wait  time.Duration // bounds every wait; 0 means 10 s
}

// TestSource checks the contract of jobs.Source and jobs.Reader: one subtest a rule, those that apply to the source.
func TestSource(t *testing.T, s SourceSuite) {
	if s.Wait == 0 {
		s.Wait = suiteWait
	}
	rules := []rule{
		{"splits are named and stable", s.splits},
		{"chunks respect Max, want and order", s.chunks},
		{"what was read is not changed by later reads", s.kept},
		{"a position resumes exactly", s.resume},
		{"an unread source gives everything to each reader", s.again},
		{"only wanted splits are read", s.wanted},
		{"Close leaves no goroutine", s.closes},
	}
	if !s.New(t).Bounded() {
		rules = append(rules, rule{"Read returns at once where nothing is at hand", s.prompt})
		if s.More != nil {
			rules = append(rules, rule{"Ready wakes", s.wakes})
		}
	}
	if s.Split != nil {
		rules = append(rules, rule{"a split that comes later is read from its beginning", s.grows},
			rule{"a reader that has nothing takes the splits that come later", s.growsFromNothing})
	}
	for _, r := range rules {
		t.Run(r.name, r.run)
	}
}

func (SourceSuite) env(t *testing.T, dir string) jobs.SourceEnv {
	if dir == "" {
		dir = t.TempDir()
	}
	return jobs.SourceEnv{Job: "suite", Step: "source", Logger: discard(), Waiting: func(string) {}, DataDir: dir}
}

// splitsOf lists the splits of src.
func (s SourceSuite) splitsOf(t *testing.T, src jobs.Source, env jobs.SourceEnv) []jobs.Start {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), s.Wait)
	defer cancel()
	starts, err := src.Splits(ctx, env)
	if err != nil {
		t.Fatalf("Splits: %v", err)
	}
	return starts
}

// got is one record and the position behind its chunk.
type got struct {
	split int
	m     jobs.Message
}

// read opens src at starts and reads until n records are there or, with n < 0, every split has ended.
func (s SourceSuite) read(t *testing.T, src jobs.Source, env jobs.SourceEnv, starts []jobs.Start, limit, n int,
	chunk func(c *jobs.Chunk)) []got {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), s.Wait)
	defer cancel()
	r, err := src.Open(ctx, env, starts)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	defer func() {
		if err := r.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	}()
	var want []int
	for i := range starts {
		if !starts[i].Ended {
			want = append(want, i)
		}
	}
	var all []got
	c := &jobs.Chunk{}
	deadline := time.After(s.Wait)
	for len(want) > 0 && (n < 0 || len(all) < n) {
		c.Reset()
		c.Max = limit
		if err := r.Read(c, want); err != nil {
			t.Fatalf("Read: %v", err)
		}
		at := slices.Index(want, c.Split)
		switch {
		case len(c.Messages) > limit:
			t.Fatalf("Read gave %d messages, Max is %d", len(c.Messages), limit)
		case (len(c.Messages) > 0 || c.Ended) && at < 0:
			t.Fatalf("Read gave split %d, wanted %v", c.Split, want)
		case len(c.Messages) > 0 && c.Position == nil:
			t.Fatalf("Read gave %d messages without a position", len(c.Messages))
		}
		for _, m := range c.Messages {
			all = append(all, got{c.Split, m})
		}
		if chunk != nil && len(c.Messages) > 0 {
			chunk(c)
		}
		if c.Ended {
			want = slices.Delete(want, at, at+1)
			continue
		}
		if len(c.Messages) > 0 {
			want = append(slices.Delete(want, at, at+1), c.Split) // the next one is more wanted now
			continue
		}
		select {
		case <-r.Ready():
		case <-deadline:
			t.Fatalf("%d of %d records read, none more within %v", len(all), n, s.Wait)
		}
	}
	return all
}

// until is what read must be told to read everything there is.
func (s SourceSuite) until(src jobs.Source) int {
	if src.Bounded() {
		return -1
	}
	return s.Records
}

func (s SourceSuite) splits(t *testing.T) {
	src, env := s.New(t), s.env(t, s.Dir)
	if src.Kind() == "" {
		t.Error("Kind is empty")
	}
	a, b := s.splitsOf(t, src, env), s.splitsOf(t, src, env)
	if len(a) == 0 || len(a) != len(b) {
		t.Fatalf("Splits gave %d, then %d", len(a), len(b))
	}
	seen := map[string]bool{}
	for i := range a {
		if a[i].Split != b[i].Split {
			t.Errorf("split %d is %+v, then %+v", i, a[i].Split, b[i].Split)
		}
		if id := a[i].Split.ID; id == "" || seen[id] {
			t.Errorf("split %d has the id %q: want one that is its own", i, id)
		}
		seen[a[i].Split.ID] = true
	}
}

func (s SourceSuite) chunks(t *testing.T) {
	for _, limit := range []int{1, 3, 1000} {
		src, env := s.New(t), s.env(t, s.Dir)
		all := s.read(t, src, env, s.splitsOf(t, src, env), limit, s.until(src), nil)
		if len(all) != s.Records {
			t.Fatalf("Max %d: %d records read, want %d", limit, len(all), s.Records)
		}
		last := map[int]int64{}
		for i, g := range all {
			if before, ok := last[g.split]; ok && g.m.Offset <= before {
				t.Fatalf("Max %d: record %d of split %d has offset %d behind %d", limit, i, g.split, g.m.Offset, before)
			}
			last[g.split] = g.m.Offset
		}
	}
}

func (s SourceSuite) kept(t *testing.T) {
	src, env := s.New(t), s.env(t, s.Dir)
	var copies []jobs.Message
	all := s.read(t, src, env, s.splitsOf(t, src, env), 2, s.until(src), func(c *jobs.Chunk) {
		for _, m := range c.Messages {
			m.Key, m.Value = clone(m.Key), clone(m.Value)
			copies = append(copies, m)
		}
	})
	for i := range all {
		if !sameMessage(all[i].m, copies[i]) {
			t.Fatalf("record %d was %q and is now %q", i, copies[i].Value, all[i].m.Value)
		}
	}
}

func sameMessage(a, b jobs.Message) bool {
	return bytes.Equal(a.Key, b.Key) && bytes.Equal(a.Value, b.Value) && a.Time == b.Time && a.Offset == b.Offset &&
		slices.EqualFunc(a.Headers, b.Headers, func(x, y jobs.Header) bool { return x.Name == y.Name && bytes.Equal(x.Value, y.Value) })
}

// resume cuts a run after every chunk and checks that what is read from the positions there equals the rest.
func (s SourceSuite) resume(t *testing.T) {
	src, env := s.New(t), s.env(t, s.Dir)
	starts := s.splitsOf(t, src, env)
	var cuts [][]jobs.Start
	var at []int
	now, n := slices.Clone(starts), 0
	all := s.read(t, src, env, starts, 1, s.until(src), func(c *jobs.Chunk) {
		now[c.Split].Position, now[c.Split].Ended = bytes.Clone(c.Position), c.Ended
		n += len(c.Messages)
		cuts, at = append(cuts, slices.Clone(now)), append(at, n)
	})
	step := max(1, len(cuts)/25) // 25 places are enough
	for i := 0; i < len(cuts); i += step {
		want := restBySplit(all[at[i]:], len(starts))
		n := s.until(src)
		if n > 0 {
			n -= at[i]
		}
		got := restBySplit(s.read(t, src, env, cuts[i], 4, n, nil), len(starts))
		for split := range want {
			if !slices.EqualFunc(got[split], want[split], sameMessage) {
				t.Fatalf("cut behind record %d: split %s gave %d records, want %d:\n got %s\nwant %s", at[i], starts[split].Split.ID,
					len(got[split]), len(want[split]), brief(got[split]), brief(want[split]))
			}
		}
	}
}

func restBySplit(all []got, splits int) [][]jobs.Message {
	out := make([][]jobs.Message, splits)
	for _, g := range all {
		out[g.split] = append(out[g.split], g.m)
	}
	return out
}

func brief(ms []jobs.Message) string {
	out := ""
	for i, m := range ms {
		if i == 5 {
			return out + " …"
		}
		out += fmt.Sprintf(" %d:%.40q", m.Offset, m.Value)
	}
	return out
}

func (s SourceSuite) again(t *testing.T) {
	src, env := s.New(t), s.env(t, s.Dir)
	starts := s.splitsOf(t, src, env)
	a := restBySplit(s.read(t, src, env, starts, 7, s.until(src), nil), len(starts))
	b := restBySplit(s.read(t, src, env, starts, 2, s.until(src), nil), len(starts))
	for i := range a {
		if !slices.EqualFunc(a[i], b[i], sameMessage) {
			t.Errorf("split %s: a second reader sees something else", starts[i].Split.ID)
		}
	}
}

func (s SourceSuite) wanted(t *testing.T) {
	src, env := s.New(t), s.env(t, s.Dir)
	starts := s.splitsOf(t, src, env)
	ctx, cancel := context.WithTimeout(t.Context(), s.Wait)
	defer cancel()
	r, err := src.Open(ctx, env, starts)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	defer r.Close()
	for i := range starts {
		c := &jobs.Chunk{Max: 1}
		for end := time.Now().Add(s.Wait / 10); time.Now().Before(end) && len(c.Messages) == 0 && !c.Ended; {
			c.Reset()
			if err := r.Read(c, []int{i}); err != nil {
				t.Fatalf("Read: %v", err)
			}
			if len(c.Messages) == 0 && !c.Ended {
				select {
				case <-r.Ready():
				case <-time.After(20 * time.Millisecond):
				}
			}
		}
		if (len(c.Messages) > 0 || c.Ended) && c.Split != i {
			t.Errorf("asked for split %d, got %d", i, c.Split)
		}
	}
}

// drained opens src and reads all there is, for rules about what comes then.
func (s SourceSuite) drained(t *testing.T) (jobs.Source, jobs.Reader, []int) {
	t.Helper()
	src, env := s.New(t), s.env(t, s.Dir)
	starts := s.splitsOf(t, src, env)
	r, err := src.Open(t.Context(), env, starts)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	t.Cleanup(func() { r.Close() })
	want := make([]int, len(starts))
	for i := range want {
		want[i] = i
	}
	n, c := 0, &jobs.Chunk{}
	for end := time.Now().Add(s.Wait); n < s.Records; {
		c.Reset()
		c.Max = 100
		if err := r.Read(c, want); err != nil {
			t.Fatalf("Read: %v", err)
		}
		if c.Ended {
			t.Fatal("an unbounded source ended a split")
		}
		if n += len(c.Messages); len(c.Messages) > 0 {
			continue
		}
		if time.Now().After(end) {
			t.Fatalf("%d of %d records read", n, s.Records)
		}
		select {
		case <-r.Ready():
		case <-time.After(100 * time.Millisecond):
		}
	}
	return src, r, want
}

func (s SourceSuite) prompt(t *testing.T) {
	_, r, want := s.drained(t)
	c := &jobs.Chunk{Max: 10}
	begin := time.Now()
	if err := r.Read(c, want); err != nil {
		t.Fatalf("Read: %v", err)
	}
	if d := time.Since(begin); d > time.Second || len(c.Messages) > 0 {
		t.Errorf("Read took %v and gave %d records where there are none", d, len(c.Messages))
	}
}

func (s SourceSuite) wakes(t *testing.T) {
	_, r, want := s.drained(t)
	select {
	case <-r.Ready(): // one too many is allowed
	default:
	}
	s.More(t)
	c := &jobs.Chunk{}
	for deadline := time.After(s.Wait); ; {
		select {
		case <-r.Ready():
		case <-deadline:
			t.Fatal("Ready did not wake for a new record")
		}
		c.Reset()
		c.Max = 10
		if err := r.Read(c, want); err != nil {
			t.Fatalf("Read: %v", err)
		}
		if len(c.Messages) > 0 {
			return
		}
	}
}

func (s SourceSuite) closes(t *testing.T) {
	src, env := s.New(t), s.env(t, s.Dir)
	starts := s.splitsOf(t, src, env)
	s.read(t, src, env, starts, 2, min(3, s.Records), nil) // a service that the source shares may stay
	before := goruntime.NumGoroutine()
	for range 3 {
		s.read(t, src, env, starts, 2, min(3, s.Records), nil) // closed in the middle
	}
	noneLeft(t, before)
}

// noneLeft waits until no more goroutines run than before.
func noneLeft(t *testing.T, before int) {
	t.Helper()
	for end := time.Now().Add(2 * time.Second); goruntime.NumGoroutine() > before; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			buf := make([]byte, 1<<16)
			t.Fatalf("%d goroutines run, %d did before:\n%s", goruntime.NumGoroutine(), before, buf[:goruntime.Stack(buf, true)])
		}
	}
}
