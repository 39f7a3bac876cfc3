package admin

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/sidestream-dev/sidestream/runtime"
)

// ReplayRequest lets a job read a topic again.
type ReplayRequest struct {
	Topic  string `json:"topic" minLength:"1" maxLength:"512"`
	From   string `json:"from" minLength:"1" maxLength:"512" doc:"earliest, offset:N, a time as RFC 3339 has it (of events), -2h for two hours ago, or savepoint:NAME"`
	To     string `json:"to,omitempty" maxLength:"512" doc:"where it ends; the job goes on from where it was then"`
	DryRun bool   `json:"dry_run,omitempty" doc:"say what would be done, and do nothing"`
}

// registerReplay makes what sets jobs back.
func (s *Server) registerReplay() {
	add(s, accessLogin, huma.Operation{Method: http.MethodPost, Path: "/v1/jobs/{name}/replay", OperationID: "replay", DefaultStatus: http.StatusAccepted,
		Summary: "Let a job read a topic again; this is an operation, which is over when the job is where it was",
		Description: "Its places, its state and its watermarks are set back in one change, to nothing or to a savepoint. What it gives out until it is where it was, or at the end that is said, " +
			"has the header " + runtime.ReplayHeader + " with the replay's id. Cancelling the operation does not end the replay."},
		func(ctx context.Context, rt *runtime.Runtime, in *struct {
			Name string `path:"name" maxLength:"256"`
			Body ReplayRequest
		}) (*body[Operation], error) {
			o := runtime.ReplayOptions{DryRun: in.Body.DryRun}
			var err error
			if o.From, err = place("from", in.Body.From, true); err != nil {
				return nil, err
			}
			if o.To, err = optionalPlace("to", in.Body.To); err != nil {
				return nil, err
			}
			progress := func() string {
				if id, left, err := rt.Replaying(in.Name); err == nil && id != "" {
					return fmt.Sprintf("replay %s: %d records to go", id, left)
				}
				return ""
			}
			return s.beginOn(rt, "replay", in.Name, progress, func(ctx context.Context, op *Operation) error {
				res, err := rt.Replay(ctx, in.Name, in.Body.Topic, o)
				if err != nil {
					return err
				}
				op.Replay = &res
				return replayed(ctx, rt, in.Name, res.ID)
			})
		})
}

// replayed waits until a job is behind a replay. One that rests, or fails, is not waited for.
func replayed(ctx context.Context, rt *runtime.Runtime, job, id string) error {
	for id != "" {
		at, left, err := rt.Replaying(job)
		if err != nil || at != id {
			return err
		}
		i, err := rt.JobDefinition(job)
		switch {
		case err != nil:
			return err
		case i.Phase == runtime.PhaseFailed:
			return problem(http.StatusConflict, KindRefused, "job %s has failed in replay %s, with %d records to go: %s", job, id, left, i.Reason)
		case i.Phase != runtime.PhaseActive:
			return nil // it is read when the job goes on
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// Replay begins to let a job read a topic again.
func (c *Client) Replay(ctx context.Context, job string, r ReplayRequest) (op Operation, err error) {
	err = c.call(ctx, http.MethodPost, jobPath(job, "/replay"), r, &op)
	return op, err
}
