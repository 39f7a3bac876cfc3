package bus

import (
	"math"
	"slices"
	"testing"
)

func join(p ProducerID) Mark                { return Mark{Topic: 1, Producer: p, Join: true} }
func leave(p ProducerID) Mark               { return Mark{Topic: 1, Producer: p, Leave: true} }
func idle(p ProducerID) Mark                { return Mark{Topic: 1, Producer: p, Idle: true} }
func at(p ProducerID, watermark int64) Mark { return Mark{Topic: 1, Producer: p, Watermark: watermark} }

// TestMarks: what a reader's watermark, idleness and end are behind each frame's marks, read from memory and from the log.
func TestMarks(t *testing.T) {
	type step struct {
		marks []Mark // of one frame
		want  string
		ended bool
	}
	tests := []struct {
		name  string
		steps []step
	}{
		{"no producer has given a watermark", []step{{marks: []Mark{join(1)}, want: "none"}}},
		{"the watermark is the lowest", []step{
			{marks: []Mark{join(1), join(2)}, want: "none"},
			{marks: []Mark{at(1, 50)}, want: "none"},
			{marks: []Mark{at(2, 40)}, want: "40"},
			{marks: []Mark{at(2, 90)}, want: "50"},
			{marks: []Mark{at(1, 70), at(2, 95)}, want: "70"},
		}},
		{"a watermark that goes back is not heard", []step{
			{marks: []Mark{at(1, 50)}, want: "50"},
			{marks: []Mark{at(1, 20)}, want: "50"},
			{marks: []Mark{at(1, 60)}, want: "60"},
		}},
		{"who joins later holds it until it has passed it", []step{
			{marks: []Mark{join(1)}, want: "none"},
			{marks: []Mark{at(1, 50)}, want: "50"},
			{marks: []Mark{join(2)}, want: "50"},
			{marks: []Mark{at(1, 90)}, want: "50"},
			{marks: []Mark{at(2, 30)}, want: "50"},
			{marks: []Mark{at(2, 60)}, want: "60"},
			{marks: []Mark{at(2, 95)}, want: "90"},
		}},
		{"who joins again stays as it was", []step{
			{marks: []Mark{join(1), at(1, 50)}, want: "50"},
			{marks: []Mark{join(1)}, want: "50"},
			{marks: []Mark{at(1, 60)}, want: "60"},
		}},
		{"who is idle does not hold it", []step{
			{marks: []Mark{at(1, 50), at(2, 40)}, want: "40"},
			{marks: []Mark{idle(2)}, want: "50"},
			{marks: []Mark{at(1, 80)}, want: "80"},
			{marks: []Mark{at(2, 45)}, want: "80"}, // back, behind: it holds, and its records are late
			{marks: []Mark{at(1, 99)}, want: "80"},
			{marks: []Mark{at(2, 85)}, want: "85"},
		}},
		{"all idle is idle", []step{
			{marks: []Mark{at(1, 50), join(2)}, want: "none"},
			{marks: []Mark{idle(2)}, want: "50"},
			{marks: []Mark{idle(1)}, want: "50 idle"},
			{marks: []Mark{at(2, 10)}, want: "50"},
			{marks: []Mark{idle(2)}, want: "50 idle"},
			{marks: []Mark{leave(2)}, want: "50 idle"},
		}},
		{"idle from the first", []step{
			{marks: []Mark{join(1)}, want: "none"},
			{marks: []Mark{idle(1)}, want: "none idle"},
			{marks: []Mark{at(1, 7)}, want: "7"},
		}},
		{"who leaves is struck out", []step{
			{marks: []Mark{at(1, 50), at(2, 90)}, want: "50"},
			{marks: []Mark{leave(1)}, want: "90"},
			{marks: []Mark{leave(1)}, want: "90"},
			{marks: []Mark{leave(7)}, want: "90"},
		}},
		{"ended: it had producers and none is left", []step{
			{marks: []Mark{join(1), join(2)}, want: "none"},
			{marks: []Mark{at(1, 50), at(2, 60)}, want: "50"},
			{marks: []Mark{leave(2)}, want: "50"},
			{marks: []Mark{leave(1)}, want: "50", ended: true},
		}},
		{"joined and left in one frame", []step{{marks: []Mark{join(1), leave(1)}, want: "none", ended: true}}},
		{"a producer that joins later opens it again", []step{
			{marks: []Mark{join(1), at(1, 50)}, want: "50"},
			{marks: []Mark{leave(1)}, want: "50", ended: true},
			{marks: []Mark{join(2)}, want: "50"},
			{marks: []Mark{at(2, 40)}, want: "50"},
			{marks: []Mark{at(2, 55)}, want: "55"},
			{marks: []Mark{leave(2)}, want: "55", ended: true},
		}},
		{"a final watermark is none", []step{
			{marks: []Mark{at(1, 50)}, want: "50"},
			{marks: []Mark{at(1, math.MaxInt64)}, want: "50"},
			{marks: []Mark{at(2, math.MaxInt64)}, want: "50"},
			{marks: []Mark{leave(2)}, want: "50"},
		}},
		{"of other topics, between ours", []step{
			{marks: []Mark{join(1), {Topic: 2, Producer: 1, Join: true}, join(2)}, want: "none"},
			{marks: []Mark{at(1, 50), {Topic: 2, Producer: 1, Watermark: 10}, at(2, 60)}, want: "50"},
			{marks: []Mark{{Topic: 2, Producer: 1, Leave: true}, leave(1)}, want: "60"},
		}},
	}
	for _, tt := range tests {
		for _, where := range []string{"memory", "log"} {
			t.Run(tt.name+"/"+where, func(t *testing.T) {
				r := newRig(t, Config{MemoryBytes: 1})
				r.define(1, TopicSpec{Name: "t", Partitions: 2})
				r.define(2, TopicSpec{Name: "other"})
				states := r.subscribe(1, 1, Start{Earliest: true})
				rd := r.NewReader(1, 1, states, func() {})
				defer rd.Close()
				drain(t, rd, 9)
				if rd.Ended() {
					t.Error("ended before there was a producer")
				}
				for i, s := range tt.steps {
					r.epoch(nil, s.marks...)
					if where == "log" {
						r.durable()
					}
					got := drain(t, rd, 9)
					w, idle := rd.Watermark()
					if level(w, idle) != s.want || rd.Ended() != s.ended {
						t.Errorf("frame %d: %s, ended %v; want %s, ended %v", i, level(w, idle), rd.Ended(), s.want, s.ended)
					}
					if len(got) != 2 {
						t.Errorf("frame %d: %q: want the marks once in each partition", i, got)
					}
				}
			})
		}
	}
}

// TestEndedOnlyWhenRead: the leaving is behind the records; before they are read the topic has not ended.
func TestEndedOnlyWhenRead(t *testing.T) {
	r := newRig(t, Config{})
	r.define(1, TopicSpec{Name: "t", Partitions: 2})
	rd := r.NewReader(1, 1, r.subscribe(1, 1, Start{Earliest: true}), func() {})
	defer rd.Close()
	r.epoch([]Publication{pub(1, 0, "a"), pub(1, 1, "b")}, join(1))
	r.epoch([]Publication{pub(1, 1, "c")}, leave(1))
	for n := 0; ; n++ {
		_, ok, err := rd.Next(1)
		r.must(err)
		if !ok {
			if n != 7 { // 3 records, 2 × 2 marks
				t.Errorf("%d batches", n)
			}
			break
		}
		if rd.Ended() || rd.CaughtUp() {
			t.Fatalf("ended %v, caught up %v after %d batches of what is there", rd.Ended(), rd.CaughtUp(), n+1)
		}
	}
	if !rd.Ended() || !rd.CaughtUp() {
		t.Errorf("ended %v, caught up %v", rd.Ended(), rd.CaughtUp())
	}
}

// TestSeveralPartitions: a reader's watermark is the lowest of its partitions that are not idle, and it reads the one
// furthest behind in event time first.
func TestSeveralPartitions(t *testing.T) {
	r := newRig(t, Config{})
	r.define(1, TopicSpec{Name: "t", Partitions: 3})
	states := r.subscribe(1, 1, Start{Earliest: true})
	states[0].Watermark, states[1].Watermark, states[2].Watermark = 70, 50, 10
	states[2].Idle = true
	rd := r.NewReader(1, 1, states, func() {})
	defer rd.Close()
	if w, idle := rd.Watermark(); w != 50 || idle {
		t.Errorf("watermark %d, idle %v", w, idle)
	}
	states[0].Idle, states[1].Idle = true, true
	all := r.NewReader(1, 1, states, func() {})
	defer all.Close()
	if w, idle := all.Watermark(); w != 10 || !idle {
		t.Errorf("all idle: watermark %d, idle %v", w, idle)
	}

	timed := func(partition int, times ...int64) Publication {
		var b Builder
		for _, at := range times {
			b.Append(Record{Value: []byte("v"), Time: at})
		}
		return Publication{Topic: 1, Partition: partition, Count: len(times), Data: b.Bytes()}
	}
	r.epoch([]Publication{timed(0, 10, 11, 50, 51), timed(1, 20, 21, 60, 61), timed(2, 1, 2, 90, 91)})
	var order []int
	for {
		b, ok, err := rd.Next(2)
		r.must(err)
		if !ok {
			break
		}
		order = append(order, b.Partition)
	}
	// Each once, since nothing was seen of them; then the one whose last was 2, 11, 21.
	if want := []int{0, 1, 2}; !slices.Equal(order[:3], want) || !slices.Equal(order[3:], []int{2, 0, 1}) {
		t.Errorf("read in the order %v", order)
	}
}

// TestBlame: who holds the watermark is named.
func TestBlame(t *testing.T) {
	r := newRig(t, Config{})
	r.define(1, TopicSpec{Name: "t"})
	rd := r.NewReader(1, 1, r.subscribe(1, 1, Start{Earliest: true}), func() {})
	defer rd.Close()
	for _, step := range []struct {
		marks []Mark
		want  []ProducerID
	}{
		{[]Mark{join(1), join(2), join(3)}, []ProducerID{1, 2, 3}},
		{[]Mark{at(1, 50), at(2, 40), at(3, 40)}, []ProducerID{2, 3}},
		{[]Mark{idle(2), at(3, 60)}, []ProducerID{1}},
		{[]Mark{idle(1), idle(3)}, nil},
		{[]Mark{leave(1), leave(2), leave(3)}, nil},
	} {
		r.epoch(nil, step.marks...)
		drain(t, rd, 9)
		if got := rd.Blame(); !slices.Equal(got, step.want) {
			t.Errorf("after %+v: %v, want %v", step.marks, got, step.want)
		}
	}
}

// TestProducers: the bus knows who writes a topic, whether anybody ever did, and forgets with the topic.
func TestProducers(t *testing.T) {
	r := newRig(t, Config{})
	r.define(1, TopicSpec{Name: "t"})
	if r.Written(1) || r.Producers(1) != nil {
		t.Error("a new topic has producers")
	}
	r.epoch(nil, join(5), join(2))
	r.epoch(nil, leave(5))
	if got := r.Producers(1); !slices.Equal(got, []ProducerID{2}) || !r.Written(1) {
		t.Errorf("producers %v, written %v", got, r.Written(1))
	}
	r.epoch(nil, leave(2))
	if got := r.Producers(1); got != nil || !r.Written(1) {
		t.Errorf("producers %v, written %v", got, r.Written(1))
	}
}

// TestReaderOfNothing: a reader without partitions, or of a topic that is gone, has ended.
func TestReaderOfNothing(t *testing.T) {
	r := newRig(t, Config{})
	r.define(1, TopicSpec{Name: "t"})
	if rd := r.NewReader(1, 1, nil, func() {}); !rd.Ended() || !rd.CaughtUp() {
		t.Error("a reader of no partitions has not ended: nothing will ever wake it")
	}
	if rd := r.NewReader(1, 9, []SubState{{}}, func() {}); !rd.Ended() {
		t.Error("a reader of no topic has not ended")
	}
	wrong := r.NewReader(1, 1, []SubState{{Partition: 1}}, func() {})
	if _, _, err := wrong.Next(1); err == nil || wrong.Ended() {
		t.Errorf("a reader of a partition that is not there: %v, ended %v", err, wrong.Ended())
	}

	woken := 0
	rd := r.NewReader(1, 1, r.subscribe(1, 1, Start{Earliest: true}), func() { woken++ })
	defer rd.Close()
	r.epoch([]Publication{pub(1, 0, "a")}, join(1))
	drain(t, rd, 9)
	r.epoch([]Publication{pub(1, 0, "b")})
	before := woken
	r.Remove(1)
	if woken == before {
		t.Error("removing the topic wakes nobody")
	}
	if got := drain(t, rd, 9); got != nil || !rd.Ended() {
		t.Errorf("read of a topic that was removed: %q, ended %v", got, rd.Ended())
	}
	if len(r.Pins()) != 0 || r.Subscribed(1) {
		t.Errorf("left of a topic that was removed: %+v, subscription %v", r.Pins(), r.Subscribed(1))
	}
	if _, ok := r.TopicByName("t"); ok || r.Partitions(1) != 0 || r.Spec(1) != (TopicSpec{}) || r.Next(1, 0) != 0 {
		t.Error("a topic that was removed is still there")
	}
	r.epoch([]Publication{pub(1, 0, "c")}, at(1, 5)) // of an epoch under way
	r.define(2, TopicSpec{Name: "t"})                // the name is free
}

// TestApplyMarkKeepsOrder: the table stays sorted, whoever comes and goes.
func TestApplyMarkKeepsOrder(t *testing.T) {
	var table []ProducerMark
	for _, p := range []ProducerID{5, 1, math.MaxUint32, 3, 0} {
		table = applyMark(table, join(p))
	}
	table = applyMark(table, leave(3))
	var ids []ProducerID
	for _, p := range table {
		ids = append(ids, p.Producer)
	}
	if !slices.Equal(ids, []ProducerID{0, 1, 5, math.MaxUint32}) || !sorted(table) {
		t.Errorf("the table is %v", ids)
	}
}
