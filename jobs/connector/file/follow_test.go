package file

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sidestream-dev/sidestream/jobs"
)

func appendTo(t testing.TB, path, text string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err == nil {
		_, err = f.WriteString(text)
		if cerr := f.Close(); err == nil {
			err = cerr
		}
	}
	if err != nil {
		t.Fatal(err)
	}
}

func rename(t testing.TB, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}

// tail reads a followed source as a job would that starts again now and then.
type tail struct {
	t      *testing.T
	src    Source
	r      jobs.Reader
	starts []jobs.Start
	got    []string
}

func newTail(t *testing.T, s Source) *tail {
	t.Helper()
	s.Follow = true
	if s.Poll == 0 {
		s.Poll = 2 * time.Millisecond
	}
	l := &tail{t: t, src: s}
	l.restart()
	t.Cleanup(func() { l.r.Close() })
	return l
}

func (l *tail) env() jobs.SourceEnv {
	return jobs.SourceEnv{Logger: slog.New(slog.DiscardHandler), Known: slices.Clone(l.starts)}
}

// restart goes on from the positions of what was read.
func (l *tail) restart() {
	l.t.Helper()
	if l.r != nil {
		l.r.Close()
	}
	found, err := l.src.Splits(l.t.Context(), l.env())
	if err != nil {
		l.t.Fatal(err)
	}
	for _, st := range found {
		if !slices.ContainsFunc(l.starts, func(k jobs.Start) bool { return k.Split.ID == st.Split.ID }) {
			l.starts = append(l.starts, st)
		}
	}
	if l.r, err = l.src.Open(l.t.Context(), l.env(), l.starts); err != nil {
		l.t.Fatal(err)
	}
}

// look reads what there is, at most limit records, and returns how many there were.
func (l *tail) look(limit int) (int, error) {
	want := make([]int, len(l.starts))
	for i := range want {
		want[i] = i
	}
	c := &jobs.Chunk{Max: limit}
	if err := l.r.Read(c, want); err != nil {
		return 0, err
	}
	for _, m := range c.Messages {
		l.got = append(l.got, string(m.Value))
	}
	if c.Position != nil {
		l.starts[c.Split].Position = c.Position
	}
	if c.Ended {
		l.t.Fatal("a followed file has ended")
	}
	return len(c.Messages), nil
}

// until reads until n records have come in all.
func (l *tail) until(n int) {
	l.t.Helper()
	for end := time.Now().Add(time.Minute); len(l.got) < n; {
		k, err := l.look(100)
		if err != nil {
			l.t.Fatal(err)
		}
		if k > 0 {
			continue
		}
		if time.Now().After(end) {
			l.t.Fatalf("%d of %d records: %q", len(l.got), n, l.got)
		}
		<-l.r.Ready()
	}
}

// quiet looks a few times and wants nothing.
func (l *tail) quiet() {
	l.t.Helper()
	for range 6 {
		<-l.r.Ready()
		if n, err := l.look(100); err != nil || n > 0 {
			l.t.Fatalf("%d records came, where none was written: %q, %v", n, l.got, err)
		}
	}
}

func (l *tail) want(lines ...string) {
	l.t.Helper()
	l.until(len(lines))
	l.quiet()
	if !slices.Equal(l.got, lines) {
		l.t.Fatalf("got %q\nwant %q", l.got, lines)
	}
}

func TestFollow(t *testing.T) {
	setup := func(t *testing.T, text string) (path string, l *tail) {
		path = filepath.Join(t.TempDir(), "a.log")
		appendTo(t, path, text)
		return path, newTail(t, Source{Path: filepath.Join(filepath.Dir(path), "*.log"), Format: Lines})
	}
	t.Run("a part of a line waits for the rest", func(t *testing.T) {
		path, l := setup(t, "1\n2")
		l.want("1")
		appendTo(t, path, "0")
		l.quiet()
		appendTo(t, path, "\n3\n")
		l.want("1", "20", "3")
	})
	t.Run("renamed, and made again", func(t *testing.T) {
		path, l := setup(t, "1\n2\n")
		l.want("1", "2")
		appendTo(t, path, "3\n")
		rename(t, path, path+".1")
		l.want("1", "2", "3")
		appendTo(t, path+".1", "4\n5") // its writer has not noticed; a last line without its end
		l.want("1", "2", "3", "4")
		appendTo(t, path, "6\n")
		l.want("1", "2", "3", "4", "5", "6")
	})
	t.Run("renamed while nobody looks", func(t *testing.T) {
		path, l := setup(t, "1\n2\n")
		l.want("1", "2")
		appendTo(t, path, "3\n")
		rename(t, path, path+".1")
		appendTo(t, path, "4\n")
		l.restart()
		l.want("1", "2", "3", "4")
	})
	t.Run("renamed twice, with nothing in between that was read before a restart", func(t *testing.T) {
		path, l := setup(t, "1\n")
		l.want("1")
		rename(t, path, path+".1")
		appendTo(t, path, "")
		l.quiet()
		appendTo(t, path, "2\n")
		rename(t, path, path+".2")
		appendTo(t, path, "3\n")
		l.restart()
		l.want("1", "2", "3")
	})
	t.Run("gone while nobody looks", func(t *testing.T) {
		path, l := setup(t, "1\n2\n")
		l.want("1", "2")
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		l.restart()
		l.quiet()
		appendTo(t, path, "3\n")
		l.want("1", "2", "3")
	})
	t.Run("cut short", func(t *testing.T) {
		path, l := setup(t, "1\n2\n3")
		l.want("1", "2")
		if err := os.Truncate(path, 0); err != nil {
			t.Fatal(err)
		}
		l.want("1", "2", "3") // what had no end has one now
		appendTo(t, path, "4\n")
		l.want("1", "2", "3", "4")
	})
	for _, restart := range []bool{false, true} {
		t.Run(fmt.Sprintf("cut short, and grown over where it was, restart=%v", restart), func(t *testing.T) {
			path, l := setup(t, "1\n2\n")
			l.want("1", "2")
			if err := os.Truncate(path, 0); err != nil {
				t.Fatal(err)
			}
			appendTo(t, path, "one\ntwo\nthree\n")
			if restart {
				l.restart()
			}
			l.want("1", "2", "one", "two", "three")
		})
	}
	t.Run("csv whose header comes late, and again", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "a.csv")
		appendTo(t, path, "\ufeffn,")
		l := newTail(t, Source{Path: path, Format: CSV})
		l.quiet()
		appendTo(t, path, "m\n1,2\n3,\"4")
		l.want(`{"n":"1","m":"2"}`)
		l.restart()
		appendTo(t, path, "\"\n")
		l.want(`{"n":"1","m":"2"}`, `{"n":"3","m":"4"}`)
		rename(t, path, path+".1")
		appendTo(t, path, "m\n5\n")
		l.want(`{"n":"1","m":"2"}`, `{"n":"3","m":"4"}`, `{"m":"5"}`)
	})
}

// TestFollowLatest: a job that starts at latest gets what is written from then on, whole lines, and all of files that come later,
// also where it finds them at a restart.
func TestFollowLatest(t *testing.T) {
	for _, f := range []Format{Lines, CSV} {
		dir, header, record := t.TempDir(), "", func(n int) string { return strconv.Itoa(n) }
		if f == CSV {
			header, record = "n\n", func(n int) string { return fmt.Sprintf(`{"n":"%d"}`, n) }
		}
		appendTo(t, filepath.Join(dir, "a"), header+"1\n2\n3")
		l := newTail(t, Source{Path: filepath.Join(dir, "*"), Format: f, Start: "latest"})
		l.quiet()
		appendTo(t, filepath.Join(dir, "a"), "4\n5\n")
		l.want(record(34), record(5))
		appendTo(t, filepath.Join(dir, "b"), header+"6\n")
		l.restart()
		l.want(record(34), record(5), record(6))
	}
}

// TestFollowRotatedMatches: a pattern that matches what a file is renamed to would read it twice; each that looks refuses it.
func TestFollowRotatedMatches(t *testing.T) {
	setup := func() (path string, l *tail) {
		path = filepath.Join(t.TempDir(), "a.log")
		appendTo(t, path, "1\n2\n")
		l = newTail(t, Source{Path: path + "*", Format: Lines})
		l.want("1", "2")
		return path, l
	}
	refused := func(who string, err error) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), "let it match only the names that are written to") {
			t.Errorf("%s says %v", who, err)
		}
	}
	path, l := setup()
	rename(t, path, path+".1")
	appendTo(t, path, "3\n")
	var err error
	for err == nil {
		<-l.r.Ready()
		_, err = l.look(100)
	}
	refused("the reader", err)
	_, err = l.src.Splits(t.Context(), l.env())
	refused("Splits", err)

	path, l = setup()
	done := make(chan error)
	go func() {
		_, err := l.src.Discover(t.Context(), l.env())
		done <- err
	}()
	other := path + ".1"
	for found := false; !found; path, other = other, path {
		time.Sleep(20 * l.src.Poll) // it has looked by then; where it has not, it takes that name for the first, and the next for another
		rename(t, path, other)
		select {
		case err := <-done:
			refused("Discover", err)
			found = true
		case <-time.After(20 * l.src.Poll):
		}
	}

	gz := filepath.Join(t.TempDir(), "a.log.gz")
	appendTo(t, gz, "x")
	if _, err := (Source{Path: gz, Follow: true}).Splits(t.Context(), l.env()); err == nil || !strings.Contains(err.Error(), "cannot be followed") {
		t.Errorf("a compressed file: %v", err)
	}
}

// TestFollowRandomly writes lines in pieces, rotates, cuts and restarts, in a random order: every line comes once, in order.
func TestFollowRandomly(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("FOLLOW_SEED"); s != "" {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		seed = n
	}
	t.Logf("FOLLOW_SEED=%d repeats this run", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	dir := t.TempDir()
	path, rotations := filepath.Join(dir, "a.log"), 0
	appendTo(t, path, "")
	l := newTail(t, Source{Path: path, Format: Lines, Poll: time.Millisecond})
	var want []string
	rest := "" // of the line under way
	caughtUp := func() { l.until(len(want)) }
	for range 600 {
		switch k := rng.IntN(20); {
		case k < 11:
			if rest == "" {
				line := fmt.Sprintf("line %d %s", len(want), strings.Repeat("x", rng.IntN(40)))
				want, rest = append(want, line), line+"\n"
			}
			n := 1 + rng.IntN(len(rest))
			appendTo(t, path, rest[:n])
			rest = rest[n:]
		case k < 15:
			if _, err := l.look(1 + rng.IntN(3)); err != nil {
				t.Fatal(err)
			}
		case k < 17:
			l.restart()
		case k < 18 && rest == "": // one rotation at a time
			caughtUp()
			l.quiet()
			line := fmt.Sprintf("line %d, the last here", len(want))
			want = append(want, line)
			appendTo(t, path, line+"\n")
			rotations++
			rename(t, path, fmt.Sprintf("%s.%d", path, rotations))
			appendTo(t, path, "")
			if rng.IntN(2) == 0 {
				l.restart()
			}
			caughtUp()
			if rng.IntN(2) == 0 {
				l.quiet()
			}
		case k < 19 && rest == "":
			caughtUp()
			if err := os.Truncate(path, 0); err != nil {
				t.Fatal(err)
			}
		}
	}
	appendTo(t, path, rest)
	caughtUp()
	l.quiet()
	if !slices.Equal(l.got, want) {
		for i := range want {
			if i >= len(l.got) || l.got[i] != want[i] {
				t.Fatalf("record %d of %d is not %q; got %d records, there %q", i, len(want), want[i], len(l.got), l.got[min(i, len(l.got)-1)])
			}
		}
		t.Fatalf("%d records, want %d", len(l.got), len(want))
	}
}
