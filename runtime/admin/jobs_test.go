package admin_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/sidestream-dev/sidestream/jobs/connector/all"
	"github.com/sidestream-dev/sidestream/jobs/spec"
	"github.com/sidestream-dev/sidestream/runtime"
	"github.com/sidestream-dev/sidestream/runtime/admin"
)

// jobNamed is the definition of a job that reads the topic ticks.
func jobNamed(name string) string {
	return fmt.Sprintf("version: 1\njob: %s\nsource: {bus: ticks}\noutputs:\n  main: {bus: %s}\n", name, name)
}

func apply(t *testing.T, c *admin.Client, r admin.ApplyRequest, defs ...string) (admin.ApplyResult, error) {
	t.Helper()
	var files []spec.File
	for i, d := range defs {
		files = append(files, spec.File{Name: fmt.Sprintf("%d.yaml", i), Content: []byte(d)})
	}
	return c.Apply(t.Context(), files, r)
}

// TestApply: a job is added with its definition as it was given, seen, not added again, and removed.
func TestApply(t *testing.T) {
	_, _, socket := start(t)
	c := admin.NewClient(socket)
	text := "# a comment\n" + jobNamed("more")
	res, err := apply(t, c, admin.ApplyRequest{DryRun: true}, text)
	if err != nil || len(res.Jobs) != 1 || res.Jobs[0].Action != runtime.ActionAdd {
		t.Fatalf("a dry run: %+v, %v", res, err)
	}
	var p *admin.Problem
	if _, err := c.Job(t.Context(), "more"); !errors.As(err, &p) || p.Kind() != admin.KindNotFound {
		t.Fatalf("behind a dry run: %v", err)
	}
	for _, want := range []runtime.Action{runtime.ActionAdd, runtime.ActionUnchanged} {
		if res, err = apply(t, c, admin.ApplyRequest{}, text); err != nil || len(res.Jobs) != 1 || res.Jobs[0].Action != want {
			t.Fatalf("want %s: %+v, %v", want, res, err)
		}
	}
	eventually(t, "it runs", func() bool {
		j, err := c.Job(t.Context(), "more")
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasSuffix(text, j.Definition) || j.Origin != runtime.OriginAPI || j.Phase != runtime.PhaseActive {
			t.Fatalf("%+v", j)
		}
		return j.State == runtime.StateRunning && j.Status.Counters.In > 0
	})
	js, err := c.Jobs(t.Context())
	if err != nil || len(js) != 3 || js[0].Definition != "" || js[0].Origin != runtime.OriginFile {
		t.Errorf("%+v, %v", js, err)
	}
	op, err := c.RemoveJob(t.Context(), "more", runtime.RemoveOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if op, err = c.Await(t.Context(), op, func(admin.Operation) {}); err != nil || op.State != admin.OperationDone || op.Kind != "remove" || op.Job != "more" || op.Ended == nil {
		t.Errorf("%+v, %v", op, err)
	}
	if _, err := c.RemoveJob(t.Context(), "more", runtime.RemoveOptions{}); !errors.As(err, &p) || p.Kind() != admin.KindNotFound {
		t.Errorf("once more: %v", err)
	}
	if _, err := c.Operation(t.Context(), "nope", 0); !errors.As(err, &p) || p.Kind() != admin.KindNotFound {
		t.Errorf("an operation that is not there: %v", err)
	}
}

// TestApplyRefuses: mistakes are told as the loader tells them, and what contradicts other jobs with the place of the job; then
// nothing has changed.
func TestApplyRefuses(t *testing.T) {
	_, _, socket := startOf(t, strings.Replace(twoJobs, "partitions: 2, ", "partitions: 2, on_full: block, retention: {max_age: 1h}, ", 1))
	c := admin.NewClient(socket)
	bad := "version: 1\njob: bad\nsource: {bus: ticks}\nsteps:\n  - mpa: value\noutputs:\n  main: {bus: out}\n"
	_, want := spec.LoadBytes(spec.Config{Connectors: all.Registry()}, "1.yaml", []byte(bad))
	var p *admin.Problem
	if _, err := apply(t, c, admin.ApplyRequest{}, jobNamed("good"), bad); !errors.As(err, &p) || p.Kind() != admin.KindBadDefinition || len(p.Problems) != len(want) {
		t.Fatalf("%v: %+v", err, p)
	}
	for i, q := range want {
		if got := p.Problems[i].Problem().String(); got != q.String() {
			t.Errorf("got:\n%s\nwant:\n%s", got, q)
		}
	}
	if _, err := apply(t, c, admin.ApplyRequest{}, ""); !errors.As(err, &p) || p.Kind() != admin.KindBadDefinition {
		t.Errorf("nothing: %v", err)
	}
	if _, err := apply(t, c, admin.ApplyRequest{}); !errors.As(err, &p) || p.Kind() != admin.KindBadRequest {
		t.Errorf("no file: %v", err)
	}
	circle := strings.Replace(jobNamed("circle"), "main: {bus: circle}", "main: {bus: ticks}", 1)
	if _, err := apply(t, c, admin.ApplyRequest{}, jobNamed("good")+"---\n"+circle); !errors.As(err, &p) || p.Kind() != admin.KindBadDefinition {
		t.Errorf("a circle: %v", err)
	}
	first := strings.Replace(jobNamed("first"), "{bus: ticks}", "{bus: second}", 1)
	if _, err := apply(t, c, admin.ApplyRequest{}, first); err != nil {
		t.Fatal(err)
	}
	second := strings.NewReplacer("{bus: ticks}", "{bus: first}").Replace(jobNamed("second"))
	if _, err := apply(t, c, admin.ApplyRequest{}, "# comment\n"+second); !errors.As(err, &p) || p.Kind() != admin.KindRefused || len(p.Problems) != 1 || !strings.Contains(p.Problems[0].Message, "circle") ||
		p.Problems[0].Job != "second" || p.Problems[0].File != "0.yaml" || p.Problems[0].Line != 2 || p.Problems[0].Column != 1 {
		t.Errorf("a circle with a job that runs: %v %+v", err, p)
	}
	beyond := strings.Replace(jobNamed("beyond"), "{bus: ticks}", "{bus: {topic: ticks, start: 1000000}}", 1)
	if _, err := apply(t, c, admin.ApplyRequest{}, beyond); !errors.As(err, &p) || p.Kind() != admin.KindRefused || len(p.Problems) != 1 || !strings.Contains(p.Problems[0].Message, "offset 1000000 is not there") ||
		p.Problems[0].File != "0.yaml" || p.Problems[0].Line != 1 {
		t.Errorf("a beginning that is not there: %v %+v", err, p)
	}
	for property, text := range map[string]string{"retention.max_age": "retention: {max_age: 2h}", "partitions": "partitions: 5", "on_full": "on_full: drop_oldest"} {
		other := strings.Replace(jobNamed("other"), "outputs:", "topics:\n  high:\n    "+text+"\noutputs:", 1)
		_, err := apply(t, c, admin.ApplyRequest{}, "# comment\n"+strings.Replace(jobNamed("good"), "outputs:", "topics: {high: {limit: 1GiB}}\noutputs:", 1)+"---\n"+other)
		line := 2 + strings.Count(jobNamed("good"), "\n") + 1 + strings.Count(other[:strings.Index(other, text)], "\n") + 1 // a comment, a job and ---, and what is before it
		if !errors.As(err, &p) || p.Kind() != admin.KindRefused || len(p.Problems) != 1 {
			t.Errorf("%s that the topic has otherwise: %v %+v", property, err, p)
		} else if at := p.Problems[0]; at.Job != "other" || at.File != "0.yaml" || at.Line != line || at.Column < 5 || strings.TrimSpace(at.Source) != text ||
			!strings.Contains(at.Message, "topic high has "+property+" ") || at.Hint == "" {
			t.Errorf("%s that the topic has otherwise, in line %d: %+v", property, line, at)
		}
	}
	js, err := c.Jobs(t.Context())
	if err != nil || len(js) != 3 {
		t.Errorf("%d jobs, %v", len(js), err)
	}
}

// TestTwoClients: jobs are added and removed by two clients at once, of one name too, and each change is whole.
func TestTwoClients(t *testing.T) {
	_, _, socket := start(t)
	var g sync.WaitGroup
	for n := range 2 {
		g.Go(func() {
			c := admin.NewClient(socket)
			for i := range 15 {
				own, shared := fmt.Sprintf("own%d", n), "shared"
				if _, err := apply(t, c, admin.ApplyRequest{}, jobNamed(own), jobNamed(shared)); err != nil {
					t.Errorf("client %d, round %d: %v", n, i, err)
				}
				for _, name := range []string{own, shared} {
					op, err := c.RemoveJob(t.Context(), name, runtime.RemoveOptions{})
					if err == nil {
						_, err = c.Await(t.Context(), op, func(admin.Operation) {})
					}
					var p *admin.Problem
					if err != nil && (name == own || !errors.As(err, &p) || p.Kind() != admin.KindNotFound) { // the other was first
						t.Errorf("client %d, round %d: %s: %v", n, i, name, err)
					}
				}
			}
		})
	}
	g.Wait()
	js, err := admin.NewClient(socket).Jobs(t.Context())
	if err != nil || len(js) != 2 {
		t.Errorf("%d jobs, %v", len(js), err)
	}
}

// TestIfMatch: a job's ETag is the version at which a change or a removal is asked for with If-Match; where the job is not at it
// any more the answer is 412, with what it is now, and nothing has changed.
func TestIfMatch(t *testing.T) {
	_, _, socket := start(t)
	c := admin.NewClient(socket)
	if _, err := apply(t, c, admin.ApplyRequest{}, jobNamed("more")); err != nil {
		t.Fatal(err)
	}
	plain := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}}
	defer plain.CloseIdleConnections()
	do := func(method, path, tag, content string) (*http.Response, admin.Problem) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, "http://localhost"+path, strings.NewReader(content))
		if err != nil {
			t.Fatal(err)
		}
		if content != "" {
			req.Header.Set("Content-Type", "application/json")
		}
		if tag != "" {
			req.Header.Set("If-Match", tag)
		}
		resp, err := plain.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		var p admin.Problem
		_ = json.NewDecoder(resp.Body).Decode(&p) // what is no problem has nothing of one
		return resp, p
	}
	applied := func(text string) string {
		b, err := json.Marshal(admin.ApplyRequest{Files: []admin.DefinitionFile{{Name: "a", Content: text}}, Probation: "0s"})
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	got, _ := do("GET", "/v1/jobs/more", "", "")
	tag := got.Header.Get("ETag")
	j, err := c.Job(t.Context(), "more")
	if err != nil || tag != strconv.Quote(j.Version) {
		t.Fatalf("ETag %s, version %s, %v", tag, j.Version, err)
	}
	wider := jobNamed("more") + "parallelism: 2\n"
	if resp, p := do("POST", "/v1/jobs", tag, applied(wider)); resp.StatusCode != http.StatusOK {
		t.Fatalf("at its version: %+v", p)
	}
	for _, tt := range []struct {
		method, path, tag, content string
		status                     int
	}{
		{"POST", "/v1/jobs", tag, applied(jobNamed("more")), 412},
		{"DELETE", "/v1/jobs/more", tag, "", 412},
		{"POST", "/v1/jobs", `"x"`, applied(jobNamed("none")), 412},
		{"POST", "/v1/jobs", `W/"x"`, applied(jobNamed("more")), 400},
		{"POST", "/v1/jobs", " ", applied(jobNamed("more")), 400}, // there, and empty
		{"DELETE", "/v1/jobs/more", " ", "", 400},
		{"POST", "/v1/jobs", tag, applied(jobNamed("more") + "---\n" + jobNamed("none")), 400},
	} {
		resp, p := do(tt.method, tt.path, tt.tag, tt.content)
		if resp.StatusCode != tt.status || resp.Header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s %s If-Match %s: %d %+v", tt.method, tt.path, tt.tag, resp.StatusCode, p)
		}
		if named := strings.Contains(tt.content, "none"); tt.status == 412 && (p.Kind() != admin.KindChanged || (p.Now == nil) != named ||
			p.Now != nil && (p.Now.State == runtime.StateStopped || p.Now.Status == nil || p.Now.Version == j.Version || !strings.Contains(p.Now.Definition, "parallelism"))) {
			t.Errorf("%s %s: %+v", tt.method, tt.path, p)
		}
	}
	if now, err := c.Job(t.Context(), "more"); err != nil || !strings.Contains(now.Definition, "parallelism") {
		t.Errorf("what was refused has changed the job: %+v, %v", now, err)
	}
	op, err := c.RemoveJob(t.Context(), "more", runtime.RemoveOptions{IfMatch: runtime.AnyVersion})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Await(t.Context(), op, func(admin.Operation) {}); err != nil {
		t.Error(err)
	}
}
