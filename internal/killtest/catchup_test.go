package killtest

import "testing"

// TestKillInCatchUp: a job that begins with a topic's oldest record, in the topic store, sees each once, however often it is killed.
func TestKillInCatchUp(t *testing.T) {
	CatchUp{Command: ServeShort(t), Kills: Kills(t, 4, 5)}.Run(t)
}
