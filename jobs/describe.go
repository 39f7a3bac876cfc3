package jobs

import (
	"encoding"
	"fmt"
	"reflect"
	"slices"
)

// describeDepth bounds how far settings goes into a connector's fields.
const describeDepth = 8

// Describe returns a text that is the same for two graphs of the same shape: what a Go job has for a definition. Of a
// connector it tells the exported fields, which are its settings, or what its method String says where it has one; what it
// keeps in other fields is its own, and may change while the job runs.
func (j *Job) Describe() []byte {
	b := fmt.Appendf(nil, "job %s parallelism %d delivery %s\n", j.Name, max(1, j.Parallelism), j.Delivery)
	for _, n := range j.Nodes {
		b = fmt.Appendf(b, "%s %s parallelism %d", n.Kind, n.ID, j.Width(n))
		for _, e := range n.In {
			b = fmt.Appendf(b, " from %s.%d/%d", e.From.ID, e.Port, e.Mode)
		}
		switch {
		case n.Source != nil && n.Source.Source != nil:
			b = fmt.Appendf(b, " source %s ", n.Source.Source.Kind())
			b = connector(b, n.Source.Source)
		case n.Source != nil:
			b = fmt.Appendf(b, " topic %s", n.Source.Topic)
		case n.Output != nil && n.Output.Sink != nil:
			b = fmt.Appendf(b, " sink %s ", n.Output.Sink.Kind())
			b = connector(b, n.Output.Sink)
		case n.Output != nil:
			b = fmt.Appendf(b, " topic %s", n.Output.Topic)
		}
		b = append(b, '\n')
	}
	return b
}

func connector(b []byte, c any) []byte {
	if s, ok := c.(fmt.Stringer); ok {
		return append(b, s.String()...)
	}
	return settings(b, reflect.ValueOf(c), describeDepth)
}

// settings appends v as far as it is data: exported fields, and no functions, channels and addresses, which are others at
// each start. Of a secret it tells where it is from.
func settings(b []byte, v reflect.Value, depth int) []byte {
	if !v.IsValid() || depth == 0 {
		return append(b, '-')
	}
	// Not v.Interface() of whatever comes: it would read the whole of a struct, what is in use by a running job too.
	switch t := v.Type(); {
	case t == reflect.TypeFor[Secret]():
		return append(b, v.Interface().(Secret).Ref()...)
	case v.Kind() != reflect.Pointer && t.Implements(reflect.TypeFor[encoding.TextMarshaler]()):
		if text, err := v.Interface().(encoding.TextMarshaler).MarshalText(); err == nil {
			return append(b, text...)
		}
	}
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		return settings(b, v.Elem(), depth-1)
	case reflect.Struct:
		b = append(b, '{')
		for i := range v.NumField() {
			if f := v.Type().Field(i); f.IsExported() {
				b = settings(fmt.Appendf(b, "%s:", f.Name), v.Field(i), depth-1)
				b = append(b, ' ')
			}
		}
		return append(b, '}')
	case reflect.Slice, reflect.Array:
		b = append(b, '[')
		for i := range v.Len() {
			b = append(settings(b, v.Index(i), depth-1), ' ')
		}
		return append(b, ']')
	case reflect.Map:
		pairs := make([]string, 0, v.Len())
		for it := v.MapRange(); it.Next(); {
			k := append(settings(nil, it.Key(), depth-1), ':')
			pairs = append(pairs, string(settings(k, it.Value(), depth-1)))
		}
		slices.Sort(pairs)
		return fmt.Appendf(b, "map%v", pairs)
	case reflect.Func, reflect.Chan, reflect.UnsafePointer:
		if v.IsNil() {
			return append(b, '-')
		}
		return append(b, v.Type().String()...)
	case reflect.String:
		return fmt.Appendf(b, "%q", v.String())
	default:
		return fmt.Appendf(b, "%v", v)
	}
}
