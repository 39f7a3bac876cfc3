// Package bench measures Sidestream against references in the same run: machines are noisy, ratios are not.
//
// Each measurement is a function that returns a Report; `sidestream bench NAME` prints it and `go test -bench` runs the small
// ones. A reference is the least that could do the same work: a channel, a plain append and fdatasync, a hand-written loop.
//
//	bus.go          (a) five producers, one consumer, durable, against append+fdatasync and a channel per record
//	latency.go      (b) hand-off, sealed and durable, at fixed rates
//	fiveplusone.go  (c) five Kafka topics, five jobs and a sixth, in Go (sensors.go) and YAML (fiveplusone/), against a
//	                hand-written loop
//	overhead.go     (d) log bytes per input event beside records and outputs
//	restart.go      (e) from the start of the process to processing, with a long log and much state
//	isolation.go    (f) the rate of healthy jobs beside sick ones
//	hotadd.go       (g) the rate of jobs while others are added, updated and removed
//	catchup.go      (h) a job that begins with a long history, and the live jobs' hand-off meanwhile
//	broker.go       a Kafka broker in a process of its own, so that its CPU is not counted as ours
package bench
