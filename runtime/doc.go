// Package runtime runs jobs: their subtasks and edges, barriers, the committer, senders, restarts and the life cycle.
//
// [Open] a [Runtime] on a data directory, [Runtime.Start] it with the jobs, [Runtime.Wait], [Runtime.Stop]:
//
//	rt, err := runtime.Open(runtime.Config{DataDir: "data"})
//	err = rt.Start([]*jobs.Job{j})
//	err = rt.Wait(ctx, true)
//	err = rt.Stop()
//
// # Changing jobs while they run
//
//	res, err := rt.Apply(ctx, []runtime.Definition{{Job: j, Origin: runtime.OriginAPI}}, runtime.ApplyOptions{})
//	err = rt.PauseJob(ctx, "j")      ResumeJob, RestartJob, StopJob(ctx, "j", StopOptions{Force: true})
//	sp, err := rt.Savepoint(ctx, "j", "before")     Savepoints, DeleteSavepoint; ApplyOptions.From begins with one
//	res, err := rt.RemoveJob(ctx, "j", runtime.RemoveOptions{KeepState: true})
//	moved, err := rt.Seek(ctx, "j", "topic", runtime.Place{Latest: true}, false)     Detach, PurgeTopic, SetRetention, RemoveTopic
//	res, err := rt.Replay(ctx, "j", "topic", runtime.ReplayOptions{})     Shadow(ctx, "topic", ShadowOptions{Definition: j2, …})
//
// Each is whole or absent, also across a crash, and has happened and is durable when it returns nil; an error other than the
// log's says that nothing has changed. Two changes of one job come one after the other; one that waits ends with its context.
// Refusals are *ApplyError (by job), *StateLossError within it, *PhaseError, *UnsentError, ErrNoJob, ErrNotRunning.
// ApplyOptions.DryRun gives the [Diff] alone. What happens later, such as a definition that fails on probation and is taken
// back (see probation.go), is an [Event]: [Runtime.Events] gives those behind a number and a channel that is closed when there
// are more, and [Runtime.JobLog] does the same for the lines of a job's log. [Runtime.JobDefinitions] tells what the log knows
// of all jobs, also of those that nobody gave a definition of.
//
// A job belongs to files or to the API ([Origin]). Those of the API are made again from their definitions by Config.Load when
// the next process starts, and so is the definition that one on probation had before. A file's definition that has changed by
// the next Start is changed by the same rules (Config.AllowStateLoss), without probation, in the one frame of Start.
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
//	version.go   changing what somebody has looked at
//	change.go    changing jobs while they run: words, one at a time     inspect.go  building a job to look at it
//	connect.go   asking outsides before a swap     outputs.go   outputs over changes, and what is dropped of them
//	apply.go, remove.go, lifecycle.go  what can be done to jobs         diff.go      what a definition changes
//	probation.go what comes back                  savepoint.go snapshots with names
//	seek.go, place.go, retain.go  places of readers, and what topics keep      replay.go  reading a topic again
//	copy.go      reading a topic again into another one                 topicremove.go  a topic goes
//	shadow.go, shadow_parts.go, shadow_range.go, shadow_run.go, shadow_compare.go  another definition on what a job has read
//	past.go      in which stretches a job has read a topic
//	members.go   which jobs and senders there are                       events.go, joblog.go  what has happened
//	plan.go      a graph cut into tasks           build.go     an attempt's subtasks
//	execution.go the master of one attempt        task.go      a subtask's loop
//	feed.go      outside and bus sources          discover.go  splits that come later
//	pace.go      jobs that catch up leave those that are live their time
//	edge.go, out.go  what leaves a subtask
//	core.go      seal(epoch) → LSN, pure of goroutines; the simulator drives it
//	committer.go its goroutine and queues         ledger.go    what the log says, folded frame by frame
//	frames.go    kinds and controls of frames     recover.go   reading it all back
//	stores.go, snapshot.go  state over attempts and restarts
//	steps.go     watermarks over attempts and restarts      world.go   what is taken from the process around it
//	sender.go    outputs to the outside           janitor.go   cutting the log, moving out of it
//	seldom.go    what goes wrong again and again  replay_cut.go  windows that a replay has only the rest of
//	fold.go      snapshots of jobs that do not run           retain.go    purge, retention
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
