package jobs

import (
	"context"
	"log/slog"
)

// Source describes where a job's records come from. It is a value that can be opened any number of times. Its exported fields
// are its settings: they stay as they are once a job has it, and a Go job is changed where they are others (see Job.Describe).
type Source interface {
	// Kind names the connector, as in a definition: "kafka", "file".
	Kind() string
	// Bounded reports whether the source ends by itself.
	Bounded() bool
	// Splits lists the splits there are, in a stable order, with the position to begin each at where the job has none
	// yet. What env.Known has is not at its first connection any more. It waits for an outside that is away, saying so with
	// env.Waiting, until ctx ends. It is called once an attempt.
	Splits(ctx context.Context, env SourceEnv) ([]Start, error)
	// Open returns a reader of the splits in starts, owned by one subtask. Positions are those of an earlier epoch, or
	// those that Splits gave.
	Open(ctx context.Context, env SourceEnv, starts []Start) (Reader, error)
}

// Discoverer is a Source whose splits may become more while it is read. Its Reader is a Grower. It is asked only where the
// source is not bounded.
type Discoverer interface {
	// Discover waits until there are splits that env.Known does not have, and returns them in a stable order, each with the
	// position of its beginning: nobody has read what it holds. The same splits, with the same positions, are what Splits adds
	// to those of env.Known. An error is the attempt's failure; an outside that is away is waited for.
	Discover(ctx context.Context, env SourceEnv) ([]Start, error)
}

// Grower is a Reader that takes splits while it reads. Add is called as Read is; its starts follow those given to Open.
type Grower interface {
	Add(starts []Start) error
}

// Start is a split and where to begin it.
type Start struct {
	Split    Split
	Position []byte // opaque to all but the source; nil is its beginning
	Ended    bool   // everything of a bounded split has been read already
}

// SourceEnv is what a source may know of where it runs.
type SourceEnv struct {
	Job     string // the job's name
	Step    string // the source's id within the job
	Subtask int
	// Known is, for Splits and Discover, the splits that the job has a position of, with it: at the first connection none.
	Known  []Start
	Logger *slog.Logger // never nil
	// Waiting says what the source waits for ("broker 10.0.0.1:9092: connection refused"), or with "" that it goes on.
	// It may be called from any goroutine.
	Waiting func(why string)
	DataDir string // a directory under which an embedded service may keep its data
	// Services is what the process runs for its connectors; nil if it runs nothing.
	Services Services
}

// Services are started when first asked for, run beside the jobs, and end with the runtime that was given them.
// They may be asked from any goroutine.
type Services interface {
	// Kafka returns the address of the process's own broker ("brokers: [embedded]").
	Kafka(ctx context.Context) (addr string, err error)
}

// Reader reads the splits given to one subtask. All methods but Close and Ready are called by one goroutine.
type Reader interface {
	// Read fills c with the next records of one split and returns at once: where nothing is at hand c.Messages is
	// empty, and Ready tells when to ask again. want lists indexes into the starts given to Open that are not ended,
	// the most wanted (furthest behind in event time) first; Read takes the first of them that has records.
	// An error is the attempt's failure.
	Read(c *Chunk, want []int) error
	// Ready gives a token when Read may have more than it had before. It may give one too many.
	Ready() <-chan struct{}
	// Close releases what Open took. It is called when no Read is under way.
	Close() error
}

// Chunk is what one Read gave. The Messages slice is reused by the next Read; what its elements point to is not.
type Chunk struct {
	Max      int // at most this many messages; set by the caller, 1 or more
	Split    int // index into the starts given to Open
	Messages []Message
	Position []byte // of the split behind Messages; kept by the caller
	Moved    bool   // the position is to be taken also where Messages is empty
	Ended    bool   // the split has been read to its end
}

// Reset empties c for the next Read.
func (c *Chunk) Reset() {
	clear(c.Messages)
	c.Messages, c.Position, c.Moved, c.Ended, c.Split = c.Messages[:0], nil, false, false, 0
}

// CommitWatcher is a Reader that shows durable positions to the outside, such as a consumer group's offsets. Committed
// must not block; position is that of the split with the index split and only ever moves on.
type CommitWatcher interface {
	Committed(split int, position []byte)
}
