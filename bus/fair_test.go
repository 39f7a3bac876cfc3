package bus

import (
	"testing"

	"github.com/sidestream-dev/sidestream/wal"
)

// TestPartitionsInTurn: of partitions without event time one that is written all the while does not keep the others from
// being read.
func TestPartitionsInTurn(t *testing.T) {
	const partitions = 3
	b := New(Config{}, nil)
	if err := b.Define(1, TopicSpec{Name: "t", Partitions: partitions}); err != nil {
		t.Fatal(err)
	}
	states, err := b.Subscribe(1, "s", 1, Start{Earliest: true})
	if err != nil {
		t.Fatal(err)
	}
	r := b.NewReader(1, 1, states, func() {})
	var records Builder
	records.Append(Record{Value: []byte("x"), Time: NoTime})
	var read [partitions]int
	for turn := range 10 * partitions {
		for p := range partitions {
			pubs := []Publication{{Topic: 1, Partition: p, Count: 1, Data: records.Bytes()}}
			b.Assign(pubs)
			b.Publish(wal.LSN(turn+1), pubs, nil)
		}
		batch, ok, err := r.Next(1)
		if err != nil || !ok {
			t.Fatalf("turn %d: %v %v", turn, ok, err)
		}
		read[batch.Partition]++
	}
	for p, n := range read {
		if n != 10 {
			t.Errorf("partition %d was read %d times of %d", p, n, 10*partitions)
		}
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}
