package bench

import (
	"testing"
	"time"

	"github.com/sidestream-dev/sidestream/jobs"
)

// TestTickerLasts: how long it lasts counts from when it is opened, however late that is: there are always events to divide by.
func TestTickerLasts(t *testing.T) {
	tick := ticker{rate: overheadRate, lasts: time.Millisecond}
	time.Sleep(2 * tick.lasts) // as a start on a slow disk does
	starts, err := tick.Splits(t.Context(), jobs.SourceEnv{})
	if err != nil || !tick.Bounded() {
		t.Fatal(err)
	}
	r, err := tick.Open(t.Context(), jobs.SourceEnv{}, starts)
	if err != nil {
		t.Fatal(err)
	}
	defer r.(interface{ Close() error }).Close()
	given := 0
	for c := (&jobs.Chunk{Max: 1000}); !c.Ended; {
		c.Messages = c.Messages[:0]
		if err := r.Read(c, []int{0}); err != nil {
			t.Fatal(err)
		}
		given += len(c.Messages)
	}
	if given == 0 {
		t.Error("it has ended without an event")
	}
}
