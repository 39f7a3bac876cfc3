package runtime

import (
	"testing"
	"time"
)

// TestSeldom: what goes wrong every second for an hour is said at once, then ever more seldom, but at least every ten minutes; and
// at once again when it had been over.
func TestSeldom(t *testing.T) {
	var s seldom
	at := time.Unix(0, 0)
	for range 2 {
		var said []int
		for second := range 3600 {
			if s.again(at.Add(time.Duration(second) * time.Second)) {
				said = append(said, second)
			}
		}
		if len(said) != 14 || said[0] != 0 || said[1] != 2 || said[2] != 6 || said[3] != 14 || said[13]-said[12] != 600 {
			t.Errorf("said at seconds %v", said)
		}
		if n := s.over(); n != 3600 {
			t.Errorf("%d times", n)
		}
	}
}
