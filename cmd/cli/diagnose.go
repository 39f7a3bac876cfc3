package cli

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/sidestream-dev/sidestream/bus"
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
		fs = append(fs, a.diagnoseJob(j)...)
	}
	for _, name := range st.Missing {
		fs = append(fs, finding{"job " + name, isWarn, "it is stopped, with its state: no file that this process was given defines it",
			a.typed("run", "FILE|DIR... with its file")})
	}
	for _, t := range st.Topics {
		fs = append(fs, a.diagnoseTopic(t, st.Jobs)...)
	}
	return fs
}

func (a *app) diagnoseJob(j runtime.JobStatus) (fs []finding) {
	say := func(status, what, do string) { fs = append(fs, finding{"job " + j.Name, status, what, do}) }
	switch j.State {
	case runtime.StateFailed:
		say(isFail, "failed: "+because(j.Error), cmp.Or(a.typed("job restart", j.Name, ", when its cause is mended"), a.typed("job apply", "FILE", " with its definition mended")))
	case runtime.StateRestarting:
		say(isWarn, fmt.Sprintf("its last attempt failed (%d %s so far), and the next one begins soon: %s", j.Restarts, plural(j.Restarts, "restart", "restarts"), because(j.Error)),
			a.typed("job logs", j.Name))
	case runtime.StatePaused:
		say(isWarn, "it was paused by hand", a.typed("job resume", j.Name))
	case runtime.StateStopped:
		say(isWarn, "it is stopped, with its state", a.typed("job restart", j.Name))
	}
	for _, why := range j.Waiting {
		do, what := "", "waits for "+why
		switch {
		case strings.Contains(why, " is full "):
			what = "waits: " + why
		case strings.Contains(why, "room on the disk"):
			do = "free space on the disk of the data directory; it goes on by itself"
		case strings.Contains(why, "which no job writes"):
			do = "start a job that writes it, or mend the topic's name"
		}
		say(isWarn, what, do)
	}
	for _, what := range j.Stuck {
		say(isWarn, "is stuck: "+what, a.typed("job stop", j.Name, " --force, if it never returns"))
	}
	for _, o := range j.Outputs {
		switch {
		case o.Stopped:
			say(isFail, fmt.Sprintf("output %s is stopped, with %d unsent: %s", o.Name, o.Unsent, because(o.Error)), "")
		case o.Waiting != "":
			say(isWarn, fmt.Sprintf("output %s waits for %s, with %d unsent", o.Name, o.Waiting, o.Unsent), "")
		}
	}
	return fs
}

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
		lost += s.Dropped + uint64(s.Dropping)
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
	if cmd := a.typed("bus seek", topic, " --job "+job); cmd != "" {
		do += "; or " + cmd
	}
	return do
}

// typed returns a command to type, if there is one of that name; what is joined to it begins with an argument.
func (a *app) typed(command, arg string, rest ...string) string {
	if c, left, err := a.tree().Find(strings.Fields(command)); err != nil || len(left) > 0 || c.Annotations[runs] == "" {
		return ""
	}
	return a.called() + " " + command + " " + arg + strings.Join(rest, "")
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
