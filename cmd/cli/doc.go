// Package cli is the command tree of sidestream. A program of one's own has the same commands:
//
//	func main() { os.Exit(cli.Main(myJob(), anotherJob())) }
//
// Data goes to stdout, messages to stderr. What a command returns is its exit code (exit.go):
//
//	0 done   1 not all could be done   2 usage   65 bad data   69 not reachable   70 our bug
//	74 disk or log   75 try again   78 configuration
//
// # Plan
//
//	main.go      Main, the tree, what every command shares     exit.go    errors and exit codes
//	settings.go, file.go  flag > SIDESTREAM_* > file > default  context.go  which server is asked
//	output.go    -o table|json|yaml|jsonl|name                  terminal.go  tables that fit, colours, progress
//	completion.go  names of the server's for a shell            diagnose.go  who waits for whom, and what to do
//	rates.go, screen.go  what top shows, and where
//	one file a command: run.go, check.go, dev.go (with sample.go, its data, and live.go, its table), …
package cli
