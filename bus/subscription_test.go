package bus

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sidestream-dev/sidestream/wal"
)

// threeGenerations is a rig whose topic has offsets 0 to 3, 4 to 5 and 6 to 7 in three generations, with marks between them.
func threeGenerations(t *testing.T) (r *rig, firsts []wal.LSN) {
	r = newRig(t, Config{MemoryBytes: 1})
	r.define(1, TopicSpec{Name: "t"})
	r.epoch([]Publication{pub(1, 0, "0", "1")}, join(1))
	r.epoch([]Publication{pub(1, 0, "2", "3")}, at(1, 10))
	firsts = append(firsts, 1, r.rotate())
	r.epoch(nil, join(2))
	r.epoch([]Publication{pub(1, 0, "4", "5")}, at(1, 20), at(2, 30))
	firsts = append(firsts, r.rotate())
	r.epoch([]Publication{pub(1, 0, "6", "7")}, at(1, 40))
	return r, firsts
}

// TestStart: where a subscription begins, what it reads and which watermarks it comes to, with everything in memory, in the
// log, and with generations gone.
func TestStart(t *testing.T) {
	tests := []struct {
		name    string
		drop    int // generations
		start   Start
		begins  string // watermark at the start
		want    []string
		missing string // error
	}{
		{"earliest", 0, Start{Earliest: true}, "none", []string{"0:0=0", "0:1=1", "marks none", "0:2=2", "0:3=3", "marks 10",
			"marks 10", "0:4=4", "0:5=5", "marks 20", "0:6=6", "0:7=7", "marks 30"}, ""},
		{"latest", 0, Start{Latest: true}, "30", nil, ""},
		{"an offset in the first generation takes up the marks before it", 0, Start{At: 2}, "none",
			[]string{"marks none", "0:2=2", "0:3=3", "marks 10", "marks 10", "0:4=4", "0:5=5", "marks 20", "0:6=6", "0:7=7", "marks 30"}, ""},
		{"inside a batch", 0, Start{At: 5}, "10", []string{"marks 10", "0:5=5", "marks 20", "0:6=6", "0:7=7", "marks 30"}, ""},
		{"the first of a generation", 0, Start{At: 6}, "20", []string{"0:6=6", "0:7=7", "marks 30"}, ""},
		{"behind the last", 0, Start{At: 8}, "20", []string{"marks 30"}, ""},
		{"past the end", 0, Start{At: 9}, "", nil, "offset 9 is not there; there are 0 to 7"},
		{"earliest, one generation gone", 1, Start{Earliest: true}, "10",
			[]string{"marks 10", "0:4=4", "0:5=5", "marks 20", "0:6=6", "0:7=7", "marks 30"}, ""},
		{"earliest, two gone", 2, Start{Earliest: true}, "20", []string{"0:6=6", "0:7=7", "marks 30"}, ""},
		{"an offset that is gone", 1, Start{At: 3}, "", nil, "offset 3 is not there; there are 4 to 7"},
		{"the first that is left", 1, Start{At: 4}, "10", []string{"marks 10", "0:4=4", "0:5=5", "marks 20", "0:6=6", "0:7=7", "marks 30"}, ""},
	}
	for _, tt := range tests {
		for _, where := range []string{"memory", "log", "recovered"} {
			t.Run(tt.name+"/"+where, func(t *testing.T) {
				r, firsts := threeGenerations(t)
				if where != "memory" {
					r.durable()
				}
				if tt.drop > 0 {
					r.Dropped(firsts[tt.drop])
					r.log.drop(firsts[tt.drop])
				}
				if where == "recovered" {
					r = r.recovered()
				}
				states, err := r.Subscribe(1, "s", 1, tt.start)
				if tt.missing != "" {
					var gone *OffsetError
					if !errors.As(err, &gone) || !strings.Contains(err.Error(), tt.missing) || r.Subscribed(1) {
						t.Errorf("%v; want %s", err, tt.missing)
					}
					return
				}
				r.must(err)
				if got := level(states[0].Watermark, states[0].Idle); got != tt.begins {
					t.Errorf("it begins at watermark %s, want %s", got, tt.begins)
				}
				rd := r.NewReader(1, 1, states, func() {})
				defer rd.Close()
				equal(t, "read", drain(t, rd, 9), tt.want)
			})
		}
	}
}

// recovered is a rig over the same log whose bus was made from the newest catalog and what lies behind it.
func (r *rig) recovered() *rig {
	n := makeRig(r.t, Config{MemoryBytes: 1}, r.log, r.now)
	r.log.mu.Lock()
	frames := slices.Clone(r.log.frames)
	r.log.mu.Unlock()
	from := len(frames) - 1
	for frames[from].sections[0].Kind != 0x32 {
		from--
	}
	r.must(n.LoadCatalog(frames[from].sections[0].Body))
	n.Generation(frames[from].lsn)
	for _, f := range frames[from+1:] {
		for _, s := range f.sections {
			if s.Kind == SectionIndex {
				pubs, marks, err := DecodeIndex(s.Body)
				r.must(err)
				n.Replay(f.lsn, pubs, marks)
			}
		}
	}
	if r.log.first > 1 {
		n.Dropped(r.log.first)
	}
	return n
}

// TestAllIdleAtTheStart: who begins at the latest record of a topic that is idle is idle, and waits for nobody.
func TestAllIdleAtTheStart(t *testing.T) {
	r := newRig(t, Config{})
	r.define(1, TopicSpec{Name: "t"})
	r.epoch([]Publication{pub(1, 0, "a")}, at(1, 10))
	r.epoch(nil, idle(1))
	if st := r.subscribe(1, 1, Start{Latest: true}); !st[0].Idle || len(st[0].Table) != 1 {
		t.Errorf("%+v", st[0])
	}
}

// TestSubscribeErrors: what cannot be subscribed to, and twice the same.
func TestSubscribeErrors(t *testing.T) {
	r := newRig(t, Config{})
	r.define(1, TopicSpec{Name: "t", Partitions: 2})
	if _, err := r.Subscribe(1, "s", 2, Start{}); err == nil {
		t.Error("a topic that is not there")
	}
	r.subscribe(1, 1, Start{})
	if _, err := r.Subscribe(1, "s", 1, Start{}); err == nil {
		t.Error("a subscription that is there")
	}
	r.epoch([]Publication{pub(1, 1, "a")})
	// In every partition: one of them has no offset 1.
	if _, err := r.Subscribe(2, "s", 1, Start{At: 1}); err == nil || r.Subscribed(2) {
		t.Errorf("an offset that one partition does not have: %v", err)
	}
	r.Unsubscribe(9) // nobody
	r.Passed(9, nil, true)
	if r.Lag(9) != 0 {
		t.Error("nobody has a lag")
	}
}

// TestDefine: names, ids and partitions stay; the rest may change.
func TestDefine(t *testing.T) {
	r := newRig(t, Config{})
	r.define(1, TopicSpec{Name: "t", Partitions: 4})
	for _, bad := range []struct {
		why  string
		id   TopicID
		spec TopicSpec
	}{
		{"no name", 2, TopicSpec{}},
		{"the name of another", 2, TopicSpec{Name: "t"}},
		{"another name", 1, TopicSpec{Name: "u", Partitions: 4}},
		{"other partitions", 1, TopicSpec{Name: "t", Partitions: 3}},
		{"too many partitions", 3, TopicSpec{Name: "x", Partitions: 129}},
		{"negative partitions", 3, TopicSpec{Name: "x", Partitions: -1}},
		{"a negative limit", 3, TopicSpec{Name: "x", Limit: -1}},
		{"a negative retention", 3, TopicSpec{Name: "x", Retention: Retention{MaxBytes: -2}}},
		{"a negative age", 3, TopicSpec{Name: "x", Retention: Retention{MaxAge: -1}}},
		{"what is not known", 3, TopicSpec{Name: "x", OnFull: "explode"}},
	} {
		if err := r.Define(bad.id, bad.spec); err == nil {
			t.Errorf("%s was taken", bad.why)
		} else if !strings.HasPrefix(err.Error(), "bus: ") {
			t.Errorf("%s: %v does not say where", bad.why, err)
		}
	}
	want := TopicSpec{Name: "t", Partitions: 4, Limit: 99}
	r.define(1, want)
	if got := r.Spec(1); got != want {
		t.Errorf("%+v", got)
	}
	if id, ok := r.TopicByName("t"); id != 1 || !ok || r.Partitions(1) != 4 {
		t.Errorf("id %d %v, %d partitions", id, ok, r.Partitions(1))
	}
}

// TestMerge: what is left out is taken from the other; what is said twice and differently is an error that names it.
func TestMerge(t *testing.T) {
	full := TopicSpec{Name: "t", Partitions: 2, Retention: Retention{MaxBytes: 5, MaxAge: time.Hour}, Limit: 9, OnFull: Block}
	for _, o := range []TopicSpec{{Name: "t"}, full, {Name: "t", Limit: 9}} {
		if got, err := full.Merge(o); err != nil || got != full {
			t.Errorf("with %+v: %+v %v", o, got, err)
		}
		if got, err := (TopicSpec{Name: "t"}).Merge(full); err != nil || got != full {
			t.Errorf("%+v %v", got, err)
		}
	}
	for what, o := range map[string]TopicSpec{
		"partitions":          {Name: "t", Partitions: 3},
		"retention.max_bytes": {Name: "t", Retention: Retention{MaxBytes: 6}},
		"retention.max_age":   {Name: "t", Retention: Retention{MaxAge: time.Minute}},
		"limit":               {Name: "t", Limit: 8},
		"on_full":             {Name: "t", OnFull: DropOldest},
		"not the same":        {Name: "u"},
	} {
		if _, err := full.Merge(o); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestAssign gives dense offsets and leaves no trace.
func TestAssign(t *testing.T) {
	r := newRig(t, Config{})
	r.define(1, TopicSpec{Name: "t", Partitions: 2})
	r.define(2, TopicSpec{Name: "u"})
	r.epoch([]Publication{pub(1, 0, "a", "b"), pub(2, 0, "x")})
	pubs := []Publication{pub(1, 0, "c"), pub(1, 1, "d", "e"), pub(2, 0, "y"), pub(1, 0, "f", "g"), pub(1, 1, "h"), pub(1, 0, "i")}
	for range 2 { // an epoch that found no room is assigned again
		r.Assign(pubs)
		var got []string
		for _, p := range pubs {
			got = append(got, fmt.Sprintf("%d/%d@%s", p.Topic, p.Partition, p.Base))
			if p.Bytes != int64(len(p.Data)) {
				t.Errorf("%d bytes of %d", p.Bytes, len(p.Data))
			}
		}
		equal(t, "bases", got, []string{"1/0@2", "1/1@0", "2/0@1", "1/0@3", "1/1@2", "1/0@5"})
		if r.Next(1, 0) != 2 || r.Next(1, 1) != 0 || r.Next(2, 0) != 1 {
			t.Error("Assign has moved offsets")
		}
	}
	r.epoch(pubs)
	if r.Next(1, 0) != 6 || r.Next(1, 1) != 3 || r.Next(2, 0) != 2 || r.Next(1, 7) != 0 || r.Next(9, 0) != 0 {
		t.Error("Publish has not moved offsets")
	}
}
