package admin

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
)

const (
	logLinesMax     = 8192 // kept for those who look later
	logLineBytesMax = 16 << 10
)

// LogLine is one message of the process.
type LogLine struct {
	Seq     uint64            `json:"seq"`
	Time    time.Time         `json:"time"`
	Level   string            `json:"level"`
	Message string            `json:"message"`
	Job     string            `json:"job,omitempty"`
	Attrs   map[string]string `json:"attrs,omitempty"`
}

// Logs keeps the newest messages of a logger for those who ask for them later.
type Logs struct {
	mu    sync.Mutex
	lines []LogLine // the newest, in order
	next  uint64
	more  chan struct{} // closed and replaced with each line
}

// NewLogs returns one that is empty.
func NewLogs() *Logs { return &Logs{more: make(chan struct{}), next: 1} }

// Handler returns a handler that keeps what is Info or more, and hands everything that to takes to it.
func (l *Logs) Handler(to slog.Handler) slog.Handler { return &logHandler{logs: l, to: to} }

func (l *Logs) add(line LogLine) {
	l.mu.Lock()
	defer l.mu.Unlock()
	line.Seq = l.next
	l.next++
	if len(l.lines) == logLinesMax {
		l.lines = slices.Delete(l.lines, 0, logLinesMax/4)
	}
	l.lines = append(l.lines, line)
	close(l.more)
	l.more = make(chan struct{})
}

// After returns the lines of a job ("" of all) behind a place, the place to go on from, and what is closed when there are more.
func (l *Logs) After(seq uint64, job string) (lines []LogLine, at uint64, more <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, line := range l.lines {
		if line.Seq > seq && (job == "" || line.Job == job) {
			lines = append(lines, line)
		}
	}
	return lines, l.next - 1, l.more
}

// logHandler keeps lines, and hands them on.
type logHandler struct {
	logs  *Logs
	to    slog.Handler
	attrs []slog.Attr
	group string // a prefix of the names of attributes
}

// Enabled implements slog.Handler.
func (h *logHandler) Enabled(ctx context.Context, level slog.Level) bool {
	return level >= slog.LevelInfo || h.to.Enabled(ctx, level)
}

// Handle implements slog.Handler.
func (h *logHandler) Handle(ctx context.Context, r slog.Record) error {
	if r.Level >= slog.LevelInfo {
		line := LogLine{Time: r.Time, Level: r.Level.String(), Message: cut(r.Message), Attrs: map[string]string{}}
		for _, a := range h.attrs {
			line.set(a.Key, a.Value)
		}
		r.Attrs(func(a slog.Attr) bool {
			line.set(h.group+a.Key, a.Value)
			return true
		})
		h.logs.add(line)
	}
	if !h.to.Enabled(ctx, r.Level) {
		return nil
	}
	return h.to.Handle(ctx, r)
}

// set notes an attribute.
func (l *LogLine) set(key string, v slog.Value) {
	if key == "job" {
		l.Job = v.Resolve().String()
		return
	}
	l.Attrs[key] = cut(fmt.Sprint(v.Resolve().Any()))
}

func cut(s string) string {
	if len(s) > logLineBytesMax {
		return s[:logLineBytesMax] + "…"
	}
	return s
}

// WithAttrs implements slog.Handler.
func (h *logHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	n := *h
	n.to = h.to.WithAttrs(attrs)
	n.attrs = slices.Clone(h.attrs)
	for _, a := range attrs {
		n.attrs = append(n.attrs, slog.Attr{Key: h.group + a.Key, Value: a.Value})
	}
	return &n
}

// WithGroup implements slog.Handler.
func (h *logHandler) WithGroup(name string) slog.Handler {
	n := *h
	n.to = h.to.WithGroup(name)
	n.group = h.group + name + "."
	return &n
}

type logsQuery struct {
	Job    string `query:"job" maxLength:"256" doc:"only those about this job"`
	Last   int    `query:"last" minimum:"0" maximum:"8192" default:"100"`
	Follow bool   `query:"follow" doc:"go on with what is said from now on"`
}

func (s *Server) registerLogs() {
	line := s.api.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[LogLine](), true, "LogLine")
	addAlways(s, route{access: accessLogin}, huma.Operation{Method: http.MethodGet, Path: "/v1/logs", OperationID: "list-logs",
		Summary: "The newest messages of the process, one a line", Responses: streamed("application/jsonl", "Each line is a message", line)},
		func(_ context.Context, q *logsQuery) (*huma.StreamResponse, error) {
			return s.stream(func(st *stream) error {
				st.media = "application/jsonl"
				st.begin()
				lines, at, more := s.cfg.Logs.After(0, q.Job)
				lines = lines[max(0, len(lines)-q.Last):]
				for {
					for _, l := range lines {
						if err := st.encode(l); err != nil {
							return err
						}
					}
					if !q.Follow {
						return nil
					}
					if err := st.flush(); err != nil {
						return err
					}
					select {
					case <-more:
					case <-st.r.Context().Done():
						return nil
					}
					lines, at, more = s.cfg.Logs.After(at, q.Job)
				}
			})
		})
}
