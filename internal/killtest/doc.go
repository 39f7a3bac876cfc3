// Package killtest ends a program with kill -9 again and again, at random moments, starts it again until it is done, and
// looks at what it has left: the files it wrote and the topics in its log must be those of a run that nobody disturbed.
//
//	killtest.Suite{Command: killtest.Sidestream(t), Variant: killtest.ExactlyOnce, Times: 6, Kills: 20, …}.Run(t)
//
// # Plan
//
//	work.go      where a campaign happens: the six jobs of examples/air over files, their data, what they leave
//	campaign.go  start, kill, start again; suite.go: as often as wanted, with the comparison; broken programs caught by it
//	changes.go   the same while clients change the jobs: changer.go is one of them, changecheck.go what must be left
//	catchup.go   the same while a job that was added late reads the topic store
//	rounds.go    the same while actors ask things over the socket, with a log so short that it is cut all the time: move.go (seek,
//	             detach, purge, retention), update.go (remove with the state kept, updates on probation), again.go (replay, copy),
//	             rewind.go (replay from savepoints); path.go says what a reader must have given out whose place was changed so
//	days.go      the same while a repaired job of examples/air/repair reads days again
//	lossy.go     actors of rounds too: a topic that drops the oldest, and topics that are removed
//	repeats.go   what at_least_once may have sent twice, by what the log says after each kill
//	powercut_linux.go, launch_linux.go  a kill that also takes from the disk what was not fsynced: the kernel tells us of each
//	             fsync of the program, so that the real one can be tried, and one whose fsyncs do nothing can be made of it
//
//	repair_linux.go  a repair of the log that is killed at one fsync or another, with what was not fsynced lost or spoiled
//	tail.go      the same while what is read outside grows: files that are rotated away, a Kafka topic that gets partitions
//
// # What is killed, and what must be caught
//
// The suites kill the real program. A twin is a broken one that a suite must fail: it is a child of the test binary of runtime,
// whose committer has a log that leaves something out, writes it late or apart (runtime/crash_twin*_test.go), or the real program
// over a disk on which fsync does nothing. So no twin is in a program that anybody can get. Snapshots all the time are
// no setting of the real program either, and are tried in such a child.
//
//	what is killed                              suite                               twin
//	six jobs over files, exactly once           TestKill, TestKillInRecovery        TestTwinPositionsApart
//	the same at least once: what may repeat     TestKillAtLeastOnce                 TestTwinPositionsApart
//	the same, with snapshots all the time       runtime TestKillWithSnapshots       TestTwinPositionsApart
//	the same, what was not fsynced lost         TestPowerCut                        TestTwinWithoutFsync
//	jobs added, updated, removed, paused, …     TestKillChanges                     TestTwinChangesLate
//	a late job catches up from the topic store  TestKillInCatchUp                   TestTwinKillInCatchUp
//	seek                                        TestKillMoves                       TestTwinRounds/moves_late
//	detach, and resuming                        TestKillMoves                       TestTwinRounds/claims_kept
//	purge                                       TestKillRetention                   TestTwinRounds/purges_late
//	retention that is set                       TestKillRetention                   TestTwinRounds/retention_late
//	copying out to the topic store, cutting     TestKillMoves and all of Rounds     TestTwinRounds/store_forgotten
//	remove --keep-state, start from it          TestKillKeepState                   TestTwinRounds/changes_late
//	an update that fails, on probation          TestKillKeepState                   TestTwinRounds/probation_forgotten
//	what drop_oldest has lost, counted          TestKillLosses                      TestTwinRounds/losses_forgotten
//	removing topics                             TestKillSweeps                      TestTwinRounds/topics_late
//	replay into a job                           TestKillReplay                      TestTwinRounds/replays_apart
//	replay of days into a repaired job          TestKillDays                        TestTwinDaysNotRepaired, TestTwinDays
//	replay into a job from a savepoint          TestKillReplayFromSavepoint         TestTwinRounds/bases_of_now
//	replay into a topic                         TestKillReplay                      TestTwinRounds/positions_late
//	files that are followed and rotated away    TestKillFollow                      TestTwinGrows/follow
//	a Kafka topic that gets partitions          TestKillDiscovery                   TestTwinGrows/discovery
//	wal repair, what was not fsynced lost       TestKillRepair                      TestTwinRepairReusing, TestTwinRepairWithoutFsync
//
// Each prints its seed; CRASH_SEED repeats it as far as the machine does, and CRASH_KILLS makes more of it.
package killtest
