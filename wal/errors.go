package wal

import (
	"errors"
	"fmt"
)

// What a call did not do, and why. Where none of these fits, the error has a type of its own below.
var (
	ErrTooLarge = errors.New("wal: frame too large")             // a limit of Config; nothing was taken
	ErrNoRoom   = errors.New("wal: no room on the disk")         // nothing was taken; try again later
	ErrBacklog  = errors.New("wal: too much is not yet durable") // Config.PendingBytes; nothing was taken
	ErrClosed   = errors.New("wal: closed")
	ErrGone     = errors.New("wal: dropped")                               // the LSN lies in a dropped generation
	ErrNoFrames = errors.New("wal: the first frame of a log is a catalog") // Append before the first Rotate
	ErrKind     = errors.New("wal: not a kind for this call")              // those of a catalog are Rotate's, 0 is nobody's
	ErrStale    = errors.New("wal: frame used after its reader moved on")
	// ErrUnfinishedRepair refuses a directory in which a repair was decided upon and not finished.
	ErrUnfinishedRepair = errors.New("wal: a repair was begun and not finished; `wal repair --write` finishes it")
)

// LockedError says that another process (or another Log in this one) has the directory open.
type LockedError struct {
	Dir string
	PID int // 0 when the holder did not get to write it
}

func (e *LockedError) Error() string {
	return fmt.Sprintf("wal: %s is in use by process %d", e.Dir, e.PID)
}

// FailedError is a log's last word: a write or fsync failed, and what the disk holds is unknown until the log is opened
// again. Every later call returns the same error (R7).
type FailedError struct {
	Op  string // what was being done
	Err error
}

func (e *FailedError) Unwrap() error { return e.Err }

func (e *FailedError) Error() string { return fmt.Sprintf("wal: failed for good: %s: %v", e.Op, e.Err) }

// CorruptError says where a log stopped making sense. A torn tail is not corruption: Open cuts it off.
type CorruptError struct {
	Segment string // generation/segment
	Offset  int64  // bytes from the start of the segment
	First   LSN    // the first frame concerned
	Last    LSN    // the last one known to be concerned; 0 when unknown
	Err     error  // what did not hold there
}

func (e *CorruptError) Unwrap() error { return e.Err }

func (e *CorruptError) Error() string {
	lsns := fmt.Sprintf("LSN %d", e.First)
	if e.Last > e.First {
		lsns = fmt.Sprintf("LSN %d to %d", e.First, e.Last)
	}
	return fmt.Sprintf("wal: segment %s corrupt at byte %d (%s): %v", e.Segment, e.Offset, lsns, e.Err)
}

// DamagedError is Open's refusal: acknowledged frames are damaged, and only a person may give them up.
type DamagedError struct {
	Corrupt *CorruptError
}

func (e *DamagedError) Unwrap() error { return e.Corrupt }

func (e *DamagedError) Error() string {
	return fmt.Sprintf("%v; these frames were acknowledged, so nothing was cut: `wal repair` says what can be kept", e.Corrupt)
}

// fault is what did not hold, inside a CorruptError. Only a fault may be taken for a torn tail; an error of any other
// type, a read error above all, never is (R7).
type fault string

func (f fault) Error() string { return string(f) }

func isFault(err error) bool {
	var f fault
	return errors.As(err, &f)
}

const (
	errShort    = fault("frame is cut short")
	errMagic    = fault("no frame begins here")
	errVersion  = fault("unknown frame version")
	errHead     = fault("header is not well formed")
	errLimit    = fault("length is beyond the limit")
	errPrefix   = fault("engine's length is not the frame's")
	errHeadCRC  = fault("header checksum differs")
	errBodyCRC  = fault("section checksum differs")
	errID       = fault("frame is of another log")
	errLSN      = fault("LSN is not the one due")
	errPrev     = fault("frame does not follow the one before it")
	errMissing  = fault("segment is missing")
	errEarly    = fault("segment ends before the next one begins")
	errCatalog  = fault("generation does not begin with its catalog")
	errPart     = fault("frame is not one that a catalog goes on in, or should be one")
	errHalf     = fault("catalog breaks off")
	errList     = fault("segments are not those that the next generation lists")
	errGap      = fault("generations do not follow one another")
	errForeign  = fault("file is not the log's own, and the engine would act on it")
	errTooShort = fault("generation ends before the next one begins")
)
