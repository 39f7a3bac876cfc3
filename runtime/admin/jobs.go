package admin

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/sidestream-dev/sidestream/bus"
	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/jobs/spec"
	"github.com/sidestream-dev/sidestream/runtime"
)

// Job is a job as the log knows it, and what it does now.
type Job struct {
	Name       string             `json:"name"`
	Origin     runtime.Origin     `json:"origin" doc:"who owns its definition: file or api"`
	Phase      runtime.JobPhase   `json:"phase" doc:"where it stands in its life, as the log keeps it"`
	State      runtime.JobState   `json:"state" doc:"what it does now"`
	Reason     string             `json:"reason,omitempty" doc:"of the phase"`
	Changed    time.Time          `json:"changed" doc:"when its definition was last changed"`
	Version    string             `json:"version" doc:"of its definition and owner, another after each change of them: for If-Match"`
	Status     *runtime.JobStatus `json:"status,omitempty" doc:"none where nobody has given its definition"`
	Definition string             `json:"definition,omitempty" doc:"as it was given; a list has none"`
}

func jobOf(i runtime.JobInfo, all []runtime.JobStatus) Job {
	j := Job{Name: i.Name, Origin: i.Origin, Phase: i.Phase, State: runtime.JobState(i.Phase), Reason: i.Reason, Changed: i.Changed, Version: i.Version}
	if i.Phase == runtime.PhaseActive {
		j.State = runtime.StateStopped // nobody has given its definition
	}
	if n := slices.IndexFunc(all, func(s runtime.JobStatus) bool { return s.Name == i.Name }); n >= 0 {
		j.Status, j.State = &all[n], all[n].State
	}
	return j
}

// DefinitionFile is a file of job definitions.
type DefinitionFile struct {
	Name    string `json:"name" maxLength:"4096" doc:"as problems are to name it"`
	Content string `json:"content"`
}

// ApplyRequest adds jobs, or changes those there are: all of them, or none.
type ApplyRequest struct {
	Files          []DefinitionFile  `json:"files" minItems:"1" maxItems:"1000" nullable:"false"`
	DryRun         bool              `json:"dry_run,omitempty" doc:"say what would be done, and do nothing"`
	Adopt          bool              `json:"adopt,omitempty" doc:"take jobs over whose definitions are files'"`
	AllowStateLoss bool              `json:"allow_state_loss,omitempty" doc:"drop state that the new definition cannot keep"`
	DropUnsent     bool              `json:"drop_unsent,omitempty" doc:"drop what outputs that the definition gives up, or that the job gave up before, have yet to send; the answer has how many records"`
	IfMatch        map[string]string `json:"if_match,omitempty" doc:"by job: the version at which it must still be, * for any; where it is given, every job must be in it. If-Match does the same for one job"`
	From           string            `json:"from,omitempty" doc:"a savepoint that the job, of which there is one and which is new, begins with"`
	Probation      string            `json:"probation,omitempty" doc:"how long the old definition is kept, to come back if the new one fails, such as 30s; 0s is not at all"`
	Timeout        string            `json:"timeout,omitempty" doc:"for the last barriers of jobs that are changed"`
}

// ApplyResult is what apply has done, or would do.
type ApplyResult struct {
	runtime.ApplyResult
	Warnings []Position `json:"warnings,omitempty" doc:"topics that are read, and that nobody writes"`
}

type jobName struct {
	Name string `path:"name" maxLength:"256"`
}

// tagged is a job with the version of its definition as its entity tag.
type tagged struct {
	ETag string `header:"ETag" doc:"the version, for If-Match"`
	Body Job
}

// applyIn is what apply is given.
type applyIn struct {
	IfMatch string `header:"If-Match" doc:"of one job: only where it is still at this version, as ETag or version gave it"`
	Body    ApplyRequest
}

// versionIn returns the version in an entity tag, "" where there is none.
func versionIn(tag string) (string, error) {
	if tag == "" || tag == runtime.AnyVersion {
		return tag, nil
	}
	version, err := strconv.Unquote(tag)
	if err != nil || !strings.HasPrefix(tag, `"`) || version == "" {
		return "", problem(http.StatusBadRequest, KindBadRequest, `If-Match is %s; it takes one version in quotes, such as "0123456789abcdef", or *`, tag)
	}
	return version, nil
}

// matching is what is asked of the versions of jobs that are applied.
func (in *applyIn) matching(js []*jobs.Job) (map[string]string, error) {
	version, err := versionIn(in.IfMatch)
	want := in.Body.IfMatch
	switch {
	case err != nil:
		return nil, err
	case version != "" && (len(js) != 1 || want != nil):
		return nil, problem(http.StatusBadRequest, KindBadRequest, "If-Match is of one job, and %d are given; if_match is of several", len(js))
	case version != "":
		return map[string]string{js[0].Name: version}, nil
	case want == nil:
		return nil, nil
	}
	for _, j := range js {
		if want[j.Name] == "" {
			return nil, problem(http.StatusBadRequest, KindBadRequest, "if_match has no version of job %s", j.Name)
		}
	}
	return want, nil
}

func (s *Server) registerJobs() {
	add(s, accessOpen, huma.Operation{Method: http.MethodGet, Path: "/v1/jobs", OperationID: "list-jobs",
		Summary: "Every job that the log knows, without its definition"},
		func(ctx context.Context, rt *runtime.Runtime, _ *nothing) (*body[[]Job], error) {
			infos, err := rt.JobDefinitions()
			if err != nil {
				return nil, err
			}
			list, all := []Job{}, statusFor(ctx, rt).Jobs
			for _, i := range infos {
				if i.Phase == runtime.PhaseFailed && !mayRead(ctx) {
					hide(&i.Reason)
				}
				list = append(list, jobOf(i, all))
			}
			return &body[[]Job]{list}, nil
		})
	add(s, accessLogin, huma.Operation{Method: http.MethodGet, Path: "/v1/jobs/{name}", OperationID: "get-job",
		Summary: "A job, with its definition"},
		func(_ context.Context, rt *runtime.Runtime, in *jobName) (*tagged, error) {
			i, err := rt.JobDefinition(in.Name)
			if err != nil {
				return nil, err
			}
			j := jobOf(i, rt.Status().Jobs)
			j.Definition = string(i.Definition)
			return &tagged{strconv.Quote(j.Version), j}, nil
		})
	addAlways(s, route{access: accessLogin, bytes: s.cfg.Limits.DefinitionBytes, long: true}, huma.Operation{Method: http.MethodPost, Path: "/v1/jobs", OperationID: "apply-jobs",
		Summary:     "Add jobs, or change those there are: all of them, or none",
		Description: "Everything new is checked, built and connected first. What is wrong with definitions is told with places, as sidestream check does; they are read where the process is, so are the files and variables that they name."},
		attached(s, s.apply))
	add(s, accessLogin, huma.Operation{Method: http.MethodDelete, Path: "/v1/jobs/{name}", OperationID: "remove-job", DefaultStatus: http.StatusAccepted,
		Summary: "Remove a job, with its state, once the outside has its outputs; this is an operation"},
		func(_ context.Context, rt *runtime.Runtime, in *struct {
			Name       string `path:"name" maxLength:"256"`
			KeepState  bool   `query:"keep_state" doc:"leave its state as a savepoint"`
			Savepoint  string `query:"savepoint" maxLength:"128" doc:"the name of that"`
			DropUnsent bool   `query:"drop_unsent" doc:"do not wait until the outside has its outputs"`
			Timeout    string `query:"timeout" doc:"for its last barrier and its outputs, such as 30s"`
			IfMatch    string `header:"If-Match" doc:"only where it is still at this version"`
		}) (*body[Operation], error) {
			timeout, err := duration("timeout", in.Timeout)
			if err != nil {
				return nil, err
			}
			if err := savepointName(in.Savepoint); err != nil {
				return nil, err
			}
			version, err := versionIn(in.IfMatch)
			if err != nil {
				return nil, err
			}
			if i, err := rt.JobDefinition(in.Name); err == nil && version != "" && version != runtime.AnyVersion && version != i.Version {
				return nil, &runtime.MatchError{Job: in.Name, Want: version, Now: &i} // at once, not as the end of an operation
			}
			o := runtime.RemoveOptions{IfMatch: version, KeepState: in.KeepState, Savepoint: in.Savepoint, DropUnsent: in.DropUnsent, Timeout: timeout}
			return s.beginOn(rt, "remove", in.Name, unsentOf(rt, in.Name), func(ctx context.Context, op *Operation) error {
				res, err := rt.RemoveJob(ctx, in.Name, o)
				op.Dropped, op.Savepoint = res.Dropped, res.Savepoint
				return err
			})
		})
}

// unsentOf says how much a job's outputs have yet to send.
func unsentOf(rt *runtime.Runtime, name string) func() string {
	return func() string {
		var left []string
		for _, j := range rt.Status().Jobs {
			for _, o := range j.Outputs {
				if j.Name == name && o.Unsent > 0 {
					left = append(left, fmt.Sprintf("%d records of output %s to be sent", o.Unsent, o.Name))
				}
			}
		}
		return strings.Join(left, ", ")
	}
}

func (s *Server) apply(ctx context.Context, rt *runtime.Runtime, in *applyIn) (*body[ApplyResult], error) {
	var files []spec.File
	for _, f := range in.Body.Files {
		files = append(files, spec.File{Name: f.Name, Content: []byte(f.Content)})
	}
	js, problems, odd := spec.CheckFiles(s.cfg.Spec, files...)
	if len(problems) > 0 {
		p := problem(http.StatusUnprocessableEntity, KindBadDefinition, "the definitions have %d mistakes; nothing was changed", len(problems))
		for _, q := range problems {
			p.Problems = append(p.Problems, PositionOf(q))
		}
		return nil, p
	}
	var defs []runtime.Definition
	for _, j := range js {
		defs = append(defs, runtime.Definition{Job: j, Origin: runtime.OriginAPI})
	}
	o := runtime.ApplyOptions{DryRun: in.Body.DryRun, Adopt: in.Body.Adopt, AllowStateLoss: in.Body.AllowStateLoss, DropUnsent: in.Body.DropUnsent, From: in.Body.From}
	var err error
	if o.IfMatch, err = in.matching(js); err != nil {
		return nil, err
	}
	if o.Timeout, err = duration("timeout", in.Body.Timeout); err != nil {
		return nil, err
	}
	if o.Probation, err = duration("probation", in.Body.Probation); err != nil {
		return nil, err
	}
	if in.Body.Probation != "" && o.Probation == 0 {
		o.Probation = -1
	}
	res, err := rt.Apply(ctx, defs, o)
	var refused *runtime.ApplyError
	var match *runtime.MatchError
	var bad *runtime.BadSavepointError
	if errors.As(err, &match) {
		return nil, s.problemOf(match)
	}
	if errors.As(err, &bad) {
		return nil, problemOf(bad)
	}
	if errors.As(err, &refused) && !errors.Is(err, runtime.ErrNotRunning) {
		return nil, refusal(refused, js, files)
	}
	if err != nil {
		return nil, err
	}
	for _, d := range res.Jobs {
		switch {
		case in.Body.DryRun:
		case d.Action != runtime.ActionUnchanged:
			s.audit(string(d.Action), d.Job)
		case len(d.Dropped) > 0:
			s.audit("drop unsent", d.Job)
		}
	}
	return &body[ApplyResult]{ApplyResult{res, unwritten(rt, odd)}}, nil
}

// unwritten is what is odd about definitions in that nobody writes what they read: no job there is, and nobody has.
func unwritten(rt *runtime.Runtime, odd []spec.Problem) (out []Position) {
	written := map[string]bool{}
	for _, t := range rt.Status().Topics {
		if !t.Hidden && (len(t.Producers) > 0 || slices.ContainsFunc(t.Partitions, func(p bus.PartitionStat) bool { return p.Next > 0 })) {
			written[t.Name] = true
		}
	}
	for _, w := range odd {
		if w.Topic != "" && !w.Unread && !written[w.Topic] {
			w.Hint = "it waits until a job does"
			if near := spec.Nearest(w.Topic, slices.Sorted(maps.Keys(written))); near != "" {
				w.Hint = "did you mean " + near + "?"
			}
			out = append(out, PositionOf(w))
		}
	}
	return out
}

// refusal tells why nothing was changed, job by job, with where each job is defined.
func refusal(e *runtime.ApplyError, js []*jobs.Job, files []spec.File) *Problem {
	p := problem(http.StatusConflict, KindRefused, "%v", e)
	for name, why := range e.Reasons {
		if name == "" && len(js) == 1 { // of the jobs as a whole, and it is this one that is new
			name = js[0].Name
		}
		at := Position{Job: name, Message: why.Error()}
		var topic *runtime.TopicError
		if errors.As(why, &topic) {
			name, at.Job, at.Hint = topic.Job, topic.Job, topic.Hint()
		}
		var loss *runtime.StateLossError
		if errors.As(why, &loss) {
			at.Hint = "job apply --allow-state-loss drops it"
		}
		var unsent *runtime.UnsentError
		if errors.As(why, &unsent) {
			at.Hint = "job apply FILE --drop-unsent drops them"
			if len(unsent.Earlier) > 0 {
				at.Hint += "; what was given up earlier also by the definition that the job has now"
			}
		}
		var other *runtime.OriginError
		if errors.As(why, &other) {
			at.Hint = "change that file and let the process reload it (SIGHUP, or run --watch), or take the job over with job apply --adopt: then the file must go"
		}
		for _, j := range js {
			for _, f := range files {
				if i := bytes.Index(f.Content, j.Definition); j.Name == name && i >= 0 {
					at.File, at.Line, at.Column = f.Name, 1+bytes.Count(f.Content[:i], []byte("\n")), 1
					if topic != nil {
						at.within(j.Definition, topic.Differs)
					}
				}
			}
		}
		p.Problems = append(p.Problems, at)
	}
	slices.SortFunc(p.Problems, func(a, b Position) int { return strings.Compare(a.Job, b.Job) })
	return p
}

// within moves a position from where a definition begins to where it says what a topic is not.
func (p *Position) within(definition []byte, differs bus.ConflictError) {
	if line, column, source := spec.TopicAt(definition, differs.Topic, differs.Field); line > 0 {
		p.Line, p.Column, p.Source = p.Line+line-1, column, source
	}
}

// PositionOf is a problem of the loader as it is sent.
func PositionOf(p spec.Problem) Position {
	at := Position{File: p.File, Line: p.Line, Column: p.Column, Message: p.Msg, Hint: p.Hint, Source: p.Source}
	for _, a := range p.Also {
		at.Also = append(at.Also, Place{a.File, a.Line, a.Column, a.Msg, a.Source})
	}
	return at
}

// Problem is PositionOf undone.
func (p Position) Problem() spec.Problem {
	q := spec.Problem{File: p.File, Line: p.Line, Column: p.Column, Msg: p.Message, Hint: p.Hint, Source: p.Source}
	for _, a := range p.Also {
		q.Also = append(q.Also, spec.Place{File: a.File, Line: a.Line, Column: a.Column, Msg: a.Message, Source: a.Source})
	}
	return q
}
