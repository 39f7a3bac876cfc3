//go:build !linux

package killtest

import (
	"errors"
	"math/rand/v2"
	"os/exec"
	"testing"
)

// Disk is for Linux alone: no other kernel asks before a program's fsync.
type Disk struct {
	Dirs   []string
	Broken bool
}

// Lost returns nothing.
func (d *Disk) Lost() (bytes int64, fsyncs int) { return 0, 0 }

// MaybeLaunch does nothing.
func MaybeLaunch() {}

func (d *Disk) settle(testing.TB)                                            {}
func (d *Disk) cut(testing.TB, *rand.Rand)                                   {}
func (d *Disk) over(command func(w *Work) *exec.Cmd) func(w *Work) *exec.Cmd { return command }
func (d *Disk) attach(*exec.Cmd) error                                       { return errors.ErrUnsupported }
func (d *Disk) detach()                                                      {}
