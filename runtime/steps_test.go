package runtime

import (
	"testing"

	"github.com/sidestream-dev/sidestream/checkpoint"
	"github.com/sidestream-dev/sidestream/jobs"
)

// TestStepMarks restores watermarks where a step stands in another task than before.
func TestStepMarks(t *testing.T) {
	none := jobs.WatermarkNone
	plan := func(width int) *jobPlan {
		j := jobs.New("job")
		j.Parallelism = width
		in := jobs.KeyBy(jobs.FromTopic(j, jobs.BusTopic[string]{Name: "a"}, jobs.ID("in")), func(s string) string { return s }, jobs.ID("key"))
		out, _ := jobs.Attach(in, jobs.Op[string, string, string]{Kind: "fold", ID: "fold", Keyed: true})
		jobs.ToTopic(out, jobs.BusTopic[string]{Name: "b"})
		p, err := planJob(j, func(string) int { return 4 })
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	one, two := plan(1), plan(2)
	if got := tasksText(one); got != "in/1" {
		t.Fatalf("tasks with one subtask: %q", got)
	}
	if got := tasksText(two); got != "in/2 fold/2" {
		t.Fatalf("tasks with two subtasks: %q", got)
	}
	type entries = []checkpoint.StepState
	tests := []struct {
		name  string
		tasks string
		steps entries
		plan  *jobPlan
		want  []jobs.Watermark // of each task, its last subtask
	}{
		{"nothing was sealed", "", nil, two, []jobs.Watermark{none, none}},
		{"each its own", "in/2 fold/2", entries{{Step: "in", Watermark: 9}, {Step: "fold", Watermark: 7}}, two, []jobs.Watermark{9, 7}},
		{"a task that has not moved is not ahead", "in/2 fold/2", entries{{Step: "in", Watermark: 9}}, two, []jobs.Watermark{9, none}},
		{"a subtask that is further", "in/2 fold/2", entries{{Step: "in", Watermark: 9}, {Step: "fold", Watermark: 7}, {Step: "fold/1/2", Watermark: 8}}, two, []jobs.Watermark{9, 8}},
		{"of another parallelism", "in/3 fold/3", entries{{Step: "in", Watermark: 9}, {Step: "fold", Watermark: 7}, {Step: "fold/1/2", Watermark: 8}}, two, []jobs.Watermark{9, 7}},
		{"cut out of a task", "in/1", entries{{Step: "in", Watermark: 9}, {Step: "fold", Watermark: 7}}, two, []jobs.Watermark{9, 9}},
		{"joined: state is not ahead of itself", "in/2 fold/2", entries{{Step: "in", Watermark: 9}, {Step: "fold", Watermark: 7}}, one, []jobs.Watermark{7}},
		{"joined: state is not behind itself", "in/2 fold/2", entries{{Step: "in", Watermark: 5}, {Step: "fold", Watermark: 7}}, one, []jobs.Watermark{7}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := newStepMarks(&checkpoint.Header{Steps: tt.steps, Extra: map[string][]byte{extraTasks: []byte(tt.tasks)}})
			for i, task := range tt.plan.tasks {
				if got := m.subtask(&subtask{plan: task, index: task.width - 1}); got != tt.want[i] {
					t.Errorf("task %s begins at %d, want %d", task.name(), got, tt.want[i])
				}
			}
		})
	}
}
