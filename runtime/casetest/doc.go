// Package casetest runs the cases of jobs: records in, expected out, on virtual time, without log, network and disk.
//
//	cases, problems := spec.LoadCases(cfg, "jobs/")
//	for _, c := range cases {
//		r := casetest.Run(c)
//		if !r.Passed() { r.Text(os.Stdout, paint) } // the differences, and which step decided
//	}
//
// What runs is the graph that the loader built, with the steps, the state and the edges of a running job; sources and
// sinks are never opened. One goroutine does everything, one moment of the case after the other: a record goes through
// all steps of all jobs before event time moves, and event time has arrived everywhere before the next record comes.
// So a case says the same at every parallelism and on every machine. Rules of event time are those of package runtime:
// a partition's watermark is its highest time, less the source's out-of-orderness, less 1 ms; a source's is the lowest of
// its partitions, those that have said nothing included; a step's the lowest of what it reads.
//
// # Order
//
// What event time makes several keys emit at one moment has no order of its own in a running job, where they are in
// several subtasks. Here it comes in the order of event times, then of keys.
//
// # Plan
//
//	engine.go   jobs in one goroutine: subtasks, edges, watermarks, topics
//	feed.go     what comes from a case: splits and their event time
//	trace.go    what became of each record, as a tree
//	run.go      a case from its input to its verdict; match.go compares
//	blame.go    which step decided
//	update.go   what a case would have to expect
//	muted.go    one job on records from elsewhere, for a shadow run
//	text.go, junit.go    reports
package casetest
