package jobs

import "log/slog"

// Env is what runtime gives to the instance of a node in one subtask.
type Env struct {
	Job         string
	Step        string
	Subtask     int
	Parallelism int
	Logger      *slog.Logger // never nil
	OnError     OnError      // of the source that the records come from

	// Restored is the watermark that the state stands at: the step's in the epoch that the attempt starts from, the
	// lowest where subtasks are joined, WatermarkNone where there is none. The instance's first Watermark call gives it
	// again, before any record. What that watermark made the step do (fire a window) has been done.
	Restored Watermark
	// Late counts a record that came after what it belongs to was gone; nil counts nothing.
	Late func()
	// Table opens a named state of this step; the same name gives the same table.
	Table func(name string) Table
	// Failed is set once the attempt cannot go on: an instance emits nothing from then on.
	Failed *bool
	// Fail ends the attempt with err.
	Fail func(err error)
	// Reject counts a record that err kept from going on, and takes it to the dead-letter output if there is one.
	Reject func(m Message, o Origin, err error)
	// Records brackets a record whose step may be undone; runtime's state store implements it.
	Records RecordScope
	// Out is where an output node puts its records; nil for other nodes.
	Out Out
	// Trace is told what the step does with each record; nil, as in a running job, tells nobody and costs nothing.
	Trace Trace
}

// RecordScope undoes what one record did to a step's state.
type RecordScope interface {
	BeginRecord()
	RollbackRecord() // undoes what was done since BeginRecord
	EndRecord()
}

// RecordBytesMax is how many bytes key and value of a record may have that is written to a topic or an output: a frame of
// the log must hold it with what was written just before. A larger one is an error of that record.
const RecordBytesMax = 8 << 20

// Out collects an output's records for the epoch under way.
type Out interface {
	// Write takes a copy of m and returns the partition it went to. key decides the partition; a zero key goes in turn.
	Write(m *Message, key Key) (partition int)
	// Payload tells where to fetch, at a barrier, the values of the records written to a partition since the last
	// barrier, for readers in the same process; take may return nil.
	Payload(take func(partition int) any)
	// Partitions is the number of partitions; 1 for an output to the outside.
	Partitions() int
}

// Built is one subtask's instance of a node.
type Built struct {
	In any // func(*Rec[T]) that takes the node's input; nil for a source
	// Messages runs records of a source through the chain and returns the highest event time among them, or NoTime.
	Messages func(s *Split, ms []Message) Time
	// Payload does the same with the values that a publisher in this process attached to its batch: elements from..to,
	// the first of which has the offset base. ok is false where the values are of no use to this reader.
	Payload func(s *Split, base int64, payload any, from, to int) (highest Time, ok bool)
	// Watermark tells the instance that event time has come to w; nil if it does not care.
	Watermark func(w Watermark)
	Close     func() error // nil if there is nothing to release
}

// Port carries what the type of a node's output allows: batching it for an edge and taking it out of a batch.
type Port interface {
	// Writer returns a func(*Rec[T]) that collects records into batches, and a func that sends what is collected.
	Writer(w EdgeWriter) (in any, flush func())
	// Deliver returns a func that gives each record of a batch made by Writer to the func(*Rec[T]) in.
	Deliver(in any) func(batch any)
}

// EdgeWriter tells a Port where batches go.
type EdgeWriter struct {
	Targets int // of more than one, each takes the records whose key groups it owns
	Max     int // records a batch
	Send    func(target int, batch any, n int)
}

// batchRoomMin is for how many records a batch has room at first.
const batchRoomMin = 4

type portOf[T any] struct{}

func (portOf[T]) Writer(w EdgeWriter) (any, func()) {
	batches := make([][]Rec[T], w.Targets)
	room := make([]int, w.Targets) // about as much as the last batch had; at a low rate one holds few records
	send := func(t int) {
		if b := batches[t]; len(b) > 0 {
			batches[t], room[t] = nil, min(len(b)+len(b)/4, w.Max)
			w.Send(t, b, len(b))
		}
	}
	in := func(r *Rec[T]) {
		t := 0
		if w.Targets > 1 {
			t = Owner(r.Key.Group, w.Targets)
		}
		if batches[t] == nil {
			batches[t] = make([]Rec[T], 0, max(room[t], batchRoomMin))
		}
		batches[t] = append(batches[t], *r)
		if len(batches[t]) >= w.Max {
			send(t)
		}
	}
	return in, func() {
		for t := range batches {
			send(t)
		}
	}
}

func (portOf[T]) Deliver(in any) func(any) {
	take := in.(func(*Rec[T]))
	var r Rec[T] // here, where it is allocated once
	return func(batch any) {
		b := batch.([]Rec[T])
		for i := range b {
			r = b[i] // a copy: the batch may have other readers
			take(&r)
		}
	}
}

// fanOut joins what takes a port's records into one func.
func fanOut[T any](outs []any) func(*Rec[T]) {
	switch len(outs) {
	case 0:
		return func(*Rec[T]) {}
	case 1:
		return outs[0].(func(*Rec[T]))
	}
	fs := make([]func(*Rec[T]), len(outs))
	for i, o := range outs {
		fs[i] = o.(func(*Rec[T]))
	}
	var c Rec[T] // here, where it is allocated once; no graph leads a record back to where it came from
	return func(r *Rec[T]) {
		for _, f := range fs {
			c = *r // each may change its envelope
			f(&c)
		}
	}
}
