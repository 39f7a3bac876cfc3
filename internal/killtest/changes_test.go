package killtest

import "testing"

// TestKillChanges: the real program, killed while two clients change its jobs: the six that nobody changes leave what they
// always leave, each change is whole or absent, and the further jobs lose and repeat nothing.
func TestKillChanges(t *testing.T) {
	Changes{Command: Serve(t), Times: 5, Kills: Kills(t, 4, 20), Mean: 25}.Run(t)
}
