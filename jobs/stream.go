package jobs

import (
	"encoding/json"
	"fmt"
	"time"
)

// Stream is the records that one port of a node emits, while the job is being built.
type Stream[T any] struct {
	job     *Job
	node    *Node
	port    int
	encode  func(dst []byte, v T) ([]byte, error)
	keyed   bool   // records carry a key
	keyType string // of what type; "" where that is not known
	spread  Mode   // how a keyed step must be reached: Hash, or AsWritten
	onError OnError
	balance bool // whoever reads it gets the records spread over its subtasks
}

// Edge is what reads the stream, unless by key.
func (s *Stream[T]) Edge() Edge {
	if s.balance {
		return Edge{From: s.node, Port: s.port, Mode: Balanced}
	}
	return Edge{From: s.node, Port: s.port}
}

// Job returns the job the stream belongs to.
func (s *Stream[T]) Job() *Job { return s.job }

// Keyed reports whether the stream's records carry a key.
func (s *Stream[T]) Keyed() bool { return s.keyed }

// Encoded sets how the stream's values become bytes, for dead letters and for outputs that do not say.
func (s *Stream[T]) Encoded(encode func(dst []byte, v T) ([]byte, error)) *Stream[T] {
	s.encode = encode
	return s
}

// Encode appends the encoding of v.
func (s *Stream[T]) Encode(dst []byte, v T) ([]byte, error) { return s.encode(dst, v) }

func encodeJSON[T any](dst []byte, v T) ([]byte, error) {
	b, err := json.Marshal(v)
	return append(dst, b...), err
}

// Op is a typed step. New makes the instance of one subtask: emit sends on the main port, side on the second.
// Records given to them are copied where they are kept.
type Op[In, Out, Side any] struct {
	Kind        string
	ID          string // "" for one from kind and place
	Parallelism int
	Keyed       bool // it keeps keyed state: records are brought to the subtask that owns their key
	// Span is how far back in event time the records may lie of which it makes one, up to that one's own time; 0 is only there.
	Span   time.Duration
	Rekeys bool // the records it emits carry a new key
	// Atomic promises that an instance whose Process fails has emitted and changed nothing for that record.
	Atomic     bool
	EncodeOut  func(dst []byte, v Out) ([]byte, error)  // nil means as In if it is the same type, else JSON
	EncodeSide func(dst []byte, v Side) ([]byte, error) // nil means the same
	New        func(env *Env, emit func(*Rec[Out]), side func(*Rec[Side])) (Instance[In], error)
}

// Instance is what an Op does in one subtask. Nil funcs do nothing.
type Instance[In any] struct {
	// Process handles a record. An error is the record's, and on_error decides what becomes of it.
	Process   func(r *Rec[In]) error
	Watermark func(w Watermark) error // an error is the attempt's
	Close     func() error
}

// Attach adds op behind s and returns the streams of its two ports.
func Attach[In, Out, Side any](s *Stream[In], op Op[In, Out, Side]) (*Stream[Out], *Stream[Side]) {
	from, spread := s.Edge(), s.spread
	if op.Keyed {
		switch {
		case !s.keyed:
			s.job.fail("step %s: it needs a key: put a key_by before it", op.Kind)
		case s.balance:
			s.job.fail("step %s: it keeps state by key, so each record goes to the subtask of its key: put the rebalance before steps that keep none", op.Kind)
		}
		from.Mode, spread = s.spread, AsWritten // behind it records are where their key belongs
	}
	if op.EncodeOut == nil {
		op.EncodeOut = encodingOf[Out](s)
	}
	if op.EncodeSide == nil {
		op.EncodeSide = encodingOf[Side](s)
	}
	encode := s.encode
	n := s.job.add(&Node{
		ID: op.ID, Kind: op.Kind, In: []Edge{from},
		Ports: []Port{portOf[Out]{}, portOf[Side]{}}, Parallelism: op.Parallelism, Keyed: op.Keyed, KeyType: s.keyType, Span: op.Span,
		Build: func(env *Env, outs [][]any) (Built, error) { return buildOp(env, op, encode, outs) },
	})
	main := &Stream[Out]{job: s.job, node: n, port: 0, encode: op.EncodeOut, keyed: s.keyed, keyType: s.keyType, spread: spread, onError: s.onError}
	if op.Rekeys {
		main.keyed, main.keyType, main.spread = true, "", Hash
	}
	side := &Stream[Side]{job: s.job, node: n, port: 1, encode: op.EncodeSide, keyed: s.keyed, keyType: s.keyType, spread: spread, onError: s.onError}
	return main, side
}

// encodingOf returns the encoding of s where its records are of type Out, else JSON.
func encodingOf[Out, In any](s *Stream[In]) func(dst []byte, v Out) ([]byte, error) {
	if encode, ok := any(s.encode).(func(dst []byte, v Out) ([]byte, error)); ok {
		return encode
	}
	return encodeJSON[Out]
}

func buildOp[In, Out, Side any](env *Env, op Op[In, Out, Side], encode func([]byte, In) ([]byte, error), outs [][]any) (Built, error) {
	emit, side := fanOut[Out](outs[0]), fanOut[Side](outs[1])
	if env.Trace != nil {
		emit, side = traceEmit(env, 0, op.EncodeOut, emit), traceEmit(env, 1, op.EncodeSide, side)
	}
	var held *heldBack[Out, Side]
	if !op.Atomic && env.OnError.Policy != ErrorFail {
		held = &heldBack[Out, Side]{emit: emit, side: side}
		emit, side = held.takeMain, held.takeSide
	}
	stateful, table := false, env.Table
	env.Table = func(name string) Table {
		stateful = true
		return table(name)
	}
	inst, err := op.New(env, emit, side)
	if err != nil {
		return Built{}, fmt.Errorf("step %s: %w", env.Step, err)
	}
	process, watermark := inst.Process, inst.Watermark
	if stateful {
		process = guard(process)
		if watermark != nil {
			watermark = func(w Watermark) (err error) {
				defer catchFault(&err)
				return inst.Watermark(w)
			}
		}
	}
	in := func(r *Rec[In]) {
		if *env.Failed {
			return
		}
		if held != nil {
			held.begin()
			env.Records.BeginRecord()
		}
		err := process(r)
		if held != nil {
			if err != nil {
				env.Records.RollbackRecord()
			}
			env.Records.EndRecord()
			held.end(err == nil)
		}
		if err != nil {
			value, _ := encode(nil, r.Value)
			env.Reject(Message{Key: r.Key.Bytes, Value: value, Time: r.Time, Headers: r.Headers}, r.Origin, err)
		}
	}
	if env.Trace != nil {
		in = traceIn(env, encode, in)
	}
	b := Built{In: in, Close: inst.Close}
	if watermark != nil {
		b.Watermark = func(w Watermark) {
			if *env.Failed {
				return
			}
			if err := watermark(w); err != nil {
				env.Fail(fmt.Errorf("step %s at watermark %s: %w", env.Step, w, err))
			}
		}
	}
	return b, nil
}

// heldBack keeps what a step emits for a record until the step has returned without an error.
type heldBack[Out, Side any] struct {
	emit  func(*Rec[Out])
	side  func(*Rec[Side])
	main  []Rec[Out]
	aside []Rec[Side]
	open  bool
}

func (h *heldBack[Out, Side]) takeMain(r *Rec[Out]) {
	if !h.open {
		h.emit(r)
		return
	}
	h.main = append(h.main, *r)
}

func (h *heldBack[Out, Side]) takeSide(r *Rec[Side]) {
	if !h.open {
		h.side(r)
		return
	}
	h.aside = append(h.aside, *r)
}

func (h *heldBack[Out, Side]) begin() { h.open = true }

func (h *heldBack[Out, Side]) end(ok bool) {
	h.open = false
	if ok {
		for i := range h.main {
			h.emit(&h.main[i])
		}
		for i := range h.aside {
			h.side(&h.aside[i])
		}
	}
	clear(h.main)
	clear(h.aside)
	h.main, h.aside = h.main[:0], h.aside[:0]
}

// Input is a typed source.
type Input[T any] struct {
	ID          string
	Source      Source // nil for a topic on the bus
	Topic       string // on the bus
	Start       BusStart
	Parallelism int
	// Decode makes the decoder of one subtask: it sets the value, and the event time if the records have one of their own.
	// It runs with the message's key (on the bus), time and headers already in r. An error goes where OnError says.
	Decode func(env *Env) func(m *Message, r *Rec[T]) error
	// Adopt makes, for a subtask, a func that takes values which a publisher in this process attached to its batch; ok
	// is false where they are of another make. nil: []Rec[T] is understood.
	Adopt          func(env *Env) func(payload any) (at func(i int, r *Rec[T]), ok bool)
	Encode         func(dst []byte, v T) ([]byte, error) // nil means JSON
	OutOfOrderness time.Duration
	IdleAfter      time.Duration
	OnError        OnError
}

// Read adds a source and returns its stream.
func Read[T any](j *Job, in Input[T]) *Stream[T] {
	if in.Encode == nil {
		in.Encode = encodeJSON[T]
	}
	kind := "bus"
	if in.Source != nil {
		kind = in.Source.Kind()
	} else if err := CheckName(in.Topic); err != nil {
		j.fail("source: topic: %w", err)
	}
	n := j.add(&Node{
		ID: in.ID, Kind: kind, Ports: []Port{portOf[T]{}}, Parallelism: in.Parallelism,
		Source: &SourceSpec{Source: in.Source, Topic: in.Topic, Start: in.Start,
			OutOfOrderness: in.OutOfOrderness, IdleAfter: in.IdleAfter, OnError: in.OnError},
		Build: func(env *Env, outs [][]any) (Built, error) { return buildSource(env, in, outs) },
	})
	s := &Stream[T]{job: j, node: n, encode: in.Encode, onError: in.OnError}
	if in.Source == nil {
		s.keyed, s.spread = true, AsWritten
	}
	return s
}

func buildSource[T any](env *Env, in Input[T], outs [][]any) (Built, error) {
	emit, decode := fanOut[T](outs[0]), in.Decode(env)
	onBus := in.Source == nil
	var r Rec[T]
	b := Built{}
	b.Messages = func(s *Split, ms []Message) Time {
		highest := NoTime
		for i := range ms {
			if *env.Failed {
				break
			}
			m := &ms[i]
			r = Rec[T]{Time: m.Time, Headers: m.Headers, Origin: Origin{Split: s, Offset: m.Offset}}
			if onBus && m.Key != nil {
				r.Key = MakeKey(m.Key)
			}
			if err := decode(m, &r); err != nil {
				env.Reject(*m, r.Origin, err)
				continue
			}
			highest = max(highest, r.Time)
			emit(&r)
		}
		return highest
	}
	adopt := adoptRecs[T]
	if in.Adopt != nil {
		adopt = in.Adopt(env)
	}
	b.Payload = func(s *Split, base int64, payload any, from, to int) (Time, bool) {
		at, ok := adopt(payload)
		if !ok {
			return NoTime, false
		}
		highest := NoTime
		for i := from; i < to && !*env.Failed; i++ {
			at(i, &r)
			r.Origin = Origin{Split: s, Offset: base + int64(i-from)}
			highest = max(highest, r.Time)
			emit(&r)
		}
		return highest, true
	}
	return b, nil
}

func adoptRecs[T any](payload any) (func(int, *Rec[T]), bool) {
	rs, ok := payload.([]Rec[T])
	return func(i int, r *Rec[T]) { *r = rs[i] }, ok
}

// Output is a typed end: a sink outside the process, or a topic on the bus.
type Output[T any] struct {
	Name        string
	Sink        Sink   // nil for a topic on the bus
	Topic       string // on the bus
	Parallelism int
	Encode      func(dst []byte, v T) ([]byte, error) // nil means as the stream says
	// Key makes the key that goes along: on the bus an encoded one, which decides the partition. nil means the record's.
	Key func(env *Env) func(r *Rec[T]) (Key, error)
	// OutKey makes the bytes that a sink gets for a key; nil means the encoded key's.
	OutKey func(dst []byte, k Key) []byte
	Plain  bool // attach no values for readers in this process
}

// Write adds an output behind s.
func Write[T any](s *Stream[T], out Output[T]) {
	if out.Encode == nil {
		out.Encode = s.encode
	}
	if err := CheckName(out.Name); err != nil {
		s.job.fail("output: %w", err)
	}
	if out.Sink == nil {
		if err := CheckName(out.Topic); err != nil {
			s.job.fail("output %s: topic: %w", out.Name, err)
		}
	}
	kind := "bus-out"
	if out.Sink != nil {
		kind = out.Sink.Kind() + "-out"
	}
	s.job.add(&Node{
		ID: "out-" + out.Name, Kind: kind, In: []Edge{s.Edge()}, Parallelism: out.Parallelism,
		Output: &OutputSpec{Name: out.Name, Sink: out.Sink, Topic: out.Topic},
		Build:  func(env *Env, _ [][]any) (Built, error) { return buildOutput(env, out) },
	})
}

// DeadLetters adds an output that only on_error writes to.
func DeadLetters(j *Job, name string, sink Sink, topic string) {
	kind := "bus-out"
	if sink != nil {
		kind = sink.Kind() + "-out"
	}
	j.add(&Node{ID: "out-" + name, Kind: kind, Output: &OutputSpec{Name: name, Sink: sink, Topic: topic},
		Build: func(*Env, [][]any) (Built, error) { return Built{}, nil }})
}

func buildOutput[T any](env *Env, out Output[T]) (Built, error) {
	var key func(*Rec[T]) (Key, error)
	if out.Key != nil {
		key = out.Key(env)
	}
	var values [][]Rec[T]
	if out.Sink == nil && !out.Plain {
		values = make([][]Rec[T], env.Out.Partitions())
		env.Out.Payload(func(p int) any {
			v := values[p]
			values[p] = make([]Rec[T], 0, len(v)+len(v)/16) // about as many again
			return v
		})
	}
	var scratch, keyScratch []byte
	var m Message // here, where it is allocated once
	in := func(r *Rec[T]) {
		if *env.Failed {
			return
		}
		k, err := r.Key, error(nil)
		if key != nil {
			k, err = key(r)
		}
		if err == nil {
			scratch, err = out.Encode(scratch[:0], r.Value)
		}
		m = Message{Key: k.Bytes, Value: scratch, Time: r.Time, Headers: r.Headers}
		if n := len(m.Key) + len(m.Value); err == nil && n > RecordBytesMax {
			err = fmt.Errorf("a record of %d bytes; at most %d can be written", n, RecordBytesMax)
		}
		if err != nil {
			env.Reject(m, r.Origin, err)
			return
		}
		if out.Sink != nil && out.OutKey != nil && !k.IsZero() {
			keyScratch = out.OutKey(keyScratch[:0], k)
			m.Key = keyScratch
		}
		p := env.Out.Write(&m, k)
		if values != nil {
			v := *r
			v.Key = k
			values[p] = append(values[p], v)
		}
	}
	return Built{In: in}, nil
}
