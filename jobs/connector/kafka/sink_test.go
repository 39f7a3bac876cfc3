package kafka

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/sidestream-dev/sidestream/internal/port"
	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/jobs/jobstest"
)

// all reads what is committed in a topic to its end, in the order of each partition.
func all(t testing.TB, addr, topic string) (out []*kgo.Record) {
	t.Helper()
	adm := kadm.NewClient(client(t, addr))
	var ends kadm.ListedOffsets
	until(t, "no transaction is open any more", func() bool { // its markers come a little behind its commit
		committed, err := adm.ListCommittedOffsets(t.Context(), topic)
		if err == nil {
			ends, err = adm.ListEndOffsets(t.Context(), topic)
		}
		if err != nil {
			t.Fatal(err)
		}
		same := true
		ends.Each(func(o kadm.ListedOffset) {
			c, ok := committed.Lookup(topic, o.Partition)
			same = same && ok && c.Offset == o.Offset
		})
		return same
	})
	parts, left := map[int32]kgo.Offset{}, map[int32]int64{}
	ends.Each(func(o kadm.ListedOffset) {
		if o.Offset > 0 {
			parts[o.Partition], left[o.Partition] = kgo.NewOffset().At(0), o.Offset
		}
	})
	cl := client(t, addr, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: parts}),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords()) // a marker may be the last
	ctx, cancel := context.WithTimeout(t.Context(), testWait)
	defer cancel()
	for len(left) > 0 && ctx.Err() == nil {
		for _, r := range cl.PollFetches(ctx).Records() {
			if !r.Attrs.IsControl() {
				out = append(out, r)
			}
			if r.Offset+1 >= left[r.Partition] {
				delete(left, r.Partition)
			}
		}
	}
	if len(left) > 0 {
		t.Fatalf("%d records read from %s, whose ends are not reached: %v", len(out), topic, left)
	}
	return out
}

func TestSinkSuite(t *testing.T) {
	addr := broker(t, &Embedded{})
	topic := ""
	jobstest.TestSink(t, jobstest.SinkSuite{
		New: func(t *testing.T) jobs.Sink {
			topic = topicName(t)
			return Sink{Brokers: []string{addr}, Topic: topic, Partitions: 1}
		},
		Read: func(t *testing.T) (out []string) {
			for _, r := range all(t, addr, topic) {
				out = append(out, string(r.Value))
			}
			return out
		},
	})
}

// TestPartitions: a key goes where Java's default partitioner takes it, and its records keep their order.
func TestPartitions(t *testing.T) {
	addr := broker(t, &Embedded{})
	out := topicName(t)
	s := Sink{Brokers: []string{addr}, Topic: out, Partitions: 12}
	w, err := s.Open(t.Context(), sinkEnv(nil))
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	at := time.UnixMilli(1767225600123)
	ms := []jobs.Message{
		{Key: []byte("21"), Value: []byte("a"), Time: jobs.TimeOf(at), Headers: []jobs.Header{{Name: "h", Value: []byte("1")}, {Name: "g"}}},
		{Key: []byte("foobar"), Value: []byte("b"), Time: jobs.TimeOf(at)},
		{Key: []byte("a-little-bit-long-string"), Value: []byte("c"), Time: jobs.TimeOf(at)},
		{Key: []byte("21"), Value: []byte("d"), Time: jobs.NoTime},
		{Value: []byte("e"), Time: jobs.TimeOf(at)},
	}
	if _, err := w.Write(t.Context(), ms); err != nil {
		t.Fatal(err)
	}
	// org.apache.kafka.common.utils.Utils.murmur2 of these keys, from its own test; toPositive, modulo 12.
	java := map[string]int32{"21": -973932308, "foobar": -790332482, "a-little-bit-long-string": -985981536}
	var of21 []string
	for _, r := range all(t, addr, out) {
		if h, ok := java[string(r.Key)]; ok && r.Partition != (h&0x7fffffff)%12 {
			t.Errorf("key %s is in partition %d, want %d", r.Key, r.Partition, (h&0x7fffffff)%12)
		}
		if string(r.Key) == "21" {
			of21 = append(of21, string(r.Value))
		}
		switch string(r.Value) {
		case "a":
			if !r.Timestamp.Equal(at) || len(r.Headers) != 2 || r.Headers[0].Key != "h" || string(r.Headers[0].Value) != "1" || r.Headers[1].Key != "g" {
				t.Errorf("got %v and %v", r.Timestamp, r.Headers)
			}
		case "d":
			if time.Since(r.Timestamp).Abs() > time.Minute || len(r.Headers) != 0 {
				t.Errorf("a record without a time got %v and %v, want now", r.Timestamp, r.Headers)
			}
		case "e":
			if r.Key != nil {
				t.Errorf("got the key %q, want none", r.Key)
			}
		}
	}
	if !slices.Equal(of21, []string{"a", "d"}) {
		t.Errorf("key 21 has %v", of21)
	}
}

func TestSinkTopic(t *testing.T) {
	addr := broker(t, &Embedded{Partitions: 5})
	cl := client(t, addr)
	partitions := func(topic string) int {
		l, err := kadm.NewClient(cl).ListTopics(t.Context(), topic)
		if err != nil {
			t.Fatal(err)
		}
		return len(l[topic].Partitions)
	}
	for _, s := range []Sink{{Topic: "three", Partitions: 3}, {Topic: "default"}} {
		s.Brokers = []string{addr}
		w, err := s.Open(t.Context(), sinkEnv(nil))
		if err != nil {
			t.Fatal(err)
		}
		if state, err := w.Write(t.Context(), nil); err != nil || state == nil {
			t.Errorf("a Write of nothing gave %v and %v", state, err)
		}
		w.Close()
	}
	if a, b := partitions("three"), partitions("default"); a != 3 || b != 5 {
		t.Errorf("topics were made with %d and %d partitions, want 3 and 5", a, b)
	}
	w := &waits{}
	s := Sink{Brokers: []string{addr}, Topic: "later", MustExist: true}
	opened := make(chan error, 1)
	go func() {
		jw, err := s.Open(t.Context(), sinkEnv(w))
		if err == nil {
			jw.Close()
		}
		opened <- err
	}()
	until(t, "the sink waits for its topic", func() bool { _, why := w.last(); return strings.Contains(why, "topic later does not exist") })
	makeTopic(t, cl, "later", 1)
	if err := <-opened; err != nil {
		t.Fatal(err)
	}
}

func TestSinkRefuses(t *testing.T) {
	addr := broker(t, &Embedded{})
	for _, tt := range []struct {
		name string
		sink Sink
		want string
	}{
		{"no topic", Sink{Brokers: []string{addr}}, "no topic"},
		{"no brokers", Sink{Topic: "x"}, "no brokers"},
		{"compression", Sink{Brokers: []string{addr}, Topic: "x", Compression: "rar"}, `"rar" is not one of none`},
		{"negative", Sink{Brokers: []string{addr}, Topic: "x", Partitions: -1}, "negative"},
		{"a name the brokers refuse", Sink{Brokers: []string{addr}, Topic: "a/b"}, "topic \"a/b\""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), testWait)
			defer cancel()
			if _, err := tt.sink.Open(ctx, sinkEnv(nil)); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want an error with %q", err, tt.want)
			}
		})
	}
	if err := (Sink{Brokers: []string{embedded}}).ExactlyOnce(); err == nil || !strings.Contains(err.Error(), "embedded broker") {
		t.Errorf("exactly once on the embedded broker: got %v", err)
	}
	t.Run("a record that is too large", func(t *testing.T) {
		w, err := Sink{Brokers: []string{addr}, Topic: topicName(t), Compression: "none"}.Open(t.Context(), sinkEnv(nil))
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		_, err = w.Write(t.Context(), []jobs.Message{{Value: bytes.Repeat([]byte("x"), 2<<20)}})
		var stopped *jobs.StoppedError
		if !errors.As(err, &stopped) || !strings.Contains(err.Error(), "2097152 bytes") {
			t.Errorf("got %v, want a StoppedError with the size", err)
		}
		if _, err := w.Write(t.Context(), []jobs.Message{{Value: []byte("x")}}); err != nil {
			t.Errorf("the writer is of no use any more: %v", err)
		}
	})
}

// TestSinkBrokerAway: a Write waits for a broker that is away, says so, and ends with its context; what it was given then
// can be given again.
func TestSinkBrokerAway(t *testing.T) {
	port, dir := port.Free(t), t.TempDir()
	addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	e := &Embedded{Dir: dir, Port: port}
	broker(t, e)
	w := &waits{}
	jw, err := Sink{Brokers: []string{addr}, Topic: "out", Partitions: 1}.Open(t.Context(), sinkEnv(w))
	if err != nil {
		t.Fatal(err)
	}
	defer jw.Close()
	msgs := func(from, to int) (ms []jobs.Message) {
		for i := from; i < to; i++ {
			ms = append(ms, jobs.Message{Value: fmt.Appendf(nil, "v%d", i), Time: jobs.NoTime})
		}
		return ms
	}
	if _, err := jw.Write(t.Context(), msgs(0, 10)); err != nil {
		t.Fatal(err)
	}
	e.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := jw.Write(ctx, msgs(10, 20)); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("got %v, want context.DeadlineExceeded", err)
	}
	done := make(chan error, 1)
	go func() {
		_, err := jw.Write(t.Context(), msgs(10, 20))
		done <- err
	}()
	until(t, "the sink says that it waits", func() bool { _, why := w.last(); return strings.Contains(why, addr) })
	broker(t, &Embedded{Dir: dir, Port: port})
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if _, why := w.last(); why != "" {
		t.Errorf("still waits: %q", why)
	}
	if got := all(t, addr, "out"); len(got) != 20 {
		t.Errorf("%d records arrived, want 20", len(got))
	}
}

// TestEmbeddedKilled: what the embedded broker has acknowledged is there after kill -9 of its process.
func TestEmbeddedKilled(t *testing.T) {
	if dir := os.Getenv("SIDESTREAM_TEST_BROKER_DIR"); dir != "" {
		brokerProcess(t, dir)
		return
	}
	dir := t.TempDir()
	acked, next := 0, 0
	for round := range 3 {
		cmd := exec.Command(os.Args[0], "-test.run=^TestEmbeddedKilled$")
		cmd.Env = append(os.Environ(), "SIDESTREAM_TEST_BROKER_DIR="+dir, "SIDESTREAM_TEST_FROM="+strconv.Itoa(next))
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for n := 0; n < 20+round && lines.Scan(); n++ {
			if i, err := strconv.Atoi(strings.TrimPrefix(lines.Text(), "acked ")); err == nil {
				acked, next = i, i
			}
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait() // it was killed
		for lines.Scan() {
			if i, err := strconv.Atoi(strings.TrimPrefix(lines.Text(), "acked ")); err == nil {
				acked, next = i, i
			}
		}
	}
	if acked == 0 {
		t.Fatal("nothing was acknowledged")
	}
	addr := broker(t, &Embedded{Dir: dir})
	seen := map[string]bool{}
	for _, r := range all(t, addr, "out") {
		seen[string(r.Value)] = true
	}
	for i := range acked {
		if !seen[fmt.Sprintf("v%d", i)] {
			t.Fatalf("v%d of %d acknowledged is gone", i, acked)
		}
	}
}

func brokerProcess(t *testing.T, dir string) {
	env := sinkEnv(nil)
	env.Services = &Embedded{Dir: dir}
	w, err := Sink{Brokers: []string{embedded}, Topic: "out", Partitions: 2}.Open(t.Context(), env)
	if err != nil {
		t.Fatal(err)
	}
	from, _ := strconv.Atoi(os.Getenv("SIDESTREAM_TEST_FROM"))
	for i := from; ; i += 10 {
		var ms []jobs.Message
		for j := range 10 {
			ms = append(ms, jobs.Message{Key: fmt.Appendf(nil, "k%d", j), Value: fmt.Appendf(nil, "v%d", i+j)})
		}
		if _, err := w.Write(t.Context(), ms); err != nil {
			t.Fatal(err)
		}
		fmt.Printf("acked %d\n", i+10)
	}
}

func TestEmbedded(t *testing.T) {
	e := &Embedded{Partitions: 3}
	env := sourceEnv(nil)
	env.Services = e
	st, err := Source{Brokers: []string{embedded}, Topics: []string{"new"}}.Splits(t.Context(), env)
	if err != nil || len(st) != 3 {
		t.Errorf("a topic made by asking has %d partitions (%v), want 3", len(st), err)
	}
	a, err := e.Kafka(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if b, err := e.Kafka(t.Context()); a != b || err != nil {
		t.Errorf("a second broker: %s, %s, %v", a, b, err)
	}
	e.Close()
	e.Close()
	if _, err := e.Kafka(t.Context()); err == nil {
		t.Error("it starts again after Close")
	}
	if _, err := (&Embedded{Dir: "/dev/null/x"}).Kafka(t.Context()); err == nil {
		t.Error("it runs without a folder")
	}
}
