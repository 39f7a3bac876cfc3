// Package all has the registry of the stock connectors.
package all

import (
	"github.com/sidestream-dev/sidestream/jobs/connector"
	"github.com/sidestream-dev/sidestream/jobs/connector/file"
	"github.com/sidestream-dev/sidestream/jobs/connector/generator"
	"github.com/sidestream-dev/sidestream/jobs/connector/kafka"
	"github.com/sidestream-dev/sidestream/jobs/connector/stdout"
)

// Registry returns the stock connectors, in the order in which they are listed to people.
func Registry() connector.Registry {
	return connector.Registry{
		Sources: []connector.SourceKind{kafka.SourceKind(), file.SourceKind(), generator.SourceKind()},
		Sinks:   []connector.SinkKind{kafka.SinkKind(), file.SinkKind(), stdout.SinkKind()},
	}
}
