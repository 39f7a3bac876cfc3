package air_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/sidestream-dev/sidestream/internal/airdata"
	"github.com/sidestream-dev/sidestream/runtime"
)

// onKafka returns the definitions over Kafka with topics of their own: in before those that are read, out before those that
// are written.
func onKafka(t *testing.T, in, out string, parallelism int) string {
	t.Helper()
	return edited(t, "jobs",
		"version: 1\n", fmt.Sprintf("version: 1\nparallelism: %d\n", parallelism),
		"topics: [", "topics: ["+in,
		"topic: air-", "topic: "+out+"air-")
}

func fromKafka(t *testing.T, addr, out string) written {
	t.Helper()
	return collect(func(name string) []string { return airdata.Consume(t, addr, out+"air-"+name) })
}

// TestKafka: the YAML jobs over Kafka topics, which end where they ended at the first connection, give what the reference
// program gives, at every parallelism.
func TestKafka(t *testing.T) {
	d, addr, in := airdata.Asked(t), airdata.Broker(t), airdata.Prefix()
	want := airdata.Expect(t, d)
	d.Produce(t, addr, in, 4)
	for _, parallelism := range []int{1, 2, 4} {
		t.Run(fmt.Sprintf("data=%s,parallelism=%d", d.Name, parallelism), func(t *testing.T) {
			out, dir := airdata.Prefix(), t.TempDir()
			defs := load(t, onKafka(t, in, out, parallelism), map[string]string{"KAFKA_BROKERS": addr, "KAFKA_END": "latest"})
			began := time.Now()
			st := untilDone(t, runtime.Config{DataDir: dir}, defs)
			t.Logf("done in %v", time.Since(began).Round(time.Millisecond))
			got := fromKafka(t, addr, out)
			got.check(t, want)
			checkDead(t, st, want)
			checkNothingToDo(t, untilDone(t, runtime.Config{DataDir: dir}, defs))
			got.checkSame(t, fromKafka(t, addr, out))
		})
	}
}
