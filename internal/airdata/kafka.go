package airdata

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
)

// RealKafka names, in the environment, a Kafka that takes the place of the broker inside the test's process.
const RealKafka = "SIDESTREAM_TEST_KAFKA"

// kafkaWait bounds each step of a test with a broker.
const kafkaWait = 5 * time.Minute

// Broker returns the address of the Kafka that RealKafka names, else of one inside this process that lives as long as the
// test.
func Broker(tb testing.TB) string {
	tb.Helper()
	if addr := os.Getenv(RealKafka); addr != "" {
		tb.Logf("on the Kafka at %s", addr)
		return addr
	}
	c, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(c.Close)
	tb.Logf("on a broker inside the test (%s names no other)", RealKafka)
	return c.ListenAddrs()[0]
}

// Prefix is one for the names of topics that no other test, nor another run on the same Kafka, has.
func Prefix() string { return fmt.Sprintf("air-%d-%d-", os.Getpid(), time.Now().UnixNano()) }

// Produce makes a topic for each pollutant, prefix before its name, and fills it with the readings merged by time, the
// station as key.
func (d Data) Produce(tb testing.TB, addr, prefix string, partitions int32) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), kafkaWait)
	defer cancel()
	cl, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.RecordPartitioner(kgo.StickyKeyPartitioner(nil)), kgo.MaxBufferedRecords(1<<16))
	if err != nil {
		tb.Fatal(err)
	}
	defer cl.Close()
	for _, p := range Pollutants {
		topic := prefix + p
		if _, err := kadm.NewClient(cl).CreateTopic(ctx, partitions, 1, nil, topic); err != nil {
			tb.Fatalf("airdata: make topic %s: %v", topic, err)
		}
		var failed kgo.FirstErrPromise
		stations, lines := d.Merged(tb, p)
		for i, l := range lines {
			cl.Produce(ctx, &kgo.Record{Topic: topic, Key: []byte(stations[i]), Value: l}, failed.Promise())
		}
		if err := failed.Err(); err != nil {
			tb.Fatalf("airdata: fill topic %s: %v", topic, err)
		}
		tb.Logf("%s: %d readings in %d partitions", topic, len(lines), partitions)
	}
}

// Consume returns the values of all that is committed in a topic now; one that does not exist holds nothing.
func Consume(tb testing.TB, addr, topic string) (lines []string) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), kafkaWait)
	defer cancel()
	cl, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.KeepControlRecords()) // the last of a partition may be one
	if err != nil {
		tb.Fatal(err)
	}
	defer cl.Close()
	left := committed(ctx, tb, kadm.NewClient(cl), topic)
	at := map[int32]kgo.Offset{}
	for p := range left {
		at[p] = kgo.NewOffset().AtStart()
	}
	cl.AddConsumePartitions(map[string]map[int32]kgo.Offset{topic: at})
	for len(left) > 0 {
		fs := cl.PollFetches(ctx)
		if err := fs.Err(); err != nil {
			tb.Fatalf("airdata: read %s, of which partitions %v are left: %v", topic, slices.Sorted(maps.Keys(left)), err)
		}
		fs.EachRecord(func(r *kgo.Record) {
			if !r.Attrs.IsControl() {
				lines = append(lines, string(r.Value))
			}
			if r.Offset+1 >= left[r.Partition] {
				delete(left, r.Partition)
			}
		})
	}
	return lines
}

// committed returns the ends of the partitions that hold something, once no transaction is open there: a commit is
// answered a little before readers see it.
func committed(ctx context.Context, tb testing.TB, adm *kadm.Client, topic string) map[int32]int64 {
	tb.Helper()
	for {
		stable, err := adm.ListCommittedOffsets(ctx, topic)
		var ends kadm.ListedOffsets
		if err == nil {
			ends, err = adm.ListEndOffsets(ctx, topic)
		}
		if err != nil {
			tb.Fatalf("airdata: ends of %s: %v", topic, err)
		}
		out, settled := map[int32]int64{}, true
		ends.Each(func(o kadm.ListedOffset) {
			if s, ok := stable.Lookup(topic, o.Partition); o.Err == nil && (!ok || s.Offset != o.Offset) {
				settled = false
			}
			if o.Err == nil && o.Offset > 0 {
				out[o.Partition] = o.Offset
			}
		})
		if settled {
			return out
		}
		time.Sleep(10 * time.Millisecond)
	}
}
