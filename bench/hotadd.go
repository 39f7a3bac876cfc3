package bench

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/jobs/operator"
	"github.com/sidestream-dev/sidestream/runtime"
)

const (
	hotPairs   = 5                     // of an undisturbed stretch and one with changes
	hotClients = 2                     // that change jobs at once
	hotGap     = 20 * time.Millisecond // between two changes of a client
)

// hotPair is what the others did undisturbed, and during changes.
type hotPair struct{ calm, changed healthyRate }

// HotAdd runs the five jobs and the sixth of Isolation, all of them healthy, and compares their rates during a stream of hot
// adds, updates and removals of further jobs with an undisturbed stretch just before, pair by pair of length each; the median
// pair counts. Once they are paced at half of what they can do, and once not paced, where the changes take their share of the
// processor.
func HotAdd(ctx context.Context, dir string, each time.Duration) (rep *Report, err error) {
	if dir == "" {
		if dir, err = os.MkdirTemp("", "sidestream-bench-"); err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	}
	rep = newReport("hot-add", "five jobs and a sixth that hears of them, while two clients add, update and remove further jobs", dir)
	most, changes, err := hotAdded(ctx, dir, math.MaxInt32, each)
	if err != nil {
		return nil, err
	}
	free := medianPair(most, func(p hotPair) float64 { return p.changed.records / p.calm.records })
	rep.figure("not paced, undisturbed", free.calm.records, "records/s")
	rep.figure("not paced, during changes", free.changed.records, "records/s")
	rep.figure("not paced, changes", changes, "a second")
	rate := max(1, int(free.calm.records/float64(sickKind)/2))
	paced, changes, err := hotAdded(ctx, dir, rate, each)
	if err != nil {
		return nil, err
	}
	five := medianPair(paced, func(p hotPair) float64 { return p.changed.records / p.calm.records })
	sixth := medianPair(paced, func(p hotPair) float64 { return p.changed.heard / p.calm.heard })
	rep.figure("pace of each job", float64(rate), "records/s")
	rep.figure("changes", changes, "a second")
	rep.figure("undisturbed", five.calm.records, "records/s")
	rep.figure("during changes", five.changed.records, "records/s")
	rep.atLeast("during changes ÷ undisturbed", five.changed.records/five.calm.records, 0.9)
	rep.atLeast("during changes ÷ undisturbed, the sixth", sixth.changed.heard/sixth.calm.heard, 0.9)
	return rep, nil
}

func medianPair(pairs []hotPair, ratio func(hotPair) float64) hotPair {
	slices.SortFunc(pairs, func(a, b hotPair) int {
		if ratio(a) < ratio(b) {
			return -1
		}
		return 1
	})
	return pairs[len(pairs)/2]
}

// hotAdded runs the jobs at a rate for each of the five, and returns the pairs and how many changes a second there were.
func hotAdded(ctx context.Context, dir string, rate int, each time.Duration) (pairs []hotPair, changes float64, err error) {
	var taken, heard atomic.Int64
	topic := sensorSignalTopic("signals")
	var defs []*jobs.Job
	for k, kind := range sensorKinds {
		count := func(s sensor) sensor { return s }
		if k != sickKind { // as Isolation counts
			count = func(s sensor) sensor { taken.Add(1); return s }
		}
		defs = append(defs, isolationJob(kind, ticker{rate: rate, values: sensorValues(k)}, count, topic))
	}
	sixth := jobs.New("sixth")
	jobs.Filter(jobs.FromTopic(sixth, topic), func(sensorSignal) bool { heard.Add(1); return false })
	data, err := os.MkdirTemp(dir, "run-")
	if err != nil {
		return nil, 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(data)) }()
	rt, err := runtime.Open(runtime.Config{DataDir: data, Probation: time.Second})
	if err != nil {
		return nil, 0, err
	}
	defer func() { err = errors.Join(err, rt.Stop()) }()
	if err := rt.Start(append(defs, sixth)); err != nil {
		return nil, 0, err
	}
	if err := sleep(ctx, each/4); err != nil {
		return nil, 0, err
	}
	stretch := func() (healthyRate, error) {
		began, t0, h0 := time.Now(), taken.Load(), heard.Load()
		err := sleep(ctx, each)
		s := time.Since(began).Seconds()
		return healthyRate{float64(taken.Load()-t0) / s, float64(heard.Load()-h0) / s}, err
	}
	made, during := int64(0), time.Duration(0)
	for range hotPairs {
		var p hotPair
		if p.calm, err = stretch(); err != nil {
			return nil, 0, err
		}
		stop := changeJobs(ctx, rt, topic)
		began := time.Now()
		p.changed, err = stretch()
		n, changeErr := stop()
		if err := errors.Join(err, changeErr); err != nil {
			return nil, 0, err
		}
		made, during = made+n, during+time.Since(began)
		pairs = append(pairs, p)
	}
	return pairs, float64(made) / during.Seconds(), nil
}

// changeJobs has clients add, update twice and remove jobs of their own until stop is called, which returns how many changes
// they made.
func changeJobs(ctx context.Context, rt *runtime.Runtime, topic jobs.BusTopic[sensorSignal]) (stop func() (int64, error)) {
	var made atomic.Int64
	var wg sync.WaitGroup
	end := make(chan struct{})
	errs := make([]error, hotClients)
	for i := range hotClients {
		wg.Go(func() {
			name := fmt.Sprint("hot", i)
			for n := 0; ; n++ {
				var err error
				if n%4 < 3 {
					_, err = rt.Apply(ctx, []runtime.Definition{{Job: hotJob(name, n, topic)}}, runtime.ApplyOptions{})
				} else {
					_, err = rt.RemoveJob(ctx, name, runtime.RemoveOptions{})
				}
				if err != nil {
					errs[i] = err
					return
				}
				made.Add(1)
				select {
				case <-time.After(hotGap):
				case <-end:
					if n%4 < 3 {
						_, errs[i] = rt.RemoveJob(ctx, name, runtime.RemoveOptions{})
					}
					return
				}
			}
		})
	}
	return func() (int64, error) {
		close(end)
		wg.Wait()
		return made.Load(), errors.Join(errs...)
	}
}

// hotJob counts the newest signals by device and writes a topic, with a parallelism that changes.
func hotJob(name string, version int, topic jobs.BusTopic[sensorSignal]) *jobs.Job {
	j := jobs.New(name)
	j.Parallelism = 1 + version%2
	j.Definition = fmt.Appendf(nil, "version %d", version)
	in := jobs.FromTopic(j, topic, jobs.StartLatest())
	panes, _ := operator.Tumbling(jobs.KeyBy(in, func(s sensorSignal) string { return s.device }), sensorWindow,
		operator.Aggregates(func(_ string, p *operator.Pane) int64 { return p.Int(0) }, operator.Count[sensorSignal]()))
	jobs.ToTopic(panes, jobs.BusTopic[int64]{Name: "hot"})
	return j
}
