package bus

import "testing"

// TestBrowse: a reader without a subscription finds what one with a subscription would, and holds nothing back.
func TestBrowse(t *testing.T) {
	for _, where := range []string{"memory", "log"} {
		t.Run(where, func(t *testing.T) {
			r, firsts := threeGenerations(t)
			if where == "log" {
				r.durable()
			}
			st, err := r.Bus.Browse(1, 0, Start{At: 5})
			if err != nil {
				t.Fatal(err)
			}
			rd := r.Bus.NewReader(0, 1, []SubState{st}, func() {})
			equal(t, "from offset 5 on", drain(t, rd, 10), []string{"marks 10", "0:5=5", "marks 20", "0:6=6", "0:7=7", "marks 30"})
			if err := rd.Close(); err != nil {
				t.Fatal(err)
			}
			for _, s := range r.Bus.Stats() {
				if len(s.Subscriptions) > 0 {
					t.Errorf("looking made a subscription: %+v", s.Subscriptions)
				}
			}
			if first := r.Bus.First(1, 0); first != 0 {
				t.Errorf("the oldest offset is %s, want 0", first)
			}
			r.durable()
			r.log.drop(firsts[1])
			r.Bus.Dropped(firsts[1])
			if first := r.Bus.First(1, 0); first != 4 {
				t.Errorf("the oldest offset is %s, want 4", first)
			}
			if _, err := r.Bus.Browse(1, 0, Start{At: 3}); err == nil {
				t.Error("an offset that is gone is found")
			}
		})
	}
	r, _ := threeGenerations(t)
	for _, tt := range []struct {
		topic     TopicID
		partition int
	}{{9, 0}, {1, 1}, {1, -1}} {
		if _, err := r.Bus.Browse(tt.topic, tt.partition, Start{}); err == nil {
			t.Errorf("partition %d of topic %d is found", tt.partition, tt.topic)
		}
	}
}
