package generator

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/jobs/connector"
)

const (
	defaultEventRate = 20_000
	defaultDevices   = 10_000
	maxSplits        = 1024
	maxDevices       = 10_000_000
	positionVersion  = 1
	positionLen      = 17
	blockBytes       = 256 << 10
	wakeMin          = time.Millisecond
)

// fixedStart is the event time of the first record where Rate does not tie the records to the clock.
const fixedStart = jobs.Time(1767225600000) // 2026-01-01T00:00:00Z

// Source makes Count records, or records for ever, over Partitions splits.
type Source struct {
	Rate       float64   // records a second in all; 0 means as fast as they are taken
	EventRate  float64   // records a second of event time in all; 0 means Rate, and 20,000 where that is 0 too
	Count      int64     // in all, after which the source ends; 0 means for ever
	Partitions int       // splits; 0 means 1
	Seed       uint64    // other seeds make other readings
	Devices    int       // of how many devices; 0 means 10,000
	Measure    string    // the readings' kind; "" means they take turns
	Start      jobs.Time // of the first record; 0 means now where there is a Rate, else 2026-01-01
	Template   string    // "" means the built-in shape
}

var _ jobs.Source = Source{}

func (s Source) withDefaults() (Source, error) {
	if s.Rate < 0 || s.EventRate < 0 || s.Count < 0 || s.Partitions < 0 || s.Devices < 0 {
		return s, errors.New("generator: a setting is negative")
	}
	if s.EventRate == 0 {
		s.EventRate = s.Rate
	}
	if s.EventRate == 0 {
		s.EventRate = defaultEventRate
	}
	if s.Partitions == 0 {
		s.Partitions = 1
	}
	if s.Devices == 0 {
		s.Devices = defaultDevices
	}
	if s.Devices > maxDevices {
		return s, fmt.Errorf("generator: devices %d are more than %d", s.Devices, maxDevices)
	}
	if s.Partitions > maxSplits {
		return s, fmt.Errorf("generator: partitions %d are more than %d", s.Partitions, maxSplits)
	}
	_, err := parseTemplate(s.Template)
	return s, err
}

// Kind returns "generator".
func (s Source) Kind() string { return "generator" }

// Bounded reports whether there is a Count.
func (s Source) Bounded() bool { return s.Count > 0 }

// Splits returns generator/0 and so on. The event time they begin at stands in the positions.
func (s Source) Splits(context.Context, jobs.SourceEnv) ([]jobs.Start, error) {
	s, err := s.withDefaults()
	if err != nil {
		return nil, err
	}

	start := s.Start
	if start == 0 {
		start = fixedStart
		if s.Rate > 0 {
			start = jobs.TimeOf(time.Now())
		}
	}
	starts := make([]jobs.Start, s.Partitions)
	for i := range starts {
		starts[i] = jobs.Start{
			Split:    jobs.Split{ID: "generator/" + strconv.Itoa(i), Topic: "generator", Partition: int32(i)},
			Position: position{start: start}.encode(),
		}
	}
	return starts, nil
}

type position struct {
	n     int64
	start jobs.Time
}

func (p position) encode() []byte {
	b := make([]byte, 0, positionLen)
	b = append(b, positionVersion)
	b = binary.LittleEndian.AppendUint64(b, uint64(p.n))
	return binary.LittleEndian.AppendUint64(b, uint64(p.start))
}

func decodePosition(b []byte) (position, error) {
	if len(b) != positionLen || b[0] != positionVersion {
		return position{}, fmt.Errorf("position %x is not one of a generator", b)
	}
	p := position{n: int64(binary.LittleEndian.Uint64(b[1:])), start: jobs.Time(binary.LittleEndian.Uint64(b[9:]))}
	if p.n < 0 {
		return position{}, fmt.Errorf("position %x does not hold together", b)
	}
	return p, nil
}

// Open returns a reader.
func (s Source) Open(_ context.Context, _ jobs.SourceEnv, starts []jobs.Start) (jobs.Reader, error) {
	s, err := s.withDefaults()
	if err != nil {
		return nil, err
	}
	shape, err := newShape(s)
	if err != nil {
		return nil, err
	}
	r := &reader{src: s, shape: shape, opened: time.Now(), ready: make(chan struct{}, 1),
		perMilli: s.EventRate / 1000 / float64(s.Partitions), perSecond: s.Rate / float64(s.Partitions)}
	for _, st := range starts {
		p, err := decodePosition(st.Position)
		if err != nil {
			return nil, fmt.Errorf("generator: %s: %w", st.Split.ID, err)
		}
		i := st.Split.Partition
		if i < 0 || int(i) >= s.Partitions {
			return nil, fmt.Errorf("generator: there is no %s among %d splits", st.Split.ID, s.Partitions)
		}
		sp := &split{index: uint64(i), pos: p, first: p.n, end: -1}
		if s.Count > 0 {
			sp.end = s.Count / int64(s.Partitions)
			if int64(i) < s.Count%int64(s.Partitions) {
				sp.end++
			}
		}
		r.splits = append(r.splits, sp)
	}
	r.ready <- struct{}{}
	return r, nil
}

type split struct {
	index uint64
	pos   position
	first int64 // of this reader: pacing starts here, so that a pause is not made up for
	end   int64 // -1 for none
}

type reader struct {
	src       Source
	shape     *shape
	splits    []*split
	perMilli  float64 // records of one split in a millisecond of event time
	perSecond float64 // of one split on the clock; 0 for any number
	opened    time.Time
	ready     chan struct{}
	timer     *time.Timer
	buf       []byte
}

func (r *reader) Ready() <-chan struct{} { return r.ready }

// Read makes the records that are due in the first wanted split that has any.
func (r *reader) Read(c *jobs.Chunk, want []int) error {
	wait := time.Duration(-1)
	elapsed := time.Duration(0)
	if r.perSecond > 0 {
		elapsed = time.Since(r.opened)
	}
	for _, i := range want {
		s := r.splits[i]
		n := int64(c.Max - len(c.Messages))
		if r.perSecond > 0 {
			due := s.first + int64(elapsed.Seconds()*r.perSecond) - s.pos.n
			if due <= 0 && s.pos.n != s.end {
				at := time.Duration(float64(s.pos.n-s.first+1) / r.perSecond * float64(time.Second))
				if w := at - elapsed; wait < 0 || w < wait {
					wait = w
				}
				continue
			}
			n = min(n, due)
		}
		if s.end >= 0 {
			n = min(n, s.end-s.pos.n)
		}
		for range n {
			r.make(c, s)
		}
		c.Split, c.Ended, c.Position = i, s.pos.n == s.end, s.pos.encode()
		return nil
	}
	if wait >= 0 {
		r.wake(max(wait, wakeMin))
	}
	return nil
}

func (r *reader) wake(after time.Duration) {
	if r.timer != nil {
		r.timer.Reset(after)
		return
	}
	r.timer = time.AfterFunc(after, func() {
		select {
		case r.ready <- struct{}{}:
		default:
		}
	})
}

func (r *reader) make(c *jobs.Chunk, s *split) {
	if cap(r.buf)-len(r.buf) < r.shape.maxLen {
		r.buf = make([]byte, 0, max(blockBytes, r.shape.maxLen))
	}
	n := s.pos.n
	rec := record{n: n, split: s.index, h: mix(r.src.Seed + mix(s.index<<48^uint64(n)))}
	rec.at = s.pos.start + jobs.Time(float64(n)/r.perMilli)
	from := len(r.buf)
	key := r.shape.append(&r.buf, &rec)
	c.Messages = append(c.Messages, jobs.Message{Key: key, Value: r.buf[from:len(r.buf):len(r.buf)], Time: rec.at, Offset: n})
	s.pos.n++
}

// Close stops the timer. A token it was about to give may still come.
func (r *reader) Close() error {
	if r.timer != nil {
		r.timer.Stop()
	}
	return nil
}

// mix is the finalizer of splitmix64 (Steele et al., "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014).
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// SourceKind describes the source to a registry.
func SourceKind() connector.SourceKind {
	return connector.SourceKind{
		Name: "generator",
		Doc:  "Makes up records: sensor readings as JSON, or what a template says.",
		Fields: []connector.Field{
			{Name: "rate", Kind: connector.Int, Doc: "Records a second; without it as fast as they are taken."},
			{Name: "event_rate", Kind: connector.Int, Doc: "Records a second of event time; rate if not given, and 20000 without one."},
			{Name: "count", Kind: connector.Int, Doc: "Ends the source after so many records; without it there is no end."},
			{Name: "partitions", Kind: connector.Int, Default: "1", Doc: "Into how many splits the records are divided."},
			{Name: "seed", Kind: connector.Int, Doc: "Another seed makes other readings."},
			{Name: "devices", Kind: connector.Int, Default: "10000", Doc: "How many devices the readings are of."},
			{Name: "kind", Kind: connector.String, Doc: "The kind of all readings; without it each device has one of five."},
			{Name: "start", Kind: connector.String,
				Doc: "Event time of the first record, such as 2026-01-31T00:00:00Z; without it now where there is a rate, else the beginning of 2026."},
			{Name: "template", Kind: connector.String,
				Doc: "The record instead of a reading, with ${n} ${split} ${ts} ${time} ${device} ${kind} ${reading} ${random} in it."},
		},
		Encoding: func(v connector.Values) connector.Encoding {
			if v.String("template") != "" {
				return connector.AnyBytes
			}
			return connector.JSON
		},
		New: func(v connector.Values, _ connector.LoadEnv) (jobs.Source, error) {
			s := Source{
				Rate: float64(v.Int("rate")), EventRate: float64(v.Int("event_rate")), Count: v.Int("count"),
				Partitions: int(v.Int("partitions")), Seed: uint64(v.Int("seed")), Devices: int(v.Int("devices")),
				Measure: v.String("kind"), Template: v.String("template"),
			}
			if at := v.String("start"); at != "" {
				t, err := time.Parse(time.RFC3339, at)
				if err != nil {
					return nil, &connector.FieldError{Field: "start", Msg: "is not a time", Hint: "write it as 2026-01-31T00:00:00Z"}
				}
				s.Start = jobs.TimeOf(t)
			}
			if v.Int("partitions") < 1 || v.Int("partitions") > maxSplits {
				return nil, &connector.FieldError{Field: "partitions", Msg: fmt.Sprintf("is not between 1 and %d", maxSplits)}
			}
			if v.Int("devices") < 1 || v.Int("devices") > maxDevices {
				return nil, &connector.FieldError{Field: "devices", Msg: fmt.Sprintf("is not between 1 and %d", maxDevices)}
			}
			if _, err := s.withDefaults(); err != nil {
				return nil, &connector.FieldError{Field: "template", Msg: err.Error()}
			}
			return s, nil
		},
	}
}
