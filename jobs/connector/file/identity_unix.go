//go:build unix

package file

import (
	"fmt"
	"os"
	"syscall"
)

// identity returns what tells an open file from others, whatever its name.
func identity(f *os.File) (fileID, error) {
	info, err := f.Stat()
	if err != nil {
		return fileID{}, fmt.Errorf("file: %w", err)
	}
	if !info.Mode().IsRegular() {
		return fileID{}, fmt.Errorf("file: %s is not a regular file", f.Name())
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return fileID{uint64(st.Dev), uint64(st.Ino)}, nil
	}
	return fileID{}, nil
}
