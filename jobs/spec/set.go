package spec

import (
	"fmt"
	"maps"
	"slices"

	"go.yaml.in/yaml/v4"

	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/jobs/spec/expr"
)

// use is one place where a job reads or writes a topic, or only describes it.
type use struct {
	job, topic string
	reads      bool
	writes     bool
	dead       bool    // it writes dead letters only
	at         Problem // where, without words; no File for a job that has none
}

// uses notes the topics that the draft reads, writes and describes.
func (w *draft) uses() {
	add := func(u use, n *yaml.Node) {
		u.job, u.at = w.name, w.file.at(n)
		w.loader.uses = append(w.loader.uses, u)
	}
	if w.source.topic != "" {
		add(use{topic: w.source.topic, reads: true}, w.source.at)
	}
	for _, o := range w.outputs {
		if o.topic != "" {
			add(use{topic: o.topic, writes: true, dead: o.writers == 0}, o.at)
		}
	}
	for _, n := range w.described {
		add(use{topic: n.Value}, n)
	}
}

// beside takes up a job of the set that is not from a file.
func (l *loader) beside(j *jobs.Job) {
	l.named[j.Name] = Problem{}
	for _, t := range j.Topics {
		l.meet(t, func(string) Problem { return Problem{} })
	}
	l.beholds(j)
	for _, n := range j.Nodes {
		switch {
		case n.Source != nil && n.Source.Source == nil:
			l.uses = append(l.uses, use{job: j.Name, topic: n.Source.Topic, reads: true})
		case n.Output != nil && n.Output.Sink == nil:
			l.uses = append(l.uses, use{job: j.Name, topic: n.Output.Topic, writes: true})
		}
		if n.Output == nil {
			continue
		}
		if x, ok := n.Output.Sink.(jobs.Exclusive); ok {
			l.owned[x.Place()] = Problem{}
		}
	}
}

// earlier says where something has been said before; otherwise is for what is not from a file.
func earlier(p Problem, otherwise string) Place {
	if p.File == "" {
		return p.place("%s", otherwise)
	}
	return p.place("the first is here")
}

// notFromFile is said of jobs written in Go and of those that run already.
const notFromFile = "the first is of a job that no file here defines"

// checkCycles reports jobs that feed themselves over the bus: a full topic would hold back the one that must empty it.
// One that drops its oldest records holds nobody back.
func (l *loader) checkCycles() {
	told := map[string]bool{}
	for _, u := range l.uses {
		if !u.writes || u.at.File == "" || told[u.job] { // one of jobs in Go alone has no place: CheckSet finds it
			continue
		}
		links := l.circle(u.job)
		if links == nil {
			continue
		}
		p, words := links[0].at, u.job
		for i, link := range links {
			told[link.job] = true
			if i%2 == 1 {
				words += " → " + link.job
			}
			if i > 0 {
				verb := "reads"
				if link.writes {
					verb = "writes"
				}
				p.Also = append(p.Also, link.at.place("%s %s %s", link.job, verb, link.topic))
			}
		}
		p.Msg = fmt.Sprintf("the jobs feed themselves over the bus: %s; here %s writes %s", words, links[0].job, links[0].topic)
		p.Hint = "break the circle, or give one of its topics on_full: drop_oldest: a full topic in it holds back the job that must empty it"
		l.problems = append(l.problems, p)
	}
}

// circle returns the shortest way from a job back to itself: a write, the read of the next job, its write and so on.
func (l *loader) circle(job string) []use {
	ways := map[string][]use{job: nil} // to jobs
	for queue := []string{job}; len(queue) > 0; queue = queue[1:] {
		for _, w := range l.uses {
			if w.job != queue[0] || !w.writes || l.topics[w.topic].topic.OnFull == dropOldest {
				continue
			}
			for _, r := range l.uses {
				if !r.reads || r.topic != w.topic {
					continue
				}
				way := append(slices.Clone(ways[w.job]), w, r)
				if r.job == job {
					return way
				}
				if _, been := ways[r.job]; !been {
					ways[r.job] = way
					queue = append(queue, r.job)
				}
			}
		}
	}
	return nil
}

// dropOldest is what a topic says that holds back nobody.
const dropOldest = "drop_oldest"

// reader is a source that may read what an output writes.
type reader struct {
	job, step string
	source    jobs.Beholder
}

func (l *loader) beholds(j *jobs.Job) {
	for _, n := range j.Nodes {
		if n.Source == nil {
			continue
		}
		if b, ok := n.Source.Source.(jobs.Beholder); ok {
			l.readers = append(l.readers, reader{j.Name, n.ID, b})
		}
	}
}

// overFiles warns where one job reads the file that another writes: it would see lines that are cut back or come again behind a
// crash, and have no watermark of the writer's. A topic is for that.
func (l *loader) overFiles() {
	for _, place := range slices.Sorted(maps.Keys(l.owned)) {
		at := l.owned[place]
		for _, r := range l.readers {
			if at.File != "" && r.source.Reads(place) {
				l.warn(at, "give the output a topic too (bus: NAME), and let the job read that: what a file has may be cut back or come again behind a crash", "job %s reads this file too (%s)", r.job, r.step)
			}
		}
	}
}

// lonely warns of topics that nobody reads or nobody writes. Dead letters are for people to look at, and so is what a
// topic is told to retain.
func (l *loader) lonely() {
	var read, written []string
	for _, u := range l.uses {
		if u.reads {
			read = append(read, u.topic)
		}
		if u.writes {
			written = append(written, u.topic)
		}
	}
	const elsewhere = "it may be right: with a job outside these files, or with `sidestream bus tail`"
	for _, u := range l.uses {
		isRead, isWritten := slices.Contains(read, u.topic), slices.Contains(written, u.topic)
		kept := l.topics[u.topic].topic
		switch {
		case u.at.File == "":
		case u.reads && !isWritten:
			l.lone(u, near(u.topic, written, "it may be right, if a job outside these files writes it"), "nobody writes the topic %s")
		case u.writes && !isRead && !u.dead && kept.RetentionBytes == 0 && kept.RetentionAge == 0:
			u.at.Unread = true
			l.lone(u, near(u.topic, read, elsewhere), "nobody reads the topic %s")
		case !u.reads && !u.writes && !isRead && !isWritten:
			l.lone(u, near(u.topic, append(read, written...), "remove it, or let a job write it"), "nobody reads or writes the topic %s")
		}
	}
}

// Nearest returns the candidate that looks most like name, or "" if none does.
func Nearest(name string, candidates []string) string { return expr.Nearest(name, candidates) }

func near(name string, candidates []string, otherwise string) string {
	if n := expr.Nearest(name, candidates); n != "" {
		return "did you mean " + n + "?"
	}
	return otherwise
}

// lone warns of a topic; format has its name.
func (l *loader) lone(u use, hint, format string) {
	u.at.Topic = u.topic
	l.warn(u.at, hint, format, u.topic)
}

func (l *loader) warn(at Problem, hint, format string, args ...any) {
	at.Msg, at.Hint = fmt.Sprintf(format, args...), hint
	l.warnings = append(l.warnings, at)
}
