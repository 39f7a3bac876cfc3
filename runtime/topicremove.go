package runtime

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sidestream-dev/sidestream/bus"
	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/wal"
)

// A topic outlives those who write and read it until it is removed by hand. One frame removes it: with that it is gone from the
// bus, and the janitor, who alone touches files of the topic store, takes its own once the frame is durable; where the process dies
// in between, the next one finds files of a topic that the log does not have. A topic of the same name that is made later is another, with a number of its own
// and offsets from 0: a savepoint knows topics by their numbers, so that none of its places is taken for one there.

// TopicRemoval is what went with a topic, or would.
type TopicRemoval struct {
	Topic   string `json:"topic"`
	Records int64  `json:"records"` // that were still there
	Bytes   int64  `json:"bytes"`   // of them, about
	DryRun  bool   `json:"dry_run,omitempty"`
}

// TopicUse says what of a job, or of a run over what one has read, keeps a topic from being removed.
type TopicUse struct {
	Job  string // "" for a shadow run
	Uses string
}

// TopicInUseError refuses to remove a topic that somebody uses, or will when it goes on.
type TopicInUseError struct {
	Topic string
	By    []TopicUse
}

func (e *TopicInUseError) Error() string {
	var who []string
	jobs := false
	for _, u := range e.By {
		if u.Job == "" {
			who = append(who, u.Uses)
			continue
		}
		jobs = true
		who = append(who, fmt.Sprintf("job %s %s", u.Job, u.Uses))
	}
	todo := "wait until it is over"
	if jobs {
		todo = "remove what uses it, or change it so that it does not, first"
	}
	return fmt.Sprintf("topic %s is not removed: %s; %s", e.Topic, strings.Join(who, ", "), todo)
}

// RemoveTopic takes a topic away with all its records; it returns when that is durable. It is refused with a *TopicInUseError
// while the definition of any job names the topic, whether it runs or not, and while a shadow run reads it; what is on its way
// outside is no topic to be removed. A dry run says what would go.
func (rt *Runtime) RemoveTopic(ctx context.Context, topic string, dryRun bool) (res TopicRemoval, err error) {
	_, leave, err := rt.changes.enter(ctx, "remove", topicPrefix+topic)
	if err != nil {
		return res, err
	}
	defer leave()
	resting, unread, err := rt.restingDefinitions()
	if err != nil {
		return res, err
	}
	res = TopicRemoval{Topic: topic, DryRun: dryRun}
	said := wal.LSN(0)
	err = rt.do(func(c *core) error {
		id, ok := c.bus.TopicByName(topic)
		if !ok {
			return missing("topic", topic, ErrNoTopic)
		}
		if err := rt.shared(id); err != nil {
			return err
		}
		if by := rt.usesOf(c, id, topic, resting, unread); len(by) > 0 {
			return &TopicInUseError{topic, by}
		}
		for p := range c.bus.Partitions(id) {
			records, bytes := c.bus.Span(id, p, c.bus.First(id, p), c.bus.Next(id, p))
			res.Records, res.Bytes = res.Records+records, res.Bytes+bytes
		}
		if dryRun {
			return nil
		}
		said, err = c.change(&control{DropTopics: []bus.TopicID{id}}, nil)
		return err
	})
	if err != nil || dryRun {
		return res, err
	}
	if err := rt.log.WaitDurable(rt.ctx, said); err != nil {
		return res, err
	}
	rt.logger.Info("a topic is removed", "topic", topic, "records", res.Records)
	rt.tell(Event{Kind: EventTopicRemoved, Text: fmt.Sprintf("topic %s, with %d records", topic, res.Records)})
	return res, nil
}

// topicPrefix is before the name of a topic among what is being changed; no job is called so.
const topicPrefix = "topic "

// restingDefinitions makes what the log has of jobs that nobody gave a definition of into jobs again. Where that fails it is
// said why, for what such a job names nobody knows.
func (rt *Runtime) restingDefinitions() (out map[string]*jobs.Job, unread map[string]error, err error) {
	out, unread = map[string]*jobs.Job{}, map[string]error{}
	infos, err := rt.JobDefinitions()
	if err != nil || rt.cfg.Load == nil {
		return out, unread, err
	}
	for _, info := range infos {
		if rt.findJob(info.Name) != nil {
			continue
		}
		d, err := rt.cfg.Load(info.Definition, info.Origin)
		if err != nil {
			unread[info.Name] = err
			continue
		}
		out[info.Name] = d
	}
	return out, unread, nil
}

// usesOf says who uses a topic: by what the log says of jobs, and by their definitions, which name topics that a job was
// detached from, or only describes. It runs on the committer's goroutine.
func (rt *Runtime) usesOf(c *core, id bus.TopicID, topic string, resting map[string]*jobs.Job, unread map[string]error) (by []TopicUse) {
	for _, e := range c.ledger.sorted() {
		uses := e.usesOf(id, rt.now())
		def := resting[e.Name]
		if j := rt.findJob(e.Name); j != nil {
			def = j.def
		}
		if len(uses) == 0 && def != nil {
			uses = definitionUses(def, topic)
		}
		if err := unread[e.Name]; len(uses) == 0 && def == nil && err != nil {
			uses = []string{fmt.Sprintf("may use it, for its definition cannot be read (%s)", strings.SplitN(err.Error(), "\n", 2)[0])}
		}
		if len(uses) == 0 {
			continue
		}
		if e.Phase != PhaseActive {
			uses[len(uses)-1] += fmt.Sprintf(" (%s)", e.Phase)
		}
		by = append(by, TopicUse{e.Name, strings.Join(uses, " and ")})
	}
	if rt.shadows.reads(id) {
		by = append(by, TopicUse{Uses: "a shadow run reads it"})
	}
	return by
}

// usesOf says what a job has of a topic by what the log says.
func (j *jobEntry) usesOf(id bus.TopicID, now time.Time) (uses []string) {
	reads := func(ins []inputEntry) bool {
		return slices.ContainsFunc(ins, func(in inputEntry) bool { return in.Topic == id })
	}
	writes := func(outs []outputEntry) bool {
		return slices.ContainsFunc(outs, func(o outputEntry) bool { return o.Topic == id })
	}
	mark, err := replaying(&j.header)
	copies := err == nil && mark != nil && mark.Copy
	switch {
	case reads(j.Inputs) && copies:
		uses = append(uses, "copies it into another topic")
	case reads(j.Inputs):
		uses = append(uses, "reads it")
	}
	if writes(j.Outputs) {
		uses = append(uses, "writes it")
	}
	if p := j.Prev; len(uses) == 0 && p != nil && (reads(p.Inputs) || writes(p.Outputs)) {
		if j.onTrial(now) {
			return []string{fmt.Sprintf("used it before its last change, which may be taken back until %s", time.UnixMilli(p.Until).Format(time.TimeOnly))}
		}
		return []string{"used it before its last change, and what it gave then is yet to be sent"}
	}
	return uses
}

// definitionUses says what a definition has of a topic.
func definitionUses(d *jobs.Job, topic string) (uses []string) {
	for _, n := range d.Nodes {
		if n.Source != nil && n.Source.Source == nil && n.Source.Topic == topic {
			return []string{"reads it once it goes on"}
		}
	}
	if slices.Contains(topicsWritten(d), topic) {
		return []string{"writes it once it goes on"}
	}
	if slices.ContainsFunc(d.Topics, func(t jobs.Topic) bool { return t.Name == topic }) {
		return []string{"describes it"}
	}
	return nil
}
