// Package jobstest drives jobs and steps without a runtime, and holds the suites that every Source and Sink must pass.
//
//	h := jobstest.New(t, job)                          // the whole graph, one subtask a step
//	h.Feed("", jobstest.At(ms, key, value), …)         // records of the only source, watermarks as runtime gives them
//	h.Barrier(); …; h.Crash()                          // back to the barrier: state, watermarks and outputs
//	h.End()                                            // the final watermark
//	got := h.Output("main")
//
// [NewStep] drives a single typed step; [Store] is its keyed state: a plain model of jobs.Table that also catches what
// the contract forbids, such as a value kept past the next call. Everything is for one goroutine.
package jobstest
