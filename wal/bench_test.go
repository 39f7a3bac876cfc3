package wal

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// BenchmarkAppend has 5 producers of packed records, one frame each at a time and each waiting for no one but a bounded
// backlog, against a plain file that gets the same frames in the same groups with one write and one fdatasync each.
// ns/op is per frame.
func BenchmarkAppend(b *testing.B) {
	for _, size := range []int{100, 1024} {
		for _, frame := range []int{16 << 10, 256 << 10, 1 << 20} {
			name := fmt.Sprintf("rec=%dB/frame=%dKiB", size, frame>>10)
			b.Run("log/"+name, func(b *testing.B) { benchAppend(b, size, frame) })
			b.Run("plain/"+name, func(b *testing.B) { benchPlain(b, frame) })
		}
	}
}

// packed is a frame's worth of records, each with its length before it.
func packed(size, frame int) []byte {
	var body []byte
	for len(body)+size+2 <= frame {
		body = binary.AppendUvarint(body, uint64(size))
		body = append(body, make([]byte, size)...)
	}
	return body
}

func benchAppend(b *testing.B, size, frame int) {
	l, err := Open(b.TempDir(), Config{})
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	if _, err := l.Rotate(nil); err != nil {
		b.Fatal(err)
	}
	body := packed(size, frame)
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	frames := make(chan struct{}, 5)
	var wg sync.WaitGroup
	var mu sync.Mutex
	b.ResetTimer()
	for range 5 {
		wg.Go(func() {
			sections := []Section{{Kind: 2, Owner: 7, Body: body}}
			for range frames {
				mu.Lock()
				if l.RotateDue() {
					l.Rotate(nil)
				}
				lsn, err := l.Append(2, sections)
				mu.Unlock()
				if err != nil {
					b.Error(err)
					return
				}
				if back := LSN(max(8<<20/frame, 1)); lsn > back {
					l.WaitDurable(context.Background(), lsn-back)
				}
			}
		})
	}
	for b.Loop() {
		frames <- struct{}{}
	}
	close(frames)
	wg.Wait()
	if err := l.WaitDurable(context.Background(), l.Last()); err != nil {
		b.Fatal(err)
	}
	b.StopTimer()
	s := l.Stats()
	b.ReportMetric(float64(s.Syncs)/float64(b.N), "fsync/op")
	b.ReportMetric(float64(len(body)/size)*float64(b.N)/b.Elapsed().Seconds()/1e6, "Mrec/s")
	b.ReportMetric(float64(s.SyncTime)/float64(b.Elapsed()), "sync-share")
	b.ReportMetric(float64(s.WriteTime)/float64(b.Elapsed()), "write-share")
}

func benchPlain(b *testing.B, frame int) {
	f, err := os.Create(filepath.Join(b.TempDir(), "plain"))
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	group := make([]byte, max(4<<20, frame))
	per := len(group) / frame
	b.SetBytes(int64(frame))
	n := 0
	flush := func() {
		if n == 0 {
			return
		}
		if _, err := f.Write(group[:n*frame]); err != nil {
			b.Fatal(err)
		}
		if err := unix.Fdatasync(int(f.Fd())); err != nil {
			b.Fatal(err)
		}
		n = 0
	}
	for b.Loop() {
		if n++; n == per {
			flush()
		}
	}
	flush()
}

// BenchmarkReader reads a log in order with all bodies checked. The log lies in the page cache.
func BenchmarkReader(b *testing.B) {
	for _, frame := range []int{4 << 10, 64 << 10, 1 << 20} {
		b.Run(fmt.Sprintf("frame=%dKiB", frame>>10), func(b *testing.B) {
			l, err := Open(b.TempDir(), Config{})
			if err != nil {
				b.Fatal(err)
			}
			defer l.Close()
			l.Rotate(nil)
			body := make([]byte, frame)
			for range 128 << 20 / frame {
				if _, err := l.Append(2, []Section{{Kind: 2, Body: body[:frame/2]}, {Kind: 3, Body: body[:frame/2]}}); err != nil {
					b.Fatal(err)
				}
			}
			l.WaitDurable(context.Background(), l.Last())
			b.SetBytes(128 << 20)
			b.ReportAllocs()
			for b.Loop() {
				readAll(b, l, 0)
			}
		})
	}
}

// readAll takes every body of every frame from from on and returns the number of frames.
func readAll(tb testing.TB, l *Log, from LSN) (frames int) {
	r, err := l.Reader(from)
	if err != nil {
		tb.Fatal(err)
	}
	defer r.Close()
	for {
		f, err := r.Next()
		if errors.Is(err, io.EOF) {
			return frames
		}
		if err != nil {
			tb.Fatal(err)
		}
		for i := range f.Len() {
			if _, err := f.View(i); err != nil {
				tb.Fatal(err)
			}
		}
		frames++
	}
}
