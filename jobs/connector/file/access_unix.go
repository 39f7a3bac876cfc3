//go:build unix

package file

import "golang.org/x/sys/unix"

// mayWrite reports whether this process may write a file, or make something in a folder. It asks without trying.
func mayWrite(path string, folder bool) bool {
	mode := uint32(unix.W_OK)
	if folder {
		mode |= unix.X_OK
	}
	return unix.Access(path, mode) == nil
}
