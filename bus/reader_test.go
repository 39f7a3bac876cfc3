package bus

import (
	"fmt"
	"testing"
)

// TestBackToMemory: a reader that lagged and reads the log goes on in memory as soon as it has come to what is there, and
// not only at the end of the log: it shares values then and need not read what others write meanwhile.
func TestBackToMemory(t *testing.T) {
	r := newRig(t, Config{MemoryBytes: 2000})
	r.define(1, TopicSpec{Name: "t"})
	rd := r.NewReader(1, 1, r.subscribe(1, 1, Start{Earliest: true}), func() {})
	defer rd.Close()
	write := func(n int) {
		p := hundred(1, 0)
		p.Payload = []string{fmt.Sprint(n)}
		r.epoch([]Publication{p})
		r.durable()
	}
	for n := range 100 {
		write(n)
	}
	cold, live := 0, 0
	for n := 0; ; n++ {
		b, ok, err := rd.Next(1)
		r.must(err)
		if !ok {
			break
		}
		if b.Base != Offset(n) {
			t.Fatalf("record %d: %+v", n, b)
		}
		if b.Payload != nil {
			live++
		} else if cold++; live > 0 {
			t.Fatalf("record %d comes from the log again", n)
		}
		if n < 400 && (n%4 == 0 || r.Next(1, 0) < Offset(n)+4) {
			write(100 + n) // while it reads on, so that it comes near the end and to none
		}
	}
	if r.log.opens != 1 || cold < 100 || live < 50 {
		t.Errorf("the log was opened %d times; %d records came from it, %d from memory", r.log.opens, cold, live)
	}
}
