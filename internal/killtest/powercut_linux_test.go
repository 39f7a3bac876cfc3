package killtest

import "testing"

// TestPowerCut: the real program, killed with all that it had not fsynced lost or spoiled, leaves what an undisturbed run
// leaves.
func TestPowerCut(t *testing.T) {
	NeedKernel(t)
	Suite{Command: Sidestream(t), Variant: ExactlyOnce, Times: 2, Kills: Kills(t, 4, 10), Campaign: 15, When: Anywhere(0.25), PowerCut: true}.Run(t)
}

// TestTwinWithoutFsync: the same program, whose fsyncs do nothing, is caught by the same comparison.
func TestTwinWithoutFsync(t *testing.T) {
	NeedKernel(t)
	twin := Suite{Command: Sidestream(t), Variant: ExactlyOnce, Times: 2, Kills: 60, Campaign: 4, When: Anywhere(0.4), PowerCut: true, Broken: true}
	found := Caught(t, func(tb testing.TB) { twin.Run(tb) })
	if found == "" {
		t.Fatal("a program without fsync was not caught")
	}
	t.Logf("caught: %.300s", found)
}
