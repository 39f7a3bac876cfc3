package admin_test

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sidestream-dev/sidestream/runtime/admin"
)

// TestClientWaitsForTheStart: a process that is starting says so, and a client with patience asks again until it is answered, its
// patience is over or its caller's; one that is stopping is not waited for.
func TestClientWaitsForTheStart(t *testing.T) {
	rt, _, _ := start(t)
	s := server(t, admin.Limits{})
	socket := filepath.Join(t.TempDir(), "run", "s")
	if err := s.ListenUnix(socket); err != nil {
		t.Fatal(err)
	}
	is := func(err error, kind admin.Kind) bool {
		var p *admin.Problem
		return errors.As(err, &p) && p.Kind() == kind
	}
	c := admin.NewClient(socket)
	if _, err := c.Jobs(t.Context()); !is(err, admin.KindStarting) {
		t.Errorf("without patience: %v", err)
	}
	c.StartWait = 200 * time.Millisecond
	if _, err := c.Jobs(t.Context()); !is(err, admin.KindStarting) {
		t.Errorf("with little patience: %v", err)
	}
	c.StartWait = time.Hour
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := c.Jobs(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("beyond the caller's patience: %v", err)
	}
	hasty := admin.NewClient(socket)
	hasty.StartWait = time.Hour
	hasty.Wait(200 * time.Millisecond)
	if _, err := hasty.Jobs(t.Context()); !errors.As(err, new(*admin.SilentError)) || !strings.Contains(err.Error(), "has not answered within 200ms") {
		t.Errorf("beyond its own patience: %v", err)
	}
	answer := make(chan error, 1)
	go func() {
		_, err := c.PauseJob(context.Background(), "ticks")
		answer <- err
	}()
	select {
	case err := <-answer:
		t.Fatalf("answered before there is a runtime: %v", err)
	case <-time.After(120 * time.Millisecond):
	}
	s.Attach(rt)
	s.Started()
	if err := <-answer; err != nil {
		t.Errorf("asked while it started: %v", err)
	}
	if err := rt.Stop(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.PauseJob(t.Context(), "ticks"); !is(err, admin.KindBusy) {
		t.Errorf("asked while it stops: %v", err)
	}
}
