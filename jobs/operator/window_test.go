package operator_test

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/jobs/jobstest"
	"github.com/sidestream-dev/sidestream/jobs/operator"
)

// reading is what the tests' windows aggregate.
type reading struct {
	N   int64
	X   float64
	Tag string
}

// row is a result that can be compared.
type row struct {
	Key                 string
	Start               int64
	Count               int64
	Sum, Mean, Min, Max float64
	Distinct            int64
}

func rowOf(key string, p *operator.Pane) row {
	return row{key, int64(p.Start), p.Int(0), p.Float(1), p.Float(2), p.Float(3), p.Float(4), p.Int(5)}
}

func x(r reading) float64 { return r.X }

var allAggregates = operator.Aggregates(rowOf,
	operator.Count[reading](), operator.Sum(x), operator.Mean(x), operator.Min(x), operator.Max(x),
	operator.Distinct(func(r reading) string { return r.Tag }))

func keyOf(k string) jobs.Key {
	b, err := jobs.NewKeyCodec[string]().Append(nil, k)
	if err != nil {
		panic(err)
	}
	return jobs.MakeKey(b)
}

func rec(key string, at int64, r reading) jobs.Rec[reading] {
	return jobs.Rec[reading]{Value: r, Time: jobs.Time(at), Key: keyOf(key)}
}

func windowStep(t testing.TB, size, lateness time.Duration) *jobstest.Step[reading, row, reading] {
	return jobstest.StepOf[reading, row, reading](t, jobstest.NewStore(), func(s *jobs.Stream[reading]) {
		operator.Tumbling(s, size, allAggregates, operator.Lateness(lateness))
	})
}

func TestWindowLife(t *testing.T) {
	type step struct {
		at    int64 // a record's time, or
		mark  int64 // the watermark to move to, where isWM
		isWM  bool
		fires []string // key@start=count, in order
		late  int
	}
	r := func(at int64, fires ...string) step { return step{at: at, fires: fires} }
	late := func(at int64) step { return step{at: at, late: 1} }
	wm := func(mark int64, fires ...string) step { return step{mark: mark, isWM: true, fires: fires} }
	tests := []struct {
		name     string
		lateness time.Duration
		steps    []step
		entries  int // left in state: an accumulator and its one distinct element, or nothing
	}{
		{"fires when the watermark reaches end - 1 ms", 0, []step{r(0), r(9), wm(8), wm(9, "k@0=2")}, 0},
		{"end is outside", 0, []step{r(10), wm(9), wm(18), wm(19, "k@10=1")}, 0},
		{"starts are floored before 1970", 0, []step{r(-1), r(-10), r(-11), wm(-11, "k@-20=1"), wm(-1, "k@-10=2")}, 0},
		{"fires once", 5 * time.Millisecond, []step{r(0), wm(9, "k@0=1"), wm(10), wm(13)}, 2},
		{"fires again, whole, at each record within lateness", 5 * time.Millisecond,
			[]step{r(0), wm(9, "k@0=1"), r(3, "k@0=2"), wm(13), r(4, "k@0=3")}, 2},
		{"a window first seen within lateness fires at once", 5 * time.Millisecond, []step{wm(9), r(0, "k@0=1"), wm(13)}, 2},
		{"state goes at end - 1 ms + lateness", 5 * time.Millisecond, []step{r(0), wm(9, "k@0=1"), wm(14), late(0)}, 0},
		{"without lateness a record behind the window is late", 0, []step{r(0), wm(9, "k@0=1"), late(9), r(10)}, 2},
		{"an early record behind the watermark is not late while its window is open", 0, []step{wm(8), r(2), wm(9, "k@0=1")}, 0},
		{"a jump fires windows in order of start", 0, []step{r(25), r(5), r(15), wm(100, "k@0=1", "k@10=1", "k@20=1")}, 0},
		{"the final watermark fires all", time.Hour, []step{r(5), r(15), wm(math.MaxInt64, "k@0=1", "k@10=1")}, 0},
		{"a watermark never goes back", 0, []step{r(5), wm(9, "k@0=1"), wm(3), late(4)}, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := windowStep(t, 10*time.Millisecond, tt.lateness)
			for i, st := range tt.steps {
				s.Main, s.Aside, s.Late = nil, nil, 0
				if st.isWM {
					s.Watermark(jobs.Watermark(st.mark))
				} else {
					s.Process(rec("k", st.at, reading{X: 1}))
				}
				var got []string
				for _, m := range s.Main {
					got = append(got, fmt.Sprintf("%s@%d=%d", m.Value.Key, m.Value.Start, m.Value.Count))
					if want := jobs.Time(m.Value.Start + 9); m.Time != want || string(m.Key.Bytes) != `"k"` {
						t.Errorf("step %d: result has time %v and key %s, want %v and \"k\"", i, m.Time, m.Key.Bytes, want)
					}
				}
				if !slices.Equal(got, st.fires) || len(s.Aside) != st.late || s.Late != st.late {
					t.Errorf("step %d: fired %v, late %d, counted %d; want %v, %d", i, got, len(s.Aside), s.Late, st.fires, st.late)
				}
			}
			if got := s.Store.Entries(); got != tt.entries {
				t.Errorf("%d entries left in state, want %d", got, tt.entries)
			}
		})
	}
}

func TestWindowErrorChangesNothing(t *testing.T) {
	s := windowStep(t, 10*time.Millisecond, 0)
	s.Process(rec("k", 1, reading{X: 1, Tag: "a"}))
	before := s.Store.Entries()
	s.Process(rec("k", 1, reading{X: math.NaN(), Tag: "b"}))
	s.Process(jobs.Rec[reading]{Key: keyOf("k"), Time: jobs.NoTime})
	if len(s.Rejected) != 2 || !errors.Is(s.Rejected[0].Err, operator.ErrNotFinite) {
		t.Fatalf("rejected %v, want NaN and the record without time", s.Rejected)
	}
	if got := s.Store.Entries(); got != before {
		t.Errorf("%d entries after records that failed, want %d", got, before)
	}
	s.Watermark(9)
	want := row{"k", 0, 1, 1, 1, 1, 1, 1}
	if len(s.Main) != 1 || s.Main[0].Value != want {
		t.Errorf("got %v, want %v", s.Main, want)
	}
}

func TestIntegersStayIntegers(t *testing.T) {
	type in struct{ n operator.Number }
	of := func(r *jobs.Rec[in]) (operator.Number, error) { return r.Value.n, nil }
	i, f := operator.Int, operator.Float
	big := int64(1)<<53 + 1
	tests := []struct {
		name          string
		in            []operator.Number
		sum, min, max operator.Number
	}{
		{"ints", []operator.Number{i(3), i(-1), i(2)}, i(4), i(-1), i(3)},
		{"one float makes the sum a float", []operator.Number{i(3), f(0.5)}, f(3.5), f(0.5), i(3)},
		{"a sum past int64 becomes a float", []operator.Number{i(math.MaxInt64), i(1)}, f(1 << 63), i(1), i(math.MaxInt64)},
		{"and below", []operator.Number{i(math.MinInt64), i(-1)}, f(-(1 << 63)), i(math.MinInt64), i(-1)},
		{"ints are compared with floats exactly", []operator.Number{i(big), f(1 << 53)}, f(float64(big) + 1<<53), f(1 << 53), i(big)},
		{"of equal ones the first", []operator.Number{i(1), f(1)}, f(2), i(1), i(1)},
		{"zero is a number", []operator.Number{i(0), i(5), f(-2)}, f(3), f(-2), i(5)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var got [3]operator.Number
			folds := []operator.Fold[in]{{Func: operator.FuncSum, Number: of}, {Func: operator.FuncMin, Number: of}, {Func: operator.FuncMax, Number: of}}
			a := operator.Folds(folds, func(p *operator.Pane) [3]operator.Number {
				return [3]operator.Number{p.Number(0), p.Number(1), p.Number(2)}
			})
			acc := make([]byte, a.Size())
			for _, n := range tt.in {
				if err := a.Eval(&jobs.Rec[in]{Value: in{n}}); err != nil {
					t.Fatal(err)
				}
				a.Add(acc)
			}
			if got = a.Result(&operator.Pane{Acc: acc}); got != [3]operator.Number{tt.sum, tt.min, tt.max} {
				t.Errorf("sum, min, max = %v, want %v", got, [3]operator.Number{tt.sum, tt.min, tt.max})
			}
		})
	}
}

// naive computes what a window must emit: all is kept and computed again at each firing.
type naive struct {
	size, lateness int64
	mark           int64
	recs           map[[2]any][]reading // key, start
	fired          map[int64]bool
	out            []row
	late           int
}

func (n *naive) floor(at int64) int64 { return int64(math.Floor(float64(at)/float64(n.size))) * n.size }

func (n *naive) process(key string, at int64, r reading) {
	start := n.floor(at)
	if start+n.size-1+n.lateness <= n.mark {
		n.late++
		return
	}
	k := [2]any{key, start}
	n.recs[k] = append(n.recs[k], r)
	if start+n.size-1 <= n.mark {
		n.fire(key, start)
	}
}

func (n *naive) fire(key string, start int64) {
	o, tags := row{Key: key, Start: start, Min: math.Inf(1), Max: math.Inf(-1)}, map[string]bool{}
	for _, r := range n.recs[[2]any{key, start}] {
		o.Count++
		o.Sum += r.X
		o.Min, o.Max = min(o.Min, r.X), max(o.Max, r.X)
		tags[r.Tag] = true
	}
	o.Mean, o.Distinct = o.Sum/float64(o.Count), int64(len(tags))
	n.out = append(n.out, o)
}

func (n *naive) watermark(w int64) {
	from := n.mark
	n.mark = w
	for k := range n.recs {
		if last := k[1].(int64) + n.size - 1; last > from && last <= w {
			n.fire(k[0].(string), k[1].(int64))
		}
	}
}

func TestWindowAgainstModel(t *testing.T) {
	for range 150 {
		seed := rand.Uint64()
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) { windowAgainstModel(t, seed) })
	}
}

func windowAgainstModel(t *testing.T, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 0))
	size, lateness := 1+rng.Int64N(40), rng.Int64N(3)*rng.Int64N(30)
	n := &naive{size: size, lateness: lateness, mark: math.MinInt64, recs: map[[2]any][]reading{}, fired: map[int64]bool{}}
	s := windowStep(t, time.Duration(size)*time.Millisecond, time.Duration(lateness)*time.Millisecond)
	at, mark := -rng.Int64N(300), int64(math.MinInt64)
	for range 50 + rng.IntN(400) {
		switch d := rng.IntN(100); {
		case d < 85:
			at += rng.Int64N(3)
			key, when := fmt.Sprint("k", rng.IntN(5)), at-rng.Int64N(30)
			r := reading{X: float64(rng.IntN(64)) / 4, Tag: fmt.Sprint(rng.IntN(4))} // quarters: sums are exact
			n.process(key, when, r)
			s.Process(rec(key, when, r))
		case d < 97:
			mark = max(mark, at-rng.Int64N(25))
			n.watermark(mark)
			s.Watermark(jobs.Watermark(mark))
		default:
			s.Restart()
		}
	}
	n.watermark(math.MaxInt64)
	s.Watermark(jobs.WatermarkMax)
	var got []row
	for _, m := range s.Main {
		got = append(got, m.Value)
	}
	order := func(a, b row) int {
		return cmp.Or(cmp.Compare(a.Key, b.Key), cmp.Compare(a.Start, b.Start), cmp.Compare(a.Count, b.Count))
	}
	slices.SortFunc(got, order)
	slices.SortFunc(n.out, order)
	if !slices.Equal(got, n.out) || len(s.Aside) != n.late {
		t.Errorf("size %d, lateness %d: got %d results and %d late, want %d and %d\n got %v\nwant %v",
			size, lateness, len(got), len(s.Aside), len(n.out), n.late, got, n.out)
	}
	if e := s.Store.Entries(); e != 0 {
		t.Errorf("%d entries left in state", e)
	}
}

type spread struct {
	N        int
	Low, Top float64
}

func TestCustomAccumulator(t *testing.T) {
	fixed := operator.Custom(func(a *spread, r reading) {
		if a.N++; a.N == 1 {
			a.Low, a.Top = r.X, r.X
		}
		a.Low, a.Top = min(a.Low, r.X), max(a.Top, r.X)
	}, func(key string, _ *operator.Pane, a *spread) string { return fmt.Sprint(key, a.N, " ", a.Top-a.Low) })
	varying := operator.Custom(func(a *[]string, r reading) { *a = append(*a, r.Tag) },
		func(key string, _ *operator.Pane, a *[]string) string { return fmt.Sprint(key, *a) })
	tests := []struct {
		name string
		spec operator.Spec[reading, string]
		want []string
	}{
		{"of fixed size", fixed, []string{"a2 3", "b1 0"}},
		{"of varying size", varying, []string{"a[x y]", "b[z]"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := jobstest.StepOf[reading, string, reading](t, jobstest.NewStore(), func(in *jobs.Stream[reading]) {
				operator.Tumbling(in, time.Second, tt.spec)
			})
			s.Process(rec("a", 1, reading{X: 1, Tag: "x"}))
			s.Process(rec("b", 1, reading{X: 9, Tag: "z"}))
			s.Restart()
			s.Process(rec("a", 2, reading{X: 4, Tag: "y"}))
			s.Watermark(jobs.WatermarkMax)
			var got []string
			for _, m := range s.Main {
				got = append(got, m.Value)
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestWindowRefusesWhatItCannotDo(t *testing.T) {
	tests := []struct {
		name           string
		size, lateness time.Duration
		keyed          bool
	}{
		{"size of zero", 0, 0, true},
		{"size with a fraction of a millisecond", time.Millisecond + 1, 0, true},
		{"negative lateness", time.Second, -time.Second, true},
		{"no key", time.Second, 0, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			j := jobs.New("test")
			in := jobs.From(j, &jobstest.Messages{}, jobs.JSON[reading]())
			if tt.keyed {
				in = jobs.KeyBy(in, func(r reading) string { return r.Tag })
			}
			operator.Tumbling(in, tt.size, allAggregates, operator.Lateness(tt.lateness))
			if err := j.Check(); err == nil {
				t.Error("Check found nothing wrong")
			}
		})
	}
}

func BenchmarkWindow(b *testing.B) {
	count := operator.Aggregates(func(string, *operator.Pane) row { return row{} }, operator.Count[reading](), operator.Max(x))
	distinct := operator.Aggregates(func(string, *operator.Pane) row { return row{} }, operator.Distinct(func(r reading) string { return r.Tag }))
	custom := operator.Custom(func(a *spread, r reading) { a.N++; a.Top = max(a.Top, r.X) },
		func(string, *operator.Pane, *spread) row { return row{} })
	for _, bb := range []struct {
		name string
		spec operator.Spec[reading, row]
	}{{"count,max", count}, {"all six", allAggregates}, {"distinct", distinct}, {"custom", custom}} {
		b.Run(fmt.Sprintf("aggregates=%s/keys=1000", bb.name), func(b *testing.B) {
			s := jobstest.StepOf[reading, row, reading](b, jobstest.NewFastStore(), func(in *jobs.Stream[reading]) {
				operator.Tumbling(in, time.Minute, bb.spec)
			})
			recs := make([]jobs.Rec[reading], 1000)
			for i := range recs {
				recs[i] = rec(fmt.Sprint("device-", i), int64(i), reading{X: float64(i), Tag: fmt.Sprint(i % 7)})
			}
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				s.ProcessPtr(&recs[i%1000])
				i++
			}
		})
	}
}

// TestWindowEntryTooLarge: a record that a window cannot take, since its key or an element of it is too large, leaves no
// trace: it is not counted, nor is an element kept that was small enough.
func TestWindowEntryTooLarge(t *testing.T) {
	store := jobstest.NewStore()
	store.EntryBytes = 150
	two := operator.Aggregates(rowOf, operator.Count[reading](), operator.Sum(x), operator.Mean(x), operator.Min(x), operator.Max(x),
		operator.Distinct(func(r reading) string { return r.Tag[:1] }), operator.Distinct(func(r reading) string { return r.Tag }))
	s := jobstest.StepOf[reading, row, reading](t, store, func(in *jobs.Stream[reading]) { operator.Tumbling(in, 10*time.Millisecond, two) })
	s.Process(rec("k", 1, reading{Tag: "a"}))
	before := s.Store.Entries()
	s.Process(rec("k", 2, reading{Tag: "b" + strings.Repeat("b", 200)}))
	if n := s.Store.Entries(); n != before || len(s.Rejected) != 1 {
		t.Errorf("%d entries, %d before; %d refused", n, before, len(s.Rejected))
	}
	s.Process(rec(strings.Repeat("k", 200), 3, reading{Tag: "a"}))
	if n := s.Store.Entries(); n != before || len(s.Rejected) != 2 {
		t.Errorf("%d entries, %d before; %d refused", n, before, len(s.Rejected))
	}
	s.Process(rec("k", 4, reading{Tag: "b"})) // counts for the first time
	s.Watermark(9)
	if len(s.Main) != 1 || s.Main[0].Value.Count != 2 || s.Main[0].Value.Distinct != 2 || s.Err != nil {
		t.Errorf("%+v %v", s.Main, s.Err)
	}
}
