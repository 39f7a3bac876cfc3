package spec

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/jobs/spec/expr"
	"github.com/sidestream-dev/sidestream/jobs/spec/value"
)

// maxLinesBytes is how large a file of records may be.
const maxLinesBytes = 64 << 20

var suiteFields = []Field{
	{Name: "version", Shape: Whole, Required: true, Doc: "The version of the language of cases: 1."},
	{Name: "jobs", Shape: Other, Doc: "The files of the jobs that are run together, relative to this one; without it NAME.yaml beside NAME.test.yaml."},
	{Name: "env", Shape: Other, Doc: "What ${env:NAME} is in the definitions; the environment itself is not read."},
	{Name: "cases", Shape: Other, Required: true, Doc: "The cases."},
}

var caseFields = []Field{
	{Name: "name", Shape: Name, Required: true, Doc: "What the case shows."},
	{Name: "input", Shape: Other, Required: true, Doc: "What comes to the sources, in order: records, and what moves event time."},
	{Name: "end", Shape: Other, Doc: "Whether the input ends behind the last record, which makes every window fire; true if not given."},
	{Name: "parallelism", Shape: Whole, Doc: "The jobs' parallelism in this case; their own if not given."},
	{Name: "fails", Shape: Other, Doc: "A part of the error that a job must fail with."},
	{Name: "output", Shape: Other, Doc: "What outputs are to be given, by name, or JOB/NAME of several jobs; an output that is not named is not looked at."},
}

var momentFields = []Field{
	{Name: "value", Shape: Other, Doc: "The record, as JSON."},
	{Name: "text", Shape: Other, Doc: "The record as bytes, also such as are no JSON."},
	{Name: "from_file", Shape: Other, Doc: "A file of JSON lines, each the value of a record, relative to this one."},
	{Name: "key", Shape: Other, Doc: "The record's key."},
	{Name: "time", Shape: Other, Doc: "The time that the record has outside its value, RFC 3339 or milliseconds."},
	{Name: "headers", Shape: Other, Doc: "The record's headers."},
	{Name: "topic", Shape: Other, Doc: "The topic, or the file, that the record comes from."},
	{Name: "partition", Shape: Other, Doc: "The partition, 0 if not given."},
	{Name: "watermark", Shape: Other, Doc: "No record up to this time comes any more from the partition, or from any."},
	{Name: "idle", Shape: Other, Doc: "true: the partition, or all, hold no event time back until their next record."},
	{Name: "to", Shape: Name, Doc: "The job whose source it comes to, where there are several."},
}

var recordFields = []Field{
	{Name: "value", Shape: Other, Doc: "The whole value, as JSON."},
	{Name: "has", Shape: Other, Doc: "What the value has at least: fields that are not named may be there too."},
	{Name: "text", Shape: Other, Doc: "The value as bytes."},
	{Name: "from_file", Shape: Other, Doc: "A file of JSON lines, each the value of a record, relative to this one."},
	{Name: "key", Shape: Other, Doc: "The key."},
	{Name: "time", Shape: Other, Doc: "The event time, RFC 3339 or milliseconds."},
	{Name: "headers", Shape: Other, Doc: "Headers that are there, maybe among others."},
}

var orderFields = []Field{
	{Name: "any_order", Shape: Other, Doc: "Just these records, in any order."},
	{Name: "contains", Shape: Other, Doc: "These records, and maybe others."},
}

func (s *suite) readCase(n *yaml.Node, names map[string]int) {
	b := s.block(n, "a case", caseFields)
	if n.Kind != yaml.MappingNode {
		return
	}
	c := &Case{File: s.file.name, Line: n.Line, Jobs: s.jobs, End: true}
	if b.has("name") {
		name := b.get("name")
		c.Line = name.Line
		if c.Name, _ = s.word(name, "name"); c.Name != "" {
			c.Name = oneLine(c.Name)
			if first, twice := names[c.Name]; twice {
				s.problem(name, "", "there is a case %q already, in line %d", c.Name, first)
			}
			names[c.Name] = name.Line
		}
	}
	if b.has("parallelism") {
		s.widen(c, b.get("parallelism"))
	}
	if b.has("end") {
		c.End = s.flag(b.get("end"), "end")
	}
	if b.has("fails") {
		c.Fails, _ = s.word(b.get("fails"), "fails")
	}
	if b.has("input") {
		s.readInput(c, b.get("input"))
	}
	switch {
	case b.has("output"):
		s.readOutputs(c, b.get("output"))
	case !b.has("fails"):
		s.problem(n, "give output, or fails", "a case: it does not say what is to come out")
	}
	s.cases = append(s.cases, c)
}

// widen gives the case's jobs another parallelism.
func (s *suite) widen(c *Case, n *yaml.Node) {
	w, err := strconv.Atoi(n.Value)
	if n.Kind != yaml.ScalarNode || err != nil || w < 1 || w > jobs.KeyGroups {
		s.problem(n, "", "parallelism: want a whole number from 1 to %d, not %s", jobs.KeyGroups, describe(n))
		return
	}
	c.Jobs = nil
	for _, j := range s.jobs {
		wide := *j
		wide.Parallelism = w
		c.Jobs = append(c.Jobs, &wide)
	}
}

func (s *suite) readInput(c *Case, n *yaml.Node) {
	if n.Kind != yaml.SequenceNode {
		s.problem(n, "begin each record with -; write [] for none", "input: want a list, not %s", describe(n))
		return
	}
	for _, m := range n.Content {
		s.readMoment(c, m)
	}
}

func (s *suite) readMoment(c *Case, n *yaml.Node) {
	if n.Kind != yaml.MappingNode {
		s.problem(n, "write - value: …, or {watermark: TIME} or {idle: true}", "input: want a record, not %s", describe(n))
		return
	}
	b := s.block(n, "a record", momentFields)
	kinds := b.which([]string{"value", "text", "from_file", "watermark", "idle"})
	if len(kinds) != 1 {
		if len(b.fields)*2 == len(n.Content) {
			s.problem(n, "", "a record: want one of value, text, from_file, watermark and idle, not %s", listOf(kinds))
		}
		return
	}
	m := Moment{Line: n.Line, Message: jobs.Message{Time: jobs.NoTime}}
	j := s.target(b, n)
	if j == nil {
		return
	}
	m.Job = j.Name
	kind := kinds[0]
	if !s.common(&m, b, j, kind == "watermark" || kind == "idle") {
		return
	}
	switch at := b.get(kind); kind {
	case "watermark":
		t, ok := s.moment(at, "watermark")
		if !ok {
			return
		}
		m.Kind, m.Watermark = MomentWatermark, jobs.Watermark(t)
	case "idle":
		if m.Kind = MomentIdle; !s.flag(at, "idle") {
			s.problem(at, "leave it out", "idle: want true; the next record ends it")
		}
	case "text":
		text, ok := s.text(at, "text")
		if !ok {
			return
		}
		m.Message.Value = []byte(text)
	case "value":
		v, ok := s.json(at, "value")
		if !ok {
			return
		}
		if str, is := asString(v); is && sourceOf(j).Text {
			v = []byte(str)
		}
		m.Message.Value = v
	case "from_file":
		for _, v := range s.fromFile(at) {
			m.Message.Value = v
			c.Input = append(c.Input, m)
		}
		return
	}
	c.Input = append(c.Input, m)
}

// text reads a scalar whole, which may be empty.
func (s *suite) text(n *yaml.Node, what string) (string, bool) {
	if n.Kind != yaml.ScalarNode {
		s.problem(n, "put it in quotes", "%s: want text, not %s", what, describe(n))
		return "", false
	}
	return n.Value, true
}

// target returns the job that a moment is for, or nil.
func (s *suite) target(b block, n *yaml.Node) *jobs.Job {
	open := s.jobNames(s.takes)
	if b.has("to") {
		at := b.get("to")
		name, ok := s.word(at, "to")
		if !ok {
			return nil
		}
		j := s.job(at, name)
		if j != nil && !s.takes(j) {
			s.problem(at, "give the records to that job", "another job here writes what %s reads", name)
			return nil
		}
		return j
	}
	if len(open) != 1 {
		s.problem(n, "write to: JOB", "a record: which job's source does it come to, %s?", strings.Join(open, " or "))
		return nil
	}
	return s.job(n, open[0])
}

// common reads what stands beside the kind of a moment.
func (s *suite) common(m *Moment, b block, j *jobs.Job, noRecord bool) (ok bool) {
	before := len(s.file.problems)
	src := sourceOf(j)
	if noRecord {
		for _, name := range b.which([]string{"key", "time", "headers", "topic"}) {
			s.problem(b.at(name), "remove it", "%s belongs to a record", name)
		}
		m.Partition = -1
	}
	if b.has("partition") {
		n := b.get("partition")
		p, err := strconv.Atoi(n.Value)
		if n.Kind != yaml.ScalarNode || err != nil || p < 0 || p >= 1<<20 {
			s.problem(n, "", "partition: want a whole number, 0 or more, not %s", describe(n))
		}
		m.Partition = p
	}
	if b.has("key") {
		if k, good := s.json(b.get("key"), "key"); good {
			m.Message.Key = s.key(b.get("key"), k, src.Bus)
		}
	}
	if b.has("time") {
		if t, good := s.moment(b.get("time"), "time"); good {
			m.Message.Time = t
		}
	}
	if b.has("topic") {
		if m.Topic, _ = s.word(b.get("topic"), "topic"); src.Bus {
			s.problem(b.at("topic"), "remove it", "the job reads the topic of its definition, and no other")
		}
	}
	if b.has("headers") {
		for _, e := range s.pairs(b.get("headers"), "headers") {
			if v, good := s.text(e.value, "headers."+e.name.Value); good {
				m.Message.Headers = append(m.Message.Headers, jobs.Header{Name: e.name.Value, Value: []byte(v)})
			}
		}
	}
	return len(s.file.problems) == before
}

// key returns a key as the source's records have it.
func (s *suite) key(n *yaml.Node, b []byte, onBus bool) []byte {
	v, err := value.Parse(b, nil)
	if err != nil || v.IsNil() {
		s.problem(n, "leave it out for none", "key: it cannot be null")
		return nil
	}
	k, err := value.AppendKey(nil, v)
	if err != nil {
		s.problem(n, "", "key: %v", err)
		return nil
	}
	if !onBus {
		k = value.KeyText(nil, k)
	}
	return k
}

// sourceIs is what cases must know of a job's source.
type sourceIs struct {
	Bus  bool
	Text bool // records are strings
}

func sourceOf(j *jobs.Job) sourceIs {
	for _, n := range j.Nodes {
		if n.Source != nil {
			return sourceIs{Bus: n.Source.Source == nil, Text: n.Place.Lines}
		}
	}
	return sourceIs{}
}

func asString(b []byte) (string, bool) {
	v, err := value.Parse(b, nil)
	if err != nil || v.Kind() != value.String {
		return "", false
	}
	return v.Text(), true
}

// fromFile reads the values of a file of JSON lines.
func (s *suite) fromFile(n *yaml.Node) [][]byte {
	name, ok := s.word(n, "from_file")
	if !ok {
		return nil
	}
	if !filepath.IsAbs(name) {
		name = filepath.Join(filepath.Dir(s.file.name), name)
	}
	info, err := os.Stat(name)
	switch {
	case err != nil:
		s.problem(n, "it is looked for beside this file", "from_file: there is no file %s", name)
		return nil
	case info.Size() > maxLinesBytes || !info.Mode().IsRegular():
		s.problem(n, "", "from_file: %s is no file of at most %d MiB", name, maxLinesBytes>>20)
		return nil
	}
	content, err := os.ReadFile(name)
	if err != nil {
		s.problem(n, "", "from_file: %v", err)
		return nil
	}
	values, bad, err := jsonLines(content)
	if err != nil {
		s.problem(n, "", "from_file: %s:%d: %v", name, bad, err)
	}
	return values
}

func (s *suite) readOutputs(c *Case, n *yaml.Node) {
	for _, e := range s.pairs(n, "output") {
		x := Expected{Line: e.name.Line, Name: e.name.Value, file: s.file, name: e.name, inFlow: n.Style&yaml.FlowStyle != 0}
		if !s.outputNamed(&x, e.name) {
			continue
		}
		x.list = e.value
		if e.value.Kind == yaml.MappingNode {
			b := s.block(e.value, "output "+x.Name, orderFields)
			if given := b.which([]string{"any_order", "contains"}); len(given) != 1 {
				if len(b.fields)*2 == len(e.value.Content) {
					s.problem(e.value, "", "output %s: want a list, any_order or contains", x.Name)
				}
				continue
			} else if x.list, x.name = b.get(given[0]), b.at(given[0]); given[0] == "contains" {
				x.Order = Contains
			} else {
				x.Order = AnyOrder
			}
			x.inFlow = x.inFlow || e.value.Style&yaml.FlowStyle != 0
		}
		if x.list.Kind != yaml.SequenceNode {
			s.problem(x.list, "begin each record with -; write [] for none", "output %s: want a list, not %s", x.Name, describe(x.list))
			continue
		}
		for i, r := range x.list.Content {
			for _, want := range s.expected(r) {
				want.item = i
				x.Records = append(x.Records, want)
			}
		}
		c.Output = append(c.Output, x)
	}
}

// outputNamed finds the output that a name is of.
func (s *suite) outputNamed(x *Expected, n *yaml.Node) bool {
	var names []string
	for _, j := range s.jobs {
		for _, o := range j.Outputs() {
			name := j.Name + "/" + o.Output.Name
			if len(s.jobs) == 1 {
				name = o.Output.Name
			}
			if n.Value == name || n.Value == j.Name+"/"+o.Output.Name {
				x.Job, x.Output = j.Name, o.Output.Name
				return true
			}
			names = append(names, name)
		}
	}
	s.problem(n, expr.DidYouMean(n.Value, names), "there is no output %s", n.Value)
	return false
}

// expected reads one record, or those of a file.
func (s *suite) expected(n *yaml.Node) (out []ExpectedRecord) {
	if n.Kind != yaml.MappingNode {
		s.problem(n, "write - value: …, - has: … or - text: …", "output: want a record, not %s", describe(n))
		return nil
	}
	b := s.block(n, "a record", recordFields)
	if len(b.fields) == 0 && len(n.Content) == 0 {
		s.problem(n, "write - value: …, - has: … or - text: …", "output: the record says nothing")
		return nil
	}
	if kinds := b.which([]string{"value", "has", "text", "from_file"}); len(kinds) > 1 {
		s.problem(b.at(kinds[1]), "", "a record: it has both %s and %s", kinds[0], kinds[1])
		return nil
	}
	r := ExpectedRecord{Line: n.Line}
	if b.has("key") {
		r.Key, _ = s.json(b.get("key"), "key")
	}
	if b.has("time") {
		if t, ok := s.moment(b.get("time"), "time"); ok {
			r.Time = &t
		}
	}
	if b.has("headers") {
		r.Headers = map[string]string{}
		for _, e := range s.pairs(b.get("headers"), "headers") {
			r.Headers[e.name.Value], _ = s.text(e.value, "headers."+e.name.Value)
		}
	}
	switch {
	case b.has("value"):
		r.Value, _ = s.json(b.get("value"), "value")
	case b.has("has"):
		r.Has, _ = s.json(b.get("has"), "has")
	case b.has("text"):
		if t, ok := s.text(b.get("text"), "text"); ok {
			r.Text = &t
		}
	case b.has("from_file"):
		for _, v := range s.fromFile(b.get("from_file")) {
			r.Value, r.file = v, true
			out = append(out, r)
		}
		return out
	}
	return append(out, r)
}

func listOf(names []string) string {
	if len(names) == 0 {
		return "none of them"
	}
	return strings.Join(names, " and ")
}
