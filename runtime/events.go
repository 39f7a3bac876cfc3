package runtime

import (
	"sync"
	"time"
)

// EventKind is what an Event is about.
type EventKind string

const (
	EventState        EventKind = "state"         // a job is in another state
	EventApplied      EventKind = "applied"       // a job was added or changed; Text is the Action
	EventRemoved      EventKind = "removed"       // a job is gone
	EventRolledBack   EventKind = "rolled_back"   // a definition failed on probation, and the one before is back; Text is why
	EventSettled      EventKind = "settled"       // a probation is over: the new definition stays
	EventSavepoint    EventKind = "savepoint"     // Text is its name
	EventMoved        EventKind = "moved"         // a subscription was set elsewhere; Text says where
	EventDetached     EventKind = "detached"      // a subscription is gone; the job is stopped
	EventResumed      EventKind = "resumed"       // a job goes on where an earlier process left it; Text says at which epoch, and how far behind
	EventReplay       EventKind = "replay"        // a job is set back, to read a topic again; Text is the replay's id and how much it is
	EventReplayed     EventKind = "replayed"      // the job is where it was, or at the replay's end; Text is its id
	EventPurged       EventKind = "purged"        // records of a topic were let go by hand; no Job
	EventTopicRemoved EventKind = "topic_removed" // a topic is gone with its records; no Job
	EventDropped      EventKind = "dropped"       // a topic drops the oldest, and a reader loses records; Text says whose, and which
	EventUnsent       EventKind = "unsent"        // outputs that a job has no more were dropped with what was never sent; Text says how much of each
	EventRetention    EventKind = "retention"     // a topic keeps its records for another time; no Job
)

// Event is something that has happened to a job. Events are of one process, and numbered from 1.
type Event struct {
	Seq   uint64    `json:"seq"`
	Time  time.Time `json:"time"`
	Kind  EventKind `json:"kind"`
	Job   string    `json:"job,omitempty"`
	State JobState  `json:"state,omitempty"`
	Text  string    `json:"text,omitempty"`
}

// eventsMax is how many events are kept.
const eventsMax = 4096

// ring keeps the newest of numbered things, and wakes those who wait for more.
type ring[T any] struct {
	mu    sync.Mutex
	items []T
	next  uint64 // number of the next one, from 0
	more  chan struct{}
}

// add takes what make returns for its number, from 1.
func (r *ring[T]) add(max int, make_ func(seq uint64) T) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.items) >= max {
		r.items = append(r.items[:0:0], r.items[max/4:]...)
	}
	r.next++
	r.items = append(r.items, make_(r.next))
	r.wakeLocked()
}

// after returns what is kept behind a number, and a channel that is closed when there is more. A number that none has yet is of
// another ring, such as that of a job of the same name that is gone: then it returns all that is kept.
func (r *ring[T]) after(seq uint64) ([]T, <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.more == nil {
		r.more = make(chan struct{})
	}
	if seq > r.next {
		seq = 0
	}
	first := r.next - uint64(len(r.items)) // number of the last one that is gone
	skip := min(max(seq, first)-first, uint64(len(r.items)))
	return append([]T(nil), r.items[skip:]...), r.more
}

// wake tells those who wait for more to look again: there will be none.
func (r *ring[T]) wake() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.wakeLocked()
}

func (r *ring[T]) wakeLocked() {
	if r.more != nil {
		close(r.more)
		r.more = nil
	}
}

type eventRing struct{ ring[Event] }

// tell notes an event.
func (rt *Runtime) tell(e Event) {
	rt.events.add(eventsMax, func(seq uint64) Event {
		e.Seq, e.Time = seq, rt.now()
		return e
	})
}

// Events returns the events behind the one with the number after, oldest first, and a channel that is closed when there are
// more. The newest few thousand are kept: where the first number is not after+1, those between are gone.
func (rt *Runtime) Events(after uint64) ([]Event, <-chan struct{}) { return rt.events.after(after) }
