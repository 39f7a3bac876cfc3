package stdout

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/jobs/connector"
	"github.com/sidestream-dev/sidestream/jobs/jobstest"
)

func TestSuite(t *testing.T) {
	var out *bytes.Buffer
	jobstest.TestSink(t, jobstest.SinkSuite{
		New:  func(*testing.T) jobs.Sink { out = &bytes.Buffer{}; return Sink{W: out} },
		Read: func(*testing.T) []string { return strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n") },
	})
}

func TestFormats(t *testing.T) {
	ms := []jobs.Message{
		{Key: []byte("k"), Value: []byte("{\n}"), Time: 1000},
		{Value: []byte("v"), Time: jobs.NoTime},
	}
	for _, tt := range []struct {
		format Format
		want   string
	}{
		{"", "{ }\nv\n"},
		{JSON, "{ }\nv\n"},
		{Text, "1970-01-01T00:00:01.000Z\tk\t{ }\nv\n"},
	} {
		var out bytes.Buffer
		w, err := Sink{Format: tt.format, W: &out}.Open(t.Context(), jobs.SinkEnv{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(t.Context(), ms); err != nil {
			t.Fatal(err)
		}
		if out.String() != tt.want {
			t.Errorf("%q: got %q, want %q", tt.format, out.String(), tt.want)
		}
	}
	if _, err := (Sink{Format: "xml"}).Open(t.Context(), jobs.SinkEnv{}); err == nil {
		t.Error("xml was accepted")
	}
}

type lines struct{ writes [][]byte }

func (l *lines) Write(p []byte) (int, error) {
	l.writes = append(l.writes, bytes.Clone(p))
	return len(p), nil
}

// TestWholeLines: every write below ends with a line, so that outputs that share the place do not tear each other's.
func TestWholeLines(t *testing.T) {
	l := &lines{}
	w, err := Sink{W: l}.Open(t.Context(), jobs.SinkEnv{})
	if err != nil {
		t.Fatal(err)
	}
	m := jobs.Message{Value: bytes.Repeat([]byte("x"), 1000)}
	ms := make([]jobs.Message, 300)
	for i := range ms {
		ms[i] = m
	}
	if _, err := w.Write(t.Context(), ms); err != nil {
		t.Fatal(err)
	}
	if len(l.writes) < 2 || len(l.writes) > 10 {
		t.Errorf("%d writes", len(l.writes))
	}
	for _, p := range l.writes {
		if !bytes.HasSuffix(p, []byte("x\n")) {
			t.Fatal("a write ends inside a line")
		}
	}
}

type broken struct{}

var errBroken = errors.New("broken pipe")

func (broken) Write([]byte) (int, error) { return 0, errBroken }

func TestError(t *testing.T) {
	w, err := Sink{W: broken{}}.Open(t.Context(), jobs.SinkEnv{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(t.Context(), []jobs.Message{{}}); !errors.Is(err, errBroken) {
		t.Errorf("got %v, want the writer's error", err)
	}
	if (Sink{}).ExactlyOnce() == nil {
		t.Error("it promises exactly once")
	}
	s, err := SinkKind().New(connector.Values{"format": "text"}, connector.LoadEnv{})
	if err != nil || s != jobs.Sink(Sink{Format: Text}) {
		t.Errorf("got %v and %v", s, err)
	}
}
