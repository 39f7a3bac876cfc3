package runtime

import (
	"fmt"
	goruntime "runtime"
)

// JobError says where an attempt of a job failed.
type JobError struct {
	Job     string
	Step    string
	Subtask int
	Err     error
}

func (e *JobError) Unwrap() error { return e.Err }

func (e *JobError) Error() string {
	if e.Step == "" {
		return fmt.Sprintf("job %s: %v", e.Job, e.Err)
	}
	return fmt.Sprintf("job %s: step %s (subtask %d): %v", e.Job, e.Step, e.Subtask, e.Err)
}

// PanicError is a panic in a job's code.
type PanicError struct {
	Value any
	Stack []byte
}

func (e *PanicError) Error() string { return fmt.Sprintf("panic: %v", e.Value) }

// recovered turns a panic into an error of the attempt; it is deferred.
func recovered(err *error, job, step string, subtask int) {
	if v := recover(); v != nil {
		stack := make([]byte, 16<<10)
		stack = stack[:goruntime.Stack(stack, false)]
		*err = &JobError{Job: job, Step: step, Subtask: subtask, Err: &PanicError{Value: v, Stack: stack}}
	}
}
