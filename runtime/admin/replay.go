package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/jobs/spec"
	"github.com/sidestream-dev/sidestream/runtime"
	"github.com/sidestream-dev/sidestream/runtime/casetest"
)

// ReplayRequest lets a job read a topic again.
type ReplayRequest struct {
	Topic   string `json:"topic" minLength:"1" maxLength:"512"`
	From    string `json:"from" minLength:"1" maxLength:"512" doc:"earliest, offset:N, a time as RFC 3339 has it or a date (of events), -2h or -10d for so long ago, newest-2h for two hours before the newest record, or savepoint:NAME"`
	To      string `json:"to,omitempty" maxLength:"512" doc:"where it ends; the job goes on from where it was then"`
	Nothing bool   `json:"from_nothing,omitempty" doc:"begin with no state, also where there is a savepoint of the job at or before the place"`
	DryRun  bool   `json:"dry_run,omitempty" doc:"say what would be done, and do nothing"`
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
			o := runtime.ReplayOptions{DryRun: in.Body.DryRun, Nothing: in.Body.Nothing}
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

// ShadowRequest lets a definition of a job read what the job has read, with its outputs muted.
type ShadowRequest struct {
	Files   []DefinitionFile `json:"files" minItems:"1" maxItems:"1" doc:"the definition, of one job"`
	Topic   string           `json:"topic" minLength:"1" maxLength:"512"`
	From    string           `json:"from" minLength:"1" maxLength:"512" doc:"earliest, offset:N, a time as RFC 3339 has it or a date (of events), -2h or -10d for so long ago, newest-2h for two hours before the newest record, or savepoint:NAME"`
	To      string           `json:"to,omitempty" maxLength:"512" doc:"where it ends; where the job stands if not given"`
	WarmUp  string           `json:"warm_up,omitempty" maxLength:"512" doc:"a place to read from, with nothing compared before from"`
	Against string           `json:"against,omitempty" maxLength:"256" doc:"the job that it is compared with, if not the definition's own name"`
	Show    int              `json:"show,omitempty" minimum:"0" maximum:"1000" doc:"so many differences"`
}

func (s *Server) registerShadow() {
	addAlways(s, route{access: accessLogin, bytes: s.cfg.Limits.DefinitionBytes}, huma.Operation{Method: http.MethodPost, Path: "/v1/shadow", OperationID: "shadow", DefaultStatus: http.StatusAccepted,
		Summary: "Run a definition over what a job has read, and compare what it gives with what the job gave; this is an operation",
		Description: "Its outputs are muted, and nothing else is disturbed: it has no subscription and no place in the log. Its state is in memory, within a bound. " +
			"Cancelling the operation ends it. What came of it is the operation's shadow."},
		attached(s, func(ctx context.Context, rt *runtime.Runtime, in *body[ShadowRequest]) (*body[Operation], error) {
			o := runtime.ShadowOptions{Against: in.Body.Against, Show: in.Body.Show, Engine: muted}
			var err error
			if o.Definition, err = s.definition(in.Body.Files); err != nil {
				return nil, err
			}
			if o.From, err = place("from", in.Body.From, true); err != nil {
				return nil, err
			}
			if o.To, err = optionalPlace("to", in.Body.To); err != nil {
				return nil, err
			}
			if o.WarmUp, err = optionalPlace("warm_up", in.Body.WarmUp); err != nil {
				return nil, err
			}
			var done, all atomic.Int64
			o.Progress = func(d, a int64) { done.Store(d); all.Store(a) }
			progress := func() string {
				if a := all.Load(); a > 0 {
					return fmt.Sprintf("%d of %d records", done.Load(), a)
				}
				return ""
			}
			if o.Against == "" {
				o.Against = o.Definition.Name
			}
			return s.beginOn(rt, "shadow", o.Against, progress, func(ctx context.Context, op *Operation) error {
				res, err := rt.Shadow(ctx, in.Body.Topic, o)
				if err == nil {
					op.Shadow = &res
				}
				return err
			})
		}))
}

// CopyRequest copies a range of a topic into another.
type CopyRequest struct {
	Into   string  `json:"into" minLength:"1" maxLength:"512" doc:"the topic that is written; made with the same partitions where there is none"`
	From   string  `json:"from" minLength:"1" maxLength:"512" doc:"earliest, offset:N, a time as RFC 3339 has it or a date (of events), -2h or -10d for so long ago, or newest-2h for two hours before the newest record"`
	To     string  `json:"to,omitempty" maxLength:"512" doc:"stop before this place; at the topic's end as of now if not given"`
	Filter string  `json:"filter,omitempty" maxLength:"65536" doc:"copy only records of which this expression is true"`
	Rate   float64 `json:"rate,omitempty" minimum:"0" maximum:"1000000000" doc:"at most so many records a second"`
	Job    string  `json:"job,omitempty" maxLength:"128" doc:"the name of the job that does it; one of the topic and the time if not given"`
	DryRun bool    `json:"dry_run,omitempty" doc:"say what would be copied, and do nothing"`
}

func (s *Server) registerCopy() {
	add(s, accessLogin, huma.Operation{Method: http.MethodPost, Path: "/v1/topics/{topic}/replay", OperationID: "replay-into", DefaultStatus: http.StatusAccepted,
		Summary: "Copy a range of a topic into another one; this is an operation",
		Description: "A job of its own does it, each record once over any crash, and is removed when it is done. Its records have the header " + runtime.ReplayHeader +
			" with its name. Cancelling the operation leaves the job: remove it to end it."},
		func(ctx context.Context, rt *runtime.Runtime, in *struct {
			Topic string `path:"topic" maxLength:"512"`
			Body  CopyRequest
		}) (*body[Operation], error) {
			o := runtime.CopyOptions{Rate: in.Body.Rate, DryRun: in.Body.DryRun}
			var err error
			if o.From, err = place("from", in.Body.From, false); err != nil {
				return nil, err
			}
			if o.To, err = optionalPlace("to", in.Body.To); err != nil {
				return nil, err
			}
			def, err := s.copyJob(rt, in.Topic, in.Body)
			if err != nil {
				return nil, err
			}
			progress := func() string {
				if id, left, err := rt.Replaying(def.Name); err == nil && id != "" {
					return fmt.Sprintf("replay %s: %d records to go", id, left)
				}
				return ""
			}
			s.audit("replay", def.Name)
			op, err := s.begin("replay", def.Name, progress, func(ctx context.Context, op *Operation) error {
				res, err := rt.ReplayInto(ctx, def, in.Topic, o)
				if err != nil {
					return err
				}
				op.Replay = &res
				return replayed(ctx, rt, def.Name, res.ID)
			})
			return &body[Operation]{op}, err
		})
}

// copyJob writes the definition of a job that copies. The process that goes on with it reads it as any other.
func (s *Server) copyJob(rt *runtime.Runtime, topic string, r CopyRequest) (*jobs.Job, error) {
	if r.Into == topic {
		return nil, problem(http.StatusConflict, KindRefused, "topic %s cannot be replayed into itself: it would read what it writes", topic)
	}
	if r.Filter != "" {
		if _, err := spec.NewFilter(r.Filter); err != nil {
			return nil, problem(http.StatusUnprocessableEntity, KindBadRequest, "filter: %v", err)
		}
	}
	name := r.Job
	if name == "" {
		name = fmt.Sprintf("replay-%.80s-%s", topic, time.Now().UTC().Format("20060102T150405.000"))
	}
	out := map[string]any{"topic": r.Into}
	if _, there := rt.Topic(r.Into); !there {
		if st, ok := rt.Topic(topic); ok {
			out["partitions"] = len(st.Partitions)
		}
	}
	def := map[string]any{"version": 1, "job": name, "source": map[string]any{"bus": topic}, "outputs": map[string]any{"main": map[string]any{"bus": out}}}
	if r.Filter != "" {
		def["steps"] = []any{map[string]any{"filter": map[string]any{"if": r.Filter}}}
	}
	b, err := json.Marshal(def) // which is YAML too
	if err != nil {
		return nil, err
	}
	return s.definition([]DefinitionFile{{Name: name + ".yaml", Content: string(b) + "\n"}})
}

// ReplayInto begins to copy a range of a topic.
func (c *Client) ReplayInto(ctx context.Context, topic string, r CopyRequest) (op Operation, err error) {
	err = c.call(ctx, http.MethodPost, "/v1/topics/"+url.PathEscape(topic)+"/replay", r, &op)
	return op, err
}

// definition loads the one job of a request.
func (s *Server) definition(files []DefinitionFile) (*jobs.Job, error) {
	var texts []spec.File
	for _, f := range files {
		texts = append(texts, spec.File{Name: f.Name, Content: []byte(f.Content)})
	}
	js, problems, _ := spec.CheckFiles(s.cfg.Spec, texts...)
	if len(problems) > 0 {
		p := problem(http.StatusUnprocessableEntity, KindBadDefinition, "the definition has %d mistakes; nothing was run", len(problems))
		for _, q := range problems {
			p.Problems = append(p.Problems, PositionOf(q))
		}
		return nil, p
	}
	if len(js) != 1 {
		return nil, problem(http.StatusUnprocessableEntity, KindBadRequest, "the definitions are of %d jobs; a shadow run is of one", len(js))
	}
	return js[0], nil
}

// muted makes an engine of package casetest.
func muted(c runtime.ShadowSetup) (runtime.ShadowEngine, error) {
	m, err := casetest.NewMuted(casetest.MutedConfig{Job: c.Job, Partitions: c.Partitions, Restored: c.Restored, State: c.State, Out: c.Out})
	if err != nil {
		return nil, err
	}
	return m, nil
}

// Shadow begins a shadow run.
func (c *Client) Shadow(ctx context.Context, files []spec.File, r ShadowRequest) (op Operation, err error) {
	r.Files = nil
	for _, f := range files {
		r.Files = append(r.Files, DefinitionFile{Name: f.Name, Content: string(f.Content)})
	}
	err = c.call(ctx, http.MethodPost, "/v1/shadow", r, &op)
	return op, err
}

// replayed waits until a job is behind a replay. One that rests, or fails, is not waited for.
func replayed(ctx context.Context, rt *runtime.Runtime, job, id string) error {
	togo := int64(-1)
	for id != "" {
		at, left, err := rt.Replaying(job)
		if errors.Is(err, runtime.ErrNoJob) && job == id {
			return copied(rt, id, togo)
		}
		if err != nil || at != id {
			return err
		}
		i, err := rt.JobDefinition(job)
		switch {
		case errors.Is(err, runtime.ErrNoJob) && job == id:
			return copied(rt, id, left)
		case err != nil:
			return err
		case i.Phase == runtime.PhaseFailed:
			return problem(http.StatusConflict, KindRefused, "job %s has failed in replay %s, with %d records to go: %s", job, id, left, i.Reason)
		case i.Phase != runtime.PhaseActive:
			return nil // it is read when the job goes on
		}
		togo = left
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// copied says what came of a copy that is there no more: it is removed when it is done, or by hand before.
func copied(rt *runtime.Runtime, id string, left int64) error {
	events, _ := rt.Events(0)
	for _, e := range events {
		if e.Kind == runtime.EventReplayed && e.Job == id && e.Text == id {
			return nil
		}
	}
	if left < 0 {
		return problem(http.StatusConflict, KindRefused, "job %s was removed before it was done", id)
	}
	return problem(http.StatusConflict, KindRefused, "job %s was removed with %d records to go", id, left)
}

// Replay begins to let a job read a topic again.
func (c *Client) Replay(ctx context.Context, job string, r ReplayRequest) (op Operation, err error) {
	err = c.call(ctx, http.MethodPost, jobPath(job, "/replay"), r, &op)
	return op, err
}
