package wal

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
)

// mustOpen opens a log that the test closes.
func mustOpen(tb testing.TB, dir string, cfg Config) *Log {
	tb.Helper()
	l, err := Open(dir, cfg)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { l.Close() })
	return l
}

// build makes a closed log in dir: a catalog, then frames in groups of the sizes given, each group durable before the
// next is appended. A size below 0 is a new generation.
func build(tb testing.TB, dir string, cfg Config, groups ...int) {
	tb.Helper()
	l := mustOpen(tb, dir, cfg)
	mustDo(tb)(l.Rotate([]Section{{Kind: 1, Body: crashBody(1)}}))
	for _, n := range groups {
		if n < 0 {
			mustDo(tb)(l.Rotate([]Section{{Kind: 1, Body: crashBody(l.Last() + 1)}}))
		}
		for range n {
			body := crashBody(l.Last() + 1)
			mustDo(tb)(l.Append(2, []Section{{Kind: 2, Owner: 5, Body: body[:100]}, {Kind: 3, Owner: 6, Body: body[100:]}}))
		}
		waitAll(tb, l)
	}
	if err := l.Close(); err != nil {
		tb.Fatal(err)
	}
}

func mustDo(tb testing.TB) func(LSN, error) LSN {
	return func(lsn LSN, err error) LSN {
		tb.Helper()
		if err != nil {
			tb.Fatal(err)
		}
		return lsn
	}
}

func waitAll(tb testing.TB, l *Log) {
	tb.Helper()
	if err := l.WaitDurable(context.Background(), l.Last()); err != nil {
		tb.Fatal(err)
	}
}

// readFrames returns the bodies of the frames from from on, by section joined, and what ended it.
func readFrames(l *Log, from LSN) (bodies map[LSN][]byte, err error) {
	bodies = map[LSN][]byte{}
	r, err := l.Reader(from)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	for {
		f, err := r.Next()
		if errors.Is(err, io.EOF) {
			return bodies, nil
		}
		if err != nil {
			return bodies, err
		}
		var body []byte
		for i := range f.Len() {
			b, err := f.Body(i)
			if err != nil {
				return bodies, err
			}
			body = append(body, b...)
		}
		bodies[f.LSN] = body
	}
}

// tailPath is the newest segment with something in it.
func tailPath(tb testing.TB, dir string) string {
	tb.Helper()
	gens, _, err := listGenerations(osDisk{}, dir)
	if err != nil || len(gens) == 0 {
		tb.Fatal(gens, err)
	}
	gdir := filepath.Join(dir, generationName(gens[len(gens)-1]))
	segs, err := listSegments(osDisk{}, gdir)
	if err != nil {
		tb.Fatal(err)
	}
	for i := len(segs) - 1; i >= 0; i-- {
		if segs[i].size > 0 {
			return filepath.Join(gdir, segmentName(segs[i].index))
		}
	}
	tb.Fatal("no segment")
	return ""
}

func mustRead(tb testing.TB, path string) []byte {
	tb.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

func mustWrite(tb testing.TB, path string, b []byte) {
	tb.Helper()
	if err := os.WriteFile(path, b, 0o640); err != nil {
		tb.Fatal(err)
	}
}

// copyLog copies a log's directory.
func copyLog(tb testing.TB, dir string) string {
	tb.Helper()
	to := tb.TempDir()
	if err := os.CopyFS(to, os.DirFS(dir)); err != nil {
		tb.Fatal(err)
	}
	return to
}
