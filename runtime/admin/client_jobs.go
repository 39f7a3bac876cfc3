package admin

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/sidestream-dev/sidestream/jobs/spec"
	"github.com/sidestream-dev/sidestream/runtime"
)

// Jobs returns every job that the log knows, without its definition.
func (c *Client) Jobs(ctx context.Context) (js []Job, err error) {
	err = c.call(ctx, http.MethodGet, "/v1/jobs", nil, &js)
	return js, err
}

// Job returns a job with its definition.
func (c *Client) Job(ctx context.Context, name string) (j Job, err error) {
	err = c.call(ctx, http.MethodGet, jobPath(name, ""), nil, &j)
	return j, err
}

func jobPath(name, what string) string { return "/v1/jobs/" + url.PathEscape(name) + what }

// Apply adds the jobs that files define, or changes those there are: all of them, or none. The Files of r are filled in here.
func (c *Client) Apply(ctx context.Context, files []spec.File, r ApplyRequest) (res ApplyResult, err error) {
	r.Files = nil
	for _, f := range files {
		r.Files = append(r.Files, DefinitionFile{Name: f.Name, Content: string(f.Content)})
	}
	err = c.callLong(ctx, http.MethodPost, "/v1/jobs", r, &res)
	return res, err
}

// RemoveJob begins to remove a job. A timeout of 0 is the process's own.
func (c *Client) RemoveJob(ctx context.Context, name string, o runtime.RemoveOptions) (op Operation, err error) {
	v := url.Values{"keep_state": {strconv.FormatBool(o.KeepState)}, "savepoint": {o.Savepoint},
		"drop_unsent": {strconv.FormatBool(o.DropUnsent)}, "timeout": {o.Timeout.String()}}
	tag := o.IfMatch
	if tag != "" && tag != runtime.AnyVersion {
		tag = strconv.Quote(tag)
	}
	err = c.call(ctx, http.MethodDelete, jobPath(name, "?"+v.Encode()), nil, &op, "If-Match", tag)
	return op, err
}

// PauseJob, ResumeJob and RestartJob do what the runtime's do, and return how the job stands then.
func (c *Client) PauseJob(ctx context.Context, name string) (Job, error) {
	return c.move(ctx, name, "pause")
}

// ResumeJob is told of at PauseJob.
func (c *Client) ResumeJob(ctx context.Context, name string) (Job, error) {
	return c.move(ctx, name, "resume")
}

// RestartJob is told of at PauseJob.
func (c *Client) RestartJob(ctx context.Context, name string) (Job, error) {
	return c.move(ctx, name, "restart")
}

func (c *Client) move(ctx context.Context, name, what string) (j Job, err error) {
	err = c.callLong(ctx, http.MethodPost, jobPath(name, "/"+what), nil, &j)
	return j, err
}

// StopJob begins to stop a job. A timeout of 0 is the process's own.
func (c *Client) StopJob(ctx context.Context, name string, o runtime.StopOptions) (op Operation, err error) {
	v := url.Values{"force": {strconv.FormatBool(o.Force)}, "timeout": {o.Timeout.String()}}
	err = c.call(ctx, http.MethodPost, jobPath(name, "/stop?"+v.Encode()), nil, &op)
	return op, err
}

// Savepoint begins to make a savepoint of a job; a name of "" makes one.
func (c *Client) Savepoint(ctx context.Context, job, name string) (op Operation, err error) {
	v := url.Values{"savepoint": {name}}
	err = c.call(ctx, http.MethodPost, jobPath(job, "/savepoints?"+v.Encode()), nil, &op)
	return op, err
}

// Savepoints returns every savepoint.
func (c *Client) Savepoints(ctx context.Context) (list []Savepoint, err error) {
	err = c.call(ctx, http.MethodGet, "/v1/savepoints", nil, &list)
	return list, err
}

// DeleteSavepoint deletes a savepoint.
func (c *Client) DeleteSavepoint(ctx context.Context, name string) error {
	return c.call(ctx, http.MethodDelete, "/v1/savepoints/"+url.PathEscape(name), nil, nil)
}

// Operation returns how an operation stands when it is over, or after a while.
func (c *Client) Operation(ctx context.Context, id string, wait time.Duration) (op Operation, err error) {
	v := url.Values{"wait": {wait.String()}}
	err = c.callWithin(ctx, c.patience+max(wait, 0), http.MethodGet, "/v1/operations/"+url.PathEscape(id)+"?"+v.Encode(), nil, &op)
	return op, err
}

// CancelOperation ends an operation as soon as that can be.
func (c *Client) CancelOperation(ctx context.Context, id string) error {
	return c.call(ctx, http.MethodDelete, "/v1/operations/"+url.PathEscape(id), nil, nil)
}

// Await waits for the end of an operation, and calls progress with how it stands meanwhile. The error of one that has failed is
// its Problem. A process that does not answer is waited for, as Outwait does.
func (c *Client) Await(ctx context.Context, op Operation, progress func(Operation)) (Operation, error) {
	for said := false; op.State == OperationRunning; {
		progress(op)
		now, err := c.Operation(ctx, op.ID, time.Second)
		if c.Outwait(ctx, err, &said) {
			continue
		}
		if op = now; err != nil {
			return op, err
		}
	}
	if op.Problem != nil {
		return op, op.Problem
	}
	return op, nil
}
