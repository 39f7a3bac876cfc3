// Package spec turns YAML job definitions into jobs, and says everything that is wrong with them.
//
//	jobs, problems := spec.Load(spec.Config{Connectors: all.Registry()}, "jobs/")
//
// The loader is the checker: what Load accepts is built, and nothing else looks at a definition. All mistakes of all
// files are reported at once, each with file, line and column, the line itself and a hint.
//
// # Plan
//
//	load.go      Config, Load, Check: files, documents; set.go: what must hold between jobs; pipe.go: NamedPipe
//	problem.go   Problem
//	node.go      reading YAML nodes strictly; places inside scalars
//	scalar.go    durations, sizes, names; reference.go: ${env:NAME:-default}, secrets, what looks like one
//	fields.go    the language as tables: every block's fields, for the checks and the schema
//	job.go       one document: its blocks in order, then the graph
//	source.go, steps.go, window.go, outputs.go    the blocks
//	rows.go      expressions as functions over records
//	cases.go     LoadCases: tests of jobs; cases_read.go reads them, cases_update.go writes what came into them, cases_schema.go
//	json.go      YAML nodes as JSON values
//	schema.go    the JSON Schema, made from the same tables
//	value        JSON values and rows; expr    the expression language
//
// The language itself is told in docs; expressions in package expr.
package spec
