package bench

import (
	"math"
	"math/rand/v2"
	"strconv"

	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/jobs/connector/kafka"
	"github.com/sidestream-dev/sidestream/jobs/operator"
	"time"
)

// The workload that every user starts from: five topics of sensor readings, a job for each, a sixth that hears of what is
// high in any.
var sensorKinds = [...]string{"temperature", "humidity", "pressure", "vibration", "current"}

const (
	sensorDevices = 10_000
	sensorPerMS   = 20 // records per millisecond of event time and topic
	sensorStart   = int64(1_700_000_000_000)
	sensorWindow  = 10 * time.Second
)

// appendSensor appends record i of a topic as JSON, about 242 bytes.
func appendSensor(b []byte, topic int, i, perMS int64, rng *rand.Rand) []byte {
	device := int((uint64(i) * 0x9E3779B97F4A7C15 >> 17) % sensorDevices)
	b = append(b, `{"device":"d-`...)
	s := strconv.Itoa(device)
	b = append(b, "000000"[:6-len(s)]...)
	b = append(b, s...)
	b = append(b, `","kind":"`...)
	b = append(b, sensorKinds[topic]...)
	b = append(b, `","ts":`...)
	b = strconv.AppendInt(b, sensorStart+i/perMS, 10)
	b = append(b, `,"reading":`...)
	b = strconv.AppendFloat(b, math.Round(rng.Float64()*10000)/100, 'f', -1, 64)
	b = append(b, `,"seq":`...)
	b = strconv.AppendInt(b, i, 10)
	return append(b, `,"site":"plant-07","line":"L3","fw":"2.14.9","battery":0.83,"lat":52.51234,"lon":13.40123,"tags":["a","b"],"status":"ok","note":"........................"}`...)
}

// sensor is a reading as a Go job has it: four of its fourteen fields.
type sensor struct {
	device  string
	kind    string
	ts      int64
	reading float64
}

type sensorSignal struct {
	device string
	kind   string
	ts     int64
	level  float64
}

type sensorPane struct {
	device   string
	start    int64
	n        int64
	sum, max float64
}

type sensorAlert struct {
	device string
	start  int64
	kinds  int64
}

// scanSensor takes four fields out of a reading in one pass over its bytes.
func scanSensor(b []byte) (s sensor, err error) {
	err = scanObject(b, func(name, value []byte) error {
		switch string(name) {
		case "device":
			s.device = string(value)
		case "kind":
			s.kind = kindName(value)
		case "ts":
			s.ts, err = strconv.ParseInt(string(value), 10, 64)
		case "reading":
			s.reading, err = strconv.ParseFloat(string(value), 64)
		}
		return err
	})
	return s, err
}

// kindName returns the kind without allocating for those there are.
func kindName(b []byte) string {
	for _, k := range sensorKinds {
		if string(b) == k {
			return k
		}
	}
	return string(b)
}

type syntaxError string

func (e syntaxError) Error() string { return "bench: not a flat JSON object: " + string(e) }

// scanObject calls f with each name and value of a JSON object; a string's value comes without quotes and with its escapes,
// an array or object as it stands.
func scanObject(b []byte, f func(name, value []byte) error) error {
	i := 0
	if len(b) == 0 || b[0] != '{' {
		return syntaxError("no {")
	}
	i++
	for i < len(b) {
		if b[i] == '}' {
			return nil
		}
		if b[i] != '"' {
			return syntaxError("no name")
		}
		start := i + 1
		for i++; i < len(b) && b[i] != '"'; i++ {
		}
		if i+1 >= len(b) || b[i+1] != ':' {
			return syntaxError("no colon")
		}
		name := b[start:i]
		i += 2
		from, to := i, i
		switch {
		case i >= len(b):
			return syntaxError("no value")
		case b[i] == '"':
			from = i + 1
			for i++; i < len(b) && b[i] != '"'; i++ {
				if b[i] == '\\' {
					i++
				}
			}
			to = i
			i++
		default:
			depth := 0
			for ; i < len(b); i++ {
				c := b[i]
				if c == '[' || c == '{' {
					depth++
				} else if c == ']' || c == '}' {
					if depth == 0 {
						break
					}
					depth--
				} else if c == ',' && depth == 0 {
					break
				}
			}
			to = i
		}
		if to > len(b) {
			return syntaxError("cut short")
		}
		if err := f(name, b[from:to]); err != nil {
			return err
		}
		if i < len(b) && b[i] == ',' {
			i++
		}
	}
	return syntaxError("no }")
}

func sensorSignalTopic(name string) jobs.BusTopic[sensorSignal] {
	return jobs.BusTopic[sensorSignal]{Name: name, Codec: jobs.Codec[sensorSignal]{
		Encode: func(b []byte, s sensorSignal) ([]byte, error) {
			b = append(b, `{"device":"`...)
			b = append(b, s.device...)
			b = append(b, `","kind":"`...)
			b = append(b, s.kind...)
			b = append(b, `","ts":`...)
			b = strconv.AppendInt(b, s.ts, 10)
			b = append(b, `,"level":`...)
			b = strconv.AppendFloat(b, s.level, 'f', -1, 64)
			return append(b, '}'), nil
		},
		Decode: func(b []byte) (s sensorSignal, err error) {
			err = scanObject(b, func(name, value []byte) error {
				switch string(name) {
				case "device":
					s.device = string(value)
				case "kind":
					s.kind = kindName(value)
				case "ts":
					s.ts, err = strconv.ParseInt(string(value), 10, 64)
				case "level":
					s.level, err = strconv.ParseFloat(string(value), 64)
				}
				return err
			})
			return s, err
		}}}
}

func encodePane(b []byte, p sensorPane) ([]byte, error) {
	b = append(b, `{"device":"`...)
	b = append(b, p.device...)
	b = append(b, `","start":`...)
	b = strconv.AppendInt(b, p.start, 10)
	b = append(b, `,"n":`...)
	b = strconv.AppendInt(b, p.n, 10)
	b = append(b, `,"sum":`...)
	b = strconv.AppendFloat(b, p.sum, 'f', -1, 64)
	b = append(b, `,"max":`...)
	b = strconv.AppendFloat(b, p.max, 'f', -1, 64)
	return append(b, '}'), nil
}

func encodeAlert(b []byte, a sensorAlert) ([]byte, error) {
	b = append(b, `{"device":"`...)
	b = append(b, a.device...)
	b = append(b, `","start":`...)
	b = strconv.AppendInt(b, a.start, 10)
	b = append(b, `,"kinds":`...)
	b = strconv.AppendInt(b, a.kinds, 10)
	return append(b, '}'), nil
}

// goSensorJobs is the workload in the Go API.
func goSensorJobs(brokers []string) []*jobs.Job {
	topic := sensorSignalTopic("signals")
	var all []*jobs.Job
	for _, kind := range sensorKinds {
		j := jobs.New(kind)
		rs := jobs.From(j, kafka.Source{Brokers: brokers, Topics: []string{"in-" + kind}, End: "latest"},
			jobs.Codec[sensor]{Decode: scanSensor, Encode: func(b []byte, _ sensor) ([]byte, error) { return b, nil }},
			jobs.EventTime(func(s sensor) time.Time { return time.UnixMilli(s.ts) }, 500*time.Millisecond))
		good := jobs.Filter(rs, func(s sensor) bool { return s.kind == kind && s.reading >= 5 })
		byDevice := jobs.KeyBy(good, func(s sensor) string { return s.device })
		high := jobs.Filter(byDevice, func(s sensor) bool { return s.reading > 80 })
		jobs.ToTopic(jobs.Map(high, func(s sensor) sensorSignal { return sensorSignal{s.device, s.kind, s.ts, s.reading} }), topic)
		panes, _ := operator.Tumbling(byDevice, sensorWindow, operator.Aggregates(func(device string, p *operator.Pane) sensorPane {
			return sensorPane{device, int64(p.Start), p.Int(0), p.Float(1), p.Float(2)}
		}, operator.Count[sensor](), operator.Sum(func(s sensor) float64 { return s.reading }), operator.Max(func(s sensor) float64 { return s.reading })))
		jobs.To(panes, "main", kafka.Sink{Brokers: brokers, Topic: "out-" + kind}, jobs.Codec[sensorPane]{Encode: encodePane})
		all = append(all, j)
	}
	j := jobs.New("alerts")
	panes, _ := operator.Tumbling(jobs.FromTopic(j, topic), sensorWindow, operator.Aggregates(func(device string, p *operator.Pane) sensorAlert {
		return sensorAlert{device, int64(p.Start), p.Int(0)}
	}, operator.Distinct(func(s sensorSignal) string { return s.kind })))
	jobs.To(jobs.Filter(panes, func(a sensorAlert) bool { return a.kinds >= 3 }), "main",
		kafka.Sink{Brokers: brokers, Topic: "alerts"}, jobs.Codec[sensorAlert]{Encode: encodeAlert})
	return append(all, j)
}
