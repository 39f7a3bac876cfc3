package runtime

import (
	"fmt"
	goruntime "runtime"
	"strings"
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

// errorTextBytes is how much of an error's text is kept: it may quote a record.
const errorTextBytes = 4 << 10

func errorText(err error) string { return bounded(err.Error(), errorTextBytes) }

// bounded returns s, or its beginning where it is longer than most bytes, and how much is left out.
func bounded(s string, most int) string {
	if len(s) <= most {
		return s
	}
	return fmt.Sprintf("%s… and %d bytes more", strings.ToValidUTF8(s[:most], ""), len(s)-most)
}
