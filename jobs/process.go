package jobs

import (
	"errors"
	"fmt"
)

// None is the type of a port that emits nothing.
type None = struct{}

// Step is one subtask's instance of a Process step, in the hands of its own functions. Key, Time and the state handles
// speak of the record, or the timer, in hand. It is for the goroutine that calls those functions.
type Step[K, In, Out, Side any] struct {
	// OnRecord handles a record. An error is the record's: what it did to state and timers is undone and what it emitted
	// is not sent on, unless the source's on_error is to fail, which fails the attempt anyway.
	OnRecord func(v In) error
	// OnTimer handles a timer that the watermark has reached. An error fails the attempt.
	OnTimer func(at Time) error

	cur       cursor
	keys      KeyCodec[K]
	key       Key
	typed     K
	decoded   bool
	rec       *Rec[In] // nil while a timer is handled
	time      Time
	watermark Watermark
	timers    *Timers
	emit      func(*Rec[Out])
	side      func(*Rec[Side])
	out       Rec[Out]
	aside     Rec[Side]
}

func (s *Step[K, In, Out, Side]) cursor() *cursor { return &s.cur }

// Env tells where the step runs.
func (s *Step[K, In, Out, Side]) Env() *Env { return s.cur.env }

// Key returns the key of the record or timer in hand.
func (s *Step[K, In, Out, Side]) Key() K {
	if !s.decoded {
		s.typed, s.decoded = decodeKey(s.keys, s.key), true
	}
	return s.typed
}

// decodeKey is for keys that have been checked.
func decodeKey[K any](c KeyCodec[K], key Key) K {
	k, err := c.Decode(key.Bytes)
	if err != nil {
		panic(err) // the attempt's failure: a record with such a key has been refused, so state is damaged
	}
	return k
}

// Time returns the event time of the record, or the timer's.
func (s *Step[K, In, Out, Side]) Time() Time { return s.time }

// Watermark returns how far event time has come.
func (s *Step[K, In, Out, Side]) Watermark() Watermark { return s.watermark }

// Record returns the record in hand with its envelope, nil in OnTimer. It is valid during OnRecord.
func (s *Step[K, In, Out, Side]) Record() *Rec[In] { return s.rec }

// Emit sends v on the main port, with the time, the key and, of a record, the headers of what is in hand.
func (s *Step[K, In, Out, Side]) Emit(v Out) { s.EmitAt(v, s.time) }

// EmitAt is Emit with an event time of its own.
func (s *Step[K, In, Out, Side]) EmitAt(v Out, at Time) {
	s.out = Rec[Out]{Value: v, Time: at, Key: s.key}
	if s.rec != nil {
		s.out.Headers, s.out.Origin = s.rec.Headers, s.rec.Origin
	}
	s.emit(&s.out)
}

// Side sends v on the second port, as Emit does on the main one.
func (s *Step[K, In, Out, Side]) Side(v Side) {
	s.aside = Rec[Side]{Value: v, Time: s.time, Key: s.key}
	if s.rec != nil {
		s.aside.Headers, s.aside.Origin = s.rec.Headers, s.rec.Origin
	}
	s.side(&s.aside)
}

// SetTimer makes OnTimer be called for the key in hand when the watermark reaches at: once, however often it is set. A
// time that the watermark has reached already goes off when the watermark next moves.
func (s *Step[K, In, Out, Side]) SetTimer(at Time) {
	if s.timers == nil {
		panic("jobs: SetTimer in a step without OnTimer")
	}
	s.timers.Set(s.key, at)
}

// DeleteTimer takes a timer of the key in hand back, and reports whether it was set.
func (s *Step[K, In, Out, Side]) DeleteTimer(at Time) bool {
	return s.timers != nil && s.timers.Delete(s.key, at)
}

// Process adds a step that keeps state by key. setup is called once a subtask and attempt: it opens the state handles
// and sets OnRecord and, where timers are wanted, OnTimer. The stream must be keyed, by a key that reads as a K:
//
//	visits, _ := jobs.Process(clicks, func(s *jobs.Step[string, Click, Visit, jobs.None]) {
//		open := jobs.ValueOf[Visit](s, "open")
//		s.OnRecord = func(c Click) error { … }
//		s.OnTimer = func(at jobs.Time) error { … }
//	})
func Process[K, In, Out, Side any](in *Stream[In], setup func(s *Step[K, In, Out, Side]), opts ...Option) (*Stream[Out], *Stream[Side]) {
	o := optionsOf(in.job, opts)
	out, side := Attach(in, Op[In, Out, Side]{
		Kind: "process", ID: o.id, Parallelism: o.parallelism, Keyed: true,
		New: func(env *Env, emit func(*Rec[Out]), side func(*Rec[Side])) (Instance[In], error) {
			s := &Step[K, In, Out, Side]{
				cur:  cursor{env: env, names: map[string]bool{}},
				keys: NewKeyCodec[K](), watermark: env.Restored, emit: emit, side: side,
			}
			setup(s)
			switch {
			case s.cur.err != nil:
				return Instance[In]{}, s.cur.err
			case s.OnRecord == nil:
				return Instance[In]{}, errors.New("its setup sets no OnRecord")
			}
			i := Instance[In]{Process: s.process}
			if s.OnTimer != nil {
				s.timers = NewTimers(env.Table("timers"))
			}
			i.Watermark = s.advance
			return i, nil
		},
	})
	out.node.KeyType, out.keyType, side.keyType = keyType[K](), keyType[K](), keyType[K]()
	return out, side
}

// stand makes key the one in hand.
func (s *Step[K, In, Out, Side]) stand(key Key, at Time) {
	s.key, s.cur.group, s.cur.key, s.decoded, s.time = key, key.Group, key.Bytes, false, at
}

func (s *Step[K, In, Out, Side]) process(r *Rec[In]) error {
	s.stand(r.Key, r.Time)
	k, err := s.keys.Decode(r.Key.Bytes)
	if err != nil {
		return err
	}
	s.typed, s.decoded, s.rec = k, true, r
	return s.OnRecord(r.Value)
}

func (s *Step[K, In, Out, Side]) advance(w Watermark) error {
	s.watermark = max(s.watermark, w)
	if s.timers == nil {
		return nil
	}
	s.rec = nil
	return s.timers.Advance(s.watermark, func(key Key, at Time) error {
		if *s.cur.env.Failed {
			return nil
		}
		s.stand(key, at)
		if err := s.OnTimer(at); err != nil {
			return fmt.Errorf("timer %v of key %s: %w", at, key.Bytes, err)
		}
		return nil
	})
}
