package runtime

import (
	"fmt"
	"slices"
)

// JobPhase is where a job stands in its life, as the log keeps it.
type JobPhase string

const (
	PhaseActive  JobPhase = "active"  // runs whenever the runtime does
	PhasePaused  JobPhase = "paused"  // by hand; keeps its state and waits for ResumeJob
	PhaseStopped JobPhase = "stopped" // keeps its state and waits: by hand, or because its definition is missing
	PhaseFailed  JobPhase = "failed"  // no attempt got further; keeps its state until it is restarted or changed
	PhaseEnded   JobPhase = "ended"   // all its bounded inputs have been read to their end
)

// JobState is what a job does right now.
type JobState string

const (
	StateStarting   JobState = "starting"   // its state is being restored, its ends are being opened
	StateRunning    JobState = "running"    // at work
	StateWaiting    JobState = "waiting"    // running, but something it needs is away: Status says so, no move leads here
	StateRestarting JobState = "restarting" // an attempt failed; the next one waits for its turn
	StateStopping   JobState = "stopping"   // a last barrier is under way
	StateUpdating   JobState = "updating"   // the same, and another definition takes its place
	StateRemoving   JobState = "removing"   // the same, its outputs are being sent, and it goes
	StatePaused     JobState = "paused"
	StateStopped    JobState = "stopped"
	StateFailed     JobState = "failed"
	StateEnded      JobState = "ended"
)

// moves is the table of a job's allowed moves; any other is our own bug. A job that is removed is in no state.
var moves = map[JobState][]JobState{
	StateStarting:   {StateRunning, StateRestarting, StateStopping, StateUpdating, StateRemoving, StateEnded, StateFailed}, // ended: the attempt before, which failed, had sealed its end
	StateRunning:    {StateRestarting, StateStopping, StateUpdating, StateRemoving, StateEnded, StateFailed},
	StateRestarting: {StateStarting, StateStopping, StateUpdating, StateRemoving, StatePaused, StateStopped, StateFailed}, // the definition before is back, which rested
	StateStopping:   {StateStarting, StatePaused, StateStopped, StateEnded, StateFailed},
	StateUpdating:   {StateStarting, StatePaused, StateStopped, StateEnded, StateFailed},
	StateRemoving:   {StateStarting, StatePaused, StateStopped, StateEnded, StateFailed},
	StatePaused:     {StateStarting, StateStopped, StateUpdating, StateRemoving},
	StateStopped:    {StateStarting, StateUpdating, StateRemoving},
	StateFailed:     {StateStarting, StateStopped, StateUpdating, StateRemoving},
	StateEnded:      {StateStarting, StateUpdating, StateRemoving},
}

// restingState is what a job does that its phase keeps from running.
var restingState = map[JobPhase]JobState{
	PhasePaused: StatePaused, PhaseStopped: StateStopped, PhaseFailed: StateFailed, PhaseEnded: StateEnded,
}

// operation is what somebody outside can ask of a job.
type operation string

const (
	opPause   operation = "pause"
	opResume  operation = "resume"
	opRestart operation = "restart"
	opStop    operation = "stop"
)

// phaseAfter is the table of what the operations make of a job's phase. Where it has no entry the operation is refused;
// where the phase stays, nothing is done, save that restart makes a new attempt. Any job can be changed and removed.
var phaseAfter = map[operation]map[JobPhase]JobPhase{
	opPause:   {PhaseActive: PhasePaused, PhasePaused: PhasePaused},
	opResume:  {PhaseActive: PhaseActive, PhasePaused: PhaseActive, PhaseStopped: PhaseActive},
	opRestart: {PhaseActive: PhaseActive, PhasePaused: PhaseActive, PhaseStopped: PhaseActive, PhaseFailed: PhaseActive, PhaseEnded: PhaseActive},
	opStop:    {PhaseActive: PhaseStopped, PhasePaused: PhaseStopped, PhaseStopped: PhaseStopped, PhaseFailed: PhaseStopped},
}

// PhaseError refuses what cannot be done to a job where it stands.
type PhaseError struct {
	Job       string
	Operation string
	Phase     JobPhase
}

func (e *PhaseError) Error() string {
	hint := ""
	switch {
	case e.Phase == PhaseEnded, e.Phase == PhaseFailed:
		hint = "; restart it, or remove it"
	case e.Phase == PhaseStopped:
		hint = "; resume or restart it first"
	}
	return fmt.Sprintf("job %s is %s: it cannot %s%s", e.Job, e.Phase, e.Operation, hint)
}

func mayMove(from, to JobState) bool { return slices.Contains(moves[from], to) }
