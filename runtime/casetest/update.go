package casetest

import (
	"slices"

	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/jobs/spec"
	"github.com/sidestream-dev/sidestream/jobs/spec/value"
)

// Updates returns what the case would have to expect so that it passes. A job that failed, or did not, is none of it.
func (r *Result) Updates() (out []spec.Update) {
	for i := range r.Outputs {
		o := &r.Outputs[i]
		if o.Passed() {
			continue
		}
		u := spec.Update{Output: o.Expected}
		asked := aspects(o.Expected)
		for _, p := range o.pairs {
			switch {
			case p.ok():
				u.Records = append(u.Records, spec.Replacement{Keep: p.Want})
			case p.Got != nil:
				u.Records = append(u.Records, spec.Replacement{New: expect(p.Want, p.Got, asked)})
			}
		}
		out = append(out, u)
	}
	return out
}

// expect returns a record that came as one that is expected: of what the case speaks of.
func expect(want *spec.ExpectedRecord, got *Output, asked shownOf) (r spec.ExpectedRecord) {
	if want != nil {
		asked = aspects(&spec.Expected{Records: []spec.ExpectedRecord{*want}})
	}
	text := string(got.Message.Value)
	_, err := value.Parse(got.Message.Value, nil)
	switch {
	case err != nil || want != nil && want.Text != nil:
		r.Text = &text
	case want != nil && want.Has != nil:
		r.Has = part(parse(want.Has), valueOf(got))
	case want == nil || want.Value != nil:
		r.Value = got.Message.Value
	}
	if asked.key {
		r.Key = encoded(keyOf(got))
	}
	if asked.time && got.Message.Time != jobs.NoTime {
		r.Time = &got.Message.Time
	}
	if len(asked.headers) > 0 {
		r.Headers = headersOf(got.Message, asked.headers)
	}
	return r
}

// part returns those fields of a value that are wanted of it.
func part(want, got value.Value) []byte {
	if !isObject(want) || !isObject(got) {
		return encoded(got)
	}
	b := []byte{'{'}
	want.Fields(nil, func(name string, w value.Value) bool {
		if got.Has(name) {
			if len(b) > 1 {
				b = append(b, ',')
			}
			b = append(value.AppendString(b, name), ':')
			b = append(b, part(w, got.Member(name, nil))...)
		}
		return true
	})
	return append(b, '}')
}

func encoded(v value.Value) []byte { return slices.Clip([]byte(text(v))) }
