package runtime

import (
	"fmt"
	"strings"

	"github.com/sidestream-dev/sidestream/bus"
	"github.com/sidestream-dev/sidestream/wal"
)

// WaitFor is what sort of thing keeps a job from being at work.
type WaitFor string

const (
	WaitOutside   WaitFor = "outside"   // what a source reads is away, such as a broker: it is asked again
	WaitRoom      WaitFor = "room"      // a topic that it writes is full: Jobs have not read it
	WaitWatermark WaitFor = "watermark" // of a topic that it reads, which Jobs hold back
	WaitWriter    WaitFor = "writer"    // a topic that it reads is empty, and no job writes it
	WaitDisk      WaitFor = "disk"      // there is no room on the disk of the data directory
)

// Wait is one thing that a job waits for.
type Wait struct {
	For   WaitFor  `json:"for"`
	Text  string   `json:"text"` // for people
	Step  string   `json:"step,omitempty"`
	Topic string   `json:"topic,omitempty"`
	Jobs  []string `json:"jobs,omitempty"` // who is at fault
}

// String says it behind "waits for".
func (w Wait) String() string { return w.Text }

// waitOutside is that of a source whose outside is away.
func waitOutside(step, why string) Wait { return Wait{For: WaitOutside, Step: step, Text: why} }

// waitRoom is that of a job whose topic is full; who is the subscription that has not read it.
func waitRoom(topic, who string, fill float64) Wait {
	who, sends := strings.CutPrefix(who, senderPrefix)
	job, output, _ := strings.Cut(who, "/")
	if sends {
		return Wait{For: WaitRoom, Topic: topic, Jobs: []string{job},
			Text: fmt.Sprintf("its output %s: what is not sent of it has reached its limit (%.0f %%)", output, fill*100)}
	}
	return Wait{For: WaitRoom, Topic: topic, Jobs: []string{job},
		Text: fmt.Sprintf("room in topic %s, which is full (%.0f %% of its limit): %s has not read it", topic, fill*100, who)}
}

func waitWatermark(step, topic string, jobs []string) Wait {
	return Wait{For: WaitWatermark, Step: step, Topic: topic, Jobs: jobs,
		Text: fmt.Sprintf("the watermark of topic %s, which %s holds back", topic, strings.Join(jobs, ", "))}
}

func waitWriter(step, topic string) Wait {
	return Wait{For: WaitWriter, Step: step, Topic: topic, Text: fmt.Sprintf("topic %s, which no job writes", topic)}
}

func waitDisk() Wait { return Wait{For: WaitDisk, Text: "room on the disk"} }

// LogPin is who keeps a log that is longer than it should be from being cut.
type LogPin struct {
	Who   string  `json:"who"`
	LSN   wal.LSN `json:"lsn"` // the oldest frame that it needs
	Topic string  `json:"topic,omitempty"`
	Job   string  `json:"job,omitempty"`
}

// pinsMax is how many are named, those of the oldest frames first.
const pinsMax = 5

// notePins keeps who holds the log, for the status. None says that it is as long as it should be.
func (rt *Runtime) notePins(pins []bus.Pin) {
	var out []LogPin
	for _, p := range pins[:min(len(pins), pinsMax)] {
		l := LogPin{Who: p.Who, LSN: p.LSN}
		if p.Topic != 0 {
			if name := rt.bus.Spec(p.Topic).Name; !strings.Contains(name, "/") { // else it is what is yet to be sent outside
				l.Topic = name
			}
		}
		if kind, rest, _ := strings.Cut(p.Who, " "); kind == "subscription" {
			l.Job, _, _ = strings.Cut(rest, "/")
		} else if job, ok := strings.CutPrefix(p.Who, ofState); ok {
			l.Job = job
		}
		out = append(out, l)
	}
	rt.pinned.Store(&out)
}

// ofState is what a pin of a job's state is called, before the job's name.
const ofState = "state of job "
