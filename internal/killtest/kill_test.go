package killtest

import (
	"os"
	"testing"
)

func TestMain(m *testing.M) {
	MaybeLaunch()
	code := m.Run()
	Remove()
	os.Exit(code)
}

// TestKill: the real program, killed at random moments and started again until it is done, leaves what an undisturbed run
// leaves. Run once more it finds nothing to do.
func TestKill(t *testing.T) {
	Suite{Command: Sidestream(t), Variant: ExactlyOnce, Times: 6, Kills: Kills(t, 10, 35), Campaign: 25, When: Anywhere(0.25)}.Run(t)
}

// TestKillAtLeastOnce: nothing is missing, and just what was sent since a sender's last durable position is there twice.
func TestKillAtLeastOnce(t *testing.T) {
	Suite{Command: Sidestream(t), Variant: AtLeastOnce, Times: 6, Kills: Kills(t, 6, 20), Campaign: 25, When: Anywhere(0.25)}.Run(t)
}

// TestKillInRecovery: the program is killed in its first moments, again and again, and now and then let run for a while.
func TestKillInRecovery(t *testing.T) {
	Suite{Command: Sidestream(t), Variant: ExactlyOnce, Times: 2, Kills: Kills(t, 6, 20), Campaign: 20, When: Recovery}.Run(t)
}
