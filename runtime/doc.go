// Package runtime runs jobs: their subtasks and edges, barriers, the committer, senders, restarts and the life cycle.
//
// [Open] a [Runtime] on a data directory, [Runtime.Start] it with the jobs, [Runtime.Wait], [Runtime.Stop]:
//
//	rt, err := runtime.Open(runtime.Config{DataDir: "data"})
//	err = rt.Start([]*jobs.Job{j})
//	err = rt.Wait(ctx, true)
//	err = rt.Stop()
//
// While it runs, [Runtime.Apply] adds jobs and [Runtime.RemoveJob] takes them away; both are whole or absent, also across a
// crash. Two changes of one job come one after the other. A job whose [Origin] is the API's needs Config.Load, which makes it
// from its definition again when the next process starts. [Runtime.JobDefinitions] tells what the log knows of all jobs.
//
// # The path of an epoch
//
//	subtasks ─ pieces ─► execution (master) ─ one request ─► committer ─► log, bus
//	    ▲                    │  Coordinator decides              │ sealed: readers of topics, the master
//	    └──── barriers ──────┘                                   └ durable: senders, snapshots, sources' outsides
//
// A barrier travels the edges between the records; each subtask cuts its piece there: changed state entries, records for
// topics and outputs, positions, watermarks. The master joins the pieces and hands them to the committer, which alone
// gives out LSNs and offsets: one frame holds the epoch (or parts and a last frame, if it is large), so that it is whole or
// absent (R1). An output to the outside is a hidden topic of one partition, read by its sender once it is durable (R2).
//
// # Plan
//
//	runtime.go   Open, Start, Wait, Stop          register.go  what Start writes to the log: jobs, topics, subscriptions
//	job.go       one job: attempts, backoff       phase.go     the tables of its allowed moves and operations
//	change.go    changing jobs while they run: words, one at a time     inspect.go  building a job to look at it
//	apply.go, remove.go  adding and removing      members.go   which jobs and senders there are
//	plan.go      a graph cut into tasks           build.go     an attempt's subtasks
//	execution.go the master of one attempt        task.go      a subtask's loop
//	feed.go      outside and bus sources          discover.go  splits that come later
//	edge.go, out.go  what leaves a subtask
//	core.go      seal(epoch) → LSN, pure of goroutines; the simulator drives it
//	committer.go its goroutine and queues         ledger.go    what the log says, folded frame by frame
//	frames.go    kinds and controls of frames     recover.go   reading it all back
//	stores.go, snapshot.go  state over attempts and restarts
//	steps.go     watermarks over attempts and restarts      world.go   what is taken from the process around it
//	sender.go    outputs to the outside           janitor.go   cutting the log
//	status.go, done.go      how everything stands
//	topics.go, offline.go   looking into topics, of a process or of its directory
//
// # Frames
//
//	catalog  0x31 ledger (JSON), 0x32 the bus's catalog (JSON)
//	epoch    0x21 state of a step (its id behind a uvarint length, then checkpoint's entries) …, 0x10 records …, 0x20
//	         header, 0x11 index if it publishes anything
//	part     0x20 header with job, attempt and epoch alone, then 0x21 and 0x10 as above; nothing until an epoch lists it
//	control  0x30 a change (JSON), 0x11 index if it has marks
package runtime
