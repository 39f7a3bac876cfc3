package cli

import "github.com/sidestream-dev/sidestream/jobs"

// Main runs the command that the program's arguments name and returns the exit code. defs are jobs written in Go, which
// run beside those of files.
func Main(defs ...*jobs.Job) int {
	return 1
}
