package cli

import (
	"bytes"
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/sidestream-dev/sidestream/bus"
	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/runtime"
)

// finding is something that was looked at, and how it stands.
type finding struct {
	Check  string `json:"check"`  // what was looked at: "job alerts", "disk"
	Status string `json:"status"` // ok, warn, fail
	What   string `json:"what"`
	Do     string `json:"do,omitempty"` // what to do about it; where it begins with the program's name, a command to type
}

// How a finding stands.
const (
	isOK   = "ok"
	isWarn = "warn"
	isFail = "fail"
)

// nearLimit is the share of a topic's limit from which its slowest reader is named.
const nearLimit = 0.8

// diagnose says what keeps the jobs of a process from being at work: who waits for whom and why, and what to do.
func (a *app) diagnose(st runtime.Status) (fs []finding) {
	for _, j := range st.Jobs {
		fs = append(fs, a.diagnoseJob(j, st.Jobs)...)
	}
	fs = append(fs, a.diagnoseMissing(st.Missing)...)
	for _, t := range st.Topics {
		fs = append(fs, a.diagnoseTopic(t, st.Jobs)...)
	}
	return append(fs, a.diagnoseLog(st.Log)...)
}

// diagnoseMissing tells of jobs that were a file's, or a program's, and that this process was not given.
func (a *app) diagnoseMissing(names []string) []finding {
	if len(names) == 0 {
		return nil
	}
	check, what := "job "+names[0], "it is stopped, with its state: no file that this process was given defines it"
	do := "start the process with its file too, or with the program that has it"
	if len(names) > 1 {
		check, what = "jobs", strings.Join(names, ", ")+" are stopped, with their state: no file that this process was given defines them"
		do = "start the process with their files too, or with the program that has them"
	}
	if !slices.ContainsFunc(names, func(name string) bool { return !isOfDev(name) }) {
		do = "they seem to be the demo's: start " + a.typed("dev", "--data-dir DIR") + " in place of this process"
	}
	return []finding{{check, isWarn, what, do + "; or " + a.typed("job remove", names[0], " where one is to go, with its state")}}
}

// isOfDev reports whether a job is called as one of dev's is.
func isOfDev(name string) bool {
	defs, err := devJobs()
	return err == nil && slices.ContainsFunc(defs, func(j *jobs.Job) bool { return j.Name == name })
}

// ofDemo is what else starts a process on a data directory in which a broker has dev's topics; "" of another.
func ofDemo(dir string) string {
	topics, err := os.ReadFile(filepath.Join(dir, "kafka", "topics.json"))
	if err != nil || !bytes.Contains(topics, []byte("air-alerts")) {
		return ""
	}
	return " (or, if it is the demo's, 'sidestream dev --data-dir " + dir + "')"
}

func (a *app) diagnoseJob(j runtime.JobStatus, all []runtime.JobStatus) (fs []finding) {
	say := func(status, what, do string) { fs = append(fs, finding{"job " + j.Name, status, what, do}) }
	j.Error = ofJob(j.Name, j.Error)
	switch j.State {
	case runtime.StateFailed:
		say(isFail, "failed: "+because(j.Error), cmp.Or(a.typed("job restart", j.Name, ", when its cause is mended"), a.typed("job apply", "FILE", " with its definition mended")))
	case runtime.StateRestarting:
		say(isWarn, fmt.Sprintf("its last attempt failed (%d %s so far), and the next one begins soon: %s", j.Restarts, plural(j.Restarts, "restart", "restarts"), because(j.Error)),
			a.typed("job logs", j.Name))
	case runtime.StatePaused:
		say(isWarn, "it was paused by hand", a.typed("job resume", j.Name))
	case runtime.StateStopped:
		say(isWarn, "it is stopped, with its state", a.typed("job resume", j.Name))
	}
	if b := j.RolledBack; b != nil {
		say(isWarn, fmt.Sprintf("its changed definition failed on probation %s, and the one before is back: %s", ago(time.Now(), b.At), ofJob(j.Name, b.Error)),
			a.typed("job apply", "FILE", ", with the definition mended"))
	}
	for _, w := range j.Waiting {
		say(isWarn, "waits for "+w.Text, a.waitEnds(w, all))
	}
	for _, what := range j.Stuck {
		say(isWarn, "is stuck: "+what, a.typed("job stop", j.Name, " --force, if it never returns"))
	}
	if late := lateText(j); late != "" {
		say(isWarn, late+" since the process began", "where that is too many: a larger allowed_lateness, or a late_to that keeps them; records of a seek back are late, those of a replay are not")
	}
	for _, o := range j.Outputs {
		switch {
		case o.Stopped:
			say(isFail, fmt.Sprintf("output %s is stopped, with %d unsent: %s", outputSaid(o), o.Unsent, because(o.Error)), a.dropGivenUp(o))
		case o.Waiting != "":
			say(isWarn, fmt.Sprintf("output %s waits for %s, with %d unsent", outputSaid(o), o.Waiting, o.Unsent), a.dropGivenUp(o))
		case !o.GivenUp.IsZero() && o.Error != "" && o.Unsent > 0:
			say(isWarn, fmt.Sprintf("output %s fails, with %d unsent: %s", outputSaid(o), o.Unsent, because(o.Error)), a.dropGivenUp(o))
		}
	}
	return fs
}

// lateText says how many records were dropped as late; "" where none was. What went to late_to is where it should be.
func lateText(j runtime.JobStatus) string {
	n := j.Counters.LateDropped
	if n == 0 {
		return ""
	}
	return fmt.Sprintf("%d %s late and dropped", n, plural(int(min(n, 2)), "record was", "records were"))
}

// outputSaid names an output; and that the job has it no more, where that is so.
func outputSaid(o runtime.OutputStatus) string {
	if o.GivenUp.IsZero() {
		return o.Name
	}
	return fmt.Sprintf("%s, an output that the job gave up at %s,", o.Name, o.GivenUp.UTC().Format(time.RFC3339))
}

// dropGivenUp says how to be rid of an output that the job gave up.
func (a *app) dropGivenUp(o runtime.OutputStatus) string {
	if o.GivenUp.IsZero() {
		return ""
	}
	return a.typed("job apply", "FILE", " --drop-unsent, with the definition it has now, if what is unsent may be lost")
}

// waitEnds says what ends what a job waits for; "" where it ends by itself, or a finding of its own says it.
func (a *app) waitEnds(w runtime.Wait, all []runtime.JobStatus) string {
	switch w.For {
	case runtime.WaitDisk:
		return "free space on the disk of the data directory; it goes on by itself"
	case runtime.WaitWriter:
		return "start a job that writes it, or mend the topic's name"
	case runtime.WaitOutside:
		return "see that it can be reached from here; it is asked again and again"
	case runtime.WaitWatermark:
		for _, j := range all {
			if !slices.Contains(w.Jobs, j.Name) {
				continue
			}
			switch j.State {
			case runtime.StatePaused, runtime.StateStopped:
				return a.typed("job resume", j.Name)
			case runtime.StateFailed:
				return a.typed("job restart", j.Name, ", when its cause is mended")
			}
		}
	}
	return ""
}

// diagnoseLog names who keeps a log from being cut that is longer than it should be.
func (a *app) diagnoseLog(l runtime.LogStatus) (fs []finding) {
	if len(l.Pins) == 0 {
		return nil
	}
	p := l.Pins[0]
	do := ""
	switch {
	case p.Topic != "" && p.Job != "":
		do = a.typed("bus seek", p.Job, " "+p.Topic, " --to latest, or let it catch up")
	case p.Topic != "":
		do = a.typed("bus retention", p.Topic, " --max-age 1h, or as long as it must be kept")
	case p.Job != "":
		do = a.typed("job get", p.Job, " says how it stands; it is asked for a snapshot again and again")
	}
	return []finding{{"log", isWarn, fmt.Sprintf("%s of it are there, and log_max_bytes is %s: %s needs what is from frame %d on", sized(l.Bytes), sized(l.Max), p.Who, p.LSN), do}}
}

// ofJob is an error of a job where it is said already which.
func ofJob(name, err string) string { return strings.TrimPrefix(err, "job "+name+": ") }

func because(err string) string {
	if err == "" {
		return "no error is known"
	}
	return err
}

// diagnoseTopic names the reader at fault where a topic is full, or nearly.
func (a *app) diagnoseTopic(t bus.TopicStat, jobs []runtime.JobStatus) []finding {
	if t.Hidden || t.Limit <= 0 {
		return nil
	}
	slowest := bus.SubStat{}
	for _, s := range t.Subscriptions {
		if s.Unread > slowest.Unread {
			slowest = s
		}
	}
	share := float64(slowest.Unread) / float64(t.Limit)
	name, _, _ := strings.Cut(slowest.Name, "/")
	do := a.freed(t.Name, name, jobs)
	lost := uint64(0)
	for _, s := range t.Subscriptions {
		lost += s.Dropped
	}
	switch {
	case t.OnFull == bus.DropOldest && share >= nearLimit:
		return []finding{{"topic " + t.Name, isWarn, fmt.Sprintf("%s has yet to read %.0f %% of its limit of %s, beyond which it drops what is oldest; %d records were lost so far",
			slowest.Name, 100*share, sized(t.Limit), lost), do}}
	case t.Full:
		return []finding{{"topic " + t.Name, isFail, fmt.Sprintf("full: %s of it are unread by %s, and its limit is %s; who writes it waits", sized(slowest.Unread), slowest.Name, sized(t.Limit)), do}}
	case share >= nearLimit:
		return []finding{{"topic " + t.Name, isWarn, fmt.Sprintf("%.0f %% of its limit of %s are unread by %s", 100*share, sized(t.Limit), slowest.Name), do}}
	}
	return nil
}

// freed says how a full topic gets room.
func (a *app) freed(topic, job string, jobs []runtime.JobStatus) string {
	do := "let job " + job + " catch up"
	if i := slices.IndexFunc(jobs, func(j runtime.JobStatus) bool { return j.Name == job }); i >= 0 && jobs[i].State != runtime.StateRunning {
		do = fmt.Sprintf("bring job %s back to work, which is %s", job, jobs[i].State)
	}
	do += "; or " + a.typed("bus seek", job, " "+topic, " --to latest") + ", which skips what it has not read"
	return do
}

// typed returns a command to type, if there is one of that name; what is joined to it begins with an argument.
func (a *app) typed(command, arg string, rest ...string) string {
	if c, left, err := a.tree().Find(strings.Fields(command)); err != nil || len(left) > 0 || c.Annotations[runs] == "" {
		return ""
	}
	return a.called() + " " + command + " " + arg + strings.Join(rest, "")
}

// plainWord is what a shell takes as it stands.
var plainWord = regexp.MustCompile(`^[\w@%+=:,./-]+$`)

// shellWord returns a word as a shell takes it for itself.
func shellWord(word string) string {
	if plainWord.MatchString(word) {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}

// worst returns how the worst of findings stands.
func worst(fs []finding) string {
	status := isOK
	for _, f := range fs {
		if f.Status == isFail || f.Status == isWarn && status == isOK {
			status = f.Status
		}
	}
	return status
}
