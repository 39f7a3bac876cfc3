package kafka

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/sidestream-dev/sidestream/jobs"
)

// testWait is how long a test waits for what must come; a test that passes never needs it.
const testWait = time.Minute

// realKafka names, where it is set, a Kafka that takes the embedded broker's place in the tests that do not stop it.
const realKafka = "SIDESTREAM_TEST_KAFKA"

// broker is an embedded broker for one test.
func broker(t testing.TB, e *Embedded) string {
	t.Helper()
	if addr := os.Getenv(realKafka); addr != "" && e.Dir == "" && e.Port == 0 && e.Partitions == 0 {
		return addr
	}
	addr, err := e.Kafka(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	return addr
}

func client(t testing.TB, addr string, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	cl, err := kgo.NewClient(append(opts, kgo.SeedBrokers(addr), kgo.RecordPartitioner(kgo.ManualPartitioner()))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return cl
}

// topicName is a name that no other test, nor another run on the same Kafka, has.
func topicName(t testing.TB) string {
	return fmt.Sprintf("t-%s-%d", strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' {
			return r
		}
		return '-'
	}, t.Name()), time.Now().UnixNano())
}

func makeTopic(t testing.TB, cl *kgo.Client, name string, partitions int32) {
	t.Helper()
	if _, err := kadm.NewClient(cl).CreateTopic(t.Context(), partitions, 1, nil, name); err != nil {
		t.Fatal(err)
	}
}

// produce writes records from..to, in turn over the partitions, the n-th with the value vN.
func produce(t testing.TB, cl *kgo.Client, topic string, partitions, from, to int) {
	t.Helper()
	var rs []*kgo.Record
	for i := from; i < to; i++ {
		rs = append(rs, &kgo.Record{Topic: topic, Partition: int32(i % partitions), Value: fmt.Appendf(nil, "v%d", i),
			Key: fmt.Appendf(nil, "k%d", i%7), Timestamp: time.UnixMilli(int64(1000 + i))})
	}
	if err := cl.ProduceSync(t.Context(), rs...).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

// waits records what Waiting was told.
type waits struct {
	mu  sync.Mutex
	all []string
}

func (w *waits) tell(why string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.all = append(w.all, why)
}

func (w *waits) last() (n int, why string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.all) == 0 {
		return 0, ""
	}
	return len(w.all), w.all[len(w.all)-1]
}

// until polls cond.
func until(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(testWait); !cond(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", testWait, what)
		}
	}
}

func sourceEnv(w *waits) jobs.SourceEnv {
	if w == nil {
		w = &waits{}
	}
	return jobs.SourceEnv{Job: "test", Step: "in", Logger: slog.New(slog.DiscardHandler), Waiting: w.tell}
}

func sinkEnv(w *waits) jobs.SinkEnv {
	if w == nil {
		w = &waits{}
	}
	return jobs.SinkEnv{Job: "test", Output: "out", Logger: slog.New(slog.DiscardHandler), Waiting: w.tell}
}

func splits(t testing.TB, s Source) []jobs.Start {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testWait)
	defer cancel()
	st, err := s.Splits(ctx, sourceEnv(nil))
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// readN opens s at st, reads n records, or with n < 0 until all splits have ended, and leaves the positions behind them in
// st. It returns "partition@offset=value".
func readN(t testing.TB, s Source, st []jobs.Start, n int) []string {
	t.Helper()
	r, err := s.Open(t.Context(), sourceEnv(nil), st)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	got, err := readMore(r, st, n)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func readMore(r jobs.Reader, st []jobs.Start, n int) (got []string, err error) {
	c := &jobs.Chunk{}
	deadline := time.After(testWait)
	for n < 0 || len(got) < n {
		var want []int
		for i := range st {
			if !st[i].Ended {
				want = append(want, i)
			}
		}
		if len(want) == 0 {
			return got, nil
		}
		c.Reset()
		c.Max = 10
		if n >= 0 {
			c.Max = min(c.Max, n-len(got))
		}
		if err := r.Read(c, want); err != nil {
			return got, err
		}
		if len(c.Messages) == 0 && !c.Ended {
			select {
			case <-r.Ready():
			case <-deadline:
				return got, fmt.Errorf("%d of %d records read within %v", len(got), n, testWait)
			}
			continue
		}
		for _, m := range c.Messages {
			got = append(got, fmt.Sprintf("%d@%d=%s", st[c.Split].Split.Partition, m.Offset, m.Value))
		}
		st[c.Split].Position, st[c.Split].Ended = c.Position, c.Ended
	}
	return got, nil
}
