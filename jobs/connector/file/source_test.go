package file

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sidestream-dev/sidestream/jobs"
)

func write(t testing.TB, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o666); err != nil {
		t.Fatal(err)
	}
}

func starts(t testing.TB, s Source) []jobs.Start {
	t.Helper()
	st, err := s.Splits(t.Context(), jobs.SourceEnv{})
	if err != nil {
		t.Fatal(err)
	}
	return st
}

func open(t testing.TB, s Source, st []jobs.Start) jobs.Reader {
	t.Helper()
	r, err := s.Open(t.Context(), jobs.SourceEnv{Logger: slog.New(slog.DiscardHandler)}, st)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

// drain reads split i to its end.
func drain(r jobs.Reader, i, most int) (ms []jobs.Message, err error) {
	c := &jobs.Chunk{}
	for !c.Ended {
		c.Reset()
		c.Max = most
		if err := r.Read(c, []int{i}); err != nil {
			return ms, err
		}
		ms = append(ms, c.Messages...)
	}
	return ms, nil
}

func values(ms []jobs.Message) []string {
	out := []string{}
	for _, m := range ms {
		out = append(out, fmt.Sprintf("%d:%s", m.Offset, m.Value))
	}
	return out
}

func TestRecords(t *testing.T) {
	tests := []struct {
		name   string
		format Format
		in     string
		want   []string
	}{
		{"empty file", JSONLines, "", []string{}},
		{"last line without its end", JSONLines, "1\n2", []string{"1:1", "2:2"}},
		{"CRLF", JSONLines, "1\r\n2\r\n", []string{"1:1", "2:2"}},
		{"CRLF, last line without LF", Lines, "a\r\nb\r", []string{"1:a", "2:b"}},
		{"jsonl passes over blank lines and counts them", JSONLines, "1\n\n \t\r\n2\n", []string{"1:1", "4:2"}},
		{"only blank lines", JSONLines, "\n\n\n", []string{}},
		{"lines keeps blank lines", Lines, "a\n\nb\n", []string{"1:a", "2:", "3:b"}},
		{"byte order mark", JSONLines, "\ufeff1\n2\n", []string{"1:1", "2:2"}},
		{"csv", CSV, "a,b\n1,2\n3,4", []string{`2:{"a":"1","b":"2"}`, `3:{"a":"3","b":"4"}`}},
		{"csv with only a header", CSV, "a,b\n", []string{}},
		{"csv header without a line end", CSV, "a,b", []string{}},
		{"csv, empty", CSV, "", []string{}},
		{"csv, byte order mark", CSV, "\ufeffa,b\r\n1,2\r\n", []string{`2:{"a":"1","b":"2"}`}},
		{"csv, blank lines", CSV, "a\n\n1\n\n", []string{`3:{"a":"1"}`}},
		{"csv quotes", CSV, "a,b\n\"x, \"\"y\"\"\",\"two\r\nlines\"\n\"\",z\n",
			[]string{`2:{"a":"x, \"y\"","b":"two\r\nlines"}`, `4:{"a":"","b":"z"}`}},
		{"csv quoted header", CSV, "\"a,1\",\"b\"\"\"\n1,2\n", []string{`2:{"a,1":"1","b\"":"2"}`}},
		{"csv, a quote inside a field is itself", CSV, "a\n5\" pipe\n", []string{`2:{"a":"5\" pipe"}`}},
		{"csv escapes", CSV, "a\nc:\\x\t\x01\xff é\n", []string{`2:{"a":"c:\\x\t\u0001` + "\ufffd" + ` é"}`}},
		{"csv, too few fields", CSV, "a,b\nlone\n1,2\n", []string{"2:lone", `3:{"a":"1","b":"2"}`}},
		{"csv, too few fields, and they would be JSON", CSV, "a,b\n1\n", []string{"2:1,"}},
		{"csv, too many fields", CSV, "a,b\n1,2,3\n", []string{"2:1,2,3"}},
		{"csv, text behind a closing quote", CSV, "a,b\n\"x\"y,2\n", []string{"2:\"x\"y,2"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "in")
			write(t, path, tt.in)
			s := Source{Path: path, Format: tt.format}
			for _, most := range []int{1, 2, 100} {
				ms, err := drain(open(t, s, starts(t, s)), 0, most)
				if err != nil {
					t.Fatal(err)
				}
				if got := values(ms); fmt.Sprint(got) != fmt.Sprint(tt.want) {
					t.Errorf("Max %d: got %q, want %q", most, got, tt.want)
				}
				for _, m := range ms {
					if bad := len(m.Headers) == 1 && m.Headers[0].Name == csvErrorHeader; tt.format == CSV && bad == json.Valid(m.Value) {
						t.Errorf("%s: JSON and marked as bad, or neither", m.Value)
					}
				}
			}
		})
	}
}

func TestErrors(t *testing.T) {
	long := strings.Repeat("x", 3<<20)
	tests := []struct {
		name   string
		source Source
		files  map[string]string
		want   string
	}{
		{"nothing matches", Source{Path: "none-*"}, nil, "no file matches"},
		{"only a folder", Source{Path: "."}, nil, "no file matches"},
		{"bad pattern", Source{Path: "[a"}, nil, "syntax error in pattern"},
		{"no path", Source{}, nil, "no path"},
		{"bad format", Source{Path: "*", Format: "xml"}, nil, "not one of jsonl, csv, lines"},
		{"bad limit", Source{Path: "*", LineBytes: -1}, nil, "line_bytes"},
		{"long line", Source{Path: "f"}, map[string]string{"f": "1\n" + long + "\n"}, "f:2: a line of more than 1048576 bytes (line_bytes)"},
		{"long line in one block", Source{Path: "f", LineBytes: 10}, map[string]string{"f": "1\n\n0123456789a\n"}, "f:3: a line of more than 10 bytes"},
		{"long last line", Source{Path: "f", LineBytes: 10}, map[string]string{"f": "1\n0123456789a"}, "f:2: a line"},
		{"long csv record", Source{Path: "f", Format: CSV, LineBytes: 10}, map[string]string{"f": "a\n\"01234\n6789a\"\n"}, "f:2: a line"},
		{"long csv header", Source{Path: "f", Format: CSV}, map[string]string{"f": long}, "f:1: a line"},
		{"open quote", Source{Path: "f", Format: CSV}, map[string]string{"f": "a\n1\n\"2\n3\n"}, "f:3: a quoted field"},
		{"two columns of a name", Source{Path: "f", Format: CSV}, map[string]string{"f": "a,b,a\n"}, `f:1: csv header: two columns are called "a"`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Chdir(t.TempDir())
			for name, content := range tt.files {
				write(t, name, content)
			}
			st, err := tt.source.Splits(t.Context(), jobs.SourceEnv{})
			if err == nil {
				_, err = drain(open(t, tt.source, st), 0, 100)
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want an error with %q", err, tt.want)
			}
		})
	}
	_, err := (Source{Path: "/none/*"}).Splits(t.Context(), jobs.SourceEnv{})
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v, want fs.ErrNotExist", err)
	}
}

// TestChanged: a file under its position is what it was, or that is said.
func TestChanged(t *testing.T) {
	const before = "{\"n\":1}\n{\"n\":2}\n{\"n\":3}\n{\"n\":4}\n"
	tests := []struct {
		name  string
		after string
		want  string // "" for what is read on
	}{
		{"the same", before, ""},
		{"more of it", before + "{\"n\":5}\n", ""},
		{"shrunk", before[:10], "shrunk to 10 bytes"},
		{"another beginning", "{\"m\":1}" + before[7:], "another file has taken its place"},
		{"another end before the position", strings.Replace(before, "2", "7", 1), "another file has taken its place"},
		{"other content behind the position", strings.Replace(before, "4", "7", 1), ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "in")
			write(t, path, before)
			s := Source{Path: path}
			st := starts(t, s)
			c := &jobs.Chunk{Max: 2}
			if err := open(t, s, st).Read(c, []int{0}); err != nil {
				t.Fatal(err)
			}
			write(t, path, tt.after)
			st[0].Position = c.Position
			ms, err := drain(open(t, s, st), 0, 10)
			if tt.want == "" {
				if err != nil || len(ms) < 2 || ms[0].Offset != 3 {
					t.Errorf("got %q and %v, want the third line on", values(ms), err)
				}
				return
			}
			var changed *ChangedError
			if !errors.As(err, &changed) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want a ChangedError with %q", err, tt.want)
			}
		})
	}
}

// TestResume: from the position behind any record, with any chunk sizes, the rest is read as in one go, also by a reader
// that may hold only one file open.
func TestResume(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	dir := t.TempDir()
	for round := range 30 {
		format := []Format{JSONLines, Lines, CSV}[round%3]
		for f := range 3 {
			write(t, filepath.Join(dir, fmt.Sprintf("in%d", f)), randomFile(rng, format))
		}
		s := Source{Path: filepath.Join(dir, "in*"), Format: format, OpenFiles: 1 + rng.IntN(3)}
		st := starts(t, s)
		var want [3][]string
		for i := range want {
			ms, err := drain(open(t, s, st), i, 1000)
			if err != nil {
				t.Fatalf("seed %d round %d: %v", seed, round, err)
			}
			want[i] = values(ms)
		}
		var got [3][]string
		r := open(t, s, st)
		for ended := 0; ended < len(st); {
			want := []int{}
			for i := range st {
				if !st[i].Ended {
					want = append(want, i)
				}
			}
			rng.Shuffle(len(want), func(i, j int) { want[i], want[j] = want[j], want[i] })
			c := &jobs.Chunk{Max: 1 + rng.IntN(40)}
			if err := r.Read(c, want); err != nil {
				t.Fatalf("seed %d round %d: %v", seed, round, err)
			}
			if c.Split != want[0] {
				t.Fatalf("seed %d round %d: split %d before the wanted %d", seed, round, c.Split, want[0])
			}
			got[c.Split] = append(got[c.Split], values(c.Messages)...)
			st[c.Split].Position, st[c.Split].Ended = c.Position, c.Ended
			if c.Ended {
				ended++
			}
			if rng.IntN(4) == 0 {
				r.Close()
				r = open(t, s, st)
			}
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Fatalf("seed %d round %d (%s): read otherwise in pieces", seed, round, format)
		}
	}
}

func randomFile(rng *rand.Rand, format Format) string {
	var b strings.Builder
	n := rng.IntN(3000)
	if format == CSV {
		w := csv.NewWriter(&b)
		w.UseCRLF = rng.IntN(2) == 0
		_ = w.Write([]string{"a", "b c", "d"})
		words := []string{"", "1", "x,y", "\"q\"", "two\nlines", "é", strings.Repeat("z", 500)}
		for range n {
			_ = w.Write([]string{words[rng.IntN(len(words))], words[rng.IntN(len(words))], "end"})
		}
		w.Flush()
	} else {
		for i := range n {
			fmt.Fprintf(&b, "{\"n\":%d,\"pad\":%q}", i, strings.Repeat("p", rng.IntN(300)))
			b.WriteString([]string{"\n", "\r\n", "\n\n"}[rng.IntN(3)])
		}
	}
	s := b.String()
	if rng.IntN(2) == 0 {
		s = strings.TrimRight(s, "\r\n")
	}
	return s
}

// TestCSVAgainstStdlib: fields are what encoding/csv reads.
func TestCSVAgainstStdlib(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	for range 20 {
		content := randomFile(rng, CSV)
		path := filepath.Join(t.TempDir(), "in")
		write(t, path, content)
		rows, err := csv.NewReader(strings.NewReader(content)).ReadAll()
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		s := Source{Path: path, Format: CSV}
		ms, err := drain(open(t, s, starts(t, s)), 0, 100)
		if err != nil || len(ms) != len(rows)-1 {
			t.Fatalf("seed %d: %d records and %v, want %d", seed, len(ms), err, len(rows)-1)
		}
		for i, m := range ms {
			var got map[string]string
			if err := json.Unmarshal(m.Value, &got); err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			for j, name := range rows[0] {
				if want := rows[i+1][j]; strings.ReplaceAll(got[name], "\r\n", "\n") != want {
					t.Fatalf("seed %d: record %d: got %q, want %q", seed, i, got[name], want)
				}
			}
		}
	}
}

// TestValuesStay: what a Read gave is not touched by later ones.
func TestValuesStay(t *testing.T) {
	path := filepath.Join(t.TempDir(), "in")
	var b bytes.Buffer
	for i := range 50_000 {
		fmt.Fprintf(&b, "%d,%d\n", i, i*i)
	}
	write(t, path, "a,b\n"+b.String())
	for _, f := range []Format{Lines, CSV} {
		s := Source{Path: path, Format: f}
		r := open(t, s, starts(t, s))
		var ms []jobs.Message
		var copies []string
		for c := (&jobs.Chunk{}); !c.Ended; {
			c.Reset()
			c.Max = 777
			if err := r.Read(c, []int{0}); err != nil {
				t.Fatal(err)
			}
			for _, m := range c.Messages {
				ms = append(ms, m)
				copies = append(copies, string(m.Value))
			}
		}
		for i := range ms {
			if string(ms[i].Value) != copies[i] {
				t.Fatalf("%s: record %d was %q, is %q", f, i, copies[i], ms[i].Value)
			}
		}
	}
}

func TestPositionGolden(t *testing.T) {
	p := position{offset: 0x1122, line: 7, headN: 64, head: 0xdeadbeef, tailN: 9, tail: 0x01020304}
	const want = "0122110000000000000700000000000000" + "40000000efbeadde" + "0904030201"
	if got := fmt.Sprintf("%x", p.encode()); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	st := state{length: 0x33, tailN: 2, tail: 0x0a0b0c0d}
	if got, want := fmt.Sprintf("%x", st.encode()), "013300000000000000020d0c0b0a"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func FuzzDecodePosition(f *testing.F) {
	f.Add(position{offset: 5, line: 1, tailN: 5}.encode())
	f.Add(state{length: 5, tailN: 5}.encode())
	f.Fuzz(func(t *testing.T, in []byte) {
		if p, err := decodePosition(in); err == nil && !bytes.Equal(p.encode(), in) {
			t.Fatalf("accepted %x, which encodes differently", in)
		}
		if s, err := decodeState(in); err == nil && !bytes.Equal(s.encode(), in) {
			t.Fatalf("accepted %x, which encodes differently", in)
		}
	})
}

func BenchmarkRead(b *testing.B) {
	const rows = 400_000
	for _, tt := range []struct {
		format Format
		head   string
		row    string
	}{
		{JSONLines, "", `{"device":"device-00042","kind":"temperature","ts":1767225600000,"reading":57.31,"seq":7,"site":"plant-07","line":"L3","fw":"2.14.9","battery":0.83,"lat":52.51234,"lon":13.40123,"tags":["a","b"],"status":"ok","note":"...................."}`},
		{CSV, "No,year,month,day,hour,PM2.5,PM10,SO2,NO2,CO,O3,TEMP,PRES,DEWP,RAIN,wd,WSPM,station", "1,2013,3,1,0,4,4,4,7,300,77,-0.7,1023,-18.8,0,NNW,4.4,Aotizhongxin"},
	} {
		b.Run("format="+string(tt.format), func(b *testing.B) {
			path := filepath.Join(b.TempDir(), "in")
			body := strings.Repeat(tt.row+"\n", rows)
			if tt.head != "" {
				body = tt.head + "\n" + body
			}
			write(b, path, body)
			s := Source{Path: path, Format: tt.format}
			st := starts(b, s)
			b.SetBytes(int64(len(body)))
			b.ReportAllocs()
			n := 0
			for b.Loop() {
				r := open(b, s, st)
				for c := (&jobs.Chunk{}); !c.Ended; {
					c.Reset()
					c.Max = 1024
					if err := r.Read(c, []int{0}); err != nil {
						b.Fatal(err)
					}
					n += len(c.Messages)
				}
				r.Close()
			}
			b.ReportMetric(float64(n)/b.Elapsed().Seconds()/1e6, "Mrec/s")
		})
	}
}
