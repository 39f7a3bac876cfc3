package bench

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/jobs/connector/kafka"
	"github.com/sidestream-dev/sidestream/jobs/operator"
	"github.com/sidestream-dev/sidestream/runtime"
)

// sickness is what befalls the fifth of five jobs, or comes beside them.
type sickness string

const (
	healthy    sickness = "undisturbed"
	panicking  sickness = "a job that panics"
	stuck      sickness = "a job stuck in its own code"
	slowReader sickness = "a slow reader of their topic"
	deadBroker sickness = "a job whose broker dies"
)

const sickKind = len(sensorKinds) - 1

// Isolation runs five jobs that window readings and tell a sixth of the high ones, at half of the rate that they reach
// undisturbed, and compares the rate of the four healthy jobs and of the sixth, beside a sick one, with an undisturbed run.
func Isolation(ctx context.Context, dir string, each time.Duration) (rep *Report, err error) {
	if dir == "" {
		if dir, err = os.MkdirTemp("", "sidestream-bench-"); err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	}
	rep = newReport("isolation", "four healthy jobs and a sixth that hears of them, paced at half of what they can do, beside a sick one", dir)
	most, err := isolated(ctx, dir, healthy, math.MaxInt32, each)
	if err != nil {
		return nil, err
	}
	rep.figure("undisturbed, not paced", most.records, "records/s")
	rate := max(1, int(most.records/float64(sickKind)/2))
	rep.figure("pace of each job", float64(rate), "records/s")
	calm, err := isolated(ctx, dir, healthy, rate, each)
	if err != nil {
		return nil, err
	}
	rep.figure("undisturbed", calm.records, "records/s")
	rep.figure("undisturbed, the sixth", calm.heard, "records/s")
	for _, sick := range []sickness{panicking, stuck, slowReader, deadBroker} {
		got, err := isolated(ctx, dir, sick, rate, each)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", sick, err)
		}
		rep.figure("beside "+string(sick), got.records, "records/s")
		rep.figure("beside "+string(sick)+", the sixth", got.heard, "records/s")
		rep.atLeast("beside "+string(sick)+" ÷ undisturbed", got.records/calm.records, 0.9)
		rep.atLeast("beside "+string(sick)+" ÷ undisturbed, the sixth", got.heard/calm.heard, 0.9)
	}
	return rep, nil
}

// healthyRate is what the four healthy jobs took in, and the sixth of them, per second.
type healthyRate struct{ records, heard float64 }

// isolated runs the six jobs for a while, at a rate for each of the five, and counts in the last three quarters of it.
func isolated(ctx context.Context, dir string, sick sickness, rate int, each time.Duration) (out healthyRate, err error) {
	var taken, heard atomic.Int64
	release := make(chan struct{}) // lets a stuck step go, so that the run can end
	topic := sensorSignalTopic("signals")
	var defs []*jobs.Job
	end := func() {}
	defer func() { end() }()
	for k, kind := range sensorKinds {
		var src jobs.Source = ticker{rate: rate, values: sensorValues(k)}
		disturb := func(s sensor) sensor { taken.Add(1); return s }
		if k == sickKind {
			disturb = disturbance(sick, release)
			if sick == deadBroker {
				brokers, kill, err := mortalBroker(k)
				if err != nil {
					return out, err
				}
				end = kill
				src = kafka.Source{Brokers: brokers, Topics: []string{"in"}}
			}
		}
		defs = append(defs, isolationJob(kind, src, disturb, topic))
	}
	sixth := jobs.New("sixth")
	jobs.Filter(jobs.FromTopic(sixth, topic), func(s sensorSignal) bool {
		if s.kind != sensorKinds[sickKind] {
			heard.Add(1)
		}
		return false
	})
	defs = append(defs, sixth)
	if sick == slowReader {
		slow := jobs.New("slow")
		jobs.Filter(jobs.FromTopic(slow, topic), func(sensorSignal) bool { time.Sleep(time.Millisecond); return false })
		defs = append(defs, slow)
	}
	data, err := os.MkdirTemp(dir, "run-")
	if err != nil {
		return out, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(data)) }()
	rt, err := runtime.Open(runtime.Config{DataDir: data})
	if err != nil {
		return out, err
	}
	if err := rt.Start(defs); err != nil {
		return out, errors.Join(err, rt.Stop())
	}
	defer func() {
		close(release)
		err = errors.Join(err, rt.Stop())
	}()
	if err := sleep(ctx, each/8); err != nil {
		return out, err
	}
	end() // the broker dies while its job reads
	end = func() {}
	if err := sleep(ctx, each/8); err != nil {
		return out, err
	}
	began, t0, h0 := time.Now(), taken.Load(), heard.Load()
	if err := sleep(ctx, each-each/4); err != nil {
		return out, err
	}
	s := time.Since(began).Seconds()
	return healthyRate{float64(taken.Load()-t0) / s, float64(heard.Load()-h0) / s}, nil
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// isolationJob windows readings and tells of the high ones.
func isolationJob(name string, src jobs.Source, disturb func(sensor) sensor, topic jobs.BusTopic[sensorSignal]) *jobs.Job {
	j := jobs.New(name)
	in := jobs.Map(jobs.From(j, src, jobs.Codec[sensor]{Decode: scanSensor},
		jobs.EventTime(func(s sensor) time.Time { return time.UnixMilli(s.ts) }, 500*time.Millisecond)), disturb)
	jobs.ToTopic(jobs.Map(jobs.Filter(in, func(s sensor) bool { return s.reading > 90 }), func(s sensor) sensorSignal {
		return sensorSignal{s.device, s.kind, s.ts, s.reading}
	}), topic)
	operator.Tumbling(jobs.KeyBy(in, func(s sensor) string { return s.device }), sensorWindow,
		operator.Aggregates(func(_ string, p *operator.Pane) int64 { return p.Int(0) }, operator.Count[sensor]()))
	return j
}

// disturbance is the sick job's step.
func disturbance(sick sickness, release <-chan struct{}) func(sensor) sensor {
	n := 0
	return func(s sensor) sensor {
		n++
		switch {
		case sick == panicking && n%10_000 == 0:
			panic("sick on purpose")
		case sick == stuck && n == 10_000:
			<-release
		}
		return s
	}
}

// sensorValues are some thousand readings to be given in turn.
func sensorValues(topic int) [][]byte {
	rng := rand.New(rand.NewPCG(uint64(topic), 1))
	out := make([][]byte, 4096)
	for i := range out {
		out[i] = appendSensor(nil, topic, int64(i), sensorPerMS, rng)
	}
	return out
}

// mortalBroker is a broker in this process with some readings; kill ends it.
func mortalBroker(kind int) (brokers []string, kill func(), err error) {
	c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "in"))
	if err != nil {
		return nil, nil, err
	}
	cl, err := kgo.NewClient(kgo.SeedBrokers(c.ListenAddrs()...))
	if err != nil {
		c.Close()
		return nil, nil, err
	}
	defer cl.Close()
	for _, v := range sensorValues(kind) {
		cl.Produce(context.Background(), &kgo.Record{Topic: "in", Value: v}, nil)
	}
	if err := cl.Flush(context.Background()); err != nil {
		c.Close()
		return nil, nil, err
	}
	return c.ListenAddrs(), c.Close, nil
}
