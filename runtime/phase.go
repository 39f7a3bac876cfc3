package runtime

// JobPhase is where a job stands in its life, as the log keeps it.
type JobPhase string

const (
	PhaseActive  JobPhase = "active"  // runs whenever the runtime does
	PhaseStopped JobPhase = "stopped" // keeps its state and waits: by hand, or because its definition is missing
	PhaseEnded   JobPhase = "ended"   // all its bounded inputs have been read to their end
)

// JobState is what a job does right now.
type JobState string

const (
	StateStarting   JobState = "starting"   // its state is being restored, its ends are being opened
	StateRunning    JobState = "running"    // at work
	StateWaiting    JobState = "waiting"    // running, but an outside it needs is away
	StateRestarting JobState = "restarting" // an attempt failed; the next one waits for its turn
	StateStopping   JobState = "stopping"   // a last barrier is under way
	StateStopped    JobState = "stopped"
	StateFailed     JobState = "failed"
	StateEnded      JobState = "ended"
)

// moves is the table of a job's allowed moves; any other is our own bug.
var moves = map[JobState][]JobState{
	StateStarting:   {StateRunning, StateWaiting, StateRestarting, StateStopping, StateStopped, StateFailed},
	StateRunning:    {StateWaiting, StateRestarting, StateStopping, StateEnded, StateFailed},
	StateWaiting:    {StateRunning, StateRestarting, StateStopping, StateEnded, StateFailed},
	StateRestarting: {StateStarting, StateStopping, StateStopped, StateFailed},
	StateStopping:   {StateStopped, StateEnded, StateFailed, StateRestarting},
	StateStopped:    {StateStarting},
	StateFailed:     {StateStarting},
	StateEnded:      {StateStarting},
}
