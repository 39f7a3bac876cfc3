package runtime

import (
	"context"
	"log/slog"
	"time"
)

const (
	logLinesMax  = 1000     // of a job's log that are kept
	logTextBytes = 16 << 10 // of a message, or an attribute of one
)

// LogLine is a line of a job's log. Lines of a job are numbered from 1, in one process.
type LogLine struct {
	Seq     uint64         `json:"seq"`
	Time    time.Time      `json:"time"`
	Level   slog.Level     `json:"level"`
	Message string         `json:"message"`
	Attrs   map[string]any `json:"attrs,omitempty"` // as text, save numbers and bools
}

// JobLog returns the lines of a job's log behind the one with the number after, oldest first, and a channel that is closed when
// there are more. The newest thousand are kept, from info upward.
func (rt *Runtime) JobLog(name string, after uint64) ([]LogLine, <-chan struct{}, error) {
	j := rt.findJob(name)
	if j == nil {
		return nil, nil, missing("job", name, ErrNoJob)
	}
	lines, more := j.lines.after(after)
	return lines, more, nil
}

// jobLogger returns a logger that also keeps what is said about a job.
func jobLogger(to *slog.Logger, job string, lines *ring[LogLine]) *slog.Logger {
	return slog.New(&keepingHandler{next: to.With("job", job).Handler(), lines: lines})
}

// keepingHandler hands records on and keeps them.
type keepingHandler struct {
	next  slog.Handler
	lines *ring[LogLine]
	attrs []slog.Attr
	group string
}

func (h *keepingHandler) Enabled(ctx context.Context, l slog.Level) bool {
	return l >= slog.LevelInfo || h.next.Enabled(ctx, l)
}

func (h *keepingHandler) Handle(ctx context.Context, r slog.Record) error {
	if r.Level >= slog.LevelInfo {
		line := LogLine{Time: r.Time, Level: r.Level, Message: bounded(r.Message, logTextBytes)}
		for _, a := range h.attrs {
			line.add(a)
		}
		r.Attrs(func(a slog.Attr) bool {
			line.add(slog.Attr{Key: h.group + a.Key, Value: a.Value})
			return true
		})
		h.lines.add(logLinesMax, func(seq uint64) LogLine {
			line.Seq = seq
			return line
		})
	}
	if !h.next.Enabled(ctx, r.Level) {
		return nil
	}
	return h.next.Handle(ctx, r)
}

func (l *LogLine) add(a slog.Attr) {
	if l.Attrs == nil {
		l.Attrs = map[string]any{}
	}
	switch v := a.Value.Resolve(); v.Kind() {
	case slog.KindInt64, slog.KindUint64, slog.KindFloat64, slog.KindBool:
		l.Attrs[a.Key] = v.Any()
	default:
		l.Attrs[a.Key] = bounded(v.String(), logTextBytes)
	}
}

func (h *keepingHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	c := *h
	c.next, c.attrs = h.next.WithAttrs(attrs), append([]slog.Attr(nil), h.attrs...)
	for _, a := range attrs {
		c.attrs = append(c.attrs, slog.Attr{Key: h.group + a.Key, Value: a.Value})
	}
	return &c
}

func (h *keepingHandler) WithGroup(name string) slog.Handler {
	c := *h
	c.next, c.group = h.next.WithGroup(name), h.group+name+"."
	return &c
}
