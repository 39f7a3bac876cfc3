package runtime

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sidestream-dev/sidestream/jobs"
)

// Action is what becomes of a job.
type Action string

const (
	ActionAdd       Action = "add"
	ActionUpdate    Action = "update"
	ActionAdopt     Action = "adopt" // it is the same job, under another owner
	ActionUnchanged Action = "unchanged"
)

// Diff is what a definition changes of a job.
type Diff struct {
	Job       string      `json:"job"`
	Action    Action      `json:"action"`
	Steps     []StepDiff  `json:"steps,omitempty"`
	StateLoss []StateLoss `json:"state_loss,omitempty"` // what it would drop: AllowStateLoss is needed
	GivenUp   []string    `json:"given_up,omitempty"`   // places in what the job reads, and outputs: when it comes back it begins anew
	// Unsent is what outputs that are given up have yet to send, in records by output, and Dropped what of it is dropped: that is
	// gone for good, also where the old definition comes back.
	Unsent  map[string]int64 `json:"unsent,omitempty"`
	Dropped map[string]int64 `json:"dropped,omitempty"`
	// GaveUpAt is when the job's last change gave up outputs of which Unsent, or Dropped, has records too.
	GaveUpAt time.Time `json:"gave_up_at,omitzero"`
	// NoWayBack says why the old definition could not go on where the new one fails; "" where it can.
	NoWayBack string    `json:"no_way_back,omitempty"`
	Needs     []string  `json:"needs,omitempty"`          // options without which it is refused: "adopt", "allow_state_loss", "drop_unsent"
	Until     time.Time `json:"probation_until,omitzero"` // till when a failure brings the old definition back; of what was done
	Restarts  bool      `json:"restarts"`                 // it begins another attempt behind a last barrier
	Phase     JobPhase  `json:"phase,omitempty"`          // that it is in, if it is there
	Text      string    `json:"text,omitempty"`           // the definitions, line by line, as diff -u gives them
}

// StepDiff is a source, step or output that comes, goes or is another.
type StepDiff struct {
	Step   string `json:"step"`
	Change string `json:"change"` // "added", "removed", "changed"
}

// StateLoss is state that a change drops.
type StateLoss struct {
	Step  string `json:"step"`
	Table string `json:"table,omitempty"` // "" for all of the step's
	Why   string `json:"why"`
}

func (l StateLoss) String() string {
	if l.Table == "" {
		return fmt.Sprintf("the state of step %s (%s)", l.Step, l.Why)
	}
	return fmt.Sprintf("the state %s of step %s (%s)", l.Table, l.Step, l.Why)
}

// StateLossError refuses a change that would drop state.
type StateLossError struct {
	Job  string
	Loss []StateLoss
}

func (e *StateLossError) Error() string {
	var what []string
	for _, l := range e.Loss {
		what = append(what, l.String())
	}
	return fmt.Sprintf("job %s: this change would drop %s", e.Job, strings.Join(what, ", "))
}

// OriginError refuses a definition of a job that somebody else owns.
type OriginError struct {
	Job  string
	Have Origin
}

func (e *OriginError) Error() string {
	if e.Have == OriginFile {
		return fmt.Sprintf("job %s is defined by a file that the process was given", e.Job)
	}
	return fmt.Sprintf("job %s is the API's, by a definition that the data directory keeps", e.Job)
}

// lossOf compares what steps keep: what of the old is lost, and why there would be no way back from the new.
func lossOf(have, want []stepEntry) (loss []StateLoss, drops []dropEntry, noWayBack string) {
	for _, h := range have {
		w, ok := stepOf(want, h.ID)
		switch {
		case !ok:
			loss = append(loss, StateLoss{Step: h.ID, Why: "the step is gone, or keeps none"})
			drops = append(drops, dropEntry{Step: h.ID})
		case h.Key != w.Key && h.Key != "" && w.Key != "":
			loss = append(loss, StateLoss{Step: h.ID, Why: fmt.Sprintf("its keys are of type %s, and were %s", w.Key, h.Key)})
			drops = append(drops, dropEntry{Step: h.ID})
			if slices.ContainsFunc(h.Tables, func(t string) bool { return slices.Contains(w.Tables, t) }) {
				noWayBack = fmt.Sprintf("step %s will have keys of type %s in its state, which the old definition cannot read", h.ID, w.Key)
			}
		default:
			for _, t := range h.Tables {
				if !slices.Contains(w.Tables, t) {
					loss = append(loss, StateLoss{Step: h.ID, Table: t, Why: "nothing in the step reads it any more, or it has another type"})
					drops = append(drops, dropEntry{Step: h.ID, Table: t})
				}
			}
		}
	}
	return loss, drops, noWayBack
}

func stepOf(steps []stepEntry, id string) (stepEntry, bool) {
	i := slices.IndexFunc(steps, func(s stepEntry) bool { return s.ID == id })
	if i < 0 {
		return stepEntry{}, false
	}
	return steps[i], true
}

// diffOf says what a definition changes of a job. old is the job as it was built, nil where nobody has.
func diffOf(have *jobEntry, old *jobs.Job, d *definition) Diff {
	diff := Diff{Job: d.Name, Action: ActionAdd}
	if have == nil {
		return diff
	}
	diff.Phase = have.Phase
	same := bytes.Equal(have.Definition, d.text) && sameSteps(have.Steps, d.steps)
	switch {
	case same && have.Origin == d.origin && !(have.Phase == PhaseStopped && have.Reason == missingReason):
		diff.Action = ActionUnchanged
		return diff
	case same && have.Phase != PhaseStopped:
		diff.Action = ActionAdopt
		return diff
	}
	diff.Action, diff.Restarts = ActionUpdate, have.Phase == PhaseActive
	diff.Text = textDiff(have.Definition, d.text)
	if old != nil {
		diff.Steps = stepDiffs(old, d.Job)
		d.moved = movedSources(old, d.Job)
	}
	if have.Phase == PhaseEnded {
		return diff // what it kept went when it ended
	}
	diff.StateLoss, _, diff.NoWayBack = lossOf(have.Steps, d.steps)
	diff.GivenUp = givenUp(have, old, d)
	return diff
}

// givenUp names inputs and outputs that a definition has no more, or has of another place.
func givenUp(have *jobEntry, old *jobs.Job, d *definition) (out []string) {
	for _, in := range have.Inputs {
		n := d.Node(in.Step)
		was := ""
		if old != nil && old.Node(in.Step) != nil {
			was = old.Node(in.Step).Source.Topic
		}
		if n == nil || n.Source == nil || n.Source.Source != nil || was != "" && n.Source.Topic != was {
			out = append(out, "the place of source "+in.Step+" in its topic")
		}
	}
	for _, o := range have.Outputs {
		n := d.Node("out-" + o.Name)
		if o.Outside && (n == nil || n.Output.Sink == nil || o.Place != "" && placeOf(n.Output.Sink) != o.Place) {
			out = append(out, "output "+o.Name+" to "+o.Place)
		}
	}
	seen := map[string]bool{}
	for _, s := range have.header.Splits {
		if n := d.Node(s.Step); (n == nil || n.Source == nil || n.Source.Source == nil || d.moved[s.Step]) && !seen[s.Step] {
			seen[s.Step] = true
			out = append(out, "the positions of source "+s.Step)
		}
	}
	return out
}

// movedSources names the sources that read another outside than those of the same name did.
func movedSources(old, d *jobs.Job) map[string]bool {
	moved := map[string]bool{}
	for _, n := range d.Nodes {
		o := old.Node(n.ID)
		if o != nil && outside(n) && outside(o) && describe(o) != describe(n) {
			moved[n.ID] = true
		}
	}
	return moved
}

func outside(n *jobs.Node) bool { return n.Source != nil && n.Source.Source != nil }

// stepDiffs compares two graphs by the ids of their nodes.
func stepDiffs(old, d *jobs.Job) (out []StepDiff) {
	for _, n := range d.Nodes {
		switch o := old.Node(n.ID); {
		case o == nil:
			out = append(out, StepDiff{n.ID, "added"})
		case describe(o) != describe(n) || old.Width(o) != d.Width(n) || o.Place.Said != n.Place.Said:
			out = append(out, StepDiff{n.ID, "changed"})
		}
	}
	for _, o := range old.Nodes {
		if d.Node(o.ID) == nil {
			out = append(out, StepDiff{o.ID, "removed"})
		}
	}
	return out
}

// describe is a text that is the same for two nodes of one shape.
func describe(n *jobs.Node) string {
	j := jobs.Job{Nodes: []*jobs.Node{n}}
	_, line, _ := strings.Cut(string(j.Describe()), "\n")
	return line
}
