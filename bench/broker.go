package bench

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
)

// brokerEnv makes a process of this program a broker: its value is how many records each topic is loaded with.
const brokerEnv = "SIDESTREAM_BENCH_BROKER"

// MaybeBroker turns this process into the broker of a measurement if it was started as one, and then does not return.
// A program that can run measurements calls it first thing.
func MaybeBroker() {
	n := os.Getenv(brokerEnv)
	if n == "" {
		return
	}
	if err := runBroker(n, os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "bench broker:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// runBroker serves until stdin ends, so that it never outlives who started it.
func runBroker(records string, in io.Reader, out io.Writer) error {
	n, err := strconv.ParseInt(records, 10, 64)
	if err != nil {
		return err
	}
	c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, sensorTopics()...))
	if err != nil {
		return err
	}
	defer c.Close()
	if err := loadSensors(c.ListenAddrs(), n, sensorPerMS); err != nil {
		return err
	}
	fmt.Fprintln(out, strings.Join(c.ListenAddrs(), ","))
	_, err = io.Copy(io.Discard, in)
	return err
}

// sensorTopics are those that the workload reads and writes.
func sensorTopics() []string {
	topics := []string{"alerts"}
	for _, k := range sensorKinds {
		topics = append(topics, "in-"+k, "out-"+k)
	}
	return topics
}

// loadSensors produces n records to each of the five topics, perMS to a millisecond of event time.
func loadSensors(brokers []string, n, perMS int64) error {
	cl, err := kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.ProducerBatchMaxBytes(1<<20), kgo.MaxBufferedRecords(1<<16),
		kgo.ProducerBatchCompression(kgo.NoCompression()), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		return err
	}
	defer cl.Close()
	var failed error
	for t, kind := range sensorKinds {
		rng := rand.New(rand.NewPCG(uint64(t), 0))
		for i := range n {
			r := &kgo.Record{Topic: "in-" + kind, Value: appendSensor(make([]byte, 0, 256), t, i, perMS, rng)}
			cl.Produce(context.Background(), r, func(_ *kgo.Record, err error) {
				if err != nil {
					failed = err
				}
			})
		}
	}
	return errors.Join(cl.Flush(context.Background()), failed)
}

// startBroker starts a broker in a process of its own and returns its addresses. stop ends it.
func startBroker(n int64) (brokers []string, stop func() error, err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, nil, err
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d", brokerEnv, n))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, nil, fmt.Errorf("starting a broker: %w", err)
	}
	stop = func() error { return errors.Join(in.Close(), cmd.Wait()) }
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("the broker did not start: %w", err), stop())
	}
	return strings.Split(strings.TrimSpace(line), ","), stop, nil
}
