package runtime

import (
	"fmt"
	"strings"
	"testing"

	"github.com/sidestream-dev/sidestream/jobs"
)

// TestPlan: how records get from one task to the next.
func TestPlan(t *testing.T) {
	topic := jobs.BusTopic[string]{Name: "t"}
	same := func(s string) string { return s }
	step := func(in *jobs.Stream[string], id string, keyed bool, width int) *jobs.Stream[string] {
		out, _ := jobs.Attach(in, jobs.Op[string, string, jobs.None]{Kind: "step", ID: id, Keyed: keyed, Parallelism: width})
		return out
	}
	tests := []struct {
		name  string
		width int
		build func(in *jobs.Stream[string]) *jobs.Stream[string]
		want  string // tasks and, before each, the mode that leads to it
	}{
		{"one subtask: all is one task", 1, func(in *jobs.Stream[string]) *jobs.Stream[string] {
			return step(jobs.Rebalance(in), "a", false, 0)
		}, "in→a→out-t/1"},
		{"rebalance", 2, func(in *jobs.Stream[string]) *jobs.Stream[string] {
			return step(step(jobs.Rebalance(in), "a", false, 0), "b", false, 0)
		}, "in/2 balanced a→b→out-t/2"},
		{"rebalance into more", 1, func(in *jobs.Stream[string]) *jobs.Stream[string] {
			return step(jobs.Rebalance(in), "a", false, 3)
		}, "in/1 balanced a→out-t/3"},
		{"another width is a rebalance", 1, func(in *jobs.Stream[string]) *jobs.Stream[string] {
			return step(in, "a", false, 3)
		}, "in/1 balanced a→out-t/3"},
		{"a rebalance before outputs alone", 2, jobs.Rebalance[string], "in/2 balanced out-t/2"},
		{"a topic in place", 2, func(in *jobs.Stream[string]) *jobs.Stream[string] {
			return step(in, "a", true, 0)
		}, "in→a→out-t/2"},
		{"a topic out of place", 3, func(in *jobs.Stream[string]) *jobs.Stream[string] {
			return step(in, "a", true, 0)
		}, "in/3 hash a→out-t/3"},
		{"a topic whose records were spread", 2, func(in *jobs.Stream[string]) *jobs.Stream[string] {
			return step(step(jobs.Rebalance(in), "a", false, 0), "b", true, 0)
		}, "in/2 balanced a/2 hash b→out-t/2"},
		{"state behind state", 2, func(in *jobs.Stream[string]) *jobs.Stream[string] {
			return step(step(step(jobs.KeyBy(in, same, jobs.ID("key")), "a", true, 0), "f", false, 0), "b", true, 0)
		}, "in→key/2 hash a→f→b→out-t/2"},
		{"state behind state of another width", 2, func(in *jobs.Stream[string]) *jobs.Stream[string] {
			return step(step(jobs.KeyBy(in, same, jobs.ID("key")), "a", true, 0), "b", true, 3)
		}, "in→key/2 hash a/2 hash b→out-t/3"},
		{"state behind a step of another width", 2, func(in *jobs.Stream[string]) *jobs.Stream[string] {
			return step(step(step(jobs.KeyBy(in, same, jobs.ID("key")), "a", true, 0), "f", false, 3), "b", true, 3)
		}, "in→key/2 hash a/2 balanced f/3 hash b→out-t/3"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			j := jobs.New("job")
			j.Parallelism = tt.width
			jobs.ToTopic(tt.build(jobs.FromTopic(j, topic, jobs.ID("in"))), topic)
			p, err := planJob(j, func(string) int { return 4 })
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, task := range p.tasks {
				for _, e := range task.ins {
					got = append(got, [...]string{"forward", "hash", "as written", "balanced"}[e.mode])
				}
				got = append(got, fmt.Sprintf("%s/%d", task.name(), task.width))
			}
			if s := strings.Join(got, " "); s != tt.want {
				t.Errorf("got %s\nwant %s", s, tt.want)
			}
		})
	}
}

// TestRebalanceBeforeState: a rebalance that could do nothing is a mistake in the graph.
func TestRebalanceBeforeState(t *testing.T) {
	j := jobs.New("job")
	in := jobs.Rebalance(jobs.FromTopic(j, jobs.BusTopic[string]{Name: "t"}))
	jobs.Attach(in, jobs.Op[string, string, jobs.None]{Kind: "fold", Keyed: true})
	if err := j.Check(); err == nil || !strings.Contains(err.Error(), "put the rebalance before steps that keep none") {
		t.Errorf("Check says %v", err)
	}
}
