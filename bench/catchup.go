package bench

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync/atomic"
	"time"

	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/runtime"
)

const (
	catchBytes   = 100             // of a record
	catchRate    = 10_000          // live records a second
	catchRounds  = 5               // of a quiet stretch and a job that catches up, behind one that does not count
	catchFillMax = 5 * time.Minute // to write the history and move it to the topic store
	catchAge     = 24 * time.Hour  // for which the topic keeps its records
)

// catchRecord is a number, counted up by each of two writers, and when it was given in Unix nanoseconds; 0 marks the history's.
type catchRecord struct{ n, at int64 }

func catchTopic(records int64) jobs.BusTopic[catchRecord] {
	pad := make([]byte, catchBytes-16)
	return jobs.BusTopic[catchRecord]{Name: "history", Topic: jobs.Topic{RetentionBytes: 4*records*catchBytes + 1<<30, RetentionAge: catchAge, LimitBytes: 4*records*catchBytes + 1<<30},
		Codec: jobs.Codec[catchRecord]{
			Encode: func(b []byte, r catchRecord) ([]byte, error) {
				b = binary.LittleEndian.AppendUint64(b, uint64(r.n))
				b = binary.LittleEndian.AppendUint64(b, uint64(r.at))
				return append(b, pad...), nil
			},
			Decode: func(b []byte) (catchRecord, error) {
				if len(b) != catchBytes {
					return catchRecord{}, fmt.Errorf("%d bytes", len(b))
				}
				return catchRecord{int64(binary.LittleEndian.Uint64(b)), int64(binary.LittleEndian.Uint64(b[8:]))}, nil
			}}}
}

// catcher counts what a job that catches up sees: of each writer the next number, and no other.
type catcher struct {
	past, live atomic.Int64 // seen
	wrong      atomic.Int64 // lost, repeated, or out of order
}

func (c *catcher) see(r catchRecord) {
	next := &c.past
	if r.at != 0 {
		next = &c.live
	}
	if r.n != next.Load() {
		c.wrong.Add(1)
	}
	next.Store(r.n + 1)
}

// CatchUp fills a topic with records, most of which move to the topic store, while one job writes it at a fixed rate and
// another hears of that. Then it adds jobs that begin with the oldest record, one behind the other, and watches until each has
// all: whether it sees each record once, and how long the live jobs' hand-off takes meanwhile and just before.
func CatchUp(ctx context.Context, dir string, records int64) (rep *Report, err error) {
	if records == 0 {
		records = 2_000_000
	}
	if dir == "" {
		if dir, err = os.MkdirTemp("", "sidestream-bench-"); err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	}
	rep = newReport("catch-up", "a job is added at the oldest record of a topic that is written and read meanwhile", dir)
	data, err := os.MkdirTemp(dir, "run-")
	if err != nil {
		return nil, err
	}
	cfg := runtime.Config{DataDir: data, LogBytes: max(records*catchBytes/8, 4<<20), TopicMemory: 1 << 20}
	cfg.Log.GenerationBytes = max(cfg.LogBytes/4, 256<<10)
	cfg.Log.SegmentBytes = min(2<<20, cfg.Log.GenerationBytes)
	rt, err := runtime.Open(cfg)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rt.Stop()) }()
	c := &catchUp{rt: rt, rep: rep, topic: catchTopic(records), records: records}
	if err := c.fill(ctx, cfg.LogBytes); err != nil {
		return nil, err
	}
	return rep, c.rounds(ctx)
}

type catchUp struct {
	rt      *runtime.Runtime
	rep     *Report
	topic   jobs.BusTopic[catchRecord]
	records int64
	given   atomic.Int64              // live records
	watch   atomic.Pointer[stopwatch] // of the live jobs' hand-off; nil does not look
}

// fill starts the jobs and returns when the history is there and most of it is in the topic store.
func (c *catchUp) fill(ctx context.Context, logBytes int64) error {
	number := jobs.Codec[int64]{Decode: func(b []byte) (int64, error) { return int64(binary.LittleEndian.Uint64(b)), nil }}
	past := jobs.New("past")
	n := int64(0)
	jobs.ToTopic(jobs.Map(jobs.From(past, filler{c.records, make([]byte, 4096), 8}, number), func(int64) catchRecord {
		n++
		return catchRecord{n: n - 1}
	}), c.topic)
	from := jobs.New("from")
	jobs.ToTopic(jobs.Map(jobs.From(from, ticker{rate: catchRate}, number), func(at int64) catchRecord {
		return catchRecord{c.given.Add(1) - 1, at}
	}), c.topic)
	to := jobs.New("to")
	jobs.Filter(jobs.FromTopic(to, c.topic), func(r catchRecord) bool {
		if w := c.watch.Load(); w != nil && r.at != 0 {
			w.add(r.at)
		}
		return false
	})
	if err := c.rt.Start([]*jobs.Job{past, from, to}); err != nil {
		return err
	}
	began := time.Now()
	for {
		st := c.rt.Status()
		written := int64(0)
		for _, t := range st.Topics {
			if t.Name == c.topic.Name {
				written = t.Partitions[0].Bytes
			}
		}
		if st.Jobs[0].State == runtime.StateEnded && st.Jobs[2].Lag < catchRate && st.Log.Bytes <= 2*logBytes {
			c.rep.figure("records retained", float64(c.records), "")
			c.rep.figure("in the topic store, at least", 100*max(0, 1-float64(st.Log.Bytes)/float64(written)), "%")
			c.rep.figure("to write them and move them there", time.Since(began).Seconds(), "s")
			return nil
		}
		if time.Since(began) > catchFillMax {
			return fmt.Errorf("after %v the topic does not lie in the topic store: the log has %d bytes, and should have %d", catchFillMax, st.Log.Bytes, logBytes)
		}
		if err := sleep(ctx, 20*time.Millisecond); err != nil {
			return fmt.Errorf("filling the topic: %w", err)
		}
	}
}

// catchRound is one job that caught up.
type catchRound struct {
	before50, before99, during50, during99 time.Duration
	took                                   time.Duration
	seen, wrong                            int64
}

// rounds gives each quiet stretch the length that the job before took, so that both quantiles are of as many records: over a
// longer one a single hiccup of the machine would weigh less.
func (c *catchUp) rounds(ctx context.Context) error {
	first, err := c.round(ctx, "first", 0)
	if err != nil {
		return err
	}
	var all []catchRound
	took := first.took
	for i := range catchRounds {
		r, err := c.round(ctx, fmt.Sprint("catches", i), took)
		if err != nil {
			return err
		}
		all, took = append(all, r), r.took
	}
	wrong := first.wrong
	for _, r := range all {
		wrong += r.wrong
	}
	micro := func(d time.Duration) float64 { return float64(d) / 1e3 }
	median := func(of func(catchRound) float64) float64 {
		var vs []float64
		for _, r := range all {
			vs = append(vs, of(r))
		}
		slices.Sort(vs)
		return vs[len(vs)/2]
	}
	c.rep.figure("caught up in", median(func(r catchRound) float64 { return r.took.Seconds() }), "s")
	c.rep.figure("catching up", median(func(r catchRound) float64 { return float64(r.seen) / r.took.Seconds() }), "records/s")
	c.rep.figure("live hand-off before, p50", median(func(r catchRound) float64 { return micro(r.before50) }), "µs")
	c.rep.figure("live hand-off before, p99", median(func(r catchRound) float64 { return micro(r.before99) }), "µs")
	c.rep.figure("live hand-off meanwhile, p50", median(func(r catchRound) float64 { return micro(r.during50) }), "µs")
	c.rep.figure("live hand-off meanwhile, p99", median(func(r catchRound) float64 { return micro(r.during99) }), "µs")
	c.rep.atMost("records lost, repeated or out of order", float64(wrong), 0)
	c.rep.atMost("hand-off meanwhile ÷ before, p50", median(func(r catchRound) float64 { return float64(r.during50) / float64(r.before50) }), 2)
	c.rep.atMost("hand-off meanwhile ÷ before, p99", median(func(r catchRound) float64 { return float64(r.during99) / float64(r.before99) }), 2)
	return nil
}

// round watches a quiet stretch, and then a job that catches up until it has what is live.
func (c *catchUp) round(ctx context.Context, name string, quiet time.Duration) (r catchRound, err error) {
	before, during := &stopwatch{}, &stopwatch{}
	c.watch.Store(before)
	if err := sleep(ctx, quiet); err != nil {
		return r, err
	}
	var seen catcher
	j := jobs.New(name)
	jobs.Filter(jobs.FromTopic(j, c.topic), func(v catchRecord) bool { seen.see(v); return false })
	c.watch.Store(during)
	began := time.Now()
	if _, err := c.rt.Apply(ctx, []runtime.Definition{{Job: j}}, runtime.ApplyOptions{}); err != nil {
		return r, err
	}
	live := c.given.Load()
	for seen.past.Load() < c.records || seen.live.Load() < live {
		if err := sleep(ctx, time.Millisecond); err != nil {
			return r, fmt.Errorf("catching up: %w", err)
		}
		live = max(live, c.given.Load()-catchRate/10)
	}
	r.took, r.seen, r.wrong = time.Since(began), seen.past.Load()+seen.live.Load(), seen.wrong.Load()
	c.watch.Store(nil)
	r.before50, r.before99 = before.all()
	r.during50, r.during99 = during.all()
	_, err = c.rt.RemoveJob(ctx, name, runtime.RemoveOptions{})
	return r, err
}
