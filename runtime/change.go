package runtime

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sidestream-dev/sidestream/bus"
	"github.com/sidestream-dev/sidestream/jobs"
)

// Origin is who owns a job's definition. Each job has exactly one owner, until another adopts it.
type Origin string

const (
	OriginFile Origin = "file" // given to Start, each time anew
	OriginAPI  Origin = "api"  // kept in the log, and made a job again by Config.Load
)

// Definition is a job to be added or changed, and whose it is.
type Definition struct {
	Job    *jobs.Job
	Origin Origin // "" means OriginAPI
}

// ApplyOptions say how Apply goes about it; the zero value is the careful way.
type ApplyOptions struct {
	DryRun         bool              // say what would be done, and do nothing
	Adopt          bool              // take jobs over that belong to another origin
	AllowStateLoss bool              // drop state that the new definition cannot keep
	DropUnsent     bool              // drop what outputs that the new definition gives up, or that the job gave up before, have yet to send
	Probation      time.Duration     // how long what was there before is kept, to come back if the new fails; 0 means Config.Probation, less than 0 none
	From           string            // a savepoint that the job, of which there is one and which is new, begins with
	IfMatch        map[string]string // by job: only where it is at this JobInfo.Version, or, for AnyVersion, there at all
	Timeout        time.Duration     // for the last barriers of jobs that are changed; 0 means Config.StopTimeout
	Leaving        []string          // of a dry run: jobs that are looked at as if they were not there, since they go before it is done; then outsides are asked too
}

// ApplyResult is what Apply did, or would do, job by job in the order of the definitions.
type ApplyResult struct {
	Jobs []Diff `json:"jobs"`
}

// ApplyError says, by job, why nothing was changed. The name "" is of what concerns the jobs as a whole.
type ApplyError struct {
	Reasons map[string]error
	Outside bool // it is an outside that cannot be reached, or is not as it should be: that may come right without another definition
}

// Unwrap makes every reason visible to errors.Is and errors.As.
func (e *ApplyError) Unwrap() []error {
	var out []error
	for _, name := range e.names() {
		out = append(out, e.Reasons[name])
	}
	return out
}

func (e *ApplyError) names() []string {
	var names []string
	for name := range e.Reasons {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func (e *ApplyError) Error() string {
	var out []string
	for _, name := range e.names() {
		out = append(out, e.Reasons[name].Error())
	}
	return "nothing was changed: " + strings.Join(out, "; ")
}

// TopicError refuses a definition that gives a topic a property which it has otherwise.
type TopicError struct {
	Job     string
	Differs bus.ConflictError
}

func (e *TopicError) Error() string {
	return fmt.Sprintf("topic %s has %s %v, and job %s says %v", e.Differs.Topic, e.Differs.Field, e.Differs.Have, e.Job, e.Differs.Say)
}

// Hint says what can be done.
func (e *TopicError) Hint() string {
	if strings.HasPrefix(e.Differs.Field, "retention.") {
		return "leave it out, or set it with bus retention " + e.Differs.Topic + ", which counts in place of what definitions say"
	}
	return "leave it out, and the topic is taken as it is, or write to a topic of another name"
}

// whoSays returns the first of the jobs that gives a topic a property.
func whoSays(defs []*definition, topic, field string) string {
	for _, d := range defs {
		for _, t := range d.Topics {
			said := map[string]bool{"partitions": t.Partitions != 0, "retention.max_bytes": t.RetentionBytes != 0, "retention.max_age": t.RetentionAge != 0,
				"limit": t.LimitBytes != 0, "on_full": t.OnFull != ""}
			if t.Name == topic && said[field] {
				return d.Name
			}
		}
	}
	return ""
}

// refuse makes an ApplyError of one reason.
func refuse(job string, err error) error { return &ApplyError{Reasons: map[string]error{job: err}} }

var (
	// ErrNoJob is the error of asking for a job that is not there.
	ErrNoJob = errors.New("there is no such job")
	// ErrNotRunning refuses changes before Start and once Stop has begun.
	ErrNotRunning = errors.New("the runtime is not running")
	// ErrStarting is an ErrNotRunning before Start: it passes by itself.
	ErrStarting = fmt.Errorf("%w yet", ErrNotRunning)
)

// MissingError is the error of a name that nothing has. Behind it are ErrNoJob, ErrNoTopic or ErrNoSavepoint.
type MissingError struct {
	What string // job, topic, savepoint
	Name string
	err  error
}

func missing(what, name string, err error) error { return &MissingError{what, name, err} }

func (e *MissingError) Error() string { return fmt.Sprintf("%s %q: %v", e.What, e.Name, e.err) }
func (e *MissingError) Unwrap() error { return e.err }

// changes lets each job be changed by one at a time.
type changes struct {
	mu     sync.Mutex
	open   bool
	closed bool              // for good
	busy   map[string]string // job → what is being done to it
	freed  chan struct{}     // closed and replaced when a job is free again
	under  sync.WaitGroup
	await  func(context.Context, <-chan struct{}) error // the world's
	ctx    context.Context
	end    context.CancelFunc
}

func newChanges(await func(context.Context, <-chan struct{}) error) *changes {
	c := &changes{busy: map[string]string{}, freed: make(chan struct{}), await: await}
	c.ctx, c.end = context.WithCancel(context.Background())
	return c
}

func (c *changes) begin() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.open = true
}

// close refuses all that comes later, cuts short what is under way and waits for it.
func (c *changes) close() {
	c.mu.Lock()
	c.open, c.closed = false, true
	c.mu.Unlock()
	c.end()
	c.under.Wait()
}

// enter waits until nobody else changes the jobs named. The context returned ends with ctx, and when the runtime stops;
// leave frees the jobs.
func (c *changes) enter(ctx context.Context, what string, names ...string) (_ context.Context, leave func(), err error) {
	for {
		c.mu.Lock()
		if !c.open {
			closed := c.closed
			c.mu.Unlock()
			if !closed {
				return nil, nil, ErrStarting
			}
			return nil, nil, ErrNotRunning
		}
		other := ""
		for _, n := range names {
			if c.busy[n] != "" && other == "" {
				other = n
			}
		}
		if other == "" {
			break
		}
		doing, freed := c.busy[other], c.freed
		c.mu.Unlock()
		wait, cancel := context.WithCancel(ctx)
		stop := context.AfterFunc(c.ctx, cancel)
		err := c.await(wait, freed)
		stop()
		cancel()
		switch {
		case c.ctx.Err() != nil:
			return nil, nil, ErrNotRunning
		case err != nil:
			if !strings.HasPrefix(other, savepointPrefix) && !strings.HasPrefix(other, topicPrefix) {
				other = "job " + other
			}
			return nil, nil, fmt.Errorf("%s is being changed by somebody else (%s); nothing was done: %w", other, doing, err)
		}
	}
	for _, n := range names {
		c.busy[n] = what
	}
	c.under.Add(1)
	c.mu.Unlock()
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(c.ctx, cancel)
	return ctx, sync.OnceFunc(func() {
		stop()
		cancel()
		c.mu.Lock()
		for _, n := range names {
			delete(c.busy, n)
		}
		close(c.freed)
		c.freed = make(chan struct{})
		c.mu.Unlock()
		c.under.Done()
	}), nil
}

// JobInfo is what the log says of a job.
type JobInfo struct {
	Name       string    `json:"name"`
	ID         uint32    `json:"id"`
	Origin     Origin    `json:"origin"`
	Phase      JobPhase  `json:"phase"`
	Reason     string    `json:"reason,omitempty"` // of the phase
	Changed    time.Time `json:"changed"`          // when its definition was last changed
	Version    string    `json:"version"`          // of its definition and owner: another after each change of them, also one back
	Definition []byte    `json:"definition"`
}

func (j *jobEntry) info() JobInfo {
	return JobInfo{Name: j.Name, ID: j.ID, Origin: j.Origin, Phase: j.Phase, Reason: j.Reason, Changed: time.UnixMilli(j.Changed), Version: j.version(), Definition: j.Definition}
}

// JobDefinition returns what the log says of a job; the error of one that is not there is ErrNoJob.
func (rt *Runtime) JobDefinition(name string) (JobInfo, error) {
	e, err := rt.entry(name)
	if err != nil {
		return JobInfo{}, err
	}
	return e.info(), nil
}

// JobDefinitions returns what the log says of every job, also of those that nobody gave a definition of, by id.
func (rt *Runtime) JobDefinitions() (infos []JobInfo, err error) {
	err = rt.do(func(c *core) error {
		for _, e := range c.ledger.sorted() {
			infos = append(infos, e.info())
		}
		return nil
	})
	return infos, err
}

// entry returns a copy of what the log says of a job.
func (rt *Runtime) entry(name string) (e *jobEntry, err error) {
	err = rt.do(func(c *core) error {
		if j := c.ledger.job(name); j != nil {
			e = j.clone()
			return nil
		}
		return missing("job", name, ErrNoJob)
	})
	return e, err
}
