package jobs_test

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/jobs/jobstest"
)

// words is a job whose steps can be made to fail: count keeps state, emits and sets a timer before it fails.
func words(onError ...jobs.Option) *jobs.Job {
	j := jobs.New("words")
	in := jobs.KeyBy(jobs.From(j, &jobstest.Messages{}, jobs.Text(), onError...), func(s string) string { return s[:1] })
	seen, _ := jobs.Process(in, func(s *jobs.Step[string, string, string, jobs.None]) {
		n := jobs.ValueOf[int](s, "n")
		s.OnRecord = func(v string) error {
			n.Update(func(n *int) { *n++ })
			s.Emit(v)
			return nil
		}
	}, jobs.ID("seen"))
	counted, side := jobs.Process(seen, func(s *jobs.Step[string, string, string, string]) {
		n, list, pairs := jobs.ValueOf[int](s, "n"), jobs.ListOf[string](s, "list"), jobs.MapOf[string, int](s, "pairs")
		s.OnRecord = func(v string) error {
			s.Side("side " + v)
			n.Update(func(n *int) { *n++ })
			list.Append(v)
			pairs.Put(v, list.Len())
			s.SetTimer(s.Time() + 10)
			total, _ := n.Get()
			s.Emit(fmt.Sprint(v, " ", total, list.Len(), pairs.Len()))
			if strings.Contains(v, "bad") {
				pairs.Clear()
				list.Clear()
				s.DeleteTimer(s.Time() + 9)
				return errors.New("it is bad")
			}
			return nil
		}
		s.OnTimer = func(at jobs.Time) error {
			s.Emit(fmt.Sprintf("timer %s %d", s.Key(), at))
			return nil
		}
	}, jobs.ID("count"))
	jobs.To(counted, "main", &jobstest.Sink{}, jobs.Text())
	jobs.To(side, "side", &jobstest.Sink{}, jobs.Text())
	jobs.DeadLetters(j, "dead", &jobstest.Sink{}, "")
	return j
}

func TestOnErrorUndoesTheFailingStepAlone(t *testing.T) {
	feed := []jobs.Message{jobstest.At(0, "a1"), jobstest.At(1, "abad"), jobstest.At(2, "a2")}
	wantMain := []string{"a1 1 1 1", "a2 2 2 2", "timer a 10", "timer a 12"}
	wantSide := []string{"side a1", "side a2"}
	for _, tt := range []struct {
		name   string
		option jobs.Option
		dead   []string
	}{
		{"skip", jobs.SkipErrors(), nil},
		{"to an output", jobs.ErrorsTo("dead"), []string{"abad"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := jobstest.New(t, words(tt.option))
			h.Send("", feed...)
			h.End()
			if got := h.Lines("main"); !slices.Equal(got, wantMain) {
				t.Errorf("main has %q, want %q", got, wantMain)
			}
			if got := h.Lines("side"); !slices.Equal(got, wantSide) {
				t.Errorf("side has %q, want %q", got, wantSide)
			}
			if got := h.Lines("dead"); !slices.Equal(got, tt.dead) {
				t.Errorf("dead has %q, want %q", got, tt.dead)
			}
			if len(h.Rejected) != 1 || h.Rejected[0].Step != "count" || h.Rejected[0].Origin.String() != "test-0@1" {
				t.Errorf("rejected %+v, want the record at test-0@1, by count", h.Rejected)
			}
		})
	}
	t.Run("what steps before it did remains", func(t *testing.T) {
		h := jobstest.New(t, words(jobs.SkipErrors()))
		h.Send("", feed[:2]...)
		if seen, count := h.State("seen").Entries(), h.State("count").Entries(); seen != 1 || count != 5 {
			t.Errorf("seen has %d entries and count %d, want 1 and 5 (n, list's bounds and element, pair, timer)", seen, count)
		}
	})
	t.Run("fail ends the attempt", func(t *testing.T) {
		h := jobstest.New(t, words())
		h.Send("", feed[0])
		h.Barrier()
		h.Send("", feed[1:]...)
		if h.Err == nil || len(h.Rejected) != 1 {
			t.Fatalf("the attempt ended with %v", h.Err)
		}
		h.Crash()
		h.Send("", jobstest.At(1, "a2"))
		if got, want := h.Lines("main"), []string{"a1 1 1 1", "a2 2 2 2"}; !slices.Equal(got, want) {
			t.Errorf("after the restart main has %q, want %q", got, want)
		}
	})
	t.Run("a record that cannot be keyed is the key_by's", func(t *testing.T) {
		j := jobs.New("keys")
		in := jobs.KeyBy(jobs.From(j, &jobstest.Messages{}, jobs.Text(), jobs.SkipErrors()), func(s string) *string { return nil })
		jobs.To(in, "main", &jobstest.Sink{}, jobs.Text())
		h := jobstest.New(t, j)
		h.Send("", jobstest.At(0, "x"))
		if len(h.Rejected) != 1 || !errors.Is(h.Rejected[0].Err, jobs.ErrKey) || h.Rejected[0].Step != "key_by-1" {
			t.Errorf("rejected %+v, want ErrKey by key_by-1", h.Rejected)
		}
	})
}

func TestProcessRefuses(t *testing.T) {
	type step = jobs.Step[string, string, string, jobs.None]
	tests := []struct {
		name  string
		setup func(s *step)
		want  string
	}{
		{"a setup without OnRecord", func(*step) {}, "OnRecord"},
		{"two states of one name", func(s *step) { jobs.ValueOf[int](s, "a"); jobs.ListOf[int](s, "a") }, "two of that name"},
		{"a name that is none", func(s *step) { jobs.ValueOf[int](s, "") }, "name"},
		{"a type that cannot be kept", func(s *step) { jobs.ValueOf[any](s, "a") }, "cannot be kept"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			j := jobs.New("test")
			jobs.Process(jobs.FromTopic(j, jobs.BusTopic[string]{Name: "in"}), tt.setup)
			if err := j.Check(); err != nil {
				t.Fatal(err)
			}
			store := jobstest.NewStore()
			_, err := j.Nodes[1].Build(&jobs.Env{Step: "p", Table: store.Table, Failed: new(bool)}, [][]any{nil, nil})
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Build returned %v, want an error that says %q", err, tt.want)
			}
		})
	}
	t.Run("a stream without key", func(t *testing.T) {
		j := jobs.New("test")
		jobs.Process(jobs.From(j, &jobstest.Messages{}, jobs.Text()), func(*step) {})
		if j.Check() == nil {
			t.Error("Check found nothing wrong")
		}
	})
	t.Run("event time of another type", func(t *testing.T) {
		j := jobs.New("test")
		jobs.From(j, &jobstest.Messages{}, jobs.Text(), jobs.EventTime(func(int) time.Time { return time.Time{} }, 0))
		if j.Check() == nil {
			t.Error("Check found nothing wrong")
		}
	})
}

// stateStep gives handles of all kinds to a test that calls f for each record.
func stateStep(t *testing.T, f func(s *jobs.Step[string, func(), jobs.None, jobs.None])) *jobstest.Step[func(), jobs.None, jobs.None] {
	return jobstest.StepOf[func(), jobs.None, jobs.None](t, jobstest.NewStore(), func(in *jobs.Stream[func()]) {
		jobs.Process(in, func(s *jobs.Step[string, func(), jobs.None, jobs.None]) {
			s.OnRecord = func(v func()) error { v(); return nil }
			f(s)
		})
	})
}

func do(s *jobstest.Step[func(), jobs.None, jobs.None], key string, f func()) {
	s.Process(jobs.Rec[func()]{Value: f, Key: jobs.MakeKey([]byte(`"` + key + `"`))})
}

func TestHandles(t *testing.T) {
	type point struct{ X, Y int }
	var v *jobs.ValueState[point]
	var l *jobs.ListState[string]
	var m *jobs.MapState[string, []int]
	s := stateStep(t, func(s *jobs.Step[string, func(), jobs.None, jobs.None]) {
		v, l, m = jobs.ValueOf[point](s, "v"), jobs.ListOf[string](s, "l"), jobs.MapOf[string, []int](s, "m")
	})
	list := func() (out []string) {
		for _, x := range l.All() {
			out = append(out, x)
		}
		return out
	}
	same := func(what string, got, want any) {
		t.Helper()
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
	}
	do(s, "a", func() {
		v.Set(point{1, 2})
		v.Update(func(p *point) { p.X = 5 })
		for _, x := range []string{"p", "q", "", "r"} {
			l.Append(x)
		}
		l.Set(1, "Q")
		l.DropFront(1)
		m.Put("", []int{0})
		m.Put("x", []int{1, 2})
		m.Put("y", nil)
		m.Delete("y")
	})
	do(s, "b", func() {
		_, ok := v.Get()
		same("another key's value", ok, false)
		same("another key's list", list(), []string{})
		same("another key's map", m.Len(), 0)
		l.Append("other")
	})
	s.Restart()
	do(s, "a", func() {
		p, ok := v.Get()
		same("value", []any{p, ok}, []any{point{5, 2}, true})
		same("list", list(), []string{"Q", "", "r"})
		same("length", l.Len(), 3)
		same("element", l.At(2), "r")
		x, ok := m.Get("x")
		same("pair", []any{x, ok}, []any{[]int{1, 2}, true})
		x[0] = 99
		x, _ = m.Get("x")
		same("a pair after its copy was changed", x, []int{1, 2})
		_, ok = m.Get("y")
		same("a deleted pair", ok, false)
		var keys []string
		for k := range m.All() {
			keys = append(keys, k)
			m.Put("new"+k, nil) // allowed
		}
		same("keys in order of adding", fmt.Sprintf("%q", keys), `["" "x"]`)
		for _, e := range l.All() {
			if e == "Q" {
				l.DropFront(2)
				l.Append("z")
			}
		}
		same("list after changes while walking", list(), []string{"r", "z"})
		v.Clear()
		l.Clear()
		m.Clear()
		_, ok = v.Get()
		same("cleared", []any{ok, l.Len(), m.Len()}, []any{false, 0, 0})
	})
	same("entries left, of b", s.Store.Entries(), 2)
}

func TestTimers(t *testing.T) {
	type timers = jobs.Timers
	a, b := jobs.MakeKey([]byte(`"a"`)), jobs.MakeKey([]byte(`"b"`))
	tests := []struct {
		name string
		set  func(ts *timers)
		w    jobs.Watermark
		want string
		left int
	}{
		{"fire in order of time, at and before the watermark", func(ts *timers) { ts.Set(a, 30); ts.Set(b, 10); ts.Set(a, 20) }, 20, "b10 a20", 1},
		{"set twice fires once", func(ts *timers) { ts.Set(a, 5); ts.Set(a, 5) }, 5, "a5", 0},
		{"deleted does not fire", func(ts *timers) { ts.Set(a, 5); ts.Set(a, 6); ts.Delete(a, 5) }, 9, "a6", 0},
		{"deleted and set again fires once", func(ts *timers) { ts.Set(a, 5); ts.Delete(a, 5); ts.Set(a, 5) }, 9, "a5", 0},
		{"before 1970", func(ts *timers) { ts.Set(a, -1); ts.Set(a, -3000) }, -1, "a-3000 a-1", 0},
		{"over many buckets", func(ts *timers) { ts.Set(a, 1<<40); ts.Set(a, 0); ts.Set(a, 1024) }, 1024, "a0 a1024", 1},
	}
	for _, tt := range tests {
		for _, restored := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/restored=%v", tt.name, restored), func(t *testing.T) {
				store := jobstest.NewStore()
				ts := jobs.NewTimers(store.Table("timers"))
				tt.set(ts)
				if restored {
					store = store.Clone()
					ts = jobs.NewTimers(store.Table("timers"))
				}
				var got []string
				for range 2 { // the second call finds nothing
					if err := ts.Advance(tt.w, func(k jobs.Key, at jobs.Time) error {
						got = append(got, fmt.Sprint(strings.Trim(string(k.Bytes), `"`), int64(at)))
						return nil
					}); err != nil {
						t.Fatal(err)
					}
				}
				if s := strings.Join(got, " "); s != tt.want || store.Entries() != tt.left {
					t.Errorf("fired %q, %d entries left; want %q, %d", s, store.Entries(), tt.want, tt.left)
				}
			})
		}
	}
	t.Run("one that fires may set another at or before the watermark", func(t *testing.T) {
		ts, n := jobs.NewTimers(jobstest.NewStore().Table("timers")), 0
		ts.Set(a, 1)
		_ = ts.Advance(10, func(k jobs.Key, at jobs.Time) error { n++; ts.Set(k, at+3); return nil })
		if n != 4 { // 1 4 7 10
			t.Errorf("fired %d times, want 4", n)
		}
	})
	t.Run("moved timers leave no growing heap", func(t *testing.T) {
		ts := jobs.NewTimers(jobstest.NewStore().Table("timers"))
		for i := range jobs.Time(10000) {
			ts.Delete(a, i-1)
			ts.Set(a, i)
			_ = ts.Advance(-1, nil)
			if n := ts.Pending(); n > 2000 {
				t.Fatalf("%d items for one timer", n)
			}
		}
	})
}

func TestTimerTakenBackByARecordThatFails(t *testing.T) {
	a, b := jobs.MakeKey([]byte(`"a"`)), jobs.MakeKey([]byte(`"b"`))
	store, fired := jobstest.NewStore(), 0
	ts := jobs.NewTimers(store.Table("timers"))
	ts.Set(a, 5)
	store.BeginRecord()
	ts.Delete(a, 5)
	for at := range jobs.Time(3000) { // enough to make a heap with leftovers be built anew
		ts.Set(b, 10+at)
	}
	store.RollbackRecord()
	store.EndRecord()
	for w := range jobs.Watermark(4000) {
		_ = ts.Advance(w, func(jobs.Key, jobs.Time) error { fired++; return nil })
	}
	if fired != 1 {
		t.Errorf("%d timers fired, want the one that was set before", fired)
	}
}

// Records that fail undo what they did to timers, whatever it was.
func TestTimersAgainstModel(t *testing.T) {
	for range 30 {
		seed := rand.Uint64()
		rng := rand.New(rand.NewPCG(seed, 0))
		store := jobstest.NewStore()
		ts := jobs.NewTimers(store.Table("timers"))
		type timer struct {
			key string
			at  jobs.Time
		}
		model, w := map[timer]bool{}, jobs.Watermark(0)
		for range 60 {
			switch d := rng.IntN(10); {
			case d < 8:
				before, fails := maps.Clone(model), rng.IntN(3) == 0
				store.BeginRecord()
				for range rng.IntN(1 + rng.IntN(400)) {
					x := timer{fmt.Sprintf(`"%d"`, rng.IntN(3)), jobs.Time(w) + jobs.Time(rng.IntN(3000)) - 20}
					if rng.IntN(3) > 0 {
						ts.Set(jobs.MakeKey([]byte(x.key)), x.at)
						model[x] = true
					} else if got := ts.Delete(jobs.MakeKey([]byte(x.key)), x.at); got != model[x] {
						t.Fatalf("seed %d: Delete returned %v", seed, got)
					} else {
						delete(model, x)
					}
				}
				if fails {
					store.RollbackRecord()
					model = before
				}
				store.EndRecord()
			case d < 9:
				w += jobs.Watermark(rng.IntN(1000))
				last := jobs.NoTime
				_ = ts.Advance(w, func(k jobs.Key, at jobs.Time) error {
					x := timer{string(k.Bytes), at}
					if !model[x] || at < last {
						t.Fatalf("seed %d: %v fired behind %d; set: %v", seed, x, last, model[x])
					}
					delete(model, x)
					last = at
					return nil
				})
				for x := range model {
					if int64(x.at) <= int64(w) {
						t.Fatalf("seed %d: %v did not fire at %d", seed, x, w)
					}
				}
			default:
				store = store.Clone()
				ts = jobs.NewTimers(store.Table("timers"))
			}
		}
	}
}
