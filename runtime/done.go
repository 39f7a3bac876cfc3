package runtime

import (
	"fmt"
	"strings"
)

// StalledError says why a run that should end cannot: what remains waits for something that will not come.
type StalledError struct {
	Jobs []string // each with what it waits for
}

func (e *StalledError) Error() string {
	return "what remains cannot move: " + strings.Join(e.Jobs, "; ")
}

// StuckError names tasks that were left behind in a job's own code.
type StuckError struct {
	Tasks []string
}

func (e *StuckError) Error() string {
	return fmt.Sprintf("%d goroutines are stuck in a job's own code and were left behind: %s", len(e.Tasks), strings.Join(e.Tasks, "; "))
}

// done reports whether every job has ended and all is durable and sent, or that what remains cannot move.
func (rt *Runtime) done() (bool, error) {
	st := rt.Status()
	ended := 0
	stopped := map[string]string{}
	for _, j := range st.Jobs {
		switch j.State {
		case StateEnded:
			ended++
		case StateFailed:
			stopped[j.Name] = "job " + j.Name + " has failed: " + j.Error
		case StatePaused, StateStopped:
			stopped[j.Name] = "job " + j.Name + " is " + string(j.State) + ", and goes on only when it is resumed"
		}
		for _, o := range j.Outputs {
			if o.Stopped {
				stopped[j.Name+"/"+o.Name] = "output " + o.Name + " of job " + j.Name + " is stopped: " + o.Error
			}
		}
	}
	if ended == len(st.Jobs) {
		for _, j := range st.Jobs {
			for _, o := range j.Outputs {
				if o.Unsent > 0 && !o.Stopped {
					return false, nil
				}
			}
		}
		if len(stopped) > 0 {
			return false, stalled(stopped)
		}
		return rt.log.Durable() == rt.log.Last() && !rt.committer.hasSent(), nil
	}
	rt.spreadStall(stopped)
	for _, j := range st.Jobs {
		if _, is := stopped[j.Name]; !is && j.State != StateEnded {
			return false, nil
		}
	}
	return false, stalled(stopped)
}

// spreadStall adds the jobs that have read all there is of topics that no job at work writes.
func (rt *Runtime) spreadStall(stopped map[string]string) {
	for more := true; more; {
		more = false
		for _, j := range rt.jobList() {
			if _, is := stopped[j.def.Name]; is {
				continue
			}
			if why := rt.stallOf(j, stopped); why != "" {
				stopped[j.def.Name] = why
				more = true
			}
		}
	}
}

// stallOf says for whom a job waits if it cannot move any more, else "".
func (rt *Runtime) stallOf(j *job, stopped map[string]string) string {
	x := j.exec.Load()
	if x == nil {
		return ""
	}
	why := ""
	for _, s := range x.subtasks {
		if s.feed == nil {
			continue
		}
		f, onBus := s.feed.(*busFeed)
		if !onBus {
			return ""
		}
		r := f.shared.Load()
		if r == nil || !r.CaughtUp() {
			return ""
		}
		producers := rt.bus.Producers(f.topic)
		for _, p := range producers {
			name := rt.jobName(uint32(p))
			if _, is := stopped[name]; !is && name != "" {
				return ""
			}
			why = fmt.Sprintf("job %s waits for job %s, which writes topic %s", j.def.Name, name, f.node.Source.Topic)
		}
		if len(producers) == 0 && !rt.bus.Written(f.topic) { // else it ends, as soon as the reader has seen the last mark
			why = fmt.Sprintf("job %s waits for topic %s, which no job writes", j.def.Name, f.node.Source.Topic)
		}
	}
	return why
}

func (rt *Runtime) jobName(id uint32) string {
	for _, j := range rt.jobList() {
		if j.id == id {
			return j.def.Name
		}
	}
	return ""
}

func stalled(stopped map[string]string) error {
	e := &StalledError{}
	for _, why := range stopped {
		e.Jobs = append(e.Jobs, why)
	}
	return e
}
