// Package cli is the command tree of sidestream. A program of one's own has the same commands:
//
//	func main() { os.Exit(cli.Main(myJob(), anotherJob())) }
package cli
