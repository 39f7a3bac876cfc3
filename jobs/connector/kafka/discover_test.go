package kafka

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/sidestream-dev/sidestream/jobs"
)

// addPartition gives a topic one more partition, so that it has n, and writes three records to it.
func addPartition(t testing.TB, cl *kgo.Client, topic string, n int) {
	t.Helper()
	adm := kadm.NewClient(cl)
	if r, err := adm.UpdatePartitions(t.Context(), n, topic); err != nil || r.Error() != nil {
		t.Fatal(err, r.Error())
	}
	until(t, "the new partition to be there", func() bool {
		l, err := adm.ListEndOffsets(t.Context(), topic)
		_, ok := l.Lookup(topic, int32(n-1))
		return err == nil && ok && l.Error() == nil
	})
	for i := range 3 {
		rec := &kgo.Record{Topic: topic, Partition: int32(n - 1), Value: fmt.Appendf(nil, "new%d", i)}
		if err := client(t, cl.OptValue(kgo.SeedBrokers).([]string)[0]).ProduceSync(t.Context(), rec).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestDiscoverLatest: what a job that starts at the latest offsets gets of a partition that comes later is all of it, also what
// was written before anybody looked, and also where the job finds the partition when it starts again.
func TestDiscoverLatest(t *testing.T) {
	addr := broker(t, &Embedded{})
	cl, topic := client(t, addr), topicName(t)
	makeTopic(t, cl, topic, 2)
	produce(t, cl, topic, 2, 0, 20)
	s := Source{Brokers: []string{addr}, Topics: []string{topic}, Start: "latest", Discovery: discoveryMin}
	env := sourceEnv(nil)
	env.Known = splits(t, s)
	addPartition(t, cl, topic, 3)
	found, err := s.Discover(t.Context(), env)
	if err != nil || len(found) != 1 || found[0].Split.ID != topic+"/2" {
		t.Fatalf("found %v, %v", found, err)
	}
	want := []string{"2@0=new0", "2@1=new1", "2@2=new2"}
	if got := readN(t, s, slices.Clone(found), 3); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	again, err := s.Splits(t.Context(), env)
	if err != nil || len(again) != 3 {
		t.Fatalf("%v, %v", again, err)
	}
	if got := readN(t, s, again, 3); !slices.Equal(got, want) {
		t.Errorf("a restart gives %v, want %v", got, want)
	}
	first := splits(t, s) // of a job that has no position
	if len(first) != 3 {
		t.Fatal(first)
	}
	produce(t, client(t, addr), topic, 3, 20, 23)
	if got := readN(t, s, first, 3); len(got) != 3 || slices.Contains(got, want[0]) {
		t.Errorf("the first connection, at latest, gives %v", got)
	}
}

// TestBoundedFixesPartitions: a source with an end has the partitions of its first connection.
func TestBoundedFixesPartitions(t *testing.T) {
	addr := broker(t, &Embedded{})
	cl, topic := client(t, addr), topicName(t)
	makeTopic(t, cl, topic, 2)
	produce(t, cl, topic, 2, 0, 4)
	s := Source{Brokers: []string{addr}, Topics: []string{topic}, End: "latest"}
	env := sourceEnv(nil)
	env.Known = splits(t, s)
	addPartition(t, cl, topic, 3)
	again, err := s.Splits(t.Context(), env)
	if err != nil || len(again) != 2 {
		t.Fatalf("%v, %v: want the two partitions that there were", again, err)
	}
	if got := readN(t, s, again, -1); len(got) != 4 {
		t.Errorf("got %v", got)
	}
}

// TestDiscoverReplaced: a topic that is deleted and made again, with more partitions, is not taken for one that has grown.
func TestDiscoverReplaced(t *testing.T) {
	addr := broker(t, &Embedded{})
	cl, topic := client(t, addr), topicName(t)
	makeTopic(t, cl, topic, 1)
	produce(t, cl, topic, 1, 0, 4)
	s := Source{Brokers: []string{addr}, Topics: []string{topic}, Discovery: discoveryMin}
	env := sourceEnv(nil)
	env.Known = splits(t, s)
	done := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(t.Context(), testWait)
		defer cancel()
		_, err := s.Discover(ctx, env)
		done <- err
	}()
	if _, err := kadm.NewClient(cl).DeleteTopic(t.Context(), topic); err != nil {
		t.Fatal(err)
	}
	until(t, "the topic to be made again", func() bool {
		r, err := kadm.NewClient(cl).CreateTopic(t.Context(), 3, 1, nil, topic)
		return err == nil && r.Err == nil
	})
	var replaced *ReplacedError
	if err := <-done; !errors.As(err, &replaced) || replaced.Topic != topic {
		t.Errorf("Discover says %v, want a ReplacedError", err)
	}
	if _, err := s.Splits(t.Context(), env); !errors.As(err, &replaced) {
		t.Errorf("Splits says %v, want a ReplacedError", err)
	}
}

// TestDiscoveryInterval: what a definition may say.
func TestDiscoveryInterval(t *testing.T) {
	if _, err := (Source{Brokers: []string{"a:1"}, Topics: []string{"t"}, Discovery: -1}).withDefaults(); err == nil {
		t.Error("a negative one is accepted")
	}
	s, err := (Source{Brokers: []string{"a:1"}, Topics: []string{"t"}}).withDefaults()
	if err != nil || s.Discovery != defaultDiscovery {
		t.Errorf("got %v, %v", s.Discovery, err)
	}
	var _ jobs.Discoverer = s
}
