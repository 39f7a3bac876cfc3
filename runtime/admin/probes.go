package admin

import (
	"context"
	"fmt"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/sidestream-dev/sidestream/runtime"
)

// check is one of what readiness needs.
type check struct {
	name string
	why  string // it does not hold; "" where it does
}

type verbose struct {
	Verbose string `query:"verbose" doc:"given, each check is listed"`
}

// registerProbes makes what asks whether the process is well.
func (s *Server) registerProbes() {
	text := &huma.Schema{Type: huma.TypeString}
	addAlways(s, route{access: accessProbe}, huma.Operation{Method: http.MethodGet, Path: "/livez", OperationID: "livez",
		Summary: "Whether the process answers", Responses: streamed("text/plain", "It does", text)},
		func(context.Context, *verbose) (*huma.StreamResponse, error) {
			return plain(http.StatusOK, "ok\n"), nil
		})
	ready := streamed("text/plain", "It is", text)
	ready["503"] = &huma.Response{Description: "It is not", Content: map[string]*huma.MediaType{"text/plain": {Schema: text}}}
	addAlways(s, route{access: accessProbe}, huma.Operation{Method: http.MethodGet, Path: "/readyz", OperationID: "readyz",
		Summary: "Whether the log has been replayed and every job that should run does", Responses: ready},
		func(context.Context, *verbose) (*huma.StreamResponse, error) {
			return &huma.StreamResponse{Body: func(ctx huma.Context) {
				r, _ := humago.Unwrap(ctx)
				s.ready(r.Context(), r.URL.Query().Has("verbose")).Body(ctx)
			}}, nil
		})
	addAlways(s, route{access: accessOpen}, huma.Operation{Method: http.MethodGet, Path: "/metrics", OperationID: "metrics",
		Summary: "Metrics for Prometheus", Responses: streamed("text/plain", "In Prometheus' text format", text)},
		func(context.Context, *nothing) (*huma.StreamResponse, error) {
			return &huma.StreamResponse{Body: func(ctx huma.Context) {
				r, w := humago.Unwrap(ctx)
				s.metrics.ServeHTTP(w, r)
			}}, nil
		})
}

func plain(status int, text string) *huma.StreamResponse {
	return &huma.StreamResponse{Body: func(ctx huma.Context) {
		ctx.SetHeader("Content-Type", "text/plain; charset=utf-8")
		ctx.SetStatus(status)
		_, _ = ctx.BodyWriter().Write([]byte(text)) // the client may have gone
	}}
}

// ready answers with whether every check holds.
func (s *Server) ready(ctx context.Context, verbose bool) *huma.StreamResponse {
	status, said := http.StatusOK, ""
	for _, c := range s.checks(ctx) {
		switch {
		case c.why != "":
			status = http.StatusServiceUnavailable
			said += fmt.Sprintf("[-] %s: %s\n", c.name, c.why)
		case verbose:
			said += fmt.Sprintf("[+] %s\n", c.name)
		}
	}
	switch {
	case status != http.StatusOK && !verbose:
		said = "not ready\n"
	case status != http.StatusOK:
		said += "not ready\n"
	default:
		said += "ok\n"
	}
	return plain(status, said)
}

// checks are what readiness needs.
func (s *Server) checks(ctx context.Context) []check {
	rt := s.runtime.Load()
	switch {
	case s.ctx.Err() != nil:
		return []check{{"process", "it is stopping"}}
	case rt == nil:
		return []check{{"log", "it is being read"}}
	case !s.started.Load():
		return []check{{"log", "it is being replayed"}}
	}
	list := []check{{"log", ""}}
	for _, j := range statusFor(ctx, rt).Jobs {
		list = append(list, check{"job " + j.Name, notReady(j)})
	}
	return list
}

// notReady says why a job that should be at work is not.
func notReady(j runtime.JobStatus) string {
	switch j.State {
	case runtime.StateStarting, runtime.StateRestarting, runtime.StateFailed:
		return strings.TrimSuffix(string(j.State)+": "+j.Error, ": ")
	}
	return "" // at work, or at rest as somebody asked it to be
}
