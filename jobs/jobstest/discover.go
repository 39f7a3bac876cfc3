package jobstest

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/sidestream-dev/sidestream/jobs"
)

// found returns the splits that a source finds beside those of env.Known, as it does so while it is read and, as after a
// crash that came before their first epoch, in Splits: they must be the same.
func (s SourceSuite) found(t *testing.T, src jobs.Source, env jobs.SourceEnv) []jobs.Start {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), s.Wait)
	defer cancel()
	found, err := src.(jobs.Discoverer).Discover(ctx, env)
	if err != nil {
		t.Fatalf("Discover: %v", err)
	}
	isNew := func(st jobs.Start) bool {
		return !slices.ContainsFunc(env.Known, func(k jobs.Start) bool { return k.Split.ID == st.Split.ID })
	}
	listed := slices.DeleteFunc(s.splitsOf(t, src, env), func(st jobs.Start) bool { return !isNew(st) })
	if len(found) == 0 || len(found) != len(listed) {
		t.Fatalf("Discover found %d splits, and Splits lists %d new ones", len(found), len(listed))
	}
	for i := range found {
		if !isNew(found[i]) || found[i].Split != listed[i].Split || string(found[i].Position) != string(listed[i].Position) {
			t.Fatalf("Discover found %+v, and Splits lists %+v", found[i], listed[i])
		}
	}
	return found
}

// takeFrom reads n records of the splits in want and checks that no other comes.
func (s SourceSuite) takeFrom(t *testing.T, r jobs.Reader, want []int, n int) (out []jobs.Message) {
	t.Helper()
	c, deadline := &jobs.Chunk{}, time.After(s.Wait)
	for len(out) < n {
		c.Reset()
		c.Max = 3
		if err := r.Read(c, want); err != nil {
			t.Fatalf("Read: %v", err)
		}
		if len(c.Messages) > 0 && !slices.Contains(want, c.Split) {
			t.Fatalf("Read gave split %d, wanted %v", c.Split, want)
		}
		out = append(out, c.Messages...)
		if len(c.Messages) > 0 {
			continue
		}
		select {
		case <-r.Ready():
		case <-deadline:
			t.Fatalf("%d of %d records of a new split read within %v", len(out), n, s.Wait)
		}
	}
	return out
}

func (s SourceSuite) grows(t *testing.T) {
	src, r, want := s.drained(t)
	env := s.env(t, s.Dir)
	starts := s.splitsOf(t, src, env)
	env.Known = starts
	n := s.Split(t)
	found := s.found(t, src, env)
	if err := r.(jobs.Grower).Add(found); err != nil {
		t.Fatalf("Add: %v", err)
	}
	for i := range found {
		want = append(want, len(starts)+i)
	}
	got := s.takeFrom(t, r, want[len(starts):], n)
	s.sameAgain(t, src, env, found, got)
}

// growsFromNothing opens a reader without a split, as one of many subtasks may be, and gives it the new ones.
func (s SourceSuite) growsFromNothing(t *testing.T) {
	src, env := s.New(t), s.env(t, s.Dir)
	env.Known = s.splitsOf(t, src, env)
	ctx, cancel := context.WithTimeout(t.Context(), s.Wait)
	defer cancel()
	r, err := src.Open(ctx, env, nil)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	defer r.Close()
	c := &jobs.Chunk{Max: 1}
	if err := r.Read(c, nil); err != nil || len(c.Messages) > 0 {
		t.Fatalf("Read of nothing gives %d records, %v", len(c.Messages), err)
	}
	n := s.Split(t)
	found := s.found(t, src, env)
	if err := r.(jobs.Grower).Add(found); err != nil {
		t.Fatalf("Add: %v", err)
	}
	want := make([]int, len(found))
	for i := range want {
		want[i] = i
	}
	s.sameAgain(t, src, env, found, s.takeFrom(t, r, want, n))
}

// sameAgain reads the new splits once more, as after a crash.
func (s SourceSuite) sameAgain(t *testing.T, src jobs.Source, env jobs.SourceEnv, found []jobs.Start, want []jobs.Message) {
	t.Helper()
	again := s.read(t, src, env, found, 2, len(want), nil)
	for i := range again {
		if len(found) == 1 && !sameMessage(again[i].m, want[i]) {
			t.Fatalf("record %d of the new split was %q and is %q to the next reader", i, want[i].Value, again[i].m.Value)
		}
	}
}
