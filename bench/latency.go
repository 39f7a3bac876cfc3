package bench

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/runtime"
)

// ticker is a source that gives rate records a second: each the time at which it was given, or values in turn.
type ticker struct {
	rate   int
	lasts  time.Duration // from when it is opened: a slow start takes none of it; zero: without end
	values [][]byte
}

func (t ticker) Kind() string   { return "ticker" }
func (t ticker) Bounded() bool  { return t.lasts > 0 }
func (t ticker) String() string { return fmt.Sprintf("%d/s", t.rate) }

func (t ticker) Splits(context.Context, jobs.SourceEnv) ([]jobs.Start, error) {
	return []jobs.Start{{Split: jobs.Split{ID: "ticks"}}}, nil
}

func (t ticker) Open(_ context.Context, _ jobs.SourceEnv, starts []jobs.Start) (jobs.Reader, error) {
	r := &tickReader{t: t, ready: make(chan struct{}, 1), began: time.Now(), done: make(chan struct{})}
	if p := starts[0].Position; len(p) == 8 {
		r.given = int64(binary.LittleEndian.Uint64(p))
	}
	r.base = r.given
	r.wg.Add(1)
	go r.tick()
	return r, nil
}

type tickReader struct {
	t           ticker
	ready       chan struct{}
	began       time.Time
	given, base int64
	done        chan struct{}
	wg          sync.WaitGroup
}

// tick wakes the reader when the next record is due, at most every 200 µs.
func (r *tickReader) tick() {
	defer r.wg.Done()
	every := max(time.Second/time.Duration(r.t.rate), 200*time.Microsecond)
	tk := time.NewTicker(every)
	defer tk.Stop()
	for {
		select {
		case <-tk.C:
			select {
			case r.ready <- struct{}{}:
			default:
			}
		case <-r.done:
			return
		}
	}
}

func (r *tickReader) Read(c *jobs.Chunk, _ []int) error {
	now := time.Now()
	due := r.base + int64(now.Sub(r.began).Seconds()*float64(r.t.rate))
	for r.given < due && len(c.Messages) < c.Max {
		m := jobs.Message{Time: jobs.TimeOf(now), Offset: r.given}
		if n := int64(len(r.t.values)); n > 0 {
			m.Value = r.t.values[r.given%n]
		} else {
			m.Value = binary.LittleEndian.AppendUint64(make([]byte, 0, 8), uint64(now.UnixNano()))
		}
		c.Messages = append(c.Messages, m)
		r.given++
	}
	c.Position = binary.LittleEndian.AppendUint64(nil, uint64(r.given))
	c.Ended = r.t.Bounded() && now.Sub(r.began) >= r.t.lasts
	return nil
}

func (r *tickReader) Ready() <-chan struct{} { return r.ready }

func (r *tickReader) Close() error {
	close(r.done)
	r.wg.Wait()
	return nil
}

// stopwatch collects how long records took, from their value to now.
type stopwatch struct {
	mu    sync.Mutex
	times []time.Duration
}

func (s *stopwatch) add(sent int64) {
	d := time.Duration(time.Now().UnixNano() - sent)
	s.mu.Lock()
	s.times = append(s.times, d)
	s.mu.Unlock()
}

// quantiles returns the median and the 99th percentile after the first quarter, which warms up.
func (s *stopwatch) quantiles() (p50, p99 time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return quantiles(s.times[len(s.times)/4:])
}

// all returns the same of everything that was taken down.
func (s *stopwatch) all() (p50, p99 time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return quantiles(s.times)
}

func quantiles(times []time.Duration) (p50, p99 time.Duration) {
	t := slices.Clone(times)
	if len(t) == 0 {
		return 0, 0
	}
	slices.Sort(t)
	return t[len(t)/2], t[len(t)*99/100]
}

// watchSink times the records that leave the process, which are durable by then.
type watchSink struct{ watch *stopwatch }

func (s watchSink) Kind() string       { return "stopwatch" }
func (s watchSink) ExactlyOnce() error { return errors.New("it only looks at a clock") }
func (s watchSink) Open(context.Context, jobs.SinkEnv) (jobs.Writer, error) {
	return watchWriter(s), nil
}

type watchWriter struct{ watch *stopwatch }

func (w watchWriter) Write(_ context.Context, ms []jobs.Message) ([]byte, error) {
	for _, m := range ms {
		w.watch.add(int64(binary.LittleEndian.Uint64(m.Value)))
	}
	return nil, nil
}

func (w watchWriter) Close() error { return nil }

// Latency hands records from one job to another over the bus at fixed rates, and times them from the source of the first to a
// function of the second (sealed), and to a sink of the first (durable).
func Latency(ctx context.Context, dir string, each time.Duration) (rep *Report, err error) {
	if dir == "" {
		if dir, err = os.MkdirTemp("", "sidestream-bench-"); err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	}
	rep = newReport("latency", "records from the source of one job to a step of another, over the bus, at fixed rates", dir)
	for _, rate := range []int{100, 50_000, 200_000} {
		sealed, durable, err := latencyAt(ctx, dir, rate, each)
		if err != nil {
			return nil, err
		}
		s50, s99 := sealed.quantiles()
		d50, d99 := durable.quantiles()
		micro := func(d time.Duration) float64 { return float64(d) / 1e3 }
		rep.figure(fmt.Sprintf("sealed p50 at %d/s", rate), micro(s50), "µs")
		rep.figure(fmt.Sprintf("sealed p99 at %d/s", rate), micro(s99), "µs")
		rep.figure(fmt.Sprintf("durable p50 at %d/s", rate), micro(d50), "µs")
		rep.figure(fmt.Sprintf("durable p99 at %d/s", rate), micro(d99), "µs")
		if rate == 100 {
			rep.atMost("sealed p50 at 100/s, µs", micro(s50), 100)
		}
	}
	return rep, nil
}

func latencyAt(ctx context.Context, dir string, rate int, each time.Duration) (sealed, durable *stopwatch, err error) {
	sealed, durable = &stopwatch{}, &stopwatch{}
	topic := jobs.BusTopic[[]byte]{Name: "ticks", Codec: jobs.Bytes()}
	from := jobs.New("from")
	ticks := jobs.From(from, ticker{rate: rate, lasts: each}, jobs.Bytes())
	jobs.ToTopic(ticks, topic)
	jobs.To(ticks, "out", watchSink{durable}, jobs.Bytes())
	to := jobs.New("to")
	jobs.Filter(jobs.FromTopic(to, topic), func(v []byte) bool {
		sealed.add(int64(binary.LittleEndian.Uint64(v)))
		return false
	})
	data, err := os.MkdirTemp(dir, "run-")
	if err != nil {
		return nil, nil, err
	}
	rt, err := runtime.Open(runtime.Config{DataDir: data})
	if err != nil {
		return nil, nil, err
	}
	err = errors.Join(rt.Start([]*jobs.Job{from, to}), rt.Wait(ctx, true))
	return sealed, durable, errors.Join(err, rt.Stop())
}
