package killtest

import (
	"strings"
	"testing"
)

// TestKillDays: the air example's job that was wrong is repaired and reads days again, with the real program killed in the middle.
func TestKillDays(t *testing.T) {
	Days{Command: Serve(t), Kills: Kills(t, 6, 10)}.Run(t)
}

// TestTwinDaysNotRepaired: the same comparison finds a job that nobody has repaired.
func TestTwinDaysNotRepaired(t *testing.T) {
	found := Caught(t, func(tb testing.TB) { Days{Command: Serve(t), Kills: 6, Leave: true}.Run(tb) })
	if !strings.Contains(found, "read again: the file has") {
		t.Fatalf("a job that is still wrong was not found: %s", found)
	}
	t.Logf("caught: %.300s", found)
}
