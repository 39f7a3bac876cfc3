package file

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sidestream-dev/sidestream/jobs"
)

func sinkEnv(d jobs.Delivery, state []byte) jobs.SinkEnv {
	return jobs.SinkEnv{Delivery: d, State: state, Logger: slog.New(slog.DiscardHandler), Waiting: func(string) {}}
}

func messages(values ...string) []jobs.Message {
	ms := make([]jobs.Message, len(values))
	for i, v := range values {
		ms[i].Value = []byte(v)
	}
	return ms
}

func mustWrite(t *testing.T, w jobs.Writer, values ...string) []byte {
	t.Helper()
	state, err := w.Write(t.Context(), messages(values...))
	if err != nil {
		t.Fatal(err)
	}
	return state
}

func content(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func openSink(t *testing.T, s Sink, d jobs.Delivery, state []byte) jobs.Writer {
	t.Helper()
	w, err := s.Open(t.Context(), sinkEnv(d, state))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	return w
}

func TestSinkLines(t *testing.T) {
	dir := t.TempDir()
	s := Sink{Path: filepath.Join(dir, "new", "folder", "out.jsonl")}
	w := openSink(t, s, jobs.AtLeastOnce, nil)
	if _, err := os.Stat(s.Path); err == nil {
		t.Error("Open made the file")
	}
	if state := mustWrite(t, w); state == nil {
		t.Error("the state of nothing is nil")
	}
	mustWrite(t, w, `{"a":1}`, "{\n \"a\": 2\r\n}")
	if got, want := content(t, s.Path), "{\"a\":1}\n{  \"a\": 2  }\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	l := Sink{Path: filepath.Join(dir, "out.txt"), Format: Lines}
	mustWrite(t, openSink(t, l, jobs.AtLeastOnce, nil), "a\nb", "", "c\r")
	if got, want := content(t, l.Path), "a\\nb\n\nc\\r\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := (Sink{Path: "x"}).Place(); !strings.HasPrefix(got, "file /") {
		t.Errorf("place %q", got)
	}
}

func TestSinkRecovery(t *testing.T) {
	const committed = "one\ntwo\n"
	stop := func(text string) func(*testing.T, error) {
		return func(t *testing.T, err error) {
			var stopped *jobs.StoppedError
			if !errors.As(err, &stopped) || !strings.Contains(err.Error(), text) || stopped.Choice == "" {
				t.Errorf("got %v, want a StoppedError with %q and a choice", err, text)
			}
		}
	}
	tests := []struct {
		name     string
		delivery jobs.Delivery
		file     string
		noState  bool
		want     string // what the file is once "next" has been written
		err      func(*testing.T, error)
	}{
		{"as it was", jobs.ExactlyOnce, committed, false, committed + "next\n", nil},
		{"exactly once cuts whole lines", jobs.ExactlyOnce, committed + "three\n", false, committed + "next\n", nil},
		{"exactly once cuts a torn line", jobs.ExactlyOnce, committed + "three\nfo", false, committed + "next\n", nil},
		{"at least once keeps whole lines", jobs.AtLeastOnce, committed + "three\n", false, committed + "three\nnext\n", nil},
		{"at least once cuts a torn line", jobs.AtLeastOnce, committed + "three\nfo", false, committed + "three\nnext\n", nil},
		{"at least once cuts only a torn line", jobs.AtLeastOnce, committed + "thr", false, committed + "next\n", nil},
		{"a long torn line", jobs.AtLeastOnce, committed + strings.Repeat("x", 3*blockBytes), false, committed + "next\n", nil},
		{"shorter", jobs.AtLeastOnce, "one\ntw", false, "", stop("has 6 bytes, of 8 that were committed")},
		{"shorter, exactly once", jobs.ExactlyOnce, "", false, "", stop("has 0 bytes, of 8")},
		{"another file", jobs.ExactlyOnce, "one\nTWO\nmore\n", false, "", stop("is not what was written")},
		{"not empty and no state", jobs.AtLeastOnce, "x\n", true, "", stop("has 2 bytes, but nothing of this output was ever written")},
		{"empty and no state", jobs.ExactlyOnce, "", true, "next\n", nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := Sink{Path: filepath.Join(t.TempDir(), "out"), Format: Lines}
			var state []byte
			if !tt.noState {
				w := openSink(t, s, tt.delivery, nil)
				state = mustWrite(t, w, "one", "two")
				w.Close()
			}
			write(t, s.Path, tt.file)
			w, err := s.Open(t.Context(), sinkEnv(tt.delivery, state))
			if tt.err != nil {
				tt.err(t, err)
				if got := content(t, s.Path); got != tt.file {
					t.Errorf("the file was changed to %q", got)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer w.Close()
			state = mustWrite(t, w, "next")
			if got := content(t, s.Path); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			openSink(t, s, jobs.ExactlyOnce, state) // its checksum is that of the file
		})
	}
	t.Run("gone", func(t *testing.T) {
		s := Sink{Path: filepath.Join(t.TempDir(), "out")}
		state := mustWrite(t, openSink(t, s, jobs.ExactlyOnce, nil), "1")
		if err := os.Remove(s.Path); err != nil {
			t.Fatal(err)
		}
		_, err := s.Open(t.Context(), sinkEnv(jobs.ExactlyOnce, state))
		stop("is gone")(t, err)
	})
	t.Run("a repair removed records", func(t *testing.T) {
		s := Sink{Path: filepath.Join(t.TempDir(), "out"), Format: Lines}
		state := mustWrite(t, openSink(t, s, jobs.ExactlyOnce, nil), "one", "two")
		write(t, s.Path, committed+"three\n")
		env := sinkEnv(jobs.ExactlyOnce, state)
		env.Cut = jobs.Cut{From: 2, To: 90}
		_, err := s.Open(t.Context(), env)
		stop("has 6 bytes behind the first 8")(t, err)
		if got := content(t, s.Path); got != committed+"three\n" {
			t.Errorf("the file was changed to %q", got)
		}
		env.Delivery = jobs.AtLeastOnce
		w, err := s.Open(t.Context(), env)
		if err != nil {
			t.Fatal(err)
		}
		w.Close()
		if err := os.Truncate(s.Path, int64(len(committed))); err != nil { // the other choice
			t.Fatal(err)
		}
		env.Delivery = jobs.ExactlyOnce
		if w, err = s.Open(t.Context(), env); err != nil {
			t.Fatal(err)
		}
		w.Close()
	})
	t.Run("state of another sink", func(t *testing.T) {
		s := Sink{Path: filepath.Join(t.TempDir(), "out")}
		write(t, s.Path, "1\n")
		if _, err := s.Open(t.Context(), sinkEnv(jobs.ExactlyOnce, []byte{9})); err == nil {
			t.Error("accepted")
		}
	})
}

// TestSinkAfterError: a Write that failed midway leaves nothing behind once the next has succeeded.
func TestSinkAfterError(t *testing.T) {
	s := Sink{Path: filepath.Join(t.TempDir(), "out"), Format: Lines}
	w := openSink(t, s, jobs.AtLeastOnce, nil)
	mustWrite(t, w, "first")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	big := strings.Repeat("b", writeBytes)
	if _, err := w.Write(ctx, messages(big, big)); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v, want context.Canceled", err)
	}
	if got := content(t, s.Path); len(got) < writeBytes {
		t.Fatalf("the test needs part of a write in the file, there are %d bytes", len(got))
	}
	state := mustWrite(t, w, "second")
	if got := content(t, s.Path); got != "first\nsecond\n" {
		t.Errorf("got %d bytes, want the two lines", len(got))
	}
	openSink(t, s, jobs.ExactlyOnce, state)
}

// TestSinkCrashes: whatever of the unsynced bytes survives, exactly once gives each line once, and at least once none
// missing and none torn.
func TestSinkCrashes(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 2))
	for _, d := range []jobs.Delivery{jobs.ExactlyOnce, jobs.AtLeastOnce} {
		s := Sink{Path: filepath.Join(t.TempDir(), "out"), Format: Lines}
		var durable []byte // the state that stands with the position
		next, sent := 0, 0 // the position, and what was handed over
		for range 60 {
			w := openSink(t, s, d, durable)
			if durable == nil {
				durable = mustWrite(t, w)
			}
			at := next
			for range rng.IntN(4) {
				lines := make([]string, 1+rng.IntN(5))
				for i := range lines {
					lines[i] = fmt.Sprintf("line %d", at+i)
				}
				state := mustWrite(t, w, lines...)
				at += len(lines)
				if rng.IntN(2) == 0 {
					durable, next = state, at
				}
			}
			sent = max(sent, at)
			w.Close()
			if rng.IntN(3) == 0 { // the beginning of a write under way
				f, err := os.OpenFile(s.Path, os.O_APPEND|os.O_WRONLY, 0)
				if err != nil {
					t.Fatal(err)
				}
				fmt.Fprintf(f, "line %d\nli", at)
				sent = max(sent, at+1)
				f.Close()
			}
		}
		openSink(t, s, d, durable)
		lines := strings.Split(strings.TrimSuffix(content(t, s.Path), "\n"), "\n")
		seen := map[string]int{}
		for _, l := range lines {
			seen[l]++
		}
		for i := range next {
			n := seen[fmt.Sprintf("line %d", i)]
			if n == 0 || d == jobs.ExactlyOnce && n != 1 {
				t.Fatalf("seed %d: %s: line %d is there %d times", seed, d, i, n)
			}
			delete(seen, fmt.Sprintf("line %d", i))
		}
		for l := range seen {
			var i int
			if _, err := fmt.Sscanf(l, "line %d", &i); err != nil || d == jobs.ExactlyOnce || i >= sent {
				t.Fatalf("seed %d: %s: %q is there", seed, d, l)
			}
		}
	}
}

func BenchmarkWrite(b *testing.B) {
	s := Sink{Path: filepath.Join(b.TempDir(), "out")}
	w, err := s.Open(b.Context(), sinkEnv(jobs.ExactlyOnce, nil))
	if err != nil {
		b.Fatal(err)
	}
	defer w.Close()
	ms := messages(strings.Repeat(strings.Repeat("x", 241)+" ", 1))
	for len(ms) < 10_000 {
		ms = append(ms, ms[0])
	}
	b.SetBytes(int64(len(ms)) * 243)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := w.Write(b.Context(), ms); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(len(ms)*b.N)/b.Elapsed().Seconds()/1e6, "Mrec/s")
	b.ReportMetric(1, "fsync/op")
}
