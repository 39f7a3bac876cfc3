package bench

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/runtime"
)

// FivePlusOneConfig tunes the measurement; the zero value is a good one.
type FivePlusOneConfig struct {
	Records int64    // in each of the five topics; 0 means 1,000,000
	Brokers []string // that hold the topics already; none starts a broker and loads it
	Dir     string   // for data directories; "" means a temporary one
}

// sensorForms are the ways in which the workload is written.
var sensorForms = []struct {
	name  string
	build func(brokers []string) ([]*jobs.Job, error)
}{
	{"Go", func(brokers []string) ([]*jobs.Job, error) { return goSensorJobs(brokers), nil }},
	{"YAML", yamlSensorJobs},
}

// pass is one way through the workload.
type pass struct {
	records int64
	cpu     time.Duration
	wall    time.Duration
}

func (p pass) plus(q pass) pass { return pass{p.records + q.records, p.cpu + q.cpu, p.wall + q.wall} }

func (p pass) perCore() float64 { return float64(p.records) / p.cpu.Seconds() }
func (p pass) perWall() float64 { return float64(p.records) / p.wall.Seconds() }

// FivePlusOne reads five Kafka topics of sensor readings with five jobs that hand what is high to a sixth over the bus, and
// reads the same topics with a hand-written loop (franz-go, a one-pass scan, a map; no state that survives, no side output,
// no log). What counts is records per second and core of this process.
func FivePlusOne(ctx context.Context, cfg FivePlusOneConfig) (rep *Report, err error) {
	if cfg.Records == 0 {
		cfg.Records = 1_000_000
	}
	if cfg.Dir == "" {
		if cfg.Dir, err = os.MkdirTemp("", "sidestream-bench-"); err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(cfg.Dir)) }()
	}
	if len(cfg.Brokers) == 0 {
		brokers, stop, err := startBroker(cfg.Records)
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, stop()) }()
		cfg.Brokers = brokers
	}
	rep = newReport("five-plus-one", "five jobs read a Kafka topic each and hand side outputs to a sixth over the durable bus", cfg.Dir)
	passes := map[string]pass{}
	for _, f := range sensorForms {
		loop, err := handWritten(ctx, cfg, nil) // once before each form: a machine is not always equally quick
		if err != nil {
			return nil, err
		}
		passes["loop"] = passes["loop"].plus(loop)
		if passes[f.name], err = sixJobs(ctx, cfg, f.build); err != nil {
			return nil, fmt.Errorf("%s form: %w", f.name, err)
		}
	}
	loop := passes["loop"]
	rep.figure("hand-written loop, per core", loop.perCore(), "records/s")
	rep.figure("hand-written loop, wall", loop.perWall(), "records/s")
	for _, f := range sensorForms {
		p := passes[f.name]
		rep.figure(f.name+" form, per core", p.perCore(), "records/s")
		rep.figure(f.name+" form, wall", p.perWall(), "records/s")
		rep.atLeast(f.name+" form ÷ hand-written loop, per core", p.perCore()/loop.perCore(), 0.5)
	}
	return rep, nil
}

// handWritten reads the topics with a goroutine each, and gives emit, which may be nil, each window that is over.
func handWritten(ctx context.Context, cfg FivePlusOneConfig, emit func(kind string, p sensorPane)) (pass, error) {
	began, cpu := time.Now(), cpuTime()
	var wg sync.WaitGroup
	errs := make([]error, len(sensorKinds))
	var total atomic.Int64
	for t, kind := range sensorKinds {
		wg.Add(1)
		go func() {
			defer wg.Done()
			n, err := handLoop(ctx, cfg, kind, emit)
			total.Add(n)
			errs[t] = err
		}()
	}
	wg.Wait()
	return pass{total.Load(), cpuTime() - cpu, time.Since(began)}, errors.Join(errs...)
}

func handLoop(ctx context.Context, cfg FivePlusOneConfig, kind string, emit func(kind string, p sensorPane)) (int64, error) {
	cl, err := kgo.NewClient(kgo.SeedBrokers(cfg.Brokers...), kgo.FetchMaxBytes(8<<20), kgo.FetchMaxPartitionBytes(1<<20),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{"in-" + kind: {0: kgo.NewOffset().AtStart()}}))
	if err != nil {
		return 0, err
	}
	defer cl.Close()
	type cell struct {
		n        int64
		sum, max float64
	}
	type window struct {
		device string
		start  int64
	}
	windows := map[window]*cell{}
	n, watermark := int64(0), int64(0)
	fire := func(upTo int64) {
		for w, c := range windows {
			if w.start+sensorWindow.Milliseconds() > upTo {
				continue
			}
			if emit != nil {
				emit(kind, sensorPane{w.device, w.start, c.n, c.sum, c.max})
			}
			delete(windows, w)
		}
	}
	for n < cfg.Records {
		fs := cl.PollFetches(ctx)
		if err := fs.Err(); err != nil {
			return n, err
		}
		for it := fs.RecordIter(); !it.Done(); {
			s, err := scanSensor(it.Next().Value)
			if err != nil {
				return n, err
			}
			n++
			if s.kind != kind || s.reading < 5 {
				continue
			}
			w := window{s.device, s.ts - s.ts%sensorWindow.Milliseconds()}
			c := windows[w]
			if c == nil {
				c = &cell{max: s.reading}
				windows[w] = c
			}
			c.n++
			c.sum += s.reading
			c.max = max(c.max, s.reading)
			if wm := s.ts - 500; wm/sensorWindow.Milliseconds() > watermark/sensorWindow.Milliseconds() {
				fire(wm)
				watermark = wm
			}
		}
	}
	fire(math.MaxInt64)
	return n, nil
}

// sixJobs runs the six jobs until every window is out.
func sixJobs(ctx context.Context, cfg FivePlusOneConfig, build func([]string) ([]*jobs.Job, error)) (p pass, err error) {
	defs, err := build(cfg.Brokers)
	if err != nil {
		return p, err
	}
	dir, err := os.MkdirTemp(cfg.Dir, "run-")
	if err != nil {
		return p, err
	}
	began, cpu := time.Now(), cpuTime()
	rt, err := runtime.Open(runtime.Config{DataDir: dir})
	if err != nil {
		return p, err
	}
	if err := errors.Join(rt.Start(defs), rt.Wait(ctx, true)); err != nil {
		return p, errors.Join(err, rt.Stop())
	}
	p = pass{cfg.Records * int64(len(sensorKinds)), cpuTime() - cpu, time.Since(began)}
	return p, rt.Stop()
}
