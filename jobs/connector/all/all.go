// Package all has the registry of the stock connectors.
package all

import (
	"github.com/sidestream-dev/sidestream/jobs/connector"
	"github.com/sidestream-dev/sidestream/jobs/connector/file"
)

// Registry returns the stock connectors, in the order in which they are listed to people.
func Registry() connector.Registry {
	return connector.Registry{
		Sources: []connector.SourceKind{file.SourceKind()},
		Sinks:   []connector.SinkKind{file.SinkKind()},
	}
}
