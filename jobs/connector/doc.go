// Package connector says how a definition's settings become a [jobs.Source] or a [jobs.Sink]: each connector describes
// its settings once, and from that the YAML loader decodes strictly and the JSON Schema is made.
//
// A [Registry] is a plain value: package all has the stock one, and a program of one's own may append to it.
//
//	reg := all.Registry()
//	k, ok := reg.Source("file")
//	v, errs := connector.Complete(k.Fields, given) // defaults, required, types, choices
//	src, err := k.New(v, connector.LoadEnv{})      // a *FieldError names the setting at fault
//
// # Plan
//
//	registry.go   Field, SourceKind, SinkKind, Registry
//	values.go     Values, Complete, parsing a setting's text
//	secret.go     secrets from files and the environment
//	file, kafka, generator, stdout   the stock connectors, one folder each
//	all           the stock registry
//
// Nothing here is mutable once built; all of it may be read concurrently.
package connector
