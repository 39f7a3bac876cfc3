package spec

import (
	"io/fs"
	"os"
	"strings"
)

// NamedPipe reports whether a file is a named pipe, which nobody may ever write to: to open it would wait for that. Those of a shell, such as
// /dev/stdin, <(...) and /proc/self/fd/3, have a writer and are none.
func NamedPipe(file string) bool {
	if strings.HasPrefix(file, "/dev/") || strings.HasPrefix(file, "/proc/") {
		return false
	}
	info, err := os.Stat(file)
	return err == nil && info.Mode()&fs.ModeNamedPipe != 0
}
