package runtime_test

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/sidestream-dev/sidestream/internal/port"
	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/jobs/connector/file"
	"github.com/sidestream-dev/sidestream/jobs/connector/kafka"
	"github.com/sidestream-dev/sidestream/runtime"
)

// ownBroker is a Kafka broker that can be stopped and started again on the same port with what it had.
type ownBroker struct {
	t    testing.TB
	dir  string
	port int
	e    *kafka.Embedded
}

func startBroker(t testing.TB) *ownBroker {
	t.Helper()
	b := &ownBroker{t: t, dir: t.TempDir(), port: port.Free(t)}
	b.up()
	t.Cleanup(b.down)
	return b
}

func (b *ownBroker) up() {
	b.t.Helper()
	b.e = &kafka.Embedded{Dir: b.dir, Port: b.port}
	if _, err := b.e.Kafka(context.Background()); err != nil {
		b.t.Fatal(err)
	}
}

func (b *ownBroker) down() {
	if err := b.e.Close(); err != nil {
		b.t.Error(err)
	}
}

func (b *ownBroker) addr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(b.port)) }

// produce writes the numbers from up to to into a topic's partitions in turn.
func (b *ownBroker) produce(topic string, from, to int64) {
	b.t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(b.addr()), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		b.t.Fatal(err)
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(b.t.Context(), patience)
	defer cancel()
	if _, err := kadm.NewClient(cl).CreateTopic(ctx, brokerPartitions, 1, nil, topic); err != nil && from == 0 {
		b.t.Fatal(err)
	}
	var rs []*kgo.Record
	for n := from; n < to; n++ {
		rs = append(rs, &kgo.Record{Topic: topic, Partition: int32(n % brokerPartitions), Value: strconv.AppendInt(nil, n, 10)})
	}
	if err := cl.ProduceSync(ctx, rs...).FirstErr(); err != nil {
		b.t.Fatal(err)
	}
}

const brokerPartitions = 3

// plain is what the numbers below n look like where they are passed on alone.
func plain(n int64) (lines []string) {
	for i := range n {
		lines = append(lines, strconv.FormatInt(i, 10))
	}
	return lines
}

// TestBrokerDies: a job that reads from and writes to a broker of its own waits while that is away, and says so; the other
// jobs go on. When it comes back the job goes on too, and nothing is lost or, on the way in, doubled.
func TestBrokerDies(t *testing.T) {
	noLeaks(t)
	b := startBroker(t)
	out := t.TempDir()
	const half, total = 3000, 6000
	b.produce("in", 0, half)
	j := jobs.New("kafka")
	j.Delivery = jobs.AtLeastOnce
	in := numbers(j, kafka.Source{Brokers: []string{b.addr()}, Topics: []string{"in"}})
	jobs.To(in, "file", file.Sink{Path: filepath.Join(out, "kafka.txt"), Format: file.Lines}, jobs.JSON[int64]())
	jobs.To(in, "kafka", kafka.Sink{Brokers: []string{b.addr()}, Topic: "out"}, jobs.JSON[int64]())
	other := newTap(total, half)
	rt := start(t, runtime.Config{DataDir: t.TempDir()}, j, counting("other", other, out, nil))
	read := func() int { return linesOf(t, filepath.Join(out, "kafka.txt")) }
	until(t, rt, "the first half is through", func() bool {
		st := jobStatus(t, rt, "kafka")
		return read() == half && slices.IndexFunc(st.Outputs, func(o runtime.OutputStatus) bool { return o.Unsent > 0 }) < 0
	})

	b.down()
	until(t, rt, "the job says what it waits for", func() bool {
		st := jobStatus(t, rt, "kafka")
		return st.State == runtime.StateWaiting && strings.Contains(fmt.Sprint(st.Waiting), b.addr()) && st.Waiting[0].For == runtime.WaitOutside
	})
	if st := jobStatus(t, rt, "other"); st.State != runtime.StateRunning || len(st.Waiting) > 0 {
		t.Errorf("the other job is %s, waiting for %q", st.State, st.Waiting)
	}
	other.open(total)
	until(t, rt, "the other job ends meanwhile", func() bool { return jobStatus(t, rt, "other").State == runtime.StateEnded })
	if st := jobStatus(t, rt, "kafka"); st.State != runtime.StateWaiting || st.Restarts > 0 {
		t.Errorf("the job is %s after %d restarts", st.State, st.Restarts)
	}

	b.up()
	b.produce("in", half, total)
	until(t, rt, "the job goes on", func() bool {
		st := jobStatus(t, rt, "kafka")
		return read() >= total && st.State == runtime.StateRunning &&
			slices.IndexFunc(st.Outputs, func(o runtime.OutputStatus) bool { return o.Unsent > 0 }) < 0
	})
	stop(t, rt)
	sameLines(t, "file", fileLines(t, filepath.Join(out, "kafka.txt")), plain(total))
	sameLines(t, "other", fileLines(t, filepath.Join(out, "other.jsonl")), tallied(total, nil))
	sameLines(t, "kafka", b.consume("out", total), plain(total))
}

// consume reads a topic until n records were read, and what else is there.
func (b *ownBroker) consume(topic string, n int) (lines []string) {
	b.t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(b.addr()), kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		b.t.Fatal(err)
	}
	defer cl.Close()
	for len(lines) < n {
		ctx, cancel := context.WithTimeout(b.t.Context(), patience)
		fs := cl.PollFetches(ctx)
		cancel()
		if err := fs.Err(); err != nil {
			b.t.Fatalf("%d records: %v", len(lines), err)
		}
		fs.EachRecord(func(r *kgo.Record) { lines = append(lines, string(r.Value)) })
	}
	return lines
}

// TestBrokerAwayAtStart: a job whose broker is not there yet waits without failing; it can be stopped, and begins when the
// broker comes.
func TestBrokerAwayAtStart(t *testing.T) {
	noLeaks(t)
	b := startBroker(t)
	b.produce("in", 0, 100)
	b.down()
	data, out := t.TempDir(), t.TempDir()
	build := func() *jobs.Job {
		j := jobs.New("kafka")
		j.Delivery = jobs.ExactlyOnce
		in := numbers(j, kafka.Source{Brokers: []string{b.addr()}, Topics: []string{"in"}, End: "latest"})
		jobs.To(in, "file", file.Sink{Path: filepath.Join(out, "kafka.txt"), Format: file.Lines}, jobs.JSON[int64]())
		return j
	}
	rt := start(t, runtime.Config{DataDir: data}, build())
	waits := func() bool { return strings.Contains(fmt.Sprint(jobStatus(t, rt, "kafka").Waiting), b.addr()) }
	until(t, rt, "the job says what it waits for", waits)
	stop(t, rt)
	rt = start(t, runtime.Config{DataDir: data}, build())
	until(t, rt, "the job says what it waits for", waits)
	time.Sleep(50 * time.Millisecond) // a few tries
	if st := jobStatus(t, rt, "kafka"); st.Restarts > 0 || st.Error != "" {
		t.Errorf("%d restarts, %s", st.Restarts, st.Error)
	}
	b.up()
	finish(t, rt)
	sameLines(t, "file", fileLines(t, filepath.Join(out, "kafka.txt")), plain(100))
}
