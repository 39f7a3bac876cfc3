package runtime

import (
	"context"
	"errors"
	"testing"
)

// TestEnterWhileClosing: who wants to change a job while the runtime stops, before it has started, is told one of both. The race
// detector looks at what is read for that.
func TestEnterWhileClosing(t *testing.T) {
	for range 200 {
		c := newChanges(func(context.Context, <-chan struct{}) error { return nil })
		done := make(chan struct{})
		go func() {
			defer close(done)
			c.close()
		}()
		if _, _, err := c.enter(t.Context(), "update", "j"); !errors.Is(err, ErrNotRunning) {
			t.Errorf("before it has started: %v, want %v", err, ErrNotRunning)
		}
		<-done
		if _, _, err := c.enter(t.Context(), "update", "j"); !errors.Is(err, ErrNotRunning) || errors.Is(err, ErrStarting) {
			t.Errorf("behind its end: %v, want %v", err, ErrNotRunning)
		}
	}
}
