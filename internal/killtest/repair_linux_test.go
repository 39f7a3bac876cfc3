package killtest

import "testing"

// TestKillRepair: `wal repair` of the real program, killed at one fsync or another with all that it had not fsynced lost or
// spoiled, keeps what an undisturbed repair keeps once it is run again, and the program goes on from that.
func TestKillRepair(t *testing.T) {
	NeedKernel(t)
	Repairs{Command: RunSmall(t), Repair: RepairReal(t), Kills: Kills(t, 4, 15)}.Run(t)
}

// TestTwinRepairWithoutFsync: the same repair, whose fsyncs do nothing, is caught.
func TestTwinRepairWithoutFsync(t *testing.T) {
	NeedKernel(t)
	twin := Repairs{Command: RunSmall(t), Repair: RepairReal(t), Kills: 60, Broken: true}
	found := Caught(t, func(tb testing.TB) { twin.Run(tb) })
	if found == "" {
		t.Fatal("a repair without fsync was not caught")
	}
	t.Logf("caught: %.300s", found)
}
