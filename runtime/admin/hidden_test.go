package admin_test

import (
	"bufio"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/sidestream-dev/sidestream/runtime"
	"github.com/sidestream-dev/sidestream/runtime/admin"
)

// failing is a definition whose errors quote it.
const failing = `
version: 1
job: fails
source: {bus: ticks}
steps:
  - filter: {if: 'int(value.canary) > 3'}
outputs:
  main: {bus: nowhere}
`

// TestOpenShowsNoErrors: an error quotes the definition that it is about, which those without a login are not shown, wherever
// it is told; those who have one are.
func TestOpenShowsNoErrors(t *testing.T) {
	rt, s, socket := start(t)
	c := admin.NewClient(socket)
	good := strings.Replace(failing, "int(value.canary) > 3", "true", 1)
	for _, d := range []string{good, failing} { // taken back: an event tells why
		if _, err := apply(t, c, admin.ApplyRequest{}, d); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := apply(t, c, admin.ApplyRequest{Probation: "0s"}, strings.Replace(failing, "job: fails", "job: again", 1)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "one was taken back and one fails", func() bool {
		events, _ := rt.Events(0)
		back := false
		for _, e := range events {
			back = back || e.Kind == runtime.EventRolledBack
		}
		st := rt.Status()
		return back && strings.Contains(st.Jobs[3].Error, "canary")
	})
	open := "http://" + serve(t, s, admin.TCP{Addr: "127.0.0.1:0"})
	login := "http://" + serve(t, s, admin.TCP{Addr: "127.0.0.1:0", TokenFile: write(t, "token", token, 0o600)})
	for path, quotes := range map[string]bool{"/v1/status": true, "/v1/jobs": true, "/readyz?verbose": true, "/v1/events?after=0": true,
		"/v1/topics": false, "/v1/savepoints": false, "/metrics": false} {
		if got := read(t, open+path, ""); strings.Contains(got, "canary") || got == "" {
			t.Errorf("%s without a login: %s", path, got)
		} else if quotes && path != "/readyz?verbose" && !strings.Contains(got, "with a login") {
			t.Errorf("%s does not say who is told: %s", path, got)
		}
		if got := read(t, login+path, token); strings.Contains(got, "canary") != quotes {
			t.Errorf("%s with a login, want the error %v: %s", path, quotes, got)
		}
	}
}

// TestOpenShowsNoWaits: what a job and an output wait for outside is called by its broker, which those without a login are not
// told; that they wait, they are.
func TestOpenShowsNoWaits(t *testing.T) {
	rt, s, _ := startWith(t, runtime.Config{StopTimeout: time.Second}, `
version: 1
job: lost
source: {kafka: {brokers: ["canary.invalid:9092"], topics: [in]}}
outputs:
  main: {bus: lost}
---
version: 1
job: unsent
source: {generator: {rate: 100}}
outputs:
  main: {kafka: {brokers: ["canary.invalid:9092"], topic: out}}
`)
	eventually(t, "a source and an output wait", func() bool {
		st := rt.Status()
		return len(st.Jobs[0].Waiting) > 0 && strings.Contains(st.Jobs[0].Waiting[0].Text, "canary") && strings.Contains(st.Jobs[1].Outputs[0].Waiting, "canary")
	})
	open := "http://" + serve(t, s, admin.TCP{Addr: "127.0.0.1:0"})
	login := "http://" + serve(t, s, admin.TCP{Addr: "127.0.0.1:0", TokenFile: write(t, "token", token, 0o600)})
	for _, path := range []string{"/v1/status", "/v1/jobs", "/readyz?verbose", "/v1/topics", "/metrics"} {
		got := read(t, open+path, "")
		if strings.Contains(got, "canary") || got == "" {
			t.Errorf("%s without a login: %s", path, got)
		}
		if of := path == "/v1/status" || path == "/v1/jobs"; of != (strings.Count(got, "something outside") == 2) || of != strings.Contains(read(t, login+path, token), "canary") {
			t.Errorf("%s: those without a login are not told that there are waits, or those with one for what: %s", path, got)
		}
	}
}

// read returns an answer, of one that goes on what came up to the event of the definition that was taken back.
func read(t *testing.T, url, token string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), "GET", url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var got strings.Builder
	for in := bufio.NewScanner(resp.Body); in.Scan(); {
		got.WriteString(in.Text() + "\n")
		if strings.Contains(in.Text(), `"kind":"rolled_back"`) {
			break
		}
	}
	return got.String()
}

// TestNoBodyIsPassedOver: what is asked for in a body where none is read would be passed over, and is refused; so is a name that
// is none.
func TestNoBodyIsPassedOver(t *testing.T) {
	rt, s, _ := start(t)
	at := "http://" + serve(t, s, admin.TCP{Addr: "127.0.0.1:0", TokenFile: write(t, "token", token, 0o600)})
	header := map[string]string{"Authorization": "Bearer " + token, "Content-Type": "application/json"}
	for _, what := range []string{"POST /v1/jobs/reads/stop", "POST /v1/jobs/reads/pause", "DELETE /v1/jobs/reads", "POST /v1/jobs/reads/savepoints", "GET /v1/status"} {
		method, path, _ := strings.Cut(what, " ")
		if status, body := ask(t, http.DefaultClient, method, at+path, `{"force":true}`, header); status != http.StatusBadRequest || !strings.Contains(body, "takes no body") {
			t.Errorf("%s: %d %s", what, status, body)
		}
	}
	for _, what := range []string{"POST /v1/jobs/reads/savepoints?savepoint=..%2Fx", "DELETE /v1/jobs/reads?keep_state=true&savepoint=a%20b"} { // at once, not by an operation that fails
		method, path, _ := strings.Cut(what, " ")
		if status, body := ask(t, http.DefaultClient, method, at+path, "", header); status != http.StatusUnprocessableEntity || !strings.Contains(body, "savepoint: name") {
			t.Errorf("%s: %d %s", what, status, body)
		}
	}
	if i, err := rt.JobDefinition("reads"); err != nil || i.Phase != runtime.PhaseActive {
		t.Errorf("the job is %s, %v", i.Phase, err)
	}
	req, err := http.NewRequestWithContext(t.Context(), "PATCH", at+"/v1/jobs/reads", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", header["Authorization"])
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if got := resp.Header.Get("Allow"); resp.StatusCode != http.StatusMethodNotAllowed || got != "GET, DELETE" {
		t.Errorf("%s, Allow: %q", resp.Status, got)
	}
}

// TestStreamsOfEachClass: who has no login cannot take the places of the socket's owner.
func TestStreamsOfEachClass(t *testing.T) {
	rt, _, _ := start(t)
	s := server(t, admin.Limits{Streams: 1})
	s.Attach(rt)
	at := "http://" + serve(t, s, admin.TCP{Addr: "127.0.0.1:0"})
	login := "http://" + serve(t, s, admin.TCP{Addr: "127.0.0.1:0", TokenFile: write(t, "token", token, 0o600)})
	req, err := http.NewRequestWithContext(t.Context(), "GET", at+"/v1/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	first, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer first.Body.Close()
	if status, body := ask(t, http.DefaultClient, "GET", at+"/v1/events", "", nil); status != http.StatusServiceUnavailable {
		t.Errorf("a second one: %d %s", status, body)
	}
	if status, body := ask(t, http.DefaultClient, "GET", login+"/v1/records?topic=ticks", "", map[string]string{"Authorization": "Bearer " + token}); status != http.StatusOK {
		t.Errorf("one with a login: %d %s", status, body)
	}
}

// TestLogsOfARemovedJob: who follows the log of a job that is removed is told so, and does not wait for a heartbeat.
func TestLogsOfARemovedJob(t *testing.T) {
	rt, _, _ := start(t)
	s := server(t, admin.Limits{Heartbeat: 24 * time.Hour, LongTimeout: 24 * time.Hour})
	s.Attach(rt)
	at := "http://" + serve(t, s, admin.TCP{Addr: "127.0.0.1:0", TokenFile: write(t, "token", token, 0o600)})
	req, err := http.NewRequestWithContext(t.Context(), "GET", at+"/v1/jobs/reads/logs?follow=true", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Fatal(resp.Status)
	}
	if _, err := rt.RemoveJob(t.Context(), "reads", runtime.RemoveOptions{DropUnsent: true}); err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(patience, func() { resp.Body.Close() })
	if lines, err := io.ReadAll(resp.Body); err != nil || !strings.Contains(string(lines), "there is no such job") {
		t.Errorf("it ends with %v:\n%s", err, lines)
	}
}
