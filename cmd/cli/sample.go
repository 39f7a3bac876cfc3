package cli

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/sidestream-dev/sidestream/examples/air"
)

// samplePartitions is how many partitions each of the sample's topics has. A station belongs to one, in turn, so that none
// stays empty: the watermark would wait for it.
const samplePartitions = 4

// reading is one line of the sample and where it goes.
type reading struct {
	topic     string
	partition int32
	station   string
	at        time.Time
	line      []byte
}

// sample returns the readings of the example, in the order of time, and the topics they belong to.
func sample() (all []reading, topics []string, err error) {
	f, err := air.Files.Open("data/readings.jsonl.gz")
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		return nil, nil, err
	}
	stations := map[string]int32{}
	lines := bufio.NewScanner(z)
	for lines.Scan() {
		var v struct {
			Station   string `json:"station"`
			Pollutant string `json:"pollutant"`
			TS        int64  `json:"ts"`
		}
		if err := json.Unmarshal(lines.Bytes(), &v); err != nil {
			return nil, nil, fmt.Errorf("the sample: %w", err)
		}
		if _, known := stations[v.Station]; !known {
			stations[v.Station] = int32(len(stations) % samplePartitions)
		}
		if !slices.Contains(topics, v.Pollutant) {
			topics = append(topics, v.Pollutant)
		}
		all = append(all, reading{v.Pollutant, stations[v.Station], v.Station, time.UnixMilli(v.TS).UTC(), bytes.Clone(lines.Bytes())})
	}
	return all, topics, lines.Err()
}

// feeder writes the sample to a broker at a pace.
type feeder struct {
	client   *kgo.Client
	readings []reading
	rate     int // records/s

	fed     atomic.Int64
	reached atomic.Int64 // event time of the last, in ms
}

// newFeeder makes the topics where they are missing, and finds out what of the sample they hold already.
func newFeeder(ctx context.Context, broker string, rate int) (*feeder, error) {
	readings, topics, err := sample()
	if err != nil {
		return nil, err
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(broker), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		return nil, err
	}
	f := &feeder{client: client, rate: rate}
	admin := kadm.NewClient(client)
	made, err := admin.CreateTopics(ctx, samplePartitions, 1, nil, topics...)
	for _, t := range made {
		if err == nil && t.Err != nil && !errors.Is(t.Err, kerr.TopicAlreadyExists) {
			err = t.Err
		}
	}
	if err != nil {
		client.Close()
		return nil, fmt.Errorf("making the sample's topics: %w", err)
	}
	ends, err := admin.ListEndOffsets(ctx, topics...)
	if err != nil {
		client.Close()
		return nil, fmt.Errorf("asking what of the sample was fed already: %w", err)
	}
	held := map[string]map[int32]int64{}
	ends.Each(func(o kadm.ListedOffset) {
		if held[o.Topic] == nil {
			held[o.Topic] = map[int32]int64{}
		}
		held[o.Topic][o.Partition] = o.Offset
	})
	for _, r := range readings {
		if held[r.topic][r.partition] > 0 {
			held[r.topic][r.partition]--
			f.count(r)
			continue
		}
		f.readings = append(f.readings, r)
	}
	return f, nil
}

func (f *feeder) count(r reading) {
	f.fed.Add(1)
	f.reached.Store(r.at.UnixMilli())
}

// feedMax bounds what is written at once, after a pause of the machine or at a high rate.
const feedMax = 4096

// run feeds what is left, until ctx ends.
func (f *feeder) run(ctx context.Context) error {
	clock := time.NewTicker(50 * time.Millisecond)
	defer clock.Stop()
	began, fed := time.Now(), 0
	for len(f.readings) > 0 {
		select {
		case <-ctx.Done():
			return nil
		case <-clock.C:
		}
		due := int(time.Since(began).Seconds()*float64(f.rate)) - fed
		n := min(due, len(f.readings), feedMax)
		if n <= 0 {
			continue
		}
		var records []*kgo.Record
		for _, r := range f.readings[:n] {
			records = append(records, &kgo.Record{Topic: r.topic, Partition: r.partition, Key: []byte(r.station), Value: r.line, Timestamp: r.at})
		}
		if err := f.client.ProduceSync(ctx, records...).FirstErr(); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("feeding the sample: %w", err)
		}
		for _, r := range f.readings[:n] {
			f.count(r)
		}
		f.readings, fed = f.readings[n:], fed+n
	}
	return nil
}
