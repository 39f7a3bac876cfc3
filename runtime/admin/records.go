package admin

import (
	"context"
	"net/http"
	"reflect"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/sidestream-dev/sidestream/bus"
	"github.com/sidestream-dev/sidestream/runtime"
)

// recordsQuery is what a request for records asks for.
type recordsQuery struct {
	Topic     string `query:"topic" required:"true" minLength:"1" maxLength:"512"`
	Partition int    `query:"partition" minimum:"-1" maximum:"65536" default:"-1" doc:"only this one; -1 takes all"`
	Last      int    `query:"last" minimum:"0" maximum:"1000000" doc:"so many before the end of each partition (10 by default); with from or begin at most so many behind it, 0 for all"`
	From      int64  `query:"from" minimum:"-1" default:"-1" doc:"begin at this offset; -1 begins near the end"`
	Begin     string `query:"begin" maxLength:"512" doc:"begin at this place, in place of from: earliest, latest, offset:N, a time of events, -2h or newest-2h"`
	End       string `query:"end" maxLength:"512" doc:"stop before this place"`
	Follow    bool   `query:"follow" doc:"go on with what is written from now on"`
}

// tail is the question in the runtime's words.
func (q *recordsQuery) tail(lastGiven bool) runtime.Tail {
	t := runtime.Tail{Topic: q.Topic, Partition: q.Partition, Last: q.Last, Follow: q.Follow}
	if q.From >= 0 {
		o := bus.Offset(q.From)
		t.From = &o
	} else if q.Begin == "" && !lastGiven {
		t.Last = 10
	}
	return t
}

func (s *Server) registerRecords() {
	line := s.api.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[runtime.TopicRecord](), true, "TopicRecord")
	add(s, accessLogin, huma.Operation{Method: http.MethodGet, Path: "/v1/records", OperationID: "list-records",
		Summary:     "Records of a topic, one a line",
		Description: "Those of a partition come in order, once they are durable. Nothing is claimed: no subscription is made. What goes wrong behind the first line is a last line, a Problem.",
		Responses:   streamed("application/jsonl", "Each line is a record, or the last one a Problem", line)},
		func(ctx context.Context, rt *runtime.Runtime, q *recordsQuery) (*huma.StreamResponse, error) {
			begin, err := optionalPlace("begin", q.Begin)
			if err != nil {
				return nil, err
			}
			end, err := optionalPlace("end", q.End)
			if err != nil {
				return nil, err
			}
			if q.Follow {
				if _, ok := rt.Topic(q.Topic); !ok {
					return nil, rt.Tail(ctx, runtime.Tail{Topic: q.Topic, Partition: -1}, nil) // which says so
				}
			}
			return s.stream(func(st *stream) error {
				st.media = "application/jsonl"
				t := q.tail(st.r.URL.Query().Has("last"))
				t.Begin, t.End = begin, end
				if t.Follow {
					st.begin() // a client that is gone is noticed by what follows
					_ = st.flush()
				}
				return rt.Tail(st.r.Context(), t, func(rec runtime.TopicRecord) error {
					if err := st.encode(rec); err != nil || !t.Follow {
						return err
					}
					return st.flush()
				})
			})
		})
}

// stream is an answer that is sent piece by piece.
type stream struct {
	s     *Server
	r     *http.Request
	w     http.ResponseWriter
	out   *http.ResponseController
	media string
	begun bool
	at    time.Time // of the newest deadline
}

// stream answers piece by piece, within the bound of how many may do so at a time. An error before the first piece is a
// Problem like any other, one behind it the last line.
func (s *Server) stream(pieces func(*stream) error) (*huma.StreamResponse, error) {
	return &huma.StreamResponse{Body: func(ctx huma.Context) {
		r, w := humago.Unwrap(ctx)
		who, _ := r.Context().Value(classKey{}).(class) // of whom the guard has let through
		places := s.streams[who]
		select {
		case places <- struct{}{}:
			defer func() { <-places }()
		default:
			send(w, problem(http.StatusServiceUnavailable, KindBusy, "%d requests for records or events are under way; try again later", s.cfg.Limits.Streams))
			return
		}
		st := &stream{s: s, r: r, w: w, out: http.NewResponseController(w)}
		err := pieces(st)
		if s.ctx.Err() != nil {
			err = problem(http.StatusServiceUnavailable, KindBusy, "the process is stopping")
		}
		switch {
		case err == nil:
			st.begin()
		case !st.begun:
			send(w, s.problemOf(err))
		default:
			_ = st.last(s.problemOf(err)) // the client may be what went wrong
		}
	}}, nil
}

// begin sends the header, once.
func (st *stream) begin() {
	if !st.begun {
		st.begun = true
		st.extend()
		st.w.Header().Set("Content-Type", st.media)
		st.w.WriteHeader(http.StatusOK)
	}
}

// extend gives the next piece its time: a client that takes nothing for so long is cut.
func (st *stream) extend() {
	if now := time.Now(); now.Sub(st.at) > st.s.cfg.Limits.WriteTimeout/8 {
		st.at = now
		_ = st.out.SetWriteDeadline(now.Add(st.s.cfg.Limits.WriteTimeout))
	}
}

// encode sends a line.
func (st *stream) encode(v any) error {
	st.begin()
	st.extend()
	return writeJSON(st.w, v)
}

// last ends the answer with a problem.
func (st *stream) last(p *Problem) error {
	if st.media == eventStream {
		return st.event("problem", "", p)
	}
	return st.encode(p)
}

func (st *stream) flush() error { return st.out.Flush() }
