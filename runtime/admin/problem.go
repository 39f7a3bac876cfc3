package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/sidestream-dev/sidestream/bus"
	"github.com/sidestream-dev/sidestream/jobs/spec"
	"github.com/sidestream-dev/sidestream/runtime"
	"github.com/sidestream-dev/sidestream/wal"
)

// Kind is what sort of thing went wrong: a Problem's type behind "urn:sidestream:".
type Kind string

const (
	KindBadRequest    Kind = "bad-request"              // what was asked makes no sense: 400, 404, 405, 413, 415, 422
	KindNotFound      Kind = "not-found"                // a job, topic or operation that is not there
	KindUnauthorized  Kind = "unauthorized"             // a token is missing, or wrong
	KindForbidden     Kind = "forbidden"                // not to be had this way
	KindBusy          Kind = "busy"                     // a limit is reached, or the process is stopping: try again
	KindStarting      Kind = "starting"                 // the process is starting: try again in a moment, which the Client does
	KindBadDefinition Kind = "bad-definition"           // Problems has each mistake
	KindRefused       Kind = "refused"                  // what was asked for contradicts what there is; nothing was changed
	KindChanged       Kind = "changed"                  // a job is not at the version that was asked for: 412
	KindUnsent        Kind = "unsent"                   // a job has outputs that were never sent
	KindTimeout       Kind = "timeout"                  // it did not come to an end in time
	KindDisk          Kind = "disk"                     // the disk or the log
	KindDamaged       Kind = "damaged"                  // a file cannot be read as it was written; nothing was changed
	KindInternal      Kind = "internal"                 // a bug of ours
	kindPrefix             = "urn:sidestream:"          //
	problemType            = "application/problem+json" // RFC 9457
)

// Problem is an error as it is sent (RFC 9457), and as the Client returns it.
type Problem struct {
	Type     string     `json:"type" doc:"urn:sidestream: and what sort of thing went wrong"`
	Title    string     `json:"title"`
	Status   int        `json:"status" doc:"HTTP's"`
	Detail   string     `json:"detail"`
	Problems []Position `json:"problems,omitempty" doc:"each mistake in a definition"`
	Missing  string     `json:"missing,omitempty" doc:"what sort of thing is not there: job, topic, savepoint or subscription"`
	Now      *Job       `json:"now,omitempty" doc:"the job as it is, where it is not at the version that was asked for and still there"`
	Near     string     `json:"did_you_mean,omitempty" doc:"what is there, and is called nearly so"`
}

// Position is one mistake in a definition, and where it is.
type Position struct {
	Job     string  `json:"job,omitempty"`
	File    string  `json:"file,omitempty"`
	Line    int     `json:"line,omitempty" doc:"from 1; none where the whole file is meant"`
	Column  int     `json:"column,omitempty" doc:"in characters, from 1"`
	Message string  `json:"message"`
	Hint    string  `json:"hint,omitempty" doc:"what to write instead"`
	Source  string  `json:"source,omitempty" doc:"the line"`
	Also    []Place `json:"also,omitempty" doc:"what else has a part in it"`
}

// Place is one more place that a mistake is about.
type Place struct {
	File    string `json:"file,omitempty" doc:"none where a job is not from a file"`
	Line    int    `json:"line,omitempty"`
	Column  int    `json:"column,omitempty"`
	Message string `json:"message"`
	Source  string `json:"source,omitempty"`
}

func (p *Problem) Error() string { return p.Detail }

// Kind returns what sort of problem it is.
func (p *Problem) Kind() Kind { return Kind(strings.TrimPrefix(p.Type, kindPrefix)) }

// GetStatus makes a Problem huma's StatusError.
func (p *Problem) GetStatus() int { return p.Status }

// ContentType says what a Problem is sent as.
func (p *Problem) ContentType(string) string { return problemType }

func problem(status int, kind Kind, format string, args ...any) *Problem {
	return &Problem{Type: kindPrefix + string(kind), Title: http.StatusText(status), Status: status, Detail: fmt.Sprintf(format, args...)}
}

// problemOf is the function of that name; of what is not there it says what is called nearly so.
func (s *Server) problemOf(err error) *Problem {
	p := problemOf(err)
	rt := s.runtime.Load()
	var gone *runtime.MissingError
	var match *runtime.MatchError
	switch {
	case p.Now != nil && rt != nil && errors.As(err, &match): // as it is, not only as the log has it
		now := jobOf(*match.Now, rt.Status().Jobs)
		now.Definition = p.Now.Definition
		p.Now = &now
	case errors.Is(err, runtime.ErrNoSubscription):
		p.Missing = "subscription"
	case errors.As(err, &gone) && rt != nil:
		p.Missing, p.Near = gone.What, spec.Nearest(gone.Name, namesOf(rt, gone.What))
		if p.Near != "" {
			p.Detail += "; did you mean " + p.Near + "?"
		}
	}
	return p
}

// namesOf are those of all there is of a sort.
func namesOf(rt *runtime.Runtime, what string) (names []string) {
	switch what {
	case "job":
		jobs, _ := rt.JobDefinitions() // none where the log has failed
		for _, j := range jobs {
			names = append(names, j.Name)
		}
	case "topic":
		for _, t := range rt.Status().Topics {
			if !t.Hidden {
				names = append(names, t.Name)
			}
		}
	case "savepoint":
		sps, _ := rt.Savepoints()
		for _, sp := range sps {
			names = append(names, sp.Name)
		}
	}
	return names
}

// problemOf puts what the runtime says into a Problem.
func problemOf(err error) *Problem {
	var p *Problem
	var offset *bus.OffsetError
	var phase *runtime.PhaseError
	var unsent *runtime.UnsentError
	var failed *wal.FailedError
	var match *runtime.MatchError
	switch {
	case errors.As(err, &p):
		return p
	case errors.As(err, &match):
		p := problem(http.StatusPreconditionFailed, KindChanged, "%v", match)
		if match.Now != nil {
			now := jobOf(*match.Now, nil)
			now.Definition = string(match.Now.Definition)
			p.Now = &now
		}
		return p
	case errors.Is(err, runtime.ErrNoTopic), errors.Is(err, runtime.ErrNoJob), errors.Is(err, runtime.ErrNoSavepoint), errors.Is(err, runtime.ErrNoSubscription), errors.As(err, &offset):
		return problem(http.StatusNotFound, KindNotFound, "%v", err)
	case errors.Is(err, runtime.ErrStarting):
		return problem(http.StatusServiceUnavailable, KindStarting, "the process is starting: its jobs cannot be changed yet; try again later")
	case errors.Is(err, runtime.ErrNotRunning):
		return problem(http.StatusServiceUnavailable, KindBusy, "the process is stopping; try again later")
	case errors.Is(err, runtime.ErrShadowsBusy):
		return problem(http.StatusServiceUnavailable, KindBusy, "%v", err)
	case errors.As(err, new(*runtime.BadSavepointError)):
		return problem(http.StatusConflict, KindDamaged, "%v", err)
	case errors.As(err, &phase), errors.Is(err, runtime.ErrSavepointExists):
		return problem(http.StatusConflict, KindRefused, "%v", err)
	case errors.As(err, &unsent):
		return problem(http.StatusConflict, KindUnsent, "%v", err)
	case errors.Is(err, context.DeadlineExceeded):
		return problem(http.StatusGatewayTimeout, KindTimeout, "%v", err)
	case errors.Is(err, context.Canceled):
		return problem(http.StatusConflict, KindTimeout, "%v", err)
	case errors.As(err, &failed), errors.Is(err, wal.ErrNoRoom):
		return problem(http.StatusInternalServerError, KindDisk, "%v", err)
	}
	return problem(http.StatusConflict, KindRefused, "%v", err) // the runtime says why
}

// ours turns huma's own errors, of parameters and bodies that do not fit, into Problems. It is a huma.Transformer.
func ours(_ huma.Context, _ string, v any) (any, error) {
	e, ok := v.(*huma.ErrorModel)
	if !ok {
		return v, nil
	}
	p := problem(e.Status, KindBadRequest, "%s", e.Detail)
	if e.Status >= http.StatusInternalServerError {
		p.Type = kindPrefix + string(KindInternal)
	}
	var texts []string
	if e.Detail != "validation failed" {
		texts = append(texts, e.Detail)
	}
	for _, d := range e.Errors {
		_, name, ok := strings.Cut(d.Location, ".")
		if !ok {
			name = d.Location
		}
		texts = append(texts, strings.TrimPrefix(name+": ", ": ")+inWords(d.Message))
	}
	if len(texts) > 0 {
		p.Detail = strings.Join(texts, "; ")
	}
	return p, nil
}

// bounds are huma's words for what is out of bounds, and ours.
var bounds = []struct{ theirs, before, behind string }{
	{"expected number <= ", "it is at most ", ""},
	{"expected number >= ", "it is at least ", ""},
	{"expected length <= ", "it has at most ", " characters"},
	{"expected length >= ", "it has at least ", " characters"},
	{"expected array length <= ", "it has at most ", " entries"},
	{"expected array length >= ", "it has at least ", " entries"},
}

// types are huma's words for what is of another type, and ours.
var types = map[string]string{
	"invalid integer":     "it is no whole number",
	"expected integer":    "it is no whole number",
	"invalid float":       "it is no number",
	"expected number":     "it is no number",
	"invalid boolean":     "it is neither true nor false",
	"expected boolean":    "it is neither true nor false",
	"expected string":     "it is no text",
	"expected array":      "it is no list",
	"expected object":     "it is no object",
	"unexpected property": "there is no such field",
}

// inWords says what huma says of a value.
func inWords(msg string) string {
	if is, ok := types[msg]; ok {
		return is
	}
	if name, ok := strings.CutPrefix(msg, "expected required property "); ok {
		return strings.TrimSuffix(name, " to be present") + " is missing"
	}
	for _, b := range bounds {
		if n, ok := strings.CutPrefix(msg, b.theirs); ok {
			if f, err := strconv.ParseFloat(n, 64); err == nil { // a million comes as 1e+06
				n = strconv.FormatFloat(f, 'f', -1, 64)
			}
			return b.before + n + b.behind
		}
	}
	return msg
}

// send answers with a problem.
func send(w http.ResponseWriter, p *Problem) {
	w.Header().Set("Content-Type", problemType)
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(p.Status)
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(p) // a client that has gone gets nothing
}
