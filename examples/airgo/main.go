// Command airgo is the example of examples/air with its six jobs written in Go: five watch a pollutant each, the sixth
// puts together what they say of a station within a day.
//
//	go run ./examples/airgo run                reads the topics pm25, so2, no2, co and o3 of KAFKA_BROKERS (host:port,…)
//	go run ./examples/airgo run --until-done   the same up to where they end now, with KAFKA_END=latest; or from files, where
//	                                           AIR_FILES=DIR has pm25-STATION.jsonl …; output goes to DIR/out
//
// It has every command of sidestream: its jobs stand beside those of YAML files.
package main

import (
	"cmp"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/sidestream-dev/sidestream/cmd/cli"
	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/jobs/connector/file"
	"github.com/sidestream-dev/sidestream/jobs/connector/kafka"
	"github.com/sidestream-dev/sidestream/jobs/operator"
)

// Reading is an hour's value at a station, in µg/m³. A gap has "NA" for a value, which is no number: it cannot be decoded
// and goes to the dead letters.
type Reading struct {
	Station string  `json:"station"`
	TS      int64   `json:"ts"` // beginning of the hour, milliseconds since the Unix epoch
	Value   float64 `json:"value"`
}

func (r Reading) at() time.Time  { return time.UnixMilli(r.TS) }
func (r Reading) value() float64 { return r.Value }

// Mean is what a window comes to.
type Mean struct {
	Station   string  `json:"station"`
	Pollutant string  `json:"pollutant"`
	Start     string  `json:"start"`
	End       string  `json:"end"`
	N         int64   `json:"n"`
	Mean      float64 `json:"mean"`
	Max       float64 `json:"max"`
}

// Alert is a station's day with three or more pollutants over their limits.
type Alert struct {
	Station     string `json:"station"`
	Start       string `json:"start"`
	Pollutants  int64  `json:"pollutants"`
	Exceedances int64  `json:"exceedances"`
}

var exceedances = jobs.BusTopic[Mean]{Name: "exceedances"}

// pollutants have the limits of China's GB 3095-2012, class II: means of a day, for ozone of eight hours. (The World Health
// Organization's guidelines of 2021 are 15, 40, 25, 4000 and 100.)
var pollutants = []struct {
	name  string
	width time.Duration
	limit float64 // µg/m³
}{
	{"pm25", 24 * time.Hour, 75},
	{"so2", 24 * time.Hour, 150},
	{"no2", 24 * time.Hour, 80},
	{"co", 24 * time.Hour, 4000},
	{"o3", 8 * time.Hour, 160},
}

// ends says where a job's records come from and go to.
type ends struct {
	in  func(pollutant string) jobs.Source
	out func(name string) jobs.Sink
}

// build makes the six jobs.
func build(e ends) []*jobs.Job {
	var all []*jobs.Job
	for _, p := range pollutants {
		j := jobs.New(p.name)
		readings := jobs.From(j, e.in(p.name), jobs.JSON[Reading](), jobs.EventTime(Reading.at, time.Hour), jobs.IdleAfter(30*time.Second), jobs.ErrorsTo("dead"))
		means, _ := operator.Tumbling(jobs.KeyBy(readings, func(r Reading) string { return r.Station }), p.width,
			operator.Aggregates(func(station string, w *operator.Pane) Mean {
				return Mean{station, p.name, w.Start.String(), w.End.String(), w.Int(0), w.Float(1), w.Float(2)}
			}, operator.Count[Reading](), operator.Mean(Reading.value), operator.Max(Reading.value)))
		jobs.ToTopic(jobs.Filter(means, func(m Mean) bool { return m.Mean > p.limit }), exceedances)
		jobs.To(means, "main", e.out(p.name), jobs.JSON[Mean]())
		jobs.DeadLetters(j, "dead", nil, "dead-letters")
		all = append(all, j)
	}
	j := jobs.New("alerts")
	days, _ := operator.Tumbling(jobs.FromTopic(j, exceedances), 24*time.Hour,
		operator.Aggregates(func(station string, w *operator.Pane) Alert {
			return Alert{station, w.Start.String(), w.Int(0), w.Int(1)}
		}, operator.Distinct(func(m Mean) string { return m.Pollutant }), operator.Count[Mean]()))
	jobs.To(jobs.Filter(days, func(a Alert) bool { return a.Pollutants >= 3 }), "main", e.out("alerts"), jobs.JSON[Alert]())
	return append(all, j)
}

func onKafka(brokers, end string) ends {
	at := strings.Split(brokers, ",")
	return ends{
		in:  func(p string) jobs.Source { return kafka.Source{Brokers: at, Topics: []string{p}, End: end} },
		out: func(name string) jobs.Sink { return kafka.Sink{Brokers: at, Topic: "air-" + name} },
	}
}

func onFiles(dir string) ends {
	return ends{
		in:  func(p string) jobs.Source { return file.Source{Path: filepath.Join(dir, p+"-*.jsonl")} },
		out: func(name string) jobs.Sink { return file.Sink{Path: filepath.Join(dir, "out", name+".jsonl")} },
	}
}

func main() {
	e := onKafka(cmp.Or(os.Getenv("KAFKA_BROKERS"), "embedded"), os.Getenv("KAFKA_END"))
	if dir := os.Getenv("AIR_FILES"); dir != "" {
		e = onFiles(dir)
	}
	os.Exit(cli.Main(build(e)...))
}
