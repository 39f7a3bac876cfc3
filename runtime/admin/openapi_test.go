package admin_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/sidestream-dev/sidestream/jobs/spec"
	"github.com/sidestream-dev/sidestream/runtime"
	"github.com/sidestream-dev/sidestream/runtime/admin"
)

// call is a request that an operation answers well.
type call struct{ path, body string }

// calls has one for each operation of the API, by its id: a new one must be added here.
var calls = map[string]call{
	"livez":            {path: "/livez"},
	"readyz":           {path: "/readyz?verbose"},
	"metrics":          {path: "/metrics"},
	"status":           {path: "/v1/status"},
	"list-topics":      {path: "/v1/topics"},
	"list-records":     {path: "/v1/records?topic=ticks&last=3"},
	"list-logs":        {path: "/v1/jobs/ticks/logs"},
	"list-events":      {path: "/v1/events?after=0"},
	"pause-job":        {path: "/v1/jobs/idle/pause"},
	"resume-job":       {path: "/v1/jobs/idle/resume"},
	"restart-job":      {path: "/v1/jobs/idle/restart"},
	"stop-job":         {path: "/v1/jobs/still/stop"},
	"make-savepoint":   {path: "/v1/jobs/ticks/savepoints?savepoint=other"},
	"list-savepoints":  {path: "/v1/savepoints"},
	"delete-savepoint": {path: "/v1/savepoints/one"},
	"list-jobs":        {path: "/v1/jobs"},
	"get-job":          {path: "/v1/jobs/ticks"},
	"apply-jobs":       {path: "/v1/jobs", body: `{"files":[{"name":"ticks.yaml","content":"version: 1\njob: more\nsource: {bus: ticks}\noutputs:\n  main: {bus: more}\n"}]}`},
	"remove-job":       {path: "/v1/jobs/gone"},
	"replay":           {path: "/v1/jobs/reads/replay", body: `{"topic":"ticks","from":"earliest","dry_run":true}`},
	"replay-into":      {path: "/v1/topics/ticks/replay", body: `{"into":"copied","from":"earliest","to":"offset:3","dry_run":true}`},
	"shadow":           {path: "/v1/shadow", body: `{"files":[{"name":"more.yaml","content":"version: 1\njob: idle\nsource: {bus: ticks}\noutputs:\n  main: {bus: idle}\n"}],"topic":"ticks","from":"earliest"}`},
	"seek":             {path: "/v1/topics/ticks/seek", body: `{"reader":"reads","to":"earliest","dry_run":true}`},
	"detach":           {path: "/v1/topics/ticks/detach", body: `{"reader":"reads","dry_run":true}`},
	"purge":            {path: "/v1/topics/ticks/purge", body: `{"before":"earliest"}`},
	"remove-topic":     {path: "/v1/topics/first?dry_run=true"},
	"set-retention":    {path: "/v1/topics/ticks/retention", body: `{"max_bytes":1073741824}`},
	"list-operations":  {path: "/v1/operations"},
	"get-operation":    {path: "/v1/operations/ID?wait=1ms"},
	"cancel-operation": {path: "/v1/operations/ID"},
	"openapi-json":     {path: "/v1/openapi.json"},
	"openapi-yaml":     {path: "/v1/openapi.yaml"},
}

// operation is what the description says of one.
type operation struct {
	ID        string `json:"operationId"`
	Summary   string
	Responses map[string]struct{ Content map[string]any }
}

// overSocket is a client of a unix socket.
func overSocket(socket string) *http.Client {
	return &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}}
}

// TestOpenAPI: every route is described, and what each answers, as well as what goes wrong, is what its schema says.
func TestOpenAPI(t *testing.T) {
	rt, _, socket := start(t)
	eventually(t, "there are records, and who reads them", func() bool { return rt.Status().Jobs[1].Counters.In > 10 })
	client := overSocket(socket)
	c := admin.NewClient(socket)
	for _, name := range []string{"gone", "first", "idle", "still"} { // to be removed, one for its operation, to be paused, to be stopped
		if _, err := c.Apply(t.Context(), []spec.File{{Name: name, Content: []byte(jobNamed(name))}}, admin.ApplyRequest{}); err != nil {
			t.Fatal(err)
		}
	}
	removal, err := c.RemoveJob(t.Context(), "first", runtime.RemoveOptions{})
	if err != nil {
		t.Fatal(err)
	}
	point, err := c.Savepoint(t.Context(), "ticks", "one")
	if err == nil {
		_, err = c.Await(t.Context(), point, func(admin.Operation) {})
	}
	if err != nil {
		t.Fatal(err)
	}
	printed, err := admin.OpenAPI("test")
	if err != nil {
		t.Fatal(err)
	}
	if _, served := ask(t, client, "GET", "http://localhost/v1/openapi.json", "", nil); served != string(printed) {
		t.Error("what is served is not what is printed")
	}
	api := description(t, printed)
	seen := map[string]bool{}
	for path, methods := range api.Paths {
		for method, op := range methods {
			t.Run(method+" "+path, func(t *testing.T) {
				c, ok := calls[op.ID]
				if !ok {
					t.Fatalf("there is no call of %s in this test", op.ID)
				}
				seen[op.ID] = true
				c.path = strings.Replace(c.path, "ID", removal.ID, 1)
				if op.Summary == "" {
					t.Error("it has no summary")
				}
				header := map[string]string{}
				if c.body != "" {
					header["Content-Type"] = "application/json"
				}
				if op.ID == "list-events" { // it has no end; TestEvents reads it
					status, body := ask(t, client, "GET", "http://localhost/v1/events?surely=not", "", nil)
					api.fits(t, path, method, status, body)
					return
				}
				status, body := ask(t, client, strings.ToUpper(method), "http://localhost"+c.path, c.body, header)
				if status/100 != 2 {
					t.Fatalf("%d: %s", status, body)
				}
				api.fits(t, path, method, status, body)
				status, body = ask(t, client, strings.ToUpper(method), "http://localhost"+strings.Split(c.path, "?")[0]+"?surely=not", c.body, header)
				if status != http.StatusUnprocessableEntity || !strings.Contains(body, "surely") {
					t.Errorf("an unknown parameter: %d %s", status, body)
				}
				api.fits(t, path, method, status, body)
			})
		}
	}
	for id := range calls {
		if !seen[id] {
			t.Errorf("%s is not described", id)
		}
	}
	for _, pattern := range admin.Patterns() {
		method, path, _ := strings.Cut(pattern, " ")
		if _, ok := api.Paths[path][strings.ToLower(method)]; !ok {
			t.Errorf("%s is served and not described", pattern)
		}
	}
}

// described is a description of the API, and what reads its schemas, which is not what wrote them.
type described struct {
	OpenAPI  string
	Paths    map[string]map[string]operation
	compiler *jsonschema.Compiler
}

func description(t *testing.T, text []byte) *described {
	t.Helper()
	d := &described{compiler: jsonschema.NewCompiler()}
	if err := json.Unmarshal(text, d); err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	d.compiler.DefaultDraft(jsonschema.Draft2020)
	if err := d.compiler.AddResource("file:///api.json", doc); err != nil {
		t.Fatal(err)
	}
	if d.OpenAPI != "3.1.0" {
		t.Errorf("OpenAPI %s", d.OpenAPI)
	}
	return d
}

// fits wants an answer's body to be what the description says.
func (d *described) fits(t *testing.T, path, method string, status int, body string) {
	t.Helper()
	code := fmt.Sprint(status)
	responses := d.Paths[path][method].Responses
	if _, ok := responses[code]; !ok {
		code = "default"
	}
	for media := range responses[code].Content {
		var values []string
		switch {
		case media == "application/json", media == "application/problem+json":
			values = []string{body}
		case media == "application/jsonl":
			values = slices.Collect(strings.Lines(body))
		default:
			continue
		}
		escape := strings.NewReplacer("~", "~0", "/", "~1", "{", "%7B", "}", "%7D").Replace
		schema, err := d.compiler.Compile(fmt.Sprintf("file:///api.json#/paths/%s/%s/responses/%s/content/%s/schema", escape(path), method, code, escape(media)))
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range values {
			got, err := jsonschema.UnmarshalJSON(strings.NewReader(v))
			if err != nil {
				t.Fatalf("%v in %s", err, v)
			}
			if err := schema.Validate(got); err != nil {
				t.Errorf("%v in %.1000s", err, v)
			}
		}
		return
	}
}
