package operator_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/jobs/jobstest"
	"github.com/sidestream-dev/sidestream/jobs/operator"
)

var errOdd = errors.New("odd one")

// of is an Evaluator that fails for 13.
func of[V any](f func(v int) V) operator.Evaluator[int, V] {
	return func(*jobs.Env) (func(*jobs.Rec[int]) (V, error), error) {
		return func(r *jobs.Rec[int]) (v V, err error) {
			if r.Value == 13 {
				return v, errOdd
			}
			return f(r.Value), nil
		}, nil
	}
}

func values[T any](recs []jobs.Rec[T]) []string {
	var out []string
	for _, r := range recs {
		out = append(out, fmt.Sprintf("%v@%d%s", r.Value, r.Time, r.Key.Bytes))
	}
	return out
}

func TestSteps(t *testing.T) {
	in := jobs.Rec[int]{Key: jobs.MakeKey([]byte("7")), Time: 5, Headers: []jobs.Header{{Name: "h"}}}
	feed := func(process func(jobs.Rec[int])) {
		for _, v := range []int{1, 2, 13, 3} {
			in.Value = v
			process(in)
		}
	}
	check := func(name string, got, want []string, rejected []jobstest.Rejected) {
		t.Helper()
		if !slices.Equal(got, want) || len(rejected) != 1 || !errors.Is(rejected[0].Err, errOdd) {
			t.Errorf("%s: got %q and %v rejected, want %q and 13", name, got, rejected, want)
		}
	}
	f := jobstest.NewStep(t, operator.Filter(of(func(v int) bool { return v != 2 })))
	feed(f.Process)
	check("filter", values(f.Main), []string{"1@57", "3@57"}, f.Rejected)

	m := jobstest.NewStep(t, operator.Map(of(func(v int) string { return fmt.Sprint("v", v) })))
	feed(m.Process)
	check("map", values(m.Main), []string{"v1@57", "v2@57", "v3@57"}, m.Rejected)
	if h := m.Main[0].Headers; len(h) != 1 || h[0].Name != "h" {
		t.Errorf("map: headers %v are not passed on", h)
	}

	k := jobstest.NewStep(t, operator.KeyBy(func(*jobs.Env) (func([]byte, *jobs.Rec[int]) ([]byte, error), error) {
		return func(dst []byte, r *jobs.Rec[int]) ([]byte, error) {
			if r.Value == 13 {
				return dst, errOdd
			}
			return fmt.Append(dst, r.Value*10), nil
		}, nil
	}))
	feed(k.Process)
	check("key_by", values(k.Main), []string{"1@510", "2@520", "3@530"}, k.Rejected)
	if g := k.Main[0].Key.Group; g != jobs.GroupOf([]byte("10")) {
		t.Errorf("key_by: group %d", g)
	}

	s := jobstest.NewStep(t, operator.Side(func(*jobs.Env) (func(*jobs.Rec[int], *jobs.Rec[string]) (bool, error), error) {
		return func(r *jobs.Rec[int], out *jobs.Rec[string]) (bool, error) {
			if r.Value == 13 {
				return false, errOdd
			}
			out.Value, out.Key = fmt.Sprint("s", r.Value), jobs.MakeKey([]byte("8"))
			return r.Value > 1, nil
		}, nil
	}))
	feed(s.Process)
	check("side copies and does not consume", values(s.Main), []string{"1@57", "2@57", "3@57"}, s.Rejected)
	check("side's port", values(s.Aside), []string{"s2@58", "s3@58"}, s.Rejected)
}

func TestKeysOutliveTheirRecord(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	k := jobstest.NewStep(t, operator.KeyBy(func(*jobs.Env) (func([]byte, *jobs.Rec[int]) ([]byte, error), error) {
		return func(dst []byte, r *jobs.Rec[int]) ([]byte, error) {
			for range r.Value {
				dst = append(dst, byte('a'+r.Value%26))
			}
			return dst, nil
		}, nil
	}))
	for range 2000 {
		k.Process(jobs.Rec[int]{Value: 1 + rng.IntN(200)})
	}
	for _, m := range k.Main {
		if want := slices.Repeat([]byte{byte('a' + m.Value%26)}, m.Value); !slices.Equal(m.Key.Bytes, want) {
			t.Fatalf("the key %q became %q", want, m.Key.Bytes)
		}
	}
}

func BenchmarkStateless(b *testing.B) {
	keyBy := operator.KeyBy(func(*jobs.Env) (func([]byte, *jobs.Rec[int]) ([]byte, error), error) {
		return func(dst []byte, r *jobs.Rec[int]) ([]byte, error) { return append(dst, `"device-1234"`...), nil }, nil
	})
	j := jobs.New("bench")
	in := jobs.FromTopic(j, jobs.BusTopic[int]{Name: "in"})
	out, _ := jobs.Attach(in, keyBy)
	kept, _ := jobs.Attach(out, operator.Filter(operator.Evaluator[int, bool](of(func(v int) bool { return true }))))
	jobs.Attach(kept, operator.Map(of(func(v int) int { return v + 1 })))
	n := 0
	outs := [][]any{{func(*jobs.Rec[int]) { n++ }}, nil}
	env := &jobs.Env{Failed: new(bool)}
	for i := len(j.Nodes) - 1; i > 0; i-- {
		built, err := j.Nodes[i].Build(env, outs)
		if err != nil {
			b.Fatal(err)
		}
		outs = [][]any{{built.In}, nil}
	}
	chain := outs[0][0].(func(*jobs.Rec[int]))
	b.Run("chain=key_by,filter,map", func(b *testing.B) {
		b.ReportAllocs()
		var r jobs.Rec[int]
		for b.Loop() {
			r = jobs.Rec[int]{Value: 1, Time: 1}
			chain(&r)
		}
	})
}
