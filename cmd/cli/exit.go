package cli

import (
	"errors"
	"io/fs"
	"os"
	"syscall"

	"github.com/sidestream-dev/sidestream/runtime"
	"github.com/sidestream-dev/sidestream/runtime/admin"
	"github.com/sidestream-dev/sidestream/wal"
)

// The exit codes, as in sysexits.h.
const (
	exitOK          = 0
	exitFailed      = 1
	exitUsage       = 2
	exitData        = 65
	exitUnreachable = 69
	exitBug         = 70
	exitDisk        = 74
	exitAgain       = 75
	exitConfig      = 78
)

// exitError is an error with the exit code it comes to. One without Err has said all there is to say.
type exitError struct {
	Code int
	Err  error
}

func (e *exitError) Unwrap() error { return e.Err }

func (e *exitError) Error() string {
	if e.Err == nil {
		return ""
	}
	return e.Err.Error()
}

func withCode(code int, err error) error { return &exitError{Code: code, Err: err} }

// exitCode finds the code of an error that no command gave one.
func exitCode(err error) int {
	var exit *exitError
	var locked *wal.LockedError
	var stalled *runtime.StalledError
	var failed *wal.FailedError
	var away *admin.UnreachableError
	var said *admin.Problem
	var silent *admin.SilentError
	if err == nil {
		return exitOK
	}
	switch {
	case errors.As(err, &exit):
		return exit.Code
	case errors.As(err, &away):
		return exitUnreachable
	case errors.As(err, &said):
		return problemCodes[said.Kind()]
	case errors.As(err, &locked), errors.As(err, &silent):
		return exitAgain
	case errors.As(err, &stalled):
		return exitFailed
	case damaged(err) && !errors.As(err, &failed):
		return exitData // to start it again is no help
	case forbidden(err) && !errors.As(err, &failed):
		return exitConfig // nor here: another place, or another owner of this one, is
	case ofDisk(err):
		return exitDisk
	}
	return exitFailed
}

// problemCodes are the exit codes of what a process says went wrong.
var problemCodes = map[admin.Kind]int{
	admin.KindBadRequest:    exitUsage,
	admin.KindNotFound:      exitFailed,
	admin.KindUnauthorized:  exitConfig,
	admin.KindForbidden:     exitConfig,
	admin.KindBusy:          exitAgain,
	admin.KindStarting:      exitAgain,
	admin.KindBadDefinition: exitData,
	admin.KindRefused:       exitFailed,
	admin.KindChanged:       exitFailed,
	admin.KindUnsent:        exitAgain,
	admin.KindTimeout:       exitAgain,
	admin.KindDisk:          exitDisk,
	admin.KindDamaged:       exitData,
	admin.KindInternal:      exitBug,
}

// damaged reports whether an error is of what was acknowledged and cannot be read as it was written.
func damaged(err error) bool {
	var damaged *wal.DamagedError
	var corrupt *wal.CorruptError
	return errors.Is(err, wal.ErrUnfinishedRepair) || errors.As(err, &damaged) || errors.As(err, &corrupt)
}

// forbidden reports whether an error is that this user may not, or that nobody may, do that to a file. Of the exit codes there are
// it is that of configuration, since where the data lies and who runs the process is set from outside; EX_NOPERM says of itself
// that it is not for files.
func forbidden(err error) bool {
	return errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS)
}

// ofDisk reports whether an error is the disk's or the log's.
func ofDisk(err error) bool {
	var failed *wal.FailedError
	var path *fs.PathError
	var sys *os.SyscallError
	return errors.As(err, &failed) || damaged(err) || errors.As(err, &path) || errors.As(err, &sys)
}
