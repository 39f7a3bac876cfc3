package bench

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"time"

	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/jobs/operator"
	"github.com/sidestream-dev/sidestream/runtime"
)

const (
	overheadRate = 100_000
	overheadKeys = 1_000
)

// Overhead counts what the log takes for each input event beside bus records and outputs: a job counts and sums 100,000 events/s
// over 1,000 keys in windows of a minute, and writes nothing else.
func Overhead(ctx context.Context, dir string, d time.Duration) (rep *Report, err error) {
	if dir == "" {
		if dir, err = os.MkdirTemp("", "sidestream-bench-"); err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	}
	rep = newReport("overhead", "one job counts and sums 100,000 events/s over 1,000 keys; its log holds positions and state alone", dir)
	j := jobs.New("count")
	in := jobs.From(j, ticker{rate: overheadRate, lasts: d}, jobs.Codec[uint64]{
		Decode: func(b []byte) (uint64, error) { return binary.LittleEndian.Uint64(b), nil }})
	n := uint64(0)
	numbered := jobs.Map(in, func(uint64) uint64 { n++; return n })
	keyed := jobs.KeyBy(numbered, func(v uint64) int64 { return int64(v * 7919 % overheadKeys) })
	operator.Tumbling(keyed, time.Minute, operator.Aggregates(func(k int64, p *operator.Pane) int64 { return p.Int(0) },
		operator.Count[uint64](), operator.Sum(func(v uint64) float64 { return float64(v) })))
	data, err := os.MkdirTemp(dir, "run-")
	if err != nil {
		return nil, err
	}
	rt, err := runtime.Open(runtime.Config{DataDir: data})
	if err != nil {
		return nil, err
	}
	if err := errors.Join(rt.Start([]*jobs.Job{j}), rt.Wait(ctx, true)); err != nil {
		return nil, errors.Join(err, rt.Stop())
	}
	st := rt.Status()
	events := float64(st.Jobs[0].Counters.In)
	rep.figure("events", events, "")
	rep.figure("epochs", float64(st.Jobs[0].Counters.Epochs), "")
	rep.figure("log bytes", float64(st.Log.Stats.Bytes), "B")
	rep.atMost("log bytes per event", float64(st.Log.Stats.Bytes)/events, 40)
	return rep, rt.Stop()
}
