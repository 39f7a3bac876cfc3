package spec

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"

	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/jobs/connector"
	"github.com/sidestream-dev/sidestream/jobs/spec/expr"
	"github.com/sidestream-dev/sidestream/jobs/spec/value"
)

// sourceDraft is a source, checked.
type sourceDraft struct {
	id             string
	kind           string         // the connector's name
	files          string         // the pattern of a file source's files, absolute
	given          map[string]any // its settings as they stand there
	broken         bool           // some of them are wrong, and missing in given
	source         jobs.Source    // nil for a topic on the bus
	topic          string
	at             *yaml.Node // of the topic's name
	start          jobs.BusStart
	parallelism    int
	text           bool // records are strings, not JSON
	time           *expr.Program
	unit           string
	outOfOrderness time.Duration
	idleAfter      time.Duration
	onError        jobs.OnError
}

func (w *draft) readSource(n *yaml.Node) {
	ends := []string{"bus"}
	table := append(slices.Clone(sourceFields), Field{Name: "bus", Shape: Other})
	for _, k := range w.cfg.Connectors.Sources {
		ends = append(ends, k.Name)
		table = append(table, Field{Name: k.Name, Shape: Other})
	}
	before := len(w.file.problems)
	b := w.block(n, "source", table)
	if n.Kind != yaml.MappingNode {
		return
	}
	given := b.which(ends)
	switch {
	case len(given) == 0 && len(w.file.problems) == before:
		w.problem(n, "name one of "+strings.Join(ends, ", "), "source: it does not say where records come from")
	case len(given) > 1:
		w.problem(b.at(given[1]), "another job can read the other and give to this one over the bus", "source: it names both %s and %s", given[0], given[1])
	case len(given) == 1 && given[0] == "bus":
		w.busSource(b)
	case len(given) == 1:
		w.outsideSource(b, given[0])
	}
	w.commonSource(b)
}

func (w *draft) commonSource(b block) {
	if b.has("id") {
		w.source.id = w.stepID(b.get("id"))
	}
	if b.has("parallelism") {
		w.source.parallelism = int(w.whole(b.get("parallelism"), "parallelism", 1, jobs.KeyGroups))
	}
	if b.has("on_error") {
		w.readOnError(b.get("on_error"))
	}
	if b.has("event_time") && !b.has("bus") {
		w.readEventTime(b.get("event_time"))
	}
}

func (w *draft) busSource(b block) {
	if b.has("event_time") {
		w.problem(b.at("event_time"), "remove it", "event_time is not for a bus source: value, key, time, headers and watermark come as they were given")
	}
	if b.has("decode") {
		switch s, ok := w.text(b.get("decode"), "decode"); {
		case ok && s == string(connector.Text):
			w.source.text, w.scope.Value = true, expr.String
		case ok:
			w.problem(b.get("decode"), "remove decode", "decode: of a bus source it is text, which takes records that are no JSON, such as dead letters, or left out, not %s", describe(b.get("decode")))
		}
	}
	w.scope.Key = expr.Any
	n := b.get("bus")
	if n.Kind == yaml.ScalarNode {
		w.source.topic, w.source.at = w.document.name(n, "bus"), n
		return
	}
	f := w.block(n, "source.bus", busSourceFields)
	if f.has("topic") {
		w.source.topic, w.source.at = w.document.name(f.get("topic"), "topic"), f.get("topic")
	}
	if f.has("idle_after") {
		w.source.idleAfter = w.duration(f.get("idle_after"), "idle_after")
	}
	if f.has("start") {
		if s, ok := w.text(f.get("start"), "start"); ok {
			if w.source.start, ok = busStart(s); !ok {
				w.problem(f.get("start"), "", "start: want earliest, latest, an offset, a time such as 2026-01-31T08:00:00Z or 2026-01-31, or -2h or -10d for so long before the job is added, not %s", describe(f.get("start")))
			}
		}
	}
}

// busStart reads where a new subscription begins; ok is false if s says nothing of the kind.
func busStart(s string) (start jobs.BusStart, ok bool) {
	if s == "earliest" || s == "beginning" {
		return start, true
	}
	if s == "latest" || s == "end" {
		return jobs.BusStart{Latest: true}, true
	}
	if at, err := strconv.ParseInt(strings.TrimPrefix(s, "offset:"), 10, 64); err == nil && at >= 0 {
		return jobs.BusStart{At: at, Exact: true}, true
	}
	if ago, back := strings.CutPrefix(s, "-"); back {
		d, ok := jobs.ParseAgo(ago)
		return jobs.BusStart{ByTime: true, Ago: d}, ok && d > 0
	}
	t, err := time.Parse(time.RFC3339Nano, s)
	if day, bad := time.Parse(time.DateOnly, s); bad == nil { // its beginning, in UTC
		t, err = day, nil
	}
	return jobs.BusStart{ByTime: true, Time: jobs.TimeOf(t)}, err == nil
}

func (w *draft) outsideSource(b block, name string) {
	kind, _ := w.cfg.Connectors.Source(name)
	given, ok := w.given(b.get(name), "source."+name, kind.Fields)
	w.source.kind, w.source.given, w.source.broken = name, given, !ok
	if !ok {
		return
	}
	vals, ok := w.complete(b.get(name), "source."+name, kind.Fields, given)
	if !ok {
		return
	}
	src, err := kind.New(vals, w.cfg.Place)
	if err != nil {
		w.settingErrors(b.get(name), "source."+name, err)
		return
	}
	w.source.source = src
	if name == "file" {
		w.source.files = absolute(w.cfg.Place.Path(vals.String("path")))
	}
	is := kind.Decodes(vals)
	if b.has("decode") {
		s := w.choice(b.get("decode"), "decode", []string{"json", "text"})
		if is != connector.AnyBytes && s != "" && s != string(is) {
			w.problem(b.get("decode"), "remove decode", "decode: the source's format makes its records %s already", is)
		}
		if is == connector.AnyBytes {
			is = connector.Encoding(s)
		}
	}
	switch {
	case is == connector.Text:
		w.source.text, w.scope.Value = true, expr.String
	case vals.Has("format") && vals["format"] == "csv":
		w.scope.Value = expr.Strings
	}
	if name == "file" && !b.has("event_time") {
		w.untimed = "the records of a file have no time of their own"
	}
}

func (w *draft) readOnError(n *yaml.Node) {
	if n.Kind == yaml.MappingNode {
		b := w.block(n, "on_error", []Field{{Name: "to", Shape: Name, Required: true, Doc: "write {to: OUTPUT}"}})
		if b.has("to") {
			if o := w.output(b.get("to"), "on_error"); o != nil {
				o.dead = true
				w.source.onError = jobs.OnError{Policy: jobs.ErrorTo, To: o.name}
			}
		}
		return
	}
	s, ok := w.text(n, "on_error")
	switch {
	case !ok || s == "fail":
	case s == "skip":
		w.source.onError.Policy = jobs.ErrorSkip
	default:
		w.problem(n, "", "on_error: want fail, skip or {to: OUTPUT}, not %s", describe(n))
	}
}

func (w *draft) readEventTime(n *yaml.Node) {
	b := w.block(n, "event_time", eventTimeFields)
	w.source.unit = "ms"
	if b.has("unit") {
		w.source.unit = w.choice(b.get("unit"), "unit", eventTimeFields[1].Choices)
	}
	if b.has("max_out_of_orderness") {
		w.source.outOfOrderness = w.duration(b.get("max_out_of_orderness"), "max_out_of_orderness")
	}
	if b.has("idle_after") {
		w.source.idleAfter = w.duration(b.get("idle_after"), "idle_after")
	}
	if b.has("from") {
		n := b.get("from")
		if w.source.time = w.value(n, "from"); w.source.time != nil && w.source.time.Type.Kinds&(expr.KNumber|expr.KString) == 0 {
			w.problem(n, "", "from: want a number or a time, this is %s", w.source.time.Type.Kinds)
		}
	}
}

// input returns the source for the graph. paths are the fields that anybody reads of its records.
func (s *sourceDraft) input(paths [][]string) jobs.Input[Row] {
	in := jobs.Input[Row]{
		ID: s.id, Source: s.source, Topic: s.topic, Start: s.start, Parallelism: s.parallelism, Encode: encodeRow,
		OutOfOrderness: s.outOfOrderness, IdleAfter: s.idleAfter, OnError: s.onError,
		Decode: func(*jobs.Env) func(*jobs.Message, *rec) error { return s.decoder(paths) },
	}
	if s.text {
		// The publisher's values are not the text of its records: they are decoded, whether or not they come from memory.
		in.Adopt = func(*jobs.Env) func(any) (func(int, *rec), bool) {
			return func(any) (func(int, *rec), bool) { return nil, false }
		}
	}
	return in
}

// csvErrorHeader is what the file source says of a record that is not what its header says.
const csvErrorHeader = "csv-error"

// decoder returns what a subtask makes records of messages with.
func (s *sourceDraft) decoder(paths [][]string) func(*jobs.Message, *rec) error {
	e, dec := newEnv(), value.NewDecoder(paths)
	at := func(*rec) error { return nil }
	if s.time != nil {
		at = s.timeOf(e)
	}
	if s.text {
		return func(m *jobs.Message, r *rec) (err error) {
			if r.Value, err = value.DecodeLine(m.Value); err != nil {
				return err
			}
			return at(r)
		}
	}
	return func(m *jobs.Message, r *rec) (err error) {
		mark := e.Arena.Mark()
		if r.Value, err = dec.Decode(m.Value, e.Arena); err == nil {
			err = at(r)
		} else if s.topic != "" {
			err = fmt.Errorf("%w (what is no JSON, such as a dead letter, is read with decode: text)", err)
		}
		if err != nil {
			e.Arena.Release(mark)
			for _, h := range m.Headers {
				if h.Name == csvErrorHeader {
					return errors.New("csv: " + string(h.Value))
				}
			}
		}
		return err
	}
}

var errNoTime = errors.New("event_time: it is nil")

// timeOf returns a function that sets a record's event time.
func (s *sourceDraft) timeOf(e *expr.Env) func(*rec) error {
	f := s.time.New()
	per := map[string]struct{ mul, div int64 }{"s": {1000, 1}, "ms": {1, 1}, "us": {1, 1000}, "ns": {1, 1_000_000}}[s.unit]
	return func(r *rec) error {
		e.Rec = r
		v, err := f.Value(e)
		if err != nil {
			return fmt.Errorf("event_time: %w", err)
		}
		var ms int64
		switch v.Kind() {
		case value.Int:
			i := v.Int()
			if i > math.MaxInt64/per.mul || i < math.MinInt64/per.mul {
				return fmt.Errorf("event_time: %w", value.ErrTime)
			}
			ms = floorDiv(i*per.mul, per.div)
		case value.Float:
			g := math.Floor(v.Float() * float64(per.mul) / float64(per.div))
			if math.Abs(g) > 1<<53 {
				return fmt.Errorf("event_time: %w", value.ErrTime)
			}
			ms = int64(g)
		case value.String:
			if ms, err = value.ParseTime(v.Text()); err != nil {
				return fmt.Errorf("event_time: %q is %w", v.Text()[:min(len(v.Text()), 40)], err)
			}
		case value.Nil:
			return errNoTime
		default:
			return fmt.Errorf("event_time: want a number or a time, not %s", v.Kind())
		}
		if !value.TimeInRange(ms) {
			return fmt.Errorf("event_time: %w", value.ErrTime)
		}
		r.Time = jobs.Time(ms)
		return nil
	}
}

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}
