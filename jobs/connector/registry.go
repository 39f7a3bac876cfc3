package connector

import (
	"maps"
	"path/filepath"

	"github.com/sidestream-dev/sidestream/jobs"
)

// FieldKind is the type of a setting.
type FieldKind string

// The kinds, with the Go type a value of theirs has in [Values].
const (
	String   FieldKind = "string"   // string
	Int      FieldKind = "int"      // int64
	Bool     FieldKind = "bool"     // bool
	Duration FieldKind = "duration" // time.Duration; written 250ms, 5s, 1h30m
	Bytes    FieldKind = "bytes"    // int64; written 4096, 64KiB, 1MB
	List     FieldKind = "list"     // []string
	Enum     FieldKind = "enum"     // string, one of Field.Enum
	Secret   FieldKind = "secret"   // jobs.Secret; written ${file:PATH} or ${env:NAME}, never as it is
)

// Field describes one setting of a connector.
type Field struct {
	Name     string
	Kind     FieldKind
	Doc      string // one sentence, without the name
	Required bool
	Default  string   // as it would be written; "" means the zero value
	Enum     []string // the choices of an Enum
	// Inherit marks what a sink takes from the job's source of the same connector where it gives none of the marked
	// settings itself (see SinkKind.Inherited); Required is about what results.
	Inherit bool
}

// LoadEnv is what is known of the place where a definition is loaded.
type LoadEnv struct {
	// BaseDir is put before relative paths. Empty leaves them as they are: relative to the working directory of the
	// process.
	BaseDir string
}

// Path returns p below BaseDir, or as it is where it is absolute or there is no BaseDir.
func (e LoadEnv) Path(p string) string {
	if e.BaseDir == "" || p == "" || filepath.IsAbs(p) {
		return p
	}
	return filepath.Join(e.BaseDir, p)
}

// Encoding says what the bytes of a connector's records are, where its settings decide that.
type Encoding string

const (
	AnyBytes Encoding = ""     // the definition says it
	JSON     Encoding = "json" // each record is one JSON value
	Text     Encoding = "text" // each record is a string
)

// SourceKind is a connector that a definition may name under source.
type SourceKind struct {
	Name   string
	Doc    string
	Fields []Field
	// Encoding returns what the records of a source with these settings are; nil means AnyBytes.
	Encoding func(v Values) Encoding
	// New makes the source. v is what Complete returned. A *FieldError, or several joined, names the settings at fault.
	New func(v Values, env LoadEnv) (jobs.Source, error)
}

// SinkKind is a connector that a definition may name under outputs.
type SinkKind struct {
	Name   string
	Doc    string
	Fields []Field
	// Encoding returns what a sink with these settings wants its values to be; nil means JSON.
	Encoding func(v Values) Encoding
	// New makes the sink. v is what Complete returned. A *FieldError, or several joined, names the settings at fault.
	New func(v Values, env LoadEnv) (jobs.Sink, error)
}

// Registry lists the connectors a program knows.
type Registry struct {
	Sources []SourceKind
	Sinks   []SinkKind
}

// Source returns the source connector called name.
func (r Registry) Source(name string) (SourceKind, bool) {
	for _, k := range r.Sources {
		if k.Name == name {
			return k, true
		}
	}
	return SourceKind{}, false
}

// Sink returns the sink connector called name.
func (r Registry) Sink(name string) (SinkKind, bool) {
	for _, k := range r.Sinks {
		if k.Name == name {
			return k, true
		}
	}
	return SinkKind{}, false
}

// Decodes returns what the records of a source with the settings v are.
func (k SourceKind) Decodes(v Values) Encoding {
	if k.Encoding == nil {
		return AnyBytes
	}
	return k.Encoding(v)
}

// Encodes returns what a sink with the settings v wants its values to be.
func (k SinkKind) Encodes(v Values) Encoding {
	if k.Encoding == nil {
		return JSON
	}
	return k.Encoding(v)
}

// Inherited returns given, with the settings marked Inherit taken from those of a source of the same connector in the same
// job, if given has none of them. source may be nil.
func (k SinkKind) Inherited(given, source map[string]any) map[string]any {
	out := maps.Clone(given)
	if out == nil {
		out = map[string]any{}
	}
	for _, f := range k.Fields {
		if _, ok := given[f.Name]; ok && f.Inherit {
			return out
		}
	}
	for _, f := range k.Fields {
		if v, ok := source[f.Name]; ok && f.Inherit {
			out[f.Name] = v
		}
	}
	return out
}
