package jobs

import (
	"context"
	"log/slog"
)

// Delivery is what a job promises outside the process; inside it is always exactly once.
type Delivery uint8

const (
	AtLeastOnce Delivery = iota // after a crash, what was sent since the last durable position may be sent again
	ExactlyOnce                 // nothing is sent twice; the sink must be able to
)

// String returns the delivery as it is written in a definition.
func (d Delivery) String() string {
	if d == ExactlyOnce {
		return "exactly_once"
	}
	return "at_least_once"
}

// Sink describes where an output leaves the process. It is a value that can be opened any number of times; of its exported
// fields the same holds as of those of a Source.
type Sink interface {
	// Kind names the connector, as in a definition: "kafka", "file".
	Kind() string
	// ExactlyOnce returns nil if the sink can promise it, else the reason why not.
	ExactlyOnce() error
	// Open returns the one writer of an output. It may wait for an outside that is away, saying so with env.Waiting.
	Open(ctx context.Context, env SinkEnv) (Writer, error)
}

// SinkEnv is what a sink may know of where it runs.
type SinkEnv struct {
	Job      string
	Output   string
	LogID    string // with an LSN and an index, an identity for every record of the output
	Delivery Delivery
	// Known is how many records of the output the log knows: Message.Offset is below it. A position kept outside that lies
	// beyond it is none of this log.
	Known int64
	// Cut tells of records that a repair removed from the log when they may have been sent; what is sent next lies before
	// them, or is what was computed again in their place. It is zero where there are none such.
	Cut Cut
	// State is what Write returned last before the position that counts, nil where there is no such position: then
	// nothing was ever sent.
	State   []byte
	Logger  *slog.Logger // never nil
	Waiting func(why string)
	DataDir string
	// Services is what the process runs for its connectors; nil if it runs nothing.
	Services Services
}

// Cut is the records From up to, without, To, which the log does not have any more. A position outside that is greater than
// From and not greater than To says that some of them were sent.
type Cut struct{ From, To int64 }

// Exclusive is a Sink whose place outside may belong to one output only: a second with the same place is refused.
type Exclusive interface {
	Place() string // such as "file /data/out.jsonl"
}

// Prober is a Sink that can say whether Open and a first Write would do, before its job comes, or takes the place of another.
type Prober interface {
	// Probe asks the outside, and leaves nothing there: no file, no topic, no byte. It may be called while another writer of
	// the same output is at work. It waits for an outside that is away, saying so with env.Waiting, until ctx ends. The error
	// says what is wrong and what to do.
	Probe(ctx context.Context, env SinkEnv) error
}

// Beholder is a Source that can say whether it reads what an Exclusive sink writes: a second job that does should read a topic.
type Beholder interface {
	Reads(place string) bool // such as "file /data/out.jsonl"
}

// Writer takes records outside, in order. One goroutine calls it.
type Writer interface {
	// Write returns once every record is safe outside. state, which is stored with the position behind ms, comes
	// back in SinkEnv.State. An error says nothing about how many arrived; the same records are given again, to this
	// writer or to the next. A *StoppedError stops the output until a person has decided.
	//
	// With no messages it makes ready what has to be there (an empty file) and returns the state of nothing sent. A sender
	// without a position asks for that first and has it durable before it sends: from then on State is not nil.
	Write(ctx context.Context, ms []Message) (state []byte, err error)
	// Close releases what Open took; it does not send.
	Close() error
}

// StoppedError stops an output: going on could lose or repeat records. Choice says what a person can do.
type StoppedError struct {
	Why    string
	Choice string
}

func (e *StoppedError) Error() string { return e.Why + "; " + e.Choice }
