package wal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"sync"
)

// due is what the next frame must be.
type due struct {
	lsn    LSN
	id     LogID
	anyID  bool // nothing is known of the id
	prev   uint32
	anyPrv bool // nothing is known of the frame before
}

func (d *due) check(h *head) error {
	switch {
	case h.lsn != d.lsn:
		return errLSN
	case !d.anyID && h.id != d.id:
		return errID
	case !d.anyPrv && h.prev != d.prev:
		return errPrev
	}
	return nil
}

// follow makes d what is due behind h.
func (d *due) follow(h *head) {
	*d = due{lsn: h.lsn + 1, id: h.id, prev: h.crc}
}

// cursor reads one segment through a window of bytes, by positions.
type cursor struct {
	f     file
	buf   []byte // the window
	off   int64  // where buf begins in the file
	size  int64  // of the file, as last asked
	ahead int    // bytes to read at least
}

func newCursor(f file, ahead int) (*cursor, error) {
	size, err := f.Size()
	return &cursor{f: f, size: size, ahead: ahead}, err
}

// windows are those of scans, to be used again; a Reader's are its own, since it hands out slices of them.
var windows = sync.Pool{New: func() any { return new([]byte) }}

// withCursor opens path for fn, which keeps nothing of the cursor's.
func withCursor(d disk, path string, ahead int, fn func(*cursor) error) error {
	f, err := d.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	c, err := newCursor(f, ahead)
	if err != nil {
		return err
	}
	window := windows.Get().(*[]byte)
	c.buf = (*window)[:0]
	defer func() {
		*window = c.buf[:0]
		windows.Put(window)
	}()
	return fn(c)
}

// has reports whether the window covers n bytes from off.
func (c *cursor) has(off int64, n int) bool {
	return off >= c.off && off+int64(n) <= c.off+int64(len(c.buf))
}

// bytes returns n bytes from off, fewer only where the file ends. They are valid until the next call of bytes.
func (c *cursor) bytes(off int64, n int) ([]byte, error) {
	if !c.has(off, n) {
		if err := c.fill(off, n); err != nil {
			return nil, err
		}
	}
	b := c.buf[off-c.off:]
	return b[:min(n, len(b))], nil
}

// fill moves the window to off and makes it n bytes at least, as far as the file goes: memory is taken for bytes that are
// there, not for bytes that a length speaks of.
func (c *cursor) fill(off int64, n int) error {
	want := int64(max(n, c.ahead))
	if off+want > c.size { // it may have grown
		size, err := c.f.Size()
		if err != nil {
			return fmt.Errorf("wal: read: %w", err)
		}
		c.size = size
		want = max(min(want, size-off), 0)
	}
	if int64(cap(c.buf)) < want {
		c.buf = make([]byte, 0, want)
	}
	got, err := c.f.ReadAt(c.buf[:want], off)
	c.off, c.buf = off, c.buf[:got]
	if err != nil && !errors.Is(err, io.EOF) {
		c.buf = c.buf[:0]
		return fmt.Errorf("wal: read: %w", err)
	}
	return nil
}

// fits reports whether the file holds n bytes from off, asking its size again if it did not.
func (c *cursor) fits(off, n int64) (bool, error) {
	if off+n <= c.size {
		return true, nil
	}
	size, err := c.f.Size()
	c.size = size
	return off+n <= size, err
}

// found is a frame that a cursor came upon. Its table is valid until the cursor's next frame.
type found struct {
	head
	at    int64 // where the frame begins, behind the engine's length
	next  int64 // where the entry behind it begins
	table []entry
	ext   extension // of a catalog
}

// entry reads the head of the frame in the entry at off and checks all but the bodies. It is io.EOF where the file ends
// at off.
func (c *cursor) entry(off int64, fr *found) error {
	b, err := c.bytes(off, binary.MaxVarintLen64)
	if err != nil {
		return err
	}
	if len(b) == 0 {
		return io.EOF
	}
	length, n := binary.Uvarint(b)
	if n <= 0 || length > maxFrameBytes || (n > 1 && b[n-1] == 0) {
		if n == 0 {
			return errShort
		}
		return errPrefix
	}
	if err := c.frame(off+int64(n), fr); err != nil {
		return err
	}
	if length != uint64(fr.length) {
		return errPrefix
	}
	return nil
}

// frame reads the head of the frame at at and checks all but the bodies.
func (c *cursor) frame(at int64, fr *found) error {
	b, err := c.bytes(at, headerLen)
	if err != nil {
		return err
	}
	if len(b) < headerLen {
		return errShort
	}
	if fr.head, err = decodeHeader(b); err != nil {
		return err
	}
	ok, err := c.fits(at, int64(fr.length))
	if err != nil {
		return err
	}
	if !ok {
		return errShort
	}
	if b, err = c.bytes(at, fr.headLen()); err != nil {
		return err
	}
	if len(b) < fr.headLen() {
		return errShort
	}
	if fr.table, err = decodeTable(fr.table, &fr.head, b); err != nil {
		return err
	}
	fr.ext = extension{}
	if fr.kind == KindCatalog {
		if fr.ext, err = decodeExtension(&fr.head, b); err != nil {
			return err
		}
	}
	fr.at, fr.next = at, at+int64(fr.length)
	return nil
}

// bodies checks all sections of fr.
func (c *cursor) bodies(fr *found) error {
	for i := range fr.table {
		e := &fr.table[i]
		b, err := c.bytes(fr.at+int64(e.off), e.Len)
		if err != nil {
			return err
		}
		if len(b) < e.Len {
			return errShort
		}
		if crc32.Checksum(b, castagnoli) != e.crc {
			return errBodyCRC
		}
	}
	return nil
}

var magicBytes = binary.LittleEndian.AppendUint32(nil, frameMagic)

// search calls fn with each whole frame from off on, wherever it begins.
func (c *cursor) search(off int64, fn func(*found)) error {
	const window = 1 << 18
	var fr found
	for {
		b, err := c.bytes(off, window)
		if err != nil {
			return err
		}
		i := bytes.Index(b, magicBytes)
		if i < 0 {
			if len(b) < window {
				return nil
			}
			off += window - int64(len(magicBytes)) + 1
			continue
		}
		at := off + int64(i)
		err = c.frame(at, &fr)
		if err == nil {
			err = c.bodies(&fr)
		}
		switch {
		case err == nil:
			fn(&fr)
			off = fr.next
		case isFault(err):
			off = at + 1
		default:
			return err
		}
	}
}
