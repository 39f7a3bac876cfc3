// Command sidestream runs stream-processing jobs in one process, joined by a durable bus. See package cli for its commands.
package main

import (
	"os"

	"github.com/sidestream-dev/sidestream/cmd/cli"
)

func main() { os.Exit(cli.Main()) }
