package bus

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// hundred makes a publication of one record whose section has 100 bytes.
func hundred(topic TopicID, partition int) Publication {
	p := pub(topic, partition, strings.Repeat("x", 98))
	if len(p.Data) != 100 {
		panic(len(p.Data))
	}
	return p
}

func (r *rig) passed(id SubID, partition int, next Offset, durable bool) {
	r.Passed(id, []SubState{{Partition: partition, Position: Position{Next: next}}}, durable)
}

// checkFull compares what Full says of topic 1.
func (r *rig) checkFull(what, who string, fill float64) {
	r.t.Helper()
	gotWho, full, gotFill := r.Full(1)
	if gotWho != who || full != (who != "") || full && (gotFill < fill-0.001 || gotFill > fill+0.001) {
		r.t.Errorf("%s: full %v by %q at %.2f; want %q at %.2f", what, full, gotWho, gotFill, who, fill)
	}
}

func (r *rig) checkTold(what string, near []string, rooms []TopicID) {
	r.t.Helper()
	equal(r.t, what+": nearly full", r.near, near)
	if !slices.Equal(r.rooms, rooms) {
		r.t.Errorf("%s: room in %v, want %v", what, r.rooms, rooms)
	}
	r.near, r.rooms = nil, nil
}

// TestLimit: what a subscription found never counts; what was written since it came and it has not passed does; at 80 % it
// is announced, at the limit the topic is full by the subscription that is furthest behind, until that one has read.
func TestLimit(t *testing.T) {
	r := newRig(t, Config{})
	r.define(1, TopicSpec{Name: "t", Limit: 1000})
	for range 20 {
		r.epoch([]Publication{hundred(1, 0)})
	}
	r.checkFull("nobody subscribes", "", 0)
	r.subscribe(1, 1, Start{Earliest: true})
	r.checkFull("2,000 bytes were found", "", 0)
	for range 7 {
		r.epoch([]Publication{hundred(1, 0)})
	}
	r.checkTold("at 70 %", nil, nil)
	r.subscribe(2, 1, Start{Latest: true})
	r.epoch([]Publication{hundred(1, 0)})
	r.checkTold("at 80 %", []string{"t sub1 0.80"}, nil)
	r.epoch([]Publication{hundred(1, 0)})
	r.checkTold("said once", nil, nil)
	r.checkFull("at 90 %", "", 0)
	r.epoch([]Publication{hundred(1, 0)})
	r.checkFull("at the limit", "sub1", 1)
	r.epoch([]Publication{hundred(1, 0), hundred(1, 0)})
	r.checkFull("beyond it, by epochs under way", "sub1", 1.2)

	r.passed(1, 0, 20, false)
	r.checkFull("the history was passed, which never counted", "sub1", 1.2)
	r.passed(1, 0, 22, false)
	r.checkFull("two records passed", "sub1", 1)
	r.checkTold("still full", nil, nil)
	r.passed(1, 0, 23, false)
	r.checkFull("a third one", "", 0)
	r.checkTold("room", nil, []TopicID{1})
	r.passed(1, 0, 23, true)
	r.checkTold("durable says nothing new", nil, nil)
	r.epoch([]Publication{hundred(1, 0)})
	r.checkFull("full again", "sub1", 1)
	r.checkTold("not read below 40 % since it was said", nil, nil)
	r.passed(1, 0, 5, true)
	r.checkFull("passing never goes back", "sub1", 1)

	r.Unsubscribe(1)
	r.checkFull("the reader at fault is detached", "", 0)
	r.checkTold("room", nil, []TopicID{1})
	if lag := r.Lag(2); lag != 6 {
		t.Errorf("the other one has %d records to read", lag)
	}
	for range 4 {
		r.epoch([]Publication{hundred(1, 0)})
	}
	r.checkFull("now the other one", "sub2", 1)
	r.checkTold("of whom it is said anew", []string{"t sub2 0.80"}, nil)
	r.passed(2, 0, 37, false)
	r.checkFull("all read", "", 0)
	r.checkTold("room", nil, []TopicID{1})
	for range 8 {
		r.epoch([]Publication{hundred(1, 0)})
	}
	r.checkTold("said again", []string{"t sub2 0.80"}, nil)
}

// TestLimitNamesWhoIsLeft: where the reader that was furthest behind reads on and another one keeps the topic full, that is
// told, and the other one announced.
func TestLimitNamesWhoIsLeft(t *testing.T) {
	r := newRig(t, Config{})
	r.define(1, TopicSpec{Name: "t", Limit: 1000})
	r.subscribe(1, 1, Start{Earliest: true})
	r.subscribe(2, 1, Start{Earliest: true})
	for range 10 {
		r.epoch([]Publication{hundred(1, 0)})
	}
	r.checkFull("both as far behind", "sub1", 1)
	r.checkTold("both", []string{"t sub1 0.80"}, nil)
	r.passed(1, 0, 9, false)
	r.checkFull("one has read", "sub2", 1)
	r.checkTold("one has read", []string{"t sub2 1.00"}, []TopicID{1})
	r.passed(1, 0, 10, false)
	r.checkTold("nothing new", nil, nil)
	r.passed(2, 0, 1, false)
	r.checkTold("room", nil, []TopicID{1})
}

// TestLimitAfterRecovery: a topic that was full is full after a restart, and it is announced again once it is written.
func TestLimitAfterRecovery(t *testing.T) {
	r := newRig(t, Config{})
	r.define(1, TopicSpec{Name: "t", Limit: 1000})
	r.subscribe(1, 1, Start{Earliest: true})
	for range 5 {
		r.epoch([]Publication{hundred(1, 0)})
	}
	r.rotate()
	for range 5 {
		r.epoch([]Publication{hundred(1, 0)})
	}
	r.durable()
	n := r.recovered()
	n.checkFull("full by what lies behind the catalog", "sub1", 1)
	n.checkTold("recovery", nil, nil)
	n.epoch([]Publication{hundred(1, 0)})
	n.checkTold("the first epoch", []string{"t sub1 1.10"}, nil)
	n.rotate()
	n.durable()
	n = n.recovered()
	n.checkFull("full by the catalog", "sub1", 1.1)
	n.passed(1, 0, 11, false)
	n.checkTold("read", nil, []TopicID{1})
}

// TestLimitOverPartitions: the bytes of all partitions count together.
func TestLimitOverPartitions(t *testing.T) {
	r := newRig(t, Config{})
	r.define(1, TopicSpec{Name: "t", Partitions: 4, Limit: 1000})
	r.subscribe(1, 1, Start{Earliest: true})
	for i := range 10 {
		r.checkFull(fmt.Sprintf("%d", i), "", 0)
		r.epoch([]Publication{hundred(1, i%4)})
	}
	r.checkFull("ten", "sub1", 1)
	r.passed(1, 3, 2, false)
	r.checkFull("one partition was read", "", 0)
}

// TestLimitChanges: a topic whose definition gives it more room is not full any more, and its writers hear of it.
func TestLimitChanges(t *testing.T) {
	r := newRig(t, Config{})
	r.define(1, TopicSpec{Name: "t", Limit: 1000})
	r.subscribe(1, 1, Start{Earliest: true})
	for range 10 {
		r.epoch([]Publication{hundred(1, 0)})
	}
	r.checkFull("at the limit", "sub1", 1)
	r.checkTold("", []string{"t sub1 0.80"}, nil)
	r.define(1, TopicSpec{Name: "t", Limit: 5000})
	r.checkFull("a higher limit", "", 0)
	r.checkTold("a higher limit", nil, []TopicID{1})
	r.define(1, TopicSpec{Name: "t", Limit: 500})
	r.checkFull("a lower one", "sub1", 2)
	r.Remove(1)
	r.checkTold("removed", []string{"t sub1 2.00"}, []TopicID{1})
}

// TestLimitIsAboutBytes: how much lies before an offset is known to within a fraction of a byteStep, whatever the sizes,
// and a batch read in part counts in part.
func TestLimitIsAboutBytes(t *testing.T) {
	r := newRig(t, Config{})
	r.define(1, TopicSpec{Name: "t"})
	r.subscribe(1, 1, Start{Earliest: true})
	var before []int64 // exactly
	total := int64(0)
	for i := range 3000 {
		n := 1 + i%7
		var values []string
		for range n {
			values = append(values, strings.Repeat("x", 1+(i*37)%1500))
		}
		p := pub(1, 0, values...)
		for k := range n {
			before = append(before, total+int64(k*len(p.Data)/n))
		}
		total += int64(len(p.Data))
		r.epoch([]Publication{p})
	}
	p := r.topics[1].parts[0]
	last := int64(0)
	for o, want := range before {
		got := p.bytesAt(Offset(o))
		if got < last {
			t.Fatalf("before offset %d lie %d bytes, before the one before it %d", o, got, last)
		}
		if last = got; got < want-byteStep || got > want+byteStep {
			t.Fatalf("before offset %d lie %d bytes, not %d", o, want, got)
		}
	}
	if got := p.bytesAt(Offset(len(before)) + 5); got != total {
		t.Errorf("all %d bytes: %d", total, got)
	}
	if n := len(p.points); int64(n) > total/byteStep+1 {
		t.Errorf("%d points for %d bytes", n, total)
	}
}

// pinned returns the pins as text.
func (r *rig) pinned() (out []string) {
	for _, p := range r.Pins() {
		out = append(out, fmt.Sprintf("%s %d/%d %s", p.Who, p.Topic, p.Subscription, p.LSN))
	}
	return out
}

// TestPins: a subscription that has something to read pins the log, counted by durable epochs; so does what retention
// keeps. Oldest first.
func TestPins(t *testing.T) {
	r := newRig(t, Config{})
	r.define(1, TopicSpec{Name: "t", Retention: Retention{MaxBytes: KeepNothing}})
	r.define(2, TopicSpec{Name: "u", Retention: Retention{MaxBytes: KeepNothing}, Partitions: 2})
	equal(t, "nothing there", r.pinned(), nil)
	r.subscribe(1, 1, Start{Earliest: true})
	r.subscribe(2, 2, Start{Earliest: true})
	equal(t, "nothing to read", r.pinned(), nil)
	r.epoch([]Publication{hundred(1, 0), hundred(2, 0)}) // 2
	r.epoch([]Publication{hundred(1, 0)})                // 3
	equal(t, "nothing read", r.pinned(), []string{"subscription sub1 1/1 2", "subscription sub2 2/2 2"})
	r.Passed(1, []SubState{{Position: Position{Next: 2, Marks: 3}}}, false)
	equal(t, "sealed is not enough", r.pinned(), []string{"subscription sub1 1/1 2", "subscription sub2 2/2 2"})
	r.Passed(1, []SubState{{Position: Position{Next: 1, Marks: 2}}}, true)
	equal(t, "one frame read", r.pinned(), []string{"subscription sub2 2/2 2", "subscription sub1 1/1 3"})
	r.Passed(1, []SubState{{Position: Position{Next: 2, Marks: 3}}}, true)
	equal(t, "all read", r.pinned(), []string{"subscription sub2 2/2 2"})
	r.rotate()                                           // 4
	r.epoch([]Publication{hundred(1, 0), hundred(2, 1)}) // 5
	// What lies between is none of sub1's, which may begin at the generation; sub2 has read nothing of partition 1 either.
	equal(t, "in the next generation", r.pinned(), []string{"subscription sub2 2/2 2", "subscription sub1 1/1 4", "subscription sub2 2/2 4"})
	r.Unsubscribe(2)
	equal(t, "detached", r.pinned(), []string{"subscription sub1 1/1 4"})
	r.Unsubscribe(1)
	equal(t, "nobody", r.pinned(), nil)
}

// TestRetention: records that everybody has passed stay by generations: until as many bytes were written behind them, or
// until their generation has ended for so long.
func TestRetention(t *testing.T) {
	tests := []struct {
		name string
		keep Retention
		want []string // pins after 300 bytes in each of generations 1, 4 and 7, a minute each; then hours later
		late []string
	}{
		{"by default", Retention{}, []string{"retention of topic t 1/0 1"}, []string{"retention of topic t 1/0 1"}},
		{"nothing", Retention{MaxBytes: KeepNothing}, nil, nil},
		{"one byte keeps the newest generation", Retention{MaxBytes: 1}, []string{"retention of topic t 1/0 7"}, []string{"retention of topic t 1/0 7"}},
		{"what lies behind is enough", Retention{MaxBytes: 300}, []string{"retention of topic t 1/0 7"}, []string{"retention of topic t 1/0 7"}},
		{"what lies behind is not", Retention{MaxBytes: 301}, []string{"retention of topic t 1/0 4"}, []string{"retention of topic t 1/0 4"}},
		{"all", Retention{MaxBytes: 900}, []string{"retention of topic t 1/0 1"}, []string{"retention of topic t 1/0 1"}},
		{"an hour", Retention{MaxAge: time.Hour}, []string{"retention of topic t 1/0 1"}, []string{"retention of topic t 1/0 7"}},
		{"a minute and a half", Retention{MaxAge: 90 * time.Second}, []string{"retention of topic t 1/0 4"}, []string{"retention of topic t 1/0 7"}},
		{"an hour, or 300 bytes", Retention{MaxAge: time.Hour, MaxBytes: 300}, []string{"retention of topic t 1/0 7"}, []string{"retention of topic t 1/0 7"}},
		{"a minute and a half, or 900 bytes", Retention{MaxAge: 90 * time.Second, MaxBytes: 900}, []string{"retention of topic t 1/0 4"}, []string{"retention of topic t 1/0 7"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, Config{})
			r.define(1, TopicSpec{Name: "t", Partitions: 2, Retention: tt.keep})
			for g := range 3 {
				if g > 0 {
					r.now = r.now.Add(time.Minute)
					r.rotate()
				}
				r.epoch([]Publication{hundred(1, 0), hundred(1, 1)})
				r.epoch([]Publication{hundred(1, 1)})
			}
			r.now = r.now.Add(30 * time.Second)
			equal(t, "pins", r.pinned(), tt.want)
			r.durable()
			equal(t, "pins after a restart", r.recovered().pinned(), tt.want)
			r.now = r.now.Add(10 * time.Hour)
			equal(t, "pins later", r.pinned(), tt.late)
			n := r.recovered()
			n.now = r.now
			equal(t, "pins later, after a restart", n.pinned(), tt.late)
		})
	}
}

// TestRetentionOfQuietTopic: a generation that holds nothing of a topic is not kept for it, and one that the topic did not
// exist in is none of its business.
func TestRetentionOfQuietTopic(t *testing.T) {
	r := newRig(t, Config{})
	r.rotate() // 2
	r.define(1, TopicSpec{Name: "t"})
	equal(t, "empty", r.pinned(), nil)
	r.rotate()                               // 3
	r.epoch([]Publication{hundred(1, 0)})    // 4
	r.rotate()                               // 5
	r.epoch(nil, Mark{Topic: 1, Idle: true}) // 6
	equal(t, "one generation has records", r.pinned(), []string{"retention of topic t 1/0 3"})
	r.Dropped(5)
	equal(t, "dropped", r.pinned(), nil)
	if st := r.Stats()[0].Partitions[0]; st.First != 1 || st.Next != 1 || st.Bytes != 100 {
		t.Errorf("%+v", st)
	}
}

// TestStats: by name, with what people want to know.
func TestStats(t *testing.T) {
	r := someBus(t)
	st := r.Stats()
	if len(st) != 2 || st[0].Name != "alerts" || st[1].Name != "late" || st[1].Hidden || st[0].Hidden || !st[1].Full {
		t.Fatalf("%+v", st)
	}
	r.define(9, TopicSpec{Name: "job/output", Retention: Retention{MaxBytes: KeepNothing}})
	if st := r.Stats(); len(st) != 3 || st[1].Name != "job/output" || !st[1].Hidden {
		t.Errorf("an output on its way outside: %+v", st)
	}
	if p := st[0].Partitions[1]; p.Next != 3 || p.Bytes != 9 || p.Memory == 0 {
		t.Errorf("%+v", p)
	}
	if s := st[0].Subscriptions[0]; s.ID != 7 || s.Lag != 2 || s.Unread != 6 {
		t.Errorf("%+v", s)
	}
	if r.Lag(7) != 2 || st[0].MaxAge != time.Hour || st[1].Limit != 10 || len(st[0].Producers) != 2 {
		t.Errorf("%+v", st)
	}
}
