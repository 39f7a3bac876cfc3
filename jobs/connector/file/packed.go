package file

import (
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/klauspost/compress/zstd"
)

// windowBytesMax bounds what a zstd file may ask for.
const windowBytesMax = 128 << 20

// packing returns how a file is compressed, by its name: "gzip", "zstd", or "".
func packing(path string) string {
	switch {
	case strings.HasSuffix(path, ".gz"):
		return "gzip"
	case strings.HasSuffix(path, ".zst"):
		return "zstd"
	}
	return ""
}

// unpacker gives the text of a compressed file, from its beginning. Places in it are counted in bytes of text.
type unpacker struct {
	path, how string
	r         io.ReadCloser
	at        int64
}

func newUnpacker(f *os.File, how string) (*unpacker, error) {
	u := &unpacker{path: f.Name(), how: how}
	if how == "gzip" {
		r, err := gzip.NewReader(f) // of all members, one behind the other
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return nil, u.failed(err)
		}
		u.r = r
		return u, nil
	}
	r, err := zstd.NewReader(f, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(windowBytesMax))
	if err != nil {
		return nil, u.failed(err)
	}
	u.r = r.IOReadCloser()
	return u, nil
}

// read fills b, less where the text ends: then with io.EOF.
func (u *unpacker) read(b []byte) (n int, err error) {
	for n < len(b) && err == nil {
		var k int
		k, err = u.r.Read(b[n:])
		n += k
	}
	u.at += int64(n)
	if err != nil && !errors.Is(err, io.EOF) {
		return n, u.failed(err)
	}
	if n == len(b) {
		return n, nil // the end may be told again
	}
	return n, err
}

// skip reads up to a place, or to the end where the text is shorter, and fills head and tail with the first and the last bytes
// of what is before the place.
func (u *unpacker) skip(to int64, head, tail []byte) error {
	block := make([]byte, blockBytes)
	for u.at < to {
		from := u.at
		n, err := u.read(block[:min(int64(len(block)), to-u.at)])
		keep(head, 0, block[:n], from)
		keep(tail, to-int64(len(tail)), block[:n], from)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// keep copies to dst, which stands for the bytes from base on, what b, the bytes from at on, has of them.
func keep(dst []byte, base int64, b []byte, at int64) {
	from, to := max(base, at), min(base+int64(len(dst)), at+int64(len(b)))
	if from < to {
		copy(dst[from-base:], b[from-at:to-at])
	}
}

func (u *unpacker) failed(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("file: %s: the %s data ends in the middle, behind %d bytes of text: the file is not whole; put the whole one there", u.path, u.how, u.at)
	}
	return fmt.Errorf("file: %s: damaged %s data, behind %d bytes of text: %w", u.path, u.how, u.at, err)
}
