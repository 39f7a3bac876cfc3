package admin

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"reflect"
	"strconv"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/sidestream-dev/sidestream/bus"
	"github.com/sidestream-dev/sidestream/runtime"
)

// body is an answer that is one JSON value.
type body[T any] struct{ Body T }

// nothing is what a request without parameters gives.
type nothing struct{}

// register makes every route. What is not registered here is not served, and not in the API's description either.
func (s *Server) register() {
	json := huma.Format{Marshal: writeJSON, Unmarshal: json.Unmarshal}
	s.api = humago.New(s.mux, huma.Config{
		OpenAPI: &huma.OpenAPI{
			OpenAPI: "3.1.0",
			Info: &huma.Info{Title: "Sidestream's admin API", Version: s.cfg.Version,
				Description: "Look at a running process, and change its jobs. Errors are RFC 9457 problems. An answer is what is durable."},
			Components: &huma.Components{Schemas: huma.NewMapRegistry("#/components/schemas/", huma.DefaultSchemaNamer)},
		},
		Formats:                      map[string]huma.Format{"application/json": json, "json": json},
		DefaultFormat:                "application/json",
		RejectUnknownQueryParameters: true,
		Transformers:                 []huma.Transformer{ours},
	})
	s.registerProbes()
	add(s, accessOpen, huma.Operation{Method: http.MethodGet, Path: "/v1/status", OperationID: "status",
		Summary: "How everything stands: jobs, topics, the log"},
		func(ctx context.Context, rt *runtime.Runtime, _ *nothing) (*body[runtime.Status], error) {
			return &body[runtime.Status]{statusFor(ctx, rt)}, nil
		})
	add(s, accessOpen, huma.Operation{Method: http.MethodGet, Path: "/v1/topics", OperationID: "list-topics",
		Summary: "How every topic stands, with who writes and who reads it"},
		func(_ context.Context, rt *runtime.Runtime, _ *nothing) (*body[[]bus.TopicStat], error) {
			return &body[[]bus.TopicStat]{rt.Status().Topics}, nil
		})
	s.registerJobs()
	s.registerLifecycle()
	s.registerOperations()
	s.registerRecords()
	s.registerTopics()
	s.registerReplay()
	s.registerShadow()
	s.registerCopy()
	s.registerEvents()
	s.registerDescription()
	schemas := s.api.OpenAPI().Components.Schemas.Map()
	delete(schemas, "ErrorModel") // huma's own, in whose place Problem is sent
	delete(schemas, "ErrorDetail")
}

// add registers an operation on the runtime.
func add[I, O any](s *Server, a access, op huma.Operation, handle func(context.Context, *runtime.Runtime, *I) (*O, error)) {
	addAlways(s, route{access: a}, op, attached(s, handle))
}

// addLong is add of an operation whose answer waits for jobs.
func addLong[I, O any](s *Server, a access, op huma.Operation, handle func(context.Context, *runtime.Runtime, *I) (*O, error)) {
	addAlways(s, route{access: a, long: true}, op, attached(s, handle))
}

// attached gives a handler the runtime, once there is one.
func attached[I, O any](s *Server, handle func(context.Context, *runtime.Runtime, *I) (*O, error)) func(context.Context, *I) (*O, error) {
	return func(ctx context.Context, in *I) (*O, error) {
		rt := s.runtime.Load()
		if rt == nil {
			return nil, problem(http.StatusServiceUnavailable, KindStarting, "the process is starting: it reads its log; try again later")
		}
		out, err := handle(ctx, rt, in)
		if err != nil {
			return nil, s.problemOf(err)
		}
		return out, nil
	}
}

// addAlways registers an operation that needs no runtime.
func addAlways[I, O any](s *Server, to route, op huma.Operation, handle func(context.Context, *I) (*O, error)) {
	if to.bytes == 0 {
		to.bytes = s.cfg.Limits.BodyBytes
	}
	op.BodyReadTimeout, op.MaxBodyBytes = -1, -1 // the guard has read it
	_, to.body = reflect.TypeFor[I]().FieldByName("Body")
	schema := s.api.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[Problem](), true, "Problem")
	if op.Responses == nil {
		op.Responses = map[string]*huma.Response{}
	}
	op.Responses["default"] = &huma.Response{Description: "What went wrong", Content: map[string]*huma.MediaType{problemType: {Schema: schema}}}
	s.routes[op.Method+" "+op.Path] = to
	huma.Register(s.api, op, handle)
}

// streamed describes an answer that is no JSON value.
func streamed(media, what string, schema *huma.Schema) map[string]*huma.Response {
	return map[string]*huma.Response{strconv.Itoa(http.StatusOK): {Description: what, Content: map[string]*huma.MediaType{media: {Schema: schema}}}}
}

// registerDescription serves the description of all routes, itself included.
func (s *Server) registerDescription() {
	text := &huma.Schema{Type: huma.TypeString}
	for ext, media := range map[string]string{"json": "application/openapi+json", "yaml": "application/openapi+yaml"} {
		addAlways(s, route{access: accessOpen}, huma.Operation{Method: http.MethodGet, Path: "/v1/openapi." + ext, OperationID: "openapi-" + ext,
			Summary: "This description of the API, as OpenAPI 3.1", Responses: streamed(media, "OpenAPI 3.1", text)},
			func(context.Context, *nothing) (*huma.StreamResponse, error) {
				b, err := s.describe(ext)
				if err != nil {
					return nil, problemOf(err)
				}
				return &huma.StreamResponse{Body: func(ctx huma.Context) {
					ctx.SetHeader("Content-Type", media)
					_, _ = ctx.BodyWriter().Write(b) // the client may have gone
				}}, nil
			})
	}
}

func (s *Server) describe(ext string) ([]byte, error) {
	if ext == "yaml" {
		return s.api.OpenAPI().YAML()
	}
	return json.MarshalIndent(s.api.OpenAPI(), "", "  ")
}

// OpenAPI returns the description of the API of a program's version, without a process that runs.
func OpenAPI(version string) ([]byte, error) {
	s, err := New(Config{Version: version})
	if err != nil {
		return nil, err
	}
	return s.describe("json")
}

func writeJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}
