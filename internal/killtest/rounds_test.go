package killtest

import "testing"

// TestKillMoves: the real program, killed while jobs are set elsewhere in a topic and detached from it.
func TestKillMoves(t *testing.T) {
	Rounds{Command: ServeShort(t), Kills: Kills(t, 4, 10), Actors: func(r *Round) []Actor { return []Actor{Seeker(r), Detacher(r)} }}.Run(t)
}

// TestKillRetention: the same while records are purged and a topic's retention is set.
func TestKillRetention(t *testing.T) {
	Rounds{Command: ServeShort(t), Kills: Kills(t, 4, 10), Actors: func(r *Round) []Actor { return []Actor{Purger(r), Retainer(r)} }}.Run(t)
}

// TestKillKeepState: the same while a job is removed, leaves its state, and begins with it again.
func TestKillKeepState(t *testing.T) {
	Rounds{Command: ServeShort(t), Kills: Kills(t, 4, 10), Actors: func(r *Round) []Actor { return []Actor{Keeper(r), Updater(r)} }}.Run(t)
}

// TestKillReplay: the same while a job is replayed into, and ranges of the topic are copied.
func TestKillReplay(t *testing.T) {
	Rounds{Command: ServeShort(t), Kills: Kills(t, 4, 10), Actors: func(r *Round) []Actor { return []Actor{Replayer(r), Copier(r)} }}.Run(t)
}

// TestKillReplayFromSavepoint: the same while a job is replayed into from savepoints, which are made and deleted.
func TestKillReplayFromSavepoint(t *testing.T) {
	Rounds{Command: ServeShort(t), Kills: Kills(t, 4, 10), Actors: func(r *Round) []Actor { return []Actor{Rewinder(r)} }}.Run(t)
}

// TestKillLosses: the same while a topic drops the oldest for a reader that is paused and resumed.
func TestKillLosses(t *testing.T) {
	Rounds{Command: ServeShort(t), Kills: Kills(t, 4, 10), Actors: func(r *Round) []Actor { return []Actor{Loser(r)} }}.Run(t)
}

// TestKillSweeps: the same while topics are removed that nobody uses, and made anew.
func TestKillSweeps(t *testing.T) {
	Rounds{Command: ServeShort(t), Kills: Kills(t, 4, 10), Actors: func(r *Round) []Actor { return []Actor{Sweeper(r)} }}.Run(t)
}
