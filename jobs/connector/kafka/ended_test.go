package kafka

import (
	"slices"
	"testing"
	"time"
)

// TestEndedGivesItsRoomBack: what was fetched of a partition that has ended, or behind its end, takes no room from the others:
// they are read on, however small the buffer is.
func TestEndedGivesItsRoomBack(t *testing.T) {
	addr := broker(t, &Embedded{})
	cl := client(t, addr)
	in := topicName(t)
	makeTopic(t, cl, in, 3)
	produce(t, cl, in, 3, 0, 90)
	s := Source{Brokers: []string{addr}, Topics: []string{in}, End: "latest", BufferBytes: 1, PartitionBytes: 64, FetchWait: 50 * time.Millisecond}
	st := splits(t, s)
	produce(t, cl, in, 3, 90, 300) // is not read
	produce(t, cl, in, 1, 300, 2000)
	got := readN(t, s, st, -1)
	slices.Sort(got)
	if len(slices.Compact(got)) != 90 {
		t.Errorf("%d records, want 90, each once", len(got))
	}
}
