// Package jobs says what a job is: its records, its graph, the contracts of sources, operators and sinks, and the
// handles through which a function keeps state and timers. It runs nothing; package runtime does.
//
// A job is built with typed streams and handed to a runtime:
//
//	j := jobs.New("temperature")
//	in := jobs.From(j, file.Source{Path: "readings/*.jsonl"}, jobs.JSON[Reading](), jobs.EventTime(Reading.At, 5*time.Second))
//	hot := jobs.Filter(in, func(r Reading) bool { return r.Level > 90 })
//	jobs.ToTopic(hot, jobs.BusTopic[Reading]{Name: "device-signals"})
//
// # Plan
//
//	record.go   Rec, Message, Key, Header: what travels
//	source.go   Source, Reader, Chunk: where records come from
//	sink.go     Sink, Writer: where they leave the process
//	state.go    Table: the keyed entries an operator owns; handles.go, timers.go: typed handles over it
//	graph.go    Job, Node, Edge: the untyped graph that every face builds and runtime executes
//	stream.go   Stream[T], Attach: how a typed step becomes a node
//	build.go    Env, Built: how runtime makes one subtask's instance of a node
//	key.go      groups of keys; keycodec.go: the encoding of typed keys
//	secret.go   Secret: what shows *** wherever it is printed
//	api.go      the Go face: From, Filter, Map, KeyBy, To; process.go: keyed functions; codec.go: values as bytes
//
// Records are immutable once emitted: a value may be shared by several readers, also in other jobs.
// Nothing here starts a goroutine or opens a file. All types of a graph are safe to read concurrently once built.
package jobs
