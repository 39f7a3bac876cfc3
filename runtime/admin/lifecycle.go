package admin

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/runtime"
)

// Savepoint is a snapshot of a job with a name.
type Savepoint struct {
	Name    string    `json:"name"`
	Job     string    `json:"job"`
	Epoch   uint64    `json:"epoch"`
	LSN     uint64    `json:"lsn"`
	Bytes   int64     `json:"bytes"`
	Time    time.Time `json:"time"`
	Unasked bool      `json:"unasked,omitempty" doc:"of a job that was removed because its file was gone; the newest three of a job are kept"`
	Missing bool      `json:"missing,omitempty" doc:"its file is not there: nothing can begin with it"`
}

func savepointOf(i runtime.SavepointInfo) Savepoint {
	return Savepoint{Name: i.Name, Job: i.Job, Epoch: uint64(i.Epoch), LSN: uint64(i.LSN), Bytes: i.Bytes, Time: i.Time, Unasked: i.Unasked, Missing: i.Missing}
}

// registerLifecycle makes what moves a job from one place in its life to another.
func (s *Server) registerLifecycle() {
	moves := []struct {
		name, summary string
		do            func(*runtime.Runtime, context.Context, string) error
	}{
		{"pause", "Send a job a last barrier and keep it from running until it is resumed, also by the next process", (*runtime.Runtime).PauseJob},
		{"resume", "Let a job that is paused or stopped go on where it stood", (*runtime.Runtime).ResumeJob},
		{"restart", "Begin a new attempt of a job; one that has ended begins anew", (*runtime.Runtime).RestartJob},
	}
	for _, m := range moves {
		addLong(s, accessLogin, huma.Operation{Method: http.MethodPost, Path: "/v1/jobs/{name}/" + m.name, OperationID: m.name + "-job", Summary: m.summary},
			func(ctx context.Context, rt *runtime.Runtime, in *jobName) (*body[Job], error) {
				s.audit(m.name, in.Name)
				if err := m.do(rt, ctx, in.Name); err != nil {
					return nil, err
				}
				i, err := rt.JobDefinition(in.Name)
				if err != nil {
					return nil, err
				}
				return &body[Job]{jobOf(i, rt.Status().Jobs)}, nil
			})
	}
	add(s, accessLogin, huma.Operation{Method: http.MethodPost, Path: "/v1/jobs/{name}/stop", OperationID: "stop-job", DefaultStatus: http.StatusAccepted,
		Summary: "Stop a job behind a last barrier, until it is resumed or restarted by hand; this is an operation"},
		func(_ context.Context, rt *runtime.Runtime, in *struct {
			Name    string `path:"name" maxLength:"256"`
			Force   bool   `query:"force" doc:"cut it where it stands; what is not sealed is done again when it goes on"`
			Timeout string `query:"timeout" doc:"for its last barrier, such as 30s"`
		}) (*body[Operation], error) {
			timeout, err := duration("timeout", in.Timeout)
			if err != nil {
				return nil, err
			}
			return s.beginOn(rt, "stop", in.Name, nil, func(ctx context.Context, _ *Operation) error {
				return rt.StopJob(ctx, in.Name, runtime.StopOptions{Force: in.Force, Timeout: timeout})
			})
		})
	add(s, accessLogin, huma.Operation{Method: http.MethodPost, Path: "/v1/jobs/{name}/savepoints", OperationID: "make-savepoint", DefaultStatus: http.StatusAccepted,
		Summary: "Keep a job's state and positions under a name, while it runs; this is an operation"},
		func(_ context.Context, rt *runtime.Runtime, in *struct {
			Name      string `path:"name" maxLength:"256"`
			Savepoint string `query:"savepoint" maxLength:"128" doc:"its name; one is made of the job's and the time where it is left out"`
		}) (*body[Operation], error) {
			if err := savepointName(in.Savepoint); err != nil {
				return nil, err
			}
			return s.beginOn(rt, "savepoint", in.Name, nil, func(ctx context.Context, op *Operation) error {
				i, err := rt.Savepoint(ctx, in.Name, in.Savepoint)
				op.Savepoint = i.Name
				return err
			})
		})
	add(s, accessOpen, huma.Operation{Method: http.MethodGet, Path: "/v1/savepoints", OperationID: "list-savepoints", Summary: "Every savepoint"},
		func(_ context.Context, rt *runtime.Runtime, _ *nothing) (*body[[]Savepoint], error) {
			infos, err := rt.Savepoints()
			list := []Savepoint{}
			for _, i := range infos {
				list = append(list, savepointOf(i))
			}
			return &body[[]Savepoint]{list}, err
		})
	add(s, accessLogin, huma.Operation{Method: http.MethodDelete, Path: "/v1/savepoints/{name}", OperationID: "delete-savepoint",
		Summary: "Delete a savepoint; jobs that began with it have what they need of it"},
		func(ctx context.Context, rt *runtime.Runtime, in *jobName) (*nothing, error) {
			s.cfg.Logger.Info("asked for over the admin API", "what", "delete savepoint", "savepoint", in.Name)
			return &nothing{}, rt.DeleteSavepoint(ctx, in.Name)
		})
}

// savepointName refuses what is no name, before anything has begun; "" asks for one to be made.
func savepointName(name string) error {
	if name == "" {
		return nil
	}
	if err := jobs.CheckName(name); err != nil {
		return problem(http.StatusUnprocessableEntity, KindBadRequest, "savepoint: %v", err)
	}
	return nil
}

// audit says what somebody has asked for.
func (s *Server) audit(what, job string) {
	s.cfg.Logger.Info("asked for over the admin API", "what", what, "job", job)
}

// beginOn begins an operation on a job that is there.
func (s *Server) beginOn(rt *runtime.Runtime, kind, job string, progress func() string, do func(context.Context, *Operation) error) (*body[Operation], error) {
	if _, err := rt.JobDefinition(job); err != nil {
		return nil, err
	}
	s.audit(kind, job)
	op, err := s.begin(kind, job, progress, do)
	return &body[Operation]{op}, err
}
