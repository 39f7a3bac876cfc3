package kafka

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/sidestream-dev/sidestream/internal/port"
	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/jobs/connector"
	"github.com/sidestream-dev/sidestream/jobs/jobstest"
)

func TestSourceSuite(t *testing.T) {
	addr := broker(t, &Embedded{})
	cl := client(t, addr)
	const records = 60
	topic := ""
	for _, end := range []string{"", "latest"} {
		t.Run("end="+end, func(t *testing.T) {
			suite := jobstest.SourceSuite{Records: records}
			suite.New = func(t *testing.T) jobs.Source {
				topic = topicName(t)
				makeTopic(t, cl, topic, 3)
				produce(t, cl, topic, 2, 0, records) // the third partition stays empty
				return Source{Brokers: []string{addr}, Topics: []string{topic}, End: end, FetchWait: 50 * time.Millisecond, Discovery: discoveryMin}
			}
			if end == "" {
				suite.Split = func(t *testing.T) int {
					addPartition(t, cl, topic, 4)
					return 3
				}
				suite.More = func(t *testing.T) { produce(t, cl, topic, 2, records, records+1) }
			}
			jobstest.TestSource(t, suite)
		})
	}
}

// TestMessages: key, value, time and headers are those of the record.
func TestMessages(t *testing.T) {
	addr := broker(t, &Embedded{})
	cl := client(t, addr)
	in := topicName(t)
	makeTopic(t, cl, in, 1)
	at := time.UnixMilli(1767225600123)
	if err := cl.ProduceSync(t.Context(), &kgo.Record{Topic: in, Key: []byte("k"), Value: []byte("v"), Timestamp: at,
		Headers: []kgo.RecordHeader{{Key: "h", Value: []byte("1")}}}, &kgo.Record{Topic: in}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	s := Source{Brokers: []string{addr}, Topics: []string{in}, End: "latest"}
	st := splits(t, s)
	if got := st[0].Split; got != (jobs.Split{ID: in + "/0", Topic: in, Partition: 0}) {
		t.Errorf("split %+v", got)
	}
	r, err := s.Open(t.Context(), sourceEnv(nil), st)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	c := &jobs.Chunk{Max: 10}
	until(t, "two records", func() bool {
		if len(c.Messages) == 0 {
			c.Reset()
			if err := r.Read(c, []int{0}); err != nil {
				t.Fatal(err)
			}
		}
		return len(c.Messages) == 2
	})
	m := c.Messages[0]
	if string(m.Key) != "k" || string(m.Value) != "v" || m.Time != jobs.TimeOf(at) || len(m.Headers) != 1 ||
		m.Headers[0].Name != "h" || string(m.Headers[0].Value) != "1" || !c.Ended {
		t.Errorf("got %+v, ended %v", m, c.Ended)
	}
	if m := c.Messages[1]; m.Key != nil || m.Value != nil || m.Headers != nil || m.Offset != 1 {
		t.Errorf("got %+v, want a record without key and value", m)
	}
}

// TestStart: where a new job begins, and that the end of a bounded source stands in its positions.
func TestStart(t *testing.T) {
	addr := broker(t, &Embedded{})
	cl := client(t, addr)
	in := topicName(t)
	makeTopic(t, cl, in, 2)
	produce(t, cl, in, 2, 0, 10) // v0 at 1,000 ms
	tests := []struct {
		start, end string
		want       []string
	}{
		{"", "latest", []string{"0@0=v0", "0@1=v2", "0@2=v4", "0@3=v6", "0@4=v8", "1@0=v1", "1@1=v3", "1@2=v5", "1@3=v7", "1@4=v9"}},
		{"1970-01-01T00:00:01.006Z", "latest", []string{"0@3=v6", "0@4=v8", "1@3=v7", "1@4=v9"}},
		{"2026-01-01T00:00:00Z", "latest", nil},
		{"latest", "latest", nil},
	}
	for _, tt := range tests {
		s := Source{Brokers: []string{addr}, Topics: []string{in}, Start: tt.start, End: tt.end}
		got := readN(t, s, splits(t, s), -1)
		slices.Sort(got)
		if !slices.Equal(got, tt.want) {
			t.Errorf("start %q: got %q, want %q", tt.start, got, tt.want)
		}
	}

	s := Source{Brokers: []string{addr}, Topics: []string{in}, End: "latest"}
	st := splits(t, s)
	got := readN(t, s, st, 3)
	produce(t, cl, in, 2, 10, 20)
	got = append(got, readN(t, s, st, -1)...) // a later connection: the end is still the first one's
	if len(got) != 10 {
		t.Errorf("got %d records, want the 10 of the first connection: %q", len(got), got)
	}
	if again := readN(t, s, st, -1); len(again) != 0 {
		t.Errorf("an ended source gave %q", again)
	}
	for i := range st {
		st[i].Ended = false // as if the process had died before it learnt of the end
	}
	if again := readN(t, s, st, -1); len(again) != 0 {
		t.Errorf("positions at the end gave %q", again)
	}
}

// TestEndWithoutRecord: a bounded partition ends also where its last offsets hold nothing to read: the marker of a
// transaction, an aborted one, an open one.
func TestEndWithoutRecord(t *testing.T) {
	addr := broker(t, &Embedded{})
	cl := client(t, addr)
	for _, last := range []string{"committed", "aborted", "open"} {
		for _, uncommitted := range []bool{false, true} {
			t.Run(fmt.Sprintf("last=%s,uncommitted=%v", last, uncommitted), func(t *testing.T) {
				topic := topicName(t)
				makeTopic(t, cl, topic, 1)
				produce(t, cl, topic, 1, 0, 3)
				tx := client(t, addr, kgo.TransactionalID(topic))
				if err := tx.BeginTransaction(); err != nil {
					t.Fatal(err)
				}
				produce(t, tx, topic, 1, 3, 5)
				if last != "open" {
					if err := tx.EndTransaction(t.Context(), kgo.TransactionEndTry(last == "committed")); err != nil {
						t.Fatal(err)
					}
				}
				if last != "open" { // its marker is written soon after
					until(t, "the transaction has ended", func() bool {
						all, err1 := kadm.NewClient(cl).ListEndOffsets(t.Context(), topic)
						stable, err2 := kadm.NewClient(cl).ListCommittedOffsets(t.Context(), topic)
						if err1 != nil || err2 != nil {
							return false
						}
						a, _ := all.Lookup(topic, 0)
						s, _ := stable.Lookup(topic, 0)
						return a.Offset == 6 && s.Offset == 6
					})
				}
				want := 5
				if last != "committed" && !uncommitted {
					want = 3
				}
				s := Source{Brokers: []string{addr}, Topics: []string{topic}, End: "latest", Uncommitted: uncommitted}
				st := splits(t, s)
				if got := readN(t, s, st, -1); len(got) != want {
					t.Errorf("got %q, want %d records", got, want)
				}
			})
		}
	}
}

// TestEndCompacted: a bounded partition ends where compaction has removed its last records.
func TestEndCompacted(t *testing.T) {
	e := &Embedded{Partitions: 1} // not a real one: compaction is asked for
	addr := broker(t, e)
	cl := client(t, addr)
	policy := map[string]*string{"cleanup.policy": kadm.StringPtr("compact"), "delete.retention.ms": kadm.StringPtr("0"),
		"min.compaction.lag.ms": kadm.StringPtr("0"), "min.cleanable.dirty.ratio": kadm.StringPtr("0")}
	if _, err := kadm.NewClient(cl).CreateTopic(t.Context(), 1, 1, policy, "in"); err != nil {
		t.Fatal(err)
	}
	put := func(key string, value []byte) {
		if err := cl.ProduceSync(t.Context(), &kgo.Record{Topic: "in", Key: []byte(key), Value: value}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	put("a", []byte("1"))
	put("b", []byte("2"))
	s := Source{Brokers: []string{addr}, Topics: []string{"in"}, End: "latest", FetchWait: 50 * time.Millisecond}
	st := splits(t, s)
	put("b", []byte("3"))
	put("c", []byte("4"))
	e.cluster.Compact()
	if got := readN(t, s, st, -1); !slices.Equal(got, []string{"0@0=1"}) {
		t.Errorf("got %q, want the one record that is left before the end", got)
	}
}

func TestRangeErrors(t *testing.T) {
	addr := broker(t, &Embedded{})
	cl := client(t, addr)
	in := topicName(t)
	adm := kadm.NewClient(cl)
	makeTopic(t, cl, in, 2)
	produce(t, cl, in, 2, 0, 20)
	s := Source{Brokers: []string{addr}, Topics: []string{in}}
	old := splits(t, s)
	var offsets kadm.Offsets
	offsets.AddOffset(in, 1, 4, -1)
	if _, err := adm.DeleteRecords(t.Context(), offsets); err != nil {
		t.Fatal(err)
	}
	fail := func(st []jobs.Start) error {
		r, err := s.Open(t.Context(), sourceEnv(nil), st)
		if err != nil {
			return err
		}
		defer r.Close()
		_, err = readMore(r, slices.Clone(st), 100)
		return err
	}
	at := func(offset int64) []jobs.Start {
		p, err := decodePosition(old[1].Position)
		if err != nil {
			t.Fatal(err)
		}
		p.offset = offset
		return []jobs.Start{{Split: old[1].Split, Position: p.encode()}}
	}
	for _, tt := range []struct {
		name string
		st   []jobs.Start
		want RangeError
	}{
		{"records were deleted", old, RangeError{in, 1, 0, 4, 10}},
		{"one too early", at(3), RangeError{in, 1, 3, 4, 10}},
		{"behind the end", at(11), RangeError{in, 1, 11, 4, 10}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got *RangeError
			if err := fail(tt.st); !errors.As(err, &got) || *got != tt.want {
				t.Fatalf("got %v, want %v", err, &tt.want)
			}
			if !strings.Contains(got.Error(), in+"/1: offset ") {
				t.Errorf("%q does not name partition and offset", got)
			}
		})
	}
	t.Run("deleted while reading", func(t *testing.T) {
		st := at(4)
		r, err := s.Open(t.Context(), sourceEnv(nil), st)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		if _, err := readMore(r, st, 6); err != nil {
			t.Fatal(err)
		}
		// Records come and go before the reader may have asked for them: it is told, or has them already.
		produce(t, cl, in, 2, 20, 24)
		var offsets kadm.Offsets
		offsets.AddOffset(in, 1, 12, -1)
		if _, err := adm.DeleteRecords(t.Context(), offsets); err != nil {
			t.Fatal(err)
		}
		_, err = readMore(r, st, 1)
		var got *RangeError
		if err != nil && !errors.As(err, &got) {
			t.Errorf("got %v, want a RangeError or the next record", err)
		}
	})
	t.Run("topic made again", func(t *testing.T) {
		if _, err := adm.DeleteTopics(t.Context(), in); err != nil {
			t.Fatal(err)
		}
		makeTopic(t, cl, in, 2)
		cl2 := client(t, addr)
		produce(t, cl2, in, 2, 0, 40)
		var got *ReplacedError
		if err := fail(at(5)); !errors.As(err, &got) || got.Topic != in {
			t.Errorf("got %v, want a ReplacedError", err)
		}
	})
	t.Run("foreign position", func(t *testing.T) {
		if err := fail([]jobs.Start{{Split: old[0].Split, Position: []byte("x")}}); err == nil {
			t.Error("accepted")
		}
	})
}

func TestBrokerAway(t *testing.T) {
	port := port.Free(t)
	dir := t.TempDir()
	addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	s := Source{Brokers: []string{addr}, Topics: []string{"in"}, FetchWait: 100 * time.Millisecond}

	w := &waits{}
	type result struct {
		st  []jobs.Start
		err error
	}
	found := make(chan result, 1)
	go func() {
		st, err := s.Splits(t.Context(), sourceEnv(w))
		found <- result{st, err}
	}()
	until(t, "the source says that it waits", func() bool {
		_, why := w.last()
		return strings.Contains(why, addr) && strings.Contains(why, "refused")
	})
	e := &Embedded{Dir: dir, Port: port}
	broker(t, e)
	cl := client(t, addr)
	until(t, "the source waits for the topic", func() bool {
		_, why := w.last()
		return strings.Contains(why, "topic in does not exist")
	})
	makeTopic(t, cl, "in", 2)
	produce(t, cl, "in", 2, 0, 50)
	f := <-found
	if f.err != nil {
		t.Fatal(f.err)
	}
	if _, why := w.last(); why != "" {
		t.Errorf("still waits: %q", why)
	}
	cl.Close()

	r, err := s.Open(t.Context(), sourceEnv(w), f.st)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	got, err := readMore(r, f.st, 30)
	if err != nil {
		t.Fatal(err)
	}
	e.Close()
	before, _ := w.last()
	until(t, "the reader says that it waits", func() bool { n, why := w.last(); return n > before && why != "" })
	more, err := readMore(r, f.st, 20) // what had been fetched
	if err != nil {
		t.Fatal(err)
	}
	e2 := &Embedded{Dir: dir, Port: port}
	broker(t, e2)
	produce(t, client(t, addr), "in", 2, 50, 100)
	after, err := readMore(r, f.st, 50)
	if err != nil {
		t.Fatal(err)
	}
	until(t, "the reader says that it goes on", func() bool { _, why := w.last(); return why == "" })
	got = slices.Concat(got, more, after)
	slices.Sort(got)
	if len(slices.Compact(got)) != 100 {
		t.Errorf("got %d records, want 100, each once", len(got))
	}
}

// TestSplitsCancelled: waiting ends with its context.
func TestSplitsCancelled(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	s := Source{Brokers: []string{"127.0.0.1:1"}, Topics: []string{"in"}}
	if _, err := s.Splits(ctx, sourceEnv(nil)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want context.DeadlineExceeded", err)
	}
}

func TestGroupOffsets(t *testing.T) {
	addr := broker(t, &Embedded{})
	cl := client(t, addr)
	in := topicName(t)
	makeTopic(t, cl, in, 1)
	produce(t, cl, in, 1, 0, 10)
	shown := func(group string) int64 {
		l, err := kadm.NewClient(cl).FetchOffsets(t.Context(), group)
		if err != nil {
			return -1
		}
		if o, ok := l.Lookup(in, 0); ok {
			return o.At
		}
		return -1
	}
	for _, group := range []string{"", "mine", NoGroup} {
		s := Source{Brokers: []string{addr}, Topics: []string{in}, Group: group}
		st := splits(t, s)
		r, err := s.Open(t.Context(), sourceEnv(nil), st)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := readMore(r, st, 4); err != nil {
			t.Fatal(err)
		}
		r.(jobs.CommitWatcher).Committed(0, st[0].Position)
		if group != NoGroup {
			name := group
			if name == "" {
				name = "sidestream.test"
			}
			until(t, "offset 4 is shown to "+name, func() bool { return shown(name) == 4 })
		}
		if _, err := readMore(r, st, 3); err != nil {
			t.Fatal(err)
		}
		r.(jobs.CommitWatcher).Committed(0, st[0].Position)
		r.Close() // shows what is pending
		switch group {
		case NoGroup:
			if at := shown(NoGroup); at != -1 {
				t.Errorf("group %q shows %d", NoGroup, at)
			}
		case "mine":
			if at := shown("mine"); at != 7 {
				t.Errorf("after Close %d is shown, want 7", at)
			}
		}
	}
}

// TestBuffer: fetching pauses at the bound.
func TestBuffer(t *testing.T) {
	addr := broker(t, &Embedded{})
	cl := client(t, addr, kgo.ProducerBatchCompression(kgo.NoCompression()))
	in := topicName(t)
	makeTopic(t, cl, in, 1)
	value := bytes.Repeat([]byte("x"), 10_000)
	for range 40 { // batches of 100 kB
		var rs []*kgo.Record
		for range 10 {
			rs = append(rs, &kgo.Record{Topic: in, Value: value})
		}
		if err := cl.ProduceSync(t.Context(), rs...).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	s := Source{Brokers: []string{addr}, Topics: []string{in}, BufferBytes: 300_000, FetchBytes: 200_000, PartitionBytes: 200_000}
	st := splits(t, s)
	jr, err := s.Open(t.Context(), sourceEnv(nil), st)
	if err != nil {
		t.Fatal(err)
	}
	defer jr.Close()
	r := jr.(*reader)
	queued := func() int64 {
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.queued
	}
	until(t, "the buffer fills", func() bool { return queued() > s.BufferBytes })
	time.Sleep(50 * time.Millisecond)
	if n := queued(); n > s.BufferBytes+int64(s.FetchBytes)+200_000 { // one answer more, and batches are not cut
		t.Errorf("%d bytes are queued, the bound is %d", n, s.BufferBytes)
	}
	if _, err := readMore(r, st, 400); err != nil {
		t.Fatal(err)
	}
}

func TestSourceRefuses(t *testing.T) {
	ok := func() Source { return Source{Brokers: []string{"a:1"}, Topics: []string{"in"}} }
	tests := []struct {
		name string
		edit func(*Source)
		want string
	}{
		{"no brokers", func(s *Source) { s.Brokers = nil }, "no brokers"},
		{"an empty broker", func(s *Source) { s.Brokers = []string{""} }, "address is empty"},
		{"embedded and others", func(s *Source) { s.Brokers = []string{"a:1", embedded} }, "stands alone"},
		{"embedded where there is none", func(s *Source) { s.Brokers = []string{embedded} }, "no embedded broker"},
		{"no topics", func(s *Source) { s.Topics = nil }, "no topics"},
		{"a topic's name", func(s *Source) { s.Topics = []string{"a/b"} }, "topic \"a/b\""},
		{"a topic twice", func(s *Source) { s.Topics = []string{"a", "a"} }, "named twice"},
		{"start", func(s *Source) { s.Start = "yesterday" }, "not earliest, latest or a time"},
		{"end", func(s *Source) { s.End = "soon" }, "is not never or latest"},
		{"a negative bound", func(s *Source) { s.BufferBytes = -1 }, "negative"},
		{"fetch bounds", func(s *Source) { s.PartitionBytes = 9 << 20 }, "more than fetch bytes"},
		{"sasl", func(s *Source) { s.Security.SASL = "gssapi" }, "not one of plain"},
		{"sasl without a user", func(s *Source) { s.Security.SASL = "plain" }, "needs a username"},
		{"a user without sasl", func(s *Source) { s.Security.Username = "u" }, "without sasl"},
		{"ca file without tls", func(s *Source) { s.Security.CAFile = "f" }, "without tls"},
		{"ca file that is not there", func(s *Source) { s.Security.CAFile, s.Security.TLS = "/none", true }, "ca_file"},
		{"password file that is not there", func(s *Source) {
			s.Security = Security{SASL: "plain", Username: "u", Password: connector.SecretFile("/none")}
		}, "kafka: password"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := ok()
			tt.edit(&s)
			_, err := s.Splits(t.Context(), sourceEnv(nil))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want an error with %q", err, tt.want)
			}
		})
	}
}

func TestPositionGolden(t *testing.T) {
	p := position{offset: 0x1122, epoch: 7, topicID: [16]byte{1, 2, 15: 16}}
	const open = "0100" + "2211000000000000" + "07000000" + "01020000000000000000000000000010"
	if got := fmt.Sprintf("%x", p.encode()); got != open {
		t.Errorf("got  %s\nwant %s", got, open)
	}
	p.bounded, p.end, p.epoch = true, 0x33, -1
	const bounded = "0101" + "2211000000000000" + "ffffffff" + "01020000000000000000000000000010" + "3300000000000000"
	if got := fmt.Sprintf("%x", p.encode()); got != bounded {
		t.Errorf("got  %s\nwant %s", got, bounded)
	}
}

func FuzzDecodePosition(f *testing.F) {
	f.Add(position{offset: 5, epoch: -1}.encode())
	f.Add(position{offset: 5, bounded: true, end: 9}.encode())
	f.Fuzz(func(t *testing.T, in []byte) {
		if p, err := decodePosition(in); err == nil && !bytes.Equal(p.encode(), in) {
			t.Fatalf("accepted %x, which encodes differently", in)
		}
	})
}

func FuzzEmptyUpTo(f *testing.F) {
	f.Add(bytes.Repeat([]byte{2}, 61), int64(0))
	f.Fuzz(func(t *testing.T, in []byte, from int64) { emptyUpTo(in, from) }) // never panics, always ends
}

// TestEmptyUpTo: batches that compaction has emptied are gone over, up to the first with a record.
func TestEmptyUpTo(t *testing.T) {
	batch := func(base int64, lastDelta, records byte) []byte {
		b := make([]byte, 61)
		b[7], b[11], b[16], b[26], b[60] = byte(base), 61-12, 2, lastDelta, records
		return b
	}
	tests := []struct {
		name string
		in   []byte
		next int64
		ok   bool
	}{
		{"nothing", nil, 0, false},
		{"a record", batch(10, 4, 5), 0, false},
		{"an empty batch", batch(10, 4, 0), 15, true},
		{"empty ones, then a record", slices.Concat(batch(10, 4, 0), batch(15, 0, 0), batch(16, 1, 1)), 16, true},
		{"records before the place do not count", slices.Concat(batch(5, 2, 3), batch(10, 1, 0)), 12, true},
		{"cut off", append(batch(10, 4, 0), 1, 2, 3), 15, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if next, ok := emptyUpTo(tt.in, 10); next != tt.next || ok != tt.ok {
				t.Errorf("got %d, %v, want %d, %v", next, ok, tt.next, tt.ok)
			}
		})
	}
}
