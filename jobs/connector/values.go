package connector

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sidestream-dev/sidestream/jobs"
)

// Values are the settings of one connector, checked: each field that was given or has a default, with the Go type of its
// kind. Asking for one that is absent gives the zero value; asking with the wrong type is our own bug and panics.
type Values map[string]any

// Has reports whether the setting was given or has a default.
func (v Values) Has(name string) bool { _, ok := v[name]; return ok }

// String returns a String or Enum setting.
func (v Values) String(name string) string { return get[string](v, name) }

// Int returns an Int or Bytes setting.
func (v Values) Int(name string) int64 { return get[int64](v, name) }

// Bool returns a Bool setting.
func (v Values) Bool(name string) bool { return get[bool](v, name) }

// Duration returns a Duration setting.
func (v Values) Duration(name string) time.Duration { return get[time.Duration](v, name) }

// Secret returns a Secret setting.
func (v Values) Secret(name string) jobs.Secret { return get[jobs.Secret](v, name) }

// List returns a List setting.
func (v Values) List(name string) []string { return get[[]string](v, name) }

func get[T any](v Values, name string) T {
	var zero T
	x, ok := v[name]
	if !ok {
		return zero
	}
	return x.(T)
}

// FieldError names the setting that is wrong. Field is empty where none is at fault alone.
type FieldError struct {
	Field string
	Msg   string
	Hint  string // what to write instead; may be empty
}

func (e *FieldError) Error() string {
	s := e.Msg
	if e.Field != "" {
		s = e.Field + ": " + s
	}
	if e.Hint != "" {
		s += " (" + e.Hint + ")"
	}
	return s
}

// FieldErrors returns every *FieldError in err, which may be joined; an error of another kind becomes one without a field.
func FieldErrors(err error) []*FieldError {
	if err == nil {
		return nil
	}
	if j, ok := err.(interface{ Unwrap() []error }); ok {
		var out []*FieldError
		for _, e := range j.Unwrap() {
			out = append(out, FieldErrors(e)...)
		}
		return out
	}
	if fe, ok := errors.AsType[*FieldError](err); ok {
		return []*FieldError{fe}
	}
	return []*FieldError{{Msg: err.Error()}}
}

// Complete checks given against fields and adds the defaults. A given value has the Go type of its field's kind, or is
// the text of it, which is parsed; an int stands for an int64. Names that no field has are reported too.
func Complete(fields []Field, given map[string]any) (Values, []*FieldError) {
	v := Values{}
	var errs []*FieldError
	names := make([]string, len(fields))
	for i, f := range fields {
		names[i] = f.Name
		x, ok := given[f.Name]
		switch {
		case !ok && f.Required:
			errs = append(errs, &FieldError{Field: f.Name, Msg: "is required"})
			continue
		case !ok && f.Default == "":
			continue
		case !ok:
			x = f.Default
		}
		val, err := f.convert(x)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		v[f.Name] = val
	}
	for name := range given {
		if !slices.Contains(names, name) {
			errs = append(errs, &FieldError{Field: name, Msg: "is not a setting", Hint: "known are " + strings.Join(names, ", ")})
		}
	}
	slices.SortStableFunc(errs, func(a, b *FieldError) int { return strings.Compare(a.Field, b.Field) })
	return v, errs
}

func (f Field) convert(x any) (any, *FieldError) {
	if f.Kind == Secret { // what is given in its place may be the secret itself, and is not shown
		if s, ok := x.(jobs.Secret); ok && !s.IsZero() {
			return s, nil
		}
		return nil, f.literal()
	}
	switch x := x.(type) {
	case string:
		return f.Parse(x)
	case int:
		return f.convert(int64(x))
	case int64:
		if f.Kind == Int || f.Kind == Bytes {
			return f.Parse(strconv.FormatInt(x, 10)) // for its checks
		}
	case bool:
		if f.Kind == Bool {
			return x, nil
		}
	case time.Duration:
		if f.Kind == Duration {
			return f.Parse(x.String())
		}
	case []string:
		if f.Kind == List {
			return x, nil
		}
	}
	return nil, &FieldError{Field: f.Name, Msg: fmt.Sprintf("want %s, not %v", f.Kind.describe(), x)}
}

func (f Field) literal() *FieldError {
	return &FieldError{Field: f.Name, Msg: "want a reference to the secret, not the secret itself", Hint: "write ${file:PATH}, or ${env:NAME}"}
}

func (k FieldKind) describe() string {
	switch k {
	case Duration:
		return "a duration such as 250ms, 5s or 1h30m"
	case Bytes:
		return "a size such as 4096, 64KiB or 1MB"
	case List:
		return "a list of strings"
	case Int:
		return "a whole number, 0 or more"
	case Bool:
		return "true or false"
	}
	return "a string"
}

// Parse turns the text of a setting into a value of the field's kind. A list's text is one element, or several with commas
// between them.
func (f Field) Parse(text string) (any, *FieldError) {
	said := text // what a message shows of it
	if len(said) > 60 {
		said = strings.ToValidUTF8(said[:60], "") + "…"
	}
	bad := &FieldError{Field: f.Name, Msg: fmt.Sprintf("want %s, not %q", f.Kind.describe(), said)}
	switch f.Kind {
	case String:
		return text, nil
	case Enum:
		if !slices.Contains(f.Enum, text) {
			return nil, &FieldError{Field: f.Name, Msg: fmt.Sprintf("%q is not one of %s", said, strings.Join(f.Enum, ", "))}
		}
		return text, nil
	case Secret:
		return nil, f.literal()
	case Int:
		if n, err := strconv.ParseInt(strings.ReplaceAll(text, "_", ""), 10, 64); err == nil && n >= 0 {
			return n, nil
		}
	case Bool:
		if text == "true" || text == "false" {
			return text == "true", nil
		}
	case Duration:
		if d, err := time.ParseDuration(text); err == nil && d >= 0 {
			return d, nil
		}
	case Bytes:
		if n, ok := ParseBytes(text); ok {
			return n, nil
		}
	case List:
		parts := strings.Split(text, ",")
		for i := range parts {
			parts[i] = strings.TrimSpace(parts[i])
		}
		return parts, nil
	}
	return nil, bad
}

// ParseBytes reads a size: a whole number, with a unit such as MiB or GB if it is not bytes.
func ParseBytes(text string) (int64, bool) {
	units := []struct {
		suffix string
		n      int64
	}{
		{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40},
		{"kB", 1e3}, {"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12}, {"B", 1},
	}
	num, unit := text, int64(1)
	for _, u := range units {
		if rest, ok := strings.CutSuffix(text, u.suffix); ok {
			num, unit = strings.TrimSpace(rest), u.n
			break
		}
	}
	n, err := strconv.ParseInt(strings.ReplaceAll(num, "_", ""), 10, 64)
	if err != nil || n < 0 || n > (1<<62)/unit {
		return 0, false
	}
	return n * unit, true
}
