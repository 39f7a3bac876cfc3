package jobs

// Trace is told, as it happens, what the steps of a job do with records; Env.Trace asks for it. An instance that is built
// without one has no trace of it in its code path: the functions that tell are put around the others when it is built.
//
// Calls nest as the records do: between Begin and End of a step's record lie its Emits and what Env.Reject got, and between
// Emit and Emitted all that those behind the port do with what was emitted. What a step emits for a watermark stands
// outside any record.
type Trace interface {
	Begin(step string, m Message)
	End()
	Emit(step string, port int, m Message)
	Emitted()
	// Pane says that the record in hand was taken into the window [start, end), or, if late, that it came when the step
	// stood at the watermark at which the window was gone, or would have been.
	Pane(step string, start, end Time, late bool, at, gone Watermark)
}

// Place is where a node stands in its definition. The zero Place is unknown.
type Place struct {
	File  string
	Line  int
	Text  string     // the expressions that decide what it does, for people
	Reads [][]string // the fields of the value that they read
	Lines bool       // of a source: its records are text, not JSON
	Said  string     // all that the definition says of it, in one form: another text is another step
}

// traceEmit puts the trace around what takes a port's records.
func traceEmit[T any](env *Env, port int, encode func([]byte, T) ([]byte, error), emit func(*Rec[T])) func(*Rec[T]) {
	return func(r *Rec[T]) {
		env.Trace.Emit(env.Step, port, asMessage(r, encode))
		emit(r)
		env.Trace.Emitted()
	}
}

// traceIn puts the trace around a step's function of records.
func traceIn[T any](env *Env, encode func([]byte, T) ([]byte, error), in func(*Rec[T])) func(*Rec[T]) {
	return func(r *Rec[T]) {
		env.Trace.Begin(env.Step, asMessage(r, encode))
		in(r)
		env.Trace.End()
	}
}

func asMessage[T any](r *Rec[T], encode func([]byte, T) ([]byte, error)) Message {
	v, err := encode(nil, r.Value)
	if err != nil {
		v = nil // what cannot be written cannot be shown
	}
	return Message{Key: r.Key.Bytes, Value: v, Time: r.Time, Headers: r.Headers}
}
