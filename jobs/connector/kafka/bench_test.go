package kafka

import (
	"context"
	"log/slog"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/sidestream-dev/sidestream/jobs"
)

// cpu is what this process has used, broker included.
func cpu(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkRead reads records of 242 B from a broker in this process that answers every fetch with the same batch: by
// franz-go alone, and by the source. What the broker takes is the same in both.
func BenchmarkRead(b *testing.B) {
	c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "in"),
		kfake.SyntheticFetch(kfake.SyntheticBatch{RecordBytes: 242, Records: 1000}))
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	report := func(b *testing.B, begin time.Duration) {
		b.ReportMetric(float64(cpu(b)-begin)/float64(b.N), "cpu-ns/rec")
	}
	b.Run("by=franz-go", func(b *testing.B) {
		cl, err := kgo.NewClient(kgo.SeedBrokers(c.ListenAddrs()...),
			kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{"in": {0: kgo.NewOffset().At(0)}}),
			kgo.FetchMaxBytes(defaultFetchBytes), kgo.FetchMaxPartitionBytes(defaultPartitionBytes))
		if err != nil {
			b.Fatal(err)
		}
		defer cl.Close()
		b.ReportAllocs()
		begin := cpu(b)
		b.ResetTimer()
		bytes := 0
		for n := 0; n < b.N; {
			cl.PollFetches(context.Background()).EachRecord(func(r *kgo.Record) {
				n++
				bytes += len(r.Value)
			})
		}
		report(b, begin)
	})
	b.Run("by=source", func(b *testing.B) {
		s := Source{Brokers: c.ListenAddrs(), Topics: []string{"in"}, Group: NoGroup}
		env := jobs.SourceEnv{Job: "bench", Logger: slog.New(slog.DiscardHandler), Waiting: func(string) {}}
		st, err := s.Splits(b.Context(), env)
		if err != nil {
			b.Fatal(err)
		}
		r, err := s.Open(b.Context(), env, st)
		if err != nil {
			b.Fatal(err)
		}
		defer r.Close()
		b.ReportAllocs()
		begin := cpu(b)
		b.ResetTimer()
		chunk := &jobs.Chunk{}
		want := []int{0}
		bytes := 0
		for n := 0; n < b.N; {
			chunk.Reset()
			chunk.Max = 1024
			if err := r.Read(chunk, want); err != nil {
				b.Fatal(err)
			}
			if len(chunk.Messages) == 0 {
				<-r.Ready()
				continue
			}
			n += len(chunk.Messages)
			for i := range chunk.Messages {
				bytes += len(chunk.Messages[i].Value)
			}
		}
		report(b, begin)
	})
}

// BenchmarkWrite produces records of 242 B to the embedded broker in memory.
func BenchmarkWrite(b *testing.B) {
	e := &Embedded{Partitions: 1}
	defer e.Close()
	s := Sink{Brokers: []string{embedded}, Topic: "out"}
	w, err := s.Open(b.Context(), jobs.SinkEnv{Job: "bench", Logger: slog.New(slog.DiscardHandler), Services: e})
	if err != nil {
		b.Fatal(err)
	}
	defer w.Close()
	ms := make([]jobs.Message, 10_000)
	for i := range ms {
		ms[i] = jobs.Message{Key: []byte("device-00042"), Value: []byte(strings.Repeat("x", 230)), Time: jobs.Time(i)}
	}
	b.ReportAllocs()
	begin := cpu(b)
	for b.Loop() {
		if _, err := w.Write(b.Context(), ms); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(cpu(b)-begin)/float64(b.N*len(ms)), "cpu-ns/rec")
	b.ReportMetric(float64(b.N*len(ms))/b.Elapsed().Seconds()/1e6, "Mrec/s")
}
