package file

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/sidestream-dev/sidestream/jobs"
)

// packed compresses parts as the ending of a name says, each a member or a frame of its own.
func packed(t testing.TB, ending string, parts ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	for _, part := range parts {
		var w io.WriteCloser
		switch packing(ending) {
		case "gzip":
			w = gzip.NewWriter(&b)
		case "zstd":
			z, err := zstd.NewWriter(&b)
			if err != nil {
				t.Fatal(err)
			}
			w = z
		default:
			b.WriteString(part)
			continue
		}
		if _, err := io.WriteString(w, part); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return b.Bytes()
}

// unpacked is the text of a file.
func unpacked(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err == nil && packing(path) == "gzip" {
		var r *gzip.Reader
		if r, err = gzip.NewReader(bytes.NewReader(b)); err == nil {
			b, err = io.ReadAll(r)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// readUntilError reads a source to its end and returns how many records it gave, and its error.
func readUntilError(t *testing.T, s Source) (n int, err error) {
	t.Helper()
	starts, err := s.Splits(t.Context(), jobs.SourceEnv{})
	if err != nil {
		t.Fatal(err)
	}
	r, err := s.Open(t.Context(), jobs.SourceEnv{Logger: slog.New(slog.DiscardHandler)}, starts)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for c := (&jobs.Chunk{Max: 1000}); !c.Ended && err == nil; n += len(c.Messages) {
		c.Reset()
		err = r.Read(c, []int{0})
	}
	return n, err
}

// TestPackedTorn: compressed data that was cut, damaged or never was any is an error that says so, at every place, and the end
// of a file is never taken for the end of its records.
func TestPackedTorn(t *testing.T) {
	var text strings.Builder
	for n := range 2000 {
		fmt.Fprintf(&text, "%d,%x\n", n, n*n*2654435761)
	}
	for _, ending := range []string{".gz", ".zst"} {
		path := filepath.Join(t.TempDir(), "in"+ending)
		whole := packed(t, ending, text.String())
		s := Source{Path: path, Format: Lines}
		write(t, path, string(whole))
		if n, err := readUntilError(t, s); err != nil || n != 2000 {
			t.Fatalf("%s: the whole file gives %d records, %v", ending, n, err)
		}
		for cut := 1; cut < len(whole); cut += 1 + len(whole)/60 {
			write(t, path, string(whole[:cut]))
			if n, err := readUntilError(t, s); err == nil || !strings.Contains(err.Error(), path) {
				t.Fatalf("%s cut at byte %d of %d gives %d records, %v", ending, cut, len(whole), n, err)
			}
		}
		write(t, path, string(whole[:len(whole)/2]))
		if _, err := readUntilError(t, s); !strings.Contains(err.Error(), "ends in the middle") {
			t.Errorf("%s: half of it says %v", ending, err)
		}
		damaged := bytes.Clone(whole)
		damaged[len(damaged)/2] ^= 0x40
		write(t, path, string(damaged))
		if _, err := readUntilError(t, s); err == nil {
			t.Errorf("%s: a flipped bit is not seen", ending)
		}
		write(t, path, "plain text, much longer than a header\n")
		if _, err := readUntilError(t, s); err == nil || !strings.Contains(err.Error(), "damaged") {
			t.Errorf("%s: plain text says %v", ending, err)
		}
	}
	path := filepath.Join(t.TempDir(), "in.gz")
	write(t, path, "")
	if _, err := readUntilError(t, Source{Path: path}); err == nil {
		t.Error("an empty .gz file is taken for a whole one")
	}
}

// TestPackedReplaced: another file at the path of one that was read half is told by its text.
func TestPackedReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "in.gz")
	write(t, path, string(packed(t, ".gz", strings.Repeat("a\n", 50), strings.Repeat("b\n", 50))))
	s := Source{Path: path, Format: Lines}
	starts, err := s.Splits(t.Context(), jobs.SourceEnv{})
	if err != nil {
		t.Fatal(err)
	}
	r, err := s.Open(t.Context(), jobs.SourceEnv{}, starts)
	if err != nil {
		t.Fatal(err)
	}
	c := &jobs.Chunk{Max: 60}
	if err := r.Read(c, []int{0}); err != nil || len(c.Messages) != 60 {
		t.Fatal(len(c.Messages), err)
	}
	starts[0].Position = c.Position
	r.Close()
	for name, text := range map[string]string{"other text": strings.Repeat("a\n", 50) + strings.Repeat("c\n", 50), "a shorter one": "a\n"} {
		write(t, path, string(packed(t, ".gz", text)))
		r, err := s.Open(t.Context(), jobs.SourceEnv{}, starts)
		if err != nil {
			t.Fatal(err)
		}
		c.Reset()
		if err := r.Read(c, []int{0}); err == nil || !strings.Contains(err.Error(), "put the file back") {
			t.Errorf("%s: %v", name, err)
		}
		r.Close()
	}
}

// TestPackedSinkCut: what a .gz file has behind the committed length, whole members and torn ones, is cut back at either
// delivery; what is sent again then stands there once.
func TestPackedSinkCut(t *testing.T) {
	for _, d := range []jobs.Delivery{jobs.AtLeastOnce, jobs.ExactlyOnce} {
		for _, torn := range []int{0, 1, 15} {
			path := filepath.Join(t.TempDir(), "out.gz")
			s := Sink{Path: path}
			env := jobs.SinkEnv{Delivery: d, Logger: slog.New(slog.DiscardHandler)}
			open := func(state []byte) jobs.Writer {
				t.Helper()
				env.State = state
				w, err := s.Open(t.Context(), env)
				if err != nil {
					t.Fatal(err)
				}
				return w
			}
			message := func(v string) []jobs.Message { return []jobs.Message{{Value: []byte(v)}} }
			w := open(nil)
			state, err := w.Write(t.Context(), message("1"))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := w.Write(t.Context(), message("2")); err != nil {
				t.Fatal(err)
			}
			w.Close()
			info, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.Truncate(path, info.Size()-int64(torn)); err != nil {
				t.Fatal(err)
			}
			w = open(state)
			if _, err := w.Write(t.Context(), message("2")); err != nil {
				t.Fatal(err)
			}
			w.Close()
			if got := string(unpacked(t, path)); got != "1\n2\n" {
				t.Errorf("%s, %d bytes torn off: %q", d, torn, got)
			}
		}
	}
}
