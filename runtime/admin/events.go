package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/sidestream-dev/sidestream/runtime"
)

// Lost says that events are gone which a client has not been given: it was away, or slow, for too long, or the process is
// another. How things stand it must ask.
type Lost struct {
	Why    string `json:"why"`
	Events uint64 `json:"events,omitempty" doc:"how many, where that is known"`
}

type eventsQuery struct {
	Job   string `query:"job" maxLength:"256" doc:"only those of this job"`
	After string `query:"after" maxLength:"64" doc:"begin behind the event with this id; 0 begins with the oldest that is kept, nothing with what happens from now on"`
	Last  string `header:"Last-Event-ID" maxLength:"64" doc:"after, as a browser sends it when it comes back"`
}

type logsQuery struct {
	Name   string `path:"name" maxLength:"256"`
	Last   int    `query:"last" minimum:"0" maximum:"1000" default:"100"`
	Follow bool   `query:"follow" doc:"go on with what is said from now on"`
}

func (s *Server) registerEvents() {
	schema := func(v any) *huma.Schema {
		return s.api.OpenAPI().Components.Schemas.Schema(reflect.TypeOf(v), true, "")
	}
	data := schema(runtime.Event{})
	schema(Lost{})
	add(s, accessOpen, huma.Operation{Method: http.MethodGet, Path: "/v1/events", OperationID: "list-events",
		Summary: "What happens to jobs, as server-sent events",
		Description: "The data of an event is an Event; that of an event named lost is a Lost: some are gone. A comment is sent where there is nothing else for a while. " +
			"A client that takes too little is cut, and told what it has lost when it comes back with Last-Event-ID.",
		Responses: streamed(eventStream, "Events, for as long as the client stays", data)},
		func(_ context.Context, rt *runtime.Runtime, q *eventsQuery) (*huma.StreamResponse, error) {
			return s.stream(func(st *stream) error { return s.events(st, rt, q) })
		})
	add(s, accessLogin, huma.Operation{Method: http.MethodGet, Path: "/v1/jobs/{name}/logs", OperationID: "list-logs",
		Summary: "The newest messages about a job, one a line", Responses: streamed("application/jsonl", "Each line is a message", schema(runtime.LogLine{}))},
		func(_ context.Context, rt *runtime.Runtime, q *logsQuery) (*huma.StreamResponse, error) {
			if _, _, err := rt.JobLog(q.Name, 0); err != nil {
				return nil, err
			}
			return s.stream(func(st *stream) error { return logs(st, rt, q) })
		})
}

// logs sends a job's messages.
func logs(st *stream, rt *runtime.Runtime, q *logsQuery) error {
	st.media = "application/jsonl"
	st.begin()
	at := uint64(0)
	for first := true; ; first = false {
		lines, more, err := rt.JobLog(q.Name, at)
		if err != nil {
			return err // it is gone
		}
		if first {
			lines = lines[max(0, len(lines)-q.Last):]
		}
		for _, l := range lines {
			at = l.Seq
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
		case <-time.After(st.s.cfg.Limits.Heartbeat): // a job that is removed says nothing more
		case <-st.r.Context().Done():
			return nil
		}
	}
}

const eventStream = "text/event-stream"

// events sends what happens, until the client leaves.
func (s *Server) events(st *stream, rt *runtime.Runtime, q *eventsQuery) error {
	st.media = eventStream
	at, lost := s.eventsFrom(rt, q)
	if lost != nil {
		if err := st.event("lost", "", lost); err != nil {
			return err
		}
	}
	st.begin()
	for {
		list, more := rt.Events(at)
		if len(list) > 0 && list[0].Seq > at+1 {
			if err := st.event("lost", "", Lost{Why: "the client was away, or slow, for too long", Events: list[0].Seq - at - 1}); err != nil {
				return err
			}
		}
		for _, e := range list {
			at = e.Seq
			if q.Job != "" && e.Job != q.Job {
				continue
			}
			if err := st.event(string(e.Kind), s.eventID(e.Seq), eventFor(st.r.Context(), e)); err != nil {
				return err
			}
		}
		if err := st.flush(); err != nil {
			return err
		}
		select {
		case <-more:
		case <-time.After(s.cfg.Limits.Heartbeat):
			st.extend()
			if _, err := st.w.Write([]byte(":\n\n")); err != nil {
				return err
			}
		case <-st.r.Context().Done():
			return nil
		}
	}
}

// eventID names an event of this process.
func (s *Server) eventID(seq uint64) string {
	return s.operations.first + "-" + strconv.FormatUint(seq, 10)
}

// eventsFrom returns where a client is to begin, and what it has lost.
func (s *Server) eventsFrom(rt *runtime.Runtime, q *eventsQuery) (uint64, *Lost) {
	from := q.Last
	if from == "" {
		from = q.After
	}
	process, seq, _ := strings.Cut(from, "-")
	n, err := strconv.ParseUint(seq, 10, 64)
	switch {
	case from == "":
		list, _ := rt.Events(0)
		if len(list) == 0 {
			return 0, nil
		}
		return list[len(list)-1].Seq, nil
	case from == "0":
		if list, _ := rt.Events(0); len(list) > 0 {
			return list[0].Seq - 1, nil
		}
		return 0, nil
	case process != s.operations.first || err != nil:
		return 0, &Lost{Why: fmt.Sprintf("%q is no event of this process; it has started since, and knows of what happened from then on", from)}
	}
	return n, nil
}

// event sends one event.
func (st *stream) event(name, id string, data any) error {
	st.begin()
	st.extend()
	var b bytes.Buffer
	if id != "" {
		fmt.Fprintf(&b, "id: %s\n", id)
	}
	fmt.Fprintf(&b, "event: %s\ndata: ", name)
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(data); err != nil {
		return err
	}
	b.WriteByte('\n')
	_, err := st.w.Write(b.Bytes())
	return err
}
