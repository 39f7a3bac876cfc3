package admin_test

import (
	"bufio"
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sidestream-dev/sidestream/bus"
	"github.com/sidestream-dev/sidestream/runtime"
	"github.com/sidestream-dev/sidestream/runtime/admin"
)

var errEnough = errors.New("errEnough")

// TestEvents: what happens comes in order, each once, also to a client that leaves and comes back, by its own means or as a
// browser does; what is gone is told.
func TestEvents(t *testing.T) {
	_, s, socket := start(t)
	c := admin.NewClient(socket)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for range 3 {
		for _, do := range []func(context.Context, string) (admin.Job, error){c.PauseJob, c.ResumeJob} {
			if _, err := do(ctx, "ticks"); err != nil {
				t.Fatal(err)
			}
		}
	}
	last, ids, paused := "0", map[string]bool{}, 0
	var seq uint64
	for paused < 3 { // three events at a time
		n := 0
		err := c.Events(ctx, last, func(id string, e runtime.Event) error {
			if seq > 0 && e.Seq != seq+1 || ids[id] {
				t.Fatalf("event %d (%s) behind %d", e.Seq, id, seq)
			}
			last, seq, ids[id] = id, e.Seq, true
			if e.Kind == runtime.EventState && e.Job == "ticks" && e.State == runtime.StatePaused {
				paused++
			}
			if n++; n == 3 || paused == 3 {
				return errEnough
			}
			return nil
		})
		if !errors.Is(err, errEnough) {
			t.Fatal(err)
		}
	}
	var lost *admin.LostError
	if err := c.Events(ctx, "another-7", nil); !errors.As(err, &lost) {
		t.Errorf("behind an event of another process: %v", err)
	}
	// As a browser comes back, over TCP, where nobody is logged in.
	req, err := http.NewRequestWithContext(ctx, "GET", "http://"+serve(t, s, admin.TCP{Addr: "127.0.0.1:0"})+"/v1/events?job=ticks", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Last-Event-ID", last)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if got := resp.Header.Get("Content-Type"); got != "text/event-stream" {
		t.Errorf("Content-Type %s", got)
	}
	if _, err := c.PauseJob(ctx, "ticks"); err != nil {
		t.Fatal(err)
	}
	for in := bufio.NewScanner(resp.Body); in.Scan(); {
		if strings.HasPrefix(in.Text(), "data: ") && !strings.Contains(in.Text(), `"job":"ticks"`) {
			t.Errorf("of another job: %s", in.Text())
		}
		if strings.Contains(in.Text(), `"state":"paused"`) {
			break
		}
	}
	if err := ctx.Err(); err != nil {
		t.Error(err)
	}
}

// TestEventsHeartbeat: a stream says something also where nothing happens, and ends with the process.
func TestEventsHeartbeat(t *testing.T) {
	rt, _, _ := start(t)
	s := server(t, admin.Limits{Heartbeat: 10 * time.Millisecond})
	s.Attach(rt)
	resp, err := http.Get("http://" + serve(t, s, admin.TCP{Addr: "127.0.0.1:0"}) + "/v1/events?job=none")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	in := bufio.NewScanner(resp.Body)
	for beats := 0; beats < 3; {
		if !in.Scan() {
			t.Fatal(in.Err())
		}
		if in.Text() == ":" {
			beats++
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	rest := ""
	for in.Scan() {
		rest += in.Text() + "\n"
	}
	if !strings.Contains(rest, "event: problem\ndata: {") || !strings.Contains(rest, "stopping") {
		t.Errorf("at the end of the process: %q", rest)
	}
}

// TestLife: each move of a job, as its own call, and what is refused where it stands.
func TestLife(t *testing.T) {
	_, _, socket := start(t)
	c := admin.NewClient(socket)
	ctx := t.Context()
	await := func(op admin.Operation, err error) admin.Operation {
		t.Helper()
		if err == nil {
			op, err = c.Await(ctx, op, func(admin.Operation) {})
		}
		if err != nil {
			t.Fatal(err)
		}
		return op
	}
	want := func(phase runtime.JobPhase) {
		t.Helper()
		if j, err := c.Job(ctx, "ticks"); err != nil || j.Phase != phase {
			t.Errorf("%s, %v; want %s", j.Phase, err, phase)
		}
	}
	if j, err := c.PauseJob(ctx, "ticks"); err != nil || j.State != runtime.StatePaused {
		t.Errorf("%+v, %v", j, err)
	}
	want(runtime.PhasePaused)
	if _, err := c.ResumeJob(ctx, "ticks"); err != nil {
		t.Error(err)
	}
	want(runtime.PhaseActive)
	if _, err := c.RestartJob(ctx, "ticks"); err != nil {
		t.Error(err)
	}
	await(c.StopJob(ctx, "ticks", runtime.StopOptions{Force: true}))
	want(runtime.PhaseStopped)
	var p *admin.Problem
	if _, err := c.PauseJob(ctx, "ticks"); !errors.As(err, &p) || p.Kind() != admin.KindRefused || !strings.Contains(p.Detail, "resume") {
		t.Errorf("pausing what is stopped: %v", err)
	}
	if _, err := c.PauseJob(ctx, "nope"); !errors.As(err, &p) || p.Kind() != admin.KindNotFound {
		t.Errorf("pausing what is not there: %v", err)
	}
	if op := await(c.Savepoint(ctx, "ticks", "mine")); op.Savepoint != "mine" {
		t.Errorf("%+v", op)
	}
	op, err := c.Savepoint(ctx, "ticks", "mine")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Await(ctx, op, func(admin.Operation) {}); !errors.As(err, &p) || p.Kind() != admin.KindRefused {
		t.Errorf("a second savepoint of one name: %v", err)
	}
	list, err := c.Savepoints(ctx)
	if err != nil || len(list) != 1 || list[0].Name != "mine" || list[0].Job != "ticks" {
		t.Errorf("%+v, %v", list, err)
	}
	if op := await(c.RemoveJob(ctx, "ticks", runtime.RemoveOptions{KeepState: true, Savepoint: "kept"})); op.Savepoint != "kept" {
		t.Errorf("%+v", op)
	}
	if err := c.DeleteSavepoint(ctx, "mine"); err != nil {
		t.Error(err)
	}
	if err := c.DeleteSavepoint(ctx, "mine"); !errors.As(err, &p) || p.Kind() != admin.KindNotFound {
		t.Errorf("deleting it again: %v", err)
	}
	again := strings.NewReplacer("job: ticks\n", "job: ticks2\n").Replace(strings.SplitN(twoJobs, "---", 2)[0])
	if _, err := apply(t, c, admin.ApplyRequest{From: "nope"}, again); err == nil {
		t.Error("a savepoint that is not there is taken")
	}
}

// TestCopyRemoved: a copy that is removed by hand is not reported as done; one that comes to its end is.
func TestCopyRemoved(t *testing.T) {
	_, _, socket := start(t)
	c := admin.NewClient(socket)
	ctx := t.Context()
	for topics, err := c.Topics(ctx); ; topics, err = c.Topics(ctx) {
		if err != nil {
			t.Fatal(err)
		}
		if i := slices.IndexFunc(topics, func(s bus.TopicStat) bool { return s.Name == "ticks" }); i >= 0 && topics[i].Partitions[0].Next >= 10 {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	op, err := c.ReplayInto(ctx, "ticks", admin.CopyRequest{Into: "slow", From: "earliest", Rate: 0.01, Job: "slow"})
	if err != nil {
		t.Fatal(err)
	}
	for _, err = c.Job(ctx, "slow"); err != nil; _, err = c.Job(ctx, "slow") {
		time.Sleep(5 * time.Millisecond)
	}
	if _, err := c.RemoveJob(ctx, "slow", runtime.RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Await(ctx, op, func(admin.Operation) {}); err == nil || !strings.Contains(err.Error(), "was removed") {
		t.Errorf("a copy that was removed by hand: %v", err)
	}
	if op, err = c.ReplayInto(ctx, "ticks", admin.CopyRequest{Into: "quick", From: "earliest", Job: "quick"}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Await(ctx, op, func(admin.Operation) {}); err != nil {
		t.Errorf("a copy that came to its end: %v", err)
	}
}
