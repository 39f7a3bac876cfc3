package bench

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/sidestream-dev/sidestream/internal/airdata"
)

// TestFivePlusOneForms: what is measured does the same: both forms write the windows that the hand-written loop has, and the
// alerts that follow from the readings.
func TestFivePlusOneForms(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	const records, perMS = 30_000, 1 // half a minute of event time
	c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, sensorTopics()...))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := loadSensors(c.ListenAddrs(), records, perMS); err != nil {
		t.Fatal(err)
	}
	cfg := FivePlusOneConfig{Records: records, Brokers: c.ListenAddrs(), Dir: t.TempDir()}

	var mu sync.Mutex
	want := map[string][]string{}
	if _, err := handWritten(ctx, cfg, func(kind string, p sensorPane) {
		mu.Lock()
		defer mu.Unlock()
		line, _ := encodePane(nil, p)
		want["out-"+kind] = append(want["out-"+kind], string(line))
	}); err != nil {
		t.Fatal(err)
	}
	want["alerts"] = expectedAlerts(t, c.ListenAddrs()[0])
	for topic, lines := range want {
		if len(lines) < 100 {
			t.Errorf("%s: only %d lines", topic, len(lines))
		}
	}
	before := map[string]int{}
	for _, f := range sensorForms {
		if _, err := sixJobs(ctx, cfg, f.build); err != nil {
			t.Fatalf("%s: %v", f.name, err)
		}
		for topic, lines := range want {
			got := airdata.Consume(t, c.ListenAddrs()[0], topic) // one partition: in the order of writing
			airdata.Compare(t, f.name+" "+topic, got[before[topic]:], lines)
			before[topic] = len(got)
		}
	}
}

// expectedAlerts says from the readings alone which devices had three kinds or more over 80 within a window.
func expectedAlerts(t *testing.T, addr string) []string {
	t.Helper()
	type window struct {
		device string
		start  int64
	}
	high := map[window]map[string]bool{}
	for _, kind := range sensorKinds {
		for _, line := range airdata.Consume(t, addr, "in-"+kind) {
			s, err := scanSensor([]byte(line))
			if err != nil {
				t.Fatal(err)
			}
			if s.reading <= 80 {
				continue
			}
			w := window{s.device, s.ts - s.ts%sensorWindow.Milliseconds()}
			if high[w] == nil {
				high[w] = map[string]bool{}
			}
			high[w][s.kind] = true
		}
	}
	var lines []string
	for w, kinds := range high {
		if len(kinds) >= 3 {
			line, _ := encodeAlert(nil, sensorAlert{w.device, w.start, int64(len(kinds))})
			lines = append(lines, string(line))
		}
	}
	return lines
}
