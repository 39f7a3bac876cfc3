package wal

import (
	"fmt"
	"path/filepath"
	"time"
)

const (
	reserveName = "RESERVE"
	roomAgeMax  = 100 * time.Millisecond // how long an answer of the disk is believed
	smallSlack  = 128 << 10              // left over for the file system when AppendSmall uses the last space
)

// room says whether a frame may be taken. It believes an answer of the disk for a segment's worth of bytes or 100 ms,
// counting what was taken since, so that the disk is not asked for each frame. The log's mutex guards it.
type room struct {
	disk    disk
	dir     string
	margin  int64 // two segments
	reserve int64 // wanted size of the reserve
	held    bool  // the reserve is there

	free  int64 // as answered, less what was then appended and not yet written
	taken int64 // appended since
	at    time.Time
}

// open makes the reserve if there is space for it. Without it the log works, with less help when the disk is full.
func (r *room) open() error {
	if r.reserve == 0 {
		return nil
	}
	if r.held = r.disk.Reserved(r.path()) >= r.reserve; r.held {
		return nil
	}
	if err := r.ask(0); err != nil {
		return err
	}
	r.takeBack()
	return nil
}

func (r *room) path() string { return filepath.Join(r.dir, reserveName) }

func (r *room) ask(unwritten int64) error {
	free, err := r.disk.Free(r.dir)
	if err != nil {
		return err
	}
	r.free, r.taken, r.at = free-unwritten, 0, time.Now()
	return nil
}

// left is the space there would be behind a frame of n bytes.
func (r *room) left(n, unwritten int64, enough int64) (int64, error) {
	if r.taken >= r.margin/2 || r.free-r.taken-n < enough || time.Since(r.at) > roomAgeMax {
		if err := r.ask(unwritten); err != nil {
			return 0, err
		}
	}
	return r.free - r.taken - n, nil
}

// check is for the ordinary frame: two segments must be left. A reserve that was given up is taken back first.
func (r *room) check(n, unwritten int64) error {
	enough := r.margin
	if !r.held {
		enough += r.reserve
	}
	left, err := r.left(n, unwritten, enough)
	if err != nil {
		return err
	}
	if left < enough || !r.held && r.reserve > 0 && !r.takeBack() {
		return r.refusal(left+n, enough+n)
	}
	return nil
}

// refusal is ErrNoRoom with what there is and what was wanted.
func (r *room) refusal(free, wanted int64) error {
	return fmt.Errorf("%w: %d KiB are free, %d KiB are needed (two segments, the reserve where it is not made yet, and what is to be written)",
		ErrNoRoom, max(0, free)>>10, (wanted+1023)>>10)
}

// checkSmall is for the log's owner's small frames: where the disk is full, they get the space of the reserve.
func (r *room) checkSmall(n, unwritten int64) error {
	left, err := r.left(n, unwritten, r.margin)
	if err != nil {
		return err
	}
	if left >= smallSlack && (left >= r.margin || !r.held) {
		return nil
	}
	if r.held {
		if err := r.giveUp(); err != nil {
			return err
		}
		if left, err = r.left(n, unwritten, r.margin); err != nil {
			return err
		}
	}
	if left < smallSlack {
		return fmt.Errorf("%w: %d KiB are free", ErrNoRoom, max(0, left+n)>>10)
	}
	return nil
}

func (r *room) giveUp() error {
	if err := r.disk.Truncate(r.path(), 0); err != nil {
		return err
	}
	r.held, r.at = false, time.Time{}
	return nil
}

// takeBack makes the reserve again if two segments are left beside it.
func (r *room) takeBack() bool {
	if r.free-r.taken < r.margin+r.reserve {
		return false
	}
	r.held = r.disk.Reserve(r.path(), r.reserve) == nil
	r.at = time.Time{}
	return r.held
}
