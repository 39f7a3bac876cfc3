package runtime

import (
	"strings"
	"testing"

	"github.com/sidestream-dev/sidestream/jobs"
)

// TestCheckSetCircle: jobs that feed one another are refused, unless a topic among theirs holds nobody back.
func TestCheckSetCircle(t *testing.T) {
	hop := func(name, from string, to jobs.Topic) *jobs.Job {
		j := jobs.New(name)
		jobs.ToTopic(jobs.FromTopic(j, jobs.BusTopic[string]{Name: from}), jobs.BusTopic[string]{Name: to.Name, Topic: to})
		return j
	}
	for onFull, want := range map[string]string{"": "in a circle over the bus", "block": "in a circle over the bus", "drop_oldest": ""} {
		err := CheckSet([]*jobs.Job{hop("a", "x", jobs.Topic{Name: "y", OnFull: onFull}), hop("b", "y", jobs.Topic{Name: "x"})})
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("on_full %q: got %v", onFull, err)
		}
	}
}
