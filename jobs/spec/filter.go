package spec

import (
	"errors"
	"fmt"

	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/jobs/spec/expr"
	"github.com/sidestream-dev/sidestream/jobs/spec/value"
)

// NewFilter makes a condition, as a filter step has it, of records outside a job: their values are JSON, and their keys as the
// bus has them. One goroutine uses it.
func NewFilter(src string) (func(m *jobs.Message) (bool, error), error) {
	p, problems := expr.Compile(src, expr.Scope{Value: expr.Any, Key: expr.Any})
	if len(problems) > 0 {
		var errs []error
		for _, q := range problems {
			errs = append(errs, fmt.Errorf("at character %d: %s", q.Pos+1, q.Msg))
		}
		return nil, errors.Join(errs...)
	}
	paths := p.Paths
	if p.Whole {
		paths = nil
	}
	e, dec, f := newEnv(), value.NewDecoder(paths), p.New()
	var r rec
	e.Rec = &r
	return func(m *jobs.Message) (keep bool, err error) {
		e.Arena = &value.Arena{}
		r = rec{Time: m.Time, Headers: m.Headers, Key: jobs.Key{Bytes: m.Key}}
		if r.Value, err = dec.Decode(m.Value, e.Arena); err != nil {
			return false, err
		}
		return f.Bool(e)
	}, nil
}
