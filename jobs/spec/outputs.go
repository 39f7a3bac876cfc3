package spec

import (
	"path/filepath"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"

	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/jobs/connector"
	"github.com/sidestream-dev/sidestream/jobs/spec/expr"
)

// outputDraft is an output, checked.
type outputDraft struct {
	name    string
	node    *yaml.Node // its name
	body    *yaml.Node
	sink    jobs.Sink // nil for a topic on the bus
	topic   string
	at      *yaml.Node      // of the topic's name
	text    bool            // the sink takes strings
	key     *yaml.Node      // an expression
	keys    []*expr.Program // key as checked for each writer
	writers int
	dead    bool // on_error writes to it
}

// nameOutputs reads which outputs there are.
func (w *draft) nameOutputs(n *yaml.Node) {
	entries := w.pairs(n, "outputs")
	if n.Kind == yaml.MappingNode && len(n.Content) == 0 {
		w.problem(n, "", "outputs: there is none")
	}
	for _, e := range entries {
		w.outputs = append(w.outputs, &outputDraft{name: e.name.Value, node: e.name, body: e.value})
		if err := jobs.CheckName(e.name.Value); err != nil {
			w.problem(e.name, "", "outputs: %v", err)
		}
	}
}

func (w *draft) readOutput(o *outputDraft, n *yaml.Node) {
	ends, table := []string{"bus"}, []Field{{Name: "bus", Shape: Other}}
	for _, k := range w.cfg.Connectors.Sinks {
		ends, table = append(ends, k.Name), append(table, Field{Name: k.Name, Shape: Other})
	}
	before := len(w.file.problems)
	b := w.block(n, "output "+o.name, table)
	if n.Kind != yaml.MappingNode {
		return
	}
	given := b.which(ends)
	switch {
	case len(given) == 0 && len(w.file.problems) == before:
		w.problem(n, "name one of "+strings.Join(ends, ", "), "output %s: it does not say where records go", o.name)
	case len(given) > 1:
		w.problem(b.at(given[1]), "write to two outputs", "output %s: it names both %s and %s", o.name, given[0], given[1])
	case len(given) == 1 && given[0] == "bus":
		w.busOutput(o, b.get("bus"))
	case len(given) == 1:
		w.outsideOutput(o, given[0], b.at(given[0]), b.get(given[0]))
	}
}

func (w *draft) busOutput(o *outputDraft, n *yaml.Node) {
	if n.Kind == yaml.ScalarNode {
		o.topic, o.at = w.document.name(n, "bus"), n
		return
	}
	b := w.block(n, "output "+o.name, busOutputFields)
	if b.has("topic") {
		o.topic, o.at = w.document.name(b.get("topic"), "topic"), b.get("topic")
	}
	if b.has("key") {
		o.key = b.get("key")
	}
	w.describeTopic(o.topic, b)
}

func (w *draft) outsideOutput(o *outputDraft, name string, at, n *yaml.Node) {
	kind, _ := w.cfg.Connectors.Sink(name)
	given, ok := w.given(n, "output "+o.name, kind.Fields)
	if !ok {
		return
	}
	if w.source.kind == name && w.source.broken {
		return // what the output would take from it is not known
	}
	if w.source.kind == name {
		given = kind.Inherited(given, w.source.given)
	}
	vals, ok := w.complete(n, "output "+o.name, kind.Fields, given)
	if !ok {
		return
	}
	sink, err := kind.New(vals, w.cfg.Place)
	if err != nil {
		w.settingErrors(n, "output "+o.name, err)
		return
	}
	o.sink, o.text = sink, kind.Encodes(vals) == connector.Text
	if w.delivery == jobs.ExactlyOnce {
		if err := sink.ExactlyOnce(); err != nil {
			w.problem(at, "use delivery: at_least_once, or another output", "output %s cannot be exactly_once: %v", o.name, err)
		}
	}
	if name == "file" {
		w.ownSource(o, n, w.cfg.Place.Path(vals.String("path")))
	}
	if x, ok := sink.(jobs.Exclusive); ok {
		where := at
		if i := settingNode(n, "path"); i != nil {
			where = i
		}
		if first, ok := w.claim(w.owned, x.Place(), where); !ok {
			w.problemWith(earlier(first, notFromFile), where, "it belongs to one output alone: name another", "output %s: another output writes the same %s", o.name, name)
		}
	}
}

// ownSource refuses a file that the job reads itself.
func (w *draft) ownSource(o *outputDraft, n *yaml.Node, path string) {
	abs := absolute(path)
	if i := settingNode(n, "path"); i != nil {
		n = i
	}
	if own, err := filepath.Match(w.source.files, abs); own || err == nil && abs == w.source.files {
		w.problem(n, "name another file, or a folder that the source does not read", "output %s: the job's own source reads this file", o.name)
	}
}

func absolute(path string) string {
	abs, err := filepath.Abs(path)
	if err != nil {
		return filepath.Clean(path)
	}
	return abs
}

// given reads the settings that stand at a connector; ok is false where something is wrong.
func (w *draft) given(n *yaml.Node, what string, fields []connector.Field) (given map[string]any, ok bool) {
	before := len(w.file.problems)
	given = map[string]any{}
	if !isEmpty(n) {
		table := make([]Field, len(fields))
		for i, f := range fields {
			table[i] = Field{Name: f.Name}
		}
		if n.Kind == yaml.ScalarNode {
			hint := "write {" + required(fields) + ": " + clip(n.Value) + "}"
			if required(fields) == "" {
				hint = "write {}"
			}
			w.problem(n, hint, "%s: want settings, not %s", what, describe(n))
			return nil, false
		}
		b := w.block(n, what, table)
		for _, f := range fields {
			if b.has(f.Name) {
				if x, ok := w.setting(b.get(f.Name), what+"."+f.Name, f); ok {
					given[f.Name] = x
				}
			}
		}
	}
	return given, len(w.file.problems) == before
}

// complete checks a connector's settings and adds the defaults; ok is false where something is wrong.
func (w *draft) complete(n *yaml.Node, what string, fields []connector.Field, given map[string]any) (v connector.Values, ok bool) {
	v, errs := connector.Complete(fields, given)
	for _, e := range errs {
		w.settingErrors(n, what, e)
	}
	return v, len(errs) == 0
}

func required(fields []connector.Field) string {
	for _, f := range fields {
		if f.Required && !f.Inherit {
			return f.Name
		}
	}
	return ""
}

// setting reads one setting of a connector.
func (w *draft) setting(n *yaml.Node, what string, f connector.Field) (any, bool) {
	if f.Kind == connector.Secret {
		return w.secret(n, what)
	}
	if f.Kind == connector.List && n.Kind == yaml.SequenceNode {
		list, ok := []string{}, true
		for _, e := range n.Content {
			s, good := w.text(e, what)
			list, ok = append(list, s), ok && good
		}
		return list, ok
	}
	s, ok := w.text(n, what)
	if !ok {
		return nil, false
	}
	if d, isDuration := ParseDuration(s); isDuration && f.Kind == connector.Duration {
		return d, true
	}
	return s, true
}

// settingErrors reports what a connector finds wrong, each at the setting's own place.
func (w *draft) settingErrors(n *yaml.Node, what string, err error) {
	for _, e := range connector.FieldErrors(err) {
		at, name := n, what
		if e.Field != "" {
			name += "." + e.Field
			if i := settingNode(n, e.Field); i != nil {
				at = i
			}
		}
		w.problem(at, e.Hint, "%s: %s", name, w.unprefixed(e.Msg))
	}
}

// unprefixed takes the connector's own name from the beginning of what it says, for the place says it already.
func (w *draft) unprefixed(msg string) string {
	for _, k := range w.cfg.Connectors.Sources {
		msg = strings.TrimPrefix(msg, k.Name+": ")
	}
	for _, k := range w.cfg.Connectors.Sinks {
		msg = strings.TrimPrefix(msg, k.Name+": ")
	}
	return msg
}

// settingNode returns the value of a field of a mapping, or nil.
func settingNode(n *yaml.Node, name string) *yaml.Node {
	if n.Kind == yaml.MappingNode {
		for i := 0; i+1 < len(n.Content); i += 2 {
			if n.Content[i].Value == name {
				return n.Content[i+1]
			}
		}
	}
	return nil
}

func (w *draft) readTopics(n *yaml.Node) {
	for _, e := range w.pairs(n, "topics") {
		if err := jobs.CheckName(e.name.Value); err != nil {
			w.problem(e.name, "", "topics: %v", err)
			continue
		}
		w.described = append(w.described, e.name)
		w.describeTopic(e.name.Value, w.block(e.value, "topic "+e.name.Value, topicFields))
	}
}

// describeTopic takes what a block says of a topic. A property that another place gives differently is an error.
func (w *draft) describeTopic(name string, b block) {
	t := jobs.Topic{Name: name}
	if b.has("partitions") {
		t.Partitions = int(w.whole(b.get("partitions"), "partitions", 1, jobs.KeyGroups))
	}
	if b.has("limit") {
		t.LimitBytes = w.bytes(b.get("limit"), "limit")
	}
	if b.has("on_full") {
		t.OnFull = w.choice(b.get("on_full"), "on_full", onFull)
	}
	if b.has("retention") {
		r := w.block(b.get("retention"), "retention", retentionFields)
		if r.has("max_bytes") {
			t.RetentionBytes = w.bytes(r.get("max_bytes"), "max_bytes")
		}
		if r.has("max_age") {
			t.RetentionAge = w.duration(r.get("max_age"), "max_age")
		}
	}
	if name == "" || t == (jobs.Topic{Name: name}) {
		return
	}
	if prop, first := w.meet(t, func(prop string) Problem { return w.file.at(b.at(prop)) }); prop != "" {
		w.problemWith(earlier(first, notFromFile), b.at(prop), "say it in one place", "the topic %s: %s is given differently elsewhere", name, prop)
		return
	}
	for i := range w.topics {
		if w.topics[i].Name == name {
			w.topics[i] = merged(w.topics[i], t)
			return
		}
	}
	w.topics = append(w.topics, t)
}

// TopicAt returns where a definition, which has no mistakes, gives a topic a property ("retention.max_age"): its line and its
// column, from 1, and the line. The line is 0 where it does not.
func TopicAt(definition []byte, topic, property string) (line, column int, source string) {
	var root yaml.Node
	if yaml.Unmarshal(definition, &root) != nil {
		return 0, 0, ""
	}
	var found *yaml.Node
	look := func(n *yaml.Node) {
		for _, name := range strings.Split(property, ".") {
			if n != nil {
				n = settingNode(n, name)
			}
		}
		if n != nil && found == nil {
			found = n
		}
	}
	var walk func(n *yaml.Node)
	walk = func(n *yaml.Node) {
		if to := settingNode(n, "bus"); to != nil { // other connectors have topics too
			if is := settingNode(to, "topic"); is != nil && is.Value == topic {
				look(to)
			}
		}
		for _, c := range n.Content {
			walk(c)
		}
	}
	for _, document := range root.Content {
		if all := settingNode(document, "topics"); all != nil {
			look(settingNode(all, topic))
		}
	}
	walk(&root)
	if found == nil {
		return 0, 0, ""
	}
	return found.Line, found.Column, strings.Split(string(definition), "\n")[found.Line-1]
}

// meet adds what is said of a topic to what has been said of it. Where the two differ it returns the property and where it
// was said first.
func (l *loader) meet(t jobs.Topic, at func(prop string) Problem) (differs string, first Problem) {
	all := l.topics[t.Name]
	if all.where == nil {
		all.where = map[string]Problem{}
	}
	for _, p := range []struct {
		name               string
		other, now, before bool
	}{
		{"partitions", all.topic.Partitions != t.Partitions, t.Partitions != 0, all.topic.Partitions != 0},
		{"retention", all.topic.RetentionBytes != t.RetentionBytes, t.RetentionBytes != 0, all.topic.RetentionBytes != 0},
		{"retention", all.topic.RetentionAge != t.RetentionAge, t.RetentionAge != 0, all.topic.RetentionAge != 0},
		{"limit", all.topic.LimitBytes != t.LimitBytes, t.LimitBytes != 0, all.topic.LimitBytes != 0},
		{"on_full", all.topic.OnFull != t.OnFull, t.OnFull != "", all.topic.OnFull != ""},
	} {
		if p.other && p.now && p.before {
			return p.name, all.where[p.name]
		}
		if p.now && !p.before {
			all.where[p.name] = at(p.name)
		}
	}
	all.topic = merged(all.topic, t)
	l.topics[t.Name] = all
	return "", Problem{}
}

func merged(a, b jobs.Topic) jobs.Topic {
	return jobs.Topic{Name: b.Name, Partitions: max(a.Partitions, b.Partitions), RetentionBytes: max(a.RetentionBytes, b.RetentionBytes),
		RetentionAge: max(a.RetentionAge, b.RetentionAge, time.Duration(0)), LimitBytes: max(a.LimitBytes, b.LimitBytes), OnFull: a.OnFull + strings.TrimPrefix(b.OnFull, a.OnFull)}
}

// build adds the output to the graph, behind all streams that go to it.
func (o *outputDraft) build(g *graph) {
	ends := g.ends[o]
	if len(ends) == 0 {
		jobs.DeadLetters(g.job, o.name, o.sink, o.topic)
		return
	}
	out := jobs.Output[Row]{Name: o.name, Sink: o.sink, Topic: o.topic, Encode: encodeRow, OutKey: jobs.AppendKeyText}
	if o.text {
		out.Encode = encodeText
	}
	if o.key != nil {
		key := ends[0].key // the same expression for all: a program does not depend on the types it was checked with
		out.Key = func(*jobs.Env) func(*rec) (jobs.Key, error) { return keyFunc(key) }
	}
	jobs.Write(ends[0].stream, out)
	node := g.job.Nodes[len(g.job.Nodes)-1]
	for _, e := range ends[1:] {
		node.In = append(node.In, e.stream.Edge())
	}
}
