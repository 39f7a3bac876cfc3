package bench

import (
	"embed"
	"errors"
	"strings"

	"github.com/sidestream-dev/sidestream/jobs"
	"github.com/sidestream-dev/sidestream/jobs/connector/all"
	"github.com/sidestream-dev/sidestream/jobs/spec"
)

//go:embed fiveplusone/*.yaml
var sensorFiles embed.FS

// yamlSensorJobs is the workload in YAML.
func yamlSensorJobs(brokers []string) ([]*jobs.Job, error) {
	load := func(name, kind string) ([]*jobs.Job, error) {
		b, err := sensorFiles.ReadFile("fiveplusone/" + name)
		if err != nil {
			return nil, err
		}
		defs, problems := spec.LoadBytes(spec.Config{Connectors: all.Registry(), Env: func(name string) (string, bool) {
			return strings.Join(brokers, ","), name == "KAFKA_BROKERS"
		}}, name, []byte(strings.ReplaceAll(string(b), "KIND", kind)))
		for _, p := range problems {
			err = errors.Join(err, errors.New(p.String()))
		}
		return defs, err
	}
	var defs []*jobs.Job
	for _, kind := range sensorKinds {
		d, err := load("reading.yaml", kind)
		if err != nil {
			return nil, err
		}
		defs = append(defs, d...)
	}
	d, err := load("alerts.yaml", "")
	return append(defs, d...), err
}
