package spec

import (
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/jobs/spec/expr"
)

// draft is a job while its document is checked. Nothing of the graph is made before all of it is right.
type draft struct {
	*document
	name        string
	parallelism int
	delivery    jobs.Delivery
	source      sourceDraft
	steps       []func(g *graph)
	rebalanced  *yaml.Node      // the step read last, where it was a rebalance
	places      []jobs.Place    // beside steps
	read        []*expr.Program // by the step in hand
	sourceNode  *yaml.Node      // its name
	sourceSaid  string
	ids         map[string]*yaml.Node
	scope       expr.Scope // behind the steps read so far
	fromSource  bool       // records still are as the source decoded them
	paths       [][]string // fields that are read of the source's records
	untimed     string     // why records have no event time; "" if they have one
	outputs     []*outputDraft
	topics      []jobs.Topic
	described   []*yaml.Node // names of the topics under topics
}

// graph is the job that is made of a draft.
type graph struct {
	job    *jobs.Job
	stream *jobs.Stream[Row]
	ends   map[*outputDraft][]end
}

// end is a stream that an output takes.
type end struct {
	stream *jobs.Stream[Row]
	key    *expr.Program // the output's, checked against this stream's records
}

// job checks the document and returns its job, or nil where something is wrong.
func (d *document) job() *jobs.Job {
	before := len(d.file.problems)
	b := d.block(d.root, "a job", jobFields)
	if d.root.Kind != yaml.MappingNode {
		return nil
	}
	w := &draft{document: d, parallelism: 1, fromSource: true, ids: map[string]*yaml.Node{}}
	w.head(b)
	if b.has("topics") {
		w.readTopics(b.get("topics"))
	}
	if b.has("outputs") {
		w.nameOutputs(b.get("outputs"))
	}
	w.scope.Value = expr.Any
	if b.has("source") {
		w.sourceNode, w.sourceSaid = b.at("source"), said(b.get("source"))
		w.readSource(b.get("source"))
	}
	for _, o := range w.outputs {
		w.readOutput(o, o.body)
	}
	if b.has("steps") {
		w.readSteps(b.get("steps"))
	}
	w.finish()
	if len(d.file.problems) > before {
		return nil
	}
	return w.build()
}

func (w *draft) head(b block) {
	if b.has("version") {
		w.whole(b.get("version"), "version", 1, 1)
	}
	if b.has("job") {
		if w.name = w.document.name(b.get("job"), "job"); w.name != "" {
			if first, ok := w.claim(w.named, w.name, b.get("job")); !ok {
				w.problemWith(earlier(first, notFromFile), b.get("job"), "", "there is a job %s already", w.name)
			}
		}
	}
	if b.has("parallelism") {
		w.parallelism = int(w.whole(b.get("parallelism"), "parallelism", 1, jobs.KeyGroups))
	}
	if b.has("delivery") && w.choice(b.get("delivery"), "delivery", []string{"at_least_once", "exactly_once"}) == "exactly_once" {
		w.delivery = jobs.ExactlyOnce
	}
}

// reads notes which fields of the source's records an expression reads.
func (w *draft) reads(p *expr.Program) {
	w.read = append(w.read, p)
	if p != nil && w.fromSource {
		w.paths = append(w.paths, p.Paths...)
	}
}

// value reads an expression over the records as they are here.
func (w *draft) value(n *yaml.Node, what string) *expr.Program {
	p := w.expression(n, what, w.scope)
	w.reads(p)
	return p
}

// place tells where a step stands, and what it reads.
func (w *draft) place(n *yaml.Node, read ...*expr.Program) jobs.Place {
	p := jobs.Place{File: w.file.name, Line: n.Line}
	var texts []string
	for _, e := range read {
		if e != nil {
			texts, p.Reads = append(texts, strings.TrimSpace(e.Src)), append(p.Reads, e.Paths...)
		}
	}
	p.Text = strings.Join(texts, ", ")
	return p
}

// said writes a node without its comments, quotes and places.
func said(n *yaml.Node) string {
	if n.Kind == yaml.ScalarNode {
		return n.ShortTag() + strconv.Quote(n.Value)
	}
	parts := []string{strconv.Itoa(int(n.Kind))}
	for _, c := range n.Content {
		parts = append(parts, said(c))
	}
	return "(" + strings.Join(parts, " ") + ")"
}

// valueOrFields reads an expression, or fields with one each; nil where something is wrong.
func (w *draft) valueOrFields(n *yaml.Node, what string) *result {
	if n.Kind != yaml.MappingNode {
		if p := w.value(n, what); p != nil {
			r := resultOf(p)
			if r.whole == nil {
				w.literalSecrets(n, r.names, r.parts)
			}
			return r
		}
		return nil
	}
	return w.fieldsOf(n, what)
}

func (w *draft) fieldsOf(n *yaml.Node, what string) *result {
	if n.Kind != yaml.MappingNode {
		w.problem(n, "write {name: EXPRESSION}", "%s: want fields, not %s", what, describe(n))
		return nil
	}
	entries := w.pairs(n, what)
	if len(n.Content) == 0 {
		w.problem(n, "", "%s: there is no field in it", what)
	}
	if len(entries) > expr.MaxLiteral {
		w.problem(n, "", "%s: more than %d fields", what, expr.MaxLiteral)
		return nil
	}
	r := &result{}
	for _, e := range entries {
		p := w.value(e.value, what+"."+clip(e.name.Value))
		w.literalSecrets(e.value, []string{e.name.Value}, []*expr.Program{p})
		r.names, r.parts = append(r.names, e.name.Value), append(r.parts, p)
	}
	if len(r.parts) == 0 || slices.Contains(r.parts, nil) {
		return nil
	}
	return r
}

// output returns the output called n, or says that there is none.
func (w *draft) output(n *yaml.Node, what string) *outputDraft {
	name, ok := w.text(n, what)
	if !ok {
		return nil
	}
	var names []string
	for _, o := range w.outputs {
		if o.name == name {
			return o
		}
		names = append(names, o.name)
	}
	w.problem(n, expr.DidYouMean(name, names), "%s: there is no output %s", what, name)
	return nil
}

// finish checks what can be told only when all blocks have been read.
func (w *draft) finish() {
	for _, o := range w.outputs {
		if o.name == "main" {
			w.writes(o)
		}
	}
	for _, o := range w.outputs {
		switch {
		case o.writers == 0 && !o.dead:
			w.problem(o.node, "write to it with side, late_to or on_error, or remove it", "nothing is written to the output %s", o.name)
		case o.writers == 0 && o.key != nil:
			w.problem(o.key, "", "the output %s takes dead letters only, which have no key", o.name)
		}
	}
}

// writes notes that the records as they are here go to an output. It returns the output's key for them.
func (w *draft) writes(o *outputDraft) {
	o.writers++
	if o.key == nil {
		o.keys = append(o.keys, nil)
		return
	}
	p := w.expression(o.key, "key", w.scope)
	w.reads(p)
	o.keys = append(o.keys, p)
}

// build makes the graph.
func (w *draft) build() *jobs.Job {
	g := &graph{job: jobs.New(w.name), ends: map[*outputDraft][]end{}}
	g.job.Parallelism, g.job.Delivery, g.job.Topics = w.parallelism, w.delivery, w.topics
	g.stream = jobs.Read(g.job, w.source.input(w.paths))
	g.job.Nodes[0].Place = w.place(w.sourceNode, w.source.time)
	g.job.Nodes[0].Place.Lines, g.job.Nodes[0].Place.Said = w.source.text, w.sourceSaid
	for i, step := range w.steps {
		before := len(g.job.Nodes)
		step(g)
		for _, n := range g.job.Nodes[before:] {
			n.Place = w.places[i]
		}
	}
	for _, o := range w.outputs {
		if o.name == "main" {
			g.end(o, g.stream)
		}
	}
	for _, o := range w.outputs {
		before := len(g.job.Nodes)
		o.build(g)
		for _, n := range g.job.Nodes[before:] {
			n.Place.Said = said(o.body)
		}
	}
	g.job.Definition = w.definition()
	if err := g.job.Check(); err != nil {
		w.problem(w.root, "", "%v", err)
		return nil
	}
	w.uses()
	w.loader.beholds(g.job)
	return g.job
}

// end notes that a stream goes to an output.
func (g *graph) end(o *outputDraft, s *jobs.Stream[Row]) {
	g.ends[o] = append(g.ends[o], end{s, o.keys[len(g.ends[o])]})
}
