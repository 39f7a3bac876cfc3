package killtest

import (
	"os"
	"os/exec"
	"strconv"
	"testing"
)

// TestKillInCatchUp: a job that begins with a topic's oldest record, in the topic store, sees each once, however often it is
// killed. CATCHUP_RECORDS makes the topic longer; then the log is as long as it needs to be for that.
func TestKillInCatchUp(t *testing.T) {
	s := CatchUp{Command: ServeShort(t), Kills: Kills(t, 4, 5)}
	if n := os.Getenv("CATCHUP_RECORDS"); n != "" {
		records, err := strconv.Atoi(n)
		if err != nil || records < 1 {
			t.Fatalf("CATCHUP_RECORDS=%q: want a number of records", n)
		}
		serve := Serve(t)
		s.Records, s.Command = records, func(w *Work) *exec.Cmd {
			c := serve(w)
			c.Args = append(c.Args, "--log-max-bytes", "16MiB", "--epoch-bytes", "1MiB", "--sealed-bytes", "4MiB")
			return c
		}
	}
	s.Run(t)
}
