// Package stdout prints records, one line each.
//
//	stdout.Sink{}                      // the value as one line of JSON, as a job encodes it
//	stdout.Sink{Format: stdout.Text}   // event time, key and value, for people
//
// Nobody can tell what has been printed, so that it is at least once: after a crash some lines may come again. A Writer is
// used by one goroutine; several outputs may share os.Stdout, as every Write hands over whole lines.
package stdout

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/jobs/connector"
)

// Format says what a line looks like.
type Format string

const (
	JSON Format = "json"
	Text Format = "text"
)

const writeBytes = 64 << 10

// Sink prints to W.
type Sink struct {
	Format Format    // "" means JSON
	W      io.Writer // nil means os.Stdout
}

var _ jobs.Sink = Sink{}

// Kind returns "stdout".
func (s Sink) Kind() string { return "stdout" }

// String describes the sink for a job's definition.
func (s Sink) String() string { return "stdout " + string(s.Format) }

// ExactlyOnce returns why it cannot.
func (s Sink) ExactlyOnce() error {
	return errors.New("what was printed cannot be taken back, nor asked for: use at_least_once")
}

// Open returns a writer.
func (s Sink) Open(context.Context, jobs.SinkEnv) (jobs.Writer, error) {
	if s.Format != "" && s.Format != JSON && s.Format != Text {
		return nil, fmt.Errorf("stdout: format %q is not one of json, text", s.Format)
	}
	w := s.W
	if w == nil {
		w = os.Stdout
	}
	return &writer{out: w, text: s.Format == Text}, nil
}

type writer struct {
	out  io.Writer
	text bool
	buf  []byte
}

// Write prints ms and returns when the writer below has taken them.
func (w *writer) Write(_ context.Context, ms []jobs.Message) ([]byte, error) {
	w.buf = w.buf[:0]
	for i := range ms {
		w.buf = w.line(w.buf, &ms[i])
		if len(w.buf) >= writeBytes {
			if err := w.flush(); err != nil {
				return nil, err
			}
		}
	}
	if err := w.flush(); err != nil {
		return nil, err
	}
	return []byte{1}, nil
}

func (w *writer) flush() error {
	if len(w.buf) == 0 {
		return nil
	}
	_, err := w.out.Write(w.buf)
	w.buf = w.buf[:0]
	if err != nil {
		return fmt.Errorf("stdout: %w", err)
	}
	return nil
}

func (w *writer) line(dst []byte, m *jobs.Message) []byte {
	if w.text {
		if m.Time != jobs.NoTime {
			dst = append(append(dst, m.Time.String()...), '\t')
		}
		if len(m.Key) > 0 {
			dst = append(oneLine(dst, m.Key), '\t')
		}
	}
	return append(oneLine(dst, m.Value), '\n')
}

// oneLine appends b with spaces for line ends.
func oneLine(dst, b []byte) []byte {
	if bytes.IndexByte(b, '\n') < 0 && bytes.IndexByte(b, '\r') < 0 {
		return append(dst, b...)
	}
	for _, c := range b {
		if c == '\n' || c == '\r' {
			c = ' '
		}
		dst = append(dst, c)
	}
	return dst
}

// Close leaves W open: it is not ours.
func (w *writer) Close() error { return nil }

// SinkKind describes the sink to a registry.
func SinkKind() connector.SinkKind {
	return connector.SinkKind{
		Name: "stdout",
		Doc:  "Prints each record as a line.",
		Fields: []connector.Field{
			{Name: "format", Kind: connector.Enum, Default: "json", Enum: []string{"json", "text"},
				Doc: "The value as JSON, or event time, key and value with tabs between them."},
		},
		New: func(v connector.Values, _ connector.LoadEnv) (jobs.Sink, error) {
			return Sink{Format: Format(v.String("format"))}, nil
		},
	}
}
