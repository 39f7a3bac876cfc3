package bus

import (
	"errors"
	"fmt"
	"path/filepath"
	"syscall"

	"github.com/sidestream-dev/sidestream/wal"
)

// isFull reports whether an error is only that the disk has no space left.
func isFull(err error) bool { return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) }

// storeFails makes err the store's last word: what its files hold is not known until they are opened again (R7).
func (b *Bus) storeFails(doing, path string, err error) error {
	if name, relErr := filepath.Rel(b.store.Dir, path); relErr == nil {
		path = name
	}
	failed := &wal.FailedError{Op: fmt.Sprintf("topic store: %s %s", doing, path), Err: err}
	b.storeFailed.CompareAndSwap(nil, failed)
	return failed
}

// failed is what comes of a write that the disk did not take. Without space nothing is unknown: what was written is given up,
// and stands in no frame.
func (p *CopyPlan) failed(c *partCopy, doing string, err error) error {
	path := c.dir.path(c.cur)
	if isFull(err) {
		return fmt.Errorf("bus: topic store: %s %s: %w", doing, filepath.Base(path), err)
	}
	return p.bus.storeFails(doing, path, err)
}

// giveBack frees what a copy has written that came to nothing.
func (p *CopyPlan) giveBack() error {
	for _, cs := range p.parts {
		for _, c := range cs {
			if c == nil || !c.touched {
				continue
			}
			c.of.mu.Lock()
			c.segs = c.of.segs
			c.of.mu.Unlock()
			c.touched = false
			if err := p.clean(c); err != nil {
				return err
			}
			if n := len(c.segs); n > 0 {
				if err := c.cut(c.segs[n-1]); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// cut takes from a segment what it holds beyond what counts.
func (c *partCopy) cut(s *storeSegment) error {
	if s.complete {
		return nil
	}
	f, err := c.dir.Disk.Open(c.dir.path(s), true)
	if err != nil {
		return c.dir.damage(s, s.size, err)
	}
	return errors.Join(f.Truncate(s.size), f.Close())
}
