package killtest

import "testing"

// TestKillFollow: the real program, killed while it follows a file that grows and is rotated away.
func TestKillFollow(t *testing.T) {
	Grows{Command: ServeShort(t), Kills: Kills(t, 5, 10), Outside: Rotated}.Run(t)
}

// TestKillDiscovery: the same while it reads a Kafka topic that gets more partitions.
func TestKillDiscovery(t *testing.T) {
	Grows{Command: ServeShort(t), Kills: Kills(t, 5, 10), Outside: Partitions}.Run(t)
}
