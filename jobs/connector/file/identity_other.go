//go:build !unix

package file

import "os"

// identity returns nothing: here a file that was rotated away while no job ran is not found again.
func identity(*os.File) (fileID, error) { return fileID{}, nil }
