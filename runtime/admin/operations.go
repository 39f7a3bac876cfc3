package admin

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/sidestream-dev/sidestream/runtime"
)

const (
	operationsRunning = 64              // at a time
	operationsKept    = 256             // that are over
	operationWaitMax  = 1 * time.Minute // of a request that waits for the end of one
)

// OperationState is how far an operation is.
type OperationState string

const (
	OperationRunning   OperationState = "running"
	OperationDone      OperationState = "done"
	OperationFailed    OperationState = "failed"
	OperationCancelled OperationState = "cancelled" // before it was done; Problem says how things stand
)

// Operation is work that goes on behind the answer to the request that asked for it. It ends with the process.
type Operation struct {
	ID        string           `json:"id"`
	Kind      string           `json:"kind" doc:"stop, remove, savepoint, replay, shadow"`
	Job       string           `json:"job,omitempty"`
	State     OperationState   `json:"state" enum:"running,done,failed,cancelled"`
	Progress  string           `json:"progress,omitempty" doc:"what is waited for"`
	Started   time.Time        `json:"started"`
	Ended     *time.Time       `json:"ended,omitempty"`
	Dropped   map[string]int64 `json:"dropped,omitempty" doc:"remove: records never sent, by output"`
	Savepoint string           `json:"savepoint,omitempty" doc:"its name"`

	Replay  *runtime.ReplayResult `json:"replay,omitempty" doc:"what is read again"`
	Shadow  *runtime.ShadowResult `json:"shadow,omitempty" doc:"what a shadow run found"`
	Problem *Problem              `json:"problem,omitempty" doc:"why it failed"`
}

// operation is one as the server has it.
type operation struct {
	Operation
	cancel    context.CancelFunc
	cancelled bool
	progress  func() string // asked while it runs
	over      chan struct{}
}

// operations is every operation of the process.
type operations struct {
	mu      sync.Mutex
	first   string // part of the ids, that tells this process from those before
	n       int
	running int
	list    []*operation // oldest first
	under   sync.WaitGroup
}

// begin starts an operation. do fills in what came of it, under the lock of nobody: it has it for itself until it returns.
func (s *Server) begin(kind, job string, progress func() string, do func(context.Context, *Operation) error) (Operation, error) {
	o := &s.operations
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.running >= operationsRunning {
		return Operation{}, problem(http.StatusServiceUnavailable, KindBusy, "%d operations are under way; try again later", operationsRunning)
	}
	if s.ctx.Err() != nil {
		return Operation{}, problem(http.StatusServiceUnavailable, KindBusy, "the process is stopping")
	}
	o.n++
	op := &operation{Operation: Operation{ID: fmt.Sprintf("%s-%d", o.first, o.n), Kind: kind, Job: job, State: OperationRunning, Started: time.Now()},
		progress: progress, over: make(chan struct{})}
	o.running++
	o.list = append(o.list, op)
	o.forget()
	ctx, cancel := context.WithCancel(s.ctx)
	op.cancel = cancel
	o.under.Go(func() {
		defer cancel()
		var result Operation
		err := do(ctx, &result)
		var failed *Problem
		if err != nil {
			failed = s.problemOf(err)
		}
		o.mu.Lock()
		defer o.mu.Unlock()
		defer close(op.over)
		now := time.Now()
		op.Replay, op.Shadow = result.Replay, result.Shadow
		op.Ended, op.Dropped, op.Savepoint, op.State = &now, result.Dropped, result.Savepoint, OperationDone
		o.running--
		if failed != nil {
			op.State, op.Problem = OperationFailed, failed
			if op.cancelled && errors.Is(err, context.Canceled) {
				op.State = OperationCancelled
			}
		}
	})
	return op.Operation, nil
}

// forget lets go of the oldest that are over.
func (o *operations) forget() {
	over := len(o.list) - o.running - operationsKept
	o.list = slices.DeleteFunc(o.list, func(op *operation) bool {
		if over <= 0 || op.Ended == nil {
			return false
		}
		over--
		return true
	})
}

// seen is how operations stand. What they wait for is asked without the lock, since it may itself wait for the log.
func (o *operations) seen(ops ...*operation) []Operation {
	list := make([]Operation, len(ops))
	o.mu.Lock()
	for i, op := range ops {
		list[i] = op.Operation
	}
	o.mu.Unlock()
	for i, op := range ops {
		if list[i].Ended == nil && op.progress != nil {
			list[i].Progress = op.progress()
		}
	}
	return list
}

func (o *operations) find(id string) (*operation, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, op := range o.list {
		if op.ID == id {
			return op, nil
		}
	}
	return nil, problem(http.StatusNotFound, KindNotFound, "operation %q: there is no such operation; those of an earlier process are gone with it, and old ones are forgotten", id)
}

type operationID struct {
	ID string `path:"id" maxLength:"64"`
}

type operationWait struct {
	ID   string `path:"id" maxLength:"64"`
	Wait string `query:"wait" doc:"answer when it is over, or after so long, such as 30s; at most a minute"`
}

func (s *Server) registerOperations() {
	o := &s.operations
	add(s, accessLogin, huma.Operation{Method: http.MethodGet, Path: "/v1/operations", OperationID: "list-operations",
		Summary: "Work under way, and what came of older work"},
		func(context.Context, *runtime.Runtime, *nothing) (*body[[]Operation], error) {
			o.mu.Lock()
			all := slices.Clone(o.list)
			o.mu.Unlock()
			return &body[[]Operation]{o.seen(all...)}, nil
		})
	addLong(s, accessLogin, huma.Operation{Method: http.MethodGet, Path: "/v1/operations/{id}", OperationID: "get-operation",
		Summary: "How far an operation is, or what came of it"},
		func(ctx context.Context, _ *runtime.Runtime, in *operationWait) (*body[Operation], error) {
			wait, err := duration("wait", in.Wait)
			if err != nil {
				return nil, err
			}
			op, err := o.find(in.ID)
			if err != nil {
				return nil, err
			}
			if wait > 0 {
				select {
				case <-op.over:
				case <-time.After(min(wait, operationWaitMax)):
				case <-ctx.Done():
				}
			}
			return &body[Operation]{o.seen(op)[0]}, nil
		})
	add(s, accessLogin, huma.Operation{Method: http.MethodDelete, Path: "/v1/operations/{id}", OperationID: "cancel-operation",
		Summary: "Cancel an operation", Description: "It ends as soon as it can; what it has done by then stays. One that is over stays as it is."},
		func(_ context.Context, _ *runtime.Runtime, in *operationID) (*body[Operation], error) {
			op, err := o.find(in.ID)
			if err != nil {
				return nil, err
			}
			o.mu.Lock()
			if op.Ended == nil {
				op.cancelled = true
				op.cancel()
			}
			o.mu.Unlock()
			return &body[Operation]{o.seen(op)[0]}, nil
		})
}

// duration reads a parameter that is one, as people write it; "" is 0.
func duration(name, s string) (time.Duration, error) {
	if s == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 {
		return 0, problem(http.StatusUnprocessableEntity, KindBadRequest, "%s is %q; it is a duration such as 30s", name, s)
	}
	return d, nil
}
