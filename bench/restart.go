package bench

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/jobs/operator"
	"github.com/sidestream-dev/sidestream/runtime"
)

// numbers is a source that counts up as fast as it is read, without end.
type numbers struct{ first *atomic.Int64 } // when the first record was read, in Unix nanoseconds

func (numbers) Kind() string   { return "numbers" }
func (numbers) Bounded() bool  { return false }
func (numbers) String() string { return "" }

func (numbers) Splits(context.Context, jobs.SourceEnv) ([]jobs.Start, error) {
	return []jobs.Start{{Split: jobs.Split{ID: "numbers"}}}, nil
}

func (s numbers) Open(_ context.Context, _ jobs.SourceEnv, starts []jobs.Start) (jobs.Reader, error) {
	r := &numberReader{s: s, ready: make(chan struct{})}
	if p := starts[0].Position; len(p) == 8 {
		r.next = binary.LittleEndian.Uint64(p)
	}
	return r, nil
}

type numberReader struct {
	s     numbers
	next  uint64
	ready chan struct{}
}

func (r *numberReader) Read(c *jobs.Chunk, _ []int) error {
	r.s.first.CompareAndSwap(0, time.Now().UnixNano())
	block := make([]byte, 8*c.Max)
	for i := range c.Max {
		v := block[8*i : 8*i+8 : 8*i+8]
		binary.LittleEndian.PutUint64(v, r.next)
		c.Messages = append(c.Messages, jobs.Message{Value: v, Time: jobs.Time(r.next / 1000), Offset: int64(r.next)})
		r.next++
	}
	c.Position = binary.LittleEndian.AppendUint64(nil, r.next)
	return nil
}

func (r *numberReader) Ready() <-chan struct{} { return r.ready }
func (r *numberReader) Close() error           { return nil }

// restartJobs keeps a count for each of keys keys and writes padded records to a topic, so that the log grows.
func restartJobs(first *atomic.Int64, keys uint64) []*jobs.Job {
	j := jobs.New("count")
	in := jobs.From(j, numbers{first}, jobs.Codec[uint64]{Decode: func(b []byte) (uint64, error) { return binary.LittleEndian.Uint64(b), nil }})
	keyed := jobs.KeyBy(in, func(v uint64) int64 { return int64(v * 0x9E3779B97F4A7C15 >> 20 % keys) })
	operator.Tumbling(keyed, 24*time.Hour, operator.Aggregates(func(k int64, p *operator.Pane) int64 { return p.Int(0) },
		operator.Count[uint64](), operator.Sum(func(v uint64) float64 { return float64(v) })))
	pad := make([]byte, 250)
	jobs.ToTopic(jobs.Map(in, func(v uint64) []byte { return pad }), jobs.BusTopic[[]byte]{Name: "padded", Codec: jobs.Bytes(),
		Topic: jobs.Topic{RetentionBytes: 2 << 30}})
	return []*jobs.Job{j}
}

// Restart fills a log, stops, and times how long opening it again takes until records are processed: finding the tail, the
// catalog, the newest snapshot and the epochs behind it. logBytes and keys 0 mean 1 GiB and a million.
func Restart(ctx context.Context, dir string, logBytes int64, keys uint64) (rep *Report, err error) {
	if logBytes == 0 {
		logBytes = 1 << 30
	}
	if keys == 0 {
		keys = 1_000_000
	}
	if dir == "" {
		if dir, err = os.MkdirTemp("", "sidestream-bench-"); err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	}
	rep = newReport("restart", "from opening the data directory until the first record is processed", dir)
	data, err := os.MkdirTemp(dir, "run-")
	if err != nil {
		return nil, err
	}
	if err := fillLog(ctx, data, logBytes, keys, rep); err != nil {
		return nil, err
	}
	var first atomic.Int64
	began := time.Now()
	rt, err := runtime.Open(runtime.Config{DataDir: data})
	if err != nil {
		return nil, err
	}
	opened := time.Now()
	if err := rt.Start(restartJobs(&first, keys)); err != nil {
		return nil, errors.Join(err, rt.Stop())
	}
	for first.Load() == 0 && ctx.Err() == nil {
		time.Sleep(time.Millisecond)
	}
	rep.figure("open", opened.Sub(began).Seconds(), "s")
	took := time.Unix(0, first.Load()).Sub(began).Seconds()
	rep.figure("to processing", took, "s")
	rep.atMost("seconds to processing", took, 1)
	return rep, errors.Join(ctx.Err(), rt.Stop())
}

func fillLog(ctx context.Context, data string, logBytes int64, keys uint64, rep *Report) error {
	var first atomic.Int64
	rt, err := runtime.Open(runtime.Config{DataDir: data})
	if err != nil {
		return err
	}
	if err := rt.Start(restartJobs(&first, keys)); err != nil {
		return errors.Join(err, rt.Stop())
	}
	var st runtime.Status
	for st = rt.Status(); st.Log.Bytes < logBytes && ctx.Err() == nil; st = rt.Status() {
		time.Sleep(20 * time.Millisecond)
	}
	rep.figure("log", float64(st.Log.Bytes)/(1<<20), "MiB")
	rep.figure("state", float64(st.Jobs[0].StateBytes)/(1<<20), "MiB")
	rep.figure("records", float64(st.Jobs[0].Counters.In), "")
	if ctx.Err() != nil {
		err = fmt.Errorf("the log did not fill in time: %w", ctx.Err())
	}
	return errors.Join(err, rt.Stop())
}
