package bench

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/runtime"
)

const busProducers = 5

// filler is a source of count values of size bytes each.
type filler struct {
	count int64
	block []byte
	size  int
}

func (filler) Kind() string     { return "filler" }
func (filler) Bounded() bool    { return true }
func (f filler) String() string { return fmt.Sprintf("%d × %d B", f.count, f.size) }

func (f filler) Splits(context.Context, jobs.SourceEnv) ([]jobs.Start, error) {
	return []jobs.Start{{Split: jobs.Split{ID: "filler"}}}, nil
}

func (f filler) Open(context.Context, jobs.SourceEnv, []jobs.Start) (jobs.Reader, error) {
	return &fillReader{f: f, ready: make(chan struct{})}, nil
}

type fillReader struct {
	f     filler
	given int64
	ready chan struct{}
}

func (r *fillReader) Read(c *jobs.Chunk, _ []int) error {
	for len(c.Messages) < c.Max && r.given < r.f.count {
		at := int(r.given) * 61 % (len(r.f.block) - r.f.size)
		c.Messages = append(c.Messages, jobs.Message{Value: r.f.block[at : at+r.f.size], Time: jobs.Time(r.given / 100), Offset: r.given})
		r.given++
	}
	c.Position = binary.LittleEndian.AppendUint64(nil, uint64(r.given))
	c.Ended = r.given == r.f.count
	return nil
}

func (r *fillReader) Ready() <-chan struct{} { return r.ready }
func (r *fillReader) Close() error           { return nil }

// Bus has five jobs write one topic and a sixth read it, and compares with writing the same bytes to a file by plain
// appends, an fdatasync behind each group, and with handing each record over a channel, where nothing is kept.
func Bus(ctx context.Context, dir string, bytes int64) (rep *Report, err error) {
	if bytes == 0 {
		bytes = 1 << 30
	}
	if dir == "" {
		if dir, err = os.MkdirTemp("", "sidestream-bench-"); err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	}
	rep = newReport("bus", "five jobs write one durable topic, a sixth reads it", dir)
	for _, size := range []int{100, 1024} {
		count := bytes / int64(size) / busProducers
		rate, log, groups, err := busRun(ctx, dir, size, count)
		if err != nil {
			return nil, err
		}
		file, err := plainAppend(filepath.Join(dir, "plain"), log, log/max(groups, 1))
		if err != nil {
			return nil, err
		}
		plain := float64(count*busProducers) / file.Seconds()
		channel := channelRun(count*busProducers/4, size)
		unit := fmt.Sprintf("%d B", size)
		rep.figure("bus, "+unit, rate, "records/s")
		rep.figure("bus, "+unit+", log", rate*float64(log)/float64(count*busProducers)/1e6, "MB/s")
		rep.figure("plain append and fdatasync, "+unit, plain, "records/s")
		rep.figure("channel per record, "+unit, channel, "records/s")
		rep.atLeast("bus ÷ plain append, "+unit, rate/plain, 0.8)
		rep.atLeast("bus ÷ channel, "+unit, rate/channel, 0.25)
	}
	return rep, nil
}

// busRun returns records per second until all are read and durable, the bytes of the log and its number of fsyncs.
func busRun(ctx context.Context, dir string, size int, count int64) (rate float64, log, groups int64, err error) {
	block := make([]byte, 1<<16)
	for i := range block {
		block[i] = byte(i * 7)
	}
	topic := jobs.BusTopic[[]byte]{Name: "filled", Codec: jobs.Bytes(), Topic: jobs.Topic{RetentionBytes: 64 << 20}}
	var defs []*jobs.Job
	for i := range busProducers {
		j := jobs.New(fmt.Sprintf("fill-%d", i))
		jobs.ToTopic(jobs.From(j, filler{count, block, size}, jobs.Bytes()), topic)
		defs = append(defs, j)
	}
	var seen atomic.Int64
	j := jobs.New("drain")
	n := int64(0)
	jobs.Filter(jobs.FromTopic(j, topic), func(v []byte) bool {
		if n++; n%1024 == 0 || n == count*busProducers {
			seen.Store(n)
		}
		return false
	})
	data, err := os.MkdirTemp(dir, "run-")
	if err != nil {
		return 0, 0, 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(data)) }()
	rt, err := runtime.Open(runtime.Config{DataDir: data})
	if err != nil {
		return 0, 0, 0, err
	}
	began := time.Now()
	if err := errors.Join(rt.Start(append(defs, j)), rt.Wait(ctx, true)); err != nil {
		return 0, 0, 0, errors.Join(err, rt.Stop())
	}
	took := time.Since(began)
	if seen.Load() != count*busProducers {
		return 0, 0, 0, errors.Join(fmt.Errorf("%d of %d records were read", seen.Load(), count*busProducers), rt.Stop())
	}
	st := rt.Status().Log.Stats
	return float64(count*busProducers) / took.Seconds(), int64(st.Bytes), int64(st.Syncs), rt.Stop()
}

// plainAppend writes bytes to a file, group by group, each followed by an fdatasync.
func plainAppend(path string, bytes, group int64) (took time.Duration, err error) {
	f, err := os.Create(path)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, f.Close(), os.Remove(path)) }()
	buf := make([]byte, max(1, group))
	began := time.Now()
	for left := bytes; left > 0; left -= group {
		if _, err := f.Write(buf[:min(group, left)]); err != nil {
			return 0, err
		}
		if err := unix.Fdatasync(int(f.Fd())); err != nil {
			return 0, err
		}
	}
	return time.Since(began), nil
}

// channelRun hands records from five goroutines to one over a channel, one at a time.
func channelRun(count int64, size int) (rate float64) {
	c := make(chan []byte, 1024)
	rec := make([]byte, size)
	began := time.Now()
	for range busProducers {
		go func() {
			for range count / busProducers {
				c <- rec
			}
		}()
	}
	for range count / busProducers * busProducers {
		<-c
	}
	return float64(count) / time.Since(began).Seconds()
}
